//! Faults of schema, rights and rows that keep the service from serving although the database answers:
//! `check` names the fault with its remedy, `/health` says so, and no restart is needed once it is mended.

use crate::support::{
    harness::{App, Database, Outcome, eventually, eventually_settles, run_binary},
    http::Request,
    relay::Relay,
    roles::Role,
    token::SECRET,
};
use serde_json::json;
use std::{
    thread,
    time::{Duration, Instant},
};

fn check(url: &str) -> Outcome {
    let variables = [("DATABASE_URL", url), ("JWT_SECRET_KEY", SECRET), ("AUTO_MIGRATE", "false")];
    run_binary(&["check"], &variables)
}

fn migrate(database: &Database) {
    let outcome = run_binary(&["migrate"], &[("DATABASE_URL", &database.url)]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
}

#[track_caller]
fn assert_finds(url: &str, words: &[&str]) {
    let outcome = check(url);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    for word in words {
        assert!(outcome.stderr.contains(word), "{word}: {outcome:?}");
    }
}

#[track_caller]
fn assert_not_ready(app: &App) {
    eventually("not being ready", || {
        let health = app.get("/health").send();
        health.status == 503 && health.json()["database"] == "not ready"
    });
}

/// Starts a service on the database of this URL, which belongs to the caller.
fn start(url: &str) -> App {
    App::setup().env("DATABASE_URL", url).env("AUTO_MIGRATE", "false").unhealthy().spawn()
}

#[test]
fn a_list_is_never_short_because_row_security_hides_rows() {
    let database = Database::create();
    migrate(&database);
    database.execute("insert into tasks (user_id, title) values ('alice', 'a task')");
    let role = Role::create(&database, "");
    let app = start(&role.url);
    let alice = app.user("alice");
    let is_well = || app.get("/health").send().status == 200;
    eventually("health", is_well);
    eventually_settles("the list", || alice.request("GET", "/tasks").send().status == 200);
    for policy in [
        "",
        "create policy p on tasks using (user_id = current_setting('tinytasks.user_id', true))",
        // Rows can be read, but not written.
        "create policy p on tasks for select using (true)",
        "create policy p on tasks using (true) with check (user_id <> 'alice')",
        // A policy for another role.
        "create policy p on tasks to pg_monitor using (true)",
        "create policy p on tasks using (true); create policy q on tasks as restrictive using (id > 1)",
    ] {
        database.execute(&format!("alter table tasks enable row level security; {policy}"));
        // The request is refused at once, before the watching thread has examined the table again.
        alice.request("GET", "/tasks").send().expect_problem(503, "SERVICE_UNAVAILABLE");
        assert_not_ready(&app);
        alice.request("GET", "/tasks").send().expect_problem(503, "SERVICE_UNAVAILABLE");
        alice.post(json!({"title": "t"})).expect_problem(503, "SERVICE_UNAVAILABLE");
        assert_finds(&role.url, &["row security", "create policy", &role.name]);
        app.wait_for_log(|line| line.contains("database not ready") && line.contains("row security"));
        database.execute("drop policy if exists p on tasks; drop policy if exists q on tasks");
        database.execute("alter table tasks disable row level security");
        eventually("health", is_well);
        eventually_settles("the list", || alice.request("GET", "/tasks").send().status == 200);
        assert_eq!(alice.list()["count"], 1, "{policy}");
    }
    // The remedy that is named; policies that let the role see and write everything.
    let remedy = format!("create policy tinytasks on tasks to {} using (true) with check (true)", role.name);
    for policy in [
        remedy.as_str(),
        "create policy tinytasks on tasks using (true)",
        "create policy tinytasks on tasks using (true); create policy q on tasks using (id > 7)",
    ] {
        database.execute(&format!("alter table tasks enable row level security; {policy}"));
        assert_eq!(check(&role.url).code, Some(0), "{policy}");
        // PostgreSQL refuses the statements until the watching thread has examined the policy.
        eventually_settles("the list", || alice.request("GET", "/tasks").send().status == 200);
        assert!(is_well(), "{policy}");
        assert_eq!(alice.list()["count"], 1, "{policy}");
        let id = alice.create_id();
        alice.on_task("PATCH", id).json(json!({"complete": true})).send().expect(200);
        alice.on_task("DELETE", id).send().expect(204);
        database.execute("drop policy tinytasks on tasks; drop policy if exists q on tasks");
        database.execute("alter table tasks disable row level security");
    }
    drop(app);
}

#[test]
fn a_schema_that_is_missing_or_incomplete_is_said_by_health_and_check_and_needs_no_restart() {
    for (case, prepare, word) in [
        ("no table", "select 1", "no table tasks"),
        (
            "no columns for keys",
            "alter table tasks drop column idempotency_key, drop column idempotency_hash",
            "idempotency_key",
        ),
        ("no index for keys", "drop index tasks_idempotency_key", "unique index"),
        ("no key", "alter table tasks drop constraint tasks_pkey", "unique index"),
        ("no default", "alter table tasks alter updated_at drop default", "updated_at"),
        ("nulls", "alter table tasks alter complete drop not null", "complete"),
        ("other type", "alter table tasks alter created_at type timestamptz(0)", "created_at"),
    ] {
        let database = Database::create();
        if case != "no table" {
            migrate(&database);
        }
        database.execute(prepare);
        let app = start(&database.url);
        assert_not_ready(&app);
        app.user("alice").request("GET", "/tasks").send().expect_problem(503, "SERVICE_UNAVAILABLE");
        app.wait_for_log(|line| line.contains("database not ready") && line.contains(word));
        assert_finds(&database.url, &[word, "tinytasks migrate"]);
        migrate(&database);
        eventually("health", || app.get("/health").send().status == 200);
        eventually("a task", || app.user("alice").post(json!({"title": "t"})).status == 201);
        assert_eq!(check(&database.url).code, Some(0), "{case}");
    }
}

#[test]
fn a_right_that_is_taken_away_and_a_column_that_nobody_fills_are_named() {
    let database = Database::create();
    migrate(&database);
    let role = Role::create(&database, "");
    let app = start(&role.url);
    eventually("health", || app.get("/health").send().status == 200);
    for command in ["select", "insert", "update", "delete"] {
        database.execute(&format!("revoke {command} on tasks from {}", role.name));
        assert_not_ready(&app);
        assert_finds(&role.url, &[command, "grant", &role.name]);
        database.execute(&format!("grant {command} on tasks to {}", role.name));
        eventually("health", || app.get("/health").send().status == 200);
    }
    database.execute("alter table tasks add column priority integer not null default 1");
    assert_eq!(check(&role.url).code, Some(0));
    database.execute("alter table tasks alter priority drop default");
    assert_not_ready(&app);
    assert_finds(&role.url, &["priority", "give it a default"]);
    database.execute("alter table tasks drop column priority");
    drop(app);
}

#[test]
fn a_sequence_that_lies_behind_imported_ids_is_found_and_mended() {
    let app = App::spawn();
    let database = &app.database;
    let alice = app.user("alice");
    alice.create_id();
    database.execute(
        "insert into tasks (id, user_id, title) select n, 'bob', 't' from generate_series(10, 20) n;
         select setval(pg_get_serial_sequence('tasks', 'id'), 14)",
    );
    assert_finds(
        &database.url,
        &["ids:", "tinytasks migrate", "setval(pg_get_serial_sequence('tasks', 'id'), 20)"],
    );
    migrate(database);
    assert_eq!(check(&database.url).code, Some(0));
    assert_eq!(alice.create_id(), 21);
    // A sequence that is ahead stays where it is: its ids may have been those of deleted tasks.
    database.execute("select setval(pg_get_serial_sequence('tasks', 'id'), 100)");
    migrate(database);
    assert_eq!(alice.create_id(), 101);
}

/// The role may have one connection fewer than the pool is configured for.
#[test]
fn a_role_with_few_connections_is_served_by_those_and_the_rest_is_not_asked_for_all_the_time() {
    let database = Database::create();
    migrate(&database);
    let role = Role::create(&database, "connection limit 3");
    let app = start(&role.url);
    eventually("health", || app.get("/health").send().status == 200);
    let alice = app.user("alice");
    eventually_settles("the list", || alice.request("GET", "/tasks").send().status == 200);
    let line = app.wait_for_log(|line| line.contains("allows no more connections"));
    assert!(line.contains("wanted=16") && line.contains("53300"), "{line}");
    // How often the log says that no more connections are allowed.
    let refused = || {
        let log = app.log_so_far();
        log.matches("allows no more connections").count()
    };
    for _ in 0..200 {
        alice.request("GET", "/tasks").send().expect(200);
    }
    assert_eq!(refused(), 1, "once: {}", app.log_so_far());
    // The pool grows again when the role may have more connections.
    database.execute(&format!("alter role {} connection limit 30", role.name));
    let sessions = "select count(*) from pg_stat_activity where datname = current_database() \
        and application_name = 'tinytasks'";
    eventually("all connections", || database.value(sessions) == "17");
    drop(app);
}

/// The relay counts the attempts to connect. When two attempts are more than six seconds apart, the next pause
/// lasts sixteen seconds.
#[test]
fn a_role_with_few_connections_that_loses_them_all_is_served_without_the_pause_for_one_more() {
    let database = Database::create();
    migrate(&database);
    let role = Role::create(&database, "connection limit 3");
    let relay = Relay::to(database.server_address());
    let app = start(&role.url.replace(database.server_address(), &relay.address));
    let is_served = || app.user("alice").request("GET", "/tasks").send().status == 200;
    eventually_settles("the list", is_served);
    let (mut attempts, mut since) = (relay.accepted(), Instant::now());
    eventually("a long pause", || {
        let pause = since.elapsed();
        let is_attempt = relay.accepted() > attempts;
        if is_attempt {
            (attempts, since) = (relay.accepted(), Instant::now());
        }
        is_attempt && pause > Duration::from_secs(6)
    });
    eventually("the refusal of that attempt", || relay.open() == 3);
    let lost = Instant::now();
    database.terminate_sessions();
    eventually_settles("the list", is_served);
    assert!(lost.elapsed() < Duration::from_secs(10), "{:?}", lost.elapsed());
    drop(app);
}

#[test]
fn health_is_that_of_the_pool_where_the_role_has_no_connection_left_to_watch_by() {
    let database = Database::create();
    migrate(&database);
    let role = Role::create(&database, "connection limit 5");
    let setup = App::setup().env("DATABASE_URL", &role.url).env("AUTO_MIGRATE", "false");
    let app = setup.env("ADMIN_ADDR", "127.0.0.1:0").unhealthy().spawn();
    let is_served = || app.user("alice").request("GET", "/tasks").send().status == 200;
    let is_healthy = || app.get("/health").send().status == 200;
    eventually("health", is_healthy);
    eventually_settles("the list", is_served);
    // Requests find the lost connections before the watching thread does, and the pool takes all five.
    let is_taken = || app.admin("/metrics").send().text().contains("connections{state=\"idle\"} 5");
    eventually("the last connection", || {
        database.terminate_sessions();
        eventually_settles("the list", is_served);
        is_taken()
    });
    // This waits longer than an answer counts as a sign that the database is answering.
    let later = format!(
        "select count(*) filter (where state_change > '{}'::timestamptz + interval '2 s') > 0 \
         from pg_stat_activity where datname = current_database() and application_name = 'tinytasks'",
        database.value("select now()::text")
    );
    eventually("a question without a request", || database.value(&later) == "true");
    assert!(is_healthy());
    eventually_settles("the list", is_served);
    assert!(is_taken());
    let said = || app.log_so_far().matches("gets no connection of its own").count();
    assert_eq!(said(), 1, "{}", app.log_so_far());

    // What is wrong with the schema is found there as well.
    database.execute("alter table tasks alter complete drop default");
    assert_not_ready(&app);
    database.execute("alter table tasks alter complete set default false");
    eventually("health", is_healthy);

    database.execute(&format!("alter role {} connection limit 30", role.name));
    let sessions = "select count(*) from pg_stat_activity where datname = current_database() \
        and application_name = 'tinytasks'";
    eventually("all connections", || database.value(sessions) == "17");
    assert_eq!(said(), 1, "{}", app.log_so_far());
    drop(app);
}

/// A minute is long for a test, and there is no shorter way to a rest.
#[test]
fn with_nothing_asked_for_a_minute_the_service_asks_the_database_nothing() {
    let app = App::setup().env("ADMIN_ADDR", "127.0.0.1:0").spawn();
    app.user("alice").create_id();
    let last = "select max(state_change)::text from pg_stat_activity where datname = current_database() \
        and application_name = 'tinytasks'";
    let began = Instant::now();
    let mut seen = app.database.value(last);
    let mut since = Instant::now();
    // Metrics and liveness ask nothing of the database.
    while since.elapsed() < Duration::from_secs(8) {
        assert!(began.elapsed() < Duration::from_secs(110), "still asked");
        thread::sleep(Duration::from_millis(200));
        app.admin("/health/live").send().expect(200);
        assert!(app.admin("/metrics").send().text().contains("\ntinytasks_database_up 1"));
        let now = app.database.value(last);
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
    }
    // A suspended database has ended its sessions; the first questions find it again.
    app.database.terminate_sessions();
    app.get("/health").send().expect(200);
    app.user("alice").request("GET", "/tasks").send().expect(200);
    app.user("alice").post(json!({"title": "t"})).expect(201);
    let ready = Request::new(&app.admin_address(), "GET", "/health/ready").of_admin().send();
    assert_eq!(ready.status, 200);
}
