//! The pool of connections that requests use, and the only way from a request to PostgreSQL.
//! Knows nothing of tasks. Guarantees: [`Pool::query`] returns within `REQUEST_MAX`; a broken or silent
//! connection is replaced; a statement that may already have taken effect is sent again only if that is
//! harmless.

use super::connection::Connection;
use super::connector::{Connector, Manager};
use super::health::{Health, Readiness};
use super::sqlstate::Fate;
use super::statements::{Statement, Values};
use super::url::{DatabaseSettings, DatabaseUrl};
use super::watch;
use crate::error::Error;
use crate::limits::{CHECKOUT_MAX, PING_MAX, REQUEST_MAX, STATEMENT_MAX, STATEMENT_TRIES_MAX};
use crate::metrics::waited_for_connection;
use crate::semaphore::{Permit, Semaphore};
use postgres::Row;
use r2d2::PooledConnection;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub struct Pool {
    connector: Arc<Connector>,
    health: Arc<Health>,
    /// As many permits as the pool may have connections. They make threads get connections in the order in which
    /// they asked, which r2d2 alone does not ensure. If PostgreSQL allows fewer connections than there are
    /// permits, the order is again that of r2d2.
    permits: Semaphore,
}

/// A connection in use. The fields are dropped in the order of their declaration, so the connection is back in
/// the pool before the permit wakes the next thread.
struct CheckedOut<'p> {
    connection: PooledConnection<Manager>,
    _permit: Permit<'p>,
}

impl Pool {
    /// Starts the watching thread, which connects, applies the schema and fills the pool. Does not wait until
    /// that is done. Errors: no thread can be started.
    pub(super) fn open(database: DatabaseSettings, auto_migrate: bool) -> Result<Self, String> {
        let connector = Arc::new(Connector::new(database));
        let health = Arc::new(Health::new(Arc::clone(&connector)));
        watch::start(Arc::clone(&connector), Arc::clone(&health), auto_migrate)?;
        let permits = Semaphore::new(connector.size() as usize);
        Ok(Self { connector, health, permits })
    }

    /// Whether requests can be served. Returns at once, unless the watching thread has been resting; then waits
    /// for its next answer from the database, at most `FIRST_ANSWER_MAX`.
    pub fn readiness(&self) -> Readiness {
        self.health.readiness()
    }

    /// Whether the database has answered within `ANSWER_AGE_MAX`; while the watching thread rests, whether the
    /// database was well before. Does not end the rest.
    pub fn is_up(&self) -> bool {
        self.health.is_up()
    }

    /// The number of idle connections, the number of busy ones, and the largest number of connections.
    pub fn counts(&self) -> [f64; 3] {
        let Some(pool) = self.health.pool.get() else {
            return [0.0, 0.0, self.connector.size().into()];
        };
        let state = pool.state();
        let (all, idle) = (state.connections, state.idle_connections);
        [idle, all.saturating_sub(idle), pool.max_size()].map(f64::from)
    }

    /// Connections made from now on use `url`. Errors: it names another database, so that for a while requests
    /// would use both databases.
    pub fn reconnect_with(&self, url: DatabaseUrl) -> Result<(), String> {
        self.connector.reconnect_with(url)
    }

    /// Runs the statement on a connection of the pool, and returns its rows.
    pub(super) fn query(&self, statement: &'static Statement, values: Values) -> Result<Vec<Row>, Error> {
        self.run(statement, |connection, limit| connection.query(statement, values, limit))
    }

    /// The same, but returns the number of changed rows.
    pub(super) fn execute(&self, statement: &'static Statement, values: Values) -> Result<u64, Error> {
        self.run(statement, |connection, limit| connection.execute(statement, values, limit))
    }

    fn run<T>(
        &self,
        statement: &'static Statement,
        send: impl Fn(&mut Connection, Duration) -> Result<T, postgres::Error>,
    ) -> Result<T, Error> {
        self.health.note_request()?;
        let Some(pool) = self.health.pool.get() else {
            return Err(Error::Unavailable(self.health.trouble().unwrap_or_default()));
        };
        let end = Instant::now() + REQUEST_MAX;
        let (mut tries, mut may_be_done) = (0, false);
        loop {
            let connection = self.check_out(pool, end);
            let mut checked_out = connection.map_err(|reason| Error::unanswered(may_be_done, reason))?;
            let connection = &mut checked_out.connection;
            let limit = STATEMENT_MAX.min(end.saturating_duration_since(Instant::now()));
            let error = match send(connection, limit) {
                Ok(answer) => {
                    self.health.note_answer();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            let fate = Fate::of(&error, connection.age());
            self.connector.note_failure(connection, fate, &error);
            drop(checked_out);
            tries += 1;
            may_be_done |=
                statement.effect.is_change() && matches!(fate, Fate::ConnectionLost | Fate::OutcomeUnknown);
            let may_succeed = match fate {
                Fate::Aborted | Fate::Stale => true,
                Fate::ConnectionLost => statement.effect.may_repeat(),
                Fate::Transient | Fate::OutcomeUnknown | Fate::Refused => false,
            };
            // With less time than this, a statement that the server would answer could look like one that is lost.
            let is_over = end.saturating_duration_since(Instant::now()) < PING_MAX;
            if !may_succeed || tries == STATEMENT_TRIES_MAX || is_over {
                return Err(fate.error(&error, may_be_done));
            }
        }
    }

    /// Waits for a connection, at most `CHECKOUT_MAX` and not beyond `end`. Errors: why no connection was
    /// available.
    fn check_out(&self, pool: &r2d2::Pool<Manager>, end: Instant) -> Result<CheckedOut<'_>, String> {
        let asked = Instant::now();
        let patience = CHECKOUT_MAX.min(end.saturating_duration_since(asked));
        let outcome = self.connection_within(pool, patience);
        waited_for_connection(asked.elapsed());
        outcome
    }

    fn connection_within(
        &self,
        pool: &r2d2::Pool<Manager>,
        patience: Duration,
    ) -> Result<CheckedOut<'_>, String> {
        let asked = Instant::now();
        let Some(permit) = self.permits.acquire(patience) else {
            let trouble = self.health.trouble();
            return Err(trouble.unwrap_or_else(|| "no connection became free in time".to_owned()));
        };
        let left = patience.saturating_sub(asked.elapsed());
        let connection = pool.get_timeout(left).map_err(|error| error.to_string())?;
        Ok(CheckedOut { connection, _permit: permit })
    }
}
