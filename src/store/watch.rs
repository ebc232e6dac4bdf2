//! The watching thread: applies the schema, fills the pool, and keeps [`Health`] up to date. It has a connection of
//! its own; if the database allows no more, it uses connections of the pool. After a minute without requests and
//! health checks it rests: it asks the database nothing, so that a database that is suspended when idle can go to
//! sleep.

use super::connect::{Session, connect, connect_meanwhile};
use super::connector::{Connector, Manager};
use super::examination::{Examination, Finding, Harm, examine};
use super::health::Health;
use super::schema;
use super::sqlstate::cause;
use crate::limits::{
    FULL_RETRY_MAX, PING_MAX, READ_ONLY_RETRY, SCHEMA_MAX, STATEMENT_MAX, WATCH_CHECKOUT_MAX, WATCH_INTERVAL,
};
use crate::threads::every;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

struct Watcher {
    connector: Arc<Connector>,
    health: Arc<Health>,
    auto_migrate: bool,
    /// Whether connections of the pool are used. If so, this has been logged.
    uses_pool: bool,
}

/// Starts the watching thread. Errors: the thread cannot be started.
pub fn start(connector: Arc<Connector>, health: Arc<Health>, auto_migrate: bool) -> Result<(), String> {
    let mut watcher = Watcher { connector, health, auto_migrate, uses_pool: false };
    let work = move || {
        if let Err(reason) = watcher.keep_one_connection() {
            watcher.health.note_trouble("database out of reach", &reason);
        }
    };
    every(WATCH_INTERVAL, "watch", work).map_err(|error| format!("cannot start a thread: {error}"))
}

impl Watcher {
    /// Watches the database on one connection until a new connection should be made. Errors: why there is no
    /// connection, or why it has ended.
    fn keep_one_connection(&mut self) -> Result<(), String> {
        self.health.wait_while_resting();
        let mut session = match self.connect() {
            Ok(session) => session,
            Err(reason) => return self.borrow_connections(reason),
        };
        self.uses_pool = false;
        let (made, mut examined) = (Instant::now(), None);
        // While changes are refused, the connection is replaced every `READ_ONLY_RETRY`, because a new session may
        // reach the primary, or a changed default of the role.
        while !(self.health.refuses_changes() && made.elapsed() >= READ_ONLY_RETRY) {
            self.ask(&mut session, &mut examined)?;
            thread::sleep(WATCH_INTERVAL);
            self.health.wait_while_resting();
        }
        Ok(())
    }

    /// Makes the watching thread's own connection. A pooler in session mode, or a firewall, may let it wait for an
    /// answer while the connections of the pool work, so the database is asked through the pool meanwhile. Errors:
    /// why there is no connection.
    fn connect(&self) -> Result<Session, String> {
        let url = self.connector.url();
        let Some(pool) = self.health.pool.get() else {
            return connect(&url, &[]);
        };
        let mut examined = None;
        connect_meanwhile(&url, WATCH_INTERVAL / 2, || {
            self.ask_through(pool, &mut examined);
        })
    }

    /// Watches the database through connections of the pool after no connection could be made because of `reason`.
    /// Returns when it is time to try again. Errors: `reason`, if no connection of the pool answers either.
    fn borrow_connections(&mut self, reason: String) -> Result<(), String> {
        let Some(pool) = self.health.pool.get() else {
            return Err(reason);
        };
        let began = Instant::now();
        let mut examined = None;
        while began.elapsed() < FULL_RETRY_MAX {
            if !self.ask_through(pool, &mut examined) {
                return Err(reason);
            }
            if !self.uses_pool {
                self.uses_pool = true;
                log::warn!(
                    reason = reason.as_str();
                    "the watching thread gets no connection of its own, and uses those of the pool"
                );
            }
            thread::sleep(WATCH_INTERVAL);
            self.health.wait_while_resting();
        }
        Ok(())
    }

    /// Asks the database on a connection of the pool. Returns whether it answers.
    fn ask_through(&self, pool: &r2d2::Pool<Manager>, examined: &mut Option<Instant>) -> bool {
        match pool.get_timeout(WATCH_CHECKOUT_MAX) {
            Ok(mut connection) => {
                let outcome = self.ask(&mut connection.session, examined);
                // For the same reason as in `keep_one_connection`, the pool then makes a new connection.
                connection.is_unusable |=
                    self.health.refuses_changes() && connection.age() >= READ_ONLY_RETRY;
                outcome.is_ok()
            }
            // Requests use all connections. Their answers show whether the database is answering.
            Err(_) => self.connector.is_answering(),
        }
    }

    /// Examines the database if it is time for that, then pings it. Errors: the database does not answer.
    fn ask(&self, session: &mut Session, examined: &mut Option<Instant>) -> Result<(), String> {
        if examined.is_none_or(|at| at.elapsed() >= self.health.examine_interval()) {
            self.make_ready(session)?;
            *examined = Some(Instant::now());
        }
        session.ping(PING_MAX).map_err(|error| cause(&error))?;
        self.health.note_answer();
        Ok(())
    }

    /// Examines the database, applies the schema if that is wanted and the pool does not exist yet, and fills the
    /// pool once reads can be served. Errors: the database does not answer.
    fn make_ready(&self, session: &mut Session) -> Result<(), String> {
        let mut examination = examine_within_limit(session)?;
        if self.auto_migrate && self.health.pool.get().is_none() {
            // If reads can be served, the schema is complete, and applying it takes milliseconds.
            let limit = if can_read(&examination.findings) { STATEMENT_MAX } else { SCHEMA_MAX };
            match schema::apply(session, limit) {
                Ok(()) => examination = examine_within_limit(session)?,
                Err(reason) if session.is_closed() => return Err(reason),
                Err(reason) => {
                    examination.findings.retain(|finding| finding.harm == Harm::RefusesChanges);
                    examination.findings.push(Finding { text: reason, harm: Harm::Fails });
                }
            }
        }
        let Examination { findings, facts } = examination;
        if can_read(&findings) {
            // If row security is active, its policies let every row through here. If they did not, there would be
            // a finding, and the sessions would keep `row_security = off`, so that PostgreSQL refuses statements.
            self.connector.adopt(facts);
            self.health.pool.get_or_init(|| Manager::fill(Arc::clone(&self.connector)));
        }
        // Last, because from now on requests are let through, and `/health` says that the service is ready.
        self.health.note_findings(findings);
        self.health.note_answer();
        Ok(())
    }
}

fn examine_within_limit(session: &mut Session) -> Result<Examination, String> {
    examine(session.within(STATEMENT_MAX)).map_err(|error| cause(&error))
}

/// Whether reads can be served.
fn can_read(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.harm == Harm::RefusesChanges)
}
