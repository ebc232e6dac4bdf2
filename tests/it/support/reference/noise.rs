//! Generates byte strings: some requests, each of which may be well-formed, odd or broken.

use super::Random;

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

/// One to three requests, each of which may be well-formed, odd or broken.
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

/// Adds the body and the fields that declare its length, sometimes a wrong length.
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
