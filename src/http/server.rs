//! The tiny_http loop: worker threads, one request in, one answer out. The only module that knows
//! tiny_http. Relies on the gate for every request: whole, small, well-formed, a few at a time.

use super::request::{Request, method};
use super::{App, respond};
use crate::error::Error;
use crate::gate::frame;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs, process, thread};

/// Requests that are answered at once. Four times the default number of connections to PostgreSQL:
/// when it is slow, some may wait for it while others are told so.
pub const WORKERS: usize = 32;

const COPY_BYTES_MAX: usize = 64 * 1024;

/// A running tiny_http on a Unix socket in a directory that only this user can enter.
pub struct Loop {
    directory: PathBuf,
    socket: PathBuf,
}

impl Loop {
    pub fn start(app: &Arc<App>) -> io::Result<Self> {
        let name = format!("tinytasks-{}-{:016x}", process::id(), RandomState::new().hash_one(0));
        let directory = env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o700).create(&directory)?;
        let socket = directory.join("http");
        let server = tiny_http::Server::from_listener(UnixListener::bind(&socket)?, None);
        let server = Arc::new(server.map_err(io::Error::other)?);
        for index in 0..WORKERS + crate::gate::ASIDE {
            let (app, server) = (Arc::clone(app), Arc::clone(&server));
            let work = move || work(&app, &server);
            thread::Builder::new().name(format!("worker-{index}")).spawn(work)?;
        }
        Ok(Self { directory, socket })
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // What is left behind is an empty socket.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Ends the process with the worker: rather none than one that is alive and deaf.
struct Deadman;

impl Drop for Deadman {
    fn drop(&mut self) {
        log::error!("the HTTP loop is gone");
        process::exit(1);
    }
}

fn work(app: &App, server: &tiny_http::Server) {
    let _deadman = Deadman;
    while let Ok(mut incoming) = server.recv() {
        let (request, received) = read(&mut incoming);
        let mut writer = incoming.into_writer();
        let mut write = |part: &[u8], flag: u32| {
            let length = (u32::try_from(part.len()).map_err(io::Error::other)? | flag).to_be_bytes();
            // One system call where a copy is cheaper than another call.
            if part.len() <= COPY_BYTES_MAX {
                writer.write_all(&[&length, part].concat())?;
            } else {
                writer.write_all(&length)?;
                writer.write_all(part)?;
            }
            writer.flush()
        };
        let is_ping = request.single("Gate-Ping").is_some();
        let outcome = match is_ping {
            true => write(&[], 0).map_err(drop),
            false => respond(app, &request, received, |part, has_more| {
                write(&part, if has_more { frame::MORE } else { 0 })
            }),
        };
        if outcome.is_err() {
            // An error here means that the gate gave up first.
            let _ = write(&[], frame::BROKEN);
        }
    }
}

fn read(incoming: &mut tiny_http::Request) -> (Request, Result<(), Error>) {
    let text = |field: &tiny_http::Header| (field.field.to_string(), field.value.to_string());
    let mut body = Vec::new();
    let read = incoming.as_reader().read_to_end(&mut body);
    let mut request = Request {
        method: method(incoming.method().as_str()),
        target: incoming.url().to_owned(),
        fields: incoming.headers().iter().map(text).collect(),
        body,
        client: String::new(),
        is_old: false,
    };
    request.is_old = request.single("Gate-Old").is_some();
    request.client = request.single("Gate-Client").unwrap_or_default().to_owned();
    (request, read.map(drop).map_err(|error| Error::Unavailable(error.to_string())))
}
