//! "Concurrency and retries" in the contract: `Idempotency-Key`.

use crate::support::{
    harness::{App, User},
    http::{Connection, Request, Response},
    instances::second_instance,
    locks::Held,
    tasks::tagged,
};
use serde_json::{Value, json};
use std::{sync::Barrier, thread};

fn create(user: User, key: &str, body: &Value) -> Request {
    user.request("POST", "/tasks").header("Idempotency-Key", key).json(body.clone())
}

/// The id of the task in the answer, and whether the answer was a replay.
#[track_caller]
fn outcome(response: Response) -> (i64, bool) {
    let response = response.expect(201);
    let is_replay = response.field("Idempotent-Replayed").inspect(|value| assert_eq!(*value, "true"));
    (response.json()["id"].as_i64().unwrap(), is_replay.is_some())
}

fn count(app: &App, user_id: &str) -> String {
    app.database.value(&format!("select count(*) from tasks where user_id = '{user_id}'"))
}

#[test]
fn the_same_request_again_gives_the_same_task() {
    let app = App::spawn();
    let alice = app.user("alice");
    let body = json!({"title": "t", "description": "d"});
    let first = create(alice, "k", &body).send().expect(201);
    assert_eq!(first.field("Idempotent-Replayed"), None);
    for _ in 0..3 {
        let again = create(alice, "k", &body).send().expect(201);
        assert_eq!(again.field("Idempotent-Replayed"), Some("true"));
        assert_eq!(again.json(), first.json());
        for name in ["Location", "ETag", "Cache-Control"] {
            assert_eq!(again.field(name), first.field(name), "{name}");
        }
    }
    assert_eq!(alice.list()["count"], 1);
    // Each request without a key, or with another key, makes a task of its own.
    for (key, wanted) in [(None, 2), (None, 3), (Some("K"), 4), (Some("k2"), 5), (Some("\"k\""), 6)] {
        let request = alice.request("POST", "/tasks").json(body.clone());
        let request = key.into_iter().fold(request, |request, key| request.header("Idempotency-Key", key));
        assert!(!outcome(request.send()).1, "{key:?}");
        assert_eq!(alice.list()["count"], wanted, "{key:?}");
    }
}

#[test]
fn a_replay_shows_the_task_as_it_is_now() {
    let app = App::spawn();
    let alice = app.user("alice");
    let body = json!({"title": "t", "description": "d"});
    let (id, _) = outcome(create(alice, "k", &body).send());
    for change in
        [json!({"title": "u"}), json!({"description": null, "complete": true}), json!({"title": "t"})]
    {
        alice.on_task("PATCH", id).json(change.clone()).send().expect(200);
        let (task, tag) = tagged(alice, id);
        let again = create(alice, "k", &body).send().expect(201);
        assert_eq!(again.field("Idempotent-Replayed"), Some("true"), "{change}");
        assert_eq!((again.json(), again.field("ETag")), (task.clone(), Some(tag.as_str())), "{change}");
        // The body of the first request counts, not the present task.
        let as_now = json!({"title": task["title"], "description": task["description"],
            "complete": task["complete"]});
        create(alice, "k", &as_now).send().expect_problem(422, "IDEMPOTENCY_KEY_REUSED");
    }
}

#[test]
fn deleting_the_task_frees_the_key() {
    let app = App::spawn();
    let alice = app.user("alice");
    let mut ids = Vec::new();
    for round in 0..3 {
        // The freed key also accepts another body.
        let body = json!({"title": format!("t{round}")});
        let (id, is_replay) = outcome(create(alice, "k", &body).send());
        assert!(!is_replay && !ids.contains(&id), "{id} {ids:?}");
        assert_eq!(outcome(create(alice, "k", &body).send()), (id, true));
        alice.on_task("DELETE", id).send().expect(204);
        ids.push(id);
    }
    assert_eq!(alice.list()["count"], 0);
}

#[test]
fn a_key_is_the_users_own() {
    let app = App::spawn();
    let mut ids = Vec::new();
    for (user_id, body) in
        [("alice", json!({"title": "t"})), ("bob", json!({"title": "t"})), ("eve", json!({"title": "u"}))]
    {
        let (id, is_replay) = outcome(create(app.user(user_id), "k", &body).send());
        assert!(!is_replay, "{user_id}");
        assert_eq!(outcome(create(app.user(user_id), "k", &body).send()), (id, true));
        ids.push(id);
    }
    app.user("bob").on_task("DELETE", ids[1]).send().expect(204);
    assert_eq!(outcome(create(app.user("alice"), "k", &json!({"title": "t"})).send()), (ids[0], true));
}

#[test]
fn bodies_are_compared_as_values_not_as_bytes() {
    let app = App::spawn();
    let alice = app.user("alice");
    let send = |key: &str, body: &str| {
        alice.request("POST", "/tasks").header("Idempotency-Key", key).text(body).send()
    };
    let full = r#"{"title":"Gr\u00fc\u00dfe/\"1\" 🙂","description":"d","complete":false}"#;
    let bare = r#"{"title":"t"}"#;
    for (key, first, equal, unequal) in [
        (
            "full",
            full,
            &[
                full,
                r#"{"complete":false,"description":"d","title":"Gr\u00fc\u00dfe/\"1\" 🙂"}"#,
                "\t{ \"title\" :\n\"Grüße/\\\"1\\\" 🙂\" , \"description\":\"d\",\r\n\"complete\":false } ",
                r#"{"title":"\u0047r\u00FC\u00dfe\/\u00221\" \ud83d\ude42","description":"\u0064"}"#,
                r#"{"\u0074itle":"Grüße/\"1\" 🙂","description":"d","id":7,"x":{"title":"z"},"x":1}"#,
            ][..],
            &[
                r#"{"title":"grüße/\"1\" 🙂","description":"d"}"#,
                r#"{"title":"Grüße/\"1\" 🙂 ","description":"d"}"#,
                // The same text in decomposed characters.
                r#"{"title":"Gru\u0308ße/\"1\" 🙂","description":"d"}"#,
                r#"{"title":"Grüße/\"1\" 🙂","description":"d","complete":true}"#,
                r#"{"title":"Grüße/\"1\" 🙂","description":"d "}"#,
                r#"{"title":"Grüße/\"1\" 🙂","description":""}"#,
                r#"{"title":"Grüße/\"1\" 🙂","description":null}"#,
                r#"{"title":"Grüße/\"1\" 🙂"}"#,
            ][..],
        ),
        (
            "bare",
            bare,
            &[
                bare,
                r#"{"title":"t","description":null}"#,
                r#"{"title":"t","complete":false}"#,
                r#"{"complete":false,"description":null,"title":"t"}"#,
            ],
            &[
                r#"{"title":"t","description":""}"#,
                r#"{"title":"t","description":"null"}"#,
                r#"{"title":"t","complete":true}"#,
                r#"{"title":"T"}"#,
            ],
        ),
        (
            "parts",
            r#"{"title":"a","description":"bc"}"#,
            &[],
            &[
                r#"{"title":"ab","description":"c"}"#,
                r#"{"title":"a, bc"}"#,
                r#"{"title":"a\", \"bc"}"#,
                r#"{"title":"bc","description":"a"}"#,
            ],
        ),
    ] {
        let (id, is_replay) = outcome(send(key, first));
        assert!(!is_replay);
        for body in equal {
            assert_eq!(outcome(send(key, body)), (id, true), "{body}");
        }
        for body in unequal {
            send(key, body).expect_problem(422, "IDEMPOTENCY_KEY_REUSED");
        }
        assert_eq!(outcome(send(key, first)), (id, true));
    }
    assert_eq!(count(&app, "alice"), "3");
}

#[test]
fn a_key_is_1_to_255_visible_ascii_characters() {
    let app = App::spawn();
    let alice = app.user("alice");
    let body = json!({"title": "t"});
    let visible: String = ('!'..='~').collect();
    let longest = "k".repeat(255);
    for good in [
        "0",
        "a,b",
        "\"quoted\"",
        "W/\"k\"",
        "%20",
        "../..",
        "';drop/**/table/**/tasks;--",
        &visible,
        &longest,
    ] {
        let (id, is_replay) = outcome(create(alice, good, &body).send());
        assert!(!is_replay, "{good}");
        assert_eq!(outcome(create(alice, good, &body).send()), (id, true), "{good}");
        // White space around a field's value is none of it (RFC 9110 section 5.5).
        assert_eq!(outcome(create(alice, &format!(" \t{good}\t "), &body).send()), (id, true), "{good}");
    }
    let count_before = count(&app, "alice");
    for (case, bad) in [
        ("empty", String::new()),
        ("white space alone", " \t ".to_owned()),
        ("256 characters", "k".repeat(256)),
        ("4000 characters", "k".repeat(4000)),
        ("a space", "a b".to_owned()),
        ("a tab", "a\tb".to_owned()),
        ("two bytes", "\u{e9}".to_owned()),
        ("four bytes", "k\u{1F600}".to_owned()),
        ("a space of Unicode", "a\u{a0}b".to_owned()),
    ] {
        let response = create(alice, &bad, &body).send();
        let response = response.expect_problem(422, "VALIDATION_ERROR");
        let locs: Vec<_> = response.field_errors().into_iter().map(|(loc, _)| loc).collect();
        assert_eq!(locs, ["header.Idempotency-Key"], "{case}");
        // The error of the key is reported together with the errors of the body.
        let both = create(alice, &bad, &json!({"title": "", "complete": 1})).send();
        let locs: Vec<_> = both.expect(422).field_errors().into_iter().map(|(loc, _)| loc).collect();
        assert_eq!(locs, ["body.complete", "body.title", "header.Idempotency-Key"], "{case}");
    }
    // Bytes that are not valid in UTF-8; and control characters, which no field may contain (RFC 9110 section 5.5).
    for (byte, wanted) in [(0xff, 422), (0x80, 422), (0x00, 400), (0x01, 400), (0x1b, 400), (0x7f, 400)] {
        let mut bytes = create(alice, "a#b", &body).bytes();
        let place = bytes.windows(3).position(|three| three == b"a#b").unwrap() + 1;
        bytes[place] = byte;
        let mut connection = Connection::open(&app.address).unwrap();
        connection.write(&bytes);
        let response = connection.read("POST").unwrap();
        response.hold_to_the_rules("POST", "/api/alice/tasks");
        assert_eq!(response.status, wanted, "{byte:#x}");
    }
    // Two fields are refused, even if their values are equal.
    for (first, second) in [("a", "b"), ("a", "a"), ("a", ""), ("", "")] {
        let request = create(alice, first, &body).header("idempotency-key", second);
        let response = request.send().expect_problem(400, "VALIDATION_ERROR");
        assert_eq!(response.field_errors()[0].0, "header.Idempotency-Key", "{first:?} {second:?}");
    }
    assert_eq!(count(&app, "alice"), count_before);
}

#[test]
fn a_refused_request_uses_no_key_up() {
    let app = App::spawn();
    let alice = app.user("alice");
    for (key, body, status) in [
        ("title", json!({"title": ""}), 422),
        ("object", json!([]), 400),
        ("complete", json!({"title": "t", "complete": null}), 422),
    ] {
        create(alice, key, &body).send().expect(status);
        assert!(!outcome(create(alice, key, &json!({"title": "good"})).send()).1, "{key}");
        // When the key is used again, the body's error is reported first.
        create(alice, key, &body).send().expect_problem(status, "VALIDATION_ERROR");
    }
    app.post("/api/alice/tasks")
        .header("Idempotency-Key", "t")
        .json(json!({"title": "t"}))
        .send()
        .expect(401);
    assert!(!outcome(create(alice, "t", &json!({"title": "u"})).send()).1);
}

#[test]
fn a_key_means_nothing_to_other_methods() {
    let app = App::spawn();
    let alice = app.user("alice");
    let id = alice.create_id();
    for title in ["one", "two"] {
        let request = alice.on_task("PATCH", id).header("Idempotency-Key", "k").json(json!({"title": title}));
        let response = request.send().expect(200);
        assert_eq!(response.field("Idempotent-Replayed"), None);
        assert_eq!(alice.task(id)["title"], title);
    }
    alice.on_task("GET", id).header("Idempotency-Key", "not good").send().expect(200);
}

/// All clients send their requests at the same moment.
#[test]
fn one_key_many_times_at_once_on_two_instances_makes_one_task() {
    const CLIENTS: usize = 24;
    const ROUNDS: usize = 15;
    let apps = {
        let first = App::spawn();
        let second = second_instance(&first);
        // The second instance is dropped before the first, which owns the database.
        [second, first]
    };
    let start = Barrier::new(CLIENTS);
    let outcomes = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|index| {
                let (start, app) = (&start, &apps[index % 2]);
                scope.spawn(move || {
                    let mut connection = Connection::open(&app.address).unwrap();
                    (0..ROUNDS)
                        .map(|round| {
                            let body = json!({"title": format!("round {round}")});
                            let request = create(app.user("alice"), &format!("key-{round}"), &body);
                            start.wait();
                            connection.write(&request.bytes());
                            outcome(connection.read("POST").unwrap())
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    for round in 0..ROUNDS {
        let (id, _) = outcomes[0][round];
        assert!(outcomes.iter().all(|outcomes| outcomes[round].0 == id), "round {round}: {outcomes:?}");
        let first = outcomes.iter().filter(|outcomes| !outcomes[round].1).count();
        assert_eq!(first, 1, "round {round}: {outcomes:?}");
    }
    assert_eq!(count(&apps[1], "alice"), ROUNDS.to_string());
}

/// The test itself uses the key at that moment, in a transaction that it
/// holds open until the requests wait for it.
#[test]
fn a_create_waits_for_what_is_being_done_with_its_key() {
    let first = App::spawn();
    let second = second_instance(&first);
    let body = json!({"title": "t", "description": "d"});
    let insert = "insert into tasks (user_id, title, description, idempotency_key, idempotency_hash) \
                  select user_id, title, description, 'k', idempotency_hash from tasks \
                  where idempotency_key = 'model'";
    let insert_other = "insert into tasks (user_id, title, idempotency_key, idempotency_hash) \
                        values ('alice', 'another', 'k', '')";
    let delete = "delete from tasks where idempotency_key = 'k'";
    let patch = "update tasks set title = 'patched' where idempotency_key = 'k'";
    for (case, exists, statement, is_committed, status, replays, title) in [
        ("another creates it", false, insert, true, 201, 4, "t"),
        ("another gives up creating it", false, insert, false, 201, 3, "t"),
        ("another creates it from another body", false, insert_other, true, 422, 0, ""),
        ("another deletes the task", true, delete, true, 201, 3, "t"),
        ("another gives up deleting the task", true, delete, false, 201, 4, "t"),
        ("another changes the task", true, patch, true, 201, 4, "patched"),
    ] {
        first.database.execute("truncate tasks");
        outcome(create(first.user("alice"), "model", &body).send());
        if exists {
            outcome(create(first.user("alice"), "k", &body).send());
        }
        let held = Held::by(&first.database, statement);
        assert_eq!(held.rows, 1, "{case}");
        let responses = thread::scope(|scope| {
            let clients = [&first, &second, &first, &second].map(|app| {
                let request = create(app.user("alice"), "k", &body);
                scope.spawn(move || request.send())
            });
            first.database.wait_until_blocked(4);
            if is_committed {
                held.commit();
            } else {
                held.release();
            }
            clients.map(|client| client.join().unwrap())
        });
        if status == 422 {
            for response in responses {
                response.expect_problem(422, "IDEMPOTENCY_KEY_REUSED");
            }
            continue;
        }
        let outcomes = responses.map(outcome);
        assert!(outcomes.iter().all(|(id, _)| *id == outcomes[0].0), "{case}: {outcomes:?}");
        let seen = outcomes.iter().filter(|(_, is_replay)| *is_replay).count();
        assert_eq!(seen, replays, "{case}: {outcomes:?}");
        assert_eq!(first.user("alice").task(outcomes[0].0)["title"], title, "{case}");
        assert_eq!(count(&first, "alice"), "2", "{case}");
    }
}

#[test]
fn creating_and_deleting_with_one_key_at_once_never_makes_two() {
    let app = App::spawn();
    let body = json!({"title": "t"});
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let response = create(app.user("alice"), "k", &body).send();
                    // Rarely, the key is used and freed too often meanwhile.
                    if response.status == 503 {
                        continue;
                    }
                    let (id, _) = outcome(response);
                    let list = app.user("alice").list();
                    assert!(list["count"].as_i64().unwrap() <= 1, "{list}");
                    let status = app.user("alice").on_task("DELETE", id).send().status;
                    assert!([204, 404].contains(&status), "{status}");
                }
            });
        }
    });
    assert!(["0", "1"].contains(&count(&app, "alice").as_str()));
}
