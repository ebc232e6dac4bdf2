//! tinytasks: the commands. After `serve`, the first list has the order in which a request travels.

mod serve; //    start, signals, stop
mod gate; //     bytes of a client → one whole request, and the answer back
mod http; //     request → the checks in order → answer
mod auth; //     Authorization field → Caller
mod task; //     the domain types and their parsing
mod store; //    Caller and task types → SQL → PostgreSQL

mod limits; //   every duration, size and count, and why
mod error; //    everything that can go wrong, and what a client is told of it
mod config; //   environment → Config
mod failure; //  why a command ended, and its exit code
mod logging; //  records → lines
mod metrics; //  what is counted, as text
mod watched; //  what files say, read again when they change
mod systemd; //  its sockets, and what it wants to hear
mod panic; //    every Mutex, and where a panic ends

use auth::Keys;
use failure::Failure;
use gate::Acceptor;
use jiff::Timestamp;
use serve::serve;
use std::ffi::OsString;
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::process::ExitCode;
use std::time::Duration;
use store::DatabaseUrl;
use task::UserId;

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

const STDIN_BYTES_MAX: u64 = 64 * 1024;
const TOKEN_TTL_DEFAULT: Duration = Duration::from_secs(3600);

fn main() -> ExitCode {
    let arguments: Result<Vec<_>, _> = std::env::args_os().skip(1).map(OsString::into_string).collect();
    let outcome = arguments
        .map_err(|_| Failure::of_usage("an argument is not UTF-8"))
        .and_then(|arguments| run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()));
    let Err(failure) = outcome else {
        return ExitCode::SUCCESS;
    };
    for line in failure.lines {
        // Nothing can be done where standard error is gone.
        let _ = writeln!(io::stderr(), "{line}");
    }
    ExitCode::from(failure.exit_code)
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
        ["export" | "purge", ..] => {
            Err(Failure::of_usage("give export --user ID, or purge --user ID [--dry-run]"))
        }
        ["--help" | "-h" | "help"] => print(HELP),
        ["--version" | "-V"] => print(concat!("tinytasks ", env!("CARGO_PKG_VERSION"), "\n")),
        other => Err(Failure::of_usage(&format!("unknown command: {}", other.join(" ")))),
    }
}

fn migrate() -> Result<(), Failure> {
    let database = config::load_database()?;
    store::migrate(&database.url)?;
    print("the schema is up to date\n")
}

fn check() -> Result<(), Failure> {
    let config = config::load()?;
    Keys::new(&config.jwt).map_err(Failure::of_configuration)?;
    Acceptor::open(config.tls).map_err(Failure::of_configuration)?;
    print("configuration: complete\n")?;
    let mut say = |line: &str| {
        let _ = print(&format!("{line}\n"));
    };
    store::check(&config.database, &mut say).map_err(|lines| Failure { lines, exit_code: 1 })
}

fn token(options: &[&str]) -> Result<(), Failure> {
    let (mut user, mut ttl) = (None, TOKEN_TTL_DEFAULT);
    for option in options.chunks(2) {
        match *option {
            ["--user", value] => user = Some(value),
            ["--ttl", value] => {
                let wanted = "--ttl: give a number and s, m, h or d, such as 1h";
                ttl = duration(value).ok_or_else(|| Failure::of_usage(wanted))?;
            }
            _ => return Err(Failure::of_usage(&format!("token: bad option {}", option.join(" ")))),
        }
    }
    let user = user.ok_or_else(|| Failure::of_usage("token: --user ID is missing"))?;
    let token = auth::issue(&config::load_jwt()?, user, ttl).map_err(|reason| Failure::of_usage(&reason))?;
    print(&format!("{token}\n"))
}

/// What a request with the token on standard input would be told, and the log.
fn explain() -> Result<(), Failure> {
    let keys = Keys::new(&config::load_jwt()?).map_err(Failure::of_configuration)?;
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
            Err(Failure::SILENT)
        }
    }
}

fn export(user: &str) -> Result<(), Failure> {
    let (user_id, url) = user_and_database(user)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut written = Ok(());
    store::export(&url, &user_id, &mut |task| {
        let line = serde_json::to_writer(&mut out, task).map_err(io::Error::from);
        written = line.and_then(|()| out.write_all(b"\n"));
        written.is_ok()
    })?;
    written.and_then(|()| out.flush()).map_err(unwritten)
}

fn purge(user: &str, only_count: bool) -> Result<(), Failure> {
    let (user_id, url) = user_and_database(user)?;
    let count = store::purge(&url, &user_id, only_count)?;
    let done = if only_count { "would delete" } else { "deleted" };
    print(&format!("{done} {count} tasks of {user:?}\n"))
}

/// The user that a command is about, and the database. No token is asked for: whoever has `DATABASE_URL`
/// has all tasks.
fn user_and_database(user: &str) -> Result<(UserId, DatabaseUrl), Failure> {
    let user_id = UserId::parse(user.to_owned());
    let user_id = user_id.ok_or_else(|| Failure::of_usage("--user: must be 1 to 255 characters"))?;
    Ok((user_id, config::load_database()?.url))
}

/// `30s`, `15m`, `1h`, `7d`.
fn duration(text: &str) -> Option<Duration> {
    let units: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3600), ('d', 86400)];
    let (number, seconds) =
        units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(*unit)?, seconds)))?;
    let number: u64 = number.parse().ok().filter(|number| *number > 0)?;
    number.checked_mul(*seconds).map(Duration::from_secs)
}

fn print(text: &str) -> Result<(), Failure> {
    io::stdout().write_all(text.as_bytes()).map_err(unwritten)
}

/// Who has closed the pipe wants to hear no more, and a reason least of all.
fn unwritten(error: io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::SILENT,
        _ => format!("standard output: {error}").into(),
    }
}
