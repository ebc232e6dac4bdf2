//! Whatever is too long or too many is refused with its own status, and is never kept in memory.

use crate::support::{
    harness::App,
    http::Connection,
    raw::{Raw, answer, as_chunks, assert_refused, beside_a_victim, only_answer, status, with_a_body},
    token::token,
};
use std::thread;

#[test]
fn a_declared_length_of_a_terabyte_takes_no_memory() {
    let app = App::spawn();
    let before = status(&app, "VmRSS");
    beside_a_victim(&app, || {
        for length in ["1000000000000", "18446744073709551615", &"9".repeat(5000)] {
            for authorization in [String::new(), format!("Authorization: Bearer {}\r\n", token("eve"))] {
                let head = format!("{authorization}Content-Length: {length}");
                let answer = only_answer(&app, &head, with_a_body(&head, "").as_bytes());
                assert_refused(&head, &answer, (413, "PAYLOAD_TOO_LARGE"));
            }
        }
        for size in ["e8d4a51000", "ffffffffffffffff"] {
            let answer = only_answer(&app, size, as_chunks(&format!("{size}\r\nx")).as_bytes());
            assert_refused(size, &answer, (413, "PAYLOAD_TOO_LARGE"));
        }
    });
    let taken = status(&app, "VmRSS").saturating_sub(before);
    assert!(taken < 8 * 1024, "{taken} kB more than before");
}

#[test]
fn a_declared_length_over_64_kib_is_answered_at_once() {
    let app = App::spawn();
    for length in ["65537", "4294967296", "1000000000000", "9223372036854775807"] {
        for authorization in [String::new(), format!("Authorization: Bearer {}\r\n", token("alice"))] {
            let mut connection = Connection::open(&app.address).unwrap();
            let head = format!(
                "POST /api/alice/tasks HTTP/1.1\r\nHost: x\r\n{authorization}\
                 Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
            );
            connection.write(head.as_bytes());
            let response = connection.read("POST").unwrap();
            response.hold_to_the_rules("POST", "/api/alice/tasks");
            response.expect_problem(413, "PAYLOAD_TOO_LARGE");
        }
        app.get("/health").send().expect(200);
    }
}

/// The service answers before all bytes have arrived, so the connection may also end with a reset.
#[track_caller]
fn assert_refused_at_once(app: &App, bytes: &[u8], status: u16, error_code: &str) {
    let case = String::from_utf8_lossy(bytes).chars().take(120).collect::<String>();
    let (response, mut connection) = answer(app, bytes);
    assert_eq!(response.status, status, "{case:?}: {response:?}");
    assert_eq!(response.json()["error_code"], error_code, "{case:?}");
    assert!(connection.is_at_end(), "{case:?}: the connection stays open");
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
    for good in [line(8 * 1024), many(64), large(16 * 1024 + 2)] {
        answer(&app, good.as_bytes()).0.expect(200);
    }
    assert_refused_at_once(&app, line(8 * 1024 + 1).as_bytes(), 414, "URI_TOO_LONG");
    assert_refused_at_once(&app, many(65).as_bytes(), 431, "HEADERS_TOO_LARGE");
    assert_refused_at_once(&app, large(16 * 1024 + 3).as_bytes(), 431, "HEADERS_TOO_LARGE");
    // A line without an end that is larger than any buffer.
    let endless = "x".repeat(1 << 20);
    assert_refused_at_once(&app, format!("GET /{endless}").as_bytes(), 414, "URI_TOO_LONG");
    let field = format!("GET / HTTP/1.1\r\nHost: x\r\nX-A: {endless}");
    assert_refused_at_once(&app, field.as_bytes(), 431, "HEADERS_TOO_LARGE");
    let fields = format!("GET / HTTP/1.1\r\nHost: x\r\n{}", "X: y\r\n".repeat(100_000));
    assert_refused_at_once(&app, fields.as_bytes(), 431, "HEADERS_TOO_LARGE");
}

#[test]
fn endless_input_takes_no_memory() {
    const MEBIBYTES: usize = 48;
    let app = App::spawn();
    app.get("/health").send();
    let before = status(&app, "VmRSS");
    let line = "a".repeat(1 << 20);
    let fields = "A: b\r\n".repeat((1 << 20) / 6);
    let chunk = format!("1;{}\r\nx\r\n", "a".repeat(200)).repeat(20);
    for (case, start, more) in [
        ("a request line", "GET /", &line),
        ("a method", "", &line),
        ("a field", "GET / HTTP/1.1\r\nHost: x\r\nA: ", &line),
        ("a field's name", "GET / HTTP/1.1\r\nHost: x\r\n", &line),
        ("fields", "GET / HTTP/1.1\r\nHost: x\r\n", &fields),
        ("a chunk's size", &as_chunks(""), &line),
        ("chunks", &as_chunks(""), &chunk),
        ("a trailer", &as_chunks("0\r\n"), &line),
        ("trailers", &as_chunks("0\r\n"), &fields),
    ] {
        beside_a_victim(&app, || {
            thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let mut raw = Raw::open(&app);
                        raw.send(start);
                        let is_taken = (0..MEBIBYTES).all(|_| raw.send(more));
                        assert!(!is_taken || case == "chunks", "{case}: {MEBIBYTES} MiB are taken");
                    });
                }
            });
        });
        let taken = status(&app, "VmHWM").saturating_sub(before);
        assert!(taken < 16 * 1024, "{case}: {taken} kB more than before");
    }
}
