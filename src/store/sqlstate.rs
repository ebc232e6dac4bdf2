//! What PostgreSQL's refusal of a statement means: for the connection, for another try, and for the
//! client.

use crate::error::{Error, FieldError};
use crate::task::{DESCRIPTION_LENGTH, TITLE_LENGTH, TITLE_NOT_BLANK, broken};
use postgres::error::SqlState;
use std::error::Error as _;
use std::time::Duration;

/// So often all connections are made anew because a server takes no writes.
const READ_ONLY_RETRY: Duration = Duration::from_secs(5);

/// What became of a statement that failed.
#[derive(Clone, Copy, PartialEq)]
pub enum Fate {
    /// Rolled back for a reason that may be gone at the next try.
    Aborted,
    /// Not done on this connection: what was prepared no longer fits the table or is gone, or the
    /// server takes no writes any more. On a new one it may be.
    Stale,
    /// The connection broke: nobody knows whether the statement was done.
    Lost,
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
            // Not the server's answer: the connection broke, or a value cannot be converted.
            let is_io = error.source().is_some_and(|source| source.is::<std::io::Error>());
            return if is_io || error.is_closed() { Self::Lost } else { Self::Refused };
        };
        match *state {
            SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED => Self::Aborted,
            SqlState::FEATURE_NOT_SUPPORTED | SqlState::INVALID_SQL_STATEMENT_NAME => Self::Stale,
            SqlState::QUERY_CANCELED | SqlState::LOCK_NOT_AVAILABLE => Self::Passing,
            // A standby, or a primary that became one: a new connection may find the primary.
            SqlState::READ_ONLY_SQL_TRANSACTION if age >= READ_ONLY_RETRY => Self::Stale,
            SqlState::READ_ONLY_SQL_TRANSACTION => Self::Passing,
            _ if state.code().starts_with("08") || state.code().starts_with("57P") => Self::Lost,
            _ if state.code().starts_with("53") => Self::Passing,
            _ => Self::Refused,
        }
    }

    pub fn error(self, error: &postgres::Error, may_repeat: bool) -> Error {
        match (self, broken_rule(error)) {
            (Self::Refused, Some(rule)) => Error::Invalid(vec![rule]),
            (Self::Refused, None) => Error::Database(cause(error)),
            (Self::Lost, _) if !may_repeat => Error::Unknown(cause(error)),
            _ => Error::Unavailable(cause(error)),
        }
    }
}

/// Bodies are checked before, so this is a row from before the rules, which a change of another
/// column of it would have to keep.
fn broken_rule(error: &postgres::Error) -> Option<FieldError> {
    match error.as_db_error()?.constraint()? {
        "tasks_title_length" => Some(broken("title", TITLE_LENGTH)),
        "tasks_title_not_blank" => Some(broken("title", TITLE_NOT_BLANK)),
        "tasks_description_length" => Some(broken("description", DESCRIPTION_LENGTH)),
        _ => None,
    }
}

/// The whole chain, for the log; of what the server says, not the DETAIL: there it quotes rows.
pub fn cause(error: &postgres::Error) -> String {
    if let Some(refusal) = error.as_db_error() {
        return format!("{}: {} ({})", refusal.severity(), refusal.message(), refusal.code().code());
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
