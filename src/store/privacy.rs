//! The commands `export` and `purge`: all tasks of one user are printed or deleted, as the law may
//! demand. Whoever runs them has `DATABASE_URL` and with it all tasks, so they take a plain user id and
//! no token. Each is one statement: it sees one moment, and is done as a whole or not at all.

use super::connect::connect;
use super::rows::task;
use super::sqlstate::{cause, remedy};
use super::statements::{COUNT, EXPORT, PURGE};
use super::url::DatabaseUrl;
use crate::limits::{COMMAND_STATEMENT_MAX, EXPORT_ROW_MAX};
use crate::task::{Task, UserId};
use postgres::fallible_iterator::FallibleIterator;
use postgres::types::{ToSql, Type};

/// Passes the user's tasks to `take`, by id, until it returns false. Holds one task at a time.
/// Errors of this and the next: the reason for which the database cannot be reached or refuses.
pub fn export(
    url: &DatabaseUrl,
    user_id: &UserId,
    take: &mut dyn FnMut(&Task) -> bool,
) -> Result<(), String> {
    let user_id = user_id.as_str();
    let (mut session, ()) = connect(url, &[], |_| Ok(())).map_err(|error| error.reason)?;
    let deadline = session.deadline();
    let values: [(&(dyn ToSql + Sync), Type); 1] = [(&user_id, Type::TEXT)];
    let rows = session.within(COMMAND_STATEMENT_MAX).query_typed_raw(EXPORT, values);
    let mut rows = rows.map_err(|error| refused(&error))?;
    loop {
        // The reader of the output may be slow, so the limit is that of one row.
        deadline.set_after(EXPORT_ROW_MAX);
        let Some(row) = rows.next().map_err(|error| cause(&error))? else {
            return Ok(());
        };
        if !take(&task(user_id, &row).map_err(|error| cause(&error))?) {
            return Ok(());
        }
    }
}

/// How many tasks of the user were deleted; with `only_count`, how many would be.
pub fn purge(url: &DatabaseUrl, user_id: &UserId, only_count: bool) -> Result<u64, String> {
    let (mut session, ()) = connect(url, &[], |_| Ok(())).map_err(|error| error.reason)?;
    let client = session.within(COMMAND_STATEMENT_MAX);
    let user_id = user_id.as_str();
    let values: [(&(dyn ToSql + Sync), Type); 1] = [(&user_id, Type::TEXT)];
    let count = match only_count {
        true => client.query_typed_one(COUNT, &values).and_then(|row| row.try_get(0)).map(i64::unsigned_abs),
        false => client.execute_typed(PURGE, &values),
    };
    count.map_err(|error| refused(&error))
}

fn refused(error: &postgres::Error) -> String {
    format!("{}{}", cause(error), remedy(error))
}
