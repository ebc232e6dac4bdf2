//! What a hostile network does to the gate, while somebody else has to be served within a second.
//! One test for each way in which tiny_http alone was brought down, and for each promise of the
//! gate that `gate.rs` does not hold already. What takes a deadline to see is in one test.

use crate::{
    harness::{App, eventually},
    http::{Response, is_request_id},
    raw::{End, Raw, beside_a_victim, status, wait_for_no_client, wait_for_waiting_clients},
    reference::Random,
    token::token,
};
use serde_json::json;
use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    fs,
    net::{SocketAddr, TcpStream},
    process::Command,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
const ORIGIN: &str = "Origin: http://localhost:3000\r\n";

fn open_many(app: &App, count: usize, begun: &str) -> Vec<Raw> {
    let open = |_| {
        let mut raw = Raw::open(app);
        raw.send(begun);
        raw
    };
    (0..count).map(open).collect()
}

/// So many come and stay, several in each hundredth of a second.
fn crowd(app: &App, count: usize) -> Vec<Raw> {
    let mut crowd = Vec::new();
    while crowd.len() < count {
        crowd.extend(open_many(app, 5, ""));
        thread::sleep(Duration::from_millis(10));
    }
    crowd
}

/// The one answer to all that is sent, and the connection closed in order after it.
fn only_answer(app: &App, case: &str, bytes: &[u8]) -> Response {
    let mut raw = Raw::open(app);
    raw.send(bytes);
    let (mut answers, end) = raw.answers(&[]);
    assert_eq!(answers.len(), 1, "{case}: {answers:?}");
    assert_eq!(end, End::Closed, "{case}: {answers:?}");
    answers.remove(0)
}

#[track_caller]
fn assert_refused(case: &str, answer: &Response, wanted: (u16, &str)) {
    assert_eq!((answer.status, answer.json()["error_code"].as_str().unwrap()), wanted, "{case}: {answer:?}");
    assert_eq!(answer.field("Connection"), Some("close"), "{case}");
    answer.hold_to_the_rules("GET", "/nothing in particular");
}

fn with_a_body(fields: &str, body: &str) -> String {
    format!("POST /health HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n{body}")
}

fn as_chunks(text: &str) -> String {
    with_a_body("Transfer-Encoding: chunked", text)
}

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
fn begun_heads_and_bodies_hold_up_nobody() {
    let app = App::spawn();
    let token = token("eve");
    for authorization in [String::new(), format!("Authorization: Bearer {token}\r\n")] {
        let body = format!("{authorization}Content-Type: application/json\r\nContent-Length: 5000");
        let body = with_a_body(&body, "x");
        let chunks = as_chunks("5\r\nx");
        let head = "GET /api/eve/tasks HTTP/1.1\r\nHost: x\r\nX-A";
        for begun in [&body, &chunks, head, "G", "\r\n"] {
            let mut attackers = open_many(&app, 8, begun);
            beside_a_victim(&app, || {
                attackers.extend(open_many(&app, 192, begun));
                thread::sleep(Duration::from_millis(300));
            });
            assert!(attackers.iter_mut().all(Raw::is_quiet), "{begun}");
        }
    }
}

/// The limit of descriptors is lowered below what is in use: nothing can be accepted at all.
#[test]
fn exhausted_descriptors_are_waited_out_and_logged_once_a_second() {
    let mut app = App::setup().descriptors(256).spawn();
    let set_limit = |app: &App, limit: u32| {
        let mut command = Command::new("prlimit");
        command.arg(format!("--pid={}", app.pid())).arg(format!("--nofile={limit}:256"));
        assert!(command.status().unwrap().success());
    };
    // Far more connections than there are descriptors.
    let crowd = beside_a_victim(&app, || crowd(&app, 1000));
    drop(crowd);
    app.get("/health").send().expect(200);

    let is_complaint = |line: &&str| line.contains("cannot accept a connection");
    let complaints = |app: &App| app.log_so_far().lines().filter(is_complaint).count();
    let before = complaints(&app);
    set_limit(&app, 20);
    let mut waiting = open_many(&app, 50, HEALTH);
    thread::sleep(Duration::from_millis(3500));
    let seen = complaints(&app) - before;
    assert!((1..=5).contains(&seen), "{seen} lines in 3.5 s");
    assert!(app.is_running());
    set_limit(&app, 256);
    for raw in &mut waiting {
        raw.answer().unwrap().expect(200);
    }
    app.user("alice").create("t");
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

/// Behind each stands a request that must never be seen as one.
#[test]
fn what_is_ambiguous_is_refused_and_what_follows_is_not_read() {
    let app = App::spawn();
    let start = |line: &str| format!("{line}\r\nHost: x\r\n\r\n");
    let field = |line: &str| format!("GET /health HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n");
    let bodies = [
        ("two lengths", "Content-Length: 3\r\nContent-Length: 3"),
        ("differing lengths", "Content-Length: 3\r\nContent-Length: 0"),
        ("a list of lengths", "Content-Length: 3, 3"),
        ("a signed length", "Content-Length: +3"),
        ("a negative length", "Content-Length: -3"),
        ("a hexadecimal length", "Content-Length: 0x3"),
        ("a length with a fraction", "Content-Length: 3.0"),
        ("a length in two", "Content-Length: 3 3"),
        ("no length", "Content-Length:"),
        ("a length of other digits", "Content-Length: \u{0663}"),
        ("a length in quotes", "Content-Length: \"3\""),
        ("length and coding", "Content-Length: 3\r\nTransfer-Encoding: chunked"),
        ("coding and length", "Transfer-Encoding: chunked\r\nContent-Length: 3"),
        ("coding and a bad length", "Transfer-Encoding: chunked\r\nContent-Length: x"),
        ("two codings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        ("a list of codings", "Transfer-Encoding: gzip, chunked"),
        ("chunked twice", "Transfer-Encoding: chunked, chunked"),
        ("chunked not last", "Transfer-Encoding: chunked, identity"),
        ("identity", "Transfer-Encoding: identity"),
        ("an unknown coding", "Transfer-Encoding: anything"),
        ("an almost chunked coding", "Transfer-Encoding: xchunked"),
        ("a coding behind a control character", "Transfer-Encoding: \u{b}chunked"),
        ("a coding with a parameter", "Transfer-Encoding: chunked;a=b"),
        ("a coding in quotes", "Transfer-Encoding: \"chunked\""),
        ("an empty coding", "Transfer-Encoding:"),
        ("a list with an empty member", "Transfer-Encoding: , chunked"),
        ("a length with a space before the colon", "Content-Length : 3"),
        ("a folded length", "Content-Length:\r\n 3"),
        ("a coding with a tab before the colon", "Transfer-Encoding\t: chunked"),
    ];
    let chunks = [
        ("a chunk size of no digits", "\r\nabc\r\n0\r\n\r\n"),
        ("a chunk size with a prefix", "0x3\r\nabc\r\n0\r\n\r\n"),
        ("a chunk size with a sign", "+3\r\nabc\r\n0\r\n\r\n"),
        ("a chunk size behind a space", " 3\r\nabc\r\n0\r\n\r\n"),
        ("a chunk size before a space", "3 \r\nabc\r\n0\r\n\r\n"),
        ("a chunk size with an underscore", "0_3\r\nabc\r\n0\r\n\r\n"),
        ("a chunk size of 17 digits", "00000000000000003\r\nabc\r\n0\r\n\r\n"),
        ("a chunk size that overflows", "10000000000000003\r\nabc\r\n0\r\n\r\n"),
        ("a chunk size in other letters", "g\r\nabc\r\n0\r\n\r\n"),
        ("a chunk line that ends in LF", "3\nabc\r\n0\r\n\r\n\r\n\r\n"),
        ("a chunk that ends in LF", "3\r\nabc\n0\r\n\r\n"),
        ("a chunk that is longer than it says", "3\r\nabcd\r\n0\r\n\r\n"),
        ("a chunk that is shorter than it says", "3\r\nab\r\n0\r\n\r\n"),
        ("a bare CR in an extension", "3;a\rb\r\nabc\r\n0\r\n\r\n"),
        ("a bare LF in an extension", "3;a\nb\r\nabc\r\n0\r\n\r\n"),
        ("NUL in an extension", "3;\0\r\nabc\r\n0\r\n\r\n"),
        ("a bare LF in a trailer", "0\r\nA: b\nC: d\r\n\r\n"),
        ("a folded trailer", "0\r\nA: b\r\n c\r\n\r\n"),
        ("a length in a trailer", "0\r\nContent-Length: 3\r\n\r\n"),
        ("a coding in a trailer", "0\r\ntransfer-encoding: chunked\r\n\r\n"),
        ("a trailer without a colon", "0\r\nA\r\n\r\n"),
        ("a trailer with a space before the colon", "0\r\nA : b\r\n\r\n"),
    ];
    let lines = [
        ("HTTP/0.9", "GET /health"),
        ("HTTP/1.2", "GET /health HTTP/1.2"),
        ("HTTP/2", "PRI * HTTP/2.0"),
        ("another protocol", "GET /health RTSP/1.0"),
        ("a lower-case version", "GET /health http/1.1"),
        ("a long version", "GET /health HTTP/1.10"),
        ("a space behind the version", "GET /health HTTP/1.1 "),
        ("two spaces", "GET  /health HTTP/1.1"),
        ("two spaces before the version", "GET /health  HTTP/1.1"),
        ("tabs for spaces", "GET\t/health\tHTTP/1.1"),
        ("a space first", " GET /health HTTP/1.1"),
        ("no method", "/health HTTP/1.1"),
        ("no target", "GET HTTP/1.1"),
        ("a method that is no token", "G@T /health HTTP/1.1"),
        ("a space in the target", "GET /health HTTP/1.1 HTTP/1.1"),
        ("a bare CR", "GET /health HTTP/1.1\rX: y"),
        ("a relative target", "GET health HTTP/1.1"),
        ("an authority", "CONNECT x:80 HTTP/1.1"),
        ("a star for another method", "GET * HTTP/1.1"),
        ("another scheme", "GET ftp://x/health HTTP/1.1"),
        ("a fragment", "GET /health#a HTTP/1.1"),
        ("a fragment without a path", "GET http://x#/health HTTP/1.1"),
        ("an authority that is empty", "GET http:///health HTTP/1.1"),
        ("an authority with a user", "GET http://a@x/health HTTP/1.1"),
        ("a target that is not ASCII", "GET /h\u{e9}alth HTTP/1.1"),
        ("DEL in the target", "GET /\u{7f} HTTP/1.1"),
        ("NUL in the target", "GET /\0 HTTP/1.1"),
        ("an empty line too many", "\r\n\r\nGET /health HTTP/1.1"),
    ];
    let fields = [
        ("a folded field", "A: b\r\n c"),
        ("a field folded with a tab", "A: b\r\n\tc"),
        ("a folded Host", "A: b\r\n Host: y"),
        ("a bare CR", "A: b\rC: d"),
        ("a bare LF", "A: b\nC: d"),
        ("CR twice", "A: b\r\r\nC: d"),
        ("LF before CR", "A: b\n\rC: d"),
        ("NUL", "A: b\0"),
        ("DEL", "A: b\u{7f}"),
        ("a vertical tab", "A: \u{b}b"),
        ("an escape", "A: \u{1b}[2J"),
        ("a space before the colon", "A : b"),
        ("a tab before the colon", "A\t: b"),
        ("a space in the name", "A B: c"),
        ("a name that is not ASCII", "\u{e9}: b"),
        ("a name in brackets", "[a]: b"),
        ("an empty name", ": b"),
        ("no colon", "A"),
        ("two Hosts", "Host: x"),
        ("two differing Hosts", "Host: y"),
    ];
    let hosts = [
        ("no Host", ""),
        ("a path in Host", "Host: a/b\r\n"),
        ("a user in Host", "Host: a@b\r\n"),
        ("a space in Host", "Host: a b\r\n"),
        ("Host that is not ASCII", "Host: \u{e9}\r\n"),
    ];
    let mut cases = Vec::new();
    cases.extend(bodies.map(|(case, lines)| (case, with_a_body(lines, "0\r\n\r\n"))));
    cases.extend(chunks.map(|(case, chunks)| (case, as_chunks(chunks))));
    cases.extend(lines.map(|(case, line)| (case, start(line))));
    cases.extend(fields.map(|(case, line)| (case, field(line))));
    cases.extend(hosts.map(|(case, line)| (case, format!("GET /health HTTP/1.1\r\n{line}\r\n"))));
    let old = "POST /health HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    cases.push(("chunks in HTTP/1.0", old.to_owned()));
    beside_a_victim(&app, || {
        for (case, bytes) in &cases {
            let follower = "GET /health HTTP/1.1\r\nHost: x\r\nX-Request-Id: follower\r\n\r\n";
            let answer = only_answer(&app, case, format!("{bytes}{follower}").as_bytes());
            assert_refused(case, &answer, (400, "VALIDATION_ERROR"));
        }
    });
    assert!(app.log().iter().all(|line| !line.contains("follower")));
}

#[test]
fn a_target_in_absolute_form_is_cut_where_its_path_begins() {
    let app = App::spawn();
    for (target, status) in [
        ("http://x/health", 200),
        ("HTTPS://x:443/health", 200),
        ("http://[::1]:80/health?a", 200),
        ("http://x/health?http://y/nothing", 200),
        ("http://x", 200),
        ("http://x?a", 200),
        // The path is empty, and the rest a query.
        ("http://x?/nothing", 200),
        ("http://x?a=/nothing", 200),
        ("http://x//health", 404),
        ("/health?http://x/nothing", 200),
        ("/http://x/health", 404),
    ] {
        let mut raw = Raw::open(&app);
        raw.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(raw.answer().unwrap().status, status, "{target}");
    }
    let mut raw = Raw::open(&app);
    raw.send("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(raw.answer().unwrap().expect(204).list("Allow"), ["GET", "HEAD", "OPTIONS"]);
}

#[test]
fn a_byte_that_is_not_ascii_harms_nobody() {
    let app = App::spawn();
    let mut raw = Raw::open(&app);
    let field = |name: &str| {
        [b"GET /api/eve/tasks HTTP/1.1\r\nHost: x\r\n", name.as_bytes(), b": \xe9\xff\r\n\r\n"].concat()
    };
    beside_a_victim(&app, || {
        for (name, status) in [
            ("Cookie", 401),
            ("X-Request-Id", 401),
            ("Authorization", 401),
            ("Authorization: Bearer", 401),
            ("Origin", 401),
        ] {
            raw.send(field(name));
            let answer = raw.answer().unwrap().expect(status);
            assert!(is_request_id(answer.field("X-Request-Id").unwrap()));
            assert_eq!(answer.field("Access-Control-Allow-Origin"), None);
        }
    });
}

#[test]
fn a_hundred_connections_opened_at_the_same_moment_are_all_served() {
    const CLIENTS: usize = 100;
    let app = App::spawn();
    let start = Barrier::new(CLIENTS);
    // All stay open to the end: none may be queued behind one that is merely kept.
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

/// In several writes, each waiting for the client's delayed acknowledgement, it took 44 ms.
#[test]
fn a_large_answer_is_written_in_one_go() {
    let app = App::spawn();
    let alice = app.user("alice");
    for _ in 0..100 {
        alice.create("a title of some length, so that the list has more than one segment");
    }
    let request = alice.request("GET", "/tasks").bytes();
    let mut raw = Raw::open(&app);
    let mut times: Vec<_> = (0..20)
        .map(|_| {
            let start = Instant::now();
            raw.send(&request);
            assert!(raw.answer().unwrap().expect(200).body.len() > 16 * 1024);
            start.elapsed()
        })
        .collect();
    times.sort();
    assert!(times[5] < Duration::from_millis(38), "{times:?}");
    raw.send("GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(raw.answer().unwrap().expect(200).body.len() > 1 << 20);
    assert!(raw.answer().is_none());
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
        // What comes after the last request is not looked at.
        raw.send(HEALTH);
        let (answers, end) = match is_kept {
            true => (vec![raw.answer().unwrap()], End::Closed),
            false => raw.answers(&[]),
        };
        assert_eq!((answers.len(), end), (usize::from(is_kept), End::Closed), "{version} {fields}");
    }
    // A client that says at once that nothing follows is answered all the same.
    let mut raw = Raw::open(&app);
    raw.send(HEALTH);
    raw.finish();
    let (answers, end) = raw.answers(&[]);
    assert_eq!((answers.len(), end), (1, End::Closed));
    // One that goes away in the middle of a request is not.
    let mut raw = Raw::open(&app);
    raw.send("POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nx");
    raw.finish();
    raw.assert_ends_silently();
}

#[test]
fn a_refusal_can_be_read_by_a_client_that_is_still_sending() {
    let app = App::spawn();
    let body = "x".repeat(200 * 1024);
    let long = "a".repeat(9 * 1024);
    beside_a_victim(&app, || {
        for (case, head, wanted) in [
            ("length", with_a_body("Content-Length: 204800", ""), (413, "PAYLOAD_TOO_LARGE")),
            ("chunks", as_chunks("32000\r\n"), (413, "PAYLOAD_TOO_LARGE")),
            ("framing", with_a_body("Content-Length: x", ""), (400, "VALIDATION_ERROR")),
            ("line", format!("GET /{long} HTTP/1.1\r\n"), (414, "URI_TOO_LONG")),
            (
                "fields",
                format!("GET / HTTP/1.1\r\nHost: x\r\nA: {long}{long}\r\n"),
                (431, "HEADERS_TOO_LARGE"),
            ),
        ] {
            // At once, and in pieces of which some come after the answer.
            let answer = only_answer(&app, case, format!("{head}{body}").as_bytes());
            assert_refused(case, &answer, wanted);
            let mut raw = Raw::open(&app);
            raw.send(&head);
            let mut answers = Vec::new();
            for (index, piece) in body.as_bytes().chunks(20 * 1024).enumerate() {
                assert!(raw.send(piece), "{case}: piece {index}");
                if index == 4 {
                    answers.extend(raw.answer());
                }
            }
            raw.finish();
            let (more, end) = raw.answers(&[]);
            assert_eq!((answers.len(), more.len(), end), (1, 0, End::Closed), "{case}");
            assert_refused(case, &answers[0], wanted);
        }
    });
}

#[test]
fn a_refusal_is_an_answer_and_a_log_line_like_any_other() {
    let app = App::spawn();
    let many = "A: b\r\n".repeat(63);
    for (id, request, wanted) in [
        ("two-lengths", "Content-Length: 3\r\nContent-Length: 3\r\n", (400, "VALIDATION_ERROR")),
        ("too-long", "Content-Length: 65537\r\n", (413, "PAYLOAD_TOO_LARGE")),
        ("too-many", &many, (431, "HEADERS_TOO_LARGE")),
    ] {
        let bytes = format!("PUT /health HTTP/1.1\r\nHost: x\r\nX-Request-Id: {id}\r\n{ORIGIN}{request}\r\n");
        let answer = only_answer(&app, id, bytes.as_bytes());
        assert_refused(id, &answer, wanted);
        assert_eq!(answer.field("X-Request-Id"), Some(id));
        assert_eq!(answer.field("Access-Control-Allow-Origin"), Some("http://localhost:3000"), "{id}");
        assert!(answer.field("Access-Control-Expose-Headers").is_some(), "{id}");
        let log = app.log();
        let lines: Vec<_> = log.iter().filter(|line| line.contains(&format!("request_id={id} "))).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        for part in [
            if app.address.starts_with("unix:") { "client=unix " } else { "client=127.0.0.1 " },
            "method=PUT",
            &format!("status={} ", wanted.0),
            &format!("error_code={} ", wanted.1),
        ] {
            assert!(lines[0].contains(part), "{part}: {}", lines[0]);
        }
    }
}

#[test]
fn a_chunked_body_arrives_whole_however_it_is_cut() {
    let app = App::spawn();
    let head = format!(
        "POST /api/alice/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        token("alice")
    );
    let chunks =
        "1\r\n{\r\n00A;name=\"a \\\" b\";x\r\n\"title\":\"1\r\n003\r\n2\"}\r\n0;last\r\nA: b\r\nC: 7\r\n\r\n";
    let whole = format!("{head}{chunks}");
    let mut raw = Raw::open(&app);
    beside_a_victim(&app, || {
        // Two pieces, cut everywhere in the body and around the end of the head.
        for cut in head.len() - 6..=whole.len() {
            let (one, other) = whole.split_at(cut);
            raw.send(one);
            thread::sleep(Duration::from_millis(1));
            raw.send(other);
            let answer = raw.answer().unwrap();
            assert_eq!(answer.status, 201, "cut at {cut}: {answer:?}");
            assert_eq!(answer.json()["title"], "12", "cut at {cut}");
        }
        for byte in whole.bytes() {
            raw.send([byte]);
        }
        assert_eq!(raw.answer().unwrap().expect(201).json()["title"], "12");
    });
}

#[test]
fn pipelined_requests_are_answered_in_order_however_they_are_cut() {
    let app = App::spawn();
    let mut random = Random::new(7);
    let auth = format!("Authorization: Bearer {}\r\n", token("alice"));
    for round in 0..10 {
        let mut bytes = Vec::new();
        let mut wanted = Vec::new();
        for index in 0..12 {
            let id = format!("X-Request-Id: r{index}\r\n");
            let task = format!("{{\"title\":\"{index}\"}}");
            let json = "Content-Type: application/json\r\n";
            let (head, body, status) = match random.below(5) {
                0 => (format!("GET /health HTTP/1.1\r\nHost: x\r\n{id}\r\n"), String::new(), 200),
                1 => (format!("GET /nothing HTTP/1.1\r\nHost: x\r\n{id}\r\n"), String::new(), 404),
                2 => {
                    let start = format!("POST /api/alice/tasks HTTP/1.1\r\nHost: x\r\n{auth}{json}{id}");
                    (format!("{start}Content-Length: {}\r\n\r\n", task.len()), task, 201)
                }
                3 => {
                    let start = format!("POST /api/alice/tasks HTTP/1.1\r\nHost: x\r\n{auth}{json}{id}");
                    let chunks = format!("{:x}\r\n{task}\r\n0\r\n\r\n", task.len());
                    (format!("{start}Transfer-Encoding: chunked\r\n\r\n"), chunks, 201)
                }
                _ => (
                    format!("POST /health HTTP/1.1\r\nHost: x\r\n{id}Content-Length: 9\r\n\r\n"),
                    "GET / HTT".to_owned(),
                    405,
                ),
            };
            bytes.extend(head.bytes().chain(body.bytes()));
            wanted.push((format!("r{index}"), status));
        }
        bytes.extend(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-Id: last\r\n\r\n");
        wanted.push(("last".to_owned(), 200));
        bytes.extend(HEALTH.bytes());
        let mut raw = Raw::open(&app);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let length = if round == 0 { rest.len() } else { 1 + random.below(rest.len().min(300)) };
            let (piece, after) = rest.split_at(length);
            raw.send(piece);
            thread::sleep(Duration::from_millis(1));
            rest = after;
        }
        let (answers, end) = raw.answers(&[]);
        let seen =
            answers.iter().map(|answer| (answer.field("X-Request-Id").unwrap().to_owned(), answer.status));
        assert_eq!(seen.collect::<Vec<_>>(), wanted, "round {round}");
        assert_eq!(end, End::Closed, "round {round}");
    }
}

#[test]
fn a_client_is_told_to_continue_when_its_body_is_wanted() {
    let app = App::spawn();
    let interim = "HTTP/1.1 100 Continue\r\n\r\n";
    let expecting = |fields: &str| {
        format!("POST /health HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n{fields}\r\n\r\n")
    };
    let first_line = |version: &str, head: &str| {
        use std::io::{Read, Write};
        let mut stream = crate::http::connect(&app.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(head.replace("HTTP/1.1", version).as_bytes()).unwrap();
        let mut bytes = [0; 1000];
        let count = stream.read(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
        (text, stream)
    };
    for (fields, body) in [
        ("Content-Length: 3", "abc"),
        ("Content-Length: 65536", &"a".repeat(65536)),
        ("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n"),
    ] {
        let (seen, stream) = first_line("HTTP/1.1", &expecting(fields));
        assert_eq!(seen, interim, "{fields}");
        let mut raw = Raw::on(stream);
        raw.send(body);
        raw.answer().unwrap().expect(405);
        // The body does not wait, or part of it: the answer comes, with or without an interim one.
        for cut in [1, body.len()] {
            raw.send(expecting(fields) + &body[..cut]);
            raw.send(&body[cut..]);
            raw.answer().unwrap().expect(405);
        }
        raw.send(HEALTH);
        raw.answer().unwrap().expect(200);
    }
    // None where the body is not wanted, not awaited, or the client is too old to know.
    for (version, fields, wanted) in [
        ("HTTP/1.1", "Content-Length: 65537", "HTTP/1.1 413 "),
        ("HTTP/1.1", "Content-Length: 1000000000000", "HTTP/1.1 413 "),
        ("HTTP/1.1", "Content-Length: 3\r\nContent-Length: 3", "HTTP/1.1 400 "),
        ("HTTP/1.1", "Content-Length: 0", "HTTP/1.1 405 "),
        ("HTTP/1.1", "X-A: b", "HTTP/1.1 405 "),
    ] {
        let (seen, _stream) = first_line(version, &expecting(fields));
        assert!(seen.starts_with(wanted), "{fields}: {seen}");
    }
    let (seen, _stream) = first_line("HTTP/1.0", &(expecting("Content-Length: 3") + "abc"));
    assert!(seen.starts_with("HTTP/1.1 405 "), "{seen}");
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
    // It is idle a moment after its answer.
    eventually("room", || app.get("/health").send().status == 200);
}

#[test]
fn a_stop_ends_what_is_idle_and_finishes_what_runs() {
    let mut app = App::spawn();
    let id = app.user("alice").create_id();
    let mut holder = app.database.client();
    let mut lock = holder.transaction().unwrap();
    lock.execute("select from tasks for update", &[]).unwrap();
    let mut running = Raw::open(&app);
    let patch = app.user("alice").on_task("PATCH", id).json(json!({"complete": true}));
    running.send([patch.bytes().as_slice(), HEALTH.as_bytes()].concat());
    app.database.wait_until_blocked(1);
    let mut silent = open_many(&app, 20, "");
    let mut kept = open_many(&app, 20, HEALTH);
    for raw in &mut kept {
        raw.answer().unwrap().expect(200);
    }
    let start = Instant::now();
    app.signal("TERM");
    for raw in silent.iter_mut().chain(&mut kept) {
        raw.assert_ends_silently();
    }
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    eventually("the end of the listener", || TcpStream::connect(&app.address).is_err());
    lock.rollback().unwrap();
    let (answers, end) = running.answers(&[]);
    assert_eq!((answers.len(), end), (1, End::Closed), "{answers:?}");
    assert_eq!((answers[0].status, answers[0].field("Connection")), (200, Some("close")));
    assert_eq!(app.wait_for_exit(), Some(0));
}

/// A connection from another address of this machine.
fn connect_from(app: &App, address: &str) -> Raw {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let address: SocketAddr = format!("{address}:0").parse().unwrap();
    socket.bind(&SockAddr::from(address)).unwrap();
    let server: SocketAddr = app.address.parse().unwrap();
    socket.connect(&SockAddr::from(server)).unwrap();
    Raw::on(socket)
}

#[test]
fn the_clients_address_is_that_of_the_socket_or_what_a_trusted_proxy_says() {
    let app = App::setup().env("TRUSTED_PROXIES", "127.0.0.2, ::1").spawn();
    let none = App::spawn();
    let mut count = 0;
    let mut assert_client = |app: &App, from: &str, fields: &str, wanted: &str| {
        count += 1;
        let id = format!("client-{count}");
        let mut raw = connect_from(app, from);
        raw.send(format!("GET /health HTTP/1.1\r\nHost: x\r\nX-Request-Id: {id}\r\n{fields}\r\n"));
        raw.answer().unwrap().expect(200);
        let line = app.wait_for_log(|line| line.contains(&format!("request_id={id} ")));
        assert!(line.contains(&format!(" client={wanted} ")), "{fields:?} from {from}: {line}");
    };
    for fields in ["", "X-Forwarded-For: 1.2.3.4\r\n", "Forwarded: for=1.2.3.4\r\n"] {
        assert_client(&none, "127.0.0.2", fields, "127.0.0.2");
        assert_client(&app, "127.0.0.1", fields, "127.0.0.1");
        assert_client(&app, "127.0.0.3", fields, "127.0.0.3");
    }
    for (fields, wanted) in [
        ("", "127.0.0.2"),
        ("X-Forwarded-For: 1.2.3.4\r\n", "1.2.3.4"),
        ("x-forwarded-for:1.2.3.4\r\n", "1.2.3.4"),
        ("X-Forwarded-For: 6.6.6.6, 1.2.3.4\r\n", "1.2.3.4"),
        ("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 1.2.3.4\r\n", "1.2.3.4"),
        ("X-Forwarded-For: 1.2.3.4:5678\r\n", "1.2.3.4"),
        ("X-Forwarded-For: 2001:db8::1\r\n", "2001:db8::1"),
        ("X-Forwarded-For: [2001:db8::1]:443\r\n", "2001:db8::1"),
        ("X-Forwarded-For: ::ffff:1.2.3.4\r\n", "1.2.3.4"),
        ("X-Forwarded-For: unknown\r\n", "127.0.0.2"),
        ("X-Forwarded-For: 1.2.3.4, unknown\r\n", "127.0.0.2"),
        ("X-Forwarded-For:\r\n", "127.0.0.2"),
        ("X-Forwarded-For: 1.2.3.4,\r\n", "127.0.0.2"),
        ("X-Forwarded-For: \u{e9}\r\n", "127.0.0.2"),
        ("X-Forwarded-For: 1.2.3.4 status=200\r\n", "127.0.0.2"),
        ("Forwarded: for=1.2.3.4\r\n", "1.2.3.4"),
        ("Forwarded: for=6.6.6.6, proto=https; FOR=\"1.2.3.4:5678\";by=x\r\n", "1.2.3.4"),
        ("Forwarded: for=\"[2001:db8::1]:443\"\r\n", "2001:db8::1"),
        ("Forwarded: for=\"[2001:db8::1]\"\r\n", "2001:db8::1"),
        ("Forwarded: for=_hidden\r\n", "127.0.0.2"),
        ("Forwarded: proto=https\r\n", "127.0.0.2"),
    ] {
        assert_client(&app, "127.0.0.2", fields, wanted);
    }
    // A refused request has an address too.
    let mut raw = connect_from(&app, "127.0.0.2");
    raw.send("GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: refused\r\nX-Forwarded-For: 1.2.3.4\r\nContent-Length: x\r\n\r\n");
    raw.answer().unwrap().expect(400);
    let line = app.wait_for_log(|line| line.contains("request_id=refused "));
    assert!(line.contains(" client=1.2.3.4 "), "{line}");
}

#[test]
fn on_both_kinds_of_address_a_client_of_the_old_one_is_shown_and_trusted_as_such() {
    let mut app = App::setup().env("HOST", "::").env("TRUSTED_PROXIES", "127.0.0.2").unhealthy().spawn();
    let port = app.address.rsplit_once(':').unwrap().1.to_owned();
    app.address = format!("127.0.0.1:{port}");
    for (from, wanted) in [("127.0.0.1", "127.0.0.1"), ("127.0.0.2", "1.2.3.4")] {
        let mut raw = connect_from(&app, from);
        raw.send(format!(
            "GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: {from}\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n"
        ));
        raw.answer().unwrap().expect(200);
        let line = app.wait_for_log(|line| line.contains(&format!("request_id={from} ")));
        assert!(line.contains(&format!(" client={wanted} ")), "{line}");
    }
}

#[test]
fn readers_that_stop_reading_share_what_memory_there_is_for_large_answers() {
    let app = App::spawn();
    let before = status(&app, "VmRSS");
    let readers: Vec<_> = (0..400).map(|_| slow_reader(&app, "/docs/swagger-ui-bundle.js", "", 1)).collect();
    // Their answers are made as fast as the machine can; what counts is the time after that.
    thread::sleep(Duration::from_secs(1));
    beside_a_victim(&app, || thread::sleep(Duration::from_secs(1)));
    let taken = status(&app, "VmHWM").saturating_sub(before);
    assert!(taken < 160 * 1024, "{taken} kB more than before");
    drop(readers);
    eventually("the document", || {
        let mut raw = Raw::open(&app);
        raw.send("GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n");
        raw.answer().is_some_and(|answer| answer.status == 200)
    });
}

/// Also when a test fails, so that its threads end.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

/// The service has closed its side, and is not asked to hold what is left. The kernel would, for minutes.
#[test]
fn an_answer_that_nobody_takes_leaves_the_kernel() {
    const COUNT: usize = 20;
    let app = App::spawn();
    let mut readers: Vec<_> =
        (0..COUNT).map(|_| slow_reader(&app, "/openapi.json", "Connection: close\r\n", 1)).collect();
    readers.iter_mut().for_each(Raw::finish);
    eventually("the kernel to hold all of them", || orphans(&app) == COUNT);
    let start = Instant::now();
    while orphans(&app) > 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "{} are left", orphans(&app));
        thread::sleep(Duration::from_millis(100));
    }
}

/// Connections to the service that have no process there any more, and unsent bytes.
fn orphans(app: &App) -> usize {
    let port = app.address.parse::<SocketAddr>().unwrap().port();
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let is_orphan = |line: &&str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let (local, queues, inode) = (words[1], words[4], words[9]);
        local.ends_with(&format!(":{port:04X}")) && !queues.starts_with("00000000:") && inode == "0"
    };
    table.lines().skip(1).filter(is_orphan).count()
}

/// Each has asked for 4 MiB, and reads hardly any of it. In `/docs`, above, there is nothing to be held.
#[test]
fn slow_readers_of_large_answers_make_room_for_others() {
    let app = App::spawn();
    app.database.execute(
        "insert into tasks (user_id, title, description) \
         select user_id, 'x', repeat('\u{1F600}', 1000) \
         from unnest(array['eve', 'bob']) user_id, generate_series(1, 1000)",
    );
    let bob = app.user("bob");
    let ask = |path: &str| bob.request("GET", path).send().status;
    assert_eq!(ask("/tasks?limit=1000"), 200);
    let before = status(&app, "VmRSS");
    let authorization = format!("Connection: close\r\nAuthorization: Bearer {}\r\n", token("eve"));
    let target = "/api/eve/tasks?limit=1000";
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                // Whoever is cut off comes again.
                while !is_over.load(SeqCst) {
                    let mut reader = slow_reader(&app, target, &authorization, 1);
                    while !is_over.load(SeqCst) && reader.read_some(4096) {
                        thread::sleep(Duration::from_millis(100));
                    }
                }
            });
        }
        let _end = OnDrop(|| is_over.store(true, SeqCst));
        // What is small is served at once, and what is large as soon as it is wanted or a little later.
        eventually("a reader that is cut off", || {
            assert_eq!(ask("/tasks?limit=10"), 200);
            ask("/tasks?limit=1000");
            app.log_so_far().contains("cut off, to make room")
        });
        for _ in 0..5 {
            eventually("room for another user", || ask("/tasks?limit=1000") == 200);
        }
    });
    let taken = status(&app, "VmHWM").saturating_sub(before);
    // Besides the 32 MiB, what is being made in four turns, and what the allocator keeps of that.
    assert!(taken < 256 * 1024, "{taken} kB more than before");
}

/// The allocator gives back at once what is freed, so that its habits are not measured.
#[test]
fn many_large_answers_at_once_are_made_in_turn() {
    let app = App::setup().env("MALLOC_MMAP_THRESHOLD_", "131072").env("MALLOC_ARENA_MAX", "2").spawn();
    app.database.execute(
        "insert into tasks (user_id, title, description) \
         select 'eve', 'x', repeat('\u{1F600}', 1000) from generate_series(1, 1000)",
    );
    let eve = app.user("eve");
    assert_eq!(eve.request("GET", "/tasks?limit=1").send().status, 200);
    let before = status(&app, "VmRSS");
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                eventually("a large answer", || eve.request("GET", "/tasks?limit=1000").send().status == 200);
            });
        }
    });
    let taken = status(&app, "VmHWM").saturating_sub(before);
    // 32 MiB that are being written, and four times 4 MiB of rows and up to 8 MiB of JSON.
    assert!(taken < 88 * 1024, "{taken} kB more than before");
}

#[test]
fn slow_readers_of_long_lists_keep_nobody_waiting() {
    const TASKS: i64 = 50_000;
    let app = App::spawn();
    app.database.execute(&format!(
        "insert into tasks (user_id, title) select 'eve', repeat('x', 200) from generate_series(1, {TASKS})"
    ));
    let authorization = format!("Authorization: Bearer {}\r\n", token("eve"));
    let readers: Vec<_> = (0..20).map(|_| slow_reader(&app, "/api/eve/tasks", &authorization, 1)).collect();
    beside_a_victim(&app, || thread::sleep(Duration::from_secs(3)));
    assert_eq!(app.user("eve").list()["count"], TASKS);
    drop(readers);
}

/// Has asked for more than socket buffers hold, and reads none of it.
fn slow_reader(app: &App, target: &str, fields: &str, requests: usize) -> Raw {
    let (domain, server) = match app.address.strip_prefix("unix:") {
        Some(path) => (Domain::UNIX, SockAddr::unix(path).unwrap()),
        None => (Domain::IPV4, app.address.parse::<SocketAddr>().unwrap().into()),
    };
    let socket = Socket::new(domain, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    socket.connect(&server).unwrap();
    let mut raw = Raw::on(socket);
    raw.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n").repeat(requests));
    raw
}

/// Sends a byte of it at a time until the service has had enough.
fn trickle(mut raw: Raw, bytes: &str, interval: Duration) -> (Vec<Response>, End, Duration) {
    let start = Instant::now();
    for byte in bytes.bytes().chain(std::iter::repeat(b'a')) {
        if !raw.is_quiet() || !raw.send([byte]) {
            break;
        }
        thread::sleep(interval);
    }
    let (answers, end) = raw.answers(&[]);
    (answers, end, start.elapsed())
}

/// All deadlines run at the same time, with one victim beside them.
#[test]
fn deadlines_are_kept_however_the_bytes_trickle() {
    let app = App::spawn();
    let at = |seconds: u64, took: Duration| {
        let range = Duration::from_millis(seconds * 1000 - 100)..Duration::from_secs(seconds + 3);
        assert!(range.contains(&took), "{took:?} is not {seconds} s");
    };
    // With what was read of the head, if it was.
    let is_told = |case: &str, answers: &[Response], is_read: bool| {
        assert_eq!(answers.len(), 1, "{case}: {answers:?}");
        assert_refused(case, &answers[0], (408, "REQUEST_TIMEOUT"));
        assert_eq!(answers[0].field("Access-Control-Allow-Origin").is_some(), is_read, "{case}");
        assert_eq!(answers[0].field("X-Request-Id") == Some(case), is_read, "{case}");
    };
    let head = |id: &str| format!("POST /health HTTP/1.1\r\nHost: x\r\n{ORIGIN}X-Request-Id: {id}\r\n");
    let begun = |bytes: &str| {
        let mut raw = Raw::open(&app);
        raw.send(bytes);
        raw
    };
    let interval = Duration::from_millis(400);
    beside_a_victim(&app, || {
        thread::scope(|scope| {
            scope.spawn(|| {
                let (answers, end, took) = trickle(begun(""), &head("slow-head"), interval);
                is_told("slow-head", &answers, false);
                assert_eq!(end, End::Closed);
                at(10, took);
            });
            scope.spawn(|| {
                let raw = begun(&(head("slow-body") + "Content-Length: 5000\r\n\r\n"));
                let (answers, end, took) = trickle(raw, "", interval);
                is_told("slow-body", &answers, true);
                assert_eq!(end, End::Closed);
                at(30, took);
            });
            scope.spawn(|| {
                let raw = begun(&(head("slow-chunks") + "Transfer-Encoding: chunked\r\n\r\n"));
                let (answers, _, took) = trickle(raw, &"1\r\nx\r\n".repeat(100), interval);
                is_told("slow-chunks", &answers, true);
                at(30, took);
            });
            for (case, start, is_read, seconds) in [
                ("head", head("head"), false, 10),
                ("line-end", head("line-end") + "\r", false, 10),
                ("body", head("body") + "Content-Length: 5000\r\n\r\nx", true, 30),
                ("chunk", head("chunk") + "Transfer-Encoding: chunked\r\n\r\n5\r\nx", true, 30),
                ("trailer", head("trailer") + "Transfer-Encoding: chunked\r\n\r\n0\r\nA: ", true, 30),
                (
                    "expecting",
                    head("expecting") + "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
                    true,
                    30,
                ),
            ] {
                let (app, is_told, at) = (&app, &is_told, &at);
                scope.spawn(move || {
                    let begin = Instant::now();
                    let mut attackers = open_many(app, 40, &start);
                    for raw in &mut attackers {
                        let (answers, end) = raw.answers(&[]);
                        is_told(case, &answers, is_read);
                        assert_eq!(end, End::Closed);
                    }
                    at(seconds, begin.elapsed());
                });
            }
            // Nobody is there to be told anything.
            for count in [0, 1, 3] {
                let (app, at) = (&app, &at);
                scope.spawn(move || {
                    let mut raw = Raw::open(app);
                    raw.send(HEALTH.repeat(count));
                    for _ in 0..count {
                        raw.answer().unwrap().expect(200);
                    }
                    let begin = Instant::now();
                    raw.assert_ends_silently();
                    at(75, begin.elapsed());
                });
            }
            // Many of them: each holds no more than its own thread.
            scope.spawn(|| {
                let readers: Vec<_> =
                    (0..40).map(|_| slow_reader(&app, "/docs/swagger-ui-bundle.js", "", 8)).collect();
                thread::sleep(Duration::from_secs(45));
                for mut raw in readers {
                    assert!(raw.count_to_the_end() < 8 << 20, "a slow reader is not cut off");
                }
            });
        });
    });
    let log = app.log();
    for case in ["body", "chunk", "slow-body"] {
        let lines =
            log.iter().filter(|line| line.contains(&format!("request_id={case} "))).collect::<Vec<_>>();
        assert!(
            lines
                .iter()
                .all(|line| line.contains(" status=408 ") && line.contains(" error_code=REQUEST_TIMEOUT ")),
            "{lines:?}"
        );
        assert_eq!(lines.len(), if case == "slow-body" { 1 } else { 40 });
    }
    // 75 s later nothing is left of it all.
    eventually("the end of the threads", || status(&app, "Threads") < 100);
}
