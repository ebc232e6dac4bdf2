//! tiny_http, and the way from its requests to answers. The only module that knows it. Relies on
//! the gate for every request: whole, small, well-formed.

use super::request::{Request, method};
use super::{App, respond};
use crate::error::Error;
use crate::gate::{Answer, Behind, Head};
use crate::metrics;
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
    is_admin: bool,
}

impl Service {
    pub fn start(app: &Arc<App>, socket: &PrivateSocket, is_admin: bool) -> io::Result<Self> {
        let server = tiny_http::Server::from_listener(UnixListener::bind(&socket.path)?, None);
        let server = server.map_err(io::Error::other)?;
        Ok(Self { app: Arc::clone(app), server, path: socket.path.clone(), is_admin })
    }
}

impl Behind for Service {
    type Request = tiny_http::Request;

    fn path(&self) -> &Path {
        &self.path
    }

    fn receive(&self) -> (u64, tiny_http::Request) {
        let mut patience = 2;
        while patience > 0 {
            match self.server.recv_timeout(RECEIVE_TIMEOUT) {
                Ok(Some(incoming)) => {
                    let mut fields = incoming.headers().iter();
                    let ticket = fields.find(|field| field.field.equiv("Gate-Ticket"));
                    let ticket = ticket.and_then(|field| field.value.as_str().parse().ok());
                    return (ticket.unwrap_or_default(), incoming);
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

    fn answer<'a>(&'a self, mut incoming: tiny_http::Request, head: &'a Head) -> Answer<'a> {
        let text = |field: &tiny_http::Header| {
            (field.field.as_str().as_str().to_owned(), field.value.as_str().to_owned())
        };
        let mut body = Vec::new();
        let received = incoming.as_reader().read_to_end(&mut body);
        let request = Request {
            method: method(incoming.method().as_str()),
            target: incoming.url().to_owned(),
            fields: incoming.headers().iter().map(text).collect(),
            body,
            head,
            is_admin: self.is_admin,
        };
        // What tiny_http would send goes nowhere: answers do not come back through it.
        drop(incoming.into_writer());
        respond(&self.app, request, received.map(drop).map_err(|error| Error::Bug(error.to_string())))
    }

    fn refuse<'a>(&'a self, head: &'a Head, error: Error) -> Answer<'a> {
        let (method, fields, is_admin) = (method(&head.method), head.fields.clone(), self.is_admin);
        let request = Request { method, target: String::new(), fields, body: Vec::new(), head, is_admin };
        if !is_admin {
            metrics::refused(&error);
        }
        respond(&self.app, request, Err(error))
    }
}
