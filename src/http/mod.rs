//! Turns a whole request into its answer, as a value; knows no socket. Relies on the gate for a request's
//! size and form. Guarantees: every request gets exactly one answer, even if a handler panics.

mod routes; //       paths, methods and their handlers
mod checks; //       the checks in the contract's order: trusted core
mod request; //      a request's id, fields and path
mod tasks; //        the handlers of tasks
mod list;
mod list_parts;
mod bulk;
mod query; //        of lists and of changes of many tasks
mod cursor;
mod conditional;
mod info; //         the other handlers
mod docs;
mod admin;
mod response; //     the answer as a value, and as bytes
mod cors;
mod record; //       the line in the log
mod rate_limit;

pub use cors::Cors;
pub use list_parts::Part;
pub use rate_limit::RateLimiter;
pub use response::{Body, Response};

use crate::error::Error;
use crate::gate::{Certificate, Request};
use crate::keys::Keys;
use crate::limits::{LOGGED_ORIGIN_CHARS_MAX, SHORT_LIST_TURNS, TURN_WAIT, TURNS};
use crate::metrics;
use crate::semaphore::{Permit, Semaphore};
use crate::store::Store;
use crate::threads::guarded;
use jiff::Timestamp;
use record::Trace;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

/// Everything that the handlers share.
pub struct App {
    pub store: Store,
    options: Options,
    pub started: Timestamp,
    pub is_stopping: AtomicBool,
    pub keys: Keys,
    /// Limits how many large answers, and later parts of lists, are made at the same time.
    turns: Semaphore,
    /// The same for short lists, and for the first parts of long ones.
    short_list_turns: Semaphore,
}

/// The part of the configuration on which answers depend.
pub struct Options {
    pub cors: Cors,
    pub has_docs: bool,
    /// The certificate of HTTPS; None for plain HTTP.
    pub certificate: Option<Arc<Certificate>>,
    pub requires_if_match: bool,
    pub rate_limiter: Option<RateLimiter>,
}

/// Which routes a listener serves.
#[derive(Clone, Copy, PartialEq)]
pub enum Face {
    /// The routes of the contract.
    Public,
    /// The routes of `ADMIN_ADDR`: metrics and probes.
    Admin,
}

/// A response, together with what is logged about it.
pub struct Answer<'a> {
    pub response: Response<'a>,
    pub request_id: String,
    trace: Trace,
    error: Option<Error>,
}

impl App {
    pub fn new(store: Store, keys: Keys, options: Options) -> Self {
        Self {
            store,
            options,
            started: Timestamp::now(),
            is_stopping: AtomicBool::default(),
            keys,
            turns: Semaphore::new(TURNS),
            short_list_turns: Semaphore::new(SHORT_LIST_TURNS),
        }
    }

    /// Does what a request asks for, and returns the answer. A panic becomes an answer with status 500.
    pub fn answer<'a>(&'a self, face: Face, request: &Request) -> Answer<'a> {
        let mut trace = Trace::new(face, Instant::now());
        let outcome = guarded(|| match face {
            Face::Public => checks::answer(self, request, &mut trace),
            Face::Admin => admin::answer(self, request, &mut trace),
        });
        self.finish(request, trace, outcome.unwrap_or_else(|bug| Err(Error::Bug(bug))))
    }

    /// The answer to a request that is refused for a reason outside this module. `started` is the moment at which
    /// the request arrived.
    pub fn refuse(&self, face: Face, request: &Request, error: Error, started: Instant) -> Answer<'_> {
        let mut trace = Trace::new(face, started);
        if face == Face::Public {
            metrics::refused(&error);
            let segments = request::segments(request).unwrap_or_default();
            trace.route =
                routes::find(&segments, self.options.has_docs).map_or("", |path| path.route.template);
        }
        self.finish(request, trace, Err(error))
    }

    /// Waits for a turn to make a list, or a part of one. Turns limit how many lists are made at the same time,
    /// because `LargeAnswers` does not count a list while it is made. The turn is kept until it does. A thread
    /// with a turn waits only for the database and for that memory, so every turn is given back. Errors:
    /// `Unavailable` after [`TURN_WAIT`].
    fn take_turn(&self, is_short: bool) -> Result<Permit<'_>, Error> {
        let turns = if is_short { &self.short_list_turns } else { &self.turns };
        let turn = turns.acquire(TURN_WAIT);
        turn.ok_or_else(|| Error::Unavailable("too many lists are being made".to_owned()))
    }

    /// The error answer that replaces an answer which cannot be sent.
    pub fn replace(&self, request: &Request, answer: Answer, error: Error) -> Answer<'_> {
        self.finish(request, answer.trace, Err(error))
    }

    fn finish<'a>(
        &'a self,
        request: &Request,
        mut trace: Trace,
        outcome: Result<Response<'a>, Error>,
    ) -> Answer<'a> {
        let request_id = request::id(request).map_or_else(new_request_id, str::to_owned);
        let (mut response, error) = match outcome {
            Ok(response) => (response, None),
            Err(error) => (Response::problem(&error, &request_id), Some(error)),
        };
        if let Some(fields) = &trace.allowance {
            for (name, value) in fields.clone() {
                response = response.with(name, value);
            }
        }
        response = match trace.face {
            Face::Public => {
                let origin = request.single("Origin").filter(|origin| !self.options.cors.allows(origin));
                trace.refused_origin =
                    origin.map(|origin| origin.chars().take(LOGGED_ORIGIN_CHARS_MAX).collect());
                let response = response.complete(&request_id, self.options.certificate.is_some());
                self.options.cors.apply(response, request)
            }
            Face::Admin => response.complete(&request_id, false),
        };
        Answer { response, request_id, trace, error }
    }
}

/// A request id that is unique among all instances and restarts, as far as 64 random bits can ensure that. All
/// these ids have the same length, so answers to equal requests have the same length too.
fn new_request_id() -> String {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{:016x}-{:08x}", *PROCESS, COUNT.fetch_add(1, Ordering::Relaxed))
}
