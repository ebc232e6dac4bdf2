//! Every statement on a user's tasks. The user id is always `$1`; values travel as parameters only.

use postgres::types::{ToSql, Type};

/// A statement and the types of its parameters, which make it mean the same whether it is prepared
/// first or sent at once.
pub struct Statement {
    pub sql: &'static str,
    pub types: &'static [Type],
    /// Whether doing it twice is harmless: then it is sent again where a connection broke and nobody
    /// knows whether it was done.
    pub may_repeat: bool,
}

impl Statement {
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

/// The statements that serve requests. All use the primary key `(user_id, id)`, lists a range of it;
/// only INSERT_ONCE and FIND_KEY use the unique index on `(user_id, idempotency_key)`. A change is
/// atomic through the row's lock: PostgreSQL evaluates the precondition again after it had to wait for
/// another change.
pub static STATEMENTS: [&Statement; 8] =
    [&LIST_UP, &LIST_DOWN, &GET, &INSERT, &INSERT_ONCE, &FIND_KEY, &UPDATE, &DELETE];

pub static LIST_UP: Statement = Statement {
    sql: "select id, title, description, complete, created_at, updated_at
        from tasks where user_id = $1 and id > $2 and ($3 is null or complete = $3)
        order by id limit $4 offset $5",
    types: &[Type::TEXT, Type::INT8, Type::BOOL, Type::INT8, Type::INT8],
    may_repeat: true,
};
pub static LIST_DOWN: Statement = Statement {
    sql: "select id, title, description, complete, created_at, updated_at
        from tasks where user_id = $1 and id < $2 and ($3 is null or complete = $3)
        order by id desc limit $4 offset $5",
    types: &[Type::TEXT, Type::INT8, Type::BOOL, Type::INT8, Type::INT8],
    may_repeat: true,
};
pub static GET: Statement = Statement {
    sql: "select id, title, description, complete, created_at, updated_at
        from tasks where user_id = $1 and id = $2",
    types: &[Type::TEXT, Type::INT8],
    may_repeat: true,
};
/// Both times are the column's default, `now()`: one instant.
pub static INSERT: Statement = Statement {
    sql: "insert into tasks (user_id, title, description, complete) values ($1, $2, $3, $4)
        returning id, title, description, complete, created_at, updated_at",
    types: &[Type::TEXT, Type::TEXT, Type::TEXT, Type::BOOL],
    may_repeat: false,
};
/// Of several requests with one key, the unique index lets one insert; the others wait for its commit
/// and then return no row.
pub static INSERT_ONCE: Statement = Statement {
    sql: "insert into tasks (user_id, title, description, complete, idempotency_key, idempotency_hash)
        values ($1, $2, $3, $4, $5,
            sha256(convert_to(json_build_array($2, $3, $4)::text, 'UTF8')))
        on conflict (user_id, idempotency_key) where idempotency_key is not null do nothing
        returning id, title, description, complete, created_at, updated_at, true as is_same",
    types: &[Type::TEXT, Type::TEXT, Type::TEXT, Type::BOOL, Type::TEXT],
    may_repeat: true,
};
pub static FIND_KEY: Statement = Statement {
    sql: "select id, title, description, complete, created_at, updated_at, idempotency_hash
            = sha256(convert_to(json_build_array($2, $3, $4)::text, 'UTF8')) as is_same
        from tasks where user_id = $1 and idempotency_key = $5",
    types: &[Type::TEXT, Type::TEXT, Type::TEXT, Type::BOOL, Type::TEXT],
    may_repeat: true,
};
/// A null keeps title and complete. For the description null is a value, so `$7` says whether `$6` is
/// to be set. `$3` is null without `If-Match`; `$4` without `If-None-Match`.
///
/// The new `updated_at` is now, or a microsecond after the old one where the clock says less. Citus
/// accepts no volatile function in an update, so `now()` stands for the clock; and no stable function
/// of a column, so the microsecond is added to a time without zone, which is immutable.
pub static UPDATE: Statement = Statement {
    sql: "update tasks set title = coalesce($5, title), complete = coalesce($8, complete),
            description = case when $7 then $6 else description end,
            updated_at = greatest(now(), (greatest(created_at, updated_at) at time zone 'UTC'
                + interval '1 microsecond') at time zone 'UTC')
        where user_id = $1 and id = $2 and ($3 is null or updated_at = any($3))
            and ($4 is null or updated_at <> all($4))
        returning id, title, description, complete, created_at, updated_at",
    types: &[Type::TEXT, Type::INT8, TIMES, TIMES, Type::TEXT, Type::TEXT, Type::BOOL, Type::BOOL],
    may_repeat: false,
};
pub static DELETE: Statement = Statement {
    sql: "delete from tasks
        where user_id = $1 and id = $2 and ($3 is null or updated_at = any($3))
            and ($4 is null or updated_at <> all($4))
        returning id",
    types: &[Type::TEXT, Type::INT8, TIMES, TIMES],
    may_repeat: false,
};
