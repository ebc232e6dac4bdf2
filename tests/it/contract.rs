//! `openapi.json` against the service, both ways. Every answer that any test sees is held against
//! the document (`hold_to_the_document`, called for each); and every answer that the document
//! promises is provoked here.

use crate::support::{
    document::{DOCUMENT, Pattern, Place, broken, documented, resolve},
    harness::{App, Database},
    http::Request,
    token::token,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Answers that are documented but that this test cannot provoke: `(status, error_code, reason)`.
const OUT_OF_REACH: [(u16, &str, &str); 2] = [
    (408, "REQUEST_TIMEOUT", "takes ten seconds: tested in limits/deadlines.rs"),
    (500, "INTERNAL_ERROR", "would be an unknown defect"),
];

/// A route that asks no database answers 503 only for lack of capacity; `connections` tests that.
const NEED_NO_DATABASE: [&str; 4] = ["/", "/docs", "/docs/{asset}", "/openapi.json"];

#[test]
fn the_validator_tells_good_from_bad() {
    for (pattern, good, bad) in [
        ("^[^/]+$", &["a", "\u{1F600}b"][..], &["", "a/b"][..]),
        ("^/[1-9][0-9]*$", &["/1", "/10"], &["/0", "/01", "/", "1", "/1x"]),
        ("^[A-Za-z0-9._-]{1,3}$", &["a-.", "_"], &["", "aaaa", "a b"]),
        ("^[\\u0000-\\u0020]*x[^\\u0000]*\\.$", &["x.", "  xx.", " xx.."], &["x", ".x", "y x."]),
    ] {
        let pattern = Pattern::parse(pattern);
        assert!(good.iter().all(|text| pattern.fits(text)));
        assert!(!bad.iter().any(|text| pattern.fits(text)));
    }
    let task = json!({"id": 1, "user_id": "u", "title": "t", "description": null, "complete": false,
        "created_at": "2025-12-20T11:30:00.000000Z", "updated_at": "2025-12-20T11:30:00.000000Z", "etag": "\"6466083a99e00\""});
    let schema = json!({"$ref": "#/components/schemas/Task"});
    assert_eq!(broken(&schema, &task), None);
    for (name, value) in [
        ("id", json!(0)),
        ("id", json!(1.5)),
        ("id", json!("1")),
        ("title", json!(" ")),
        ("title", json!("x".repeat(201))),
        ("title", Value::Null),
        ("description", json!(1)),
        ("complete", Value::Null),
        ("created_at", json!("2025-12-20T11:30:00Z")),
        ("etag", json!("6466083a99e00")),
    ] {
        let mut bad = task.clone();
        bad[name] = value;
        assert!(broken(&schema, &bad).is_some(), "{bad}");
        bad.as_object_mut().unwrap().remove(name);
        assert!(broken(&schema, &bad).is_some(), "{bad}");
    }
}

#[test]
fn every_example_in_the_document_fits_its_schema() {
    let mut count = 0;
    let mut check = |content: &Value| {
        for (media_type, content) in content.as_object().into_iter().flatten() {
            for (name, example) in content["examples"].as_object().into_iter().flatten() {
                assert_eq!(broken(&content["schema"], &example["value"]), None, "{media_type} {name}");
                count += 1;
            }
        }
    };
    for ((template, method, _), answer) in documented() {
        check(&answer["content"]);
        check(&DOCUMENT["paths"][template][method]["requestBody"]["content"]);
    }
    assert!(count > 0);
}

/// The `error_code`s that an answer can have. One empty text if the answer is not a problem document.
fn error_codes(answer: &Value) -> Vec<&'static str> {
    let problem = resolve(&answer["content"]["application/problem+json"]["schema"]);
    let mut rules = problem["allOf"].as_array().into_iter().flatten();
    let Some(rule) = rules.find_map(|part| {
        resolve(part).get("properties")?.get("error_code").filter(|rule| rule.get("$ref").is_none())
    }) else {
        return vec![""];
    };
    let list = rule.get("enum").and_then(Value::as_array).cloned();
    let list = list.unwrap_or_else(|| vec![rule["const"].clone()]);
    list.iter().map(|code| known_error_code(code.as_str().unwrap())).collect()
}

/// The same `error_code` as a text with static lifetime, taken from the document.
fn known_error_code(code: &str) -> &'static str {
    let known = DOCUMENT["components"]["schemas"]["ErrorCode"]["enum"].as_array().unwrap();
    let mut known = known.iter().map(|known| known.as_str().unwrap());
    known.find(|known| *known == code).unwrap_or_else(|| panic!("{code} is not in ErrorCode"))
}

/// The services that the answers are to come from.
struct Services {
    well: App,
    without_docs: App,
    without_database: App,
    with_broken_schema: App,
    strict: App,
    slow: App,
    task: i64,
}

impl Services {
    fn start() -> Self {
        let well = App::spawn();
        // This database is on a server of this machine, even if the other databases are on Citus.
        let with_broken_schema = App::setup().database(Database::create_as("")).spawn();
        // The service must already have a connection, because a new one would not become ready after this.
        with_broken_schema.user("alice").create("t");
        with_broken_schema.database.execute("drop table tasks");
        let nowhere = "postgres://nobody@127.0.0.1:1/nothing";
        Self {
            task: well.user("alice").create_id(),
            without_docs: App::setup().env("DOCS", "false").spawn(),
            strict: App::setup().env("REQUIRE_IF_MATCH", "true").spawn(),
            slow: App::setup().env("RATE_LIMIT", "0.01").spawn(),
            without_database: App::setup().env("DATABASE_URL", nowhere).unhealthy().spawn(),
            well,
            with_broken_schema,
        }
    }

    /// A request that must get this answer. None if the test cannot provoke it.
    fn provoke(&self, (template, method, status): Place, error_code: &str) -> Option<Request> {
        let status: u16 = status.parse().unwrap();
        let is_known = |(known, code, _): &(u16, &str, &str)| (*known, *code) == (status, error_code);
        if OUT_OF_REACH.iter().any(is_known) {
            return None;
        }
        let needs_no_database = NEED_NO_DATABASE.contains(&template) || method == "options";
        let app = match (status, template) {
            (503, _) if needs_no_database => return None,
            // A 503 with a problem document: no capacity, as above.
            (503, "/health") if !error_code.is_empty() => return None,
            (503, _) => &self.without_database,
            (500, _) => &self.with_broken_schema,
            (428, _) => &self.strict,
            (429, _) => &self.slow,
            (404, "/docs" | "/docs/{asset}" | "/openapi.json") => &self.without_docs,
            _ => &self.well,
        };
        let task = match (status, method, template.ends_with("{task_id}")) {
            (422, "get" | "delete", _) => "x".to_owned(),
            (404, _, true) => (self.task + 1_000_000).to_string(),
            (204, "delete", _) => app.user("alice").create_id().to_string(),
            _ => self.task.to_string(),
        };
        let target = template.replace("{user_id}", "alice").replace("{task_id}", &task);
        let target = target.replace("{asset}", "swagger-ui.css");
        let target = match (method, template.ends_with("/tasks")) {
            ("get", true) if status == 422 => target + "?limit=0",
            // Without `complete` these two are refused.
            ("patch" | "delete", true) if status != 422 => target + "?complete=true",
            _ => target,
        };
        let has_body = ["post", "put", "patch"].contains(&method);
        let asked = if status == 405 { "QUERY".to_owned() } else { method.to_uppercase() };
        let mut request = app.request(&asked, &target);
        match (status, error_code) {
            (401, "AUTH_MISSING") => {}
            (401, _) => request = request.bearer("x"),
            (403, _) => request = request.bearer(&token("bob")),
            _ => request = request.bearer(&token("alice")),
        }
        request = match status {
            400 => request.header("X-Request-Id", "a").header("X-Request-Id", "a"),
            413 => request.body("x".repeat(64 * 1024 + 1)),
            414 => app.request(&asked, &format!("{target}?{}", "x".repeat(9000))),
            431 => request.header("X-A", &"x".repeat(17_000)),
            429 => {
                app.user("alice").request("GET", "/tasks").send();
                request
            }
            415 => request.header("Content-Type", "text/plain").body("{}"),
            304 => request.header("If-None-Match", "*"),
            // The title differs from that of the task, because a change to the present state is not refused.
            412 => request.header("If-Match", "\"x\"").json(json!({"title": "u", "complete": false})),
            422 if error_code == "IDEMPOTENCY_KEY_REUSED" => {
                let first = app.user("alice").request("POST", "/tasks").header("Idempotency-Key", "k");
                first.json(json!({"title": "other"})).send();
                request.header("Idempotency-Key", "k").json(json!({"title": "t"}))
            }
            422 if has_body => request.json(json!({"title": "", "complete": false})),
            _ if has_body => request.json(json!({"title": "t", "complete": false})),
            _ => request,
        };
        if method == "options" {
            request = request.header("Origin", "http://localhost:3000");
            request = request.header("Access-Control-Request-Method", "GET");
        }
        Some(request)
    }
}

#[test]
fn every_documented_answer_is_given() {
    let services = Services::start();
    let mut out_of_reach = BTreeSet::new();
    for (place, answer) in documented() {
        let is_both = answer["content"].as_object().is_some_and(|content| content.len() > 1);
        let mut error_codes = error_codes(answer);
        if is_both {
            error_codes.push("");
        }
        for error_code in error_codes {
            let Some(request) = services.provoke(place, error_code) else {
                out_of_reach.insert((place.2, error_code));
                continue;
            };
            let response = request.send();
            assert_eq!(response.status.to_string(), place.2, "{place:?}: {}", response.text());
            if !error_code.is_empty() {
                assert_eq!(response.json()["error_code"], error_code, "{place:?}");
            }
        }
    }
    for (status, error_code, reason) in OUT_OF_REACH {
        let status = status.to_string();
        assert!(out_of_reach.contains(&(status.as_str(), error_code)), "{error_code}: {reason}");
    }
}

#[test]
fn every_route_and_error_code_of_the_contract_is_documented() {
    let places: BTreeSet<_> = documented().into_iter().map(|((path, method, _), _)| (path, method)).collect();
    for place in [
        ("/api/{user_id}/tasks", "get"),
        ("/api/{user_id}/tasks", "post"),
        ("/api/{user_id}/tasks", "patch"),
        ("/api/{user_id}/tasks", "delete"),
        ("/api/{user_id}/tasks/{task_id}", "get"),
        ("/api/{user_id}/tasks/{task_id}", "put"),
        ("/api/{user_id}/tasks/{task_id}", "patch"),
        ("/api/{user_id}/tasks/{task_id}", "delete"),
        ("/health", "get"),
        ("/", "get"),
        ("/docs", "get"),
        ("/openapi.json", "get"),
    ] {
        assert!(places.contains(&place), "{place:?}");
    }
    let seen: BTreeSet<_> = documented()
        .into_iter()
        .flat_map(|((_, _, status), answer)| error_codes(answer).into_iter().map(move |code| (status, code)))
        .filter(|(_, error_code)| !error_code.is_empty())
        .collect();
    let wanted = BTreeSet::from([
        ("400", "VALIDATION_ERROR"),
        ("401", "AUTH_INVALID"),
        ("401", "AUTH_MISSING"),
        ("403", "AUTH_FORBIDDEN"),
        ("404", "NOT_FOUND"),
        ("405", "METHOD_NOT_ALLOWED"),
        ("408", "REQUEST_TIMEOUT"),
        ("412", "PRECONDITION_FAILED"),
        ("413", "PAYLOAD_TOO_LARGE"),
        ("414", "URI_TOO_LONG"),
        ("415", "UNSUPPORTED_MEDIA_TYPE"),
        ("422", "IDEMPOTENCY_KEY_REUSED"),
        ("422", "VALIDATION_ERROR"),
        ("428", "PRECONDITION_REQUIRED"),
        ("429", "RATE_LIMITED"),
        ("431", "HEADERS_TOO_LARGE"),
        ("500", "DATABASE_ERROR"),
        ("500", "INTERNAL_ERROR"),
        ("503", "SERVICE_UNAVAILABLE"),
    ]);
    assert_eq!(seen, wanted);
}

#[test]
fn the_document_that_is_served_is_the_one_in_the_repository() {
    let app = App::spawn();
    assert_eq!(app.get("/openapi.json").send().json(), *DOCUMENT);
}
