//! Checks an answer by `openapi.json`: finds the operation of a request in the document, and validates
//! the answer by the schemas there.

use crate::support::http::Response;
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::LazyLock};

pub static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../openapi.json")).unwrap());

/// Fields that the document describes once for all answers, or that belong to HTTP itself.
const COMMON_FIELDS: [&str; 10] = [
    "connection",
    "content-length",
    "content-security-policy",
    "content-type",
    "date",
    "ratelimit",
    "ratelimit-policy",
    "server",
    "transfer-encoding",
    "x-content-type-options",
];

pub fn resolve(value: &Value) -> &Value {
    let Some(reference) = value.get("$ref") else {
        return value;
    };
    let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
    let target: &'static Value = DOCUMENT.pointer(pointer).unwrap_or_else(|| panic!("{reference}"));
    resolve(target)
}

/// An answer in the document: the operation's path template, its method, and the status.
pub type Place<'d> = (&'d str, &'d str, &'d str);

/// Every answer in the document.
pub fn documented() -> Vec<(Place<'static>, &'static Value)> {
    const METHODS: [&str; 6] = ["delete", "get", "options", "patch", "post", "put"];
    let mut all = Vec::new();
    for (template, item) in DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if METHODS.contains(&method.as_str()) {
                for (status, answer) in operation["responses"].as_object().unwrap() {
                    let place = (template.as_str(), method.as_str(), status.as_str());
                    all.push((place, resolve(answer)));
                }
            } else {
                assert_eq!(method, "parameters", "of {template}");
            }
        }
    }
    all
}

/// The template that the target belongs to.
pub fn template(target: &str) -> Option<&'static str> {
    let path = target.split('?').next().unwrap();
    let path = match path.strip_prefix("http://") {
        Some(absolute) => &absolute[absolute.find('/')?..],
        None => path,
    };
    let fits = |template: &&str| {
        let (wanted, seen) = (template.split('/'), path.split('/'));
        wanted.clone().count() == seen.clone().count()
            && wanted.zip(seen).all(|(wanted, seen)| match wanted.starts_with('{') {
                true => !seen.is_empty(),
                false => wanted == seen,
            })
    };
    DOCUMENT["paths"].as_object().unwrap().keys().map(String::as_str).find(fits)
}

/// Asserts that the document has this answer for the operation: status, content type, fields, body.
/// `keeps_schema` is false where old rows may break the schema of the body.
pub fn hold_to_the_document(method: &str, target: &str, response: &Response, keeps_schema: bool) {
    let Some(template) = template(target) else {
        return;
    };
    let context = || format!("{method} {target}: {response:?}");
    let item = &DOCUMENT["paths"][template];
    let name = if method == "HEAD" { "get" } else { &method.to_lowercase() };
    let status = response.status;
    let operation = match item.get(name) {
        Some(operation) => operation,
        // The errors of all paths are described in prose; OPTIONS lists its answers.
        None => {
            let is_refused = [400, 405, 408, 413, 414, 431].contains(&status);
            assert!(is_refused || name == "options", "{}", context());
            let Some(operation) = item.get("options") else {
                return;
            };
            operation
        }
    };
    let answer = operation["responses"].get(status.to_string());
    let answer = resolve(answer.unwrap_or_else(|| panic!("undocumented: {}", context())));

    let documented = answer.get("headers").and_then(Value::as_object);
    let documented: Vec<_> = documented.into_iter().flatten().collect();
    for (field, _) in &response.fields {
        let is_known = COMMON_FIELDS.contains(&field.as_str())
            || documented.iter().any(|(name, _)| name.eq_ignore_ascii_case(field));
        assert!(is_known, "undocumented field {field}: {}", context());
    }
    for (name, header) in documented {
        let header = resolve(header);
        match response.field(name) {
            Some(value) => {
                let schema = &header["schema"];
                let is_number = resolve(schema)["type"] == "integer";
                let value = if is_number { serde_json::from_str(value).unwrap() } else { json!(value) };
                assert_eq!(broken(schema, &value), None, "{name}: {}", context());
            }
            None => assert_ne!(header["required"], true, "{name} is missing: {}", context()),
        }
    }

    let Some(content) = answer.get("content") else {
        assert!(response.body.is_empty() && response.field("Content-Type").is_none(), "{}", context());
        return;
    };
    let media_type = response.field("Content-Type").unwrap_or_default().split(';').next().unwrap();
    let content = content.get(media_type).unwrap_or_else(|| panic!("{media_type}: {}", context()));
    let is_readable = method != "HEAD" && response.field("Content-Encoding").is_none();
    if is_readable && media_type.contains("json") && keeps_schema {
        assert_eq!(broken(&content["schema"], &response.json()), None, "{}", context());
    }
}

/// The first rule of the schema that the value breaks; `None` when it fits. An unknown keyword is a
/// failure, so that no keyword in the document is without effect.
pub fn broken(schema: &Value, value: &Value) -> Option<String> {
    let Some(keywords) = schema.as_object() else {
        return (schema == false).then(|| format!("{value} must not be there"));
    };
    let fits = |schema: &Value| broken(schema, value).is_none();
    keywords.iter().find_map(|(keyword, rule)| {
        let schemas = || rule.as_array().unwrap().iter();
        let number = || rule.as_f64().unwrap();
        let count = |text: &str| text.chars().count() as f64;
        let is_good = match keyword.as_str() {
            "$ref" => return broken(resolve(schema), value),
            "allOf" => return schemas().find_map(|schema| broken(schema, value)),
            "properties" => {
                let mut rules = rule.as_object().unwrap().iter();
                return rules.find_map(|(name, rule)| broken(rule, value.get(name)?));
            }
            "items" => {
                let skip = schema["prefixItems"].as_array().map_or(0, Vec::len);
                let mut items = value.as_array()?.iter().skip(skip);
                return items.find_map(|item| broken(rule, item));
            }
            "prefixItems" => {
                let mut items = value.as_array()?.iter().zip(schemas());
                return items.find_map(|(item, rule)| broken(rule, item));
            }
            "if" => {
                let branch = if fits(rule) { "then" } else { "else" };
                return keywords.get(branch).and_then(|branch| broken(branch, value));
            }
            "then" | "else" => true,
            "anyOf" => schemas().any(fits),
            "not" => !fits(rule),
            "type" => match rule {
                Value::Array(_) => schemas().any(|rule| has_type(rule, value)),
                _ => has_type(rule, value),
            },
            "enum" => schemas().any(|one| one == value),
            "const" => rule == value,
            "required" => {
                value.is_object() && schemas().all(|name| value.get(name.as_str().unwrap()).is_some())
            }
            "minProperties" => value.as_object().is_none_or(|object| object.len() as f64 >= number()),
            "minItems" => value.as_array().is_none_or(|array| array.len() as f64 >= number()),
            "minLength" => value.as_str().is_none_or(|text| count(text) >= number()),
            "maxLength" => value.as_str().is_none_or(|text| count(text) <= number()),
            "minimum" => value.as_f64().is_none_or(|value| value >= number()),
            "maximum" => value.as_f64().is_none_or(|value| value <= number()),
            "pattern" => value.as_str().is_none_or(|text| Pattern::parse(rule.as_str().unwrap()).fits(text)),
            "description" | "format" | "default" | "example" | "examples" => true,
            _ => panic!("{keyword} is not known to this validator"),
        };
        (!is_good).then(|| format!("{value} breaks {keyword}: {rule}"))
    })
}

fn has_type(name: &Value, value: &Value) -> bool {
    match name.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("type {other}"),
    }
}

/// A regular expression from `^` to `$`: single characters and classes, with `*`, `+`, `{n}`, `{n,m}`.
pub struct Pattern(Vec<Part>);

struct Part {
    negated: bool,
    ranges: Vec<(char, char)>,
    min: usize,
    max: usize,
}

impl Pattern {
    pub fn parse(text: &str) -> Self {
        let inner = text.strip_prefix('^').and_then(|text| text.strip_suffix('$')).expect(text);
        let mut chars = inner.chars().peekable();
        let mut parts = Vec::new();
        while let Some(char) = chars.next() {
            let (mut negated, mut ranges) = (false, Vec::new());
            if char == '[' {
                negated = chars.next_if_eq(&'^').is_some();
                while let Some(first) = chars.next().filter(|char| *char != ']') {
                    let first = unescaped(first, &mut chars);
                    // A hyphen before the end of the class stands for itself.
                    let is_range = chars.peek() == Some(&'-') && chars.clone().nth(1) != Some(']');
                    let last = match is_range {
                        true => chars.nth(1).map(|last| unescaped(last, &mut chars)).unwrap(),
                        false => first,
                    };
                    ranges.push((first, last));
                }
            } else {
                assert!(!"(|).?".contains(char), "{char} is not known to this parser");
                let char = unescaped(char, &mut chars);
                ranges.push((char, char));
            }
            let (min, max) = match chars.peek() {
                Some('*') => (0, usize::MAX),
                Some('+') => (1, usize::MAX),
                Some('{') => {
                    let bounds: String = chars.by_ref().skip(1).take_while(|char| *char != '}').collect();
                    let (min, max) = bounds.split_once(',').unwrap_or((&bounds, &bounds));
                    parts.push(Part {
                        negated,
                        ranges,
                        min: min.parse().unwrap(),
                        max: max.parse().unwrap(),
                    });
                    continue;
                }
                _ => (1, 1),
            };
            if max > 1 {
                chars.next();
            }
            parts.push(Part { negated, ranges, min, max });
        }
        Self(parts)
    }

    pub fn fits(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        // The places that the parts so far can have come to.
        let mut places = BTreeSet::from([0]);
        for part in &self.0 {
            let mut next = BTreeSet::new();
            for place in places {
                let run = text[place..].iter().take_while(|char| part.takes(**char));
                let longest = run.count().min(part.max);
                next.extend((part.min..=longest).map(|count| place + count));
            }
            places = next;
        }
        places.contains(&text.len())
    }
}

impl Part {
    fn takes(&self, char: char) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&char)) != self.negated
    }
}

fn unescaped(char: char, rest: &mut impl Iterator<Item = char>) -> char {
    if char != '\\' {
        return char;
    }
    match rest.next() {
        Some('u') => {
            let digits: String = rest.take(4).collect();
            char::from_u32(u32::from_str_radix(&digits, 16).unwrap()).unwrap()
        }
        Some(sign) if sign.is_ascii_punctuation() => sign,
        other => panic!("\\{other:?} is not known to this parser"),
    }
}
