//! A client that sends any bytes in any pieces and reports how the connection ended; and the victim,
//! another client that has to be served while an attack runs.

use crate::support::{
    harness::{App, eventually},
    http::{Connection, Request, Response, connect, read_response},
    instances::Instance,
    token::token,
};
use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    fs,
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

pub const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
pub const ORIGIN: &str = "Origin: http://localhost:3000\r\n";
/// Longer than the longest deadline of the gate.
const READ_TIMEOUT: Duration = Duration::from_secs(100);
/// On a machine without other load, a victim must be served within this time.
const VICTIM_WAIT_MAX: Duration = Duration::from_secs(1);
/// The pause between two requests of a victim.
const VICTIM_INTERVAL: Duration = Duration::from_millis(30);
/// Just less than the shortest deadline of the service, the 10 s for a head. A victim that is served later may have
/// been blocked until the attackers were cut off.
const DEADLINE_OF_AN_ATTACKER: Duration = Duration::from_secs(9);

/// Stands for the method of a request that the service may not have understood.
const UNKNOWN: &str = "";

/// How the service ended a connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum End {
    /// In an orderly way: everything that was sent before can be read.
    Closed,
    /// By a reset. Some systems then discard an answer that was not read yet.
    Reset,
}

pub struct Raw {
    reader: BufReader<Socket>,
}

impl Raw {
    pub fn open(app: &App) -> Self {
        Self::on(connect(&app.address).unwrap())
    }

    pub fn on(socket: Socket) -> Self {
        socket.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
        Self { reader: BufReader::new(socket) }
    }

    pub fn set_write_timeout(&self, timeout: Duration) {
        self.reader.get_ref().set_write_timeout(Some(timeout)).unwrap();
    }

    /// Returns false when the service has closed the connection, or has not taken the bytes in time.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.reader.get_mut().write_all(bytes.as_ref()).is_ok()
    }

    /// Reads that many bytes. Returns false when the connection ends before.
    pub fn read_some(&mut self, count: usize) -> bool {
        self.reader.read_exact(&mut vec![0; count]).is_ok()
    }

    /// Tells the service that nothing follows.
    pub fn finish(&mut self) {
        let _ = self.reader.get_mut().shutdown(Shutdown::Write);
    }

    /// The next answer; None at the end.
    pub fn answer(&mut self) -> Option<Response> {
        read_answer(&mut self.reader, "GET").unwrap()
    }

    /// The next line of an answer's head, with its CRLF; None at the end.
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        (self.reader.read_line(&mut line).unwrap() > 0).then_some(line)
    }

    /// Begins a request, and returns when the service waits for the byte that is its body.
    pub fn begin(&mut self) {
        self.send("POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n");
        let mut interim = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
        self.reader.read_exact(&mut interim).unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    }

    /// All answers up to the end of the connection. The methods are those of the requests, as far
    /// as they are known.
    pub fn answers(&mut self, methods: &[&str]) -> (Vec<Response>, End) {
        let mut answers = Vec::new();
        loop {
            let method = methods.get(answers.len()).copied().unwrap_or(UNKNOWN);
            match read_answer(&mut self.reader, method) {
                Ok(Some(answer)) => answers.push(answer),
                Ok(None) => return (answers, End::Closed),
                Err(error) if is_reset(&error) => return (answers, End::Reset),
                Err(error) => panic!("after {answers:?}: {error}"),
            }
        }
    }

    /// Asserts that the connection is closed in order, without a byte.
    #[track_caller]
    pub fn assert_ends_silently(&mut self) {
        let (answers, end) = self.answers(&[]);
        assert!(answers.is_empty() && end == End::Closed, "{end:?} after {answers:?}");
    }

    /// Reads until the connection ends, and returns the number of bytes.
    pub fn count_to_the_end(&mut self) -> u64 {
        let (mut count, mut bytes) = (0, [0; 65536]);
        loop {
            match self.reader.read(&mut bytes) {
                Ok(0) => return count,
                Ok(read) => count += read as u64,
                Err(error) if is_reset(&error) => return count,
                // Interrupted by a signal, such as the end of a child process. A read with a time limit is not
                // restarted by the system.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("after {count} bytes: {error}"),
            }
        }
    }

    /// Whether the connection is open and nothing has arrived on it.
    pub fn is_quiet(&mut self) -> bool {
        self.reader.get_ref().set_nonblocking(true).unwrap();
        let read = self.reader.fill_buf().map(<[u8]>::len);
        self.reader.get_ref().set_nonblocking(false).unwrap();
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

fn is_reset(error: &io::Error) -> bool {
    [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error.kind())
}

/// The next final answer; interim ones before it are passed over. `None` where the stream ends instead.
pub fn read_answer(stream: &mut impl BufRead, method: &str) -> io::Result<Option<Response>> {
    loop {
        let Some(answer) = read_response(stream, method)? else { return Ok(None) };
        if answer.status == 100 {
            assert_eq!(answer.fields, [], "an interim answer says nothing");
            continue;
        }
        assert_eq!(answer.field("Content-Length").is_none(), answer.status == 204, "{answer:?}");
        return Ok(Some(answer));
    }
}

/// Sets the flag when it goes out of scope, also when a test fails, so that no thread waits for ever.
pub struct Over<'a>(pub &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// While the attack lasts, another user asks for a list again and again, each time on a new
/// connection, and has to be served within a second.
pub fn beside_a_victim<T>(app: &App, attack: impl FnOnce() -> T) -> T {
    let request = app.user("victim").request("GET", "/tasks");
    beside(app, || drop(request.try_send().expect("the victim is answered").expect(200)), attack)
}

/// The same with a victim of another kind. On a busy machine the victim may wait longer: three times as long as a
/// client of an instance that is not attacked.
pub fn beside<T>(app: &App, victim: impl Fn() + Sync, attack: impl FnOnce() -> T) -> T {
    let instance = Instance::spawn(&app.database.url);
    eventually("health", || instance.is_healthy());
    let request = Request::new(&instance.address, "GET", "/api/victim/tasks").bearer(&token("victim"));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let victim = scope.spawn(|| slowest_until(&is_over, &victim));
        let other = scope.spawn(|| slowest_until(&is_over, || drop(request.send().expect(200))));
        let over = Over(&is_over);
        let result = attack();
        drop(over);
        let slowest = victim.join().expect("the victim is served");
        let usual = other.join().expect("the other instance serves");
        let allowed = (VICTIM_WAIT_MAX + 3 * usual).min(DEADLINE_OF_AN_ATTACKER);
        assert!(
            slowest < allowed,
            "the victim had to wait for {slowest:?}; {allowed:?} are allowed, as others wait for {usual:?}"
        );
        result
    })
}

/// Asserts that a deadline of this many seconds was kept: not earlier, and later only by as much as a busy machine
/// needs. The next longer deadline of the service is at least 20 s longer.
#[track_caller]
pub fn assert_deadline(seconds: u64, took: Duration) {
    let range = Duration::from_millis(seconds * 1000 - 100)..Duration::from_secs(seconds + 10);
    assert!(range.contains(&took), "{took:?} is not {seconds} s");
}

/// Repeats the action, at least once, and returns the longest time that it took.
fn slowest_until(is_over: &AtomicBool, action: impl Fn()) -> Duration {
    let mut slowest = Duration::ZERO;
    loop {
        let start = Instant::now();
        action();
        slowest = slowest.max(start.elapsed());
        if is_over.load(SeqCst) {
            return slowest;
        }
        thread::sleep(VICTIM_INTERVAL);
    }
}

/// Waits for the end of all connections, also of the one that asked for the service's health at the start.
pub fn wait_for_no_client(app: &App) {
    eventually("the end of all connections", || connections(app) == 0);
}

/// How many TCP connections of clients the service holds, from proc(5), /proc/PID/net/tcp.
pub fn connections(app: &App) -> usize {
    let port: u16 = app.address.rsplit_once(':').unwrap().1.parse().unwrap();
    let (local_port, listening, closed) = (format!(":{port:04X}"), "0A", "0");
    let table = fs::read_to_string(format!("/proc/{}/net/tcp", app.pid())).unwrap();
    let is_of_client = |line: &&str| {
        let cells: Vec<_> = line.split_whitespace().collect();
        // The kernel keeps closed connections for a while; they have no inode.
        cells[1].ends_with(&local_port) && cells[3] != listening && cells[9] != closed
    };
    table.lines().skip(1).filter(is_of_client).count()
}

/// Waits until every client's thread sleeps: a connection is idle only a moment after its answer.
pub fn wait_for_waiting_clients(app: &App) {
    eventually("idleness", || threads(app).iter().all(|(name, state)| name != "client" || state == "S"));
}

/// The name and the state (proc(5)) of each thread of the service.
fn threads(app: &App) -> Vec<(String, String)> {
    let state = |(name, fields): (String, Vec<String>)| (name, fields[0].clone());
    thread_stats(app).into_iter().map(state).collect()
}

/// The name of each thread of the service, and the fields after the name in its /proc/PID/task/TID/stat (proc(5)).
/// The first of these is field 3, `state`.
pub fn thread_stats(app: &App) -> Vec<(String, Vec<String>)> {
    let tasks = fs::read_dir(format!("/proc/{}/task", app.pid())).unwrap();
    let stats = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    let read = |stat: String| {
        let (before, after) = stat.rsplit_once(") ").unwrap();
        let fields = after.split(' ').map(str::to_owned).collect();
        (before.split_once('(').unwrap().1.to_owned(), fields)
    };
    stats.map(read).collect()
}

/// The number in this line of the service's /proc/PID/status, in kB or as a count.
pub fn status(app: &App, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", app.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Sends the bytes on a new connection, and checks the answer by the rules for every answer.
pub fn answer(app: &App, bytes: &[u8]) -> (Response, Connection) {
    let mut connection = Connection::open(&app.address).unwrap();
    connection.write(bytes);
    let first_line = String::from_utf8_lossy(bytes).chars().take(90).collect::<String>();
    let response = connection.read("GET").unwrap_or_else(|error| panic!("{error}: {first_line}"));
    response.hold_to_the_rules("GET", "/nothing in particular");
    (response, connection)
}

pub fn open_many(app: &App, count: usize, begun: &str) -> Vec<Raw> {
    let open = |_| {
        let mut raw = Raw::open(app);
        raw.send(begun);
        raw
    };
    (0..count).map(open).collect()
}

/// Opens that many connections, five in each hundredth of a second, and keeps them.
pub fn crowd(app: &App, count: usize) -> Vec<Raw> {
    let mut crowd = Vec::new();
    while crowd.len() < count {
        crowd.extend(open_many(app, 5, ""));
        thread::sleep(Duration::from_millis(10));
    }
    crowd
}

/// A client that has asked for more than socket buffers hold, and reads none of it.
pub fn slow_reader(app: &App, target: &str, fields: &str, requests: usize) -> Raw {
    let (domain, server) = match app.address.strip_prefix("unix:") {
        Some(path) => (Domain::UNIX, SockAddr::unix(path).unwrap()),
        None => (Domain::IPV4, app.address.parse::<SocketAddr>().unwrap().into()),
    };
    let socket = Socket::new(domain, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    socket.connect(&server).unwrap();
    let mut raw = Raw::on(socket);
    raw.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n").repeat(requests));
    raw
}

/// Asserts that all these bytes get one answer, and that the connection is closed in order after it.
pub fn only_answer(app: &App, case: &str, bytes: &[u8]) -> Response {
    let mut raw = Raw::open(app);
    raw.send(bytes);
    let (mut answers, end) = raw.answers(&[]);
    assert_eq!(answers.len(), 1, "{case}: {answers:?}");
    assert_eq!(end, End::Closed, "{case}: {answers:?}");
    answers.remove(0)
}

#[track_caller]
pub fn assert_refused(case: &str, answer: &Response, wanted: (u16, &str)) {
    assert_eq!((answer.status, answer.json()["error_code"].as_str().unwrap()), wanted, "{case}: {answer:?}");
    assert_eq!(answer.field("Connection"), Some("close"), "{case}");
    answer.hold_to_the_rules("GET", "/nothing in particular");
}

pub fn with_a_body(fields: &str, body: &str) -> String {
    format!("POST /health HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n{body}")
}

pub fn as_chunks(text: &str) -> String {
    with_a_body("Transfer-Encoding: chunked", text)
}
