//! A client as the one thread that serves it sees it: waits for its requests and reads them.

use super::Gate;
use super::connection::Connection;
use super::listen::ip;
use super::read::{Reader, Stop};
use super::registry::Admission;
use super::request::Request;
use crate::error::Error;
use log::kv::Value;
use socket2::SockAddr;
use std::sync::Arc;

pub struct Client {
    pub connection: Arc<Connection>,
    /// The address of the socket's other end, stored when the connection was accepted: after a reset the
    /// socket no longer knows it.
    peer: SockAddr,
    reader: Reader,
    /// The client's place in the registry. Dropping the client gives it back, even after a panic.
    admission: Admission,
}

/// The outcome of waiting for a client's next request.
pub enum Received {
    /// A request that is whole and well-formed.
    Whole(Arc<Request>),
    /// A request that the gate refuses, with the parts that were understood. The connection ends after the
    /// answer.
    Refused(Arc<Request>, Error),
    /// The client has ended the connection, was idle for too long, or was evicted.
    Gone,
}

impl Client {
    /// The number of the client. No other client of its listener has it.
    pub fn id(&self) -> u64 {
        self.admission.id()
    }

    pub(super) fn new(connection: Arc<Connection>, peer: SockAddr, admission: Admission) -> Self {
        Self { reader: Reader::new(Arc::clone(&connection)), connection, peer, admission }
    }

    /// Closes the connection that has been idle longest, so that its thread can serve this client. Returns
    /// false if no other connection is idle.
    pub fn free_a_thread(&self) -> bool {
        self.admission.free_a_thread()
    }

    /// Waits for the next request and reads it.
    pub fn receive(&mut self, gate: &Gate) -> Received {
        if self.reader.wait_for_request().is_err() {
            self.log_failed_handshake(gate);
            return Received::Gone;
        }
        let mut request = Request::unread(ip(&self.peer));
        if !self.connection.status.become_busy() {
            // It was evicted at the moment at which its next request began to arrive.
            request.is_last = true;
            let error = Error::Unavailable("all connections are taken".to_owned());
            return Received::Refused(Arc::new(request), error);
        }
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
        if gate.address.is_own_probe(&self.peer) {
            return;
        }
        if let Some(not_logged) = gate.failed_handshakes.next_line() {
            let client = ip(&self.peer);
            let client = client.as_ref().map_or(Value::from("unix"), Value::from_display);
            log::info!(client, reason = reason.as_str(), not_logged; "TLS handshake failed");
        }
    }

    /// Marks the connection as idle after its answer is written: from now on it waits for the next request.
    pub fn finish_answer(&self, gate: &Gate) {
        self.connection.status.become_idle(gate.idle_timeout);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::connection::tests::connection_with;
    use super::super::registry::Registry;
    use super::{Arc, Client, Error, Gate, Received, SockAddr};
    use std::net::SocketAddr;
    use std::time::Duration;

    /// The bytes in memory are there although the connection has been evicted. So this is the moment at which the
    /// thread has read the beginning of a request and has not marked the connection as busy yet.
    #[test]
    fn a_client_that_is_evicted_while_its_request_arrives_gets_an_answer() {
        let registry = Arc::new(Registry::new(1));
        let address = SocketAddr::from(([127, 0, 0, 1], 0)).into();
        let timeout = Duration::from_secs(60);
        let (gate, _listener) =
            Gate::open(&address, None, Arc::clone(&registry), Vec::new(), None, timeout).unwrap();
        let (connection, _) = connection_with(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 100);
        let admission = registry.admit(&connection).unwrap();
        let mut client = Client::new(Arc::clone(&connection), SockAddr::unix("peer").unwrap(), admission);
        assert!(connection.evict());
        let received = client.receive(&gate);
        assert!(matches!(received, Received::Refused(request, Error::Unavailable(_)) if request.is_last));
    }
}
