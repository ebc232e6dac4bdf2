//! The inner side: a fixed set of connections to tiny_http. What goes through them is a ticket for
//! each request, a request itself; the answer does not come this way.

use crate::error::Error;
use crate::lock::lock;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// As many as the threads that tiny_http keeps for ever, so each has one. A further one might be
/// queued behind them and never be read from.
const SIZE: usize = 4;
/// For a free connection; then 503.
const TAKE_TIMEOUT: Duration = Duration::from_secs(1);
/// For tiny_http to take a request.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

pub struct Inner {
    path: PathBuf,
    /// None is one to be opened: the last one broke.
    free: Mutex<Vec<Option<UnixStream>>>,
    freed: Condvar,
}

impl Inner {
    /// Opens one after the other, with a first request on each that `take` has to receive.
    pub fn open(path: &Path, mut take: impl FnMut()) -> io::Result<Self> {
        let inner = Self { path: path.to_owned(), free: Mutex::default(), freed: Condvar::new() };
        for _ in 0..SIZE {
            let mut connection = inner.connect()?;
            write(&mut connection, 0)?;
            take();
            inner.give_back(Some(connection));
        }
        Ok(inner)
    }

    /// Passes a ticket on. Errors: `Unavailable`, and it was not.
    pub fn pass(&self, ticket: u64) -> Result<(), Error> {
        let free = lock(&self.free);
        let waited = self.freed.wait_timeout_while(free, TAKE_TIMEOUT, |free| free.is_empty());
        let taken = waited.unwrap_or_else(PoisonError::into_inner).0.pop();
        let taken = taken.ok_or_else(|| Error::Unavailable("no inner connection is free".to_owned()))?;
        let passed = taken.map_or_else(|| self.connect(), Ok).and_then(|mut connection| {
            write(&mut connection, ticket)?;
            Ok(connection)
        });
        let (connection, outcome) = match passed {
            Ok(connection) => (Some(connection), Ok(())),
            Err(error) => (None, Err(Error::Unavailable(format!("the inner connection broke: {error}")))),
        };
        self.give_back(connection);
        outcome
    }

    fn give_back(&self, connection: Option<UnixStream>) {
        lock(&self.free).push(connection);
        self.freed.notify_one();
    }

    fn connect(&self) -> io::Result<UnixStream> {
        let connection = UnixStream::connect(&self.path).inspect_err(|error| {
            // Its listener went away with tiny_http's accepting thread. A new process is better
            // than one that is alive and deaf. Any other error passes: no descriptor is free.
            if [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotFound].contains(&error.kind()) {
                log::error!(reason = error.to_string().as_str(); "the HTTP loop is gone");
                std::process::exit(1);
            }
        })?;
        connection.set_write_timeout(Some(WRITE_TIMEOUT))?;
        Ok(connection)
    }
}

/// Nothing is in it that came from a client.
fn write(connection: &mut UnixStream, ticket: u64) -> io::Result<()> {
    connection.write_all(format!("GET /{ticket} HTTP/1.1\r\n\r\n").as_bytes())
}
