//! The rules of Citus for a table distributed by `user_id` that one PostgreSQL can check: which
//! functions the statements use, and that the report of a dead worker is no broken connection.

use crate::statements::{STATEMENTS, Statement, UPDATE};
use crate::support::harness::{App, Database, eventually, run_binary};
use postgres::Client;
use postgres::types::Type;
use serde_json::json;

/// The text of a statement in which a value replaces each parameter. The highest parameter number is replaced
/// first, so that `$1` does not match the beginning of `$10`.
fn with_values(statement: &Statement, has_icu: bool) -> String {
    let mut sql = statement.sql(has_icu).to_owned();
    for (number, ty) in (1..).zip(statement.types).collect::<Vec<_>>().into_iter().rev() {
        let value = match *ty {
            _ if number == 1 => "'alice'::text",
            Type::TEXT => "'t'::text",
            Type::INT8 => "1::bigint",
            Type::BOOL => "true",
            Type::TIMESTAMPTZ => "null::timestamptz",
            _ => "null::timestamptz[]",
        };
        sql = sql.replace(&format!("${number}"), value);
    }
    sql
}

/// Every function, and every operator's and cast's function, that a rule made of the statement depends
/// on: its name, its volatility, and whether it is reached with a column of the table inside.
fn volatile_functions(client: &mut Client, sql: &str) -> Vec<String> {
    // The columns are returned as they are.
    let sql = sql.split(" returning ").next().unwrap();
    // PostgreSQL keeps a rule's action as a tree in which each function is named by its number.
    client
        .batch_execute(&format!(
            "create or replace view pg_temp.nothing as select 1 as one;
             create rule statement as on insert to pg_temp.nothing do instead ({sql})"
        ))
        .unwrap();
    let tree: String = client
        .query_one("select ev_action::text from pg_rewrite where rulename = 'statement'", &[])
        .unwrap()
        .get(0);
    client.batch_execute("drop rule statement on pg_temp.nothing").unwrap();
    let mut found = Vec::new();
    for (number, inside) in calls(&tree) {
        let row = client
            .query_one("select proname::text, provolatile::text from pg_proc where oid = $1", &[&number])
            .unwrap();
        let (name, volatility): (String, String) = (row.get(0), row.get(1));
        let has_column = inside.contains("{VAR ");
        if volatility == "v" || volatility == "s" && has_column {
            found.push(format!("{name} ({volatility}{})", if has_column { ", of a column" } else { "" }));
        }
    }
    found
}

/// The number of the called function in each call of the tree, and the part of the tree below the call.
fn calls(tree: &str) -> Vec<(u32, &str)> {
    let mut found = Vec::new();
    for field in [":funcid ", ":opfuncid "] {
        for (at, _) in tree.match_indices(field) {
            let number = tree[at + field.len()..].split(' ').next().unwrap().parse().unwrap();
            if number != 0 {
                let begin = tree[..at].rfind('{').unwrap();
                found.push((number, node(&tree[begin..])));
            }
        }
    }
    found
}

/// The text from a brace to the brace that closes it.
fn node(text: &str) -> &str {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..=at];
        }
    }
    text
}

/// Citus refuses volatile functions in an update, and stable ones of a column: each shard would
/// evaluate them for itself.
#[test]
fn every_statement_can_be_distributed() {
    let database = Database::create();
    let outcome = run_binary(&["migrate"], &[("DATABASE_URL", &database.url)]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let mut client = database.client();
    for (statement, has_icu) in
        STATEMENTS.iter().flat_map(|statement| [(statement, true), (statement, false)])
    {
        let sql = with_values(statement, has_icu);
        // Only changes must have no volatile functions. An insert goes to one shard as a whole row, and a read
        // may use any function.
        let found = volatile_functions(&mut client, &sql);
        // The coordinator evaluates these before it sends an insert.
        let of_insert = ["convert_to (s)", "json_build_array (s)"];
        let found: Vec<_> = found.iter().filter(|name| !of_insert.contains(&name.as_str())).collect();
        assert!(found.is_empty(), "{sql}: {found:?}");
    }
    // Checks the test itself: it must find functions that Citus refuses.
    for (expression, wanted) in [
        ("greatest(clock_timestamp(), updated_at)", "clock_timestamp (v)"),
        ("updated_at + interval '1 microsecond'", "timestamptz_pl_interval (s, of a column)"),
    ] {
        let sql = format!("update tasks set updated_at = {expression} where user_id = 'alice'");
        assert_eq!(volatile_functions(&mut client, &sql), [wanted]);
    }
}

/// `updated_at` is the later one of the clock's time and the old value plus a microsecond.
#[test]
fn a_change_is_later_than_the_one_before_whatever_the_clock_says() {
    let app = App::spawn();
    let alice = app.user("alice");
    let id = alice.create_id();
    for stored in
        ["now()", "now() + interval '1 year'", "now() - interval '1 year'", "now() + interval '1 hour'"]
    {
        app.database.execute(&format!(
            "update tasks set created_at = least(created_at, {stored}), updated_at = {stored}"
        ));
        let mut last = alice.task(id)["updated_at"].as_str().unwrap().to_owned();
        for _ in 0..50 {
            let task = alice.on_task("PATCH", id).json(json!({"complete": true})).send().expect(200).json();
            let updated = task["updated_at"].as_str().unwrap().to_owned();
            assert!(updated > last, "{stored}: {last} and then {updated}");
            last = updated;
        }
    }
    // Within one transaction the clock stands still.
    let update = with_values(&UPDATE, true).replace("id = 1::bigint", &format!("id = {id}"));
    let mut client = app.database.client();
    let mut transaction = client.transaction().unwrap();
    let mut times = Vec::new();
    for _ in 0..3 {
        let row = transaction.query_one(&update, &[]).unwrap();
        times.push(row.get::<_, std::time::SystemTime>("updated_at"));
    }
    assert!(times.is_sorted_by(|one, other| one < other), "{times:?}");
}

#[test]
fn check_says_that_the_table_is_on_one_server() {
    let app = App::spawn();
    let variables =
        [("DATABASE_URL", app.database.url.as_str()), ("JWT_SECRET_KEY", crate::support::token::SECRET)];
    let outcome = run_binary(&["check"], &variables);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stdout.contains("distribution: none"), "{outcome:?}");
}

/// A trigger fails with the error of a Citus coordinator whose worker is away.
#[test]
fn an_error_about_a_server_behind_the_server_costs_no_connection() {
    let app = App::spawn();
    let (alice, bob) = (app.user("alice"), app.user("bob"));
    let (ids, bobs) = ([alice.create_id(), alice.create_id()], bob.create_id());
    app.database.execute(
        "create function report() returns trigger language plpgsql as $$
         begin
           if new.user_id = 'alice' then
             raise 'connection to the remote node failed' using errcode = '08006';
           end if;
           return new;
         end $$;
         create trigger report before insert or update on tasks for each row execute function report()",
    );
    let sessions = "select string_agg(pid::text, ' ' order by pid) from pg_stat_activity \
        where datname = current_database() and application_name = 'tinytasks'";
    let count = "select count(*) from pg_stat_activity \
        where datname = current_database() and application_name = 'tinytasks'";
    eventually("all connections", || app.database.value(count) == "17");
    let before = app.database.value(sessions);
    for _ in 0..20 {
        let change = json!({"complete": true});
        for id in ids {
            let answer = alice.on_task("PATCH", id).json(change.clone()).send();
            let answer = answer.expect_problem(503, "SERVICE_UNAVAILABLE").json();
            // The worker may have made the change before it was lost.
            assert_eq!(
                answer["detail"],
                "it is not known whether this was done, so look before you try again"
            );
        }
        alice.post(json!({"title": "t"})).expect_problem(503, "SERVICE_UNAVAILABLE");
        bob.on_task("PATCH", bobs).json(change).send().expect(200);
        app.get("/health").send().expect(200);
    }
    assert_eq!(app.database.value(sessions), before);
}
