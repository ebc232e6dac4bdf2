//! One connection of the pool: a session with its prepared statements, and what the pool must know to decide
//! whether the connection is used again.

use super::connect::Session;
use super::statements::{PREPARED, Statement, Values};
use postgres::{Client, Row};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

pub struct Connection {
    pub session: Session,
    /// Empty with `DATABASE_PREPARED=false`.
    prepared: Prepared,
    /// Which of the two texts of a statement is used on this server.
    has_icu: bool,
    /// When the facts were read with which the session was made. The connection is not older than this.
    pub created_at: Instant,
    pub last_used: Instant,
    /// True once the connection broke, or its prepared statements no longer fit the table.
    pub is_unusable: bool,
    /// The number of open connections. This connection is counted until it is dropped.
    open: Arc<AtomicU32>,
}

/// The statements that a session has prepared.
pub type Prepared = Vec<(&'static Statement, postgres::Statement)>;

/// Prepares the statements of the most frequent requests, each of which costs a round trip. All other statements
/// are sent as text.
pub fn prepare(client: &mut Client, has_icu: bool) -> Result<Prepared, postgres::Error> {
    let mut prepared = Vec::new();
    for statement in PREPARED {
        prepared.push((statement, client.prepare_typed(statement.sql(has_icu), statement.types)?));
    }
    Ok(prepared)
}

impl Connection {
    /// A connection of the pool. `created_at` is the moment before the facts were read with which the session was
    /// made.
    pub fn new(
        session: Session,
        prepared: Prepared,
        has_icu: bool,
        created_at: Instant,
        open: Arc<AtomicU32>,
    ) -> Self {
        open.fetch_add(1, Relaxed);
        Self { session, prepared, has_icu, created_at, last_used: Instant::now(), is_unusable: false, open }
    }

    pub fn age(&self) -> Duration {
        self.created_at.elapsed()
    }

    /// Runs a statement and returns its rows. Errors: those of the driver; no answer came within `limit`.
    pub fn query(
        &mut self,
        statement: &'static Statement,
        values: Values,
        limit: Duration,
    ) -> Result<Vec<Row>, postgres::Error> {
        let has_icu = self.has_icu;
        match self.begin(statement, limit) {
            (client, Some(prepared)) => client.query(prepared, values),
            (client, None) => client.query_typed(statement.sql(has_icu), &statement.typed(values)),
        }
    }

    /// Runs a statement and returns the number of changed rows. Errors: the same as those of
    /// [`Connection::query`].
    pub fn execute(
        &mut self,
        statement: &'static Statement,
        values: Values,
        limit: Duration,
    ) -> Result<u64, postgres::Error> {
        let has_icu = self.has_icu;
        match self.begin(statement, limit) {
            (client, Some(prepared)) => client.execute(prepared, values),
            (client, None) => client.execute_typed(statement.sql(has_icu), &statement.typed(values)),
        }
    }

    fn begin(
        &mut self,
        statement: &'static Statement,
        limit: Duration,
    ) -> (&mut Client, Option<&postgres::Statement>) {
        self.last_used = Instant::now();
        let prepared = self.prepared.iter().find(|(prepared, _)| std::ptr::eq(*prepared, statement));
        (self.session.within(limit), prepared.map(|(_, prepared)| prepared))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Relaxed);
    }
}
