//! The domain: what a task is, and how a request body becomes one. No I/O, no HTTP, no SQL.
//! Guarantees: a value of these types keeps the contract's rules, and is stored exactly as sent.
//! A *character* is a Unicode code point.

use crate::error::{Error, FieldError};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::fmt;

const USER_ID_CHARS_MAX: usize = 255;
const TITLE_CHARS_MAX: usize = 200;
const DESCRIPTION_CHARS_MAX: usize = 1000;

/// The owner of tasks: 1–255 characters that PostgreSQL can hold (no U+0000).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserId(String);

impl UserId {
    /// None when the text breaks the rule.
    pub fn parse(text: &str) -> Option<Self> {
        let chars = text.chars().count();
        let fits = (1..=USER_ID_CHARS_MAX).contains(&chars) && !text.contains('\0');
        fits.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A task's number: 1 … 2^63 − 1 as a client may ask for it (assigned are those up to 2^53 − 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskId(i64);

impl TaskId {
    /// Takes `[1-9][0-9]*` alone.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let canonical = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| canonical);
        number.map(Self).ok_or(FieldError {
            loc: ("path", "task_id"),
            msg: "must be a whole number from 1 to 9223372036854775807, without leading zeros",
            kind: "path_id",
        })
    }

    pub fn get(self) -> i64 {
        self.0
    }
}

/// 1–200 characters, not all of them Unicode White_Space.
#[derive(Debug)]
pub struct Title(String);

impl Title {
    fn new(text: String) -> Result<Self, Broken> {
        // `is_whitespace` is the property White_Space; the table's constraint spells it out.
        match text {
            text if text.chars().all(char::is_whitespace) => Err(Broken::Blank),
            text if text.chars().count() > TITLE_CHARS_MAX => Err(Broken::TitleTooLong),
            text => Ok(Self(text)),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// At most 1000 characters.
#[derive(Debug)]
pub struct Description(String);

impl Description {
    fn new(text: String) -> Result<Self, Broken> {
        match text {
            text if text.chars().count() > DESCRIPTION_CHARS_MAX => Err(Broken::DescriptionTooLong),
            text => Ok(Self(text)),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// All that a client decides about a task: the body of POST and of PUT.
#[derive(Debug)]
pub struct Content {
    pub title: Title,
    pub description: Option<Description>,
    pub complete: bool,
}

impl Content {
    /// POST: `complete` is false when absent.
    pub fn for_create(body: &[u8]) -> Result<Self, Error> {
        Self::parse(body, Some(false))
    }

    /// PUT: `complete` is required.
    pub fn for_replace(body: &[u8]) -> Result<Self, Error> {
        Self::parse(body, None)
    }

    fn parse(body: &[u8], complete_default: Option<bool>) -> Result<Self, Error> {
        let members = Members::parse(body)?;
        let mut errors = Vec::new();
        let title = members
            .title()
            .and_then(|given| given.ok_or(Broken::Missing));
        let title = note(&mut errors, "title", title);
        let description = note(&mut errors, "description", members.description());
        let complete = members
            .complete()
            .and_then(|given| given.or(complete_default).ok_or(Broken::Missing));
        let complete = note(&mut errors, "complete", complete);
        match (title, description, complete) {
            (Some(title), Some(description), Some(complete)) => Ok(Self {
                title,
                description: description.unwrap_or_default(),
                complete,
            }),
            _ => Err(Error::Invalid(errors)),
        }
    }
}

/// The body of PATCH: a field that is None stays as it is. At least one is given.
#[derive(Debug)]
pub struct Patch {
    pub title: Option<Title>,
    /// The inner None is `null`, which clears the description.
    pub description: Option<Option<Description>>,
    pub complete: Option<bool>,
}

impl Patch {
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        let members = Members::parse(body)?;
        if [&members.title, &members.description, &members.complete]
            .iter()
            .all(|member| matches!(member, Member::Absent))
        {
            return Err(malformed(
                "must have at least one of title, description, complete",
                "no_fields",
            ));
        }
        let mut errors = Vec::new();
        let title = note(&mut errors, "title", members.title());
        let description = note(&mut errors, "description", members.description());
        let complete = note(&mut errors, "complete", members.complete());
        match (title, description, complete) {
            (Some(title), Some(description), Some(complete)) => Ok(Self {
                title,
                description,
                complete,
            }),
            _ => Err(Error::Invalid(errors)),
        }
    }
}

/// A stored task, in the form in which clients see it.
#[derive(Debug, Serialize)]
pub struct Task<'a> {
    pub id: i64,
    pub user_id: &'a str,
    pub title: String,
    pub description: Option<String>,
    pub complete: bool,
    pub created_at: Instant,
    pub updated_at: Instant,
}

/// A moment in UTC with microseconds, as PostgreSQL stores it: years 0 to 9999, what RFC 3339 can
/// write. Old rows may hold others (`infinity`): those are the nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instant(jiff::Timestamp);

impl Instant {
    const FIRST: i64 = -62_167_219_200_000_000;
    const LAST: i64 = 253_402_207_200_999_999;

    /// From microseconds since 1970-01-01T00:00:00Z.
    pub fn from_unix_micros(micros: i64) -> Self {
        let micros = micros.clamp(Self::FIRST, Self::LAST);
        Self(jiff::Timestamp::from_microsecond(micros).unwrap_or_default())
    }

    pub fn now() -> Self {
        Self(jiff::Timestamp::now())
    }
}

/// RFC 3339, UTC, six fraction digits, `Z`.
impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.0)
    }
}

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Which rule a member of the body breaks.
#[derive(Debug)]
enum Broken {
    Missing,
    Null,
    NotString,
    NotBoolean,
    BadText,
    Blank,
    TitleTooLong,
    DescriptionTooLong,
    Duplicate,
}

/// Keeps a good value, writes a broken rule down.
fn note<T>(
    errors: &mut Vec<FieldError>,
    name: &'static str,
    result: Result<T, Broken>,
) -> Option<T> {
    let broken = match result {
        Ok(value) => return Some(value),
        Err(broken) => broken,
    };
    let (msg, kind) = match broken {
        Broken::Missing => ("is required", "missing"),
        Broken::Null => ("must not be null", "null"),
        Broken::NotString => ("must be a string", "string_type"),
        Broken::NotBoolean => ("must be true or false", "bool_type"),
        Broken::BadText => ("must not contain U+0000 or a lone surrogate", "bad_text"),
        Broken::Blank => ("must not be empty or white space alone", "blank"),
        Broken::TitleTooLong => ("must be at most 200 characters", "too_long"),
        Broken::DescriptionTooLong => ("must be at most 1000 characters", "too_long"),
        Broken::Duplicate => ("must be given once", "duplicate"),
    };
    let loc = ("body", name);
    errors.push(FieldError { loc, msg, kind });
    None
}

fn malformed(msg: &'static str, kind: &'static str) -> Error {
    let loc = ("body", "");
    Error::Malformed(vec![FieldError { loc, msg, kind }])
}

/// A JSON value of the body that is not looked into yet.
#[derive(Debug, Default)]
enum Member<'a> {
    #[default]
    Absent,
    Given(&'a RawValue),
    Repeated,
}

impl<'a> Member<'a> {
    fn put(&mut self, value: &'a RawValue) {
        *self = match self {
            Self::Absent => Self::Given(value),
            _ => Self::Repeated,
        };
    }

    /// The JSON text; None when absent.
    fn json(&self) -> Result<Option<&'a str>, Broken> {
        match self {
            Self::Absent => Ok(None),
            Self::Given(value) => Ok(Some(value.get())),
            Self::Repeated => Err(Broken::Duplicate),
        }
    }
}

/// The members of the body that the service knows. Others are ignored.
#[derive(Debug, Default)]
struct Members<'a> {
    title: Member<'a>,
    description: Member<'a>,
    complete: Member<'a>,
}

impl<'a> Members<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, Error> {
        let text =
            std::str::from_utf8(body).map_err(|_| malformed("must be UTF-8", "json_invalid"))?;
        match serde_json::from_str(text) {
            Ok(members) => Ok(members),
            Err(error) if error.is_data() => Err(malformed("must be a JSON object", "object_type")),
            Err(_) => Err(malformed("must be valid JSON", "json_invalid")),
        }
    }

    fn title(&self) -> Result<Option<Title>, Broken> {
        let Some(json) = self.title.json()? else {
            return Ok(None);
        };
        let text = text(json)?.ok_or(Broken::Null)?;
        Title::new(text).map(Some)
    }

    fn description(&self) -> Result<Option<Option<Description>>, Broken> {
        let Some(json) = self.description.json()? else {
            return Ok(None);
        };
        text(json)?.map(Description::new).transpose().map(Some)
    }

    fn complete(&self) -> Result<Option<bool>, Broken> {
        match self.complete.json()? {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some("null") => Err(Broken::Null),
            Some(_) => Err(Broken::NotBoolean),
        }
    }
}

/// The text of a JSON string that PostgreSQL can hold; None for `null`.
fn text(json: &str) -> Result<Option<String>, Broken> {
    if json == "null" {
        return Ok(None);
    }
    if !json.starts_with('"') {
        return Err(Broken::NotString);
    }
    let Octets(octets) = serde_json::from_str(json).map_err(|_| Broken::BadText)?;
    match String::from_utf8(octets) {
        Ok(text) if !text.contains('\0') => Ok(Some(text)),
        _ => Err(Broken::BadText),
    }
}

/// A JSON string as bytes. Asked for bytes, serde_json lets a lone surrogate pass (as bytes that
/// are not UTF-8); asked for text, it would refuse the whole body as bad JSON.
struct Octets(Vec<u8>);

impl<'de> Deserialize<'de> for Octets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Octets;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Octets, E> {
                Ok(Octets(bytes.to_owned()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Members::default();
                while let Some(Octets(name)) = map.next_key()? {
                    match name.as_slice() {
                        b"title" => members.title.put(map.next_value()?),
                        b"description" => members.description.put(map.next_value()?),
                        b"complete" => members.complete.put(map.next_value()?),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Object)
    }
}
