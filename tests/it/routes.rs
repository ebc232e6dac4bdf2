//! Routes: methods, paths, queries, and the fields that every answer has.

use crate::support::{
    harness::App,
    http::{Connection, is_request_id},
    token::token,
};
use serde_json::json;
use std::collections::BTreeSet;

const COLLECTION: &[&str] = &["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST"];
const ITEM: &[&str] = &["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "PUT"];
const PLAIN: &[&str] = &["GET", "HEAD", "OPTIONS"];
const ROUTES: [(&str, &[&str]); 7] = [
    ("/api/alice/tasks", COLLECTION),
    ("/api/alice/tasks/1", ITEM),
    ("/api/alice/tasks/x", ITEM),
    ("/health", PLAIN),
    ("/", PLAIN),
    ("/docs", PLAIN),
    ("/openapi.json", PLAIN),
];

#[test]
fn health_and_the_root_say_what_the_contract_shows() {
    let app = App::spawn();
    let health = app.get("/health").send().expect(200);
    let wanted = json!({"status": "healthy", "service": "tinytasks",
        "version": env!("CARGO_PKG_VERSION"), "database": "connected"});
    assert_eq!(health.json(), wanted);
    assert_eq!(health.field("Content-Type"), Some("application/json"));
    let mut root = app.get("/").send().expect(200).json();
    assert!(root["message"].take().is_string());
    let wanted = json!({"message": null, "docs": "/docs", "openapi": "/openapi.json", "health": "/health"});
    assert_eq!(root, wanted);
}

#[test]
fn head_is_get_without_the_body() {
    let app = App::spawn();
    let id = app.user("alice").create_id();
    let item = format!("/api/alice/tasks/{id}");
    for (target, token) in [
        ("/", None),
        ("/health", None),
        ("/docs", None),
        ("/openapi.json", None),
        ("/nothing", None),
        ("/api/alice/tasks", Some(token("alice"))),
        (&item, Some(token("alice"))),
        (&item, Some(token("bob"))),
        (&item, None),
        ("/api/alice/tasks/0", Some(token("alice"))),
    ] {
        let ask = |method: &str| {
            let mut request = app.request(method, target);
            if let Some(token) = &token {
                request = request.bearer(token);
            }
            // If a body followed the head, it would be read as the next answer on the same connection.
            let mut connection = Connection::open(&app.address).unwrap();
            connection.write(&[request.bytes(), app.get("/health").bytes()].concat());
            let response = connection.read(method).unwrap();
            response.hold_to_the_rules(method, target);
            connection.read("GET").unwrap().expect(200);
            response
        };
        let (get, head) = (ask("GET"), ask("HEAD"));
        assert_eq!(head.status, get.status, "{target}");
        let is_own = |name: &str| ["date", "x-request-id"].contains(&name);
        let fields = |fields: &[(String, String)]| -> Vec<_> {
            fields.iter().filter(|(name, _)| !is_own(name)).cloned().collect()
        };
        assert_eq!(fields(&head.fields), fields(&get.fields), "{target}");
    }
}

#[test]
fn options_answers_204_with_allow() {
    let app = App::spawn();
    for (target, methods) in ROUTES {
        let response = app.request("OPTIONS", target).send().expect(204);
        assert_eq!(response.list("Allow"), methods, "{target}");
        let has_patch = methods.contains(&"PATCH");
        let accepted: &[_] = match has_patch {
            true => &["application/json", "application/merge-patch+json"],
            false => &[],
        };
        assert_eq!(response.list("Accept-Patch"), accepted, "{target}");
    }
    app.request("OPTIONS", "/nothing").send().expect(404);
}

#[test]
fn any_other_method_on_a_known_path_is_405_with_allow() {
    let app = App::spawn();
    for (target, methods) in ROUTES {
        for method in ["POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "QUERY", "X-Y"] {
            if !methods.contains(&method) {
                let response = app.request(method, target).send();
                let response = response.expect_problem(405, "METHOD_NOT_ALLOWED");
                assert_eq!(response.list("Allow"), methods, "{method} {target}");
            }
        }
    }
    for method in ["POST", "DELETE", "QUERY"] {
        app.request(method, "/nothing").send().expect_problem(404, "NOT_FOUND");
    }
}

#[test]
fn an_unknown_path_is_404_as_is_a_trailing_or_doubled_slash() {
    let app = App::spawn();
    let alice = token("alice");
    for target in [
        "/nothing",
        "/health/",
        "//health",
        "//",
        "/Health",
        "/docs/index",
        "/openapi.yaml",
        "/openapi.json/",
        "/api",
        "/api/",
        "/api/alice",
        "/api/alice/",
        "/api/alice/tasks/",
        "/api/alice//tasks",
        "/api//tasks",
        "//api/alice/tasks",
        "/api/alice/tasks//",
        "/api/alice/tasks//1",
        "/api/alice/tasks/1/",
        "/api/alice/tasks/1/2",
        "/API/alice/tasks",
        "/api/alice/Tasks",
        "/api/alice/tasks%2F1",
        "/api%2Falice%2Ftasks",
        "/api/alice/x/../tasks",
        "/metrics",
    ] {
        for request in [app.get(target), app.get(target).bearer(&alice), app.get(target).bearer("x")] {
            let response = request.send().expect_problem(404, "NOT_FOUND");
            assert_eq!(response.field("Location"), None, "{target}");
        }
    }
    // Each segment is decoded, so an escaped letter equals that letter.
    app.get("/%68ealth").send().expect(200);
    app.get("/%61pi/alice/t%61sks").bearer(&alice).send().expect(200);
}

#[test]
fn a_bad_escape_in_the_path_is_400() {
    let app = App::spawn();
    for target in [
        "/api/%zz/tasks",
        "/api/%/tasks",
        "/api/%4/tasks",
        "/api/a%4g/tasks",
        "/api/%C3/tasks",
        "/api/%C3%28/tasks",
        "/api/%C0%AF/tasks",
        "/api/%ED%A0%80/tasks",
        "/api/%F4%90%80%80/tasks",
        "/api/%%41/tasks",
        "/api/alice/tasks/%zz",
        "/api/alice/tasks/1%",
        "/api/alice/tasks/%FF",
        "/api/%u0041/tasks",
    ] {
        let response = app.get(target).bearer(&token("alice")).send();
        assert_eq!(response.status, 400, "{target}: {}", response.text());
        let errors = response.field_errors();
        assert!(errors[0].0.starts_with("path") && errors[0].1 == "bad_escape", "{target}: {errors:?}");
    }
}

#[test]
fn a_query_string_never_breaks_routing() {
    let app = App::spawn();
    let alice = app.user("alice");
    let id = alice.create_id();
    for query in
        ["?", "?x", "?x=1&x=2", "?%zz", "?%00%ff", "?/api/bob/tasks", "??", "?a=b?c=d", "?&&==", "?x=/../"]
    {
        app.get(&format!("/health{query}")).send().expect(200);
        app.get(&format!("/nothing{query}")).send().expect(404);
        app.get(&format!("/{query}")).send().expect(200);
        // A list refuses unknown parameters, but they do not change which route the path has.
        let list = alice.request("GET", &format!("/tasks{query}")).send();
        assert!([200, 422].contains(&list.status), "{query}: {list:?}");
        let item = alice.request("GET", &format!("/tasks/{id}{query}")).send().expect(200);
        assert_eq!(item.json()["id"], id, "{query}");
    }
    let task = alice.request("POST", "/tasks?x=%zz").json(json!({"title": "t"})).send().expect(201);
    assert_eq!(task.field("Location"), Some(format!("/api/alice/tasks/{}", task.json()["id"]).as_str()));
}

#[test]
fn a_good_request_id_is_kept_and_any_other_replaced() {
    let app = App::spawn();
    let longest = "x".repeat(64);
    for id in ["a", "0-_.Z", "5f0c3a6e-1b2d-4e5f-8a9b-0c1d2e3f4a5b", &longest] {
        for target in ["/", "/nothing", "/api/alice/tasks"] {
            let response = app.get(target).header("X-Request-Id", id).send();
            assert_eq!(response.field("X-Request-Id"), Some(id), "{target}");
        }
        let response = app.get("/").header("x-REQUEST-id", id).send();
        assert_eq!(response.field("X-Request-Id"), Some(id));
    }
    let mut seen = BTreeSet::new();
    let too_long = "x".repeat(65);
    for id in ["", "a b", "a/b", "a\tb", "a\"b", "a=b", "a,b", "a%0ab", &too_long] {
        for target in ["/", "/nothing"] {
            let response = app.get(target).header("X-Request-Id", id).send();
            let new = response.field("X-Request-Id").unwrap().to_owned();
            assert!(is_request_id(&new) && new != id, "{id}");
            assert!(seen.insert(new), "a request id comes again");
        }
    }
    let new = app.get("/").send().field("X-Request-Id").unwrap().to_owned();
    assert!(seen.insert(new));
}

#[test]
fn a_single_valued_header_sent_twice_is_400() {
    let app = App::spawn();
    let alice = app.user("alice");
    for (name, first, second) in [
        ("Content-Type", "application/json", "application/json"),
        ("Content-Type", "application/json", "text/plain"),
        ("X-Request-Id", "a", "a"),
        ("X-Request-Id", "a", "b"),
        ("Origin", "http://localhost:3000", "http://localhost:3000"),
    ] {
        let mut request = alice.request("POST", "/tasks").body(r#"{"title":"t"}"#);
        if name != "Content-Type" {
            request = request.header("Content-Type", "application/json");
        }
        let response = request.header(name, first).header(&name.to_lowercase(), second).send();
        let response = response.expect_problem(400, "VALIDATION_ERROR");
        let (loc, kind) = response.field_errors().remove(0);
        let wanted = (format!("header.{name}").to_lowercase(), "header_repeated".to_owned());
        assert_eq!((loc.to_lowercase(), kind), wanted);
    }
    assert_eq!(alice.list()["count"], 0);
    // Header fields that the service does not read may be repeated.
    alice.request("GET", "/tasks").header("X-A", "1").header("X-A", "2").send().expect(200);
    alice.request("GET", "/tasks").header("Accept", "a/b").header("Accept", "c/d").send().expect(200);
}
