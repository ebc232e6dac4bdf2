//! Tasks in PostgreSQL: every statement that serves a request, and row → [`Task`].
//! Relies on [`Caller`]: each statement carries its user id as `$1`, and there is no other way in.
//! Guarantees: what returned Ok is committed.

mod pool;
mod schema;
mod sqlstate;

pub use pool::check_url;
pub use schema::{inspect, migrate};

use crate::auth::Caller;
use crate::error::Error;
use crate::task::{Content, Instant, Page, Patch, Precondition, Task, TaskId, Text};
use pool::{Pool, Repeat};
use postgres::Row;
use postgres::types::{FromSql, ToSql, Type};
use std::time::{Duration, SystemTime};

/// How often a create is tried with a key that others free.
const KEY_TRIES_MAX: usize = 3;

/// A statement and the types of its parameters, so that it means the same prepared or not.
struct Statement {
    sql: &'static str,
    types: &'static [Type],
}

/// Where a statement stands in [`STATEMENTS`].
#[derive(Clone, Copy)]
enum Do {
    ListUp,
    ListDown,
    Get,
    Insert,
    FindKey,
    Replace,
    Patch,
    Delete,
}

/// All go by the primary key `(user_id, id)`, lists by a range of it; only FindKey, and Insert when
/// there is a key, by the unique index on `(user_id, idempotency_key)`. A change is atomic by the
/// row's lock: PostgreSQL looks at the precondition again when it had to wait for another change.
/// `updated_at` moves forward whatever the clock does.
static STATEMENTS: [Statement; 8] = [
    Statement {
        sql: "select id, title, description, complete, created_at, updated_at
            from tasks where user_id = $1 and id > $2 and ($3 is null or complete = $3)
            order by id limit $4 offset $5",
        types: &[Type::TEXT, Type::INT8, Type::BOOL, Type::INT8, Type::INT8],
    },
    Statement {
        sql: "select id, title, description, complete, created_at, updated_at
            from tasks where user_id = $1 and id < $2 and ($3 is null or complete = $3)
            order by id desc limit $4 offset $5",
        types: &[Type::TEXT, Type::INT8, Type::BOOL, Type::INT8, Type::INT8],
    },
    Statement {
        sql: "select id, title, description, complete, created_at, updated_at
            from tasks where user_id = $1 and id = $2",
        types: &[Type::TEXT, Type::INT8],
    },
    // Both times are the column's default, now(): one instant. Of several with one key, the unique
    // index lets one in; the others wait for its commit, and give no row.
    Statement {
        sql: "insert into tasks (user_id, title, description, complete, idempotency_key, idempotency_hash)
            values ($1, $2, $3, $4, $5, case when $5 is not null
                then sha256(convert_to(json_build_array($2, $3, $4)::text, 'UTF8')) end)
            on conflict (user_id, idempotency_key) where idempotency_key is not null do nothing
            returning id, title, description, complete, created_at, updated_at, true as is_same",
        types: &[Type::TEXT, Type::TEXT, Type::TEXT, Type::BOOL, Type::TEXT],
    },
    Statement {
        sql: "select id, title, description, complete, created_at, updated_at, idempotency_hash
                = sha256(convert_to(json_build_array($2, $3, $4)::text, 'UTF8')) as is_same
            from tasks where user_id = $1 and idempotency_key = $5",
        types: &[Type::TEXT, Type::TEXT, Type::TEXT, Type::BOOL, Type::TEXT],
    },
    Statement {
        sql: "update tasks set title = $5, description = $6, complete = $7, updated_at =
                greatest(clock_timestamp(), greatest(created_at, updated_at) + interval '1 microsecond')
            where user_id = $1 and id = $2 and ($3 is null or updated_at = any($3)) and updated_at <> all($4)
            returning id, title, description, complete, created_at, updated_at",
        types: &[
            Type::TEXT,
            Type::INT8,
            Type::TIMESTAMPTZ_ARRAY,
            Type::TIMESTAMPTZ_ARRAY,
            Type::TEXT,
            Type::TEXT,
            Type::BOOL,
        ],
    },
    // A null keeps title and complete. For description null is a value, so $7 says whether $6 counts.
    Statement {
        sql: "update tasks set title = coalesce($5, title), complete = coalesce($8, complete),
                description = case when $7 then $6 else description end, updated_at =
                greatest(clock_timestamp(), greatest(created_at, updated_at) + interval '1 microsecond')
            where user_id = $1 and id = $2 and ($3 is null or updated_at = any($3)) and updated_at <> all($4)
            returning id, title, description, complete, created_at, updated_at",
        types: &[
            Type::TEXT,
            Type::INT8,
            Type::TIMESTAMPTZ_ARRAY,
            Type::TIMESTAMPTZ_ARRAY,
            Type::TEXT,
            Type::TEXT,
            Type::BOOL,
            Type::BOOL,
        ],
    },
    Statement {
        sql: "delete from tasks
            where user_id = $1 and id = $2 and ($3 is null or updated_at = any($3)) and updated_at <> all($4)
            returning id",
        types: &[Type::TEXT, Type::INT8, Type::TIMESTAMPTZ_ARRAY, Type::TIMESTAMPTZ_ARRAY],
    },
];

/// The tasks of all users, each within reach of its [`Caller`] alone. A connection is held for the
/// length of one statement.
///
/// Errors of every method: `Unavailable` when the database cannot answer in time, `Database` when
/// it refuses for good, `NoSuchTask`, and `Invalid` when a row from before breaks a rule that a
/// change of it would have to keep.
pub struct Store {
    pool: Pool,
}

impl Store {
    /// Does not wait for the database: until it is there, every call is `Unavailable`.
    pub fn open(database: &crate::config::Database, auto_migrate: bool) -> Result<Self, String> {
        Pool::open(database, auto_migrate).map(|pool| Self { pool })
    }

    /// Whether the database answered within the last two seconds. Never waits.
    pub fn is_reachable(&self) -> bool {
        self.pool.is_reachable()
    }

    /// Connections made from now on use `url`.
    pub fn reconnect_with(&self, url: &str) -> Result<(), String> {
        self.pool.reconnect_with(url)
    }

    /// The first `limit` of the caller's tasks on that page, by id.
    pub fn list<'c>(&self, caller: &'c Caller, page: Page, limit: i64) -> Result<Vec<Task<'c>>, Error> {
        let (what, from) = if page.is_descending { (Do::ListDown, i64::MAX) } else { (Do::ListUp, i64::MIN) };
        let after = page.after.unwrap_or(from);
        let values: Values = &[&caller.user_id(), &after, &page.complete, &limit, &page.offset];
        self.rows(what, Repeat::Safe, values)?.iter().map(|row| task(caller, row)).collect()
    }

    pub fn get<'c>(&self, caller: &'c Caller, id: TaskId) -> Result<Task<'c>, Error> {
        let rows = self.rows(Do::Get, Repeat::Safe, &[&caller.user_id(), &id.get()])?;
        task(caller, rows.first().ok_or(Error::NoSuchTask)?)
    }

    /// With a key, a task that was made with it before is given instead, and true. Errors also:
    /// `KeyReused` when that was made from another content.
    pub fn insert<'c>(
        &self,
        caller: &'c Caller,
        new: &Content,
        key: Option<&str>,
    ) -> Result<(Task<'c>, bool), Error> {
        let description = new.description.as_ref().map(Text::as_str);
        let values: Values = &[&caller.user_id(), &new.title.as_str(), &description, &new.complete, &key];
        let repeat = if key.is_some() { Repeat::Safe } else { Repeat::Never };
        // More than once only when the task is deleted in between, which frees the key.
        for _ in 0..KEY_TRIES_MAX {
            for (what, is_replay) in [(Do::Insert, false), (Do::FindKey, true)] {
                if let Some(row) = self.rows(what, repeat, values)?.first() {
                    let is_same: bool = row.try_get("is_same").map_err(|error| refused(&error))?;
                    return if is_same { Ok((task(caller, row)?, is_replay)) } else { Err(Error::KeyReused) };
                }
            }
        }
        Err(Error::Unavailable("the idempotency key is used and freed all the time".to_owned()))
    }

    /// Errors of this and the next two also: `PreconditionFailed`.
    pub fn replace<'c>(
        &self,
        caller: &'c Caller,
        id: TaskId,
        when: &Precondition,
        new: &Content,
    ) -> Result<Task<'c>, Error> {
        let description = new.description.as_ref().map(Text::as_str);
        self.change(Do::Replace, caller, id, when, &[&new.title.as_str(), &description, &new.complete])
            .and_then(|row| task(caller, &row))
    }

    pub fn patch<'c>(
        &self,
        caller: &'c Caller,
        id: TaskId,
        when: &Precondition,
        patch: &Patch,
    ) -> Result<Task<'c>, Error> {
        let title = patch.title.as_ref().map(Text::as_str);
        let description = patch.description.as_ref().and_then(Option::as_ref).map(Text::as_str);
        let values: Values = &[&title, &description, &patch.description.is_some(), &patch.complete];
        self.change(Do::Patch, caller, id, when, values).and_then(|row| task(caller, &row))
    }

    pub fn delete(&self, caller: &Caller, id: TaskId, when: &Precondition) -> Result<(), Error> {
        self.change(Do::Delete, caller, id, when, &[]).map(drop)
    }

    /// The changed row. Check and change are one statement; only why nothing was changed is asked
    /// for in a second one.
    fn change(
        &self,
        what: Do,
        caller: &Caller,
        id: TaskId,
        when: &Precondition,
        values: Values,
    ) -> Result<Row, Error> {
        let (user_id, number) = (caller.user_id(), id.get());
        let (any_of, none_of) = (system_times(when.any_of.as_ref()), system_times(when.none_of.as_ref()));
        let target: Values = &[&user_id, &number, &any_of, &none_of];
        let rows = self.rows(what, Repeat::Never, &[target, values].concat())?;
        match rows.into_iter().next() {
            Some(row) => Ok(row),
            None if when.is_none() => Err(Error::NoSuchTask),
            None => self.get(caller, id).and(Err(Error::PreconditionFailed)),
        }
    }

    fn rows(&self, what: Do, repeat: Repeat, values: Values) -> Result<Vec<Row>, Error> {
        self.pool.query(what as usize, repeat, values)
    }
}

type Values<'v> = &'v [&'v (dyn ToSql + Sync)];

fn refused(error: &postgres::Error) -> Error {
    Error::Database(sqlstate::cause(error))
}

fn task<'c>(caller: &'c Caller, row: &Row) -> Result<Task<'c>, Error> {
    let read = || -> Result<Task<'c>, postgres::Error> {
        Ok(Task {
            id: row.try_get("id")?,
            user_id: caller.user_id(),
            title: row.try_get("title")?,
            description: row.try_get("description")?,
            complete: row.try_get("complete")?,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
        })
    };
    read().map_err(|error| refused(&error))
}

/// A `timestamptz` is microseconds since 2000-01-01T00:00:00Z as a big-endian i64; `infinity` is
/// the largest (https://www.postgresql.org/docs/current/datatype-datetime.html).
const UNIX_MICROS_OF_2000: i64 = 946_684_800_000_000;

impl<'a> FromSql<'a> for Instant {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        let micros = i64::from_be_bytes(raw.try_into()?);
        Ok(Self::from_unix_micros(micros.saturating_add(UNIX_MICROS_OF_2000)))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }
}

/// As the driver takes it for a `timestamptz`.
fn system_times(versions: Option<&Vec<Instant>>) -> Option<Vec<SystemTime>> {
    let time = |instant: &Instant| {
        let micros = Duration::from_micros(instant.unix_micros().unsigned_abs());
        let is_before = instant.unix_micros() < 0;
        if is_before { SystemTime::UNIX_EPOCH - micros } else { SystemTime::UNIX_EPOCH + micros }
    };
    versions.map(|versions| versions.iter().map(time).collect())
}
