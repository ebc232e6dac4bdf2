//! Which origins may read answers (the CORS protocol of the Fetch standard).

use super::response::Response;
use crate::gate::Request;

pub enum Cors {
    /// Every origin, without credentials.
    Any,
    /// These origins, as browsers write them, with credentials.
    Listed(Vec<String>),
}

const EXPOSED_FIELDS: &str = "ETag, Link, Location, Content-Location, Retry-After, WWW-Authenticate, \
    X-Request-Id, Idempotent-Replayed";
const REQUEST_FIELDS: &str = "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, \
    X-Request-Id, X-Requested-With, traceparent, tracestate, baggage, sentry-trace";
/// In seconds. Chromium keeps a preflight no longer than two hours.
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
        let Some(origin) = request.single("Origin") else {
            return response;
        };
        let response = match self {
            _ if self.refused_origin(request).is_some() => return response,
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

    /// The origin of a request, where it has one that may not read the answer.
    pub fn refused_origin<'r>(&self, request: &'r Request) -> Option<&'r str> {
        let origin = request.single("Origin")?;
        match self {
            Self::Listed(origins) if !origins.iter().any(|listed| listed == origin) => Some(origin),
            _ => None,
        }
    }

    /// Which fields of a request change its answer.
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
