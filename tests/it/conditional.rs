//! "Concurrency and retries" in the contract: `ETag`, `If-Match`, `If-None-Match`.

use crate::support::{
    harness::{App, User},
    http::Connection,
    locks::Held,
    tasks::tagged,
    token::token,
};
use serde_json::{Value, json};
use std::thread;

const ORIGIN: &str = "http://localhost:3000";

/// A precondition field of a request, which may be sent in several lines.
struct Case {
    name: &'static str,
    lines: Vec<String>,
    /// Whether it matches by the strong comparison, and by the weak one (RFC 9110 section 8.8.3.2).
    matches: (bool, bool),
}

/// The cases for a task whose tag is `tag` now and was `old` before.
fn cases(tag: &str, old: &str) -> Vec<Case> {
    let inner = tag.trim_matches('"');
    let upper = tag.to_uppercase();
    let many = format!("{}{tag}", "\"0123456789\", ".repeat(500));
    let (yes, no, weakly) = ((true, true), (false, false), (false, true));
    let one = |name, line: String, matches| Case { name, lines: vec![line], matches };
    let two =
        |name, lines: [&str; 2], matches| Case { name, lines: lines.map(str::to_owned).into(), matches };
    vec![
        one("its tag", tag.to_owned(), yes),
        one("any", "*".to_owned(), yes),
        one("its tag, weak", format!("W/{tag}"), weakly),
        one("the tag before", old.to_owned(), no),
        one("another", "\"x\"".to_owned(), no),
        one("the last of a list", format!("\"x\", \"y\", {tag}"), yes),
        one("the first of a list", format!("{tag}, \"x\""), yes),
        one("a list without white space", format!("\"x\",{tag},\"y\""), yes),
        one("a list with tabs", format!("\"x\"\t,\t{tag}"), yes),
        one("a list with empty members", format!(", ,{tag},,"), yes),
        one("a long list", many, yes),
        one("weak in a list", format!("\"x\", W/{tag}"), weakly),
        one("weak others", format!("W/\"x\", {tag}, W/{old}"), yes),
        one("weak and strong", format!("W/{tag}, {tag}"), yes),
        one("a list of others", format!("\"x\", {old}, W/\"y\""), no),
        two("the second line", ["\"x\"", tag], yes),
        two("the first line", [tag, "\"x\""], yes),
        two("two lines of others", ["\"x\"", old], no),
        two("a weak second line", ["\"x\"", &format!("W/{tag}")], weakly),
        one("nothing", String::new(), no),
        one("an empty tag", "\"\"".to_owned(), no),
        one("no quotes", inner.to_owned(), no),
        one("half a quote", format!("\"{inner}"), no),
        one("other quotes", format!("'{inner}'"), no),
        one("a small w", format!("w/{tag}"), no),
        one("weak with a space", format!("W/ {tag}"), no),
        one("a space inside", format!("\" {inner}\""), no),
        one("a zero before", format!("\"0{inner}\""), no),
        one("a plus before", format!("\"+{inner}\""), no),
        one("a minus before", format!("\"-{inner}\""), no),
        // Tags are opaque: compared byte by byte.
        one("capitals", upper.clone(), (upper == tag, upper == tag)),
        one("a star in quotes", "\"*\"".to_owned(), no),
        one("two stars", "**".to_owned(), no),
        // A tag may contain commas (RFC 9110 section 8.8.3).
        one("a star between commas in quotes", "\"a,*,b\"".to_owned(), no),
        one("others with commas", format!("\"a,b\", {tag}"), yes),
        one("beyond ASCII", "\"\u{e9}\"".to_owned(), no),
        // A field that is not well formed lets no change through.
        one("junk before its tag", format!("junk, {tag}"), weakly),
        one("junk behind its tag", format!("{tag} junk"), weakly),
        one("its tag twice without a comma", format!("{tag}{tag}"), weakly),
        one("two tags without a comma", format!("\"x\" {tag}"), weakly),
        one("a parameter", format!("{tag};q=1"), weakly),
        one("any in a list", format!("*, {tag}"), weakly),
        one("junk behind a weak tag", format!("W/\"x\"junk,{tag}"), weakly),
        one("zero", "\"0\"".to_owned(), no),
        one("the largest of 63 bits", "\"7fffffffffffffff\"".to_owned(), no),
        one("the smallest of 64 bits", "\"8000000000000000\"".to_owned(), no),
        one("the largest of 64 bits", "\"ffffffffffffffff\"".to_owned(), no),
        one("beyond 64 bits", "\"10000000000000000\"".to_owned(), no),
    ]
}

/// A task that was changed once, its tag, and the one before.
fn changed_task(user: User) -> (i64, String, String) {
    let first = user.request("POST", "/tasks").json(json!({"title": "t"})).send().expect(201);
    let id = first.json()["id"].as_i64().unwrap();
    let second = user.on_task("PATCH", id).json(json!({"title": "u"})).send().expect(200);
    let tag = |response: &crate::support::http::Response| response.field("ETag").unwrap().to_owned();
    (id, tag(&second), tag(&first))
}

/// The status that the contract demands for the field `name`, which matches or not. `good` is the status if the
/// precondition holds.
fn wanted(name: &str, (strongly, weakly): (bool, bool), if_none_match: u16, good: u16) -> u16 {
    match name {
        "If-Match" if !strongly => 412,
        "If-None-Match" if weakly => if_none_match,
        _ => good,
    }
}

#[test]
fn reading_asks_for_this_version_or_for_another() {
    let app = App::spawn();
    let alice = app.user("alice");
    let (id, tag, old) = changed_task(alice);
    let task = alice.task(id);
    for case in cases(&tag, &old) {
        for name in ["If-Match", "If-None-Match"] {
            for method in ["GET", "HEAD"] {
                let request = alice.on_task(method, id);
                let request = case.lines.iter().fold(request, |request, line| request.header(name, line));
                let response = request.send();
                let wanted = wanted(name, case.matches, 304, 200);
                assert_eq!(response.status, wanted, "{method} {name}: {}: {response:?}", case.name);
                assert_eq!(response.field("ETag"), Some(tag.as_str()), "{method} {name}: {}", case.name);
                if (method, wanted) == ("GET", 200) {
                    assert_eq!(response.json(), task, "{name}: {}", case.name);
                }
            }
        }
    }
}

#[test]
fn a_change_is_done_when_its_precondition_holds_and_else_not_at_all() {
    let app = App::spawn();
    let alice = app.user("alice");
    let body = json!({"title": "v", "complete": true});
    for method in ["PUT", "PATCH", "DELETE"] {
        for name in ["If-Match", "If-None-Match"] {
            let (mut id, mut tag, mut old) = changed_task(alice);
            for index in 0..cases(&tag, &old).len() {
                let case = cases(&tag, &old).swap_remove(index);
                let before = alice.task(id);
                let request = alice.on_task(method, id);
                let request = if method == "DELETE" { request } else { request.json(body.clone()) };
                let request = case.lines.iter().fold(request, |request, line| request.header(name, line));
                let response = request.send();
                let good = if method == "DELETE" { 204 } else { 200 };
                let wanted = wanted(name, case.matches, 412, good);
                let context = format!("{method} {name}: {}", case.name);
                assert_eq!(response.status, wanted, "{context}: {response:?}");
                match wanted {
                    412 => {
                        response.expect_problem(412, "PRECONDITION_FAILED");
                        assert_eq!(alice.task(id), before, "{context}");
                        continue;
                    }
                    200 => assert_eq!(tagged(alice, id).0["title"], "v", "{context}"),
                    _ => _ = alice.on_task("GET", id).send().expect(404),
                }
                (id, tag, old) = changed_task(alice);
            }
        }
    }
}

#[test]
fn a_tag_is_strong_and_that_of_the_task_in_the_answer() {
    let app = App::spawn();
    let alice = app.user("alice");
    let body = json!({"title": "t", "complete": false});
    let created = alice.request("POST", "/tasks").json(body.clone()).send().expect(201);
    let id = created.json()["id"].as_i64().unwrap();
    let mut seen = vec![created.field("ETag").unwrap().to_owned()];
    assert_eq!(tagged(alice, id), (created.json(), seen[0].clone()));
    // A change to the same content is a change too, so `updated_at` moves.
    for (method, body) in [
        ("PUT", body.clone()),
        ("PUT", body),
        ("PATCH", json!({"title": "t"})),
        ("PATCH", json!({"title": "u"})),
    ] {
        let changed = alice.on_task(method, id).json(body).send().expect(200);
        let tag = changed.field("ETag").unwrap().to_owned();
        assert!(tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"'), "{tag}");
        assert!(!seen.contains(&tag), "{method}: {tag} in {seen:?}");
        assert_eq!(tagged(alice, id), (changed.json(), tag.clone()), "{method}");
        let head = alice.on_task("HEAD", id).send().expect(200);
        assert_eq!(head.field("ETag"), Some(tag.as_str()));
        seen.push(tag);
    }
}

#[test]
fn a_304_repeats_what_a_cache_needs_and_has_no_body() {
    let app = App::spawn();
    let id = app.user("alice").create_id();
    for setup in [Some(ORIGIN), None] {
        for method in ["GET", "HEAD"] {
            let with_origin = |request: crate::support::http::Request| match setup {
                Some(origin) => request.header("Origin", origin),
                None => request,
            };
            let fresh = with_origin(app.user("alice").on_task(method, id)).send().expect(200);
            let tag = fresh.field("ETag").unwrap();
            let request = with_origin(app.user("alice").on_task(method, id));
            let same = request.header("If-None-Match", tag).send().expect(304);
            for name in [
                "ETag",
                "Cache-Control",
                "Vary",
                "Content-Location",
                "Access-Control-Allow-Origin",
                "Access-Control-Allow-Credentials",
                "Access-Control-Expose-Headers",
            ] {
                assert_eq!(same.field(name), fresh.field(name), "{method} {name}");
            }
            assert_eq!(same.field("Access-Control-Allow-Origin"), setup);
            assert_eq!(same.field("Cache-Control"), Some("private, no-cache"));
            for name in ["Content-Type", "Content-Length", "Transfer-Encoding"] {
                assert_eq!(same.field(name), None, "{method} {name}");
            }
        }
    }
    // The next request on the connection finds the answer ended where it says.
    let tag = tagged(app.user("alice"), id).1;
    let mut connection = Connection::open(&app.address).unwrap();
    for _ in 0..2 {
        connection.write(&app.user("alice").on_task("GET", id).header("If-None-Match", &tag).bytes());
        connection.read("GET").unwrap().expect(304);
        connection.write(&app.user("alice").on_task("GET", id).bytes());
        connection.read("GET").unwrap().expect(200);
    }
}

#[test]
fn both_preconditions_have_to_hold() {
    let app = App::spawn();
    let alice = app.user("alice");
    for (if_match, if_none_match, get, patch) in [
        ("its", "\"x\"", 200, 200),
        ("*", "\"x\"", 200, 200),
        ("its", "its", 304, 412),
        ("its", "*", 304, 412),
        ("\"x\"", "its", 412, 412),
        ("\"x\"", "\"x\"", 412, 412),
    ] {
        let (id, tag, _) = changed_task(alice);
        let tag = |value: &str| if value == "its" { tag.clone() } else { value.to_owned() };
        for (method, wanted) in [("GET", get), ("HEAD", get), ("PATCH", patch)] {
            let request = alice.on_task(method, id);
            let request = if method == "PATCH" { request.json(json!({"title": "v"})) } else { request };
            let request = request.header("If-Match", &tag(if_match));
            let response = request.header("If-None-Match", &tag(if_none_match)).send();
            assert_eq!(response.status, wanted, "{method} {if_match} {if_none_match}");
        }
    }
}

#[test]
fn a_precondition_comes_last() {
    let app = App::spawn();
    let (alice, bob) = (app.user("alice"), app.user("bob"));
    let (id, others) = (alice.create_id(), bob.create_id());
    let deleted = alice.create_id();
    alice.on_task("DELETE", deleted).send().expect(204);
    let good = json!({"title": "t", "complete": true});
    for (name, value) in
        [("If-Match", "*"), ("If-Match", "\"x\""), ("If-None-Match", "*"), ("If-None-Match", "\"x\"")]
    {
        let none_such = [deleted, others, i64::MAX].into_iter();
        for id in none_such {
            for method in ["GET", "HEAD", "PUT", "PATCH", "DELETE"] {
                let request = alice.on_task(method, id).header(name, value);
                let has_body = ["PUT", "PATCH"].contains(&method);
                let request = if has_body { request.json(good.clone()) } else { request };
                assert_eq!(request.send().status, 404, "{method} {id} {name}: {value}");
            }
        }
        for (request, wanted) in [
            (app.patch(&format!("/api/alice/tasks/{id}")).json(good.clone()), 401),
            (alice.request("PATCH", "/tasks/x").json(good.clone()), 422),
            (alice.on_task("PATCH", id).json(json!({"title": ""})), 422),
            (alice.on_task("PATCH", id).json(json!({})), 400),
            (alice.on_task("PUT", id).body("{}"), 415),
            (alice.on_task("POST", id), 405),
        ] {
            let request = request.header(name, value);
            let response = request.send();
            assert_eq!(response.status, wanted, "{} {} {value}", request.method, request.target);
        }
        // Routes that name no single task ignore `If-Match`.
        let of_list = if (name, value) == ("If-None-Match", "*") { 304 } else { 200 };
        for (request, wanted) in [
            (alice.request("GET", "/tasks"), of_list),
            (alice.request("POST", "/tasks").json(good.clone()), 201),
            (alice.request("PATCH", "/tasks?complete=true&q=none").json(good.clone()), 200),
            (alice.request("DELETE", "/tasks?complete=true&q=none"), 200),
            (app.get("/"), 200),
            (app.get("/health"), 200),
        ] {
            let request = request.header(name, value);
            let response = request.send();
            assert_eq!(response.status, wanted, "{} {} {value}", request.method, request.target);
        }
    }
    assert_eq!(bob.task(others)["title"], "a task");
}

#[test]
fn of_two_changes_of_one_version_at_once_one_is_done() {
    let app = App::spawn();
    let alice = app.user("alice");
    for (method, other) in [("PATCH", "PATCH"), ("PUT", "PUT"), ("PATCH", "DELETE"), ("DELETE", "DELETE")] {
        let id = alice.create_id();
        let (_, tag) = tagged(alice, id);
        let held = Held::rows(&app.database);
        let mut statuses = thread::scope(|scope| {
            // The two changes differ, because two equal ones would both be answered with 200.
            let both = [(method, "one"), (other, "other")].map(|(method, title)| {
                let request = alice.on_task(method, id).header("If-Match", &tag);
                let change = json!({"title": title, "complete": true});
                let request = if method == "DELETE" { request } else { request.json(change) };
                scope.spawn(move || request.send().status)
            });
            app.database.wait_until_blocked(2);
            held.release();
            both.map(|one| one.join().unwrap())
        });
        statuses.sort_unstable();
        // After a deletion there is no task whose precondition could fail, so the answer is 404.
        let fits = match (method, other) {
            (_, "DELETE") if method == "DELETE" => statuses == [204, 404],
            (_, "DELETE") => statuses == [200, 412] || statuses == [204, 404],
            _ => statuses == [200, 412],
        };
        assert!(fits, "{method} {other}: {statuses:?}");
    }
}

#[test]
fn a_version_that_goes_while_a_change_waits_for_it_is_412() {
    let app = App::spawn();
    let alice = app.user("alice");
    let id = alice.create_id();
    let body = json!({"title": "lost", "complete": true});
    for method in ["PUT", "PATCH", "DELETE"] {
        let (_, tag) = tagged(alice, id);
        let sql =
            "update tasks set title = 'kept', updated_at = updated_at + interval '1 microsecond' where id = ";
        let held = Held::by(&app.database, &format!("{sql}{id}"));
        thread::scope(|scope| {
            let request = alice.on_task(method, id).header("If-Match", &tag);
            let request = if method == "DELETE" { request } else { request.json(body.clone()) };
            let waits = scope.spawn(move || request.send());
            app.database.wait_until_blocked(1);
            held.commit();
            waits.join().unwrap().expect_problem(412, "PRECONDITION_FAILED");
        });
        assert_eq!(alice.task(id)["title"], "kept", "{method}");
    }
}

#[test]
fn updated_at_and_the_tag_move_on_when_the_clock_does_not() {
    let app = App::spawn();
    let alice = app.user("alice");
    let id = alice.create_id();
    // The row lies in the future, as after a clock that was set back.
    app.database.execute("update tasks set updated_at = updated_at + interval '1 year'");
    let body = json!({"title": "t", "complete": false});
    let instant = |task: &Value| task["updated_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    for method in ["PUT", "PATCH", "PUT", "PATCH"] {
        let (before, tag) = tagged(alice, id);
        let request = alice.on_task(method, id).json(body.clone());
        let after = request.header("If-Match", &tag).send().expect(200);
        assert_ne!(after.field("ETag"), Some(tag.as_str()), "{method}");
        let after = after.json();
        assert!(instant(&after) > instant(&before), "{method}: {after}");
        assert_eq!(after["created_at"], before["created_at"], "{method}");
        let other = json!({"title": "another"});
        alice.on_task("PATCH", id).json(other).header("If-Match", &tag).send().expect(412);
    }
}

#[test]
fn a_counter_in_a_title_loses_no_count_to_fifty_clients() {
    const CLIENTS: usize = 50;
    const ROUNDS: usize = 20;
    let app = &App::spawn();
    let id = app.user("alice").create("0")["id"].as_i64().unwrap();
    let (mut done, mut refused) = (0, 0);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                scope.spawn(move || {
                    let mut connection = Connection::open(&app.address).unwrap();
                    let alice = app.user("alice");
                    let (mut done, mut refused) = (0, 0);
                    for _ in 0..ROUNDS {
                        connection.write(&alice.on_task("GET", id).bytes());
                        let read = connection.read("GET").unwrap();
                        // If there are too many requests at once, one may be refused before anything is done.
                        if read.status == 503 {
                            continue;
                        }
                        let title = read.json()["title"].as_str().unwrap().to_owned();
                        let count: usize = title.split(' ').next().unwrap().parse().unwrap();
                        // Each client sends another title, because the second of two equal changes would be a 200.
                        let change = json!({"title": format!("{} {client}", count + 1)});
                        let change = alice.on_task("PATCH", id).json(change);
                        let change = change.header("If-Match", read.field("ETag").unwrap());
                        connection.write(&change.bytes());
                        match connection.read("PATCH").unwrap().status {
                            200 => done += 1,
                            412 => refused += 1,
                            status => assert_eq!(status, 503),
                        }
                    }
                    (done, refused)
                })
            })
            .collect();
        for client in clients {
            let (more_done, more_refused) = client.join().unwrap();
            (done, refused) = (done + more_done, refused + more_refused);
        }
    });
    let title = app.user("alice").task(id)["title"].as_str().unwrap().to_owned();
    assert_eq!(title.split(' ').next(), Some(done.to_string().as_str()));
    assert!(done > 0 && refused > 0, "{done} done, {refused} refused");
}

#[test]
fn a_change_needs_if_match_where_it_is_required() {
    let app = App::setup().env("REQUIRE_IF_MATCH", "true").spawn();
    let alice = app.user("alice");
    let id = alice.create_id();
    let body = json!({"title": "changed", "complete": true});
    for method in ["PUT", "PATCH", "DELETE"] {
        let request = alice.on_task(method, id);
        let request = if method == "DELETE" { request } else { request.json(body.clone()) };
        request.send().expect_problem(428, "PRECONDITION_REQUIRED");
        // `If-None-Match` does not replace `If-Match`, because a change made meanwhile would still be lost.
        request.clone().header("If-None-Match", "\"x\"").send().expect_problem(428, "PRECONDITION_REQUIRED");
        // A precondition that is sent and does not hold is 412, as always.
        for tag in ["\"x\"", "x", "", "W/\"x\""] {
            request.clone().header("If-Match", tag).send().expect_problem(412, "PRECONDITION_FAILED");
        }
        assert_eq!(alice.task(id)["title"], "a task");
    }
    let etag = alice.on_task("GET", id).send().expect(200).field("ETag").unwrap().to_owned();
    alice.on_task("PUT", id).json(body.clone()).header("If-Match", &etag).send().expect(200);
    alice.on_task("PUT", id).json(body).header("If-Match", &etag).send().expect(200);
    let other = json!({"title": "another", "complete": true});
    alice.on_task("PUT", id).json(other).header("If-Match", &etag).send().expect(412);
    alice.on_task("PATCH", id).json(json!({"complete": false})).header("If-Match", "*").send().expect(200);
    alice.on_task("DELETE", id).header("If-Match", "*").send().expect(204);
}

#[test]
fn the_demand_comes_after_the_body_and_before_the_task() {
    let app = App::setup().env("REQUIRE_IF_MATCH", "true").spawn();
    let alice = app.user("alice");
    let id = alice.create_id();
    for method in ["PUT", "PATCH"] {
        let request = || alice.on_task(method, id);
        request().body("{}").header("Content-Type", "text/plain").send().expect(415);
        request().text("{").send().expect(400);
        request().json(json!({"title": "", "complete": true})).send().expect(422);
        alice.request(method, "/tasks/x").json(json!({"title": "t", "complete": true})).send().expect(422);
    }
    alice.request("DELETE", "/tasks/x").send().expect(422);
    app.delete(&format!("/api/alice/tasks/{id}")).send().expect(401);
    app.delete(&format!("/api/alice/tasks/{id}")).bearer(&token("bob")).send().expect(403);
    alice.on_task("DELETE", id + 1000).send().expect(428);
    alice.on_task("DELETE", id + 1000).header("If-Match", "*").send().expect(404);
}
