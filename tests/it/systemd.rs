//! The protocol between systemd and the service, with the test in systemd's role: a datagram
//! socket that takes the notifications, and a listening socket that outlives the service. And the
//! units of `deploy/systemd`, held against systemd's own judges.

use crate::support::{
    harness::{App, Directory, run_binary},
    http::Connection,
    token::SECRET,
};
use serde_json::json;
use socket2::{SockAddr, Socket, Type};
use std::{
    fs,
    net::SocketAddr,
    os::{
        fd::AsRawFd,
        unix::{fs::FileTypeExt, net::UnixDatagram},
    },
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(30);
/// The flag as it is in /proc/PID/fdinfo (proc(5)).
const O_NONBLOCK: u32 = 0o4000;
/// How often the service is restarted under each kind of client.
const ROUNDS: usize = 3;

/// The socket to which the service reports.
struct Manager {
    socket: UnixDatagram,
    path: String,
    _directory: Directory,
}

impl Manager {
    fn new() -> Self {
        let directory = Directory::create();
        let path = directory.path().join("notify").into_os_string().into_string().unwrap();
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, path, _directory: directory }
    }

    /// The next notification, and its lines.
    fn next(&self) -> Vec<String> {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).expect("a notification");
        let text = String::from_utf8(bytes[..length].to_vec()).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

fn unit(name: &str) -> String {
    format!("{}/deploy/systemd/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// The judge of units. Where systemd does not run, as in a container, it has no folder to work in, which only root
/// could make, and may not know the units that ours need: it gets a folder, and those that ./scripts/test unpacks.
fn analyze(directory: &Directory) -> Command {
    let mut command = Command::new("systemd-analyze");
    if !Path::new("/run/systemd/system").exists() {
        let unpacked = concat!(env!("CARGO_MANIFEST_DIR"), "/.data/debian/root/lib/systemd/system");
        let units = format!("/lib/systemd/system:{unpacked}");
        command.arg("--user").env("XDG_RUNTIME_DIR", directory.path()).env("SYSTEMD_UNIT_PATH", units);
    }
    command
}

#[test]
fn the_unit_leaves_little_to_an_intruder() {
    let directory = Directory::create();
    let mut command = analyze(&directory);
    command.args(["security", "--offline=true", "--threshold=15", &unit("tinytasks.service")]);
    let output = command.output().expect("systemd-analyze; ./scripts/test installs it");
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "exposure over 1.5: {report}");
    assert!(report.contains("Overall exposure level for tinytasks.service: 1."), "{report}");
}

/// systemd-analyze requires that the program of the unit exists, so the unit is changed to name the one under test.
#[test]
fn the_units_are_valid() {
    let directory = Directory::create();
    let binary = crate::support::harness::binary(&directory);
    let service = fs::read_to_string(unit("tinytasks.service")).unwrap();
    let program = binary.get_program().to_str().unwrap();
    assert!(service.contains("ExecStart=/usr/bin/tinytasks --config /etc/tinytasks/tinytasks.conf serve\n"));
    let service = directory.write("tinytasks.service", &service.replace("/usr/bin/tinytasks", program));
    let socket = directory.write("tinytasks.socket", &fs::read_to_string(unit("tinytasks.socket")).unwrap());
    // The unit's manual page exists only where the package is installed.
    let output = analyze(&directory).args(["verify", "--man=no", &service, &socket]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && !said.contains(".service:") && !said.contains(".socket:"), "{said}");
}

/// A listening socket on a free TCP port, or on a path.
fn listener(path: Option<&Path>) -> Socket {
    let tcp = || SocketAddr::from(([127, 0, 0, 1], 0)).into();
    let address = path.map_or_else(tcp, |path| SockAddr::unix(path).unwrap());
    let socket = Socket::new(address.domain(), Type::STREAM, None).unwrap();
    socket.bind(&address).unwrap();
    socket.listen(4096).unwrap();
    socket
}

#[test]
fn it_says_when_it_is_ready_reloading_and_stopping() {
    let manager = Manager::new();
    let mut app = App::setup().env("NOTIFY_SOCKET", &manager.path).spawn();
    assert_eq!(manager.next(), ["READY=1"]);
    app.signal("HUP");
    let reloading = manager.next();
    assert_eq!(reloading[0], "RELOADING=1");
    let time = reloading[1].strip_prefix("MONOTONIC_USEC=").expect("what notify-reload wants to know");
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    // This clock stands still while the machine is suspended, so it is never ahead of the uptime.
    assert!((1.0..=uptime * 1e6 + 1e5).contains(&time.parse::<f64>().unwrap()), "{reloading:?} {uptime}");
    assert_eq!(manager.next(), ["READY=1"]);
    app.wait_for_log(|line| line.contains("secrets read again"));
    app.signal("TERM");
    assert_eq!(manager.next(), ["STOPPING=1"]);
    assert_eq!(app.wait_for_exit(), Some(0));
}

#[test]
fn a_manager_that_is_gone_is_a_line_in_the_log_and_no_more() {
    let app = App::setup().env("NOTIFY_SOCKET", "/nonexistent/notify").spawn();
    app.wait_for_log(|line| line.contains("cannot notify systemd"));
    app.get("/health").send().expect(200);
}

#[test]
fn the_watchdog_is_told_as_long_as_the_service_answers() {
    let directory = Directory::create();
    let unix = format!("unix:{}", directory.path().join("http").display());
    for host in ["127.0.0.1", "0.0.0.0", "::", &unix] {
        let manager = Manager::new();
        let app = App::setup().env("HOST", host).env("NOTIFY_SOCKET", &manager.path);
        let app = app.env("WATCHDOG_USEC", "2000000").unhealthy().spawn();
        let mut told = [manager.next(), manager.next(), manager.next()].concat();
        told.sort();
        assert_eq!(told, ["READY=1", "WATCHDOG=1", "WATCHDOG=1"], "{host}");
        app.wait_for_log(|line| line.contains("request_id=watchdog "));
    }
}

#[test]
fn the_watchdog_is_told_by_a_service_that_speaks_tls_as_well() {
    let (manager, directory) = (Manager::new(), Directory::create());
    let [cert, key] = crate::support::certificates::make_pair(&directory, "localhost");
    let app = App::setup().env("TLS_CERT_FILE", &cert).env("TLS_KEY_FILE", &key);
    let app = app.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "2000000").unhealthy().spawn();
    let mut told = [manager.next(), manager.next(), manager.next()].concat();
    told.sort();
    assert_eq!(told, ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
    assert!(!app.log_so_far().contains("handshake"), "its own question is no failure of a client");
    assert!(!app.log_so_far().contains("does not answer its own probe"));
}

#[test]
fn the_watchdog_is_not_told_by_a_service_that_is_deaf() {
    let manager = Manager::new();
    let deaf = listener(None);
    let address = deaf.local_addr().unwrap().as_socket().unwrap();
    let app = App::setup().inherits(&deaf).env("NOTIFY_SOCKET", &manager.path);
    let app = app.env("WATCHDOG_USEC", "2000000").spawn();
    assert_eq!(app.address, address.to_string());
    while manager.next() != ["WATCHDOG=1"] {}
    // Threads that accept connections from the same socket and never answer simulate a service that no longer
    // answers. There are so many of them that they get the watchdog's connections first.
    let is_over = Arc::new(AtomicBool::new(false));
    deaf.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    for _ in 0..8 {
        let (deaf, is_over, mut held) = (deaf.try_clone().unwrap(), Arc::clone(&is_over), Vec::new());
        thread::spawn(move || {
            while !is_over.load(SeqCst) {
                held.extend(deaf.accept());
            }
        });
    }
    app.wait_for_log(|line| line.contains("the service does not answer its own probe"));
    is_over.store(true, SeqCst);
}

#[test]
fn a_watchdog_of_another_process_is_not_ours() {
    let manager = Manager::new();
    let app = App::setup().env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "1000");
    let app = app.env("WATCHDOG_PID", "1").spawn();
    assert_eq!(manager.next(), ["READY=1"]);
    app.signal("TERM");
    assert_eq!(manager.next(), ["STOPPING=1"]);
}

#[test]
fn a_service_whose_database_is_away_does_not_keep_clients_waiting_for_it() {
    let listener = listener(None);
    let away = "postgres://nobody@127.0.0.1:1/nothing";
    let app = App::setup().inherits(&listener).env("DATABASE_URL", away).unhealthy().spawn();
    app.get("/health").send().expect(503);
}

#[test]
fn an_inherited_socket_is_used_whatever_host_and_port_say() {
    let directory = Directory::create();
    let path = directory.path().join("inherited");
    for path in [None, Some(&*path)] {
        let listener = listener(path);
        let mut app = App::setup().inherits(&listener).env("PORT", "1").spawn();
        let tcp = || listener.local_addr().unwrap().as_socket().unwrap().to_string();
        assert_eq!(app.address, path.map_or_else(tcp, |path| format!("unix:{}", path.display())));
        app.user("alice").create("t");
        app.signal("TERM");
        assert_eq!(app.wait_for_exit(), Some(0));
        // The service must not remove the path, because it did not make the socket.
        assert!(path.is_none_or(|path| fs::metadata(path).unwrap().file_type().is_socket()));
    }
}

/// As docs/deploy.md has it: the path of the socket unit is also in `HOST`.
#[test]
fn check_and_healthcheck_ask_the_inherited_socket_whose_path_is_host() {
    let directory = Directory::create();
    let path = directory.path().join("inherited");
    let listener = listener(Some(&path));
    let host = format!("unix:{}", path.display());
    let app = App::setup().inherits(&listener).env("HOST", &host).spawn();
    assert_eq!(app.address, host);
    let variables = [("DATABASE_URL", &*app.database.url), ("JWT_SECRET_KEY", SECRET), ("HOST", &*host)];
    for (command, part) in [
        ("healthcheck", "\"status\":\"healthy\""),
        ("check", &*format!("address: {host} is that of a running tinytasks\n")),
    ] {
        let outcome = run_binary(&[command], &variables);
        assert_eq!((outcome.code, &*outcome.stderr), (Some(0), ""), "{outcome:?}");
        assert!(outcome.stdout.contains(part), "{outcome:?}");
    }
    assert!(!app.log_so_far().contains(" WARN "), "{}", app.log_so_far());
}

/// With a non-blocking socket, the service would ask for connections in an endless loop.
#[test]
fn an_inherited_socket_that_somebody_makes_non_blocking_is_made_blocking_again() {
    let listener = listener(None);
    let app = App::setup().inherits(&listener).spawn();
    listener.set_nonblocking(true).unwrap();
    let is_blocking = || {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", listener.as_raw_fd())).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        u32::from_str_radix(flags, 8).unwrap() & O_NONBLOCK == 0
    };
    crate::support::harness::eventually("a socket that blocks", is_blocking);
    app.get("/health").send().expect(200);
    assert!(!app.log_so_far().contains("cannot accept"), "{}", app.log_so_far());
}

#[test]
fn what_cannot_be_listened_on_ends_the_start() {
    let script = "export LISTEN_PID=$$ LISTEN_FDS=$1; exec \"$0\" 3</dev/null 4</dev/null";
    for (count, wanted) in [("1", "cannot use the inherited socket: "), ("2", "give one socket")] {
        let directory = Directory::create();
        let binary = crate::support::harness::binary(&directory);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).arg(binary.get_program()).arg(count).env_clear();
        command.envs([("DATABASE_URL", "postgres://nobody@127.0.0.1:1/x"), ("JWT_SECRET_KEY", SECRET)]);
        let output = command.current_dir(directory.path()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(wanted), "{stderr}");
    }
    // Meant for another process.
    let variables = [("LISTEN_PID", "1"), ("LISTEN_FDS", "1"), ("JWT_SECRET_KEY", SECRET)];
    let more = [("DATABASE_URL", "postgres://nobody@127.0.0.1:1/x"), ("HOST", "192.0.2.1")];
    let outcome = run_binary(&[], &[variables, [more[0], more[1], ("PORT", "0")]].concat());
    assert!(outcome.stderr.contains("cannot listen on 192.0.2.1:0"), "{outcome:?}");
}

/// The service is stopped and started again under clients that open a connection for each request, and clients that
/// keep their connection for as long as possible.
#[test]
fn a_restart_through_an_inherited_socket_fails_no_request() {
    let directory = Directory::create();
    let path = directory.path().join("inherited");
    for path in [None, Some(&*path)] {
        restart_under_load(path);
    }
}

fn restart_under_load(path: Option<&Path>) {
    let listener = listener(path);
    let database = crate::support::harness::Database::create();
    let setup = || App::setup().inherits(&listener).env("DATABASE_URL", &database.url);
    let mut app = setup().spawn();
    let address = app.address.clone();
    let (is_over, created) = (AtomicBool::new(false), AtomicUsize::new(0));
    let create = |keeps: bool| {
        let mut kept: Option<Connection> = None;
        while !is_over.load(SeqCst) {
            let request = crate::support::http::Request::new(&address, "POST", "/api/alice/tasks");
            let request = request.bearer(&crate::support::token::token("alice")).json(json!({"title": "t"}));
            let is_reused = kept.is_some();
            let mut connection = kept.take().unwrap_or_else(|| Connection::open(&address).unwrap());
            connection.write(&request.bytes());
            let answer = match connection.read("POST") {
                // On a busy machine the connection may have been idle for too long. It then ends without an answer,
                // and the request was not processed, as the count will show (RFC 9112 section 9.3.1).
                Err(_) if is_reused => continue,
                answer => answer.unwrap_or_else(|error| panic!("keeps {keeps}: {error}")),
            };
            let is_last = answer.field("Connection") == Some("close");
            answer.expect(201);
            created.fetch_add(1, SeqCst);
            kept = Some(connection).filter(|_| keeps && !is_last);
        }
    };
    thread::scope(|scope| {
        let clients: Vec<_> =
            [true, true, false, false, false].map(|keeps| scope.spawn(move || create(keeps))).into();
        for _ in 0..ROUNDS {
            await_more(&created);
            app.signal("TERM");
            assert_eq!(app.wait_for_exit(), Some(0));
            app = setup().spawn();
        }
        await_more(&created);
        is_over.store(true, SeqCst);
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
    let stored: usize = database.value("select count(*) from tasks").parse().unwrap();
    assert_eq!(stored, created.load(SeqCst));
}

fn await_more(created: &AtomicUsize) {
    let before = created.load(SeqCst);
    crate::support::harness::eventually("more tasks", || created.load(SeqCst) > before + 50);
}
