//! Connections: how long they are kept, what happens when all are taken, who is served beside a crowd,
//! and how they end.

use crate::support::{
    harness::{App, eventually},
    http::{Connection, connect},
    locks::Held,
    raw::{
        End, HEALTH, Raw, assert_refused, beside_a_victim, crowd, only_answer, open_many, read_answer,
        status, wait_for_no_client, wait_for_waiting_clients,
    },
};
use serde_json::json;
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

#[test]
fn a_connection_serves_one_request_after_another() {
    let app = App::spawn();
    let alice = app.user("alice");
    let mut connection = Connection::open(&app.address).unwrap();
    let requests = [
        (alice.request("POST", "/tasks").json(json!({"title": "t"})), 201),
        (alice.request("POST", "/tasks").text("{"), 400),
        (app.post("/nothing").text("unread"), 404),
        (app.delete("/health").text("unread"), 405),
        (app.post("/api/alice/tasks").text(r#"{"title":"t"}"#), 401),
        (alice.request("GET", "/tasks").body("unread"), 200),
        (app.request("OPTIONS", "/health"), 204),
        (alice.request("GET", "/tasks/1"), 200),
    ];
    for (request, status) in requests {
        connection.write(&request.bytes());
        let response = connection.read(&request.method).unwrap();
        response.hold_to_the_rules(&request.method, &request.target);
        assert_eq!(response.status, status, "{} {}", request.method, request.target);
    }
}

#[test]
fn a_client_that_closes_is_closed_to() {
    let app = App::spawn();
    let mut connection = Connection::open(&app.address).unwrap();
    connection.write(&app.get("/health").header("Connection", "close").bytes());
    connection.read("GET").unwrap().expect(200);
    assert!(connection.is_at_end());
}

#[test]
fn the_connection_is_kept_or_closed_as_the_client_has_it() {
    let app = App::spawn();
    for (version, fields, is_kept) in [
        ("1.1", "", true),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.1", "Connection: upgrade\r\nUpgrade: h2c\r\n", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: CLOSE\r\n", false),
        ("1.1", "Connection: keep-alive, close\r\n", false),
        ("1.1", "Connection: a\r\nConnection: ,close ,\r\n", false),
        ("1.1", "Connection: enclosed\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: keep-alive\r\n", false),
    ] {
        let mut raw = Raw::open(&app);
        raw.send(format!("GET /health HTTP/{version}\r\nHost: x\r\n{fields}\r\n"));
        let answer = raw.answer().unwrap().expect(200);
        let wanted = if is_kept { None } else { Some("close") };
        assert_eq!(answer.field("Connection"), wanted, "{version} {fields}");
        // Bytes after the last request are ignored.
        raw.send(HEALTH);
        let (answers, end) = match is_kept {
            true => (vec![raw.answer().unwrap()], End::Closed),
            false => raw.answers(&[]),
        };
        assert_eq!((answers.len(), end), (usize::from(is_kept), End::Closed), "{version} {fields}");
    }
    // A client that closes its sending side at once is still answered.
    let mut raw = Raw::open(&app);
    raw.send(HEALTH);
    raw.finish();
    let (answers, end) = raw.answers(&[]);
    assert_eq!((answers.len(), end), (1, End::Closed));
    // A client that closes its sending side in the middle of a request gets no answer.
    let mut raw = Raw::open(&app);
    raw.send("POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nx");
    raw.finish();
    raw.assert_ends_silently();
}

/// If the answer were sent in several writes, the later ones would wait 40 ms for the client's delayed
/// acknowledgement.
#[test]
fn a_large_answer_is_written_in_one_go() {
    let app = App::spawn();
    let alice = app.user("alice");
    for _ in 0..100 {
        alice.create("a title of some length, so that the list has more than one segment");
    }
    let request = alice.request("GET", "/tasks").bytes();
    let mut socket = connect(&app.address).unwrap();
    let mut bytes = vec![0; 1 << 20];
    for _ in 0..20 {
        socket.write_all(&request).unwrap();
        let count = socket.read(&mut bytes).unwrap();
        let answer = read_answer(&mut &bytes[..count], "GET").expect("one read returns the whole answer");
        assert!(answer.unwrap().expect(200).body.len() > 16 * 1024);
    }
    let mut raw = Raw::on(socket);
    raw.send("GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(raw.answer().unwrap().expect(200).body.len() > 1 << 20);
    assert!(raw.answer().is_none());
}

#[test]
fn a_hundred_connections_opened_at_the_same_moment_are_all_served() {
    const CLIENTS: usize = 100;
    let app = App::spawn();
    let start = Barrier::new(CLIENTS);
    // All connections stay open to the end: none may wait for another one to be closed.
    let end = Barrier::new(CLIENTS);
    let request = app.user("alice").request("GET", "/tasks").bytes();
    beside_a_victim(&app, || {
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    start.wait();
                    let mut raw = Raw::open(&app);
                    for _ in 0..3 {
                        raw.send(&request);
                        raw.answer().unwrap().expect(200);
                    }
                    end.wait();
                });
            }
        });
    });
}

#[test]
fn many_clients_at_the_same_moment_are_all_served() {
    const CLIENTS: usize = 200;
    let app = App::spawn();
    let root = app.get("/");
    // On a busy machine a request may find no connection to PostgreSQL in time. Then it is sent again.
    let list = app.user("alice").request("GET", "/tasks");
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                root.send().expect(200);
                eventually("a list", || match list.send() {
                    answer if answer.status == 503 => false,
                    answer => answer.expect(200).status == 200,
                });
            });
        }
    });
    // Connections that stay open do not keep later ones from being served.
    let mut open: Vec<_> = (0..200).map(|_| Connection::open(&app.address).unwrap()).collect();
    for connection in &mut open {
        connection.write(&app.get("/health").bytes());
        connection.read("GET").unwrap().expect(200);
    }
    app.user("alice").create("t");
}

#[test]
fn the_connection_that_is_idle_longest_makes_room() {
    let app = App::setup().env("MAX_CONNECTIONS", "8").spawn();
    wait_for_no_client(&app);
    let serve = |raw: &mut Raw| {
        raw.send(HEALTH);
        raw.answer().expect("it is served").expect(200);
    };
    let mut kept: Vec<_> = (0..8)
        .map(|_| {
            let mut raw = Raw::open(&app);
            serve(&mut raw);
            wait_for_waiting_clients(&app);
            raw
        })
        .collect();
    // The first ones are used again: now the third is idle longest, then the fourth.
    for index in [0, 1] {
        serve(&mut kept[index]);
    }
    wait_for_waiting_clients(&app);
    let mut newer: Vec<_> = (0..2).map(|_| Raw::open(&app)).collect();
    newer.iter_mut().for_each(serve);
    for index in [2, 3] {
        kept[index].assert_ends_silently();
    }
    for index in [0, 1, 4, 5, 6, 7] {
        serve(&mut kept[index]);
    }
    newer.iter_mut().for_each(serve);
}

#[test]
fn when_all_connections_are_taken_an_idle_one_makes_room_and_a_busy_one_does_not() {
    let app = App::setup().env("MAX_CONNECTIONS", "2").spawn();
    wait_for_no_client(&app);
    let open = || {
        let mut connection = Connection::open(&app.address).unwrap();
        connection.write(&app.get("/health").bytes());
        connection.read("GET").unwrap().expect(200);
        wait_for_waiting_clients(&app);
        connection
    };
    let mut oldest = open();
    let mut idle = open();
    let mut newest = open();
    assert!(oldest.is_at_end());
    // The interim answer shows that the service waits for the body, so the connection is busy.
    let head = "OPTIONS /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n";
    for connection in [&mut idle, &mut newest] {
        connection.write(head.as_bytes());
        connection.read("OPTIONS").unwrap().expect(100);
    }
    // This answer is sent before the request has arrived, so a reset may discard it.
    eventually("503", || app.get("/health").try_send().is_ok_and(|response| response.status == 503));
    for connection in [&mut idle, &mut newest] {
        connection.write(b"x");
        connection.read("OPTIONS").unwrap().expect(204);
    }
}

/// A service that had no time for a while finds more clients than it has room for, and their requests. A
/// connection whose request has not been read yet is not idle.
#[test]
fn a_client_whose_request_has_arrived_is_answered_however_many_others_come() {
    let app = App::setup().env("MAX_CONNECTIONS", "4").spawn();
    wait_for_no_client(&app);
    app.signal("STOP");
    let ask = || {
        let mut raw = Raw::open(&app);
        raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        raw
    };
    let mut clients: Vec<_> = (0..20).map(|_| ask()).collect();
    app.signal("CONT");
    for raw in &mut clients {
        let answer = raw.answer().expect("it is served, or told that there is no room");
        assert!([200, 503].contains(&answer.status), "{}", answer.status);
    }
}

const LAST: &str = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

#[test]
fn a_client_that_has_its_last_answer_and_stays_makes_room() {
    let app = App::setup().env("MAX_CONNECTIONS", "2").spawn();
    wait_for_no_client(&app);
    let mut staying = [Raw::open(&app), Raw::open(&app)];
    for raw in &mut staying {
        raw.send(LAST);
        raw.answer().unwrap().expect(200);
    }
    wait_for_waiting_clients(&app);
    app.get("/health").send().expect(200);
}

/// After the last answer the service reads for two seconds what the client still sends, and longer only if the client
/// sends fast enough.
#[test]
fn a_client_that_trickles_after_its_last_answer_is_closed_to() {
    let app = App::spawn();
    let mut raw = Raw::open(&app);
    raw.send(LAST);
    raw.answer().unwrap().expect(200);
    let mut sent = 0;
    while raw.send("x") {
        sent += 1;
        assert!(sent < 200, "the service still reads after twenty seconds");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn when_no_connection_is_idle_the_answer_is_503() {
    let app = App::setup().env("MAX_CONNECTIONS", "4").spawn();
    wait_for_no_client(&app);
    let mut busy: Vec<_> = (0..4).map(|_| Raw::open(&app)).collect();
    busy.iter_mut().for_each(Raw::begin);
    let answer = only_answer(&app, "no room", b"");
    assert_refused("no room", &answer, (503, "SERVICE_UNAVAILABLE"));
    assert!(answer.field("Retry-After").is_some());
    let reason = "reason=\"all connections are taken\"";
    app.wait_for_log(|line| line.contains("status=503 ") && line.contains(reason));
    assert_eq!(app.log_so_far().matches(reason).count(), 1);
    busy[0].send("x");
    busy[0].answer().unwrap().expect(405);
    // The connection becomes idle a moment after its answer.
    eventually("room", || app.get("/health").send().status == 200);
}

/// If a client gets its 503 before it has sent its request, its connection must not be reset while it still sends.
#[test]
fn a_client_that_is_turned_away_can_finish_its_request_and_read_the_answer() {
    let app = App::setup().env("MAX_CONNECTIONS", "4").spawn();
    wait_for_no_client(&app);
    let mut busy: Vec<_> = (0..4).map(|_| Raw::open(&app)).collect();
    busy.iter_mut().for_each(Raw::begin);
    let mut turned_away = Raw::open(&app);
    app.wait_for_log(|line| line.contains("all connections are taken"));
    assert!(turned_away.send("POST /api/alice/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n"));
    for _ in 0..10 {
        assert!(turned_away.send("x".repeat(1000)), "the connection is gone");
    }
    let (answers, end) = turned_away.answers(&["POST"]);
    assert_eq!((answers.len(), end), (1, End::Closed), "{answers:?}");
    assert_refused("no room", &answers[0], (503, "SERVICE_UNAVAILABLE"));
}

#[test]
fn a_crowd_that_comes_and_stays_pushes_itself_out() {
    let app = App::setup().env("MAX_CONNECTIONS", "100").spawn();
    let mut busy = Raw::open(&app);
    busy.begin();
    let mut crowd = beside_a_victim(&app, || crowd(&app, 1000));
    busy.send("x");
    busy.answer().expect("a running request is left alone").expect(405);
    assert!(status(&app, "Threads") < 200);
    let is_quiet = crowd.iter_mut().map(Raw::is_quiet).collect::<Vec<_>>();
    assert!(is_quiet[950..].iter().all(|quiet| *quiet) && !is_quiet[..850].iter().any(|quiet| *quiet));
}

/// The limit of descriptors is lowered below the number in use, so nothing can be accepted.
#[test]
fn exhausted_descriptors_are_waited_out_and_logged_once_a_second() {
    let mut app = App::setup().descriptors(256).spawn();
    let set_limit = |app: &App, limit: u32| {
        let mut command = Command::new("prlimit");
        command.arg(format!("--pid={}", app.pid())).arg(format!("--nofile={limit}:256"));
        assert!(command.status().unwrap().success());
    };
    // Many more connections than descriptors.
    let crowd = beside_a_victim(&app, || crowd(&app, 1000));
    drop(crowd);
    app.get("/health").send().expect(200);

    let is_complaint = |line: &&str| line.contains("cannot accept a connection");
    let complaints = |app: &App| app.log_so_far().lines().filter(is_complaint).count();
    let before = complaints(&app);
    let start = Instant::now();
    set_limit(&app, 20);
    let mut waiting = open_many(&app, 50, HEALTH);
    eventually("several lines", || complaints(&app) >= before + 3);
    let seen = complaints(&app) - before;
    let seconds = start.elapsed().as_secs_f64();
    assert!(seen as f64 <= seconds + 2.0, "{seen} lines in {seconds} s");
    assert!(app.is_running());
    set_limit(&app, 256);
    for raw in &mut waiting {
        raw.answer().unwrap().expect(200);
    }
    app.user("alice").create("t");
}

#[test]
fn a_stop_ends_what_is_idle_and_finishes_what_runs() {
    let mut app = App::spawn();
    let id = app.user("alice").create_id();
    let held = Held::rows(&app.database);
    let mut running = Raw::open(&app);
    let patch = app.user("alice").on_task("PATCH", id).json(json!({"complete": true}));
    running.send([patch.bytes().as_slice(), HEALTH.as_bytes()].concat());
    app.database.wait_until_blocked(1);
    let mut silent = open_many(&app, 20, "");
    let mut kept = open_many(&app, 20, HEALTH);
    for raw in &mut kept {
        raw.answer().unwrap().expect(200);
    }
    app.signal("TERM");
    for raw in silent.iter_mut().chain(&mut kept) {
        raw.assert_ends_silently();
    }
    assert!(running.is_quiet(), "they end while the request still runs");
    eventually("the end of the listener", || TcpStream::connect(&app.address).is_err());
    held.release();
    let (answers, end) = running.answers(&[]);
    assert_eq!((answers.len(), end), (1, End::Closed), "{answers:?}");
    assert_eq!((answers[0].status, answers[0].field("Connection")), (200, Some("close")));
    assert_eq!(app.wait_for_exit(), Some(0));
}

/// The directory of its socket is gone before the first client comes.
#[test]
fn nobody_can_connect_to_what_stands_behind_the_gate() {
    let app = App::spawn();
    let inner = format!("/tinytasks-{}-", app.pid());
    let sockets = fs::read_to_string("/proc/net/unix").unwrap();
    let paths = sockets.lines().filter_map(|line| line.split_whitespace().nth(7));
    let paths: Vec<_> = paths.filter(|path| path.contains(&inner)).collect();
    assert!(!paths.is_empty(), "the test has lost its sight");
    for path in paths {
        assert!(!Path::new(path).parent().unwrap().exists(), "{path} can be connected to");
    }
}
