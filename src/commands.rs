//! The commands other than `serve`. Each prints its result on standard output, and returns a [`Failure`] with
//! the reason if it cannot do its work.

mod check;
mod healthcheck;
mod token;

pub use check::check;
pub use healthcheck::healthcheck;
pub use token::{explain, issue};

use crate::config;
use crate::failure::Failure;
use crate::store::{self, DatabaseUrl};
use crate::task::UserId;
use std::io::{self, BufWriter, ErrorKind, Write};

/// `tinytasks migrate`.
pub fn migrate() -> Result<(), Failure> {
    let database = config::load_database()?;
    store::migrate(&database.url)?;
    print("the schema is up to date\n")
}

/// `tinytasks config`.
pub fn settings() -> Result<(), Failure> {
    let (settings, complaints, warnings) = config::settings();
    for setting in settings {
        // Quotation marks that belong to the value are escaped, so that they differ from those around it.
        let is_plain = setting.shown.chars().all(|char| char.is_ascii_graphic() && !"#\"'\\".contains(char));
        let value = if is_plain { setting.shown } else { format!("{:?}", setting.shown) };
        let assignment = format!("{}={value}", setting.name);
        print(&format!("{assignment:<50} # {}\n", setting.origin))?;
    }
    for warning in warnings {
        print(&format!("warning: {warning}\n"))?;
    }
    if complaints.is_empty() { Ok(()) } else { Err(complaints.into()) }
}

/// `tinytasks export`.
pub fn export(user: &str) -> Result<(), Failure> {
    let (user_id, url) = user_and_database(user)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut written = Ok(());
    store::export(&url, &user_id, &mut |task| {
        written = out.write_all(&task.to_json()).and_then(|()| out.write_all(b"\n"));
        written.is_ok()
    })?;
    written.and_then(|()| out.flush()).map_err(unwritten)
}

/// `tinytasks purge`.
pub fn purge(user: &str, only_count: bool) -> Result<(), Failure> {
    let (user_id, url) = user_and_database(user)?;
    let count = store::purge(&url, &user_id, only_count)?;
    let done = if only_count { "would delete" } else { "deleted" };
    print(&format!("{done} {count} tasks of {user:?}\n"))
}

/// The user whose tasks a command exports or deletes, and the database. No token is required, because a person who
/// has `DATABASE_URL` can read all tasks anyway.
fn user_and_database(user: &str) -> Result<(UserId, DatabaseUrl), Failure> {
    let user_id = UserId::parse(user.to_owned())
        .ok_or_else(|| Failure::of_usage("--user: must be 1 to 255 characters, not . or .."))?;
    Ok((user_id, config::load_database()?.url))
}

/// Writes a text to standard output. Errors: see [`unwritten`].
pub fn print(text: &str) -> Result<(), Failure> {
    io::stdout().write_all(text.as_bytes()).map_err(unwritten)
}

/// The failure for an error on standard output. If the reader has closed the pipe, it has what it wanted, so that
/// failure has no line.
fn unwritten(error: io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::SILENT,
        _ => format!("standard output: {error}").into(),
    }
}
