//! Connections to PostgreSQL: one pool for requests, one connection that watches. Knows no task.
//! Guarantees: nothing here waits without end, and a database that went away is found again.
//!
//! The watching connection applies the schema once; the pool is filled after that. It is also why
//! `/health` needs no connection of the pool.

use super::{STATEMENTS, schema};
use crate::{
    config,
    error::{Error, FieldError},
};
use postgres::{
    Client, Config, NoTls, Row,
    config::{ChannelBinding, Host, SslMode},
    error::SqlState,
    types::ToSql,
};
use r2d2::ManageConnection;
use r2d2_postgres::PostgresConnectionManager;
use std::{
    error::Error as StdError,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// The longest wait for a free connection. With a statement's limit it stays below ten seconds.
const CHECKOUT_WAIT: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The server ends a statement (and a wait for a lock) after this.
const STATEMENT_TIMEOUT: &str = "-c statement_timeout=5s";
/// Sent data that stays unacknowledged so long means that the machine is gone.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that was used more recently is handed out without asking it.
const TRUSTED_WHILE: Duration = Duration::from_millis(500);
const PING_TIMEOUT: Duration = Duration::from_secs(1);
const WATCH_INTERVAL: Duration = Duration::from_millis(500);
/// An answer older than this says nothing about now.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(2);
/// How often a statement is tried that failed without effect.
const TRIES_MAX: usize = 3;

/// May a statement be sent again when its connection broke and its fate is unknown?
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    Safe,
    Never,
}

/// Is the database there?
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    Connected,
    Disconnected,
}

pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    /// None until the schema is there.
    connections: OnceLock<r2d2::Pool<Manager>>,
    connector: Connector,
    prepared: bool,
    size: u32,
    last_answer: Mutex<Option<Instant>>,
}

impl Pool {
    /// Starts the watching thread, and does not wait for it.
    pub fn open(database: &config::Database, auto_migrate: bool) -> Result<Self, String> {
        let shared = Arc::new(Shared {
            connections: OnceLock::new(),
            connector: Connector::new(&database.url, database.prepared)?,
            prepared: database.prepared,
            size: database.pool_size.get(),
            last_answer: Mutex::new(None),
        });
        let watched = Arc::clone(&shared);
        thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || watched.watch(auto_migrate))
            .map_err(|error| format!("no thread for the database: {error}"))?;
        Ok(Self { shared })
    }

    pub fn reach(&self) -> Reach {
        let last = *lock(&self.shared.last_answer);
        match last {
            Some(last) if last.elapsed() <= ANSWER_AGE_MAX => Reach::Connected,
            _ => Reach::Disconnected,
        }
    }

    pub fn reconnect_with(&self, url: &str) -> Result<(), String> {
        self.shared.connector.replace(url, self.shared.prepared)
    }

    /// Runs the statement with that index on a connection of its own.
    pub fn query(
        &self,
        statement: usize,
        repeat: Repeat,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        let pool = self.shared.connections.get();
        let pool = pool.ok_or_else(|| Error::Unavailable("no database yet".to_owned()))?;
        let mut tries = 1;
        loop {
            let mut session = pool
                .get()
                .map_err(|error| Error::Unavailable(error.to_string()))?;
            let error = match session.query(statement, parameters) {
                Ok(rows) => return Ok(rows),
                Err(error) => error,
            };
            let fate = Fate::of(&error);
            session.spent = matches!(fate, Fate::Lost | Fate::Stale);
            let again = match fate {
                Fate::Aborted | Fate::Stale => true,
                Fate::Lost => repeat == Repeat::Safe,
                Fate::Passing | Fate::Refused => false,
            };
            if !again || tries == TRIES_MAX {
                return Err(failure(fate, &error));
            }
            tries += 1;
        }
    }
}

impl Shared {
    /// Keeps one connection, for ever.
    fn watch(&self, auto_migrate: bool) {
        let mut complained = None;
        loop {
            let outcome = self.watch_one_connection(auto_migrate);
            *lock(&self.last_answer) = None;
            // The same trouble again is not news.
            let trouble = Some(
                outcome
                    .err()
                    .unwrap_or_else(|| "connection lost".to_owned()),
            );
            if trouble != complained {
                log::error!(reason = trouble.as_deref().unwrap_or_default(); "database out of reach");
                complained = trouble;
            }
            thread::sleep(WATCH_INTERVAL);
        }
    }

    /// Returns when the connection is of no more use.
    fn watch_one_connection(&self, auto_migrate: bool) -> Result<(), String> {
        let mut client = self.connector.connect().map_err(|error| cause(&error))?;
        if auto_migrate && self.connections.get().is_none() {
            schema::apply(&mut client)?;
        }
        self.connections.get_or_init(|| self.fill());
        log::info!("database connected");
        while client.is_valid(PING_TIMEOUT).is_ok() {
            *lock(&self.last_answer) = Some(Instant::now());
            thread::sleep(WATCH_INTERVAL);
        }
        Ok(())
    }

    fn fill(&self) -> r2d2::Pool<Manager> {
        r2d2::Pool::builder()
            .max_size(self.size)
            .connection_timeout(CHECKOUT_WAIT)
            // Asks `Manager::is_valid`, which asks the server only where that is needed.
            .test_on_check_out(true)
            // Connections are kept: a broken one is found when it is used.
            .idle_timeout(None)
            .max_lifetime(None)
            .error_handler(Box::new(LogOncePerSecond::default()))
            .build_unchecked(Manager {
                connector: self.connector.clone(),
                prepared: self.prepared,
            })
    }
}

/// One connection and what was prepared on it.
struct Session {
    client: Client,
    /// Empty without prepared statements.
    prepared: Vec<postgres::Statement>,
    last_used: Instant,
    /// True when the connection must not be used again.
    spent: bool,
}

impl Session {
    fn query(
        &mut self,
        statement: usize,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, postgres::Error> {
        let rows = match (self.prepared.get(statement), STATEMENTS.get(statement)) {
            (Some(prepared), _) => self.client.query(prepared, parameters),
            (None, Some(text)) => {
                let typed: Vec<_> = parameters
                    .iter()
                    .copied()
                    .zip(text.types.iter().cloned())
                    .collect();
                self.client.query_typed(text.sql, &typed)
            }
            (None, None) => Ok(Vec::new()),
        };
        self.last_used = Instant::now();
        rows
    }
}

struct Manager {
    connector: Connector,
    prepared: bool,
}

impl ManageConnection for Manager {
    type Connection = Session;
    type Error = postgres::Error;

    fn connect(&self) -> Result<Session, postgres::Error> {
        let mut client = self.connector.connect()?;
        let prepared = match self.prepared {
            true => STATEMENTS
                .iter()
                .map(|statement| client.prepare_typed(statement.sql, statement.types))
                .collect::<Result<_, _>>()?,
            false => Vec::new(),
        };
        Ok(Session {
            client,
            prepared,
            last_used: Instant::now(),
            spent: false,
        })
    }

    /// Every ping costs a round trip, so a busy connection is not asked: if it is dead, the
    /// statement says so.
    fn is_valid(&self, session: &mut Session) -> Result<(), postgres::Error> {
        match session.last_used.elapsed() <= TRUSTED_WHILE {
            true => Ok(()),
            false => session.client.is_valid(PING_TIMEOUT),
        }
    }

    fn has_broken(&self, session: &mut Session) -> bool {
        session.spent || session.client.is_closed()
    }
}

/// Why connections cannot be made: a line a second at the most, however many are tried.
#[derive(Debug, Default)]
struct LogOncePerSecond {
    last_seconds: AtomicU64,
}

impl r2d2::HandleError<postgres::Error> for LogOncePerSecond {
    fn handle_error(&self, error: postgres::Error) {
        let now = jiff::Timestamp::now().as_second().unsigned_abs();
        if self.last_seconds.swap(now, Ordering::Relaxed) != now {
            log::warn!(reason = cause(&error).as_str(); "no connection for the pool");
        }
    }
}

/// What became of a statement that failed.
#[derive(Clone, Copy)]
enum Fate {
    /// Rolled back for a reason that may be gone at the next try.
    Aborted,
    /// Not begun: what was prepared on this connection no longer fits the table, or is gone.
    Stale,
    /// The connection broke, or refuses to work; nobody knows whether the statement was done.
    Lost,
    /// Rolled back for a reason that passes by itself, but not at once.
    Passing,
    /// Rolled back for good.
    Refused,
}

impl Fate {
    /// By SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html).
    fn of(error: &postgres::Error) -> Self {
        let Some(state) = error.code() else {
            // No answer of the server: the connection. Otherwise a value could not be converted.
            let broken = error.is_closed() || source_is_io(error);
            return if broken { Self::Lost } else { Self::Refused };
        };
        match state {
            &SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED => {
                Self::Aborted
            }
            &SqlState::FEATURE_NOT_SUPPORTED | &SqlState::INVALID_SQL_STATEMENT_NAME => Self::Stale,
            &SqlState::QUERY_CANCELED | &SqlState::LOCK_NOT_AVAILABLE => Self::Passing,
            // A standby, or a primary that became one: a new connection may find the primary.
            &SqlState::READ_ONLY_SQL_TRANSACTION => Self::Lost,
            state if state.code().starts_with("08") || state.code().starts_with("57P") => {
                Self::Lost
            }
            state if state.code().starts_with("53") => Self::Passing,
            _ => Self::Refused,
        }
    }
}

fn failure(fate: Fate, error: &postgres::Error) -> Error {
    match fate {
        Fate::Aborted | Fate::Stale | Fate::Lost | Fate::Passing => {
            Error::Unavailable(cause(error))
        }
        Fate::Refused => match broken_rule(error) {
            Some(field_error) => Error::Invalid(vec![field_error]),
            None => Error::Database(cause(error)),
        },
    }
}

/// Bodies are checked before, so this is a row from before the rules, which a change of another
/// column of it would have to keep.
fn broken_rule(error: &postgres::Error) -> Option<FieldError> {
    let (name, msg, kind) = match error.as_db_error()?.constraint()? {
        "tasks_title_length" => ("title", "must be at most 200 characters", "too_long"),
        "tasks_title_not_blank" => ("title", "must not be empty or white space alone", "blank"),
        "tasks_description_length" => {
            ("description", "must be at most 1000 characters", "too_long")
        }
        _ => return None,
    };
    let loc = ("body", name);
    Some(FieldError { loc, msg, kind })
}

/// The whole chain, for the log.
pub fn cause(error: &postgres::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

fn source_is_io(error: &postgres::Error) -> bool {
    error
        .source()
        .is_some_and(|source| source.is::<std::io::Error>())
}

/// Says what is wrong with a `DATABASE_URL`, or that this service cannot do it.
pub fn check_url(url: &str) -> Result<(), String> {
    parse_url(url).map(|_| ())
}

fn parse_url(url: &str) -> Result<Config, String> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err("must begin with postgres://".to_owned());
    }
    // The driver's message names the parameter, never its value.
    let config: Config = url.parse().map_err(|error| cause(&error))?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err("names no host; give postgres://user:password@host/database".to_owned());
    }
    match config.get_ssl_mode() {
        SslMode::Disable | SslMode::Prefer => {}
        _ => return Err(
            "sslmode: encryption is not supported yet; use sslmode=disable on a trusted network"
                .to_owned(),
        ),
    }
    if config.get_channel_binding() == ChannelBinding::Require {
        return Err(
            "channel_binding=require needs encryption, which is not supported yet".to_owned(),
        );
    }
    Ok(config)
}

/// Makes connections with what `DATABASE_URL` says now.
#[derive(Clone)]
struct Connector {
    current: Arc<Mutex<Arc<PostgresConnectionManager<NoTls>>>>,
}

impl Connector {
    fn new(url: &str, session_settings: bool) -> Result<Self, String> {
        let manager = Arc::new(manager(url, session_settings)?);
        Ok(Self {
            current: Arc::new(Mutex::new(manager)),
        })
    }

    fn replace(&self, url: &str, session_settings: bool) -> Result<(), String> {
        *lock(&self.current) = Arc::new(manager(url, session_settings)?);
        Ok(())
    }

    fn connect(&self) -> Result<Client, postgres::Error> {
        let manager = Arc::clone(&lock(&self.current));
        manager.connect()
    }
}

fn manager(url: &str, session_settings: bool) -> Result<PostgresConnectionManager<NoTls>, String> {
    let mut config = parse_url(url)?;
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_application_name().is_none() {
        config.application_name("tinytasks");
    }
    if config
        .get_hosts()
        .iter()
        .any(|host| matches!(host, Host::Tcp(_)))
    {
        config.tcp_user_timeout(TCP_USER_TIMEOUT);
        config.keepalives_idle(TCP_USER_TIMEOUT);
    }
    // A pooler that cannot keep prepared statements does not take settings either.
    if session_settings {
        let given = config.get_options().unwrap_or_default();
        let options = format!("{STATEMENT_TIMEOUT} {given}");
        config.options(options.trim_end());
    }
    Ok(PostgresConnectionManager::new(config, NoTls))
}

/// One connection without the limits of the pool, for commands and the schema.
pub fn connect_once(url: &str) -> Result<Client, String> {
    let mut config = parse_url(url)?;
    config.connect_timeout(CONNECT_TIMEOUT);
    config.connect(NoTls).map_err(|error| cause(&error))
}

/// The values behind these locks are whole at every moment, so a panic elsewhere spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
