//! A response as a value: status, fields and body; the problem document of an error; and the bytes of a
//! response according to RFC 9112. Knows no socket. The body of a long list is a [`ListParts`], which asks
//! the database for each part only when that part is about to be sent.

use super::list_parts::ListParts;
use crate::error::{Error, FieldError};
use crate::gate::Request;
use crate::semaphore::Permit;
use crate::task::UtcMicros;
use jiff::{Timestamp, fmt::rfc2822::DateTimePrinter};
use serde::Serialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

pub struct Response<'a> {
    pub status: u16,
    /// Each name once.
    fields: Vec<(&'static str, Cow<'static, str>)>,
    pub body: Body<'a>,
    /// The turn in which a list was made. The sending thread drops it once the memory of the body is counted.
    pub turn: Option<Permit<'a>>,
}

pub enum Body<'a> {
    Whole(Cow<'static, [u8]>),
    /// A list that is made and sent in parts. `first` is made already.
    Parts {
        first: Vec<u8>,
        rest: Box<ListParts<'a>>,
    },
}

/// A problem document (RFC 9457) with the members of the contract.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    error_code: &'static str,
    timestamp: UtcMicros,
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<&'a RawValue>,
}

/// `Strict-Transport-Security` (RFC 6797): a year.
const HSTS: &str = "max-age=31536000";
/// Most heads fit into this many bytes.
const HEAD_BYTES: usize = 1024;
/// Most responses have at most this many fields.
const FIELDS: usize = 16;

impl<'a> Response<'a> {
    /// A response without a body.
    pub fn empty(status: u16) -> Self {
        let (fields, body) = (Vec::with_capacity(FIELDS), Body::Whole(Cow::Borrowed(&[])));
        Self { status, fields, body, turn: None }
    }

    /// `value` as JSON. Errors: `Bug` if it cannot be serialized.
    pub fn json(status: u16, value: &impl Serialize) -> Result<Self, Error> {
        let text = serde_json::to_vec(value).map_err(|error| Error::Bug(error.to_string()))?;
        Ok(Self::json_text(status, text))
    }

    /// A response whose body is JSON text already.
    pub fn json_text(status: u16, text: Vec<u8>) -> Self {
        Self::data(status, "application/json", text)
    }

    /// A response with a body. No cache may store it, and no web page may frame it.
    pub fn data(status: u16, media_type: &'static str, body: impl Into<Cow<'static, [u8]>>) -> Self {
        let response = Self::empty(status)
            .with("Content-Type", media_type)
            .with("Cache-Control", "no-store")
            .with("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'");
        Self { body: Body::Whole(body.into()), ..response }
    }

    /// A list that is sent in parts.
    pub fn list_in_parts(first: Vec<u8>, rest: ListParts<'a>) -> Self {
        let body = Body::Parts { first, rest: Box::new(rest) };
        Self { body, ..Self::data(200, "application/json", Cow::default()) }
    }

    /// Stores the turn in which a list was made.
    pub fn made_in(self, turn: Permit<'a>) -> Self {
        Self { turn: Some(turn), ..self }
    }

    /// The problem document of an error.
    pub fn problem(error: &Error, request_id: &str) -> Self {
        let (status, error_code, _) = error.entry();
        let problem = Problem {
            r#type: "about:blank",
            title: phrase(status),
            status,
            detail: &error.detail(),
            error_code,
            timestamp: UtcMicros::now(),
            request_id,
            errors: error.field_errors(),
            current: error.current(),
        };
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let response = Self::data(status, "application/problem+json", body);
        match error.field() {
            Some((name, value)) => response.with(name, value),
            None => response,
        }
    }

    /// Sets a field; an earlier field of that name is replaced.
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.fields.retain(|field| field.0 != name);
        self.fields.push((name, value.into()));
        self
    }

    /// Sets the entity tag, and allows the client (but no shared cache) to store the response, if it revalidates
    /// the response before each use.
    pub fn with_etag(self, etag: String) -> Self {
        self.with("Cache-Control", "private, no-cache").with("ETag", etag)
    }

    /// The value of a field of this response.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|field| field.0 == name).map(|(_, value)| value.as_ref())
    }

    /// Adds the fields that every response has.
    pub fn complete(self, request_id: &str, is_https: bool) -> Self {
        let now = DateTimePrinter::new().timestamp_to_rfc9110_string(&Timestamp::now());
        let response = self
            .with("X-Request-Id", request_id.to_owned())
            .with("X-Content-Type-Options", "nosniff")
            .with("Server", "tinytasks")
            .with("Date", now.unwrap_or_default());
        if is_https { response.with("Strict-Transport-Security", HSTS) } else { response }
    }

    /// The memory that the body takes now, in bytes: 0 if it is part of the program. Of a list in parts, only the
    /// first part is in memory.
    pub fn bytes_held(&self) -> usize {
        match &self.body {
            Body::Whole(Cow::Owned(body)) => body.len(),
            Body::Whole(Cow::Borrowed(_)) => 0,
            Body::Parts { first, .. } => first.len(),
        }
    }

    /// The status line and the fields (RFC 9112 section 2.1), with the empty line after them. With `is_last`, the
    /// fields include `Connection: close`.
    pub fn head(&self, request: &Request, is_last: bool) -> Vec<u8> {
        let mut head = String::with_capacity(HEAD_BYTES);
        head.extend(["HTTP/1.1 ", &self.status.to_string(), " ", phrase(self.status), "\r\n"]);
        for (name, value) in &self.fields {
            head.extend([name, ": ", value, "\r\n"]);
        }
        match &self.body {
            // RFC 9110 section 8.6: responses with these statuses have no Content-Length.
            Body::Whole(_) if [204, 304].contains(&self.status) => {}
            Body::Whole(body) => head.extend(["Content-Length: ", &body.len().to_string(), "\r\n"]),
            // HTTP/1.0 has no chunks, so the end of the connection marks the end of the body.
            Body::Parts { .. } if request.is_http_1_0 => {}
            Body::Parts { .. } => head.push_str("Transfer-Encoding: chunked\r\n"),
        }
        head.push_str(if is_last { "Connection: close\r\n\r\n" } else { "\r\n" });
        head.into_bytes()
    }

    /// The bytes of a small response that is the last one on its connection, such as an error.
    pub fn whole(&self, request: &Request) -> Vec<u8> {
        let head = self.head(request, true);
        match &self.body {
            Body::Whole(body) if request.method != "HEAD" => [head.as_slice(), body].concat(),
            _ => head,
        }
    }
}

/// The reason phrase of a status (RFC 9110 section 15; those of 428, 429 and 431 are from RFC 6585).
fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}
