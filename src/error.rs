//! Everything that can go wrong with a request, and the one table that turns it into an answer.
//! Knows nothing of HTTP messages, tokens or SQL. What a client may read is fixed text or a
//! [`FieldError`]; causes are for the log alone.

use serde::{Serialize, Serializer, ser::SerializeSeq};

/// One broken rule of a request. Serialized as the contract's `errors` entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// `body`, `path`, `query` or `header`, then the field's name where there is one.
    #[serde(serialize_with = "loc")]
    pub loc: (&'static str, &'static str),
    pub msg: &'static str,
    #[serde(rename = "type")]
    pub kind: &'static str,
}

/// The second part of `loc` is left out when it is empty: the body itself is meant.
fn loc<S: Serializer>(loc: &(&str, &str), serializer: S) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(None)?;
    list.serialize_element(loc.0)?;
    if !loc.1.is_empty() {
        list.serialize_element(loc.1)?;
    }
    list.end()
}

/// Why a request was not done. One variant for each cause that a reader would name.
#[derive(Debug)]
pub enum Error {
    /// The request cannot be understood.
    Malformed(Vec<FieldError>),
    /// The request is understood, and breaks a rule.
    Invalid(Vec<FieldError>),
    TokenMissing,
    /// With the reason, for the log.
    TokenInvalid(String),
    /// With the token's user, for the log.
    Forbidden(String),
    NoSuchRoute,
    NoSuchTask,
    /// With the methods that are allowed.
    MethodNotAllowed(&'static str),
    BodyTooLarge,
    /// With the field that says what would be taken, and its value.
    UnsupportedMediaType(&'static str, &'static str),
    /// The database refused a statement for good; with the cause, for the log.
    Database(String),
    /// A defect of this program; with the cause, for the log.
    Bug(String),
    /// A condition that passes by itself; with the cause, for the log.
    Unavailable(String),
}

/// What a client is told of an [`Error`].
pub struct Entry {
    pub status: u16,
    pub error_code: &'static str,
    pub detail: &'static str,
    /// A header field that belongs to the answer.
    pub field: Option<(&'static str, &'static str)>,
}

/// Seconds after which a client may try again: the time that a restarted database needs.
const RETRY_AFTER_SECONDS: &str = "2";

impl Error {
    /// The contract's table of errors.
    pub fn entry(&self) -> Entry {
        let (status, error_code, detail, field) = match self {
            Self::Malformed(_) => (400, "VALIDATION_ERROR", "", None),
            Self::Invalid(_) => (422, "VALIDATION_ERROR", "", None),
            Self::TokenMissing => (
                401,
                "AUTH_MISSING",
                "a bearer token is required",
                Some(("WWW-Authenticate", "Bearer")),
            ),
            Self::TokenInvalid(_) => (
                401,
                "AUTH_INVALID",
                "the token is not valid",
                Some(("WWW-Authenticate", "Bearer error=\"invalid_token\"")),
            ),
            Self::Forbidden(_) => (403, "AUTH_FORBIDDEN", "the token is another user's", None),
            Self::NoSuchRoute => (404, "NOT_FOUND", "there is nothing at this path", None),
            Self::NoSuchTask => (404, "NOT_FOUND", "there is no such task", None),
            Self::MethodNotAllowed(allow) => (
                405,
                "METHOD_NOT_ALLOWED",
                "the method is not allowed here",
                Some(("Allow", *allow)),
            ),
            Self::BodyTooLarge => (
                413,
                "PAYLOAD_TOO_LARGE",
                "the body must be at most 64 KiB",
                None,
            ),
            Self::UnsupportedMediaType(name, value) => (
                415,
                "UNSUPPORTED_MEDIA_TYPE",
                "the body must be plain JSON",
                Some((*name, *value)),
            ),
            Self::Database(_) => (
                500,
                "DATABASE_ERROR",
                "the database refused the request",
                None,
            ),
            Self::Bug(_) => (500, "INTERNAL_ERROR", "something unforeseen happened", None),
            Self::Unavailable(_) => (
                503,
                "SERVICE_UNAVAILABLE",
                "the service is not available at the moment, try again soon",
                Some(("Retry-After", RETRY_AFTER_SECONDS)),
            ),
        };
        Entry {
            status,
            error_code,
            detail,
            field,
        }
    }

    /// The broken rules, where there are any.
    pub fn field_errors(&self) -> &[FieldError] {
        match self {
            Self::Malformed(list) | Self::Invalid(list) => list,
            _ => &[],
        }
    }

    /// One sentence for the client: the entry's text, or all broken rules.
    pub fn detail(&self) -> String {
        let list = self.field_errors();
        if list.is_empty() {
            return self.entry().detail.to_owned();
        }
        let name = |error: &FieldError| match error.loc {
            (part, "") => part,
            (_, name) => name,
        };
        let parts: Vec<_> = list
            .iter()
            .map(|error| format!("{}: {}", name(error), error.msg))
            .collect();
        parts.join("; ")
    }

    /// What the log says beyond the `error_code`.
    pub fn reason(&self) -> String {
        match self {
            Self::TokenInvalid(cause)
            | Self::Database(cause)
            | Self::Bug(cause)
            | Self::Unavailable(cause) => cause.clone(),
            Self::Forbidden(user) => format!("the token is that of {user:?}"),
            _ => self.detail(),
        }
    }
}
