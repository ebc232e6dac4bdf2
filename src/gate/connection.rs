//! A client's connection, shared by several threads: one serves it, and the deadline thread and the accepting
//! thread may end it at any time. None of them waits for another: the lock in [`Status`] is never held during a
//! system call on the socket, and the deadline thread gives a late answer only when the lock on the stream is
//! free.

use super::request::Request;
use super::status::{Phase, Status};
use super::stream::{Plain, Stream, Tls};
use crate::limits::{
    FINAL_ANSWER_TIMEOUT, LATE_ANSWER, LINGER_BYTES_MAX, LINGER_BYTES_PER_SECOND_MIN, LINGER_IDLE,
    LINGER_INTERVAL, LINGER_MAX, READ_BYTES, WRITE_BYTES, WRITE_TIMEOUT,
};
use crate::threads::lock;
use rustls::ServerConnection;
use socket2::Socket;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

pub struct Connection {
    socket: Arc<Socket>,
    pub status: Status,
    /// Locked during each read and each write, and not locked while an answer is made.
    exchange: Mutex<Exchange>,
}

struct Exchange {
    stream: Box<dyn Stream>,
    /// The request whose answer is being made, and the moment at which that began. The thread that takes the
    /// request out gives the answer.
    pending: Option<(Instant, Arc<Request>)>,
}

impl Connection {
    /// A connection whose first request must begin within `time`. With TLS, the first read does the handshake.
    pub fn new(socket: Socket, tls: Option<ServerConnection>, time: Duration) -> Self {
        let socket = Arc::new(socket);
        let plain = Plain::new(Arc::clone(&socket));
        let stream: Box<dyn Stream> = match tls {
            Some(tls) => Box::new(Tls::new(tls, plain)),
            None => Box::new(plain),
        };
        let exchange = Mutex::new(Exchange { stream, pending: None });
        Self { socket, status: Status::new(time), exchange }
    }

    /// Waits for bytes and returns those that have arrived. Errors: `TimedOut` after the deadline,
    /// `UnexpectedEof` when the client or another thread has ended the connection.
    pub fn read<'b>(&self, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
        let read = lock(&self.exchange).stream.read(buffer).unwrap_or(0);
        match buffer.get(..read) {
            Some(bytes) if !bytes.is_empty() => Ok(bytes),
            _ if self.status.overdue().is_some() => Err(io::ErrorKind::TimedOut.into()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Why the client's TLS handshake failed. None if it did not fail, or if the service itself has ended the
    /// connection.
    pub fn handshake_failure(&self) -> Option<String> {
        let exchange = lock(&self.exchange);
        let reason = exchange.stream.handshake_failure().filter(|_| self.status.is(Phase::Idle))?;
        let is_late = self.status.overdue().is_some();
        Some(if is_late { "it was not finished in time".to_owned() } else { reason.to_owned() })
    }

    /// Writes all the bytes, in pieces of 64 KiB; each piece has a deadline of its own.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut exchange = lock(&self.exchange);
        for piece in bytes.chunks(WRITE_BYTES) {
            self.status.set_deadline(WRITE_TIMEOUT);
            exchange.stream.write_all(piece)?;
            exchange.stream.flush()?;
        }
        // The deadline starts anew, because the next part of the answer may have to be made before it is written.
        self.status.set_deadline(WRITE_TIMEOUT);
        Ok(())
    }

    /// Records that the answer to `request` is being made from now on.
    pub fn begin_answer(&self, request: &Arc<Request>) {
        self.status.set_deadline(LATE_ANSWER * 2);
        lock(&self.exchange).pending = Some((Instant::now(), Arc::clone(request)));
    }

    /// Claims the right to write the answer that was made. Returns false if the answer is late and the deadline
    /// thread has already sent a 503 instead.
    pub fn claim_answer(&self) -> bool {
        lock(&self.exchange).pending.take().is_some()
    }

    /// Claims the right to answer a request in place of the thread that is late with it. None if no answer is
    /// late.
    pub fn claim_late_answer(&self) -> Option<LateAnswer<'_>> {
        let mut exchange = match self.exchange.try_lock() {
            Ok(exchange) => exchange,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // The serving thread is reading or writing, so no answer is being made.
            Err(TryLockError::WouldBlock) => return None,
        };
        let is_late = exchange.pending.as_ref().is_some_and(|(since, _)| since.elapsed() >= LATE_ANSWER);
        if !is_late {
            return None;
        }
        let (since, request) = exchange.pending.take()?;
        Some(LateAnswer { since, request, connection: self, exchange })
    }

    /// Ends the connection after the last answer: closes our side, then reads and drops the bytes that the client
    /// still sends, all through one small buffer. The reason is at [`LINGER_IDLE`].
    pub fn linger(&self) {
        let begun = Instant::now();
        // `finish` writes with TLS, so it needs a deadline too.
        self.status.set_deadline(LINGER_IDLE);
        lock(&self.exchange).stream.finish();
        self.end_writing();
        self.status.begin_to_linger();
        let (mut buffer, mut dropped, mut last_byte) = ([0; READ_BYTES], 0, begun);
        loop {
            let at_rate = Duration::from_secs(dropped / LINGER_BYTES_PER_SECOND_MIN);
            let end = (last_byte + LINGER_IDLE).min(begun + (LINGER_IDLE + at_rate).min(LINGER_MAX));
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || dropped >= LINGER_BYTES_MAX {
                return;
            }
            self.status.set_deadline(left);
            match (&*self.socket).read(&mut buffer) {
                Ok(0) if self.is_only_reading_shut_down() => thread::sleep(LINGER_INTERVAL),
                // The client has closed the connection, or it was evicted or cut.
                Ok(0) | Err(_) => return,
                Ok(read) => {
                    dropped += read as u64;
                    last_byte = Instant::now();
                }
            }
        }
    }

    /// Whether a read that returns no bytes does so only because our reading side is shut down, while the
    /// connection still lingers.
    fn is_only_reading_shut_down(&self) -> bool {
        self.status.is_reading_ended() && self.status.is(Phase::Lingering)
    }

    /// Shuts down the reading side of a connection whose deadline has passed. A second later, cuts the connection.
    pub fn enforce_deadline(&self) {
        match self.status.overdue() {
            Some(overdue) if overdue > FINAL_ANSWER_TIMEOUT => self.cut(),
            Some(_) => self.end_reading(),
            None => {}
        }
    }

    /// Shuts down the reading side. Bytes that have arrived can still be read; no read waits for more.
    fn end_reading(&self) {
        self.status.note_reading_ended();
        self.shutdown(Shutdown::Read);
    }

    /// Shuts down the writing side after the last answer, unless the reading side is already shut down (after a
    /// 408). Then the writing side stays open until the socket is closed, because Linux sends a reset when bytes
    /// arrive at a socket that is shut down in both directions.
    pub fn end_writing(&self) {
        if !self.status.is_reading_ended() {
            self.shutdown(Shutdown::Write);
        }
    }

    /// Ends the connection at once. The kernel drops the bytes that it has not sent to the client yet.
    pub fn cut(&self) {
        let _ = self.socket.set_linger(Some(Duration::ZERO));
        self.shutdown(Shutdown::Both);
    }

    /// Makes the socket non-blocking: no read and no write waits from now on.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        self.socket.set_nonblocking(true)
    }

    /// Closes the connection if it is idle or lingers. Returns whether it did. A connection is not idle if its next
    /// request has begun to arrive, even if its thread has not had time to read it.
    pub fn evict(&self) -> bool {
        if self.status.evict_from(Phase::Lingering) {
            self.shutdown(Shutdown::Both);
            return true;
        }
        if self.has_unread() || !self.status.evict_from(Phase::Idle) {
            return false;
        }
        // The thread may be reading the beginning of a request at this moment, and then writes an answer. It must
        // not wait for that, because the deadline thread no longer knows this connection.
        let _ = self.set_nonblocking();
        self.end_reading();
        true
    }

    /// Whether bytes have arrived that no thread has read yet. Does not wait.
    fn has_unread(&self) -> bool {
        // MSG_PEEK and MSG_DONTWAIT of Linux: recv(2).
        const LOOK: i32 = 0x02 | 0x40;
        let looked = self.socket.recv_with_flags(&mut [MaybeUninit::uninit()], LOOK);
        looked.is_ok_and(|count| count > 0)
    }

    /// If the connection is idle, ends its wait for a request; a request that has arrived can still be read. If
    /// the connection lingers, closes it.
    pub fn end_idleness(&self) {
        if self.status.end_idleness() {
            self.end_reading();
        } else if self.status.evict_from(Phase::Lingering) {
            self.shutdown(Shutdown::Both);
        }
    }

    fn shutdown(&self, how: Shutdown) {
        // An error means that the connection has ended already.
        let _ = self.socket.shutdown(how);
    }
}

/// The right to answer one request in place of the thread that is late with it.
pub struct LateAnswer<'c> {
    pub since: Instant,
    pub request: Arc<Request>,
    connection: &'c Connection,
    exchange: MutexGuard<'c, Exchange>,
}

impl LateAnswer<'_> {
    /// Writes the answer without waiting, and closes our side of the connection.
    pub fn write(mut self, answer: &[u8]) {
        // An error is ignored: if there is no room for this small answer, the client has not even read the
        // answers before it.
        let _ = self.connection.set_nonblocking();
        let _ = self.exchange.stream.write_all(answer).and_then(|()| self.exchange.stream.flush());
        self.exchange.stream.finish();
        self.connection.end_writing();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub mod tests {
    use super::{Connection, LATE_ANSWER, Stream};
    use crate::gate::request::Request;
    use std::io::{self, Read, Write};
    use std::mem::MaybeUninit;
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::{Arc, Mutex, mpsc};
    use std::thread;
    use std::time::Duration;

    /// A client in memory: each read returns one piece of `bytes`, then the end of the stream.
    struct Memory {
        bytes: Vec<u8>,
        piece: usize,
        seen: Arc<Seen>,
    }

    #[derive(Default)]
    pub struct Seen {
        /// The number of bytes that were read from the client.
        pub read: AtomicUsize,
        /// The bytes that were written to the client.
        pub written: Mutex<Vec<u8>>,
    }

    impl Stream for Memory {}

    impl Read for Memory {
        fn read(&mut self, mut buffer: &mut [u8]) -> io::Result<usize> {
            let rest = self.bytes.get(self.seen.read.load(SeqCst)..).unwrap_or_default();
            let count = buffer.write(rest.get(..self.piece).unwrap_or(rest))?;
            self.seen.read.fetch_add(count, SeqCst);
            Ok(count)
        }
    }

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.seen.written.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A connection whose deadline is an hour away, and the client's end of it.
    pub fn connection() -> (Arc<Connection>, TcpStream) {
        let (connection, other) = opened_before(Duration::ZERO);
        connection.status.set_deadline(Duration::from_secs(3600));
        (Arc::new(connection), other)
    }

    /// A connection whose deadline passed `time` ago, and the client's end of it.
    pub fn opened_before(time: Duration) -> (Connection, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let other = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = listener.accept().unwrap().0.into();
        let connection = Connection::new(accepted, None, Duration::ZERO);
        connection.status.age(time);
        (connection, other)
    }

    /// A connection whose client has sent `bytes`, which are read in pieces of `piece` bytes. `Seen` shows how
    /// much was read, and what was written to the client.
    pub fn connection_with(bytes: &[u8], piece: usize) -> (Arc<Connection>, Arc<Seen>) {
        let seen = Arc::new(Seen::default());
        let (connection, _) = connection();
        let memory = Memory { bytes: bytes.to_owned(), piece, seen: Arc::clone(&seen) };
        connection.exchange.lock().unwrap().stream = Box::new(memory);
        (connection, seen)
    }

    #[test]
    fn a_late_connection_can_be_written_to_for_a_second_and_is_then_cut() {
        let (connection, mut other) = opened_before(Duration::ZERO);
        assert!(connection.status.overdue().is_some());
        connection.enforce_deadline();
        assert_eq!((&*connection.socket).read(&mut [0]).unwrap(), 0);
        (&*connection.socket).write_all(b"late").unwrap();
        other.read_exact(&mut [0; 4]).unwrap();
        let (connection, _other) = opened_before(Duration::from_secs(5));
        connection.enforce_deadline();
        let error = (&*connection.socket).write(b"too late").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(connection.socket.linger().unwrap(), Some(Duration::ZERO));
        connection.status.set_deadline(Duration::from_secs(5));
        assert!(connection.status.overdue().is_none());
    }

    #[test]
    fn only_an_idle_connection_is_evicted() {
        let (connection, mut other) = opened_before(Duration::from_secs(5));
        let status = &connection.status;
        assert!(status.idle_since().is_some() && status.become_busy());
        assert!(status.idle_since().is_none() && !connection.evict());
        status.become_idle(Duration::from_secs(5));
        assert!(status.idle_since().unwrap().elapsed() < Duration::from_secs(1));
        assert!(connection.evict() && status.idle_since().is_none());
        assert!(!connection.evict() && !status.become_busy());
        assert_eq!((&*connection.socket).read(&mut [0]).unwrap(), 0);
        (&*connection.socket).write_all(b"503").unwrap();
        other.read_exact(&mut [0; 3]).unwrap();
    }

    #[test]
    fn a_nonblocking_read_does_not_wait() {
        let (connection, _other) = connection();
        connection.set_nonblocking().unwrap();
        let (sender, read) = mpsc::channel();
        thread::spawn(move || {
            sender.send((&*connection.socket).read(&mut [0]).map_err(|error| error.kind()))
        });
        assert_eq!(read.recv_timeout(Duration::from_secs(10)), Ok(Err(io::ErrorKind::WouldBlock)));
    }

    /// When a client is too slow, the deadline thread shuts down the reading side before the client gets its
    /// 408. Bytes that the client still sends must not cause a reset, because that could destroy the 408.
    #[test]
    fn what_comes_after_the_end_of_reading_is_dropped_while_the_connection_lingers() {
        let (connection, mut other) = connection();
        assert!(connection.status.become_busy());
        connection.end_reading();
        let lingering = Arc::clone(&connection);
        let lingering = thread::spawn(move || lingering.linger());
        for _ in 0..2 {
            other.write_all(b"x").unwrap();
            while connection.socket.peek(&mut [MaybeUninit::uninit()]).unwrap() > 0 {
                assert!(!lingering.is_finished());
                thread::yield_now();
            }
        }
        // An evicted connection waits for nothing any more.
        assert!(connection.is_only_reading_shut_down() && connection.evict());
        assert!(!connection.is_only_reading_shut_down());
    }

    /// Each pending request is answered exactly once: by its own thread, or by the deadline thread once the
    /// answer is late.
    #[test]
    fn a_request_is_answered_once_however_late_it_is() {
        let (connection, mut other) = connection();
        let request = Arc::new(Request::unread(None));
        assert!(connection.claim_late_answer().is_none() && !connection.claim_answer());
        connection.begin_answer(&request);
        assert!(connection.claim_late_answer().is_none(), "it is not late yet");
        assert!(connection.claim_answer() && !connection.claim_answer());
        connection.begin_answer(&request);
        let mut exchange = connection.exchange.lock().unwrap();
        exchange.pending.as_mut().unwrap().0 -= LATE_ANSWER;
        assert!(connection.claim_late_answer().is_none(), "the stream is in use");
        drop(exchange);
        connection.claim_late_answer().unwrap().write(b"503");
        assert!(!connection.claim_answer() && connection.claim_late_answer().is_none());
        let mut answer = Vec::new();
        other.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"503");
    }
}
