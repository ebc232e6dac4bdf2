//! A request body → the content of a task. All that is wrong with it is found, not only the first.

use crate::error::{Error, FieldError};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

const TITLE_CHARS_MAX: usize = 200;
const DESCRIPTION_CHARS_MAX: usize = 1000;

/// A title or a description that keeps its rule: only this file makes one.
pub struct Text(String);

impl Text {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// All that a client decides about a task: the body of POST and of PUT.
pub struct Content {
    pub title: Text,
    pub description: Option<Text>,
    pub complete: bool,
}

impl Content {
    /// POST: `complete` is false when absent. Errors: `Malformed`, `Invalid`.
    pub fn for_create(body: &[u8]) -> Result<Self, Error> {
        Self::parse(body, Some(false))
    }

    /// PUT: `complete` is required. Errors: `Malformed`, `Invalid`.
    pub fn for_replace(body: &[u8]) -> Result<Self, Error> {
        Self::parse(body, None)
    }

    fn parse(body: &[u8], complete_default: Option<bool>) -> Result<Self, Error> {
        let members = Members::parse(body)?;
        let (given, mut errors) = members.read();
        if members.title.is_absent() {
            errors.push(broken("title", MISSING));
        }
        if members.complete.is_absent() && complete_default.is_none() {
            errors.push(broken("complete", MISSING));
        }
        match (given.title, given.complete.or(complete_default)) {
            (Some(title), Some(complete)) if errors.is_empty() => {
                Ok(Self { title, description: given.description.flatten(), complete })
            }
            _ => Err(Error::Invalid(errors)),
        }
    }
}

/// The body of PATCH: what is None stays as it is. At least one is given.
#[derive(Default)]
pub struct Patch {
    pub title: Option<Text>,
    /// The inner None is `null`, which clears the description.
    pub description: Option<Option<Text>>,
    pub complete: Option<bool>,
}

impl Patch {
    /// Errors: `Malformed`, `Invalid`.
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        let members = Members::parse(body)?;
        if [&members.title, &members.description, &members.complete].iter().all(|member| member.is_absent()) {
            return Err(malformed("must have at least one of title, description, complete", "no_fields"));
        }
        let (given, errors) = members.read();
        if errors.is_empty() { Ok(given) } else { Err(Error::Invalid(errors)) }
    }
}

/// PUT changes all of it.
impl From<Content> for Patch {
    fn from(content: Content) -> Self {
        let (title, description) = (Some(content.title), Some(content.description));
        Self { title, description, complete: Some(content.complete) }
    }
}

/// A rule: the message and the type of its [`FieldError`].
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

/// The error of a member of the body that breaks a rule.
pub fn broken(member: &'static str, (msg, kind): Rule) -> FieldError {
    FieldError { loc: vec!["body", member], msg, kind }
}

fn malformed(msg: &'static str, kind: &'static str) -> Error {
    Error::Malformed(vec![FieldError { loc: vec!["body"], msg, kind }])
}

/// A JSON value of the body that was not looked into yet.
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

    /// None when absent. `read` gives None for `null`.
    fn read<T>(&self, read: impl FnOnce(&str) -> Result<T, Rule>) -> Result<Option<Option<T>>, Rule> {
        match self {
            Self::Absent => Ok(None),
            Self::Given("null") => Ok(Some(None)),
            Self::Given(json) => read(json).map(|value| Some(Some(value))),
            Self::Repeated => Err(ONCE),
        }
    }
}

/// The members of the body that the service knows. Others are ignored.
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

    /// What is good, and all that is not.
    fn read(&self) -> (Patch, Vec<FieldError>) {
        let (mut patch, mut errors) = (Patch::default(), Vec::new());
        match self.title.read(title).and_then(not_null) {
            Ok(title) => patch.title = title,
            Err(rule) => errors.push(broken("title", rule)),
        }
        match self.description.read(description) {
            Ok(description) => patch.description = description,
            Err(rule) => errors.push(broken("description", rule)),
        }
        match self.complete.read(|json| json.parse().map_err(|_| BOOLEAN)).and_then(not_null) {
            Ok(complete) => patch.complete = complete,
            Err(rule) => errors.push(broken("complete", rule)),
        }
        (patch, errors)
    }
}

fn not_null<T>(value: Option<Option<T>>) -> Result<Option<T>, Rule> {
    value.map(|value| value.ok_or(NOT_NULL)).transpose()
}

fn title(json: &str) -> Result<Text, Rule> {
    match text(json)? {
        // `is_whitespace` is Unicode's White_Space; the table's constraint spells it out.
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

/// The text of a JSON string, if PostgreSQL can hold it.
fn text(json: &str) -> Result<String, Rule> {
    if !json.starts_with('"') {
        return Err(STRING);
    }
    let Octets(octets) = serde_json::from_str(json).map_err(|_| STORABLE)?;
    let text = String::from_utf8(octets.into_owned()).ok();
    text.filter(|text| !text.contains('\0')).ok_or(STORABLE)
}

/// A JSON string as bytes. Asked for bytes, serde_json lets a lone surrogate pass (as bytes that
/// are not UTF-8); asked for text, it would refuse the whole body as bad JSON.
#[derive(Deserialize)]
struct Octets<'a>(#[serde(borrow)] Cow<'a, [u8]>);

/// By hand, because a derived reader would refuse the whole body for one repeated member.
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

    /// The table refuses what is too long with the same words, so only here it is seen that nothing
    /// of the kind gets there.
    #[test]
    fn lengths_are_judged_before_the_table_is_asked() {
        for (title, description, fits) in [(200, 1000, true), (201, 1, false), (1, 1001, false)] {
            for char in ["x", "\u{e9}", "\u{1f642}"] {
                let body = serde_json::json!({
                    "title": char.repeat(title), "description": char.repeat(description),
                });
                let content = Content::for_create(body.to_string().as_bytes());
                assert_eq!(content.is_ok(), fits, "{title} and {description} times {char}");
            }
        }
    }
}
