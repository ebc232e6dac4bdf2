//! tiny_http's loop, which says who answers what: a ticket for each request goes in, and comes out for
//! the next thread that is free. The only module that knows tiny_http. Guarantees: no byte of a
//! client reaches it, and nobody else can connect to it: its socket is without a name before it is used.

use crate::panic::lock;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Mutex;
use std::{env, fs, process};

pub struct Dispatch {
    server: tiny_http::Server,
    /// One is enough: what waits in it is read in one go. It stays open as long as the process runs.
    connection: Mutex<UnixStream>,
}

impl Dispatch {
    pub fn open() -> io::Result<Self> {
        let name = format!("tinytasks-{}-{:016x}", process::id(), RandomState::new().hash_one(0));
        let directory = env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o700).create(&directory)?;
        let path = directory.join("loop");
        let both = UnixListener::bind(&path).and_then(|listener| Ok((listener, UnixStream::connect(&path)?)));
        // The name has done its work.
        let _ = fs::remove_dir_all(&directory);
        let (listener, connection) = both?;
        let server = tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?;
        Ok(Self { server, connection: Mutex::new(connection) })
    }

    pub fn pass(&self, ticket: u64) {
        let request = format!("GET /{ticket} HTTP/1.1\r\n\r\n");
        let written = lock(&self.connection).write_all(request.as_bytes());
        if let Err(error) = written {
            // Its thread is gone. Rather no process than one that is alive and deaf.
            log::error!(reason = error.to_string().as_str(); "the HTTP loop is gone");
            process::exit(1);
        }
    }

    /// Waits for the next ticket.
    pub fn next(&self) -> u64 {
        loop {
            match self.server.recv() {
                Ok(request) => {
                    let ticket = request.url().trim_start_matches('/').parse().unwrap_or_default();
                    // The answer does not come this way.
                    drop(request.into_writer());
                    return ticket;
                }
                // It accepts no more, and there is nothing more for it to accept.
                Err(error) => log::error!(reason = error.to_string().as_str(); "tiny_http stopped accepting"),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{Dispatch, env, lock};
    use std::net::Shutdown;
    use std::process::Command;

    #[test]
    fn a_process_whose_loop_is_gone_ends() {
        const IS_CHILD: &str = "TINYTASKS_TEST_LOOP_IS_GONE";
        if env::var_os(IS_CHILD).is_some() {
            let dispatch = Dispatch::open().unwrap();
            lock(&dispatch.connection).shutdown(Shutdown::Both).unwrap();
            return dispatch.pass(1);
        }
        let mut child = Command::new(env::current_exe().unwrap());
        child.args(["--exact", "gate::dispatch::tests::a_process_whose_loop_is_gone_ends"]);
        // A test that fails ends with 101.
        assert_eq!(child.env(IS_CHILD, "1").status().unwrap().code(), Some(1));
    }
}
