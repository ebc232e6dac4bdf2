//! A database that accepts connections and statements and never answers: every wait for it ends, what
//! is stuck is given up, and all is well again once there is somebody who answers.

use crate::support::{
    harness::{App, Database, eventually, eventually_settles, run_binary},
    http::Response,
    raw::status,
    relay::Relay,
    token::SECRET,
};
use serde_json::json;
use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
};

const NO_ANSWER: &str = "no answer in time";

/// The URL of the database through a relay, with more parameters.
fn through(relay: &Relay, database: &Database, parameters: &str) -> String {
    database.url.replace(database.server_address(), &relay.address) + parameters
}

fn assert_gives_up(url: &str, case: &str) {
    for command in ["check", "migrate"] {
        let outcome = run_binary(&[command], &[("DATABASE_URL", url), ("JWT_SECRET_KEY", SECRET)]);
        assert_eq!(outcome.code, Some(1), "{case}: {outcome:?}");
        assert!(outcome.stderr.contains(NO_ANSWER), "{case}: {outcome:?}");
    }
}

#[test]
fn a_command_ends_with_the_reason_however_far_it_got_with_the_database() {
    let nobody = Relay::silent();
    for mode in ["prefer", "require", "disable"] {
        let url = format!("postgres://u:pa55word@{}/db?connect_timeout=2&sslmode={mode}", nobody.address);
        assert_gives_up(&url, mode);
    }
    let database = Database::create();
    let relay = Relay::to(database.server_address());
    let url = through(&relay, &database, "?connect_timeout=2");
    // Silence falls after the answer about TLS, in the middle of the authentication, or in the messages after it.
    for bytes in [1, 60, 200] {
        relay.silence_after(bytes);
        assert_gives_up(&url, &format!("after {bytes} bytes"));
    }
}

#[test]
fn the_service_says_that_nobody_answers_and_is_well_once_somebody_does() {
    let database = Database::create();
    let relay = Relay::to(database.server_address());
    let url = through(&relay, &database, "?connect_timeout=2");
    for bytes in [0, 60, 1000] {
        relay.silence_after(bytes);
        let app = App::setup().env("DATABASE_URL", &url).unhealthy().spawn();
        app.wait_for_log(|line| line.contains("database out of reach") && line.contains(NO_ANSWER));
        app.get("/health").send().expect(503);
        app.user("alice").request("GET", "/tasks").send().expect_problem(503, "SERVICE_UNAVAILABLE");
        relay.silence_after(usize::MAX);
        eventually("health", || app.get("/health").send().status == 200);
        eventually_settles("the list", || app.user("alice").request("GET", "/tasks").send().status == 200);
    }
}

#[test]
fn the_next_host_is_tried_after_one_that_does_not_answer() {
    let (database, nobody) = (Database::create(), Relay::silent());
    let both = format!("{},{}", nobody.address, database.server_address());
    let url = database.url.replace(database.server_address(), &both) + "?connect_timeout=2";
    let outcome = run_binary(&["migrate"], &[("DATABASE_URL", &url)]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let app = App::setup().env("DATABASE_URL", &url).spawn();
    eventually_settles("the list", || app.user("alice").request("GET", "/tasks").send().status == 200);
    // An address that did not answer is not tried first for every connection.
    let asked = nobody.accepted();
    app.database.terminate_sessions();
    database.terminate_sessions();
    eventually_settles("the list", || app.user("alice").request("GET", "/tasks").send().status == 200);
    assert!(nobody.accepted() < asked + 16, "{asked} and then {}", nobody.accepted());
}

#[test]
fn connections_are_made_again_after_a_time_in_which_none_was_answered() {
    let database = Database::create();
    let relay = Relay::to(database.server_address());
    let app = App::setup().env("DATABASE_URL", &through(&relay, &database, "")).spawn();
    let list = || app.user("alice").request("GET", "/tasks").send();
    list().expect(200);
    relay.silence_new(true);
    relay.cut_open();
    let before = relay.accepted();
    eventually("ill health", || app.get("/health").send().status == 503);
    // The watching thread and all three threads of the pool have met the silence more than once.
    eventually("attempts", || relay.accepted() > before + 8);
    list().expect_problem(503, "SERVICE_UNAVAILABLE");
    relay.silence_new(false);
    eventually("health", || app.get("/health").send().status == 200);
    eventually_settles("the list", || list().status == 200);
}

/// This is what a pooler does when all its sessions are in use: it lets a new connection wait, while the others work.
#[test]
fn a_connection_that_waits_for_an_answer_does_not_hide_that_the_pool_gets_one() {
    let database = Database::create();
    let relay = Relay::to(database.server_address());
    let url = through(&relay, &database, "");
    let app = App::setup().env("DATABASE_URL", &url).env("DATABASE_POOL_SIZE", "2").spawn();
    eventually("the whole pool", || relay.open() == 3);
    relay.silence_new(true);
    // The oldest session is that of the watching thread.
    database.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() \
         and application_name = 'tinytasks' order by backend_start limit 1",
    );
    let (mut ill, mut all) = (0, 0);
    eventually("the attempt ends", || {
        ill += usize::from(app.get("/health").send().status == 503);
        all += 1;
        app.log_so_far().contains("the watching thread gets no connection of its own")
    });
    app.user("alice").request("GET", "/tasks").send().expect(200);
    // Not all, because a busy machine may be late with an answer.
    assert!(ill * 2 < all, "{ill} of {all} answers");
}

/// Twenty clients read continuously. In each round, all connections that are open fall silent.
#[test]
fn silent_connections_are_given_up_and_replaced_again_and_again() {
    let database = Database::create();
    let relay = Relay::to(database.server_address());
    let url = through(&relay, &database, "");
    let app = App::setup().env("DATABASE_URL", &url).env("ADMIN_ADDR", "127.0.0.1:0").spawn();
    let (is_over, good) = (AtomicBool::new(false), AtomicUsize::new(0));
    let read = |user: &str| {
        while !is_over.load(Relaxed) {
            let response: Response = app.user(user).request("GET", "/tasks").send();
            assert!([200, 503].contains(&response.status), "{response:?}");
            good.fetch_add(usize::from(response.status == 200), Relaxed);
        }
    };
    let mut given_up = 0.0;
    thread::scope(|scope| {
        let _over = Over(&is_over);
        for number in 0..20 {
            scope.spawn(move || read(&format!("user-{number}")));
        }
        for round in 0..3 {
            eventually("answers", || good.swap(0, Relaxed) > 0);
            relay.silence_open();
            eventually("connections that are given up", || metric(&app) > given_up);
            given_up = metric(&app);
            good.store(0, Relaxed);
            eventually(&format!("answers in round {round}"), || good.load(Relaxed) > 1000);
            eventually("health", || app.get("/health").send().status == 200);
        }
    });
    // No surplus connection and no surplus thread remains.
    let sessions = "select count(*) from pg_stat_activity where datname = current_database() \
        and application_name = 'tinytasks'";
    eventually("no session too many", || database.value(sessions).parse::<i64>().unwrap() <= 3 * 17 + 17);
    eventually("no thread too many", || status(&app, "Threads") < 80);
}

/// Sets the flag even when the test fails, because its threads would otherwise run for ever.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn metric(app: &App) -> f64 {
    let text = app.admin("/metrics").send().text();
    let line = text.lines().find(|line| line.starts_with("tinytasks_db_connections_given_up_total"));
    line.and_then(|line| line.split(' ').nth(1)).map_or(0.0, |number| number.parse().unwrap())
}

#[test]
fn a_write_without_an_answer_is_503_and_says_that_nobody_knows() {
    let database = Database::create();
    let relay = Relay::to(database.server_address());
    let url = through(&relay, &database, "");
    let app = App::setup().env("DATABASE_URL", &url).env("DATABASE_POOL_SIZE", "1").spawn();
    let alice = app.user("alice");
    let id = alice.create_id();
    let unknown = "it is not known whether this was done, so look before you try again";
    for (method, body) in [("PATCH", json!({"title": "t"})), ("PUT", json!({"title": "t", "complete": true}))]
    {
        eventually_settles("the task", || alice.on_task("GET", id).send().status == 200);
        relay.silence_open();
        let answer = alice.on_task(method, id).json(body).send().expect_problem(503, "SERVICE_UNAVAILABLE");
        assert_eq!(answer.json()["detail"], unknown, "{method}");
    }
    // A create with a key is sent again on a new connection, and is not done twice.
    eventually_settles("the task", || alice.on_task("GET", id).send().status == 200);
    relay.silence_open();
    let create = |key: &str| {
        alice.request("POST", "/tasks").header("Idempotency-Key", key).json(json!({"title": "k"}))
    };
    create("k").send().expect(201);
    assert_eq!(alice.list()["count"], 2);
    // No new connection can be had, so it is not sent again. The first try may have been done.
    relay.silence_new(true);
    for (request, detail) in
        [(create("l"), unknown), (alice.on_task("GET", id), "not possible at the moment, try again soon")]
    {
        relay.silence_open();
        let answer = request.send().expect_problem(503, "SERVICE_UNAVAILABLE");
        assert_eq!(answer.json()["detail"], detail, "{}", request.method);
    }
}
