//! nginx, Caddy and HAProxy, as `deploy` has them, while no service is behind them: what they answer themselves
//! is the service's own 503, which a page of an allowed origin can read.

use crate::proxies::{caddy, nginx};
use crate::support::{
    harness::{Directory, eventually},
    http::{Request, Response, is_timestamp},
};
use std::{
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
};

/// Makes a proxy's command from its folder, the address to listen on and the path of the service's socket.
type Launch = fn(&Directory, &str, &str) -> Command;

/// A proxy that runs while the value lives.
struct Alone {
    proxy: Child,
    address: String,
    _directory: Directory,
}

impl Alone {
    fn start(launch: Launch) -> Self {
        let directory = Directory::create();
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let nobody = directory.path().join("nobody").into_os_string().into_string().unwrap();
        let mut command = launch(&directory, &address, &nobody);
        // nginx writes the time in the machine's zone.
        command.env("HOME", directory.path()).env("TZ", "UTC").current_dir(directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let proxy = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; run scripts/test"));
        let alone = Self { proxy, address, _directory: directory };
        eventually("the proxy", || TcpStream::connect(&alone.address).is_ok());
        alone
    }

    fn request(&self, origin: &str) -> Response {
        let request = Request::new(&self.address, "GET", "/api/alice/tasks").header("Origin", origin);
        request.header("X-Request-Id", "the.clients-1").send().expect(503)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        // All three end their children by this.
        let _ = Command::new("sh").args(["-c", "kill -s TERM $0"]).arg(self.proxy.id().to_string()).status();
        let _ = self.proxy.wait();
    }
}

fn haproxy(directory: &Directory, address: &str, _: &str) -> Command {
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/haproxy.cfg")]);
    command.env("TINYTASKS_ADMIN", directory.path().join("admin")).env("TINYTASKS_BIND", address);
    command.env("TINYTASKS_ORIGIN", "https://app.example.org");
    for instance in 1..=3 {
        command.env(format!("TINYTASKS_{instance}"), "127.0.0.1:1");
    }
    command
}

#[test]
fn a_proxy_without_its_service_answers_as_the_service_would() {
    let proxies: [(&str, Launch); 3] = [("nginx", nginx), ("Caddy", caddy), ("HAProxy", haproxy)];
    for (name, launch) in proxies {
        let proxy = Alone::start(launch);
        let answer = proxy.request("https://app.example.org");
        for (field, value) in [
            ("Content-Type", "application/problem+json"),
            ("Access-Control-Allow-Origin", "https://app.example.org"),
            ("Access-Control-Allow-Credentials", "true"),
            ("Access-Control-Expose-Headers", "Retry-After, X-Request-Id"),
            ("Vary", "Origin"),
            ("Retry-After", "1"),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
            ("X-Request-Id", "the.clients-1"),
        ] {
            assert_eq!(answer.field(field), Some(value), "{name}: {field}");
        }
        let problem = answer.json();
        assert_eq!(problem["type"], "about:blank", "{name}: {problem}");
        assert_eq!(problem["title"], "Service Unavailable", "{name}: {problem}");
        assert_eq!(problem["status"], 503, "{name}: {problem}");
        assert_eq!(problem["error_code"], "SERVICE_UNAVAILABLE", "{name}: {problem}");
        assert_eq!(problem["request_id"], "the.clients-1", "{name}: {problem}");
        assert!(is_timestamp(problem["timestamp"].as_str().unwrap()), "{name}: {problem}");

        let answer = proxy.request("https://other.example.org");
        assert_eq!(answer.field("Access-Control-Allow-Origin"), None, "{name}");
        assert_eq!(answer.field("Access-Control-Allow-Credentials"), None, "{name}");
        assert_eq!(answer.json()["error_code"], "SERVICE_UNAVAILABLE", "{name}");
    }
}
