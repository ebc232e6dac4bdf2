//! The log: one line a request that says who, what and why, that nobody can forge, and that tells
//! no secret.

use crate::support::{
    harness::App,
    http::{Connection, has_shape, is_timestamp},
    token::{SECRET, now, segment, sign, token},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Instant};

/// `key=value` pairs of a line in the text form; a value with special characters is a JSON string.
fn pairs(line: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('=') {
        let key = before.rsplit(' ').next().unwrap().to_owned();
        let mut values = serde_json::Deserializer::from_str(after).into_iter::<String>();
        let (value, end) = match after.starts_with('"') {
            true => (values.next().expect(line).expect(line), values.byte_offset()),
            false => {
                let value = after.split(' ').next().unwrap();
                (value.to_owned(), value.len())
            }
        };
        pairs.push((key, value));
        rest = &after[end..];
    }
    pairs
}

fn value(line: &str, key: &str) -> Option<String> {
    let mut found = pairs(line).into_iter().filter(|(known, _)| known == key);
    let value = found.next().map(|(_, value)| value);
    assert!(found.next().is_none(), "{key} is there twice: {line}");
    value
}

#[track_caller]
fn assert_line(line: &str) {
    let mut words = line.splitn(3, ' ');
    assert!(words.next().is_some_and(is_timestamp), "{line:?}");
    let level = words.next().unwrap_or_default();
    assert!(["TRACE", "DEBUG", "INFO", "WARN", "ERROR"].contains(&level), "{line:?}");
    assert!(!line.contains(char::is_control), "{line:?}");
}

fn is_request(line: &str) -> bool {
    line.split(' ').nth(2) == Some("request")
}

#[test]
fn a_request_is_one_line_with_all_that_the_contract_names() {
    let app = App::spawn();
    let alice = app.user("alice");
    let id = alice.create_id();
    let item = "/api/{user_id}/tasks/{task_id}";
    for (request_id, request, status, route, user_id, error_code) in [
        ("get", app.get("/health"), 200, "/health", None, None),
        ("list", alice.request("GET", "/tasks?_x=1"), 200, "/api/{user_id}/tasks", Some("alice"), None),
        ("item", alice.on_task("GET", id), 200, item, Some("alice"), None),
        ("delete", alice.on_task("DELETE", id), 204, item, Some("alice"), None),
        ("gone", alice.on_task("DELETE", id), 404, item, Some("alice"), Some("NOT_FOUND")),
        ("options", app.request("OPTIONS", "/health"), 204, "/health", None, None),
        ("method", app.post("/health"), 405, "/health", None, Some("METHOD_NOT_ALLOWED")),
        (
            "bad",
            alice.request("POST", "/tasks").text("{}"),
            422,
            "/api/{user_id}/tasks",
            Some("alice"),
            Some("VALIDATION_ERROR"),
        ),
        ("no", app.get("/api/alice/tasks"), 401, "/api/{user_id}/tasks", None, Some("AUTH_MISSING")),
    ] {
        let sent = request.header("X-Request-Id", request_id);
        let start = Instant::now();
        sent.send().expect(status);
        let most = start.elapsed().as_secs_f64() * 1000.0;
        let line = app.wait_for_log(|line| value(line, "request_id").as_deref() == Some(request_id));
        assert_line(&line);
        assert!(is_request(&line), "{line}");
        let seen = |key| value(&line, key);
        assert_eq!(seen("client").as_deref(), Some("127.0.0.1"));
        assert_eq!(seen("method").as_deref(), Some(sent.method.as_str()), "{line}");
        assert_eq!(seen("route").as_deref(), Some(route), "{line}");
        assert_eq!(seen("status"), Some(status.to_string()), "{line}");
        assert!(
            seen("duration_ms").unwrap().parse::<f64>().is_ok_and(|ms| (0.0..=most).contains(&ms)),
            "{line}"
        );
        assert!(line.contains(" INFO request "), "{line}");
        assert_eq!(seen("user_id").as_deref(), user_id, "{line}");
        assert_eq!(seen("error_code").as_deref(), error_code, "{line}");
        assert_eq!(seen("reason").is_some(), error_code.is_some(), "{line}");
    }
    let log = app.log();
    for request_id in ["get", "list", "item", "delete", "gone", "options", "method", "bad", "no"] {
        let lines = log.iter().filter(|line| value(line, "request_id").as_deref() == Some(request_id));
        assert_eq!(lines.count(), 1, "{request_id}");
    }
}

#[test]
fn what_the_gate_refuses_is_of_the_route_that_it_was_meant_for_as_far_as_that_is_known() {
    let app = App::spawn();
    for (head, status, route) in [
        ("POST /api/alice/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 70000", "413", "/api/{user_id}/tasks"),
        ("GET /health HTTP/1.1\r\nHost : x", "400", ""),
    ] {
        let mut connection = Connection::open(&app.address).unwrap();
        connection.write(format!("{head}\r\n\r\n").as_bytes());
        let line = app.wait_for_log(|line| value(line, "status").as_deref() == Some(status));
        assert_eq!(value(&line, "route").as_deref(), Some(route), "{line}");
    }
}

#[test]
fn what_the_service_failed_to_do_is_an_error() {
    let app = App::spawn();
    app.user("alice").list();
    app.database.execute("drop table tasks");
    app.user("alice").request("GET", "/tasks").send().expect(500);
    let line = app.wait_for_log(|line| value(line, "status").as_deref() == Some("500"));
    assert!(line.contains(" ERROR request "), "{line}");
}

/// Sends requests that try to break a log line or to forge one. The last request is a normal one.
fn attack(app: &App) -> usize {
    let users = [
        "eve\n2026-11-21T03:00:00.000000Z INFO request request_id=forged status=200 user_id=admin",
        "eve\" status=200 user_id=\"admin",
        "eve user_id=admin",
        "eve\r\n\u{1b}[31m\u{7f}",
        "eve\\\",\"user_id\":\"admin",
        "eve\u{85}\u{2028}\u{2029}\u{202e}\u{feff}",
        "{}=%0a",
        "007",
        "null",
    ];
    let mut count = 0;
    let mut send = |request: crate::support::http::Request| {
        request.send();
        count += 1;
    };
    for user_id in users {
        let user = app.user(user_id);
        send(user.request("GET", "/tasks"));
        send(user.request("POST", "/tasks").json(json!({"title": user_id})));
        send(user.request("GET", &format!("/tasks/{}", segment(user_id))));
        // The path is another user's, so the log names the user of the token.
        send(app.get("/api/alice/tasks").bearer(&token(user_id)));
        send(app.get(&format!("/api/{}/tasks", segment(user_id))));
        send(app.get(&format!("/{}", segment(user_id))));
        send(app.get(&format!("/health?x={}", segment(user_id))));
        let claims = json!({"exp": now() + 60, "iss": user_id, "user_id": [user_id]});
        send(app.get("/api/alice/tasks").bearer(&sign(SECRET, &claims)));
    }
    for id in ["a b", "x\" status=500", "forged user_id=admin", "a,b;c", "{}", "%0a"] {
        send(app.get("/health").header("X-Request-Id", id));
    }
    for method in ["QUERY", "user_id", "A|B'~"] {
        send(app.request(method, "/health"));
    }
    send(app.get("/%0a%0d2026-11-21T03:00:00.000000Z%20INFO%20request%20user_id=admin"));
    send(app.get("/api/%0aalice/tasks/%0a1"));
    send(app.get("/api/%zz%0a/tasks"));
    count
}

#[test]
fn nothing_that_a_client_sends_breaks_or_forges_a_line() {
    let app = App::spawn();
    let before = app.log().len() + 1;
    let sent = attack(&app);
    let log = app.log();
    for line in &log {
        assert_line(line);
        assert!(value(line, "user_id").is_none_or(|user_id| user_id != "admin"), "{line}");
        assert!(value(line, "request_id").is_none_or(|id| !id.contains("forged")), "{line}");
    }
    let lines = log.iter().skip(before).filter(|line| is_request(line));
    assert_eq!(lines.count(), sent, "{}", log.join("\n"));
}

#[test]
fn the_json_form_is_one_object_a_line() {
    let app = App::setup().env("LOG_FORMAT", "json").spawn();
    let before = app.log().len() + 1;
    let sent = attack(&app);
    let log: Vec<Value> = app
        .log()
        .iter()
        .map(|line| {
            assert!(!line.contains(char::is_control), "{line:?}");
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        })
        .collect();
    for line in &log {
        let level = line["severity_text"].as_str().unwrap();
        assert!(has_shape(level, &"A".repeat(level.len())), "{line}");
        assert!(line["timestamp"].as_str().is_some_and(is_timestamp), "{line}");
        assert!(line["body"].is_string(), "{line}");
        assert_ne!(line["user.id"], "admin");
    }
    let requests: Vec<_> = log.iter().skip(before).filter(|line| line["body"] == "request").collect();
    assert_eq!(requests.len(), sent);
    for line in &requests {
        for key in ["request_id", "client.address", "http.request.method", "http.route"] {
            assert!(line[key].is_string(), "{key}: {line}");
        }
        let status = line["http.response.status_code"].as_u64();
        assert!(status.is_some() && line["duration_ms"].is_number(), "{line}");
        for key in ["error.type", "error.message"] {
            assert_eq!(status >= Some(400), line[key].is_string(), "{key}: {line}");
        }
    }
    let users = requests.iter().map(|line| line["user.id"].as_str().unwrap_or_default());
    let users: BTreeSet<_> = users.map(|user_id| user_id.chars().take(8).collect::<String>()).collect();
    assert!(
        ["eve\n2026", "eve\" sta", "007", "null"].iter().all(|user_id| users.contains(*user_id)),
        "{users:?}"
    );
}

#[test]
fn no_secret_is_in_the_log_even_at_trace() {
    let password = "pa55-w0rd-of-the-role";
    let previous = "the previous secret, which is long enough too";
    let app = App::setup().env("RUST_LOG", "trace").env("JWT_SECRET_KEY_PREVIOUS", previous).spawn();
    let role = format!("{}_secret", app.database.name);
    app.database.execute(&format!("create role {role} login superuser password '{password}'"));
    let url = app.database.url_as(&role, password);
    let other = App::setup().env("RUST_LOG", "trace").env("DATABASE_URL", &url).spawn();
    let task = json!({"title": "what-nobody", "description": "is-to-know"});
    let create = other.user("alice").request("POST", "/tasks").json(task);
    create.header("Idempotency-Key", "but-alice").send().expect(201);
    let other_log = other.log().join("\n");
    drop(other);
    app.database.execute(&format!("drop role {role}"));
    assert!(other_log.contains(" TRACE ") || other_log.contains(" DEBUG "), "{other_log}");
    for secret in [password, "what-nobody", "is-to-know", "but-alice"] {
        assert!(!other_log.contains(secret), "{other_log}");
    }

    let good = token("alice");
    let expired = sign(SECRET, &json!({"user_id": "alice", "exp": 1}));
    let unsigned =
        sign("some other secret that is also long enough", &json!({"user_id": "alice", "exp": now() + 60}));
    for token in [&good, &expired, &unsigned] {
        app.get("/api/alice/tasks").bearer(token).send();
        app.post("/api/alice/tasks").bearer(token).json(json!({"title": "t\nt"})).send();
        app.get("/api/bob/tasks").bearer(token).send();
        app.get("/api/alice/tasks").header("Authorization", token).send();
        app.get(&format!("/health?access_token={token}")).send();
    }
    let log = app.log();
    let text = log.join("\n");
    for token in [&good, &expired, &unsigned] {
        let (_, tag) = token.rsplit_once('.').unwrap();
        assert!(!text.contains(tag), "a token is in the log");
    }
    for secret in [SECRET, previous, &app.database.url] {
        assert!(!text.contains(secret), "a secret is in the log");
    }
    for line in &log {
        assert_line(line);
    }
}

#[test]
fn a_trace_is_taken_over_where_it_is_well_formed() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";
    let app = App::spawn();
    let json = App::setup().env("LOG_FORMAT", "json").spawn();
    let zeros = "0".repeat(32);
    let upper = TRACE.to_uppercase();
    for (id, traceparent, is_good) in [
        ("good", format!("00-{TRACE}-{PARENT}-01"), true),
        ("unsampled", format!("00-{TRACE}-{PARENT}-00"), true),
        ("later", format!("01-{TRACE}-{PARENT}-01-what-comes"), true),
        ("longer", format!("00-{TRACE}-{PARENT}-01-x"), false),
        ("forbidden", format!("ff-{TRACE}-{PARENT}-01"), false),
        ("zeros", format!("00-{zeros}-{PARENT}-01"), false),
        ("no-parent", format!("00-{TRACE}-{}-01", &zeros[..16]), false),
        ("upper", format!("00-{upper}-{PARENT}-01"), false),
        ("short", format!("00-{}-{PARENT}-01", &TRACE[1..]), false),
        ("no-flags", format!("00-{TRACE}-{PARENT}"), false),
        ("empty", String::new(), false),
        ("forged", format!("00-{TRACE}-{PARENT}-01 user_id=admin"), false),
    ] {
        for (app, key) in [(&app, format!("request_id={id} ")), (&json, format!("\"request_id\":\"{id}\""))] {
            app.get("/").header("X-Request-Id", id).header("traceparent", &traceparent).send().expect(200);
            let line = app.wait_for_log(|line| line.contains(&key));
            let as_json = serde_json::from_str::<Value>(&line).ok();
            let seen = match &as_json {
                Some(line) => line["trace_id"].as_str().map(str::to_owned),
                None => value(&line, "trace_id"),
            };
            assert_eq!(seen.as_deref(), is_good.then_some(TRACE), "{line}");
        }
    }
    let good = format!("00-{TRACE}-{PARENT}-01");
    let twice = app.get("/").header("traceparent", &good).header("traceparent", &good);
    twice.header("X-Request-Id", "twice").send().expect(200);
    let line = app.wait_for_log(|line| line.contains("request_id=twice "));
    assert_eq!(value(&line, "trace_id"), None);
}

#[test]
fn rust_log_chooses_the_levels() {
    let app = App::setup().env("RUST_LOG", "warn,tinytasks=info").spawn();
    app.get("/health").header("X-Request-Id", "here").send();
    app.wait_for_log(|line| line.contains("request_id=here"));
    assert!(app.log().iter().all(|line| !line.contains(" DEBUG ") && !line.contains(" TRACE ")));
}
