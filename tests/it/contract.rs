//! `openapi.json` against the service, both ways. Every answer that any test sees is held against
//! the document (`hold_to_the_document`, called for each); and every answer that the document
//! promises is provoked here.

use crate::{
    harness::App,
    http::{Request, Response},
    token::token,
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::LazyLock};

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../openapi.json")).unwrap());

/// Fields that the document speaks of once for all answers, or that are HTTP's own.
const COMMON_FIELDS: [&str; 10] = [
    "connection",
    "content-length",
    "content-security-policy",
    "content-type",
    "date",
    "ratelimit",
    "ratelimit-policy",
    "server",
    "transfer-encoding",
    "x-content-type-options",
];

/// Documented, and out of reach of a test. `(status, error_code, reason)`.
const OUT_OF_REACH: [(u16, &str, &str); 2] = [
    (408, "REQUEST_TIMEOUT", "takes ten seconds: seen in gate.rs"),
    (500, "INTERNAL_ERROR", "a defect that nobody knows of"),
];
/// Where no database is asked, 503 means that there was no capacity: seen in gate.rs.
const NEED_NO_DATABASE: [&str; 4] = ["/", "/docs", "/docs/{asset}", "/openapi.json"];

fn resolve(value: &Value) -> &Value {
    let Some(reference) = value.get("$ref") else {
        return value;
    };
    let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
    let target: &'static Value = DOCUMENT.pointer(pointer).unwrap_or_else(|| panic!("{reference}"));
    resolve(target)
}

/// An answer as the document has it: the operation's template and method, the status.
type Place<'d> = (&'d str, &'d str, &'d str);

/// Every answer in the document.
fn documented() -> Vec<(Place<'static>, &'static Value)> {
    const METHODS: [&str; 6] = ["delete", "get", "options", "patch", "post", "put"];
    let mut all = Vec::new();
    for (template, item) in DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if METHODS.contains(&method.as_str()) {
                for (status, answer) in operation["responses"].as_object().unwrap() {
                    let place = (template.as_str(), method.as_str(), status.as_str());
                    all.push((place, resolve(answer)));
                }
            } else {
                assert_eq!(method, "parameters", "of {template}");
            }
        }
    }
    all
}

/// The template that the target belongs to.
fn template(target: &str) -> Option<&'static str> {
    let path = target.split('?').next().unwrap();
    let path = match path.strip_prefix("http://") {
        Some(absolute) => &absolute[absolute.find('/')?..],
        None => path,
    };
    let fits = |template: &&str| {
        let (wanted, seen) = (template.split('/'), path.split('/'));
        wanted.clone().count() == seen.clone().count()
            && wanted.zip(seen).all(|(wanted, seen)| match wanted.starts_with('{') {
                true => !seen.is_empty(),
                false => wanted == seen,
            })
    };
    DOCUMENT["paths"].as_object().unwrap().keys().map(String::as_str).find(fits)
}

/// The answer is one that the document has for this operation: status, content type, fields, body.
/// `keeps_schema` is false where a body may be as old rows made it.
pub fn hold_to_the_document(method: &str, target: &str, response: &Response, keeps_schema: bool) {
    let Some(template) = template(target) else {
        return;
    };
    let context = || format!("{method} {target}: {response:?}");
    let item = &DOCUMENT["paths"][template];
    let name = if method == "HEAD" { "get" } else { &method.to_lowercase() };
    let status = response.status;
    let operation = match item.get(name) {
        Some(operation) => operation,
        // What holds on all paths is said in words; where answers to it are listed, under OPTIONS.
        None => {
            let is_refused = [400, 405, 408, 413, 414, 431].contains(&status);
            assert!(is_refused || name == "options", "{}", context());
            let Some(operation) = item.get("options") else {
                return;
            };
            operation
        }
    };
    let answer = operation["responses"].get(status.to_string());
    let answer = resolve(answer.unwrap_or_else(|| panic!("undocumented: {}", context())));

    let documented = answer.get("headers").and_then(Value::as_object);
    let documented: Vec<_> = documented.into_iter().flatten().collect();
    for (field, _) in &response.fields {
        let is_known = COMMON_FIELDS.contains(&field.as_str())
            || documented.iter().any(|(name, _)| name.eq_ignore_ascii_case(field));
        assert!(is_known, "undocumented field {field}: {}", context());
    }
    for (name, header) in documented {
        let header = resolve(header);
        match response.field(name) {
            Some(value) => {
                let schema = &header["schema"];
                let is_number = resolve(schema)["type"] == "integer";
                let value = if is_number { serde_json::from_str(value).unwrap() } else { json!(value) };
                assert_eq!(broken(schema, &value), None, "{name}: {}", context());
            }
            None => assert_ne!(header["required"], true, "{name} is missing: {}", context()),
        }
    }

    let Some(content) = answer.get("content") else {
        assert!(response.body.is_empty() && response.field("Content-Type").is_none(), "{}", context());
        return;
    };
    let media_type = response.field("Content-Type").unwrap_or_default().split(';').next().unwrap();
    let content = content.get(media_type).unwrap_or_else(|| panic!("{media_type}: {}", context()));
    if method != "HEAD" && media_type.contains("json") && keeps_schema {
        assert_eq!(broken(&content["schema"], &response.json()), None, "{}", context());
    }
}

/// What of the schema the value breaks; None when it fits. A keyword that is not known here is a
/// failure, so that none stands in the document without effect.
fn broken(schema: &Value, value: &Value) -> Option<String> {
    let Some(keywords) = schema.as_object() else {
        return (schema == false).then(|| format!("{value} must not be there"));
    };
    let fits = |schema: &Value| broken(schema, value).is_none();
    keywords.iter().find_map(|(keyword, rule)| {
        let schemas = || rule.as_array().unwrap().iter();
        let number = || rule.as_f64().unwrap();
        let count = |text: &str| text.chars().count() as f64;
        let is_good = match keyword.as_str() {
            "$ref" => return broken(resolve(schema), value),
            "allOf" => return schemas().find_map(|schema| broken(schema, value)),
            "properties" => {
                let mut rules = rule.as_object().unwrap().iter();
                return rules.find_map(|(name, rule)| broken(rule, value.get(name)?));
            }
            "items" => {
                let skip = schema["prefixItems"].as_array().map_or(0, Vec::len);
                let mut items = value.as_array()?.iter().skip(skip);
                return items.find_map(|item| broken(rule, item));
            }
            "prefixItems" => {
                let mut items = value.as_array()?.iter().zip(schemas());
                return items.find_map(|(item, rule)| broken(rule, item));
            }
            "if" => {
                let branch = if fits(rule) { "then" } else { "else" };
                return keywords.get(branch).and_then(|branch| broken(branch, value));
            }
            "then" | "else" => true,
            "anyOf" => schemas().any(fits),
            "not" => !fits(rule),
            "type" => match rule {
                Value::Array(_) => schemas().any(|rule| has_type(rule, value)),
                _ => has_type(rule, value),
            },
            "enum" => schemas().any(|one| one == value),
            "const" => rule == value,
            "required" => {
                value.is_object() && schemas().all(|name| value.get(name.as_str().unwrap()).is_some())
            }
            "minProperties" => value.as_object().is_none_or(|object| object.len() as f64 >= number()),
            "minItems" => value.as_array().is_none_or(|array| array.len() as f64 >= number()),
            "minLength" => value.as_str().is_none_or(|text| count(text) >= number()),
            "maxLength" => value.as_str().is_none_or(|text| count(text) <= number()),
            "minimum" => value.as_f64().is_none_or(|value| value >= number()),
            "maximum" => value.as_f64().is_none_or(|value| value <= number()),
            "pattern" => value.as_str().is_none_or(|text| Pattern::parse(rule.as_str().unwrap()).fits(text)),
            "description" | "format" | "default" | "example" | "examples" => true,
            _ => panic!("{keyword} is not known to this validator"),
        };
        (!is_good).then(|| format!("{value} breaks {keyword}: {rule}"))
    })
}

fn has_type(name: &Value, value: &Value) -> bool {
    match name.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("type {other}"),
    }
}

/// A regular expression from `^` to `$`: single characters and classes, with `*`, `+`, `{n}`, `{n,m}`.
struct Pattern(Vec<Part>);

struct Part {
    negated: bool,
    ranges: Vec<(char, char)>,
    min: usize,
    max: usize,
}

impl Pattern {
    fn parse(text: &str) -> Self {
        let inner = text.strip_prefix('^').and_then(|text| text.strip_suffix('$')).expect(text);
        let mut chars = inner.chars().peekable();
        let mut parts = Vec::new();
        while let Some(char) = chars.next() {
            let (mut negated, mut ranges) = (false, Vec::new());
            if char == '[' {
                negated = chars.next_if_eq(&'^').is_some();
                while let Some(first) = chars.next().filter(|char| *char != ']') {
                    let first = unescaped(first, &mut chars);
                    // A hyphen before the end of the class stands for itself.
                    let is_range = chars.peek() == Some(&'-') && chars.clone().nth(1) != Some(']');
                    let last = match is_range {
                        true => chars.nth(1).map(|last| unescaped(last, &mut chars)).unwrap(),
                        false => first,
                    };
                    ranges.push((first, last));
                }
            } else {
                assert!(!"(|).?".contains(char), "{char} is not known to this parser");
                let char = unescaped(char, &mut chars);
                ranges.push((char, char));
            }
            let (min, max) = match chars.peek() {
                Some('*') => (0, usize::MAX),
                Some('+') => (1, usize::MAX),
                Some('{') => {
                    let bounds: String = chars.by_ref().skip(1).take_while(|char| *char != '}').collect();
                    let (min, max) = bounds.split_once(',').unwrap_or((&bounds, &bounds));
                    parts.push(Part {
                        negated,
                        ranges,
                        min: min.parse().unwrap(),
                        max: max.parse().unwrap(),
                    });
                    continue;
                }
                _ => (1, 1),
            };
            if max > 1 {
                chars.next();
            }
            parts.push(Part { negated, ranges, min, max });
        }
        Self(parts)
    }

    fn fits(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        // The places that the parts so far can have come to.
        let mut places = BTreeSet::from([0]);
        for part in &self.0 {
            let mut next = BTreeSet::new();
            for place in places {
                let run = text[place..].iter().take_while(|char| part.takes(**char));
                let longest = run.count().min(part.max);
                next.extend((part.min..=longest).map(|count| place + count));
            }
            places = next;
        }
        places.contains(&text.len())
    }
}

impl Part {
    fn takes(&self, char: char) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&char)) != self.negated
    }
}

fn unescaped(char: char, rest: &mut impl Iterator<Item = char>) -> char {
    if char != '\\' {
        return char;
    }
    match rest.next() {
        Some('u') => {
            let digits: String = rest.take(4).collect();
            char::from_u32(u32::from_str_radix(&digits, 16).unwrap()).unwrap()
        }
        Some(sign) if sign.is_ascii_punctuation() => sign,
        other => panic!("\\{other:?} is not known to this parser"),
    }
}

#[test]
fn the_validator_tells_good_from_bad() {
    for (pattern, good, bad) in [
        ("^[^/]+$", &["a", "\u{1F600}b"][..], &["", "a/b"][..]),
        ("^/[1-9][0-9]*$", &["/1", "/10"], &["/0", "/01", "/", "1", "/1x"]),
        ("^[A-Za-z0-9._-]{1,3}$", &["a-.", "_"], &["", "aaaa", "a b"]),
        ("^[\\u0000-\\u0020]*x[^\\u0000]*\\.$", &["x.", "  xx.", " xx.."], &["x", ".x", "y x."]),
    ] {
        let pattern = Pattern::parse(pattern);
        assert!(good.iter().all(|text| pattern.fits(text)));
        assert!(!bad.iter().any(|text| pattern.fits(text)));
    }
    let task = json!({"id": 1, "user_id": "u", "title": "t", "description": null, "complete": false,
        "created_at": "2025-12-20T11:30:00.000000Z", "updated_at": "2025-12-20T11:30:00.000000Z"});
    let schema = json!({"$ref": "#/components/schemas/Task"});
    assert_eq!(broken(&schema, &task), None);
    for (name, value) in [
        ("id", json!(0)),
        ("id", json!(1.5)),
        ("id", json!("1")),
        ("title", json!(" ")),
        ("title", json!("x".repeat(201))),
        ("title", Value::Null),
        ("description", json!(1)),
        ("complete", Value::Null),
        ("created_at", json!("2025-12-20T11:30:00Z")),
    ] {
        let mut bad = task.clone();
        bad[name] = value;
        assert!(broken(&schema, &bad).is_some(), "{bad}");
        bad.as_object_mut().unwrap().remove(name);
        assert!(broken(&schema, &bad).is_some(), "{bad}");
    }
}

#[test]
fn every_example_in_the_document_fits_its_schema() {
    let mut count = 0;
    let mut check = |content: &Value| {
        for (media_type, content) in content.as_object().into_iter().flatten() {
            for (name, example) in content["examples"].as_object().into_iter().flatten() {
                assert_eq!(broken(&content["schema"], &example["value"]), None, "{media_type} {name}");
                count += 1;
            }
        }
    };
    for ((template, method, _), answer) in documented() {
        check(&answer["content"]);
        check(&DOCUMENT["paths"][template][method]["requestBody"]["content"]);
    }
    assert!(count > 0);
}

/// The `error_code`s that an answer can have; one empty text where it is no problem document.
fn error_codes(answer: &Value) -> Vec<&'static str> {
    let problem = resolve(&answer["content"]["application/problem+json"]["schema"]);
    let mut rules = problem["allOf"].as_array().into_iter().flatten();
    let Some(rule) = rules.find_map(|part| {
        resolve(part).get("properties")?.get("error_code").filter(|rule| rule.get("$ref").is_none())
    }) else {
        return vec![""];
    };
    let list = rule.get("enum").and_then(Value::as_array).cloned();
    let list = list.unwrap_or_else(|| vec![rule["const"].clone()]);
    list.iter().map(|code| known_error_code(code.as_str().unwrap())).collect()
}

/// The same text from the document itself.
fn known_error_code(code: &str) -> &'static str {
    let known = DOCUMENT["components"]["schemas"]["ErrorCode"]["enum"].as_array().unwrap();
    let mut known = known.iter().map(|known| known.as_str().unwrap());
    known.find(|known| *known == code).unwrap_or_else(|| panic!("{code} is not in ErrorCode"))
}

/// The services that the answers are to come from.
struct Services {
    well: App,
    without_docs: App,
    without_database: App,
    with_broken_schema: App,
    strict: App,
    slow: App,
    task: i64,
}

impl Services {
    fn start() -> Self {
        let well = App::spawn();
        let with_broken_schema = App::spawn();
        // A new connection would not even get ready: one has to be there already.
        with_broken_schema.user("alice").create("t");
        with_broken_schema.database.execute("drop table tasks");
        let nowhere = "postgres://nobody@127.0.0.1:1/nothing";
        Self {
            task: well.user("alice").create_id(),
            without_docs: App::setup().env("DOCS", "false").spawn(),
            strict: App::setup().env("REQUIRE_IF_MATCH", "true").spawn(),
            slow: App::setup().env("RATE_LIMIT", "0.01").spawn(),
            without_database: App::setup().env("DATABASE_URL", nowhere).unhealthy().spawn(),
            well,
            with_broken_schema,
        }
    }

    /// A request that is to be answered so; None where that is out of reach.
    fn provoke(&self, (template, method, status): Place, error_code: &str) -> Option<Request> {
        let status: u16 = status.parse().unwrap();
        let is_known = |(known, code, _): &(u16, &str, &str)| (*known, *code) == (status, error_code);
        if OUT_OF_REACH.iter().any(is_known) {
            return None;
        }
        let needs_no_database = NEED_NO_DATABASE.contains(&template) || method == "options";
        let app = match (status, template) {
            (503, _) if needs_no_database => return None,
            // With a problem document: no capacity, as above.
            (503, "/health") if !error_code.is_empty() => return None,
            (503, _) => &self.without_database,
            (500, _) => &self.with_broken_schema,
            (428, _) => &self.strict,
            (429, _) => &self.slow,
            (404, "/docs" | "/docs/{asset}" | "/openapi.json") => &self.without_docs,
            _ => &self.well,
        };
        let task = match (status, method, template.ends_with("{task_id}")) {
            (422, "get" | "delete", _) => "x".to_owned(),
            (404, _, true) => (self.task + 1_000_000).to_string(),
            (204, "delete", _) => app.user("alice").create_id().to_string(),
            _ => self.task.to_string(),
        };
        let target = template.replace("{user_id}", "alice").replace("{task_id}", &task);
        let target = target.replace("{asset}", "swagger-ui.css");
        let is_bad_list = status == 422 && method == "get" && template.ends_with("/tasks");
        let target = if is_bad_list { target + "?limit=0" } else { target };
        let has_body = ["post", "put", "patch"].contains(&method);
        let asked = if status == 405 { "QUERY".to_owned() } else { method.to_uppercase() };
        let mut request = app.request(&asked, &target);
        match (status, error_code) {
            (401, "AUTH_MISSING") => {}
            (401, _) => request = request.bearer("x"),
            (403, _) => request = request.bearer(&token("bob")),
            _ => request = request.bearer(&token("alice")),
        }
        request = match status {
            400 => request.header("X-Request-Id", "a").header("X-Request-Id", "a"),
            413 => request.body("x".repeat(64 * 1024 + 1)),
            414 => app.request(&asked, &format!("{target}?{}", "x".repeat(9000))),
            431 => request.header("X-A", &"x".repeat(17_000)),
            429 => {
                app.user("alice").request("GET", "/tasks").send();
                request
            }
            415 => request.header("Content-Type", "text/plain").body("{}"),
            304 => request.header("If-None-Match", "*"),
            412 => request.header("If-Match", "\"x\"").json(json!({"title": "t", "complete": false})),
            422 if error_code == "IDEMPOTENCY_KEY_REUSED" => {
                let first = app.user("alice").request("POST", "/tasks").header("Idempotency-Key", "k");
                first.json(json!({"title": "other"})).send();
                request.header("Idempotency-Key", "k").json(json!({"title": "t"}))
            }
            422 if has_body => request.json(json!({"title": "", "complete": false})),
            _ if has_body => request.json(json!({"title": "t", "complete": false})),
            _ => request,
        };
        if method == "options" {
            request = request.header("Origin", "http://localhost:3000");
            request = request.header("Access-Control-Request-Method", "GET");
        }
        Some(request)
    }
}

#[test]
fn every_documented_answer_is_given() {
    let services = Services::start();
    let mut out_of_reach = BTreeSet::new();
    for (place, answer) in documented() {
        let is_both = answer["content"].as_object().is_some_and(|content| content.len() > 1);
        let mut error_codes = error_codes(answer);
        if is_both {
            error_codes.push("");
        }
        for error_code in error_codes {
            let Some(request) = services.provoke(place, error_code) else {
                out_of_reach.insert((place.2, error_code));
                continue;
            };
            let response = request.send();
            assert_eq!(response.status.to_string(), place.2, "{place:?}: {}", response.text());
            if !error_code.is_empty() {
                assert_eq!(response.json()["error_code"], error_code, "{place:?}");
            }
        }
    }
    for (status, error_code, reason) in OUT_OF_REACH {
        let status = status.to_string();
        assert!(out_of_reach.contains(&(status.as_str(), error_code)), "{error_code}: {reason}");
    }
}

#[test]
fn every_route_and_error_code_of_the_contract_is_documented() {
    let places: BTreeSet<_> = documented().into_iter().map(|((path, method, _), _)| (path, method)).collect();
    for place in [
        ("/api/{user_id}/tasks", "get"),
        ("/api/{user_id}/tasks", "post"),
        ("/api/{user_id}/tasks/{task_id}", "get"),
        ("/api/{user_id}/tasks/{task_id}", "put"),
        ("/api/{user_id}/tasks/{task_id}", "patch"),
        ("/api/{user_id}/tasks/{task_id}", "delete"),
        ("/health", "get"),
        ("/", "get"),
        ("/docs", "get"),
        ("/openapi.json", "get"),
    ] {
        assert!(places.contains(&place), "{place:?}");
    }
    let seen: BTreeSet<_> = documented()
        .into_iter()
        .flat_map(|((_, _, status), answer)| error_codes(answer).into_iter().map(move |code| (status, code)))
        .filter(|(_, error_code)| !error_code.is_empty())
        .collect();
    let wanted = BTreeSet::from([
        ("400", "VALIDATION_ERROR"),
        ("401", "AUTH_INVALID"),
        ("401", "AUTH_MISSING"),
        ("403", "AUTH_FORBIDDEN"),
        ("404", "NOT_FOUND"),
        ("405", "METHOD_NOT_ALLOWED"),
        ("408", "REQUEST_TIMEOUT"),
        ("412", "PRECONDITION_FAILED"),
        ("413", "PAYLOAD_TOO_LARGE"),
        ("414", "URI_TOO_LONG"),
        ("415", "UNSUPPORTED_MEDIA_TYPE"),
        ("422", "IDEMPOTENCY_KEY_REUSED"),
        ("422", "VALIDATION_ERROR"),
        ("428", "PRECONDITION_REQUIRED"),
        ("429", "RATE_LIMITED"),
        ("431", "HEADERS_TOO_LARGE"),
        ("500", "DATABASE_ERROR"),
        ("500", "INTERNAL_ERROR"),
        ("503", "SERVICE_UNAVAILABLE"),
    ]);
    assert_eq!(seen, wanted);
}

#[test]
fn the_document_that_is_served_is_the_one_in_the_repository() {
    let app = App::spawn();
    assert_eq!(app.get("/openapi.json").send().json(), *DOCUMENT);
}
