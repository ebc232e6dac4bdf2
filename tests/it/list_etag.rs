//! "List parameters" in the contract: the entity tag of a list, and 304.

use crate::support::{
    harness::{App, User},
    http::{Connection, Request, Response},
    instances::second_instance,
    tasks::{get, ids, insert_many, next},
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

const ORIGIN: &str = "http://localhost:3000";
/// The longest list that is sent in one piece without `limit`.
const WHOLE_TASKS_MAX: usize = 128;

#[track_caller]
fn tag(response: &Response) -> String {
    let tag = response.field("ETag").expect("ETag");
    assert!(tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"'), "no strong tag: {tag}");
    assert_eq!(response.field("Cache-Control"), Some("private, no-cache"));
    tag.to_owned()
}

#[test]
fn a_list_in_one_piece_has_a_tag_and_a_longer_one_has_none() {
    let app = App::spawn();
    for count in [0, 1, 127, 128, 129, 300] {
        let user_id = format!("user-{count}");
        let user = app.user(&user_id);
        insert_many(&app.database, &user_id, count, 0);
        for query in [
            "",
            "?totals=true",
            "?complete=true",
            "?complete=false&q=1",
            "?order=-id",
            "?order=title",
            "?order=-updated&offset=2",
            "?offset=172",
            "?offset=171",
            "?limit=1",
            "?limit=1000",
            "?limit=129&order=title",
            "?limit=7&offset=400",
        ] {
            let get = get(user, query).expect(200);
            let sent = ids(&get).len();
            let head = user.request("HEAD", &format!("/tasks{query}")).send().expect(200);
            let context = format!("{count} tasks {query}, {sent} sent");
            let has_limit = query.contains("limit");
            if has_limit || sent <= WHOLE_TASKS_MAX {
                assert_eq!(tag(&head), tag(&get), "{context}");
                assert_eq!(
                    head.field("Content-Length"),
                    Some(get.body.len().to_string().as_str()),
                    "{context}"
                );
            } else {
                for response in [&get, &head] {
                    assert_eq!(response.field("ETag"), None, "{context}");
                    assert_eq!(response.field("Cache-Control"), Some("no-store"), "{context}");
                }
                // A tag is then that of something else.
                let other = user.request("GET", &format!("/tasks{query}")).header("If-None-Match", "\"x\"");
                assert_eq!(ids(&other.send().expect(200)).len(), sent, "{context}");
            }
        }
    }
}

#[test]
fn if_none_match_gives_304_with_the_same_fields() {
    let app = App::spawn();
    let alice = app.user("alice");
    insert_many(&app.database, "alice", 5, 0);
    for query in ["", "?limit=2", "?limit=2&totals=true&order=title", "?q=nothing", "?complete=true"] {
        for method in ["GET", "HEAD"] {
            let request = || alice.request(method, &format!("/tasks{query}")).header("Origin", ORIGIN);
            let fresh = request().send().expect(200);
            let tag = tag(&fresh);
            for value in [
                tag.clone(),
                format!("W/{tag}"),
                "*".to_owned(),
                format!("\"x\", {tag}"),
                format!("W/\"x\",{tag},\"y\""),
            ] {
                let same = request().header("If-None-Match", &value).send().expect(304);
                for name in [
                    "ETag",
                    "Cache-Control",
                    "Vary",
                    "Content-Location",
                    "Access-Control-Allow-Origin",
                    "Access-Control-Allow-Credentials",
                    "Access-Control-Expose-Headers",
                ] {
                    assert_eq!(same.field(name), fresh.field(name), "{method} {query} {value}: {name}");
                }
                assert_eq!(same.field("Access-Control-Allow-Origin"), Some(ORIGIN));
            }
            let two = request().header("If-None-Match", "\"x\"").header("If-None-Match", &tag);
            two.send().expect(304);
            for value in ["\"x\"", "", "x", &tag[1..tag.len() - 1], "\"*\"", &format!("w/{tag}")] {
                let other = request().header("If-None-Match", value).send().expect(200);
                assert_eq!(other.body, fresh.body, "{method} {query} {value}");
            }
        }
    }
}

#[test]
fn a_304_ends_where_it_says() {
    let app = App::spawn();
    let alice = app.user("alice");
    alice.create("t");
    let list = || alice.request("GET", "/tasks");
    let tag = tag(&list().send());
    let mut connection = Connection::open(&app.address).unwrap();
    for _ in 0..2 {
        connection.write(&list().header("If-None-Match", &tag).bytes());
        connection.read("GET").unwrap().expect(304);
        connection.write(&list().bytes());
        assert_eq!(connection.read("GET").unwrap().expect(200).json()["count"], 1);
    }
}

/// The queries of alice's list whose tags are compared.
const VIEWS: [&str; 12] = [
    "",
    "?order=asc",
    "?limit=2",
    "?limit=2&totals=true",
    "?limit=1&order=-updated",
    "?limit=1&offset=1",
    "?order=title",
    "?order=-title&limit=2",
    "?complete=true",
    "?complete=false&limit=1000",
    "?q=milk",
    "?q=milk&totals=true&limit=1",
];

fn view(user: User, query: &str) -> (String, (Vec<u8>, Option<String>)) {
    let response = get(user, query).expect(200);
    (tag(&response), (response.body.clone(), response.field("Link").map(str::to_owned)))
}

/// The steps of the test. Each is a request that changes something.
fn steps(user: User) -> Vec<(&'static str, Request)> {
    let list = || user.request("POST", "/tasks");
    let first = ids(&get(user, ""))[0];
    let second = ids(&get(user, ""))[1];
    vec![
        ("a task that is found", list().json(json!({"title": "milk", "complete": true}))),
        ("a task that is not", list().json(json!({"title": "bread"}))),
        ("a title", user.on_task("PATCH", first).json(json!({"title": "zzz milk"}))),
        ("a description", user.on_task("PATCH", second).json(json!({"description": "Milk"}))),
        ("the same again", user.on_task("PATCH", second).json(json!({"description": "Milk"}))),
        ("a state", user.on_task("PATCH", first).json(json!({"complete": true}))),
        ("a put", user.on_task("PUT", first).json(json!({"title": "zzz milk", "complete": true}))),
        ("all complete", user.request("PATCH", "/tasks?complete=false").json(json!({"complete": true}))),
        ("nothing", user.request("PATCH", "/tasks?complete=false").json(json!({"complete": true}))),
        ("a refusal", user.on_task("PATCH", first).json(json!({"title": ""}))),
        ("a deletion", user.on_task("DELETE", second)),
        ("no milk", user.request("DELETE", "/tasks?complete=true&q=milk")),
        ("nobody", user.request("DELETE", "/tasks?complete=true&q=milk")),
        ("none", user.request("DELETE", "/tasks?complete=true")),
    ]
}

#[test]
fn the_tag_changes_with_what_is_sent_and_not_otherwise() {
    let app = App::spawn();
    let alice = app.user("alice");
    for title in ["a", "b", "c"] {
        alice.create(title);
    }
    let all =
        || -> BTreeMap<&str, _> { VIEWS.into_iter().map(|query| (query, view(alice, query))).collect() };
    let mut before = all();
    let (mut same, mut other) = (BTreeSet::new(), BTreeSet::new());
    for (step, request) in steps(alice) {
        let status = request.send().status;
        assert_eq!(status >= 400, step == "a refusal", "{step}: {status}");
        // Another user's tasks are in no list of alice.
        app.user("bob").create("milk");
        let after = all();
        for query in VIEWS {
            let ((old_tag, old), (new_tag, new)) = (&before[query], &after[query]);
            assert_eq!(old_tag == new_tag, old == new, "{step} {query}: {old_tag} {new_tag}");
            (if old == new { &mut same } else { &mut other }).insert(query);
            // The answer tells the client whether the list that it has stored is still valid.
            let asked = alice.request("GET", &format!("/tasks{query}")).header("If-None-Match", old_tag);
            assert_eq!(asked.send().status, if old == new { 304 } else { 200 }, "{step} {query}");
        }
        before = after;
    }
    assert_eq!(same.len().min(other.len()), VIEWS.len(), "{same:?} {other:?}");
}

/// The body of a page does not say whether another follows.
#[test]
fn the_tag_changes_when_only_a_next_page_appears_or_vanishes() {
    let app = App::spawn();
    let alice = app.user("alice");
    for title in ["a", "b"] {
        alice.post(json!({"title": title, "description": "z"})).expect(201);
    }
    for query in ["?limit=2", "?limit=2&order=title", "?limit=2&order=created", "?limit=2&complete=false&q=Z"]
    {
        let alone = view(alice, query);
        let third = alice.post(json!({"title": "c", "description": "z"})).expect(201).json();
        let with_next = view(alice, query);
        assert_eq!(with_next.1.0, alone.1.0, "{query}: the same body");
        assert!(alone.1.1.is_none() && with_next.1.1.is_some(), "{query}");
        assert_ne!(with_next.0, alone.0, "{query}");
        alice.on_task("DELETE", third["id"].as_i64().unwrap()).send().expect(204);
        assert_eq!(view(alice, query), alone, "{query}");
    }
}

#[test]
fn the_tag_changes_when_totals_alone_change() {
    let app = App::spawn();
    let alice = app.user("alice");
    alice.post(json!({"title": "milk", "complete": true})).expect(201);
    let query = "?complete=true&totals=true";
    let before = get(alice, query);
    let other = alice.create("bread");
    let after = get(alice, query);
    assert_eq!(after.json()["tasks"], before.json()["tasks"]);
    assert_eq!(after.json()["totals"], json!({"all": 2, "open": 1, "complete": 1}));
    assert_ne!(tag(&after), tag(&before));
    // The result of another search has not changed.
    let found = get(alice, "?complete=true&totals=true&q=milk");
    alice.on_task("PATCH", other["id"].as_i64().unwrap()).json(json!({"title": "butter"})).send().expect(200);
    let again = get(alice, "?complete=true&totals=true&q=milk");
    assert_eq!((tag(&again), again.body), (tag(&found), found.body));
}

#[test]
fn two_instances_give_one_tag() {
    let first = App::spawn();
    let second = second_instance(&first);
    insert_many(&first.database, "alice", 40, 3);
    for query in VIEWS.into_iter().chain(["?limit=7&order=-created&offset=3", "?q=nothing"]) {
        let one = view(first.user("alice"), query);
        assert_eq!(one, view(second.user("alice"), query), "{query}");
        let other = second.user("alice").request("GET", &format!("/tasks{query}"));
        other.header("If-None-Match", &one.0).send().expect(304);
        // The next page as well.
        let pages = [&first, &second].map(|app| {
            let page = get(app.user("alice"), query);
            next(&page).map(|target| {
                let token = crate::support::token::token("alice");
                tag(&app.get(&target).bearer(&token).send().expect(200))
            })
        });
        assert_eq!(pages[0], pages[1], "{query}");
    }
}

/// A list has no version on which the precondition of a change could depend.
#[test]
fn if_match_on_a_list_is_ignored() {
    let app = App::spawn();
    let alice = app.user("alice");
    insert_many(&app.database, "alice", 3, 0);
    for query in ["", "?limit=2", "?order=title&totals=true"] {
        let fresh = get(alice, query);
        for value in [tag(&fresh).as_str(), "*", "\"x\"", "x", "", "W/\"x\""] {
            let request = alice.request("GET", &format!("/tasks{query}")).header("If-Match", value);
            assert_eq!(request.send().expect(200).body, fresh.body, "{query} {value}");
            request.header("If-None-Match", &tag(&fresh)).send().expect(304);
        }
    }
}
