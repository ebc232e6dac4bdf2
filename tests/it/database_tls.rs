//! TLS to the database: what each `sslmode` takes and refuses, on every kind of connection.
//! The server's certificate is from an authority made here, in the name `localhost` alone.

use crate::support::{
    harness::{App, Database, Directory, Outcome, eventually, run_binary},
    servers::{Server, UNSAFE},
    token::SECRET,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, Stream,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{
    fs,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::Arc,
    thread,
    time::Duration,
};

const ANY: &str = "encryption: TLS 1.3, the server's certificate is not checked";
const CHAIN: &str = "encryption: TLS 1.3, the server's certificate is checked, the name in it is not";
const NAME: &str = "encryption: TLS 1.3, the server's certificate and the name in it are checked";
const NONE: &str = "encryption: none";

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Makes a certificate and its key. Returns the paths of their files.
fn make_pair(directory: &Directory, name: &str, more: &[&str]) -> [String; 2] {
    let files = ["crt", "key"].map(|kind| directory.write(&format!("{name}.{kind}"), ""));
    let subject = format!("/CN={name}");
    let ec = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let out = ["-days", "2", "-subj", &subject, "-out", &files[0], "-keyout", &files[1]];
    openssl(&[&ec[..], &out, more].concat());
    files
}

fn make_authority(directory: &Directory, name: &str) -> [String; 2] {
    make_pair(directory, name, &[])
}

/// Makes a certificate of this authority for `names` (a subjectAltName), and its key.
fn make_cert(directory: &Directory, authority: &[String; 2], name: &str, names: &str) -> [String; 2] {
    let names = format!("subjectAltName={names}");
    let by = ["-CA", &authority[0], "-CAkey", &authority[1], "-addext", "basicConstraints=CA:FALSE"];
    make_pair(directory, name, &[&by[..], &["-addext", &names]].concat())
}

/// A server with TLS, a database on it, the authority of its certificate, and another authority.
struct Site {
    server: Server,
    database: Database,
    files: Directory,
    authority: [String; 2],
    stranger: [String; 2],
}

impl Site {
    fn start() -> Self {
        let files = Directory::create();
        let authority = make_authority(&files, "authority");
        let stranger = make_authority(&files, "stranger");
        let server = Server::start(&[UNSAFE, "unix_socket_directories=/tmp"]);
        server.encrypt(&make_cert(&files, &authority, "localhost", "DNS:localhost"));
        let database = Database::create_on(&server.url());
        migrate(&database.url);
        Self { server, database, files, authority, stranger }
    }

    /// The URL of the database with this host and this query.
    fn url(&self, host: &str, query: &str) -> String {
        let (_, port) = self.database.server_address().rsplit_once(':').unwrap();
        let host = host.replace("PORT", port);
        let url = self.database.url.replace("@127.0.0.1:", &format!("@{host}:"));
        let query = query.replace("OWN", &self.authority[0].replace('/', "%2F"));
        let query = query.replace("STRANGER", &self.stranger[0]);
        format!("{url}?{query}")
    }
}

fn migrate(url: &str) {
    let outcome = run_binary(&["migrate"], &[("DATABASE_URL", url)]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
}

fn check(url: &str) -> Outcome {
    check_with(url, &[])
}

fn check_with(url: &str, more: &[(&str, &str)]) -> Outcome {
    run_binary(&["check"], &[&[("DATABASE_URL", url), ("JWT_SECRET_KEY", SECRET)], more].concat())
}

#[track_caller]
fn assert_connects(url: &str, encryption: &str) {
    let outcome = check(url);
    assert_eq!(outcome.code, Some(0), "{url} {outcome:?}");
    assert!(outcome.stdout.lines().any(|line| line == encryption), "{url} {outcome:?}");
}

/// Asserts that no connection is made, although the configuration is valid.
#[track_caller]
fn assert_fails(url: &str, reason: &str) {
    let outcome = check(url);
    assert_eq!(outcome.code, Some(1), "{url} {outcome:?}");
    assert!(outcome.stderr.contains(reason), "{url} {outcome:?}");
    assert!(!outcome.stdout.contains("database:"), "{url} {outcome:?}");
}

#[test]
fn each_sslmode_takes_the_certificates_that_libpq_takes() {
    let site = Site::start();
    for (host, query, encryption) in [
        ("localhost", "sslmode=disable", NONE),
        ("localhost", "", ANY),
        // PostgreSQL does not encrypt connections by a Unix socket.
        ("%2Ftmp", "", NONE),
        ("localhost", "sslmode=prefer", ANY),
        ("127.0.0.1", "sslmode=require", ANY),
        ("127.0.0.1", "sslmode=require&channel_binding=require", ANY),
        ("127.0.0.1", "channel_binding=require", ANY),
        ("127.0.0.1", "sslmode=require&channel_binding=disable&gssencmode=disable", ANY),
        ("127.0.0.1", "sslmode=require&sslrootcert=OWN", CHAIN),
        ("127.0.0.1", "sslmode=verify-ca&sslrootcert=OWN", CHAIN),
        ("localhost", "sslmode=verify-full&sslrootcert=OWN", NAME),
        ("localhost", "channel_binding=require&sslrootcert=OWN&sslmode=verify-full", NAME),
        ("localhost", "sslmode=verify-full&sslrootcert=OWN&target_session_attrs=read-write", NAME),
        ("localhost", "hostaddr=127.0.0.1&sslmode=verify-full&sslrootcert=OWN", NAME),
        // Three hosts: one without a server, one whose name is not in the certificate, and a valid one.
        ("localhost:1,127.0.0.1:PORT,localhost", "sslmode=verify-full&sslrootcert=OWN", NAME),
    ] {
        assert_connects(&site.url(host, query), encryption);
    }
    for (host, query, reason) in [
        ("127.0.0.1", "sslmode=verify-full&sslrootcert=OWN", "not valid for name"),
        ("127.0.0.1", "sslm%6Fde=verify-full&sslrootcert=OWN", "not valid for name"),
        ("%2Ftmp", "sslmode=require", "TLS"),
        ("localhost", "sslmode=verify-full&sslrootcert=STRANGER", "UnknownIssuer"),
        ("localhost", "sslmode=verify-ca&sslrootcert=STRANGER", "UnknownIssuer"),
        ("localhost", "sslmode=require&sslrootcert=STRANGER", "UnknownIssuer"),
    ] {
        assert_fails(&site.url(host, query), reason);
    }
}

#[test]
fn the_systems_authorities_are_taken_where_none_is_given() {
    let site = Site::start();
    for (query, host, trusted, code, words) in [
        ("sslmode=verify-full", "localhost", &site.authority[0], 0, NAME),
        ("sslmode=verify-full&sslrootcert=system", "localhost", &site.authority[0], 0, NAME),
        ("sslrootcert=system", "localhost", &site.authority[0], 0, NAME),
        ("sslrootcert=system", "127.0.0.1", &site.authority[0], 1, "not valid for name"),
        ("sslmode=verify-full", "localhost", &site.stranger[0], 1, "UnknownIssuer"),
        ("sslmode=verify-full", "localhost", &"/dev/null".to_owned(), 2, "sslrootcert"),
    ] {
        // These certificates are used before those of the distribution in /etc/ssl.
        let variables = [("SSL_CERT_FILE", trusted.as_str()), ("SSL_CERT_DIR", "")];
        let outcome = check_with(&site.url(host, query), &variables);
        assert_eq!(outcome.code, Some(code), "{query} {outcome:?}");
        assert!(format!("{}{}", outcome.stdout, outcome.stderr).contains(words), "{query} {outcome:?}");
    }
}

#[test]
fn a_server_without_tls_is_taken_only_where_that_is_asked_for() {
    let files = Directory::create();
    let authority = make_authority(&files, "authority");
    let database = Database::create();
    migrate(&database.url);
    for query in ["", "?sslmode=disable", "?sslmode=prefer", "?sslmode=prefer&channel_binding=prefer"] {
        assert_connects(&format!("{}{query}", database.url), NONE);
    }
    let own = format!("sslrootcert={}", authority[0]);
    for (query, reason) in [
        ("sslmode=require", "TLS"),
        ("sslmode=require&channel_binding=require", "TLS"),
        (&format!("sslmode=verify-ca&{own}"), "TLS"),
        (&format!("sslmode=verify-full&{own}"), "TLS"),
        ("channel_binding=require", "channel binding"),
        ("sslmode=prefer&channel_binding=require", "channel binding"),
    ] {
        assert_fails(&format!("{}?{query}", database.url), reason);
    }
}

#[test]
fn addresses_in_certificates_older_tls_and_roles_without_scram() {
    let site = Site::start();
    site.server.encrypt(&make_cert(&site.files, &site.authority, "address", "IP:127.0.0.1"));
    let full = "sslmode=verify-full&sslrootcert=OWN";
    assert_connects(&site.url("127.0.0.1", full), NAME);
    assert_fails(&site.url("localhost", full), "not valid for name");
    let by_address = site.url("localhost", full);
    let (start, rest) = by_address.split_once("localhost:").unwrap();
    let (port, rest) = rest.split_once('/').unwrap();
    assert_connects(&format!("{start}/{rest}&hostaddr=127.0.0.1&port={port}"), NAME);

    // Instead of an authority, the server's certificate itself is trusted. The host must be in its subjectAltName.
    for (subject, more, reason) in [
        (
            "alone",
            &["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=CA:FALSE"][..],
            None,
        ),
        ("authority2", &["-addext", "subjectAltName=DNS:localhost"], Some("CaUsedAsEndEntity")),
        ("localhost", &["-addext", "basicConstraints=CA:FALSE"], Some("not valid for")),
    ] {
        let pair = make_pair(&site.files, subject, more);
        site.server.encrypt(&pair);
        let url = site.url("localhost", &format!("sslmode=verify-full&sslrootcert={}", pair[0]));
        match reason {
            None => assert_connects(&url, NAME),
            Some(reason) => assert_fails(&url, reason),
        }
    }
    site.server.encrypt(&make_cert(&site.files, &site.authority, "address2", "IP:127.0.0.1"));

    // Older TLS is not taken. As with libpq, `prefer` then goes on without TLS.
    site.server.set("ssl_min_protocol_version", "TLSv1");
    site.server.set("ssl_max_protocol_version", "TLSv1.1");
    assert_fails(&site.url("127.0.0.1", "sslmode=require"), "TLS handshake");
    assert_connects(&site.url("127.0.0.1", "sslmode=prefer"), NONE);
    site.server.set("ssl_max_protocol_version", "TLSv1.2");
    let url = site.url("127.0.0.1", &format!("{full}&channel_binding=require"));
    assert_connects(&url, &NAME.replace("1.3", "1.2"));

    // Only SCRAM can be bound to the channel.
    site.database
        .execute("set password_encryption = md5; create role by_md5 login superuser password 'pa55word'");
    let by_md5 = site.url("127.0.0.1", full);
    let (_, rest) = by_md5.split_once('@').unwrap();
    let by_md5 = format!("postgres://by_md5:pa55word@{rest}");
    site.server.allow_md5();
    assert_connects(&by_md5, &NAME.replace("1.3", "1.2"));
    assert_fails(&format!("{by_md5}&channel_binding=require"), "channel binding");
}

/// The number of the service's sessions, and how many of them are encrypted.
fn sessions(site: &Site) -> (i64, i64) {
    let sql = "select count(*), count(*) filter (where ssl) from pg_stat_activity join pg_stat_ssl using (pid) \
               where application_name = 'tinytasks'";
    let row = site.database.client().query_one(sql, &[]).unwrap();
    (row.get(0), row.get(1))
}

#[test]
fn every_connection_of_the_service_is_encrypted_also_after_a_reload() {
    let site = Site::start();
    let plain = site.url("localhost", "sslmode=disable");
    let full = site.url("localhost", "sslmode=verify-full&channel_binding=require&sslrootcert=OWN");
    // The files that only the first URL names may be deleted once another URL is in force.
    let [authority, _] = &site.authority;
    let first_authority = site.files.write("first", &fs::read_to_string(authority).unwrap());
    let first = full.replace(&authority.replace('/', "%2F"), &first_authority);
    let file = site.files.write("url", &first);
    let app = App::setup().env("DATABASE_URL", "").env("DATABASE_URL_FILE", &file);
    let app = app.env("DATABASE_POOL_SIZE", "3").spawn();
    fs::remove_file(first_authority).unwrap();
    app.user("alice").create("over TLS");
    eventually("three connections and the one that watches", || sessions(&site) == (4, 4));

    // The next connections are as the file says now; a bad one keeps what was.
    for (url, line, encrypted) in [
        (&plain, "secrets read again", 0),
        (&format!("{plain}&sslrootcert=/nothing"), "DATABASE_URL kept as it was", 0),
        (&full, "secrets read again", 4),
        (&format!("{plain}&sslcrl=/nothing"), "DATABASE_URL kept as it was", 4),
    ] {
        fs::write(&file, url).unwrap();
        let count = || app.log_so_far().matches(line).count();
        let before = count();
        app.signal("HUP");
        eventually(line, || count() > before);
        site.database.terminate_sessions();
        eventually("new connections", || {
            app.user("alice").request("GET", "/tasks").send().status == 200
                && sessions(&site) == (4, encrypted)
        });
    }
    // A stranger in the server's place gets no connection.
    site.server.encrypt(&make_cert(&site.files, &site.stranger, "impostor", "DNS:localhost"));
    site.database.terminate_sessions();
    eventually("503", || app.get("/health").send().status == 503);
    assert_eq!(app.user("alice").request("GET", "/tasks").send().status, 503);
    assert!(app.wait_for_log(|line| line.contains("out of reach")).contains("reason"));
    assert!(app.log_so_far().contains("UnknownIssuer"));
}

#[test]
fn sslnegotiation_direct_begins_with_tls_and_says_what_for() {
    let files = Directory::create();
    let authority = make_authority(&files, "authority");
    let [cert, key] = make_cert(&files, &authority, "localhost", "DNS:localhost");
    let certs = CertificateDer::pem_file_iter(cert).unwrap().collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certs, key)
        .unwrap();
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut tls = ServerConnection::new(Arc::new(config)).unwrap();
        let mut length_and_version = [0; 8];
        Stream::new(&mut tls, &mut socket).read_exact(&mut length_and_version).unwrap();
        (tls.alpn_protocol().map(<[u8]>::to_vec), length_and_version[4..].to_vec())
    });
    let query = format!("sslnegotiation=direct&sslmode=verify-full&sslrootcert={}", authority[0]);
    let url = format!("postgres://user:pa55word@localhost:{port}/db?hostaddr=127.0.0.1&{query}");
    assert_eq!(check(&url).code, Some(1));
    assert_eq!(server.join().unwrap(), (Some(b"postgresql".to_vec()), vec![0, 3, 0, 0]));
}

/// Starts a man in the middle: it accepts connections, terminates their TLS with this certificate and key, and makes
/// its own TLS connection to the server. Returns its port.
fn start_between(site: &Site, [cert, key]: &[String; 2]) -> u16 {
    let builder = || Arc::new(ring::default_provider());
    let certs = CertificateDer::pem_file_iter(cert).unwrap().collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let config =
        ServerConfig::builder_with_provider(builder()).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(certs, key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&site.authority[0]).unwrap()).unwrap();
    let onward =
        ClientConfig::builder_with_provider(builder()).with_safe_default_protocol_versions().unwrap();
    let onward = onward.with_root_certificates(roots).with_no_client_auth();
    let server = site.database.server_address().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (config, onward) = (Arc::new(config), Arc::new(onward));
    let between = move |mut near: TcpStream| {
        let mut far = TcpStream::connect(&server).unwrap();
        let mut request = [0; 8];
        near.read_exact(&mut request).unwrap();
        far.write_all(&request).unwrap();
        let mut answer = [0; 1];
        far.read_exact(&mut answer).unwrap();
        near.write_all(&answer).unwrap();
        for socket in [&near, &far] {
            socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        }
        let mut near_tls = ServerConnection::new(Arc::clone(&config)).unwrap();
        let name = "localhost".try_into().unwrap();
        let mut far_tls = ClientConnection::new(Arc::clone(&onward), name).unwrap();
        let mut near = Stream::new(&mut near_tls, &mut near);
        let mut far = Stream::new(&mut far_tls, &mut far);
        // Passes data in each direction in turn, until one side has ended.
        while pass(&mut near, &mut far).is_ok() && pass(&mut far, &mut near).is_ok() {}
    };
    thread::spawn(move || {
        let between = Arc::new(between);
        for near in listener.incoming() {
            let between = Arc::clone(&between);
            thread::spawn(move || between(near.unwrap()));
        }
    });
    port
}

/// Passes on what has arrived from one side, or nothing if nothing has arrived. Errors: that side has ended.
fn pass(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    match from.read(&mut buffer) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(count) => to.write_all(&buffer[..count]).and_then(|()| to.flush()),
        Err(error) if [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&error.kind()) => Ok(()),
        Err(error) => Err(error),
    }
}

#[test]
fn somebody_in_between_is_kept_out_by_channel_binding_or_by_the_certificate() {
    let site = Site::start();
    let names = "DNS:localhost,IP:127.0.0.1";
    let stolen = make_cert(&site.files, &site.stranger, "between", names);
    for (query, reason) in [
        // As in libpq: encrypted, and the server's certificate is not verified.
        ("sslmode=require&channel_binding=disable", None),
        ("sslmode=require&channel_binding=require", Some("channel binding")),
        ("sslmode=require", Some("channel binding")),
        ("", Some("channel binding")),
        ("sslmode=verify-full&sslrootcert=OWN&channel_binding=disable", Some("UnknownIssuer")),
    ] {
        let port = start_between(&site, &stolen);
        let (_, real) = site.database.server_address().rsplit_once(':').unwrap();
        let url = site.url("localhost", query).replace(&format!(":{real}/"), &format!(":{port}/"));
        match reason {
            None => assert_connects(&url, ANY),
            Some(reason) => assert_fails(&url, reason),
        }
    }
}
