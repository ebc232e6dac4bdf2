//! Parses and checks the head of a request: the request line and the header section. Takes bytes, and knows
//! nothing of the connection. Guarantees: a head that two programs could interpret differently is refused
//! (RFC 9112 section 11.2).

use crate::error::{Error, FieldError};
use crate::limits::{BODY_BYTES_MAX, FIELDS_MAX};
use std::net::{IpAddr, SocketAddr};

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
    let is_text = |line: &[u8]| line.iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control());
    let mut lines = lines.split(|byte| *byte == b'\n');
    // The bytes after the last LF are an unfinished line, so they have no CRLF yet.
    let rest = lines.next_back().unwrap_or_default();
    lines.all(|line| line.strip_suffix(b"\r").is_some_and(is_text)) && is_text(rest)
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
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let method = parts.next().unwrap_or_default();
    let (target, version) = (parts.next(), parts.next());
    let is_method = method.iter().all(|byte| is_token(*byte)) && (!method.is_empty() || target.is_none());
    let is_target = target.is_none_or(|target| target.iter().all(|byte| *byte > b' ' && *byte != 0x7f))
        && (version.is_none() || target.is_some_and(|target| !target.is_empty()));
    let has_begun = |version: &[u8]| {
        let pattern = b"HTTP/0.0";
        let fits =
            |(given, wanted): (&u8, &u8)| given == wanted || (*wanted == b'0' && given.is_ascii_digit());
        version.len() <= pattern.len() && version.iter().zip(pattern).all(fits)
    };
    if is_method && is_target && version.is_none_or(has_begun) {
        return Ok(());
    }
    Err(malformed("this is no request line"))
}

/// RFC 9110 section 5.6.2, tchar.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
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
    let is_http = |scheme: &str| ["http", "https"].iter().any(|http| http.eq_ignore_ascii_case(scheme));
    let absolute = target.split_once("://").filter(|(scheme, _)| is_http(scheme));
    // RFC 3986 section 3.2: the authority ends at the first `/`, `?` or `#`. Before `?` and `#` the path is empty.
    let end_of_host = |rest: &str| rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let path =
        match absolute.and_then(|(_, rest)| rest.split_at_checked(end_of_host(rest))) {
            Some((host, path)) if !host.is_empty() && host.bytes().all(is_of_host) => {
                if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
            }
            _ => target.to_owned(),
        };
    let is_visible = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    let fits = is_visible && (path.starts_with('/') || (path == "*" && method == "OPTIONS"));
    if fits { Ok(path) } else { Err(malformed("the request target is malformed")) }
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
    fn values(&self, name: &str) -> impl Iterator<Item = &'h [u8]> {
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

    /// The client's address. If the peer is a trusted proxy, this is the address in the last entry of
    /// `X-Forwarded-For`, or else of `Forwarded`: the proxy itself has added that entry, with the address that
    /// it saw (RFC 7239 section 4). In all other cases it is the peer's own address.
    pub fn client(&self, peer: Option<IpAddr>, trusted: &[Option<IpAddr>]) -> Option<IpAddr> {
        if !trusted.contains(&peer) {
            return peer;
        }
        // Earlier entries, and those of the other field, may have been made up by the client.
        let last = |name| {
            let entry = self.values(name).last()?.rsplit(|byte| *byte == b',').next();
            entry.map(|entry| std::str::from_utf8(entry).unwrap_or_default())
        };
        let node = last("X-Forwarded-For").or_else(|| {
            let mut pairs = last("Forwarded")?.split(';').filter_map(|pair| pair.trim().split_once('='));
            pairs.find(|(name, _)| name.eq_ignore_ascii_case("for")).map(|(_, node)| node)
        });
        let node = node.unwrap_or_default().trim().trim_matches('"');
        let address = node.parse::<SocketAddr>().map(|address| address.ip());
        let address = address.or_else(|_| node.trim_matches(['[', ']']).parse());
        address.map_or(peer, |address| Some(address.to_canonical()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Fields, check_begun, check_unfinished_line, check_unfinished_request_line, parse};
    use std::net::IpAddr;

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

    #[test]
    fn the_clients_address_is_the_last_one_that_a_trusted_proxy_names() {
        let address = |text: &str| text.parse::<IpAddr>().ok();
        let (proxy, trusted) = (address("10.0.0.1"), [None, address("10.0.0.1")]);
        for (peer, name, value, wanted) in [
            (address("10.0.0.2"), "X-Forwarded-For", "192.0.2.1", "10.0.0.2"),
            (proxy, "X-Forwarded-For", "192.0.2.1", "192.0.2.1"),
            (proxy, "x-forwarded-for", "192.0.2.1, 192.0.2.2", "192.0.2.2"),
            (proxy, "X-Forwarded-For", "192.0.2.1, unknown", "10.0.0.1"),
            (proxy, "X-Forwarded-For", "::ffff:192.0.2.1", "192.0.2.1"),
            (proxy, "Forwarded", "for=192.0.2.1, by=10.0.0.1;for=\"[2001:db8::1]:80\"", "2001:db8::1"),
            (proxy, "Forwarded", "proto=https", "10.0.0.1"),
            (proxy, "Via", "192.0.2.1", "10.0.0.1"),
            (None, "X-Forwarded-For", "192.0.2.1", "192.0.2.1"),
        ] {
            let fields = [httparse::Header { name, value: value.as_bytes() }];
            assert_eq!(Fields(&fields).client(peer, &trusted), address(wanted), "{name}: {value}");
        }
        assert_eq!(Fields(&[]).client(None, &[]), None);
        // Entries that a client put before the proxy's, or into the other field, do not count.
        let forwarded = httparse::Header { name: "Forwarded", value: b"for=192.0.2.9" };
        for (value, wanted) in [(&b"\xe9, 192.0.2.1"[..], "192.0.2.1"), (b"192.0.2.1, \xe9", "10.0.0.1")] {
            let fields = [httparse::Header { name: "X-Forwarded-For", value }, forwarded];
            assert_eq!(Fields(&fields).client(proxy, &trusted), address(wanted), "{value:?}");
        }
    }
}
