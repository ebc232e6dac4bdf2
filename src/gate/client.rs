//! A client's connection: its stream, in the clear or through TLS, and the deadline at which the
//! gate ends it, however slowly bytes trickle.

use super::tls::Acceptor;
use rustls::{ServerConnection, StreamOwned};
use socket2::Socket;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// For [`WRITE_BYTES`] of an answer: a client that reads more slowly is dropped.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
const WRITE_BYTES: usize = 64 * 1024;
/// After the last answer a client may still be sending. Reading some of it keeps the kernel from
/// sending a reset, which would take the answer away (RFC 9112 section 9.6).
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
const DRAIN_BYTES_MAX: u64 = 256 * 1024;
/// Between the end of reading and the end of writing, for a last word.
const GRACE_MILLIS: u64 = 1000;

/// A connection as others than its own thread see it.
pub struct Connection {
    socket: Socket,
    began: Instant,
    /// In milliseconds from `began`, as is `idle_since`.
    deadline: AtomicU64,
    idle_since: AtomicU64,
    state: AtomicU8,
}

/// Before the first byte of a request.
const IDLE: u8 = 0;
/// From then to the end of the answer.
const BUSY: u8 = 1;
/// A request that is here already is the last.
const ENDING: u8 = 2;
const ENDED: u8 = 3;

impl Connection {
    /// Idle for so long at most.
    pub fn new(socket: Socket, time: Duration) -> Self {
        let (deadline, idle_since, state) = Default::default();
        let connection = Self { socket, began: Instant::now(), deadline, idle_since, state };
        connection.set_deadline(time);
        connection
    }

    pub fn set_nonblocking(&self) -> io::Result<()> {
        self.socket.set_nonblocking(true)
    }

    fn millis(&self, time: Duration) -> u64 {
        u64::try_from((self.began.elapsed() + time).as_millis()).unwrap_or(u64::MAX)
    }

    /// Counts from now, for all that is read or written until the next call.
    pub fn set_deadline(&self, time: Duration) {
        self.deadline.store(self.millis(time), SeqCst);
    }

    /// By how many milliseconds.
    fn late(&self) -> Option<u64> {
        self.millis(Duration::ZERO).checked_sub(self.deadline.load(SeqCst))
    }

    /// Ends the reading of one that is late, and soon after the writing.
    pub fn enforce_deadline(&self) {
        match self.late() {
            Some(late) if late > GRACE_MILLIS => self.cut(),
            Some(_) => self.shutdown(Shutdown::Read),
            None => {}
        }
    }

    /// What the kernel still holds for a client that does not read goes at once.
    pub fn cut(&self) {
        let _ = self.socket.set_linger(Some(Duration::ZERO));
        self.shutdown(Shutdown::Both);
    }

    fn shutdown(&self, how: Shutdown) {
        // An error means that the client was first.
        let _ = self.socket.shutdown(how);
    }

    /// None if it is not idle.
    pub fn idle_since(&self) -> Option<Instant> {
        let since = || self.began + Duration::from_millis(self.idle_since.load(SeqCst));
        (self.state.load(SeqCst) == IDLE).then(since)
    }

    /// Closes it if it is idle.
    pub fn evict(&self) -> bool {
        let is_evicted = self.move_on(IDLE, ENDED);
        if is_evicted {
            self.shutdown(Shutdown::Both);
        }
        is_evicted
    }

    /// Ends the wait for a request if it is idle.
    pub fn end_idleness(&self) {
        if self.move_on(IDLE, ENDING) {
            self.shutdown(Shutdown::Read);
        }
    }

    fn move_on(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, SeqCst, SeqCst).is_ok()
    }
}

trait Stream: Read + Write + Send {
    /// Tells the other side that nothing follows.
    fn finish(&mut self) {}
}

impl Stream for Plain {}

impl Stream for StreamOwned<ServerConnection, Plain> {
    fn finish(&mut self) {
        self.conn.send_close_notify();
        let _ = self.flush();
    }
}

struct Plain(Arc<Connection>);

impl Read for Plain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.0.socket).read(buffer)
    }
}

impl Write for Plain {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&self.0.socket).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection as the thread that has it in hand sees it.
pub struct Client {
    stream: Box<dyn Stream>,
    pub connection: Arc<Connection>,
    is_stopping: Arc<AtomicBool>,
    /// So the client was told.
    pub is_last: bool,
}

impl Client {
    /// With TLS, the handshake comes with the first read.
    pub fn new(
        connection: &Arc<Connection>,
        tls: Option<&Acceptor>,
        is_stopping: &Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let (plain, connection) = (Plain(Arc::clone(connection)), Arc::clone(connection));
        let stream: Box<dyn Stream> = match tls {
            Some(tls) => Box::new(StreamOwned::new(tls.connection()?, plain)),
            None => Box::new(plain),
        };
        Ok(Self { stream, connection, is_stopping: Arc::clone(is_stopping), is_last: false })
    }

    /// Errors: `TimedOut` at the deadline, `UnexpectedEof` at the client's end.
    pub fn read<'b>(&mut self, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
        let read = self.stream.read(buffer);
        match read.ok().and_then(|read| buffer.get(..read)) {
            Some(bytes) if !bytes.is_empty() => Ok(bytes),
            _ if self.connection.late().is_some() => Err(io::ErrorKind::TimedOut.into()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Whether the connection ends with this answer. It is asked once for each: what the client is
    /// told holds.
    pub fn decide_last(&mut self, as_asked: bool) -> bool {
        self.is_last = as_asked || self.is_stopping.load(SeqCst);
        self.is_last
    }

    pub fn write(&mut self, answer: &[u8]) -> io::Result<()> {
        for slice in answer.chunks(WRITE_BYTES) {
            self.connection.set_deadline(WRITE_TIMEOUT);
            self.stream.write_all(slice)?;
            self.stream.flush()?;
        }
        // What follows may have to be made before.
        self.connection.set_deadline(WRITE_TIMEOUT);
        Ok(())
    }

    /// False if the connection was evicted meanwhile.
    pub fn leave_idleness(&self) -> bool {
        [IDLE, ENDING].into_iter().any(|state| self.connection.move_on(state, BUSY))
    }

    pub fn be_idle(&self, time: Duration) {
        self.connection.set_deadline(time);
        self.connection.idle_since.store(self.connection.millis(Duration::ZERO), SeqCst);
        self.connection.move_on(BUSY, IDLE);
    }

    /// After the last answer: our side is closed, and theirs read for a while.
    pub fn close(mut self) {
        self.connection.set_deadline(DRAIN_TIMEOUT);
        self.stream.finish();
        self.connection.shutdown(Shutdown::Write);
        let _ = io::copy(&mut Plain(self.connection).take(DRAIN_BYTES_MAX), &mut io::sink());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub mod tests {
    use super::{Client, Connection, Stream};
    use std::io::{self, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::{Arc, Mutex, mpsc};
    use std::thread;
    use std::time::Duration;

    /// What a client sends, in memory: so many bytes with each read, then the end.
    struct Memory {
        bytes: Vec<u8>,
        piece: usize,
        seen: Arc<Seen>,
    }

    #[derive(Default)]
    pub struct Seen {
        /// How much of what the client sends was read.
        pub read: AtomicUsize,
        /// What it got.
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

    /// A connection with no deadline near.
    pub fn connection() -> Arc<Connection> {
        let (connection, _) = late(Duration::ZERO);
        connection.set_deadline(Duration::from_secs(3600));
        Arc::new(connection)
    }

    /// So long ago that it was to be idle until then, and its other end.
    pub fn late(time: Duration) -> (Connection, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let other = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut connection = Connection::new(listener.accept().unwrap().0.into(), Duration::ZERO);
        connection.began -= time;
        (connection, other)
    }

    #[test]
    fn who_is_late_can_be_told_and_who_is_very_late_is_cut_off() {
        let (connection, mut other) = late(Duration::ZERO);
        assert!(connection.late().is_some());
        connection.enforce_deadline();
        assert_eq!((&connection.socket).read(&mut [0]).unwrap(), 0);
        (&connection.socket).write_all(b"late").unwrap();
        other.read_exact(&mut [0; 4]).unwrap();
        let (connection, _other) = late(Duration::from_secs(5));
        connection.enforce_deadline();
        assert_eq!((&connection.socket).write(b"too late").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(connection.socket.linger().unwrap(), Some(Duration::ZERO));
        connection.set_deadline(Duration::from_secs(5));
        assert!(connection.late().is_none());
    }

    #[test]
    fn only_who_is_idle_is_evicted() {
        let connection = Arc::new(late(Duration::from_secs(5)).0);
        let (client, _) = client(&connection, b"", 1);
        assert!(connection.idle_since().is_some() && client.leave_idleness());
        assert!(connection.idle_since().is_none() && !connection.evict());
        client.be_idle(Duration::from_secs(5));
        assert!(connection.idle_since().unwrap().elapsed() < Duration::from_secs(1));
        assert!(connection.evict() && connection.idle_since().is_none());
        assert!(!connection.evict() && !client.leave_idleness());
    }

    #[test]
    fn who_waits_for_nothing_does_not_wait() {
        let (connection, _other) = late(Duration::ZERO);
        connection.set_nonblocking().unwrap();
        let (sender, read) = mpsc::channel();
        thread::spawn(move || sender.send((&connection.socket).read(&mut [0]).map_err(|error| error.kind())));
        assert_eq!(read.recv_timeout(Duration::from_secs(10)), Ok(Err(io::ErrorKind::WouldBlock)));
    }

    /// A client that has sent these bytes, and what is seen of it.
    pub fn client(connection: &Arc<Connection>, bytes: &[u8], piece: usize) -> (Client, Arc<Seen>) {
        let seen = Arc::new(Seen::default());
        let memory = Memory { bytes: bytes.to_owned(), piece, seen: Arc::clone(&seen) };
        let (connection, is_stopping) = (Arc::clone(connection), Arc::default());
        (Client { stream: Box::new(memory), connection, is_stopping, is_last: false }, seen)
    }
}
