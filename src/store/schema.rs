//! Applies `schema.sql`, when the service starts or by `tinytasks migrate`.

use super::connect::{Session, connect};
use super::sqlstate::{cause, remedy};
use super::url::DatabaseUrl;
use crate::limits::SCHEMA_MAX;
use std::time::Duration;

const SCHEMA: &str = include_str!("../../schema.sql");

/// `tinytasks migrate`. Errors: why the database cannot be reached, or why it refuses a statement.
pub fn migrate(url: &DatabaseUrl) -> Result<(), String> {
    let mut session = connect(url, &[])?;
    apply(&mut session, SCHEMA_MAX)?;
    let repaired = session.within(SCHEMA_MAX).batch_execute(REPAIR);
    repaired.map_err(|error| format!("the rows cannot be repaired: {}{}", cause(&error), remedy(&error)))
}

/// Applies `schema.sql` in one transaction, so that a failure leaves everything as it was. Errors: the reason, for
/// the log.
pub fn apply(session: &mut Session, limit: Duration) -> Result<(), String> {
    let applied = session.within(limit).batch_execute(SCHEMA);
    applied.map_err(|error| {
        // After a failure, the transaction of the script is still open.
        let _ = session.within(limit).batch_execute("rollback");
        format!("the schema cannot be applied: {}{}", cause(&error), remedy(&error))
    })
}

/// Whether the next id of the sequence is not greater than every id in the table (null if the role may not read
/// the sequence), and the highest id in the table. Reads the whole table, because its primary key begins with
/// the user. In PostgreSQL, query_to_xml can read a table whose name comes from a row.
pub const SEQUENCE_STATE: &str = "
    select case when has_sequence_privilege(name, 'select') then highest >= (xpath('/row/next/text()',
            query_to_xml(format('select last_value + is_called::int as next from %s', name),
                false, true, '')))[1]::text::bigint end, highest
        from (select pg_get_serial_sequence('tasks', 'id') as name) as sequence,
            (select coalesce(max(id), 0) as highest from tasks) as ids";

/// The number of rows with an instant that the API cannot show.
pub const OUT_OF_RANGE: &str = "
    select count(*), '' from tasks
        where least(created_at, updated_at) < '0001-01-01 00:00:00+00'
            or greatest(created_at, updated_at) > '9999-12-30 00:00:00+00'";

/// Repairs ids and instants that other programs may have written into the table. `schema.sql` does not look for
/// them, because that takes a scan of the table. Changes nothing if there is nothing to repair.
const REPAIR: &str = include_str!("repair.sql");
