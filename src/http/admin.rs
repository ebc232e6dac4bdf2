//! The routes of `ADMIN_ADDR`: metrics and probes. Only the operator's machines should reach them, so they need
//! no token, and no answer names a user or a task. Their requests arrive through a separate gate.

use super::App;
use super::record::Trace;
use super::response::Response;
use crate::error::Error;
use crate::gate::Request;
use crate::metrics::{Scrape, client_connections};
use crate::store::Readiness;
use serde_json::json;
use std::fs;
use std::sync::atomic::Ordering::Relaxed;

/// Answers a request to `ADMIN_ADDR`. Errors: `NoSuchRoute`, `MethodNotAllowed`; `Bug` if the metrics cannot be
/// written.
pub fn answer<'a>(app: &App, request: &Request, trace: &mut Trace) -> Result<Response<'a>, Error> {
    let path = request.path();
    trace.route = ["/metrics", "/health/live", "/health/ready"]
        .into_iter()
        .find(|route| *route == path)
        .ok_or(Error::NoSuchRoute)?;
    if !["GET", "HEAD"].contains(&request.method) {
        return Err(Error::MethodNotAllowed("GET, HEAD".to_owned()));
    }
    match trace.route {
        "/metrics" => {
            Ok(Response::data(200, "text/plain; version=0.0.4; charset=utf-8", metrics(app)?.into_bytes()))
        }
        "/health/live" => probe(200, "live"),
        _ if app.is_stopping.load(Relaxed) => probe(503, "stopping"),
        _ => match app.store.pool.readiness() {
            Readiness::Ready => probe(200, "ready"),
            Readiness::Unreachable => probe(503, "database out of reach"),
            Readiness::NotReady => probe(503, "database not ready"),
        },
    }
}

fn probe<'a>(status: u16, text: &str) -> Result<Response<'a>, Error> {
    Response::json(status, &json!({"status": text}))
}

fn metrics(app: &App) -> Result<String, Error> {
    let mut scrape = Scrape::new()?;
    let [idle, busy, max] = client_connections();
    let states = [("idle", idle), ("busy", busy)];
    scrape.gauges("tinytasks_gate_connections", "Connections of clients.", "state", &states)?;
    scrape.gauge("tinytasks_gate_connections_max", "How many connections clients may have.", max)?;
    let [idle, busy, max] = app.store.pool.counts();
    let states = [("idle", idle), ("busy", busy)];
    scrape.gauges(
        "tinytasks_db_pool_connections",
        "Connections in the pool to PostgreSQL.",
        "state",
        &states,
    )?;
    scrape.gauge("tinytasks_db_pool_connections_max", "How many connections the pool may have.", max)?;
    let is_up = u8::from(app.store.pool.is_up()).into();
    scrape.gauge(
        "tinytasks_database_up",
        "1 if PostgreSQL answered when it was last asked, else 0.",
        is_up,
    )?;
    let version = [(env!("CARGO_PKG_VERSION"), 1.0)];
    scrape.gauges("tinytasks_build_info", "Always 1; the label is the version.", "version", &version)?;
    let started = app.started.as_millisecond() as f64 / 1000.0;
    scrape.gauge("process_start_time_seconds", "Start of the process, in seconds since 1970.", started)?;
    if let Some(expiry) = app.options.certificate.as_ref().and_then(|certificate| certificate.expiry()) {
        let help = "When the certificate of HTTPS expires, in seconds since 1970.";
        let expiry = expiry.as_second() as f64;
        scrape.gauge("tinytasks_tls_certificate_expiry_timestamp_seconds", help, expiry)?;
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
    let kibibytes: Option<f64> = resident.and_then(|number| number.parse().ok());
    if let Some(kibibytes) = kibibytes {
        scrape.gauge("process_resident_memory_bytes", "Resident memory.", kibibytes * 1024.0)?;
    }
    scrape.text()
}
