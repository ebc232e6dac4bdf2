//! Conditional requests (RFC 9110 section 13): header fields → what the store is asked.

use crate::error::{Error, FieldError};
use crate::gate::Request;
use crate::task::{Instant, Precondition, Task};
use std::ops::Range;

/// The entity tag of a task. It is strong, because `updated_at` changes with every change of the task
/// and with nothing else.
pub fn etag(task: &Task) -> String {
    format!("\"{:x}\"", task.updated_at.unix_micros().cast_unsigned())
}

pub fn precondition(request: &Request) -> Precondition {
    let any_of = tags(request, "If-Match", false);
    let none_of = tags(request, "If-None-Match", true);
    Precondition { any_of: any_of.flatten(), none_of: none_of.unwrap_or_else(|| Some(Vec::new())) }
}

/// Errors: `PreconditionRequired` for a change without `If-Match` where `REQUIRE_IF_MATCH` asks for it.
pub fn check_required(request: &Request, is_required: bool) -> Result<(), Error> {
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
        // A comma between quotes is part of a tag. Text that is no tag is skipped up to the next comma.
        let Some((opaque, after)) = tag.strip_prefix('"').and_then(|tag| tag.split_once('"')) else {
            rest = rest.split_once(',').map_or("", |(_, after)| after).trim_start();
            continue;
        };
        versions.extend(version(opaque).filter(|_| weak_too || !is_weak));
        rest = after.trim_start_matches([' ', '\t', ',']);
    }
    Some(Some(versions))
}

/// The version that a tag names; None for a tag that [`etag`] would not write.
fn version(opaque: &str) -> Option<Instant> {
    // Somewhat less than the range of a timestamptz.
    const MICROS: Range<i64> = -210_000_000_000_000_000..9_200_000_000_000_000_000;
    let micros = u64::from_str_radix(opaque, 16).ok()?.cast_signed();
    let is_ours = MICROS.contains(&micros) && opaque == format!("{:x}", micros.cast_unsigned());
    is_ours.then_some(Instant::from_unix_micros(micros))
}

/// For GET: whether the client has this version already, so that the answer is 304. Errors:
/// `PreconditionFailed`.
pub fn is_unchanged(request: &Request, task: &Task) -> Result<bool, Error> {
    let Precondition { any_of, none_of } = precondition(request);
    if any_of.is_some_and(|versions| !versions.contains(&task.updated_at)) {
        return Err(Error::PreconditionFailed);
    }
    Ok(none_of.is_none_or(|versions| versions.contains(&task.updated_at)))
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
