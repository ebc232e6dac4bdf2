//! The tiny_http loop: worker threads, one request in, one answer out. The only module that knows
//! tiny_http.

use super::request::{Request, method};
use super::{App, respond};
use crate::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Twice the default number of connections to PostgreSQL: some workers parse and write meanwhile.
const WORKERS: usize = 16;
const BODY_BYTES_MAX: u64 = 64 * 1024;
const DRAIN_POLL: Duration = Duration::from_millis(5);

pub struct Server {
    inner: Arc<tiny_http::Server>,
    workers: Vec<JoinHandle<()>>,
    stopping: Arc<AtomicBool>,
    address: SocketAddr,
}

impl Server {
    /// Listens, and serves from then on.
    pub fn start(app: &Arc<App>, address: SocketAddr) -> Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| format!("cannot listen on {address}: {error}");
        let listener = TcpListener::bind(address).map_err(|error| failed(&error))?;
        let address = listener.local_addr().map_err(|error| failed(&error))?;
        let inner = tiny_http::Server::from_listener(listener, None).map_err(|error| failed(&error))?;
        let inner = Arc::new(inner);
        let stopping = Arc::new(AtomicBool::new(false));
        let work = |index| {
            let (app, inner, stopping) = (Arc::clone(app), Arc::clone(&inner), Arc::clone(&stopping));
            thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || work(&app, &inner, &stopping))
        };
        let workers = (0..WORKERS).map(work).collect::<io::Result<_>>();
        Ok(Self { workers: workers.map_err(|error| failed(&error))?, inner, stopping, address })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no new request, and waits at most so long for those in flight.
    pub fn stop(self, patience: Duration) {
        let deadline = Instant::now() + patience;
        self.stopping.store(true, Ordering::SeqCst);
        for _ in &self.workers {
            self.inner.unblock();
        }
        while Instant::now() < deadline && !self.workers.iter().all(JoinHandle::is_finished) {
            thread::sleep(DRAIN_POLL);
        }
    }
}

fn work(app: &App, inner: &tiny_http::Server, stopping: &AtomicBool) {
    while !stopping.load(Ordering::SeqCst) {
        // An error is the call to stop, or the end of the listener.
        let Ok(mut incoming) = inner.recv() else {
            continue;
        };
        let (request, received) = read(&mut incoming);
        let message = respond(app, &request, received).into_message(request.method == "HEAD");
        // One write: more of them would wait for the client's acknowledgements. An error means
        // that the client is gone.
        let mut writer = incoming.into_writer();
        let _ = writer.write_all(&message).and_then(|()| writer.flush());
    }
}

fn read(incoming: &mut tiny_http::Request) -> (Request, Result<(), Error>) {
    let mut body = Vec::new();
    let declared = incoming.body_length().unwrap_or(0) as u64;
    let received = if declared > BODY_BYTES_MAX {
        Err(Error::BodyTooLarge)
    } else {
        match incoming.as_reader().take(BODY_BYTES_MAX + 1).read_to_end(&mut body) {
            Ok(read) if read as u64 > BODY_BYTES_MAX => Err(Error::BodyTooLarge),
            Ok(_) => Ok(()),
            Err(error) => Err(Error::Unavailable(format!("the body cannot be read: {error}"))),
        }
    };
    let text = |field: &tiny_http::Header| (field.field.to_string(), field.value.to_string());
    let request = Request {
        method: method(incoming.method().as_str()),
        target: incoming.url().to_owned(),
        fields: incoming.headers().iter().map(text).collect(),
        body,
        client: incoming.remote_addr().map_or_else(String::new, |address| address.ip().to_string()),
    };
    (request, received)
}
