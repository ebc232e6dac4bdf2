//! Parses a request body into the content or the change of a task. Knows no header field and no route.
//! Guarantees: an error lists every rule that the body breaks, and only this file makes a [`Text`].

use super::Task;
use crate::error::{Error, FieldError};
use crate::limits::{DESCRIPTION_CHARS_MAX, TITLE_CHARS_MAX};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// A title or a description that obeys its rules.
pub struct Text(String);

impl Text {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The fields of a new task that the client chooses: the body of POST.
pub struct Content {
    pub title: Text,
    pub description: Option<Text>,
    pub complete: bool,
}

impl Content {
    /// Parses the body of POST; an absent `complete` means false. Errors: `Malformed`, `Invalid`.
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        let members = Members::parse(body)?;
        let (given, mut errors) = members.check();
        if members.title.is_absent() {
            errors.push(broken("title", MISSING));
        }
        match given.title {
            Change::Set(title) if errors.is_empty() => Ok(Self {
                title,
                description: given.description.into_option().flatten(),
                complete: given.complete.into_option().unwrap_or(false),
            }),
            _ => Err(Error::Invalid(errors)),
        }
    }
}

/// The change of one field. In a body a field can be absent, `null` or a value; for these three cases a field
/// that may be null is a `Change<Option<T>>`.
#[derive(Default)]
pub enum Change<T> {
    #[default]
    Keep,
    Set(T),
}

impl<T> Change<T> {
    pub fn as_ref(&self) -> Change<&T> {
        match self {
            Self::Keep => Change::Keep,
            Self::Set(value) => Change::Set(value),
        }
    }

    /// Returns None for `Keep`.
    pub fn into_option(self) -> Option<T> {
        match self {
            Self::Keep => None,
            Self::Set(value) => Some(value),
        }
    }
}

/// A change of a task: the body of PATCH, which sets at least one field, or that of PUT, which sets
/// all of them.
#[derive(Default)]
pub struct Patch {
    pub title: Change<Text>,
    /// `Set(None)` clears the description.
    pub description: Change<Option<Text>>,
    pub complete: Change<bool>,
}

impl Patch {
    /// Parses the body of PATCH. Errors: `Malformed`, `Invalid`.
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        let members = Members::parse(body)?;
        if members.title.is_absent() && members.description.is_absent() && members.complete.is_absent() {
            return Err(malformed("must have at least one of title, description, complete", "no_fields"));
        }
        let (patch, errors) = members.check();
        if errors.is_empty() { Ok(patch) } else { Err(Error::Invalid(errors)) }
    }

    /// Parses the body of PUT, which sets all fields: an absent description clears it. Errors: `Malformed`,
    /// `Invalid`.
    pub fn for_replace(body: &[u8]) -> Result<Self, Error> {
        let members = Members::parse(body)?;
        let (mut patch, mut errors) = members.check();
        if members.title.is_absent() {
            errors.push(broken("title", MISSING));
        }
        if members.complete.is_absent() {
            errors.push(broken("complete", MISSING));
        }
        if members.description.is_absent() {
            patch.description = Change::Set(None);
        }
        if errors.is_empty() { Ok(patch) } else { Err(Error::Invalid(errors)) }
    }

    /// Whether the task already has all the values that the patch sets.
    pub fn is_done_in(&self, task: &Task) -> bool {
        let has = |wanted: &Option<Text>| wanted.as_ref().map(Text::as_str) == task.description;
        self.title.as_ref().into_option().is_none_or(|title| title.as_str() == task.title)
            && self.description.as_ref().into_option().is_none_or(has)
            && self.complete.as_ref().into_option().is_none_or(|complete| *complete == task.complete)
    }
}

/// Parses the body of a PATCH of many tasks: returns the value of `complete`, the only member that it may set.
/// Errors: `Malformed`, `Invalid`.
pub fn parse_complete(body: &[u8]) -> Result<bool, Error> {
    let members = Members::parse(body)?;
    match members.complete() {
        Ok(Change::Set(complete)) => Ok(complete),
        Ok(Change::Keep) => Err(malformed("must have complete", "no_fields")),
        Err(rule) => Err(Error::Invalid(vec![broken("complete", rule)])),
    }
}

/// The message and the type of a [`FieldError`].
type Rule = (&'static str, &'static str);
const MISSING: Rule = ("is required", "missing");
const NOT_NULL: Rule = ("must not be null", "null");
const STRING: Rule = ("must be a string", "string_type");
const BOOLEAN: Rule = ("must be true or false", "bool_type");
const STORABLE: Rule = ("must not contain U+0000 or a lone surrogate", "bad_text");
const ONCE: Rule = ("must be given once", "duplicate");
pub const TITLE_NOT_BLANK: Rule = ("must not be empty or white space alone", "blank");
pub const TITLE_LENGTH: Rule = ("must be at most 200 characters", "too_long");
pub const DESCRIPTION_LENGTH: Rule = ("must be at most 1000 characters", "too_long");

/// The [`FieldError`] for a member of the body that breaks `rule`.
pub fn broken(member: &'static str, rule: Rule) -> FieldError {
    let (msg, kind) = rule;
    FieldError::new(&["body", member], msg, kind)
}

fn malformed(msg: &'static str, kind: &'static str) -> Error {
    Error::Malformed(vec![FieldError::new(&["body"], msg, kind)])
}

/// The JSON text of one member of the body, before its value is checked.
#[derive(Default)]
enum Member<'a> {
    #[default]
    Absent,
    Given(&'a str),
    Repeated,
}

impl<'a> Member<'a> {
    fn put(&mut self, value: &'a RawValue) {
        *self = if self.is_absent() { Self::Given(value.get()) } else { Self::Repeated };
    }

    fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// Parses the value with `parse`. `Keep` means that the member is absent, `Set(None)` that it is `null`.
    /// Errors: the rule that the member breaks.
    fn check<T>(&self, parse: impl FnOnce(&str) -> Result<T, Rule>) -> Result<Change<Option<T>>, Rule> {
        match self {
            Self::Absent => Ok(Change::Keep),
            Self::Given("null") => Ok(Change::Set(None)),
            Self::Given(json) => parse(json).map(|value| Change::Set(Some(value))),
            Self::Repeated => Err(ONCE),
        }
    }

    /// The same for a member that must not be `null`.
    fn check_not_null<T>(&self, parse: impl FnOnce(&str) -> Result<T, Rule>) -> Result<Change<T>, Rule> {
        match self.check(parse)? {
            Change::Keep => Ok(Change::Keep),
            Change::Set(Some(value)) => Ok(Change::Set(value)),
            Change::Set(None) => Err(NOT_NULL),
        }
    }
}

/// The members of the body that the service knows; it ignores all others.
#[derive(Default)]
struct Members<'a> {
    title: Member<'a>,
    description: Member<'a>,
    complete: Member<'a>,
}

impl<'a> Members<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, Error> {
        let text = std::str::from_utf8(body).map_err(|_| malformed("must be UTF-8", "json_invalid"))?;
        serde_json::from_str(text).map_err(|error| match error.is_data() {
            true => malformed("must be a JSON object", "object_type"),
            false => malformed("must be valid JSON", "json_invalid"),
        })
    }

    /// The values of the members that obey their rules, and an error for each of the other members.
    fn check(&self) -> (Patch, Vec<FieldError>) {
        let (mut patch, mut errors) = (Patch::default(), Vec::new());
        match self.title.check_not_null(title) {
            Ok(title) => patch.title = title,
            Err(rule) => errors.push(broken("title", rule)),
        }
        match self.description.check(description) {
            Ok(description) => patch.description = description,
            Err(rule) => errors.push(broken("description", rule)),
        }
        match self.complete() {
            Ok(complete) => patch.complete = complete,
            Err(rule) => errors.push(broken("complete", rule)),
        }
        (patch, errors)
    }

    fn complete(&self) -> Result<Change<bool>, Rule> {
        self.complete.check_not_null(|json| json.parse().map_err(|_| BOOLEAN))
    }
}

fn title(json: &str) -> Result<Text, Rule> {
    match text(json)? {
        // `is_whitespace` means Unicode's White_Space; schema.sql lists its code points.
        title if title.chars().all(char::is_whitespace) => Err(TITLE_NOT_BLANK),
        title if title.chars().count() > TITLE_CHARS_MAX => Err(TITLE_LENGTH),
        title => Ok(Text(title)),
    }
}

fn description(json: &str) -> Result<Text, Rule> {
    let description = text(json)?;
    let fits = description.chars().count() <= DESCRIPTION_CHARS_MAX;
    if fits { Ok(Text(description)) } else { Err(DESCRIPTION_LENGTH) }
}

/// The value of a JSON string. Errors: `json` is not a string, or PostgreSQL cannot store its text.
fn text(json: &str) -> Result<String, Rule> {
    if !json.starts_with('"') {
        return Err(STRING);
    }
    let Octets(octets) = serde_json::from_str(json).map_err(|_| STORABLE)?;
    let text = String::from_utf8(octets.into_owned()).ok();
    text.filter(|text| !text.contains('\0')).ok_or(STORABLE)
}

/// A JSON string as bytes. For bytes, serde_json decodes a lone surrogate into bytes that are not UTF-8, so that
/// only the field can be refused. For text, serde_json would refuse the whole body.
#[derive(Deserialize)]
struct Octets<'a>(#[serde(borrow)] Cow<'a, [u8]>);

/// Not derived, because a derived implementation would refuse the whole body for a repeated member.
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
                    match &*name {
                        b"title" => members.title.put(map.next_value()?),
                        b"description" => members.description.put(map.next_value()?),
                        b"complete" => members.complete.put(map.next_value()?),
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::Content;

    /// The table's constraints refuse a long text with the same message, so a test through HTTP would not notice
    /// if this check were missing.
    #[test]
    fn lengths_are_judged_before_the_table_is_asked() {
        for (title, description, fits) in [(200, 1000, true), (201, 1, false), (1, 1001, false)] {
            for char in ["x", "\u{e9}", "\u{1f642}"] {
                let body = serde_json::json!({
                    "title": char.repeat(title), "description": char.repeat(description),
                });
                let content = Content::parse(body.to_string().as_bytes());
                assert_eq!(content.is_ok(), fits, "{title} and {description} times {char}");
            }
        }
    }
}
