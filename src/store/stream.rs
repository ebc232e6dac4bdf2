//! The byte stream between the driver and PostgreSQL, plain or encrypted, in which every wait has a deadline.
//!
//! The driver has no time limit for a server that accepts bytes and sends none. Therefore it gets the stream
//! of this module. The driver waits only in the stream's methods, and each wait ends with an error at the
//! deadline that [`Session`](super::connect::Session) sets before it uses the driver. The driver accepts such a
//! stream only for TLS. So it is told that every connection begins with TLS (`sslnegotiation=direct`), and
//! [`Negotiation`] decides whether the connection is really encrypted.

use super::tls::Encryption;
use crate::threads::lock;
use postgres::Socket;
use postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Sleep, sleep_until};
use tokio_postgres_rustls::MakeRustlsConnect;

/// The moment at which the current use of a connection must have ended.
pub struct Deadline(Mutex<Instant>);

impl Deadline {
    pub fn after(limit: Duration) -> Self {
        Self(Mutex::new(Instant::now() + limit))
    }

    pub fn set_after(&self, limit: Duration) {
        *lock(&self.0) = Instant::now() + limit;
    }

    fn get(&self) -> tokio::time::Instant {
        (*lock(&self.0)).into()
    }
}

/// A socket whose reads and writes fail with `TimedOut` when they wait beyond the deadline.
pub struct Timed {
    socket: Socket,
    deadline: Arc<Deadline>,
    alarm: Pin<Box<Sleep>>,
}

impl Timed {
    fn new(socket: Socket, deadline: Arc<Deadline>) -> Self {
        let alarm = Box::pin(sleep_until(deadline.get()));
        Self { socket, deadline, alarm }
    }

    /// Returns the outcome of a read or write; but if the outcome is `Pending` and the deadline has passed, an
    /// error.
    fn limit<T>(&mut self, cx: &mut Context, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            return outcome;
        }
        let deadline = self.deadline.get();
        if self.alarm.deadline() != deadline {
            self.alarm.as_mut().reset(deadline);
        }
        let silence = || Err(io::Error::new(ErrorKind::TimedOut, "no answer in time"));
        self.alarm.as_mut().poll(cx).map(|()| silence())
    }
}

impl AsyncRead for Timed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context, buf: &mut ReadBuf) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.socket).poll_read(cx, buf);
        self.limit(cx, outcome)
    }
}

impl AsyncWrite for Timed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.limit(cx, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.socket).poll_flush(cx);
        self.limit(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.socket).poll_shutdown(cx);
        self.limit(cx, outcome)
    }
}

type Encrypted = <MakeRustlsConnect as MakeTlsConnect<Timed>>::Stream;
type Handshake = <MakeRustlsConnect as MakeTlsConnect<Timed>>::TlsConnect;

/// A connection as it was negotiated.
pub enum Stream {
    Plain(Timed),
    Encrypted(Box<Encrypted>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context, buf: &mut ReadBuf) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Encrypted(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Encrypted(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Encrypted(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Encrypted(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        match self {
            Self::Plain(_) => ChannelBinding::none(),
            Self::Encrypted(stream) => stream.channel_binding(),
        }
    }
}

/// Why the negotiation gave no stream.
#[derive(Debug)]
pub enum NegotiationError {
    /// TLS was required, and the server does not support it.
    NoTls,
    /// The server supports TLS, but the handshake failed.
    Handshake(io::Error),
    /// The connection broke, or the deadline passed, before the server said whether it supports TLS.
    Io(io::Error),
}

impl fmt::Display for NegotiationError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::NoTls => f.write_str("server does not support TLS"),
            Self::Handshake(error) | Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for NegotiationError {}

/// Makes the [`Stream`] of one connection for the driver.
#[derive(Clone)]
pub struct Negotiator {
    encryption: Encryption,
    tls: MakeRustlsConnect,
    deadline: Arc<Deadline>,
    is_encrypted: Arc<AtomicBool>,
}

impl Negotiator {
    pub fn new(encryption: Encryption, tls: MakeRustlsConnect, deadline: Arc<Deadline>) -> Self {
        Self { encryption, tls, deadline, is_encrypted: Arc::default() }
    }

    /// A flag that becomes true once the connection is encrypted.
    pub fn is_encrypted(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_encrypted)
    }
}

impl MakeTlsConnect<Socket> for Negotiator {
    type Stream = Stream;
    type TlsConnect = Negotiation;
    type Error = Infallible;

    fn make_tls_connect(&mut self, host: &str) -> Result<Negotiation, Infallible> {
        let handshake = MakeTlsConnect::<Timed>::make_tls_connect(&mut self.tls, host)?;
        Ok(Negotiation { with: self.clone(), handshake })
    }
}

/// Negotiates with the server whether one connection is encrypted.
pub struct Negotiation {
    with: Negotiator,
    handshake: Handshake,
}

impl TlsConnect<Socket> for Negotiation {
    type Stream = Stream;
    type Error = NegotiationError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, NegotiationError>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let Negotiator { encryption, deadline, is_encrypted, .. } = self.with;
            let mut stream = Timed::new(socket, deadline);
            let begins_tls = match encryption {
                Encryption::Disabled => false,
                Encryption::Direct => true,
                Encryption::Preferred | Encryption::Required => {
                    does_tls(&mut stream).await.map_err(NegotiationError::Io)?
                }
            };
            if begins_tls {
                let stream = self.handshake.connect(stream).await.map_err(NegotiationError::Handshake)?;
                is_encrypted.store(true, Relaxed);
                Ok(Stream::Encrypted(Box::new(stream)))
            } else if encryption == Encryption::Required {
                Err(NegotiationError::NoTls)
            } else {
                Ok(Stream::Plain(stream))
            }
        })
    }
}

/// Asks the server whether it supports TLS
/// (SSLRequest, https://www.postgresql.org/docs/current/protocol-message-formats.html).
async fn does_tls(stream: &mut Timed) -> io::Result<bool> {
    /// The message's length, 8, and the code 80877103.
    const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    stream.write_all(&SSL_REQUEST).await?;
    Ok(stream.read_u8().await? == b'S')
}
