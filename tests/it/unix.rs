//! `HOST=unix:/path`: what a proxy on the same machine finds. The limits of the gate on it:
//! `TINYTASKS_TEST_UNIX=1 ./scripts/test --test it -- framing:: limits:: connections:: routes:: shutdown::`.

use crate::support::{
    harness::{App, Directory, run_binary},
    http::Connection,
    token::SECRET,
};
use std::{
    fs,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixListener,
    },
};

/// The app's `HOST`, and the path in it.
fn host(directory: &Directory) -> (String, String) {
    let path = directory.path().join("http.sock").into_os_string().into_string().unwrap();
    (format!("unix:{path}"), path)
}

#[test]
fn owner_and_group_may_connect_and_nothing_is_left_at_the_end() {
    let directory = Directory::create();
    let (host, path) = host(&directory);
    // The port is taken by another service, but it does not matter with a Unix socket.
    let other = App::setup().env("HOST", "127.0.0.1").spawn();
    let port = other.address.rsplit_once(':').unwrap().1;
    let mut app = App::setup().env("HOST", &host).env("PORT", port).spawn();
    assert_eq!(app.address, host);
    let metadata = fs::metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    let id = app.user("alice").create_id();
    assert_eq!(app.user("alice").task(id)["id"], id);
    app.signal("TERM");
    assert_eq!(app.wait_for_exit(), Some(0));
    assert!(!fs::exists(&path).unwrap());
}

#[test]
fn the_path_of_a_dead_process_is_taken_over_and_that_of_a_living_one_is_not() {
    let directory = Directory::create();
    let (host, path) = host(&directory);
    let mut killed = App::setup().env("HOST", &host).spawn();
    killed.signal("KILL");
    killed.wait_for_exit();
    assert!(fs::exists(&path).unwrap());
    let app = App::setup().env("HOST", &host).spawn();
    let start = || {
        let url = &app.database.url;
        run_binary(&["serve"], &[("DATABASE_URL", url), ("JWT_SECRET_KEY", SECRET), ("HOST", &host)])
    };
    let outcome = start();
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains(&format!("cannot listen on {host}: ")), "{outcome:?}");
    app.get("/health").send().expect(200);
    drop(app);
}

#[test]
fn what_is_no_socket_is_never_removed() {
    let directory = Directory::create();
    let (host, path) = host(&directory);
    fs::write(&path, "mine").unwrap();
    let variables = [("DATABASE_URL", "postgres://nobody@127.0.0.1:1/x"), ("JWT_SECRET_KEY", SECRET)];
    let outcome = run_binary(&["serve"], &[&variables[..], &[("HOST", &host)]].concat());
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
}

#[test]
fn a_path_is_absolute_and_short_enough_for_a_socket() {
    let long = format!("unix:/{}", "x".repeat(108));
    for host in ["unix:", "unix:http.sock", "unix:./http.sock", &long] {
        let variables = [("DATABASE_URL", "postgres://nobody@127.0.0.1:1/x"), ("JWT_SECRET_KEY", SECRET)];
        let outcome = run_binary(&["check"], &[&variables[..], &[("HOST", host)]].concat());
        assert_eq!(outcome.code, Some(2), "{host}: {outcome:?}");
        assert!(outcome.stderr.starts_with("HOST: ") && outcome.stderr.contains("unix:/path"), "{outcome:?}");
    }
}

#[test]
fn the_clients_address_is_what_the_proxy_says_if_it_is_trusted() {
    for (trusted, fields, wanted) in [
        ("", "X-Forwarded-For: 1.2.3.4\r\n", "unix"),
        ("127.0.0.1", "X-Forwarded-For: 1.2.3.4\r\n", "unix"),
        ("unix", "", "unix"),
        ("unix", "X-Forwarded-For: 6.6.6.6, 1.2.3.4\r\n", "1.2.3.4"),
        ("unix, 127.0.0.1", "Forwarded: for=\"[2001:db8::1]:443\"\r\n", "2001:db8::1"),
        // nginx writes this for a client that is itself connected by a Unix socket.
        ("unix", "X-Forwarded-For: unix:\r\n", "unix"),
    ] {
        let directory = Directory::create();
        let (host, _) = host(&directory);
        let app = App::setup().env("HOST", &host).env("TRUSTED_PROXIES", trusted).spawn();
        let mut connection = Connection::open(&app.address).unwrap();
        connection
            .write(format!("GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: whose\r\n{fields}\r\n").as_bytes());
        connection.read("GET").unwrap().expect(200);
        let line = app.wait_for_log(|line| line.contains("request_id=whose "));
        assert!(line.contains(&format!(" client={wanted} ")), "{trusted}, {fields}: {line}");
    }
    // A peer on TCP is not trusted by `unix`.
    let app = App::setup().env("HOST", "127.0.0.1").env("TRUSTED_PROXIES", "unix").spawn();
    app.get("/").header("X-Request-Id", "tcp").header("X-Forwarded-For", "1.2.3.4").send();
    let line = app.wait_for_log(|line| line.contains("request_id=tcp "));
    assert!(line.contains(" client=127.0.0.1 "), "{line}");
}

#[test]
fn a_successor_that_is_already_there_keeps_its_path() {
    let directory = Directory::create();
    let (host, path) = host(&directory);
    let mut app = App::setup().env("HOST", &host).spawn();
    // An unfinished request keeps the old process running for ten seconds.
    let mut half = Connection::open(&app.address).unwrap();
    half.write(b"GET / HTTP/1.1\r\nHost");
    app.get("/").send();
    app.signal("TERM");
    crate::support::harness::eventually("the end of the path", || !fs::exists(&path).unwrap());
    let successor = App::setup().env("HOST", &host).spawn();
    assert!(app.is_running());
    assert_eq!(app.wait_for_exit(), Some(0));
    successor.get("/health").send().expect(200);
}

/// A socket file that another program has left is taken over.
#[test]
fn a_dead_socket_of_another_program_is_taken_over() {
    let directory = Directory::create();
    let (host, path) = host(&directory);
    drop(UnixListener::bind(&path).unwrap());
    assert!(fs::exists(&path).unwrap());
    App::setup().env("HOST", &host).spawn().get("/health").send().expect(200);
}
