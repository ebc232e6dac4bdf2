//! Tasks in PostgreSQL: what a [`Caller`] may ask for, and row → [`Task`].
//! Relies on [`Caller`]: each statement carries its user id as `$1`, and there is no other way in.
//! Guarantees: what returned Ok is committed.

mod connect;
mod pool;
mod privacy;
mod schema;
mod sqlstate;
mod statements;
mod tls;

pub use connect::check_url;
pub use privacy::{export, purge};
pub use schema::{inspect, migrate};

use crate::auth::Caller;
use crate::error::Error;
use crate::task::{Content, Instant, Page, Patch, Precondition, Task, TaskId, Text};
use pool::Pool;
use postgres::Row;
use postgres::types::{FromSql, Type};
use statements::{DELETE, FIND_KEY, GET, INSERT, INSERT_ONCE, LIST_DOWN, LIST_UP, Statement, UPDATE, Values};
use std::time::{Duration, SystemTime};

/// How often a create is tried with a key that others free.
const KEY_TRIES_MAX: usize = 3;

/// The tasks of all users, each within reach of its [`Caller`] alone. A connection is held for the
/// length of one statement.
///
/// Errors of every method with a caller: `Unavailable` when the database cannot answer in time,
/// `Unknown` when it may have done a change without saying so, `Database` when it refuses for good.
/// Of those with an id also `NoSuchTask`, and `Invalid` when a row from before breaks a rule that a
/// change of it would have to keep.
pub struct Store {
    pub pool: Pool,
}

impl Store {
    /// Does not wait for the database: until it is there, every call is `Unavailable`.
    pub fn open(database: &crate::config::Database, auto_migrate: bool) -> Result<Self, String> {
        Pool::open(database, auto_migrate).map(|pool| Self { pool })
    }

    /// The first `limit` of the caller's tasks on that page, by id.
    pub fn list<'c>(&self, caller: &'c Caller, page: Page, limit: i64) -> Result<Tasks<'c>, Error> {
        let (what, from) = if page.is_descending { (&LIST_DOWN, i64::MAX) } else { (&LIST_UP, i64::MIN) };
        let after = page.after.unwrap_or(from);
        let values: Values = &[&after, &page.complete, &limit, &page.offset];
        self.tasks(what, caller, values)
    }

    pub fn get<'c>(&self, caller: &'c Caller, id: TaskId) -> Result<Tasks<'c>, Error> {
        self.tasks(&GET, caller, &[&id.get()])
    }

    /// With a key, a task that was made with it before is given instead, and true. Errors also:
    /// `KeyReused` when that was made from another content.
    pub fn insert<'c>(
        &self,
        caller: &'c Caller,
        new: &Content,
        key: Option<&str>,
    ) -> Result<(Tasks<'c>, bool), Error> {
        let (title, description) = (new.title.as_str(), new.description.as_ref().map(Text::as_str));
        let Some(key) = key else {
            let values: Values = &[&title, &description, &new.complete];
            return Ok((self.tasks(&INSERT, caller, values)?, false));
        };
        let values: Values = &[&title, &description, &new.complete, &key];
        // More than once only when the task is deleted in between, which frees the key.
        for _ in 0..KEY_TRIES_MAX {
            for (what, is_replay) in [(&INSERT_ONCE, false), (&FIND_KEY, true)] {
                let found = self.tasks(what, caller, values)?;
                if let Some(row) = found.rows.first() {
                    let is_same: bool = row.try_get("is_same").map_err(|error| refused(&error))?;
                    return if is_same { Ok((found, is_replay)) } else { Err(Error::KeyReused) };
                }
            }
        }
        Err(Error::Unavailable("the idempotency key is used and freed all the time".to_owned()))
    }

    /// Errors of this and the next also: `PreconditionFailed`.
    pub fn update<'c>(
        &self,
        caller: &'c Caller,
        id: TaskId,
        when: &Precondition,
        patch: &Patch,
    ) -> Result<Tasks<'c>, Error> {
        let title = patch.title.as_ref().map(Text::as_str);
        let description = patch.description.as_ref().and_then(Option::as_ref).map(Text::as_str);
        let values: Values = &[&title, &description, &patch.description.is_some(), &patch.complete];
        self.change(&UPDATE, caller, id, when, values)
    }

    pub fn delete(&self, caller: &Caller, id: TaskId, when: &Precondition) -> Result<(), Error> {
        self.change(&DELETE, caller, id, when, &[]).map(drop)
    }

    /// The changed task. Check and change are one statement; only why nothing was changed is asked
    /// for in a second one.
    fn change<'c>(
        &self,
        what: &'static Statement,
        caller: &'c Caller,
        id: TaskId,
        when: &Precondition,
        values: Values,
    ) -> Result<Tasks<'c>, Error> {
        let number = id.get();
        let (any_of, none_of) = (system_times(when.any_of.as_ref()), system_times(when.none_of.as_ref()));
        let target: Values = &[&number, &any_of, &none_of];
        let changed = self.tasks(what, caller, &[target, values].concat())?;
        match changed.rows.is_empty() {
            false => Ok(changed),
            true if any_of.is_none() && none_of.as_ref().is_some_and(Vec::is_empty) => Err(Error::NoSuchTask),
            true => self.get(caller, id)?.one().and(Err(Error::PreconditionFailed)),
        }
    }

    /// Every statement goes this way, with the caller as `$1`.
    fn tasks<'c>(
        &self,
        what: &'static Statement,
        caller: &'c Caller,
        values: Values,
    ) -> Result<Tasks<'c>, Error> {
        let user_id = caller.user_id();
        let owner: Values = &[&user_id];
        let rows = self.pool.query(what, &[owner, values].concat())?;
        Ok(Tasks { user_id, rows })
    }
}

/// The database's answer. Tasks are read from it where they lie.
pub struct Tasks<'c> {
    user_id: &'c str,
    rows: Vec<Row>,
}

impl Tasks<'_> {
    /// Errors: `Database`.
    pub fn all(&self) -> Result<Vec<Task<'_>>, Error> {
        let task = |row| task(self.user_id, row).map_err(|error| refused(&error));
        self.rows.iter().map(task).collect()
    }

    /// Errors: `Database`, `NoSuchTask`.
    pub fn one(&self) -> Result<Task<'_>, Error> {
        let row = self.rows.first().ok_or(Error::NoSuchTask)?;
        task(self.user_id, row).map_err(|error| refused(&error))
    }
}

/// By the order of columns that all statements have.
fn task<'t>(user_id: &'t str, row: &'t Row) -> Result<Task<'t>, postgres::Error> {
    Ok(Task {
        id: row.try_get(0)?,
        user_id,
        title: row.try_get(1)?,
        description: row.try_get(2)?,
        complete: row.try_get(3)?,
        created_at: row.try_get(4)?,
        updated_at: row.try_get(5)?,
    })
}

fn refused(error: &postgres::Error) -> Error {
    Error::Database(sqlstate::cause(error))
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

#[cfg(test)]
mod tests {
    use super::{Duration, Instant, SystemTime, system_times};

    #[test]
    fn a_version_may_be_from_before_1970() {
        let second = Duration::from_secs(1);
        let versions = [-1_000_000, 0, 1_000_000].map(Instant::from_unix_micros).to_vec();
        let epoch = SystemTime::UNIX_EPOCH;
        assert_eq!(system_times(Some(&versions)), Some(vec![epoch - second, epoch, epoch + second]));
        assert_eq!(system_times(None), None);
    }
}
