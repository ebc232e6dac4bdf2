//! `tinytasks check`: connects as `serve` does, and looks for everything in the database that can make `serve`
//! fail. Reports on the table as a whole, never on one user's tasks.

mod table;

use super::connect::{Session, connect};
use super::connector::statement_timeout;
use super::examination::{Harm, examine, read_only};
use super::schema::{OUT_OF_RANGE, SEQUENCE_STATE};
use super::sqlstate::cause;
use super::statements::{STATEMENTS, Statement};
use super::url::DatabaseSettings;
use crate::limits::{COMMAND_STATEMENT_MAX, STATEMENT_MAX};
use postgres::types::Type;
use postgres::{Client, SimpleQueryMessage, SimpleQueryRow};
use table::{Table, find_table};

/// Passes a line to `say` for each thing that is in order. With `auto_migrate`, a missing table is in order if the
/// service could make it. Errors: each problem with its remedy.
pub fn check(
    database: &DatabaseSettings,
    auto_migrate: bool,
    say: &mut dyn FnMut(&str),
) -> Result<(), Vec<String>> {
    let mut session = open(database).map_err(|reason| vec![format!("database: {reason}")])?;
    let mut reasons = check_server(database, &mut session, say)?;
    if let Err(more) = check_table(&mut session, auto_migrate, say) {
        reasons.extend(more);
        // Of use only with the remedies above.
        reasons.extend(owner(session.within(STATEMENT_MAX)));
    }
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}

/// Returns the problems after which the table is examined as well. Errors: the problems after which the check ends.
fn check_server(
    database: &DatabaseSettings,
    session: &mut Session,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<String>, Vec<String>> {
    let server = "select current_setting('server_version'), current_setting('server_encoding')";
    let server = pairs(session.within(STATEMENT_MAX), server).map_err(|reason| vec![reason])?;
    let (version, encoding) = server.into_iter().next().unwrap_or_default();
    say(&format!("database: PostgreSQL {version}"));
    say(&database.url.tls.report(session.is_encrypted));
    let mut reasons = Vec::new();
    match read_only(session.within(STATEMENT_MAX)) {
        Ok(reason) => reasons.extend(reason),
        Err(error) => reasons.push(format!("database: {}", cause(&error))),
    }
    if encoding != "UTF8" {
        // This database must be replaced, whatever else is wrong with it.
        reasons.push(format!("encoding: is {encoding}, must be UTF8; make a new database"));
        return Err(reasons);
    }
    if database.is_prepared {
        match is_pooled_by_transaction(database, session) {
            Ok(false) => say("connections: each has a session of its own"),
            Ok(true) => reasons.push(POOLED.to_owned()),
            Err(reason) => reasons.push(format!("connections: {reason}")),
        }
    }
    let wanted = database.connections_max();
    match connections_allowed(session.within(STATEMENT_MAX)) {
        Ok(allowed) if allowed < i64::from(wanted) => say(&format!(
            "warning: PostgreSQL allows this role {allowed} connections, and the service wants {wanted}; raise \
             max_connections or the limit of the role or database, or lower DATABASE_POOL_SIZE"
        )),
        Ok(_) => {}
        Err(error) => reasons.push(format!("connections: {}", cause(&error))),
    }
    Ok(reasons)
}

fn check_table(
    session: &mut Session,
    auto_migrate: bool,
    say: &mut dyn FnMut(&str),
) -> Result<(), Vec<String>> {
    match find_table(session.within(STATEMENT_MAX), auto_migrate)? {
        Table::Exists => {}
        Table::WillBeCreated => {
            say("schema: no table tasks yet; the service makes it when it starts");
            return Ok(());
        }
    }
    // The examinations below would fail on a table on which the statements fail.
    statements_can_run(session)?;
    say("schema: every statement can be done");
    let client = session.within(COMMAND_STATEMENT_MAX);
    let mut reasons = Vec::new();
    for examination in [distribution, sequence, instants, old_rows] {
        match examination(client) {
            Ok(line) => say(&line),
            Err(reason) => reasons.push(reason),
        }
    }
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}

/// A line with the owner of the table. None if this role may act as the owner. None also if there is no table or the
/// database does not answer, which other lines report.
fn owner(client: &mut Client) -> Option<String> {
    let other_owner = "select quote_ident(pg_get_userbyid(relowner)), quote_ident(current_user)
        from pg_class where oid = to_regclass('tasks') and not pg_has_role(current_user, relowner, 'usage')";
    let (owner, role) = pairs(client, other_owner).ok()?.into_iter().next()?;
    Some(format!(
        "owner: tasks belongs to role {owner}; only {owner} may run `tinytasks migrate` and change columns and \
         rights, and role {role} may not"
    ))
}

fn open(database: &DatabaseSettings) -> Result<Session, String> {
    let settings = if database.is_prepared { vec![statement_timeout()] } else { Vec::new() };
    connect(&database.url, &settings)
}

/// How many connections the server, the database and the role allow, those of other programs included. -1 means that
/// the database or the role has no limit of its own.
fn connections_allowed(client: &mut Client) -> Result<i64, postgres::Error> {
    let allowed = "select least(nullif(rolconnlimit, -1), nullif(datconnlimit, -1),
            current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int)::int8
        from pg_roles, pg_database where rolname = session_user and datname = current_database()";
    client.query_typed_one(allowed, &[])?.try_get(0)
}

const POOLED: &str = "connections: two of them share one session of PostgreSQL, so a pooler in transaction mode \
    is in between, and prepared statements would get lost; set DATABASE_PREPARED=false";

/// Whether two connections that are open at the same time share a server process, or one connection changes its
/// process: both show a pooler in transaction mode.
fn is_pooled_by_transaction(database: &DatabaseSettings, one: &mut Session) -> Result<bool, String> {
    let mut other = open(database)?;
    let process = |session: &mut Session| -> Result<i32, String> {
        let row = session.within(STATEMENT_MAX).query_typed_one("select pg_backend_pid()", &[]);
        row.and_then(|row| row.try_get(0)).map_err(|error| cause(&error))
    };
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    // Asked several times, because the outcome may vary while other clients use the pooler.
    for _ in 0..4 {
        ones.push(process(one)?);
        others.push(process(&mut other)?);
    }
    let first = ones.first();
    Ok(ones.iter().any(|one| others.contains(one) || Some(one) != first))
}

/// Errors: the findings, and the statements that PostgreSQL would refuse.
fn statements_can_run(session: &mut Session) -> Result<(), Vec<String>> {
    let examination = examine(session.within(STATEMENT_MAX)).map_err(|error| vec![cause(&error)])?;
    let mut findings = examination.findings;
    // `check` has reported these already.
    findings.retain(|finding| finding.harm != Harm::RefusesChanges);
    let mut reasons: Vec<_> = findings.into_iter().map(|finding| finding.text).collect();
    if reasons.is_empty() {
        for statement in STATEMENTS {
            let explain = explain(statement, examination.facts.has_icu);
            let planned = session.within(STATEMENT_MAX).simple_query(&explain);
            if let Err(error) = planned {
                reasons.push(format!("schema: {}; run `tinytasks migrate`", cause(&error)));
            }
        }
    }
    reasons.dedup();
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}

/// A statement that makes PostgreSQL plan `statement` without running it, which fails if columns, indexes or
/// rights are missing. The parameters are replaced by values rather than nulls, because Citus refuses to insert
/// a null into the column by which a table is distributed.
fn explain(statement: &Statement, has_icu: bool) -> String {
    let mut sql = statement.sql(has_icu).to_owned();
    for (number, ty) in (1..).zip(statement.types) {
        let value = match *ty {
            Type::TEXT => "''::text",
            Type::INT8 => "0::bigint",
            Type::BOOL => "false",
            Type::TIMESTAMPTZ => "now()",
            _ => "'{}'::timestamptz[]",
        };
        sql = sql.replace(&format!("${number}"), value);
    }
    format!("explain {sql}")
}

/// Whether Citus distributes the table. The extension is looked for first, because the relations that the other
/// statements read exist only with Citus.
fn distribution(client: &mut Client) -> Result<String, String> {
    let has_citus = "select '', count(*) from pg_extension where extname = 'citus'";
    if pairs(client, has_citus)?.first().is_none_or(|(_, count)| count == "0") {
        return Ok("distribution: none; the table is on one server".to_owned());
    }
    let table = "select distribution_column, (shard_count)::text from citus_tables where table_name = 'tasks'::regclass";
    let Some((column, shards)) = pairs(client, table)?.into_iter().next() else {
        return Ok("distribution: none; Citus is there, and tasks is not distributed".to_owned());
    };
    let nodes = "select count(*)::text, '' from pg_dist_node where noderole = 'primary' and shouldhaveshards";
    let nodes = pairs(client, nodes)?.into_iter().next().unwrap_or_default().0;
    match column.as_str() {
        "user_id" => Ok(format!("distribution: by user_id, {shards} shards on {nodes} nodes of Citus")),
        _ => Err(format!(
            "distribution: by {column}, must be by user_id; copy the rows into a new database, and there \
             `select create_distributed_table('tasks', 'user_id')` first (docs/scaling.md)"
        )),
    }
}

/// Whether the sequence is ahead of all ids. Importing rows with their ids does not move the sequence, which would
/// then assign the same ids again.
fn sequence(client: &mut Client) -> Result<String, String> {
    let ids = pairs(client, SEQUENCE_STATE).map_err(|reason| format!("ids: {reason}"))?;
    let (is_behind, highest) = ids.into_iter().next().unwrap_or_default();
    match is_behind.as_str() {
        "t" => Err(format!(
            "ids: the sequence lies behind the table and would give ids again; run `tinytasks migrate`, or \
             `select setval(pg_get_serial_sequence('tasks', 'id'), {highest})` while nobody writes"
        )),
        "f" => Ok("ids: the sequence is ahead of every id".to_owned()),
        _ => Ok("ids: not examined, as this role may not look at the sequence".to_owned()),
    }
}

/// Looks for rows with instants that RFC 3339 cannot write.
fn instants(client: &mut Client) -> Result<String, String> {
    let found = pairs(client, OUT_OF_RANGE).map_err(|reason| format!("rows: {reason}"))?;
    match found.first() {
        Some((count, _)) if count != "0" => Err(format!(
            "rows: {count} have a created_at or updated_at outside the years 1 to 9999; run `tinytasks migrate`"
        )),
        _ => Ok("rows: all instants can be shown".to_owned()),
    }
}

/// The number of rows that break each constraint that is not validated: rows that are older than the constraint.
/// The conditions come from the table itself; in PostgreSQL, query_to_xml can run a statement that was built
/// from a row.
const OLD_ROWS: &str = "
    select conname, (xpath('/row/count/text()', query_to_xml(
            format('select count(*) from tasks where not (%s)', pg_get_expr(conbin, conrelid)),
            false, true, '')))[1]::text
        from pg_constraint
        where conrelid = 'tasks'::regclass and contype = 'c' and not convalidated
        order by conname";

fn old_rows(client: &mut Client) -> Result<String, String> {
    let counts = pairs(client, OLD_ROWS).map_err(|reason| format!("rows: {reason}"))?;
    let broken: Vec<_> = counts
        .iter()
        .filter(|(_, count)| count != "0")
        .map(|(rule, count)| format!("{count} break {rule}"))
        .collect();
    if broken.is_empty() {
        return Ok("rows: all keep the rules".to_owned());
    }
    let broken = broken.join(", ");
    Err(format!("rows: {broken}; they can be read, but not changed until they are corrected"))
}

/// The first two columns of all rows, as text.
fn pairs(client: &mut Client, sql: &str) -> Result<Vec<(String, String)>, String> {
    let messages = client.simple_query(sql).map_err(|error| cause(&error))?;
    let text = |row: &SimpleQueryRow, column| row.get(column).unwrap_or_default().to_owned();
    let pair = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some((text(row, 0), text(row, 1))),
        _ => None,
    };
    Ok(messages.iter().filter_map(pair).collect())
}
