//! The inner side: a fixed set of connections to tiny_http, taken for one request and given back.
//! So at most that many requests are in flight, and tiny_http never sees a burst of connects, in
//! which its thread pool would lose some for ever.

use super::frame;
use crate::error::Error;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// For a free connection; then 503.
const TAKE_TIMEOUT: Duration = Duration::from_secs(1);
/// For an answer: longer than the database's own limits together.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(8500);
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// Parts of answers up to here are as many as there are clients; all larger ones share the other.
const SMALL_BYTES_MAX: u64 = 64 * 1024;
const LARGE_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Answered by the loop itself, without a log line.
const PING: &[u8] = b"GET / HTTP/1.1\r\nGate-Ping: 1\r\n\r\n";

pub struct Inner {
    path: PathBuf,
    /// None is one to be opened: the last one broke.
    free: Mutex<Vec<Option<UnixStream>>>,
    freed: Condvar,
    /// Held while one is opened: never two at once.
    opening: Mutex<()>,
    /// What all large parts of answers take that are here.
    large_bytes: AtomicU64,
}

/// A part of an answer, and whether more follow. It counts among the large ones while it lasts;
/// None is one too many, which was dropped.
struct Part<'i> {
    bytes: Vec<u8>,
    has_more: bool,
    room: Option<Room<'i>>,
}

struct Room<'i>(&'i AtomicU64, u64);

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, SeqCst);
    }
}

impl Inner {
    pub fn open(path: &Path, size: usize) -> io::Result<Self> {
        let inner = Self {
            path: path.to_owned(),
            free: Mutex::default(),
            freed: Condvar::new(),
            opening: Mutex::default(),
            large_bytes: AtomicU64::default(),
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
        let mut free = waited.unwrap_or_else(PoisonError::into_inner).0;
        // One that has to be opened is the last choice: only one at a time can be.
        let live = free.iter().rposition(Option::is_some);
        let taken = live.map(|index| free.swap_remove(index)).or_else(|| free.pop());
        drop(free);
        let taken = taken.ok_or_else(|| Error::Unavailable("no worker is free".to_owned()))?;
        let asked = taken.map_or_else(|| self.connect(), Ok).and_then(|mut connection| {
            let first = self.ask(&mut connection, message)?;
            Ok((connection, first))
        });
        let (mut connection, mut part) = asked.map_err(|error| {
            self.give_back(None);
            Error::Unavailable(format!("no answer from the worker: {error}"))
        })?;
        if part.room.is_none() {
            self.give_back(Some(connection).filter(|_| !part.has_more));
            return Err(Error::Unavailable("too many large answers are being read".to_owned()));
        }
        while part.has_more {
            let next = deliver(part.bytes).and_then(|()| self.receive(&mut connection));
            match next.and_then(|next| {
                if next.room.is_some() { Ok(next) } else { Err(io::ErrorKind::OutOfMemory.into()) }
            }) {
                Ok(next) => part = next,
                Err(error) => {
                    self.give_back(None);
                    return Ok(Err(error));
                }
            }
        }
        self.give_back(Some(connection));
        Ok(deliver(part.bytes))
    }

    fn ask(&self, connection: &mut UnixStream, message: &[u8]) -> io::Result<Part<'_>> {
        connection.write_all(message)?;
        self.receive(connection)
    }

    fn receive(&self, connection: &mut UnixStream) -> io::Result<Part<'_>> {
        let mut length = [0; 4];
        connection.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        let has_more = length & frame::MORE != 0;
        let length = u64::from(length & !frame::MORE);
        if length > frame::BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (mut bytes, room) = (Vec::new(), self.room(length));
        let mut whole = connection.take(length);
        let read = match room {
            Some(_) => whole.read_to_end(&mut bytes)? as u64,
            None => io::copy(&mut whole, &mut io::sink())?,
        };
        let part = Part { bytes, has_more, room };
        if read == length { Ok(part) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// None while large parts take all the memory that they may take, unless it is the only one.
    fn room(&self, length: u64) -> Option<Room<'_>> {
        let length = if length > SMALL_BYTES_MAX { length } else { 0 };
        let before = self.large_bytes.fetch_add(length, SeqCst);
        let room = Room(&self.large_bytes, length);
        (length == 0 || before == 0 || before + length <= LARGE_BYTES_MAX).then_some(room)
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
            // than one that is alive and deaf. Any other error passes: no descriptor is free.
            if [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotFound].contains(&error.kind()) {
                log::error!(reason = error.to_string().as_str(); "the HTTP loop is gone");
                std::process::exit(1);
            }
        })?;
        connection.set_read_timeout(Some(PING_TIMEOUT))?;
        connection.set_write_timeout(Some(PING_TIMEOUT))?;
        self.ask(&mut connection, PING)?;
        connection.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(connection)
    }
}
