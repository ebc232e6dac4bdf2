//! What the service counts, and its text for Prometheus (exposition format 0.0.4). Guarantees: the
//! value of every label is a text of this program, so nothing that a client sends adds a series.

use crate::error::Error;
use crate::panic::lock;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What the reason of a refused token has in it, and a word for that. The first that fits counts.
const TOKEN_REASONS: [(&str, &str); 9] = [
    ("expired", "expired"),
    ("verif", "signature"),
    ("nbf", "not_yet_valid"),
    ("issuer", "issuer"),
    ("audience", "audience"),
    ("lgorithm", "algorithm"),
    (" kid", "unknown_key"),
    ("no exp", "claims"),
    ("user", "claims"),
];
/// In seconds: those of OpenTelemetry's conventions, and two below.
const BOUNDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

static REQUESTS: Mutex<BTreeMap<(&str, &str, u16), Histogram>> = Mutex::new(BTreeMap::new());
/// Each wait for a connection of the pool.
pub static POOL_WAIT: Histogram = Histogram::new();
#[rustfmt::skip]
static REFUSALS: Counters<6> = Counters::new([
    "VALIDATION_ERROR", "REQUEST_TIMEOUT", "PAYLOAD_TOO_LARGE", "URI_TOO_LONG", "HEADERS_TOO_LARGE",
    "SERVICE_UNAVAILABLE",
]);
#[rustfmt::skip]
static AUTH_FAILURES: Counters<11> = Counters::new([
    "missing", "forbidden", "expired", "signature", "not_yet_valid", "issuer", "audience", "algorithm",
    "unknown_key", "claims", "malformed",
]);

/// What the gate answers by itself.
pub fn refused(error: &Error) {
    REFUSALS.add(error.entry().1);
}

/// An answer of the public listener, by route, method and status.
pub fn answered(series: (&'static str, &'static str, u16), time: Duration, error: Option<&Error>) {
    lock(&REQUESTS).entry(series).or_insert_with(Histogram::new).observe(time);
    match error {
        Some(Error::TokenMissing) => AUTH_FAILURES.add("missing"),
        Some(Error::Forbidden(_)) => AUTH_FAILURES.add("forbidden"),
        Some(Error::TokenInvalid(reason)) => {
            let known = TOKEN_REASONS.iter().find(|(sign, _)| reason.contains(sign));
            AUTH_FAILURES.add(known.map_or("malformed", |(_, word)| word));
        }
        _ => {}
    }
}

/// All that is counted here. What is measured at the moment is added by [`gauge`].
pub fn text() -> String {
    let mut out = String::with_capacity(64 * 1024);
    let name = "http_server_request_duration_seconds";
    describe(&mut out, name, "histogram", "From a thread's taking up a request to its answer.");
    for ((route, method, status), series) in lock(&REQUESTS).iter() {
        let labels = format!(
            r#"http_request_method="{method}",http_route="{route}",http_response_status_code="{status}""#
        );
        series.write(&mut out, name, &labels);
    }
    let name = "tinytasks_db_pool_wait_seconds";
    describe(&mut out, name, "histogram", "Waiting for a database connection.");
    POOL_WAIT.write(&mut out, name, "");
    let name = "tinytasks_gate_refusals_total";
    describe(&mut out, name, "counter", "Requests that the gate answered by itself, by error_code.");
    REFUSALS.write(&mut out, name);
    let name = "tinytasks_auth_failures_total";
    describe(&mut out, name, "counter", "Requests without a good token for their path (401, 403).");
    AUTH_FAILURES.write(&mut out, name);
    out
}

static CLIENT_CONNECTIONS: Mutex<[usize; 3]> = Mutex::new([0; 3]);

/// Takes over how many connections of clients are idle and busy, and how many there may be.
pub fn set_client_connections(idle: usize, busy: usize, max: usize) {
    *lock(&CLIENT_CONNECTIONS) = [idle, busy, max];
}

/// Idle, busy, and at most.
pub fn client_connections() -> [f64; 3] {
    lock(&CLIENT_CONNECTIONS).map(|count| count as f64)
}

/// Adds what is measured at the moment, with the labels of each value.
pub fn gauge(out: &mut String, name: &str, help: &str, values: &[(&str, f64)]) {
    describe(out, name, "gauge", help);
    for (labels, value) in values {
        sample(out, name, labels, *value);
    }
}

fn describe(out: &mut String, name: &str, kind: &str, help: &str) {
    out.extend(["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n"]);
}

fn sample(out: &mut String, name: &str, labels: &str, value: impl ToString) {
    let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
    out.extend([name, open, labels, close, " ", &value.to_string(), "\n"]);
}

fn index<T: PartialEq>(list: &[T], value: &T) -> usize {
    list.iter().position(|known| known == value).unwrap_or(list.len() - 1)
}

struct Counters<const N: usize> {
    reasons: [&'static str; N],
    counts: [AtomicU64; N],
}

impl<const N: usize> Counters<N> {
    const fn new(reasons: [&'static str; N]) -> Self {
        Self { reasons, counts: [const { AtomicU64::new(0) }; N] }
    }

    fn add(&self, reason: &str) {
        let count = self.counts.get(index(&self.reasons, &reason));
        count.into_iter().for_each(|count| _ = count.fetch_add(1, Relaxed));
    }

    fn write(&self, out: &mut String, name: &str) {
        for (reason, count) in self.reasons.iter().zip(&self.counts) {
            sample(out, name, &format!("reason=\"{reason}\""), count.load(Relaxed));
        }
    }
}

pub struct Histogram {
    /// By [`BOUNDS`]; the last has none.
    counts: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

impl Histogram {
    const fn new() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; BOUNDS.len() + 1], nanos: AtomicU64::new(0) }
    }

    pub fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let count = self.counts.get(BOUNDS.partition_point(|bound| *bound < seconds));
        count.into_iter().for_each(|count| _ = count.fetch_add(1, Relaxed));
        self.nanos.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    fn write(&self, out: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut total = 0;
        let bounds = BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(&self.counts) {
            total += count.load(Relaxed);
            sample(out, &format!("{name}_bucket"), &format!("{labels}{comma}le=\"{bound}\""), total);
        }
        let sum = Duration::from_nanos(self.nanos.load(Relaxed)).as_secs_f64();
        sample(out, &format!("{name}_sum"), labels, sum);
        sample(out, &format!("{name}_count"), labels, total);
    }
}

#[cfg(test)]
mod tests {
    use super::{BOUNDS, Duration, Histogram, Relaxed, index};

    #[test]
    fn a_time_counts_where_it_fits_first() {
        let histogram = Histogram::new();
        for millis in [0, 1, 2, 10_000, 10_001] {
            histogram.observe(Duration::from_millis(millis));
        }
        let mut wanted = [0; BOUNDS.len() + 1];
        [wanted[0], wanted[1], wanted[15], wanted[16]] = [2, 1, 1, 1];
        assert_eq!(histogram.counts.map(|count| count.load(Relaxed)), wanted);
    }

    #[test]
    fn what_is_in_no_list_counts_as_its_last_entry() {
        assert_eq!([1, 2, 9].map(|value| index(&[1, 2, 3], &value)), [0, 1, 2]);
    }
}
