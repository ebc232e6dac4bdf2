//! `schema.sql` and what it left: applying it, and the report of `tinytasks check`. Speaks of the
//! table as a whole, never of a user's tasks.

use super::connect::connect_once;
use super::sqlstate;
use super::statements::STATEMENTS;
use postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

const SCHEMA: &str = include_str!("../../schema.sql");

/// How many rows from before break each constraint that was not validated. The rules are the
/// table's own: query_to_xml is PostgreSQL's way to run a statement made from a row.
const OLD_ROWS: &str = "
    select conname, (xpath('/row/count/text()', query_to_xml(
            format('select count(*) from tasks where not (%s)', pg_get_expr(conbin, conrelid)),
            false, true, '')))[1]::text
        from pg_constraint
        where conrelid = 'tasks'::regclass and contype = 'c' and not convalidated
        order by conname";

/// `tinytasks migrate`. Errors: why the database cannot be reached or refused.
pub fn migrate(url: &str) -> Result<(), String> {
    apply(&mut connect_once(url)?.0)
}

/// One transaction; a failure leaves everything as it was, and the connection unusable.
pub fn apply(client: &mut Client) -> Result<(), String> {
    client
        .batch_execute(SCHEMA)
        .map_err(|error| format!("the schema cannot be applied: {}", sqlstate::cause(&error)))
}

/// `tinytasks check`: one line for each thing that is well. Errors: the first that is not.
pub fn inspect(url: &str, say: &mut dyn FnMut(&str)) -> Result<(), String> {
    let (mut client, encryption) = connect_once(url).map_err(|error| format!("database: {error}"))?;
    let server = "select current_setting('server_version'), current_setting('server_encoding')";
    let server = pairs(&mut client, server).map_err(|error| format!("database: {error}"))?;
    let (version, encoding) = server.into_iter().next().unwrap_or_default();
    say(&format!("database: PostgreSQL {version}"));
    say(&encryption);
    if encoding != "UTF8" {
        return Err(format!("encoding: is {encoding}, must be UTF8; make a new database"));
    }
    // To be planned, a statement needs the columns and the index, and then the rights.
    for statement in STATEMENTS {
        let sql = (1..).zip(statement.types).fold(statement.sql.to_owned(), |sql, (number, ty)| {
            sql.replace(&format!("${number}"), &format!("null::{}", ty.name()))
        });
        client.simple_query(&format!("explain {sql}")).map_err(|error| {
            let cause = sqlstate::cause(&error);
            format!("schema: {cause}; run `tinytasks migrate`, or grant what is denied")
        })?;
    }
    say("schema: every statement can be done");
    let old_rows = pairs(&mut client, OLD_ROWS).map_err(|error| format!("rows: {error}"))?;
    let broken: Vec<_> = old_rows
        .iter()
        .filter(|(_, count)| count != "0")
        .map(|(rule, count)| format!("{count} break {rule}"))
        .collect();
    if !broken.is_empty() {
        return Err(format!(
            "rows: {}; they can be read, but not changed until they are mended",
            broken.join(", ")
        ));
    }
    say("rows: all keep the rules");
    Ok(())
}

/// The first two columns of all rows, as text.
fn pairs(client: &mut Client, sql: &str) -> Result<Vec<(String, String)>, String> {
    let messages = client.simple_query(sql).map_err(|error| sqlstate::cause(&error))?;
    let text = |row: &SimpleQueryRow, column| row.get(column).unwrap_or_default().to_owned();
    Ok(messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((text(row, 0), text(row, 1))),
            _ => None,
        })
        .collect())
}
