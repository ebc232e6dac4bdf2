//! A second opinion on what a client sends: RFC 9110 and RFC 9112 as the gate means to keep them,
//! over whole byte strings, with no parser but this one. And the maker of byte strings that are
//! nearly good. Shared by the fuzz through the port (`fuzz.rs`) and the one of the reader itself
//! (`src/gate/read.rs`).

#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "only ever part of a test")]

const REQUEST_LINE_BYTES_MAX: usize = 8192;
const FIELDS_BYTES_MAX: usize = 16384;
const FIELDS_MAX: usize = 64;
const BODY_BYTES_MAX: usize = 65536;
const CHUNK_LINE_BYTES_MAX: usize = 256;
const TRAILERS_BYTES_MAX: usize = 4096;

#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// It may become a request with more bytes.
    Incomplete,
    /// With the status that says why.
    Refused(u16),
    /// A request, and how many bytes it takes.
    Whole(Meaning, usize),
}

#[derive(Debug, PartialEq)]
pub struct Meaning {
    pub method: String,
    /// In origin-form, or `*`.
    pub target: String,
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    /// The connection ends with the answer.
    pub is_last: bool,
}

impl Meaning {
    pub fn values(&self, name: &str) -> Vec<&[u8]> {
        let same = |field: &&(String, Vec<u8>)| field.0.eq_ignore_ascii_case(name);
        self.fields.iter().filter(same).map(|field| field.1.as_slice()).collect()
    }

    fn has_token(&self, name: &str, token: &str) -> bool {
        let values = self.values(name);
        let mut tokens = values.iter().flat_map(|value| value.split(|byte| *byte == b','));
        tokens.any(|given| trim(given).eq_ignore_ascii_case(token.as_bytes()))
    }
}

/// Whether a refusal may have that status. Too many fields, one of them malformed: either is right.
pub fn is_refusal(seen: u16, wanted: u16) -> bool {
    seen == wanted || ([400, 431].contains(&seen) && [400, 431].contains(&wanted))
}

/// Where a request is none: Some(status), or None for want of bytes.
type Problem = Option<u16>;

/// The first request in the bytes.
pub fn read(bytes: &[u8]) -> Verdict {
    let mut cursor = Cursor { bytes, at: 0 };
    match cursor.request() {
        Ok(meaning) => Verdict::Whole(meaning, cursor.at),
        Err(Some(status)) => Verdict::Refused(status),
        Err(None) => Verdict::Incomplete,
    }
}

struct Cursor<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Cursor<'b> {
    /// Without its CRLF, which counts.
    fn line(&mut self, bytes_max: usize, too_long: u16) -> Result<&'b [u8], Problem> {
        let rest = &self.bytes[self.at..];
        let end = (0..rest.len().saturating_sub(1)).find(|&at| rest[at] == b'\r' && rest[at + 1] == b'\n');
        match end {
            Some(end) if end + 2 <= bytes_max => {
                self.at += end + 2;
                Ok(&rest[..end])
            }
            None if rest.len() <= bytes_max => Err(None),
            _ => Err(Some(too_long)),
        }
    }

    fn exactly(&mut self, count: usize) -> Result<&'b [u8], Problem> {
        let taken = self.bytes.get(self.at..self.at + count).ok_or(None)?;
        self.at += count;
        Ok(taken)
    }

    fn request(&mut self) -> Result<Meaning, Problem> {
        let mut start = self.line(REQUEST_LINE_BYTES_MAX, 414)?;
        if start.is_empty() {
            start = self.line(REQUEST_LINE_BYTES_MAX, 414)?;
        }
        if start.is_empty() {
            return Err(Some(400));
        }
        let end_max = self.at + FIELDS_BYTES_MAX;
        let mut lines = Vec::new();
        loop {
            let line = self.line(end_max - self.at, 431)?;
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        if !is_text(start) || !lines.iter().all(|line| is_text(line)) {
            return Err(Some(400));
        }
        let (method, target, is_old) = request_line(start)?;
        let mut fields = Vec::new();
        for line in lines {
            if fields.len() == FIELDS_MAX {
                return Err(Some(431));
            }
            fields.push(field(line).ok_or(Some(400))?);
        }
        let mut meaning =
            Meaning { method, target: String::new(), fields, body: Vec::new(), is_last: is_old };
        meaning.is_last |= meaning.has_token("Connection", "close");
        match meaning.values("Host").as_slice() {
            [host] if host.iter().all(is_of_host) => {}
            [] if is_old => {}
            _ => return Err(Some(400)),
        }
        meaning.target = origin_form(&meaning.method, &target).ok_or(Some(400))?;
        meaning.body = self.body(&meaning, is_old)?;
        Ok(meaning)
    }

    fn body(&mut self, meaning: &Meaning, is_old: bool) -> Result<Vec<u8>, Problem> {
        match (meaning.values("Content-Length").as_slice(), meaning.values("Transfer-Encoding").as_slice()) {
            ([], []) => Ok(Vec::new()),
            ([length], []) => Ok(self.exactly(content_length(length)?)?.to_owned()),
            ([], [coding]) if !is_old && coding.eq_ignore_ascii_case(b"chunked") => self.chunks(),
            _ => Err(Some(400)),
        }
    }

    fn chunks(&mut self) -> Result<Vec<u8>, Problem> {
        let mut body = Vec::new();
        loop {
            let line = self.line(CHUNK_LINE_BYTES_MAX, 400)?;
            let size = chunk_size(line).ok_or(Some(400))?;
            if body.len() as u128 + size > BODY_BYTES_MAX as u128 {
                return Err(Some(413));
            }
            if size == 0 {
                break;
            }
            body.extend(self.exactly(size as usize)?);
            if self.exactly(2)? != b"\r\n" {
                return Err(Some(400));
            }
        }
        let end_max = self.at + TRAILERS_BYTES_MAX;
        loop {
            let line = self.line(end_max - self.at, 431)?;
            if line.is_empty() {
                return Ok(body);
            }
            let name = field(line).map(|(name, _)| name.to_ascii_lowercase());
            let is_framing = matches!(name.as_deref(), Some("content-length" | "transfer-encoding"));
            if !is_text(line) || name.is_none() || is_framing {
                return Err(Some(400));
            }
        }
    }
}

/// No control character but HTAB.
fn is_text(line: &[u8]) -> bool {
    line.iter().all(|byte| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f))
}

fn is_token(text: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_part)
}

fn is_of_host(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%:[]".contains(byte)
}

fn trim(value: &[u8]) -> &[u8] {
    let is_solid = |byte: &u8| *byte != b' ' && *byte != b'\t';
    let start = value.iter().position(is_solid).unwrap_or(value.len());
    let end = value.iter().rposition(is_solid).map_or(start, |last| last + 1);
    &value[start..end]
}

/// Method, target, and whether it is of HTTP/1.0.
fn request_line(line: &[u8]) -> Result<(String, Vec<u8>, bool), Problem> {
    let parts: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts.as_slice() else {
        return Err(Some(400));
    };
    let is_old = *version == b"HTTP/1.0";
    let is_good = is_token(method)
        && !target.is_empty()
        && !target.contains(&b'\t')
        && std::str::from_utf8(target).is_ok()
        && (is_old || *version == b"HTTP/1.1");
    if !is_good {
        return Err(Some(400));
    }
    Ok((String::from_utf8_lossy(method).into_owned(), target.to_vec(), is_old))
}

fn field(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = &line[..colon];
    is_token(name).then(|| (String::from_utf8_lossy(name).into_owned(), trim(&line[colon + 1..]).to_owned()))
}

fn origin_form(method: &str, target: &[u8]) -> Option<String> {
    let target = std::str::from_utf8(target).ok()?;
    let lower = target.to_ascii_lowercase();
    let scheme = ["http://", "https://"].into_iter().find(|scheme| lower.starts_with(scheme));
    let path = match scheme {
        None => target.to_owned(),
        Some(scheme) => {
            let rest = &target.as_bytes()[scheme.len()..];
            let end = rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len());
            if end == 0 || !rest[..end].iter().all(is_of_host) {
                return None;
            }
            let path = std::str::from_utf8(&rest[end..]).ok()?;
            if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
        }
    };
    let is_visible = path.bytes().all(|byte| (0x21..0x7f).contains(&byte) && byte != b'#');
    let fits = path.starts_with('/') || (method == "OPTIONS" && path == "*" && scheme.is_none());
    (is_visible && fits).then_some(path)
}

fn content_length(value: &[u8]) -> Result<usize, Problem> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Some(400));
    }
    let mut length = 0;
    for digit in value {
        length = length * 10 + usize::from(digit - b'0');
        if length > BODY_BYTES_MAX {
            return Err(Some(413));
        }
    }
    Ok(length)
}

fn chunk_size(line: &[u8]) -> Option<u128> {
    let digits = line.split(|byte| *byte == b';').next()?;
    let is_good = is_text(line) && (1..=16).contains(&digits.len());
    let mut size = 0;
    for digit in digits {
        size = size * 16 + u128::from(char::from(*digit).to_digit(16)?);
    }
    is_good.then_some(size)
}

/// SplitMix64: small, seeded, and good enough.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }
}

const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "get", "X!#$%&'*+-.^_`|~"];
const ODD_METHODS: [&str; 5] = ["", "G(T", "G\tT", "CONNECT", "\u{e9}"];
const TARGETS: [&str; 11] = [
    "/",
    "/health",
    "/health?a=b",
    "/api/alice/tasks",
    "/api/alice/tasks/1",
    "/api/%61/tasks",
    "*",
    "http://x/health",
    "HTTPS://x:1?a/b",
    "http://x",
    "/a?http://b/c",
];
const ODD_TARGETS: [&str; 14] = [
    "",
    "health",
    "/a b",
    "/#",
    "http://",
    "http:///health",
    "http://x?a=/health",
    "http://x#/health",
    "http://a@b/health",
    "x:80",
    "ftp://x/health",
    "/\u{e9}",
    "/\"<>\\^`{|}",
    "//x/health",
];
const ODD_VERSIONS: [&str; 8] =
    ["", "HTTP/1.2", "HTTP/2.0", "http/1.1", "HTTP/1.1 ", "HTTP/1.10", "HTTP/0.9", "HTTP/ 1.1"];
const FIELDS: [&str; 26] = [
    "Accept: */*",
    "Authorization: Bearer x.y.z",
    "authorization:Basic eDp5",
    "Content-Type: application/json",
    "Content-Encoding: identity",
    "Origin: http://localhost:3000",
    "X-Request-Id: an-id",
    "x-request-ID: \t an-id \t",
    "X-Request-Id: \u{e9}",
    "Access-Control-Request-Method: PUT",
    "If-Match: \"a\", W/\"b\"",
    "If-None-Match: *",
    "Idempotency-Key: a key",
    "TraceParent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "Connection: keep-alive",
    "Connection: close",
    "Connection: a, CLOSE ,b",
    "Connection: closed",
    "Expect: 100-continue",
    "Expect: 200-ok",
    "Cookie: a=\u{1f642}; b=\"c\"",
    "TE: trailers, chunked",
    "Trailer: Content-Length",
    "Upgrade: h2c",
    "X-Forwarded-For: 1.2.3.4",
    "X-Empty:",
];
const ODD_FIELDS: [&str; 18] = [
    " folded",
    "\tfolded",
    "A : b",
    "A",
    ": b",
    "A b: c",
    "A: b\0",
    "A: b\rC: d",
    "A: b\nC: d",
    "A: \u{7f}",
    "\u{e9}: b",
    "A\t: b",
    "A: b\u{b}",
    "Host: x",
    "Host: a b",
    "Transfer-Encoding: chunked",
    "Content-Length: 3",
    "A:: b",
];
const FRAMINGS: [&str; 22] = [
    "Content-Length: 0",
    "Content-Length: 007",
    "Content-Length: +3",
    "Content-Length: -3",
    "Content-Length: 3, 3",
    "Content-Length: 3\r\nContent-Length: 3",
    "Content-Length: 3\r\nContent-Length: 4",
    "Content-Length:",
    "Content-Length: 0x3",
    "Content-Length: 3 3",
    "Content-Length: 65537",
    "Content-Length: 1000000000000",
    "Content-Length: 18446744073709551619",
    "content-length : 3",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 3",
    "Transfer-Encoding: \u{b}chunked",
    "Transfer-Encoding: chunked;a=b",
    "Transfer-Encoding:",
];
const PIECES: [&[u8]; 30] = [
    b"\r\n",
    b"\r",
    b"\n",
    b"\r\n\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"/",
    b"0",
    b"1",
    b"5\r\n",
    b"0\r\n\r\n",
    b"\xff",
    b"\x7f",
    b"\x0b",
    b"%",
    b"#",
    b"*",
    b"HTTP/1.1",
    b"Host: x\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"chunked",
    b"GET / HTTP/1.1\r\n",
    b"http://",
    b"\xc3\xa9",
];

/// A few requests of which each may be good, odd or broken.
pub fn stream(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..=random.below(3) {
        request(random, &mut bytes);
    }
    if random.one_in(2) {
        for _ in 0..=random.below(4) {
            mutate(random, &mut bytes);
        }
    }
    bytes
}

fn request(random: &mut Random, bytes: &mut Vec<u8>) {
    let is_large = random.one_in(250);
    for _ in 0..[0, 0, 0, 0, 0, 0, 0, 1, 1, 2][random.below(10)] {
        bytes.extend(b"\r\n");
    }
    let method = if random.one_in(40) { random.pick(&ODD_METHODS) } else { random.pick(&METHODS) };
    let target = if random.one_in(12) { random.pick(&ODD_TARGETS) } else { random.pick(&TARGETS) };
    let long = if is_large && random.one_in(3) { near(random, 8192 - 40, 60) } else { 0 };
    let version = match random.below(40) {
        0 => random.pick(&ODD_VERSIONS),
        1..6 => "HTTP/1.0",
        _ => "HTTP/1.1",
    };
    bytes.extend(format!("{method} {target}{} {version}\r\n", "a".repeat(long)).bytes());
    let mut fields: Vec<String> = Vec::new();
    for _ in 0..random.below(5) {
        fields.push(random.pick(&FIELDS).to_owned());
    }
    if random.one_in(12) {
        fields.push(random.pick(&ODD_FIELDS).to_owned());
    }
    if !random.one_in(40) {
        fields.push("Host: x:80".to_owned());
    }
    if is_large && random.one_in(3) {
        fields.push(format!("A: {}", "a".repeat(near(random, 16384 - 60, 120))));
    }
    if is_large && random.one_in(3) {
        let count = near(random, 58, 10);
        fields.resize(fields.len() + count, "A: b".to_owned());
    }
    let body = body(random, is_large, &mut fields);
    for _ in 0..fields.len() {
        let (one, other) = (random.below(fields.len()), random.below(fields.len()));
        fields.swap(one, other);
    }
    for field in fields {
        bytes.extend(field.bytes().chain(*b"\r\n"));
    }
    bytes.extend(b"\r\n");
    bytes.extend(body);
}

fn near(random: &mut Random, low: usize, width: usize) -> usize {
    low + random.below(width)
}

/// With the fields that say how long it is, more or less.
fn body(random: &mut Random, is_large: bool, fields: &mut Vec<String>) -> Vec<u8> {
    let length = if is_large && random.one_in(3) { near(random, 65530, 12) } else { random.below(40) };
    let content: Vec<u8> = match random.below(4) {
        0 => b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n".iter().copied().cycle().take(length).collect(),
        1 => (0..length).map(|_| random.next() as u8).collect(),
        _ => vec![b'a'; length],
    };
    match random.below(10) {
        0..3 => Vec::new(),
        3..6 => {
            fields.push(format!("Content-Length: {}", content.len()));
            content
        }
        6 => {
            fields.push(random.pick(&FRAMINGS).to_owned());
            content
        }
        _ => {
            fields.push(random.pick(&["Transfer-Encoding: chunked", "transfer-encoding:CHUNKED"]).to_owned());
            chunked(random, &content)
        }
    }
}

fn chunked(random: &mut Random, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = content;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(1 + random.below(rest.len()));
        rest = after;
        let size = match random.below(60) {
            0 => format!("{:x}", chunk.len() + 1),
            1 => format!("0x{:x}", chunk.len()),
            2 => format!("{:x} ", chunk.len()),
            3 => format!(" {:x}", chunk.len()),
            4 => format!("+{:x}", chunk.len()),
            5 => format!("{:017x}", chunk.len()),
            6 => "ffffffffffffffff".to_owned(),
            7..17 => format!("{:X};a=\"b c\"", chunk.len()),
            17 => format!("{:x};{}", chunk.len(), "a".repeat(near(random, 245, 14))),
            18..24 => format!("{:016x}", chunk.len()),
            _ => format!("{:x}", chunk.len()),
        };
        bytes.extend(size.bytes().chain(*b"\r\n"));
        bytes.extend(chunk);
        bytes.extend(if random.one_in(60) { b"\n" } else { b"\r\n".as_slice() });
    }
    bytes.extend(random.pick(&["0\r\n", "0;a\r\n", "000\r\n"]).bytes());
    for _ in 0..random.below(12).saturating_sub(9) {
        let trailer = if random.one_in(8) { random.pick(&ODD_FIELDS) } else { random.pick(&FIELDS) };
        bytes.extend(trailer.bytes().chain(*b"\r\n"));
    }
    if random.one_in(200) {
        bytes.extend(format!("A: {}\r\n", "a".repeat(near(random, 4080, 20))).bytes());
    }
    bytes.extend(b"\r\n");
    bytes
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    let at = random.below(bytes.len() + 1);
    let end = (at + random.below(8)).min(bytes.len());
    match random.below(6) {
        0 => drop(bytes.drain(at..end)),
        1 => bytes.truncate(at),
        2 => {
            let copy = bytes[at..end].to_vec();
            drop(bytes.splice(end..end, copy));
        }
        3 if at < bytes.len() => bytes[at] = random.next() as u8,
        4 => drop(bytes.splice(at..end, random.pick(&PIECES).iter().copied())),
        _ => drop(bytes.splice(at..at, random.pick(&PIECES).iter().copied())),
    }
}
