//! The serving loop: the one place that knows both the gate and the handlers. One pooled thread serves
//! one client to its end: read, answer, write. The accepting thread admits clients and hands them out;
//! the deadline thread ends what takes too long.

use super::large_answers::LargeAnswers;
use super::write::{Incomplete, write};
use crate::error::Error;
use crate::gate::{Accepted, Client, Connection, Gate, Received, Request};
use crate::http::{Answer, App, Face};
use crate::limits::{ACCEPT_RETRY, DEADLINE_INTERVAL, LINGER_IDLE, STACK_BYTES, TURNED_AWAY_MAX};
use crate::log_throttle::Throttle;
use crate::metrics;
use crate::threads::{every, guarded, lock, spawn};
use socket2::Socket;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

/// One listener with everything that is needed to serve its clients.
pub struct Service {
    pub gate: Gate,
    pub app: Arc<App>,
    pub face: Face,
    large_answers: LargeAnswers,
    /// Connections of clients that got a 503 because all places are taken, each with the time of that answer.
    /// They stay open for [`LINGER_IDLE`]: if the client sent more bytes to a closed connection, the kernel
    /// would reset the connection, and the client might never read its answer.
    turned_away: Mutex<VecDeque<(Instant, Connection)>>,
    /// For the lines that say that file descriptors or threads have run out.
    complaints: Throttle,
}

impl Service {
    /// Starts the accepting thread and the deadline thread. Errors: a thread cannot be started.
    pub fn start(gate: Gate, app: Arc<App>, face: Face, listener: Socket) -> io::Result<Arc<Self>> {
        let large_answers = LargeAnswers::default();
        let (turned_away, complaints) = (Mutex::default(), Throttle::default());
        let service = Arc::new(Self { gate, app, face, large_answers, turned_away, complaints });
        let (accepting, watching) = (Arc::clone(&service), Arc::clone(&service));
        spawn("accept", move || accepting.accept_clients(listener))?;
        every(DEADLINE_INTERVAL, "deadlines", move || watching.enforce_deadlines())?;
        Ok(service)
    }

    /// The accepting thread: admits clients until the service stops.
    fn accept_clients(self: &Arc<Self>, listener: Socket) {
        loop {
            let outcome = guarded(|| self.accept_client(&listener));
            let error = match outcome.unwrap_or_else(|bug| Err(io::Error::other(bug))) {
                Ok(true) => continue,
                Ok(false) => break,
                Err(error) => error,
            };
            // File descriptors or threads have run out. They become available when other clients end.
            self.complain("cannot accept a connection", &error);
            thread::sleep(ACCEPT_RETRY);
        }
        self.gate.finish_accepting(listener);
    }

    /// Waits a moment for one connection and serves or refuses it. Returns false when the service stops.
    fn accept_client(self: &Arc<Self>, listener: &Socket) -> io::Result<bool> {
        match self.gate.accept(listener)? {
            Accepted::Admitted(client) => {
                if let Err(error) = self.add_thread_if_missing() {
                    if !client.free_a_thread() {
                        return Err(error);
                    }
                    self.complain("an idle connection is closed, as no thread can be started", &error);
                }
                self.gate.hand_out(client);
            }
            Accepted::Full(connection, request) => self.turn_away(connection, &request),
            Accepted::Nobody => {}
            Accepted::Stopped => return Ok(false),
        }
        Ok(true)
    }

    /// Logs that file descriptors or threads have run out.
    fn complain(&self, what: &str, error: &io::Error) {
        if self.complaints.next_line().is_some() {
            log::error!(reason = error.to_string().as_str(); "{what}");
        }
    }

    fn add_thread_if_missing(self: &Arc<Self>) -> io::Result<()> {
        if !self.gate.registry.add_thread() {
            return Ok(());
        }
        let service = Arc::clone(self);
        let thread = thread::Builder::new().name("client".to_owned()).stack_size(STACK_BYTES);
        let started = thread.spawn(move || service.serve_clients());
        started.map(drop).inspect_err(|_| self.gate.registry.undo_add_thread())
    }

    /// Answers 503 and keeps the connection open for a while. This is the accepting thread, so it must not
    /// wait for a client: the connection is non-blocking, and a TLS client (`None`) gets no answer.
    fn turn_away(&self, connection: Option<Connection>, request: &Request) {
        let Some(connection) = connection else {
            log::warn!("a connection is closed, because all are taken");
            return;
        };
        let error = Error::Unavailable("all connections are taken".to_owned());
        let answer = self.app.refuse(self.face, request, error, Instant::now());
        answer.record(request);
        // An error is ignored: a new connection has room for this small answer unless the client is gone.
        let _ = connection.write(&answer.response.whole(request));
        connection.end_writing();
        let mut turned_away = lock(&self.turned_away);
        if turned_away.len() >= TURNED_AWAY_MAX {
            turned_away.pop_front();
        }
        turned_away.push_back((Instant::now(), connection));
    }

    /// A pooled thread: serves one client after another.
    fn serve_clients(&self) {
        while let Some(mut client) = self.gate.next_client() {
            // A panic ends only this client's connection. The panic hook has logged the message.
            let _ = guarded(|| self.serve_client(&mut client));
        }
    }

    /// Serves one client to its end.
    fn serve_client(&self, client: &mut Client) {
        while self.serve_request(client) {}
    }

    /// Serves a client's next request. Returns whether the connection stays open for another one.
    fn serve_request(&self, client: &mut Client) -> bool {
        let (request, answer) = match client.receive(&self.gate) {
            Received::Whole(request) => {
                client.connection.begin_answer(&request);
                let answer = self.app.answer(self.face, &request);
                if !client.connection.claim_answer() {
                    // The answer was late, and the deadline thread has already sent a 503 instead.
                    return false;
                }
                (request, answer)
            }
            Received::Refused(request, error) => {
                let answer = self.app.refuse(self.face, &request, error, Instant::now());
                (request, answer)
            }
            Received::Gone => return false,
        };
        // Evaluated only once, because the service may begin to stop at any moment, and the answer's
        // `Connection` field must agree with what is done with the connection afterwards.
        let is_last = request.is_last || self.gate.is_stopping();
        if !self.send(answer, &request, is_last, &client.connection) {
            return false;
        }
        if is_last {
            client.connection.linger();
            return false;
        }
        client.finish_answer(&self.gate);
        true
    }

    /// Logs an answer and writes it. Returns false if the answer could not be written completely; the
    /// connection must then be closed.
    fn send(&self, answer: Answer, request: &Request, is_last: bool, connection: &Arc<Connection>) -> bool {
        let bytes = answer.response.bytes_held();
        let (mut answer, share) = match self.large_answers.admit(bytes, request.user_id(), connection) {
            Ok(share) => (answer, share),
            Err(error) => (self.app.replace(request, answer, error), None),
        };
        // The memory of the body is counted now, so the next list may be made.
        answer.response.turn = None;
        answer.record(request);
        match write(answer.response, share, &self.large_answers, request, is_last, connection) {
            Ok(()) => true,
            Err(Incomplete::ClientGone) => false,
            Err(Incomplete::Failed(error)) => {
                let (id, reason) = (answer.request_id.as_str(), error.reason());
                log::error!(request_id = id, reason = reason.as_str(); "answer not completed");
                false
            }
        }
    }

    /// One round of the deadline thread. It never waits for a client, so every deadline is enforced in time.
    fn enforce_deadlines(&self) {
        for connection in self.gate.registry.connections() {
            connection.enforce_deadline();
            self.answer_if_late(&connection);
        }
        lock(&self.turned_away).retain(|(since, _)| since.elapsed() < LINGER_IDLE);
        if self.face == Face::Public {
            let counts = self.gate.registry.counts();
            metrics::set_client_connections(counts.idle, counts.busy, counts.max);
        }
    }

    /// Answers 503 if the answer is late because the serving thread is still waiting for a database that
    /// neither answers nor refuses.
    fn answer_if_late(&self, connection: &Connection) {
        let Some(late) = connection.claim_late_answer() else {
            return;
        };
        let reason = "there was no answer in time".to_owned();
        let is_read = ["GET", "HEAD", "OPTIONS"].contains(&late.request.method);
        let error = if is_read { Error::Unavailable(reason) } else { Error::Unknown(reason) };
        let answer = self.app.refuse(self.face, &late.request, error, late.since);
        answer.record(&late.request);
        let bytes = answer.response.whole(&late.request);
        late.write(&bytes);
    }
}
