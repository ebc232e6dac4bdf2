//! Tasks in PostgreSQL: reads and changes the tasks of a [`Caller`]. Relies on [`Caller`]: every statement of a
//! request has the caller's user id as its parameter `$1`, and no request reaches the database in another way.
//! Guarantees: when a change returns Ok, it is committed.

mod backoff;
mod check;
mod connect;
mod connection;
mod connector;
mod health;
mod pool;
mod privacy;
mod examination;
mod rows;
mod schema;
mod sqlstate;
mod statements;
mod stream;
mod tls;
mod url;
mod watch;

pub use check::check;
pub use health::Readiness;
pub use privacy::{export, purge};
pub use schema::migrate;
pub use url::{DatabaseSettings, DatabaseUrl};

use crate::auth::Caller;
use crate::error::Error;
use crate::limits::IDEMPOTENCY_KEY_TRIES_MAX;
use crate::task::{
    BulkSelection, Change, Content, Order, Page, Patch, Precondition, Search, SortKey, Tags, TaskId, Text,
    Totals,
};
use pool::Pool;
use rows::{Tasks, as_timestamp, as_timestamps};
use statements::{
    BY_CREATED, BY_CREATED_DESC, BY_ID, BY_ID_DESC, BY_TITLE, BY_TITLE_DESC, BY_UPDATED, BY_UPDATED_DESC,
    DELETE, DELETE_MANY, FIND_KEY, GET, INSERT, INSERT_ONCE, Statement, TOTALS, UPDATE, UPDATE_MANY, Values,
};

/// The tasks of all users. Each method reaches only the tasks of its [`Caller`], and holds a connection only
/// while one statement runs.
///
/// Errors of every method with a caller: `Unavailable` if the database does not answer in time; `Unknown` if it
/// may have made the change although no answer came; `Database` if it refuses the statement permanently.
/// Methods with an id also return `NoSuchTask`. Changes also return `Invalid` if the changed row is older than
/// the table's constraints and breaks one of them.
pub struct Store {
    pub pool: Pool,
}

impl Store {
    /// Does not wait for the database: until it can be reached, every call returns `Unavailable`.
    pub fn open(database: DatabaseSettings, auto_migrate: bool) -> Result<Self, String> {
        Pool::open(database, auto_migrate).map(|pool| Self { pool })
    }

    /// The first `rows_max` tasks of the page, in its order. The page's own `limit` is not applied here; the
    /// handler does that.
    pub fn list<'c>(&self, caller: &'c Caller, page: &Page, rows_max: i64) -> Result<Tasks<'c>, Error> {
        let search = page.filter.search.as_ref().map(Search::as_str);
        let after = page.after.as_ref();
        let id = after.map_or(page.order.first_id(), |after| after.id);
        let instant = after.and_then(|after| after.value.instant()).map(as_timestamp);
        let title = after.and_then(|after| after.value.title());
        let value: Values = match page.order.by {
            SortKey::Id => &[],
            SortKey::CreatedAt | SortKey::UpdatedAt => &[&instant],
            SortKey::Title => &[&title],
        };
        let common: Values = &[&page.filter.complete, &search, &rows_max, &page.offset, &id];
        self.tasks(list_statement(page.order), caller, &[common, value].concat())
    }

    /// How many tasks the search finds; without a search, how many tasks there are.
    pub fn totals(&self, caller: &Caller, search: Option<&Search>) -> Result<Totals, Error> {
        let found = self.tasks(&TOTALS, caller, &[&search.map(Search::as_str)])?;
        let row = found.rows.first().ok_or_else(|| Error::Bug("a count has no row".to_owned()))?;
        let count = |column: usize| row.try_get(column).map_err(|error| found.unreadable(&error));
        Ok(Totals { all: count(0)?, open: count(1)?, complete: count(2)? })
    }

    pub fn get<'c>(&self, caller: &'c Caller, id: TaskId) -> Result<Tasks<'c>, Error> {
        self.tasks(&GET, caller, &[&id.get()])
    }

    /// Inserts a task and returns it with false. If an earlier request with the same idempotency key has already
    /// made a task, returns that task with true. Errors also: `KeyReused` if the earlier request had another
    /// content.
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
        // A second round is needed only if the task is deleted between the two statements, which frees the key.
        for _ in 0..IDEMPOTENCY_KEY_TRIES_MAX {
            for (what, is_replay) in [(&INSERT_ONCE, false), (&FIND_KEY, true)] {
                let found = self.tasks(what, caller, values)?;
                if let Some(row) = found.rows.first() {
                    let is_same: bool = row.try_get("is_same").map_err(|error| found.unreadable(&error))?;
                    return if is_same { Ok((found, is_replay)) } else { Err(Error::KeyReused) };
                }
            }
        }
        Err(Error::Unavailable("other requests keep using and freeing the idempotency key".to_owned()))
    }

    /// Changes a task and returns it. If only `If-Match` fails, and the task already has all the values that the
    /// patch sets, returns the unchanged task: so a client that repeats a request whose answer was lost is not
    /// refused because the first attempt succeeded (RFC 9110 section 13.1.1). Errors also:
    /// `PreconditionFailed`.
    pub fn update<'c>(
        &self,
        caller: &'c Caller,
        id: TaskId,
        when: &Precondition,
        patch: &Patch,
    ) -> Result<Tasks<'c>, Error> {
        let title = patch.title.as_ref().into_option().map(Text::as_str);
        let (sets_description, description) = match &patch.description {
            Change::Keep => (false, None),
            Change::Set(description) => (true, description.as_ref().map(Text::as_str)),
        };
        let complete = patch.complete.as_ref().into_option();
        let values: Values = &[&title, &description, &sets_description, &complete];
        match self.change(&UPDATE, caller, id, when, values)? {
            Outcome::Changed(tasks) => Ok(tasks),
            Outcome::Refused(tasks) => {
                let task = tasks.one()?;
                let version = task.updated_at;
                let fails_by_if_match_alone =
                    when.if_match_fails(version) && !when.if_none_match_fails(version);
                if fails_by_if_match_alone && patch.is_done_in(&task) {
                    return Ok(tasks);
                }
                Err(task.precondition_failed())
            }
        }
    }

    /// Deletes a task. Errors also: `PreconditionFailed`.
    pub fn delete(&self, caller: &Caller, id: TaskId, when: &Precondition) -> Result<(), Error> {
        match self.change(&DELETE, caller, id, when, &[])? {
            Outcome::Changed(_) => Ok(()),
            Outcome::Refused(tasks) => Err(tasks.one()?.precondition_failed()),
        }
    }

    /// Sets `complete` of all selected tasks, or of none. Returns the number of selected tasks.
    pub fn update_many(
        &self,
        caller: &Caller,
        selection: &BulkSelection,
        complete: bool,
    ) -> Result<u64, Error> {
        let search = selection.search.as_ref().map(Search::as_str);
        self.change_many(&UPDATE_MANY, caller, &[&selection.complete, &search, &complete])
    }

    /// Deletes all selected tasks, or none. Returns the number of selected tasks.
    pub fn delete_many(&self, caller: &Caller, selection: &BulkSelection) -> Result<u64, Error> {
        let search = selection.search.as_ref().map(Search::as_str);
        self.change_many(&DELETE_MANY, caller, &[&selection.complete, &search])
    }

    /// One statement checks the precondition and makes the change. A second statement runs only if nothing was
    /// changed, to find out the reason.
    fn change<'c>(
        &self,
        what: &'static Statement,
        caller: &'c Caller,
        id: TaskId,
        when: &Precondition,
        values: Values,
    ) -> Result<Outcome<'c>, Error> {
        let number = id.get();
        let any_of = match &when.if_match {
            None | Some(Tags::Any) => None,
            Some(Tags::Listed(versions)) => Some(versions.as_slice()),
        };
        let none_of = match &when.if_none_match {
            None => None,
            // `If-None-Match: *` excludes every version of the task.
            Some(Tags::Any) => return self.get(caller, id).map(Outcome::Refused),
            Some(Tags::Listed(versions)) => Some(versions.as_slice()),
        };
        let (any_of, none_of) = (any_of.map(as_timestamps), none_of.map(as_timestamps));
        let target: Values = &[&number, &any_of, &none_of];
        let changed = self.tasks(what, caller, &[target, values].concat())?;
        if !changed.rows.is_empty() {
            Ok(Outcome::Changed(changed))
        } else if any_of.is_none() && none_of.is_none() {
            Err(Error::NoSuchTask)
        } else {
            self.get(caller, id).map(Outcome::Refused)
        }
    }

    /// Runs a statement with the caller's user id as `$1`. All methods run their statements through this function
    /// or `change_many`.
    fn tasks<'c>(
        &self,
        what: &'static Statement,
        caller: &'c Caller,
        values: Values,
    ) -> Result<Tasks<'c>, Error> {
        let user_id = caller.user_id();
        let owner: Values = &[&user_id];
        let rows = self.pool.query(what, &[owner, values].concat())?;
        Ok(Tasks { user_id, rows, effect: what.effect })
    }

    fn change_many(&self, what: &'static Statement, caller: &Caller, values: Values) -> Result<u64, Error> {
        let user_id = caller.user_id();
        let owner: Values = &[&user_id];
        self.pool.execute(what, &[owner, values].concat())
    }
}

/// The statement for lists in this order.
fn list_statement(order: Order) -> &'static Statement {
    match (order.by, order.is_descending) {
        (SortKey::Id, false) => &BY_ID,
        (SortKey::Id, true) => &BY_ID_DESC,
        (SortKey::CreatedAt, false) => &BY_CREATED,
        (SortKey::CreatedAt, true) => &BY_CREATED_DESC,
        (SortKey::UpdatedAt, false) => &BY_UPDATED,
        (SortKey::UpdatedAt, true) => &BY_UPDATED_DESC,
        (SortKey::Title, false) => &BY_TITLE,
        (SortKey::Title, true) => &BY_TITLE_DESC,
    }
}

/// The outcome of a change of one task.
enum Outcome<'c> {
    Changed(Tasks<'c>),
    /// The precondition does not hold. Contains the unchanged task, or no row if there is no such task.
    Refused(Tasks<'c>),
}
