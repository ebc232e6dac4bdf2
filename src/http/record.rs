//! Collects what is logged about a request, and writes its log line and its metrics.

use super::rate_limit::Allowance;
use super::request::trace_id;
use super::{Answer, Face};
use crate::error::Error;
use crate::gate::Request;
use crate::metrics;
use log::{Level, kv::Value};
use std::time::Instant;

/// The facts about a request that become known while it is answered.
pub struct Trace {
    pub face: Face,
    pub started: Instant,
    /// The route's template. Empty until it is known.
    pub route: &'static str,
    pub allowance: Option<Allowance>,
    /// The origin of the web page that sent the request, if `CORS_ORIGINS` does not let it read the answer.
    pub refused_origin: Option<String>,
}

impl Trace {
    pub fn new(face: Face, started: Instant) -> Self {
        Self { face, started, route: "", allowance: None, refused_origin: None }
    }
}

impl Answer<'_> {
    /// Counts the answer in the metrics, and logs its line. The thread that sends the answer calls this once.
    pub fn record(&self, request: &Request) {
        let (status, trace, error) = (self.response.status, &self.trace, self.error.as_ref());
        let time = trace.started.elapsed();
        let is_public = trace.face == Face::Public;
        if is_public {
            metrics::answered((trace.route, request.method, status), time, error);
        }
        let level = match status {
            500.. => Level::Error,
            _ if is_public => Level::Info,
            // Probes and Prometheus send a request every few seconds.
            _ => Level::Debug,
        };
        let milliseconds = time.as_micros() as f64 / 1000.0;
        let client = request.client.as_ref().map_or(Value::from("unix"), Value::from_display);
        let mut pairs: Vec<(&str, Value)> = vec![
            ("request_id", self.request_id.as_str().into()),
            ("client", client),
            ("method", request.method.into()),
            ("route", trace.route.into()),
            ("status", status.into()),
            ("duration_ms", milliseconds.into()),
        ];
        if !request.user_id().is_empty() {
            pairs.push(("user_id", request.user_id().into()));
        }
        if let Some(trace_id) = trace_id(request) {
            pairs.push(("trace_id", trace_id.into()));
        }
        if let Some(origin) = &trace.refused_origin {
            pairs.push(("refused_origin", origin.as_str().into()));
        }
        let reason = error.map(Error::reason).unwrap_or_default();
        if let Some(error) = error {
            pairs.push(("error_code", error.entry().1.into()));
            pairs.push(("reason", reason.as_str().into()));
        }
        let mut record = log::Record::builder();
        let record = record.level(level).target("tinytasks::http").key_values(&pairs);
        log::logger().log(&record.args(format_args!("request")).build());
    }
}
