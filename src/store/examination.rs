//! Finds the reasons for which the service's statements would fail or give wrong answers: columns and indexes
//! that are missing or different, missing rights, rows that row-level security hides, a server that accepts no
//! change. Reads only the system catalogue, so it does not wait for locks on the table.

use postgres::Client;

/// One problem, with its remedy in the text.
pub struct Finding {
    pub text: String,
    pub harm: Harm,
}

/// What a problem does to the service's statements.
#[derive(Clone, Copy, PartialEq)]
pub enum Harm {
    /// Statements fail.
    Fails,
    /// Statements run but do not see every row.
    HidesRows,
    /// Reads run as usual, but every change is refused.
    RefusesChanges,
}

/// The result of an examination.
pub struct Examination {
    pub findings: Vec<Finding>,
    pub facts: Facts,
}

/// Facts about the database on which the connections of the pool depend.
#[derive(Clone, Copy, Default, PartialEq)]
pub struct Facts {
    /// Whether row-level security is active on the table for this role. If there is no finding about it, its
    /// policies let every row through.
    pub has_row_security: bool,
    /// Whether PostgreSQL has the collations of ICU.
    pub has_icu: bool,
}

/// Examines the database. Errors: the database did not answer, or refused a statement.
pub fn examine(client: &mut Client) -> Result<Examination, postgres::Error> {
    if client.query_typed_one("select to_regclass('tasks') is null", &[])?.try_get(0)? {
        let text = "schema: there is no table tasks; run `tinytasks migrate`".to_owned();
        let findings = vec![Finding { text, harm: Harm::Fails }];
        return Ok(Examination { findings, facts: Facts::default() });
    }
    let mut findings = Vec::new();
    for statement in [COLUMNS, INDEXES, RIGHTS] {
        for row in client.query_typed(statement, &[])? {
            findings.push(Finding { text: row.try_get(0)?, harm: Harm::Fails });
        }
    }
    let (has_row_security, hidden) = row_security(client)?;
    findings.extend(hidden.map(|text| Finding { text, harm: Harm::HidesRows }));
    findings.extend(read_only(client)?.map(|text| Finding { text, harm: Harm::RefusesChanges }));
    let has_icu = client.query_typed_one(HAS_ICU, &[])?.try_get(0)?;
    let facts = Facts { has_row_security, has_icu };
    Ok(Examination { findings, facts })
}

/// Whether row-level security is active on the table for this role, and the text of a finding if it hides rows.
pub fn row_security(client: &mut Client) -> Result<(bool, Option<String>), postgres::Error> {
    let row = client.query_typed_one(ROW_SECURITY, &[])?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// The text of a finding if the server would refuse every change.
pub fn read_only(client: &mut Client) -> Result<Option<String>, postgres::Error> {
    client.query_typed_one(READ_ONLY, &[])?.try_get(0)
}

/// The text of a finding if this session can change nothing, else null. Sessions accept changes as soon as their
/// standby is promoted; a changed `default_transaction_read_only` counts only for new sessions.
const READ_ONLY: &str = "
select case when current_setting('transaction_read_only') = 'off' then null when pg_is_in_recovery() then
        'database: is a standby, which accepts no change; name the primary in DATABASE_URL, or all hosts with '
        'target_session_attrs=read-write'
    else
        'database: default_transaction_read_only is on for this role, database or DATABASE_URL, so no change is '
        'accepted; switch it off' end";

/// Whether Unicode's root collation can be used. PostgreSQL may have been built without ICU, and ICU does not
/// support every encoding (https://www.postgresql.org/docs/current/collation.html).
const HAS_ICU: &str =
    "select current_setting('server_encoding') = 'UTF8' and exists (select from pg_collation
    where collname = 'und-x-icu' and collnamespace = 'pg_catalog'::regnamespace)";

/// A row for each column that is missing, has another type, or could not be filled by an insert.
const COLUMNS: &str = "
with wanted (name, type, may_be_null, needs_default) as (values
    ('user_id', 'text', false, false), ('id', 'bigint', false, true), ('title', 'text', false, false),
    ('description', 'text', true, false), ('complete', 'boolean', false, true),
    ('created_at', 'timestamp with time zone', false, true),
    ('updated_at', 'timestamp with time zone', false, true),
    ('idempotency_key', 'text', true, false), ('idempotency_hash', 'bytea', true, false)),
found as (
    select attname::text as name, format_type(atttypid, atttypmod) as type, not attnotnull as may_be_null,
            atthasdef or attidentity <> '' as has_default
        from pg_attribute where attrelid = to_regclass('tasks') and attnum > 0 and not attisdropped)
select format('schema: column %s of tasks is missing; run `tinytasks migrate`', name)
    from wanted where name not in (select name from found)
union all
select format('schema: column %s of tasks is %s%s, must be %s%s; run `tinytasks migrate`', name,
        found.type, case when found.may_be_null then '' else ' not null' end,
        wanted.type, case when wanted.may_be_null then '' else ' not null' end)
    from found join wanted using (name)
    where found.type <> wanted.type or (found.may_be_null and not wanted.may_be_null)
union all
select format('schema: column %s of tasks has no default; run `tinytasks migrate`', name)
    from found join wanted using (name) where needs_default and not has_default
union all
select format('schema: column %s of tasks has neither nulls nor a default, and this service does not '
        'know it; give it a default', name)
    from found where not may_be_null and not has_default and name not in (select name from wanted)";

/// A row for each missing unique index.
const INDEXES: &str = "
with unique_index as (
    select array_agg(attname::text order by ord) as columns, indpred is not null as is_partial
        from pg_index, unnest(indkey) with ordinality as key (num, ord), pg_attribute
        where indrelid = to_regclass('tasks') and indisunique and indisvalid
            and attrelid = indrelid and attnum = num
        group by indexrelid, indpred is not null),
wanted (columns, may_be_partial) as (values
    (array['user_id', 'id'], false), (array['user_id', 'idempotency_key'], true))
select format('schema: tasks has no unique index on (%s); run `tinytasks migrate`',
        array_to_string(wanted.columns, ', '))
    from wanted where not exists (
        select from unique_index as found
            where found.columns = wanted.columns and (may_be_partial or not is_partial))";

/// A row that names the rights that the role lacks; no row if it has all of them.
const RIGHTS: &str = "
select format('rights: role %1$s may not %2$s; run `grant select, insert, update, delete on tasks to %1$s`',
        quote_ident(current_user), string_agg(command, ', ' order by number))
    from unnest(array['select', 'insert', 'update', 'delete']) with ordinality as command (command, number)
    where not has_table_privilege(to_regclass('tasks')::oid, command)
    having count(*) > 0";

/// Whether row-level security is active on the table for this role; and the text of a finding if it hides rows,
/// else null. Both are in one statement: if row security were switched on between two statements, policies that
/// were never examined would be taken for harmless. PostgreSQL shows a row if at least one permissive policy
/// allows it and no restrictive policy forbids it
/// (https://www.postgresql.org/docs/current/sql-createpolicy.html).
const ROW_SECURITY: &str = "
with policy as (
    select polpermissive, command,
            coalesce(pg_get_expr(polqual, polrelid), 'true') = 'true'
                and coalesce(pg_get_expr(polwithcheck, polrelid), 'true') = 'true' as is_open
        from pg_policy,
            unnest(case polcmd when '*' then array['r', 'a', 'w', 'd'] else array[polcmd::text] end) as command
        where polrelid = to_regclass('tasks') and (0 = any (polroles) or exists (
            select from unnest(polroles) as role where pg_has_role(current_user, role, 'usage')))),
hidden as (
    select from unnest(array['r', 'a', 'w', 'd']) as wanted
        where not exists (select from policy where command = wanted and polpermissive and is_open)
            or exists (select from policy where command = wanted and not polpermissive and not is_open)),
active as materialized (
    select coalesce(row_security_active(to_regclass('tasks')::oid), false) as is_active)
select is_active, case when is_active and exists (select from hidden) then
        format('row security: it hides rows of tasks from role %1$s, so lists would be short; run '
            '`create policy tinytasks on tasks to %1$s using (true) with check (true)`, or `alter role %1$s '
            'bypassrls`', quote_ident(current_user)) end
    from active";
