//! `check`, the log and the metrics name a certificate that clients refuse or will refuse soon,
//! and of handshakes that fail.

use crate::support::{
    certificates::{Issued, issue, make_pair},
    harness::{App, Database, Directory, Outcome, Setup, eventually, run_binary},
    samples::{scrape, value},
    token::{SECRET, now},
};
use socket2::{Domain, Socket, Type};
use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::{Command, Stdio},
};

const DAY: i64 = 24 * 3600;
const EXPIRY: &str = "tinytasks_tls_certificate_expiry_timestamp_seconds";
const HOST: Option<&str> = Some("DNS:localhost");

fn issued(directory: &Directory, name: &str, host: Option<&str>, days: [i64; 2]) -> [String; 2] {
    let now = now();
    issue(directory, &Issued { name, host, begin: now + days[0] * DAY, end: now + days[1] * DAY })
}

fn check(database: &Database, [cert, key]: &[String; 2]) -> Outcome {
    run_binary(
        &["check"],
        &[
            ("DATABASE_URL", &database.url),
            ("JWT_SECRET_KEY", SECRET),
            ("PORT", "0"),
            ("TLS_CERT_FILE", cert),
            ("TLS_KEY_FILE", key),
        ],
    )
}

fn with([cert, key]: &[String; 2]) -> Setup {
    let setup = App::setup().env("TLS_CERT_FILE", cert).env("TLS_KEY_FILE", key);
    setup.env("ADMIN_ADDR", "127.0.0.1:0").unhealthy()
}

/// Runs openssl with empty standard input, until it ends.
fn openssl(arguments: &[&str]) {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // The exit code is ignored, because the client is meant to fail.
    let _ = command.status().unwrap();
}

/// The level and a part of the text of the complaint that is expected.
type Complaint = Option<(&'static str, &'static str)>;

/// Certificates with their keys, and what is wrong with them.
fn cases(directory: &Directory) -> Vec<(&'static str, [String; 2], Complaint)> {
    let expired = issued(directory, "expired", HOST, [-30, -1]);
    let good = issued(directory, "good", HOST, [-1, 15]);
    let both = [&good[0], &expired[0]].map(|file| fs::read_to_string(file).unwrap()).concat();
    let chain = [directory.write("chain", &both), good[1].clone()];
    vec![
        ("expired", expired, Some(("ERROR", "the certificate expired at "))),
        ("an expired one behind it", chain, Some(("ERROR", "certificate 2 of the chain expired at "))),
        ("not yet valid", issued(directory, "early", HOST, [1, 90]), Some(("ERROR", "is not valid before "))),
        ("no name", issued(directory, "nameless", None, [-1, 90]), Some(("ERROR", "names no host"))),
        (
            "the name of a person",
            issued(directory, "person", Some("email:a@example.org"), [-1, 90]),
            Some(("ERROR", "names no host")),
        ),
        (
            "13 days left",
            issued(directory, "soon", HOST, [-77, 14]),
            Some(("WARN", "13 days from now; renew it")),
        ),
        ("15 days left", good, None),
        ("an address", issued(directory, "address", Some("IP:127.0.0.1"), [-1, 90]), None),
    ]
}

#[test]
fn check_finds_what_clients_refuse_in_a_certificate() {
    let directory = Directory::create();
    let database = Database::create();
    run_binary(&["migrate"], &[("DATABASE_URL", &database.url)]);
    for (case, files, complaint) in cases(&directory) {
        let outcome = check(&database, &files);
        let is_named = |line: &str, text: &str| line.contains(text) && line.contains(&files[0]);
        match complaint {
            Some(("ERROR", text)) => {
                assert_eq!(outcome.code, Some(1), "{case}: {outcome:?}");
                let lines: Vec<_> = outcome.stderr.lines().collect();
                assert!(lines.len() == 1 && is_named(lines[0], text), "{case}: {outcome:?}");
            }
            Some((_, text)) => {
                assert_eq!((outcome.code, &*outcome.stderr), (Some(0), ""), "{case}: {outcome:?}");
                let mut warnings = outcome.stdout.lines().filter(|line| line.starts_with("warning: "));
                assert!(warnings.any(|line| is_named(line, text)), "{case}: {outcome:?}");
            }
            None => {
                assert_eq!((outcome.code, &*outcome.stderr), (Some(0), ""), "{case}: {outcome:?}");
                assert!(outcome.stdout.contains("certificate: valid until "), "{case}: {outcome:?}");
                assert!(!outcome.stdout.contains("warning: TLS"), "{case}: {outcome:?}");
            }
        }
    }
}

#[test]
fn the_service_starts_with_a_certificate_that_clients_refuse_and_says_so() {
    let directory = Directory::create();
    for (case, files, complaint) in cases(&directory) {
        let app = with(&files).spawn();
        // The service still serves clients that do not verify the certificate.
        let mut socket = TcpStream::connect(&app.address).unwrap();
        socket.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut alert = Vec::new();
        socket.read_to_end(&mut alert).unwrap();
        assert_eq!(alert[0], 0x15, "{case}: a TLS alert");
        let log = app.log_so_far();
        let of_certificate: Vec<_> = log.lines().filter(|line| line.contains("certificate")).collect();
        match complaint {
            Some((level, text)) => {
                let is_said = |line: &&&str| line.contains(&format!(" {level} ")) && line.contains(text);
                assert!(of_certificate.iter().filter(is_said).count() == 1, "{case}: {log}");
                assert_eq!(of_certificate.len(), 1, "{case}: {log}");
            }
            None => assert!(of_certificate.is_empty(), "{case}: {log}"),
        }
    }
}

#[test]
fn the_metric_of_the_expiry_follows_the_file_without_a_connection() {
    let directory = Directory::create();
    let end = |days: i64| (now() + days * DAY) as f64;
    let files = issued(&directory, "first", HOST, [-1, 30]);
    let app = with(&files).spawn();
    let expiry = || value(&scrape(&app), EXPIRY, &[]).expect("it is there");
    assert!((expiry() - end(30)).abs() < 600.0);
    // The certificate of the same key, renewed; then a chain whose second certificate ends sooner.
    let second = issued(&directory, "first", HOST, [-1, 90]);
    assert_eq!(second, files);
    eventually("the renewed certificate", || (expiry() - end(90)).abs() < 600.0);
    let sooner = fs::read_to_string(&issued(&directory, "sooner", HOST, [-1, 7])[0]).unwrap();
    let longer = fs::read_to_string(&files[0]).unwrap();
    fs::write(&files[0], longer + &sooner).unwrap();
    eventually("the first that expires", || (expiry() - end(7)).abs() < 600.0);
    app.wait_for_log(|line| line.contains(" WARN ") && line.contains("certificate 2 of the chain"));
}

#[test]
fn without_https_there_is_no_metric_of_the_expiry() {
    let app = App::setup().env("ADMIN_ADDR", "127.0.0.1:0").spawn();
    assert_eq!(value(&scrape(&app), EXPIRY, &[]), None);
}

#[test]
fn what_is_not_a_key_or_not_a_certificate_is_named() {
    let directory = Directory::create();
    let [cert, key] = make_pair(&directory, "first");
    let [_, other_key] = make_pair(&directory, "second");
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (pkcs8, older, request) = (path("pkcs8"), path("older"), path("request"));
    openssl(&["pkcs8", "-topk8", "-in", &key, "-passout", "pass:a", "-out", &pkcs8]);
    openssl(&["ec", "-aes128", "-in", &key, "-passout", "pass:a", "-out", &older]);
    openssl(&["req", "-new", "-key", &key, "-subj", "/CN=first", "-out", &request]);
    // Without extensions OpenSSL makes version 1.
    let version_1 = path("version_1");
    openssl(&["x509", "-req", "-in", &request, "-signkey", &key, "-out", &version_1]);
    let broken = directory.write("broken", "-----BEGIN PRIVATE KEY-----\nSECRET\n");
    let empty = directory.write("empty", "");
    for (case, cert, key, variable, text) in [
        ("the two swapped", &key, &cert, "TLS_CERT_FILE", "may be swapped"),
        ("the certificate twice", &cert, &cert, "TLS_KEY_FILE", "may be swapped"),
        ("an encrypted key", &cert, &pkcs8, "TLS_KEY_FILE", "encrypted key"),
        ("an encrypted key of the older form", &cert, &older, "TLS_KEY_FILE", "encrypted key"),
        ("half a key", &cert, &broken, "TLS_KEY_FILE", "no usable key"),
        ("no key", &cert, &empty, "TLS_KEY_FILE", "no usable key"),
        ("a request", &request, &key, "TLS_CERT_FILE", "the request for a certificate"),
        ("no certificate", &empty, &key, "TLS_CERT_FILE", "no certificate in PEM"),
        ("X.509 version 1", &version_1, &key, "TLS_CERT_FILE", "must be of X.509 version 3"),
        ("another's key", &cert, &other_key, "TLS_CERT_FILE, TLS_KEY_FILE", "is not the key of"),
    ] {
        for command in ["check", "serve"] {
            let outcome = run_binary(
                &[command],
                &[
                    ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none"),
                    ("JWT_SECRET_KEY", SECRET),
                    ("PORT", "0"),
                    ("TLS_CERT_FILE", cert),
                    ("TLS_KEY_FILE", key),
                ],
            );
            assert_eq!(outcome.code, Some(2), "{case}: {outcome:?}");
            let begin = format!("{variable}: ");
            let lines: Vec<_> = outcome.stderr.lines().filter(|line| line.starts_with(&begin)).collect();
            assert!(lines.len() == 1 && lines[0].contains(text), "{case}: {outcome:?}");
            assert!(!outcome.stderr.contains("SECRET"), "{case}: {outcome:?}");
        }
    }
}

#[test]
fn a_failed_handshake_is_logged_with_its_reason() {
    let directory = Directory::create();
    let files = issued(&directory, "good", HOST, [-1, 90]);
    let failed = |line: &str| line.contains(" INFO ") && line.contains("TLS handshake failed");
    for (fails, reason) in [
        ("plain HTTP", "plain HTTP to the port of HTTPS"),
        ("an old version", "peer is incompatible"),
        ("a client that does not trust it", "UnknownCA"),
        ("a client that goes", "the client ended the connection"),
    ] {
        let app = with(&files).spawn();
        // A probe of the port is no handshake.
        drop(TcpStream::connect(&app.address).unwrap());
        match fails {
            "plain HTTP" => {
                let mut socket = TcpStream::connect(&app.address).unwrap();
                socket.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
                socket.read_to_end(&mut Vec::new()).unwrap();
            }
            "an old version" => {
                openssl(&["s_client", "-connect", &app.address, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
            }
            "a client that goes" => {
                let mut socket = TcpStream::connect(&app.address).unwrap();
                socket.write_all(&[0x16, 3, 1, 2, 0, 1, 0]).unwrap();
            }
            _ => openssl(&["s_client", "-connect", &app.address, "-verify_return_error"]),
        }
        let line = app.wait_for_log(failed);
        let is_whole = line.contains("client=127.0.0.1") && line.contains("not_logged=0");
        assert!(is_whole && line.contains(reason), "{fails}: {line}");
        assert_eq!(app.log_so_far().matches("TLS handshake failed").count(), 1, "{fails}");
    }
}

/// Each failure comes from another address, which shows how many failures there were between two lines.
#[test]
fn failed_handshakes_have_a_line_a_second_that_counts_those_between() {
    let directory = Directory::create();
    let app = with(&issued(&directory, "good", HOST, [-1, 90])).spawn();
    let server: SocketAddr = app.address.parse().unwrap();
    let fail = |number: usize| {
        let client = [127, 1, (number / 250) as u8, (number % 250 + 1) as u8];
        let mut socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((client, 0)).into()).unwrap();
        socket.connect(&server.into()).unwrap();
        socket.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        // The connection ends only after its failure is logged.
        socket.read_to_end(&mut Vec::new()).unwrap();
    };
    let number = |line: &str| {
        let client = line.split_once("client=").unwrap().1.split(' ').next().unwrap();
        let octets = client.parse::<Ipv4Addr>().unwrap().octets();
        usize::from(octets[2]) * 250 + usize::from(octets[3]) - 1
    };
    let mut failures = 0;
    while app.log_so_far().matches("TLS handshake failed").count() < 3 {
        fail(failures);
        failures += 1;
    }
    let log = app.log_so_far();
    let mut next = 0;
    for line in log.lines().filter(|line| line.contains("TLS handshake failed")) {
        let not_logged = number(line) - next;
        assert!(line.ends_with(&format!(" not_logged={not_logged}")), "{failures}: {log}");
        assert!((not_logged == 0) == (next == 0), "only the first has none before it: {log}");
        next = number(line) + 1;
    }
}

#[test]
fn warnings_of_the_tls_library_are_not_in_the_log_unless_asked_for() {
    let directory = Directory::create();
    let files = issued(&directory, "good", HOST, [-1, 90]);
    let ask = |app: &App| {
        // An address where the name of a host belongs, as some clients send it.
        openssl(&["s_client", "-connect", &app.address, "-servername", "127.0.0.1", "-verify_return_error"]);
        app.wait_for_log(|line| line.contains("TLS handshake failed"));
    };
    for (filter, is_shown) in [("info", false), ("info,rustls=warn", true)] {
        let app = with(&files).env("RUST_LOG", filter).spawn();
        ask(&app);
        assert_eq!(app.log_so_far().contains("Illegal SNI"), is_shown, "{filter}: {}", app.log_so_far());
    }
}
