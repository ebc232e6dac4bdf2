//! What keeps the statements of the service from running, or makes their answers wrong: missing or
//! different columns and indexes, missing rights, rows that row-level security hides. Reads the
//! catalogue only, so it waits for no lock on the table.

use postgres::Client;

/// One thing that is wrong, with its remedy.
pub struct Finding {
    pub text: String,
    /// Statements run, and do not see every row.
    pub hides_rows: bool,
}

/// Errors: the database did not answer, or refused to.
pub fn examine(client: &mut Client) -> Result<Vec<Finding>, postgres::Error> {
    let rows = client.query_typed(FINDINGS, &[])?;
    rows.iter().map(|row| Ok(Finding { text: row.try_get(0)?, hides_rows: row.try_get(1)? })).collect()
}

/// Whether row-level security is active on the table for this role.
pub fn has_row_security(client: &mut Client) -> Result<bool, postgres::Error> {
    let active = "select coalesce(row_security_active(to_regclass('tasks')::oid), false)";
    client.query_typed_one(active, &[])?.try_get(0)
}

/// Each row is a finding. Where the table is missing, that is the only one.
const FINDINGS: &str = "
with t as materialized (select to_regclass('tasks')::oid as oid),
wanted (name, type, may_be_null) as (values
    ('user_id', 'text', false), ('id', 'bigint', false), ('title', 'text', false),
    ('description', 'text', true), ('complete', 'boolean', false),
    ('created_at', 'timestamp with time zone', false), ('updated_at', 'timestamp with time zone', false),
    ('idempotency_key', 'text', true), ('idempotency_hash', 'bytea', true)),
found as (
    select attname::text as name, format_type(atttypid, atttypmod) as type, not attnotnull as may_be_null,
            atthasdef or attidentity <> '' as has_default
        from pg_attribute, t where attrelid = t.oid and attnum > 0 and not attisdropped),
unique_index as (
    select array_agg(attname::text order by ord) as columns, pg_index.indpred is not null as is_partial
        from t join pg_index on indrelid = t.oid, unnest(indkey) with ordinality as key (num, ord)
            join pg_attribute on attnum = num
        where attrelid = t.oid and indisunique and indisvalid group by indexrelid, indpred is not null),
-- What may be done to which rows: PostgreSQL adds the permissive policies up, and then takes away what
-- a restrictive one does not let through.
policy as (
    select polpermissive, command,
            coalesce(pg_get_expr(polqual, polrelid), 'true') = 'true'
                and coalesce(pg_get_expr(polwithcheck, polrelid), 'true') = 'true' as is_open
        from t join pg_policy on polrelid = t.oid,
            unnest(case polcmd when '*' then array['r', 'a', 'w', 'd'] else array[polcmd::text] end) as command
        where 0 = any (polroles) or exists (
            select from unnest(polroles) as role where pg_has_role(current_user, role, 'usage'))),
hidden as (
    select from t, unnest(array['r', 'a', 'w', 'd']) as wanted_command
        where row_security_active(t.oid) and (
            not exists (select from policy where command = wanted_command and polpermissive and is_open)
            or exists (select from policy where command = wanted_command and not polpermissive and not is_open)))
select 'schema: there is no table tasks; run `tinytasks migrate`', false from t where oid is null
union all
select format('schema: column %s of tasks is missing; run `tinytasks migrate`', name), false
    from t, wanted where oid is not null and name not in (select name from found)
union all
select format('schema: column %s of tasks is %s%s, must be %s%s; run `tinytasks migrate`', name,
        found.type, case when found.may_be_null then '' else ' not null' end,
        wanted.type, case when wanted.may_be_null then '' else ' not null' end), false
    from found join wanted using (name)
    where found.type <> wanted.type or (found.may_be_null and not wanted.may_be_null)
union all
select format('schema: column %s of tasks has no default; run `tinytasks migrate`', name), false
    from found where name in ('id', 'complete', 'created_at', 'updated_at') and not has_default
union all
select format('schema: column %s of tasks has neither nulls nor a default, and this service does not '
        'know it; give it a default', name), false
    from found where not may_be_null and not has_default and name not in (select name from wanted)
union all
select 'schema: tasks has no unique index on (user_id, id); run `tinytasks migrate`', false
    from t where oid is not null
        and not exists (select from unique_index where columns = array['user_id', 'id'] and not is_partial)
union all
select 'schema: tasks has no unique index on (user_id, idempotency_key); run `tinytasks migrate`', false
    from t where oid is not null
        and not exists (select from unique_index where columns = array['user_id', 'idempotency_key'])
union all
select format('rights: role %1$s may not %2$s; run `grant select, insert, update, delete on tasks to %1$s`',
        quote_ident(current_user), command), false
    from t, unnest(array['select', 'insert', 'update', 'delete']) as command
    where oid is not null and not has_table_privilege(oid, command)
union all
select format('row security: it hides rows of tasks from role %1$s, so lists would be short; run '
        '`create policy tinytasks on tasks to %1$s using (true) with check (true)`, or `alter role %1$s '
        'bypassrls`', quote_ident(current_user)), true
    from (select from hidden limit 1) as any_hidden";
