//! Parses and checks the head of a request: the request line and the header section. Takes bytes, and knows
//! nothing of the connection. Guarantees: a head that two programs could interpret differently is refused
//! (RFC 9112 section 11.2).

use crate::error::{Error, FieldError};
use crate::limits::{BODY_BYTES_MAX, FIELDS_MAX};

/// The methods that at least one route has (RFC 9110 section 9).
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// Stands for every method that is not in [`METHODS`], as in OpenTelemetry's semantic conventions for HTTP.
pub const OTHER_METHOD: &str = "_OTHER";

/// The fields that the service reads. All other fields are dropped here.
pub const KNOWN: [&str; 11] = [
    "Authorization",
    "Accept-Encoding",
    "Content-Type",
    "Content-Encoding",
    "Origin",
    "If-Match",
    "If-None-Match",
    "Idempotency-Key",
    "X-Request-Id",
    "traceparent",
    "Access-Control-Request-Method",
];

/// The error for a request that RFC 9112 does not allow.
pub fn malformed(msg: &'static str) -> Error {
    Error::Malformed(vec![FieldError::new(&["header"], msg, "framing")])
}

/// The method if some route has it, else [`OTHER_METHOD`].
pub fn method(name: &str) -> &'static str {
    METHODS.into_iter().find(|method| *method == name).unwrap_or(OTHER_METHOD)
}

/// Whether every line ends in CRLF and contains no control character except HTAB, so also no bare CR or LF.
/// The last line may be unfinished.
pub fn is_clean(lines: &[u8]) -> bool {
    let mut lines = lines.split(|byte| *byte == b'\n');
    // The bytes after the last LF are an unfinished line, so they have no CRLF yet.
    let rest = lines.next_back().unwrap_or_default();
    lines.all(|line| line.strip_suffix(b"\r").is_some_and(is_text)) && is_text(rest)
}

/// Whether a line without its end contains no control character except HTAB.
pub fn is_text(line: &[u8]) -> bool {
    line.iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control())
}

/// Checks a line whose end has not arrived yet. Errors: `Malformed` if nothing that follows can make it a clean
/// line (see [`is_clean`]).
pub fn check_unfinished_line(begun: &[u8]) -> Result<(), Error> {
    // A CR at the end may be the first byte of the CRLF.
    let line = begun.strip_suffix(b"\r").unwrap_or(begun);
    if is_clean(line) && !line.contains(&b'\n') {
        return Ok(());
    }
    Err(malformed("a line must end in CRLF, and must not have a control character"))
}

/// Checks a first line whose end has not arrived yet. Errors: `Malformed` if nothing that follows can make it
/// a request line (RFC 9112 section 3).
pub fn check_unfinished_request_line(begun: &[u8]) -> Result<(), Error> {
    // RFC 8446 section 5.1: a TLS connection begins with a record of the type handshake.
    const TLS_HANDSHAKE: u8 = 0x16;
    if begun.first() == Some(&TLS_HANDSHAKE) {
        return Err(malformed("this port speaks plain HTTP, and the client speaks TLS; use http://"));
    }
    check_unfinished_line(begun)?;
    let line = begun.strip_suffix(b"\r").unwrap_or(begun);
    let parts: Vec<&[u8]> = line.splitn(3, |byte| *byte == b' ').collect();
    // The last part may go on. The parts before it are complete, so they must not be empty.
    let may_become_one = match parts.as_slice() {
        [method] => is_token(method),
        [method, target] => !method.is_empty() && is_token(method) && is_target(target),
        [method, target, version] => {
            let are_complete = !method.is_empty() && !target.is_empty();
            are_complete && is_token(method) && is_target(target) && may_become_version(version)
        }
        _ => false,
    };
    if may_become_one { Ok(()) } else { Err(malformed("this is no request line")) }
}

/// Whether every byte is a tchar (RFC 9110 section 5.6.2).
fn is_token(text: &[u8]) -> bool {
    text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn is_target(text: &[u8]) -> bool {
    text.iter().all(|byte| *byte > b' ' && *byte != 0x7f)
}

/// Whether this is the beginning of `HTTP/`, a digit, a dot and a digit (RFC 9112 section 2.3).
fn may_become_version(begun: &[u8]) -> bool {
    let mut shape = begun.to_vec();
    for byte in shape.iter_mut().skip(b"HTTP/".len()) {
        if byte.is_ascii_digit() {
            *byte = b'0';
        }
    }
    b"HTTP/0.0".starts_with(&shape)
}

/// Whether a line, its CRLF included, is a field that is allowed as a trailer. A field that says where the
/// message ends is not allowed (RFC 9110 section 6.5.1).
pub fn is_trailer(line: &[u8]) -> bool {
    let (whole, mut fields) = ([line, b"\r\n"].concat(), [httparse::EMPTY_HEADER]);
    let is_field = httparse::parse_headers(&whole, &mut fields).is_ok() && is_clean(line);
    let framing = ["Content-Length", "Transfer-Encoding"];
    let is_framing = framing.iter().any(|name| Fields(&fields).values(name).next().is_some());
    is_field && !is_framing
}

/// Parses the request line and the fields. Errors: `Malformed`, `HeadTooLarge`.
pub fn parse<'h>(head: &'h [u8], request: &mut httparse::Request<'_, 'h>) -> Result<(), Error> {
    match parse_begun(head, request)? {
        httparse::Status::Complete(length) if length == head.len() => Ok(()),
        _ => Err(malformed("the header section is malformed")),
    }
}

/// Checks the lines of a head whose end has not arrived yet. Errors: `Malformed` or `HeadTooLarge` if nothing
/// that follows can make it a valid head.
pub fn check_begun(lines: &[u8]) -> Result<(), Error> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    parse_begun(lines, &mut request)?;
    if let (Some(method), Some(target)) = (request.method, request.path) {
        origin_form(method, target)?;
    }
    let fields = Fields(request.headers);
    fields.check_begun_host()?;
    match fields.body_length(request.version == Some(0)) {
        // `BodyTooLarge` is not reported yet: the rest of the head may still turn out to be malformed, and
        // `Malformed` takes precedence.
        Ok(_) | Err(Error::BodyTooLarge) => Ok(()),
        Err(error) => Err(error),
    }
}

fn parse_begun<'h>(
    head: &'h [u8],
    request: &mut httparse::Request<'_, 'h>,
) -> Result<httparse::Status<usize>, Error> {
    if !is_clean(head) {
        return Err(malformed("there is a control character in the header section"));
    }
    request.parse(head).map_err(|error| match error {
        httparse::Error::TooManyHeaders => Error::HeadTooLarge,
        httparse::Error::Version => malformed("the version must be HTTP/1.1 or HTTP/1.0"),
        _ => malformed("the header section is malformed"),
    })
}

/// The target in origin-form (RFC 9112 section 3.2). An origin-form is returned as sent, and an absolute-form
/// without its scheme and host; `*` is allowed for OPTIONS and returned as it is. Errors: `Malformed`.
pub fn origin_form(method: &str, target: &str) -> Result<String, Error> {
    let path = match behind_host(target) {
        Some(path) if path.starts_with('/') => path.to_owned(),
        // The path is empty, and a query may follow.
        Some(rest) => format!("/{rest}"),
        None => target.to_owned(),
    };
    let is_visible = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    let fits = path.starts_with('/') || (path == "*" && method == "OPTIONS");
    if is_visible && fits { Ok(path) } else { Err(malformed("the request target is malformed")) }
}

/// The part of an absolute-form that follows its scheme and host. None if the target is no absolute-form of HTTP.
fn behind_host(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    // RFC 3986 section 3.2: the authority ends at the first `/`, `?` or `#`.
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, behind) = rest.split_at_checked(end)?;
    let is_host = !host.is_empty() && host.bytes().all(is_of_host);
    if is_host { Some(behind) } else { None }
}

/// Whether a byte may occur in a host with a port. `@` may not, because a user name before the host is not
/// allowed (RFC 9110 section 4.2.4).
fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%:[]".contains(&byte)
}

/// The value of a field as text. DEL replaces each byte that is not ASCII. A value with DEL never passes for a
/// valid one, and no client can send DEL itself, because control characters are refused.
fn ascii(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if text.is_ascii() => text.to_owned(),
        _ => value.iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { '\x7f' }).collect(),
    }
}

/// The fields of a header section, as sent.
pub struct Fields<'h>(pub &'h [httparse::Header<'h>]);

impl<'h> Fields<'h> {
    pub fn values(&self, name: &str) -> impl Iterator<Item = &'h [u8]> {
        self.0.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// Whether `token` is one of the comma-separated tokens of the field `name`, compared without regard to
    /// upper and lower case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        let mut tokens = self.values(name).flat_map(|value| value.split(|byte| *byte == b','));
        tokens.any(|given| given.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }

    /// The fields that the service reads (see [`KNOWN`]), with their values as text.
    pub fn known(&self) -> Vec<(&'static str, String)> {
        let known = |field: &httparse::Header| {
            let name = KNOWN.into_iter().find(|name| field.name.eq_ignore_ascii_case(name))?;
            Some((name, ascii(field.value)))
        };
        self.0.iter().filter_map(known).collect()
    }

    /// RFC 9112 section 3.2: HTTP/1.1 has exactly one Host. Errors: `Malformed`.
    pub fn check_host(&self, is_http_1_0: bool) -> Result<(), Error> {
        if self.values("Host").next().is_none() && !is_http_1_0 {
            return Err(malformed("there must be one Host"));
        }
        self.check_begun_host()
    }

    /// The same for a head whose end has not arrived yet, so that its Host may still follow.
    fn check_begun_host(&self) -> Result<(), Error> {
        let mut hosts = self.values("Host");
        match (hosts.next(), hosts.next()) {
            (Some(host), None) if host.iter().copied().all(is_of_host) => Ok(()),
            (None, _) => Ok(()),
            _ => Err(malformed("there must be one Host, of a name or address and perhaps a port")),
        }
    }

    /// The body's length (RFC 9112 section 6.3); None when it is chunked. Errors: `BodyTooLarge`;
    /// `Malformed` for every length that could be read in two ways.
    pub fn body_length(&self, is_http_1_0: bool) -> Result<Option<usize>, Error> {
        let lengths: Vec<_> = self.values("Content-Length").collect();
        let codings: Vec<_> = self.values("Transfer-Encoding").collect();
        match (lengths.as_slice(), codings.as_slice()) {
            ([], []) => Ok(Some(0)),
            ([], [coding]) if !is_http_1_0 && coding.eq_ignore_ascii_case(b"chunked") => Ok(None),
            ([length], []) if !length.is_empty() && length.iter().all(u8::is_ascii_digit) => {
                let number = std::str::from_utf8(length).ok().and_then(|digits| digits.parse().ok());
                let number = number.filter(|number| *number <= BODY_BYTES_MAX);
                number.map(Some).ok_or(Error::BodyTooLarge)
            }
            _ => Err(malformed("the length of the body must be said once, and clearly")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{check_begun, check_unfinished_line, check_unfinished_request_line, parse};

    #[test]
    fn what_a_head_is_refused_for() {
        let malformed = Some("header: the header section is malformed");
        for (head, wanted) in [
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", None),
            ("GET / HTTP/1.0\r\n\r\n", None),
            ("GET / HTTP/2.0\r\n\r\n", Some("header: the version must be HTTP/1.1 or HTTP/1.0")),
            ("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n", malformed),
            ("GET / HTTP/1.1\r\nHost: x\r\n", malformed),
            ("GET /\r\n\r\n", malformed),
            ("GET / HTTP/1.1\r\nHost : x\r\n\r\n", malformed),
            (
                "GET / HTTP/1.1\nHost: x\n\n",
                Some("header: there is a control character in the header section"),
            ),
            (
                "GET / HTTP/1.1\r\nA: b\r\nC: d\r\n\r\n",
                Some("the header section must be at most 16 KiB and 64 fields"),
            ),
        ] {
            let mut fields = [httparse::EMPTY_HEADER];
            let outcome = parse(head.as_bytes(), &mut httparse::Request::new(&mut fields));
            assert_eq!(outcome.err().map(|error| error.detail()).as_deref(), wanted, "{head:?}");
        }
    }

    #[test]
    fn lines_that_cannot_become_a_head_are_known_at_once() {
        for lines in
            ["", "GET / HTTP/1.1\r\n", "OPTIONS * HTTP/1.0\r\nHost: x\r\n", "GET / HTTP/1.1\r\nA:\r\nB:\r\n"]
        {
            assert!(check_begun(lines.as_bytes()).is_ok(), "{lines:?}");
        }
        for lines in [
            "hello\r\n",
            "GET /\r\n",
            " / HTTP/1.1\r\n",
            "GET  / HTTP/1.1\r\n",
            "GET / HTTP/2.0\r\n",
            "GET / HTTP/1.1\r\nfoo\r\n",
            "GET / HTTP/1.1\r\nA: \0\r\n",
            "GET / HTTP/1.1\r\nA : b\r\n",
            "GET / HTTP/1.1\r\n a: b\r\n",
            "GET foo HTTP/1.1\r\n",
            "X-Y * HTTP/1.0\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n",
            "POST / HTTP/1.1\r\nContent-Length: x\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        ] {
            assert!(check_begun(lines.as_bytes()).is_err(), "{lines:?}");
        }
    }

    #[test]
    fn a_beginning_that_cannot_become_a_request_line_is_known_at_once() {
        for begun in [
            "",
            "\r",
            "G",
            "GET",
            "GET ",
            "GET /",
            "GET / ",
            "GET / H",
            "GET / HTTP/1.1",
            "GET / HTTP/1.1\r",
            "GET / HTTP/2.0",
            "X-Y /\u{e9}",
            "OPTIONS *",
            "M-SEARCH * HTTP/1.",
        ] {
            assert!(check_unfinished_request_line(begun.as_bytes()).is_ok(), "{begun:?}");
        }
        for begun in [
            "\x16\x03\x01",
            "\x16",
            "\n",
            "GET\n",
            " ",
            " GET",
            "GET  ",
            "GET\t/",
            "G(T",
            "GET / X",
            "GET / HTTP/1.1 ",
            "GET / HTTP/1.1x",
            "GET / HTTP/x",
            "GET / HTTP/1.1\n",
            "\0",
            "{\"a\"",
            "SSH-2.0-OpenSSH_9\r\0",
            "\r\r",
            "é",
        ] {
            assert!(check_unfinished_request_line(begun.as_bytes()).is_err(), "{begun:?}");
        }
        for (begun, fits) in [
            ("Host: x", true),
            ("Host: x\r", true),
            ("A: b\tc", true),
            ("Host: x\n", false),
            ("A\0", false),
            ("A\rb", false),
        ] {
            assert_eq!(check_unfinished_line(begun.as_bytes()).is_ok(), fits, "{begun:?}");
        }
    }
}
