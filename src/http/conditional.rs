//! Conditional requests (RFC 9110 section 13) and the parameters of a list: header fields and query
//! → what the store is asked.

use super::request::percent_decode;
use crate::error::{Error, FieldError};
use crate::gate::Request;
use crate::task::{Page, Precondition, Tags, Task, TaskId, UtcMicros};

/// Strong: `updated_at` changes with every change of the task, and with nothing else.
pub fn etag(task: &Task) -> String {
    format!("\"{:x}\"", task.updated_at.version())
}

pub fn precondition(request: &Request) -> Precondition {
    let if_match = tags(request, "If-Match", Comparison::Strong);
    let if_none_match = tags(request, "If-None-Match", Comparison::Weak);
    Precondition { if_match, if_none_match }
}

/// Errors: `PreconditionRequired`.
pub fn required(request: &Request, is_required: bool) -> Result<(), Error> {
    let is_missing = is_required && request.values("If-Match").next().is_none();
    if is_missing { Err(Error::PreconditionRequired) } else { Ok(()) }
}

/// RFC 9110 section 8.8.3.2: by the strong comparison, a weak tag matches nothing.
#[derive(PartialEq)]
enum Comparison {
    Strong,
    Weak,
}

/// The entity tags of a field, or None where the request does not have it.
fn tags(request: &Request, name: &str, comparison: Comparison) -> Option<Tags> {
    let values: Vec<_> = request.values(name).collect();
    let list = values.join(",");
    if values.is_empty() {
        return None;
    }
    if list == "*" {
        return Some(Tags::Any);
    }
    let (mut versions, mut rest) = (Vec::new(), list.as_str());
    while !rest.is_empty() {
        let (is_weak, tag) = rest.strip_prefix("W/").map_or((false, rest), |tag| (true, tag));
        // A comma between quotes is part of a tag. Text that is no tag ends at the next comma.
        let Some((opaque, after)) = tag.strip_prefix('"').and_then(|tag| tag.split_once('"')) else {
            rest = rest.split_once(',').map_or("", |(_, after)| after).trim_start();
            continue;
        };
        if comparison == Comparison::Weak || !is_weak {
            versions.extend(version(opaque));
        }
        rest = after.trim_start_matches([' ', '\t', ',']);
    }
    Some(Tags::Listed(versions))
}

/// Returns None for a tag that [`etag`] would not write.
fn version(opaque: &str) -> Option<UtcMicros> {
    let version = u64::from_str_radix(opaque, 16).ok()?;
    let is_canonical = opaque == format!("{version:x}");
    if is_canonical { UtcMicros::from_version(version) } else { None }
}

/// GET: the answer is 304 when the client has this version. Errors: `PreconditionFailed`.
pub fn is_unchanged(request: &Request, task: &Task) -> Result<bool, Error> {
    let Precondition { if_match, if_none_match } = precondition(request);
    if if_match.is_some_and(|tags| !tags.match_version(task.updated_at)) {
        return Err(Error::PreconditionFailed);
    }
    Ok(if_none_match.is_some_and(|tags| tags.match_version(task.updated_at)))
}

/// `Idempotency-Key`: 1–255 visible ASCII characters.
pub fn idempotency_key(request: &Request) -> Result<Option<&str>, FieldError> {
    let Some(key) = request.single("Idempotency-Key") else {
        return Ok(None);
    };
    let fits = (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then_some(Some(key)).ok_or_else(|| FieldError {
        loc: vec!["header", "Idempotency-Key"],
        msg: "must be 1 to 255 visible ASCII characters",
        kind: "idempotency_key",
    })
}

/// The page that is asked for. Errors: `Invalid` with all that is wrong with the parameters.
pub fn page(request: &Request) -> Result<Page, Error> {
    let mut page = Page { complete: None, is_descending: false, after: None, offset: 0, limit: None };
    let mut errors = Vec::new();
    let query = request.target.split_once('?').map_or("", |(_, query)| query);
    let wrong = |name, msg| FieldError { loc: vec!["query", name], msg, kind: "query" };
    let mut seen = Vec::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = percent_decode(name).unwrap_or_default();
        let Some((name, msg)) = PARAMETERS.into_iter().find(|(known, _)| *known == name) else {
            continue;
        };
        let is_repeated = seen.contains(&name);
        seen.push(name);
        let fits =
            !is_repeated && percent_decode(value).is_some_and(|value| page.set(name, &value).is_some());
        if !fits {
            errors.push(wrong(name, msg));
        }
    }
    if seen.contains(&"offset") && seen.contains(&"after") {
        errors.push(wrong("after", "must not be with offset"));
    }
    if errors.is_empty() { Ok(page) } else { Err(Error::Invalid(errors)) }
}

const PARAMETERS: [(&str, &str); 5] = [
    ("complete", "must be true or false, once"),
    ("order", "must be asc or desc, once"),
    ("limit", "must be a whole number from 1 to 1000, once"),
    ("offset", "must be a whole number from 0, once"),
    ("after", "must be the id of a task, once"),
];

impl Page {
    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        let number = || TaskId::parse(value).ok().map(|id| id.get());
        match (name, value) {
            ("complete", _) => self.complete = Some(value.parse().ok()?),
            ("order", "asc" | "desc") => self.is_descending = value == "desc",
            ("limit", _) => self.limit = Some(number().filter(|limit| *limit <= 1000)?),
            ("offset", "0") => {}
            ("offset", _) => self.offset = number()?,
            ("after", _) => self.after = Some(number()?),
            _ => return None,
        }
        Some(())
    }

    /// The query that names the page behind `last`.
    pub fn next(&self, last: i64) -> String {
        let complete = self.complete.map(|complete| format!("complete={complete}&")).unwrap_or_default();
        let order = if self.is_descending { "order=desc&" } else { "" };
        let limit = self.limit.map(|limit| format!("limit={limit}&")).unwrap_or_default();
        format!("{complete}{order}{limit}after={last}")
    }
}
