//! Whether the database can serve requests, the reason if it cannot, and the pool. The watching thread and the
//! threads of requests share this, so `/health` neither needs nor waits for a connection.

use super::connector::{Connector, Manager};
use super::examination::{Finding, Harm};
use crate::error::Error;
use crate::limits::{EXAMINE_INTERVAL, FIRST_ANSWER_MAX, NOT_READY_RETRY, REST_AFTER};
use crate::threads::lock;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
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

/// The state of the database, as the watching thread and the last answers show it.
pub struct Health {
    connector: Arc<Connector>,
    /// Empty until reads can be served for the first time.
    pub pool: OnceLock<r2d2::Pool<Manager>>,
    state: Mutex<Known>,
    /// Signalled when the database has answered, and when a request or health check ends a rest.
    changed: Condvar,
}

struct Known {
    /// The findings of the last examination.
    findings: Vec<Finding>,
    /// The time of the last request or health check.
    asked: Instant,
    /// Why the database cannot be reached or is not ready. Empty if all is well. It has been logged, except
    /// [`NO_DATABASE_YET`].
    trouble: String,
}

impl Known {
    fn is_resting(&self) -> bool {
        self.asked.elapsed() > REST_AFTER
    }
}

/// The trouble from the start until the database is ready for the first time.
const NO_DATABASE_YET: &str = "no database yet";

impl Health {
    pub fn new(connector: Arc<Connector>) -> Self {
        let trouble = NO_DATABASE_YET.to_owned();
        let state = Mutex::new(Known { findings: Vec::new(), asked: Instant::now(), trouble });
        Self { connector, pool: OnceLock::new(), state, changed: Condvar::new() }
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
    fn note_question(&self) -> (MutexGuard<'_, Known>, bool) {
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

    /// Records why the database cannot be reached or is not ready. Logs it, unless it was the same before.
    pub fn note_trouble(&self, what: &str, reason: &str) {
        let mut state = lock(&self.state);
        if state.trouble != reason {
            log::error!(reason = reason; "{what}");
            reason.clone_into(&mut state.trouble);
        }
    }

    /// Records the findings of an examination.
    pub fn note_findings(&self, findings: Vec<Finding>) {
        let reasons: Vec<_> = findings.iter().map(|finding| finding.text.clone()).collect();
        lock(&self.state).findings = findings;
        if reasons.is_empty() {
            self.note_ready();
        } else {
            self.note_trouble("database not ready", &reasons.join("; "));
        }
    }

    fn note_ready(&self) {
        let mut state = lock(&self.state);
        if !state.trouble.is_empty() {
            log::info!("database connected");
            state.trouble.clear();
        }
    }

    /// Whether the last examination found that every change is refused.
    pub fn refuses_changes(&self) -> bool {
        lock(&self.state).findings.iter().any(|finding| finding.harm == Harm::RefusesChanges)
    }

    /// How long after the last examination the next one is due.
    pub fn examine_interval(&self) -> Duration {
        if lock(&self.state).findings.is_empty() { EXAMINE_INTERVAL } else { NOT_READY_RETRY }
    }

    /// Waits while the watching thread should rest, that is, until the next request or health check.
    pub fn wait_while_resting(&self) {
        let mut state = lock(&self.state);
        while state.is_resting() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::url::{DatabaseSettings, DatabaseUrl};
    use super::{Arc, Connector, Duration, Health, REST_AFTER, lock};
    use std::num::NonZeroU32;

    /// A first attempt to connect can take longer than the time after which the watching thread rests.
    #[test]
    fn a_database_that_has_not_answered_yet_is_not_up() {
        let url = DatabaseUrl::parse("postgres://127.0.0.1:1/nothing").unwrap();
        let settings = DatabaseSettings { url, pool_size: NonZeroU32::MIN, is_prepared: true };
        let health = Health::new(Arc::new(Connector::new(settings)));
        lock(&health.state).asked -= REST_AFTER + Duration::from_secs(1);
        assert!(lock(&health.state).is_resting() && !health.is_up());
    }
}
