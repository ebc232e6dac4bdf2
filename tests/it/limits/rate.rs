//! `RATE_LIMIT`: so many requests a second for each user.

use crate::support::{
    harness::{App, eventually},
    http::Response,
    token::token,
};
use serde_json::json;

/// The number of a parameter such as `r` in a field `RateLimit` or `RateLimit-Policy`.
fn parameter(answer: &Response, field: &str, name: &str) -> u64 {
    let value = answer.field(field).unwrap_or_else(|| panic!("{field} is missing: {answer:?}"));
    let value = value.strip_prefix("\"user\";").expect(value);
    let mut pairs = value.split(';').filter_map(|pair| pair.split_once('='));
    pairs.find(|(known, _)| *known == name).expect(value).1.parse().unwrap()
}

fn is_told(answer: &Response) -> bool {
    let told = ["RateLimit", "RateLimit-Policy"].map(|field| answer.field(field).is_some());
    assert_eq!(told[0], told[1]);
    told[0]
}

#[test]
fn a_user_has_so_many_requests_and_others_have_their_own() {
    let app = App::setup().env("RATE_LIMIT", "0.3").spawn();
    let alice = app.user("alice");
    let mut passed = 0;
    let refused = loop {
        let answer = alice.request("GET", "/tasks").send();
        assert_eq!(parameter(&answer, "RateLimit-Policy", "q"), 3);
        assert_eq!(parameter(&answer, "RateLimit-Policy", "w"), 10);
        let (remaining, reset) = (parameter(&answer, "RateLimit", "r"), parameter(&answer, "RateLimit", "t"));
        assert!(remaining <= 2 && (1..=10).contains(&reset), "{answer:?}");
        if answer.status != 200 {
            break answer;
        }
        passed += 1;
        assert!(passed < 100);
    };
    // On a slow machine another request may have become allowed meanwhile.
    assert!(passed >= 3, "{passed}");
    let refused = refused.expect_problem(429, "RATE_LIMITED");
    let wait: u64 = refused.field("Retry-After").unwrap().parse().unwrap();
    assert!((1..=4).contains(&wait), "{refused:?}");
    assert_eq!(parameter(&refused, "RateLimit", "r"), 0);
    let line = app.wait_for_log(|line| line.contains("status=429"));
    assert!(line.contains("user_id=alice") && line.contains("error_code=RATE_LIMITED"), "{line}");

    let answer = app.user("bob").request("GET", "/tasks").send().expect(200);
    assert_eq!(parameter(&answer, "RateLimit", "r"), 2);
    // A refused change was not made.
    assert_eq!(app.database.value("select count(*) from tasks"), "0");
}

#[test]
fn what_is_refused_costs_nothing_and_comes_back() {
    let app = App::setup().env("RATE_LIMIT", "2").spawn();
    let read = || app.user("alice").request("GET", "/tasks").send();
    let mut tries = 0;
    while read().status == 200 {
        tries += 1;
        assert!(tries < 1000);
    }
    assert!(tries >= 20, "{tries}");
    eventually("one more", || read().status == 200);
}

#[test]
fn the_limit_comes_after_the_user_is_known_and_before_the_rest() {
    let app = App::setup().env("RATE_LIMIT", "0.01").spawn();
    let tasks = "/api/alice/tasks";
    // A request that fails before the user is known does not count.
    for _ in 0..3 {
        assert!(!is_told(&app.get(tasks).send().expect(401)));
        assert!(!is_told(&app.get(tasks).bearer("x").send().expect(401)));
        assert!(!is_told(&app.get(tasks).bearer(&token("bob")).send().expect(403)));
        assert!(!is_told(&app.request("OPTIONS", tasks).send().expect(204)));
        assert!(!is_told(&app.get("/health").send().expect(200)));
        assert!(!is_told(&app.post("/nothing").bearer(&token("alice")).send().expect(404)));
        assert!(!is_told(&app.request("PUT", tasks).bearer(&token("alice")).send().expect(405)));
    }
    // An error of a known user counts, and its answer has the fields.
    assert!(is_told(&app.user("alice").request("POST", "/tasks").text("{}").send().expect(422)));
    let bad = app.user("alice").request("POST", "/tasks").text("{}");
    bad.header("X-Request-Id", "a").header("X-Request-Id", "b").send().expect_problem(429, "RATE_LIMITED");
    app.get(tasks).bearer(&token("bob")).send().expect(403);
    app.user("bob").request("GET", "/tasks").send().expect(200);
}

#[test]
fn a_browser_may_read_when_to_come_again() {
    let app = App::setup().env("RATE_LIMIT", "0.01").spawn();
    let request = app.user("alice").request("GET", "/tasks").header("Origin", "http://localhost:3000");
    request.send().expect(200);
    let refused = request.send().expect(429);
    assert_eq!(refused.field("Access-Control-Allow-Origin"), Some("http://localhost:3000"));
    assert!(refused.list("Access-Control-Expose-Headers").contains(&"Retry-After"));
}

#[test]
fn without_the_variables_there_is_no_limit_and_no_demand() {
    let app = App::spawn();
    let alice = app.user("alice");
    let id = alice.create_id();
    for _ in 0..50 {
        assert!(!is_told(&alice.on_task("GET", id).send().expect(200)));
    }
    alice.on_task("PATCH", id).json(json!({"complete": true})).send().expect(200);
    alice.on_task("DELETE", id).send().expect(204);
}
