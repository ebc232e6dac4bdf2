//! Standard error as a pipe whose reader has stalled: requests, and the end, do not wait for it.

use crate::support::{
    harness::{Database, Directory, binary, by_shell, eventually},
    http::Request,
    token::{SECRET, token},
};
use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStderr, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// A service whose log is not read after its first lines.
struct Stalled {
    child: Child,
    stderr: BufReader<ChildStderr>,
    address: String,
    admin: String,
    _database: Database,
    _directory: Directory,
}

/// Stopped when a test ends, also when it fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The address in the line with this text.
fn address_in(log: &mut impl BufRead, text: &str) -> String {
    loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "the service has ended");
        if let Some((_, address)) = line.split_once("://").filter(|_| line.contains(text)) {
            return address.trim_end().to_owned();
        }
    }
}

fn dropped(admin: &str) -> f64 {
    let text = Request::new(admin, "GET", "/metrics").of_admin().send().expect(200).text();
    let line = text.lines().find(|line| line.starts_with("tinytasks_log_lines_dropped_total "));
    line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

impl Stalled {
    fn start() -> Self {
        let (database, directory) = (Database::create(), Directory::create());
        let mut command = binary(&directory);
        let variables = [("JWT_SECRET_KEY", SECRET), ("PORT", "0"), ("ADMIN_ADDR", "127.0.0.1:0")];
        command.env("DATABASE_URL", &database.url).envs(variables).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let admin = address_in(&mut stderr, "metrics and probes");
        let address = address_in(&mut stderr, "listening");
        Self { child, stderr, address, admin, _database: database, _directory: directory }
    }

    /// Requests another user's tasks as a user whose id has 255 characters, which makes a log line of about 7 KB.
    fn fill(&self) {
        let token = token(&"\u{1F600}".repeat(255));
        for _ in 0..400 {
            Request::new(&self.address, "GET", "/api/alice/tasks").bearer(&token).send().expect(403);
        }
    }

    fn dropped(&self) -> f64 {
        dropped(&self.admin)
    }

    fn terminate(&self) {
        let pid = self.child.id().to_string();
        let mut command = Command::new("sh");
        assert!(command.args(["-c", "kill -s TERM $0", &pid]).status().unwrap().success());
    }

    /// The exit code, awaited on a thread of its own.
    fn exit_code(mut child: Child) -> Option<i32> {
        let (sender, ended) = mpsc::channel();
        thread::spawn(move || {
            let mut seen = None;
            eventually("the end", || {
                seen = child.try_wait().unwrap();
                seen.is_some()
            });
            let _ = sender.send(seen.unwrap().code());
        });
        ended.recv_timeout(Duration::from_secs(60)).expect("the service does not end")
    }
}

#[test]
fn a_stalled_log_stops_neither_requests_nor_the_end() {
    let service = Stalled::start();
    service.fill();
    assert!(service.dropped() > 0.0);
    Request::new(&service.address, "GET", "/").send().expect(200);
    service.terminate();
    let Stalled { child, stderr, .. } = service;
    assert_eq!(Stalled::exit_code(child), Some(0));
    drop(stderr);
}

/// Simulates a full disk that has room again, by a named pipe whose reader goes away and comes back.
#[test]
fn lines_that_could_not_be_written_are_counted_in_the_log_once_others_can() {
    let (database, directory) = (Database::create(), Directory::create());
    let pipe = directory.path().join("log");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut command = by_shell(&binary(&directory), "exec 2>log");
    let variables = [("JWT_SECRET_KEY", SECRET), ("PORT", "0"), ("ADMIN_ADDR", "127.0.0.1:0")];
    command.env("DATABASE_URL", &database.url).envs(variables).stdout(Stdio::null());
    let _running = Running(command.spawn().unwrap());
    let mut log = BufReader::new(File::open(&pipe).unwrap());
    let admin = address_in(&mut log, "metrics and probes");
    let address = address_in(&mut log, "listening");
    drop(log);
    for _ in 0..10 {
        Request::new(&address, "GET", "/").send().expect(200);
    }
    eventually("lines that cannot be written", || dropped(&admin) >= 10.0);
    let counted = dropped(&admin);
    let mut log = BufReader::new(File::open(&pipe).unwrap());
    Request::new(&address, "GET", "/").send().expect(200);
    let mut line = String::new();
    while !line.contains("log lines were dropped") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "the service has ended");
    }
    let count: f64 = line.split_once("lines=").unwrap().1.trim_end().parse().unwrap();
    assert!(count >= counted, "{line}");
}

#[test]
fn the_log_says_how_many_lines_were_dropped_when_it_flows_again() {
    let mut service = Stalled::start();
    service.fill();
    let dropped = service.dropped();
    assert!(dropped > 0.0);
    let mut seen = 0.0;
    let mut line = String::new();
    while seen < dropped {
        line.clear();
        assert!(service.stderr.read_line(&mut line).unwrap() > 0, "the service has ended");
        // Each line is whole.
        assert!(line.ends_with('\n') && line.starts_with("20"), "{line}");
        if let Some((_, count)) =
            line.split_once("log lines were dropped").and_then(|(_, rest)| rest.split_once("lines="))
        {
            assert!(line.contains(" WARN "), "{line}");
            seen += count.trim_end().parse::<f64>().unwrap();
        }
    }
    assert_eq!(seen, dropped);
    // The lines of new requests appear as before.
    Request::new(&service.address, "GET", "/").header("X-Request-Id", "afterwards").send().expect(200);
    while !line.contains("afterwards") {
        line.clear();
        assert!(service.stderr.read_line(&mut line).unwrap() > 0, "the service has ended");
    }
    // At the end of the service, no line is lost while the log is being read.
    service.terminate();
    let Stalled { child, mut stderr, .. } = service;
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert!(rest.contains(" INFO stopping"), "{rest}");
    assert_eq!(Stalled::exit_code(child), Some(0));
}
