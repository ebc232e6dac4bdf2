//! Where clients connect: a TCP address, or the path of a Unix socket for a proxy on this machine.
//! Guarantees: from its first moment only owner and group can connect to a path; the path of a
//! process that has ended is taken over, and the path of one that runs is not.

use crate::limits::{ACCEPT_TIMEOUT, BACKLOG, CONNECT_SELF_TIMEOUT, WRITE_TIMEOUT};
use crate::panic::lock;
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
/// The watchdog's request.
const PROBE: &[u8] =
    b"HEAD / HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: watchdog\r\nConnection: close\r\n\r\n";

/// Where the gate listens.
pub struct Address {
    address: SockAddr,
    /// The path of a Unix socket that this process has made.
    path: Option<PathBuf>,
    /// True for a socket that another process keeps open: connections in its queue survive our end.
    pub is_inherited: bool,
    /// Our own end of the last connection that asked whether the service answers.
    probe: Mutex<Option<SockAddr>>,
}

/// Listens at the address, or at the inherited socket.
pub fn listen(address: &SockAddr, inherited: Option<Socket>) -> io::Result<(Socket, Address)> {
    let is_inherited = inherited.is_some();
    let path = address.as_pathname().filter(|_| !is_inherited).map(Path::to_owned);
    let socket = inherited.map_or_else(|| bind(address), Ok)?;
    socket.set_read_timeout(Some(ACCEPT_TIMEOUT))?;
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
        // Between `bind` and `listen` nobody can connect, so nobody connects with other rights.
        fs::set_permissions(path, Permissions::from_mode(PATH_MODE))?;
    } else {
        socket.set_reuse_address(true)?;
        socket.bind(address)?;
    }
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Connects to an address of this machine. Linux takes an unspecified address for the local one.
fn connect(address: &SockAddr) -> io::Result<Socket> {
    let socket = Socket::new(address.domain(), Type::STREAM, None)?;
    socket.connect_timeout(address, CONNECT_SELF_TIMEOUT)?;
    Ok(socket)
}

/// A connection, and the address of its other end. None if none comes for a while.
pub fn accept(listener: &Socket) -> io::Result<Option<(Socket, SockAddr)>> {
    let (socket, peer) = match listener.accept() {
        // A signal handler that runs on this thread ends a wait that has a timeout: signal(7).
        Err(error) if [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&error.kind()) => {
            // The process that made or shares an inherited socket may have set it to non-blocking, which
            // would make this a busy loop.
            listener.set_nonblocking(false)?;
            return Ok(None);
        }
        accepted => accepted?,
    };
    // An accepted socket inherits the listener's timeout.
    socket.set_read_timeout(None)?;
    if ip(&peer).is_some() {
        socket.set_tcp_nodelay(true)?;
        // The kernel drops an unread answer of a closed connection after this time.
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

    /// Removes the path. This comes first at the end: the next process may make it anew at once.
    pub fn leave(&self) {
        let _ = self.path.as_ref().map(fs::remove_file);
    }

    /// Whether the service answers at all. An HTTPS listener answers this plain request with a TLS alert,
    /// which is enough for a watchdog.
    pub fn is_alive(&self, patience: Duration) -> bool {
        let ask = || {
            let mut socket = connect(&self.address)?;
            *lock(&self.probe) = Some(socket.local_addr()?);
            socket.set_read_timeout(Some(patience))?;
            socket.write_all(PROBE)?;
            socket.read_exact(&mut [0])
        };
        ask().is_ok()
    }

    /// Whether a client is [`Self::is_alive`], by the address of its end. Clients of a Unix socket have
    /// no address, so all of them are alike.
    pub fn is_own_probe(&self, client: &SockAddr) -> bool {
        lock(&self.probe).as_ref() == Some(client)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&Self::name(&self.address))
    }
}
