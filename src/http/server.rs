//! tiny_http's loop. The only module that knows it. Relies on the gate for what it reads.

use super::{App, respond};
use crate::error::Error;
use crate::gate::{Answer, Behind, Request};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs, process};

/// A request is parsed in microseconds. Where twice this is not enough, tiny_http has lost it.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(15);

/// A Unix socket's path, in a directory that only this user can enter; gone with the value.
pub struct PrivateSocket {
    directory: PathBuf,
    path: PathBuf,
}

impl PrivateSocket {
    pub fn create() -> io::Result<Self> {
        let name = format!("tinytasks-{}-{:016x}", process::id(), RandomState::new().hash_one(0));
        let directory = env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o700).create(&directory)?;
        Ok(Self { path: directory.join("http"), directory })
    }
}

impl Drop for PrivateSocket {
    fn drop(&mut self) {
        // What is left behind is an empty socket.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

pub struct Service {
    app: Arc<App>,
    server: tiny_http::Server,
    path: PathBuf,
}

impl Service {
    pub fn start(app: &Arc<App>, socket: &PrivateSocket) -> io::Result<Self> {
        let server = tiny_http::Server::from_listener(UnixListener::bind(&socket.path)?, None);
        let server = server.map_err(io::Error::other)?;
        Ok(Self { app: Arc::clone(app), server, path: socket.path.clone() })
    }
}

impl Behind for Service {
    fn path(&self) -> &Path {
        &self.path
    }

    fn receive(&self) -> u64 {
        let mut patience = 2;
        while patience > 0 {
            match self.server.recv_timeout(RECEIVE_TIMEOUT) {
                Ok(Some(incoming)) => {
                    let ticket = incoming.url().trim_start_matches('/').parse().unwrap_or_default();
                    // What tiny_http would send goes nowhere: answers do not come back through it.
                    drop(incoming.into_writer());
                    return ticket;
                }
                Ok(None) => patience -= 1,
                // It accepts no more, and there is nothing more for it to accept.
                Err(error) => log::error!(reason = error.to_string().as_str(); "tiny_http stopped accepting"),
            }
        }
        // Rather none than one that is alive and deaf.
        log::error!("the HTTP loop is gone");
        process::exit(1);
    }

    fn answer<'a>(&'a self, request: &'a Request, received: Result<(), Error>) -> Answer<'a> {
        respond(&self.app, request, received)
    }
}
