//! tinytasks: the commands and their exit codes. A request travels in the order of this list.

mod auth; //     Authorization field → Caller
mod config; //   environment → Config
mod error; //    everything that can go wrong, and what a client is told of it
mod gate; //     bytes of a client → one whole request, and the answer back
mod http; //     request → the checks in order → answer
mod lock; //     every Mutex
mod logging; //  records → lines
mod metrics; //  what is counted, as text
mod store; //    Caller and task types → SQL → PostgreSQL
mod systemd; //  its sockets, and what it wants to hear
mod task; //     the domain types and their parsing

use auth::{Caller, Keys};
use gate::{Acceptor, Address, Gate, Registry};
use http::{Admin, App, Cors, Limiter, Public};
use jiff::Timestamp;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use socket2::SockAddr;
use std::ffi::OsString;
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use store::{Store, check_url};

const HELP: &str = "\
tinytasks: a to-do task REST service

usage: tinytasks [serve]                     serve until SIGTERM or SIGINT
       tinytasks migrate                     apply schema.sql to the database
       tinytasks check                       examine configuration, database, schema and rows
       tinytasks token --user ID [--ttl 1h]  print a token for trying things out
       tinytasks token --explain             say if the token on standard input is good, or why not
       tinytasks export --user ID            print all tasks of a user, a line of JSON each
       tinytasks purge --user ID [--dry-run] delete all tasks of a user, or count them
       tinytasks --help | --version

Configuration: environment variables, or a .env file in the working directory. Required are
DATABASE_URL (postgres://user:password@host/database) and JWT_SECRET_KEY (at least 32 bytes) or
JWT_JWKS_FILE; the README lists all. HOST and PORT, HOST=unix:/path or a socket from systemd say
where to listen; ADMIN_ADDR opens metrics and probes; RATE_LIMIT and REQUIRE_IF_MATCH ask more of
clients. Exit codes: 0 done, 1 failed, 2 bad configuration or command line.
";

/// For the database, while clients wait in an inherited socket: rather that than a 503 at each restart.
const DATABASE_PATIENCE: Duration = Duration::from_secs(3);
/// Of `ADMIN_ADDR`.
const ADMIN_CONNECTIONS_MAX: usize = 16;
const DRAIN_TIME: Duration = Duration::from_secs(10);
const STDIN_BYTES_MAX: u64 = 64 * 1024;
const TOKEN_TTL_DEFAULT: Duration = Duration::from_secs(3600);

/// Why a command ended: the exit code, and lines to print.
struct Failure(u8, Vec<String>);

impl From<config::Complaints> for Failure {
    fn from(complaints: config::Complaints) -> Self {
        Self(2, complaints)
    }
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self(1, vec![reason])
    }
}

fn main() -> ExitCode {
    let arguments: Result<Vec<_>, _> = std::env::args_os().skip(1).map(OsString::into_string).collect();
    let outcome = arguments
        .map_err(|_| usage("an argument is not UTF-8"))
        .and_then(|arguments| run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()));
    let Err(Failure(code, lines)) = outcome else {
        return ExitCode::SUCCESS;
    };
    for line in lines {
        // Nothing can be done where standard error is gone.
        let _ = writeln!(io::stderr(), "{line}");
    }
    ExitCode::from(code)
}

fn run(arguments: &[&str]) -> Result<(), Failure> {
    match arguments {
        [] | ["serve"] => serve(),
        ["migrate"] => migrate(),
        ["check"] => check(),
        ["token", "--explain"] => explain(),
        ["token", options @ ..] => token(options),
        ["export", "--user", user] => export(user),
        ["purge", "--user", user] => purge(user, false),
        ["purge", "--user", user, "--dry-run"] => purge(user, true),
        ["export" | "purge", ..] => Err(usage("give export --user ID, or purge --user ID [--dry-run]")),
        ["--help" | "-h" | "help"] => print(HELP),
        ["--version" | "-V"] => print(concat!("tinytasks ", env!("CARGO_PKG_VERSION"), "\n")),
        other => Err(usage(&format!("unknown command: {}", other.join(" ")))),
    }
}

fn serve() -> Result<(), Failure> {
    let config = config::load(check_url)?;
    logging::start(config.log.json, &config.log.filter);
    let inherited =
        systemd::inherited().map_err(|error| format!("cannot use the inherited socket: {error}"))?;
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|error| format!("cannot wait for signals: {error}"))?;
    let keys = keys(&config.jwt)?;
    let store = Store::open(&config.database, config.auto_migrate)?;
    let cors = Cors::new(config.cors_origins);
    let tls = config.tls.map(|(cert, key)| Acceptor::open(&cert, &key)).transpose();
    let tls = tls.map_err(|reason| Failure(2, vec![format!("TLS_CERT_FILE: {reason}")]))?;
    let (scheme, is_https) = if tls.is_some() { ("https", true) } else { ("http", false) };
    let cannot = |address: &SockAddr, error| format!("cannot listen on {}: {error}", Address::name(address));
    // Five for the event loop of a database connection; some for tiny_http, and for files.
    let own = (config.database.pool_size.get() as usize + 1) * 5 + 48;
    let own = own + config.admin.map_or(0, |_| ADMIN_CONNECTIONS_MAX + 16);
    let registry = Arc::new(Registry::new(config.connections_max, own)?);
    let mut app = App::new(store, keys, cors, Arc::clone(&registry));
    (app.has_docs, app.is_https, app.requires_if_match) = (config.docs, is_https, config.requires_if_match);
    app.limiter = config.rate_limit.map(Limiter::new);
    let app = Arc::new(app);
    if let Some(address) = config.admin.map(SockAddr::from) {
        let registry = Arc::new(Registry::new(ADMIN_CONNECTIONS_MAX, 0)?);
        let options = gate::Options { registry, trusted_proxies: Vec::new(), tls: None };
        let admin = Gate::start(&address, None, options, Admin(Arc::clone(&app)));
        let admin = admin.map_err(|error| cannot(&address, error))?;
        log::info!(address = format!("http://{}", admin.address).as_str(); "metrics and probes");
    }
    let began = Instant::now();
    while inherited.is_some() && !app.store.is_reachable() && began.elapsed() < DATABASE_PATIENCE {
        std::thread::sleep(Duration::from_millis(5));
    }
    let options = gate::Options { registry, trusted_proxies: config.trusted_proxies, tls };
    let gate = Gate::start(&config.listen, inherited, options, Public(Arc::clone(&app)));
    let gate = gate.map_err(|error| cannot(&config.listen, error))?;
    if !is_https && !gate.address.is_local() {
        log::warn!("plain HTTP beyond this machine: set TLS_CERT_FILE, or let a proxy on it speak HTTPS");
    }
    log::info!(address = format!("{scheme}://{}", gate.address).as_str(); "listening");
    let watched = Arc::clone(&gate);
    let watchdog = systemd::start_watchdog(move |patience| watched.address.is_alive(patience));
    watchdog.map_err(|error| format!("cannot start a thread: {error}"))?;
    systemd::ready();
    for signal in signals.forever() {
        match signal {
            SIGHUP => {
                systemd::reloading();
                reload(&app);
                systemd::ready();
            }
            _ => break,
        }
    }
    log::info!("stopping");
    systemd::stopping();
    app.is_stopping.store(true, Relaxed);
    gate.stop(DRAIN_TIME);
    Ok(())
}

/// Takes over what may have changed in the files of secrets; a bad new file keeps the old.
fn reload(app: &App) {
    let reloaded = config::load(check_url).map_err(|complaints| complaints.join("; ")).and_then(|config| {
        let keys = Keys::new(&config.jwt)?;
        app.store.reconnect_with(&config.database.url)?;
        app.set_keys(keys);
        Ok(())
    });
    match reloaded {
        Ok(()) => log::info!("secrets read again"),
        Err(reason) => log::error!(reason = reason.as_str(); "secrets kept as they were"),
    }
}

fn migrate() -> Result<(), Failure> {
    let database = config::load_database(check_url)?;
    store::migrate(&database.url)?;
    print("the schema is up to date\n")
}

fn check() -> Result<(), Failure> {
    let config = config::load(check_url)?;
    keys(&config.jwt)?;
    print("configuration: complete\n")?;
    let mut say = |line: &str| {
        let _ = print(&format!("{line}\n"));
    };
    store::inspect(&config.database.url, &mut say)?;
    Ok(())
}

fn token(options: &[&str]) -> Result<(), Failure> {
    let (mut user, mut ttl) = (None, TOKEN_TTL_DEFAULT);
    for option in options.chunks(2) {
        match *option {
            ["--user", value] => user = Some(value),
            ["--ttl", value] => {
                let wanted = "--ttl: give a number and s, m, h or d, such as 1h";
                ttl = duration(value).ok_or_else(|| usage(wanted))?;
            }
            _ => return Err(usage(&format!("token: bad option {}", option.join(" ")))),
        }
    }
    let user = user.ok_or_else(|| usage("token: --user ID is missing"))?;
    let token = auth::issue(&config::load_jwt()?, user, ttl).map_err(|reason| usage(&reason))?;
    print(&format!("{token}\n"))
}

/// What a request with the token on standard input would be told, and the log.
fn explain() -> Result<(), Failure> {
    let keys = keys(&config::load_jwt()?)?;
    let token = io::read_to_string(io::stdin().take(STDIN_BYTES_MAX));
    let token = token.map_err(|error| format!("standard input: {error}"))?;
    match keys.verify(token.trim()) {
        Ok((user_id, expires_at)) => {
            let seconds = i64::try_from(expires_at).unwrap_or(i64::MAX);
            let until = Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
            print(&format!("accepted: user {:?}, until {until}\n", user_id.as_str()))
        }
        Err(reason) => {
            print(&format!("refused: {reason}\n"))?;
            Err(Failure(1, vec![]))
        }
    }
}

fn export(user: &str) -> Result<(), Failure> {
    let (caller, url) = by_operator(user)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut written = Ok(());
    store::export(&url, &caller, &mut |task| {
        let line = serde_json::to_writer(&mut out, task).map_err(io::Error::from);
        written = line.and_then(|()| out.write_all(b"\n"));
        written.is_ok()
    })?;
    written.and_then(|()| out.flush()).map_err(unwritten)
}

fn purge(user: &str, only_count: bool) -> Result<(), Failure> {
    let (caller, url) = by_operator(user)?;
    let count = store::purge(&url, &caller, only_count)?;
    let done = if only_count { "would delete" } else { "deleted" };
    print(&format!("{done} {count} tasks of {user:?}\n"))
}

/// Whom a command is about, and the database's URL.
fn by_operator(user: &str) -> Result<(Caller, String), Failure> {
    let caller = Caller::by_operator(user).ok_or_else(|| usage("--user: must be 1 to 255 characters"))?;
    Ok((caller, config::load_database(check_url)?.url))
}

fn keys(jwt: &config::Jwt) -> Result<Keys, Failure> {
    Keys::new(jwt).map_err(|reason| Failure(2, vec![reason]))
}

/// `30s`, `15m`, `1h`, `7d`.
fn duration(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let seconds: u32 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86400,
        _ => return None,
    };
    let number: u32 = text.strip_suffix(unit)?.parse().ok().filter(|&number| number > 0)?;
    number.checked_mul(seconds).map(|seconds| Duration::from_secs(seconds.into()))
}

fn usage(complaint: &str) -> Failure {
    Failure(2, vec![format!("{complaint}; see tinytasks --help")])
}

fn print(text: &str) -> Result<(), Failure> {
    io::stdout().write_all(text.as_bytes()).map_err(unwritten)
}

/// Who has closed the pipe wants to hear no more, and a reason least of all.
fn unwritten(error: io::Error) -> Failure {
    let is_unwanted = error.kind() == ErrorKind::BrokenPipe;
    Failure(1, if is_unwanted { vec![] } else { vec![format!("standard output: {error}")] })
}
