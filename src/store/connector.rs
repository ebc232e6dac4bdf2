//! Makes the connections of the pool, and decides which of them may still be used. r2d2 calls it.

use super::backoff::Backoff;
use super::connect::{ConnectError, Parameter, connect_and_prepare, is_silence};
use super::connection::{Connection, prepare};
use super::examination::Facts;
use super::rows::can_be_read;
use super::sqlstate::{Fate, cause, is_lost_statement};
use super::url::{DatabaseSettings, DatabaseUrl};
use crate::limits::{ANSWER_AGE_MAX, CHECKOUT_MAX, PING_AFTER, PING_MAX, STATEMENT_SERVER_MAX};
use crate::metrics;
use crate::threads::{guarded, lock};
use r2d2::ManageConnection;
use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Makes connections according to the current `DATABASE_URL`, and decides which ones may still be used.
pub struct Connector {
    url: Mutex<Arc<DatabaseUrl>>,
    /// `DATABASE_PREPARED`: false if a pooler keeps no prepared statements. Such a pooler keeps no session
    /// settings either.
    is_prepared: bool,
    size: u32,
    /// Connections made before this instant are not used again: one of them was broken, or its prepared
    /// statements no longer fitted the table, so the same is likely of the others.
    distrusted: Mutex<Option<Instant>>,
    backoff: Backoff,
    /// The moment of the database's last answer on any connection.
    answered: Mutex<Option<Instant>>,
    /// The number of open connections of the pool.
    open: Arc<AtomicU32>,
    has_warned_of_pooler: AtomicBool,
    /// The facts of the last examination.
    facts: Mutex<Facts>,
}

/// Makes the server end a statement that takes longer than `STATEMENT_SERVER_MAX`.
pub fn statement_timeout() -> Parameter {
    ("statement_timeout", STATEMENT_SERVER_MAX.as_millis().to_string())
}

impl Connector {
    pub fn new(database: DatabaseSettings) -> Self {
        Self {
            url: Mutex::new(Arc::new(database.url)),
            is_prepared: database.is_prepared,
            size: database.pool_size.get(),
            distrusted: Mutex::default(),
            backoff: Backoff::default(),
            answered: Mutex::default(),
            open: Arc::default(),
            has_warned_of_pooler: AtomicBool::new(false),
            facts: Mutex::default(),
        }
    }

    /// The largest number of connections in the pool.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Connections made from now on use `url`. Errors: it names another database.
    pub fn reconnect_with(&self, url: DatabaseUrl) -> Result<(), String> {
        let mut current = lock(&self.url);
        if !current.is_same_database(&url) {
            return Err("DATABASE_URL: names another database; that takes a restart".to_owned());
        }
        *current = Arc::new(url);
        Ok(())
    }

    pub fn url(&self) -> Arc<DatabaseUrl> {
        Arc::clone(&lock(&self.url))
    }

    /// Records that the database has answered just now. Returns whether it had not answered within
    /// `ANSWER_AGE_MAX` before.
    pub fn note_answer(&self) -> bool {
        let before = lock(&self.answered).replace(Instant::now());
        before.is_none_or(|at| at.elapsed() > ANSWER_AGE_MAX)
    }

    /// Whether the database has answered within `ANSWER_AGE_MAX`.
    pub fn is_answering(&self) -> bool {
        lock(&self.answered).is_some_and(|at| at.elapsed() <= ANSWER_AGE_MAX)
    }

    /// No connection that exists now is used again.
    pub fn distrust_all(&self) {
        self.distrust_before(Instant::now());
    }

    fn distrust_before(&self, instant: Instant) {
        let mut distrusted = lock(&self.distrusted);
        *distrusted = (*distrusted).max(Some(instant));
    }

    fn is_distrusted(&self, connection: &Connection) -> bool {
        lock(&self.distrusted).is_some_and(|since| connection.created_at <= since)
    }

    /// After a failed statement, decides whether its connection and the other connections may still be used.
    pub fn note_failure(&self, connection: &mut Connection, fate: Fate, error: &postgres::Error) {
        if matches!(fate, Fate::ConnectionLost | Fate::Stale) {
            connection.is_unusable = true;
            // A statement that got no answer makes all connections suspect that are older than the statement.
            // Connections that were made while it waited may work.
            self.distrust_before(if is_silence(error) { connection.last_used } else { Instant::now() });
        }
        self.count_silence(error);
        if is_lost_statement(error) && self.is_prepared && !self.has_warned_of_pooler.swap(true, Relaxed) {
            log::warn!(
                reason = cause(error).as_str();
                "prepared statements get lost: a pooler in transaction mode is between the service and \
                 PostgreSQL; set DATABASE_PREPARED=false"
            );
        }
    }

    fn count_silence(&self, error: &postgres::Error) {
        if is_silence(error) {
            metrics::connection_given_up();
        }
    }

    /// The settings of a new session. There are none for a pooler that keeps no prepared statements, because it
    /// keeps no settings either.
    fn settings(&self, facts: Facts) -> Vec<Parameter> {
        let mut settings = Vec::new();
        if self.is_prepared {
            settings.push(statement_timeout());
            if !facts.has_row_security {
                // With this setting PostgreSQL refuses a statement from which row security would hide rows. So if
                // row security is switched on later, no list silently lacks tasks.
                settings.push(("row_security", "off".to_owned()));
            }
        }
        settings
    }

    /// Adopts the facts of an examination. If they have changed, connections made before are replaced.
    pub fn adopt(&self, facts: Facts) {
        let before = mem::replace(&mut *lock(&self.facts), facts);
        if before != facts {
            self.distrust_all();
        }
    }

    /// Makes a connection and prepares its statements. The time limit for an attempt includes both.
    fn open(&self) -> Result<Connection, ConnectError> {
        // Taken before the facts are read, so that this connection is replaced if the facts change meanwhile.
        let created_at = Instant::now();
        let facts = *lock(&self.facts);
        let (session, prepared) =
            connect_and_prepare(&self.url(), &self.settings(facts), |client| match self.is_prepared {
                true => prepare(client, facts.has_icu),
                false => Ok(Vec::new()),
            })?;
        // Otherwise a statement could change a task and return a row that the service cannot read.
        if !prepared.iter().all(|(_, statement)| can_be_read(statement.columns())) {
            let reason = "a column of tasks has a type that the service cannot read".to_owned();
            return Err(ConnectError { reason, is_full: false });
        }
        Ok(Connection::new(session, prepared, facts.has_icu, created_at, Arc::clone(&self.open)))
    }
}

/// r2d2 calls this to make connections and to decide which ones are still valid.
pub struct Manager(Arc<Connector>);

impl Manager {
    /// A pool. Threads of r2d2 fill it with connections from now on.
    pub fn fill(connector: Arc<Connector>) -> r2d2::Pool<Self> {
        r2d2::Pool::builder()
            .max_size(connector.size)
            .connection_timeout(CHECKOUT_MAX)
            // Makes r2d2 call `is_valid`, which asks the server only if that is necessary.
            .test_on_check_out(true)
            // Connections have no maximum age, because a broken one is detected when it is used.
            .idle_timeout(None)
            .max_lifetime(None)
            // The reason is in the log line of each request that gets no connection.
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .build_unchecked(Self(connector))
    }
}

impl ManageConnection for Manager {
    /// Boxed, because r2d2 moves a connection several times for each use.
    type Connection = Box<Connection>;
    type Error = io::Error;

    /// Catches panics: the driver panics if its runtime gets no file descriptor, and r2d2 would then never use
    /// this connection's place in the pool again.
    fn connect(&self) -> io::Result<Box<Connection>> {
        let connector = &self.0;
        connector.backoff.check(connector.open.load(Relaxed))?;
        let open = || match connector.open() {
            Ok(connection) => {
                connector.backoff.note_connected(connector.open.load(Relaxed), connector.size);
                Ok(Box::new(connection))
            }
            Err(error) => {
                if error.is_full {
                    connector.backoff.note_refused(
                        connector.open.load(Relaxed),
                        connector.size,
                        &error.reason,
                    );
                }
                Err(io::Error::other(error.reason))
            }
        };
        guarded(open).unwrap_or_else(|bug| Err(io::Error::other(bug)))
    }

    /// Whether a connection may be handed out. A ping costs a round trip, so a connection that was used a moment
    /// ago is not pinged.
    fn is_valid(&self, connection: &mut Box<Connection>) -> io::Result<()> {
        if self.0.is_distrusted(connection) {
            return Err(io::Error::other("a connection of the same age was broken"));
        }
        if connection.last_used.elapsed() <= PING_AFTER {
            return Ok(());
        }
        connection.session.ping(PING_MAX).map_err(|error| {
            self.0.count_silence(&error);
            // While the server is known to answer, each of the other connections is pinged when it is handed out.
            // Otherwise pinging them all would take too long, so all are replaced.
            if !self.0.is_answering() {
                self.0.distrust_all();
            }
            io::Error::other(cause(&error))
        })
    }

    fn has_broken(&self, connection: &mut Box<Connection>) -> bool {
        connection.is_unusable || connection.session.is_closed() || self.0.is_distrusted(connection)
    }
}
