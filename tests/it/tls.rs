//! HTTPS by the gate: versions, renewal of the certificate, and clients that never finish.

use crate::support::{
    certificates::make_pair,
    harness::{App, Directory, become_pipe, eventually, run_binary},
    http::Response,
    raw::{Over, Raw, assert_deadline, beside, read_answer, wait_for_no_client, wait_for_waiting_clients},
    token::{SECRET, token},
};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use std::{
    fs,
    io::{self, BufReader, Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

/// A service with the pair `first`. Both files may be replaced: they are `cert` and `key`.
fn spawn(directory: &Directory, variables: &[(&str, &str)]) -> App {
    let files = install(directory, &make_pair(directory, "first"));
    let setup = App::setup().env("TLS_CERT_FILE", &files[0]).env("TLS_KEY_FILE", &files[1]).unhealthy();
    let setup = variables.iter().fold(setup, |setup, (name, value)| setup.env(name, value));
    let app = setup.spawn();
    eventually("health", || ask(&app, &get("/health")).is_ok_and(|answer| answer.status == 200));
    app
}

/// Replaces the file as tools do: writes another file beside it, then renames that.
fn install(directory: &Directory, pair: &[String; 2]) -> [String; 2] {
    let put = |from: &str, name: &str| {
        let (beside, path) = (directory.path().join("new"), directory.path().join(name));
        fs::copy(from, &beside).unwrap();
        fs::rename(beside, &path).unwrap();
        path.to_str().unwrap().to_owned()
    };
    [put(&pair[0], "cert"), put(&pair[1], "key")]
}

/// Accepts every certificate.
#[derive(Debug)]
struct Trusting(CryptoProvider);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer,
        _: &[CertificateDer],
        _: &ServerName,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

struct Https {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl Https {
    /// Connects. The first request does the handshake.
    fn open(app: &App) -> io::Result<Self> {
        let provider = ring::default_provider();
        let config = ClientConfig::builder_with_provider(Arc::new(provider.clone()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trusting(provider)))
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let client = ClientConnection::new(Arc::new(config), name).unwrap();
        let socket = TcpStream::connect(&app.address)?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        socket.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(StreamOwned::new(client, socket)) })
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    fn answer(&mut self) -> io::Result<Response> {
        read_answer(&mut self.stream, "GET")?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn ask(&mut self, bytes: &[u8]) -> io::Result<Response> {
        self.send(bytes)?;
        self.answer()
    }

    /// Whether the server's certificate has this name.
    fn is_of(&self, name: &str) -> bool {
        let certificates = self.stream.get_ref().conn.peer_certificates().unwrap();
        certificates[0].windows(name.len()).any(|window| window == name.as_bytes())
    }
}

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes()
}

/// Sends a request on a new connection.
fn ask(app: &App, bytes: &[u8]) -> io::Result<Response> {
    Https::open(app)?.ask(bytes)
}

fn beside_a_victim(app: &App, attack: impl FnOnce()) {
    beside(app, || drop(ask(app, &get("/health")).expect("the victim is served").expect(200)), attack);
}

/// The output of `openssl s_client`, the answer to a request included.
fn s_client(app: &App, options: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &app.address, "-ign_eof"]).args(options);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let request = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    // An error is ignored, because the handshake may have been refused already.
    let _ = child.stdin.take().unwrap().write_all(request);
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn tls_1_2_and_1_3_are_spoken_and_nothing_older_or_weaker() {
    let directory = Directory::create();
    let app = spawn(&directory, &[]);
    // At its lowest security level, openssl offers ciphers that it does not offer by default.
    let weak = ["-cipher", "ALL:@SECLEVEL=0"];
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let said = s_client(&app, &[version, "-alpn", "h2,http/1.1"]);
        assert!(said.contains("HTTP/1.1 200 OK") && said.contains(name), "{version}: {said}");
        assert!(said.contains("ALPN protocol: http/1.1"), "{version}: {said}");
        assert!(said.contains("CN = first"), "{version}: {said}");
    }
    for version in ["-tls1", "-tls1_1"] {
        let said = s_client(&app, &[&[version], weak.as_slice()].concat());
        assert!(said.contains(":SSL alert number ") && !said.contains("HTTP/1.1"), "{version}: {said}");
    }
    for cipher in ["AES128-SHA:@SECLEVEL=0", "AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"] {
        let said = s_client(&app, &["-tls1_2", "-cipher", cipher]);
        assert!(said.contains("alert handshake failure") && !said.contains("HTTP/1.1"), "{cipher}: {said}");
    }
    ask(&app, &get("/health")).unwrap().expect(200);
}

#[test]
fn a_session_is_resumed_however_many_clients_came_meanwhile() {
    let directory = Directory::create();
    let app = spawn(&directory, &[]);
    let session = |version: &str| directory.path().join(version).into_os_string().into_string().unwrap();
    for version in ["-tls1_2", "-tls1_3"] {
        let said = s_client(&app, &[version, "-sess_out", &session(version)]);
        assert!(said.contains("New, TLSv1"), "{version}: {said}");
    }
    for _ in 0..300 {
        ask(&app, &get("/health")).unwrap().expect(200);
    }
    let resumed = |version: &str| {
        let said = s_client(&app, &[version, "-sess_in", &session(version)]);
        assert!(said.contains("HTTP/1.1 200 OK"), "{version}: {said}");
        said.contains("Reused, TLSv1")
    };
    assert!(resumed("-tls1_2") && resumed("-tls1_3"));
    install(&directory, &make_pair(&directory, "second"));
    eventually("a session of the old certificate is over", || !resumed("-tls1_2") && !resumed("-tls1_3"));
}

#[test]
fn every_answer_over_https_says_to_stay_with_it() {
    let directory = Directory::create();
    let app = spawn(&directory, &[("ADMIN_ADDR", "127.0.0.1:0")]);
    let request =
        |line: &str, fields: &str| format!("{line} HTTP/1.1\r\nHost: x\r\n{fields}\r\n").into_bytes();
    let long = "a".repeat(17 * 1024);
    let bearer = format!("Authorization: Bearer {}\r\n", token("alice"));
    for (bytes, status) in [
        (request("GET /", ""), 200),
        (request("GET /docs/swagger-ui-bundle.js", ""), 200),
        (request("GET /api/alice/tasks", &bearer), 200),
        (request("OPTIONS /health", ""), 204),
        (request("GET /api/alice/tasks", ""), 401),
        (request("GET /nothing", ""), 404),
        (request("POST /health", ""), 405),
        (request("GET /", "Host: y\r\n"), 400),
        (request("GET /", "Content-Length: 1000000000000\r\n"), 413),
        (request(&format!("GET /{long}"), ""), 414),
        (request("GET /", &format!("A: {long}\r\n")), 431),
    ] {
        let answer = ask(&app, &bytes).unwrap().expect(status);
        let value = answer.field("Strict-Transport-Security").expect("it is there");
        let seconds = value.strip_prefix("max-age=").and_then(|value| value.parse::<u32>().ok());
        assert!(seconds >= Some(365 * 24 * 3600), "a year at least: {value}");
    }
    // The field must not be sent over plain HTTP (RFC 6797 section 7.2).
    for plain in [App::spawn().get("/health").send(), app.admin("/health/live").send()] {
        assert_eq!(plain.field("Strict-Transport-Security"), None);
    }

    let mut kept = Https::open(&app).unwrap();
    let body = format!("{{\"title\":\"t\"}}{}", " ".repeat(65523));
    let fields = format!("{bearer}Content-Type: application/json\r\nContent-Length: 65536\r\n");
    for _ in 0..3 {
        let bytes = [request("POST /api/alice/tasks", &fields), body.clone().into_bytes()].concat();
        kept.ask(&bytes).unwrap().expect(201);
    }
    kept.send(&get("/health").repeat(5)).unwrap();
    for _ in 0..5 {
        kept.answer().unwrap().expect(200);
    }
    let mut app = app;
    app.signal("TERM");
    assert!(kept.answer().is_err());
    assert_eq!(app.wait_for_exit(), Some(0));
}

#[test]
fn a_renewed_certificate_is_taken_over_without_a_failed_request() {
    let directory = Directory::create();
    let app = spawn(&directory, &[]);
    let second = make_pair(&directory, "second");
    let is_over = AtomicBool::new(false);
    let (kept_count, new_count) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let new_is_of = |name: &str| {
        let mut https = Https::open(&app).unwrap();
        https.ask(&get("/health")).unwrap().expect(200);
        https.is_of(name)
    };
    let put = |from: &str, name: &str| {
        let beside = directory.path().join("new");
        fs::copy(from, &beside).unwrap();
        fs::rename(beside, directory.path().join(name)).unwrap();
    };
    let repeat = |count: &AtomicUsize, ask: &mut dyn FnMut() -> io::Result<Response>| {
        while !is_over.load(SeqCst) {
            ask().expect("no request fails").expect(200);
            count.fetch_add(1, SeqCst);
            thread::sleep(Duration::from_millis(10));
        }
    };
    thread::scope(|scope| {
        let (app, repeat, kept_count, new_count) = (&app, &repeat, &kept_count, &new_count);
        scope.spawn(move || {
            let mut kept = Https::open(app).unwrap();
            repeat(kept_count, &mut || kept.ask(&get("/health")));
            assert!(kept.is_of("first"), "it began with that");
        });
        scope.spawn(move || repeat(new_count, &mut || ask(app, &get("/health"))));

        let _over = Over(&is_over);
        // One new file of the pair does not match the other old one, so the old pair stays in use.
        put(&second[0], "cert");
        app.wait_for_log(|line| line.contains("certificate kept as it was"));
        assert!(new_is_of("first"));
        let start = Instant::now();
        put(&second[1], "key");
        eventually("the new certificate", || new_is_of("second"));
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        // A file that is no certificate, or is missing, does not replace the old pair either.
        let complaints = || app.log_so_far().matches("certificate kept as it was").count();
        let garbage = directory.write("garbage", "no certificate");
        put(&garbage, "cert");
        let before = complaints();
        eventually("a complaint", || complaints() > before);
        fs::remove_file(directory.path().join("cert")).unwrap();
        let before = complaints();
        eventually("a complaint", || complaints() > before);
        assert!(new_is_of("second"));
        install(&directory, &make_pair(&directory, "third"));
        eventually("the third certificate", || new_is_of("third"));
    });
    for count in [kept_count, new_count] {
        assert!(count.load(SeqCst) > 20, "{count:?} requests");
    }
}

#[test]
fn who_does_not_finish_the_handshake_is_closed_to_after_ten_seconds() {
    let directory = Directory::create();
    let app = spawn(&directory, &[]);
    // The start of a ClientHello that announces 512 bytes.
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    beside_a_victim(&app, || {
        thread::scope(|scope| {
            for begun in [&hello[..0], &hello[..1], &hello] {
                let app = &app;
                scope.spawn(move || {
                    let start = Instant::now();
                    let mut attackers: Vec<_> = (0..60).map(|_| Raw::open(app)).collect();
                    attackers.iter_mut().for_each(|raw| _ = raw.send(begun));
                    for raw in &mut attackers {
                        assert_eq!(raw.count_to_the_end(), 0, "nothing but the end");
                    }
                    assert_deadline(10, start.elapsed());
                });
            }
            scope.spawn(|| {
                let start = Instant::now();
                let mut raw = Raw::open(&app);
                raw.send(hello);
                while raw.is_quiet() && raw.send([0]) {
                    thread::sleep(Duration::from_millis(300));
                }
                raw.count_to_the_end();
                assert_deadline(10, start.elapsed());
            });
            // A handshake without a request is no more than that.
            scope.spawn(|| {
                let mut https = Https::open(&app).unwrap();
                let start = Instant::now();
                https.send(b"").unwrap();
                https.stream.get_mut().flush().unwrap();
                assert!(https.answer().is_err());
                assert_deadline(10, start.elapsed());
            });
            // After the handshake, the deadlines are the same as for HTTP.
            scope.spawn(|| {
                let mut https = Https::open(&app).unwrap();
                let start = Instant::now();
                let answer = https.ask(b"GET /health HTTP/1.1\r\nHost").unwrap().expect(408);
                assert!(answer.field("Strict-Transport-Security").is_some());
                assert_eq!(answer.field("Connection"), Some("close"));
                assert_deadline(10, start.elapsed());
                assert_eq!(https.stream.read(&mut [0]).unwrap(), 0, "TLS is closed in order");
            });
        });
    });
}

#[test]
fn plain_http_and_noise_on_the_port_are_closed_to() {
    let directory = Directory::create();
    let app = spawn(&directory, &[]);
    beside_a_victim(&app, || {
        for noise in [&get("/health"), &get("/health").repeat(1000), &vec![0; 4096], &vec![0x16; 20000]] {
            let start = Instant::now();
            let mut raw = Raw::open(&app);
            raw.send(noise);
            // The client gets at most a TLS alert.
            assert!(raw.count_to_the_end() < 20);
            assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        }
    });
}

#[test]
fn a_client_in_its_handshake_is_not_the_one_idle_longest() {
    let directory = Directory::create();
    let app = spawn(&directory, &[("MAX_CONNECTIONS", "4")]);
    wait_for_no_client(&app);
    let serve = |https: &mut Https| https.ask(&get("/health")).is_ok_and(|answer| answer.status == 200);
    let mut kept: Vec<_> = (0..4).map(|_| Https::open(&app).unwrap()).collect();
    for https in &mut kept {
        assert!(serve(https));
        wait_for_waiting_clients(&app);
    }
    let mut slow = Https::open(&app).unwrap();
    let mut fast = Https::open(&app).unwrap();
    assert!(serve(&mut fast));
    assert!(serve(&mut slow), "it was pushed out by one that came later");
    assert!(!serve(&mut kept[0]));
    assert!(!serve(&mut kept[1]));
    assert!(serve(&mut kept[2]) && serve(&mut kept[3]));
}

/// A supervisor that is not told would kill the service, and so end the requests of a crowd, or of an attack.
#[test]
fn a_watchdog_is_told_while_all_connections_are_taken() {
    let directory = Directory::create();
    let app = spawn(&directory, &[("MAX_CONNECTIONS", "4"), ("WATCHDOG_USEC", "400000")]);
    // The interim answer shows that the service waits for the body, so the connection is busy.
    let begun = b"OPTIONS / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n";
    let mut taken = Vec::new();
    eventually("all connections are taken", || {
        // A question of the watchdog may push out a client before its request arrives.
        let client = Https::open(&app).and_then(|mut https| {
            https.send(begun)?;
            https.stream.read_exact(&mut [0]).map(|()| https)
        });
        taken.extend(client);
        taken.len() == 4
    });
    let turned_away = "a connection is closed, because all are taken";
    eventually("its questions are turned away", || app.log_so_far().matches(turned_away).count() >= 4);
    assert!(!app.log_so_far().contains("does not answer its own probe"));
}

#[test]
fn a_bad_certificate_or_key_is_exit_code_2_and_a_line_that_names_the_file() {
    let directory = Directory::create();
    let [cert, key] = make_pair(&directory, "first");
    let [_, other_key] = make_pair(&directory, "second");
    let garbage = directory.write("garbage", "-----BEGIN CERTIFICATE-----\n???\n-----END CERTIFICATE-----\n");
    let missing = directory.path().join("missing").to_str().unwrap().to_owned();
    let app = App::spawn();
    for (case, cert, key, named) in [
        ("no certificate file", missing.as_str(), key.as_str(), missing.as_str()),
        ("no key file", &cert, &missing, &missing),
        ("garbage for a certificate", &garbage, &key, &garbage),
        ("garbage for a key", &cert, &garbage, &garbage),
        ("the key of another", &cert, &other_key, &cert),
        ("the two exchanged", &key, &cert, &key),
        ("no key", &cert, "", "TLS_KEY_FILE"),
        ("no certificate", "", &key, "TLS_CERT_FILE"),
        ("an empty certificate file", "/dev/null", &key, "/dev/null"),
    ] {
        let outcome = run_binary(
            &[],
            &[
                ("DATABASE_URL", &app.database.url),
                ("JWT_SECRET_KEY", SECRET),
                ("PORT", "0"),
                ("TLS_CERT_FILE", cert),
                ("TLS_KEY_FILE", key),
            ],
        );
        assert_eq!(outcome.code, Some(2), "{case}: {outcome:?}");
        let lines: Vec<_> = outcome.stderr.lines().filter(|line| line.starts_with("TLS_")).collect();
        assert!(lines.len() == 1 && lines[0].contains(named), "{case}: {outcome:?}");
        assert!(!outcome.stderr.contains("listening"), "{case}");
    }
}

#[test]
fn plain_http_beyond_this_machine_is_warned_of() {
    let directory = Directory::create();
    let is_warned = |app: App| app.log_so_far().contains("plain HTTP beyond this machine");
    for (host, wanted) in [("0.0.0.0", true), ("127.0.0.2", false)] {
        assert_eq!(is_warned(App::setup().env("HOST", host).spawn()), wanted, "{host}");
    }
    assert!(!is_warned(spawn(&directory, &[("HOST", "0.0.0.0")])));
}

/// The certificate lies on a disk that does not answer. A named pipe that nobody writes to stands for that.
#[test]
fn a_certificate_that_cannot_be_read_to_its_end_holds_up_nobody() {
    let directory = Directory::create();
    let mut app = spawn(&directory, &[]);
    let _writer = become_pipe(&directory.path().join("cert"));
    for _ in 0..3 {
        assert_eq!(ask(&app, &get("/health")).unwrap().status, 200);
    }
    app.signal("TERM");
    assert_eq!(app.wait_for_exit(), Some(0));
}
