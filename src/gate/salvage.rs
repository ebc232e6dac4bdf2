//! Takes from a head that is refused what the answer and its log line need: the method, the request's id, its origin.
//! The refusal itself does not depend on anything that is found here.

use super::forwarded;
use super::head::{Fields, is_text, method};
use super::request::Request;
use crate::limits::SALVAGED_FIELDS_MAX;
use std::net::IpAddr;

/// Puts the method and the well-formed fields of a refused head into `request`. `arrived` is what has arrived of the
/// head, and perhaps more. A script in a browser can cause a malformed field, and the browser adds `Origin` after it.
pub fn salvage(arrived: &[u8], request: &mut Request, trusted: &[Option<IpAddr>]) {
    let begun = arrived.strip_prefix(b"\r\n").unwrap_or(arrived);
    let word = begun.split(|byte| *byte == b' ').next().unwrap_or_default();
    request.method = method(std::str::from_utf8(word).unwrap_or_default());
    // httparse reads no fields after a malformed request line or another version, and none after a NUL.
    let mut head = b"GET / HTTP/1.1\r\n".to_vec();
    for line in begun.split_inclusive(|byte| *byte == b'\n').skip(1) {
        let is_whole = line.ends_with(b"\n");
        if is_whole && is_text(line.trim_ascii_end()) {
            head.extend_from_slice(line);
        }
    }
    head.extend_from_slice(b"\r\n");
    let mut headers = vec![httparse::EMPTY_HEADER; SALVAGED_FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let mut config = httparse::ParserConfig::default();
    config.ignore_invalid_headers_in_requests(true);
    // After an error, `parsed` has the fields before it.
    let _ = config.parse_request(&mut parsed, &head);
    let fields = Fields(parsed.headers);
    request.fields = fields.known();
    request.client = forwarded::client(&fields, request.client, trusted);
}

#[cfg(test)]
mod tests {
    use super::{Request, salvage};

    #[test]
    fn what_is_well_formed_of_a_refused_head_is_known() {
        let many = "A: b\r\n".repeat(100);
        let fields = "Origin: http://x\r\nX-Request-Id: 1\r\n";
        for (head, method, found) in [
            (format!("HEAD / HTTP/2.0\r\n{fields}\r\n"), "HEAD", 2),
            (format!("GET  / HTTP/1.1\r\n{fields}\r\n"), "GET", 2),
            (format!("\r\nPUT / HTTP/1.1\r\n{many}{fields}\r\n"), "PUT", 2),
            (format!("POST / HTTP/1.1\r\nA : b\r\nA: \0\r\n{fields}\r\n"), "POST", 2),
            (format!("DELETE / HTTP/1.1\n{fields}"), "DELETE", 2),
            // The last line may be longer than what has arrived of it.
            ("GET / HTTP/1.1\r\nX-Request-Id: 1\r\nOrigin: http://x".to_owned(), "GET", 1),
            // The body is not a part of the head.
            (format!("GET / HTTP/1.1\r\nX-Request-Id: 1\r\n\r\n{fields}"), "GET", 1),
            (format!("HEAD /{}", "a".repeat(10_000)), "HEAD", 0),
            (format!("BREW / HTTP/1.1\r\n{fields}\r\n"), "_OTHER", 2),
            ("\u{16}\u{3}\u{1}".to_owned(), "_OTHER", 0),
            (String::new(), "_OTHER", 0),
        ] {
            let mut request = Request::unread(None);
            salvage(head.as_bytes(), &mut request, &[]);
            assert_eq!((request.method, request.fields.len()), (method, found), "{head:?}");
        }
    }
}
