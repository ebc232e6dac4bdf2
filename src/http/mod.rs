//! From a whole request to its answer, in a straight line: the checks in the contract's order.
//! Relies on the gate for a request's size and form. Guarantees: every request gets one
//! answer and one log line, whatever happens.

mod admin;
mod conditional;
mod docs;
mod limit;
mod request;
mod response;
mod room;
mod routes;

pub use limit::Limiter;
pub use response::Cors;

use crate::auth;
use crate::error::Error;
use crate::gate::{Answer, Behind, Registry, Request};
use crate::keys::Keys;
use crate::metrics;
use crate::panic::guarded;
use crate::store::Store;
use jiff::Timestamp;
use limit::Allowance;
use log::{Level, kv::Value};
use response::Response;
use room::Rooms;
use routes::Route;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

/// All that handlers share.
pub struct App {
    pub store: Store,
    options: Options,
    /// Those of the gate, for the metrics.
    pub connections: Arc<Registry>,
    pub started: Timestamp,
    pub is_stopping: AtomicBool,
    pub keys: Keys,
    rooms: Rooms,
}

/// What the configuration says of answers.
pub struct Options {
    pub cors: Cors,
    pub has_docs: bool,
    pub is_https: bool,
    pub requires_if_match: bool,
    pub limiter: Option<Limiter>,
}

impl App {
    pub fn new(store: Store, keys: Keys, options: Options, connections: Arc<Registry>) -> Self {
        Self {
            store,
            options,
            connections,
            started: Timestamp::now(),
            is_stopping: AtomicBool::default(),
            keys,
            rooms: Rooms::new(),
        }
    }
}

/// What the log says of a request beyond its answer.
struct Trace {
    started: Instant,
    is_admin: bool,
    route: &'static str,
    /// Empty until it is known.
    user_id: String,
    allowance: Option<Allowance>,
}

/// What stands behind a gate: that for clients, or that of `ADMIN_ADDR`.
pub struct Service {
    pub app: Arc<App>,
    pub is_admin: bool,
}

impl Behind for Service {
    fn answer<'a>(&'a self, request: &'a Request, received: Result<(), Error>) -> Answer<'a> {
        let (app, is_admin) = (&*self.app, self.is_admin);
        let mut trace =
            Trace { started: Instant::now(), is_admin, route: "", user_id: String::new(), allowance: None };
        if let (Err(error), false) = (&received, is_admin) {
            metrics::refused(error);
            let path = request.path().ok().filter(|path| !path.is_empty());
            let route = path.as_deref().and_then(|path| Route::find(path, app.options.has_docs));
            trace.route = route.map_or("", |route| route.template());
        }
        let answer = guarded(|| received.and_then(|()| answer(app, request, &mut trace)), Error::Bug);
        let room = |response: &Response| app.rooms.take(response.bytes_held(), &trace.user_id);
        let answer = answer.and_then(|response| Ok((room(&response)?, response)));
        let request_id = request.id().map_or_else(new_request_id, str::to_owned);
        let (response, room, error) = match answer {
            Ok((room, response)) => (response, Some(room), None),
            Err(error) => (Response::problem(&error, &request_id), None, Some(error)),
        };
        let allowance = trace.allowance.take().into_iter().flatten();
        let response = allowance.fold(response, |response, (name, value)| response.with(name, value));
        let is_https = app.options.is_https && !is_admin;
        let response = response.complete(&request_id, is_https);
        let response = if is_admin { response } else { app.options.cors.apply(response, request) };
        Box::new(move |client| {
            record(request, &request_id, response.status, &trace, error.as_ref());
            let _room = room.inspect(|room| room.is_read_by(&client.connection));
            let written =
                guarded(|| response.write(app, &trace.user_id, request, client), |bug| Some(Error::Bug(bug)));
            written.map_err(|error| {
                // Without an error, the client is gone.
                if let Some(reason) = error.as_ref().map(Error::reason) {
                    let id = request_id.as_str();
                    log::error!(request_id = id, reason = reason.as_str(); "answer not completed");
                }
            })
        })
    }
}

fn answer<'a>(app: &'a App, request: &Request, trace: &mut Trace) -> Result<Response<'a>, Error> {
    if trace.is_admin {
        return admin::answer(app, request, trace);
    }
    let path = request.path()?;
    let route = Route::find(&path, app.options.has_docs).ok_or(Error::NoSuchRoute)?;
    trace.route = route.template();
    route.check_method(request.method)?;
    let authorize = |user, trace: &mut Trace| {
        let authorization: Vec<&str> = request.values("Authorization").collect();
        let caller = auth::authorize(&app.keys, &authorization, user)?;
        caller.user_id().clone_into(&mut trace.user_id);
        if let Some(limiter) = &app.options.limiter {
            let (allowance, outcome) = limiter.take(caller.user_id());
            trace.allowance = Some(allowance);
            outcome?;
        }
        request.check_fields().map(|()| caller)
    };
    match route {
        _ if request.method == "OPTIONS" => request.check_fields().map(|()| route.options()),
        Route::Tasks { user } if request.method == "POST" => {
            routes::create(app, &authorize(user, trace)?, request)
        }
        Route::Tasks { user } => routes::list(app, authorize(user, trace)?, request),
        Route::Task { user, id } => routes::task(app, &authorize(user, trace)?, request, id),
        // What needs no token.
        Route::Root => request.check_fields().and(routes::root()),
        Route::Health => request.check_fields().and(routes::health(app)),
        Route::Docs => request.check_fields().and(Ok(docs::page())),
        Route::DocsAsset(name) => request.check_fields().and(docs::asset(name).ok_or(Error::NoSuchRoute)),
        Route::OpenApi => request.check_fields().and(Ok(docs::openapi())),
    }
}

/// Unique among all instances and restarts, as far as 64 random bits go. Of one length, so that
/// answers differ in nothing else.
fn new_request_id() -> String {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{:016x}-{:08x}", *PROCESS, COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Counts a request, and logs it.
fn record(request: &Request, id: &str, status: u16, trace: &Trace, error: Option<&Error>) {
    let time = trace.started.elapsed();
    if !trace.is_admin {
        metrics::answered((trace.route, request.method, status), time, error);
    }
    let level = match trace.is_admin {
        _ if status >= 500 => Level::Error,
        // Probes come every few seconds, for ever.
        true => Level::Debug,
        false => Level::Info,
    };
    let milliseconds = time.as_micros() as f64 / 1000.0;
    let client = request.client.as_ref().map_or(Value::from("unix"), Value::from_display);
    let mut pairs: Vec<(&str, Value)> = vec![
        ("request_id", id.into()),
        ("client", client),
        ("method", request.method.into()),
        ("route", trace.route.into()),
        ("status", status.into()),
        ("duration_ms", milliseconds.into()),
    ];
    if !trace.user_id.is_empty() {
        pairs.push(("user_id", trace.user_id.as_str().into()));
    }
    if let Some(trace_id) = request.trace_id() {
        pairs.push(("trace_id", trace_id.into()));
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
