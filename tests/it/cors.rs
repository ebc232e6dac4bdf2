//! "CORS" in the contract.

use crate::support::{
    harness::App,
    http::{Request, Response},
    raw::Raw,
    token::token,
};
use serde_json::json;

const DEFAULT_ORIGIN: &str = "http://localhost:3000";
const CORS_FIELDS: [&str; 6] = [
    "Access-Control-Allow-Origin",
    "Access-Control-Allow-Credentials",
    "Access-Control-Expose-Headers",
    "Access-Control-Allow-Methods",
    "Access-Control-Allow-Headers",
    "Access-Control-Max-Age",
];

/// One request for each kind of answer, with its status.
fn one_of_each(app: &App) -> Vec<(Request, u16)> {
    let alice = app.user("alice");
    let id = alice.create_id();
    vec![
        (app.get("/"), 200),
        (app.get("/health"), 200),
        (app.get("/docs"), 200),
        (app.get("/openapi.json"), 200),
        (app.get("/nothing"), 404),
        (app.post("/health"), 405),
        (app.request("OPTIONS", "/health"), 204),
        (app.request("HEAD", "/health"), 200),
        (alice.request("GET", "/tasks"), 200),
        (alice.request("GET", "/tasks").header("If-None-Match", "*"), 304),
        (alice.request("GET", "/tasks?limit=0"), 422),
        (alice.request("PATCH", "/tasks?complete=true").json(json!({"complete": true})), 200),
        (alice.request("DELETE", "/tasks?complete=true"), 200),
        (alice.request("POST", "/tasks").json(json!({"title": "t"})), 201),
        (alice.on_task("GET", id), 200),
        (alice.on_task("PUT", id).json(json!({"title": "t", "complete": true})), 200),
        (alice.on_task("PATCH", id).json(json!({"complete": true})), 200),
        (alice.on_task("PATCH", id).json(json!({"title": "u"})).header("If-Match", "\"x\""), 412),
        (alice.on_task("PATCH", id).text("{"), 400),
        (alice.on_task("PATCH", id).text("{}").header("Content-Type", "text/plain"), 400),
        (app.get("/api/%zz/tasks"), 400),
        (app.get("/api/alice/tasks"), 401),
        (app.get("/api/alice/tasks").bearer("x"), 401),
        (app.get("/api/bob/tasks").bearer(&token("alice")), 403),
        (alice.on_task("GET", id + 1000), 404),
        (alice.request("POST", "/tasks").text("x".repeat(65537)), 413),
        (alice.request("POST", "/tasks").body("{}"), 415),
        (alice.request("POST", "/tasks").text("{}"), 422),
        (alice.request("GET", "/tasks/x"), 422),
        (alice.on_task("DELETE", id), 204),
    ]
}

#[track_caller]
fn assert_allowed(response: &Response, origin: &str) {
    assert_eq!(response.field("Access-Control-Allow-Origin"), Some(origin), "{response:?}");
    assert_eq!(response.field("Access-Control-Allow-Credentials"), Some("true"), "{response:?}");
}

fn exposes_what_it_should(response: &Response) -> bool {
    let exposed = response.list("Access-Control-Expose-Headers");
    let wanted = ["Content-Location", "Location", "Retry-After", "WWW-Authenticate", "X-Request-Id"];
    let may_be = ["ETag", "Link", "Idempotent-Replayed"];
    wanted.iter().all(|name| exposed.contains(name))
        && exposed.iter().all(|name| wanted.contains(name) || may_be.contains(name))
}

#[test]
fn every_answer_to_an_allowed_origin_carries_the_cors_fields() {
    let app = App::spawn();
    for (request, status) in one_of_each(&app) {
        let response = request.header("Origin", DEFAULT_ORIGIN).send().expect(status);
        assert_allowed(&response, DEFAULT_ORIGIN);
        assert!(exposes_what_it_should(&response), "{response:?}");
        assert_eq!(response.field("Access-Control-Allow-Methods"), None, "{response:?}");
        assert!(response.list("Vary").contains(&"Origin"), "{response:?}");
    }
}

#[test]
fn another_origin_gets_no_cors_field_and_otherwise_the_same_answer() {
    let app = App::spawn();
    for origin in [None, Some("http://localhost:3001"), Some("null")] {
        for (request, status) in one_of_each(&app) {
            let request = origin.map_or(request.clone(), |origin| request.header("Origin", origin));
            let response = request.send().expect(status);
            for name in CORS_FIELDS {
                assert_eq!(response.field(name), None, "{origin:?} {response:?}");
            }
            assert!(response.list("Vary").contains(&"Origin"), "{response:?}");
        }
    }
}

#[test]
fn an_origin_is_allowed_when_it_is_in_the_list_and_the_same() {
    let app = App::setup().env("CORS_ORIGINS", "https://app.example.org, http://127.0.0.1:8080").spawn();
    for (origin, is_allowed) in [
        ("https://app.example.org", true),
        ("http://127.0.0.1:8080", true),
        ("http://app.example.org", false),
        ("https://app.example.org:8443", false),
        ("https://app.example.org.evil.example", false),
        ("https://evil.example/https://app.example.org", false),
        ("https://xapp.example.org", false),
        ("https://sub.app.example.org", false),
        ("https://app.example.org/", false),
        ("https://app.example.org, http://127.0.0.1:8080", false),
        ("http://localhost:3000", false),
        ("null", false),
        ("*", false),
        ("", false),
    ] {
        let response = app.get("/health").header("Origin", origin).send();
        let seen = response.field("Access-Control-Allow-Origin");
        assert_eq!(seen, is_allowed.then_some(origin), "{origin}");
    }
}

#[test]
fn any_origin_is_allowed_without_credentials_where_a_star_is_configured() {
    let app = App::setup().env("CORS_ORIGINS", "*").spawn();
    for origin in ["https://anything.example", "null", DEFAULT_ORIGIN] {
        for (method, target) in [("GET", "/health"), ("GET", "/nothing"), ("GET", "/api/alice/tasks")] {
            let response = app.request(method, target).header("Origin", origin).send();
            assert_eq!(response.field("Access-Control-Allow-Origin"), Some("*"));
            assert_eq!(response.field("Access-Control-Allow-Credentials"), None);
            assert!(!response.list("Vary").contains(&"Origin"), "{response:?}");
            assert!(exposes_what_it_should(&response), "{response:?}");
        }
    }
    let preflight = preflight(&app, "https://anything.example", "/api/alice/tasks", "POST").expect(204);
    assert_eq!(preflight.field("Access-Control-Allow-Origin"), Some("*"));
    assert_eq!(preflight.field("Access-Control-Allow-Credentials"), None);
}

fn preflight(app: &App, origin: &str, target: &str, method: &str) -> Response {
    let request = app.request("OPTIONS", target).header("Origin", origin);
    let request = request.header("Access-Control-Request-Method", method);
    request.header("Access-Control-Request-Headers", "authorization,content-type").send()
}

#[test]
fn a_preflight_tells_the_methods_of_the_route_and_the_headers() {
    let app = App::spawn();
    for (target, asked, methods) in [
        ("/api/alice/tasks", "POST", &["DELETE", "GET", "PATCH", "POST"][..]),
        ("/api/alice/tasks", "PUT", &["DELETE", "GET", "PATCH", "POST"]),
        ("/api/alice/tasks/1", "PATCH", &["DELETE", "GET", "PATCH", "PUT"]),
        ("/health", "GET", &["GET"]),
        ("/openapi.json", "GET", &["GET"]),
    ] {
        let response = preflight(&app, DEFAULT_ORIGIN, target, asked).expect(204);
        assert_allowed(&response, DEFAULT_ORIGIN);
        let mut seen = response.list("Access-Control-Allow-Methods");
        seen.retain(|method| !["HEAD", "OPTIONS"].contains(method));
        assert_eq!(seen, methods, "{target}");
        assert_eq!(response.field("Access-Control-Max-Age"), Some("7200"));
        let seen = response.list("Access-Control-Allow-Headers");
        let wanted = [
            "Authorization",
            "Content-Type",
            "Idempotency-Key",
            "If-Match",
            "If-None-Match",
            "X-Request-Id",
            "X-Requested-With",
            "baggage",
            "sentry-trace",
            "traceparent",
            "tracestate",
        ];
        assert_eq!(seen, wanted);
        let vary = response.list("Vary");
        let wanted = ["Access-Control-Request-Headers", "Access-Control-Request-Method", "Origin"];
        assert_eq!(vary, wanted);
    }
}

#[test]
fn a_preflight_to_an_unknown_path_is_404() {
    let app = App::spawn();
    for target in ["/nothing", "/api/alice/tasks/", "/api/alice", "/api/alice/tasks/1/2"] {
        let response = preflight(&app, DEFAULT_ORIGIN, target, "GET").expect(404);
        assert_allowed(&response, DEFAULT_ORIGIN);
    }
}

#[test]
fn a_preflight_of_another_origin_gets_no_cors_field() {
    let app = App::spawn();
    let response = preflight(&app, "https://evil.example", "/api/alice/tasks", "POST").expect(204);
    for name in CORS_FIELDS {
        assert_eq!(response.field(name), None, "{response:?}");
    }
    assert!(response.list("Vary").contains(&"Origin"));
}

/// The person who set up the service sees in its log why the browser refuses an answer.
#[test]
fn an_origin_that_is_not_allowed_stands_in_the_log() {
    let app = App::spawn();
    app.get("/").header("Origin", "http://localhost:5173").send().expect(200);
    app.request("OPTIONS", "/api/demo/tasks")
        .header("Origin", "http://localhost:5174")
        .header("Access-Control-Request-Method", "POST")
        .send()
        .expect(204);
    app.get("/health").header("Origin", DEFAULT_ORIGIN).send().expect(200);
    app.wait_for_log(|line| {
        line.contains("method=GET") && line.contains("refused_origin=http://localhost:5173")
    });
    app.wait_for_log(|line| {
        line.contains("method=OPTIONS") && line.contains("refused_origin=http://localhost:5174")
    });
    assert!(!app.log_so_far().contains(&format!("refused_origin={DEFAULT_ORIGIN}")));
}

/// Everybody can send one, and what waits for the log is bounded: such lines would push out those of others.
#[test]
fn a_long_origin_makes_no_long_line_in_the_log() {
    let app = App::spawn();
    let mut raw = Raw::open(&app);
    let head =
        [b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: long\r\nOrigin: ", &[0xff; 16_000][..], b"\r\n\r\n"];
    raw.send(head.concat());
    raw.answer().unwrap().expect(200);
    let line = app.wait_for_log(|line| line.contains("request_id=long "));
    assert!(line.contains("refused_origin=") && line.len() < 4096, "{} bytes", line.len());
}
