//! Applies `schema.sql`, at a start of the service or by `tinytasks migrate`.

use super::connect::{Session, connect};
use super::sqlstate::{cause, remedy};
use super::url::DatabaseUrl;
use crate::limits::SCHEMA_MAX;
use std::time::Duration;

const SCHEMA: &str = include_str!("../../schema.sql");

/// `tinytasks migrate`. Errors: the reason for which the database cannot be reached or refuses.
pub fn migrate(url: &DatabaseUrl) -> Result<(), String> {
    let (mut session, ()) = connect(url, &[], |_| Ok(())).map_err(|error| error.reason)?;
    apply(&mut session, SCHEMA_MAX)?;
    let mended = session.within(SCHEMA_MAX).batch_execute(MEND);
    mended.map_err(|error| format!("the rows cannot be mended: {}", cause(&error)))
}

/// One transaction: a failure leaves everything as it was. Errors: the reason, for the log.
pub fn apply(session: &mut Session, limit: Duration) -> Result<(), String> {
    let applied = session.within(limit).batch_execute(SCHEMA);
    applied.map_err(|error| {
        // A failed script leaves its transaction open.
        let _ = session.within(limit).batch_execute("rollback");
        format!("the schema cannot be applied: {}{}", cause(&error), remedy(&error))
    })
}

/// Whether the sequence would give an id that is not above every id of the table (null where the role
/// may not look at the sequence), and the highest id. Reads the whole table, because its key begins
/// with the user. query_to_xml is PostgreSQL's way to read a table whose name comes from a row.
pub const SEQUENCE_STATE: &str = "
    select case when has_sequence_privilege(name, 'select') then highest >= (xpath('/row/next/text()',
            query_to_xml(format('select last_value + is_called::int as next from %s', name),
                false, true, '')))[1]::text::bigint end, highest
        from (select pg_get_serial_sequence('tasks', 'id') as name) as sequence,
            (select coalesce(max(id), 0) as highest from tasks) as ids";

/// How many rows have an instant that the API cannot show.
pub const OUT_OF_RANGE: &str = "
    select count(*), '' from tasks
        where least(created_at, updated_at) < '0001-01-01 00:00:00+00'
            or greatest(created_at, updated_at) > '9999-12-30 00:00:00+00'";

/// Mends what programs that write into the table themselves may have left, and what `schema.sql` does
/// not look for, because that takes a scan of the table. Changes nothing where all is well.
const MEND: &str = include_str!("mend.sql");
