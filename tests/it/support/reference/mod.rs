//! A second, independent reader of requests (RFC 9110, RFC 9112, and the gate's own limits), for whole
//! byte strings; and a generator of byte strings that are nearly well-formed. Used by the fuzz test
//! through the port (`framing/noise.rs`) and by the one of the gate's reader (`src/gate/read.rs`).

#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "only ever part of a test")]

mod noise;
mod random;

pub use noise::stream;
pub use random::Random;

const REQUEST_LINE_BYTES_MAX: usize = 8194;
const FIELDS_BYTES_MAX: usize = 16386;
const FIELDS_MAX: usize = 64;
const BODY_BYTES_MAX: usize = 65536;
const CHUNK_LINE_BYTES_MAX: usize = 256;
const TRAILERS_BYTES_MAX: usize = 4096;

#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// More bytes may make it a request.
    Incomplete,
    /// The status of the refusal.
    Refused(u16),
    /// A request, and its length in bytes.
    Whole(Meaning, usize),
}

#[derive(Debug, PartialEq)]
pub struct Meaning {
    pub method: String,
    /// In origin-form, or `*`.
    pub target: String,
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    /// Whether the connection ends with the answer.
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

/// Whether a refusal may have this status. If there are too many fields and one is malformed, both statuses are
/// right.
pub fn is_refusal(seen: u16, wanted: u16) -> bool {
    seen == wanted || ([400, 431].contains(&seen) && [400, 431].contains(&wanted))
}

/// Why bytes are no request: the status of the refusal, or `None` when bytes are missing.
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
    /// The next line without its CRLF. The CRLF counts for the maximum.
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

/// Whether the bytes contain no control character except HTAB.
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
    if !is_text(line) || !(1..=16).contains(&digits.len()) {
        return None;
    }
    let mut size = 0;
    for digit in digits {
        size = size * 16 + u128::from(char::from(*digit).to_digit(16)?);
    }
    Some(size)
}
