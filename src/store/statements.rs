//! Every statement on a user's tasks. The user id is always `$1`; values travel as parameters only.

use postgres::types::{ToSql, Type};

/// A statement and the types of its parameters. The types are given, not inferred, so that the statement means
/// the same whether it is prepared first or sent at once.
pub struct Statement {
    sql: &'static str,
    /// The text for a PostgreSQL without the collations of ICU, if it differs.
    sql_without_icu: Option<&'static str>,
    pub types: &'static [Type],
    pub effect: Effect,
}

/// The effect of a statement on the tasks.
#[derive(Clone, Copy, PartialEq)]
pub enum Effect {
    Read,
    /// Changes tasks; running it a second time could change more.
    Change,
    /// Changes tasks; running it a second time changes nothing more.
    ChangeOnce,
}

impl Effect {
    pub fn is_change(self) -> bool {
        self != Self::Read
    }

    /// Whether it is harmless to run the statement twice. If so, it is sent again when a connection broke before
    /// the answer came.
    pub fn may_repeat(self) -> bool {
        self != Self::Change
    }
}

impl Statement {
    pub fn sql(&self, has_icu: bool) -> &'static str {
        self.sql_without_icu.filter(|_| !has_icu).unwrap_or(self.sql)
    }

    /// Pairs each value with the type of its parameter.
    pub fn typed<'v>(&self, values: Values<'v>) -> Vec<(&'v (dyn ToSql + Sync), Type)> {
        values.iter().copied().zip(self.types.iter().cloned()).collect()
    }
}

/// The values of a statement's parameters.
pub type Values<'v> = &'v [&'v (dyn ToSql + Sync)];

const TIMES: Type = Type::TIMESTAMPTZ_ARRAY;

/// The statement of `tinytasks export`.
pub const EXPORT: &str = "select id, title, description, complete, created_at, updated_at
    from tasks where user_id = $1 order by id";
/// The statements of `tinytasks purge`: with `--dry-run`, and without.
pub const COUNT: &str = "select count(*) from tasks where user_id = $1";
pub const PURGE: &str = "delete from tasks where user_id = $1";

/// The statements that serve requests. All use the primary key `(user_id, id)`; only INSERT_ONCE and FIND_KEY
/// use the unique index on `(user_id, idempotency_key)`. A change is atomic because PostgreSQL locks the row: if
/// it had to wait for another change of the row, it evaluates the precondition again afterwards.
pub static STATEMENTS: [&Statement; 17] = [
    &BY_ID,
    &BY_ID_DESC,
    &BY_CREATED,
    &BY_CREATED_DESC,
    &BY_UPDATED,
    &BY_UPDATED_DESC,
    &BY_TITLE,
    &BY_TITLE_DESC,
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

/// The statements of the most frequent requests. Each connection prepares them. The other statements sort,
/// count or change many rows, so parsing them each time is a small part of their cost.
pub static PREPARED: [&Statement; 8] =
    [&BY_ID, &BY_ID_DESC, &GET, &INSERT, &INSERT_ONCE, &FIND_KEY, &UPDATE, &DELETE];

/// A condition: the title or the description contains the text of a parameter, compared without regard to case.
/// It is true if the parameter is null. `upper(lower())` makes texts equal that differ only in case, even if a
/// letter has three forms, like the Greek sigma. The text is not a pattern, so no character in it is special.
#[rustfmt::skip]
macro_rules! is_found {
    ($text:literal, $collate:literal) => { concat!("(", $text, " is null
            or strpos(upper(lower(title ", $collate, ")), upper(lower(", $text, " ", $collate, "))) > 0
            or strpos(upper(lower(description ", $collate, ")), upper(lower(", $text, " ", $collate, "))) > 0)") };
}

/// A list ordered by id. It reads a range of the primary key, which begins after the id `$6`.
#[rustfmt::skip]
macro_rules! by_id {
    ($beyond:literal, $direction:literal, $collate:literal) => { concat!(
        "select id, title, description, complete, created_at, updated_at from tasks
        where user_id = $1 and ($2 is null or complete = $2) and ", is_found!("$3", $collate), "
            and id ", $beyond, " $6
        order by id ", $direction, " limit $4 offset $5") };
}

/// A list ordered by an instant. It reads and sorts all tasks of the user. The list begins after the task whose
/// instant is `$7` and whose id is `$6`, or with the first task if `$7` is null.
#[rustfmt::skip]
macro_rules! by_instant {
    ($key:literal, $beyond:literal, $direction:literal, $collate:literal) => { concat!(
        "select id, title, description, complete, created_at, updated_at from tasks
        where user_id = $1 and ($2 is null or complete = $2) and ", is_found!("$3", $collate), "
            and ($7 is null or (", $key, ", id) ", $beyond, " ($7, $6))
        order by ", $key, " ", $direction, ", id ", $direction, " limit $4 offset $5") };
}

/// The same, ordered by the first 200 characters of the title. Rows that are older than the table's constraints
/// may have longer titles, which would not fit into a cursor.
#[rustfmt::skip]
macro_rules! by_title {
    ($beyond:literal, $direction:literal, $collate:literal) => { concat!(
        "select id, title, description, complete, created_at, updated_at from tasks
        where user_id = $1 and ($2 is null or complete = $2) and ", is_found!("$3", $collate), "
            and ($7 is null or (left(title, 200) ", $collate, ", id) ", $beyond, " ($7, $6))
        order by left(title, 200) ", $collate, " ", $direction, ", id ", $direction, " limit $4 offset $5") };
}

/// A statement that compares texts has two versions: one uses Unicode's root collation, which is part of ICU, and
/// the other uses the database's default collation.
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
pub static BY_ID_DESC: Statement = collated!(by_id!("<", "desc"), ID_TYPES, Effect::Read);
pub static BY_CREATED: Statement =
    collated!(by_instant!("created_at", ">", "asc"), INSTANT_TYPES, Effect::Read);
pub static BY_CREATED_DESC: Statement =
    collated!(by_instant!("created_at", "<", "desc"), INSTANT_TYPES, Effect::Read);
pub static BY_UPDATED: Statement =
    collated!(by_instant!("updated_at", ">", "asc"), INSTANT_TYPES, Effect::Read);
pub static BY_UPDATED_DESC: Statement =
    collated!(by_instant!("updated_at", "<", "desc"), INSTANT_TYPES, Effect::Read);
pub static BY_TITLE: Statement = collated!(by_title!(">", "asc"), TITLE_TYPES, Effect::Read);
pub static BY_TITLE_DESC: Statement = collated!(by_title!("<", "desc"), TITLE_TYPES, Effect::Read);

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
/// Both times get the default of their columns, `now()`, so they are the same instant.
pub static INSERT: Statement = Statement {
    sql: "insert into tasks (user_id, title, description, complete) values ($1, $2, $3, $4)
        returning id, title, description, complete, created_at, updated_at",
    sql_without_icu: None,
    types: &[Type::TEXT, Type::TEXT, Type::TEXT, Type::BOOL],
    effect: Effect::Change,
};
/// Of several requests with the same key, the unique index lets only one insert a row. The others wait until that
/// one commits, and then return no row.
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
/// Finds the task that was made with an idempotency key.
pub static FIND_KEY: Statement = Statement {
    sql: "select id, title, description, complete, created_at, updated_at, idempotency_hash
            = sha256(convert_to(json_build_array($2, $3, $4)::text, 'UTF8')) as is_same
        from tasks where user_id = $1 and idempotency_key = $5",
    sql_without_icu: None,
    types: &[Type::TEXT, Type::TEXT, Type::TEXT, Type::BOOL, Type::TEXT],
    effect: Effect::Read,
};

/// The new `updated_at` of a changed task: the current time, or a microsecond after the old value if the clock
/// shows an earlier time. In an update, Citus accepts no volatile function, so this uses `now()`; and no stable
/// function of a column, so the microsecond is added to a time without zone, which is an immutable operation.
macro_rules! later {
    () => {
        "greatest(now(), (greatest(created_at, updated_at) at time zone 'UTC'
                + interval '1 microsecond') at time zone 'UTC')"
    };
}

/// A null for title (`$5`) or complete (`$8`) keeps the old value. For the description null is a possible value,
/// so `$7` says whether `$6` is to be set. `$3` is null without `If-Match`, and `$4` without `If-None-Match`.
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
/// This statement and the next one read all tasks of the user. They are not repeated after a lost answer: a
/// second run would return another count, and would also change tasks that came into the state since.
pub static UPDATE_MANY: Statement =
    collated!(update_many!(), &[Type::TEXT, Type::BOOL, Type::TEXT, Type::BOOL], Effect::Change);
pub static DELETE_MANY: Statement =
    collated!(delete_many!(), &[Type::TEXT, Type::BOOL, Type::TEXT], Effect::Change);
