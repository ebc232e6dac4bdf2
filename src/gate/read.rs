//! Bytes from a client → one whole, small, well-formed request. An ambiguous request is refused, never
//! repaired (RFC 9112 section 11). There is no recursion, and no buffer grows beyond `limits`.

use super::connection::Connection;
use super::forwarded;
use super::head::{
    Fields, check_begun, check_unfinished_line, check_unfinished_request_line, is_clean, is_trailer,
    malformed, method, origin_form, parse,
};
use super::request::Request;
use super::salvage::salvage;
use crate::error::Error;
use crate::limits::{
    BODY_BYTES_MAX, CHUNK_LINE_BYTES_MAX, FIELDS_BYTES_MAX, FIELDS_MAX, HEAD_TIMEOUT, READ_BYTES,
    REQUEST_LINE_BYTES_MAX, REQUEST_TIMEOUT, TRAILERS_BYTES_MAX,
};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// Why reading ended without a whole request.
#[derive(Debug)]
pub enum Stop {
    /// The request is refused; the client gets this error as its answer.
    Refused(Error),
    /// The connection has ended, so no answer can be sent.
    Gone,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// Checks a line whose end has not arrived yet. Errors: the line cannot become valid any more.
type CheckUnfinished = fn(&[u8]) -> Result<(), Error>;

/// A connection, and the bytes that were read from it and are not dropped yet.
pub struct Reader {
    connection: Arc<Connection>,
    buffer: Vec<u8>,
    /// How many bytes at the beginning of the buffer are parsed already.
    at: usize,
}

impl Reader {
    pub fn new(connection: Arc<Connection>) -> Self {
        Self { connection, buffer: Vec::new(), at: 0 }
    }

    /// Waits until the first byte of the next request has arrived.
    pub fn wait_for_request(&mut self) -> Result<(), Stop> {
        self.buffer.drain(..self.at);
        self.at = 0;
        if self.buffer.is_empty() {
            // This frees the memory of the old buffer while the connection is idle.
            self.buffer = Vec::new();
            self.fill()?;
        }
        Ok(())
    }

    /// Reads the next request into `request`. If the request is refused, `request` holds the parts that were
    /// understood. `request.client` is the peer's address; it is replaced if a trusted proxy names another.
    pub fn read(&mut self, request: &mut Request, trusted: &[Option<IpAddr>]) -> Result<(), Stop> {
        let begun = Instant::now();
        self.connection.status.set_deadline(HEAD_TIMEOUT);
        let head = self.head();
        let framing = head.and_then(|()| Ok(parse_head(self.lines_read(), request, trusted)?));
        if framing.is_err() {
            salvage(&self.buffer, request, trusted);
        }
        let Framing { length, expects_continue } = framing?;
        if expects_continue && self.buffer.len() < self.at + length.unwrap_or(1) {
            let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
            self.connection.write(interim).map_err(|_| Stop::Gone)?;
        }
        self.connection.status.set_deadline(REQUEST_TIMEOUT.saturating_sub(begun.elapsed()));
        request.body = match length {
            Some(length) => self.exactly(length)?.to_owned(),
            None => self.chunks()?,
        };
        Ok(())
    }

    /// Waits for more bytes and appends them to the buffer.
    fn fill(&mut self) -> Result<(), Stop> {
        let mut bytes = [0; READ_BYTES];
        match self.connection.read(&mut bytes) {
            Ok(read) => {
                self.buffer.extend_from_slice(read);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::TimedOut => Err(Error::RequestTimeout.into()),
            Err(_) => Err(Stop::Gone),
        }
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

    /// The next line with its CRLF. Errors: `too_long` if the line is longer than `max` bytes; the error of
    /// `check` as soon as the beginning of the line shows that the line cannot become valid.
    fn line(&mut self, max: usize, too_long: Error, check: CheckUnfinished) -> Result<&[u8], Stop> {
        let mut from = self.at;
        loop {
            let rest = self.buffer.get(from..).unwrap_or_default();
            if let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
                let length = from + end + 2 - self.at;
                return if length <= max { self.exactly(length) } else { Err(too_long.into()) };
            }
            if self.buffer.len() - self.at > max {
                return Err(too_long.into());
            }
            check(self.buffer.get(self.at..).unwrap_or_default())?;
            from = self.buffer.len().saturating_sub(1).max(self.at);
            self.fill()?;
        }
    }

    /// The next line, which is not the first one of a request.
    fn later_line(&mut self, max: usize, too_long: Error) -> Result<&[u8], Stop> {
        self.line(max, too_long, check_unfinished_line)
    }

    fn request_line(&mut self) -> Result<&[u8], Stop> {
        self.line(REQUEST_LINE_BYTES_MAX, Error::TargetTooLong, check_unfinished_request_line)
    }

    /// Whether a whole line has arrived.
    fn has_line(&self) -> bool {
        self.buffer.get(self.at..).unwrap_or_default().windows(2).any(|two| two == b"\r\n")
    }

    /// The lines of this request that are parsed so far.
    fn lines_read(&self) -> &[u8] {
        self.buffer.get(..self.at).unwrap_or_default()
    }

    /// Waits for the request line, the fields, and the empty line behind them.
    fn head(&mut self) -> Result<(), Stop> {
        // RFC 9112 section 2.2: one empty line before a request is ignored. httparse skips it as well.
        if self.request_line()? == b"\r\n" && self.request_line()? == b"\r\n" {
            return Err(malformed("there is an empty line where a request should be").into());
        }
        let end_max = self.at + FIELDS_BYTES_MAX;
        loop {
            // If the lines so far cannot become a valid request, it is refused before the next line is waited
            // for.
            if !self.has_line() {
                check_begun(self.lines_read())?;
            }
            if self.later_line(end_max - self.at, Error::HeadTooLarge)? == b"\r\n" {
                return Ok(());
            }
        }
    }

    /// A chunked body (RFC 9112 section 7.1). Trailers are read and dropped.
    fn chunks(&mut self) -> Result<Vec<u8>, Stop> {
        let mut body = Vec::new();
        loop {
            let line = self.later_line(CHUNK_LINE_BYTES_MAX, malformed("a chunk's size is too long"))?;
            let size = chunk_size(line).ok_or_else(|| malformed("a chunk's size is malformed"))?;
            if size > BODY_BYTES_MAX - body.len() {
                return Err(Error::BodyTooLarge.into());
            }
            if size == 0 {
                break;
            }
            body.extend_from_slice(self.exactly(size)?);
            // One byte at a time: a wrong one is refused before the next one is waited for.
            if self.exactly(1)? != b"\r" || self.exactly(1)? != b"\n" {
                return Err(malformed("a chunk does not end where it says").into());
            }
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        let trailers_max = self.at + TRAILERS_BYTES_MAX;
        loop {
            match self.later_line(trailers_max - self.at, Error::HeadTooLarge)? {
                b"\r\n" => return Ok(body),
                line if !is_trailer(line) => return Err(malformed("a trailer is malformed").into()),
                _ => {}
            }
        }
    }
}

/// The size that the first line of a chunk gives, in hexadecimal digits. Chunk extensions are ignored. None if
/// the line is malformed.
fn chunk_size(line: &[u8]) -> Option<usize> {
    let line = line.strip_suffix(b"\r\n").filter(|line| is_clean(line))?;
    let digits = std::str::from_utf8(line.split(|byte| *byte == b';').next()?).ok()?;
    let is_hex = digits.len() <= 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    usize::from_str_radix(digits, 16).ok().filter(|_| is_hex)
}

/// How the body of a request arrives.
struct Framing {
    /// None if the body is chunked.
    length: Option<usize>,
    /// The client may wait for 100 (Continue) before it sends the body.
    expects_continue: bool,
}

/// Parses a head into `request`. Errors: `Malformed`, `HeadTooLarge`, `BodyTooLarge`.
///
/// Not inlined, so that the stack of a thread that waits for its client does not contain the array of 64 fields.
#[inline(never)]
fn parse_head(head: &[u8], request: &mut Request, trusted: &[Option<IpAddr>]) -> Result<Framing, Error> {
    let mut headers = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    parse(head, &mut parsed)?;
    let fields = Fields(parsed.headers);
    request.is_http_1_0 = parsed.version == Some(0);
    request.method = method(parsed.method.unwrap_or_default());
    request.fields = fields.known();
    request.client = forwarded::client(&fields, request.client, trusted);
    request.is_last = request.is_http_1_0 || fields.has_token("Connection", "close");
    fields.check_host(request.is_http_1_0)?;
    request.target = origin_form(request.method, parsed.path.unwrap_or_default())?;
    let length = fields.body_length(request.is_http_1_0)?;
    let expects_continue = !request.is_http_1_0 && fields.has_token("Expect", "100-continue");
    Ok(Framing { length, expects_continue })
}

#[cfg(test)]
#[path = "../../tests/it/support/reference/mod.rs"]
mod reference;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]
mod tests {
    use super::super::connection::tests::connection_with;
    use super::super::head::{KNOWN, OTHER_METHOD, method};
    use super::reference::{Meaning, Random, Verdict, is_refusal, read, stream};
    use super::{READ_BYTES, Reader, Request, Stop};
    use std::env;
    use std::fs::File;
    use std::io::{BufWriter, Write};
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::atomic::Ordering::SeqCst;
    use std::time::Instant;

    const PEER: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));

    /// Each beginning of a good request becomes a whole request when one of these follows it.
    const CONTINUATIONS: [&str; 10] = [
        "Host: x\r\n\r\n",
        "\r\n\r\n",
        "\n\r\n",
        "\nHost: x\r\n\r\n",
        "\r\nHost: x\r\n\r\n",
        "1\r\nHost: x\r\n\r\n",
        " HTTP/1.1\r\nHost: x\r\n\r\n",
        " / HTTP/1.1\r\nHost: x\r\n\r\n",
        "/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "HTTP/1.1\r\nHost: x\r\n\r\n",
    ];

    fn number(name: &str) -> Option<u64> {
        env::var(name).ok().map(|value| value.parse().unwrap())
    }

    /// The gate understands random bytes as the reference parser does, and refuses what the reference parser
    /// refuses. `scripts/fuzz` lets a third parser judge the results. For it, each result is written to a file
    /// as four numbers and two texts: the bytes that the client sent, and the request as the gate understood it.
    #[test]
    fn it_reads_as_the_reference_does() {
        let requests = number("TINYTASKS_FUZZ_REQUESTS").unwrap_or(30_000);
        let seed = number("TINYTASKS_FUZZ_SEED").unwrap_or(1);
        let mut results =
            env::var("TINYTASKS_FUZZ_RESULTS").ok().map(|path| BufWriter::new(File::create(path).unwrap()));
        let mut random = Random::new(seed);
        let start = Instant::now();
        let (mut whole, mut refused, mut incomplete, mut streams) = (0_u64, 0_u64, 0_u64, 0_u64);
        let mut hopeless = 0;
        while whole + refused + incomplete < requests {
            streams += 1;
            let bytes = stream(&mut random);
            let piece = [1, 2, 7, 100, 5000][random.below(5)];
            let piece = if bytes.len() > 2000 { piece + 50 } else { piece };
            let (connection, seen) = connection_with(&bytes, piece);
            let mut reader = Reader::new(connection);
            let mut at = 0;
            while reader.wait_for_request().is_ok() {
                let rest = bytes.get(at..).unwrap();
                let context =
                    || format!("seed {seed}, stream {streams}: {:?}", String::from_utf8_lossy(rest));
                let mut request = Request::unread(PEER);
                let outcome = reader.read(&mut request, &[]);
                let taken = seen.read.load(SeqCst) - (reader.buffer.len() - reader.at) - at;
                let verdict = read(rest);
                let (kind, message) = match &outcome {
                    Ok(()) => (200, written(&request)),
                    Err(Stop::Refused(error)) => (error.entry().0, Vec::new()),
                    Err(Stop::Gone) => (0, Vec::new()),
                };
                match &verdict {
                    Verdict::Whole(meaning, length) => {
                        assert_eq!((kind, taken), (200, *length), "{}", context());
                        assert_same(&request, meaning, &context);
                        whole += 1;
                    }
                    Verdict::Refused(status) => {
                        // Where the reference finds a line too long, the gate may find it malformed (400) first.
                        let is_as_refused = is_refusal(kind, *status) || kind == 400;
                        assert!(is_as_refused, "{kind} for {status}: {}", context());
                        refused += 1;
                    }
                    // The gate may refuse an incomplete request only if the reference accepts it with none of
                    // the continuations.
                    Verdict::Incomplete if [400, 431].contains(&kind) => {
                        for end in CONTINUATIONS {
                            let whole = [rest, end.as_bytes()].concat();
                            let is_good = matches!(read(&whole), Verdict::Whole(..));
                            assert!(!is_good, "with {end:?}: {}", context());
                        }
                        hopeless += 1;
                        incomplete += 1;
                    }
                    Verdict::Incomplete => {
                        assert_eq!(kind, 0, "{}", context());
                        incomplete += 1;
                    }
                }
                if let Some(results) = &mut results {
                    let numbers = [usize::from(kind), taken, rest.len(), message.len()];
                    let numbers = numbers.map(|number| u32::try_from(number).unwrap().to_le_bytes());
                    results.write_all(&[numbers.concat(), rest.to_vec(), message].concat()).unwrap();
                }
                if kind != 200 {
                    break;
                }
                at += taken;
            }
        }
        assert!(hopeless > 0, "no request was refused before its end");
        let seconds = start.elapsed().as_secs_f64();
        eprintln!(
            "seed {seed}: {streams} streams, {whole} requests passed on, {refused} refused, \
             {incomplete} incomplete, {seconds:.1} s, no panic, no difference"
        );
    }

    /// However many bytes the client sends, the gate reads at most the limit and one read more.
    #[test]
    fn what_never_ends_is_refused_at_its_limit() {
        let chunked = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (begin, status, bytes_max) in [
            (String::new(), 414, 8 * 1024),
            ("\r\n".to_owned(), 414, 2 + 8 * 1024),
            ("GET / HTTP/1.1\r\nA: ".to_owned(), 431, 16 + 16 * 1024),
            (chunked.to_owned(), 400, chunked.len() + 256),
            (format!("{chunked}0\r\nA: "), 431, chunked.len() + 3 + 4 * 1024),
        ] {
            let bytes = [begin.as_bytes(), "a".repeat(100_000).as_bytes()].concat();
            let (connection, seen) = connection_with(&bytes, bytes.len());
            let mut reader = Reader::new(connection);
            reader.wait_for_request().unwrap();
            let outcome = reader.read(&mut Request::unread(PEER), &[]);
            assert!(matches!(outcome, Err(Stop::Refused(error)) if error.entry().0 == status), "{begin}");
            let read = seen.read.load(SeqCst);
            assert!((bytes_max..=bytes_max + READ_BYTES).contains(&read), "{begin}: {read}");
        }
    }

    /// RFC 9110 section 10.1.1: a client that sends `Expect: 100-continue`, and has not sent its body yet, gets
    /// the interim answer 100.
    #[test]
    fn only_a_client_that_waits_for_100_gets_it() {
        let (length, coding, expect) =
            ("Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n", "Expect: 100-continue\r\n");
        let chunk = "3\r\nabc\r\n0\r\n\r\n";
        for (version, fields, body, is_whole, is_sent) in [
            ("1.1", [length, expect], "abc", false, true),
            ("1.1", [length, expect], "abc", true, false),
            ("1.1", [coding, expect], chunk, false, true),
            ("1.1", [coding, expect], chunk, true, false),
            ("1.1", [length, ""], "abc", false, false),
            ("1.1", ["", expect], "", false, false),
            ("1.0", [length, expect], "abc", false, false),
        ] {
            let head = format!("POST / HTTP/{version}\r\nHost: x\r\n{}\r\n", fields.concat());
            let piece = if is_whole { head.len() + body.len() } else { head.len() };
            let (connection, seen) = connection_with((head.clone() + body).as_bytes(), piece);
            let mut reader = Reader::new(connection);
            reader.wait_for_request().unwrap();
            let mut request = Request::unread(PEER);
            let outcome = reader.read(&mut request, &[]);
            assert!(outcome.is_ok() && request.body.len() == body.len().min(3), "{head}");
            let written = seen.written.lock().unwrap();
            let interim: &[u8] = if is_sent { b"HTTP/1.1 100 Continue\r\n\r\n" } else { b"" };
            assert_eq!(*written, interim, "{head} {is_whole}");
        }
    }

    /// Compares method, target, body, `is_last` and the fields that the service reads. In the expected fields,
    /// DEL replaces each byte that is not ASCII.
    fn assert_same(request: &Request, meaning: &Meaning, context: &dyn Fn() -> String) {
        assert_eq!(request.method, method(&meaning.method), "{}", context());
        assert_eq!((&request.target, &request.body), (&meaning.target, &meaning.body), "{}", context());
        assert_eq!(request.is_last, meaning.is_last, "{}", context());
        let harmless = |byte: &u8| char::from(if byte.is_ascii() { *byte } else { 0x7f });
        let read = meaning.fields.iter().filter_map(|(name, value)| {
            let name = KNOWN.into_iter().find(|known| known.eq_ignore_ascii_case(name))?;
            Some((name, value.iter().map(harmless).collect()))
        });
        assert_eq!(request.fields, read.collect::<Vec<(&str, String)>>(), "{}", context());
    }

    fn written(request: &Request) -> Vec<u8> {
        let method = if request.method == OTHER_METHOD { "OTHER" } else { request.method };
        let mut text = format!("{method} {} HTTP/1.1\r\n", request.target);
        request.fields.iter().for_each(|(name, value)| text.extend([name, ": ", value, "\r\n"]));
        text.push_str(&format!("Content-Length: {}\r\n\r\n", request.body.len()));
        [text.into_bytes(), request.body.clone()].concat()
    }
}
