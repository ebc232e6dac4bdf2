//! "Task" and "Concurrency and retries" in the contract: the tag in each task, the task in each 412,
//! and the 200 for a change that is there already.

use crate::support::{
    harness::{App, User},
    http::{Request, Response},
    locks::Held,
    tasks::{get, insert_many, tagged},
    token::token,
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, thread};

/// The task in the answer. Asserts that its tag is that of the `ETag` field.
#[track_caller]
fn shown(response: &Response) -> Value {
    let task = response.json();
    let tag = response.field("ETag").expect("ETag");
    assert_eq!(task["etag"], tag, "{task}");
    assert!(tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"'), "{tag}");
    task
}

fn tag(task: &Value) -> &str {
    task["etag"].as_str().unwrap()
}

fn id(task: &Value) -> i64 {
    task["id"].as_i64().unwrap()
}

/// The current task in a 412.
#[track_caller]
fn current(response: &Response) -> Value {
    let response = response.clone().expect_problem(412, "PRECONDITION_FAILED");
    let current = response.json()["current"].clone();
    assert!(current.is_object(), "{}", response.text());
    assert_eq!(current["etag"], response.field("ETag").expect("ETag"), "{}", response.text());
    current
}

#[test]
fn a_task_has_its_tag_in_every_place_where_it_is_shown() {
    let app = App::spawn();
    let alice = app.user("alice");
    let create = || {
        let request = alice.request("POST", "/tasks").header("Idempotency-Key", "k");
        request.json(json!({"title": "t", "complete": true})).send().expect(201)
    };
    let mut tags = BTreeSet::new();
    let created = shown(&create());
    tags.insert(tag(&created).to_owned());
    let id = id(&created);
    let replayed = create();
    assert_eq!(replayed.field("Idempotent-Replayed"), Some("true"));
    assert_eq!(shown(&replayed), created);
    for (method, body) in [
        ("PUT", json!({"title": "u", "complete": true})),
        ("PATCH", json!({"description": "d"})),
        ("PATCH", json!({"title": "u"})),
        // A tag in a body is one of the fields that are ignored.
        ("PATCH", json!({"title": "u", "etag": "\"x\""})),
    ] {
        let changed = shown(&alice.on_task(method, id).json(body).send().expect(200));
        assert!(tags.insert(tag(&changed).to_owned()), "{method}: {tags:?}");
        assert_eq!(shown(&alice.on_task("GET", id).send().expect(200)), changed);
        assert_eq!(shown(&create()), changed, "replayed");
        for query in [
            "",
            "?limit=1",
            "?order=-id",
            "?order=title",
            "?order=-updated&limit=5",
            "?q=U",
            "?complete=true&totals=true",
        ] {
            assert_eq!(get(alice, query).expect(200).json()["tasks"], json!([changed]), "{query}");
        }
        let refused = alice.on_task("DELETE", id).header("If-Match", "\"x\"").send();
        assert_eq!(current(&refused), changed);
        let head = alice.on_task("HEAD", id).send().expect(200);
        assert_eq!(head.field("ETag"), Some(tag(&changed)));
        let same = alice.on_task("GET", id).header("If-None-Match", tag(&changed)).send().expect(304);
        assert_eq!(same.field("ETag"), Some(tag(&changed)));
    }
}

#[test]
fn the_tags_of_a_long_list_are_those_that_changes_ask_for() {
    let app = App::spawn();
    let alice = app.user("alice");
    insert_many(&app.database, "alice", 1234, 0);
    let tasks = alice.list()["tasks"].as_array().unwrap().clone();
    for task in [&tasks[0], &tasks[127], &tasks[128], &tasks[1233]] {
        let change = alice.on_task("PATCH", id(task)).header("If-Match", tag(task));
        let changed = shown(&change.json(json!({"complete": true})).send().expect(200));
        assert_ne!(tag(&changed), tag(task));
        let stale = alice.on_task("DELETE", id(task)).header("If-Match", tag(task)).send();
        assert_eq!(current(&stale), changed);
        alice.on_task("DELETE", id(task)).header("If-Match", tag(&changed)).send().expect(204);
    }
}

/// A request that changes this task to another content.
fn change(user: User, method: &str, id: i64) -> Request {
    let request = user.on_task(method, id);
    match method {
        "PUT" => request.json(json!({"title": "other", "complete": true})),
        "PATCH" => request.json(json!({"title": "other"})),
        _ => request,
    }
}

#[test]
fn a_412_carries_the_task_as_it_is() {
    let app = App::spawn();
    let alice = app.user("alice");
    let widest = "\u{1F600}";
    let body = json!({"title": widest.repeat(200), "description": widest.repeat(1000), "complete": true});
    let first = shown(&alice.post(body).expect(201));
    let task = alice.on_task("PATCH", id(&first)).json(json!({"complete": false})).send().expect(200);
    let task = shown(&task);
    let weak = format!("W/{}", tag(&task));
    for (name, value, methods) in [
        ("If-Match", "\"x\"", &["GET", "PUT", "PATCH", "DELETE"][..]),
        ("If-Match", tag(&first), &["GET", "PUT", "PATCH", "DELETE"]),
        ("If-Match", &weak, &["GET", "PUT", "PATCH", "DELETE"]),
        ("If-Match", "", &["GET", "PUT", "PATCH", "DELETE"]),
        ("If-None-Match", "*", &["PUT", "PATCH", "DELETE"]),
        ("If-None-Match", tag(&task), &["PUT", "PATCH", "DELETE"]),
        ("If-None-Match", &weak, &["PUT", "PATCH", "DELETE"]),
    ] {
        for method in methods {
            let response = change(alice, method, id(&task)).header(name, value).send();
            assert_eq!(current(&response), task, "{method} {name}: {value}");
            assert_eq!(response.field("Content-Location"), None, "{method} {name}: {value}");
        }
        if name == "If-Match" {
            let head = alice.on_task("HEAD", id(&task)).header(name, value).send().expect(412);
            assert_eq!(head.field("ETag"), Some(tag(&task)), "{value}");
        }
    }
    assert_eq!(alice.task(id(&task)), task);
    // The tag in the 412 works for the next try.
    let refused = change(alice, "PATCH", id(&task)).header("If-Match", tag(&first)).send();
    let again = change(alice, "PATCH", id(&task)).header("If-Match", tag(&current(&refused)));
    assert_eq!(shown(&again.send().expect(200))["title"], "other");
}

#[test]
fn no_other_answer_carries_a_task_of_another_user_or_of_none() {
    let app = App::spawn();
    let (alice, bob) = (app.user("alice"), app.user("bob"));
    let bobs = bob.create("of bob");
    for name in ["If-Match", "If-None-Match"] {
        for value in ["\"x\"", "*", tag(&bobs)] {
            for method in ["GET", "PUT", "PATCH", "DELETE"] {
                let response = change(alice, method, id(&bobs)).header(name, value).send();
                let response = response.expect_problem(404, "NOT_FOUND");
                assert_eq!(response.field("ETag"), None);
                assert_eq!(response.json().get("current"), None);
                let target = format!("/api/bob/tasks/{}", id(&bobs));
                let other = app.request(method, &target).bearer(&token("alice")).header(name, value);
                other.send().expect_problem(403, "AUTH_FORBIDDEN");
            }
        }
    }
}

/// The 412 contains the task for which the precondition failed, not the task as it was when the request came.
#[test]
fn a_412_after_a_wait_carries_what_was_waited_for() {
    let app = App::spawn();
    let alice = app.user("alice");
    for method in ["PUT", "PATCH", "DELETE"] {
        let task = alice.create("first");
        let sql = "update tasks set title = 'second', updated_at = updated_at + interval '1 microsecond' where id = ";
        let held = Held::by(&app.database, &format!("{sql}{}", id(&task)));
        thread::scope(|scope| {
            let request = change(alice, method, id(&task)).header("If-Match", tag(&task));
            let waits = scope.spawn(move || request.send());
            app.database.wait_until_blocked(1);
            held.commit();
            let current = current(&waits.join().unwrap());
            assert_eq!(current["title"], "second", "{method}");
            assert_eq!(tagged(alice, id(&task)), (current.clone(), tag(&current).to_owned()), "{method}");
        });
    }
    // If the task has been deleted meanwhile, the answer is 404.
    for method in ["PUT", "PATCH", "DELETE"] {
        let task = alice.create("first");
        let held = Held::by(&app.database, &format!("delete from tasks where id = {}", id(&task)));
        thread::scope(|scope| {
            let request = change(alice, method, id(&task)).header("If-Match", tag(&task));
            let waits = scope.spawn(move || request.send());
            app.database.wait_until_blocked(1);
            held.commit();
            waits.join().unwrap().expect_problem(404, "NOT_FOUND");
        });
    }
}

/// Changes of a task with title `t` and description `d` that is not complete, and whether the task already has all
/// the values of the change.
const CHANGES: [(&str, &str, bool); 18] = [
    ("PATCH", r#"{"title": "t"}"#, true),
    ("PATCH", r#"{"title": "\u0074"}"#, true),
    ("PATCH", r#"{"description": "d"}"#, true),
    ("PATCH", r#"{"complete": false}"#, true),
    ("PATCH", r#"{"complete": false, "title": "t", "description": "d", "x": 1}"#, true),
    ("PATCH", r#"{"title": "T"}"#, false),
    ("PATCH", r#"{"title": "t "}"#, false),
    ("PATCH", r#"{"description": null}"#, false),
    ("PATCH", r#"{"description": ""}"#, false),
    ("PATCH", r#"{"complete": true}"#, false),
    ("PATCH", r#"{"title": "t", "complete": true}"#, false),
    ("PATCH", r#"{"title": "t", "description": "D"}"#, false),
    ("PUT", r#"{"title": "t", "description": "d", "complete": false}"#, true),
    ("PUT", r#"{"title": "t", "description": "d", "complete": false, "id": 0}"#, true),
    // Absent means null.
    ("PUT", r#"{"title": "t", "complete": false}"#, false),
    ("PUT", r#"{"title": "t", "description": null, "complete": false}"#, false),
    ("PUT", r#"{"title": "t", "description": "d", "complete": true}"#, false),
    ("PUT", r#"{"title": "u", "description": "d", "complete": false}"#, false),
];

#[test]
fn a_change_that_is_there_already_is_200_where_its_version_is_not_and_changes_nothing() {
    for strict in ["false", "true"] {
        let app = App::setup().env("REQUIRE_IF_MATCH", strict).spawn();
        let alice = app.user("alice");
        let old = shown(&alice.post(json!({"title": "t"})).expect(201));
        let patch = alice.on_task("PATCH", id(&old)).header("If-Match", "*");
        let task = shown(&patch.json(json!({"description": "d"})).send().expect(200));
        let weak = format!("W/{}", tag(&task));
        for (method, body, is_there) in CHANGES {
            for if_match in [tag(&old), "\"x\"", "\"x\", \"y\"", &weak, ""] {
                let request = alice.on_task(method, id(&task)).text(body).header("If-Match", if_match);
                let response = request.send();
                let context = format!("{method} {body} {if_match}: {response:?}");
                if is_there {
                    assert_eq!(response.status, 200, "{context}");
                    assert_eq!(shown(&response), task, "{context}");
                    let location = format!("/api/alice/tasks/{}", id(&task));
                    assert_eq!(response.field("Content-Location"), Some(location.as_str()), "{context}");
                    assert_eq!(response.field("Cache-Control"), Some("private, no-cache"), "{context}");
                } else {
                    assert_eq!(current(&response), task, "{context}");
                }
                assert_eq!(alice.task(id(&task)), task, "{context}");
            }
        }
    }
}

#[test]
fn a_description_of_null_is_there_already_where_there_is_none() {
    let app = App::spawn();
    let alice = app.user("alice");
    let task = alice.create("t");
    for (method, body, is_there) in [
        ("PATCH", r#"{"description": null}"#, true),
        ("PATCH", r#"{"description": ""}"#, false),
        ("PUT", r#"{"title": "t", "complete": false}"#, true),
        ("PUT", r#"{"title": "t", "description": null, "complete": false}"#, true),
        ("PUT", r#"{"title": "t", "description": "", "complete": false}"#, false),
    ] {
        let request = alice.on_task(method, id(&task)).text(body).header("If-Match", "\"x\"");
        let response = request.send();
        let seen = if is_there { shown(&response) } else { current(&response) };
        assert_eq!((response.status == 200, seen), (is_there, task.clone()), "{method} {body}");
    }
}

/// The answer to the first request is lost, so the client sends the same request again.
#[test]
fn a_repeated_change_is_not_refused_for_its_own_success() {
    let app = App::spawn();
    let alice = app.user("alice");
    for (method, body) in [
        ("PATCH", json!({"complete": true})),
        ("PATCH", json!({"title": "u", "description": null})),
        ("PUT", json!({"title": "v", "complete": false})),
    ] {
        let task = alice.post(json!({"title": "t", "description": "d"})).expect(201).json();
        let request = alice.on_task(method, id(&task)).json(body).header("If-Match", tag(&task));
        let first = shown(&request.send().expect(200));
        assert!(first["updated_at"].as_str() > task["updated_at"].as_str());
        for _ in 0..3 {
            assert_eq!(shown(&request.send().expect(200)), first, "{method}");
        }
        assert_eq!(alice.task(id(&task)), first, "{method}");
        // A late repetition does not overwrite another client's change.
        let other = alice.on_task("PATCH", id(&task)).json(json!({"title": "w", "complete": false}));
        let other = shown(&other.send().expect(200));
        assert_eq!(current(&request.send()), other, "{method}");
        // Where the precondition holds, the same content again is a change.
        let again = alice.on_task("PATCH", id(&task)).json(json!({"title": "w"}));
        let again = shown(&again.header("If-Match", tag(&other)).send().expect(200));
        assert!(again["updated_at"].as_str() > other["updated_at"].as_str(), "{again}");
        assert_ne!(tag(&again), tag(&other));
    }
}

#[test]
fn the_rule_is_for_if_match_on_put_and_patch_alone() {
    let app = App::spawn();
    let alice = app.user("alice");
    let task = alice.create("t");
    for value in ["*", tag(&task), &format!("W/{}", tag(&task)), &format!("\"x\", {}", tag(&task))] {
        for (method, body) in
            [("PATCH", json!({"title": "t"})), ("PUT", json!({"title": "t", "complete": false}))]
        {
            let request = alice.on_task(method, id(&task)).json(body).header("If-None-Match", value);
            assert_eq!(current(&request.send()), task, "{method} {value}");
        }
    }
    for (name, value) in [("If-Match", "\"x\""), ("If-None-Match", "*")] {
        for method in ["DELETE", "GET"] {
            let response = alice.on_task(method, id(&task)).header(name, value).send();
            if (method, name) != ("GET", "If-None-Match") {
                assert_eq!(current(&response), task, "{method} {name}");
            }
        }
    }
    alice.on_task("DELETE", id(&task)).header("If-Match", tag(&task)).send().expect(204);
    alice.on_task("DELETE", id(&task)).header("If-Match", tag(&task)).send().expect(404);
}

/// If many clients make the same change at once, only one change is made. All get 200 with the task after it.
#[test]
fn the_same_change_by_many_at_once_is_done_once() {
    let app = App::spawn();
    let alice = app.user("alice");
    for (method, body) in
        [("PATCH", json!({"complete": true})), ("PUT", json!({"title": "u", "complete": true}))]
    {
        let task = alice.create("t");
        let held = Held::rows(&app.database);
        let answers: Vec<Value> = thread::scope(|scope| {
            let request = alice.on_task(method, id(&task)).json(body).header("If-Match", tag(&task));
            let all = [(); 4].map(|()| {
                let request = request.clone();
                scope.spawn(move || shown(&request.send().expect(200)))
            });
            app.database.wait_until_blocked(4);
            held.release();
            all.map(|one| one.join().unwrap()).into()
        });
        assert_ne!(tag(&answers[0]), tag(&task), "{method}");
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{method}: {answers:?}");
    }
}
