//! Isolation, proven by comparison: random requests of many users at once, on one service and one
//! database, each answer held against a model of the contract that knows nothing of the service's
//! code. A user acts from one thread alone, so the model knows exactly what that user must be told:
//! status, every header field, the whole body. All that a user stores and sends carries the user's
//! mark, and every answer is searched for the marks of others. At the end so is the table, row by row.
//!
//! `TINYTASKS_MODEL_STEPS` and `TINYTASKS_MODEL_SEED` choose more requests, and others: the same seed
//! sends the same requests, but for the other users' ids that it asks for.

use crate::{
    harness::{App, Database},
    http::{Connection, Request, Response, is_timestamp},
    ledger::Random,
    token::{HEADER, SECRET, now, segment, sign, sign_text, token},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Instant,
};

const STEPS_DEFAULT: u64 = 12_000;
const THREADS: u64 = 4;
const USERS_PER_THREAD: u64 = 6;
/// The first user of a thread begins with so many tasks: a list without limit comes in several parts.
const TASKS_OF_COLLECTORS: u64 = 200;
/// No text of the service or of the test has it, but for marks.
const MARK: &str = "Zq7";
const MARK_DIGITS: usize = 8;
const ORIGIN: &str = "http://localhost:3000";
/// The same for all users, so that they collide.
const KEYS: [&str; 5] = ["k1", "K1", "\"k1\"", "k1,k2", "~!@#$%^&*()"];
const PHRASES: [&str; 6] =
    ["buy milk", "a\"b\\c/d", "🙂👩‍👩‍👧", "e\u{301} é", "\u{202e}rtl\u{2028}", "\t\r\n x "];

/// What all threads know.
struct World<'a> {
    app: &'a App,
    seed: u64,
    /// Every id that was ever given, and the index of its user. An id given twice is a failure.
    ids: Mutex<BTreeMap<i64, u64>>,
    has_failed: AtomicBool,
}

#[derive(Clone, PartialEq, Debug)]
struct Content {
    title: String,
    description: Option<String>,
    complete: bool,
}

#[derive(Debug)]
struct Task {
    id: i64,
    content: Content,
    created_at: String,
    updated_at: String,
    /// That in force is the last.
    tags: Vec<String>,
    key: Option<String>,
}

/// One user's part of the model.
struct User {
    index: u64,
    id: String,
    mark: String,
    tokens: Vec<String>,
    tasks: BTreeMap<i64, Task>,
    /// What POST was sent with, and the task that it made.
    keys: BTreeMap<String, (Content, i64)>,
    deleted: Vec<i64>,
}

/// A member of a body: its JSON, and what the contract says of it.
#[derive(Clone, Debug)]
enum Member<T> {
    Absent,
    Null,
    Good(T, String),
    Bad(&'static str, String),
    Twice(String),
}

#[derive(Debug)]
struct Body {
    title: Member<String>,
    description: Member<String>,
    complete: Member<bool>,
    bytes: Vec<u8>,
    /// It is no JSON object: the type of the field error.
    broken: Option<&'static str>,
}

/// `If-Match` or `If-None-Match`.
#[derive(Debug, Default)]
struct Tags {
    lines: Vec<String>,
    is_any: bool,
    /// Whether weak, and the tag.
    named: Vec<(bool, String)>,
}

#[derive(Debug, PartialEq, Clone, Copy)]
enum Login {
    Good,
    Missing,
    Invalid,
}

/// A request, and what its parts mean.
#[derive(Debug)]
struct Call {
    method: &'static str,
    path_user: String,
    /// Decoded; None for the list.
    task: Option<String>,
    /// Name, value, whether the value keeps the rule.
    query: Vec<(&'static str, String, bool)>,
    login: Login,
    keys: Vec<String>,
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
    media_type: Option<&'static str>,
    body: Option<Body>,
    origin: Option<&'static str>,
    request_id: Option<String>,
}

/// `loc` joined with dots, `msg`, `type`.
type Rule = (String, &'static str, &'static str);

/// What the contract says of a call, before anything of it is done.
#[derive(Debug)]
enum Outcome {
    Refused { status: u16, code: &'static str, detail: &'static str, field: Option<(&'static str, String)> },
    Broken(u16, Vec<Rule>),
    Options,
    List(Page),
    Shown(i64),
    NotModified(i64),
    Created(Content, Option<String>),
    Replayed(i64),
    Changed(i64, Content),
    Deleted(i64),
}

#[derive(Debug, Default, Clone, Copy)]
struct Page {
    complete: Option<bool>,
    is_descending: bool,
    limit: Option<usize>,
    offset: u64,
    after: Option<i64>,
}

/// What the answer must be. The rules for every answer are `http.rs`'s.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    fields: BTreeMap<String, String>,
    body: Value,
}

// What the contract says.

fn refused(status: u16, code: &'static str, detail: &'static str) -> Outcome {
    Outcome::Refused { status, code, detail, field: None }
}

fn refused_with(
    status: u16,
    code: &'static str,
    detail: &'static str,
    name: &'static str,
    value: &str,
) -> Outcome {
    Outcome::Refused { status, code, detail, field: Some((name, value.to_owned())) }
}

fn no_such_task() -> Outcome {
    refused(404, "NOT_FOUND", "there is no such task")
}

fn methods(call: &Call) -> &'static str {
    if call.task.is_some() { "GET, HEAD, PUT, PATCH, DELETE, OPTIONS" } else { "GET, HEAD, POST, OPTIONS" }
}

impl User {
    /// In the contract's order of checks.
    fn decide(&self, call: &Call) -> Outcome {
        if call.task.as_deref() == Some("") {
            return refused(404, "NOT_FOUND", "there is nothing at this path");
        }
        if !methods(call).split(", ").any(|method| method == call.method) {
            let detail = "the method is not allowed here";
            return refused_with(405, "METHOD_NOT_ALLOWED", detail, "allow", methods(call));
        }
        let is_options = call.method == "OPTIONS";
        let bearer = |code, detail, value| refused_with(401, code, detail, "www-authenticate", value);
        match call.login {
            _ if is_options => {}
            Login::Missing => return bearer("AUTH_MISSING", "a bearer token is required", "Bearer"),
            Login::Invalid => {
                return bearer("AUTH_INVALID", "the token is not valid", "Bearer error=\"invalid_token\"");
            }
            Login::Good if call.path_user != self.id => {
                return refused(403, "AUTH_FORBIDDEN", "the token is another user's");
            }
            Login::Good => {}
        }
        if call.keys.len() > 1 {
            let rule = ("header.Idempotency-Key".to_owned(), "must be given once", "header_repeated");
            return Outcome::Broken(400, vec![rule]);
        }
        match (call.method, &call.task) {
            ("OPTIONS", _) => Outcome::Options,
            (_, None) if call.method == "POST" => self.decide_create(call),
            (_, None) => decide_list(call),
            (_, Some(task)) => self.decide_task(call, task),
        }
    }

    fn decide_create(&self, call: &Call) -> Outcome {
        if let Some(outcome) = wrong_media_type(call, &["application/json"]) {
            return outcome;
        }
        let mut rules = Vec::new();
        let key = call.keys.first();
        if key
            .is_some_and(|key| !(1..=255).contains(&key.len()) || !key.bytes().all(|b| b.is_ascii_graphic()))
        {
            let msg = "must be 1 to 255 visible ASCII characters";
            rules.push(("header.Idempotency-Key".to_owned(), msg, "idempotency_key"));
        }
        let body = call.body.as_ref();
        if let Some(outcome) = body_is_broken(body) {
            return outcome;
        }
        let body = body.unwrap();
        rules.extend(body.rules(true, false));
        if !rules.is_empty() {
            return Outcome::Broken(422, rules);
        }
        let content = body.content();
        match key.and_then(|key| self.keys.get(key)) {
            Some((first, id)) if *first == content => Outcome::Replayed(*id),
            Some(_) => {
                let detail = "the Idempotency-Key was used with another body";
                refused(422, "IDEMPOTENCY_KEY_REUSED", detail)
            }
            None => Outcome::Created(content, key.cloned()),
        }
    }

    fn decide_task(&self, call: &Call, task: &str) -> Outcome {
        let is_canonical = task.bytes().all(|byte| byte.is_ascii_digit()) && !task.starts_with('0');
        let id = task.parse::<i64>().ok().filter(|_| is_canonical);
        let mut rules = Vec::new();
        if id.is_none() {
            let msg = "must be a whole number from 1 to 9223372036854775807, without leading zeros";
            rules.push(("path.task_id".to_owned(), msg, "path_id"));
        }
        if let "PUT" | "PATCH" = call.method {
            let accepted: &[_] = match call.method {
                "PUT" => &["application/json"],
                _ => &["application/json", "application/merge-patch+json"],
            };
            let body = call.body.as_ref();
            if let Some(outcome) = wrong_media_type(call, accepted).or_else(|| body_is_broken(body)) {
                return outcome;
            }
            let body = body.unwrap();
            if call.method == "PATCH" && body.has_no_field() {
                let msg = "must have at least one of title, description, complete";
                return Outcome::Broken(400, vec![("body".to_owned(), msg, "no_fields")]);
            }
            rules.extend(body.rules(call.method == "PUT", call.method == "PUT"));
        }
        let Some(id) = id.filter(|_| rules.is_empty()) else { return Outcome::Broken(422, rules) };
        let Some(task) = self.tasks.get(&id) else { return no_such_task() };
        let tag = task.tags.last().unwrap();
        let failed = || refused(412, "PRECONDITION_FAILED", "the task is not what the request expects");
        if call.if_match.as_ref().is_some_and(|tags| !tags.matches(tag, false)) {
            return failed();
        }
        let is_excluded = call.if_none_match.as_ref().is_some_and(|tags| tags.matches(tag, true));
        match call.method {
            "GET" | "HEAD" if is_excluded => Outcome::NotModified(id),
            "GET" | "HEAD" => Outcome::Shown(id),
            _ if is_excluded => failed(),
            "DELETE" => Outcome::Deleted(id),
            "PUT" => Outcome::Changed(id, call.body.as_ref().unwrap().content()),
            _ => Outcome::Changed(id, call.body.as_ref().unwrap().patched(&task.content)),
        }
    }
}

fn wrong_media_type(call: &Call, accepted: &[&str]) -> Option<Outcome> {
    let essence = call.media_type.unwrap_or_default().split(';').next().unwrap().trim();
    let fits = accepted.iter().any(|accepted| accepted.eq_ignore_ascii_case(essence));
    let detail = match accepted {
        [_] => "Content-Type: must be application/json",
        _ => "Content-Type: must be application/json or application/merge-patch+json",
    };
    let wrong = || refused_with(415, "UNSUPPORTED_MEDIA_TYPE", detail, "accept", &accepted.join(", "));
    (!fits).then(wrong)
}

fn body_is_broken(body: Option<&Body>) -> Option<Outcome> {
    let kind = body.map_or(Some("json_invalid"), |body| body.broken)?;
    let msg = match kind {
        "object_type" => "must be a JSON object",
        "utf8" => "must be UTF-8",
        _ => "must be valid JSON",
    };
    let kind = if kind == "utf8" { "json_invalid" } else { kind };
    Some(Outcome::Broken(400, vec![("body".to_owned(), msg, kind)]))
}

impl Body {
    fn has_no_field(&self) -> bool {
        matches!(
            (&self.title, &self.description, &self.complete),
            (Member::Absent, Member::Absent, Member::Absent)
        )
    }

    /// All that is wrong.
    fn rules(&self, needs_title: bool, needs_complete: bool) -> Vec<Rule> {
        fn rule<T>(member: &Member<T>, is_needed: bool, may_be_null: bool) -> Option<&'static str> {
            match member {
                Member::Absent if is_needed => Some("missing"),
                Member::Null if !may_be_null => Some("null"),
                Member::Bad(kind, _) => Some(kind),
                Member::Twice(_) => Some("duplicate"),
                _ => None,
            }
        }
        let rules = [
            ("title", rule(&self.title, needs_title, false)),
            ("description", rule(&self.description, false, true)),
            ("complete", rule(&self.complete, needs_complete, false)),
        ];
        let rules = rules.into_iter().filter_map(|(name, kind)| kind.map(|kind| (name, kind)));
        rules.map(|(name, kind)| (format!("body.{name}"), message(name, kind), kind)).collect()
    }

    fn content(&self) -> Content {
        let absent = Content { title: String::new(), description: None, complete: false };
        self.patched(&absent)
    }

    fn patched(&self, old: &Content) -> Content {
        let mut content = old.clone();
        if let Member::Good(title, _) = &self.title {
            content.title.clone_from(title);
        }
        match &self.description {
            Member::Good(description, _) => content.description = Some(description.clone()),
            Member::Null => content.description = None,
            _ => {}
        }
        if let Member::Good(complete, _) = &self.complete {
            content.complete = *complete;
        }
        content
    }
}

fn message(name: &str, kind: &str) -> &'static str {
    match (name, kind) {
        (_, "missing") => "is required",
        (_, "null") => "must not be null",
        (_, "string_type") => "must be a string",
        (_, "bool_type") => "must be true or false",
        (_, "bad_text") => "must not contain U+0000 or a lone surrogate",
        (_, "duplicate") => "must be given once",
        (_, "blank") => "must not be empty or white space alone",
        ("title", "too_long") => "must be at most 200 characters",
        ("description", "too_long") => "must be at most 1000 characters",
        _ => panic!("{name} {kind}"),
    }
}

impl Tags {
    fn matches(&self, tag: &str, weakly: bool) -> bool {
        self.is_any || self.named.iter().any(|(is_weak, named)| named == tag && (weakly || !is_weak))
    }
}

fn decide_list(call: &Call) -> Outcome {
    const RULES: [(&str, &str); 5] = [
        ("complete", "must be true or false, once"),
        ("order", "must be asc or desc, once"),
        ("limit", "must be a whole number from 1 to 1000, once"),
        ("offset", "must be a whole number from 0, once"),
        ("after", "must be the id of a task, once"),
    ];
    let (mut page, mut rules, mut seen) = (Page::default(), Vec::new(), BTreeSet::new());
    for (name, value, is_good) in &call.query {
        let Some((_, msg)) = RULES.iter().find(|(known, _)| known == name) else { continue };
        if !seen.insert(*name) || !is_good {
            rules.push((format!("query.{name}"), *msg, "query"));
            continue;
        }
        match *name {
            "complete" => page.complete = Some(value == "true"),
            "order" => page.is_descending = value == "desc",
            "limit" => page.limit = value.parse().ok(),
            "offset" => page.offset = value.parse().unwrap(),
            _ => page.after = value.parse().ok(),
        }
    }
    if seen.contains("offset") && seen.contains("after") {
        rules.push(("query.after".to_owned(), "must not be with offset", "query"));
    }
    if rules.is_empty() { Outcome::List(page) } else { Outcome::Broken(422, rules) }
}

impl User {
    /// The tasks of the page, and the query of the next one.
    fn page(&self, page: Page) -> (Vec<&Task>, Option<BTreeMap<String, String>>) {
        let mut tasks: Vec<&Task> = self.tasks.values().collect();
        if page.is_descending {
            tasks.reverse();
        }
        let is_behind =
            |id: i64| page.after.is_none_or(|after| if page.is_descending { id < after } else { id > after });
        tasks.retain(|task| {
            is_behind(task.id) && page.complete.is_none_or(|complete| task.content.complete == complete)
        });
        let offset = usize::try_from(page.offset).unwrap_or(usize::MAX).min(tasks.len());
        tasks.drain(..offset);
        let Some(limit) = page.limit.filter(|limit| *limit < tasks.len()) else { return (tasks, None) };
        tasks.truncate(limit);
        let mut next = BTreeMap::from([("after", tasks.last().unwrap().id.to_string())]);
        next.insert("limit", limit.to_string());
        next.insert("order", if page.is_descending { "desc" } else { "asc" }.to_owned());
        next.extend(page.complete.map(|complete| ("complete", complete.to_string())));
        (tasks, Some(next.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()))
    }

    fn path(&self) -> String {
        format!("/api/{}/tasks", segment(&self.id))
    }

    fn shown(&self, task: &Task) -> Value {
        let Content { title, description, complete } = &task.content;
        json!({
            "id": task.id, "user_id": self.id, "title": title, "description": description,
            "complete": complete, "created_at": task.created_at, "updated_at": task.updated_at,
        })
    }

    /// Does to the model what the call does, and gives what must be answered. Only what the server
    /// is free to choose is taken from its answer, and judged: a new task's id, times, tags.
    fn perform(&mut self, world: &World, call: &Call, outcome: &Outcome, seen: &Response) -> Answer {
        let mut fields = BTreeMap::new();
        let mut set = |name: &str, value: &str| fields.insert(name.to_owned(), value.to_owned());
        let private = "private, no-cache";
        let (status, body) = match outcome {
            Outcome::Refused { status, code, detail, field } => {
                if let Some((name, value)) = field {
                    set(name, value);
                }
                (*status, problem(seen, code, detail, None))
            }
            Outcome::Broken(status, rules) => {
                let detail = sentence(seen);
                (*status, problem(seen, "VALIDATION_ERROR", &detail, Some(rules)))
            }
            Outcome::Options => {
                set("allow", methods(call));
                if call.task.is_some() {
                    set("accept-patch", "application/json, application/merge-patch+json");
                }
                (204, Value::Null)
            }
            Outcome::List(page) => {
                let (tasks, next) = self.page(*page);
                if let Some(next) = next {
                    // The parameters in any order; asc may be left out.
                    let link = seen.field("Link").unwrap_or("none");
                    set("link", if names_page(link, &self.path(), &next) { link } else { "another" });
                }
                set("cache-control", "no-store");
                let tasks: Vec<_> = tasks.iter().map(|task| self.shown(task)).collect();
                (200, json!({"count": tasks.len(), "tasks": tasks}))
            }
            Outcome::Created(content, key) => {
                let task = self.learn_new(world, content, key.as_ref(), seen);
                set("location", &format!("{}/{}", self.path(), task.id));
                set("etag", task.tags.last().unwrap());
                set("cache-control", private);
                let body = self.shown(&task);
                self.tasks.insert(task.id, task);
                (201, body)
            }
            Outcome::Changed(id, content) => {
                learn_change(self.tasks.get_mut(id).unwrap(), content, call, seen);
                let task = &self.tasks[id];
                set("content-location", &format!("{}/{id}", self.path()));
                set("etag", task.tags.last().unwrap());
                set("cache-control", private);
                (200, self.shown(task))
            }
            Outcome::Shown(id) | Outcome::Replayed(id) | Outcome::NotModified(id) => {
                let task = &self.tasks[id];
                set("etag", task.tags.last().unwrap());
                set("cache-control", private);
                match outcome {
                    Outcome::Replayed(_) => {
                        set("location", &format!("{}/{id}", self.path()));
                        set("idempotent-replayed", "true");
                        (201, self.shown(task))
                    }
                    Outcome::NotModified(_) => (304, Value::Null),
                    _ => (200, self.shown(task)),
                }
            }
            Outcome::Deleted(id) => {
                let task = self.tasks.remove(id).unwrap();
                task.key.and_then(|key| self.keys.remove(&key));
                self.deleted.push(*id);
                (204, Value::Null)
            }
        };
        common_fields(call, status, &mut fields);
        Answer { status, fields, body }
    }

    fn learn_new(&mut self, world: &World, content: &Content, key: Option<&String>, seen: &Response) -> Task {
        let json = seen.clone().expect(201).json();
        let id = json["id"].as_i64().filter(|id| (1..1 << 53).contains(id)).expect("an id");
        let before = world.ids.lock().unwrap().insert(id, self.index);
        assert_eq!(before, None, "the id {id} was given before");
        if let Some(key) = key {
            self.keys.insert(key.clone(), (content.clone(), id));
        }
        let time = json["created_at"].as_str().filter(|time| is_timestamp(time)).expect("a time").to_owned();
        let (content, tags, key) = (content.clone(), vec![learned_tag(seen)], key.cloned());
        Task { id, content, created_at: time.clone(), updated_at: time, tags, key }
    }
}

fn learned_tag(seen: &Response) -> String {
    let tag = seen.field("ETag").expect("an ETag");
    let opaque = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    assert!(opaque.is_some_and(|opaque| !opaque.is_empty() && !opaque.contains('"')), "no strong tag: {tag}");
    tag.to_owned()
}

/// Every change moves the time forward and gives another tag.
fn learn_change(task: &mut Task, content: &Content, call: &Call, seen: &Response) {
    let json = seen.clone().expect(200).json();
    let time = json["updated_at"].as_str().filter(|time| is_timestamp(time)).expect("a time");
    assert!(*time > *task.updated_at, "{} does not move forward: {time}, {}", call.method, task.updated_at);
    let tag = learned_tag(seen);
    assert!(!task.tags.contains(&tag), "the tag {tag} was that of another version: {:?}", task.tags);
    task.tags.push(tag);
    time.clone_into(&mut task.updated_at);
    task.content = content.clone();
}

fn common_fields(call: &Call, status: u16, fields: &mut BTreeMap<String, String>) {
    let mut set = |name: &str, value: &str| fields.insert(name.to_owned(), value.to_owned());
    let is_options = call.method == "OPTIONS";
    let preflight = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
    set("vary", if is_options { preflight } else { "Origin" });
    if call.origin == Some(ORIGIN) {
        set("access-control-allow-origin", ORIGIN);
        set("access-control-allow-credentials", "true");
        let exposed = "ETag, Link, Location, Content-Location, Retry-After, WWW-Authenticate, X-Request-Id, \
            Idempotent-Replayed";
        set("access-control-expose-headers", exposed);
    }
    match status {
        204 | 304 => {}
        200..300 => _ = set("content-type", "application/json"),
        _ => {
            set("content-type", "application/problem+json");
            set("cache-control", "no-store");
        }
    }
}

/// Time and request id are `http.rs`'s to judge. The errors are compared in any order.
fn problem(seen: &Response, code: &str, detail: &str, rules: Option<&Vec<Rule>>) -> Value {
    let mut problem = json!({"error_code": code, "detail": detail});
    // With HEAD there is nothing to be compared.
    if let (Some(rules), false) = (rules, seen.body.is_empty()) {
        let error = |(loc, msg, kind): &Rule| json!({"loc": loc.split('.').collect::<Vec<_>>(), "msg": msg, "type": kind});
        problem["errors"] = sorted(rules.iter().map(error).collect());
    }
    problem
}

fn sorted(mut values: Vec<Value>) -> Value {
    values.sort_by_key(Value::to_string);
    Value::Array(values)
}

/// All errors in one sentence, in their own order.
fn sentence(seen: &Response) -> String {
    if seen.body.is_empty() {
        return String::new();
    }
    let json = seen.json();
    let errors = json["errors"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let one = |error: &Value| {
        let last = error["loc"].as_array().and_then(|loc| loc.last()).map(text);
        format!("{}: {}", last.unwrap_or_default(), text(&error["msg"]))
    };
    errors.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn names_page(link: &str, path: &str, wanted: &BTreeMap<String, String>) -> bool {
    let target = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\""));
    let Some((link_path, query)) = target.and_then(|target| target.split_once('?')) else { return false };
    let pairs: Vec<_> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let mut named: BTreeMap<_, _> =
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let is_once = named.len() == query.split('&').count();
    named.entry("order".to_owned()).or_insert("asc".to_owned());
    is_once && link_path == path && named == *wanted
}

/// What is left when that which `http.rs` has judged is taken away.
fn answer_of(call: &Call, seen: &Response) -> Answer {
    const JUDGED: [&str; 7] = [
        "content-length",
        "content-security-policy",
        "date",
        "server",
        "transfer-encoding",
        "x-content-type-options",
        "x-request-id",
    ];
    let fields: Vec<_> =
        seen.fields.iter().filter(|(name, _)| !JUDGED.contains(&name.as_str())).cloned().collect();
    let count = fields.len();
    let fields: BTreeMap<_, _> = fields.into_iter().collect();
    assert_eq!(fields.len(), count, "a field is there twice: {seen:?}");
    let body = match seen.status {
        _ if seen.body.is_empty() => Value::Null,
        400.. => {
            let json = seen.json();
            let mut problem = json!({"error_code": json["error_code"], "detail": json["detail"]});
            if let Some(errors) = json["errors"].as_array() {
                problem["errors"] = sorted(errors.clone());
            }
            problem
        }
        _ => seen.json(),
    };
    assert!(call.method != "HEAD" || body.is_null(), "a body for HEAD");
    Answer { status: seen.status, fields, body }
}

// What is sent.

fn chance(random: &mut Random, one_in: u64) -> bool {
    random.below(one_in) == 0
}

fn one_of<T: Clone>(random: &mut Random, choices: &[T]) -> T {
    choices[random.below(choices.len() as u64) as usize].clone()
}

/// JSON of a text, in one of its spellings.
fn spelled(random: &mut Random, text: &str) -> String {
    if !chance(random, 6) {
        return json!(text).to_string();
    }
    let units = text.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
    format!("\"{}\"", units.collect::<String>())
}

impl User {
    fn new(world_seed: u64, index: u64) -> Self {
        // Marks of one run differ from those of another in the same database, and from each other
        // in one digit.
        let mark = format!("{MARK}{:04x}{index:04x}", world_seed & 0xffff);
        let id = match index % 12 {
            0 => mark.clone(),
            1 => format!("{mark} with space "),
            2 => format!("a/b/../{mark}/tasks"),
            3 => format!("100%25{mark}%"),
            4 => format!("ü🙂{mark}"),
            5 => format!("auth0|{mark}?x=1&y#z"),
            6 => format!("'; drop table tasks; --{mark}\\"),
            7 => mark.clone() + &"🙂".repeat(255 - mark.len()),
            8 => format!("{mark}\n\t\u{1}"),
            9 => format!("..{mark}.."),
            10 => format!("\u{202e}{mark}e\u{301}"),
            _ => format!("{mark}+%2F"),
        };
        let expires = now() + 36_000;
        let tokens = vec![
            sign(SECRET, &json!({"user_id": id, "exp": expires})),
            sign(SECRET, &json!({"sub": id, "exp": expires})),
            sign(
                SECRET,
                &json!({"user_id": id, "sub": "another", "exp": expires, "iat": 1, "role": "admin"}),
            ),
        ];
        let (tasks, keys) = (BTreeMap::new(), BTreeMap::new());
        Self { index, id, mark, tokens, tasks, keys, deleted: Vec::new() }
    }

    /// It names a task, but not the user's own.
    fn is_anothers(&self, world: &World, call: &Call) -> bool {
        let id = call.task.as_ref().and_then(|task| task.parse::<i64>().ok());
        let owner = id.and_then(|id| world.ids.lock().unwrap().get(&id).copied());
        owner.is_some_and(|owner| owner != self.index)
    }

    fn is_collector(&self) -> bool {
        self.index.is_multiple_of(USERS_PER_THREAD)
    }

    /// A text of the user's own that keeps its rule.
    fn text(&self, random: &mut Random, chars_max: usize) -> String {
        let text = match random.below(12) {
            0 => format!(" {} ", self.mark),
            1 => self.mark.clone() + &"🙂".repeat(chars_max - self.mark.len()),
            _ => format!("{} {} {}", self.mark, one_of(random, &PHRASES), random.below(1000)),
        };
        assert!(text.chars().count() <= chars_max);
        text
    }

    fn bad_text(&self, random: &mut Random, chars_max: usize) -> Member<String> {
        let mark = &self.mark;
        let (kind, json) = match random.below(6) {
            0 => ("too_long", json!(mark.clone() + &"🙂".repeat(chars_max + 1 - mark.len())).to_string()),
            1 => ("bad_text", format!("\"{mark}\\u0000\"")),
            2 => ("bad_text", format!("\"{mark}\\ud83d\"")),
            3 => ("string_type", one_of(random, &["5", "true", "[]", "{\"a\": null}", "-1e9"]).to_owned()),
            _ if chars_max == 200 => {
                let blank = one_of(random, &["", " ", "\\t\\n", "\u{a0}\u{2003}\u{3000}", "\u{2028}\u{85}"]);
                ("blank", format!("\"{blank}\""))
            }
            _ => ("string_type", "false".to_owned()),
        };
        match random.below(8) {
            0 => Member::Twice(json!(mark).to_string()),
            1 if chars_max == 200 => Member::Null,
            _ => Member::Bad(kind, json),
        }
    }

    /// As it is, or with a single difference.
    fn altered(&self, random: &mut Random, mut content: Content) -> Content {
        match random.below(8) {
            0 => content.title = self.text(random, 200),
            1 => content.title.push(' '),
            2 => content.complete = !content.complete,
            3 if content.description.is_some() => content.description = None,
            3 => content.description = Some(String::new()),
            4 => content.description = Some(self.text(random, 1000)),
            _ => {}
        }
        content.title = content.title.chars().take(200).collect();
        content
    }

    /// For a method; in one of three cases with something wrong.
    fn body(&self, random: &mut Random, method: &str, like: Option<&Content>) -> Body {
        let one_in = if method == "PATCH" { 2 } else { 4 };
        let good = |random: &mut Random, chars_max: usize| {
            let text = self.text(random, chars_max);
            let json = spelled(random, &text);
            Member::Good(text, json)
        };
        let mut title = good(random, 200);
        let mut description = match random.below(5) {
            0 => Member::Absent,
            1 => Member::Null,
            2 if chance(random, 4) => Member::Good(String::new(), "\"\"".to_owned()),
            _ => good(random, 1000),
        };
        // Of a collector's, enough are complete for a list of these alone to come in parts.
        let truth = if self.is_collector() { !chance(random, 8) } else { chance(random, 2) };
        let mut complete = Member::Good(truth, truth.to_string());
        if method == "POST" && chance(random, if self.is_collector() { 10 } else { 3 }) {
            complete = Member::Absent;
        }
        if method == "PATCH" {
            if chance(random, one_in) {
                title = Member::Absent;
            }
            if chance(random, one_in) {
                description = Member::Absent;
            }
            if chance(random, one_in) {
                complete = Member::Absent;
            }
        }
        if let Some(like) = like {
            title = Member::Good(like.title.clone(), spelled(random, &like.title));
            description = match &like.description {
                Some(text) => Member::Good(text.clone(), spelled(random, text)),
                None => one_of(random, &[Member::Absent, Member::Null]),
            };
            complete = match like.complete {
                false if chance(random, 2) => Member::Absent,
                complete => Member::Good(complete, complete.to_string()),
            };
        } else if chance(random, 5) {
            let wrong = 1 + random.below(7);
            if wrong & 1 != 0 {
                title = if chance(random, 3) { Member::Absent } else { self.bad_text(random, 200) };
            }
            if wrong & 2 != 0 {
                description = self.bad_text(random, 1000);
            }
            if wrong & 4 != 0 {
                complete = match random.below(4) {
                    0 => Member::Null,
                    1 => Member::Absent,
                    2 => Member::Twice("true".to_owned()),
                    _ => Member::Bad("bool_type", one_of(random, &["\"true\"", "1", "0", "[]"]).to_owned()),
                };
            }
        }
        let mut body = Body { title, description, complete, bytes: Vec::new(), broken: None };
        body.bytes = body.written(random);
        if like.is_none() && chance(random, 20) {
            let mark = &self.mark;
            let (kind, bytes) = match random.below(5) {
                0 => ("json_invalid", format!("{{\"title\": \"{mark}\"").into_bytes()),
                1 => ("object_type", format!("[\"{mark}\"]").into_bytes()),
                2 => ("json_invalid", Vec::new()),
                3 => ("utf8", [b"{\"title\": \"", mark.as_bytes(), b"\xff\"}"].concat()),
                _ => ("object_type", b"null".to_vec()),
            };
            (body.broken, body.bytes) = (Some(kind), bytes);
        }
        body
    }
}

impl Body {
    /// The members in any order, and some that the service must ignore.
    fn written(&self, random: &mut Random) -> Vec<u8> {
        fn put<T>(members: &mut Vec<(&'static str, String)>, name: &'static str, member: &Member<T>) {
            match member {
                Member::Absent => {}
                Member::Null => members.push((name, "null".to_owned())),
                Member::Good(_, json) | Member::Bad(_, json) => members.push((name, json.clone())),
                Member::Twice(json) => members.extend([(name, json.clone()), (name, "null".to_owned())]),
            }
        }
        let mut members = Vec::new();
        put(&mut members, "title", &self.title);
        put(&mut members, "description", &self.description);
        put(&mut members, "complete", &self.complete);
        if chance(random, 4) {
            members.extend([("user_id", "\"another\"".to_owned()), ("id", "1".to_owned())]);
        }
        if chance(random, 2) {
            members.reverse();
        }
        let members: Vec<_> = members.iter().map(|(name, json)| format!("\"{name}\": {json}")).collect();
        format!("{{{}}}", members.join(", ")).into_bytes()
    }
}

/// One thread, its users and its connection.
struct Actor<'a> {
    world: &'a World<'a>,
    number: u64,
    random: Random,
    users: Vec<User>,
    connection: Connection,
    tally: BTreeMap<String, u64>,
}

impl<'a> Actor<'a> {
    fn new(world: &'a World<'a>, number: u64) -> Self {
        let first = number * USERS_PER_THREAD;
        let users = (first..first + USERS_PER_THREAD).map(|index| User::new(world.seed, index)).collect();
        let random = Random(world.seed.wrapping_mul(THREADS).wrapping_add(number) << 20);
        let connection = Connection::open(&world.app.address).unwrap();
        Self { world, number, random, users, connection, tally: BTreeMap::new() }
    }

    fn work(&mut self, steps: u64) {
        for step in 0..steps {
            if self.world.has_failed.load(SeqCst) {
                return;
            }
            let is_first = step < TASKS_OF_COLLECTORS;
            let who = if is_first { 0 } else { self.random.below(USERS_PER_THREAD) as usize };
            let call = if is_first { self.first_call() } else { self.call(who) };
            let next = self.step(step, who, call);
            // Some follow the link to the end.
            let mut next = next.filter(|_| chance(&mut self.random, 3));
            while let Some((call, target)) = next {
                let call = Call { request_id: None, ..call };
                next = self.exchange(step, who, &call, &target);
            }
        }
    }

    fn step(&mut self, step: u64, who: usize, call: Call) -> Option<(Call, String)> {
        let target = call.target(&mut self.random);
        self.exchange(step, who, &call, &target)
    }

    /// Sends it, judges the answer, and gives the call that a link names.
    fn exchange(&mut self, step: u64, who: usize, call: &Call, target: &str) -> Option<(Call, String)> {
        let user = &self.users[who];
        let request = call.request(user, target, &mut self.random);
        let context = format!(
            "TINYTASKS_MODEL_SEED={}, thread {}, step {step}, user {:?}\n{}",
            self.world.seed,
            self.number,
            user.id,
            String::from_utf8_lossy(&request.bytes())
        );
        let mut on_failure = OnFailure { context, world: self.world };
        self.connection.write(&request.bytes());
        let seen = self.connection.read(call.method).unwrap();
        on_failure.context += &format!("\nseen: {seen:?}");
        let outcome = user.decide(call);
        on_failure.context += &format!("\nexpected: {outcome:?}");
        assert_no_others_mark(&user.mark, &seen);
        let user = &mut self.users[who];
        let mut wanted = user.perform(self.world, call, &outcome, &seen);
        seen.hold_to_the_rules(call.method, target);
        if let Some(id) = &call.request_id {
            assert_eq!(seen.field("X-Request-Id"), Some(id.as_str()), "the answer to another request");
        }
        if let ("HEAD", 200, Some(length)) = (call.method, seen.status, seen.field("Content-Length")) {
            assert_eq!(length, wanted.body.to_string().len().to_string(), "the length that GET gives");
        }
        if call.method == "HEAD" {
            wanted.body = Value::Null;
        }
        assert_eq!(answer_of(call, &seen), wanted, "left: seen, right: expected");
        let what = if call.task.is_some() { "task" } else { "list" };
        *self.tally.entry(format!("{} {what} {}", call.method, seen.status)).or_default() += 1;
        let is_in_parts = seen.field("Transfer-Encoding").is_some();
        let is_filtered = matches!(outcome, Outcome::List(Page { complete: Some(_), .. }));
        for (what, is_so) in [
            ("all", true),
            ("replayed", matches!(outcome, Outcome::Replayed(_))),
            ("another's id", wanted.status == 404 && user.is_anothers(self.world, call)),
            ("another's path", wanted.status == 403),
            ("list in parts", is_in_parts),
            ("list in parts, filtered", is_in_parts && is_filtered),
            ("next page", seen.field("Link").is_some()),
            ("not modified", wanted.status == 304),
            ("precondition failed", wanted.status == 412),
        ] {
            *self.tally.entry(what.to_owned()).or_default() += u64::from(is_so);
        }
        if seen.field("Connection") == Some("close") {
            self.connection = Connection::open(&self.world.app.address).unwrap();
        }
        match (outcome, seen.field("Link")) {
            (Outcome::List(_), Some(link)) => Some(followed(call, link)),
            _ => None,
        }
    }

    fn first_call(&mut self) -> Call {
        let body = loop {
            let body = self.users[0].body(&mut self.random, "POST", None);
            if body.broken.is_none() && body.rules(true, false).is_empty() {
                break body;
            }
        };
        let body = Some(body);
        let media_type = Some("application/json");
        Call { method: "POST", task: None, media_type, body, ..Call::new(&self.users[0].id) }
    }

    fn call(&mut self, who: usize) -> Call {
        let user = &self.users[who];
        let random = &mut self.random;
        let mut call = Call::new(&user.id);
        let (method, is_task) = match random.below(if user.is_collector() { 28 } else { 30 }) {
            0..=4 => ("GET", true),
            5 => ("HEAD", true),
            6..=9 => ("GET", false),
            10 => ("HEAD", false),
            11..=16 => ("POST", false),
            17..=19 => ("PUT", true),
            20..=24 => ("PATCH", true),
            25 => ("OPTIONS", chance(random, 2)),
            26 => (one_of(random, &["POST", "TRACE", "QUERY", "PROPFIND"]), true),
            27 if chance(random, 2) => (one_of(random, &["PUT", "PATCH", "DELETE"]), false),
            _ => ("DELETE", true),
        };
        call.method = method;
        call.task = is_task.then(|| some_id(self.world, user, random));
        if matches!(method, "POST" | "PUT" | "PATCH") {
            self.give_body(who, &mut call);
        }
        let user = &self.users[who];
        let random = &mut self.random;
        if method == "POST" && chance(random, 20) {
            call.keys = match random.below(5) {
                0 => vec![String::new()],
                1 => vec!["a b".to_owned()],
                2 => vec!["k".repeat(256)],
                3 => vec!["é".to_owned()],
                _ => vec!["k1".to_owned(), "k1".to_owned()],
            };
        }
        if is_task && chance(random, 4) {
            call.if_match = Some(some_tags(user, call.task.as_deref(), random));
        }
        if is_task && chance(random, 5) {
            call.if_none_match = Some(some_tags(user, call.task.as_deref(), random));
        }
        if !is_task {
            call.query = some_query(user, random);
        }
        call.origin = match random.below(6) {
            0 => Some(ORIGIN),
            1 => Some("https://elsewhere.example"),
            _ => None,
        };
        // The answer must be that to this request.
        call.request_id = chance(random, 2).then(|| format!("{}-{:016x}", user.mark, random.below(u64::MAX)));
        match random.below(24) {
            0 => call.login = Login::Missing,
            1 => call.login = Login::Invalid,
            2 | 3 => call.path_user = self.another_user(who),
            _ => {}
        }
        call
    }

    fn give_body(&mut self, who: usize, call: &mut Call) {
        let user = &self.users[who];
        let random = &mut self.random;
        call.media_type = match random.below(12) {
            0 => None,
            1 => Some("text/plain"),
            2 => Some("application/merge-patch+json"),
            3 => Some("Application/JSON ; charset=utf-8"),
            _ => Some("application/json"),
        };
        let mut like = None;
        if call.method == "POST" && chance(random, 2) {
            let key = one_of(random, &KEYS);
            // The same again, or something else with the same key.
            like = user.keys.get(key).filter(|_| !chance(random, 4)).map(|(content, _)| content.clone());
            like = like.map(|content| user.altered(random, content));
            call.keys = vec![key.to_owned()];
        }
        let has_body = !chance(random, 40);
        call.body = has_body.then(|| user.body(random, call.method, like.as_ref()));
    }

    /// Of this thread or of another, or one who has nothing.
    fn another_user(&mut self, who: usize) -> String {
        let index = self.random.below(THREADS * USERS_PER_THREAD + 1);
        match index == self.users[who].index {
            true => format!("{}x", self.users[who].id.chars().take(254).collect::<String>()),
            false => User::new(self.world.seed, index).id,
        }
    }
}

/// A thread that fails says where, and stops the others.
struct OnFailure<'a> {
    context: String,
    world: &'a World<'a>,
}

impl Drop for OnFailure<'_> {
    fn drop(&mut self) {
        if thread::panicking() && !self.world.has_failed.swap(true, SeqCst) {
            eprintln!("{}", self.context);
        }
    }
}

fn assert_no_others_mark(mark: &str, seen: &Response) {
    let fields: String = seen.fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    for text in [fields, seen.text()] {
        for (at, _) in text.match_indices(MARK) {
            let found: String = text[at..].chars().take(mark.len()).collect();
            assert_eq!(found, mark, "ANOTHER USER'S BYTES");
        }
    }
}

/// An id that is there, was there, is another's, or is none.
fn some_id(world: &World, user: &User, random: &mut Random) -> String {
    let own: Vec<i64> = user.tasks.keys().copied().collect();
    let (kind, index) = (random.below(32), random.below(1 << 40));
    let pick = |ids: &[i64]| ids.get((index % ids.len().max(1) as u64) as usize).copied();
    let id = match kind {
        0..=1 => pick(&user.deleted),
        2..=4 => {
            let ids = world.ids.lock().unwrap();
            let others: Vec<i64> =
                ids.iter().filter(|(_, owner)| **owner != user.index).map(|(id, _)| *id).collect();
            pick(&others)
        }
        5 => {
            let huge = [i64::MAX, 1 << 53, (1 << 53) - 1, 1 << 31, 1 << 32, i64::from(i32::MAX)];
            pick(&huge)
        }
        6 => {
            const NONE: &str =
                "0|01|-1|+1|1.0|1e1|abc|9223372036854775808|18446744073709551617|１| 1|1 |0x1|tasks|1/|";
            let none: Vec<_> = NONE.split('|').collect();
            return none[(index % none.len() as u64) as usize].to_owned();
        }
        // One of the latest, so that tasks get a history.
        7..=16 => pick(&own[own.len().saturating_sub(5)..]),
        _ => pick(&own),
    };
    id.unwrap_or(1 << 50).to_string()
}

fn some_tags(user: &User, id: Option<&str>, random: &mut Random) -> Tags {
    let task = id.and_then(|id| id.parse().ok()).and_then(|id: i64| user.tasks.get(&id));
    if chance(random, 8) {
        return Tags { lines: vec!["*".to_owned()], is_any: true, named: Vec::new() };
    }
    let mut named = Vec::new();
    for _ in 0..1 + random.below(3) {
        let other = user.tasks.values().next().map(|task| task.tags.last().unwrap());
        let tag = match (random.below(5), task, other) {
            (0..=1, Some(task), _) => task.tags.last().unwrap().clone(),
            (2, Some(task), _) => one_of(random, &task.tags),
            (3, _, Some(other)) => other.clone(),
            _ => one_of(random, &["\"x\"", "\"\"", "\"a,*,b\"", "\"0\""]).to_owned(),
        };
        named.push((chance(random, 4), tag));
    }
    let written: Vec<_> =
        named.iter().map(|(is_weak, tag)| if *is_weak { format!("W/{tag}") } else { tag.clone() }).collect();
    let lines = match random.below(3) {
        0 => written,
        1 => vec![written.join(", ")],
        _ => vec![written.join(",")],
    };
    Tags { lines, is_any: false, named }
}

fn some_query(user: &User, random: &mut Random) -> Vec<(&'static str, String, bool)> {
    let mut query = Vec::new();
    let ids: Vec<i64> = user.tasks.keys().copied().chain([1, i64::MAX]).collect();
    let good = |text: &str| (text.to_owned(), true);
    let bad = |text: &str| (text.to_owned(), false);
    let is_wrong = |random: &mut Random| chance(random, 25);
    for name in ["complete", "order", "limit", "offset", "after", "foo"] {
        let likely = if name == "offset" || name == "after" { 4 } else { 2 };
        if !chance(random, likely) || (name == "after" && query.len() > 1 && !chance(random, 4)) {
            continue;
        }
        let (value, is_good) = match name {
            _ if is_wrong(random) => match name {
                "complete" => bad(one_of(random, &["", "True", "1", "null"])),
                "order" => bad(one_of(random, &["", "ASC", "id", "asc "])),
                "limit" => bad(one_of(random, &["", "0", "1001", "-1", "01", "1.5", "all"])),
                _ => bad(one_of(random, &["", "-1", "00", "9223372036854775808", "x", "+1"])),
            },
            "complete" => good(one_of(random, &["true", "false"])),
            "order" => good(one_of(random, &["asc", "desc"])),
            "limit" => match random.below(4) {
                0 => good(one_of(random, &["1", "1000"])),
                // Around what there is.
                1 => (
                    (user.tasks.len() as u64 + random.below(3)).saturating_sub(1).clamp(1, 1000).to_string(),
                    true,
                ),
                _ => ((1 + random.below(20)).to_string(), true),
            },
            "offset" => match random.below(4) {
                0 => good(one_of(random, &["0", "1", "9223372036854775807"])),
                _ => (random.below(user.tasks.len() as u64 + 2).to_string(), true),
            },
            _ => (one_of(random, &ids).to_string(), true),
        };
        query.push((name, value, is_good));
    }
    if chance(random, 40)
        && let Some(first) = query.first().cloned()
    {
        query.push(first);
    }
    query
}

impl Call {
    fn new(user: &str) -> Self {
        Self {
            method: "GET",
            path_user: user.to_owned(),
            task: None,
            query: Vec::new(),
            login: Login::Good,
            keys: Vec::new(),
            if_match: None,
            if_none_match: None,
            media_type: None,
            body: None,
            origin: None,
            request_id: None,
        }
    }

    /// In one of the spellings of a path.
    fn target(&self, random: &mut Random) -> String {
        let everything = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
        let written = |text: &str, random: &mut Random| {
            if chance(random, 8) { everything(text) } else { segment(text) }
        };
        let mut target = format!("/api/{}/tasks", written(&self.path_user, random));
        if let Some(task) = &self.task {
            target += &format!("/{}", written(task, random));
        }
        for (index, (name, value, _)) in self.query.iter().enumerate() {
            let separator = if index == 0 { '?' } else { '&' };
            target += &format!("{separator}{name}={}", written(value, random));
        }
        target
    }

    fn request(&self, user: &User, target: &str, random: &mut Random) -> Request {
        let mut request = Request::new("model", self.method, target);
        let good = one_of(random, &user.tokens);
        let scheme = one_of(random, &["Bearer", "Bearer", "bearer", "BEARER"]);
        request = match self.login {
            Login::Good => request.header("Authorization", &format!("{scheme} {good}")),
            Login::Missing if chance(random, 2) => request,
            Login::Missing => request.header("Authorization", &format!("Basic {good}")),
            Login::Invalid if chance(random, 4) => request.bearer(&good).bearer(&good),
            Login::Invalid => request.bearer(&bad_token(user, &good, random)),
        };
        for key in &self.keys {
            request = request.header("Idempotency-Key", key);
        }
        for (name, tags) in [("If-Match", &self.if_match), ("If-None-Match", &self.if_none_match)] {
            for line in tags.iter().flat_map(|tags| &tags.lines) {
                request = request.header(name, line);
            }
        }
        for (name, value) in [
            ("Content-Type", self.media_type),
            ("Origin", self.origin),
            ("X-Request-Id", self.request_id.as_deref()),
        ] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        match &self.body {
            Some(body) => request.body(&body.bytes),
            None => request,
        }
    }
}

fn bad_token(user: &User, good: &str, random: &mut Random) -> String {
    let id = &user.id;
    let expires = now() + 3600;
    let (head, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = head.split_once('.').unwrap();
    match random.below(10) {
        0 => sign("another secret for the tests, also long enough", &json!({"user_id": id, "exp": expires})),
        1 => sign(SECRET, &json!({"user_id": id, "exp": now() - 60})),
        2 => sign(SECRET, &json!({"user_id": id})),
        3 => sign(SECRET, &json!({"user_id": [id], "sub": id, "exp": expires})),
        4 => sign(SECRET, &json!({"user_id": "", "sub": id, "exp": expires})),
        5 => sign_text(SECRET, r#"{"alg":"none"}"#, &json!({"user_id": id, "exp": expires}).to_string()),
        6 => format!("{head}."),
        7 => {
            // A good signature, of another's token.
            let other = token("another");
            format!("{header}.{payload}.{}", other.rsplit_once('.').unwrap().1)
        }
        8 => sign_text(SECRET, HEADER, "{}"),
        _ => {
            let (first, rest) = signature.split_at(1);
            format!("{head}.{}{rest}", if first == "A" { "B" } else { "A" })
        }
    }
}

/// The call that a link names.
fn followed(call: &Call, link: &str) -> (Call, String) {
    let target = link.trim_start_matches('<').split_once('>').unwrap().0.to_owned();
    let mut next = Call { method: call.method, ..Call::new(&call.path_user) };
    for pair in target.split_once('?').unwrap().1.split('&') {
        let (name, value) = pair.split_once('=').unwrap();
        let name = ["complete", "order", "limit", "offset", "after"].into_iter().find(|known| *known == name);
        next.query.push((name.unwrap(), value.to_owned(), true));
    }
    (next, target)
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Every row, as text.
fn assert_table(database: &Database, users: &[User]) -> usize {
    let mut wanted = BTreeMap::new();
    for user in users {
        for task in user.tasks.values() {
            let Content { title, description, complete } = task.content.clone();
            let times = (task.created_at.clone(), task.updated_at.clone());
            let row = (user.id.clone(), title, description, complete, times, task.key.clone());
            wanted.insert(task.id, row);
        }
    }
    let form = "YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"";
    let sql = format!(
        "select id, user_id, title, description, complete, to_char(created_at at time zone 'UTC', '{form}'),
         to_char(updated_at at time zone 'UTC', '{form}'), idempotency_key from tasks"
    );
    let mut seen = BTreeMap::new();
    for row in database.client().query(&sql, &[]).unwrap() {
        let task = (row.get(1), row.get(2), row.get(3), row.get(4), (row.get(5), row.get(6)), row.get(7));
        seen.insert(row.get::<_, i64>(0), task);
    }
    for id in wanted.keys().chain(seen.keys()) {
        assert_eq!(seen.get(id), wanted.get(id), "task {id} in the table; left: seen, right: expected");
    }
    seen.len()
}

#[test]
fn every_answer_is_the_one_that_a_model_of_the_contract_gives() {
    let steps = number("TINYTASKS_MODEL_STEPS", STEPS_DEFAULT);
    let seed = number("TINYTASKS_MODEL_SEED", 1);
    assert_eq!(User::new(seed, 0).mark.len(), MARK.len() + MARK_DIGITS);
    // A line for each request would hide what is printed on a difference.
    let app = App::setup().env("RUST_LOG", "info,tinytasks::http=warn").spawn();
    let (ids, has_failed) = (Mutex::default(), AtomicBool::new(false));
    let world = World { app: &app, seed, ids, has_failed };
    let start = Instant::now();
    let actors = thread::scope(|scope| {
        let work = |number| {
            let mut actor = Actor::new(&world, number);
            actor.work(steps / THREADS);
            (actor.users, actor.tally)
        };
        let threads: Vec<_> = (0..THREADS).map(|number| scope.spawn(move || work(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("see above")).collect::<Vec<_>>()
    });
    let mut tally: BTreeMap<String, u64> = BTreeMap::new();
    let mut users = Vec::new();
    for (some, counts) in actors {
        users.extend(some);
        for (what, count) in counts {
            *tally.entry(what).or_default() += count;
        }
    }
    let rows = assert_table(&app.database, &users);
    let never: Vec<_> = tally.iter().filter(|(_, count)| **count == 0).collect();
    assert!(never.is_empty() || steps < STEPS_DEFAULT, "the test has lost its sight: {never:?}");
    eprintln!("seed {seed}: {steps} steps, {rows} rows, {:.1?}: {tally:?}", start.elapsed());
}
