//! Requests that look odd but are well-formed, however their bytes are cut into pieces.

use crate::support::{
    harness::App,
    http::{Connection, is_request_id, padded},
    raw::{End, HEALTH, Raw, answer, beside_a_victim},
    reference::Random,
    token::token,
};
use serde_json::json;
use std::{thread, time::Duration};

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
fn a_target_in_absolute_form_is_cut_where_its_path_begins() {
    let app = App::spawn();
    for (target, status) in [
        ("http://x/health", 200),
        ("HTTPS://x:443/health", 200),
        ("http://[::1]:80/health?a", 200),
        ("http://x/health?http://y/nothing", 200),
        ("http://x", 200),
        ("http://x?a", 200),
        // The path is empty, and the rest is a query.
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
fn a_target_in_absolute_form_is_that_path() {
    let app = App::spawn();
    let origin = format!("http://{}", app.address);
    app.get(&format!("{origin}/health")).send().expect(200);
    app.get(&format!("{origin}/nothing")).send().expect(404);
    app.get(&format!("{origin}/api/alice/tasks?_x")).bearer(&token("alice")).send().expect(200);
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
        // Two pieces, cut at every place in the body and around the end of the head.
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
fn a_chunked_body_is_a_body() {
    let app = App::spawn();
    let head = format!(
        "POST /api/alice/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        token("alice")
    );
    let chunks = |body: &str, size: usize| -> String {
        let chunks = body
            .as_bytes()
            .chunks(size)
            .map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk)));
        chunks.chain(["0\r\n\r\n".to_owned()]).collect()
    };
    for (body, size, status) in [
        (r#"{"title":"t"}"#.to_owned(), 1, 201),
        (padded(r#"{"title":"t"}"#, 65536), 5000, 201),
        (padded(r#"{"title":"t"}"#, 65537), 5000, 413),
        ("{".to_owned(), 100, 400),
    ] {
        let mut connection = Connection::open(&app.address).unwrap();
        connection.write(format!("{head}{}", chunks(&body, size)).as_bytes());
        let response = connection.read("POST").unwrap().expect(status);
        response.hold_to_the_rules("POST", "/api/alice/tasks");
    }
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
        let mut stream = crate::support::http::connect(&app.address).unwrap();
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
        // The client sends its body, or a part, at once: it is answered, with or without an interim answer.
        for cut in [1, body.len()] {
            raw.send(expecting(fields) + &body[..cut]);
            raw.send(&body[cut..]);
            raw.answer().unwrap().expect(405);
        }
        raw.send(HEALTH);
        raw.answer().unwrap().expect(200);
    }
    // No interim answer where the body is refused, where there is none, or where the client is of HTTP/1.0.
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
fn a_client_that_waits_for_100_continue_gets_it() {
    let app = App::spawn();
    let request = app.user("alice").request("POST", "/tasks").json(json!({"title": "t"}));
    let bytes = request.header("Expect", "100-continue").bytes();
    let body = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let mut connection = Connection::open(&app.address).unwrap();
    connection.write(&bytes[..body]);
    let interim = connection.read("POST").unwrap().expect(100);
    assert!(interim.field("Server").is_none_or(|server| !server.contains("http")), "{interim:?}");
    connection.write(&bytes[body..]);
    connection.read("POST").unwrap().expect(201);
}
