//! Where clients connect: an address of TCP, or the path of a Unix socket for a proxy on this
//! machine. Guarantees: a path is open to owner and group alone from its first moment, that of a
//! dead process is taken over, and that of a living one is not.

use super::client::WRITE_TIMEOUT;
use socket2::{SockAddr, Socket, Type};
use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Connections that the kernel may hold until they are accepted.
const BACKLOG: i32 = 4096;
const PATH_MODE: u32 = 0o660;
const CONNECT_TIMEOUT: Duration = Duration::from_millis(50);
/// So long an accepting thread may not notice that the service stops.
const ACCEPT_TIMEOUT: Duration = Duration::from_millis(100);
const PROBE: &[u8] =
    b"HEAD / HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: watchdog\r\nConnection: close\r\n\r\n";

/// Where the gate listens.
pub struct Address {
    address: SockAddr,
    /// Of a Unix socket of our own.
    path: Option<PathBuf>,
    /// Who queues at it is not lost when we go.
    pub is_inherited: bool,
}

/// There, or on what was inherited.
pub fn listen(address: &SockAddr, inherited: Option<Socket>) -> io::Result<(Socket, Address)> {
    let is_inherited = inherited.is_some();
    let path = address.as_pathname().filter(|_| !is_inherited).map(Path::to_owned);
    let socket = inherited.map_or_else(|| bind(address), Ok)?;
    socket.set_read_timeout(Some(ACCEPT_TIMEOUT))?;
    let address = Address { address: socket.local_addr()?, path, is_inherited };
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
        // Nobody can connect before `listen`.
        fs::set_permissions(path, Permissions::from_mode(PATH_MODE))?;
    } else {
        socket.set_reuse_address(true)?;
        socket.bind(address)?;
    }
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// To an unspecified address as well: Linux takes it for this machine.
fn connect(address: &SockAddr) -> io::Result<Socket> {
    let socket = Socket::new(address.domain(), Type::STREAM, None)?;
    socket.connect_timeout(address, CONNECT_TIMEOUT)?;
    Ok(socket)
}

/// A client, and its address where it has one; None if nobody comes for a while.
pub fn accept(listener: &Socket) -> io::Result<Option<(Socket, Option<IpAddr>)>> {
    let (socket, peer) = match listener.accept() {
        // A signal's handler on this thread ends a wait that has a timeout: signal(7).
        Err(error) if [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&error.kind()) => {
            // Whoever made or shares an inherited socket may have it non-blocking: no end of asking.
            listener.set_nonblocking(false)?;
            return Ok(None);
        }
        accepted => accepted?,
    };
    // It has that of the listener.
    socket.set_read_timeout(None)?;
    let peer = peer.as_socket().map(|peer| peer.ip().to_canonical());
    if peer.is_some() {
        socket.set_tcp_nodelay(true)?;
        // An answer that nobody takes does not stay in the kernel once the connection is closed.
        socket.set_tcp_user_timeout(Some(WRITE_TIMEOUT))?;
    }
    Ok(Some((socket, peer)))
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

    /// Removes the path. Whoever comes next may make it anew once nobody listens, so this comes first.
    pub fn leave(&self) {
        let _ = self.path.as_ref().map(fs::remove_file);
    }

    /// Whether there is an answer at all, if need be TLS's to what is not TLS: what a watchdog wants to know.
    pub fn is_alive(&self, patience: Duration) -> bool {
        let ask = || {
            let mut socket = connect(&self.address)?;
            socket.set_read_timeout(Some(patience))?;
            socket.write_all(PROBE)?;
            socket.read_exact(&mut [0])
        };
        ask().is_ok()
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&Self::name(&self.address))
    }
}
