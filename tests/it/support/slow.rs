//! Clients that read slowly, and requests of HTTP/1.0.

use crate::support::{harness::App, http::Request};
use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

/// Longer than the service waits for a client that does not read.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Larger than any answer in the tests; an answer without end must not fill the memory.
const REST_BYTES_MAX: u64 = 128 << 20;

/// A client that has read the status line, and then stops.
pub struct SlowClient {
    stream: TcpStream,
    read: Vec<u8>,
}

impl SlowClient {
    pub fn send(app: &App, bytes: &[u8]) -> Self {
        let mut stream = TcpStream::connect(&app.address).unwrap();
        stream.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
        stream.write_all(bytes).unwrap();
        let mut read = vec![0; "HTTP/1.1 200".len()];
        stream.read_exact(&mut read).unwrap();
        Self { stream, read }
    }

    pub fn status(&self) -> &str {
        std::str::from_utf8(&self.read["HTTP/1.1 ".len().."HTTP/1.1 200".len()]).unwrap()
    }

    /// Reads until the connection ends: the head, and the body as it was sent.
    pub fn rest(mut self) -> (String, Vec<u8>) {
        if let Err(error) = self.stream.take(REST_BYTES_MAX).read_to_end(&mut self.read) {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "the connection stays open");
        }
        assert!((self.read.len() as u64) < REST_BYTES_MAX, "the answer has no end");
        let end = self.read.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let body = self.read.split_off(end);
        (String::from_utf8(self.read).unwrap(), body)
    }
}

/// The request as a client of HTTP/1.0 sends it.
pub fn old_bytes(request: &Request) -> Vec<u8> {
    let text = String::from_utf8(request.bytes()).unwrap();
    text.replacen(" HTTP/1.1\r\n", " HTTP/1.0\r\n", 1).into_bytes()
}
