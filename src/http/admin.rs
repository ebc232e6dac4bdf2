//! What `ADMIN_ADDR` shows: metrics and probes. It is for the operator's machines, so there is no
//! token; nothing here names a user or a task. Requests come through a gate of their own.

use super::response::Response;
use super::{App, Trace};
use crate::error::Error;
use crate::gate::Request;
use crate::metrics::{self, gauge};
use crate::store::Readiness;
use serde_json::json;
use std::fs;
use std::sync::atomic::Ordering::Relaxed;

pub fn answer<'a>(app: &App, request: &Request, trace: &mut Trace) -> Result<Response<'a>, Error> {
    let path = request.target.split('?').next().unwrap_or_default();
    trace.route = ["/metrics", "/health/live", "/health/ready"]
        .into_iter()
        .find(|route| *route == path)
        .ok_or(Error::NoSuchRoute)?;
    if !["GET", "HEAD"].contains(&request.method) {
        return Err(Error::MethodNotAllowed("GET, HEAD"));
    }
    match trace.route {
        "/metrics" => {
            Ok(Response::data(200, "text/plain; version=0.0.4; charset=utf-8", text(app).into_bytes()))
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

fn text(app: &App) -> String {
    let mut out = metrics::text();
    let mut add = |name: &str, help: &str, values: &[(&str, f64)]| gauge(&mut out, name, help, values);
    let states = |idle, busy| [("state=\"idle\"", idle), ("state=\"busy\"", busy)];
    let [idle, busy, max] = app.connections.counts();
    add("tinytasks_gate_connections", "Connections of clients.", &states(idle, busy));
    add("tinytasks_gate_connections_max", "At so many, the idle make room.", &[("", max)]);
    let [idle, busy, max] = app.store.pool.counts();
    add("tinytasks_db_pool_connections", "Connections to PostgreSQL.", &states(idle, busy));
    add("tinytasks_db_pool_connections_max", "DATABASE_POOL_SIZE.", &[("", max)]);
    let given_up = app.store.pool.given_up() as f64;
    add("tinytasks_db_connections_given_up", "So far, as PostgreSQL fell silent on them.", &[("", given_up)]);
    let is_up = u8::from(app.store.pool.is_up()).into();
    add("tinytasks_database_up", "Whether PostgreSQL has answered lately.", &[("", is_up)]);
    let version = concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"");
    add("tinytasks_build_info", "Always 1.", &[(version, 1.0)]);
    let started = app.started.as_millisecond() as f64 / 1000.0;
    add("process_start_time_seconds", "Since 1970.", &[("", started)]);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
    let kibibytes: Option<f64> = resident.and_then(|number| number.parse().ok());
    let bytes = kibibytes.map(|number| ("", number * 1024.0));
    add("process_resident_memory_bytes", "In RAM.", bytes.as_slice());
    out
}
