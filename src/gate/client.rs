//! A client in the hands of the one thread that serves it.

use super::Gate;
use super::connection::Connection;
use super::listen::ip;
use super::read::{Reader, Stop};
use super::registry::Admission;
use super::request::Request;
use crate::error::Error;
use socket2::SockAddr;
use std::sync::Arc;

pub struct Client {
    pub connection: Arc<Connection>,
    /// The address of the socket's other end. Kept since the connection was accepted, because a socket
    /// whose connection was reset no longer knows it.
    peer: SockAddr,
    reader: Reader,
    /// Given back when the client ends, however it ends.
    admission: Admission,
}

/// The outcome of waiting for a client's next request.
pub enum Received {
    /// A request that is whole and well-formed.
    Whole(Arc<Request>),
    /// A request that the gate refuses, as far as it was understood. The connection ends with its answer.
    Refused(Arc<Request>, Error),
    /// The client has ended the connection, was idle for too long, or was evicted.
    Gone,
}

impl Client {
    pub(super) fn new(connection: Arc<Connection>, peer: SockAddr, admission: Admission) -> Self {
        Self { reader: Reader::new(Arc::clone(&connection)), connection, peer, admission }
    }

    /// Closes the connection that is idle longest, so that its thread can serve this client. False where no
    /// other is idle.
    pub fn free_a_thread(&self) -> bool {
        self.admission.free_a_thread()
    }

    /// Waits for the next request and reads it.
    pub fn receive(&mut self, gate: &Gate) -> Received {
        if self.reader.wait_for_request().is_err() || !self.connection.become_busy() {
            self.log_failed_handshake(gate);
            return Received::Gone;
        }
        let mut request = Request::unread(ip(&self.peer));
        match self.reader.read(&mut request, &gate.trusted_proxies) {
            Ok(()) => Received::Whole(Arc::new(request)),
            Err(Stop::Refused(error)) => {
                request.is_last = true;
                Received::Refused(Arc::new(request), error)
            }
            Err(Stop::Gone) => Received::Gone,
        }
    }

    fn log_failed_handshake(&self, gate: &Gate) {
        let Some(reason) = self.connection.handshake_failure() else {
            return;
        };
        if !gate.address.is_own_probe(&self.peer) {
            gate.failed_handshakes.log(ip(&self.peer), &reason);
        }
    }

    /// Says that the answer is written, and that the next request may come.
    pub fn finish_answer(&self, gate: &Gate) {
        self.connection.become_idle(gate.idle_timeout);
    }
}
