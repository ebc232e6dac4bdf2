//! Bytes that are no request, or that can be read in two ways: the answer is one problem document, and
//! the connection ends.

use crate::support::{
    harness::App,
    raw::{End, ORIGIN, Raw, as_chunks, assert_refused, beside_a_victim, only_answer, with_a_body},
    token::token,
};

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
        let answer = only_answer(&app, &bytes, bytes.as_bytes());
        assert_refused(&bytes, &answer, (400, "VALIDATION_ERROR"));
    }
    assert_eq!(app.user("alice").list()["count"], 0);
}

/// Each case is followed by a request that must never be served.
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
            // Sent first at once, then in pieces, some of which are sent after the answer.
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
    // Three heads that are refused before they have been read completely.
    let more = format!("A: {}\r\n", "b".repeat(60)).repeat(100);
    let long = format!("A: {}", "b".repeat(20 * 1024));
    let hopeless = format!("no field\r\nA: {}\r\n", "b".repeat(5 * 1024));
    for (id, request, wanted) in [
        ("too-many-to-read", more.as_str(), (431, "HEADERS_TOO_LARGE")),
        ("too-long-to-read", &long, (431, "HEADERS_TOO_LARGE")),
        ("no-field", &hopeless, (400, "VALIDATION_ERROR")),
        ("control-character", "A: \x01\r\n", (400, "VALIDATION_ERROR")),
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

/// A script may set a field to what no field may have (https://fetch.spec.whatwg.org/#header-value), and can
/// read the 400 only with the CORS fields. Its browser may send `Origin` behind the script's own fields.
#[test]
fn what_stands_behind_a_bad_field_still_counts_for_the_answer() {
    let app = App::spawn();
    for bad in
        ["Idempotency-Key: a\x01", "If-Match: \x7f", "A: b\nC: d", "A B: c", "A : b", " folded", "foo", ": b"]
    {
        let head =
            format!("PATCH /health HTTP/1.1\r\nHost: x\r\n{bad}\r\n{ORIGIN}X-Request-Id: behind\r\n\r\n");
        let answer = only_answer(&app, bad, head.as_bytes());
        assert_refused(bad, &answer, (400, "VALIDATION_ERROR"));
        assert_eq!(answer.field("X-Request-Id"), Some("behind"), "{bad:?}");
        assert_eq!(answer.field("Access-Control-Allow-Origin"), Some("http://localhost:3000"), "{bad:?}");
    }
}

#[test]
fn what_stands_behind_a_bad_request_line_or_too_many_fields_still_counts() {
    let app = App::spawn();
    let many = "A: b\r\n".repeat(70);
    for (line, fields, wanted) in [
        ("GET /health HTTP/2.0", "", (400, "VALIDATION_ERROR")),
        ("GET  /health HTTP/1.1", "", (400, "VALIDATION_ERROR")),
        ("GET /health http/1.1", "", (400, "VALIDATION_ERROR")),
        ("GET /health HTTP/1.1", &many, (431, "HEADERS_TOO_LARGE")),
    ] {
        let head = format!("{line}\r\nHost: x\r\n{fields}{ORIGIN}X-Request-Id: behind\r\n\r\n");
        let answer = only_answer(&app, line, head.as_bytes());
        assert_refused(line, &answer, wanted);
        assert_eq!(answer.field("X-Request-Id"), Some("behind"), "{line}");
        assert_eq!(answer.field("Access-Control-Allow-Origin"), Some("http://localhost:3000"), "{line}");
        app.wait_for_log(|line| line.contains("request_id=behind ") && line.contains("method=GET "));
    }
}

/// RFC 9110 section 9.3.2: no answer to HEAD has a body.
#[test]
fn a_refused_head_request_gets_no_body() {
    let app = App::spawn();
    let long = format!("HEAD /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(9000));
    for (bytes, status) in [(long.as_str(), 414), ("HEAD /health HTTP/1.1\n", 400)] {
        let mut raw = Raw::open(&app);
        raw.send(bytes);
        let (answers, _) = raw.answers(&["HEAD"]);
        assert!(
            matches!(&*answers, [answer] if answer.status == status && answer.body.is_empty()),
            "{answers:?}"
        );
    }
}

/// Bytes that can become no request are answered with 400 at once, not with 408 after the deadline of a
/// request that is merely slow. The client keeps its side open, as one does that waits for an answer.
#[test]
fn what_can_become_no_request_is_answered_at_once() {
    let app = App::spawn();
    let client_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let (bare_lf, longer) = (as_chunks("2\r\n{}\n"), as_chunks("2\r\n{}x"));
    for (case, bytes, wanted) in [
        ("TLS", client_hello.as_slice(), "this port speaks plain HTTP"),
        ("bare LF", b"GET /health HTTP/1.1\nHost: x\n\n", "CRLF"),
        ("bare LF in a field", b"GET /health HTTP/1.1\r\nHost: x\n\n", "CRLF"),
        ("NUL", b"\0", "control character"),
        ("another protocol", b"SSH-2.0-OpenSSH_9.2 Debian x", "no request line"),
        ("a version that there is not", b"GET / FTP", "no request line"),
        ("JSON", b"{\"title\": 1}", "no request line"),
        ("a word", b"hello\r\n", "malformed"),
        ("another protocol, a whole line", b"SSH-2.0-OpenSSH_9.6\r\n", "malformed"),
        ("HTTP/0.9", b"GET /health\r\n", "malformed"),
        ("no method", b" / HTTP/1.1\r\n", "malformed"),
        ("two spaces", b"GET  /health HTTP/1.1\r\n", "malformed"),
        ("another version", b"GET /health HTTP/2.0\r\n", "version"),
        ("another version, and a field", b"GET /health HTTP/9.9\r\nHost: x\r\nAccept", "version"),
        ("a control character in the line", b"GET /\x01 HTTP/1.1\r\n", "control character"),
        ("a control character in a field", b"GET /health HTTP/1.1\r\nHost: x\0\r\n", "control character"),
        ("a field without a colon", b"GET /health HTTP/1.1\r\nfoo\r\n", "malformed"),
        ("the same, and a line that has begun", b"GET /health HTTP/1.1\r\nfoo\r\nHost: x", "malformed"),
        ("two hosts", b"GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n", "Host"),
        ("a length that is none", b"GET /health HTTP/1.1\r\nContent-Length: x\r\n", "length"),
        ("a space before a colon", b"\r\nGET /health HTTP/1.1\r\nHost : x\r\n", "malformed"),
        ("bare LF behind a chunk", bare_lf.as_bytes(), "chunk"),
        ("a chunk that is longer than it says", longer.as_bytes(), "chunk"),
    ] {
        let mut raw = Raw::open(&app);
        raw.send(bytes);
        let answer = raw.answer().unwrap_or_else(|| panic!("{case}: no answer"));
        assert_refused(case, &answer, (400, "VALIDATION_ERROR"));
        assert!(answer.json()["detail"].as_str().unwrap().contains(wanted), "{case}: {answer:?}");
    }
    app.wait_for_log(|line| line.contains("status=400") && line.contains("the client speaks TLS"));
}

/// Some clients, such as Node's, give up when a write fails. Such a client reads its answer only if the service
/// continues to read what the client sends.
#[test]
fn a_client_may_send_ten_megabytes_before_it_reads_its_413() {
    let app = App::spawn();
    let piece = vec![b'x'; 1 << 20];
    for head in [with_a_body("Content-Length: 10485760", ""), as_chunks("100000\r\n")] {
        let mut raw = Raw::open(&app);
        assert!(raw.send(&head), "{head}");
        for index in 0..10 {
            assert!(raw.send(&piece), "{head}: megabyte {index}");
        }
        assert_refused(&head, &raw.answer().unwrap(), (413, "PAYLOAD_TOO_LARGE"));
    }
}
