//! The watching thread: applies the schema, fills the pool, and knows at every moment whether requests can be
//! served, so that `/health` neither needs nor waits for a connection. It has a connection of its own; if the
//! database allows no more, it uses connections of the pool. After a minute without requests and health checks
//! it rests: it asks the database nothing, so that a database that is suspended when idle can go to sleep.

use super::connect::{Session, connect, connect_meanwhile};
use super::connector::{Connector, Manager};
use super::readiness::{Examination, Finding, Harm, examine};
use super::schema;
use super::sqlstate::cause;
use crate::error::Error;
use crate::limits::{
    EXAMINE_INTERVAL, FIRST_ANSWER_MAX, FULL_RETRY_MAX, NOT_READY_RETRY, PING_MAX, READ_ONLY_RETRY,
    REST_AFTER, SCHEMA_MAX, STATEMENT_MAX, WATCH_CHECKOUT_MAX, WATCH_INTERVAL,
};
use crate::threads::{every, lock};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Whether requests can be served.
#[derive(PartialEq)]
pub enum Readiness {
    Ready,
    /// The database does not answer.
    Unreachable,
    /// The database answers, but it accepts no change, or its schema or the role's rights do not let the service's
    /// statements run.
    NotReady,
}

/// What the watching thread and the threads of requests share.
pub struct Watch {
    connector: Arc<Connector>,
    /// The pool. Empty until reads can be served for the first time.
    connections: OnceLock<r2d2::Pool<Manager>>,
    state: Mutex<State>,
    /// Signalled when the database has answered, and when a request or health check ends a rest.
    changed: Condvar,
}

struct State {
    /// The findings of the last examination.
    findings: Vec<Finding>,
    /// The time of the last request or health check.
    asked: Instant,
    /// Why the database cannot be reached or is not ready. Empty if all is well. It has been logged, except
    /// [`NO_DATABASE_YET`].
    trouble: String,
    /// Whether the watching thread uses connections of the pool. If so, this has been logged.
    uses_pool: bool,
}

impl State {
    fn is_resting(&self) -> bool {
        self.asked.elapsed() > REST_AFTER
    }
}

/// The trouble from the start until the database is ready for the first time.
const NO_DATABASE_YET: &str = "no database yet";

/// Starts the watching thread. Errors: the thread cannot be started.
pub fn start(watch: Arc<Watch>, auto_migrate: bool) -> Result<(), String> {
    let work = move || {
        if let Err(reason) = watch.keep_one_connection(auto_migrate) {
            watch.note_trouble("database out of reach", &reason);
        }
    };
    every(WATCH_INTERVAL, "watch", work).map_err(|error| format!("cannot start a thread: {error}"))
}

impl Watch {
    pub fn new(connector: Arc<Connector>) -> Self {
        let state = State {
            findings: Vec::new(),
            asked: Instant::now(),
            trouble: NO_DATABASE_YET.to_owned(),
            uses_pool: false,
        };
        let (connections, changed) = (OnceLock::new(), Condvar::new());
        Self { connector, connections, state: Mutex::new(state), changed }
    }

    /// The pool. None until reads can be served for the first time.
    pub fn connections(&self) -> Option<&r2d2::Pool<Manager>> {
        self.connections.get()
    }

    /// See [`Pool::readiness`](super::pool::Pool::readiness).
    pub fn readiness(&self) -> Readiness {
        let (mut state, was_resting) = self.note_question();
        let end = Instant::now() + FIRST_ANSWER_MAX;
        // After a rest the last answer is too old, so this waits for the next one.
        while was_resting && !self.connector.is_answering() && Instant::now() < end {
            let left = end.saturating_duration_since(Instant::now());
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        if !self.connector.is_answering() {
            Readiness::Unreachable
        } else if state.findings.is_empty() {
            Readiness::Ready
        } else {
            Readiness::NotReady
        }
    }

    /// Records a request, which ends a rest. Errors: `Unavailable` while row-level security hides rows from the
    /// service's role, because a list would lack tasks.
    pub fn note_request(&self) -> Result<(), Error> {
        let (state, _) = self.note_question();
        match state.findings.iter().find(|finding| finding.harm == Harm::HidesRows) {
            Some(finding) => Err(Error::Unavailable(finding.text.clone())),
            None => Ok(()),
        }
    }

    /// Records a request or health check. Returns the state, and whether this ended a rest.
    fn note_question(&self) -> (MutexGuard<'_, State>, bool) {
        let mut state = lock(&self.state);
        let was_resting = state.is_resting();
        state.asked = Instant::now();
        if was_resting {
            self.changed.notify_all();
        }
        (state, was_resting)
    }

    /// Records that the database has answered just now.
    pub fn note_answer(&self) {
        let is_after_silence = self.connector.note_answer();
        // While the database is answering, no thread waits for an answer, so most calls need not wake one.
        if is_after_silence {
            // A thread that has just found no answer holds the lock until it waits. Taking the lock ensures that
            // the signal does not come before that.
            drop(lock(&self.state));
            self.changed.notify_all();
        }
    }

    /// See [`Pool::is_up`](super::pool::Pool::is_up).
    pub fn is_up(&self) -> bool {
        let state = lock(&self.state);
        self.connector.is_answering() || state.is_resting() && state.trouble.is_empty()
    }

    /// Why the database cannot be reached or is not ready. None if all is well.
    pub fn trouble(&self) -> Option<String> {
        let trouble = lock(&self.state).trouble.clone();
        if trouble.is_empty() { None } else { Some(trouble) }
    }

    fn note_trouble(&self, what: &str, reason: &str) {
        let mut state = lock(&self.state);
        // The same trouble is logged only once.
        if state.trouble != reason {
            log::error!(reason = reason; "{what}");
            reason.clone_into(&mut state.trouble);
        }
    }

    /// Watches the database on one connection until a new connection should be made. Errors: why there is no
    /// connection, or why it has ended.
    fn keep_one_connection(self: &Arc<Self>, auto_migrate: bool) -> Result<(), String> {
        self.wait_while_resting();
        let mut session = match self.connect() {
            Ok(session) => session,
            Err(reason) => return self.borrow_connections(reason),
        };
        lock(&self.state).uses_pool = false;
        let (made, mut examined) = (Instant::now(), None);
        // While changes are refused, the connection is replaced every `READ_ONLY_RETRY`, because a new session may
        // reach the primary, or a changed default of the role.
        while !(self.refuses_changes() && made.elapsed() >= READ_ONLY_RETRY) {
            self.ask(&mut session, &mut examined, auto_migrate)?;
            thread::sleep(WATCH_INTERVAL);
            self.wait_while_resting();
        }
        Ok(())
    }

    /// Makes the watching thread's own connection. A pooler in session mode, or a firewall, may let it wait for an
    /// answer while the connections of the pool work, so the database is asked through the pool meanwhile. Errors:
    /// why there is no connection.
    fn connect(self: &Arc<Self>) -> Result<Session, String> {
        let url = self.connector.url();
        let Some(pool) = self.connections.get() else {
            return connect(&url, &[]);
        };
        let mut examined = None;
        connect_meanwhile(&url, WATCH_INTERVAL / 2, || {
            self.ask_through(pool, &mut examined);
        })
    }

    fn refuses_changes(&self) -> bool {
        lock(&self.state).findings.iter().any(|finding| finding.harm == Harm::RefusesChanges)
    }

    /// Watches the database through connections of the pool after no connection could be made because of `reason`.
    /// Returns when it is time to try again. Errors: `reason`, if no connection of the pool answers either.
    fn borrow_connections(self: &Arc<Self>, reason: String) -> Result<(), String> {
        let Some(pool) = self.connections.get() else {
            return Err(reason);
        };
        let began = Instant::now();
        let mut examined = None;
        while began.elapsed() < FULL_RETRY_MAX {
            if !self.ask_through(pool, &mut examined) {
                return Err(reason);
            }
            if !std::mem::replace(&mut lock(&self.state).uses_pool, true) {
                log::warn!(
                    reason = reason.as_str();
                    "the watching thread gets no connection of its own, and uses those of the pool"
                );
            }
            thread::sleep(WATCH_INTERVAL);
            self.wait_while_resting();
        }
        Ok(())
    }

    /// Asks the database on a connection of the pool. Returns whether it answers.
    fn ask_through(self: &Arc<Self>, pool: &r2d2::Pool<Manager>, examined: &mut Option<Instant>) -> bool {
        match pool.get_timeout(WATCH_CHECKOUT_MAX) {
            Ok(mut connection) => {
                let outcome = self.ask(&mut connection.session, examined, false);
                // For the same reason as in `keep_one_connection`, the pool then makes a new connection.
                connection.is_unusable |= self.refuses_changes() && connection.age() >= READ_ONLY_RETRY;
                outcome.is_ok()
            }
            // Requests use all connections. Their answers show whether the database is answering.
            Err(_) => self.connector.is_answering(),
        }
    }

    /// Examines the database if it is time for that, then pings it. Errors: the database does not answer.
    fn ask(
        self: &Arc<Self>,
        session: &mut Session,
        examined: &mut Option<Instant>,
        auto_migrate: bool,
    ) -> Result<(), String> {
        if examined.is_none_or(|at| at.elapsed() >= self.examine_interval()) {
            self.make_ready(session, auto_migrate)?;
            *examined = Some(Instant::now());
        }
        session.ping(PING_MAX).map_err(|error| cause(&error))?;
        self.note_answer();
        Ok(())
    }

    fn examine_interval(&self) -> Duration {
        if lock(&self.state).findings.is_empty() { EXAMINE_INTERVAL } else { NOT_READY_RETRY }
    }

    /// Examines the database, applies the schema if that is wanted and the pool does not exist yet, and fills the
    /// pool once reads can be served. Errors: the database does not answer.
    fn make_ready(self: &Arc<Self>, session: &mut Session, auto_migrate: bool) -> Result<(), String> {
        let mut examination = self.examine(session)?;
        if auto_migrate && self.connections.get().is_none() {
            // If reads can be served, the schema is complete, and applying it takes milliseconds.
            let limit = if can_read(&examination.findings) { STATEMENT_MAX } else { SCHEMA_MAX };
            match schema::apply(session, limit) {
                Ok(()) => examination = self.examine(session)?,
                Err(reason) if session.is_closed() => return Err(reason),
                Err(reason) => {
                    examination.findings.retain(|finding| finding.harm == Harm::RefusesChanges);
                    examination.findings.push(Finding { text: reason, harm: Harm::Fails });
                }
            }
        }
        let Examination { findings, facts } = examination;
        let can_read = can_read(&findings);
        let reasons: Vec<_> = findings.iter().map(|finding| finding.text.clone()).collect();
        lock(&self.state).findings = findings;
        if can_read {
            // If row security is active, its policies let every row through here. If they did not, there would be
            // a finding, and the sessions would keep `row_security = off`, so that PostgreSQL refuses statements.
            self.connector.adopt(facts);
            self.connections.get_or_init(|| Manager::fill(Arc::clone(&self.connector)));
        }
        if reasons.is_empty() {
            self.note_ready();
        } else {
            self.note_trouble("database not ready", &reasons.join("; "));
        }
        self.note_answer();
        Ok(())
    }

    fn examine(&self, session: &mut Session) -> Result<Examination, String> {
        examine(session.within(STATEMENT_MAX)).map_err(|error| cause(&error))
    }

    fn note_ready(&self) {
        let mut state = lock(&self.state);
        if !state.trouble.is_empty() {
            log::info!("database connected");
            state.trouble.clear();
        }
    }

    fn wait_while_resting(&self) {
        let mut state = lock(&self.state);
        while state.is_resting() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Whether reads can be served.
fn can_read(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.harm == Harm::RefusesChanges)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::url::{DatabaseSettings, DatabaseUrl};
    use super::{Arc, Connector, Duration, REST_AFTER, Watch, lock};
    use std::num::NonZeroU32;

    /// A first attempt to connect can take longer than the time after which the watching thread rests.
    #[test]
    fn a_database_that_has_not_answered_yet_is_not_up() {
        let url = DatabaseUrl::parse("postgres://127.0.0.1:1/nothing").unwrap();
        let settings = DatabaseSettings { url, pool_size: NonZeroU32::MIN, is_prepared: true };
        let watch = Watch::new(Arc::new(Connector::new(settings)));
        lock(&watch.state).asked -= REST_AFTER + Duration::from_secs(1);
        assert!(lock(&watch.state).is_resting() && !watch.is_up());
    }
}
