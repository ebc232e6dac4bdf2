//! The service behind nginx and Caddy, as `deploy/nginx.conf` and `deploy/Caddyfile` have it, but for
//! names and certificates: what the contract promises holds through them.

use crate::support::{
    harness::{App, Directory, eventually},
    http::{Request, Response, padded},
    raw::Raw,
    token::{segment, token},
};
use serde_json::json;
use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    env, fs,
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
};

const NGINX: &str = "nginx";
const CADDY: &str = "caddy";

/// A proxy and the service behind it.
struct Front {
    app: App,
    address: String,
    proxy: Child,
    /// The proxy's files and the service's socket.
    _directory: Directory,
}

impl Drop for Front {
    fn drop(&mut self) {
        // Both programs end their children by this.
        let _ = Command::new("sh").args(["-c", "kill -s TERM $0"]).arg(self.proxy.id().to_string()).status();
        let _ = self.proxy.wait();
    }
}

impl Front {
    fn start(launch: impl Fn(&Directory, &str, &str) -> Command) -> Self {
        let directory = Directory::create();
        let socket = directory.path().join("http").into_os_string().into_string().unwrap();
        let app = App::setup().env("HOST", &format!("unix:{socket}")).env("TRUSTED_PROXIES", "unix").spawn();
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let mut command = launch(&directory, &address, &socket);
        command.env_clear().env("PATH", env::var_os("PATH").unwrap()).env("HOME", directory.path());
        command.current_dir(directory.path());
        let proxy = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn();
        let proxy = proxy.unwrap_or_else(|error| panic!("{command:?}: {error}; run ./scripts/test"));
        let front = Self { app, address, proxy, _directory: directory };
        eventually("the proxy", || TcpStream::connect(&front.address).is_ok());
        front
    }

    fn request(&self, method: &str, target: &str) -> Request {
        Request::new(&self.address, method, target)
    }

    fn of(&self, user: &str, method: &str, rest: &str) -> Request {
        self.request(method, &format!("/api/{}/tasks{rest}", segment(user))).bearer(&token(user))
    }

    fn create(&self, user: &str, title: &str) -> (Response, i64) {
        let answer = self.of(user, "POST", "").json(json!({"title": title})).send().expect(201);
        let id = answer.json()["id"].as_i64().unwrap();
        (answer, id)
    }
}

fn deployed(name: &str) -> String {
    fs::read_to_string(format!("{}/deploy/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Replaces each text, which must exist: otherwise the test would use another file than it is meant for.
fn replaced(mut text: String, pairs: &[(&str, &str)]) -> String {
    for (from, to) in pairs {
        assert!(text.contains(from), "{from} is not in {text}");
        text = text.replace(from, to);
    }
    text
}

/// A complete configuration of nginx that includes the file of `deploy` where Debian's configuration would.
fn nginx_configuration(directory: &Directory, site: &str) -> String {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| {
        let path = directory.path().join(name);
        format!("{name}_temp_path {};\n", path.display())
    });
    let text = format!(
        "user root;\npid nginx.pid;\ndaemon off;\nerror_log error.log;\nevents {{}}\n\
         http {{\naccess_log off;\n{}\ninclude {site};\n}}\n",
        temporary.concat()
    );
    directory.write("nginx.conf", &text)
}

pub fn nginx(directory: &Directory, address: &str, socket: &str) -> Command {
    let site = deployed("nginx.conf");
    let certificate = "    ssl_certificate /etc/letsencrypt/live/tasks.example.org/fullchain.pem;\n    \
                       ssl_certificate_key /etc/letsencrypt/live/tasks.example.org/privkey.pem;\n";
    let pairs = [("/run/tinytasks.sock", socket), ("listen 443 ssl http2", &format!("listen {address}"))];
    let site = replaced(site, &[(certificate, ""), ("    listen 80;\n", "    listen 127.0.0.9:0;\n")]);
    let site = replaced(site, &pairs).replace("listen 127.0.0.9:0", &format!("listen unix:{socket}.80"));
    let site = directory.write("site.conf", &site);
    let mut command = Command::new(NGINX);
    command.arg("-p").arg(directory.path()).args(["-c", &nginx_configuration(directory, &site)]);
    command.args(["-e", "error.log"]);
    command
}

pub fn caddy(directory: &Directory, address: &str, socket: &str) -> Command {
    let pairs = [("/run/tinytasks.sock", socket), ("tasks.example.org {", &format!("http://{address} {{"))];
    let site = replaced(deployed("Caddyfile"), &pairs).replacen("\n{\n", "\n{\n\tadmin off\n", 1);
    let file = directory.write("Caddyfile", &site);
    let mut command = Command::new(CADDY);
    command.args(["run", "--adapter", "caddyfile", "--config", &file]);
    command
}

#[test]
fn behind_nginx() {
    promises_hold(&Front::start(nginx));
}

#[test]
fn behind_caddy() {
    promises_hold(&Front::start(caddy));
}

fn promises_hold(front: &Front) {
    the_journey(front);
    conditions(front);
    keys(front);
    refusals(front);
    names_in_the_path(front);
    a_long_list(front);
    the_clients_address(front);
}

fn the_journey(front: &Front) {
    front.request("GET", "/health").send().expect(200);
    front.request("GET", "/docs").send().expect(200);
    front.request("GET", "/openapi.json").send().expect(200);
    let (created, id) = front.create("alice", "Buy milk");
    assert_eq!(created.field("Location"), Some(&*format!("/api/alice/tasks/{id}")));
    let task = |method| front.of("alice", method, &format!("/{id}"));
    let body = json!({"title": "Buy oat milk", "complete": false});
    assert_eq!(task("PUT").json(body).send().expect(200).json()["title"], "Buy oat milk");
    assert_eq!(task("PATCH").json(json!({"complete": true})).send().expect(200).json()["complete"], true);
    assert_eq!(task("GET").send().expect(200).json()["title"], "Buy oat milk");
    task("HEAD").send().expect(200);
    assert_eq!(front.of("alice", "GET", "?complete=true&limit=1").send().expect(200).json()["count"], 1);
    let preflight = task("OPTIONS").header("Origin", "http://localhost:3000");
    let preflight = preflight.header("Access-Control-Request-Method", "PATCH").send().expect(204);
    assert_eq!(preflight.field("Access-Control-Allow-Origin"), Some("http://localhost:3000"));
    task("DELETE").send().expect(204);
    task("GET").send().expect_problem(404, "NOT_FOUND");
}

/// Checks conditional requests, also of a client that accepts compressed answers: if the proxy compressed them, it
/// would make the tag weak, and `If-Match` would never match.
fn conditions(front: &Front) {
    let (created, id) = front.create("alice", &"long enough to be worth compressing ".repeat(5));
    let tag = created.field("ETag").unwrap().to_owned();
    assert!(tag.starts_with('"'), "{tag}");
    let task = |method| front.of("alice", method, &format!("/{id}")).header("Accept-Encoding", "gzip, br");
    let got = task("GET").send().expect(200);
    assert_eq!((got.field("ETag"), got.field("Content-Encoding")), (Some(&*tag), None));
    let not_modified = task("GET").header("If-None-Match", &tag).send().expect(304);
    assert_eq!(not_modified.field("ETag"), Some(&*tag));
    let patch = |complete| task("PATCH").header("If-Match", &tag).json(json!({"complete": complete})).send();
    let next = patch(true).expect(200).field("ETag").unwrap().to_owned();
    assert_ne!(next, tag);
    assert_eq!(patch(true).expect(200).field("ETag"), Some(&*next));
    let refused = patch(false).expect_problem(412, "PRECONDITION_FAILED");
    assert_eq!(refused.field("ETag"), Some(&*next));
    task("DELETE").header("If-Match", &tag).send().expect_problem(412, "PRECONDITION_FAILED");
    task("DELETE").header("If-Match", &next).send().expect(204);
}

fn keys(front: &Front) {
    let post =
        |title| front.of("bob", "POST", "").header("Idempotency-Key", "k").json(json!({"title": title}));
    let first = post("once").send().expect(201).json();
    let again = post("once").send().expect(201);
    assert_eq!(again.field("Idempotent-Replayed"), Some("true"));
    assert_eq!(again.json()["id"], first["id"]);
    post("other").send().expect_problem(422, "IDEMPOTENCY_KEY_REUSED");
}

/// Checks that refusals are the service's own answers, as far as the proxy's buffers pass such requests on.
fn refusals(front: &Front) {
    let post = |length| front.of("alice", "POST", "").text(padded(r#"{"title": "t"}"#, length)).send();
    post(64 * 1024).expect(201);
    post(64 * 1024 + 1).expect_problem(413, "PAYLOAD_TOO_LARGE");
    front.request("GET", "/nothing").send().expect_problem(404, "NOT_FOUND");
    front.request("GET", "//health").send().expect_problem(404, "NOT_FOUND");
    front.request("GET", "/api/alice/tasks").send().expect_problem(401, "AUTH_MISSING");
    front.of("alice", "GET", "/x").send().expect_problem(422, "VALIDATION_ERROR");
    front.request("DELETE", "/health").send().expect_problem(405, "METHOD_NOT_ALLOWED");
    let long = format!("/health?{}", "x".repeat(9 * 1024));
    front.request("GET", &long).send().expect_problem(414, "URI_TOO_LONG");
    let mut large = front.request("GET", "/health");
    for count in 0..3 {
        large = large.header(&format!("X-{count}"), &"x".repeat(6 * 1024));
    }
    large.send().expect_problem(431, "HEADERS_TOO_LARGE");
    // A request far beyond all limits may be refused by the proxy itself.
    let mut raw = Raw::on(crate::support::http::connect(&front.address).unwrap());
    let address = &front.address;
    raw.send(format!("POST /api/a/tasks HTTP/1.1\r\nHost: {address}\r\nContent-Length: 100000000\r\n\r\n"));
    let answer = raw.answer().unwrap();
    assert!([401, 413].contains(&answer.status), "{answer:?}");
}

fn names_in_the_path(front: &Front) {
    for user in
        ["a/b", "a//b", "a%2Fb", "a b+c", "?x=1#y", "ünï 漢字 🦀", "%", ".a", "...", "x/../y", "a;b&c"]
    {
        // Dots too: a client would take a segment of dots away before it sends.
        let path = format!("/api/{}/tasks", segment(user).replace('.', "%2E"));
        let request = |method, path: &str| front.request(method, path).bearer(&token(user));
        let created = request("POST", &path).json(json!({"title": user})).send().expect(201);
        assert_eq!(created.json()["user_id"], user);
        let id = created.json()["id"].clone();
        let got = request("GET", &format!("{path}/{id}")).send().expect(200);
        assert_eq!(got.json()["title"], user);
    }
    front.create("carol", "the token is whose");
    front
        .request("GET", "/api/carol%2Fx/tasks")
        .bearer(&token("carol"))
        .send()
        .expect_problem(403, "AUTH_FORBIDDEN");
}

fn a_long_list(front: &Front) {
    const TASKS: usize = 5000;
    front.app.database.execute(&format!(
        "insert into tasks (user_id, title) select 'dave', repeat('x', 200) from generate_series(1, {TASKS})"
    ));
    let list = front.of("dave", "GET", "").header("Accept-Encoding", "gzip").send().expect(200);
    assert_eq!(list.json()["tasks"].as_array().unwrap().len(), TASKS);
    assert_eq!(list.json()["count"], TASKS);
}

/// The address of the client, and not the one that it claims.
fn the_clients_address(front: &Front) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 3], 0)))).unwrap();
    socket.connect(&SockAddr::from(front.address.parse::<SocketAddr>().unwrap())).unwrap();
    let mut raw = Raw::on(socket);
    raw.send(format!(
        "GET /health HTTP/1.1\r\nHost: {}\r\nX-Request-Id: whose\r\nX-Forwarded-For: 6.6.6.6\r\n\
         Forwarded: for=6.6.6.6\r\n\r\n",
        front.address
    ));
    raw.answer().unwrap().expect(200);
    let line = front.app.wait_for_log(|line| line.contains("request_id=whose "));
    assert!(line.contains(" client=127.0.0.3 "), "{line}");
}

/// The programs accept the files of `deploy` unchanged, except for the paths of the certificate, which must exist.
#[test]
fn the_deployed_files_are_valid() {
    let directory = Directory::create();
    let path = |name: &str| directory.path().join(name).into_os_string().into_string().unwrap();
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    command.args(["-subj", "/CN=tasks.example.org", "-keyout", &path("key"), "-out", &path("cert")]);
    assert!(command.stderr(Stdio::null()).status().unwrap().success());
    let folder = "/etc/letsencrypt/live/tasks.example.org";
    let certificate =
        [(format!("{folder}/fullchain.pem"), path("cert")), (format!("{folder}/privkey.pem"), path("key"))];
    let [cert, key] = certificate.each_ref().map(|(from, to)| (&**from, &**to));
    // Below 1024 a test may not listen.
    let pairs =
        [cert, key, ("listen 80;", "listen 127.0.0.1:20080;"), ("listen 443", "listen 127.0.0.1:20443")];
    let site = directory.write("site.conf", &replaced(deployed("nginx.conf"), &pairs));
    let mut command = Command::new(NGINX);
    command.args(["-t", "-p", &path(""), "-e", "error.log", "-c", &nginx_configuration(&directory, &site)]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let file = directory.write("Caddyfile", &deployed("Caddyfile"));
    for arguments in
        [["validate", "--adapter", "caddyfile", "--config", &file].as_slice(), &["fmt", "--diff", &file]]
    {
        let output = Command::new(CADDY).args(arguments).env("HOME", directory.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        assert!(!said.contains("not formatted"), "{said}");
    }
}

#[test]
fn connections_between_proxy_and_service_are_kept() {
    for front in [Front::start(nginx), Front::start(caddy)] {
        let open = || {
            let path = front.app.address.strip_prefix("unix:").unwrap();
            let sockets = fs::read_to_string("/proc/net/unix").unwrap();
            // A listening socket has that flag; inodes tell the others apart.
            let inodes = sockets.lines().filter(|line| line.ends_with(path) && !line.contains(" 00010000 "));
            inodes.filter_map(|line| line.split_whitespace().nth(6).map(str::to_owned)).collect::<Vec<_>>()
        };
        front.request("GET", "/").send().expect(200);
        let before = open();
        assert_eq!(before.len(), 1, "{before:?}");
        for _ in 0..20 {
            front.request("GET", "/").send().expect(200);
        }
        assert_eq!(open(), before);
    }
}

/// A connection from another address of this machine.
fn connect_from(app: &App, address: &str) -> Raw {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let address: SocketAddr = format!("{address}:0").parse().unwrap();
    socket.bind(&SockAddr::from(address)).unwrap();
    let server: SocketAddr = app.address.parse().unwrap();
    socket.connect(&SockAddr::from(server)).unwrap();
    Raw::on(socket)
}

#[test]
fn the_clients_address_is_that_of_the_socket_or_what_a_trusted_proxy_says() {
    let app = App::setup().env("TRUSTED_PROXIES", "127.0.0.2, ::1").spawn();
    let none = App::spawn();
    let mut count = 0;
    let mut assert_client = |app: &App, from: &str, fields: &str, wanted: &str| {
        count += 1;
        let id = format!("client-{count}");
        let mut raw = connect_from(app, from);
        raw.send(format!("GET /health HTTP/1.1\r\nHost: x\r\nX-Request-Id: {id}\r\n{fields}\r\n"));
        raw.answer().unwrap().expect(200);
        let line = app.wait_for_log(|line| line.contains(&format!("request_id={id} ")));
        assert!(line.contains(&format!(" client={wanted} ")), "{fields:?} from {from}: {line}");
    };
    for fields in ["", "X-Forwarded-For: 1.2.3.4\r\n", "Forwarded: for=1.2.3.4\r\n"] {
        assert_client(&none, "127.0.0.2", fields, "127.0.0.2");
        assert_client(&app, "127.0.0.1", fields, "127.0.0.1");
        assert_client(&app, "127.0.0.3", fields, "127.0.0.3");
    }
    for (fields, wanted) in [
        ("", "127.0.0.2"),
        ("X-Forwarded-For: 1.2.3.4\r\n", "1.2.3.4"),
        ("x-forwarded-for:1.2.3.4\r\n", "1.2.3.4"),
        ("X-Forwarded-For: 6.6.6.6, 1.2.3.4\r\n", "1.2.3.4"),
        ("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 1.2.3.4\r\n", "1.2.3.4"),
        ("X-Forwarded-For: 1.2.3.4:5678\r\n", "1.2.3.4"),
        ("X-Forwarded-For: 2001:db8::1\r\n", "2001:db8::1"),
        ("X-Forwarded-For: [2001:db8::1]:443\r\n", "2001:db8::1"),
        ("X-Forwarded-For: ::ffff:1.2.3.4\r\n", "1.2.3.4"),
        ("X-Forwarded-For: unknown\r\n", "127.0.0.2"),
        ("X-Forwarded-For: 1.2.3.4, unknown\r\n", "127.0.0.2"),
        ("X-Forwarded-For:\r\n", "127.0.0.2"),
        ("X-Forwarded-For: 1.2.3.4,\r\n", "127.0.0.2"),
        ("X-Forwarded-For: \u{e9}\r\n", "127.0.0.2"),
        ("X-Forwarded-For: 1.2.3.4 status=200\r\n", "127.0.0.2"),
        ("Forwarded: for=1.2.3.4\r\n", "1.2.3.4"),
        ("Forwarded: for=6.6.6.6, proto=https; FOR=\"1.2.3.4:5678\";by=x\r\n", "1.2.3.4"),
        ("Forwarded: for=\"[2001:db8::1]:443\"\r\n", "2001:db8::1"),
        ("Forwarded: for=\"[2001:db8::1]\"\r\n", "2001:db8::1"),
        ("Forwarded: for=_hidden\r\n", "127.0.0.2"),
        ("Forwarded: proto=https\r\n", "127.0.0.2"),
    ] {
        assert_client(&app, "127.0.0.2", fields, wanted);
    }
    // A refused request has an address too.
    let mut raw = connect_from(&app, "127.0.0.2");
    raw.send("GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: refused\r\nX-Forwarded-For: 1.2.3.4\r\nContent-Length: x\r\n\r\n");
    raw.answer().unwrap().expect(400);
    let line = app.wait_for_log(|line| line.contains("request_id=refused "));
    assert!(line.contains(" client=1.2.3.4 "), "{line}");
}

#[test]
fn on_both_kinds_of_address_a_client_of_the_old_one_is_shown_and_trusted_as_such() {
    let mut app = App::setup().env("HOST", "::").env("TRUSTED_PROXIES", "127.0.0.2").unhealthy().spawn();
    let port = app.address.rsplit_once(':').unwrap().1.to_owned();
    app.address = format!("127.0.0.1:{port}");
    for (from, wanted) in [("127.0.0.1", "127.0.0.1"), ("127.0.0.2", "1.2.3.4")] {
        let mut raw = connect_from(&app, from);
        raw.send(format!(
            "GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: {from}\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n"
        ));
        raw.answer().unwrap().expect(200);
        let line = app.wait_for_log(|line| line.contains(&format!("request_id={from} ")));
        assert!(line.contains(&format!(" client={wanted} ")), "{line}");
    }
}
