//! "Request bodies" in the contract: what is refused, with which status, and that all field errors
//! come at once.

use crate::support::{
    harness::{App, User},
    http::padded,
};
use serde_json::{Value, json};

const ONE_CHAR: &str = "\u{1F600}";
const BODY_BYTES_MAX: usize = 64 * 1024;

/// `(loc, type)` pairs as `Response::field_errors` has them.
fn errors(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut errors: Vec<_> =
        pairs.iter().map(|(loc, kind)| ((*loc).to_owned(), (*kind).to_owned())).collect();
    errors.sort();
    errors
}

#[track_caller]
fn assert_refused(user: User, method: &str, rest: &str, body: &[u8], status: u16, wanted: &[(&str, &str)]) {
    let case = format!("{method} {}", String::from_utf8_lossy(body).chars().take(90).collect::<String>());
    let response = user.request(method, rest).text(body).send();
    assert_eq!(response.status, status, "{case}: {}", response.text());
    assert_eq!(response.field_errors(), errors(wanted), "{case}: {}", response.text());
}

/// All three methods refuse the same titles and descriptions.
#[test]
fn a_field_that_breaks_its_rule_is_422_and_named() {
    let app = App::spawn();
    let alice = app.user("alice");
    let id = alice.create_id();
    let before = alice.list();
    let quoted = |text: &str| format!("\"{text}\"");
    let cases = [
        ("title", "null".into(), "null"),
        ("title", "1".into(), "string_type"),
        ("title", "true".into(), "string_type"),
        ("title", "[\"t\"]".into(), "string_type"),
        ("title", "{}".into(), "string_type"),
        ("title", quoted(""), "blank"),
        ("title", quoted(" "), "blank"),
        (
            "title",
            quoted("\\t\\r\\n\\u000b\\f\\u0085\u{a0}\u{1680}\u{2003}\u{2028}\u{202f}\u{205f}\u{3000}"),
            "blank",
        ),
        ("title", quoted(&"x".repeat(201)), "too_long"),
        ("title", quoted(&ONE_CHAR.repeat(201)), "too_long"),
        ("title", quoted(&"\\u0041".repeat(201)), "too_long"),
        ("title", quoted("a\\u0000b"), "bad_text"),
        ("title", quoted("\\ud800"), "bad_text"),
        ("title", quoted("\\udc00 x"), "bad_text"),
        ("title", quoted("\\ude00\\ud83d"), "bad_text"),
        ("title", "\"t\",\"title\":\"t\"".into(), "duplicate"),
        ("title", "\"t\",\"\\u0074itle\":\"t\"".into(), "duplicate"),
        ("description", "1".into(), "string_type"),
        ("description", "false".into(), "string_type"),
        ("description", "[]".into(), "string_type"),
        ("description", quoted(&"x".repeat(1001)), "too_long"),
        ("description", quoted(&ONE_CHAR.repeat(1001)), "too_long"),
        ("description", quoted("\\u0000"), "bad_text"),
        ("description", quoted("\\udfff"), "bad_text"),
        ("description", "null,\"description\":null".into(), "duplicate"),
        ("complete", "null".into(), "null"),
        ("complete", "\"true\"".into(), "bool_type"),
        ("complete", "0".into(), "bool_type"),
        ("complete", "1".into(), "bool_type"),
        ("complete", "[]".into(), "bool_type"),
        ("complete", "true,\"complete\":true".into(), "duplicate"),
    ];
    for (name, value, kind) in cases {
        let others = [("title", "\"t\""), ("complete", "true")].iter().filter(|(other, _)| *other != name);
        let others: String = others.map(|(other, value)| format!("\"{other}\":{value},")).collect();
        let body = format!("{{{others}\"{name}\":{value}}}");
        let loc = format!("body.{name}");
        for (method, rest) in [
            ("POST", "/tasks".to_owned()),
            ("PUT", format!("/tasks/{id}")),
            ("PATCH", format!("/tasks/{id}")),
        ] {
            assert_refused(alice, method, &rest, body.as_bytes(), 422, &[(&loc, kind)]);
        }
    }
    assert_eq!(alice.list(), before, "a refused request changes nothing");
}

#[test]
fn a_field_at_its_limit_is_taken_as_it_is() {
    let app = App::spawn();
    let alice = app.user("alice");
    for (title, description) in [
        ("x".to_owned(), None),
        (ONE_CHAR.to_owned(), Some(String::new())),
        (ONE_CHAR.repeat(200), Some(ONE_CHAR.repeat(1000))),
        ("x".repeat(200), Some(" ".repeat(1000))),
        // A composed character may be more than one code point: 100 times e and an accent.
        ("e\u{301}".repeat(100), None),
        (format!("{}.", " ".repeat(199)), None),
        ("\u{200b}".to_owned(), Some("\u{1}\u{7f}\u{fffe}\u{10ffff}".to_owned())),
        ("\u{feff}\u{180e}".to_owned(), Some("\r\n".to_owned())),
    ] {
        let body = json!({"title": title, "description": description, "complete": true});
        let task = alice.post(body.clone()).expect(201).json();
        let id = task["id"].as_i64().unwrap();
        for task in [
            task,
            alice.on_task("PUT", id).json(body.clone()).send().expect(200).json(),
            alice.on_task("PATCH", id).json(body).send().expect(200).json(),
            alice.task(id),
        ] {
            assert_eq!((&task["title"], &task["description"]), (&json!(title), &json!(description)));
        }
    }
}

#[test]
fn a_missing_field_is_named() {
    let app = App::spawn();
    let alice = app.user("alice");
    let task = format!("/tasks/{}", alice.create_id());
    let title = ("body.title", "missing");
    let complete = ("body.complete", "missing");
    assert_refused(alice, "POST", "/tasks", b"{}", 422, &[title]);
    assert_refused(alice, "POST", "/tasks", br#"{"Title":"t","complete":true}"#, 422, &[title]);
    assert_refused(alice, "PUT", &task, b"{}", 422, &[title, complete]);
    assert_refused(alice, "PUT", &task, br#"{"title":"t"}"#, 422, &[complete]);
    assert_refused(alice, "PUT", &task, br#"{"complete":true,"description":"d"}"#, 422, &[title]);
}

#[test]
fn all_field_errors_of_a_body_come_at_once() {
    let app = App::spawn();
    let alice = app.user("alice");
    let task = format!("/tasks/{}", alice.create_id());
    let body = json!({"title": "", "description": "x".repeat(1001), "complete": "x"}).to_string();
    let all = [("body.title", "blank"), ("body.description", "too_long"), ("body.complete", "bool_type")];
    assert_refused(alice, "POST", "/tasks", body.as_bytes(), 422, &all);
    assert_refused(alice, "PUT", &task, body.as_bytes(), 422, &all);
    assert_refused(alice, "PATCH", &task, body.as_bytes(), 422, &all);
    let body = br#"{"description": 1}"#;
    let all = [("body.title", "missing"), ("body.description", "string_type"), ("body.complete", "missing")];
    assert_refused(alice, "PUT", &task, body, 422, &all);
    assert_refused(alice, "POST", "/tasks", body, 422, &all[..2]);
}

#[test]
fn a_bad_task_id_and_a_bad_body_are_told_together() {
    let app = App::spawn();
    let alice = app.user("alice");
    let id = ("path.task_id", "path_id");
    let title = ("body.title", "string_type");
    let complete = ("body.complete", "missing");
    assert_refused(alice, "PUT", "/tasks/x", br#"{"title":1}"#, 422, &[id, title, complete]);
    assert_refused(alice, "PATCH", "/tasks/0", br#"{"title":1}"#, 422, &[id, title]);
    assert_refused(alice, "PATCH", "/tasks/0", br#"{"title":"t"}"#, 422, &[id]);
    // If one of the errors is a 400, the answer is 400.
    assert_refused(alice, "PUT", "/tasks/x", b"x", 400, &[id, ("body", "json_invalid")]);
    assert_refused(alice, "PATCH", "/tasks/x", b"{}", 400, &[id, ("body", "no_fields")]);
    let query = [("query.q", "query"), ("query.complete", "missing"), ("body", "no_fields")];
    assert_refused(alice, "PATCH", "/tasks?q=", b"{}", 400, &query);
    let bad_key = alice.request("POST", "/tasks").header("Idempotency-Key", "a b");
    let errors = bad_key.json(json!([])).send().expect_problem(400, "VALIDATION_ERROR").field_errors();
    let locs: Vec<_> = errors.iter().map(|(loc, _)| loc.as_str()).collect();
    assert_eq!(locs, ["body", "header.Idempotency-Key"]);
}

#[test]
fn a_problem_says_what_the_contract_shows() {
    let app = App::spawn();
    let problem = app.user("alice").post(json!({"title": "x".repeat(201)})).expect(422).json();
    assert_eq!(problem["detail"], "title: must be at most 200 characters");
    let loc = json!(["body", "title"]);
    let wanted = json!([{"loc": loc, "msg": "must be at most 200 characters", "type": "too_long"}]);
    assert_eq!(problem["errors"], wanted);
    // The existing frontend shows `detail`: it has to name every field.
    let problem = app.user("alice").post(json!({"complete": 1, "description": 1})).expect(422).json();
    for name in ["title", "description", "complete"] {
        assert!(problem["detail"].as_str().unwrap().contains(name), "{problem}");
    }
}

#[test]
fn a_body_that_is_no_json_object_is_400() {
    let app = App::spawn();
    let alice = app.user("alice");
    let task = format!("/tasks/{}", alice.create_id());
    let not_json: &[&[u8]] = &[
        b"",
        b" ",
        b"{",
        b"nul",
        b"{\"title\":\"t\"",
        b"{\"title\":\"t\"}}",
        b"{\"title\":\"t\"} x",
        b"{\"title\":\"t\",}",
        b"{title:\"t\"}",
        b"{'title':'t'}",
        b"{\"title\":\"a\nb\"}",
        b"{\"title\":\"\\x\"}",
        b"{\"title\":\"\\ud8\"}",
        b"{\"title\":NaN}",
        b"{\"title\":\"t\",\"complete\":True}",
        b"{\"title\":\"t\",\"complete\":01}",
        b"{\"title\":\"t\"}\0",
        b"{\"title\":\"\xff\"}",
        b"{\"title\":\"\xc0\xaf\"}",
        b"{\"title\":\"\xed\xa0\x80\"}",
        b"{\"title\":\"t\",\"x\":\"\xff\"}",
        b"\xff\xfe{\0}\0",
        b"title=t",
    ];
    let no_object: &[&[u8]] = &[b"[]", b"[{\"title\":\"t\"}]", b"\"t\"", b"1", b"true", b"null"];
    for (kind, bodies) in [("json_invalid", not_json), ("object_type", no_object)] {
        for body in bodies {
            for (method, rest) in [("POST", "/tasks"), ("PUT", &task), ("PATCH", &task)] {
                assert_refused(alice, method, rest, body, 400, &[("body", kind)]);
            }
        }
    }
}

#[test]
fn a_patch_with_no_known_field_is_400() {
    let app = App::spawn();
    let alice = app.user("alice");
    let id = alice.create_id();
    let before = alice.task(id);
    for body in ["{}", " { } ", r#"{"x":1}"#, r#"{"id":1,"user_id":"bob","updated_at":null}"#] {
        let rest = format!("/tasks/{id}");
        assert_refused(alice, "PATCH", &rest, body.as_bytes(), 400, &[("body", "no_fields")]);
    }
    assert_eq!(alice.task(id), before);
}

#[test]
fn json_is_read_as_the_standard_has_it() {
    let app = App::spawn();
    let alice = app.user("alice");
    let nested = format!("{{\"title\":\"t\",\"x\":{}{}}}", "[".repeat(100), "]".repeat(100));
    let cases: [(&str, &str); 9] = [
        (" \r\n\t{ \"title\" : \"t\" } \r\n", "t"),
        (r#"{"\u0074itle":"\u0074"}"#, "t"),
        (r#"{"title":"\ud83d\ude00\/\"\\\b"}"#, "\u{1F600}/\"\\\u{8}"),
        (r#"{"title":"t","x":"\ud800"}"#, "t"),
        (r#"{"title":"t","\ud800":1}"#, "t"),
        (r#"{"title":"t","x":1e999,"y":-0.0,"z":123456789012345678901234567890}"#, "t"),
        (r#"{"title":"t","TITLE":"u","":{},"title ":null}"#, "t"),
        (r#"{"title":"t","x":{"title":"u","title":"v"}}"#, "t"),
        (&nested, "t"),
    ];
    for (body, title) in cases {
        let response = alice.request("POST", "/tasks").text(body).send();
        assert_eq!(response.status, 201, "{body}: {}", response.text());
        assert_eq!(response.json()["title"], title, "{body}");
    }
}

#[test]
fn deeply_nested_json_does_no_harm() {
    let app = App::spawn();
    let alice = app.user("alice");
    for opening in ["[", "{\"x\":"] {
        let deep = opening.repeat(60_000 / opening.len());
        alice.request("POST", "/tasks").text(&deep).send().expect(400);
        let inside = format!("{{\"title\":\"t\",\"x\":{deep}");
        alice.request("POST", "/tasks").text(&inside).send().expect(400);
    }
    let whole = format!("{{\"title\":\"t\",\"x\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000));
    let status = alice.request("POST", "/tasks").text(&whole).send().status;
    assert!([201, 400].contains(&status), "{status}");
    app.get("/health").send().expect(200);
}

#[test]
fn a_body_is_json_by_its_content_type_or_415() {
    let app = App::spawn();
    let alice = app.user("alice");
    let id = alice.create_id();
    let methods = [
        ("POST", "/tasks".to_owned(), vec!["application/json"]),
        ("PUT", format!("/tasks/{id}"), vec!["application/json"]),
        ("PATCH", format!("/tasks/{id}"), vec!["application/json", "application/merge-patch+json"]),
    ];
    let json = "application/json";
    let patch = "application/merge-patch+json";
    let cases = [
        (Some("application/json"), json),
        (Some("application/json; charset=utf-8"), json),
        (Some("application/json;charset=UTF-8; x=\"y;z\""), json),
        (Some("application/json ; charset=utf-8"), json),
        (Some("Application/JSON"), json),
        (Some("application/merge-patch+json"), patch),
        (Some("APPLICATION/Merge-Patch+JSON; charset=utf-8"), patch),
        (Some("text/plain"), "none"),
        (Some("text/json"), "none"),
        (Some("application/jsonx"), "none"),
        (Some("application/problem+json"), "none"),
        (Some("application/json-patch+json"), "none"),
        (Some("application"), "none"),
        (Some("application/x-www-form-urlencoded"), "none"),
        (Some("multipart/form-data; boundary=application/json"), "none"),
        (Some("*/*"), "none"),
        (Some(""), "none"),
        (None, "none"),
    ];
    for (method, rest, accepted) in methods {
        for (content_type, kind) in cases {
            let mut request = alice.request(method, &rest).body(r#"{"title":"t","complete":true}"#);
            if let Some(content_type) = content_type {
                request = request.header("Content-Type", content_type);
            }
            let response = request.send();
            if accepted.contains(&kind) {
                assert!(response.status < 300, "{method} {content_type:?}: {}", response.text());
            } else {
                let response = response.expect_problem(415, "UNSUPPORTED_MEDIA_TYPE");
                assert_eq!(response.list("Accept"), accepted, "{method} {content_type:?}");
            }
        }
    }
}

#[test]
fn a_content_coding_is_415() {
    let app = App::spawn();
    let alice = app.user("alice");
    for (coding, status) in [
        ("identity", 201),
        ("Identity", 201),
        ("", 201),
        ("identity, ,identity,", 201),
        ("gzip", 415),
        ("br", 415),
        ("identity, gzip", 415),
        ("deflate, identity", 415),
        (", gzip", 415),
        ("x", 415),
    ] {
        let request = alice.request("POST", "/tasks").json(json!({"title": "t"}));
        let response = request.header("Content-Encoding", coding).send();
        assert_eq!(response.status, status, "{coding}");
        let wanted = (status == 415).then_some("identity");
        assert_eq!(response.field("Accept-Encoding"), wanted, "{coding}");
    }
}

#[test]
fn a_body_over_64_kib_is_413() {
    let app = App::spawn();
    let alice = app.user("alice");
    let id = alice.create_id();
    let body = |length| padded(r#"{"title":"t","complete":true}"#, length);
    for (method, rest, good) in [
        ("POST", "/tasks".to_owned(), 201),
        ("PUT", format!("/tasks/{id}"), 200),
        ("PATCH", format!("/tasks/{id}"), 200),
    ] {
        let request = alice.request(method, &rest);
        request.clone().text(body(BODY_BYTES_MAX)).send().expect(good);
        let response = request.text(body(BODY_BYTES_MAX + 1)).send();
        response.expect_problem(413, "PAYLOAD_TOO_LARGE");
    }
}

#[test]
fn a_task_id_is_a_whole_number_without_leading_zeros_or_422() {
    let app = App::spawn();
    let alice = app.user("alice");
    let id = alice.create_id();
    let cases = [
        ("0", 422),
        ("00", 422),
        ("01", 422),
        ("-1", 422),
        ("+1", 422),
        ("1.0", 422),
        ("1e3", 422),
        ("0x1", 422),
        ("1_000", 422),
        ("abc", 422),
        ("1;x=2", 422),
        ("%201", 422),
        ("1%20", 422),
        ("1%0A", 422),
        ("%00", 422),
        ("1%2F2", 422),
        ("%D9%A1", 422),    // ARABIC-INDIC DIGIT ONE
        ("%EF%BC%91", 422), // FULLWIDTH DIGIT ONE
        ("9223372036854775808", 422),
        ("18446744073709551617", 422),
        ("99999999999999999999999999999999", 422),
        ("9223372036854775807", 404),
        ("9007199254740992", 404),
        ("2147483648", 404),
    ];
    let body = json!({"title": "t", "complete": true});
    for (segment, status) in cases {
        for method in ["GET", "PUT", "PATCH", "DELETE"] {
            let mut request = alice.request(method, &format!("/tasks/{segment}"));
            if method.starts_with('P') {
                request = request.json(body.clone());
            }
            let response = request.send().expect(status);
            if status == 422 {
                assert_eq!(response.field_errors(), errors(&[("path.task_id", "path_id")]), "{segment}");
            }
        }
    }
    // The escape is decoded before the number is read.
    let escaped: String = id.to_string().bytes().map(|byte| format!("%{byte:X}")).collect();
    let found = alice.request("GET", &format!("/tasks/{escaped}")).send().expect(200);
    assert_eq!(found.json()["id"], Value::from(id));
}
