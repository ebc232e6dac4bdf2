//! Makes the pool's connections and decides which of them may still be used: what r2d2 asks for.

use super::backoff::Backoff;
use super::connect::{ConnectError, Setting, connect, is_silence};
use super::connection::{Connection, prepare};
use super::readiness::Facts;
use super::rows::can_be_read;
use super::sqlstate::{Fate, cause, is_lost_statement};
use super::url::{DatabaseSettings, DatabaseUrl};
use crate::limits::{ANSWER_AGE_MAX, CHECKOUT_MAX, PING_AFTER, PING_MAX, STATEMENT_SERVER_MAX};
use crate::metrics;
use crate::panic::{guarded, lock};
use r2d2::ManageConnection;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Makes connections as `DATABASE_URL` says now, and decides which ones may still be used.
pub struct Connector {
    url: Mutex<Arc<DatabaseUrl>>,
    /// False for a pooler that cannot keep prepared statements. It keeps no session settings either.
    is_prepared: bool,
    size: u32,
    /// Connections from before this instant are not used again: one of them was broken or its
    /// statements no longer fit the table, so the others will be as well.
    distrusted: Mutex<Option<Instant>>,
    backoff: Backoff,
    /// The last answer of the database, on whatever connection.
    answered: Mutex<Option<Instant>>,
    /// Connections of the pool that are open.
    open: Arc<AtomicU32>,
    has_warned: AtomicBool,
    has_row_security: AtomicBool,
    has_icu: AtomicBool,
}

/// The server ends a statement by itself.
pub fn statement_timeout() -> Setting {
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
            has_warned: AtomicBool::new(false),
            has_row_security: AtomicBool::new(false),
            has_icu: AtomicBool::new(false),
        }
    }

    /// The most connections there may be.
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

    /// The database has answered just now.
    pub fn note_answer(&self) {
        *lock(&self.answered) = Some(Instant::now());
    }

    /// Whether the database has answered within `ANSWER_AGE_MAX`.
    pub fn is_answering(&self) -> bool {
        lock(&self.answered).is_some_and(|at| at.elapsed() <= ANSWER_AGE_MAX)
    }

    /// Whether the database has answered at all since the start.
    pub fn has_answered(&self) -> bool {
        lock(&self.answered).is_some()
    }

    pub fn distrust_all(&self) {
        self.distrust_before(Instant::now());
    }

    fn distrust_before(&self, instant: Instant) {
        let mut distrusted = lock(&self.distrusted);
        *distrusted = (*distrusted).max(Some(instant));
    }

    fn is_distrusted(&self, connection: &Connection) -> bool {
        lock(&self.distrusted).is_some_and(|since| connection.born <= since)
    }

    /// Draws the conclusions of a failed statement for its connection and for all others.
    pub fn note_failure(&self, connection: &mut Connection, fate: Fate, error: &postgres::Error) {
        if matches!(fate, Fate::Lost | Fate::Stale) {
            connection.is_spent = true;
            // A statement that got no answer casts doubt on the connections that are older than it. Those that
            // were made while it waited may work.
            self.distrust_before(if is_silence(error) { connection.last_used } else { Instant::now() });
        }
        self.count_silence(error);
        if is_lost_statement(error) && self.is_prepared && !self.has_warned.swap(true, Relaxed) {
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

    /// The settings of a new session. A pooler that cannot keep prepared statements keeps no settings either.
    fn settings(&self) -> Vec<Setting> {
        let mut settings = Vec::new();
        if self.is_prepared {
            settings.push(statement_timeout());
            if !self.has_row_security.load(Relaxed) {
                // PostgreSQL then refuses a statement from which row security would hide rows, so one
                // that is switched on later makes no list short.
                settings.push(("row_security", "off".to_owned()));
            }
        }
        settings
    }

    /// Takes over the facts of an examination. Connections that were made by other facts are made anew.
    pub fn adopt(&self, facts: Facts) {
        let had_row_security = self.has_row_security.swap(facts.has_row_security, Relaxed);
        let had_icu = self.has_icu.swap(facts.has_icu, Relaxed);
        if had_row_security != facts.has_row_security || had_icu != facts.has_icu {
            self.distrust_all();
        }
    }

    /// A connection with its prepared statements. The limit of an attempt covers both.
    fn open(&self) -> Result<Connection, ConnectError> {
        // Before the facts are read: if they change meanwhile, this connection is made anew.
        let born = Instant::now();
        let has_icu = self.has_icu.load(Relaxed);
        let (session, prepared) = connect(&self.url(), &self.settings(), |client| match self.is_prepared {
            true => prepare(client, has_icu),
            false => Ok(Vec::new()),
        })?;
        // A statement that returns other types would change a task whose row nobody can read.
        if !prepared.iter().all(|(_, statement)| can_be_read(statement.columns())) {
            let reason = "a column of tasks has a type that the service cannot read".to_owned();
            return Err(ConnectError { reason, is_full: false });
        }
        Ok(Connection::new(session, prepared, has_icu, born, Arc::clone(&self.open)))
    }
}

/// r2d2 calls this to make connections and to decide which ones are still valid.
pub struct Manager(Arc<Connector>);

impl Manager {
    /// A pool that is filled from now on, by threads of r2d2.
    pub fn fill(connector: Arc<Connector>) -> r2d2::Pool<Self> {
        r2d2::Pool::builder()
            .max_size(connector.size)
            .connection_timeout(CHECKOUT_MAX)
            // Calls `is_valid`, which asks the server only where that is needed.
            .test_on_check_out(true)
            // Connections are kept for ever: a broken one is found when it is used.
            .idle_timeout(None)
            .max_lifetime(None)
            // The reason is in the log line of each request that gets no connection.
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .build_unchecked(Self(connector))
    }
}

impl ManageConnection for Manager {
    /// In a box, because r2d2 moves it several times for each use.
    type Connection = Box<Connection>;
    type Error = io::Error;

    /// The driver panics where its runtime gets no file descriptor; r2d2 would lose this place.
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
        guarded(open, io::Error::other)
    }

    /// A ping costs a round trip, so a connection in constant use gets none.
    fn is_valid(&self, connection: &mut Box<Connection>) -> io::Result<()> {
        if self.0.is_distrusted(connection) {
            return Err(io::Error::other("a connection of the same age was broken"));
        }
        if connection.last_used.elapsed() <= PING_AFTER {
            return Ok(());
        }
        connection.session.ping(PING_MAX).map_err(|error| {
            self.0.count_silence(&error);
            // The others are pinged one after the other only while the server is known to answer.
            if !self.0.is_answering() {
                self.0.distrust_all();
            }
            io::Error::other(cause(&error))
        })
    }

    fn has_broken(&self, connection: &mut Box<Connection>) -> bool {
        connection.is_spent || connection.session.is_closed() || self.0.is_distrusted(connection)
    }
}
