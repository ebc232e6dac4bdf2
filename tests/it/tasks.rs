//! "Task", "Routes" and `Cache-Control` in the contract: what the six routes do when all is well,
//! and 404.

use crate::support::{
    harness::App,
    http::{Response, is_timestamp},
    token::token,
};
use serde_json::{Value, json};

/// The names of a Task's members, sorted as `serde_json` sorts them.
const TASK_MEMBERS: [&str; 8] =
    ["complete", "created_at", "description", "etag", "id", "title", "updated_at", "user_id"];

fn instant(task: &Value, name: &str) -> jiff::Timestamp {
    let text = task[name].as_str().unwrap();
    assert!(is_timestamp(text), "{name}: {text}");
    text.parse().unwrap()
}

/// Asserts that the value is a Task with this content. Its id and times may be any.
#[track_caller]
fn assert_task(task: &Value, user_id: &str, title: &str, description: Option<&str>, complete: bool) {
    let members: Vec<_> = task.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, TASK_MEMBERS);
    assert!(task["id"].as_u64().is_some_and(|id| (1..1 << 53).contains(&id)), "{task}");
    assert!(instant(task, "created_at") <= instant(task, "updated_at"), "{task}");
    let wanted = json!([user_id, title, description, complete]);
    let seen = json!([task["user_id"], task["title"], task["description"], task["complete"]]);
    assert_eq!(seen, wanted);
}

#[test]
fn a_new_task_is_what_was_sent_with_defaults_for_the_rest() {
    let app = App::spawn();
    let alice = app.user("alice");
    let title = "  Grüße, \u{1F600}\n\t\"'\\<script> ";
    for (case, body, description, complete) in [
        ("title alone", json!({"title": title}), None, false),
        ("null", json!({"title": title, "description": null}), None, false),
        ("empty", json!({"title": title, "description": ""}), Some(""), false),
        ("complete", json!({"title": title, "description": " d ", "complete": true}), Some(" d "), true),
        ("not complete", json!({"title": title, "complete": false}), None, false),
        ("more", json!({"title": title, "id": 7, "user_id": "bob", "created_at": 1, "x": {}}), None, false),
    ] {
        let response = alice.post(body).expect(201);
        let task = response.json();
        assert_task(&task, "alice", title, description, complete);
        assert_eq!(task["created_at"], task["updated_at"], "{case}");
        let location = format!("/api/alice/tasks/{}", task["id"]);
        assert_eq!(response.field("Location"), Some(location.as_str()), "{case}");
        assert_eq!(response.field("Content-Type"), Some("application/json"), "{case}");
        assert_eq!(alice.task(task["id"].as_i64().unwrap()), task, "{case}");
    }
}

#[test]
fn put_replaces_title_description_and_complete() {
    let app = App::spawn();
    let alice = app.user("alice");
    let old = alice.post(json!({"title": "old", "description": "d", "complete": true})).json();
    let id = old["id"].as_i64().unwrap();
    for (body, description) in [
        (json!({"title": "new", "complete": false, "description": "e"}), Some("e")),
        (json!({"title": "new", "complete": false, "description": null}), None),
        (json!({"title": "new", "complete": false, "description": ""}), Some("")),
        (json!({"title": "new", "complete": false}), None),
        (json!({"title": "new", "complete": false, "id": 1, "user_id": "bob", "created_at": "x"}), None),
    ] {
        let before = alice.task(id);
        let response = alice.on_task("PUT", id).json(body).send().expect(200);
        let path = format!("/api/alice/tasks/{id}");
        assert_eq!(response.field("Content-Location"), Some(path.as_str()));
        let task = response.json();
        assert_task(&task, "alice", "new", description, false);
        assert_eq!((&task["id"], &task["created_at"]), (&old["id"], &old["created_at"]));
        assert!(instant(&task, "updated_at") > instant(&before, "updated_at"));
        assert_eq!(alice.task(id), task);
    }
}

#[test]
fn patch_changes_only_the_fields_sent() {
    let app = App::spawn();
    let alice = app.user("alice");
    let old = alice.post(json!({"title": "t", "description": "d"})).json();
    let id = old["id"].as_i64().unwrap();
    for (body, title, description, complete) in [
        (json!({"complete": true}), "t", Some("d"), true),
        (json!({"title": "u"}), "u", Some("d"), true),
        (json!({"description": null}), "u", None, true),
        (json!({"complete": false}), "u", None, false),
        (json!({"description": "", "x": 1}), "u", Some(""), false),
        (json!({"title": "v", "description": "e", "complete": true, "id": 9}), "v", Some("e"), true),
        (json!({"title": "v", "description": "e", "complete": true}), "v", Some("e"), true),
    ] {
        let before = alice.task(id);
        let response = alice.on_task("PATCH", id).json(body.clone()).send().expect(200);
        let path = format!("/api/alice/tasks/{id}");
        assert_eq!(response.field("Content-Location"), Some(path.as_str()), "{body}");
        let task = response.json();
        assert_task(&task, "alice", title, description, complete);
        assert_eq!((&task["id"], &task["created_at"]), (&old["id"], &old["created_at"]), "{body}");
        assert!(instant(&task, "updated_at") > instant(&before, "updated_at"), "{body}");
        assert_eq!(alice.task(id), task, "{body}");
    }
}

#[test]
fn a_deleted_task_is_gone_and_its_number_is_not_given_again() {
    let app = App::spawn();
    let alice = app.user("alice");
    let first = alice.create_id();
    let second = alice.create_id();
    assert!(second > first);
    alice.on_task("DELETE", second).send().expect(204);
    for method in ["GET", "DELETE"] {
        alice.on_task(method, second).send().expect_problem(404, "NOT_FOUND");
    }
    alice.on_task("PATCH", second).json(json!({"complete": true})).send().expect(404);
    alice.on_task("PUT", second).json(json!({"title": "t", "complete": true})).send().expect(404);
    assert!(alice.create_id() > second);
    assert_eq!(alice.list()["count"], 2);
}

#[test]
fn updated_at_moves_forward_even_when_the_clock_stands_behind_it() {
    let app = App::spawn();
    let alice = app.user("alice");
    let id = alice.create_id();
    app.database.execute("update tasks set updated_at = now() + interval '1 day'");
    let bodies = [
        ("PATCH", json!({"complete": true})),
        ("PATCH", json!({"complete": true})),
        ("PUT", json!({"title": "t", "complete": true})),
        ("PUT", json!({"title": "t", "complete": true})),
    ];
    for (method, body) in bodies {
        let before = instant(&alice.task(id), "updated_at");
        let task = alice.on_task(method, id).json(body).send().expect(200).json();
        assert!(instant(&task, "updated_at") > before, "{method}");
    }
}

#[test]
fn the_list_holds_all_tasks_of_the_user_by_number_and_no_others() {
    let app = App::spawn();
    let alice = app.user("alice");
    assert_eq!(alice.list(), json!({"tasks": [], "count": 0}));
    let mut wanted = Vec::new();
    for index in 0..5 {
        app.user("bob").create_id();
        wanted.push(alice.create(&format!("task {index}")));
    }
    // A change moves the row within the table, but must not move the task within the list.
    wanted[1] = alice
        .on_task("PATCH", wanted[1]["id"].as_i64().unwrap())
        .json(json!({"complete": true}))
        .send()
        .json();
    assert_eq!(alice.list(), json!({"tasks": wanted, "count": 5}));
    let list = alice.request("GET", "/tasks?_x=%zz&&_&_=completed").send().expect(200);
    assert_eq!(list.json()["count"], 5);

    let many =
        "insert into tasks (user_id, title) select 'carol', 'task' || n from generate_series(1, 3000) n";
    app.database.execute(many);
    let list = app.user("carol").list();
    assert_eq!(list["count"], 3000);
    let ids: Vec<_> = list["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_i64()).collect();
    assert_eq!(ids.len(), 3000);
    assert!(ids.is_sorted());
}

/// The answer without the fields and members that contain times.
fn without_times(response: &Response) -> (u16, Vec<(String, String)>, Value) {
    let fields = response.fields.iter().filter(|(name, _)| name != "date").cloned().collect();
    let mut problem = response.json();
    problem["timestamp"].take();
    (response.status, fields, problem)
}

#[test]
fn a_task_of_another_user_is_404_and_looks_as_if_it_had_never_been() {
    let app = App::spawn();
    let bob = app.user("bob");
    let task = bob.create("secret of bob");
    let id = task["id"].as_i64().unwrap();
    let full = json!({"title": "t", "complete": true});
    for (method, body) in
        [("GET", None), ("PUT", Some(full.clone())), ("PATCH", Some(full)), ("DELETE", None)]
    {
        let ask = |id| {
            // All requests have the same request id, because its length affects Content-Length.
            let mut request = app.user("alice").on_task(method, id).header("X-Request-Id", "same");
            if let Some(body) = body.clone() {
                request = request.json(body);
            }
            request.send().expect_problem(404, "NOT_FOUND")
        };
        assert_eq!(without_times(&ask(id)), without_times(&ask(id + 1_000_000)), "{method}");
        ask(i64::MAX);
    }
    assert_eq!(bob.task(id), task);
}

#[test]
fn the_location_of_a_task_leads_to_it_whatever_the_user_is_called() {
    let app = App::spawn();
    for user_id in ["a/b", "a b+c", "%41", "Zoë \u{1F600}", "...", "a?b#c;d", "auth0|5f-7_~", "\u{7f}\n\""] {
        let user = app.user(user_id);
        let response = user.post(json!({"title": "t"})).expect(201);
        assert_eq!(response.json()["user_id"], user_id);
        let location = response.field("Location").unwrap();
        assert!(location.is_ascii() && !location.contains(' '), "{location}");
        let found = app.get(location).bearer(&token(user_id)).send().expect(200);
        assert_eq!(found.json(), response.json(), "{user_id}");
        let patched = app.patch(location).bearer(&token(user_id)).json(json!({"complete": true}));
        let patched = patched.send().expect(200);
        assert_eq!(patched.field("Content-Location"), Some(location));
    }
}

#[test]
fn answers_with_data_say_how_they_may_be_kept() {
    let app = App::spawn();
    let alice = app.user("alice");
    let id = alice.create_id();
    let body = json!({"title": "t", "complete": false});
    let cases = [
        (alice.request("POST", "/tasks").json(body.clone()), "private, no-cache"),
        (alice.on_task("GET", id), "private, no-cache"),
        (alice.on_task("HEAD", id), "private, no-cache"),
        (alice.on_task("PUT", id).json(body.clone()), "private, no-cache"),
        (alice.on_task("PATCH", id).json(body.clone()), "private, no-cache"),
        (alice.request("GET", "/tasks"), "private, no-cache"),
        (alice.request("GET", "/tasks?limit=1"), "private, no-cache"),
        (alice.request("PATCH", "/tasks?complete=true").json(body.clone()), "no-store"),
        (alice.request("DELETE", "/tasks?complete=true"), "no-store"),
        (app.get("/health"), "no-store"),
    ];
    for (request, wanted) in cases {
        let response = request.send();
        assert!(response.status < 300);
        assert_eq!(response.field("Cache-Control"), Some(wanted), "{} {}", request.method, request.target);
    }
}

#[test]
fn changes_from_many_sides_at_once_are_all_kept() {
    let app = App::spawn();
    let id = app.user("alice").create_id();
    std::thread::scope(|scope| {
        for side in 0..4 {
            let app = &app;
            scope.spawn(move || {
                for round in 0..10 {
                    app.user("alice").create(&format!("{side}/{round}"));
                    let patch = app.user("alice").on_task("PATCH", id).json(json!({"complete": true}));
                    patch.send().expect(200);
                }
            });
        }
    });
    let list = app.user("alice").list();
    assert_eq!(list["count"], 41);
    let ids = list["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_i64().unwrap());
    assert_eq!(ids.collect::<std::collections::BTreeSet<_>>().len(), 41);
}
