//! Everything that can go wrong with a request, and the one table that turns it into an answer.
//! Knows nothing of bytes, tokens or SQL. What a client may read is fixed text or a
//! [`FieldError`]; causes are for the log alone.

use serde::Serialize;
use std::borrow::Cow;

/// One broken rule of a request: an entry of the contract's `errors`.
#[derive(Debug, Clone, Serialize)]
pub struct FieldError {
    /// `body`, `path`, `query` or `header`, then the field's name where there is one.
    pub loc: Vec<&'static str>,
    pub msg: &'static str,
    #[serde(rename = "type")]
    pub kind: &'static str,
}

/// Why a request was not done: one variant for each cause that a reader would name. A `String` is
/// the cause, for the log.
#[derive(Debug)]
pub enum Error {
    /// The request cannot be understood.
    Malformed(Vec<FieldError>),
    /// The request is understood, and breaks a rule.
    Invalid(Vec<FieldError>),
    /// The same `Idempotency-Key` as an earlier request, with another body.
    KeyReused,
    TokenMissing,
    TokenInvalid(String),
    /// With the token's user.
    Forbidden(String),
    NoSuchRoute,
    NoSuchTask,
    /// With the methods that are allowed, as the `Allow` field has them.
    MethodNotAllowed(String),
    RequestTimeout,
    PreconditionFailed,
    /// A change without `If-Match`, where that is asked for.
    PreconditionRequired,
    BodyTooLarge,
    TargetTooLong,
    /// With the media types that are taken.
    MediaType(&'static str),
    ContentCoding,
    HeadTooLarge,
    /// With the seconds after which there is room for one more.
    RateLimited(u64),
    /// The database refused a statement for good.
    Database(String),
    /// A defect of this program.
    Bug(String),
    /// A condition that passes by itself. Nothing was done, or it does no harm to do it again.
    Unavailable(String),
    /// The same, and nobody knows whether the request was done.
    Unknown(String),
}

impl Error {
    /// The contract's table: status, `error_code`, and the sentence for the client.
    #[rustfmt::skip]
    pub fn entry(&self) -> (u16, &'static str, &'static str) {
        match self {
            Self::Malformed(_) => (400, "VALIDATION_ERROR", "the request is malformed"),
            Self::TokenMissing => (401, "AUTH_MISSING", "a bearer token is required"),
            Self::TokenInvalid(_) => (401, "AUTH_INVALID", "the token is not valid"),
            Self::Forbidden(_) => (403, "AUTH_FORBIDDEN", "the token is another user's"),
            Self::NoSuchRoute => (404, "NOT_FOUND", "there is nothing at this path"),
            Self::NoSuchTask => (404, "NOT_FOUND", "there is no such task"),
            Self::MethodNotAllowed(_) => (405, "METHOD_NOT_ALLOWED", "the method is not allowed here"),
            Self::RequestTimeout => (408, "REQUEST_TIMEOUT", "the request did not arrive in time"),
            Self::PreconditionFailed => (412, "PRECONDITION_FAILED", "the task is not what the request expects"),
            Self::BodyTooLarge => (413, "PAYLOAD_TOO_LARGE", "the body must be at most 64 KiB"),
            Self::TargetTooLong => (414, "URI_TOO_LONG", "the request line must be at most 8 KiB"),
            Self::MediaType(_) => (415, "UNSUPPORTED_MEDIA_TYPE", "the body must be JSON"),
            Self::ContentCoding => (415, "UNSUPPORTED_MEDIA_TYPE", "the body must not be encoded"),
            Self::Invalid(_) => (422, "VALIDATION_ERROR", "the request breaks a rule"),
            Self::KeyReused => (422, "IDEMPOTENCY_KEY_REUSED", "the Idempotency-Key was used with another body"),
            Self::PreconditionRequired => (428, "PRECONDITION_REQUIRED", "say in If-Match which state of the task is meant"),
            Self::RateLimited(_) => (429, "RATE_LIMITED", "too many requests, try again later"),
            Self::HeadTooLarge => (431, "HEADERS_TOO_LARGE", "the header section must be at most 16 KiB and 64 fields"),
            Self::Database(_) => (500, "DATABASE_ERROR", "the database refused the request"),
            Self::Bug(_) => (500, "INTERNAL_ERROR", "something unforeseen happened"),
            Self::Unavailable(_) => (503, "SERVICE_UNAVAILABLE", "not possible at the moment, try again soon"),
            Self::Unknown(_) => (503, "SERVICE_UNAVAILABLE", "it is not known whether this was done, so look before you try again"),
        }
    }

    /// The header field that belongs to the answer, where there is one.
    pub fn field(&self) -> Option<(&'static str, Cow<'static, str>)> {
        match self {
            Self::TokenMissing => Some(("WWW-Authenticate", "Bearer".into())),
            Self::TokenInvalid(_) => Some(("WWW-Authenticate", "Bearer error=\"invalid_token\"".into())),
            Self::MethodNotAllowed(methods) => Some(("Allow", methods.clone().into())),
            Self::MediaType(accepted) => Some(("Accept", (*accepted).into())),
            Self::ContentCoding => Some(("Accept-Encoding", "identity".into())),
            Self::RateLimited(seconds) => Some(("Retry-After", seconds.to_string().into())),
            // In seconds: about as long as a database takes to restart.
            Self::Unavailable(_) | Self::Unknown(_) => Some(("Retry-After", "2".into())),
            _ => None,
        }
    }

    /// The broken rules, where there are any.
    pub fn field_errors(&self) -> &[FieldError] {
        match self {
            Self::Malformed(list) | Self::Invalid(list) => list,
            _ => &[],
        }
    }

    /// One sentence for the client: all broken rules, or the table's text.
    pub fn detail(&self) -> String {
        let rule = |error: &FieldError| format!("{}: {}", error.loc.last().unwrap_or(&""), error.msg);
        let rules: Vec<_> = self.field_errors().iter().map(rule).collect();
        if rules.is_empty() { self.entry().2.to_owned() } else { rules.join("; ") }
    }

    /// What the log says beyond the `error_code`.
    pub fn reason(&self) -> String {
        match self {
            Self::TokenInvalid(cause)
            | Self::Database(cause)
            | Self::Bug(cause)
            | Self::Unavailable(cause)
            | Self::Unknown(cause) => cause.clone(),
            Self::Forbidden(user) => format!("the token is that of {user:?}"),
            _ => self.detail(),
        }
    }
}
