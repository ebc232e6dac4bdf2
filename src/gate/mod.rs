//! Where hostile networks end. A thread reads one whole request from a client, passes it on to
//! tiny_http on an inner Unix socket, takes the next request that has come through, which may be
//! another client's, and writes its answer to whom it belongs; then it goes on with that client.
//!
//! Guarantees the first half of the invariant: behind the gate every request is whole, small,
//! well-formed, and written by us. No client makes it allocate beyond the limits in `read`, wait
//! beyond a deadline, or hold a lock during I/O. There are as many threads as clients, so one that
//! reads its answer slowly keeps nobody else waiting. Relies on [`Behind`] to give back each
//! request that was passed on, once.

mod client;
mod head;
mod inner;
mod read;
mod registry;
mod tls;

pub use client::Client;
pub use read::Head;
pub use registry::Registry;
pub use tls::Acceptor;

use crate::error::Error;
use crate::lock::lock;
use client::Connection;
use inner::Inner;
use read::{Reader, Stop};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
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
/// What the kernel may hold of an answer that a client does not read. It takes twice that.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
const STOP_POLL: Duration = Duration::from_millis(5);
/// For an answer to be there, longer than the database's own limits together; then 503.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(8500);
/// How exactly deadlines are kept.
const DEADLINE_POLL: Duration = Duration::from_millis(250);

/// What stands behind the gate: tiny_http, and what answers the requests that come through it.
pub trait Behind: Send + Sync + 'static {
    type Request;

    /// Where tiny_http listens.
    fn path(&self) -> &Path;

    /// The next request that came through, whosever it is, with its ticket. Waits for it.
    fn receive(&self) -> (u64, Self::Request);

    /// Does what it asks for.
    fn answer<'a>(&'a self, request: Self::Request, head: &'a Head) -> Answer<'a>;

    /// The answer to what is not passed on.
    fn refuse<'a>(&'a self, head: &'a Head, error: Error) -> Answer<'a>;
}

/// Writes an answer. Errors: it is not complete, and the connection must end.
pub type Answer<'a> = Box<dyn FnOnce(&mut Client) -> Result<(), ()> + 'a>;

pub struct Options {
    pub registry: Arc<Registry>,
    pub trusted_proxies: Vec<IpAddr>,
    pub tls: Option<Acceptor>,
}

pub struct Gate<B> {
    options: Options,
    behind: B,
    inner: Inner,
    address: SocketAddr,
    /// Those whose request was passed on, by the ticket that went with it, and since when. Who takes
    /// one out gives the answer.
    parked: Mutex<HashMap<u64, (Instant, Session)>>,
    is_stopping: Arc<AtomicBool>,
}

/// A client's connection, in the hands of one thread, or parked.
struct Session {
    id: u64,
    peer: IpAddr,
    reader: Reader,
    /// Of the latest request.
    head: Arc<Head>,
}

impl<B: Behind> Gate<B> {
    /// Listens, and serves from then on.
    pub fn start(listen: SocketAddr, options: Options, behind: B) -> io::Result<Arc<Self>> {
        let listener = TcpListener::bind(listen)?;
        // Once more, for a longer queue than the standard library's.
        socket2::SockRef::from(&listener).listen(BACKLOG)?;
        let gate = Arc::new(Self {
            options,
            inner: Inner::open(behind.path(), || drop(behind.receive()))?,
            behind,
            address: listener.local_addr()?,
            parked: Mutex::default(),
            is_stopping: Arc::default(),
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
        while Instant::now() < deadline && !self.options.registry.drain() {
            thread::sleep(STOP_POLL);
        }
    }

    fn enforce_deadlines(&self) {
        loop {
            self.options.registry.enforce_deadlines();
            self.give_up_late_answers();
            thread::sleep(DEADLINE_POLL);
        }
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        let mut complained: Option<Instant> = None;
        for id in 1.. {
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
        let time = if self.options.tls.is_some() { FIRST_TIMEOUT } else { IDLE_TIMEOUT };
        let connection = Arc::new(Connection::new(socket, time));
        if !self.options.registry.admit(id, &connection) {
            return self.turn_away(&connection, peer);
        }
        let client = Client::new(&connection, self.options.tls.as_ref(), &self.is_stopping);
        let (gate, head) = (Arc::clone(self), Arc::new(Head::of(peer)));
        let serve = move || match client {
            Ok(client) => gate.serve(Session { id, peer, reader: Reader::new(client), head }),
            Err(_) => gate.options.registry.forget(id),
        };
        let thread = thread::Builder::new().name("client".to_owned()).stack_size(STACK_BYTES).spawn(serve);
        thread.map(drop).inspect_err(|_| self.options.registry.forget(id))
    }

    /// 503 to a request that is not read, from the accepting thread: nothing here may wait.
    fn turn_away(&self, connection: &Arc<Connection>, peer: IpAddr) -> io::Result<()> {
        connection.wait_for_nothing()?;
        let head = Head { is_last: true, ..Head::of(peer) };
        let mut client = Client::new(connection, None, &self.is_stopping)?;
        let error = Error::Unavailable("all connections are taken".to_owned());
        // Who does not read it would not have read any other.
        let _ = self.behind.refuse(&head, error)(&mut client);
        client.close();
        Ok(())
    }

    fn serve(&self, session: Session) {
        let mut current = Some(session);
        while let Some(session) = current {
            current = self.turn(session);
        }
    }

    /// Reads a request, and answers one. Gives the client to go on with.
    fn turn(&self, mut session: Session) -> Option<Session> {
        let id = session.id;
        match session.read(&self.options.trusted_proxies) {
            Ok(message) => {
                lock(&self.parked).insert(id, (Instant::now(), session));
                match self.inner.pass(&message) {
                    Ok(()) => self.answer_next(),
                    Err(error) => self.refuse(self.unpark(id)?, error),
                }
            }
            Err(Stop::Refused(error)) => {
                session.end_with_this();
                self.refuse(session, error)
            }
            Err(Stop::Gone) => {
                self.options.registry.forget(id);
                None
            }
        }
    }

    /// None also when its client was told meanwhile that there is no answer in time: then this is
    /// one thread too many.
    fn answer_next(&self) -> Option<Session> {
        let (ticket, request) = self.behind.receive();
        let head = lock(&self.parked).get(&ticket).map(|(_, session)| Arc::clone(&session.head))?;
        let answer = self.behind.answer(request, &head);
        self.deliver(self.unpark(ticket)?, answer)
    }

    fn refuse(&self, session: Session, error: Error) -> Option<Session> {
        let head = Arc::clone(&session.head);
        self.deliver(session, self.behind.refuse(&head, error))
    }

    fn deliver(&self, mut session: Session, answer: Answer) -> Option<Session> {
        let answered = answer(&mut session.reader.client);
        let is_last = session.reader.client.is_last(&session.head);
        match answered {
            Ok(()) if !is_last => {
                session.reader.client.be_idle(IDLE_TIMEOUT);
                return Some(session);
            }
            Ok(()) => session.reader.client.close(),
            Err(()) => {}
        }
        self.options.registry.forget(session.id);
        None
    }

    /// 503 where the database neither answers nor refuses. Nothing here may wait.
    fn give_up_late_answers(&self) {
        let is_late = |since: &Instant| since.elapsed() >= ANSWER_TIMEOUT;
        let parked = lock(&self.parked);
        let late: Vec<_> =
            parked.iter().filter(|(_, (since, _))| is_late(since)).map(|(id, _)| *id).collect();
        drop(parked);
        for mut session in late.into_iter().filter_map(|id| self.unpark(id)) {
            session.end_with_this();
            let _ = session.reader.client.connection.wait_for_nothing();
            self.refuse(session, Error::Unavailable("there was no answer in time".to_owned()));
        }
    }

    fn unpark(&self, id: u64) -> Option<Session> {
        lock(&self.parked).remove(&id).map(|(_, session)| session)
    }
}

impl Session {
    /// The next request, as tiny_http will read it.
    fn read(&mut self, trusted: &[IpAddr]) -> Result<Vec<u8>, Stop> {
        self.reader.wait_for_request().map_err(|_| Stop::Gone)?;
        if !self.reader.client.leave_idleness() {
            return Err(Stop::Gone);
        }
        let mut head = Head::of(self.peer);
        let request = self.reader.request(&mut head, self.id, self.peer, trusted);
        self.head = Arc::new(head);
        self.reader.client.connection.wait_at_most(ANSWER_TIMEOUT * 2);
        request
    }

    /// The connection ends with the answer to this request.
    fn end_with_this(&mut self) {
        Arc::make_mut(&mut self.head).is_last = true;
    }
}
