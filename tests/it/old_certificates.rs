//! Servers whose certificate is of X.509 version 1, as Citus makes them, or whose handshake fails: what
//! each `sslmode` makes of them is what libpq makes of them.

use crate::support::{
    harness::{App, Database, Directory, Outcome, run_binary},
    relay::Relay,
    servers::{Server, UNSAFE},
    token::SECRET,
};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    thread,
};

fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).output().expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Makes a self-signed certificate of X.509 version 1 (without extensions) and its key.
fn make_version_1(directory: &Directory) -> [String; 2] {
    let [request, cert, key] = ["csr", "crt", "key"].map(|kind| directory.write(&format!("old.{kind}"), ""));
    let new = ["req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"];
    openssl(&[&new[..], &["-keyout", &key, "-out", &request]].concat());
    openssl(&["x509", "-req", "-days", "2", "-in", &request, "-signkey", &key, "-out", &cert]);
    let text = openssl(&["x509", "-in", &cert, "-noout", "-text"]);
    assert!(text.contains("Version: 1 "), "{text}");
    [cert, key]
}

fn check(url: &str) -> Outcome {
    run_binary(&["check"], &[("DATABASE_URL", url), ("JWT_SECRET_KEY", SECRET)])
}

#[test]
fn a_certificate_of_version_1_matters_only_where_certificates_are_verified() {
    let files = Directory::create();
    let [cert, key] = make_version_1(&files);
    let server = Server::start(&[UNSAFE]);
    server.encrypt(&[cert.clone(), key]);
    let database = Database::create_on(&server.url());
    assert_eq!(run_binary(&["migrate"], &[("DATABASE_URL", &database.url)]).code, Some(0));
    let root = cert.replace('/', "%2F");
    for (query, code, word) in [
        ("", 0, "encryption: TLS 1.3, the server's certificate is not checked"),
        ("sslmode=prefer", 0, "encryption: TLS 1.3, the server's certificate is not checked"),
        ("sslmode=require", 0, "encryption: TLS 1.3, the server's certificate is not checked"),
        ("sslmode=require&channel_binding=require", 0, "encryption: TLS 1.3"),
        ("sslmode=disable", 0, "encryption: none"),
        (&format!("sslmode=verify-ca&sslrootcert={root}"), 1, "X.509 version 3"),
        (&format!("sslmode=verify-full&sslrootcert={root}"), 1, "X.509 version 3"),
    ] {
        let outcome = check(&format!("{}?{query}", database.url));
        assert_eq!(outcome.code, Some(code), "{query}: {outcome:?}");
        let text = outcome.stdout.clone() + &outcome.stderr;
        assert!(text.contains(word), "{query}: {outcome:?}");
    }
    let app = App::setup().database(database).spawn();
    app.user("alice").create_id();
}

/// Starts a relay that claims to support TLS but breaks off every handshake. Plain connections reach the server.
fn start_without_handshake(server: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = server.to_owned();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, server) = (client.unwrap(), server.clone());
            thread::spawn(move || {
                let mut first = [0; 8];
                if client.read_exact(&mut first).is_err() {
                    return;
                }
                if first == [0, 0, 0, 8, 4, 210, 22, 47] {
                    // The first bytes of the handshake are read, so the end is no reset.
                    let _ = client.write_all(b"S").and_then(|()| client.read(&mut [0; 1024]));
                    return;
                }
                let mut onwards = TcpStream::connect(&server).unwrap();
                onwards.write_all(&first).unwrap();
                let (mut from, mut to) = (client.try_clone().unwrap(), onwards.try_clone().unwrap());
                thread::spawn(move || std::io::copy(&mut from, &mut to));
                let _ = std::io::copy(&mut onwards, &mut client);
            });
        }
    });
    address
}

#[test]
fn prefer_goes_on_without_tls_where_the_handshake_fails_and_require_does_not() {
    let database = Database::create();
    assert_eq!(run_binary(&["migrate"], &[("DATABASE_URL", &database.url)]).code, Some(0));
    let address = start_without_handshake(database.server_address());
    let url = database.url.replace(database.server_address(), &address);
    let outcome = check(&url);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stdout.contains("encryption: none"), "{outcome:?}");
    let outcome = check(&(url.clone() + "?sslmode=require"));
    assert!(outcome.code == Some(1) && outcome.stderr.contains("TLS handshake"), "{outcome:?}");
    let app = App::setup().database(database).env("DATABASE_URL", &url).spawn();
    app.user("alice").create_id();
}

/// If the server does not answer during the handshake, `prefer` does not try again without TLS, because the server
/// would not answer then either.
#[test]
fn silence_in_the_handshake_is_reported_as_silence() {
    let files = Directory::create();
    let server = Server::start(&[UNSAFE]);
    server.encrypt(&make_version_1(&files));
    let database = Database::create_on(&server.url());
    let relay = Relay::to(database.server_address());
    relay.silence_after(1);
    let url = database.url.replace(database.server_address(), &relay.address) + "?connect_timeout=2";
    let outcome = check(&url);
    assert!(outcome.code == Some(1) && outcome.stderr.contains("no answer in time"), "{outcome:?}");
    assert_eq!(relay.accepted(), 1);
}
