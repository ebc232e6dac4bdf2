//! What `ADMIN_ADDR` shows: metrics and probes. It is for the operator's machines, so there is no
//! token; nothing here names a user or a task. Requests come through a gate of their own.

use super::request::Request;
use super::response::Response;
use super::{App, Trace};
use crate::error::Error;
use crate::metrics::{self, gauge};
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
        _ if !app.store.is_reachable() => probe(503, "database out of reach"),
        _ => probe(200, "ready"),
    }
}

fn probe<'a>(status: u16, text: &str) -> Result<Response<'a>, Error> {
    Response::json(status, &json!({"status": text}))
}

fn text(app: &App) -> String {
    let mut out = metrics::text();
    let number = |count: usize| u32::try_from(count).map_or(f64::INFINITY, f64::from);
    let (idle, busy, max) = app.connections.counts();
    let name = "tinytasks_gate_connections";
    let states = [("state=\"idle\"", number(idle)), ("state=\"busy\"", number(busy))];
    gauge(&mut out, name, "Connections of clients.", &states);
    let name = "tinytasks_gate_connections_max";
    gauge(&mut out, name, "At so many the one idle longest makes room.", &[("", number(max))]);
    let (idle, busy, max) = app.store.connections();
    let name = "tinytasks_db_pool_connections";
    let states = [("state=\"idle\"", f64::from(idle)), ("state=\"busy\"", f64::from(busy))];
    gauge(&mut out, name, "Connections of the pool to PostgreSQL.", &states);
    let name = "tinytasks_db_pool_connections_max";
    gauge(&mut out, name, "DATABASE_POOL_SIZE.", &[("", f64::from(max))]);
    let is_up = f64::from(u8::from(app.store.is_reachable()));
    gauge(&mut out, "tinytasks_database_up", "Whether PostgreSQL has answered lately.", &[("", is_up)]);
    let version = concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"");
    gauge(&mut out, "tinytasks_build_info", "Always 1.", &[(version, 1.0)]);
    let started = app.started.as_millisecond() as f64 / 1000.0;
    gauge(&mut out, "process_start_time_seconds", "Since 1970.", &[("", started)]);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    let bytes = resident.map(|kibibytes| ("", kibibytes * 1024.0));
    gauge(&mut out, "process_resident_memory_bytes", "Memory in RAM.", bytes.as_slice());
    out
}
