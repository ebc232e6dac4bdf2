//! Bytes from a client → one whole, small, well-formed request, written anew. What is ambiguous is
//! refused, never repaired (RFC 9112 section 11). No recursion, and no buffer beyond the limits.

use super::client::Client;
use super::head::{BODY_BYTES_MAX, FIELDS_MAX, Fields, is_clean, malformed, origin_form, parse};
use crate::error::Error;
use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// From the first byte of the head to the last of the body.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const REQUEST_LINE_BYTES_MAX: usize = 8 * 1024;
const FIELDS_BYTES_MAX: usize = 16 * 1024;
/// A chunk's size with its extensions.
const CHUNK_LINE_BYTES_MAX: usize = 256;
const TRAILERS_BYTES_MAX: usize = 4 * 1024;
const READ_BYTES: usize = 4 * 1024;

/// What is known of a request, also of one that is refused.
#[derive(Default)]
pub struct Head {
    pub method: String,
    /// Those that the service reads.
    pub fields: Vec<(String, String)>,
    pub client: String,
    /// The connection ends with the answer.
    pub is_last: bool,
    /// HTTP/1.0, which has no chunked coding.
    pub is_old: bool,
}

/// Why there is no request.
pub enum Stop {
    /// Nobody is there to be told.
    Gone(io::Error),
    Refused(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// Of reading: a late client can still be told.
impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        let is_late = error.kind() == io::ErrorKind::TimedOut;
        if is_late { Self::Refused(Error::RequestTimeout) } else { Self::Gone(error) }
    }
}

/// A client, and what it has sent.
pub struct Reader {
    pub client: Client,
    buffer: Vec<u8>,
    /// How far the buffer is understood.
    at: usize,
}

impl Reader {
    pub fn new(client: Client) -> Self {
        Self { client, buffer: Vec::new(), at: 0 }
    }

    /// Returns when there is a first byte. Errors: the connection has ended.
    pub fn wait_for_request(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.at);
        self.at = 0;
        if self.buffer.is_empty() {
            // An idle connection keeps no buffer.
            self.buffer = Vec::new();
            self.fill()?;
        }
        Ok(())
    }

    /// One request as tiny_http will read it; `head` is filled in as far as it was understood. The
    /// client's address is `peer`, or what a trusted peer says.
    pub fn request(&mut self, head: &mut Head, peer: IpAddr, trusted: &[IpAddr]) -> Result<Vec<u8>, Stop> {
        let begun = Instant::now();
        head.client = peer.to_string();
        self.client.connection.wait_at_most(HEAD_TIMEOUT);
        let lines = self.head()?;
        let mut headers = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        parse(self.buffer.get(lines).unwrap_or_default(), &mut parsed)?;
        let fields = Fields(parsed.headers);
        let is_old = parsed.version == Some(0);
        head.is_old = is_old;
        head.method = parsed.method.unwrap_or_default().to_owned();
        head.fields = fields.forwarded();
        head.client = fields.client(peer, trusted).to_string();
        head.is_last = is_old || fields.has_token("Connection", "close");
        fields.check_host(is_old)?;
        let target = origin_form(&head.method, parsed.path.unwrap_or_default())?;
        let length = fields.body_length(is_old)?;
        let expects = !is_old && fields.has_token("Expect", "100-continue");
        if expects && self.buffer.len() < self.at + length.unwrap_or(1) {
            self.client.write(b"HTTP/1.1 100 Continue\r\n\r\n").map_err(Stop::Gone)?;
        }
        self.client.connection.wait_at_most(REQUEST_TIMEOUT.saturating_sub(begun.elapsed()));
        Ok(match length {
            Some(length) => message(head, target, self.exactly(length)?),
            None => message(head, target, &self.chunks()?),
        })
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut bytes = [0; READ_BYTES];
        self.buffer.extend_from_slice(self.client.read(&mut bytes)?);
        Ok(())
    }

    /// The next `length` bytes.
    fn exactly(&mut self, length: usize) -> Result<&[u8], Stop> {
        let end = self.at + length;
        while self.buffer.len() < end {
            self.fill()?;
        }
        let bytes = self.buffer.get(self.at..end).unwrap_or_default();
        self.at = end;
        Ok(bytes)
    }

    /// The next line with its CRLF. Errors: `too_long` beyond `max` bytes.
    fn line(&mut self, max: usize, too_long: Error) -> Result<&[u8], Stop> {
        let mut from = self.at;
        loop {
            let rest = self.buffer.get(from..).unwrap_or_default();
            let end = rest.windows(2).position(|two| two == b"\r\n").map(|end| from + end + 2);
            match end {
                Some(end) if end - self.at <= max => return self.exactly(end - self.at),
                None if self.buffer.len() - self.at <= max => {}
                _ => return Err(Stop::Refused(too_long)),
            }
            from = self.buffer.len().saturating_sub(1).max(self.at);
            self.fill()?;
        }
    }

    /// The request line, the fields, and the empty line behind them.
    fn head(&mut self) -> Result<Range<usize>, Stop> {
        let mut begin = 0;
        // RFC 9112 section 2.2: one empty line before a request is not a request.
        if self.line(REQUEST_LINE_BYTES_MAX, Error::TargetTooLong)? == b"\r\n" {
            begin = self.at;
            self.line(REQUEST_LINE_BYTES_MAX, Error::TargetTooLong)?;
        }
        let end_max = self.at + FIELDS_BYTES_MAX;
        while self.line(end_max - self.at, Error::HeadTooLarge)? != b"\r\n" {}
        Ok(begin..self.at)
    }

    /// RFC 9112 section 7.1. Trailers are read and dropped.
    fn chunks(&mut self) -> Result<Vec<u8>, Stop> {
        let mut body = Vec::new();
        loop {
            let line = self.line(CHUNK_LINE_BYTES_MAX, malformed("a chunk's size is too long"))?;
            let size = chunk_size(line).ok_or_else(|| malformed("a chunk's size is malformed"))?;
            if size > BODY_BYTES_MAX - body.len() {
                return Err(Stop::Refused(Error::BodyTooLarge));
            }
            if size == 0 {
                break;
            }
            body.extend_from_slice(self.exactly(size)?);
            if self.exactly(2)? != b"\r\n" {
                return Err(malformed("a chunk does not end where it says").into());
            }
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        let trailers_max = self.at + TRAILERS_BYTES_MAX;
        loop {
            match self.line(trailers_max - self.at, Error::HeadTooLarge)? {
                b"\r\n" => return Ok(body),
                line if !is_clean(line) => return Err(malformed("a trailer is malformed").into()),
                _ => {}
            }
        }
    }
}

/// Hexadecimal digits, and extensions that are not looked at.
fn chunk_size(line: &[u8]) -> Option<usize> {
    let line = line.strip_suffix(b"\r\n").filter(|line| is_clean(line))?;
    let digits = std::str::from_utf8(line.split(|byte| *byte == b';').next()?).ok()?;
    let is_hex = digits.len() <= 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    usize::from_str_radix(digits, 16).ok().filter(|_| is_hex)
}

/// The request as tiny_http will read it: nothing is in it but what was checked above.
fn message(head: &Head, target: String, body: &[u8]) -> Vec<u8> {
    let mut text = [&head.method, " ", &target, " HTTP/1.1\r\nGate-Client: ", &head.client, "\r\n"].concat();
    for (name, value) in &head.fields {
        text.extend([name, ": ", value, "\r\n"]);
    }
    text.push_str(if head.is_old { "Gate-Old: 1\r\n" } else { "" });
    text.extend(["Content-Length: ", &body.len().to_string(), "\r\n\r\n"]);
    [text.as_bytes(), body].concat()
}
