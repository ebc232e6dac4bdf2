//! The domain: what a task is. No I/O, no HTTP, no SQL.
//! Guarantees: what was parsed keeps the contract's rules, and holds exactly what was sent.
//! A *character* is a Unicode code point.

mod body;

pub use body::{Content, DESCRIPTION_LENGTH, Patch, TITLE_LENGTH, TITLE_NOT_BLANK, Text, broken};

use crate::error::FieldError;
use serde::{Serialize, Serializer};
use std::fmt;

const USER_ID_CHARS_MAX: usize = 255;

/// The owner of tasks: 1–255 characters that PostgreSQL can hold (no U+0000), not `.` or `..`.
#[derive(Clone)]
pub struct UserId(String);

impl UserId {
    /// None when the text breaks the rule.
    pub fn parse(text: String) -> Option<Self> {
        let fits = (1..=USER_ID_CHARS_MAX).contains(&text.chars().count()) && !text.contains('\0');
        // RFC 3986 section 5.2.4: a client removes these segments from a path, so no URL names them.
        let has_path = text != "." && text != "..";
        (fits && has_path).then_some(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A task's number as a client may ask for it: 1 … 2^63 − 1.
pub struct TaskId(i64);

impl TaskId {
    /// Takes `[1-9][0-9]*` alone.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let is_canonical = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| is_canonical);
        number.map(Self).ok_or_else(|| FieldError {
            loc: vec!["path", "task_id"],
            msg: "must be a whole number from 1 to 9223372036854775807, without leading zeros",
            kind: "path_id",
        })
    }

    pub fn get(&self) -> i64 {
        self.0
    }
}

/// A stored task, as clients see it.
#[derive(Serialize)]
pub struct Task<'a> {
    pub id: i64,
    pub user_id: &'a str,
    pub title: &'a str,
    pub description: Option<&'a str>,
    pub complete: bool,
    pub created_at: Instant,
    pub updated_at: Instant,
}

/// Which versions of a task a request is about. A version is named by its `updated_at`, which
/// changes with every change.
pub struct Precondition {
    /// `If-Match`: one of these. None where any will do.
    pub any_of: Option<Vec<Instant>>,
    /// `If-None-Match`: none of these. None for `*`: no version at all.
    pub none_of: Option<Vec<Instant>>,
}

/// A page of a list.
#[derive(Clone, Copy)]
pub struct Page {
    pub complete: Option<bool>,
    pub is_descending: bool,
    /// Only tasks behind that id in the order.
    pub after: Option<i64>,
    pub offset: i64,
    /// At most so many, or all.
    pub limit: Option<i64>,
}

/// A moment, in microseconds from 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Instant(i64);

impl Instant {
    pub fn from_unix_micros(micros: i64) -> Self {
        Self(micros)
    }

    pub fn unix_micros(self) -> i64 {
        self.0
    }

    pub fn now() -> Self {
        Self(jiff::Timestamp::now().as_microsecond())
    }
}

/// RFC 3339: UTC, six fraction digits, `Z`. It can write the years 0 to 9999; what old rows hold
/// beyond (`infinity`) is shown as the nearest.
impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MICROS_MIN: i64 = -62_167_219_200_000_000;
        const MICROS_MAX: i64 = 253_402_207_200_000_000;
        let micros = self.0.clamp(MICROS_MIN, MICROS_MAX);
        write!(f, "{:.6}", jiff::Timestamp::from_microsecond(micros).unwrap_or_default())
    }
}

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
