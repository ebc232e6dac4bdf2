//! Where hostile networks end. A thread for each client connection reads one whole request, passes
//! it on to tiny_http on an inner Unix socket, writes one whole answer, and repeats.
//!
//! Guarantees the first half of the invariant: behind the gate every request is whole, small,
//! well-formed, and written by us. No client makes it allocate beyond the limits in `read`, wait
//! beyond a deadline, or hold a lock during I/O. Relies on what is behind the inner socket for one
//! framed message a request, and on [`Refuse`] for answers to what is not passed on.

mod client;
mod head;
mod read;
mod relay;
mod tls;

pub use read::Head;
pub use tls::Acceptor;

use crate::error::Error;
use client::{Client, Connection, with_close};
use read::{Reader, Stop};
use relay::Inner;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Between two requests; then a silent close.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// With TLS, before the first request: the handshake comes with its first byte.
const FIRST_TIMEOUT: Duration = Duration::from_secs(10);
/// Enough for a TLS handshake; untouched pages cost nothing.
const STACK_BYTES: usize = 256 * 1024;
/// Connections that the kernel may hold until they are accepted.
const BACKLOG: i32 = 4096;
/// Inner connections beside those of the workers.
pub const ASIDE: usize = 2;
/// What the kernel may hold of an answer that a client does not read. It takes twice that.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// The descriptor limit has to bear so many.
const CONNECTIONS_MIN: usize = 32;
const STOP_POLL: Duration = Duration::from_millis(5);
/// For an answer to be there; the inner side gives up before.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How exactly deadlines are kept.
const DEADLINE_POLL: Duration = Duration::from_millis(250);

/// How an answer travels from tiny_http's workers to the gate: in parts, each behind its length as
/// four bytes, big-endian, with a flag.
pub mod frame {
    /// Another part follows.
    pub const MORE: u32 = 1 << 31;
    /// Instead of a length: the answer breaks off here.
    pub const BROKEN: u32 = 1 << 30;
    /// Below [`BROKEN`], and below what "HTTP" is as a length, should tiny_http answer by itself.
    pub const BYTES_MAX: u64 = (1 << 30) - 1;
}

/// Makes and logs the answer to a request that is not passed on.
pub type Refuse = Box<dyn Fn(Head, Error) -> Vec<u8> + Send + Sync>;

pub struct Options {
    pub connections_max: usize,
    pub trusted_proxies: Vec<IpAddr>,
    pub tls: Option<Acceptor>,
}

pub struct Gate {
    options: Options,
    refuse: Refuse,
    inner: Inner,
    /// For what waits for nothing, so that it never waits behind what does.
    aside: Inner,
    address: SocketAddr,
    connections: Mutex<HashMap<u64, Arc<Connection>>>,
    is_stopping: AtomicBool,
}

impl Gate {
    /// Listens, and serves from then on. tiny_http listens on the path `inner` and answers so many
    /// requests at once as there are `workers`.
    pub fn start(
        listen: SocketAddr,
        options: Options,
        inner: &Path,
        workers: usize,
        refuse: Refuse,
    ) -> io::Result<Arc<Self>> {
        let listener = TcpListener::bind(listen)?;
        // Once more, for a longer queue than the standard library's.
        socket2::SockRef::from(&listener).listen(BACKLOG)?;
        let gate = Arc::new(Self {
            options,
            refuse,
            inner: Inner::open(inner, workers)?,
            aside: Inner::open(inner, ASIDE)?,
            address: listener.local_addr()?,
            connections: Mutex::default(),
            is_stopping: AtomicBool::new(false),
        });
        let (accepting, watching) = (Arc::clone(&gate), Arc::clone(&gate));
        thread::Builder::new().name("accept".to_owned()).spawn(move || accepting.accept(&listener))?;
        thread::Builder::new().name("deadlines".to_owned()).spawn(move || watching.enforce_deadlines())?;
        Ok(gate)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no new connection, closes the idle ones, and waits at most so long for the others.
    pub fn stop(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        self.is_stopping.store(true, SeqCst);
        // Wakes the accepting thread, which then drops the listener.
        let ip = if self.address.ip().is_unspecified() { [127, 0, 0, 1].into() } else { self.address.ip() };
        drop(TcpStream::connect_timeout(&SocketAddr::new(ip, self.address.port()), ACCEPT_RETRY));
        while Instant::now() < deadline && !self.connections().is_empty() {
            self.connections().values().for_each(|connection| _ = connection.evict());
            thread::sleep(STOP_POLL);
        }
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enforce_deadlines(&self) {
        loop {
            self.connections().values().for_each(|connection| connection.enforce_deadline());
            thread::sleep(DEADLINE_POLL);
        }
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        let mut complained: Option<Instant> = None;
        for id in 0.. {
            let accepted = listener.accept();
            if self.is_stopping.load(SeqCst) {
                return;
            }
            // No descriptor, or no thread: some will be free again. Waiting is all that helps.
            if let Err(error) =
                accepted.and_then(|(socket, peer)| self.admit(id, socket, peer.ip().to_canonical()))
            {
                if complained.is_none_or(|last| last.elapsed() >= Duration::from_secs(1)) {
                    log::error!(reason = error.to_string().as_str(); "cannot accept a connection");
                    complained = Some(Instant::now());
                }
                thread::sleep(ACCEPT_RETRY);
            }
        }
    }

    fn admit(self: &Arc<Self>, id: u64, socket: TcpStream, peer: IpAddr) -> io::Result<()> {
        socket.set_nodelay(true)?;
        socket2::SockRef::from(&socket).set_send_buffer_size(SEND_BUFFER_BYTES)?;
        if !self.make_room() {
            return self.turn_away(&socket, peer);
        }
        let time = if self.options.tls.is_some() { FIRST_TIMEOUT } else { IDLE_TIMEOUT };
        let connection = Arc::new(Connection::new(socket, time));
        self.connections().insert(id, Arc::clone(&connection));
        let gate = Arc::clone(self);
        let serve = move || {
            // An error is the client's: it is gone, too slow, or speaks no TLS.
            let _ = gate.serve(&connection, peer);
            gate.connections().remove(&id);
        };
        let thread = thread::Builder::new().name("client".to_owned()).stack_size(STACK_BYTES).spawn(serve);
        thread.map(drop).inspect_err(|_| drop(self.connections().remove(&id)))
    }

    /// At the limit, the connection that is idle longest makes room. False where none is idle.
    fn make_room(&self) -> bool {
        let mut connections = self.connections();
        while connections.len() >= self.options.connections_max {
            let idle = connections.iter().filter_map(|(id, one)| Some((one.idle_since()?, *id)));
            let Some((_, id)) = idle.min() else {
                return false;
            };
            if connections.get(&id).is_some_and(|connection| connection.evict()) {
                connections.remove(&id);
            }
        }
        true
    }

    /// 503 to a request that is not read, from the accepting thread: nothing here may wait.
    fn turn_away(&self, mut socket: &TcpStream, peer: IpAddr) -> io::Result<()> {
        let head = Head { client: peer.to_string(), ..Head::default() };
        let answer = (self.refuse)(head, Error::Unavailable("all connections are taken".to_owned()));
        if self.options.tls.is_none() {
            socket.set_nonblocking(true)?;
            let _ = socket.write(&with_close(answer)).and_then(|_| socket.shutdown(Shutdown::Write));
            let _ = socket.read(&mut [0; 4096]);
        }
        Ok(())
    }

    fn side(&self, message: &[u8]) -> &Inner {
        let is_health =
            [b"GET /health ".as_slice(), b"HEAD /health "].iter().any(|line| message.starts_with(line));
        if is_health { &self.aside } else { &self.inner }
    }

    fn serve(&self, connection: &Arc<Connection>, peer: IpAddr) -> io::Result<()> {
        let mut reader = Reader::new(Client::new(connection, self.options.tls.as_ref())?);
        loop {
            reader.wait_for_request()?;
            if !reader.client.leave_idleness() {
                return Ok(());
            }
            let mut head = Head::default();
            let request = reader.request(&mut head, peer, &self.options.trusted_proxies);
            connection.wait_at_most(ANSWER_TIMEOUT);
            let is_last = head.is_last || matches!(request, Err(Stop::Refused(_)));
            let is_last = || is_last || self.is_stopping.load(SeqCst);
            let answered = match request {
                Ok(message) => self.side(&message).exchange(&message, reader.client.deliver(&is_last)),
                Err(Stop::Refused(error)) => Err(error),
                Err(Stop::Gone(error)) => return Err(error),
            };
            answered.unwrap_or_else(|error| reader.client.deliver(&is_last)((self.refuse)(head, error)))?;
            if is_last() {
                reader.client.close();
                return Ok(());
            }
            reader.client.be_idle(IDLE_TIMEOUT);
        }
    }
}

/// As many client connections as are wanted, or as the descriptor limit bears when the service
/// itself needs `own`. Errors: it bears hardly any.
pub fn connections_max(wanted: usize, own: usize) -> Result<usize, String> {
    // "Max open files <soft> <hard> files", proc(5).
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(usize::MAX);
    match soft.saturating_sub(own) {
        room if room < CONNECTIONS_MIN => Err(format!(
            "the limit of open files (ulimit -n) is {soft}; make it {} or more",
            own + CONNECTIONS_MIN
        )),
        room => Ok(wanted.min(room)),
    }
}
