//! Everything that can go wrong with a request, and the table that turns each error into an answer. Knows
//! nothing of bytes, tokens or SQL. The client gets only fixed texts and [`FieldError`]s; the cause of an
//! error is only logged.

use crate::refusal::TokenRefusal;
use serde::Serialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// One broken rule of a request: an entry of the contract's `errors`.
#[derive(Debug, Clone, Serialize)]
pub struct FieldError {
    /// `body`, `path`, `query` or `header`; then the name of the member, parameter or field, if there is one.
    pub loc: Vec<Cow<'static, str>>,
    pub msg: Cow<'static, str>,
    #[serde(rename = "type")]
    pub kind: &'static str,
}

impl FieldError {
    pub fn new(loc: &[&'static str], msg: &'static str, kind: &'static str) -> Self {
        let loc = loc.iter().map(|part| Cow::Borrowed(*part)).collect();
        Self { loc, msg: Cow::Borrowed(msg), kind }
    }
}

impl From<FieldError> for Error {
    fn from(wrong: FieldError) -> Self {
        Self::Invalid(vec![wrong])
    }
}

/// The current state of a task for which a precondition does not hold. The answer (412) shows it.
#[derive(Debug)]
pub struct Current {
    /// With its quotes.
    pub etag: String,
    pub json: Box<RawValue>,
}

/// Why a request was refused or failed: one variant for each cause. Unless its comment says otherwise, a `String`
/// is the cause for the log.
#[derive(Debug)]
pub enum Error {
    /// The request cannot be understood.
    Malformed(Vec<FieldError>),
    /// The request is understood, and breaks a rule.
    Invalid(Vec<FieldError>),
    /// The same `Idempotency-Key` as an earlier request, with another body.
    KeyReused,
    TokenMissing,
    TokenInvalid(TokenRefusal),
    /// The token is another user's. Holds the token's user.
    Forbidden(String),
    NoSuchRoute,
    NoSuchTask,
    /// Holds the value of the `Allow` field.
    MethodNotAllowed(String),
    RequestTimeout,
    PreconditionFailed(Current),
    /// A change without `If-Match`, where `REQUIRE_IF_MATCH` is set.
    PreconditionRequired,
    BodyTooLarge,
    TargetTooLong,
    /// Holds the media types that the route accepts.
    MediaType(&'static str),
    ContentCoding,
    HeadTooLarge,
    /// Holds the seconds after which the next request is allowed.
    RateLimited(u64),
    /// The database refused a statement, and would refuse it again.
    Database(String),
    /// A defect of this program.
    Bug(String),
    /// A condition that passes by itself. The request has changed nothing, or can be repeated without harm.
    Unavailable(String),
    /// A condition that passes by itself. It is unknown whether the request has changed something.
    Unknown(String),
}

impl Error {
    /// The error for a statement without an answer, or with an answer that cannot be read. `may_be_done`: the
    /// statement may have changed something.
    pub fn unanswered(may_be_done: bool, cause: String) -> Self {
        if may_be_done { Self::Unknown(cause) } else { Self::Unavailable(cause) }
    }

    /// The contract's error table: status, `error_code`, and the text for the client.
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
            Self::PreconditionFailed(_) => (412, "PRECONDITION_FAILED", "the task is not what the request expects"),
            Self::BodyTooLarge => (413, "PAYLOAD_TOO_LARGE", "the body must be at most 64 KiB"),
            Self::TargetTooLong => (414, "URI_TOO_LONG", "the request line must be at most 8 KiB"),
            Self::MediaType(_) => (415, "UNSUPPORTED_MEDIA_TYPE", "Content-Type: must be application/json"),
            Self::ContentCoding => (415, "UNSUPPORTED_MEDIA_TYPE", "Content-Encoding: must be identity or absent"),
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

    /// The header field that the error adds to the answer.
    pub fn field(&self) -> Option<(&'static str, Cow<'static, str>)> {
        match self {
            Self::TokenMissing => Some(("WWW-Authenticate", "Bearer".into())),
            Self::TokenInvalid(_) => Some(("WWW-Authenticate", "Bearer error=\"invalid_token\"".into())),
            Self::MethodNotAllowed(methods) => Some(("Allow", methods.clone().into())),
            Self::PreconditionFailed(current) => Some(("ETag", current.etag.clone().into())),
            Self::MediaType(accepted) => Some(("Accept", (*accepted).into())),
            Self::ContentCoding => Some(("Accept-Encoding", "identity".into())),
            Self::RateLimited(seconds) => Some(("Retry-After", seconds.to_string().into())),
            // Two seconds is about as long as a database takes to restart.
            Self::Unavailable(_) | Self::Unknown(_) => Some(("Retry-After", "2".into())),
            _ => None,
        }
    }

    /// The broken rules. Empty for an error that is not about the request's content.
    pub fn field_errors(&self) -> &[FieldError] {
        match self {
            Self::Malformed(list) | Self::Invalid(list) => list,
            _ => &[],
        }
    }

    /// The current task, if a precondition on it does not hold.
    pub fn current(&self) -> Option<&RawValue> {
        match self {
            Self::PreconditionFailed(current) => Some(&*current.json),
            _ => None,
        }
    }

    /// The `detail` of the problem document: all broken rules, or the text of the table.
    pub fn detail(&self) -> String {
        if let Self::MediaType(accepted) = self {
            return format!("Content-Type: must be {}", accepted.replace(", ", " or "));
        }
        let rule =
            |error: &FieldError| format!("{}: {}", error.loc.last().map_or("", |name| name), error.msg);
        let rules: Vec<_> = self.field_errors().iter().map(rule).collect();
        if rules.is_empty() { self.entry().2.to_owned() } else { rules.join("; ") }
    }

    /// The reason for the log line, which also has the `error_code`.
    pub fn reason(&self) -> String {
        match self {
            Self::TokenInvalid(refusal) => refusal.to_string(),
            Self::Database(cause) | Self::Bug(cause) | Self::Unavailable(cause) | Self::Unknown(cause) => {
                cause.clone()
            }
            Self::Forbidden(user) => format!("the token is that of {user:?}"),
            _ => self.detail(),
        }
    }
}
