//! Everything hostile about the network ends here: bytes of a client → one whole, small, well-formed
//! request, and the bytes of the answer back. The gate calls no handler: the serving loop asks the gate
//! for clients and their requests.
//!
//! Guarantees the first half of the invariant: behind the gate every request is whole, small and
//! well-formed, and no byte of a client reaches tiny_http. A client cannot make the gate allocate
//! beyond `limits`, wait beyond a deadline, or wait while it holds a lock that others need. Each
//! client has a thread of its own, so a slow one keeps nobody else waiting.

mod client;
mod connection;
mod forwarded;
mod handout;
mod head; //       trusted core
mod listen;
mod read; //       trusted core
mod registry;
mod request; //    trusted core
mod salvage;
mod status;
mod stream;
mod tls;
mod x509; //       dates and names of a certificate

pub use client::{Client, Received};
pub use connection::Connection;
pub use listen::Address;
pub use registry::Registry;
pub use request::Request;
pub use tls::Certificate;
pub use x509::Complaint;

use crate::limits::{DRAIN_INTERVAL, HANDSHAKE_TIMEOUT, SEND_BUFFER_BYTES, THREAD_IDLE};
use crate::log_throttle::Throttle;
use handout::Handout;
use listen::{accept, ip, listen};
use socket2::{SockAddr, Socket};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

/// The gate of one listener.
pub struct Gate {
    pub address: Address,
    pub registry: Arc<Registry>,
    /// Peers whose `X-Forwarded-For` or `Forwarded` field names the client's address. None stands for any peer
    /// on a Unix socket.
    trusted_proxies: Vec<Option<IpAddr>>,
    certificate: Option<Arc<Certificate>>,
    /// For the lines about failed TLS handshakes.
    failed_handshakes: Throttle,
    idle_timeout: Duration,
    handout: Handout,
    is_stopping: AtomicBool,
    /// True until the accepting thread has handed over its last client.
    is_accepting: AtomicBool,
}

/// The outcome of waiting for a connection.
pub enum Accepted {
    Admitted(Client),
    /// All places are taken. The non-blocking connection serves to tell the client so. It is None with TLS,
    /// because sending an answer would mean waiting for the handshake. Of the request, only the client's
    /// address is known.
    Full(Option<Connection>, Request),
    /// No connection came within `ACCEPT_TIMEOUT`.
    Nobody,
    /// The service stops, and no connection is left in the queue.
    Stopped,
}

impl Gate {
    /// Listens at `address`, or on the inherited socket. Returns the gate, and the listener for the accepting
    /// thread, which closes it after its last connection.
    pub fn open(
        address: &SockAddr,
        inherited: Option<Socket>,
        registry: Arc<Registry>,
        trusted_proxies: Vec<Option<IpAddr>>,
        certificate: Option<Arc<Certificate>>,
        idle_timeout: Duration,
    ) -> io::Result<(Self, Socket)> {
        let (listener, address) = listen(address, inherited)?;
        let gate = Self {
            address,
            registry,
            trusted_proxies,
            certificate,
            failed_handshakes: Throttle::default(),
            idle_timeout,
            handout: Handout::open()?,
            is_stopping: AtomicBool::new(false),
            is_accepting: AtomicBool::new(true),
        };
        Ok((gate, listener))
    }

    /// Waits at most `ACCEPT_TIMEOUT` for a connection and admits it. Only the accepting thread calls this.
    pub fn accept(&self, listener: &Socket) -> io::Result<Accepted> {
        let is_stopping = self.is_stopping();
        if is_stopping {
            // An inherited socket stays open in another process, so the connections in its queue are not lost.
            if self.address.is_inherited {
                return Ok(Accepted::Stopped);
            }
            // Connections that are already in the queue are still served, because closing the listener would
            // reset them. A non-blocking listener reports at once that the queue is empty.
            listener.set_nonblocking(true)?;
        }
        match accept(listener) {
            Ok(Some((socket, peer))) => self.admit(socket, peer),
            _ if is_stopping => Ok(Accepted::Stopped),
            Ok(None) => Ok(Accepted::Nobody),
            Err(error) => Err(error),
        }
    }

    fn admit(&self, socket: Socket, peer: SockAddr) -> io::Result<Accepted> {
        socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
        let tls = self.certificate.as_deref().map(Certificate::connection).transpose()?;
        let is_tls = tls.is_some();
        let time = if is_tls { HANDSHAKE_TIMEOUT } else { self.idle_timeout };
        let connection = Arc::new(Connection::new(socket, tls, time));
        if let Some(admission) = self.registry.admit(&connection) {
            return Ok(Accepted::Admitted(Client::new(connection, peer, admission)));
        }
        connection.set_nonblocking()?;
        let connection = Arc::into_inner(connection).filter(|_| !is_tls);
        let mut request = Request::unread(ip(&peer));
        request.is_last = true;
        Ok(Accepted::Full(connection, request))
    }

    /// Gives an admitted client to a pooled thread. The caller must have started a thread for each admitted
    /// client.
    pub fn hand_out(&self, client: Client) {
        self.handout.give(client);
    }

    /// Waits for the next client. Returns None if there are more threads than clients; the calling thread must
    /// then end.
    pub fn next_client(&self) -> Option<Client> {
        loop {
            let client = self.handout.take(THREAD_IDLE);
            if client.is_some() {
                return client;
            }
            if self.registry.remove_spare_thread() {
                return None;
            }
        }
    }

    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(SeqCst)
    }

    /// Closes the listener: unless another process holds the socket too, the kernel then refuses connections.
    /// The accepting thread calls this after it has handed over its last client.
    pub fn finish_accepting(&self, listener: Socket) {
        drop(listener);
        self.is_accepting.store(false, SeqCst);
    }

    /// Makes the accepting thread end once the queue is empty. From now on each answer is the last one on its
    /// connection.
    pub fn stop_accepting(&self) {
        self.address.leave();
        self.is_stopping.store(true, SeqCst);
    }

    /// Closes idle connections, and waits at most `patience` until all connections have ended.
    pub fn drain(&self, patience: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < patience && (self.is_accepting.load(SeqCst) || !self.registry.drain(begun)) {
            thread::sleep(DRAIN_INTERVAL);
        }
    }
}
