//! SIGTERM and SIGINT: stop accepting, finish what is in flight, exit 0.

use crate::support::{
    harness::{App, eventually},
    http::Connection,
    locks::Blocked,
};
use serde_json::json;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

/// Whether a new client is served. It is not when nobody answers it soon.
fn serves(address: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else {
        return false;
    };
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    matches!(stream.read(&mut [0; 12]), Ok(1..))
}

#[test]
fn a_signal_lets_the_running_request_finish_and_takes_no_other() {
    for signal in ["TERM", "INT"] {
        let mut app = App::spawn();
        let blocked = Blocked::patch(&app);
        app.signal(signal);
        eventually("the end of new requests", || !serves(&app.address));
        assert!(app.is_running(), "{signal}: a request is in flight");
        let task = blocked.finish().unwrap().expect(200).json();
        assert_eq!(task["complete"], true, "{signal}");
        assert_eq!(app.wait_for_exit(), Some(0), "{signal}");
        let stored = app.database.value("select complete from tasks");
        assert_eq!(stored, "true", "{signal}");
    }
}

#[test]
fn who_was_not_told_that_an_answer_is_the_last_may_ask_again() {
    let mut app = App::spawn();
    app.database.execute(
        "insert into tasks (user_id, title) select 'alice', repeat('x', 200) from generate_series(1, 20000)",
    );
    let alice = app.user("alice");
    let mut stream = TcpStream::connect(&app.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(&alice.request("GET", "/tasks").bytes()).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let head = read_head(&mut reader);
    assert!(head.contains("chunked") && !head.contains("Connection: close"), "{head}");
    app.signal("TERM");
    app.wait_for_log(|line| line.contains("stopping"));
    stream.write_all(&alice.request("POST", "/tasks").json(json!({"title": "t"})).bytes()).unwrap();
    let mut line = Vec::new();
    while line != b"0\r\n" {
        line.clear();
        assert!(reader.read_until(b'\n', &mut line).unwrap() > 0, "the list ended early");
    }
    reader.read_exact(&mut [0; 2]).unwrap();
    let head = read_head(&mut reader);
    assert!(head.starts_with("HTTP/1.1 201 ") && head.contains("Connection: close"), "{head}");
    assert_eq!(app.wait_for_exit(), Some(0));
}

/// A client that has been idle for a long time may have sent its next request just before the signal.
#[test]
fn a_client_that_was_idle_is_served_for_a_moment_after_the_signal() {
    let mut app = App::spawn();
    let mut idle = Connection::open(&app.address).unwrap();
    idle.write(&app.get("/").bytes());
    idle.read("GET").unwrap().expect(200);
    // Longer than the half second for which the service leaves an idle connection open.
    thread::sleep(Duration::from_millis(700));
    app.signal("TERM");
    app.wait_for_log(|line| line.contains("stopping"));
    idle.write(&app.get("/").bytes());
    let last = idle.read("GET").unwrap();
    assert_eq!(last.field("Connection"), Some("close"), "{last:?}");
    last.expect(200);
    assert_eq!(app.wait_for_exit(), Some(0));
}

fn read_head(reader: &mut impl BufRead) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "the end, after {head:?}");
    }
    head
}

#[test]
fn idle_connections_do_not_hold_up_the_end() {
    let mut app = App::spawn();
    let mut idle = Connection::open(&app.address).unwrap();
    let mut silent = Connection::open(&app.address).unwrap();
    idle.write(&app.get("/").bytes());
    idle.read("GET").unwrap().expect(200);
    let start = Instant::now();
    app.signal("TERM");
    assert_eq!(app.wait_for_exit(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(idle.is_at_end() && silent.is_at_end());
}

#[test]
fn a_request_that_does_not_arrive_is_given_up_after_ten_seconds() {
    let mut app = App::spawn();
    let mut half = Connection::open(&app.address).unwrap();
    half.write(b"GET / HTTP/1.1\r\nHost");
    let start = Instant::now();
    app.signal("TERM");
    assert_eq!(app.wait_for_exit(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(13), "{:?}", start.elapsed());
}

#[test]
fn a_request_that_does_not_end_is_given_up_after_ten_seconds() {
    // Without settings on the connection, the statement has no limit of its own.
    let mut app = App::setup().env("DATABASE_PREPARED", "false").spawn();
    let blocked = Blocked::patch(&app);
    let start = Instant::now();
    app.signal("TERM");
    assert_eq!(app.wait_for_exit(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(13), "{:?}", start.elapsed());
    // The request was cut off or got an error, but did not succeed.
    if let Ok(response) = blocked.answer() {
        response.expect(503);
    }
}

#[test]
fn a_service_without_its_database_stops_as_well() {
    let mut app =
        App::setup().env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing").unhealthy().spawn();
    app.get("/health").send().expect(503);
    app.signal("TERM");
    assert_eq!(app.wait_for_exit(), Some(0));
}

#[test]
fn a_port_that_is_taken_ends_the_start_with_a_reason() {
    let app = App::spawn();
    let port = app.address.rsplit_once(':').unwrap().1;
    let outcome = crate::support::harness::run_binary(
        &["serve"],
        &[
            ("DATABASE_URL", &app.database.url),
            ("JWT_SECRET_KEY", crate::support::token::SECRET),
            ("PORT", port),
        ],
    );
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains(&app.address), "{outcome:?}");
    app.get("/health").send().expect(200);
}
