//! Connections to PostgreSQL: a pool for requests, and one that watches. Knows no task.
//! Guarantees: no wait is without end, and a database that went away is found again.
//!
//! The watching connection applies the schema; only then the pool is filled. It is also why
//! `/health` needs no connection of the pool.

use super::connect::{Manager, Place, manager};
use super::schema;
use super::sqlstate::{Fate, cause};
use super::statements::{STATEMENTS, Statement, Values};
use crate::config;
use crate::error::Error;
use crate::metrics::waited_for_connection;
use crate::panic::{every, guarded, lock};
use postgres::{Client, Row};
use r2d2::ManageConnection;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// The longest wait for a free connection. With a statement's limit it stays below ten seconds.
const CHECKOUT_WAIT: Duration = Duration::from_secs(3);
/// A connection that was used more recently is handed out without asking it.
const TRUSTED_WHILE: Duration = Duration::from_millis(500);
const PING_TIMEOUT: Duration = Duration::from_secs(1);
const WATCH_INTERVAL: Duration = Duration::from_millis(500);
/// An answer older than this says nothing about now.
const ANSWER_AGE_MAX: Duration = Duration::from_millis(1500);
const TRIES_MAX: usize = 3;

pub struct Pool {
    place: Place,
    link: Link,
    /// Empty until the schema is there.
    connections: Arc<OnceLock<r2d2::Pool<Link>>>,
    last_answer: Arc<Mutex<Option<Instant>>>,
    /// Sessions from before are not used again: one of them was dead or stale, so others will be.
    distrusted: Mutex<Option<Instant>>,
}

impl Pool {
    /// Starts the watching thread, and does not wait for it.
    pub(super) fn open(database: &config::Database, auto_migrate: bool) -> Result<Self, String> {
        let (manager, place) = manager(&database.url, database.prepared)?;
        let manager = Arc::new(Mutex::new(Arc::new(manager)));
        let link = Link { manager, prepared: database.prepared };
        let pool = Self {
            place,
            link: link.clone(),
            connections: Arc::default(),
            last_answer: Arc::default(),
            distrusted: Mutex::default(),
        };
        let (connections, last_answer) = (Arc::clone(&pool.connections), Arc::clone(&pool.last_answer));
        let size = database.pool_size.get();
        let mut trouble = String::new();
        let watch = move || {
            let Err(reason) = watch(&link, &connections, &last_answer, size, auto_migrate);
            // The same trouble again is not news.
            if reason != trouble {
                log::error!(reason = reason.as_str(); "database out of reach");
                trouble = reason;
            }
        };
        let thread = every(WATCH_INTERVAL, "watch", watch);
        thread.map_err(|error| format!("no thread for the database: {error}")).map(|_| pool)
    }

    /// Whether the database answered within the last 1.5 s. Never waits.
    pub fn is_reachable(&self) -> bool {
        lock(&self.last_answer).is_some_and(|last| last.elapsed() <= ANSWER_AGE_MAX)
    }

    /// Idle, busy, and at most.
    pub fn counts(&self) -> [f64; 3] {
        let Some(pool) = self.connections.get() else {
            return [0.0; 3];
        };
        let state = pool.state();
        let (all, idle) = (state.connections, state.idle_connections);
        [idle, all.saturating_sub(idle), pool.max_size()].map(f64::from)
    }

    /// Connections made from now on use `url`. Errors: it names another database; requests would be
    /// served by both.
    pub fn reconnect_with(&self, url: &str) -> Result<(), String> {
        let (manager, place) = manager(url, self.link.prepared)?;
        if place != self.place {
            return Err("DATABASE_URL: names another database; that takes a restart".to_owned());
        }
        *lock(&self.link.manager) = Arc::new(manager);
        Ok(())
    }

    /// Runs the statement on a connection of its own.
    pub(super) fn query(&self, statement: &'static Statement, values: Values) -> Result<Vec<Row>, Error> {
        let pool = self.connections.get().ok_or_else(|| Error::Unavailable("no database yet".to_owned()))?;
        let mut tries = 0;
        loop {
            let asked = Instant::now();
            let session = pool.get();
            waited_for_connection(asked.elapsed());
            let mut session = session.map_err(|error| Error::Unavailable(error.to_string()))?;
            if lock(&self.distrusted).is_some_and(|since| session.born <= since) {
                session.is_spent = true;
                continue;
            }
            let error = match session.query(statement, values) {
                Ok(rows) => {
                    *lock(&self.last_answer) = Some(Instant::now());
                    return Ok(rows);
                }
                Err(error) => error,
            };
            let fate = Fate::of(&error, session.born.elapsed());
            if matches!(fate, Fate::Lost | Fate::Stale) {
                session.is_spent = true;
                *lock(&self.distrusted) = Some(Instant::now());
            }
            let again = match fate {
                Fate::Aborted | Fate::Stale => true,
                Fate::Lost => statement.may_repeat,
                Fate::Passing | Fate::Refused => false,
            };
            tries += 1;
            if !again || tries == TRIES_MAX {
                return Err(fate.error(&error, statement.may_repeat));
            }
        }
    }
}

/// Keeps one connection. Errors: why it is gone.
fn watch(
    link: &Link,
    connections: &OnceLock<r2d2::Pool<Link>>,
    last_answer: &Mutex<Option<Instant>>,
    size: u32,
    auto_migrate: bool,
) -> Result<Infallible, String> {
    let mut client = link.manager().connect().map_err(|error| cause(&error))?;
    if auto_migrate && connections.get().is_none() {
        schema::apply(&mut client)?;
    }
    connections.get_or_init(|| fill(link, size));
    log::info!("database connected");
    loop {
        client.is_valid(PING_TIMEOUT).map_err(|error| cause(&error))?;
        *lock(last_answer) = Some(Instant::now());
        thread::sleep(WATCH_INTERVAL);
    }
}

fn fill(link: &Link, size: u32) -> r2d2::Pool<Link> {
    r2d2::Pool::builder()
        .max_size(size)
        .connection_timeout(CHECKOUT_WAIT)
        // Asks `Link::is_valid`, which asks the server only where that is needed.
        .test_on_check_out(true)
        // Connections are kept: a broken one is found when it is used.
        .idle_timeout(None)
        .max_lifetime(None)
        // Each request that finds no connection says why in its own line.
        .error_handler(Box::new(r2d2::NopErrorHandler))
        .build_unchecked(link.clone())
}

/// What makes connections, as `DATABASE_URL` says now.
#[derive(Clone)]
struct Link {
    manager: Arc<Mutex<Arc<Manager>>>,
    prepared: bool,
}

impl Link {
    fn manager(&self) -> Arc<Manager> {
        Arc::clone(&lock(&self.manager))
    }

    fn session(&self) -> Result<Session, postgres::Error> {
        let mut client = self.manager().connect()?;
        let mut prepared = Vec::new();
        for statement in STATEMENTS.iter().filter(|_| self.prepared) {
            prepared.push((*statement, client.prepare_typed(statement.sql, statement.types)?));
        }
        let now = Instant::now();
        Ok(Session { client, prepared, born: now, last_used: now, is_spent: false })
    }
}

impl ManageConnection for Link {
    type Connection = Session;
    type Error = io::Error;

    /// The driver panics where its runtime gets no descriptor; the pool would lose this place.
    fn connect(&self) -> io::Result<Session> {
        guarded(|| self.session().map_err(|error| io::Error::other(cause(&error))), io::Error::other)
    }

    /// A ping costs a round trip, so a busy connection is not asked: if it is dead, the statement
    /// says so.
    fn is_valid(&self, session: &mut Session) -> io::Result<()> {
        let is_trusted = session.last_used.elapsed() <= TRUSTED_WHILE;
        if is_trusted { Ok(()) } else { session.client.is_valid(PING_TIMEOUT).map_err(io::Error::other) }
    }

    fn has_broken(&self, session: &mut Session) -> bool {
        session.is_spent || session.client.is_closed()
    }
}

/// One connection and what was prepared on it (nothing with `DATABASE_PREPARED=false`).
struct Session {
    client: Client,
    prepared: Vec<(&'static Statement, postgres::Statement)>,
    born: Instant,
    last_used: Instant,
    is_spent: bool,
}

impl Session {
    fn query(&mut self, statement: &'static Statement, values: Values) -> Result<Vec<Row>, postgres::Error> {
        self.last_used = Instant::now();
        match self.prepared.iter().find(|(prepared, _)| std::ptr::eq(*prepared, statement)) {
            Some((_, prepared)) => self.client.query(prepared, values),
            None => self.client.query_typed(statement.sql, &statement.typed(values)),
        }
    }
}
