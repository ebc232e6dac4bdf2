//! Decides what the failure of a statement means: whether its connection can be used again, whether another try
//! makes sense, and which error the client gets.

use super::stream::NegotiationError;
use crate::error::{Error, FieldError};
use crate::limits::READ_ONLY_RETRY;
use crate::task::{DESCRIPTION_LENGTH, TITLE_LENGTH, TITLE_NOT_BLANK, broken};
use postgres::error::{DbError, Severity, SqlState};
use std::error::Error as _;
use std::io::ErrorKind;
use std::time::Duration;

const POOLER_REMEDY: &str = "; where a pooler in transaction mode is in between, set DATABASE_PREPARED=false";

/// What is known about a failed statement.
#[derive(Clone, Copy, PartialEq)]
pub enum Fate {
    /// Rolled back. The reason may be gone at the next try.
    Aborted,
    /// Not done, because of this connection: a prepared statement no longer fits the table or is gone, or the
    /// server no longer accepts writes. On a new connection the statement may succeed.
    Stale,
    /// The connection broke or no answer came: it is unknown whether the statement was done.
    ConnectionLost,
    /// The server lost its own connection to another server behind it: it is unknown whether the statement was
    /// done. The connection to this server is intact.
    OutcomeUnknown,
    /// Rolled back. The reason passes by itself, but not at once, so another try is useless now.
    Transient,
    /// Rolled back. Another try would fail in the same way.
    Refused,
}

impl Fate {
    /// Decides by SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html). `age` is the age of the
    /// statement's connection.
    pub fn of(error: &postgres::Error, age: Duration) -> Self {
        let Some(state) = error.code() else {
            // The statement was not sent if the driver could not convert a value. In all other cases the connection
            // broke, or the driver could not understand the answer.
            let is_sent = error.source().is_none_or(|source| source.is::<std::io::Error>());
            return if is_sent { Self::ConnectionLost } else { Self::Refused };
        };
        match *state {
            SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED => Self::Aborted,
            SqlState::FEATURE_NOT_SUPPORTED | SqlState::INVALID_SQL_STATEMENT_NAME => Self::Stale,
            SqlState::QUERY_CANCELED | SqlState::LOCK_NOT_AVAILABLE => Self::Transient,
            // A right was taken away, or row security was switched on. The service is not ready until an
            // administrator or the watching thread has acted.
            SqlState::INSUFFICIENT_PRIVILEGE => Self::Transient,
            // The server is a standby, or has become one. A new connection may find the primary.
            SqlState::READ_ONLY_SQL_TRANSACTION if age >= READ_ONLY_RETRY => Self::Stale,
            SqlState::READ_ONLY_SQL_TRANSACTION => Self::Transient,
            // Citus reports a dead worker with such an SQLSTATE, on a connection that still works.
            _ if state.code().starts_with("08") && !ends_connection(error) => Self::OutcomeUnknown,
            _ if state.code().starts_with("08") || state.code().starts_with("57P") => Self::ConnectionLost,
            _ if state.code().starts_with("53") => Self::Transient,
            _ => Self::Refused,
        }
    }

    /// The error for the client. `may_be_done` is true if the statement is a change, and it is unknown whether this
    /// try or an earlier one was done.
    pub fn error(self, error: &postgres::Error, may_be_done: bool) -> Error {
        if may_be_done || self != Self::Refused {
            return Error::unanswered(may_be_done, cause(error));
        }
        match broken_rule(error) {
            Some(rule) => Error::Invalid(vec![rule]),
            None => Error::Database(cause(error)),
        }
    }
}

/// Whether the server ended the connection with this message
/// (https://www.postgresql.org/docs/current/protocol-error-fields.html).
fn ends_connection(error: &postgres::Error) -> bool {
    let severity = error.as_db_error().and_then(DbError::parsed_severity);
    !matches!(severity, Some(Severity::Error))
}

/// Whether a prepared statement is missing, or another one has its name: a pooler has then given the connection
/// another session of PostgreSQL.
pub fn is_lost_statement(error: &postgres::Error) -> bool {
    let lost = [SqlState::INVALID_SQL_STATEMENT_NAME, SqlState::DUPLICATE_PSTATEMENT];
    error.code().is_some_and(|code| lost.contains(code))
}

/// The error for the field whose constraint the change breaks. The fields of the request were checked before, so
/// this is a field that the change leaves as it is, in a row that is older than the constraint.
fn broken_rule(error: &postgres::Error) -> Option<FieldError> {
    match error.as_db_error()?.constraint()? {
        "tasks_title_length" => Some(broken("title", TITLE_LENGTH)),
        "tasks_title_not_blank" => Some(broken("title", TITLE_NOT_BLANK)),
        "tasks_description_length" => Some(broken("description", DESCRIPTION_LENGTH)),
        _ => None,
    }
}

/// The remedy for a failed connection or command, as the end of the sentence that [`cause`] begins. Empty if the
/// message itself says it, or if no remedy is known.
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

/// The remedy for an error without an SQLSTATE, which comes from the driver or from the system.
fn remedy_of_source(source: &(dyn std::error::Error + 'static)) -> &'static str {
    if let Some(NegotiationError::NoTls) = source.downcast_ref() {
        return NO_TLS_REMEDY;
    }
    let Some(io) = source.downcast_ref::<std::io::Error>() else {
        // The driver has no type for this error, so its text is compared.
        return if source.to_string() == "password missing" { PASSWORD_REMEDY } else { "" };
    };
    match io.kind() {
        // `NotFound`: the Unix socket does not exist.
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => REFUSED_REMEDY,
        // An error without a code of the operating system comes from the driver, and is about
        // target_session_attrs.
        ErrorKind::PermissionDenied if io.raw_os_error().is_none() => ATTRIBUTES_REMEDY,
        _ => "",
    }
}

/// The text of an error and of its sources, for the log. The server's DETAIL is left out, because it quotes rows.
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
