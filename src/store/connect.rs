//! Makes a connection to PostgreSQL: tries one address after another, each for a limited time, and returns a
//! [`Session`], on which every call has a time limit.

use super::sqlstate::{cause, remedy};
use super::stream::{Deadline, NegotiationError, Negotiator};
use super::tls::Encryption;
use super::url::{DatabaseUrl, ServerAddress};
use crate::limits::CLOSE_MAX;
use crate::threads::guarded;
use postgres::Client;
use postgres::error::SqlState;
use postgres::types::{ToSql, Type};
use r2d2::ManageConnection;
use r2d2_postgres::PostgresConnectionManager;
use std::error::Error as _;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// A connection to PostgreSQL. Each use of it sets a time limit.
pub struct Session {
    client: Client,
    deadline: Arc<Deadline>,
    pub is_encrypted: bool,
}

impl Session {
    /// The driver's client, for calls that together take at most `limit`. A call that takes longer fails as if the
    /// connection had broken, and the connection cannot be used any more.
    ///
    /// This limit does not work on a Unix socket. It is not needed there: PostgreSQL runs on this machine, and the
    /// kernel ends the connection when PostgreSQL's process ends.
    pub fn within(&mut self, limit: Duration) -> &mut Client {
        self.deadline.set_after(limit);
        &mut self.client
    }

    /// Asks the server for an answer. Errors: none came within `limit`.
    pub fn ping(&mut self, limit: Duration) -> Result<(), postgres::Error> {
        // The driver's own limit is for Unix sockets, on which the limit of `within` does not work.
        self.within(limit).is_valid(limit * 2)
    }

    /// The deadline, for a caller that moves it while it still reads a result of [`Session::within`].
    pub fn deadline(&self) -> Arc<Deadline> {
        Arc::clone(&self.deadline)
    }

    /// Whether the connection is known to be broken. Does not ask the server.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

impl Drop for Session {
    /// When the driver's client is dropped, it sends a last message to the server. This limit keeps it from waiting
    /// for a server that takes no bytes.
    fn drop(&mut self) {
        self.deadline.set_after(CLOSE_MAX);
    }
}

/// Why no connection was made.
pub struct ConnectError {
    /// For each address, why no connection was made to it.
    pub reason: String,
    /// True if a server refused the connection because the server or the role has reached its connection limit.
    pub is_full: bool,
}

/// A run-time parameter of PostgreSQL and its value. Neither may contain spaces.
pub type Parameter = (&'static str, String);

const SILENCE_REMEDY: &str = "; look for a firewall, or for another program at this host and port";

/// Connects to the first address at which that succeeds within the URL's time limit for each address. The session
/// gets `settings`. Errors: the reason for each address.
pub fn connect(url: &DatabaseUrl, settings: &[Parameter]) -> Result<Session, String> {
    match connect_and_prepare(url, settings, |_| Ok(())) {
        Ok((session, ())) => Ok(session),
        Err(error) => Err(error.reason),
    }
}

/// Connects in another thread, and calls `meanwhile` again and again, with this pause, until that thread has ended.
/// The session has answered a statement, because a pooler may answer the log-in and let the first statement wait.
/// Errors: the reason for each address; no thread can be started.
pub fn connect_meanwhile(
    url: &DatabaseUrl,
    pause: Duration,
    mut meanwhile: impl FnMut(),
) -> Result<Session, String> {
    let attempt = || match connect_and_prepare(url, &[], |client| client.is_valid(url.connect_max)) {
        Ok((session, ())) => Ok(session),
        Err(error) => Err(error.reason),
    };
    thread::scope(|scope| {
        let (sender, outcome) = mpsc::sync_channel(1);
        let work = move || sender.send(guarded(attempt).unwrap_or_else(Err)).unwrap_or_default();
        let helper = thread::Builder::new().name("connect".to_owned()).spawn_scoped(scope, work);
        helper.map_err(|error| format!("cannot start a thread: {error}"))?;
        loop {
            match outcome.recv_timeout(pause) {
                Ok(connected) => return connected,
                Err(RecvTimeoutError::Timeout) => meanwhile(),
                Err(RecvTimeoutError::Disconnected) => return Err("the attempt has ended".to_owned()),
            }
        }
    })
}

/// The same as [`connect`], but `prepare` must also succeed within the time limit.
pub fn connect_and_prepare<T>(
    url: &DatabaseUrl,
    settings: &[Parameter],
    mut prepare: impl FnMut(&mut Client) -> Result<T, postgres::Error>,
) -> Result<(Session, T), ConnectError> {
    let addresses = url.addresses().map_err(|reason| ConnectError { reason, is_full: false })?;
    let (mut reasons, mut is_full) = (Vec::new(), false);
    for address in addresses {
        let deadline = Arc::new(Deadline::after(url.connect_max));
        let attempt = Attempt { url, address: &address, deadline };
        match attempt.open(settings).and_then(|mut session| {
            let prepared = prepare(&mut session.client)?;
            Ok((session, prepared))
        }) {
            Ok(connected) => return Ok(connected),
            Err(error) => {
                is_full |= error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS);
                let remedy = if is_silence(&error) { SILENCE_REMEDY } else { remedy(&error) };
                reasons.push(format!("{address}: {}{remedy}", cause(&error)));
                if is_silence(&error) {
                    url.mark_silent(address);
                }
            }
        }
    }
    Err(ConnectError { reason: reasons.join("; "), is_full })
}

/// One attempt to connect to one address. Its steps share one deadline.
struct Attempt<'u> {
    url: &'u DatabaseUrl,
    address: &'u ServerAddress,
    deadline: Arc<Deadline>,
}

impl Attempt<'_> {
    /// Connects and makes the settings, if possible by `options` in the start-up message. Some poolers refuse
    /// `options` (SQLSTATE 08P01; PgBouncer does unless `ignore_startup_parameters` lists it); then statements make
    /// the settings.
    fn open(&self, settings: &[Parameter]) -> Result<Session, postgres::Error> {
        if settings.is_empty() {
            return self.negotiate(None);
        }
        let options: Vec<_> = settings.iter().map(|(name, value)| format!("-c {name}={value}")).collect();
        match self.negotiate(Some(&options.join(" "))) {
            Err(error) if error.code() == Some(&SqlState::PROTOCOL_VIOLATION) => {
                let mut session = self.negotiate(None)?;
                for (name, value) in settings {
                    let values: [(&(dyn ToSql + Sync), Type); 2] = [(name, Type::TEXT), (value, Type::TEXT)];
                    session.client.query_typed("select set_config($1, $2, false)", &values)?;
                }
                Ok(session)
            }
            outcome => outcome,
        }
    }

    /// As in libpq, `sslmode=prefer` connects again without TLS if the handshake fails.
    fn negotiate(&self, options: Option<&str>) -> Result<Session, postgres::Error> {
        match (self.url.tls.encryption, self.start(self.url.tls.encryption, options)) {
            (Encryption::Preferred, Err(error)) if is_handshake_failure(&error) => {
                self.start(Encryption::Disabled, options)
            }
            (_, outcome) => outcome,
        }
    }

    fn start(&self, encryption: Encryption, options: Option<&str>) -> Result<Session, postgres::Error> {
        let deadline = Arc::clone(&self.deadline);
        let negotiator = Negotiator::new(encryption, self.url.tls.connector.clone(), Arc::clone(&deadline));
        let is_encrypted = negotiator.is_encrypted();
        let config = self.url.config_for(self.address, options);
        let client = PostgresConnectionManager::new(config, negotiator).connect()?;
        Ok(Session { client, deadline, is_encrypted: is_encrypted.load(Relaxed) })
    }
}

fn is_handshake_failure(error: &postgres::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref());
    matches!(source, Some(NegotiationError::Handshake(error)) if error.kind() != ErrorKind::TimedOut)
}

/// Whether the error means that the deadline passed without an answer.
pub fn is_silence(error: &postgres::Error) -> bool {
    let Some(source) = error.source() else {
        return false;
    };
    let io = match source.downcast_ref() {
        Some(NegotiationError::Handshake(error) | NegotiationError::Io(error)) => Some(error),
        _ => source.downcast_ref::<std::io::Error>(),
    };
    io.is_some_and(|error| error.kind() == ErrorKind::TimedOut)
}
