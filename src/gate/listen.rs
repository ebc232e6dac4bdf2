//! Where clients connect: a TCP address, or the path of a Unix socket for a proxy on this machine.
//! Guarantees: at no moment can anybody but owner and group connect to the path; a path that a process has
//! left behind when it ended is taken over, and the path of a running process is not.

use crate::limits::{ACCEPT_TIMEOUT, BACKLOG, CONNECT_SELF_TIMEOUT, RECEIVE_BUFFER_BYTES, WRITE_TIMEOUT};
use crate::threads::lock;
use socket2::{SockAddr, Socket, Type};
use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

/// Owner and group may connect to a Unix socket.
const PATH_MODE: u32 = 0o660;
/// The request with which the watchdog asks whether the service answers.
const PROBE: &[u8] =
    b"HEAD / HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: watchdog\r\nConnection: close\r\n\r\n";

/// Where the gate listens.
pub struct Address {
    address: SockAddr,
    /// The path of a Unix socket that this process has made.
    path: Option<PathBuf>,
    /// True for a socket that another process keeps open, so that the connections in its queue survive the end of
    /// this process.
    pub is_inherited: bool,
    /// The local address of the last connection of [`Self::is_alive`].
    probe: Mutex<Option<SockAddr>>,
}

/// Listens at `address`, or on the inherited socket.
pub fn listen(address: &SockAddr, inherited: Option<Socket>) -> io::Result<(Socket, Address)> {
    let is_inherited = inherited.is_some();
    let path = address.as_pathname().filter(|_| !is_inherited).map(Path::to_owned);
    let socket = inherited.map_or_else(|| bind(address), Ok)?;
    socket.set_read_timeout(Some(ACCEPT_TIMEOUT))?;
    // Accepted sockets inherit this size (tcp(7)).
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    let address = Address { address: socket.local_addr()?, path, is_inherited, probe: Mutex::default() };
    Ok((socket, address))
}

fn bind(address: &SockAddr) -> io::Result<Socket> {
    let socket = Socket::new(address.domain(), Type::STREAM, None)?;
    if let Some(path) = address.as_pathname() {
        let is_socket = fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket());
        if is_socket && connect(address).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        {
            fs::remove_file(path)?;
        }
        socket.bind(address)?;
        // Set between `bind` and `listen`, when nobody can connect yet: nobody can use the permissions that the
        // path has before.
        fs::set_permissions(path, Permissions::from_mode(PATH_MODE))?;
    } else {
        socket.set_reuse_address(true)?;
        socket.bind(address)?;
    }
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Connects to an address of this machine. Linux treats the unspecified address (`0.0.0.0` or `::`) as the
/// loopback address.
fn connect(address: &SockAddr) -> io::Result<Socket> {
    let socket = Socket::new(address.domain(), Type::STREAM, None)?;
    socket.connect_timeout(address, CONNECT_SELF_TIMEOUT)?;
    Ok(socket)
}

/// Whether an error means that the other end has closed the connection.
fn is_closed(error: io::ErrorKind) -> bool {
    [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe].contains(&error)
}

/// Waits for a connection and returns it with the address of its other end. None if no connection comes within
/// [`ACCEPT_TIMEOUT`].
pub fn accept(listener: &Socket) -> io::Result<Option<(Socket, SockAddr)>> {
    let (socket, peer) = match listener.accept() {
        // `Interrupted`: a signal handler that runs on this thread ends a wait that has a timeout (signal(7)).
        Err(error) if [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&error.kind()) => {
            // The process that made an inherited socket, or one that shares it, may have made it non-blocking.
            // The accepting thread would then loop without waiting.
            listener.set_nonblocking(false)?;
            return Ok(None);
        }
        accepted => accepted?,
    };
    // An accepted socket inherits the listener's read timeout.
    socket.set_read_timeout(None)?;
    if ip(&peer).is_some() {
        socket.set_tcp_nodelay(true)?;
        // After a connection is closed, the kernel keeps an answer that the client has not read for at most this
        // time.
        socket.set_tcp_user_timeout(Some(WRITE_TIMEOUT))?;
    }
    Ok(Some((socket, peer)))
}

/// The IP address of a socket's other end. None through a Unix socket.
pub fn ip(peer: &SockAddr) -> Option<IpAddr> {
    peer.as_socket().map(|peer| peer.ip().to_canonical())
}

impl Address {
    /// `127.0.0.1:8000`, or `unix:/path`.
    pub fn name(address: &SockAddr) -> String {
        let path = || format!("unix:{}", address.as_pathname().unwrap_or("".as_ref()).display());
        address.as_socket().map_or_else(path, |address| address.to_string())
    }

    /// Whether only this machine can connect.
    pub fn is_local(&self) -> bool {
        self.address.as_socket().is_none_or(|address| address.ip().is_loopback())
    }

    /// Removes the path of a Unix socket. When the service stops, this is the first step: later, the path may
    /// already be that of the next process.
    pub fn leave(&self) {
        let _ = self.path.as_ref().map(fs::remove_file);
    }

    /// Whether the service answers anything within `patience`, or closes the connection. An HTTPS listener answers
    /// this plain request with a TLS alert, and closes the connection without an answer if all places are taken. Both
    /// show that the service works: if it did not, the kernel would accept the connection, and nobody would close it.
    pub fn is_alive(&self, patience: Duration) -> bool {
        let Ok(mut socket) = self.connect_as_probe(patience) else {
            return false;
        };
        match socket.write_all(PROBE).and_then(|()| socket.read_exact(&mut [0])) {
            Ok(()) => true,
            Err(error) => is_closed(error.kind()),
        }
    }

    fn connect_as_probe(&self, patience: Duration) -> io::Result<Socket> {
        let socket = connect(&self.address)?;
        *lock(&self.probe) = Some(socket.local_addr()?);
        socket.set_read_timeout(Some(patience))?;
        Ok(socket)
    }

    /// Whether a client's connection is the last one of [`Self::is_alive`]. The address of the client's end tells
    /// that. On a Unix socket clients have no address, so they cannot be told from the watchdog.
    pub fn is_own_probe(&self, client: &SockAddr) -> bool {
        lock(&self.probe).as_ref() == Some(client)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&Self::name(&self.address))
    }
}
