//! Conditional requests (RFC 9110 section 13): header fields → what the store is asked.

use crate::error::{Error, FieldError};
use crate::gate::Request;
use crate::task::{Precondition, Tags, Task, UtcMicros};

/// The entity tag of a task. It is strong, because `updated_at` changes with every change of the task
/// and with nothing else.
pub fn etag(task: &Task) -> String {
    format!("\"{:x}\"", task.updated_at.version())
}

pub fn precondition(request: &Request) -> Precondition {
    let if_match = tags(request, "If-Match", Comparison::Strong);
    let if_none_match = tags(request, "If-None-Match", Comparison::Weak);
    Precondition { if_match, if_none_match }
}

/// Errors: `PreconditionRequired` for a change without `If-Match` where `REQUIRE_IF_MATCH` asks for it.
pub fn check_required(request: &Request, is_required: bool) -> Result<(), Error> {
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
        // A comma between quotes is part of a tag. Text that is no tag is skipped up to the next comma.
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

/// The version that a tag names; None for a tag that [`etag`] would not write.
fn version(opaque: &str) -> Option<UtcMicros> {
    let version = u64::from_str_radix(opaque, 16).ok()?;
    let is_canonical = opaque == format!("{version:x}");
    if is_canonical { UtcMicros::from_version(version) } else { None }
}

/// For GET: whether the client has this version already, so that the answer is 304. Errors:
/// `PreconditionFailed`.
pub fn is_unchanged(request: &Request, task: &Task) -> Result<bool, Error> {
    let Precondition { if_match, if_none_match } = precondition(request);
    if if_match.is_some_and(|tags| !tags.match_version(task.updated_at)) {
        return Err(Error::PreconditionFailed);
    }
    Ok(if_none_match.is_some_and(|tags| tags.match_version(task.updated_at)))
}

/// The `Idempotency-Key` of a request, where it has one. Errors: it is not 1–255 visible ASCII characters.
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
