//! The commands `export` and `purge`, which print or delete all tasks of one user, as the law may demand.
//! They take a plain user id and no token, because a person who has `DATABASE_URL` can read all tasks anyway.
//! Each command is one statement, so it sees the state of one moment, and is done as a whole or not at all.

use super::connect::{Session, connect};
use super::examination::row_security;
use super::rows::task;
use super::sqlstate::{cause, remedy};
use super::statements::{COUNT, EXPORT, PURGE};
use super::url::DatabaseUrl;
use crate::limits::{COMMAND_STATEMENT_MAX, EXPORT_ROW_MAX};
use crate::task::{Task, UserId};
use postgres::Transaction;
use postgres::fallible_iterator::FallibleIterator;
use postgres::types::{ToSql, Type};

/// Passes the user's tasks to `take` in the order of their ids, until `take` returns false. Holds one task in
/// memory at a time. Errors: why the database cannot be reached, or why it refuses the statement.
pub fn export(
    url: &DatabaseUrl,
    user_id: &UserId,
    take: &mut dyn FnMut(&Task) -> bool,
) -> Result<(), String> {
    let user_id = user_id.as_str();
    let mut session = connect(url, &[])?;
    let deadline = session.deadline();
    let values: [(&(dyn ToSql + Sync), Type); 1] = [(&user_id, Type::TEXT)];
    let mut transaction = begin(&mut session)?;
    let rows = transaction.query_typed_raw(EXPORT, values);
    let mut rows = rows.map_err(|error| refused(&error))?;
    loop {
        // Each row has a time limit of its own, because the program that reads the output may be slow.
        deadline.set_after(EXPORT_ROW_MAX);
        let Some(row) = rows.next().map_err(|error| cause(&error))? else {
            return Ok(());
        };
        if !take(&task(user_id, &row).map_err(|error| cause(&error))?) {
            return Ok(());
        }
    }
}

/// Deletes the user's tasks and returns their number; with `only_count`, only counts them. Errors: as those of
/// [`export`].
pub fn purge(url: &DatabaseUrl, user_id: &UserId, only_count: bool) -> Result<u64, String> {
    let mut session = connect(url, &[])?;
    let mut transaction = begin(&mut session)?;
    let user_id = user_id.as_str();
    let values: [(&(dyn ToSql + Sync), Type); 1] = [(&user_id, Type::TEXT)];
    let count = match only_count {
        true => {
            transaction.query_typed_one(COUNT, &values).and_then(|row| row.try_get(0)).map(i64::unsigned_abs)
        }
        false => transaction.execute_typed(PURGE, &values),
    };
    count.and_then(|count| transaction.commit().map(|()| count)).map_err(|error| refused(&error))
}

/// Begins a transaction in which each statement sees every row or is refused. Errors: row-level security hides
/// rows from this role, so an export would lack tasks, and a purge would leave tasks behind.
fn begin(session: &mut Session) -> Result<Transaction<'_>, String> {
    let client = session.within(COMMAND_STATEMENT_MAX);
    let (is_active, hidden) = row_security(client).map_err(|error| refused(&error))?;
    if let Some(reason) = hidden {
        return Err(reason);
    }
    let mut transaction = client.transaction().map_err(|error| refused(&error))?;
    // With this setting PostgreSQL refuses the statement if row security has been switched on since. If row
    // security is active already, its policies let every row through; the setting is then not made, because
    // PostgreSQL would refuse the statement in this case too.
    if !is_active {
        let setting = "set local row_security = off";
        transaction.execute_typed(setting, &[]).map_err(|error| refused(&error))?;
    }
    Ok(transaction)
}

fn refused(error: &postgres::Error) -> String {
    format!("{}{}", cause(error), remedy(error))
}
