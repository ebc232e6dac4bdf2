//! What the checks and handlers read from a request: its id, its fields, and the segments of its path.

use crate::error::{Error, FieldError};
use crate::gate::Request;
use crate::limits::REQUEST_ID_BYTES_MAX;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// Fields that a request may have only once: if there were two, two programs could each use another one.
/// `auth` refuses two `Authorization` fields (401), so that field is not in this list.
const SINGLE_VALUED: [&str; 5] =
    ["Content-Type", "Origin", "X-Request-Id", "Access-Control-Request-Method", "Idempotency-Key"];

/// The request's own id. None if it has no id that is fit for a log line and a header field.
pub fn id(request: &Request) -> Option<&str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let fits = |id: &&str| (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(is_plain);
    request.single("X-Request-Id").filter(fits)
}

/// The trace that the request belongs to (W3C Trace Context, section 3.2). A malformed or repeated
/// `traceparent` is ignored, as that standard asks.
pub fn trace_id(request: &Request) -> Option<&str> {
    let mut parts = request.single("traceparent")?.split('-');
    let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut hex = |digits| parts.next().filter(|part| part.len() == digits && is_hex(part));
    let (version, trace_id, parent_id, _flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
    // Later versions may have more parts.
    let is_whole = version != "ff" && (version != "00" || parts.next().is_none());
    let are_ids = [trace_id, parent_id].iter().all(|id| id.bytes().any(|byte| byte != b'0'));
    (is_whole && are_ids).then_some(trace_id)
}

/// Errors: `Malformed` if a request has a field of [`SINGLE_VALUED`] more than once.
pub fn check_fields(request: &Request) -> Result<(), Error> {
    let mut errors = Vec::new();
    for name in SINGLE_VALUED {
        if request.values(name).nth(1).is_some() {
            errors.push(FieldError::new(&["header", name], "must be given once", "header_repeated"));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Error::Malformed(errors)) }
}

/// Checks that the body has no content coding and one of the media types in the comma-separated list
/// `accepted`. Errors: `ContentCoding`, `MediaType`.
pub fn check_media_type(request: &Request, accepted: &'static str) -> Result<(), Error> {
    let codings = request.values("Content-Encoding").flat_map(|value| value.split(','));
    // RFC 9110 section 5.6.1: an empty entry of a list means nothing.
    let mut codings = codings.map(str::trim).filter(|coding| !coding.is_empty());
    if !codings.all(|coding| coding.eq_ignore_ascii_case("identity")) {
        return Err(Error::ContentCoding);
    }
    let given = request.single("Content-Type").unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    let fits = accepted.split(", ").any(|accepted| accepted.eq_ignore_ascii_case(essence));
    if fits { Ok(()) } else { Err(Error::MediaType(accepted)) }
}

/// The segments of the path. The path is split before each segment is percent-decoded once (RFC 3986
/// section 2.4), so `%2F` does not separate segments. Errors: `Malformed` for a bad escape or invalid UTF-8.
pub fn segments(request: &Request) -> Result<Vec<Cow<'_, str>>, Error> {
    // The target `*` names the server as a whole, as `/` does.
    let path = if request.path() == "*" { "/" } else { request.path() };
    let segments: Option<_> = path.split('/').skip(1).map(percent_decode).collect();
    let wrong = FieldError::new(&["path"], "must be percent-encoded UTF-8", "bad_escape");
    segments.ok_or_else(|| Error::Malformed(vec![wrong]))
}

/// Decodes percent-encoding (RFC 3986 section 2.1). None for a bad escape or invalid UTF-8.
pub fn percent_decode(text: &str) -> Option<Cow<'_, str>> {
    let is_hex = |pair: &[u8]| pair.iter().all(u8::is_ascii_hexdigit);
    // The library does not refuse a bad escape but leaves it as it is.
    let fits = text.split('%').skip(1).all(|rest| rest.as_bytes().get(..2).is_some_and(is_hex));
    percent_decode_str(text).decode_utf8().ok().filter(|_| fits)
}

/// Decodes a name or value of a query as forms encode it, in which `+` is a space
/// (https://url.spec.whatwg.org/#urlencoded-parsing). None for a bad escape or invalid UTF-8.
pub fn form_decode(text: &str) -> Option<String> {
    percent_decode(&text.replace('+', " ")).map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::percent_decode;

    #[test]
    fn percent_decoding() {
        for (given, wanted) in [
            ("", Some("")),
            ("abc", Some("abc")),
            ("a%20b", Some("a b")),
            ("%2F%2f", Some("//")),
            ("%2525", Some("%25")),
            ("%F0%9F%99%82", Some("🙂")),
            ("a+b", Some("a+b")),
            ("%00", Some("\0")),
            ("%", None),
            ("%2", None),
            ("%2G", None),
            ("%+1", None),
            ("%FF", None),
            ("%C0%AF", None),
            ("%ED%A0%80", None),
        ] {
            assert_eq!(percent_decode(given).as_deref(), wanted, "{given}");
        }
    }
}
