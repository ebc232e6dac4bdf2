//! The two bulk routes of the contract: PATCH and DELETE on a user's tasks.

use crate::support::{
    harness::{App, Database, User},
    http::{Connection, Request},
    tasks::{get, insert_many, tagged},
    token::{segment, token},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, thread};

fn patch(user: User, query: &str, complete: bool) -> Request {
    user.request("PATCH", &format!("/tasks{query}")).json(json!({"complete": complete}))
}

fn delete(user: User, query: &str) -> Request {
    user.request("DELETE", &format!("/tasks{query}"))
}

/// The PATCH and the DELETE request with this query.
fn both(user: User, query: &str) -> [Request; 2] {
    [patch(user, query, true), delete(user, query)]
}

fn count(request: &Request) -> u64 {
    let response = request.send().expect(200);
    assert_eq!(response.field("Cache-Control"), Some("no-store"));
    assert_eq!(response.field("ETag"), None);
    let json = response.json();
    assert_eq!(json.as_object().unwrap().len(), 1, "{json}");
    json["count"].as_u64().expect("a count")
}

fn all(user: User) -> Vec<Value> {
    user.list()["tasks"].as_array().unwrap().clone()
}

/// Creates some tasks of this user.
fn create_some(user: User) {
    for (title, description, complete) in [
        ("Buy milk", None, false),
        ("buy bread", Some("and MILK"), true),
        ("100% sure", None, false),
        ("call", Some("100 times"), true),
        ("MILK again", Some(""), true),
        ("write", None, false),
    ] {
        let body = json!({"title": title, "description": description, "complete": complete});
        user.post(body).expect(201);
    }
}

const QUERIES: [(&str, &[usize]); 12] = [
    ("?complete=true", &[1, 3, 4]),
    ("?complete=false", &[0, 2, 5]),
    ("?complete=true&q=milk", &[1, 4]),
    ("?q=MILK&complete=false", &[0]),
    ("?complete=false&q=100%25", &[2]),
    ("?complete=true&q=100%25", &[]),
    ("?complete=true&q=_", &[]),
    ("?complete=false&q=buy+milk", &[0]),
    ("?%63omplete=tr%75e&%71=%6dilk", &[1, 4]),
    ("?complete=true&_=123&__q=x", &[1, 3, 4]),
    ("?complete=false&q=a&", &[]),
    ("?complete=true&q=nothing", &[]),
];

#[test]
fn a_bulk_change_sets_complete_of_all_that_the_parameters_choose() {
    let app = App::spawn();
    create_some(app.user("bob"));
    let bobs = all(app.user("bob"));
    for (query, chosen) in QUERIES {
        for complete in [true, false] {
            let user_id = format!("{query} {complete}");
            let user = app.user(&user_id);
            create_some(user);
            let before = all(user);
            assert_eq!(count(&patch(user, query, complete)), chosen.len() as u64, "{user_id}");
            let after = all(user);
            assert_eq!(after.len(), before.len(), "{user_id}");
            for (index, (old, new)) in before.iter().zip(&after).enumerate() {
                if !chosen.contains(&index) {
                    assert_eq!(new, old, "{user_id}");
                    continue;
                }
                assert_is_later(old, new);
                let mut wanted = old.clone();
                for (name, value) in [
                    ("complete", json!(complete)),
                    ("updated_at", new["updated_at"].clone()),
                    ("etag", new["etag"].clone()),
                ] {
                    wanted[name] = value;
                }
                assert_eq!(*new, wanted, "{user_id}");
                let shown = tagged(user, new["id"].as_i64().unwrap());
                assert_eq!(shown, (new.clone(), new["etag"].as_str().unwrap().to_owned()), "{user_id}");
            }
        }
    }
    assert_eq!(all(app.user("bob")), bobs, "another user's");
}

/// Asserts that `new` is a later version of the task `old`.
fn assert_is_later(old: &Value, new: &Value) {
    // All instants have the same form, so their texts sort as they do.
    assert!(new["updated_at"].as_str() > old["updated_at"].as_str(), "{old} {new}");
    assert_ne!(new["etag"], old["etag"], "{old} {new}");
}

#[test]
fn a_bulk_deletion_deletes_all_that_the_parameters_choose() {
    let app = App::spawn();
    create_some(app.user("bob"));
    let bobs = all(app.user("bob"));
    for (query, chosen) in QUERIES {
        let user = app.user(query);
        create_some(user);
        let before = all(user);
        assert_eq!(count(&delete(user, query)), chosen.len() as u64, "{query}");
        let wanted: Vec<_> = before.iter().enumerate().filter(|(index, _)| !chosen.contains(index)).collect();
        let wanted: Vec<_> = wanted.into_iter().map(|(_, task)| task.clone()).collect();
        assert_eq!(all(user), wanted, "{query}");
        // The second time there is nothing left to delete.
        assert_eq!(count(&delete(user, query)), 0, "{query}");
    }
    assert_eq!(all(app.user("bob")), bobs, "another user's");
}

#[test]
fn many_are_changed_and_deleted_by_one_request() {
    let app = App::spawn();
    let alice = app.user("alice");
    insert_many(&app.database, "alice", 1234, 1000);
    insert_many(&app.database, "bob", 10, 0);
    let (complete, open) = (1234 / 3, 1234 - 1234 / 3);
    assert_eq!(count(&patch(alice, "?complete=false", true)), open);
    assert_eq!(count(&patch(alice, "?complete=false", true)), 0);
    assert_eq!(count(&patch(alice, "?complete=true", false)), complete + open);
    let found = (1..=1234).filter(|number| number.to_string().contains("99")).count() as u64;
    assert_eq!(count(&patch(alice, "?complete=false&q=99", true)), found);
    assert_eq!(count(&delete(alice, "?complete=true")), found);
    assert_eq!(get(alice, "?totals=true&limit=1").json()["totals"]["all"], 1234 - found);
    assert_eq!(count(&delete(alice, "?complete=false")), 1234 - found);
    assert_eq!(app.user("bob").list()["count"], 10);
}

/// `updated_at` moves on whatever the clock does, in rows of the future too.
#[test]
fn a_bulk_change_is_later_than_the_one_before_also_when_the_clock_is_not() {
    let app = App::spawn();
    let alice = app.user("alice");
    create_some(alice);
    app.database.execute("update tasks set updated_at = updated_at + interval '1 year'");
    for complete in [true, true, false] {
        let before = all(alice);
        for state in [!complete, complete] {
            count(&patch(alice, &format!("?complete={state}"), complete));
        }
        for (old, new) in before.iter().zip(&all(alice)) {
            assert_is_later(old, new);
        }
    }
}

#[test]
fn the_parameters_are_complete_and_q_and_no_other() {
    let app = App::spawn();
    let alice = app.user("alice");
    create_some(alice);
    let before = all(alice);
    let long = segment(&"x".repeat(201));
    let long = format!("?complete=true&q={long}");
    for (query, names) in [
        ("", &["complete"][..]),
        ("?", &["complete"]),
        ("?q=milk", &["complete"]),
        ("?_complete=true", &["complete"]),
        ("?complete", &["complete"]),
        ("?complete=", &["complete"]),
        ("?complete=True", &["complete"]),
        ("?complete=1", &["complete"]),
        ("?complete=true,false", &["complete"]),
        ("?complete=true&complete=true", &["complete"]),
        ("?complete=true&complete=false", &["complete"]),
        ("?complete=true&%63omplete=true", &["complete"]),
        ("?complete=true&q=", &["q"]),
        ("?complete=true&q=a&q=a", &["q"]),
        ("?complete=true&q=%00", &["q"]),
        ("?complete=true&q=%ff", &["q"]),
        (long.as_str(), &["q"]),
        ("?complete=x&q=", &["complete", "q"]),
        ("?complete=true&limit=5", &["limit"]),
        ("?complete=true&order=asc", &["order"]),
        ("?complete=true&offset=0", &["offset"]),
        ("?complete=true&after=1", &["after"]),
        ("?complete=true&cursor=x", &["cursor"]),
        ("?complete=true&totals=true", &["totals"]),
        ("?complete=true&ids=1,2", &["ids"]),
        ("?complete=true&Q=milk", &["Q"]),
        ("?Complete=true", &["Complete", "complete"]),
        ("?completed=true&q=", &["completed", "complete", "q"]),
        ("?limit=0&order=x&q=milk", &["limit", "order", "complete"]),
    ] {
        for request in both(alice, query) {
            let context = format!("{} {query}", request.method);
            let response = request.send();
            assert_eq!(response.status, 422, "{context}: {}", response.text());
            let locs: BTreeSet<_> = response.field_errors().into_iter().map(|(loc, _)| loc).collect();
            let wanted: BTreeSet<_> = names.iter().map(|name| format!("query.{name}")).collect();
            assert_eq!(locs, wanted, "{context}: {}", response.text());
        }
    }
    assert_eq!(all(alice), before, "a refused request changes nothing");
}

#[test]
fn an_unknown_parameter_is_named_with_those_that_are_known() {
    let app = App::spawn();
    let alice = app.user("alice");
    for name in ["limit", "order", "offset", "after", "cursor", "totals", "sort", "complet"] {
        for request in both(alice, &format!("?complete=true&{name}=5")) {
            let response = request.send().expect_problem(422, "VALIDATION_ERROR");
            let error = &response.json()["errors"][0];
            assert_eq!(error["loc"], json!(["query", name]));
            assert_eq!(error["type"], "unknown");
            let msg = error["msg"].as_str().unwrap();
            let words: BTreeSet<&str> =
                msg.split(|char: char| !char.is_ascii_alphabetic()).filter(|word| *word != name).collect();
            assert!(words.contains("complete") && words.contains("q"), "{msg}");
            for other in ["limit", "order", "offset", "after", "cursor", "totals"] {
                assert!(!words.contains(other), "{msg}");
            }
        }
    }
}

#[test]
fn the_body_of_a_bulk_change_has_complete_and_what_else_it_has_is_ignored() {
    let app = App::spawn();
    let alice = app.user("alice");
    create_some(alice);
    let target = "/tasks?complete=true";
    let before = all(alice);
    let padded = crate::support::http::padded(r#"{"complete": true}"#, 64 * 1024 + 1);
    for (body, status, errors) in [
        ("", 400, &[("body", "json_invalid")][..]),
        ("{", 400, &[("body", "json_invalid")]),
        ("[true]", 400, &[("body", "object_type")]),
        ("true", 400, &[("body", "object_type")]),
        ("null", 400, &[("body", "object_type")]),
        ("{}", 400, &[("body", "no_fields")]),
        (r#"{"title": "x"}"#, 400, &[("body", "no_fields")]),
        (r#"{"title": "x", "description": null}"#, 400, &[("body", "no_fields")]),
        (r#"{"completed": true}"#, 400, &[("body", "no_fields")]),
        (r#"{"complete": null}"#, 422, &[("body.complete", "null")]),
        (r#"{"complete": "true"}"#, 422, &[("body.complete", "bool_type")]),
        (r#"{"complete": 1}"#, 422, &[("body.complete", "bool_type")]),
        (r#"{"complete": true, "complete": true}"#, 422, &[("body.complete", "duplicate")]),
    ] {
        let response = alice.request("PATCH", target).text(body).send();
        assert_eq!(response.status, status, "{body}: {}", response.text());
        let wanted: Vec<_> =
            errors.iter().map(|(loc, kind)| ((*loc).to_owned(), (*kind).to_owned())).collect();
        assert_eq!(response.field_errors(), wanted, "{body}: {}", response.text());
    }
    // Errors of the query and of the body come together.
    let response = alice.request("PATCH", "/tasks?complete=x&limit=1").text(r#"{"complete": null}"#).send();
    let locs: Vec<_> = response.expect(422).field_errors().into_iter().map(|(loc, _)| loc).collect();
    assert_eq!(locs, ["body.complete", "query.complete", "query.limit"]);
    for media_type in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let request = alice.request("PATCH", target).body(r#"{"complete": true}"#);
        let request =
            if media_type.is_empty() { request } else { request.header("Content-Type", media_type) };
        let response = request.send().expect_problem(415, "UNSUPPORTED_MEDIA_TYPE");
        assert_eq!(response.list("Accept"), ["application/json", "application/merge-patch+json"]);
    }
    let encoded = alice.request("PATCH", target).text(r#"{"complete": true}"#);
    encoded.header("Content-Encoding", "gzip").send().expect_problem(415, "UNSUPPORTED_MEDIA_TYPE");
    alice.request("PATCH", target).text(padded).send().expect_problem(413, "PAYLOAD_TOO_LARGE");
    assert_eq!(all(alice), before, "a refused request changes nothing");

    for (body, media_type) in [
        (r#"{"complete": true}"#, "application/merge-patch+json"),
        (r#"{"complete": true, "id": 1, "user_id": "bob"}"#, "Application/JSON; charset=utf-8"),
        (r#"{"title": "gone", "description": "gone", "complete": true}"#, "application/json"),
        (r#"{"x": {"complete": false}, "complete": true}"#, "application/json"),
    ] {
        let request = alice.request("PATCH", target).body(body).header("Content-Type", media_type);
        assert_eq!(count(&request), 3, "{body}");
    }
    let content = |tasks: &[Value]| -> Vec<_> {
        tasks
            .iter()
            .map(|task| ["id", "title", "description", "complete"].map(|name| task[name].clone()))
            .collect()
    };
    assert_eq!(content(&all(alice)), content(&before));
}

#[test]
fn the_order_of_checks_is_that_of_every_route() {
    let app = App::spawn();
    let alice = app.user("alice");
    create_some(alice);
    let before = all(alice);
    for method in ["PATCH", "DELETE"] {
        for query in ["?complete=true", "", "?limit=1"] {
            let target = format!("/api/alice/tasks{query}");
            let request = || app.request(method, &target).text("{");
            request().send().expect_problem(401, "AUTH_MISSING");
            request().bearer("x").send().expect_problem(401, "AUTH_INVALID");
            request().bearer(&token("bob")).send().expect_problem(403, "AUTH_FORBIDDEN");
        }
        let target = "/api/alice/tasks/?complete=true";
        app.request(method, target).bearer(&token("alice")).send().expect_problem(404, "NOT_FOUND");
    }
    assert_eq!(all(alice), before);
}

#[test]
fn preconditions_do_not_apply() {
    for strict in ["false", "true"] {
        let app = App::setup().env("REQUIRE_IF_MATCH", strict).spawn();
        let alice = app.user("alice");
        for (name, value) in [
            ("", ""),
            ("If-Match", "\"x\""),
            ("If-Match", "x"),
            ("If-None-Match", "*"),
            ("If-None-Match", "\"x\""),
        ] {
            alice.create("t");
            for request in [patch(alice, "?complete=false", true), delete(alice, "?complete=true")] {
                let request = if name.is_empty() { request } else { request.header(name, value) };
                assert_eq!(count(&request), 1, "{strict} {name}: {value}");
            }
        }
    }
}

/// A row may be older than the table's constraints, so that PostgreSQL refuses every change of it.
#[test]
fn a_bulk_change_that_cannot_be_done_whole_is_not_done_at_all() {
    let database = Database::create();
    database.execute(
        "create table tasks (id serial primary key, user_id varchar(255) not null, title varchar(200) not null, \
           description varchar(1000), complete boolean not null, created_at timestamp not null, \
           updated_at timestamp not null); \
         insert into tasks (user_id, title, complete, created_at, updated_at) \
         select 'alice', case number when 250 then '  ' else 'good' end, false, now(), now() \
         from generate_series(1, 500) as number",
    );
    let app = App::setup().database(database).with_old_rows().spawn();
    let alice = app.user("alice");
    let before = all(alice);
    assert_eq!(before.len(), 500);
    let response = patch(alice, "?complete=false", true).send();
    if response.status == 200 {
        // If PostgreSQL makes the change, it must make all of it.
        assert_eq!(response.json()["count"], 500);
        return assert!(all(alice).iter().all(|task| task["complete"] == true));
    }
    let response = response.expect_problem(422, "VALIDATION_ERROR");
    assert!(response.field_errors().iter().all(|(loc, _)| loc == "body.title"), "{}", response.text());
    assert_eq!(all(alice), before, "a part was changed");
    // A bulk change that does not select that row succeeds.
    assert_eq!(count(&patch(alice, "?complete=false&q=good", true)), 499);
    assert_eq!(count(&delete(alice, "?complete=false")), 1);
    assert_eq!(count(&delete(alice, "?complete=true")), 499);
}

#[test]
fn a_bulk_deletion_frees_the_idempotency_keys() {
    let app = App::spawn();
    let alice = app.user("alice");
    let create = || {
        let request = alice.request("POST", "/tasks").header("Idempotency-Key", "k");
        request.json(json!({"title": "t"})).send().expect(201)
    };
    let first = create();
    assert_eq!(count(&patch(alice, "?complete=false", true)), 1);
    let again = create();
    assert_eq!(again.field("Idempotent-Replayed"), Some("true"));
    assert_eq!((&again.json()["id"], &again.json()["complete"]), (&first.json()["id"], &json!(true)));
    assert_eq!(count(&delete(alice, "?complete=true")), 1);
    let fresh = create();
    assert_eq!(fresh.field("Idempotent-Replayed"), None);
    assert_ne!(fresh.json()["id"], first.json()["id"]);
}

#[test]
fn both_methods_are_named_where_the_methods_of_the_path_are() {
    const METHODS: [&str; 6] = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST"];
    let app = App::spawn();
    let target = "/api/alice/tasks?complete=true";
    let options = app.request("OPTIONS", target).send().expect(204);
    assert_eq!(options.list("Allow"), METHODS);
    assert_eq!(options.list("Accept-Patch"), ["application/json", "application/merge-patch+json"]);
    for method in ["PUT", "TRACE", "QUERY", "CONNECT", "X-Y"] {
        let response = app.request(method, target).send().expect_problem(405, "METHOD_NOT_ALLOWED");
        assert_eq!(response.list("Allow"), METHODS, "{method}");
    }
    let preflight = app.request("OPTIONS", target).header("Origin", "http://localhost:3000");
    let preflight = preflight.header("Access-Control-Request-Method", "PATCH").send().expect(204);
    let methods = preflight.list("Access-Control-Allow-Methods");
    assert!(["DELETE", "GET", "PATCH", "POST"].iter().all(|method| methods.contains(method)), "{methods:?}");
    let patched = patch(app.user("alice"), "?complete=true", false).header("Origin", "http://localhost:3000");
    let patched = patched.send().expect(200);
    assert_eq!(patched.field("Access-Control-Allow-Origin"), Some("http://localhost:3000"));
}

const ROUNDS: usize = 25;

/// Creates complete tasks and open ones, changes some, and deletes some of its own one by one. Returns
/// how many it has created, and how many it has deleted.
fn work_singly(app: &App, number: usize) -> (u64, u64) {
    let alice = app.user("alice");
    let mut connection = Connection::open(&app.address).unwrap();
    let mut send = |request: Request| {
        connection.write(&request.bytes());
        connection.read(&request.method).unwrap()
    };
    let (mut created, mut deleted) = (0, 0);
    for round in 0..ROUNDS {
        let body = json!({"title": format!("{number} {round}"), "complete": round % 3 == 0});
        let task = send(alice.request("POST", "/tasks").json(body)).expect(201).json();
        created += 1;
        let id = task["id"].as_i64().unwrap();
        let change = alice.on_task("PATCH", id).json(json!({"description": "changed"}));
        let change = match round % 2 {
            0 => change,
            _ => change.header("If-Match", task["etag"].as_str().unwrap()),
        };
        let changed = send(change);
        assert!([200, 404, 412].contains(&changed.status), "{changed:?}");
        if round % 4 == 0 {
            let gone = send(alice.on_task("DELETE", id));
            assert!([204, 404].contains(&gone.status), "{gone:?}");
            deleted += u64::from(gone.status == 204);
        }
    }
    (created, deleted)
}

/// Sends bulk requests of one kind. Returns the sum of their counts.
fn work_in_bulk(app: &App, request: &Request) -> u64 {
    let mut connection = Connection::open(&app.address).unwrap();
    let counts = (0..ROUNDS).map(|_| {
        connection.write(&request.bytes());
        let response = connection.read(&request.method).unwrap().expect(200);
        response.json()["count"].as_u64().unwrap()
    });
    counts.sum()
}

#[test]
fn bulk_and_single_requests_at_once_lose_nothing_and_none_fails() {
    let app = App::spawn();
    let alice = app.user("alice");
    // These tasks are changed and never deleted. There are enough of them for two statements to overlap.
    insert_many(&app.database, "alice", 400, 0);
    app.database.execute("update tasks set description = 'stays'");
    let changes = [
        patch(alice, "?complete=false&q=stays", true),
        patch(alice, "?complete=true&q=stays", false),
        patch(alice, "?complete=true&q=stays", true),
    ];
    let deletion = delete(alice, "?complete=true&q=changed");
    let (created, deleted) = thread::scope(|scope| {
        for change in &changes {
            scope.spawn(|| work_in_bulk(&app, change));
        }
        let in_bulk = [(); 2].map(|()| scope.spawn(|| work_in_bulk(&app, &deletion)));
        let singly: Vec<_> = (0..3)
            .map(|number| {
                let app = &app;
                scope.spawn(move || work_singly(app, number))
            })
            .collect();
        let mut sums = (0, 0);
        for one in singly {
            let (created, deleted) = one.join().unwrap();
            sums = (sums.0 + created, sums.1 + deleted);
        }
        for one in in_bulk {
            sums.1 += one.join().unwrap();
        }
        sums
    });
    let list = get(alice, "?totals=true").expect(200).json();
    assert_eq!(list["totals"]["all"], 400 + created - deleted, "{created} created, {deleted} deleted");
    let stays = get(alice, "?totals=true&limit=1&q=stays").expect(200).json();
    assert_eq!(stays["totals"]["all"], 400);
}
