//! Why there is a gate: tiny_http without one, shown to fail, and next to it the service with the same
//! bytes. SECURITY.md has the table. The bare server is a child process, this test binary once more,
//! because one of the requests ends its process:
//!     TINYTASKS_BARE=1 cargo test --test it -- --ignored --exact bare::the_bare_server --nocapture
//! serves until its standard input ends.

use crate::support::{
    harness::{App, eventually},
    http::Request,
};
use std::{
    env, fs,
    io::{self, BufRead, BufReader, Read, Write},
    iter,
    net::TcpStream,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

const WORKERS: usize = 8;
/// How long the test waits for something that must happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the test waits for something that must not happen. If it did happen, it would within a millisecond.
const A_MOMENT: Duration = Duration::from_millis(500);
const SIGABRT: i32 = 6;

#[test]
#[ignore = "the server that the other tests start"]
fn the_bare_server() {
    if env::var_os("TINYTASKS_BARE").is_none() {
        return;
    }
    let server = Arc::new(tiny_http::Server::http("127.0.0.1:0").unwrap());
    eprintln!("bare: listening on {}", server.server_addr());
    for _ in 0..WORKERS {
        let server = Arc::clone(&server);
        thread::spawn(move || {
            loop {
                let Ok(request) = server.recv() else { continue };
                eprintln!("bare: taken {} {}", request.method(), request.url());
                let _ = answer(request);
            }
        });
    }
    // Ends with the test that has started it, however that ends.
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
    std::process::exit(0);
}

/// Answers 401 at once without a token, else reads the body, as a service on the bare tiny_http would.
fn answer(mut request: tiny_http::Request) -> io::Result<()> {
    let is_field = |name| move |field: &&tiny_http::Header| field.field.equiv(name);
    if request.headers().iter().find(is_field("Authorization")).is_none() {
        return request.respond(tiny_http::Response::empty(401));
    }
    let mut body = Vec::new();
    request.as_reader().read_to_end(&mut body)?;
    let mut text = format!("{} {} [{}]", request.method(), request.url(), String::from_utf8_lossy(&body));
    if request.url() == "/large" {
        text = "x".repeat(40_000);
    }
    let close = tiny_http::Header::from_bytes("Connection", "close").unwrap();
    request.respond(tiny_http::Response::from_string(text).with_header(close))
}

struct Bare {
    child: Child,
    address: String,
    log: Arc<Mutex<String>>,
}

impl Bare {
    fn start() -> Self {
        Self::start_with("exec \"$0\" \"$@\"")
    }

    fn start_with(script: &str) -> Self {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).arg(env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "bare::the_bare_server", "--nocapture"]);
        command.env("TINYTASKS_BARE", "1").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(String::new()));
        let mut bare = Self { child, address: String::new(), log: Arc::clone(&log) };
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                *log.lock().unwrap() += &(line + "\n");
            }
        });
        eventually("the bare server", || bare.find_address().is_some());
        bare.address = bare.find_address().unwrap();
        bare
    }

    fn find_address(&self) -> Option<String> {
        let log = self.log.lock().unwrap();
        log.split_once("listening on ")?.1.split_once('\n').map(|(address, _)| address.to_owned())
    }

    /// How many requests its workers have begun to serve.
    fn taken(&self) -> usize {
        self.log.lock().unwrap().matches("bare: taken ").count()
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends bytes, and reads what comes as text.
struct Client(TcpStream);

impl Client {
    fn send(address: &str, text: &str) -> Self {
        let mut client = Self(TcpStream::connect(address).unwrap());
        client.more(text);
        client
    }

    fn more(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).unwrap();
    }

    #[track_caller]
    fn read_until(&mut self, end: &str) -> String {
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut text = String::new();
        while !text.contains(end) {
            let mut bytes = [0; 4096];
            let count = self.0.read(&mut bytes).unwrap_or_else(|error| panic!("{error} after {text:?}"));
            assert!(count > 0, "the end instead of {end:?}, after {text:?}");
            text += &String::from_utf8_lossy(&bytes[..count]);
        }
        text
    }

    /// Reads everything until the connection ends, in order or by a reset.
    fn rest(&mut self) -> String {
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = Vec::new();
        if let Err(error) = self.0.read_to_end(&mut bytes) {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "the connection stays open");
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[track_caller]
    fn assert_quiet(&mut self) {
        self.0.set_read_timeout(Some(A_MOMENT)).unwrap();
        let peek = || self.0.peek(&mut [0]).map_err(|error| error.kind());
        // A process that is stopped for a moment finds its wait interrupted (signal(7)).
        let peeked = iter::repeat_with(peek).find(|peeked| *peeked != Err(io::ErrorKind::Interrupted));
        assert_eq!(peeked, Some(Err(io::ErrorKind::WouldBlock)));
    }
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: x\r\n\r\n")
}

fn post(fields: &str, body: &str) -> String {
    format!("POST /first HTTP/1.1\r\nHost: x\r\nAuthorization: x\r\n{fields}\r\n\r\n{body}")
}

/// kB that the process has in memory.
fn resident(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn assert_serves(app: &App) {
    assert_eq!(app.get("/health").send().status, 200);
}

#[test]
fn a_declared_length_ends_the_bare_process() {
    // 2^62: no machine has it, whatever it lets processes ask for.
    let request = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4611686018427387904\r\n\r\n";
    let mut bare = Bare::start();
    let mut client = Client::send(&bare.address, request);
    eventually("the end of the process", || !bare.is_running());
    assert_eq!(bare.child.wait().unwrap().signal(), Some(SIGABRT));
    assert!(client.rest().starts_with("HTTP/1.1 401"));

    let mut app = App::spawn();
    assert!(Client::send(&app.address, request).rest().starts_with("HTTP/1.1 413"));
    assert!(app.is_running());
    assert_serves(&app);
}

#[test]
fn unfinished_bodies_hold_every_bare_worker() {
    let begun = post("Content-Length: 5000", "x");
    let bare = Bare::start();
    // The connections are made one after another, because the bare server never serves some of those that are made
    // at the same moment.
    let mut attackers = Vec::new();
    for count in 1..=WORKERS {
        attackers.push(Client::send(&bare.address, &begun));
        eventually("a worker that waits", || bare.taken() == count);
    }
    let mut victim = Client::send(&bare.address, &get("/victim"));
    victim.assert_quiet();
    // The next client is served only when one of them is finished.
    attackers[0].more(&"x".repeat(4999));
    victim.read_until("[]");

    let app = App::spawn();
    let mut attackers = (0..8 * WORKERS).map(|_| Client::send(&app.address, &begun)).collect::<Vec<_>>();
    assert_serves(&app);
    attackers[0].assert_quiet();
}

#[test]
fn descriptors_that_run_out_make_the_bare_server_deaf() {
    let mut bare = Bare::start_with("ulimit -n 40; exec \"$0\" \"$@\"");
    let crowd: Vec<_> = (0..80).map_while(|_| TcpStream::connect(&bare.address).ok()).collect();
    eventually("deafness", || TcpStream::connect(&bare.address).is_err());
    drop(crowd);
    assert!(TcpStream::connect(&bare.address).is_err());
    assert!(bare.is_running());

    let mut app = App::setup().descriptors(256).spawn();
    let crowd: Vec<_> = (0..512).map(|_| TcpStream::connect(&app.address).unwrap()).collect();
    assert_serves(&app);
    drop(crowd);
    assert_serves(&app);
    assert!(app.is_running());
}

#[test]
fn an_endless_line_fills_the_bare_servers_memory() {
    const MEBIBYTES: usize = 32;
    let (begun, more) = ("GET / HTTP/1.1\r\nHost: x\r\nX-A: ", "a".repeat(1 << 20));
    let bare = Bare::start();
    let before = resident(bare.child.id());
    let mut client = Client::send(&bare.address, begun);
    (0..MEBIBYTES).for_each(|_| client.more(&more));
    let taken = || resident(bare.child.id()).saturating_sub(before) >> 10;
    // The kernel's buffers hold far less than this.
    eventually("24 MiB of one line", || taken() > 24);

    let app = App::spawn();
    let before = resident(app.pid());
    let mut client = Client::send(&app.address, begun);
    let is_taken = (0..MEBIBYTES).all(|_| client.0.write_all(more.as_bytes()).is_ok());
    assert!(!is_taken, "{MEBIBYTES} MiB are taken");
    assert!(resident(app.pid()).saturating_sub(before) >> 10 < 4);
    let mut client = Client::send(&app.address, &(begun.to_owned() + &"a".repeat(16 * 1024)));
    assert!(client.rest().starts_with("HTTP/1.1 431"));
}

/// The bare server reads as a second request what a proxy in front of it reads as a body.
#[test]
fn a_request_is_smuggled_past_the_bare_server() {
    let hidden = get("/hidden");
    let length = hidden.len();
    for fields in [
        format!("Content-Length: {length}x"),
        format!("Content-Length: {length}, {length}"),
        format!("Content-Length: 0\r\nContent-Length: {length}"),
        format!("Content-Length: {length}\r\nTransfer-Encoding: identity"),
    ] {
        let is_coded = fields.contains("identity");
        let body = if is_coded { format!("0\r\n\r\n{hidden}") } else { hidden.clone() };
        let request = post(&fields, &body);
        let bare = Bare::start();
        Client::send(&bare.address, &request).read_until("GET /hidden []");

        let app = App::spawn();
        let answers = Client::send(&app.address, &request).rest();
        assert!(answers.starts_with("HTTP/1.1 400"), "{fields}: {answers}");
        assert_eq!(answers.matches("HTTP/1.1").count(), 1, "{fields}: {answers}");
    }
}

#[test]
fn any_transfer_coding_is_chunked_to_the_bare_server() {
    for coding in ["gzip", "identity", "anything", "gzip, chunked"] {
        let request = post(&format!("Transfer-Encoding: {coding}"), "3\r\nabc\r\n0\r\n\r\n");
        let bare = Bare::start();
        Client::send(&bare.address, &request).read_until("POST /first [abc]");

        let app = App::spawn();
        assert!(Client::send(&app.address, &request).rest().starts_with("HTTP/1.1 400"), "{coding}");
    }
}

#[test]
fn a_byte_that_is_not_ascii_gets_no_answer_from_the_bare_server() {
    let request = "GET / HTTP/1.1\r\nHost: x\r\nX-A: \u{e9}\r\nConnection: close\r\n\r\n";
    let bare = Bare::start();
    assert_eq!(Client::send(&bare.address, request).rest(), "");

    let app = App::spawn();
    assert!(Client::send(&app.address, request).rest().starts_with("HTTP/1.1 200"));
}

/// tiny_http does not send the fields of an answer as the service sets them.
#[test]
fn the_bare_server_drops_and_adds_fields() {
    let bare = Bare::start();
    let mut client = Client::send(&bare.address, &get("/one"));
    let answer = client.read_until("[]");
    assert!(!answer.contains("Connection"), "it asked for it to be closed: {answer}");
    assert!(answer.contains("Server: tiny-http (Rust)\r\n"), "{answer}");
    client.more(&get("/two"));
    client.read_until("GET /two []");
    client.more(&get("/large"));
    let answer = client.read_until("\r\n0\r\n\r\n");
    assert!(answer.contains("Transfer-Encoding: chunked\r\n"), "its length is known");

    let app = App::spawn();
    let mut client = Client::send(&app.address, "GET / HTTP/9.9\r\nHost: x\r\n\r\n");
    let answer = client.rest();
    assert!(answer.contains("Connection: close\r\n"), "{answer}");
    assert!(answer.contains("Server: tinytasks\r\n"), "{answer}");
    let large = Request::new(&app.address, "GET", "/openapi.json").send().expect(200);
    assert_eq!(large.field("Content-Length"), Some(large.body.len().to_string().as_str()));
    assert!(large.body.len() > 40_000);
}
