//! Tells browsers which origins may read answers (the CORS protocol of the Fetch standard).

use super::response::Response;
use crate::gate::Request;

/// The setting `CORS_ORIGINS`.
pub enum Cors {
    /// Every origin, without credentials.
    Any,
    /// These origins, as browsers write them, with credentials.
    Listed(Vec<String>),
}

/// The fields of an answer that a page may read.
const EXPOSED_FIELDS: &str = "ETag, Link, Location, Content-Location, Retry-After, WWW-Authenticate, \
    X-Request-Id, Idempotent-Replayed";
/// The fields that a page may send.
const REQUEST_FIELDS: &str = "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, \
    X-Request-Id, X-Requested-With, traceparent, tracestate, baggage, sentry-trace";
/// How long a browser may keep the answer to a preflight. Chromium keeps it for two hours at most.
const PREFLIGHT_SECONDS: &str = "7200";

impl Cors {
    pub fn new(origins: Vec<String>) -> Self {
        if origins.iter().any(|origin| origin == "*") { Self::Any } else { Self::Listed(origins) }
    }

    /// Adds the fields that the answer to this request needs.
    pub fn apply<'a>(&self, response: Response<'a>, request: &Request) -> Response<'a> {
        let is_options = request.method == "OPTIONS";
        let response = match (response.field("Vary"), self.vary(is_options)) {
            (_, "") => response,
            (None, vary) => response.with("Vary", vary),
            (Some(own), vary) => {
                let both = format!("{own}, {vary}");
                response.with("Vary", both)
            }
        };
        let Some(origin) = request.single("Origin").filter(|origin| self.allows(origin)) else {
            return response;
        };
        let response = match self {
            Self::Any => response.with("Access-Control-Allow-Origin", "*"),
            Self::Listed(_) => response
                .with("Access-Control-Allow-Origin", origin.to_owned())
                .with("Access-Control-Allow-Credentials", "true"),
        };
        let response = response.with("Access-Control-Expose-Headers", EXPOSED_FIELDS);
        let is_preflight = is_options && request.single("Access-Control-Request-Method").is_some();
        match response.field("Allow").map(str::to_owned) {
            Some(methods) if is_preflight => response
                .with("Access-Control-Allow-Methods", methods)
                .with("Access-Control-Allow-Headers", REQUEST_FIELDS)
                .with("Access-Control-Max-Age", PREFLIGHT_SECONDS),
            _ => response,
        }
    }

    /// Whether pages of this origin may read answers.
    pub fn allows(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(origins) => origins.iter().any(|listed| listed == origin),
        }
    }

    /// The fields of a request on which the CORS fields of its answer depend (the value of `Vary`).
    fn vary(&self, is_options: bool) -> &'static str {
        match (self, is_options) {
            (Self::Any, false) => "",
            (Self::Listed(_), false) => "Origin",
            (Self::Any, true) => "Access-Control-Request-Method, Access-Control-Request-Headers",
            (Self::Listed(_), true) => {
                "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
            }
        }
    }
}
