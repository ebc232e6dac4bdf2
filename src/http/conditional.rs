//! Conditional requests (RFC 9110 section 13): parses the fields with which a request sets conditions, and
//! `Idempotency-Key`.

use crate::error::{Error, FieldError};
use crate::gate::Request;
use crate::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use crate::task::{Precondition, Tags, UtcMicros};

/// Whether `If-None-Match` of a GET says that the client already has the representation with this entity tag. The
/// answer is then 304. For what is no task; a task has [`precondition`].
pub fn is_not_modified(request: &Request, etag: &str) -> bool {
    tags(request, "If-None-Match").is_some_and(|listed| listed.has_weak(etag))
}

/// The conditions under which a request wants its task, or wants to change it.
pub fn precondition(request: &Request) -> Precondition {
    let if_match = tags(request, "If-Match").map(|listed| listed.strong_versions());
    let if_none_match = tags(request, "If-None-Match").map(|listed| listed.weak_versions());
    Precondition { if_match, if_none_match }
}

/// Errors: `PreconditionRequired` if `REQUIRE_IF_MATCH` is set and a change has no `If-Match`.
pub fn check_required(request: &Request, is_required: bool) -> Result<(), Error> {
    let is_missing = is_required && request.values("If-Match").next().is_none();
    if is_missing { Err(Error::PreconditionRequired) } else { Ok(()) }
}

/// The entity tags of a field, or `*` (`Any`). If the field is not well formed, no tag of `If-Match` matches; of
/// `If-None-Match`, the tags that could be read match.
enum Listed {
    Any,
    Tags { tags: Vec<Tag>, is_well_formed: bool },
}

struct Tag {
    is_weak: bool,
    /// With its quotes.
    opaque: String,
}

impl Listed {
    /// Whether a tag matches by the weak comparison.
    fn has_weak(&self, etag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Tags { tags, .. } => tags.iter().any(|tag| tag.opaque == etag),
        }
    }

    /// The versions of a task that match by the strong comparison, in which a weak tag matches nothing (RFC 9110
    /// section 8.8.3.2).
    fn strong_versions(&self) -> Tags {
        match self {
            Self::Any => Tags::Any,
            Self::Tags { is_well_formed: false, .. } => Tags::Listed(Vec::new()),
            Self::Tags { tags, .. } => {
                Tags::Listed(tags.iter().filter(|tag| !tag.is_weak).filter_map(Tag::version).collect())
            }
        }
    }

    /// The versions of a task that match by the weak comparison.
    fn weak_versions(&self) -> Tags {
        match self {
            Self::Any => Tags::Any,
            Self::Tags { tags, .. } => Tags::Listed(tags.iter().filter_map(Tag::version).collect()),
        }
    }
}

impl Tag {
    /// The version of a task that the tag names. None for a tag that no task can have.
    fn version(&self) -> Option<UtcMicros> {
        let number = self.opaque.trim_matches('"');
        let version = UtcMicros::from_version(u64::from_str_radix(number, 16).ok()?)?;
        (version.etag() == self.opaque).then_some(version)
    }
}

/// The entity tags of a field. None if the request does not have the field.
fn tags(request: &Request, name: &str) -> Option<Listed> {
    let values: Vec<_> = request.values(name).collect();
    let list = values.join(",");
    if values.is_empty() {
        return None;
    }
    if list == "*" {
        return Some(Listed::Any);
    }
    // RFC 9110 section 5.6.1: elements of a list may be empty.
    let skipped = [' ', '\t', ','];
    let (mut tags, mut is_well_formed, mut rest) = (Vec::new(), true, list.trim_start_matches(skipped));
    while !rest.is_empty() {
        let (is_weak, tag) = rest.strip_prefix("W/").map_or((false, rest), |tag| (true, tag));
        // A comma between quotes is part of a tag. Text that is no tag is skipped up to the next comma.
        let Some((opaque, after)) = tag.strip_prefix('"').and_then(|tag| tag.split_once('"')) else {
            is_well_formed = false;
            rest = rest.split_once(',').map_or("", |(_, after)| after).trim_start_matches(skipped);
            continue;
        };
        tags.push(Tag { is_weak, opaque: format!("\"{opaque}\"") });
        let after = after.trim_start_matches([' ', '\t']);
        is_well_formed &= after.is_empty() || after.starts_with(',');
        rest = after.trim_start_matches(skipped);
    }
    Some(Listed::Tags { tags, is_well_formed })
}

/// The `Idempotency-Key` of a request. None if it has no such field. Errors: the key is not 1 to 255 visible
/// ASCII characters.
pub fn idempotency_key(request: &Request) -> Result<Option<&str>, FieldError> {
    let Some(key) = request.single("Idempotency-Key") else {
        return Ok(None);
    };
    let fits = (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len())
        && key.bytes().all(|byte| byte.is_ascii_graphic());
    let msg = "must be 1 to 255 visible ASCII characters";
    let wrong = || FieldError::new(&["header", "Idempotency-Key"], msg, "idempotency_key");
    fits.then_some(Some(key)).ok_or_else(wrong)
}
