//! Decides what follows from a statement's failure: for its connection, for another try, for the client.

use super::stream::NegotiationError;
use crate::error::{Error, FieldError};
use crate::limits::READ_ONLY_RETRY;
use crate::task::{DESCRIPTION_LENGTH, TITLE_LENGTH, TITLE_NOT_BLANK, broken};
use postgres::error::{DbError, Severity, SqlState};
use std::error::Error as _;
use std::io::ErrorKind;
use std::time::Duration;

const POOLER_REMEDY: &str = "; where a pooler in transaction mode is in between, set DATABASE_PREPARED=false";

/// The outcome of a failed statement.
#[derive(Clone, Copy, PartialEq)]
pub enum Fate {
    /// Rolled back for a reason that may be gone at the next try.
    Aborted,
    /// Not done on this connection: a prepared statement no longer fits the table or is gone, or the
    /// server accepts no writes any more. On a new connection it may be done.
    Stale,
    /// The connection broke or fell silent: nobody knows whether the statement was done.
    Lost,
    /// The server lost a connection of its own, to a server behind it: nobody knows whether the
    /// statement was done. The connection to this server is well.
    Unclear,
    /// Rolled back for a reason that passes by itself, but not at once.
    Passing,
    /// Rolled back for good.
    Refused,
}

impl Fate {
    /// By SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html), for a statement
    /// on a connection of that age.
    pub fn of(error: &postgres::Error, age: Duration) -> Self {
        let Some(state) = error.code() else {
            // A value that could not be converted was not sent. In all other cases the connection broke, or
            // the driver could not make out the answer.
            let is_sent = error.source().is_none_or(|source| source.is::<std::io::Error>());
            return if is_sent { Self::Lost } else { Self::Refused };
        };
        match *state {
            SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED => Self::Aborted,
            SqlState::FEATURE_NOT_SUPPORTED | SqlState::INVALID_SQL_STATEMENT_NAME => Self::Stale,
            SqlState::QUERY_CANCELED | SqlState::LOCK_NOT_AVAILABLE => Self::Passing,
            // A right was taken away, or row security was switched on: until an administrator or the
            // watching thread has acted, the service is not ready.
            SqlState::INSUFFICIENT_PRIVILEGE => Self::Passing,
            // A standby, or a primary that has become one: a new connection may find the primary.
            SqlState::READ_ONLY_SQL_TRANSACTION if age >= READ_ONLY_RETRY => Self::Stale,
            SqlState::READ_ONLY_SQL_TRANSACTION => Self::Passing,
            // Citus reports a dead worker like this, on a connection that goes on.
            _ if state.code().starts_with("08") && !ends_connection(error) => Self::Unclear,
            _ if state.code().starts_with("08") || state.code().starts_with("57P") => Self::Lost,
            _ if state.code().starts_with("53") => Self::Passing,
            _ => Self::Refused,
        }
    }

    /// The error for the client. `may_be_done`: the fate of this or of an earlier try of a change is unknown.
    pub fn error(self, error: &postgres::Error, may_be_done: bool) -> Error {
        match (self, broken_rule(error)) {
            (Self::Refused, Some(rule)) if !may_be_done => Error::Invalid(vec![rule]),
            (Self::Refused, None) if !may_be_done => Error::Database(cause(error)),
            _ => Error::unanswered(may_be_done, cause(error)),
        }
    }
}

/// Whether the server ended the connection with this message
/// (https://www.postgresql.org/docs/current/protocol-error-fields.html).
fn ends_connection(error: &postgres::Error) -> bool {
    let severity = error.as_db_error().and_then(DbError::parsed_severity);
    !matches!(severity, Some(Severity::Error))
}

/// Whether a prepared statement is not there, or another one is in its place: a pooler has given the
/// connection another session of PostgreSQL.
pub fn is_lost_statement(error: &postgres::Error) -> bool {
    let lost = [SqlState::INVALID_SQL_STATEMENT_NAME, SqlState::DUPLICATE_PSTATEMENT];
    error.code().is_some_and(|code| lost.contains(code))
}

/// The field whose rule the change breaks. The request's own fields are checked before, so it is a
/// field of a row from before the rules, which the change leaves as it is.
fn broken_rule(error: &postgres::Error) -> Option<FieldError> {
    match error.as_db_error()?.constraint()? {
        "tasks_title_length" => Some(broken("title", TITLE_LENGTH)),
        "tasks_title_not_blank" => Some(broken("title", TITLE_NOT_BLANK)),
        "tasks_description_length" => Some(broken("description", DESCRIPTION_LENGTH)),
        _ => None,
    }
}

/// The remedy for a connection or a command that failed, as the end of the sentence that [`cause`] begins;
/// empty where the message itself says it.
pub fn remedy(error: &postgres::Error) -> &'static str {
    let Some(state) = error.code() else {
        return error.source().map_or("", remedy_of_source);
    };
    match *state {
        SqlState::INVALID_PASSWORD => {
            "; give the role's password in DATABASE_URL, with @ : / ? # and % in it percent-encoded"
        }
        SqlState::INVALID_CATALOG_NAME => "; create this database, or name another in DATABASE_URL",
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            "; the role must be there, be allowed to log in, and be let in by pg_hba.conf"
        }
        SqlState::UNDEFINED_TABLE => "; run `tinytasks migrate`",
        SqlState::INSUFFICIENT_PRIVILEGE => "; use a role that has the right (docs/operations.md)",
        SqlState::TOO_MANY_CONNECTIONS => {
            "; raise max_connections or the role's connection limit, or lower DATABASE_POOL_SIZE"
        }
        SqlState::INVALID_SCHEMA_NAME => "; let search_path name a schema that is there",
        _ => "",
    }
}

const REFUSED_REMEDY: &str = "; start PostgreSQL there, or give another host or port in DATABASE_URL";
const NO_TLS_REMEDY: &str =
    "; switch TLS on there (ssl = on), or ask for none with sslmode=disable in DATABASE_URL";
const PASSWORD_REMEDY: &str = "; give postgres://user:password@host/database in DATABASE_URL";
const ATTRIBUTES_REMEDY: &str = "; target_session_attrs in DATABASE_URL refuses this server: the service needs a primary, and read-write \
                                 finds it among several hosts";

/// Where no server has answered with an SQLSTATE.
fn remedy_of_source(source: &(dyn std::error::Error + 'static)) -> &'static str {
    if let Some(NegotiationError::NoTls) = source.downcast_ref() {
        return NO_TLS_REMEDY;
    }
    let Some(io) = source.downcast_ref::<std::io::Error>() else {
        // The driver has no type for this error.
        return if source.to_string() == "password missing" { PASSWORD_REMEDY } else { "" };
    };
    match io.kind() {
        // The second is that of a Unix socket.
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => REFUSED_REMEDY,
        // An error that the driver makes, not the system, is about target_session_attrs.
        ErrorKind::PermissionDenied if io.raw_os_error().is_none() => ATTRIBUTES_REMEDY,
        _ => "",
    }
}

/// The error and its sources, for the log. Leaves out the server's DETAIL, which quotes rows.
pub fn cause(error: &postgres::Error) -> String {
    if let Some(refusal) = error.as_db_error() {
        let remedy = if is_lost_statement(error) { POOLER_REMEDY } else { "" };
        return format!("{}: {} ({}){remedy}", refusal.severity(), refusal.message(), refusal.code().code());
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
