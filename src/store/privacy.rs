//! What an operator does for a user, by law: hand out all of the user's tasks, or delete them.
//! Relies on [`Caller`] as all of the store does. Each is one statement, which sees one moment and
//! is done wholly or not at all; it has no time limit.

use super::connect::connect_once;
use super::sqlstate::cause;
use super::statements::{COUNT, LIST_UP, PURGE};
use super::task;
use crate::auth::Caller;
use crate::task::Task;
use postgres::fallible_iterator::FallibleIterator;
use postgres::types::{ToSql, Type};

/// Gives the caller's tasks to `take`, by id, as long as it wants more. Holds one at a time.
/// Errors of this and the next: why the database cannot be reached or refused.
pub fn export(url: &str, caller: &Caller, take: &mut dyn FnMut(&Task) -> bool) -> Result<(), String> {
    let (mut client, _) = connect_once(url)?;
    let user_id = caller.user_id();
    // On all pages, whatever the state, without an end.
    let values: super::Values = &[&user_id, &i64::MIN, &None::<bool>, &None::<i64>, &0_i64];
    let mut rows =
        client.query_typed_raw(LIST_UP.sql, LIST_UP.typed(values)).map_err(|error| cause(&error))?;
    while let Some(row) = rows.next().map_err(|error| cause(&error))? {
        if !take(&task(user_id, &row).map_err(|error| cause(&error))?) {
            break;
        }
    }
    Ok(())
}

/// How many tasks of the caller were deleted; or would be.
pub fn purge(url: &str, caller: &Caller, only_count: bool) -> Result<u64, String> {
    let (mut client, _) = connect_once(url)?;
    let values: [(&(dyn ToSql + Sync), Type); 1] = [(&caller.user_id(), Type::TEXT)];
    let count = match only_count {
        true => client.query_typed_one(COUNT, &values).and_then(|row| row.try_get(0)).map(i64::unsigned_abs),
        false => client.execute_typed(PURGE, &values),
    };
    count.map_err(|error| cause(&error))
}
