//! From a whole request to its answer, in a straight line: the checks in the contract's order.
//! Relies on what made the [`Request`] for its size and form. Guarantees: every request gets one
//! answer and one log line, whatever happens.

mod conditional;
mod docs;
mod request;
mod response;
mod routes;
mod server;

pub use response::Cors;
pub use server::{Loop, WORKERS};

use crate::auth::{self, Keys};
use crate::error::Error;
use crate::gate::Head;
use crate::store::Store;
use log::{Level, kv::Value};
use request::Request;
use response::Response;
use routes::Route;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Instant;

/// All that handlers share.
pub struct App {
    pub store: Store,
    pub cors: Cors,
    pub has_docs: bool,
    pub is_https: bool,
    keys: Mutex<Arc<Keys>>,
    /// One permit for each list that may be streamed at once.
    streams: Arc<()>,
}

/// A streamed list holds a worker for as long as its client reads. The others stay free.
const STREAMS_MAX: usize = WORKERS / 4;

impl App {
    pub fn new(store: Store, keys: Keys, cors: Cors, has_docs: bool, is_https: bool) -> Self {
        Self { store, cors, has_docs, is_https, keys: Mutex::new(Arc::new(keys)), streams: Arc::default() }
    }

    /// Requests from now on are judged by these keys.
    pub fn set_keys(&self, keys: Keys) {
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }

    /// Held while a list is streamed. Errors: `Unavailable`.
    fn permit(&self) -> Result<Arc<()>, Error> {
        let permit = Arc::clone(&self.streams);
        // Beside the permits there is the original.
        let is_free = Arc::strong_count(&permit) - 1 <= STREAMS_MAX;
        is_free
            .then_some(permit)
            .ok_or_else(|| Error::Unavailable("too many lists are being read".to_owned()))
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the log says of a request beyond its answer.
struct Trace {
    started: Instant,
    route: &'static str,
    user_id: Option<String>,
}

/// The answer to a request that the gate does not pass on.
pub fn refuse(app: &App, head: Head, error: Error) -> Vec<u8> {
    let (method, client) = (request::method(&head.method), head.client);
    let (target, body) = (String::new(), Vec::new());
    let request = Request { method, target, fields: head.fields, body, client, is_old: false };
    let mut answer = Vec::new();
    let keep = |part: Vec<u8>, _| {
        answer = part;
        Ok(())
    };
    // A problem document is one part, and keeping it cannot fail.
    let _ = respond(app, &request, Err(error), keep);
    answer
}

/// Answers a request. `received` is Err when it was refused before all of it was read. `write` gets
/// the parts of the answer, and whether more follow. Errors: the answer could not be completed, and
/// what was written of it must not look as if it were.
pub fn respond(
    app: &App,
    request: &Request,
    received: Result<(), Error>,
    write: impl FnMut(Vec<u8>, bool) -> io::Result<()>,
) -> Result<(), ()> {
    let mut trace = Trace { started: Instant::now(), route: "", user_id: None };
    let answer = guarded(|| received.and_then(|()| answer(app, request, &mut trace)));
    let request_id = request.id().map_or_else(new_request_id, str::to_owned);
    let (response, error) = match answer {
        Ok(response) => (response, None),
        Err(error) => (Response::problem(&error, &request_id), Some(error)),
    };
    log_request(request, &request_id, response.status, &trace, error.as_ref());
    let response = response.complete(app, request, &request_id);
    guarded(|| response.write(request, write)).map_err(|error| {
        let (id, reason) = (request_id.as_str(), error.reason());
        log::error!(request_id = id, reason = reason.as_str(); "answer not completed");
    })
}

/// The one place where a defect ends: this request is lost, the process is not.
fn guarded<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let panic = |_| Err(Error::Bug("BUG: panic, see the line before".to_owned()));
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(panic)
}

fn answer<'a>(app: &'a App, request: &Request, trace: &mut Trace) -> Result<Response<'a>, Error> {
    let path = request.path()?;
    let route = Route::find(&path, app.has_docs).ok_or(Error::NoSuchRoute)?;
    trace.route = route.template();
    route.check_method(request.method)?;
    let authorize = |user, trace: &mut Trace| {
        let authorization: Vec<&str> = request.values("Authorization").collect();
        let caller = auth::authorize(&app.keys(), &authorization, user)?;
        trace.user_id = Some(caller.user_id().to_owned());
        request.check_fields().map(|()| caller)
    };
    match route {
        _ if request.method == "OPTIONS" => request.check_fields().map(|()| route.options()),
        Route::Tasks { user } if request.method == "POST" => {
            routes::create(app, &authorize(user, trace)?, request)
        }
        Route::Tasks { user } => routes::list(app, authorize(user, trace)?, request),
        Route::Task { user, id } => routes::task(app, &authorize(user, trace)?, request, id),
        _ => request.check_fields().and_then(|()| public(app, &route)),
    }
}

/// What needs no token.
fn public<'a>(app: &App, route: &Route) -> Result<Response<'a>, Error> {
    match route {
        Route::Root => routes::root(),
        Route::Health => routes::health(app),
        Route::Docs => Ok(docs::page()),
        Route::OpenApi => Ok(docs::openapi()),
        Route::DocsAsset(name) => docs::asset(name).ok_or(Error::NoSuchRoute),
        Route::Tasks { .. } | Route::Task { .. } => Err(Error::NoSuchRoute),
    }
}

/// Unique among all instances and restarts, as far as 64 random bits go. Of one length, so that
/// answers differ in nothing else.
fn new_request_id() -> String {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{:016x}-{:08x}", *PROCESS, COUNT.fetch_add(1, Ordering::Relaxed))
}

fn log_request(request: &Request, id: &str, status: u16, trace: &Trace, error: Option<&Error>) {
    let level = if status >= 500 { Level::Error } else { Level::Info };
    let milliseconds = trace.started.elapsed().as_micros() as f64 / 1000.0;
    let mut pairs: Vec<(&str, Value)> = vec![
        ("request_id", id.into()),
        ("client", request.client.as_str().into()),
        ("method", request.method.into()),
        ("route", trace.route.into()),
        ("status", status.into()),
        ("duration_ms", milliseconds.into()),
    ];
    if let Some(user_id) = &trace.user_id {
        pairs.push(("user_id", user_id.as_str().into()));
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
