//! Whether the table `tasks` is there, or can be made.

use super::pairs;
use postgres::Client;

pub enum Table {
    Exists,
    /// The service makes the table when it starts.
    WillBeCreated,
}

/// The kind of the object that is named `tasks`; no row if there is no such object.
const KIND: &str = "
    select case (select relkind from pg_class where oid = to_regclass('tasks'))
        when 'r' then 'table' when 'p' then 'table' when 'v' then 'view' when 'm' then 'materialized view'
        when 'f' then 'foreign table' when 'S' then 'sequence' when 'i' then 'index' else 'type' end, ''
    where to_regclass('tasks') is not null";

/// The role, and the schema in which it would make the table (null if it may use no schema of search_path). No
/// row if the role may make the table.
const CANNOT_CREATE: &str = "
    select quote_ident(current_user), quote_ident(current_schema())
        where not coalesce(has_schema_privilege(current_schema(), 'create'), false)";

/// A row for each missing column that `schema.sql` does not add, with its type. The type is null if only a backup
/// has the values. `schema.sql` adds the two columns of idempotency keys only if both are missing.
const LOST_COLUMNS: &str = "
    with lost as (
        select name, type from (values
                ('user_id', null), ('id', null), ('title', 'text'), ('description', 'text'),
                ('complete', 'boolean'), ('created_at', 'timestamptz'), ('updated_at', 'timestamptz'),
                ('idempotency_key', 'text'), ('idempotency_hash', 'bytea')) as wanted (name, type)
            where not exists (select from pg_attribute
                where attrelid = to_regclass('tasks') and attname = name and not attisdropped))
    select name, type from lost
        where name not like 'idempotency%' or (select count(*) from lost where name like 'idempotency%') = 1";

/// Whether the table is there, or will be made by the service. Without `auto_migrate` a missing table counts as
/// there: the caller finds that no statement can run. Errors: `tasks` is an object that neither the service nor
/// `tinytasks migrate` can work with, or the service could not make the table.
pub fn find_table(client: &mut Client, auto_migrate: bool) -> Result<Table, Vec<String>> {
    let failed = |reason| vec![format!("schema: {reason}")];
    match pairs(client, KIND).map_err(failed)?.first() {
        Some((kind, _)) if kind == "table" => {}
        Some((kind, _)) => {
            return Err(failed(format!(
                "tasks is a {kind}, must be a table; rename the {kind}, or let search_path name another schema"
            )));
        }
        None if auto_migrate => return may_be_made(client).map(|()| Table::WillBeCreated).map_err(failed),
        None => return Ok(Table::Exists),
    }
    let lost = pairs(client, LOST_COLUMNS).map_err(failed)?;
    let remedy = |(name, ty): &(String, String)| match ty.as_str() {
        "" => format!("schema: column {name} of tasks is missing; restore the table from a backup"),
        ty => format!(
            "schema: column {name} of tasks is missing; restore the table from a backup, or run \
             `alter table tasks add column {name} {ty}` and then `tinytasks migrate`"
        ),
    };
    if lost.is_empty() { Ok(Table::Exists) } else { Err(lost.iter().map(remedy).collect()) }
}

/// Errors: why the service could not make the table when it starts.
fn may_be_made(client: &mut Client) -> Result<(), String> {
    let missing = "there is no table tasks, and";
    match pairs(client, CANNOT_CREATE)?.first() {
        None => Ok(()),
        Some((role, schema)) if schema.is_empty() => Err(format!(
            "{missing} search_path names no schema that role {role} may use; create the schema, or run \
             `grant usage, create on schema NAME to {role}`"
        )),
        Some((role, schema)) => Err(format!(
            "{missing} role {role} may not make it; run `grant create on schema {schema} to {role}`, or \
             `tinytasks migrate` as the owner of schema {schema}"
        )),
    }
}
