//! A response on its way out: body, problem document, CORS, and the fields on every response.

use super::App;
use crate::error::{Error, FieldError};
use crate::gate::{Client, Request, Stop};
use crate::task::UtcMicros;
use jiff::{Timestamp, fmt::rfc2822::DateTimePrinter};
use serde::Serialize;
use std::borrow::Cow;
use std::sync::Arc;

pub struct Response<'a> {
    pub status: u16,
    /// Names are unique.
    fields: Vec<(&'static str, Cow<'static, str>)>,
    body: Cow<'static, [u8]>,
    /// What follows the body, in parts; None after the last.
    rest: Option<Rest<'a>>,
}

pub type Rest<'a> = Box<dyn FnMut() -> Result<Option<Vec<u8>>, Error> + 'a>;

/// RFC 9457, with the contract's members.
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
}

const COPY_BYTES_MAX: usize = 64 * 1024;
/// RFC 6797: a year.
const HSTS: &str = "max-age=31536000";

impl<'a> Response<'a> {
    pub fn empty(status: u16) -> Self {
        Self { status, fields: Vec::with_capacity(16), body: Cow::Borrowed(&[]), rest: None }
    }

    pub fn json(status: u16, value: &impl Serialize) -> Result<Self, Error> {
        let body = serde_json::to_vec(value).map_err(|error| Error::Bug(error.to_string()))?;
        Ok(Self::data(status, "application/json", body))
    }

    /// A body that no cache may keep and no page may frame.
    pub fn data(status: u16, media_type: &'static str, body: impl Into<Cow<'static, [u8]>>) -> Self {
        let response = Self::empty(status)
            .with("Content-Type", media_type)
            .with("Cache-Control", "no-store")
            .with("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'");
        Self { body: body.into(), ..response }
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
        };
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let response = Self::data(status, "application/problem+json", body);
        error.field().into_iter().fold(response, |response, (name, value)| response.with(name, value))
    }

    /// Sets a field; an earlier one of that name is replaced.
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.fields.retain(|field| field.0 != name);
        self.fields.push((name, value.into()));
        self
    }

    /// A body that goes on after what it has now.
    pub fn followed_by(self, rest: Rest<'a>) -> Self {
        Self { rest: Some(rest), ..self }
    }

    /// Adds what every response has.
    pub fn complete(self, request_id: &str, is_https: bool) -> Self {
        let now = DateTimePrinter::new().timestamp_to_rfc9110_string(&Timestamp::now());
        let response = self
            .with("X-Request-Id", request_id.to_owned())
            .with("X-Content-Type-Options", "nosniff")
            .with("Server", "tinytasks")
            .with("Date", now.unwrap_or_default());
        if is_https { response.with("Strict-Transport-Security", HSTS) } else { response }
    }

    /// The memory that the body takes: none when it is part of the program.
    pub fn bytes_held(&self) -> usize {
        if let Cow::Owned(body) = &self.body { body.len() } else { 0 }
    }

    /// Writes the message of RFC 9112 section 2.1; for HEAD without the body, the fields staying.
    /// Errors: why it is not complete.
    pub fn write(self, app: &App, user_id: &str, request: &Request, client: &mut Client) -> Result<(), Stop> {
        // As much as most take, as are the fields above.
        let mut head = String::with_capacity(1024);
        head.extend(["HTTP/1.1 ", &self.status.to_string(), " ", phrase(self.status), "\r\n"]);
        for (name, value) in &self.fields {
            head.extend([name, ": ", value, "\r\n"]);
        }
        let is_chunked = self.rest.is_some() && !request.is_old;
        match &self.rest {
            _ if is_chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
            // Without a length, the end of the connection is the end of the body.
            Some(_) => {}
            // RFC 9110 section 8.6: neither has a Content-Length.
            None if [204, 304].contains(&self.status) => {}
            None => head.extend(["Content-Length: ", &self.body.len().to_string(), "\r\n"]),
        }
        head.push_str(if client.decide_last(request.is_last) { "Connection: close\r\n\r\n" } else { "\r\n" });
        let reader = Arc::clone(&client.connection);
        // One system call where a copy is cheaper than another call.
        let mut send = |parts: &[&[u8]]| {
            let whole = match parts.iter().map(|part| part.len()).sum::<usize>() {
                0..=COPY_BYTES_MAX => client.write(&parts.concat()),
                _ => parts.iter().try_for_each(|part| client.write(part)),
            };
            whole.map_err(|_| None)
        };
        // RFC 9112 section 7.1.
        let size = |part: &[u8]| if is_chunked { format!("{:x}\r\n", part.len()) } else { String::new() };
        let (line_end, last_chunk) = if is_chunked { ("\r\n", "0\r\n\r\n") } else { ("", "") };
        match self.rest {
            _ if request.method == "HEAD" => send(&[head.as_bytes()]),
            None => send(&[head.as_bytes(), &self.body]),
            Some(mut rest) => {
                head.push_str(&size(&self.body));
                send(&[head.as_bytes(), &self.body, line_end.as_bytes()])?;
                while let Some(part) = rest()? {
                    let room = app.rooms.take(part.len(), user_id)?;
                    room.is_read_by(&reader);
                    send(&[size(&part).as_bytes(), &part, line_end.as_bytes()])?;
                }
                send(&[last_chunk.as_bytes()])
            }
        }
    }
}

/// The origins that may read answers, by the Fetch standard's CORS protocol.
pub enum Cors {
    /// Any, without credentials.
    Any,
    Listed(Vec<String>),
}

impl Cors {
    pub fn new(origins: Vec<String>) -> Self {
        if origins.iter().any(|origin| origin == "*") { Self::Any } else { Self::Listed(origins) }
    }

    /// For the request that the response answers.
    pub fn apply<'a>(&self, response: Response<'a>, request: &Request) -> Response<'a> {
        const EXPOSED: &str = "ETag, Link, Location, Content-Location, Retry-After, WWW-Authenticate, \
            X-Request-Id, Idempotent-Replayed";
        const REQUEST_FIELDS: &str = "Authorization, Content-Type, Idempotency-Key, If-Match, \
            If-None-Match, X-Request-Id, traceparent, tracestate, baggage";
        let is_options = request.method == "OPTIONS";
        let response = match (self, is_options) {
            (Self::Any, false) => response,
            (Self::Listed(_), false) => response.with("Vary", "Origin"),
            (Self::Any, true) => {
                response.with("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers")
            }
            (Self::Listed(_), true) => {
                response.with("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
            }
        };
        let response = match (self, request.single("Origin")) {
            (Self::Any, Some(_)) => response.with("Access-Control-Allow-Origin", "*"),
            (Self::Listed(origins), Some(origin)) if origins.iter().any(|listed| listed == origin) => {
                response
                    .with("Access-Control-Allow-Origin", origin.to_owned())
                    .with("Access-Control-Allow-Credentials", "true")
            }
            _ => return response,
        };
        let response = response.with("Access-Control-Expose-Headers", EXPOSED);
        let methods = response.fields.iter().find(|field| field.0 == "Allow").map(|field| field.1.clone());
        let is_preflight = is_options && request.single("Access-Control-Request-Method").is_some();
        match methods {
            Some(methods) if is_preflight => response
                .with("Access-Control-Allow-Methods", methods)
                .with("Access-Control-Allow-Headers", REQUEST_FIELDS)
                .with("Access-Control-Max-Age", "7200"),
            _ => response,
        }
    }
}

/// RFC 9110 section 15; 428, 429 and 431 are from RFC 6585.
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
