//! Where hostile networks end. A thread reads one whole request from a client, parks it, and sends a
//! ticket for it through tiny_http's loop; it takes the next ticket that comes out, which may be
//! another client's, and writes the answer to whom it belongs; then it goes on with that client.
//!
//! Guarantees the first half of the invariant: behind the gate every request is whole, small and
//! well-formed, and no byte of a client reaches tiny_http. No client makes it allocate beyond the
//! limits in `read`, wait beyond a deadline, or wait with a lock held. There are as many threads as
//! clients, so one that reads its answer slowly keeps nobody else waiting.

mod client;
mod dispatch;
mod head;
mod listen;
mod read;
mod registry;
mod tls;

pub use client::{Client, Connection};
pub use listen::Address;
pub use read::{Request, Stop};
pub use registry::Registry;
pub use tls::Acceptor;

use crate::error::Error;
use crate::panic::{every, guarded, lock};
use dispatch::Dispatch;
use listen::{accept, listen};
use read::Reader;
use registry::Place;
use socket2::{SockAddr, Socket};
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
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
/// What the kernel may hold of an answer that a client does not read. It takes twice that.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
const STOP_POLL: Duration = Duration::from_millis(5);
/// For an answer to be there, longer than a wait for a connection and a statement on it; then 503.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(8500);
/// How exactly deadlines are kept.
const DEADLINE_POLL: Duration = Duration::from_millis(250);

/// What stands behind the gate.
pub trait Behind: Send + Sync + 'static {
    /// Does what a request asks for; `received` is Err when the gate refuses it.
    fn answer<'a>(&'a self, request: &'a Request, received: Result<(), Error>) -> Answer<'a>;
}

/// Writes an answer, and the line about it. Errors: it is not complete, and the connection must end.
pub type Answer<'a> = Box<dyn FnOnce(&mut Client) -> Result<(), ()> + 'a>;

pub struct Options {
    pub registry: Arc<Registry>,
    /// None is whoever comes by the Unix socket.
    pub trusted_proxies: Vec<Option<IpAddr>>,
    pub tls: Option<Acceptor>,
}

pub struct Gate<B> {
    options: Options,
    behind: B,
    dispatch: Dispatch,
    pub address: Address,
    /// Those with a request under way, by its ticket, and since when. Who takes one out gives the
    /// answer.
    parked: Mutex<HashMap<u64, (Instant, Session)>>,
    is_stopping: Arc<AtomicBool>,
    /// Or about to hand on whom it has accepted.
    is_accepting: AtomicBool,
}

/// A client's connection, in the hands of one thread, or parked.
struct Session {
    id: u64,
    peer: Option<IpAddr>,
    reader: Reader,
    /// The latest.
    request: Arc<Request>,
    /// Given back however the session ends.
    _place: Place,
}

impl<B: Behind> Gate<B> {
    /// Listens there, or on what was inherited, and serves from then on.
    pub fn start(
        at: &SockAddr,
        inherited: Option<Socket>,
        options: Options,
        behind: B,
    ) -> io::Result<Arc<Self>> {
        let (listener, address) = listen(at, inherited)?;
        let gate = Arc::new(Self {
            options,
            dispatch: Dispatch::open()?,
            behind,
            address,
            parked: Mutex::default(),
            is_stopping: Arc::default(),
            is_accepting: true.into(),
        });
        let (accepting, watching) = (Arc::clone(&gate), Arc::clone(&gate));
        thread::Builder::new().name("accept".to_owned()).spawn(move || accepting.accept(&listener))?;
        every(DEADLINE_POLL, "deadlines", move || {
            watching.options.registry.enforce_deadlines();
            watching.give_up_late_answers();
        })?;
        Ok(gate)
    }

    /// Takes no new connection, closes the idle ones, and waits at most so long for the others.
    pub fn stop(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        self.address.leave();
        self.is_stopping.store(true, SeqCst);
        let is_over = || !self.is_accepting.load(SeqCst) && self.options.registry.drain();
        while Instant::now() < deadline && !is_over() {
            thread::sleep(STOP_POLL);
        }
    }

    fn accept(self: &Arc<Self>, listener: &Socket) {
        let mut complained: Option<Instant> = None;
        for id in 1.. {
            let admit = || accept(listener)?.map(|(socket, peer)| self.admit(id, socket, peer)).transpose();
            let accepted = guarded(admit, io::Error::other);
            if self.is_stopping.load(SeqCst) {
                if self.address.is_inherited || !matches!(accepted, Ok(Some(()))) {
                    break;
                }
                // Who queues already is answered; closing the listener would send resets.
                let _ = listener.set_nonblocking(true);
            }
            // No descriptor, or no thread: some will be free again. Waiting is all that helps.
            if let Err(error) = accepted {
                if complained.is_none_or(|last| last.elapsed() >= Duration::from_secs(1)) {
                    log::error!(reason = error.to_string().as_str(); "cannot accept a connection");
                    complained = Some(Instant::now());
                }
                thread::sleep(ACCEPT_RETRY);
            }
        }
        self.is_accepting.store(false, SeqCst);
    }

    fn admit(self: &Arc<Self>, id: u64, socket: Socket, peer: Option<IpAddr>) -> io::Result<()> {
        socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
        let time = if self.options.tls.is_some() { FIRST_TIMEOUT } else { IDLE_TIMEOUT };
        let connection = Arc::new(Connection::new(socket, time));
        let Some(place) = self.options.registry.admit(id, &connection) else {
            return self.turn_away(&connection, peer);
        };
        let client = Client::new(&connection, self.options.tls.as_ref(), &self.is_stopping)?;
        let (reader, request) = (Reader::new(client), Arc::new(Request::of(peer)));
        let (gate, session) = (Arc::clone(self), Session { id, peer, reader, request, _place: place });
        let thread = thread::Builder::new().name("client".to_owned()).stack_size(STACK_BYTES);
        thread.spawn(move || gate.serve(session)).map(drop)
    }

    /// 503 to a request that is not read, from the accepting thread: nothing here may wait.
    fn turn_away(&self, connection: &Arc<Connection>, peer: Option<IpAddr>) -> io::Result<()> {
        connection.set_nonblocking()?;
        let mut request = Request::of(peer);
        request.is_last = true;
        let mut client = Client::new(connection, None, &self.is_stopping)?;
        let error = Error::Unavailable("all connections are taken".to_owned());
        let answer = self.behind.answer(&request, Err(error));
        match self.options.tls {
            // Who does not read it would not have read any other.
            None => _ = answer(&mut client),
            // A handshake would have to be waited for.
            Some(_) => log::warn!("a connection is closed, as all are taken"),
        }
        client.close();
        Ok(())
    }

    fn serve(&self, session: Session) {
        let mut current = Some(session);
        while let Some(session) = current {
            current = self.serve_once(session);
        }
    }

    /// Reads a request, and answers one. Gives the client to go on with.
    fn serve_once(&self, mut session: Session) -> Option<Session> {
        let id = session.id;
        match session.read(&self.options.trusted_proxies) {
            Ok(()) => {
                lock(&self.parked).insert(id, (Instant::now(), session));
                self.dispatch.pass(id);
                self.answer_next()
            }
            Err(Some(error)) => {
                session.end_with_this();
                self.refuse(session, error)
            }
            Err(None) => None,
        }
    }

    /// None also when its client was told meanwhile that there is no answer in time: then this is
    /// one thread too many.
    fn answer_next(&self) -> Option<Session> {
        let ticket = self.dispatch.next();
        let request = lock(&self.parked).get(&ticket).map(|(_, session)| Arc::clone(&session.request))?;
        let answer = self.behind.answer(&request, Ok(()));
        self.deliver(self.unpark(ticket)?, answer)
    }

    fn refuse(&self, session: Session, error: Error) -> Option<Session> {
        let request = Arc::clone(&session.request);
        self.deliver(session, self.behind.answer(&request, Err(error)))
    }

    fn deliver(&self, mut session: Session, answer: Answer) -> Option<Session> {
        match answer(&mut session.reader.client) {
            Ok(()) if !session.reader.client.is_last => {
                // Who is idle keeps nothing.
                session.request = Arc::new(Request::of(session.peer));
                session.reader.client.be_idle(IDLE_TIMEOUT);
                Some(session)
            }
            Ok(()) => {
                session.reader.client.close();
                None
            }
            Err(()) => None,
        }
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
            let _ = session.reader.client.connection.set_nonblocking();
            let reason = "there was no answer in time".to_owned();
            let is_read = ["GET", "HEAD", "OPTIONS"].contains(&session.request.method);
            self.refuse(session, if is_read { Error::Unavailable(reason) } else { Error::Unknown(reason) });
        }
    }

    fn unpark(&self, id: u64) -> Option<Session> {
        lock(&self.parked).remove(&id).map(|(_, session)| session)
    }
}

impl Session {
    fn read(&mut self, trusted: &[Option<IpAddr>]) -> Result<(), Stop> {
        self.reader.wait_for_request().map_err(|_| None)?;
        if !self.reader.client.leave_idleness() {
            return Err(None);
        }
        let mut request = Request::of(self.peer);
        let outcome = self.reader.request(&mut request, trusted);
        self.request = Arc::new(request);
        self.reader.client.connection.set_deadline(ANSWER_TIMEOUT * 2);
        outcome
    }

    /// The connection ends with the answer to this request.
    fn end_with_this(&mut self) {
        Arc::make_mut(&mut self.request).is_last = true;
    }
}
