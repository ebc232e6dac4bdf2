//! Parses the environment, a `.env` file and the files that `*_FILE` variables name into plain values. The only
//! module that reads the service's variables. Each invalid variable gives one line that names the variable, what
//! is wrong and what would be right. The value of a secret is never part of such a line.

mod dot_env;
mod origin;
mod secret;
mod source;
mod variables;

pub use source::{Setting, read_from};

use crate::keys::TokenSettings;
use crate::limits::{IDLE_TIMEOUT_MAX, IDLE_TIMEOUT_MIN, JWT_LEEWAY_MAX, POOL_SIZE_MAX, RATE_LIMITS};
use crate::store::{DatabaseSettings, DatabaseUrl};
use log::LevelFilter;
use socket2::SockAddr;
use source::Source;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::num::NonZeroU32;
use std::time::Duration;

/// One line for each invalid variable, ready to print.
pub type Complaints = Vec<String>;

/// The configuration of `serve`.
pub struct Config {
    pub database: DatabaseSettings,
    pub jwt: TokenSettings,
    pub log_is_json: bool,
    /// In the syntax of `RUST_LOG`.
    pub log_filter: String,
    pub listen: SockAddr,
    pub connections_max: usize,
    /// How long a client's connection may be idle between two requests.
    pub idle_timeout: Duration,
    /// None stands for `unix`: every peer on the Unix socket.
    pub trusted_proxies: Vec<Option<IpAddr>>,
    /// The files of the certificate chain and of its key.
    pub tls: Option<(String, String)>,
    /// Origins in the form that browsers send. `*` is never listed with others.
    pub cors_origins: Vec<String>,
    pub auto_migrate: bool,
    pub docs: bool,
    /// The address of metrics and probes.
    pub admin: Option<SocketAddr>,
    /// The allowed requests per second of each user.
    pub rate_limit: Option<f64>,
    pub requires_if_match: bool,
    /// One line for each variable whose value is valid but was probably meant otherwise.
    pub warnings: Vec<String>,
}

/// The configuration of `serve` and `check`.
pub fn load() -> Result<Config, Complaints> {
    let mut source = Source::open();
    let config = config(&mut source);
    source.warn_of_unknown();
    let warnings = source.take_warnings();
    finish(config, source).map(|config| Config { warnings, ..config })
}

/// The configuration of `migrate`, `export` and `purge`. `serve` reads it again on SIGHUP.
pub fn load_database() -> Result<DatabaseSettings, Complaints> {
    let mut source = Source::open();
    finish(database(&mut source), source)
}

/// The configuration of `token`. `serve` reads it again, at most once a second, to see whether a file has changed.
pub fn load_jwt() -> Result<TokenSettings, Complaints> {
    let mut source = Source::open();
    finish(jwt(&mut source), source)
}

/// The values in force, as `tinytasks config` prints them, and all complaints and warnings.
pub fn settings() -> (Vec<Setting>, Complaints, Vec<String>) {
    let mut source = Source::open();
    config(&mut source);
    source.warn_of_unknown();
    let complaints = source.take_complaints();
    let warnings = source.take_warnings();
    let mut settings = source.settings;
    settings.sort_by_key(|setting| variables::place(setting.name));
    settings.dedup_by_key(|setting| setting.name);
    (settings, complaints, warnings)
}

/// `value` is None only after a complaint.
fn finish<T>(value: Option<T>, mut source: Source) -> Result<T, Complaints> {
    let complaints = source.take_complaints();
    value.filter(|_| complaints.is_empty()).ok_or(complaints)
}

fn config(source: &mut Source) -> Option<Config> {
    let size = |text: &str| text.parse().ok().filter(|size| *size > 0);
    let rate = |text: &str| text.parse().ok().filter(|rate| RATE_LIMITS.contains(rate));
    let wanted_origins =
        "origins such as https://app.example.org (scheme, host, port) with commas between, or *";
    // All variables are read before an invalid one ends this function, so that all complaints come at once.
    let database = database(source);
    let jwt = jwt(source);
    let listen = listen(source);
    let tls = tls(source);
    let connections_max = source.parse("MAX_CONNECTIONS", "a number from 1", size);
    let idle_timeout = source.parse("IDLE_TIMEOUT_SECONDS", "a number from 5 to 3600", idle_timeout);
    let trusted_proxies = source.optional("TRUSTED_PROXIES", "IP addresses or unix, commas between", proxies);
    let cors_origins = source.parse("CORS_ORIGINS", wanted_origins, origin::origins);
    let rate_limit = source.optional("RATE_LIMIT", "a number from 0.01 to 1000000", rate);
    let requires_if_match = source.boolean("REQUIRE_IF_MATCH");
    let docs = source.boolean("DOCS");
    let auto_migrate = source.boolean("AUTO_MIGRATE");
    let admin = admin(source, listen.as_ref());
    let log_is_json = source.parse("LOG_FORMAT", "text or json", |text| match text {
        "text" => Some(false),
        "json" => Some(true),
        _ => None,
    });
    let log_filter = source.parse("RUST_LOG", "levels such as info or warn,tinytasks=info", log_filter);
    Some(Config {
        database: database?,
        jwt: jwt?,
        log_is_json: log_is_json?,
        log_filter: log_filter?,
        listen: listen?,
        connections_max: connections_max?,
        idle_timeout: idle_timeout?,
        trusted_proxies: trusted_proxies?.unwrap_or_default(),
        tls: tls?,
        cors_origins: cors_origins?,
        auto_migrate: auto_migrate?,
        docs: docs?,
        admin: admin?,
        rate_limit: rate_limit?,
        requires_if_match: requires_if_match?,
        warnings: Vec::new(),
    })
}

fn database(source: &mut Source) -> Option<DatabaseSettings> {
    let url = source.required_secret("DATABASE_URL", "give postgres://user:password@host/database");
    let size = |text: &str| text.parse().ok().filter(|size: &NonZeroU32| size.get() <= POOL_SIZE_MAX);
    let pool_size = source.parse("DATABASE_POOL_SIZE", "a number from 1 to 1000", size);
    let prepared = source.boolean("DATABASE_PREPARED");
    let parsed = url.map(|url| mistake(&url).map_or_else(|| DatabaseUrl::parse(&url), Err))?;
    match parsed {
        Ok(url) => Some(DatabaseSettings { url, pool_size: pool_size?, is_prepared: prepared? }),
        Err(complaint) => {
            let name = source.name_in_force("DATABASE_URL");
            source.complain(&name, &complaint);
            None
        }
    }
}

/// Finds mistakes for which the parser of the URL would report a misleading reason.
fn mistake(url: &str) -> Option<String> {
    if secret::is_quoted(url) {
        return Some("has quotation marks around it; give postgres://… without them".to_owned());
    }
    if !url.trim().is_empty() && url.ends_with(char::is_whitespace) {
        return Some("ends with white space; remove it".to_owned());
    }
    // RFC 3986 section 3.2: of the @ signs before a host, only the last may stand there unencoded.
    let authority = url.split_once("://")?.1.split(['/', '?']).next()?;
    let is_doubtful = authority.matches('@').count() > 1;
    is_doubtful.then(|| "has more than one @ before the host; in a user or password write it %40".to_owned())
}

fn jwt(source: &mut Source) -> Option<TokenSettings> {
    let jwks_file = source.text("JWT_JWKS_FILE");
    let secret = hs256_secret(source, jwks_file.is_some());
    let previous_secret = source.secret("JWT_SECRET_KEY_PREVIOUS");
    check_strength(source, "JWT_SECRET_KEY_PREVIOUS", previous_secret.as_deref());
    let issuer = expected(source, "JWT_ISSUER", jwks_file.is_some());
    let audience = expected(source, "JWT_AUDIENCE", jwks_file.is_some());
    let seconds =
        |text: &str| text.parse().ok().map(Duration::from_secs).filter(|time| *time <= JWT_LEEWAY_MAX);
    let leeway = source.parse("JWT_LEEWAY_SECONDS", "a number from 0 to 60", seconds);
    let jwks = match jwks_file {
        Some(url) if url.contains("://") => {
            source.complain("JWT_JWKS_FILE", "is an address; fetch the JWKS into a file, and give its path");
            return None;
        }
        Some(file) => Some((file.clone(), source.content("JWT_JWKS_FILE", &file)?)),
        None => None,
    };
    Some(TokenSettings { secret, previous_secret, jwks, issuer, audience, leeway: leeway? })
}

/// The secret for HS256: `JWT_SECRET_KEY`, or `BETTER_AUTH_SECRET` if the former is unset. Neither is required if
/// there is a JWKS.
fn hs256_secret(source: &mut Source, has_jwks: bool) -> Option<String> {
    let fallback = source.secret("BETTER_AUTH_SECRET");
    if fallback.is_some() && !source.is_set("JWT_SECRET_KEY") {
        check_strength(source, "BETTER_AUTH_SECRET", fallback.as_deref());
        return fallback;
    }
    let secret = if has_jwks {
        source.secret("JWT_SECRET_KEY")
    } else {
        source.required_secret("JWT_SECRET_KEY", "give 32 random bytes or more")
    };
    if fallback.is_some() && fallback != secret {
        source.warn("BETTER_AUTH_SECRET", "is not used, as JWT_SECRET_KEY is set to something else");
    }
    check_strength(source, "JWT_SECRET_KEY", secret.as_deref());
    secret
}

fn check_strength(source: &mut Source, name: &str, secret: Option<&str>) {
    if let Some(weakness) = secret.and_then(secret::weakness) {
        let name = source.name_in_force(name);
        source.complain(&name, weakness);
    }
}

/// The value that a claim of a token must have. None if every value is accepted.
fn expected(source: &mut Source, name: &'static str, is_required: bool) -> Option<String> {
    let value = source.text(name);
    if is_required && value.is_none() {
        source.complain(name, "is missing; with a JWKS give what tokens must say, or * to waive it");
    }
    if let Some(doubt) = value.as_deref().and_then(secret::doubtful_ends) {
        source.warn(name, doubt);
    }
    value.filter(|value| value != "*")
}

fn listen(source: &mut Source) -> Option<SockAddr> {
    let port = source.parse("PORT", "a number from 0 to 65535", |text| text.parse::<u16>().ok());
    let wanted =
        "an IP address, a name with an address such as localhost, or unix:/path of 107 bytes at most";
    // An invalid port counts as 0 here, so that an invalid host is reported too.
    let address = |text: &str| match text.strip_prefix("unix:") {
        Some(path) => SockAddr::unix(path).ok().filter(|_| path.starts_with('/')),
        None => resolve(text, port.unwrap_or_default()).map(SockAddr::from),
    };
    let listen = source.parse("HOST", wanted, address);
    port.and(listen)
}

/// The address of a host: the host itself if it is an IP address, otherwise the first address of the name, with
/// IPv4 preferred to IPv6.
fn resolve(host: &str, port: u16) -> Option<SocketAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, port));
    }
    let is_part = |char: char| char.is_ascii_alphanumeric() || "-_.".contains(char);
    // RFC 1123 section 2.1: the last label of a name is never only digits, so such a host is a mistyped address.
    let is_address = host.rsplit('.').next()?.bytes().all(|byte| byte.is_ascii_digit());
    if is_address || !host.chars().all(is_part) {
        return None;
    }
    let addresses: Vec<_> = (host, port).to_socket_addrs().ok()?.collect();
    addresses.iter().find(|address| address.is_ipv4()).or(addresses.first()).copied()
}

fn tls(source: &mut Source) -> Option<Option<(String, String)>> {
    let (certificate, key) = (source.text("TLS_CERT_FILE"), source.text("TLS_KEY_FILE"));
    if certificate.is_some() != key.is_some() {
        source.complain("TLS_CERT_FILE", "and TLS_KEY_FILE go together; give both or none");
        return None;
    }
    Some(certificate.zip(key))
}

fn idle_timeout(text: &str) -> Option<Duration> {
    let time = Duration::from_secs(text.parse().ok()?);
    (IDLE_TIMEOUT_MIN..=IDLE_TIMEOUT_MAX).contains(&time).then_some(time)
}

fn proxies(text: &str) -> Option<Vec<Option<IpAddr>>> {
    let proxy = |text: &str| match text {
        "unix" => Some(None),
        _ => text.parse().ok().map(|ip: IpAddr| Some(ip.to_canonical())),
    };
    text.split(',').map(|part| proxy(part.trim())).collect()
}

/// The address of metrics and probes. `listen` is the address for clients, which must be another one.
fn admin(source: &mut Source, listen: Option<&SockAddr>) -> Option<Option<SocketAddr>> {
    let wanted = "address and port, such as 127.0.0.1:9100";
    let admin: Option<SocketAddr> = source.optional("ADMIN_ADDR", wanted, |text| text.parse().ok())?;
    if let (Some(admin), Some(listen)) = (admin, listen.and_then(SockAddr::as_socket)) {
        let is_everywhere = admin.ip().is_unspecified() || listen.ip().is_unspecified();
        let is_same = admin.port() == listen.port() && (admin.ip() == listen.ip() || is_everywhere);
        if is_same && admin.port() != 0 {
            source.complain("ADMIN_ADDR", "is the address of HOST and PORT; give another port");
            return None;
        }
    }
    Some(admin)
}

fn log_filter(text: &str) -> Option<String> {
    let level = |part: &str| -> Option<LevelFilter> { part.rsplit('=').next()?.trim().parse().ok() };
    text.split(',').all(|part| level(part).is_some()).then(|| text.to_owned())
}
