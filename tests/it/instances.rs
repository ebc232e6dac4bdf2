//! Two instances of the service on one database: whichever a load balancer asks, the answer is the
//! same.

use crate::{
    harness::App,
    http::Response,
    probe::{insert_many, second_instance},
};
use serde_json::{Value, json};

/// Of an answer, what is not of that moment alone.
fn lasting(response: &Response) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let is_lasting = |(name, _): &&(String, String)| !["date", "x-request-id"].contains(&name.as_str());
    let mut fields: Vec<_> = response.fields.iter().filter(is_lasting).cloned().collect();
    fields.sort();
    let mut body = response.body.clone();
    if response.status >= 400 {
        // A problem's length goes with the request id.
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
    // What one has answered, both tell.
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

        // A change at one is a change for the other.
        let change = |app: &App| {
            let request = app.user("alice").on_task("PATCH", id).json(json!({"description": "d"}));
            request.header("If-Match", &tag).send()
        };
        let changed = change(there).expect(200);
        change(here).expect_problem(412, "PRECONDITION_FAILED");
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
    let queries =
        ["", "?limit=3", "?order=desc&limit=7&complete=false", "?offset=5", "?limit=2&after=9", "?limit=0"];
    for query in queries {
        assert_same(&format!("/tasks{query}"), None);
    }

    // One list, its pages from both.
    let mut target = "/api/carol/tasks?limit=100".to_owned();
    let (mut turn, mut titles) = (0, Vec::new());
    loop {
        let token = crate::token::token("carol");
        let page = balanced(turn).get(&target).bearer(&token).send().expect(200);
        let tasks = page.json()["tasks"].as_array().unwrap().clone();
        titles.extend(tasks.iter().map(|task| task["title"].as_str().unwrap().parse::<i64>().unwrap()));
        let Some(link) = page.field("Link") else { break };
        target = link[1..link.find('>').unwrap()].to_owned();
        turn += 1;
    }
    assert_eq!(titles, (1..=1234).collect::<Vec<_>>());
}
