//! The environment, a `.env` file and `*_FILE`s, parsed once into plain values. The only module
//! that reads variables. Every bad variable gives one line that names it, what is wrong and what
//! would be right; the value of a secret is never part of it.

use std::{
    collections::HashMap,
    env, fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    time::Duration,
};

/// One line for each bad variable, ready to print.
pub type Complaints = Vec<String>;

/// All that `serve` needs.
pub struct Config {
    pub database: Database,
    pub jwt: Jwt,
    pub listen: SocketAddr,
    /// Normalized origins; `*` stands alone.
    pub cors_origins: Vec<String>,
    pub auto_migrate: bool,
    pub docs: bool,
}

/// How to reach PostgreSQL.
pub struct Database {
    pub url: String,
    pub pool_size: NonZeroU32,
    pub prepared: bool,
}

/// What makes a token good.
pub struct Jwt {
    pub secret: String,
    pub previous_secret: Option<String>,
    pub issuer: Option<String>,
    pub audience: Option<String>,
    pub leeway: Duration,
}

/// How the log is written.
pub struct Log {
    pub json: bool,
    /// In the syntax of `RUST_LOG`.
    pub filter: String,
}

/// Eight connections keep two to four cores of PostgreSQL busy; more only add switches.
const POOL_SIZE_DEFAULT: NonZeroU32 = NonZeroU32::new(8).unwrap();
/// RFC 7518 section 3.2: a key at least as long as the hash.
const SECRET_BYTES_MIN: usize = 32;
const LEEWAY_SECONDS_MAX: u64 = 60;
/// Promised for later versions. Better refused than silently without effect.
const NOT_YET: [&str; 8] = [
    "JWT_JWKS_FILE",
    "TLS_CERT_FILE",
    "TLS_KEY_FILE",
    "TRUSTED_PROXIES",
    "MAX_CONNECTIONS",
    "RATE_LIMIT",
    "REQUIRE_IF_MATCH",
    "ADMIN_ADDR",
];

impl Config {
    /// `check_url` says what is wrong with a `DATABASE_URL`.
    pub fn load(check_url: fn(&str) -> Result<(), String>) -> Result<Self, Complaints> {
        let mut source = Source::open();
        for name in NOT_YET {
            if source.text(name).is_some() {
                source.complain(name, "is not supported by this version; remove it");
            }
        }
        let host = source.parse(
            "HOST",
            "an IP address",
            IpAddr::from(Ipv4Addr::LOCALHOST),
            ip,
        );
        if !host.is_loopback() {
            source.complain("HOST", "must be a loopback address such as 127.0.0.1");
        }
        let port = source.parse("PORT", "a number from 0 to 65535", 8000, |text| {
            text.parse().ok()
        });
        let config = Self {
            database: database(&mut source, check_url),
            jwt: jwt(&mut source),
            listen: SocketAddr::new(host, port),
            cors_origins: source.parse(
                "CORS_ORIGINS",
                "origins such as https://app.example.org (scheme, host and port alone) with commas \
                 between them, or *",
                vec!["http://localhost:3000".to_owned()],
                origins,
            ),
            auto_migrate: source.parse("AUTO_MIGRATE", "true or false", true, boolean),
            docs: source.parse("DOCS", "true or false", true, boolean),
        };
        source.finish(config)
    }
}

impl Database {
    /// What `migrate` needs.
    pub fn load(check_url: fn(&str) -> Result<(), String>) -> Result<Self, Complaints> {
        let mut source = Source::open();
        let database = database(&mut source, check_url);
        source.finish(database)
    }
}

impl Jwt {
    /// What `token` needs.
    pub fn load() -> Result<Self, Complaints> {
        let mut source = Source::open();
        let jwt = jwt(&mut source);
        source.finish(jwt)
    }
}

impl Log {
    pub fn load() -> Result<Self, Complaints> {
        let mut source = Source::open();
        let log = Self {
            json: source.parse("LOG_FORMAT", "text or json", false, |text| match text {
                "text" => Some(false),
                "json" => Some(true),
                _ => None,
            }),
            filter: source.text("RUST_LOG").unwrap_or_else(|| "info".to_owned()),
        };
        source.finish(log)
    }
}

fn database(source: &mut Source, check_url: fn(&str) -> Result<(), String>) -> Database {
    let url = source.secret("DATABASE_URL").unwrap_or_default();
    if url.is_empty() {
        source.complain(
            "DATABASE_URL",
            "is missing; give postgres://user:password@host/database",
        );
    } else if let Err(complaint) = check_url(&url) {
        source.complain("DATABASE_URL", &complaint);
    }
    Database {
        url,
        pool_size: source.parse(
            "DATABASE_POOL_SIZE",
            "a number from 1 to 1000",
            POOL_SIZE_DEFAULT,
            |text| {
                text.parse()
                    .ok()
                    .filter(|size: &NonZeroU32| size.get() <= 1000)
            },
        ),
        prepared: source.parse("DATABASE_PREPARED", "true or false", true, boolean),
    }
}

fn jwt(source: &mut Source) -> Jwt {
    let (name, secret) = match source.secret("JWT_SECRET_KEY") {
        Some(secret) => ("JWT_SECRET_KEY", Some(secret)),
        None => ("BETTER_AUTH_SECRET", source.secret("BETTER_AUTH_SECRET")),
    };
    if secret.is_none() {
        source.complain(
            "JWT_SECRET_KEY",
            "is missing; give the secret that tokens are signed with, such as the output of \
             `openssl rand -base64 32`",
        );
    }
    let previous_secret = source.secret("JWT_SECRET_KEY_PREVIOUS");
    for (name, secret) in [
        (name, &secret),
        ("JWT_SECRET_KEY_PREVIOUS", &previous_secret),
    ] {
        if secret.as_deref().is_some_and(is_weak) {
            source.complain(
                name,
                "is too weak; give at least 32 bytes that are not one repeated character",
            );
        }
    }
    Jwt {
        secret: secret.unwrap_or_default(),
        previous_secret,
        issuer: source.text("JWT_ISSUER"),
        audience: source.text("JWT_AUDIENCE"),
        leeway: source.parse(
            "JWT_LEEWAY_SECONDS",
            "a number from 0 to 60",
            Duration::from_secs(5),
            |text| {
                let seconds = text
                    .parse()
                    .ok()
                    .filter(|&seconds| seconds <= LEEWAY_SECONDS_MAX);
                seconds.map(Duration::from_secs)
            },
        ),
    }
}

fn is_weak(secret: &str) -> bool {
    let first = secret.chars().next();
    secret.len() < SECRET_BYTES_MIN || secret.chars().all(|char| Some(char) == first)
}

fn boolean(text: &str) -> Option<bool> {
    text.parse().ok()
}

fn ip(text: &str) -> Option<IpAddr> {
    match text {
        "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
        _ => text.parse().ok(),
    }
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
    let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    if !scheme.starts_with(|char: char| char.is_ascii_lowercase()) || !scheme.bytes().all(is_scheme)
    {
        return None;
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse::<u16>().ok()?)),
        _ => (authority, None),
    };
    let is_ipv6 = host.starts_with('[') && host.ends_with(']');
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if host.is_empty() || !(is_ipv6 || host.bytes().all(is_name)) {
        return None;
    }
    match (scheme, port) {
        (_, None) | ("http", Some(80)) | ("https", Some(443)) => Some(format!("{scheme}://{host}")),
        (_, Some(port)) => Some(format!("{scheme}://{host}:{port}")),
    }
}

/// Where variables come from. An empty value counts as unset.
struct Source {
    dot_env: HashMap<String, String>,
    complaints: Complaints,
}

impl Source {
    fn open() -> Self {
        let mut source = Self {
            dot_env: HashMap::new(),
            complaints: Vec::new(),
        };
        match fs::read_to_string(".env") {
            Ok(text) => source.read_dot_env(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => source.complain(".env", &format!("cannot be read: {error}")),
        }
        source
    }

    fn read_dot_env(&mut self, text: &str) {
        for (index, line) in text.lines().enumerate() {
            match dot_env_line(line) {
                Ok(Some((name, value))) => {
                    self.dot_env.insert(name.to_owned(), value.to_owned());
                }
                Ok(None) => {}
                Err(wrong) => {
                    self.complain(
                        ".env",
                        &format!("line {}: {wrong}; give NAME=value", index + 1),
                    );
                }
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
                self.complain(name, "is not UTF-8");
                return None;
            }
        };
        Some(value).filter(|value| !value.is_empty())
    }

    /// The variable itself, or the content of the file that `NAME_FILE` names.
    fn secret(&mut self, name: &str) -> Option<String> {
        let value = self.text(name);
        let file_name = format!("{name}_FILE");
        let Some(path) = self.text(&file_name) else {
            return value;
        };
        if value.is_some() {
            self.complain(
                name,
                &format!("is set, and {file_name} is too; keep one of them"),
            );
            return value;
        }
        match fs::read_to_string(&path) {
            Ok(text) => Some(text.strip_suffix('\n').unwrap_or(&text).to_owned()),
            Err(error) => {
                self.complain(&file_name, &format!("{path:?} cannot be read: {error}"));
                None
            }
        }
    }

    fn parse<T>(
        &mut self,
        name: &str,
        wanted: &str,
        default: T,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> T {
        let Some(text) = self.text(name) else {
            return default;
        };
        parse(text.trim()).unwrap_or_else(|| {
            self.complain(name, &format!("{text:?} does not fit; give {wanted}"));
            default
        })
    }

    fn finish<T>(self, value: T) -> Result<T, Complaints> {
        match self.complaints.is_empty() {
            true => Ok(value),
            false => Err(self.complaints),
        }
    }
}

/// One line of a `.env` file: `NAME=value`, with quotes, comments, and no expansion.
fn dot_env_line(line: &str) -> Result<Option<(&str, &str)>, &'static str> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, rest) = line.split_once('=').ok_or("there is no =")?;
    let name = name.trim();
    if name.is_empty()
        || !name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        return Err("the name is not one");
    }
    let rest = rest.trim();
    let quote = rest
        .chars()
        .next()
        .filter(|char| ['"', '\''].contains(char));
    let Some(quote) = quote else {
        let end = rest.find(" #").unwrap_or(rest.len());
        let value = rest.get(..end).unwrap_or(rest).trim_end();
        return Ok(Some((
            name,
            if value.starts_with('#') { "" } else { value },
        )));
    };
    let inner = rest.get(1..).unwrap_or_default();
    let (value, after) = inner.split_once(quote).ok_or("a quote is not closed")?;
    match after.trim_start() {
        "" => Ok(Some((name, value))),
        comment if comment.starts_with('#') => Ok(Some((name, value))),
        _ => Err("there is something behind the closing quote"),
    }
}

#[cfg(test)]
mod tests {
    use super::{dot_env_line, is_weak, origin};

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
            ("https://a.example?", None),
            ("https://", None),
            ("https://a.example:", None),
            ("https://a.example:65536", None),
            ("a.example", None),
            ("://a.example", None),
            ("1http://a.example", None),
            ("null", None),
            ("", None),
        ] {
            assert_eq!(origin(given).as_deref(), wanted, "{given}");
        }
    }

    #[test]
    fn dot_env_lines() {
        for (line, wanted) in [
            ("A=b", Ok(Some(("A", "b")))),
            ("  A = b c  ", Ok(Some(("A", "b c")))),
            ("export A=b", Ok(Some(("A", "b")))),
            ("A=b # c", Ok(Some(("A", "b")))),
            ("A=b#c", Ok(Some(("A", "b#c")))),
            ("A=", Ok(Some(("A", "")))),
            ("A=# c", Ok(Some(("A", "")))),
            ("A=\"b # c\" # d", Ok(Some(("A", "b # c")))),
            ("A='$B \"'", Ok(Some(("A", "$B \"")))),
            ("A=b=c", Ok(Some(("A", "b=c")))),
            ("# A=b", Ok(None)),
            ("", Ok(None)),
            ("A", Err(())),
            ("=b", Err(())),
            ("A B=c", Err(())),
            ("A=\"b", Err(())),
            ("A=\"b\" c", Err(())),
        ] {
            assert_eq!(dot_env_line(line).map_err(|_| ()), wanted, "{line}");
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
