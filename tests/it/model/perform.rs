//! Applies a call to the model, and returns what the answer must be.

use super::{Answer, Call, Content, ORIGIN, Outcome, Page, Rule, Task, User, World, decide::methods};
use crate::support::{
    http::{Response, is_timestamp},
    token::segment,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

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

    /// Applies the call to the model, and returns what the answer must be. Only values that the server
    /// may choose are taken from its answer, and checked: a new task's id, times and tags.
    pub fn perform(&mut self, world: &World, call: &Call, outcome: &Outcome, seen: &Response) -> Answer {
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
                    // The parameters may come in any order, and `order=asc` may be left out.
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

/// Checks that a change moves the time forward and gives a new tag, and records both.
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

/// Time and request id are checked in `support/http.rs`. The order of the errors does not matter.
fn problem(seen: &Response, code: &str, detail: &str, rules: Option<&Vec<Rule>>) -> Value {
    let mut problem = json!({"error_code": code, "detail": detail});
    // The answer to HEAD has no body to compare.
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

/// The detail that belongs to these errors, in their order.
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

/// The answer without what `support/http.rs` checks in every answer.
pub fn answer_of(call: &Call, seen: &Response) -> Answer {
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
