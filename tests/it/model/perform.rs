//! Applies a call to the model, and returns what the answer must be.

use super::{Answer, Call, Content, ORIGIN, Outcome, Rule, Task, User, World, decide::methods};
use crate::support::{
    http::{Response, is_timestamp},
    token::segment,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

impl User {
    pub fn path(&self) -> String {
        format!("/api/{}/tasks", segment(&self.id))
    }

    pub fn shown(&self, task: &Task) -> Value {
        let Content { title, description, complete } = &task.content;
        json!({
            "id": task.id, "user_id": self.id, "title": title, "description": description,
            "complete": complete, "created_at": task.created_at, "updated_at": task.updated_at,
            "etag": task.tags.last(),
        })
    }

    /// Applies the call to the model, and returns what the answer must be. Only values that the server
    /// may choose are taken from its answer, and checked: a new task's id, times and tags.
    pub fn perform(&mut self, world: &World, call: &Call, outcome: &Outcome, seen: &Response) -> Answer {
        let mut fields = BTreeMap::new();
        let mut set = |name: &str, value: &str| _ = fields.insert(name.to_owned(), value.to_owned());
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
                set("accept-patch", "application/json, application/merge-patch+json");
                (204, Value::Null)
            }
            Outcome::List(page) => {
                self.learn_stale(seen);
                let (status, more, body) = self.list(world, call, page, seen);
                more.iter().for_each(|(name, value)| set(name, value));
                (status, body)
            }
            Outcome::ChangedMany(filter, complete) => {
                let chosen = self.chosen(filter);
                for id in &chosen {
                    let task = self.tasks.get_mut(id).unwrap();
                    (task.content.complete, task.is_stale) = (*complete, true);
                }
                set("cache-control", "no-store");
                (200, json!({"count": chosen.len()}))
            }
            Outcome::DeletedMany(filter) => {
                let chosen = self.chosen(filter);
                chosen.iter().for_each(|id| self.forget(*id));
                set("cache-control", "no-store");
                (200, json!({"count": chosen.len()}))
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
                self.tasks.get_mut(id).unwrap().learn_change(content, seen);
                let task = &self.tasks[id];
                set("content-location", &format!("{}/{id}", self.path()));
                set("etag", task.tags.last().unwrap());
                set("cache-control", private);
                (200, self.shown(task))
            }
            Outcome::Failed(id) => {
                let task = &self.tasks[id];
                set("etag", task.tags.last().unwrap());
                let detail = "the task is not what the request expects";
                let mut problem = problem(seen, "PRECONDITION_FAILED", detail, None);
                problem["current"] = self.shown(task);
                (412, problem)
            }
            Outcome::Shown(id) | Outcome::Done(id) | Outcome::Replayed(id) | Outcome::NotModified(id) => {
                let task = &self.tasks[id];
                set("etag", task.tags.last().unwrap());
                set("cache-control", private);
                match outcome {
                    Outcome::Done(_) => {
                        set("content-location", &format!("{}/{id}", self.path()));
                        (200, self.shown(task))
                    }
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
                self.forget(*id);
                (204, Value::Null)
            }
        };
        common_fields(call, status, &mut fields);
        Answer { status, fields, body }
    }

    fn forget(&mut self, id: i64) {
        let task = self.tasks.remove(&id).unwrap();
        task.key.and_then(|key| self.keys.remove(&key));
        self.deleted.push(id);
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
        Task { id, content, created_at: time.clone(), updated_at: time, tags, key, is_stale: false }
    }
}

pub fn learned_tag(seen: &Response) -> String {
    let tag = seen.field("ETag").expect("an ETag");
    let opaque = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    assert!(opaque.is_some_and(|opaque| !opaque.is_empty() && !opaque.contains('"')), "no strong tag: {tag}");
    tag.to_owned()
}

impl Task {
    fn learn_change(&mut self, content: &Content, seen: &Response) {
        let json = seen.clone().expect(200).json();
        self.learn_version(&json["updated_at"], learned_tag(seen));
        self.content = content.clone();
    }

    /// Checks that a change moves the time forward and gives a new tag, and records both.
    pub fn learn_version(&mut self, updated_at: &Value, tag: String) {
        let time = updated_at.as_str().filter(|time| is_timestamp(time)).expect("a time");
        assert!(*time > *self.updated_at, "the time does not move forward: {time}, {}", self.updated_at);
        assert!(!self.tags.contains(&tag), "the tag {tag} was that of another version: {:?}", self.tags);
        self.tags.push(tag);
        time.clone_into(&mut self.updated_at);
    }
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
            if let Some(current) = json.get("current") {
                problem["current"] = current.clone();
            }
            problem
        }
        _ => seen.json(),
    };
    assert!(call.method != "HEAD" || body.is_null(), "a body for HEAD");
    Answer { status: seen.status, fields, body }
}
