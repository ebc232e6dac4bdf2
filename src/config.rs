//! The environment, a `.env` file and `*_FILE`s, parsed once into plain values. The only module
//! that reads our variables. Every bad variable gives one line that names it, what is wrong and what
//! would be right; the value of a secret is never part of it.

mod dot_env;

use crate::store::DatabaseUrl;
use log::LevelFilter;
use socket2::SockAddr;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;
use std::{env, fs, io};

/// One line for each bad variable, ready to print.
pub type Complaints = Vec<String>;

/// All that `serve` needs.
pub struct Config {
    pub database: Database,
    pub jwt: Jwt,
    pub log_is_json: bool,
    /// In the syntax of `RUST_LOG`.
    pub log_filter: String,
    pub listen: SockAddr,
    pub connections_max: usize,
    /// None is `unix`: whoever comes by the Unix socket.
    pub trusted_proxies: Vec<Option<IpAddr>>,
    /// The files of the certificate chain and of its key.
    pub tls: Option<(String, String)>,
    /// As browsers write them; `*` stands alone.
    pub cors_origins: Vec<String>,
    pub auto_migrate: bool,
    pub docs: bool,
    /// Where metrics and probes listen.
    pub admin: Option<SocketAddr>,
    /// Requests a second and user.
    pub rate_limit: Option<f64>,
    pub requires_if_match: bool,
}

/// How to reach PostgreSQL.
pub struct Database {
    pub url: DatabaseUrl,
    pub pool_size: NonZeroU32,
    pub prepared: bool,
}

/// What makes a token good.
pub struct Jwt {
    /// There unless there is a JWKS.
    pub secret: Option<String>,
    pub previous_secret: Option<String>,
    pub jwks_file: Option<String>,
    pub issuer: Option<String>,
    pub audience: Option<String>,
    pub leeway: Duration,
}

/// Of 4, 8 and 16 the one that was best with sixteen clients on two cores.
const POOL_SIZE_DEFAULT: NonZeroU32 = NonZeroU32::new(16).unwrap();
/// RFC 7518 section 3.2: a key at least as long as the hash.
const SECRET_BYTES_MIN: usize = 32;

/// What `serve` and `check` need.
pub fn load() -> Result<Config, Complaints> {
    finish(|source| {
        let port = source.parse("PORT", "a number from 0 to 65535", 8000, |text| text.parse().ok());
        let tcp = |ip: IpAddr| SockAddr::from(SocketAddr::new(ip, port));
        let wanted = "an IP address, or unix:/path of 107 bytes at most";
        let listen = source.parse("HOST", wanted, tcp(Ipv4Addr::LOCALHOST.into()), |text| {
            match text.strip_prefix("unix:") {
                Some(path) => SockAddr::unix(path).ok().filter(|_| path.starts_with('/')),
                None => text.parse().ok().map(tcp),
            }
        });
        let size = |text: &str| text.parse().ok().filter(|size| *size > 0);
        let level = |part: &str| -> Option<LevelFilter> { part.rsplit('=').next()?.trim().parse().ok() };
        let levels = |text: &str| text.split(',').all(|part| level(part).is_some()).then(|| text.to_owned());
        let json = |text: &str| ["text", "json"].contains(&text).then_some(text == "json");
        let admin = |text: &str| text.parse().ok().map(Some);
        let rate = |text: &str| text.parse().ok().filter(|rate| (0.01..=1e6).contains(rate)).map(Some);
        let ip = |text: &str| text.parse().ok().map(|ip: IpAddr| Some(ip.to_canonical()));
        let proxy = |text: &str| if text == "unix" { Some(None) } else { ip(text) };
        let addresses = "IP addresses or unix, commas between";
        let proxies = |text: &str| text.split(',').map(|part| proxy(part.trim())).collect();
        let tls = (source.text("TLS_CERT_FILE"), source.text("TLS_KEY_FILE"));
        if tls.0.is_some() != tls.1.is_some() {
            source.complain("TLS_CERT_FILE", "and TLS_KEY_FILE go together; give both or none");
        }
        let wanted = "origins such as https://app.example.org (scheme, host, port) with commas between, or *";
        let default = vec!["http://localhost:3000".to_owned()];
        let database = database(source);
        // `?` comes last, so that every variable is read and complained about.
        Some(Config {
            jwt: jwt(source),
            log_is_json: source.parse("LOG_FORMAT", "text or json", false, json),
            log_filter: source.parse("RUST_LOG", "levels such as info", "info".to_owned(), levels),
            listen,
            connections_max: source.parse("MAX_CONNECTIONS", "a number from 1", 1024, size),
            trusted_proxies: source.parse("TRUSTED_PROXIES", addresses, vec![], proxies),
            tls: tls.0.zip(tls.1),
            cors_origins: source.parse("CORS_ORIGINS", wanted, default, origins),
            auto_migrate: source.boolean("AUTO_MIGRATE", true),
            docs: source.boolean("DOCS", true),
            admin: source.parse("ADMIN_ADDR", "address and port, such as 127.0.0.1:9100", None, admin),
            rate_limit: source.parse("RATE_LIMIT", "a number from 0.01 to 1000000", None, rate),
            requires_if_match: source.boolean("REQUIRE_IF_MATCH", false),
            database: database?,
        })
    })
}

/// What `migrate` needs.
pub fn load_database() -> Result<Database, Complaints> {
    finish(database)
}

/// What `token` needs.
pub fn load_jwt() -> Result<Jwt, Complaints> {
    finish(|source| Some(jwt(source)))
}

/// None after a complaint about `DATABASE_URL`.
fn database(source: &mut Source) -> Option<Database> {
    let url = source.required("DATABASE_URL", "give postgres://user:password@host/database");
    let size = |text: &str| text.parse().ok().filter(|size: &NonZeroU32| size.get() <= 1000);
    let pool_size = source.parse("DATABASE_POOL_SIZE", "a number from 1 to 1000", POOL_SIZE_DEFAULT, size);
    let prepared = source.boolean("DATABASE_PREPARED", true);
    match DatabaseUrl::parse(&url?) {
        Ok(url) => Some(Database { url, pool_size, prepared }),
        Err(complaint) => {
            source.complain("DATABASE_URL", &complaint);
            None
        }
    }
}

fn jwt(source: &mut Source) -> Jwt {
    let jwks_file = source.text("JWT_JWKS_FILE");
    let fallback = source.secret("BETTER_AUTH_SECRET");
    let (name, secret) = match fallback.filter(|_| !source.is_set("JWT_SECRET_KEY")) {
        Some(secret) => ("BETTER_AUTH_SECRET", Some(secret)),
        None if jwks_file.is_some() => ("JWT_SECRET_KEY", source.secret("JWT_SECRET_KEY")),
        None => ("JWT_SECRET_KEY", source.required("JWT_SECRET_KEY", "give 32 random bytes or more")),
    };
    let previous_secret = source.secret("JWT_SECRET_KEY_PREVIOUS");
    for (name, secret) in [(name, &secret), ("JWT_SECRET_KEY_PREVIOUS", &previous_secret)] {
        if secret.as_deref().is_some_and(is_weak) {
            source.complain(name, "is weak; give at least 32 bytes, not one repeated character");
        }
    }
    let mut expected = |name: &str| {
        let value = source.text(name);
        if jwks_file.is_some() && value.is_none() {
            source.complain(name, "is missing; with a JWKS give what tokens must say, or * to waive it");
        }
        value.filter(|value| value != "*")
    };
    let leeway = |text: &str| text.parse().ok().filter(|seconds| *seconds <= 60).map(Duration::from_secs);
    Jwt {
        secret,
        previous_secret,
        issuer: expected("JWT_ISSUER"),
        audience: expected("JWT_AUDIENCE"),
        jwks_file,
        leeway: source.parse("JWT_LEEWAY_SECONDS", "a number from 0 to 60", Duration::from_secs(5), leeway),
    }
}

fn is_weak(secret: &str) -> bool {
    let first = secret.chars().next();
    secret.len() < SECRET_BYTES_MIN || secret.chars().all(|char| Some(char) == first)
}

fn origins(text: &str) -> Option<Vec<String>> {
    match text {
        "*" => Some(vec!["*".to_owned()]),
        _ => text.split(',').map(|part| origin(part.trim())).collect(),
    }
}

/// RFC 6454 section 6.2, as a browser writes it: lower case, without a default port.
fn origin(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let (scheme, authority) = text.split_once("://")?;
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse::<u16>().ok()?)),
        _ => (authority, None),
    };
    let is_name = |part: &str, signs: &str| {
        !part.is_empty() && part.chars().all(|char| char.is_ascii_alphanumeric() || signs.contains(char))
    };
    if !is_name(scheme, "+-.") || !is_name(host, "-._[:]") {
        return None;
    }
    let is_default = matches!((scheme, port), (_, None) | ("http", Some(80)) | ("https", Some(443)));
    Some(if is_default { format!("{scheme}://{host}") } else { text })
}

/// Where variables come from. An empty value counts as unset.
struct Source {
    dot_env: HashMap<String, String>,
    complaints: Complaints,
}

/// `read` returns None only where it has complained.
fn finish<T>(read: impl FnOnce(&mut Source) -> Option<T>) -> Result<T, Complaints> {
    let mut source = Source { dot_env: HashMap::new(), complaints: Vec::new() };
    source.read_dot_env();
    match read(&mut source) {
        Some(value) if source.complaints.is_empty() => Ok(value),
        _ => Err(source.complaints),
    }
}

impl Source {
    fn read_dot_env(&mut self) {
        let text = match fs::read_to_string(".env") {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.complain(".env", &format!("cannot be read: {error}")),
        };
        for (index, line) in text.lines().enumerate() {
            match dot_env::line(line.trim()) {
                Some(("", _)) => {}
                Some((name, value)) => drop(self.dot_env.insert(name.to_owned(), value.to_owned())),
                None => self.complain(".env", &format!("line {} is not NAME=value", index + 1)),
            }
        }
    }

    fn complain(&mut self, name: &str, complaint: &str) {
        self.complaints.push(format!("{name}: {complaint}"));
    }

    fn text(&mut self, name: &str) -> Option<String> {
        let value = match env::var(name) {
            Ok(value) => value,
            Err(env::VarError::NotPresent) => self.dot_env.get(name)?.clone(),
            Err(env::VarError::NotUnicode(_)) => {
                self.complain(name, "is not UTF-8; give text");
                return None;
            }
        };
        Some(value).filter(|value| !value.is_empty())
    }

    /// The variable itself, or the content of the file that `NAME_FILE` names.
    fn secret(&mut self, name: &str) -> Option<String> {
        let value = self.text(name);
        let file = format!("{name}_FILE");
        let Some(path) = self.text(&file) else {
            return value;
        };
        if value.is_some() {
            self.complain(name, &format!("is set, and {file} is too; keep one of them"));
            return value;
        }
        match fs::read_to_string(&path) {
            Ok(text) => {
                Some(text.strip_suffix("\r\n").or(text.strip_suffix('\n')).unwrap_or(&text).to_owned())
            }
            Err(error) => {
                self.complain(&file, &format!("{path:?} cannot be read: {error}"));
                None
            }
        }
    }

    fn is_set(&mut self, name: &str) -> bool {
        self.text(name).is_some() || self.text(&format!("{name}_FILE")).is_some()
    }

    fn required(&mut self, name: &str, wanted: &str) -> Option<String> {
        if !self.is_set(name) {
            self.complain(name, &format!("is missing; {wanted}"));
        }
        self.secret(name)
    }

    fn parse<T>(&mut self, name: &str, wanted: &str, default: T, parse: impl FnOnce(&str) -> Option<T>) -> T {
        let Some(text) = self.text(name) else {
            return default;
        };
        parse(text.trim()).unwrap_or_else(|| {
            self.complain(name, &format!("{text:?} does not fit; give {wanted}"));
            default
        })
    }

    fn boolean(&mut self, name: &str, default: bool) -> bool {
        self.parse(name, "true or false", default, |text| text.parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::{is_weak, origin};

    #[test]
    fn origins_are_written_as_browsers_do() {
        for (given, wanted) in [
            ("http://localhost:3000", Some("http://localhost:3000")),
            ("HTTPS://App.Example.org", Some("https://app.example.org")),
            ("https://a.example:443", Some("https://a.example")),
            ("http://a.example:80", Some("http://a.example")),
            ("http://a.example:443", Some("http://a.example:443")),
            ("http://[::1]:3000", Some("http://[::1]:3000")),
            ("http://[::1]", Some("http://[::1]")),
            ("capacitor://localhost", Some("capacitor://localhost")),
            ("https://a.example/", None),
            ("https://a.example/path", None),
            ("https://user@a.example", None),
            ("https://*.example", None),
            ("https://a.example?", None),
            ("https://", None),
            ("https://a.example:", None),
            ("https://a.example:65536", None),
            ("a.example", None),
            ("://a.example", None),
            ("null", None),
            ("", None),
        ] {
            assert_eq!(origin(given).as_deref(), wanted, "{given}");
        }
    }

    #[test]
    fn a_secret_needs_32_bytes_that_differ() {
        assert!(is_weak(&"a".repeat(64)));
        assert!(is_weak(&"ab".repeat(15)));
        assert!(!is_weak(&"ab".repeat(16)));
        assert!(is_weak(""));
    }
}
