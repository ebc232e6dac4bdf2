//! What the network may do: malformed framing, limits, slow clients, too many of them. Every answer
//! is a problem document as elsewhere; after one to a malformed request the connection ends.

use crate::{
    harness::{App, eventually},
    http::{Connection, Response},
    raw::{wait_for_no_client, wait_for_waiting_clients},
    token::token,
};
use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// The answer to these bytes, held against the rules.
fn answer(app: &App, bytes: &[u8]) -> (Response, Connection) {
    let mut connection = Connection::open(&app.address).unwrap();
    connection.write(bytes);
    let first_line = String::from_utf8_lossy(bytes).chars().take(90).collect::<String>();
    let response = connection.read("GET").unwrap_or_else(|error| panic!("{error}: {first_line}"));
    response.hold_to_the_rules("GET", "/nothing in particular");
    (response, connection)
}

#[track_caller]
fn assert_refused(app: &App, bytes: &[u8], status: u16, error_code: &str) {
    let case = String::from_utf8_lossy(bytes).chars().take(120).collect::<String>();
    let (response, mut connection) = answer(app, bytes);
    assert_eq!(response.status, status, "{case:?}: {response:?}");
    assert_eq!(response.json()["error_code"], error_code, "{case:?}");
    assert!(connection.is_at_end(), "{case:?}: the connection stays open");
}

#[test]
fn malformed_framing_is_400_and_the_end_of_the_connection() {
    let app = App::spawn();
    let authorization = format!("Authorization: Bearer {}\r\n", token("alice"));
    let post = |fields: &str, body: &str| {
        format!(
            "POST /api/alice/tasks HTTP/1.1\r\nHost: x\r\n{authorization}\
             Content-Type: application/json\r\n{fields}\r\n{body}"
        )
    };
    let chunked = "Transfer-Encoding: chunked\r\n";
    let body = r#"{"title":"t"}"#;
    for bytes in [
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x y\r\n\r\n".to_owned(),
        "GET / HTTP/1.2\r\nHost: x\r\n\r\n".to_owned(),
        "GET / HTTP/2.0\r\nHost: x\r\n\r\n".to_owned(),
        "GET / http/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET /\r\nHost: x\r\n\r\n".to_owned(),
        "GET / HTTP/1.1 x\r\nHost: x\r\n\r\n".to_owned(),
        "GET  / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET health HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET /\u{e9} HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET /#x HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "G(T / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\nHost: x\n\n\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\n\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\r2\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\0\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n 2\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x\r\nX-A : 1\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x\r\nX A: 1\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x\r\n: 1\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x\r\nX-A\r\n\r\n".to_owned(),
        post("Content-Length: 13\r\nContent-Length: 13\r\n", body),
        post("Content-Length: 13\r\nContent-Length: 2\r\n", body),
        post("Content-Length: 13, 13\r\n", body),
        post("Content-Length: +13\r\n", body),
        post("Content-Length: -13\r\n", body),
        post("Content-Length: 0xd\r\n", body),
        post("Content-Length: 1 3\r\n", body),
        post("Content-Length: 13.0\r\n", body),
        post("Content-Length:\r\n", body),
        post("Content-Length: 13\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding: gzip\r\n", body),
        post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding: identity\r\nContent-Length: 13\r\n", body),
        post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        post("Transfer-Encoding:\r\n", "0\r\n\r\n"),
        post(chunked, "x\r\n\r\n"),
        post(chunked, "-1\r\n\r\n"),
        post(chunked, "0x5\r\nhello\r\n0\r\n\r\n"),
        post(chunked, " 5\r\nhello\r\n0\r\n\r\n"),
        post(chunked, "5\r\nhello!\r\n0\r\n\r\n"),
        post(chunked, "5\nhello\n0\n\n\r\n\r\n"),
        post(chunked, "\r\n\r\n"),
    ] {
        assert_refused(&app, bytes.as_bytes(), 400, "VALIDATION_ERROR");
    }
    assert_eq!(app.user("alice").list()["count"], 0);
}

#[test]
fn what_only_looks_odd_is_served() {
    let app = App::spawn();
    for bytes in [
        &b"GET /health HTTP/1.1\r\nHost:\r\n\r\n"[..],
        b"GET /health HTTP/1.1\r\nhOST:x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: \t x \t\r\n\r\n",
        b"GET /health HTTP/1.0\r\n\r\n",
        b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX-A:\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX-A: \xc3\xa9\xff\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nCookie: \xe9\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nTE: trailers, chunked\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 000\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n1;a=b\r\nx\r\n0\r\nX-A: 1\r\n\r\n",
    ] {
        let (response, _connection) = answer(&app, bytes);
        assert_eq!(response.status, 200, "{:?}: {response:?}", String::from_utf8_lossy(bytes));
    }
    let bytes = b"GET /api/alice/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xc3\xa9\r\n\r\n";
    answer(&app, bytes).0.expect_problem(401, "AUTH_INVALID");
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

#[test]
fn a_request_inside_a_body_is_no_request() {
    let app = App::spawn();
    let inner = "DELETE /api/alice/tasks/1 HTTP/1.1\r\nHost: x\r\n\r\n";
    for framing in [
        format!("Content-Length: {}\r\n\r\n{inner}", inner.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len()),
    ] {
        let outer = format!("GET / HTTP/1.1\r\nHost: x\r\n{framing}");
        let last = String::from_utf8(app.get("/health").header("Connection", "close").bytes()).unwrap();
        let (response, mut connection) = answer(&app, format!("{outer}{last}").as_bytes());
        response.expect(200);
        assert_eq!(connection.read("GET").unwrap().expect(200).json()["status"], "healthy");
        assert!(connection.is_at_end());
    }
}

#[test]
fn limits_of_the_head_have_their_own_answers() {
    let app = App::spawn();
    let line = |length: usize| {
        let (start, end) = ("GET /health?", " HTTP/1.1");
        format!("{start}{}{end}\r\nHost: x\r\n\r\n", "x".repeat(length - start.len() - end.len()))
    };
    let many = |count: usize| {
        let fields: String = (1..count).map(|index| format!("X-{index}: x\r\n")).collect();
        format!("GET /health HTTP/1.1\r\nHost: x\r\n{fields}\r\n")
    };
    let large = |length: usize| {
        let (host, name) = ("Host: x\r\n", "X-A: ");
        let value = "x".repeat(length - host.len() - name.len() - "\r\n\r\n".len());
        format!("GET /health HTTP/1.1\r\n{host}{name}{value}\r\n\r\n")
    };
    // Whether line ends count is nobody's business: some bytes of distance.
    for good in [line(8 * 1024 - 2), many(64), large(16 * 1024)] {
        answer(&app, good.as_bytes()).0.expect(200);
    }
    assert_refused(&app, line(8 * 1024 + 3).as_bytes(), 414, "URI_TOO_LONG");
    assert_refused(&app, many(65).as_bytes(), 431, "HEADERS_TOO_LARGE");
    assert_refused(&app, large(16 * 1024 + 5).as_bytes(), 431, "HEADERS_TOO_LARGE");
    // Without an end, and more than any buffer has room for.
    let endless = "x".repeat(1 << 20);
    assert_refused(&app, format!("GET /{endless}").as_bytes(), 414, "URI_TOO_LONG");
    let field = format!("GET / HTTP/1.1\r\nHost: x\r\nX-A: {endless}");
    assert_refused(&app, field.as_bytes(), 431, "HEADERS_TOO_LARGE");
    let fields = format!("GET / HTTP/1.1\r\nHost: x\r\n{}", "X: y\r\n".repeat(100_000));
    assert_refused(&app, fields.as_bytes(), 431, "HEADERS_TOO_LARGE");
}

#[test]
fn slow_clients_are_told_in_time_and_keep_nobody_waiting() {
    let app = App::spawn();
    let start = Instant::now();
    let slow = |bytes: &str| {
        let mut connection = Connection::open(&app.address).unwrap();
        connection.write(bytes.as_bytes());
        connection
    };
    let mut heads: Vec<_> = (0..20).map(|_| slow("GET /health HTTP/1.1\r\nHost: x\r\nX-A")).collect();
    let body = "POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\nx";
    let bodies: Vec<_> = (0..100).map(|_| slow(body)).collect();
    let alice = app.user("alice");
    for _ in 0..20 {
        alice.create("t");
    }
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    for connection in &mut heads {
        let response = connection.read("GET").unwrap();
        response.hold_to_the_rules("GET", "/nothing in particular");
        response.expect_problem(408, "REQUEST_TIMEOUT");
        assert!(connection.is_at_end());
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    drop(bodies);
}

#[test]
fn many_clients_at_the_same_moment_are_all_served() {
    let app = App::spawn();
    let clients: Vec<_> = (0..200)
        .map(|_| {
            let request = app.user("alice").request("GET", "/tasks");
            thread::spawn(move || request.send().status)
        })
        .collect();
    for client in clients {
        assert_eq!(client.join().unwrap(), 200);
    }
    // Connections that stay open take nothing from those that come after.
    let mut open: Vec<_> = (0..200).map(|_| Connection::open(&app.address).unwrap()).collect();
    for connection in &mut open {
        connection.write(&app.get("/health").bytes());
        connection.read("GET").unwrap().expect(200);
    }
    app.user("alice").create("t");
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
    // The interim answer shows that the service waits for the body.
    let head = "OPTIONS /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n";
    for connection in [&mut idle, &mut newest] {
        connection.write(head.as_bytes());
        connection.read("OPTIONS").unwrap().expect(100);
    }
    // It may be reset before it is read: that answer is sent before the request has come.
    eventually("503", || app.get("/health").try_send().is_ok_and(|response| response.status == 503));
    for connection in [&mut idle, &mut newest] {
        connection.write(b"x");
        connection.read("OPTIONS").unwrap().expect(204);
    }
}
