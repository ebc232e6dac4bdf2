//! Which paths a token opens: its user has to be the user of the path.

use crate::{
    auth::{assert_invalid, assert_missing},
    support::{harness::App, http::Request, token::token},
};
use serde_json::json;

#[test]
fn every_route_with_tasks_needs_a_token_and_the_others_need_none() {
    let app = App::spawn();
    for (method, target) in [
        ("GET", "/api/alice/tasks"),
        ("POST", "/api/alice/tasks"),
        ("GET", "/api/alice/tasks/1"),
        ("PUT", "/api/alice/tasks/1"),
        ("PATCH", "/api/alice/tasks/1"),
        ("DELETE", "/api/alice/tasks/1"),
    ] {
        assert_missing(app.request(method, target).send());
        assert_invalid(method, app.request(method, target).bearer("x").send());
        let response = app.request(method, target).bearer(&token("bob")).send();
        response.expect_problem(403, "AUTH_FORBIDDEN");
    }
    app.request("HEAD", "/api/alice/tasks").send().expect(401);
    app.request("HEAD", "/api/alice/tasks/1").send().expect(401);
    for target in ["/", "/health", "/docs", "/openapi.json"] {
        app.get(target).send().expect(200);
        app.get(target).bearer("x").send().expect(200);
    }
    for target in ["/api/alice/tasks", "/api/alice/tasks/1", "/health"] {
        app.request("OPTIONS", target).send().expect(204);
    }
}

#[test]
fn a_user_id_has_1_to_255_characters_of_any_kind() {
    let app = App::spawn();
    let long = |char: &str, count: usize| char.repeat(count);
    for (user_id, good) in [
        ("x".to_owned(), true),
        (long("x", 255), true),
        (long("x", 256), false),
        (long("\u{1F600}", 255), true),
        (long("\u{1F600}", 256), false),
        (long("e\u{301}", 127), true),
        (long("e\u{301}", 128), false),
        ("a/b".to_owned(), true),
        ("%2F".to_owned(), true),
        (" ".to_owned(), true),
        ("\u{1}\n\u{7f}".to_owned(), true),
    ] {
        let user = app.user(&user_id);
        let response = user.request("GET", "/tasks").send();
        if good {
            let wanted = user.create("t");
            assert_eq!(wanted["user_id"], user_id);
            assert_eq!(user.list()["tasks"], json!([wanted]));
        } else {
            assert_invalid(&user_id, response);
        }
    }
}

#[test]
fn the_users_path_is_compared_after_one_decoding() {
    let app = App::spawn();
    for (path_user, token_user, status) in [
        ("alice", "alice", 200),
        ("%61lic%65", "alice", 200),
        ("a%2fb", "a/b", 200),
        ("a%2Fb", "a/b", 200),
        ("a%252Fb", "a%2Fb", 200),
        ("a%252Fb", "a/b", 403),
        ("a+b", "a+b", 200),
        ("a+b", "a b", 403),
        ("a%20b", "a b", 200),
        ("%F0%9F%98%80", "\u{1F600}", 200),
        ("%C3%A9", "\u{e9}", 200),
        ("%C3%A9", "e\u{301}", 403),
        ("Alice", "alice", 403),
        ("alice%00", "alice", 403),
        ("alice%20", "alice", 403),
        ("alic", "alice", 403),
        ("alicee", "alice", 403),
        (&"x".repeat(256), "alice", 403),
        ("%00", "alice", 403),
    ] {
        let target = format!("/api/{path_user}/tasks");
        let response = app.get(&target).bearer(&token(token_user)).send();
        assert_eq!(response.status, status, "{path_user} {token_user}: {}", response.text());
    }
}

#[test]
fn another_users_path_is_403_whether_or_not_anything_is_there() {
    let app = App::spawn();
    let id = app.user("bob").create_id();
    let alice = token("alice");
    for target in [
        "/api/bob/tasks".to_owned(),
        format!("/api/bob/tasks/{id}"),
        format!("/api/bob/tasks/{}", id + 1000),
        "/api/bob/tasks/x".to_owned(),
        "/api/nobody/tasks".to_owned(),
    ] {
        app.get(&target).bearer(&alice).send().expect_problem(403, "AUTH_FORBIDDEN");
    }
    let target = format!("/api/bob/tasks/{id}");
    app.delete(&target).bearer(&alice).send().expect(403);
    app.put(&target).bearer(&alice).json(json!({"title": "t", "complete": true})).send().expect(403);
    app.patch(&target).bearer(&alice).json(json!({"complete": true})).send().expect(403);
    app.post("/api/bob/tasks").bearer(&alice).json(json!({"title": "t"})).send().expect(403);
    let list = app.user("bob").list();
    assert_eq!((&list["count"], &list["tasks"][0]["complete"]), (&json!(1), &json!(false)));
    let line = app.wait_for_log(|line| line.contains("error_code=AUTH_FORBIDDEN"));
    let (_, reason) = line.split_once("reason=").expect(&line);
    assert!(reason.contains("alice"), "whose token it was: {line}");
}

/// Each request breaks the rule of its row and the rules of all rows below it.
#[test]
fn checks_are_made_in_the_order_that_the_contract_gives() {
    let app = App::spawn();
    let id = app.user("alice").create_id();
    let too_large = |request: Request| request.body("x".repeat(64 * 1024 + 1));
    let own = format!("/api/alice/tasks/{id}");
    let gone = format!("/api/alice/tasks/{}", id + 1000);
    let alice = &token("alice");
    for (request, status) in [
        (too_large(app.post("/nothing")), 413),
        (too_large(app.post(&own)), 413),
        (too_large(app.post("/api/alice/tasks")), 413),
        (app.post("/nothing").text("{"), 404),
        (app.post(&own).text("{"), 405),
        (app.patch(&own).body("{"), 401),
        (app.patch("/api/alice/tasks/x").bearer("x").body("{"), 401),
        (app.patch("/api/bob/tasks/x").bearer(alice).body("{"), 403),
        (app.patch("/api/bob/tasks/1").bearer(alice).text("{}"), 403),
        (app.patch(&gone).bearer(alice).body("{"), 415),
        (app.patch(&gone).bearer(alice).text("{}").header("Content-Encoding", "gzip"), 415),
        (app.patch("/api/alice/tasks/x").bearer(alice).body("{"), 415),
        (app.patch("/api/alice/tasks/x").bearer(alice).text("{"), 400),
        (app.patch(&gone).bearer(alice).text("{"), 400),
        (app.patch(&gone).bearer(alice).text("{}"), 400),
        (app.patch(&gone).bearer(alice).text(r#"{"title":1}"#), 422),
        (app.patch(&gone).bearer(alice).text(r#"{"title":"t"}"#), 404),
        (app.patch(&own).bearer(alice).text(r#"{"title":"t"}"#), 200),
    ] {
        let response = request.send();
        assert_eq!(response.status, status, "{} {}: {}", request.method, request.target, response.text());
    }
}
