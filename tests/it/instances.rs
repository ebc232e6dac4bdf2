//! Two instances of the service on one database: whichever a load balancer asks, the answer is the
//! same.

use crate::support::{
    harness::{App, Database},
    http::{Request, Response},
    instances::second_instance,
    ledger::exchange,
    tasks::insert_many,
    token::token,
};
use serde_json::{Value, json};
use std::{sync::Barrier, thread};

/// The answer without the parts that differ from one request to the next.
fn lasting(response: &Response) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let is_lasting = |(name, _): &&(String, String)| !["date", "x-request-id"].contains(&name.as_str());
    let mut fields: Vec<_> = response.fields.iter().filter(is_lasting).cloned().collect();
    fields.sort();
    let mut body = response.body.clone();
    if response.status >= 400 {
        // The length of a problem depends on that of the request id.
        fields.retain(|(name, _)| name != "content-length");
        if !body.is_empty() {
            let mut problem = response.json();
            (problem["timestamp"], problem["request_id"]) = (Value::Null, Value::Null);
            body = problem.to_string().into_bytes();
        }
    }
    (response.status, fields, body)
}

#[test]
fn two_instances_give_the_same_answers() {
    let first = App::spawn();
    let second = second_instance(&first);
    insert_many(&first.database, "carol", 1234, 0);
    let balanced = |turn: usize| if turn.is_multiple_of(2) { &first } else { &second };
    // Both instances return what one of them has stored.
    let assert_same = |rest: &str, if_none_match: Option<&str>| {
        for user_id in ["alice", "carol"] {
            for method in ["GET", "HEAD"] {
                let [one, other] = [&first, &second].map(|app| {
                    let request = app.user(user_id).request(method, rest);
                    let tag = if_none_match.into_iter();
                    lasting(&tag.fold(request, |request, tag| request.header("If-None-Match", tag)).send())
                });
                assert_eq!(one, other, "{method} {rest} of {user_id}");
            }
        }
    };
    let mut tags = Vec::new();
    for turn in 0..20 {
        let (here, there) = (balanced(turn), balanced(turn + 1));
        let body = json!({"title": format!("turn {turn}"), "complete": turn % 3 == 0});
        let key = format!("key-{turn}");
        let create = |app: &App| {
            let request = app.user("alice").request("POST", "/tasks").json(body.clone());
            request.header("Idempotency-Key", &key).send().expect(201)
        };
        let (created, again) = (create(here), create(there));
        assert_eq!(again.json(), created.json(), "turn {turn}");
        assert_eq!(again.field("Idempotent-Replayed"), Some("true"), "turn {turn}");
        let id = created.json()["id"].as_i64().unwrap();
        let tag = created.field("ETag").unwrap().to_owned();
        assert_same(&format!("/tasks/{id}"), None);
        assert_same(&format!("/tasks/{id}"), Some(&tag));

        // A change made through one instance is visible through the other.
        let change = |app: &App| {
            let request = app.user("alice").on_task("PATCH", id).json(json!({"description": "d"}));
            request.header("If-Match", &tag).send()
        };
        let changed = change(there).expect(200);
        // The same change again is already done (200), and another change is refused.
        assert_eq!(change(here).expect(200).json(), changed.json());
        let other = here.user("alice").on_task("PATCH", id).json(json!({"description": "e"}));
        other.header("If-Match", &tag).send().expect_problem(412, "PRECONDITION_FAILED");
        assert_same(&format!("/tasks/{id}"), Some(&tag));
        assert_same(&format!("/tasks/{id}"), changed.field("ETag"));
        tags.push((id, changed.field("ETag").unwrap().to_owned()));
        if turn % 4 == 3 {
            let (id, tag) = tags.remove(0);
            here.user("alice").on_task("DELETE", id).header("If-Match", &tag).send().expect(204);
            there.user("alice").on_task("DELETE", id).send().expect(404);
            assert_same(&format!("/tasks/{id}"), None);
        }
    }
    let queries = [
        "",
        "?limit=3",
        "?order=desc&limit=7&complete=false",
        "?offset=5",
        "?limit=2&after=9",
        "?limit=0",
        "?order=title&limit=9&totals=true",
        "?order=-updated",
        "?q=TURN+1&order=-created&limit=2",
        "?sort=x",
    ];
    for query in queries {
        assert_same(&format!("/tasks{query}"), None);
    }

    // One list, its pages from both.
    let mut target = "/api/carol/tasks?limit=100".to_owned();
    let (mut turn, mut titles) = (0, Vec::new());
    loop {
        let token = token("carol");
        let page = balanced(turn).get(&target).bearer(&token).send().expect(200);
        let tasks = page.json()["tasks"].as_array().unwrap().clone();
        titles.extend(tasks.iter().map(|task| task["title"].as_str().unwrap().parse::<i64>().unwrap()));
        let Some(link) = page.field("Link") else { break };
        target = link[1..link.find('>').unwrap()].to_owned();
        turn += 1;
    }
    assert_eq!(titles, (1..=1234).collect::<Vec<_>>());
}

/// Sends a request, and returns the answer without the parts that differ between any two answers.
fn essence(address: &str, request: &Request) -> (u16, Vec<(String, String)>, Value) {
    let mut response = exchange(address, request).unwrap();
    response.fields.retain(|(name, _)| name != "x-request-id" && name != "date");
    let mut body = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
    if response.status >= 400 {
        body["request_id"].take();
        body["timestamp"].take();
    }
    (response.status, response.fields, body)
}

#[test]
fn two_instances_give_the_same_answers_and_are_one_service() {
    let first = App::spawn();
    let second = App::setup().env("DATABASE_URL", &first.database.url).spawn();
    let addresses = [&first.address, &second.address];
    let alice = first.user("alice");
    let ids = [(); 5].map(|()| alice.create_id());
    let etag = alice.on_task("GET", ids[0]).send().field("ETag").unwrap().to_owned();
    let keyed = || alice.request("POST", "/tasks").header("Idempotency-Key", "k");
    assert_eq!(essence(addresses[0], &keyed().json(json!({"title": "t"}))).0, 201);
    let health = Request::new("", "GET", "/health");
    for request in [
        alice.request("GET", "/tasks"),
        alice.request("GET", "/tasks?limit=2&order=desc"),
        alice.on_task("GET", ids[0]),
        alice.on_task("HEAD", ids[0]),
        alice.on_task("GET", ids[0]).header("If-None-Match", &etag),
        alice.on_task("PATCH", ids[0]).header("If-Match", "\"other\"").json(json!({"complete": true})),
        alice.on_task("DELETE", 1_000_000),
        keyed().json(json!({"title": "t"})),
        keyed().json(json!({"title": "another"})),
        alice.request("POST", "/tasks").json(json!({"title": ""})),
        first.user("bob").request("GET", "/tasks"),
        Request::new("", "GET", "/api/alice/tasks").bearer(&token("bob")),
        Request::new("", "GET", "/api/alice/tasks"),
        health,
    ] {
        let [one, other] = addresses.map(|address| essence(address, &request));
        assert_eq!(one, other, "{} {}", request.method, request.target);
    }

    // Of equal requests to both instances at the same moment, only the first one creates or changes a task.
    for round in 0..10 {
        let create = alice.request("POST", "/tasks").json(json!({"title": "t"}));
        let create = create.header("Idempotency-Key", &format!("key-{round}"));
        let created = at_once(&addresses, &create);
        let fresh = created.iter().filter(|answer| answer.field("Idempotent-Replayed").is_none());
        assert_eq!(fresh.count(), 1, "{created:?}");
        let task = created[0].json();
        assert!(created.iter().all(|answer| answer.status == 201 && answer.json() == task), "{created:?}");
        let patch = alice.on_task("PATCH", task["id"].as_i64().unwrap()).json(json!({"complete": true}));
        let patched = at_once(&addresses, &patch.header("If-Match", created[0].field("ETag").unwrap()));
        // All answers show the result of that one request.
        let changed = patched[0].json();
        assert!(changed["updated_at"].as_str() > task["updated_at"].as_str(), "{changed}");
        assert!(patched.iter().all(|answer| answer.status == 200 && answer.json() == changed), "{patched:?}");
    }
}

/// The same request eight times, half of them to each instance.
fn at_once(addresses: &[&String; 2], request: &Request) -> Vec<Response> {
    let barrier = Barrier::new(8);
    thread::scope(|scope| {
        let ask = |index: usize| {
            let (address, barrier) = (addresses[index % 2], &barrier);
            scope.spawn(move || {
                barrier.wait();
                exchange(address, request).unwrap()
            })
        };
        let asked: Vec<_> = (0..8).map(ask).collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

/// The service looks for the table before it applies the schema, and its session remembers the answer.
#[test]
fn an_instance_that_saw_no_table_before_it_waited_finds_the_one_that_another_has_made() {
    const SCHEMA: &str = include_str!("../../schema.sql");
    let database = Database::create();
    let (mut waiting, mut first) = (database.client(), database.client());
    waiting
        .batch_execute("do $$ begin if to_regclass('tasks') is not null then return; end if; end $$")
        .unwrap();
    first
        .batch_execute("begin; do $$ begin perform pg_advisory_xact_lock(8241996102938510643); end $$")
        .unwrap();
    thread::scope(|scope| {
        let applied = scope.spawn(|| waiting.batch_execute(SCHEMA));
        database.wait_until_blocked(1);
        first.batch_execute(SCHEMA).unwrap();
        applied.join().unwrap().unwrap();
    });
}
