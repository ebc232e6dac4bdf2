//! The byte stream of a connection, plain or inside TLS.

use rustls::{InvalidMessage, ServerConnection, StreamOwned};
use socket2::Socket;
use std::io::{self, Read, Write};
use std::sync::Arc;

/// A blocking stream of bytes to and from one client.
pub trait Stream: Read + Write + Send {
    /// Tells the client that no more bytes follow: with TLS by a close_notify alert.
    fn finish(&mut self) {}

    /// Why the TLS handshake failed, known after the read that failed. None without TLS, after a handshake that
    /// succeeded, and if the client has not sent a byte: load balancers probe a port that way.
    fn handshake_failure(&self) -> Option<&str> {
        None
    }
}

pub struct Plain {
    socket: Arc<Socket>,
    /// Whether any byte of the client has been read.
    has_read: bool,
}

impl Plain {
    pub fn new(socket: Arc<Socket>) -> Self {
        Self { socket, has_read: false }
    }
}

impl Stream for Plain {}

impl Read for Plain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = (&*self.socket).read(buffer)?;
        self.has_read |= read > 0;
        Ok(read)
    }
}

impl Write for Plain {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.socket).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub struct Tls {
    stream: StreamOwned<ServerConnection, Plain>,
    handshake_failure: Option<String>,
}

impl Tls {
    pub fn new(connection: ServerConnection, socket: Plain) -> Self {
        Self { stream: StreamOwned::new(connection, socket), handshake_failure: None }
    }
}

impl Stream for Tls {
    fn finish(&mut self) {
        self.stream.conn.send_close_notify();
        let _ = self.stream.flush();
    }

    fn handshake_failure(&self) -> Option<&str> {
        self.handshake_failure.as_deref()
    }
}

impl Read for Tls {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer);
        if let Err(error) = &read
            && self.stream.conn.is_handshaking()
            && self.stream.sock.has_read
        {
            self.handshake_failure = Some(reason(error));
        }
        read
    }
}

impl Write for Tls {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn reason(error: &io::Error) -> String {
    let of_tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    match of_tls {
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "the client sent something else than TLS, such as plain HTTP to the port of HTTPS".to_owned()
        }
        Some(rustls::Error::AlertReceived(alert)) => format!("the client refused with the alert {alert:?}"),
        Some(error) => error.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "the client ended the connection".to_owned(),
        None => error.to_string(),
    }
}
