//! Tasks in PostgreSQL: every statement on `tasks` that serves a request, and row → [`Task`].
//! Relies on [`Caller`]: each statement carries its user id as `$1`, and there is no other way in.
//! Guarantees: what returned Ok is committed.

mod pool;
mod schema;

pub use pool::{Reach, check_url};
pub use schema::{inspect, migrate};

use crate::{
    auth::Caller,
    error::Error,
    task::{Content, Instant, Patch, Task, TaskId},
};
use pool::{Pool, Repeat};
use postgres::{
    Row,
    types::{FromSql, ToSql, Type},
};
use std::error::Error as StdError;

/// A statement and the types of its parameters, so that it means the same prepared or not.
struct Statement {
    sql: &'static str,
    types: &'static [Type],
}

/// Each by the primary key `(user_id, id)`: a range of it for the list, one entry for the others.
static STATEMENTS: [Statement; 6] = [LIST, GET, INSERT, REPLACE, PATCH, DELETE];

const LIST: Statement = Statement {
    sql: "select id, title, description, complete, created_at, updated_at
        from tasks where user_id = $1 order by id",
    types: &[Type::TEXT],
};

const GET: Statement = Statement {
    sql: "select id, title, description, complete, created_at, updated_at
        from tasks where user_id = $1 and id = $2",
    types: &[Type::TEXT, Type::INT8],
};

/// Both times are the column's default, now(): the same for both.
const INSERT: Statement = Statement {
    sql: "insert into tasks (user_id, title, description, complete) values ($1, $2, $3, $4)
        returning id, title, description, complete, created_at, updated_at",
    types: &[Type::TEXT, Type::TEXT, Type::TEXT, Type::BOOL],
};

/// The row lock makes it atomic; `updated_at` moves forward even when the clock does not.
const REPLACE: Statement = Statement {
    sql: "update tasks set title = $3, description = $4, complete = $5,
            updated_at = greatest(clock_timestamp(),
                greatest(created_at, updated_at) + interval '1 microsecond')
        where user_id = $1 and id = $2
        returning id, title, description, complete, created_at, updated_at",
    types: &[Type::TEXT, Type::INT8, Type::TEXT, Type::TEXT, Type::BOOL],
};

/// As REPLACE. A null title or complete keeps the column; for description, `$5` says whether `$4`
/// counts, because null is a value there.
const PATCH: Statement = Statement {
    sql: "update tasks set title = coalesce($3, title),
            description = case when $5 then $4 else description end,
            complete = coalesce($6, complete),
            updated_at = greatest(clock_timestamp(),
                greatest(created_at, updated_at) + interval '1 microsecond')
        where user_id = $1 and id = $2
        returning id, title, description, complete, created_at, updated_at",
    types: &[
        Type::TEXT,
        Type::INT8,
        Type::TEXT,
        Type::TEXT,
        Type::BOOL,
        Type::BOOL,
    ],
};

const DELETE: Statement = Statement {
    sql: "delete from tasks where user_id = $1 and id = $2 returning id",
    types: &[Type::TEXT, Type::INT8],
};

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

/// The tasks of all users, each reachable by its [`Caller`] alone. A connection is held for the
/// length of one statement.
///
/// Errors of every method: `Unavailable` when the database cannot be reached in time, `Database`
/// when it refuses for good, `Invalid` when a row from before breaks a rule that a change of it
/// would have to keep.
pub struct Store {
    pool: Pool,
}

impl Store {
    /// Does not wait for the database: until it is reachable, every call is `Unavailable`.
    pub fn open(database: &crate::config::Database, auto_migrate: bool) -> Result<Self, String> {
        Pool::open(database, auto_migrate).map(|pool| Self { pool })
    }

    /// Whether the database answered within the last two seconds. Never waits.
    pub fn reach(&self) -> Reach {
        self.pool.reach()
    }

    /// Connections made from now on use `url`.
    pub fn reconnect_with(&self, url: &str) -> Result<(), String> {
        self.pool.reconnect_with(url)
    }

    /// All tasks of the caller, by id.
    pub fn list<'c>(&self, caller: &'c Caller) -> Result<Vec<Task<'c>>, Error> {
        let rows = self.rows(Do::List, Repeat::Safe, &[&caller.user_id()])?;
        rows.iter().map(|row| task(caller, row)).collect()
    }

    pub fn get<'c>(&self, caller: &'c Caller, id: TaskId) -> Result<Task<'c>, Error> {
        let rows = self.rows(Do::Get, Repeat::Safe, &[&caller.user_id(), &id.get()])?;
        one(caller, &rows)
    }

    pub fn insert<'c>(&self, caller: &'c Caller, content: &Content) -> Result<Task<'c>, Error> {
        let rows = self.rows(
            Do::Insert,
            Repeat::Never,
            &[
                &caller.user_id(),
                &content.title.as_str(),
                &content.description.as_ref().map(|text| text.as_str()),
                &content.complete,
            ],
        )?;
        one(caller, &rows)
    }

    pub fn replace<'c>(
        &self,
        caller: &'c Caller,
        id: TaskId,
        content: &Content,
    ) -> Result<Task<'c>, Error> {
        let rows = self.rows(
            Do::Replace,
            Repeat::Never,
            &[
                &caller.user_id(),
                &id.get(),
                &content.title.as_str(),
                &content.description.as_ref().map(|text| text.as_str()),
                &content.complete,
            ],
        )?;
        one(caller, &rows)
    }

    pub fn patch<'c>(
        &self,
        caller: &'c Caller,
        id: TaskId,
        patch: &Patch,
    ) -> Result<Task<'c>, Error> {
        let description = patch.description.as_ref().and_then(Option::as_ref);
        let rows = self.rows(
            Do::Patch,
            Repeat::Never,
            &[
                &caller.user_id(),
                &id.get(),
                &patch.title.as_ref().map(|text| text.as_str()),
                &description.map(|text| text.as_str()),
                &patch.description.is_some(),
                &patch.complete,
            ],
        )?;
        one(caller, &rows)
    }

    pub fn delete(&self, caller: &Caller, id: TaskId) -> Result<(), Error> {
        let rows = self.rows(Do::Delete, Repeat::Never, &[&caller.user_id(), &id.get()])?;
        rows.first().map(|_| ()).ok_or(Error::NoSuchTask)
    }

    fn rows(
        &self,
        what: Do,
        repeat: Repeat,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        self.pool.query(what as usize, repeat, parameters)
    }
}

fn one<'c>(caller: &'c Caller, rows: &[Row]) -> Result<Task<'c>, Error> {
    task(caller, rows.first().ok_or(Error::NoSuchTask)?)
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
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        const UNIX_MICROS_OF_2000: i64 = 946_684_800_000_000;
        let micros = i64::from_be_bytes(raw.try_into()?);
        Ok(Self::from_unix_micros(
            micros.saturating_add(UNIX_MICROS_OF_2000),
        ))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }
}
