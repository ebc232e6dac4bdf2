//! Tasks in PostgreSQL: every statement that serves a request, and row → [`Task`].
//! Relies on [`Caller`]: each statement carries its user id as `$1`, and there is no other way in.
//! Guarantees: what returned Ok is committed.

mod pool;
mod schema;

pub use pool::check_url;
pub use schema::{inspect, migrate};

use crate::auth::Caller;
use crate::error::Error;
use crate::task::{Content, Instant, Patch, Task, TaskId, Text};
use pool::{Pool, Repeat};
use postgres::Row;
use postgres::types::{FromSql, ToSql, Type};

/// A statement and the types of its parameters, so that it means the same prepared or not.
struct Statement {
    sql: &'static str,
    types: &'static [Type],
}

/// Where a statement stands in [`STATEMENTS`].
#[derive(Clone, Copy)]
enum Do {
    List,
    Get,
    Insert,
    Replace,
    Patch,
    Delete,
}

/// All go by the primary key `(user_id, id)`: LIST by a range of it, the others by one entry. A
/// change is atomic by the row's lock, and moves `updated_at` forward whatever the clock does.
static STATEMENTS: [Statement; 6] = [
    Statement {
        sql: "select id, title, description, complete, created_at, updated_at
            from tasks where user_id = $1 order by id",
        types: &[Type::TEXT],
    },
    Statement {
        sql: "select id, title, description, complete, created_at, updated_at
            from tasks where user_id = $1 and id = $2",
        types: &[Type::TEXT, Type::INT8],
    },
    // Both times are the column's default, now(): one instant.
    Statement {
        sql: "insert into tasks (user_id, title, description, complete) values ($1, $2, $3, $4)
            returning id, title, description, complete, created_at, updated_at",
        types: &[Type::TEXT, Type::TEXT, Type::TEXT, Type::BOOL],
    },
    Statement {
        sql: "update tasks set title = $3, description = $4, complete = $5, updated_at =
                greatest(clock_timestamp(), greatest(created_at, updated_at) + interval '1 microsecond')
            where user_id = $1 and id = $2
            returning id, title, description, complete, created_at, updated_at",
        types: &[Type::TEXT, Type::INT8, Type::TEXT, Type::TEXT, Type::BOOL],
    },
    // A null keeps title and complete. For description null is a value, so $5 says whether $4 counts.
    Statement {
        sql: "update tasks set title = coalesce($3, title), complete = coalesce($6, complete),
                description = case when $5 then $4 else description end, updated_at =
                greatest(clock_timestamp(), greatest(created_at, updated_at) + interval '1 microsecond')
            where user_id = $1 and id = $2
            returning id, title, description, complete, created_at, updated_at",
        types: &[Type::TEXT, Type::INT8, Type::TEXT, Type::TEXT, Type::BOOL, Type::BOOL],
    },
    Statement {
        sql: "delete from tasks where user_id = $1 and id = $2 returning id",
        types: &[Type::TEXT, Type::INT8],
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

    /// All tasks of the caller, by id.
    pub fn list<'c>(&self, caller: &'c Caller) -> Result<Vec<Task<'c>>, Error> {
        let rows = self.rows(Do::List, &[&caller.user_id()])?;
        rows.iter().map(|row| task(caller, row)).collect()
    }

    pub fn get<'c>(&self, caller: &'c Caller, id: TaskId) -> Result<Task<'c>, Error> {
        self.one(Do::Get, caller, &[&caller.user_id(), &id.get()])
    }

    pub fn insert<'c>(&self, caller: &'c Caller, new: &Content) -> Result<Task<'c>, Error> {
        let description = new.description.as_ref().map(Text::as_str);
        let values: &[&(dyn ToSql + Sync)] =
            &[&caller.user_id(), &new.title.as_str(), &description, &new.complete];
        self.one(Do::Insert, caller, values)
    }

    pub fn replace<'c>(&self, caller: &'c Caller, id: TaskId, new: &Content) -> Result<Task<'c>, Error> {
        let description = new.description.as_ref().map(Text::as_str);
        let values: &[&(dyn ToSql + Sync)] =
            &[&caller.user_id(), &id.get(), &new.title.as_str(), &description, &new.complete];
        self.one(Do::Replace, caller, values)
    }

    pub fn patch<'c>(&self, caller: &'c Caller, id: TaskId, patch: &Patch) -> Result<Task<'c>, Error> {
        let title = patch.title.as_ref().map(Text::as_str);
        let description = patch.description.as_ref().and_then(Option::as_ref).map(Text::as_str);
        let has_description = patch.description.is_some();
        let values: &[&(dyn ToSql + Sync)] =
            &[&caller.user_id(), &id.get(), &title, &description, &has_description, &patch.complete];
        self.one(Do::Patch, caller, values)
    }

    pub fn delete(&self, caller: &Caller, id: TaskId) -> Result<(), Error> {
        let rows = self.rows(Do::Delete, &[&caller.user_id(), &id.get()])?;
        if rows.is_empty() { Err(Error::NoSuchTask) } else { Ok(()) }
    }

    fn one<'c>(
        &self,
        what: Do,
        caller: &'c Caller,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Task<'c>, Error> {
        task(caller, self.rows(what, values)?.first().ok_or(Error::NoSuchTask)?)
    }

    fn rows(&self, what: Do, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        let repeat = match what {
            Do::List | Do::Get => Repeat::Safe,
            Do::Insert | Do::Replace | Do::Patch | Do::Delete => Repeat::Never,
        };
        self.pool.query(what as usize, repeat, values)
    }
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
    read().map_err(|error| Error::Database(pool::cause(&error)))
}

/// A `timestamptz` is microseconds since 2000-01-01T00:00:00Z as a big-endian i64; `infinity` is
/// the largest (https://www.postgresql.org/docs/current/datatype-datetime.html).
impl<'a> FromSql<'a> for Instant {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        const UNIX_MICROS_OF_2000: i64 = 946_684_800_000_000;
        let micros = i64::from_be_bytes(raw.try_into()?);
        Ok(Self::from_unix_micros(micros.saturating_add(UNIX_MICROS_OF_2000)))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }
}
