//! A database that is away, slow, locked, read-only or broken: what clients are told meanwhile, and
//! that the service gets well by itself.

use crate::support::{
    harness::{App, Cluster, Database, eventually, eventually_settles, run_binary},
    http::{Connection, Response},
    locks::{Blocked, Held},
    raw::status,
    tasks::insert_many,
    token::SECRET,
};
use serde_json::json;
use std::{
    collections::BTreeSet,
    process::Command,
    thread,
    time::{Duration, Instant},
};

const UNKNOWN: &str = "it is not known whether this was done, so look before you try again";

#[track_caller]
fn assert_unavailable(response: Response) {
    response.expect_problem(503, "SERVICE_UNAVAILABLE");
}

fn assert_unhealthy(app: &App) {
    let wanted = json!({"status": "unhealthy", "service": "tinytasks",
        "version": env!("CARGO_PKG_VERSION"), "database": "disconnected"});
    eventually("unhealthiness", || app.get("/health").send().status == 503);
    assert_eq!(app.get("/health").send().expect(503).json(), wanted);
}

#[test]
fn a_service_started_without_its_database_answers_503_and_is_well_once_it_comes() {
    let cluster = Cluster::start();
    let database = Database::create_on(&cluster.url());
    cluster.stop();
    let app = App::setup().database(database).unhealthy().spawn();
    let alice = app.user("alice");
    assert_unhealthy(&app);
    assert_unavailable(alice.request("GET", "/tasks").send());
    assert_unavailable(alice.post(json!({"title": "t"})));
    // Routes that need no database answer as always.
    app.get("/").send().expect(200);
    app.get("/openapi.json").send().expect(200);
    app.get("/api/alice/tasks").send().expect(401);
    alice.post(json!({"title": ""})).expect(422);

    // The new database is empty: the service also has to apply its schema.
    cluster.start_again();
    eventually("health", || app.get("/health").send().status == 200);
    eventually("a task", || alice.post(json!({"title": "t"})).status == 201);
    eventually_settles("the list", || alice.request("GET", "/tasks").send().status == 200);

    // Now a restart under a service that has connections.
    cluster.stop();
    assert_unhealthy(&app);
    assert_unavailable(alice.request("GET", "/tasks").send());
    assert_unavailable(alice.post(json!({"title": "t"})));
    cluster.start_again();
    eventually("health", || app.get("/health").send().status == 200);
    eventually_settles("the list", || alice.request("GET", "/tasks").send().status == 200);
    let before = alice.list()["count"].as_i64().unwrap();
    alice.create("t");
    assert_eq!(alice.list()["count"], before + 1);
}

/// The driver panics if its runtime gets no file descriptor. This must neither end the watching thread nor lose a
/// place in the pool.
#[test]
fn a_machine_that_has_no_descriptors_for_a_while_has_all_its_connections_again() {
    let app = App::setup().env("DATABASE_POOL_SIZE", "2").spawn();
    let list = app.user("alice").request("GET", "/tasks");
    let sessions = || {
        app.database.value(
            "select count(*)::text from pg_stat_activity \
             where datname = current_database() and application_name = 'tinytasks'",
        )
    };
    eventually("all sessions", || sessions() == "3");
    let mut kept = Connection::open(&app.address).unwrap();
    let mut status = || {
        kept.write(&list.bytes());
        kept.read("GET").unwrap().status
    };
    assert_eq!(status(), 200);
    limit_descriptors(app.pid(), 1);
    app.database.terminate_sessions();
    eventually("no database", || status() == 503);
    app.wait_for_log(|line| line.contains("database out of reach"));
    assert_eq!(status(), 503);
    limit_descriptors(app.pid(), 1000);
    eventually("all sessions", || sessions() == "3");
    eventually_settles("the list", || list.send().status == 200);
    app.get("/health").send().expect(200);
}

/// Sets the soft limit of file descriptors of a running process.
fn limit_descriptors(pid: u32, soft: u32) {
    let (pid, soft) = (pid.to_string(), format!("--nofile={soft}:"));
    assert!(Command::new("prlimit").args(["--pid", &pid, &soft]).status().unwrap().success());
}

#[test]
fn a_connection_that_died_while_it_was_idle_fails_no_change() {
    let app = App::setup().env("DATABASE_POOL_SIZE", "1").spawn();
    let alice = app.user("alice");
    let id = alice.create_id();
    // A connection that was used in the last half second is handed out without a ping, so this waits longer.
    thread::sleep(Duration::from_millis(700));
    app.database.terminate_sessions();
    alice.on_task("PATCH", id).json(json!({"complete": true})).send().expect(200);
}

#[test]
fn connections_that_the_database_ends_are_replaced() {
    let app = App::spawn();
    let alice = app.user("alice");
    for round in 0..3 {
        alice.create("t");
        app.database.terminate_sessions();
        // A read may be tried again inside, a write may not: neither is ever a 500.
        let statuses = ["GET", "POST"].map(|method| {
            let request = alice.request(method, "/tasks");
            let request = if method == "POST" { request.json(json!({"title": "t"})) } else { request };
            request.send().status
        });
        for status in statuses {
            assert!([200, 201, 503].contains(&status), "round {round}: {statuses:?}");
        }
        eventually("a task", || alice.post(json!({"title": "t"})).status == 201);
        eventually_settles("the list", || alice.request("GET", "/tasks").send().status == 200);
    }
}

/// Writes are refused with this SQLSTATE and undone. A write that only conflicted with another one is tried again,
/// three times in all. A write that may have been done is not tried again.
#[test]
fn what_a_refused_write_comes_to_is_said_by_the_sqlstate() {
    let app = App::spawn();
    let alice = app.user("alice");
    let id = alice.create_id();
    // The sequence does not go back.
    app.database.execute(
        "create sequence tries;
         create table refusals (sqlstate text, until int);
         insert into refusals values ('40001', 0);
         create function refuse() returns trigger language plpgsql as $$
         begin
           if nextval('tries') <= (select until from refusals) then
             raise 'not now' using errcode = (select sqlstate from refusals);
           end if;
           return new;
         end $$;
         create trigger refuse before insert or update on tasks for each row execute function refuse()",
    );
    for (sqlstate, until, status) in [
        ("40001", 2, 200), // serialization_failure
        ("40001", 3, 503),
        ("40P01", 2, 200), // deadlock_detected
        ("40P01", 3, 503),
        ("0A000", 2, 200), // feature_not_supported: a statement was prepared for what has changed
        ("0A000", 3, 503),
        ("26000", 2, 200), // invalid_sql_statement_name: a pooler has lost it
        ("55P03", 1, 503), // lock_not_available
        ("57014", 1, 503), // query_canceled
        ("53100", 1, 503), // disk_full
        ("53200", 1, 503), // out_of_memory
        ("57P01", 1, 503), // admin_shutdown
        ("08006", 1, 503), // connection_failure
        ("25006", 1, 503), // read_only_sql_transaction
        ("23505", 1, 500), // unique_violation
        ("P0001", 1, 500), // raise_exception
    ] {
        let title = format!("{sqlstate} {until}");
        let refuse = format!("update refusals set sqlstate = '{sqlstate}', until = {until}");
        let begin = || app.database.execute(&format!("{refuse}; alter sequence tries restart"));
        let is_done = status == 200;
        begin();
        let patched = alice.on_task("PATCH", id).json(json!({"title": title})).send();
        assert_eq!(patched.status, status, "{title}");
        assert_eq!(alice.task(id)["title"] == title.as_str(), is_done, "{title}");
        begin();
        let count = || alice.list()["count"].as_i64().unwrap();
        let before = count();
        let created = alice.post(json!({"title": title}));
        assert_eq!(created.status, if is_done { 201 } else { status }, "{title}");
        assert_eq!(count() - before, i64::from(is_done), "{title}");
        let tries = app.database.value("select last_value::text from tries");
        assert_eq!(tries, (until + i32::from(is_done)).to_string(), "{title}");
    }
    app.database.execute("update refusals set sqlstate = '57P01', until = 9; alter sequence tries restart");
    let create = alice.request("POST", "/tasks").json(json!({"title": "t"})).header("Idempotency-Key", "k");
    let refused = create.send().expect_problem(503, "SERVICE_UNAVAILABLE");
    assert_eq!(refused.json()["detail"], UNKNOWN);
}

#[test]
fn a_write_that_waits_for_a_lock_too_long_is_503_and_not_done() {
    let app = App::spawn();
    let alice = app.user("alice");
    let id = alice.create_id();
    let before = alice.task(id);
    let held = Held::rows(&app.database);
    let start = Instant::now();
    assert_unavailable(alice.on_task("PATCH", id).json(json!({"complete": true})).send());
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    held.release();
    assert_eq!(alice.task(id), before);
    alice.on_task("PATCH", id).json(json!({"complete": true})).send().expect(200);
}

/// The last of many rows is locked, so all the others have been changed already when the time limit ends the
/// change.
#[test]
fn a_bulk_change_that_waits_too_long_is_503_and_no_part_of_it_is_done() {
    let app = App::spawn();
    let alice = app.user("alice");
    insert_many(&app.database, "alice", 300, 0);
    let before = alice.list();
    let last = before["tasks"][299]["id"].as_i64().unwrap();
    for (method, rest) in [("PATCH", "/tasks?complete=true"), ("DELETE", "/tasks?complete=true&q=3")] {
        assert_eq!(before["tasks"][299]["complete"], true);
        let held = Held::by(&app.database, &format!("select from tasks where id = {last} for update"));
        let request = alice.request(method, rest);
        let request = if method == "PATCH" { request.json(json!({"complete": false})) } else { request };
        assert_unavailable(request.send());
        held.release();
        assert_eq!(alice.list(), before, "{method}");
    }
    let change = alice.request("PATCH", "/tasks?complete=true").json(json!({"complete": false}));
    assert_eq!(change.send().expect(200).json()["count"], 100);
}

#[test]
fn a_write_whose_fate_nobody_knows_is_503_and_says_so() {
    let app = App::setup().env("DATABASE_POOL_SIZE", "1").spawn();
    let blocked = Blocked::patch(&app);
    app.database.terminate_sessions();
    let response = blocked.answer().unwrap().expect_problem(503, "SERVICE_UNAVAILABLE");
    assert_eq!(response.json()["detail"], UNKNOWN);
}

#[test]
fn a_write_that_is_done_after_its_client_was_told_503_has_one_line() {
    // Without settings on the connection, a statement has no limit of its own.
    let app = App::setup().env("DATABASE_PREPARED", "false").spawn();
    let blocked = Blocked::patch(&app);
    let response = blocked.answer().unwrap().expect_problem(503, "SERVICE_UNAVAILABLE");
    assert_eq!(response.json()["detail"], UNKNOWN);
    eventually("the change", || app.database.value("select complete::text from tasks") == "true");
    let log = app.log().join("\n");
    let lines: Vec<_> = log.lines().filter(|line| line.contains(" method=PATCH ")).collect();
    let [line] = *lines else { panic!("{log}") };
    assert!(line.contains(" route=/api/{user_id}/tasks/{task_id} status=503 "), "{log}");
    assert!(line.contains(" user_id=alice "), "{log}");
}

#[test]
fn a_request_that_finds_every_connection_taken_is_503_in_time() {
    let app = App::setup().env("DATABASE_POOL_SIZE", "1").spawn();
    let blocked = Blocked::patch(&app);
    let start = Instant::now();
    assert_unavailable(app.user("bob").request("GET", "/tasks").send());
    // After 8.5 s it would be the answer for a request that takes too long, not that of the full pool.
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    // The database itself is there, and what needs none of it is served.
    app.get("/health").send().expect(200);
    app.get("/api/bob/tasks").send().expect(401);
    let status = blocked.finish().unwrap().status;
    assert!([200, 503].contains(&status), "{status}");
    eventually("the list", || app.user("bob").request("GET", "/tasks").send().status == 200);
}

/// Pages of more than 128 tasks are made four at a time. While the table is locked, each takes the five seconds of
/// the statement's time limit. The other requests start later, so four of them get their turn just before their
/// wait for it would end, and then get their late answer (503) before the database has answered.
#[test]
fn who_was_told_that_there_is_no_answer_leaves_no_thread_behind() {
    let app = App::setup().env("DATABASE_POOL_SIZE", "8").env("ADMIN_ADDR", "127.0.0.1:0").spawn();
    let alice = app.user("alice");
    // A connection that is made later would wait for the lock as well.
    let full = r#"tinytasks_db_pool_connections{state="idle"} 8"#;
    eventually("a full pool", || app.admin("/metrics").send().text().contains(full));
    let held = Held::table(&app.database);
    let ask = || assert_unavailable(alice.request("GET", "/tasks?limit=1000").send());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(ask);
        }
        app.database.wait_until_blocked(4);
        for _ in 0..96 {
            scope.spawn(ask);
        }
    });
    eventually("the end of their threads", || status(&app, "Threads") < 40);
    let log = app.log().join("\n");
    let lines: Vec<_> = log.lines().filter(|line| line.contains(" route=/api/{user_id}/tasks ")).collect();
    assert_eq!(lines.len(), 100, "one line each: {log}");
    assert!(lines.iter().all(|line| line.contains(" status=503 ")), "{log}");
    let is_late = |line: &&str| line.ends_with("reason=\"there was no answer in time\"");
    assert!(lines.iter().any(is_late), "{log}");
    assert!(lines.iter().all(|line| line.contains(" user_id=alice ")), "{log}");
    held.release();
    alice.request("GET", "/tasks?limit=1000").send().expect(200);
}

#[test]
fn a_read_only_database_is_503_for_writes_alone() {
    let app = App::setup().env("ADMIN_ADDR", "127.0.0.1:0").spawn();
    let alice = app.user("alice");
    let id = alice.create_id();
    let database = &app.database;
    let name = &database.name;
    let ready = || app.admin("/health/ready").send().status;
    assert_eq!(ready(), 200);
    database.execute(&format!("alter database {name} set default_transaction_read_only = on"));
    database.terminate_sessions();
    eventually_settles("the list", || alice.request("GET", "/tasks").send().status == 200);
    eventually("not being ready", || ready() == 503);
    assert_eq!(app.get("/health").send().expect(503).json()["database"], "not ready");
    app.wait_for_log(|line| line.contains("database not ready") && line.contains("switch it off"));
    let variables = [("DATABASE_URL", database.url.as_str()), ("JWT_SECRET_KEY", SECRET)];
    let outcome = run_binary(&["check"], &variables);
    assert_eq!((outcome.code, outcome.stderr.matches("switch it off").count()), (Some(1), 1), "{outcome:?}");
    assert!(outcome.stdout.contains("every statement can be done"), "{outcome:?}");
    // A service that starts now serves reads as well.
    let other = App::setup().env("DATABASE_URL", &database.url).unhealthy().spawn();
    eventually_settles("the list", || other.user("alice").request("GET", "/tasks").send().status == 200);
    assert_unavailable(other.user("alice").post(json!({"title": "t"})));
    other.get("/health").send().expect(503);
    drop(other);
    let task = json!({"title": "t", "complete": true});
    let sessions = "select coalesce(string_agg(pid::text, ' '), '') from pg_stat_activity \
        where datname = current_database() and application_name = 'tinytasks'";
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        assert_unavailable(alice.post(task.clone()));
        seen.extend(database.value(sessions).split(' ').map(str::to_owned));
        assert_unavailable(alice.on_task("PUT", id).json(task.clone()).send());
        assert_unavailable(alice.on_task("PATCH", id).json(task.clone()).send());
        assert_unavailable(alice.on_task("DELETE", id).send());
        eventually("a read", || alice.on_task("GET", id).send().status == 200);
        assert_eq!(database.value("select complete from tasks"), "false");
    }
    // There must be fewer new connections than writes, because otherwise readers would have to wait for new ones.
    assert!(seen.len() < 60, "{}", seen.len());
    // In two steps, because this session is read-only too.
    let mut client = database.client();
    client.batch_execute("set default_transaction_read_only = off").unwrap();
    let reset = format!("alter database {name} reset default_transaction_read_only");
    client.batch_execute(&reset).unwrap();
    // The sessions that there are stay as they were; they are given up when they are old enough.
    eventually("a task", || alice.post(task.clone()).status == 201);
    eventually("readiness", || ready() == 200);
}

#[test]
fn a_broken_schema_is_500_and_tells_nothing() {
    let app = App::spawn();
    let alice = app.user("alice");
    let id = alice.create_id();
    app.database.execute("alter table tasks rename column title to heading");
    let task = json!({"title": "t", "complete": true});
    for request in [
        alice.request("GET", "/tasks"),
        alice.request("POST", "/tasks").json(task.clone()),
        alice.on_task("GET", id),
        alice.on_task("PUT", id).json(task.clone()),
        alice.on_task("PATCH", id).json(task.clone()),
    ] {
        let response = request.header("X-Request-Id", "broken").send();
        let response = response.expect_problem(500, "DATABASE_ERROR");
        let mut problem = response.json();
        problem["error_code"].take();
        let text = problem.to_string().to_lowercase();
        for word in ["heading", "column", "sql", "postgres", "42703", "select", "tasks", ".rs"] {
            assert!(!text.contains(word), "{word}: {text}");
        }
    }
    let line = app.wait_for_log(|line| line.contains("request_id=broken"));
    assert!(line.contains("error_code=DATABASE_ERROR") && line.contains("column"), "{line}");
    app.database.execute("alter table tasks rename column heading to title");
    eventually("the list", || alice.request("GET", "/tasks").send().status == 200);

    app.database.execute("drop table tasks");
    alice.request("GET", "/tasks").send().expect_problem(500, "DATABASE_ERROR");
}

/// A migration under a running service must not need a restart of it.
#[test]
fn a_column_added_or_a_type_changed_under_the_service_does_no_harm() {
    let app = App::spawn();
    let alice = app.user("alice");
    let id = alice.create_id();
    for sql in [
        "alter table tasks add column colour text not null default 'red'",
        "alter table tasks alter column title type varchar(200)",
        "alter table tasks alter column title type text",
        "deallocate all; create index on tasks (complete)",
    ] {
        app.database.execute(sql);
        // A prepared statement may not fit any more; that is never the client's fault.
        eventually_settles(sql, || {
            let patch = alice.on_task("PATCH", id).json(json!({"complete": true}));
            let statuses = [patch, alice.on_task("GET", id), alice.request("GET", "/tasks")]
                .map(|request| request.send().status);
            assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{sql}: {statuses:?}");
            statuses == [200, 200, 200]
        });
    }
}

/// A prepared statement is refused before it is executed. A statement that is sent as text is executed before its
/// answer turns out to be unreadable.
#[test]
fn an_answer_that_cannot_be_read_is_503_and_says_whether_the_change_may_be_done() {
    for (prepared, unreadable) in [("true", "not possible at the moment, try again soon"), ("false", UNKNOWN)]
    {
        let app = App::setup().env("DATABASE_PREPARED", prepared).spawn();
        let alice = app.user("alice");
        let id = alice.create_id();
        let retype = |ty: &str| {
            let sql = "alter table tasks alter updated_at type";
            app.database.execute(&format!("{sql} {ty} using updated_at at time zone 'UTC'"));
        };
        retype("timestamp");
        let task = json!({"title": "t", "complete": true});
        let create = alice.request("POST", "/tasks").json(task.clone());
        for (request, detail) in [
            (create.clone(), unreadable),
            (create.header("Idempotency-Key", "k"), unreadable),
            (alice.on_task("PATCH", id).json(task.clone()), unreadable),
            (alice.on_task("PUT", id).json(task), unreadable),
            (alice.on_task("GET", id), "not possible at the moment, try again soon"),
            (alice.request("GET", "/tasks"), "not possible at the moment, try again soon"),
        ] {
            let response = request.send().expect_problem(503, "SERVICE_UNAVAILABLE");
            assert_eq!(
                response.json()["detail"],
                detail,
                "{prepared}: {} {}",
                request.method,
                request.target
            );
        }
        let stored = if prepared == "true" { "1 false" } else { "3 true" };
        assert_eq!(app.database.value("select count(*) || ' ' || bool_or(complete) from tasks"), stored);
        retype("timestamptz");
        eventually_settles("the list", || alice.request("GET", "/tasks").send().status == 200);
    }
}

/// PostgreSQL's DETAIL quotes the row, so it must not be logged.
#[test]
fn a_constraint_of_somebody_else_is_a_500_and_the_log_quotes_no_row() {
    let app = App::spawn();
    app.database.execute("alter table tasks add constraint no_milk check (title <> 'Secret milk')");
    let alice = app.user("alice");
    let answer = alice.request("POST", "/tasks").json(json!({"title": "Secret milk"})).send();
    answer.expect_problem(500, "DATABASE_ERROR");
    let log = app.wait_for_log(|line| line.contains("no_milk"));
    assert!(!log.contains("Secret milk") && log.contains("23514"), "{log}");
}
