//! The service's counters, and their text for Prometheus (exposition format 0.0.4). Guarantees: every value of a
//! label is a fixed text of this program, so no client can add a time series.

use crate::error::Error;
use crate::limits::SERIES_PER_THREAD_MAX;
use crate::refusal::TokenRefusal;
use crate::threads::lock;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, TextEncoder,
};
use std::cell::RefCell;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

/// The upper bounds of the histograms' buckets, in seconds: those of OpenTelemetry's semantic conventions for
/// HTTP, and two smaller ones.
const BUCKETS_SECONDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const REQUEST_LABELS: [&str; 3] = ["http_request_method", "http_route", "http_response_status_code"];
/// The `error_code`s of requests that the gate refuses, or whose handler is late.
#[rustfmt::skip]
const REFUSAL_CODES: [&str; 6] = [
    "VALIDATION_ERROR", "REQUEST_TIMEOUT", "PAYLOAD_TOO_LARGE", "URI_TOO_LONG", "HEADERS_TOO_LARGE",
    "SERVICE_UNAVAILABLE",
];

/// Route, method and status of an answer. Routes and methods are fixed texts of this program.
pub type Series = (&'static str, &'static str, u16);

/// All counters. An error would be a defect: a name that Prometheus does not allow.
static METRICS: LazyLock<prometheus::Result<Metrics>> = LazyLock::new(Metrics::new);

thread_local! {
    /// The histograms that this thread has used. To find one here takes no lock, but to find it in the vector of
    /// all histograms takes a lock that all threads share.
    static HISTOGRAMS: RefCell<Vec<(Series, Histogram)>> = const { RefCell::new(Vec::new()) };
}

struct Metrics {
    /// All the counters below are registered here.
    registry: Registry,
    requests: HistogramVec,
    pool_wait: Histogram,
    gate_refusals: Reasons,
    auth_failures: Reasons,
    log_lines_dropped: IntCounter,
    connections_given_up: IntCounter,
}

impl Metrics {
    fn new() -> prometheus::Result<Self> {
        let histogram = |name, help| HistogramOpts::new(name, help).buckets(BUCKETS_SECONDS.to_vec());
        let metrics = Self {
            registry: Registry::new(),
            requests: HistogramVec::new(
                histogram("http_server_request_duration_seconds", "Time from a whole request to its answer."),
                &REQUEST_LABELS,
            )?,
            pool_wait: Histogram::with_opts(histogram(
                "tinytasks_db_pool_wait_seconds",
                "Time that requests waited for a connection to PostgreSQL.",
            ))?,
            gate_refusals: Reasons::new(
                "tinytasks_gate_refusals_total",
                "Requests that were malformed, too large, too slow or too many, or whose handler was late.",
                &REFUSAL_CODES,
            )?,
            auth_failures: Reasons::new(
                "tinytasks_auth_failures_total",
                "Requests that were refused because of their token (401, 403).",
                &[&["missing", "forbidden"], TokenRefusal::LABELS.as_slice()].concat(),
            )?,
            log_lines_dropped: IntCounter::new(
                "tinytasks_log_lines_dropped_total",
                "Log lines that were dropped because standard error was too slow.",
            )?,
            connections_given_up: IntCounter::new(
                "tinytasks_db_connections_given_up_total",
                "Connections to PostgreSQL that were closed because it did not answer in time.",
            )?,
        };
        metrics.registry.register(Box::new(metrics.requests.clone()))?;
        metrics.registry.register(Box::new(metrics.pool_wait.clone()))?;
        metrics.registry.register(Box::new(metrics.gate_refusals.all.clone()))?;
        metrics.registry.register(Box::new(metrics.auth_failures.all.clone()))?;
        metrics.registry.register(Box::new(metrics.log_lines_dropped.clone()))?;
        metrics.registry.register(Box::new(metrics.connections_given_up.clone()))?;
        Ok(metrics)
    }
}

/// Counters by reason. All reasons exist from the start, so that a reason which has not occurred is shown with 0.
struct Reasons {
    all: IntCounterVec,
    counters: Vec<(&'static str, IntCounter)>,
}

impl Reasons {
    fn new(name: &str, help: &str, reasons: &[&'static str]) -> prometheus::Result<Self> {
        let all = IntCounterVec::new(Opts::new(name, help), &["reason"])?;
        let counter = |reason| Ok((reason, all.get_metric_with_label_values(&[reason])?));
        let counters = reasons.iter().copied().map(counter).collect::<prometheus::Result<_>>()?;
        Ok(Self { all, counters })
    }

    fn add(&self, reason: &str) {
        if let Some((_, counter)) = self.counters.iter().find(|(known, _)| *known == reason) {
            counter.inc();
        }
    }
}

/// Counts a request that the gate refuses, or whose handler is late.
pub fn refused(error: &Error) {
    if let Ok(metrics) = &*METRICS {
        metrics.gate_refusals.add(error.entry().1);
    }
}

/// Counts an answer of the public listener.
pub fn answered(series: Series, time: Duration, error: Option<&Error>) {
    let Ok(metrics) = &*METRICS else {
        return;
    };
    metrics.observe_request(series, time.as_secs_f64());
    match error {
        Some(Error::TokenMissing) => metrics.auth_failures.add("missing"),
        Some(Error::Forbidden(_)) => metrics.auth_failures.add("forbidden"),
        Some(Error::TokenInvalid(refusal)) => metrics.auth_failures.add(refusal.label()),
        _ => {}
    }
}

static CLIENT_CONNECTIONS: Mutex<[usize; 3]> = Mutex::new([0; 3]);

/// Sets the numbers of idle and of busy connections of clients, and the largest number that there may be.
pub fn set_client_connections(idle: usize, busy: usize, max: usize) {
    *lock(&CLIENT_CONNECTIONS) = [idle, busy, max];
}

/// The values of [`set_client_connections`]: idle, busy, and the largest number.
pub fn client_connections() -> [f64; 3] {
    lock(&CLIENT_CONNECTIONS).map(|count| count as f64)
}

/// Counts a wait for a connection of the pool.
pub fn waited_for_connection(time: Duration) {
    if let Ok(metrics) = &*METRICS {
        metrics.pool_wait.observe(time.as_secs_f64());
    }
}

/// Counts a connection that is given up because PostgreSQL did not answer on it in time.
pub fn connection_given_up() {
    if let Ok(metrics) = &*METRICS {
        metrics.connections_given_up.inc();
    }
}

/// Counts log lines that were dropped.
pub fn log_lines_dropped(count: u64) {
    if let Ok(metrics) = &*METRICS {
        metrics.log_lines_dropped.inc_by(count);
    }
}

impl Metrics {
    fn observe_request(&self, series: Series, seconds: f64) {
        HISTOGRAMS.with_borrow_mut(|known| {
            if let Some((_, histogram)) = known.iter().find(|(known, _)| *known == series) {
                return histogram.observe(seconds);
            }
            let (route, method, status) = series;
            let labels = [method, route, &status.to_string()];
            let Ok(histogram) = self.requests.get_metric_with_label_values(&labels) else {
                return;
            };
            histogram.observe(seconds);
            if known.len() < SERIES_PER_THREAD_MAX {
                known.push((series, histogram));
            }
        });
    }
}

/// The answer to one scrape: the counters, to which values measured at this moment are added.
pub struct Scrape(Vec<MetricFamily>);

impl Scrape {
    /// Begins with all counters. Errors: `Bug` if the name of a metric is not allowed.
    pub fn new() -> Result<Self, Error> {
        METRICS.as_ref().map(|metrics| Self(metrics.registry.gather())).map_err(bug)
    }

    /// Adds a measured value. Errors: `Bug`, as above.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) -> Result<(), Error> {
        let gauge = prometheus::Gauge::new(name, help).map_err(|error| bug(&error))?;
        gauge.set(value);
        self.0.extend(gauge.collect());
        Ok(())
    }

    /// Adds a measured value for each value of a label. Errors: `Bug`, as above.
    pub fn gauges(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: &[(&str, f64)],
    ) -> Result<(), Error> {
        let gauges = GaugeVec::new(Opts::new(name, help), &[label]).map_err(|error| bug(&error))?;
        for (label, value) in values {
            gauges.get_metric_with_label_values(&[label]).map_err(|error| bug(&error))?.set(*value);
        }
        self.0.extend(gauges.collect());
        Ok(())
    }

    /// All values in Prometheus' text format. Errors: `Bug`, as above.
    pub fn text(&self) -> Result<String, Error> {
        TextEncoder::new().encode_to_string(&self.0).map_err(|error| bug(&error))
    }
}

fn bug(error: &prometheus::Error) -> Error {
    Error::Bug(format!("metrics: {error}"))
}
