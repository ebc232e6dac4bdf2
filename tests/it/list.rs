//! "List parameters" in the contract: pages, all tasks in one stream, and clients that read it
//! slowly.

use crate::support::{
    harness::App,
    http::Connection,
    tasks::{get, ids, insert_many, next, parameters},
    token::token,
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// The parameters of a target, with one spelling of each order; the default is left out.
fn spelled_alike(target: &str) -> BTreeMap<String, String> {
    let mut named = parameters(target);
    match named.remove("order").as_deref() {
        None | Some("asc" | "id") => {}
        Some(order) => _ = named.insert("order".to_owned(), order.replace("desc", "-id")),
    }
    named
}

#[test]
fn each_parameter_does_what_it_says_at_its_edges() {
    let app = App::spawn();
    let alice = app.user("alice");
    for index in 0..5 {
        alice.post(json!({"title": "t", "complete": index % 2 == 1})).expect(201);
        app.user("bob").create("another's");
    }
    let all = ids(&get(alice, ""));
    let [a, b, c, d, e] = all[..] else { panic!("{all:?}") };
    let after = |id: i64| format!("?after={id}");
    for (query, wanted) in [
        ("?".to_owned(), vec![a, b, c, d, e]),
        ("?complete=true".to_owned(), vec![b, d]),
        ("?complete=false".to_owned(), vec![a, c, e]),
        ("?order=asc".to_owned(), vec![a, b, c, d, e]),
        ("?order=desc".to_owned(), vec![e, d, c, b, a]),
        ("?limit=1".to_owned(), vec![a]),
        ("?limit=4".to_owned(), vec![a, b, c, d]),
        ("?limit=5".to_owned(), vec![a, b, c, d, e]),
        ("?limit=1000".to_owned(), vec![a, b, c, d, e]),
        ("?offset=0".to_owned(), vec![a, b, c, d, e]),
        ("?offset=1".to_owned(), vec![b, c, d, e]),
        ("?offset=4".to_owned(), vec![e]),
        ("?offset=5".to_owned(), vec![]),
        ("?offset=9223372036854775807".to_owned(), vec![]),
        ("?offset=9223372036854775807&limit=1000".to_owned(), vec![]),
        (after(1), if a == 1 { vec![b, c, d, e] } else { vec![a, b, c, d, e] }),
        (after(a), vec![b, c, d, e]),
        // The id of another user's task is a position in the order like any other.
        (after(b + 1), vec![c, d, e]),
        (after(e), vec![]),
        (after(e + 1), vec![]),
        (after(i64::MAX), vec![]),
        (after(c) + "&order=desc", vec![b, a]),
        (after(i64::MAX) + "&order=desc", vec![e, d, c, b, a]),
        (after(a) + "&order=desc", vec![]),
        ("?complete=true&offset=1".to_owned(), vec![d]),
        ("?order=desc&offset=1&limit=2".to_owned(), vec![d, c]),
        // Names and values are percent-decoded, each once.
        ("?limit=%32".to_owned(), vec![a, b]),
        ("?%6cimi%74=2&ord%65r=des%63".to_owned(), vec![e, d]),
    ] {
        assert_eq!(ids(&get(alice, &query).expect(200)), wanted, "{query}");
        let head = alice.request("HEAD", &format!("/tasks{query}")).send().expect(200);
        assert_eq!(head.field("Link"), get(alice, &query).field("Link"), "{query}");
    }
}

/// Queries with an unknown parameter, and the parameter's name in the error.
const UNKNOWN: [(&str, &str); 23] = [
    ("?sort=title", "sort"),
    ("?complet=true", "complet"),
    ("?completed=true", "completed"),
    ("?limi=0", "limi"),
    ("?Limit=5", "Limit"),
    ("?LIMIT=5", "LIMIT"),
    ("?limit%20=5", "limit "),
    ("?limit+=5", "limit "),
    ("?+limit=5", " limit"),
    ("?limit[]=5", "limit[]"),
    ("?limit%5B%5D=5", "limit[]"),
    ("??limit=5", "?limit"),
    ("?page=2", "page"),
    ("?user_id=bob", "user_id"),
    ("?x", "x"),
    ("?x=", "x"),
    ("?x=%zz", "x"),
    ("?%78=1", "x"),
    ("?%256cimit=5", "%6cimit"),
    ("?a=1;limit=5", "a"),
    ("?after%3D1", "after=1"),
    ("?%C3%A9=1", "é"),
    ("?a%0A%1Bb%7F=1", "a\n\u{1b}b\u{7f}"),
];

#[test]
fn what_is_not_a_parameter_is_refused_by_name_with_those_that_are() {
    let app = App::spawn();
    let alice = app.user("alice");
    alice.create_id();
    for (query, name) in UNKNOWN {
        let response = get(alice, query).expect_problem(422, "VALIDATION_ERROR");
        let errors = response.json()["errors"].clone();
        assert_eq!(errors.as_array().map(Vec::len), Some(1), "{query}: {errors}");
        assert_eq!(
            (&errors[0]["loc"], &errors[0]["type"]),
            (&json!(["query", name]), &json!("unknown")),
            "{query}"
        );
        let msg = errors[0]["msg"].as_str().unwrap();
        let words: BTreeSet<&str> = msg.split(|char: char| !char.is_ascii_alphabetic()).collect();
        for known in ["complete", "q", "order", "limit", "offset", "after", "cursor", "totals"] {
            assert!(words.contains(known), "{query}: {msg}");
        }
        alice.request("HEAD", &format!("/tasks{query}")).send().expect(422);
    }
    // Names that are no text are refused as well.
    for query in ["?limit%00=0", "?%00", "?%ff=1", "?%ED%A0%80=1", "?%zz=1", "?x=1&x=1"] {
        let response = get(alice, query).expect_problem(422, "VALIDATION_ERROR");
        assert!(response.field_errors().iter().all(|(loc, _)| loc.starts_with("query.")), "{query}");
    }
    let all_at_once = get(alice, "?sort=x&limit=0&page=1&_=1&order=asc").field_errors();
    let locs: Vec<_> = all_at_once.iter().map(|(loc, _)| loc.as_str()).collect();
    assert_eq!(locs, ["query.limit", "query.page", "query.sort"]);
    // A request line of 8 KiB makes no answer of a megabyte.
    let many: Vec<_> = (0..1000).map(|number| format!("x{number}=1")).collect();
    let errors = get(alice, &format!("?{}", many.join("&"))).field_errors();
    assert_eq!(errors.len(), 64);
    // The names stand in the log as well, and stay in their line.
    let log = app.log();
    assert!(log.iter().any(|line| line.contains("complet:")), "{log:?}");
    assert!(!log.iter().any(|line| line.contains(char::is_control)), "{log:?}");
}

#[test]
fn what_begins_with_a_low_line_is_ignored_and_so_is_an_empty_query() {
    let app = App::spawn();
    let alice = app.user("alice");
    let all = [alice.create_id(), alice.create_id()];
    for query in [
        "?",
        "?&&",
        "?&limit=1000&",
        "?_=123",
        "?_",
        "?_=",
        "?_=1&_=2",
        "?%5F=1",
        "?%5flimit=0",
        "?_limit=0",
        "?_x=%zz",
        "?_%zz=1",
        "?_%00=%ff",
        "?_=1&order=asc&_complete=true",
    ] {
        assert_eq!(ids(&get(alice, query).expect(200)), all, "{query}");
    }
}

#[test]
fn the_parameters_belong_to_the_list_alone() {
    let app = App::spawn();
    let alice = app.user("alice");
    let task = format!("/tasks/{}", alice.create_id());
    let query = "limit=0&order=x&after=y&offset=z&cursor=&q=&totals=1&sort=title&x=%zz";
    for (method, rest, status) in [
        ("POST", "/tasks", 201),
        ("PUT", &task, 200),
        ("PATCH", &task, 200),
        ("GET", &task, 200),
        ("HEAD", &task, 200),
        ("OPTIONS", &task, 204),
        ("OPTIONS", "/tasks", 204),
        ("DELETE", &task, 204),
    ] {
        let request = alice.request(method, &format!("{rest}?{query}"));
        let has_body = ["POST", "PUT", "PATCH"].contains(&method);
        let request = if has_body { request.json(json!({"title": "t", "complete": true})) } else { request };
        request.send().expect(status);
    }
    for target in ["/", "/health", "/docs", "/openapi.json"] {
        app.get(&format!("{target}?{query}")).send().expect(200);
    }
}

#[test]
fn a_bad_value_is_422_and_all_of_them_are_told_at_once() {
    let app = App::spawn();
    let alice = app.user("alice");
    alice.create_id();
    let numbers = [
        "",
        "-1",
        "+1",
        "01",
        "00",
        "1.0",
        "1e2",
        "0x1",
        "1%20",
        "%201",
        "1+",
        "x",
        "null",
        "1,2",
        "%",
        "%1",
        "%zz",
        "%ff",
        "%D9%A1",
        "1%00",
        "9223372036854775808",
        "99999999999999999999999",
    ];
    let mut cases: Vec<(String, BTreeSet<&str>)> = Vec::new();
    for name in ["limit", "offset", "after"] {
        cases.push((format!("?{name}"), [name].into()));
        cases.extend(numbers.map(|value| (format!("?{name}={value}"), [name].into())));
    }
    for (name, values) in [
        ("limit", &["0", "1001", "1000000", "9223372036854775807"][..]),
        ("after", &["0"]),
        ("complete", &["", "True", "TRUE", "1", "0", "yes", "null", "true,false", "true%20", "%74rue%"]),
        (
            "order",
            &[
                "",
                "ASC",
                "Desc",
                "up",
                "ID",
                "Title",
                "asc,desc",
                "desc%20",
                "%2Bid",
                "+id",
                "-asc",
                "-desc",
                "--id",
                "-",
                "created_at",
                "updated_at",
                "title,id",
                "-complete",
            ],
        ),
        ("totals", &["", "1", "True", "yes", "null", "true,false", "true%20"]),
    ] {
        cases.extend(values.iter().map(|value| (format!("?{name}={value}"), [name].into())));
    }
    for (query, names) in [
        ("?limit=1&limit=1", &["limit"][..]),
        ("?limit=1&limit=2", &["limit"]),
        ("?limit=1&%6Cimit=1", &["limit"]),
        ("?limit=0&limit=1", &["limit"]),
        ("?offset=1&offset=1", &["offset"]),
        ("?after=1&after=1", &["after"]),
        ("?order=asc&_x=1&order=asc", &["order"]),
        ("?order=id&order=asc", &["order"]),
        ("?totals=true&totals=true", &["totals"]),
        ("?complete=true&complete=false", &["complete"]),
        ("?offset=0&after=1", &["after"]),
        ("?after=1&offset=1", &["after"]),
        ("?limit=0&order=x", &["limit", "order"]),
        ("?complete=x&order=x&limit=x&offset=x&x=x", &["complete", "order", "limit", "offset", "x"]),
        ("?complete=&order&limit=0&offset=-1&after=0", &["complete", "order", "limit", "offset", "after"]),
        ("?complete=true&complete=x&limit=5&order=x&limit=5", &["complete", "order", "limit"]),
    ] {
        cases.push((query.to_owned(), names.iter().copied().collect()));
    }
    for (query, names) in cases {
        let response = get(alice, &query).expect_problem(422, "VALIDATION_ERROR");
        let locs: BTreeSet<_> = response.field_errors().into_iter().map(|(loc, _)| loc).collect();
        let wanted: BTreeSet<_> = names.iter().map(|name| format!("query.{name}")).collect();
        assert_eq!(locs, wanted, "{query}: {}", response.text());
        assert_eq!(response.field("Link"), None, "{query}");
    }
    alice.request("HEAD", "/tasks?limit=0").send().expect(422);
    // The token is judged before the parameters.
    app.get("/api/alice/tasks?limit=0").send().expect(401);
    app.get("/api/alice/tasks?limit=0").bearer(&token("bob")).send().expect(403);
}

/// The totals depend neither on the other parameters nor on the tasks of other users.
#[test]
fn totals_count_the_users_tasks_that_q_chooses() {
    let app = App::spawn();
    let alice = app.user("alice");
    let empty = get(alice, "?totals=true").expect(200).json();
    assert_eq!(empty, json!({"tasks": [], "count": 0, "totals": {"all": 0, "open": 0, "complete": 0}}));
    insert_many(&app.database, "alice", 20, 0);
    insert_many(&app.database, "bob", 7, 0);
    let last = ids(&get(alice, ""))[19];
    for (query, all, complete) in [
        ("".to_owned(), 20, 6),
        ("&complete=true".to_owned(), 20, 6),
        ("&complete=false&limit=3&offset=2".to_owned(), 20, 6),
        (format!("&after={last}"), 20, 6),
        ("&offset=100".to_owned(), 20, 6),
        ("&order=-title&limit=1".to_owned(), 20, 6),
        // Tasks 1 and 10 to 19 match. Of these, 12, 15 and 18 are complete.
        ("&q=1".to_owned(), 11, 3),
        ("&q=1&complete=false&order=created&limit=2".to_owned(), 11, 3),
        ("&q=x".to_owned(), 0, 0),
    ] {
        let list = get(alice, &format!("?totals=true{query}")).expect(200).json();
        let wanted = json!({"all": all, "open": all - complete, "complete": complete});
        assert_eq!(list["totals"], wanted, "{query}");
        for without in ["", "&totals=false"] {
            let list = get(alice, &format!("?_{query}{without}")).expect(200).json();
            assert_eq!(list.get("totals"), None, "{query}{without}");
        }
    }
}

/// Compares every combination of parameters with what a client would select from the whole list by itself.
#[test]
fn parameters_together_are_as_one_would_pick_by_hand() {
    const TASKS: i64 = 12;
    let app = App::spawn();
    let alice = app.user("alice");
    for index in 0..TASKS {
        let complete = [1, 2, 5, 7, 11].contains(&index);
        alice.post(json!({"title": "t", "complete": complete})).expect(201);
        app.user("bob").create("another's");
    }
    let tasks = alice.list()["tasks"].as_array().unwrap().clone();
    let (first, last) = (tasks[0]["id"].as_i64().unwrap(), tasks[11]["id"].as_i64().unwrap());
    let offsets = [0, 1, 4, 11, 12, i64::MAX].map(|offset| (Some(offset), None));
    let afters = [1, first, first + 1, first + 9, last, last + 1, i64::MAX].map(|after| (None, Some(after)));
    let mut connection = Connection::open(&app.address).unwrap();
    for complete in [None, Some(true), Some(false)] {
        for order in [None, Some("asc"), Some("desc")] {
            for limit in [None, Some(1), Some(2), Some(5), Some(12), Some(1000)] {
                for (offset, after) in [(None, None)].into_iter().chain(offsets).chain(afters) {
                    let is_desc = order == Some("desc");
                    let mut wanted: Vec<i64> = tasks
                        .iter()
                        .filter(|task| complete.is_none_or(|complete| task["complete"] == complete))
                        .map(|task| task["id"].as_i64().unwrap())
                        .collect();
                    if is_desc {
                        wanted.reverse();
                    }
                    wanted.retain(|id| {
                        after.is_none_or(|after| if is_desc { *id < after } else { *id > after })
                    });
                    let skipped = wanted.len().min(usize::try_from(offset.unwrap_or(0)).unwrap());
                    let mut wanted = wanted.split_off(skipped);
                    let has_more = limit.is_some_and(|limit| limit < wanted.len());
                    wanted.truncate(limit.unwrap_or(wanted.len()));

                    let kept: Vec<String> = [
                        complete.map(|complete| format!("complete={complete}")),
                        limit.map(|limit| format!("limit={limit}")),
                        order.map(|order| format!("order={order}")),
                    ]
                    .into_iter()
                    .flatten()
                    .collect();
                    let mut query = kept.clone();
                    query.extend(offset.map(|offset| format!("offset={offset}")));
                    query.extend(after.map(|after| format!("after={after}")));
                    let query = query.join("&");
                    let target = format!("/tasks?{query}");
                    connection.write(&alice.request("GET", &target).bytes());
                    let response = connection.read("GET").unwrap().expect(200);
                    assert_eq!(ids(&response), wanted, "{query}");
                    let wanted_next = has_more.then(|| {
                        let after = format!("after={}", wanted.last().unwrap());
                        format!("?{}&{after}", kept.join("&"))
                    });
                    let seen = next(&response);
                    assert!(seen.iter().all(|seen| seen.starts_with("/api/alice/tasks?")), "{seen:?}");
                    let named = |target: &Option<String>| target.as_ref().map(|target| spelled_alike(target));
                    assert_eq!(named(&seen), named(&wanted_next), "{query}");
                }
            }
        }
    }
}

#[test]
fn the_next_pages_lead_to_every_task_once_whoever_the_user_is() {
    let app = App::spawn();
    for user_id in
        ["alice", "a/b c", "100%", "?x=1&y#z", "Grüße\u{1F600}", "a%2Fb", "...", "<a>;\"b\", c", "a+b"]
    {
        let user = app.user(user_id);
        insert_many(&app.database, user_id, 23, 0);
        let all = ids(&get(user, ""));
        assert_eq!(all.len(), 23);
        let open: Vec<_> = user.list()["tasks"].as_array().unwrap().clone();
        let open = open.iter().filter(|task| task["complete"] == false);
        let open: Vec<_> = open.map(|task| task["id"].as_i64().unwrap()).collect();
        let reversed: Vec<_> = all.iter().rev().copied().collect();
        for (query, wanted, pages) in [
            ("?limit=5", &all, 5),
            ("?limit=23", &all, 1),
            ("?limit=22", &all, 2),
            ("?limit=1", &all, 23),
            ("?order=desc&limit=7", &reversed, 4),
            ("?limit=3&complete=false", &open, 6),
            ("?offset=20&limit=2", &all[20..].to_vec(), 2),
        ] {
            let mut page = get(user, query).expect(200);
            let mut seen = ids(&page);
            let mut count = 1;
            while let Some(target) = next(&page) {
                assert!(!target.contains("offset"), "{target}");
                // The link is an absolute path that can be requested as it is.
                page = app.get(&target).bearer(&token(user_id)).send().expect(200);
                let more = ids(&page);
                assert!(!more.is_empty(), "{user_id} {target}");
                seen.extend(more);
                count += 1;
            }
            assert_eq!((&seen, count), (wanted, pages), "{user_id} {query}");
        }
    }
}

#[test]
fn tasks_that_come_and_go_between_pages_make_none_twice_and_none_missing() {
    let app = App::spawn();
    for (order, query) in [("asc", "?limit=3"), ("desc", "?order=desc&limit=3")] {
        let user_id = format!("user-{order}");
        let user = app.user(&user_id);
        insert_many(&app.database, &user_id, 12, 0);
        let mut stay: BTreeSet<_> = ids(&get(user, "")).into_iter().collect();
        let mut seen = Vec::new();
        let mut page = get(user, query).expect(200);
        loop {
            let part = ids(&page);
            seen.extend(&part);
            // Gone are: one that was read, the last of the page, and one that was not read yet.
            let unread = stay.iter().copied().find(|id| !seen.contains(id));
            let gone = [part.first().copied(), part.last().copied(), unread];
            for id in gone.into_iter().flatten().collect::<BTreeSet<_>>() {
                user.on_task("DELETE", id).send().expect(204);
                stay.remove(&id);
            }
            let new = user.create_id();
            if order == "asc" && seen.len() < 9 {
                stay.insert(new);
            }
            let Some(target) = next(&page) else { break };
            page = app.get(&target).bearer(&token(&user_id)).send().expect(200);
        }
        let once: BTreeSet<_> = seen.iter().copied().collect();
        assert_eq!(once.len(), seen.len(), "{order}: {seen:?}");
        assert!(seen.is_sorted_by(|a, b| if order == "asc" { a < b } else { a > b }), "{order}: {seen:?}");
        let missing: Vec<_> = stay.iter().filter(|id| !once.contains(id)).collect();
        assert!(missing.is_empty(), "{order}: {missing:?}");
    }
}
