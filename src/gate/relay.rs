//! The inner side: a fixed set of connections to tiny_http, taken for one request and given back.
//! So at most that many requests are in flight, and tiny_http never sees a burst of connects, in
//! which its thread pool would lose some for ever.

use super::frame;
use crate::error::Error;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// For a free connection; then 503.
const TAKE_TIMEOUT: Duration = Duration::from_secs(1);
/// For an answer: longer than the database's own limits together.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(8500);
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// Answered by the loop itself, without a log line.
const PING: &[u8] = b"GET / HTTP/1.1\r\nGate-Ping: 1\r\n\r\n";

pub struct Inner {
    path: PathBuf,
    /// None is one to be opened: the last one broke.
    free: Mutex<Vec<Option<UnixStream>>>,
    freed: Condvar,
    /// Held while one is opened: never two at once.
    opening: Mutex<()>,
}

impl Inner {
    pub fn open(path: &Path, size: usize) -> io::Result<Self> {
        let inner = Self {
            path: path.to_owned(),
            free: Mutex::default(),
            freed: Condvar::new(),
            opening: Mutex::default(),
        };
        for _ in 0..size {
            inner.give_back(Some(inner.connect()?));
        }
        Ok(inner)
    }

    /// Passes one request on, and its answer to `deliver`, part by part. An answer of one part is
    /// taken off the connection whole, and that given back, before it is delivered. Errors:
    /// `Unavailable` when nothing was delivered; the inner one when not all could be.
    pub fn exchange(
        &self,
        message: &[u8],
        mut deliver: impl FnMut(Vec<u8>) -> io::Result<()>,
    ) -> Result<io::Result<()>, Error> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.freed.wait_timeout_while(free, TAKE_TIMEOUT, |free| free.is_empty());
        let taken = waited.unwrap_or_else(PoisonError::into_inner).0.pop();
        let taken = taken.ok_or_else(|| Error::Unavailable("no worker is free".to_owned()))?;
        let asked = taken.map_or_else(|| self.connect(), Ok).and_then(|mut connection| {
            let first = ask(&mut connection, message)?;
            Ok((connection, first))
        });
        let (mut connection, (mut part, mut has_more)) = asked.map_err(|error| {
            self.give_back(None);
            Error::Unavailable(format!("no answer from the worker: {error}"))
        })?;
        while has_more {
            let next = deliver(part).and_then(|()| receive(&mut connection));
            match next {
                Ok(next) => (part, has_more) = next,
                Err(error) => {
                    self.give_back(None);
                    return Ok(Err(error));
                }
            }
        }
        self.give_back(Some(connection));
        Ok(deliver(part))
    }

    fn give_back(&self, connection: Option<UnixStream>) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        self.freed.notify_one();
    }

    /// Opened, and a first request answered on it: tiny_http has a thread for it.
    fn connect(&self) -> io::Result<UnixStream> {
        let _one_at_a_time = self.opening.try_lock().map_err(|_| io::ErrorKind::WouldBlock)?;
        let mut connection = UnixStream::connect(&self.path).inspect_err(|error| {
            // Its listener went away with tiny_http's accepting thread. A new process is better
            // than one that is alive and deaf.
            log::error!(reason = error.to_string().as_str(); "the HTTP loop is gone");
            std::process::exit(1);
        })?;
        connection.set_read_timeout(Some(PING_TIMEOUT))?;
        connection.set_write_timeout(Some(PING_TIMEOUT))?;
        ask(&mut connection, PING)?;
        connection.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(connection)
    }
}

/// A part of an answer, and whether more follow.
type Part = (Vec<u8>, bool);

fn ask(connection: &mut UnixStream, message: &[u8]) -> io::Result<Part> {
    connection.write_all(message)?;
    receive(connection)
}

fn receive(connection: &mut UnixStream) -> io::Result<Part> {
    let mut length = [0; 4];
    connection.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    let has_more = length & frame::MORE != 0;
    let length = u64::from(length & !frame::MORE);
    if length > frame::BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut part = Vec::new();
    let read = connection.take(length).read_to_end(&mut part)?;
    if read as u64 == length { Ok((part, has_more)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
