//! Clients that send or read too slowly, and others who are served meanwhile.

use crate::support::{
    harness::{App, eventually},
    http::Response,
    raw::{
        End, HEALTH, ORIGIN, Raw, as_chunks, assert_deadline, assert_refused, beside_a_victim, open_many,
        slow_reader, status, with_a_body,
    },
    token::token,
};
use std::{
    thread,
    time::{Duration, Instant},
};

#[test]
fn slow_clients_are_told_in_time_and_keep_nobody_waiting() {
    let app = App::spawn();
    let mut heads = open_many(&app, 20, "GET /health HTTP/1.1\r\nHost: x\r\nX-A");
    let mut bodies = open_many(&app, 100, &with_a_body("Content-Length: 5000", "x"));
    let alice = app.user("alice");
    for _ in 0..20 {
        alice.create("t");
    }
    assert!(heads.iter_mut().all(Raw::is_quiet), "alice is served while all of them are still there");
    for raw in &mut heads {
        assert_refused("a head", &raw.answer().unwrap(), (408, "REQUEST_TIMEOUT"));
        // After a reset the second write would fail, and the client could lose the answer.
        assert!((0..3).all(|_| raw.send("a")), "what a client still sends is dropped");
    }
    for raw in &mut heads {
        let (answers, end) = raw.answers(&[]);
        assert_eq!((answers.len(), end), (0, End::Closed));
    }
    assert!(bodies.iter_mut().all(Raw::is_quiet), "bodies have more time");
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

/// All deadlines are tested at the same time, with one victim, because each takes a long time.
#[test]
fn deadlines_are_kept_however_the_bytes_trickle() {
    let app = App::spawn();
    // If the lines of the head were read, the answer has the fields that depend on them.
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
                assert_deadline(10, took);
            });
            scope.spawn(|| {
                let raw = begun(&(head("slow-body") + "Content-Length: 5000\r\n\r\n"));
                let (answers, end, took) = trickle(raw, "", interval);
                is_told("slow-body", &answers, true);
                assert_eq!(end, End::Closed);
                assert_deadline(30, took);
            });
            scope.spawn(|| {
                let raw = begun(&(head("slow-chunks") + "Transfer-Encoding: chunked\r\n\r\n"));
                let (answers, _, took) = trickle(raw, &"1\r\nx\r\n".repeat(100), interval);
                is_told("slow-chunks", &answers, true);
                assert_deadline(30, took);
            });
            for (case, start, is_read, seconds) in [
                ("head", head("head"), true, 10),
                ("line-end", head("line-end") + "\r", true, 10),
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
                let (app, is_told) = (&app, &is_told);
                scope.spawn(move || {
                    let begin = Instant::now();
                    let mut attackers = open_many(app, 40, &start);
                    for raw in &mut attackers {
                        let (answers, end) = raw.answers(&[]);
                        is_told(case, &answers, is_read);
                        assert_eq!(end, End::Closed);
                    }
                    assert_deadline(seconds, begin.elapsed());
                });
            }
            // A connection that is idle between requests is closed without an answer.
            for count in [0, 1, 3] {
                let app = &app;
                scope.spawn(move || {
                    let mut raw = Raw::open(app);
                    raw.send(HEALTH.repeat(count));
                    for _ in 0..count {
                        raw.answer().unwrap().expect(200);
                    }
                    let begin = Instant::now();
                    raw.assert_ends_silently();
                    assert_deadline(75, begin.elapsed());
                });
            }
            // Slow readers are cut off; each of them keeps only its own thread.
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
    // After 75 s all their threads have ended.
    eventually("the end of the threads", || status(&app, "Threads") < 100);
}

/// Sends one byte at a time until the service answers or closes.
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
