//! A response on its way out: body, problem document, CORS, and the fields on every response.

use super::request::{Method, Request};
use crate::{
    error::{Error, FieldError},
    task::Instant,
};
use jiff::{Timestamp, fmt::rfc2822::DateTimePrinter};
use serde::Serialize;
use std::borrow::Cow;

pub struct Response {
    pub status: u16,
    /// What belongs to this answer alone; names are unique.
    pub fields: Vec<(&'static str, Cow<'static, str>)>,
    pub body: Cow<'static, [u8]>,
}

/// RFC 9457, with the contract's members.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    error_code: &'static str,
    timestamp: Instant,
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

const NO_STORE: &str = "no-store";

impl Response {
    pub fn empty(status: u16) -> Self {
        Self {
            status,
            fields: Vec::new(),
            body: Cow::Borrowed(&[]),
        }
    }

    /// JSON that no cache may keep. Change `Cache-Control` where one may.
    pub fn json(status: u16, value: &impl Serialize) -> Result<Self, Error> {
        Self::json_as("application/json", status, value)
    }

    fn json_as(
        media_type: &'static str,
        status: u16,
        value: &impl Serialize,
    ) -> Result<Self, Error> {
        let body = serde_json::to_vec(value).map_err(|error| Error::Bug(error.to_string()))?;
        Ok(Self::data(media_type, status, body.into()))
    }

    /// A body with the fields that all data has.
    pub fn data(media_type: &'static str, status: u16, body: Cow<'static, [u8]>) -> Self {
        const CSP: &str = "default-src 'none'; frame-ancestors 'none'";
        Self::empty(status)
            .with("Content-Type", media_type)
            .with("Cache-Control", NO_STORE)
            .with("Content-Security-Policy", CSP)
            .with_body(body)
    }

    fn with_body(mut self, body: Cow<'static, [u8]>) -> Self {
        self.body = body;
        self
    }

    /// Sets a field; an earlier one of that name is replaced.
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.fields.retain(|field| field.0 != name);
        self.fields.push((name, value.into()));
        self
    }

    /// The problem document of an error.
    pub fn problem(error: &Error, request_id: &str) -> Self {
        let entry = error.entry();
        let problem = Problem {
            r#type: "about:blank",
            title: phrase(entry.status),
            status: entry.status,
            detail: &error.detail(),
            error_code: entry.error_code,
            timestamp: Instant::now(),
            request_id,
            errors: error.field_errors(),
        };
        let response = Self::json_as("application/problem+json", entry.status, &problem)
            .unwrap_or_else(|_| Self::empty(entry.status));
        match entry.field {
            Some((name, value)) => response.with(name, value),
            None => response,
        }
    }

    /// Adds what every response has.
    pub fn complete(self, cors: &Cors, request: &Request, request_id: &str) -> Self {
        let now = DateTimePrinter::new().timestamp_to_rfc9110_string(&Timestamp::now());
        let response = self
            .with("X-Request-Id", request_id.to_owned())
            .with("X-Content-Type-Options", "nosniff")
            .with("Server", "tinytasks")
            .with("Date", now.unwrap_or_default());
        cors.apply(response, request)
    }

    /// The message of RFC 9112 section 2.1; for HEAD without the body, the fields staying.
    pub fn into_message(self, is_head: bool) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, phrase(self.status));
        for (name, value) in &self.fields {
            for part in [name, ": ", value, "\r\n"] {
                head.push_str(part);
            }
        }
        // RFC 9110 section 8.6: a 204 has no Content-Length.
        if self.status != 204 {
            head.push_str("Content-Length: ");
            head.push_str(&self.body.len().to_string());
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        let mut message = head.into_bytes();
        if !is_head {
            message.extend_from_slice(&self.body);
        }
        message
    }
}

/// Which origins may read answers (Fetch, section "HTTP extensions").
pub enum Cors {
    /// Any, without credentials.
    Any,
    Listed(Vec<String>),
}

impl Cors {
    pub fn new(origins: Vec<String>) -> Self {
        match origins.iter().any(|origin| origin == "*") {
            true => Self::Any,
            false => Self::Listed(origins),
        }
    }

    fn apply(&self, mut response: Response, request: &Request) -> Response {
        const EXPOSED: &str = "ETag, Link, Location, Content-Location, Retry-After, \
            WWW-Authenticate, X-Request-Id, Idempotent-Replayed";
        const REQUEST_FIELDS: &str = "Authorization, Content-Type, Idempotency-Key, If-Match, \
            If-None-Match, X-Request-Id, traceparent, tracestate, baggage";
        let is_options = request.method == Method::Options;
        let vary = match (self, is_options) {
            (Self::Any, false) => "",
            (Self::Any, true) => "Access-Control-Request-Method, Access-Control-Request-Headers",
            (Self::Listed(_), false) => "Origin",
            (Self::Listed(_), true) => {
                "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
            }
        };
        if !vary.is_empty() {
            response = response.with("Vary", vary);
        }
        let Some(origin) = request.single("Origin") else {
            return response;
        };
        response = match self {
            Self::Any => response.with("Access-Control-Allow-Origin", "*"),
            Self::Listed(origins) if origins.iter().any(|listed| listed == origin) => response
                .with("Access-Control-Allow-Origin", origin.to_owned())
                .with("Access-Control-Allow-Credentials", "true"),
            Self::Listed(_) => return response,
        };
        response = response.with("Access-Control-Expose-Headers", EXPOSED);
        let allow = response.fields.iter().find(|field| field.0 == "Allow");
        let is_preflight = is_options && request.single("Access-Control-Request-Method").is_some();
        match allow.map(|field| field.1.clone()) {
            Some(allow) if is_preflight && response.status == 204 => response
                .with("Access-Control-Allow-Methods", allow)
                .with("Access-Control-Allow-Headers", REQUEST_FIELDS)
                .with("Access-Control-Max-Age", "7200"),
            _ => response,
        }
    }
}

/// RFC 9110 section 15 (431: RFC 6585).
fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}
