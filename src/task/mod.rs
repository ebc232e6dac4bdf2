//! The domain types: a task, its owner, its versions, a page of a list. No I/O, no HTTP, no SQL.
//! Guarantees: a parsed value obeys the contract's rules and is exactly what the client sent.
//! A *character* is a Unicode code point.

mod body;
mod json;
mod list;

pub use body::{
    Change, Content, DESCRIPTION_LENGTH, Patch, TITLE_LENGTH, TITLE_NOT_BLANK, Text, broken, parse_complete,
};
pub use json::append_tasks;
pub use list::{BulkSelection, Filter, Order, Page, Position, Search, SortKey, SortValue, Totals};

use crate::error::{Current, Error, FieldError};
use crate::limits::USER_ID_CHARS_MAX;
use jiff::Timestamp;
use jiff::fmt::StdFmtWrite;
use jiff::fmt::temporal::DateTimePrinter;
use serde::{Serialize, Serializer};
use std::fmt;
use std::ops::Range;

/// The owner of tasks: 1–255 characters that PostgreSQL can hold (no U+0000), not `.` or `..`.
#[derive(Clone)]
pub struct UserId(String);

impl UserId {
    /// Returns None if the text is empty, longer than 255 characters, `.` or `..`, or if it contains U+0000.
    pub fn parse(text: String) -> Option<Self> {
        let fits = (1..=USER_ID_CHARS_MAX).contains(&text.chars().count()) && !text.contains('\0');
        // RFC 3986 section 5.2.4: clients remove these segments from a path, so no URL can name such a user.
        let has_path = text != "." && text != "..";
        (fits && has_path).then_some(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The id of a task for which a client may ask: 1 … 2^63 − 1.
pub struct TaskId(i64);

impl TaskId {
    /// Accepts `[1-9][0-9]*` up to 2^63 − 1. Errors: the rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let is_canonical = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| is_canonical);
        let msg = "must be a whole number from 1 to 9223372036854775807, without leading zeros";
        number.map(Self).ok_or_else(|| FieldError::new(&["path", "task_id"], msg, "path_id"))
    }

    pub fn get(&self) -> i64 {
        self.0
    }
}

/// A stored task in the form that clients see. Borrows its texts from the database's answer.
pub struct Task<'a> {
    pub id: i64,
    pub user_id: &'a str,
    pub title: &'a str,
    pub description: Option<&'a str>,
    pub complete: bool,
    pub created_at: UtcMicros,
    pub updated_at: UtcMicros,
}

impl Task<'_> {
    /// The entity tag. It is strong, because `updated_at` changes with every change of the task and with
    /// nothing else.
    pub fn etag(&self) -> String {
        self.updated_at.etag()
    }

    /// The error for a precondition that does not hold for this task. It contains the task, so that the client
    /// sees the current state.
    pub fn precondition_failed(&self) -> Error {
        match serde_json::from_slice(&self.to_json()) {
            Ok(json) => Error::PreconditionFailed(Current { etag: self.etag(), json }),
            Err(error) => Error::Bug(error.to_string()),
        }
    }
}

/// The entity tags that a precondition lists, as the versions of a task that they name.
pub enum Tags {
    /// `*`: every version of a task that exists.
    Any,
    /// The versions that the tags name. A tag that this service never issues names no version and is left out.
    Listed(Vec<UtcMicros>),
}

impl Tags {
    /// Whether one of the tags names this version.
    pub fn matches_version(&self, version: UtcMicros) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(versions) => versions.contains(&version),
        }
    }
}

/// A condition on the current version of a task (RFC 9110 section 13.1). A version is identified by its
/// `updated_at`, which changes with every change. None means that the request does not have the field.
pub struct Precondition {
    /// The current version must be one of these.
    pub if_match: Option<Tags>,
    /// The current version must be none of these.
    pub if_none_match: Option<Tags>,
}

impl Precondition {
    /// Whether `If-Match` does not hold for this version.
    pub fn if_match_fails(&self, version: UtcMicros) -> bool {
        self.if_match.as_ref().is_some_and(|tags| !tags.matches_version(version))
    }

    /// Whether `If-None-Match` does not hold for this version.
    pub fn if_none_match_fails(&self, version: UtcMicros) -> bool {
        self.if_none_match.as_ref().is_some_and(|tags| tags.matches_version(version))
    }
}

/// An instant in the form of PostgreSQL's `timestamptz`: microseconds since 2000-01-01T00:00:00Z; the smallest
/// and the largest number mean `-infinity` and `infinity`. Every stored instant has exactly one value here, so
/// instants can be compared and sent back to PostgreSQL unchanged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UtcMicros(i64);

impl UtcMicros {
    const UNIX_MICROS_OF_2000: i64 = 946_684_800_000_000;

    pub fn from_micros_since_2000(micros: i64) -> Self {
        Self(micros)
    }

    pub fn micros_since_2000(self) -> i64 {
        self.0
    }

    /// The entity tag of a task of this version, with its quotes (RFC 9110 section 8.8.3).
    pub fn etag(self) -> String {
        format!("\"{:x}\"", self.version())
    }

    /// The number in an entity tag: microseconds since 1970, modulo 2^64.
    pub fn version(self) -> u64 {
        self.0.wrapping_add(Self::UNIX_MICROS_OF_2000).cast_unsigned()
    }

    /// The reverse of [`UtcMicros::version`]. Returns None if PostgreSQL has no such instant: its instants are
    /// those of the years 4714 BC to 294276, `-infinity` and `infinity`.
    pub fn from_version(version: u64) -> Option<Self> {
        const FINITE: Range<i64> = -211_813_488_000_000_000..9_223_371_331_200_000_000;
        let micros = version.cast_signed().wrapping_sub(Self::UNIX_MICROS_OF_2000);
        let exists = FINITE.contains(&micros) || micros == i64::MIN || micros == i64::MAX;
        exists.then_some(Self(micros))
    }

    pub fn now() -> Self {
        Self(Timestamp::now().as_microsecond() - Self::UNIX_MICROS_OF_2000)
    }

    /// Writes the instant as RFC 3339: UTC, six fraction digits, `Z`. RFC 3339 has only the years 0 to 9999; an
    /// instant outside them, which only other programs can have stored, is written as the nearest one inside.
    fn print(self, text: impl jiff::fmt::Write) -> Result<(), jiff::Error> {
        const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));
        /// 0000-01-01T00:00:00Z, in microseconds since 1970.
        const UNIX_MICROS_MIN: i64 = -62_167_219_200_000_000;
        /// 9999-12-30T22:00:00Z, in microseconds since 1970: the last second that jiff can write.
        const UNIX_MICROS_MAX: i64 = 253_402_207_200_000_000;
        let unix_micros = self.0.saturating_add(Self::UNIX_MICROS_OF_2000);
        let shown = unix_micros.clamp(UNIX_MICROS_MIN, UNIX_MICROS_MAX);
        PRINTER.print_timestamp(&Timestamp::from_microsecond(shown).unwrap_or_default(), text)
    }
}

impl fmt::Display for UtcMicros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.print(StdFmtWrite(f)).map_err(|_| fmt::Error)
    }
}

impl Serialize for UtcMicros {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::UtcMicros;

    #[test]
    fn every_stored_instant_has_a_version_of_its_own_and_a_text_within_the_years_0_to_9999() {
        for (micros, text) in [
            (i64::MIN, "0000-01-01T00:00:00.000000Z"),
            (-211_813_488_000_000_000, "0000-01-01T00:00:00.000000Z"),
            (-946_684_800_000_001, "1969-12-31T23:59:59.999999Z"),
            (-946_684_800_000_000, "1970-01-01T00:00:00.000000Z"),
            (0, "2000-01-01T00:00:00.000000Z"),
            (1, "2000-01-01T00:00:00.000001Z"),
            (9_223_371_331_199_999_999, "9999-12-30T22:00:00.000000Z"),
            (i64::MAX, "9999-12-30T22:00:00.000000Z"),
        ] {
            let instant = UtcMicros::from_micros_since_2000(micros);
            assert_eq!(instant.to_string(), text);
            assert_eq!(UtcMicros::from_version(instant.version()), Some(instant), "{text}");
        }
        for micros in [i64::MIN + 1, -211_813_488_000_000_001, 9_223_371_331_200_000_000, i64::MAX - 1] {
            let version = UtcMicros::from_micros_since_2000(micros).version();
            assert_eq!(UtcMicros::from_version(version), None, "{micros}");
        }
    }
}
