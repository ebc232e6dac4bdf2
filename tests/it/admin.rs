//! The listener at `ADMIN_ADDR`: the probes, and that it survives the attacks that the public one does.

use crate::support::{
    harness::{App, Database, eventually},
    http::Connection,
    locks::Blocked,
    samples::{scrape, setup, value},
    token::{SECRET, token},
};
use serde_json::json;

#[test]
fn the_probes_tell_living_from_ready() {
    let app = setup().spawn();
    let live = app.admin("/health/live").send().expect(200);
    assert_eq!(live.json(), json!({"status": "live"}));
    eventually("ready", || app.admin("/health/ready").send().status == 200);
    app.admin("/health/ready?x=1").send().expect(200);
    for target in ["/", "/health", "/metrics/", "//metrics", "/api/alice/tasks", "/docs", "/%zz"] {
        app.admin(target).bearer(&token("alice")).send().expect_problem(404, "NOT_FOUND");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "QUERY"] {
        for target in ["/metrics", "/health/live", "/health/ready"] {
            let answer = app.admin_by(method, target).send().expect_problem(405, "METHOD_NOT_ALLOWED");
            assert_eq!(answer.list("Allow"), ["GET", "HEAD"]);
        }
    }
    app.admin_by("HEAD", "/metrics").send().expect(200);
    // Probes never end, so they are logged only at a lower level.
    let log = app.log().join("\n");
    assert!(!log.contains("route=/health/live") && !log.contains("route=/metrics"), "{log}");
    // The public address does not have them.
    for target in ["/metrics", "/health/live", "/health/ready"] {
        app.get(target).send().expect(404);
    }
}

#[test]
fn without_its_database_the_service_lives_and_is_not_ready() {
    let nowhere = "postgres://nobody@127.0.0.1:1/nothing";
    let app = setup().env("DATABASE_URL", nowhere).unhealthy().spawn();
    app.admin("/health/live").send().expect(200);
    let ready = app.admin("/health/ready").send().expect(503);
    assert_eq!(ready.json(), json!({"status": "database out of reach"}));
    let samples = scrape(&app);
    assert_eq!(value(&samples, "tinytasks_database_up", &[]), Some(0.0));
}

#[test]
fn a_stopping_service_is_at_once_not_ready_and_still_lives() {
    let mut app = setup().spawn();
    let blocked = Blocked::patch(&app);
    app.admin("/health/ready").send().expect(200);
    app.signal("TERM");
    app.wait_for_log(|line| line.contains("stopping"));
    eventually("not ready", || app.admin("/health/ready").send().status == 503);
    let ready = app.admin("/health/ready").send().expect(503);
    assert_eq!(ready.json(), json!({"status": "stopping"}));
    app.admin("/health/live").send().expect(200);
    scrape(&app);
    blocked.finish().unwrap().expect(200);
    assert_eq!(app.wait_for_exit(), Some(0));
}

#[test]
fn the_admin_listener_stands_what_the_public_one_stands() {
    let app = setup().spawn();
    let address = app.admin_address();
    let post = app.admin_by("POST", "/metrics");
    post.header("Content-Length", "1000000000000").send().expect_problem(413, "PAYLOAD_TOO_LARGE");
    let get = || app.admin("/metrics");
    get().header("Transfer-Encoding", "x").send().expect_problem(400, "VALIDATION_ERROR");
    get().header("X", &"x".repeat(17_000)).send().expect_problem(431, "HEADERS_TOO_LARGE");
    // No page in a browser can read it.
    let answer = get().header("Origin", "http://localhost:3000").send().expect(200);
    assert_eq!(answer.field("Access-Control-Allow-Origin"), None);
    // There are more connections than places, so the connection that has been idle longest is closed.
    let idle: Vec<_> = (0..100).map(|_| Connection::open(&address).unwrap()).collect();
    get().send().expect(200);
    drop(idle);
    // The refusals above must not count as refusals of the public listener, nor disturb it.
    let samples = scrape(&app);
    for reason in ["VALIDATION_ERROR", "PAYLOAD_TOO_LARGE", "HEADERS_TOO_LARGE"] {
        let seen = value(&samples, "tinytasks_gate_refusals_total", &[("reason", reason)]);
        assert_eq!(seen, Some(0.0), "{reason}");
    }
    app.user("alice").create("t");
}

#[test]
fn an_admin_address_that_is_taken_ends_the_start_with_a_reason() {
    let app = App::spawn();
    let database = Database::create();
    let variables = [
        ("DATABASE_URL", &*database.url),
        ("JWT_SECRET_KEY", SECRET),
        ("PORT", "0"),
        ("ADMIN_ADDR", &app.address),
    ];
    let outcome = crate::support::harness::run_binary(&["serve"], &variables);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains(&app.address), "{outcome:?}");
}
