//! An HTTP/1.1 client that can send malformed requests, and the rules that every answer is checked by.

use crate::support::document::hold_to_the_document;
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

/// Longer than the service may take for any answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Larger than any answer in the tests; an answer without end must not fill the memory.
const BODY_BYTES_MAX: usize = 32 << 20;
const LINE_BYTES_MAX: u64 = 1 << 16;

/// A request that is being put together; `send` opens a connection for it.
#[derive(Clone)]
pub struct Request {
    address: String,
    pub method: String,
    pub target: String,
    fields: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    /// Whether tasks in the answer must keep the rules of a task. Rows of an older table need not.
    keeps_schema: bool,
    /// Whether `openapi.json` describes it.
    is_documented: bool,
}

impl Request {
    pub fn new(address: &str, method: &str, target: &str) -> Self {
        Self {
            address: address.to_owned(),
            method: method.to_owned(),
            target: target.to_owned(),
            fields: Vec::new(),
            body: None,
            keeps_schema: true,
            is_documented: true,
        }
    }

    /// The answer may hold tasks of an older table, which break rules.
    pub fn of_old_rows(mut self) -> Self {
        self.keeps_schema = false;
        self
    }

    /// Marks the request as one to `ADMIN_ADDR`.
    pub fn of_admin(mut self) -> Self {
        self.is_documented = false;
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// Sets the body, and no content type.
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = Some(body.as_ref().to_owned());
        self
    }

    /// JSON text, good or bad, as `application/json`.
    pub fn text(self, json: impl AsRef<[u8]>) -> Self {
        self.header("Content-Type", "application/json").body(json)
    }

    pub fn json(self, body: Value) -> Self {
        self.text(body.to_string())
    }

    pub fn bytes(&self) -> Vec<u8> {
        let host = if self.address.starts_with("unix:") { "localhost" } else { &self.address };
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {host}\r\n", self.method, self.target);
        for (name, value) in &self.fields {
            head += &format!("{name}: {value}\r\n");
        }
        if let Some(body) = &self.body {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        head += "\r\n";
        let mut bytes = head.into_bytes();
        bytes.extend(self.body.as_deref().unwrap_or_default());
        bytes
    }

    /// Sends the request, reads the answer, and checks it by the rules for every answer.
    pub fn send(&self) -> Response {
        let answer = self.try_send();
        answer.unwrap_or_else(|error| panic!("{} {}: {error}", self.method, self.target))
    }

    /// Like `send`, but a broken connection is an error and does not fail the test.
    pub fn try_send(&self) -> io::Result<Response> {
        let mut connection = Connection::open(&self.address)?;
        connection.write(&self.bytes());
        let response = connection.read(&self.method)?;
        if self.is_documented {
            hold_to_the_document(&self.method, &self.target, &response, self.keeps_schema);
        }
        response.hold_to_common_rules(&self.method, &self.target);
        Ok(response)
    }
}

/// Connects to `HOST:PORT` or `unix:/path`.
pub fn connect(address: &str) -> io::Result<Socket> {
    let Some(path) = address.strip_prefix("unix:") else {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        return Ok(stream.into());
    };
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

/// A connection that stays open between requests.
pub struct Connection {
    reader: BufReader<Socket>,
}

impl Connection {
    pub fn open(address: &str) -> io::Result<Self> {
        let socket = connect(address)?;
        socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let reader = BufReader::new(socket);
        Ok(Self { reader })
    }

    /// Ignores an error: the service may answer and close before it has read everything.
    pub fn write(&mut self, bytes: &[u8]) {
        let _ = self.reader.get_mut().write_all(bytes);
    }

    /// One answer to a request of that method, which may be an interim one. An error when the connection
    /// ends before the answer does.
    pub fn read(&mut self, method: &str) -> io::Result<Response> {
        let response = read_response(&mut self.reader, method)?;
        response.ok_or_else(|| io::Error::other("the connection ends before an answer"))
    }

    /// Whether the service closes the connection without another byte. A time-out is not a close.
    pub fn is_at_end(&mut self) -> bool {
        self.reader
            .fill_buf()
            .map_or_else(|error| error.kind() == io::ErrorKind::ConnectionReset, <[u8]>::is_empty)
    }
}

/// Reads the next response, which may be an interim one. `None` when the stream ends before it begins.
/// The method is that of the request, or empty where the service may not have understood it: then it
/// is the end of the stream that shows whether the body was left out, as it is for HEAD.
pub fn read_response(stream: &mut impl BufRead, method: &str) -> io::Result<Option<Response>> {
    if is_at_end(stream)? {
        return Ok(None);
    }
    let status_line = read_line(stream)?;
    let mut parts = status_line.splitn(3, ' ');
    assert_eq!(parts.next(), Some("HTTP/1.1"), "{status_line}");
    let status = parts.next().unwrap().parse().unwrap();
    // The reason phrase of an error is also the title of the problem, and is judged there.
    let reason = match status {
        100 => Some("Continue"),
        200 => Some("OK"),
        201 => Some("Created"),
        204 => Some("No Content"),
        304 => Some("Not Modified"),
        _ => parts.clone().next(),
    };
    assert_eq!(parts.next(), reason, "{status_line}");
    let mut fields = Vec::new();
    loop {
        let line = read_line(stream)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ").expect(&line);
        fields.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let mut response = Response { status, fields, body: Vec::new() };
    if has_body(stream, method, &response)? {
        response.body = read_body(stream, &response)?;
    }
    Ok(Some(response))
}

fn has_body(stream: &mut impl BufRead, method: &str, response: &Response) -> io::Result<bool> {
    let ends = response.field("Connection") == Some("close");
    let is_of_head = method == "HEAD" && !ends;
    if is_of_head || response.status < 200 || [204, 304].contains(&response.status) {
        return Ok(false);
    }
    let may_be_left_out = ["", "HEAD"].contains(&method) && ends;
    Ok(!may_be_left_out || !is_at_end(stream)?)
}

/// Reads a body: by its length, in chunks, or up to the end of the stream (RFC 9112 section 6).
fn read_body(stream: &mut impl BufRead, response: &Response) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if let Some(length) = response.field("Content-Length") {
        body.resize(length.parse().unwrap(), 0);
        stream.read_exact(&mut body)?;
    } else if response.field("Transfer-Encoding") == Some("chunked") {
        loop {
            let length = usize::from_str_radix(&read_line(stream)?, 16).unwrap();
            let mut chunk = vec![0; length];
            stream.read_exact(&mut chunk)?;
            assert_eq!(read_line(stream)?, "", "a chunk ends with its length");
            if length == 0 {
                break;
            }
            body.extend(chunk);
            assert!(body.len() <= BODY_BYTES_MAX, "the answer has no end");
        }
    } else {
        stream.read_to_end(&mut body)?;
    }
    Ok(body)
}

fn is_at_end(stream: &mut impl BufRead) -> io::Result<bool> {
    loop {
        match stream.fill_buf() {
            // A read with a time-out is interrupted when the process was stopped and goes on (signal(7)).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read.map(<[u8]>::is_empty),
        }
    }
}

/// Reads a line, and returns it without its CRLF.
fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    stream.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    match line.strip_suffix(b"\r\n") {
        Some(line) => Ok(String::from_utf8(line.to_owned()).unwrap()),
        // A reset is reported by the next read.
        None => Err(stream.read(&mut [0]).err().unwrap_or_else(|| io::Error::other("an unfinished line"))),
    }
}

#[derive(Clone)]
pub struct Response {
    pub status: u16,
    /// Names in lower case, in the order of arrival.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body: String = self.text().chars().take(2000).collect();
        write!(f, "{} {:?} {body}", self.status, self.fields)
    }
}

impl Response {
    /// The value of a field that may be there once.
    pub fn field(&self, name: &str) -> Option<&str> {
        let name = name.to_ascii_lowercase();
        let mut values = self.fields.iter().filter(|(field, _)| *field == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} is there twice: {self:?}");
        value
    }

    /// The members of a list-valued field, sorted.
    pub fn list(&self, name: &str) -> Vec<&str> {
        let members = self.field(name).unwrap_or_default().split(',').map(str::trim);
        let mut members: Vec<_> = members.filter(|member| !member.is_empty()).collect();
        members.sort_unstable();
        members
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// Asserts that the answer is this problem.
    #[track_caller]
    pub fn expect_problem(self, status: u16, error_code: &str) -> Self {
        let text = self.text();
        assert_eq!((self.status, &self.json()["error_code"]), (status, &Value::from(error_code)), "{text}");
        self
    }

    /// `(loc, type)` of every field error, sorted; `loc` joined with dots.
    pub fn field_errors(&self) -> Vec<(String, String)> {
        let json = self.json();
        let errors = json["errors"].as_array().expect("errors is a list").iter();
        let mut errors: Vec<_> = errors
            .map(|error| {
                let loc = error["loc"].as_array().unwrap().iter();
                let loc: Vec<_> = loc.map(|part| part.as_str().unwrap()).collect();
                (loc.join("."), error["type"].as_str().unwrap().to_owned())
            })
            .collect();
        errors.sort();
        errors
    }

    /// The checks that `send` makes of each answer.
    pub fn hold_to_the_rules(&self, method: &str, target: &str) {
        hold_to_the_document(method, target, self, true);
        self.hold_to_common_rules(method, target);
    }

    /// Checks "On every response" and "Errors" of the contract.
    fn hold_to_common_rules(&self, method: &str, target: &str) {
        let context = format!("{method} {target}: {self:?}");
        let request_id = self.field("X-Request-Id").expect(&context);
        assert!(is_request_id(request_id), "{context}");
        assert_eq!(self.field("X-Content-Type-Options"), Some("nosniff"), "{context}");
        assert!(self.field("Date").is_some_and(is_http_date), "{context}");
        let server = self.field("Server").expect(&context).to_ascii_lowercase();
        assert!(!server.contains(|char: char| char.is_ascii_digit() || char == '/'), "{context}");
        assert!(!server.contains("tiny-http") && !server.contains("rust"), "{context}");

        let media_type = self.field("Content-Type").unwrap_or_default();
        if media_type.contains("json") {
            let policy = "default-src 'none'; frame-ancestors 'none'";
            assert_eq!(self.field("Content-Security-Policy"), Some(policy), "{context}");
        }
        if [204, 304].contains(&self.status) {
            assert!(self.body.is_empty() && media_type.is_empty(), "{context}");
            assert_eq!(self.field("Content-Length"), None, "{context}");
        }
        if self.status < 400 {
            return;
        }
        assert_eq!(self.field("Cache-Control"), Some("no-store"), "{context}");
        let is_there = |name| self.field(name).is_some();
        assert_eq!(self.status == 401, is_there("WWW-Authenticate"), "{context}");
        assert!(self.status != 405 || is_there("Allow"), "{context}");
        if self.status == 503 && ["/health", "/health/ready"].contains(&target) {
            return;
        }
        let retry_after = self.field("Retry-After").map(str::parse::<u32>);
        let is_later = [429, 503].contains(&self.status);
        assert_eq!(is_later, matches!(retry_after, Some(Ok(_))), "{context}");
        assert_eq!(media_type, "application/problem+json", "{context}");
        if method != "HEAD" {
            self.hold_to_the_rules_for_problems(request_id, &context);
        }
    }

    fn hold_to_the_rules_for_problems(&self, request_id: &str, context: &str) {
        let json = self.json();
        let problem = json.as_object().expect(context);
        let error_code = problem["error_code"].as_str().expect(context);
        let mut names: Vec<_> = problem.keys().map(String::as_str).collect();
        names.sort_unstable();
        let wanted: &[_] = match error_code {
            "VALIDATION_ERROR" => {
                &["detail", "error_code", "errors", "request_id", "status", "timestamp", "title", "type"]
            }
            "PRECONDITION_FAILED" => {
                &["current", "detail", "error_code", "request_id", "status", "timestamp", "title", "type"]
            }
            _ => &["detail", "error_code", "request_id", "status", "timestamp", "title", "type"],
        };
        assert_eq!(names, wanted, "{context}");
        let (title, error_codes): (_, &[_]) = match self.status {
            400 => ("Bad Request", &["VALIDATION_ERROR"]),
            401 => ("Unauthorized", &["AUTH_MISSING", "AUTH_INVALID"]),
            403 => ("Forbidden", &["AUTH_FORBIDDEN"]),
            404 => ("Not Found", &["NOT_FOUND"]),
            405 => ("Method Not Allowed", &["METHOD_NOT_ALLOWED"]),
            408 => ("Request Timeout", &["REQUEST_TIMEOUT"]),
            412 => ("Precondition Failed", &["PRECONDITION_FAILED"]),
            413 => ("Content Too Large", &["PAYLOAD_TOO_LARGE"]),
            414 => ("URI Too Long", &["URI_TOO_LONG"]),
            415 => ("Unsupported Media Type", &["UNSUPPORTED_MEDIA_TYPE"]),
            422 => ("Unprocessable Content", &["VALIDATION_ERROR", "IDEMPOTENCY_KEY_REUSED"]),
            428 => ("Precondition Required", &["PRECONDITION_REQUIRED"]),
            429 => ("Too Many Requests", &["RATE_LIMITED"]),
            431 => ("Request Header Fields Too Large", &["HEADERS_TOO_LARGE"]),
            500 => ("Internal Server Error", &["DATABASE_ERROR", "INTERNAL_ERROR"]),
            503 => ("Service Unavailable", &["SERVICE_UNAVAILABLE"]),
            _ => panic!("a status that the contract does not know: {context}"),
        };
        assert_eq!(problem["type"], "about:blank", "{context}");
        assert_eq!(problem["title"], title, "{context}");
        assert_eq!(problem["status"], self.status, "{context}");
        assert!(error_codes.contains(&error_code), "{context}");
        assert_eq!(problem["request_id"], request_id, "{context}");
        assert!(problem["timestamp"].as_str().is_some_and(is_timestamp), "{context}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{context}");
        if error_code == "PRECONDITION_FAILED" {
            assert_eq!(problem["current"]["etag"].as_str(), self.field("ETag"), "{context}");
        }
        if error_code == "VALIDATION_ERROR" {
            let errors = problem["errors"].as_array().expect(context);
            assert!(!errors.is_empty(), "{context}");
            for error in errors {
                let part = error["loc"][0].as_str().expect(context);
                assert!(["body", "path", "query", "header"].contains(&part), "{context}");
                assert!(error["msg"].is_string() && error["type"].is_string(), "{context}");
                assert_eq!(error.as_object().map(serde_json::Map::len), Some(3), "{context}");
            }
        }
    }
}

/// The JSON, with white space behind it up to that length in bytes. (The width in `format!` ends at
/// 65535.)
pub fn padded(json: &str, length: usize) -> String {
    json.to_owned() + &" ".repeat(length - json.len())
}

pub fn is_request_id(text: &str) -> bool {
    let is_in_set = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(is_in_set)
}

/// RFC 3339, UTC, six fraction digits, `Z`.
pub fn is_timestamp(text: &str) -> bool {
    has_shape(text, "0000-00-00T00:00:00.000000Z") && text.parse::<jiff::Timestamp>().is_ok()
}

/// The IMF-fixdate of RFC 9110.
fn is_http_date(text: &str) -> bool {
    has_shape(text, "Aaa, 00 Aaa 0000 00:00:00 GMT")
}

/// `0` stands for a digit, `A` and `a` for a letter, anything else for itself.
pub fn has_shape(text: &str, shape: &str) -> bool {
    let fits = |(byte, shape): (u8, u8)| match shape {
        b'0' => byte.is_ascii_digit(),
        b'A' => byte.is_ascii_uppercase(),
        b'a' => byte.is_ascii_lowercase(),
        _ => byte == shape,
    };
    text.len() == shape.len() && text.bytes().zip(shape.bytes()).all(fits)
}
