//! Conditional requests (RFC 9110 section 13) and the parameters of a list: header fields and query
//! → what the store is asked.

use super::request::percent_decode;
use crate::error::{Error, FieldError};
use crate::gate::Request;
use crate::task::{Instant, Page, Precondition, Task, TaskId};
use std::ops::Range;

/// Strong: `updated_at` changes with every change of the task, and with nothing else.
pub fn etag(task: &Task) -> String {
    format!("\"{:x}\"", task.updated_at.unix_micros().cast_unsigned())
}

pub fn precondition(request: &Request) -> Precondition {
    let any_of = tags(request, "If-Match", false);
    let none_of = tags(request, "If-None-Match", true);
    Precondition { any_of: any_of.flatten(), none_of: none_of.unwrap_or_else(|| Some(Vec::new())) }
}

/// Errors: `PreconditionRequired`.
pub fn required(request: &Request, is_required: bool) -> Result<(), Error> {
    let is_missing = is_required && request.values("If-Match").next().is_none();
    if is_missing { Err(Error::PreconditionRequired) } else { Ok(()) }
}

/// The versions that a field names; the inner None is `*`. A tag that is not ours names none, nor
/// does a weak one where only strong ones count (section 8.8.3.2).
fn tags(request: &Request, name: &str, weak_too: bool) -> Option<Option<Vec<Instant>>> {
    let values: Vec<_> = request.values(name).collect();
    let list = values.join(",");
    if values.is_empty() || list == "*" {
        return values.first().map(|_| None);
    }
    let (mut versions, mut rest) = (Vec::new(), list.as_str());
    while !rest.is_empty() {
        let (is_weak, tag) = rest.strip_prefix("W/").map_or((false, rest), |tag| (true, tag));
        // A comma between quotes is part of a tag. What is no tag goes as far as the next comma.
        let Some((opaque, after)) = tag.strip_prefix('"').and_then(|tag| tag.split_once('"')) else {
            rest = rest.split_once(',').map_or("", |(_, after)| after).trim_start();
            continue;
        };
        versions.extend(version(opaque).filter(|_| weak_too || !is_weak));
        rest = after.trim_start_matches([' ', '\t', ',']);
    }
    Some(Some(versions))
}

/// None for what [`etag`] would not write.
fn version(opaque: &str) -> Option<Instant> {
    // About what a timestamptz can hold.
    const MICROS: Range<i64> = -210_000_000_000_000_000..9_200_000_000_000_000_000;
    let micros = u64::from_str_radix(opaque, 16).ok()?.cast_signed();
    let is_ours = MICROS.contains(&micros) && opaque == format!("{:x}", micros.cast_unsigned());
    is_ours.then_some(Instant::from_unix_micros(micros))
}

/// GET: the answer is 304 when the client has this version. Errors: `PreconditionFailed`.
pub fn is_unchanged(request: &Request, task: &Task) -> Result<bool, Error> {
    let Precondition { any_of, none_of } = precondition(request);
    if any_of.is_some_and(|versions| !versions.contains(&task.updated_at)) {
        return Err(Error::PreconditionFailed);
    }
    Ok(none_of.is_none_or(|versions| versions.contains(&task.updated_at)))
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
