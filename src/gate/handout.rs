//! tiny_http's loop, which hands each admitted client to a pooled thread: the accepting thread sends an
//! announcement to tiny_http as a request, and a free thread receives it. The only module that knows
//! tiny_http. Guarantees: no byte of a client reaches tiny_http, and no other process can connect to it,
//! because the path of its socket is removed before the socket is used.

use super::client::Client;
use crate::log_queue;
use crate::threads::lock;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Mutex;
use std::time::Duration;
use std::{env, fs, process};

pub struct Handout {
    server: tiny_http::Server,
    /// The client's end of tiny_http's only connection. Only the accepting thread writes to it.
    announcements: Mutex<UnixStream>,
    /// Clients that are announced and that no thread has taken yet.
    waiting: Mutex<HashMap<u64, Client>>,
}

impl Handout {
    /// Starts tiny_http on a Unix socket in a temporary directory, and connects to it.
    pub fn open() -> io::Result<Self> {
        let name = format!("tinytasks-{}-{:016x}", process::id(), RandomState::new().hash_one(0));
        let directory = env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o700).create(&directory)?;
        let path = directory.join("loop");
        let both = UnixListener::bind(&path).and_then(|listener| Ok((listener, UnixStream::connect(&path)?)));
        // The connection exists, so the path is not needed any more.
        let _ = fs::remove_dir_all(&directory);
        let (listener, announcements) = both?;
        let server = tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?;
        Ok(Self { server, announcements: Mutex::new(announcements), waiting: Mutex::default() })
    }

    /// Gives the client to the next pooled thread that is free.
    pub fn give(&self, client: Client) {
        let id = client.id();
        lock(&self.waiting).insert(id, client);
        let announcement = format!("GET /{id} HTTP/1.1\r\n\r\n");
        if let Err(error) = lock(&self.announcements).write_all(announcement.as_bytes()) {
            // tiny_http's own thread has ended, so no client can be served any more. The process exits, because
            // a supervisor restarts a process that has ended, but does not notice one that serves nobody.
            log::error!(reason = error.to_string().as_str(); "tiny_http's loop has ended");
            log_queue::flush();
            process::exit(1);
        }
    }

    /// Waits at most `patience` for the next client. None if no client came.
    pub fn take(&self, patience: Duration) -> Option<Client> {
        // tiny_http may wake this thread for an announcement at the moment at which the wait times out. It then
        // wakes no other thread for that announcement, so this thread must look once more.
        let received = match self.server.recv_timeout(patience) {
            Ok(None) => self.server.try_recv(),
            received => received,
        };
        match received {
            Ok(None) => None,
            Ok(Some(request)) => {
                let id = request.url().trim_start_matches('/').parse().unwrap_or_default();
                // The client is answered through its own connection. Dropping the writer lets
                // tiny_http read the next announcement.
                drop(request.into_writer());
                lock(&self.waiting).remove(&id)
            }
            // tiny_http has stopped accepting connections. The one connection that it has goes on.
            Err(error) => {
                log::error!(reason = error.to_string().as_str(); "tiny_http stopped accepting");
                None
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::client::Client;
    use super::super::connection::tests::connection;
    use super::super::registry::Registry;
    use super::{Handout, env, lock};
    use socket2::SockAddr;
    use std::net::Shutdown;
    use std::process::Command;
    use std::sync::Arc;
    use std::time::Duration;

    fn client(registry: &Arc<Registry>) -> Client {
        let (connection, _) = connection();
        let permit = registry.admit(&connection).unwrap();
        Client::new(connection, SockAddr::unix("peer").unwrap(), permit)
    }

    #[test]
    fn each_client_is_taken_once() {
        let handout = Handout::open().unwrap();
        let registry = Arc::new(Registry::new(100));
        for _ in 0..100 {
            handout.give(client(&registry));
        }
        for _ in 0..100 {
            assert!(handout.take(Duration::from_secs(10)).is_some());
        }
        assert!(handout.take(Duration::ZERO).is_none());
        assert!(lock(&handout.waiting).is_empty());
    }

    #[test]
    fn a_process_whose_loop_has_ended_ends() {
        const IS_CHILD: &str = "TINYTASKS_TEST_LOOP_HAS_ENDED";
        if env::var_os(IS_CHILD).is_some() {
            let handout = Handout::open().unwrap();
            lock(&handout.announcements).shutdown(Shutdown::Both).unwrap();
            return handout.give(client(&Arc::new(Registry::new(1))));
        }
        let mut child = Command::new(env::current_exe().unwrap());
        child.args(["--exact", "gate::handout::tests::a_process_whose_loop_has_ended_ends"]);
        // A test that fails ends with 101.
        assert_eq!(child.env(IS_CHILD, "1").status().unwrap().code(), Some(1));
    }
}
