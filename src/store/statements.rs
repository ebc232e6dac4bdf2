//! Every statement on a user's tasks. The user id is always `$1`; values travel as parameters only.

use postgres::types::{ToSql, Type};

/// A statement and the types of its parameters, which make it mean the same whether it is prepared
/// first or sent at once.
pub struct Statement {
    sql: &'static str,
    /// The text for a PostgreSQL that was built without ICU, where it differs.
    sql_without_icu: Option<&'static str>,
    pub types: &'static [Type],
    pub effect: Effect,
}

/// The effect of a statement on the tasks.
#[derive(Clone, Copy, PartialEq)]
pub enum Effect {
    Read,
    /// It changes tasks, and would change more a second time.
    Change,
    /// It changes tasks, and nothing more a second time.
    ChangeOnce,
}

impl Effect {
    pub fn is_change(self) -> bool {
        self != Self::Read
    }

    /// Whether doing it twice is harmless. If so, the statement is sent again after a connection broke
    /// before its answer.
    pub fn may_repeat(self) -> bool {
        self != Self::Change
    }
}

impl Statement {
    pub fn sql(&self, has_icu: bool) -> &'static str {
        self.sql_without_icu.filter(|_| !has_icu).unwrap_or(self.sql)
    }

    /// The values, each with the type of its parameter.
    pub fn typed<'v>(&self, values: Values<'v>) -> Vec<(&'v (dyn ToSql + Sync), Type)> {
        values.iter().copied().zip(self.types.iter().cloned()).collect()
    }
}

/// The values of a statement's parameters.
pub type Values<'v> = &'v [&'v (dyn ToSql + Sync)];

const TIMES: Type = Type::TIMESTAMPTZ_ARRAY;

/// For `tinytasks export`.
pub const EXPORT: &str = "select id, title, description, complete, created_at, updated_at
    from tasks where user_id = $1 order by id";
/// For `tinytasks purge`.
pub const COUNT: &str = "select count(*) from tasks where user_id = $1";
pub const PURGE: &str = "delete from tasks where user_id = $1";

/// The statements that serve requests. All use the primary key `(user_id, id)`; only INSERT_ONCE and
/// FIND_KEY use the unique index on `(user_id, idempotency_key)`. A change is atomic through the row's
/// lock: PostgreSQL evaluates the precondition again after it had to wait for another change.
pub static STATEMENTS: [&Statement; 17] = [
    &BY_ID,
    &BY_ID_DOWN,
    &BY_CREATED,
    &BY_CREATED_DOWN,
    &BY_UPDATED,
    &BY_UPDATED_DOWN,
    &BY_TITLE,
    &BY_TITLE_DOWN,
    &TOTALS,
    &GET,
    &INSERT,
    &INSERT_ONCE,
    &FIND_KEY,
    &UPDATE,
    &UPDATE_MANY,
    &DELETE,
    &DELETE_MANY,
];

/// Those of everyday requests, which each connection prepares. The others sort, count or change many rows;
/// parsing them each time is a small part of what they cost.
pub static PREPARED: [&Statement; 8] =
    [&BY_ID, &BY_ID_DOWN, &GET, &INSERT, &INSERT_ONCE, &FIND_KEY, &UPDATE, &DELETE];

/// Whether the text of a parameter is in the title or the description, case ignored; true where the
/// parameter is null. `upper(lower())` makes texts equal that differ in case alone, also where a letter
/// has three forms, such as the Greek sigma. No character is special, because nothing is a pattern.
#[rustfmt::skip]
macro_rules! is_found {
    ($text:literal, $collate:literal) => { concat!("(", $text, " is null
            or strpos(upper(lower(title ", $collate, ")), upper(lower(", $text, " ", $collate, "))) > 0
            or strpos(upper(lower(description ", $collate, ")), upper(lower(", $text, " ", $collate, "))) > 0)") };
}

/// A list by id: a range of the primary key, which begins beyond the id `$6`.
#[rustfmt::skip]
macro_rules! by_id {
    ($beyond:literal, $direction:literal, $collate:literal) => { concat!(
        "select id, title, description, complete, created_at, updated_at from tasks
        where user_id = $1 and ($2 is null or complete = $2) and ", is_found!("$3", $collate), "
            and id ", $beyond, " $6
        order by id ", $direction, " limit $4 offset $5") };
}

/// A list by an instant: reads all tasks of the user, and sorts them. It begins beyond the instant `$7`
/// and, where that is the same, the id `$6`; at the first task where `$7` is null.
#[rustfmt::skip]
macro_rules! by_instant {
    ($key:literal, $beyond:literal, $direction:literal, $collate:literal) => { concat!(
        "select id, title, description, complete, created_at, updated_at from tasks
        where user_id = $1 and ($2 is null or complete = $2) and ", is_found!("$3", $collate), "
            and ($7 is null or (", $key, ", id) ", $beyond, " ($7, $6))
        order by ", $key, " ", $direction, ", id ", $direction, " limit $4 offset $5") };
}

/// The same by the first 200 characters of the title. Rows from before the rules may have longer titles,
/// which would not fit into a cursor.
#[rustfmt::skip]
macro_rules! by_title {
    ($beyond:literal, $direction:literal, $collate:literal) => { concat!(
        "select id, title, description, complete, created_at, updated_at from tasks
        where user_id = $1 and ($2 is null or complete = $2) and ", is_found!("$3", $collate), "
            and ($7 is null or (left(title, 200) ", $collate, ", id) ", $beyond, " ($7, $6))
        order by left(title, 200) ", $collate, " ", $direction, ", id ", $direction, " limit $4 offset $5") };
}

/// The two texts of a statement that compares texts: by Unicode's root collation, which ICU brings, or by
/// that of the database.
macro_rules! collated {
    ($sql:ident!($($argument:literal),*), $types:expr, $effect:expr) => {
        Statement {
            sql: $sql!($($argument,)* r#"collate "und-x-icu""#),
            sql_without_icu: Some($sql!($($argument,)* r#"collate "default""#)),
            types: $types,
            effect: $effect,
        }
    };
}

const ID_TYPES: &[Type] = &[Type::TEXT, Type::BOOL, Type::TEXT, Type::INT8, Type::INT8, Type::INT8];
const INSTANT_TYPES: &[Type] =
    &[Type::TEXT, Type::BOOL, Type::TEXT, Type::INT8, Type::INT8, Type::INT8, Type::TIMESTAMPTZ];
const TITLE_TYPES: &[Type] =
    &[Type::TEXT, Type::BOOL, Type::TEXT, Type::INT8, Type::INT8, Type::INT8, Type::TEXT];

pub static BY_ID: Statement = collated!(by_id!(">", "asc"), ID_TYPES, Effect::Read);
pub static BY_ID_DOWN: Statement = collated!(by_id!("<", "desc"), ID_TYPES, Effect::Read);
pub static BY_CREATED: Statement =
    collated!(by_instant!("created_at", ">", "asc"), INSTANT_TYPES, Effect::Read);
pub static BY_CREATED_DOWN: Statement =
    collated!(by_instant!("created_at", "<", "desc"), INSTANT_TYPES, Effect::Read);
pub static BY_UPDATED: Statement =
    collated!(by_instant!("updated_at", ">", "asc"), INSTANT_TYPES, Effect::Read);
pub static BY_UPDATED_DOWN: Statement =
    collated!(by_instant!("updated_at", "<", "desc"), INSTANT_TYPES, Effect::Read);
pub static BY_TITLE: Statement = collated!(by_title!(">", "asc"), TITLE_TYPES, Effect::Read);
pub static BY_TITLE_DOWN: Statement = collated!(by_title!("<", "desc"), TITLE_TYPES, Effect::Read);

#[rustfmt::skip]
macro_rules! totals {
    ($collate:literal) => { concat!(
        "select count(*), count(*) filter (where not complete), count(*) filter (where complete)
        from tasks where user_id = $1 and ", is_found!("$2", $collate)) };
}
pub static TOTALS: Statement = collated!(totals!(), &[Type::TEXT, Type::TEXT], Effect::Read);

pub static GET: Statement = Statement {
    sql: "select id, title, description, complete, created_at, updated_at
        from tasks where user_id = $1 and id = $2",
    sql_without_icu: None,
    types: &[Type::TEXT, Type::INT8],
    effect: Effect::Read,
};
/// Both times are the column's default, `now()`: one instant.
pub static INSERT: Statement = Statement {
    sql: "insert into tasks (user_id, title, description, complete) values ($1, $2, $3, $4)
        returning id, title, description, complete, created_at, updated_at",
    sql_without_icu: None,
    types: &[Type::TEXT, Type::TEXT, Type::TEXT, Type::BOOL],
    effect: Effect::Change,
};
/// Of several requests with one key, the unique index lets one insert; the others wait for its commit
/// and then return no row.
pub static INSERT_ONCE: Statement = Statement {
    sql: "insert into tasks (user_id, title, description, complete, idempotency_key, idempotency_hash)
        values ($1, $2, $3, $4, $5,
            sha256(convert_to(json_build_array($2, $3, $4)::text, 'UTF8')))
        on conflict (user_id, idempotency_key) where idempotency_key is not null do nothing
        returning id, title, description, complete, created_at, updated_at, true as is_same",
    sql_without_icu: None,
    types: &[Type::TEXT, Type::TEXT, Type::TEXT, Type::BOOL, Type::TEXT],
    effect: Effect::ChangeOnce,
};
pub static FIND_KEY: Statement = Statement {
    sql: "select id, title, description, complete, created_at, updated_at, idempotency_hash
            = sha256(convert_to(json_build_array($2, $3, $4)::text, 'UTF8')) as is_same
        from tasks where user_id = $1 and idempotency_key = $5",
    sql_without_icu: None,
    types: &[Type::TEXT, Type::TEXT, Type::TEXT, Type::BOOL, Type::TEXT],
    effect: Effect::Read,
};

/// The `updated_at` of a changed task: now, or a microsecond after the old one where the clock says less.
/// Citus accepts no volatile function in an update, so `now()` stands for the clock; and no stable
/// function of a column, so the microsecond is added to a time without zone, which is immutable.
macro_rules! later {
    () => {
        "greatest(now(), (greatest(created_at, updated_at) at time zone 'UTC'
                + interval '1 microsecond') at time zone 'UTC')"
    };
}

/// A null keeps title and complete. For the description null is a value, so `$7` says whether `$6` is
/// to be set. `$3` is null without `If-Match`; `$4` without `If-None-Match`.
#[rustfmt::skip]
pub static UPDATE: Statement = Statement {
    sql: concat!(
        "update tasks set title = coalesce($5, title), complete = coalesce($8, complete),
            description = case when $7 then $6 else description end, updated_at = ", later!(), "
        where user_id = $1 and id = $2 and ($3 is null or updated_at = any($3))
            and ($4 is null or updated_at <> all($4))
        returning id, title, description, complete, created_at, updated_at"),
    sql_without_icu: None,
    types: &[Type::TEXT, Type::INT8, TIMES, TIMES, Type::TEXT, Type::TEXT, Type::BOOL, Type::BOOL],
    effect: Effect::Change,
};
pub static DELETE: Statement = Statement {
    sql: "delete from tasks
        where user_id = $1 and id = $2 and ($3 is null or updated_at = any($3))
            and ($4 is null or updated_at <> all($4))
        returning id",
    sql_without_icu: None,
    types: &[Type::TEXT, Type::INT8, TIMES, TIMES],
    effect: Effect::Change,
};

#[rustfmt::skip]
macro_rules! update_many {
    ($collate:literal) => { concat!(
        "update tasks set complete = $4, updated_at = ", later!(), "
        where user_id = $1 and complete = $2 and ", is_found!("$3", $collate)) };
}
#[rustfmt::skip]
macro_rules! delete_many {
    ($collate:literal) => { concat!(
        "delete from tasks where user_id = $1 and complete = $2 and ", is_found!("$3", $collate)) };
}
/// Both read all tasks of the user. They are not repeated: a second run would count anew, and take tasks
/// that came into that state since.
pub static UPDATE_MANY: Statement =
    collated!(update_many!(), &[Type::TEXT, Type::BOOL, Type::TEXT, Type::BOOL], Effect::Change);
pub static DELETE_MANY: Statement =
    collated!(delete_many!(), &[Type::TEXT, Type::BOOL, Type::TEXT], Effect::Change);
