//! The query of a list → the page that the store is asked for, and back.

use super::request::percent_decode;
use crate::error::{Error, FieldError};
use crate::task::{Page, TaskId};

/// Each parameter with its rule, as a client reads it.
const PARAMETERS: [(&str, &str); 5] = [
    ("complete", "must be true or false, once"),
    ("order", "must be asc or desc, once"),
    ("limit", "must be a whole number from 1 to 1000, once"),
    ("offset", "must be a whole number from 0, once"),
    ("after", "must be the id of a task, once"),
];
const LIMIT_MAX: i64 = 1000;

/// The page that a query asks for. Errors: `Invalid` with all that is wrong with the query.
pub fn parse(query: &str) -> Result<Page, Error> {
    let mut page = Page { complete: None, is_descending: false, after: None, offset: 0, limit: None };
    let mut errors = Vec::new();
    let mut seen = Vec::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = percent_decode(name).unwrap_or_default();
        let Some((name, rule)) = PARAMETERS.into_iter().find(|(known, _)| *known == name) else {
            continue;
        };
        let is_repeated = seen.contains(&name);
        seen.push(name);
        let parsed = percent_decode(value).and_then(|value| set(&mut page, name, &value));
        if is_repeated || parsed.is_none() {
            errors.push(wrong(name, rule));
        }
    }
    if seen.contains(&"offset") && seen.contains(&"after") {
        errors.push(wrong("after", "must not be with offset"));
    }
    if errors.is_empty() { Ok(page) } else { Err(Error::Invalid(errors)) }
}

fn wrong(name: &'static str, msg: &'static str) -> FieldError {
    FieldError { loc: vec!["query", name], msg, kind: "query" }
}

/// Sets what one parameter says. None where its value breaks the rule.
fn set(page: &mut Page, name: &str, value: &str) -> Option<()> {
    let number = || TaskId::parse(value).ok().map(|number| number.get());
    match (name, value) {
        ("complete", _) => page.complete = Some(value.parse().ok()?),
        ("order", "asc" | "desc") => page.is_descending = value == "desc",
        ("limit", _) => page.limit = Some(number().filter(|limit| *limit <= LIMIT_MAX)?),
        ("offset", "0") => {}
        ("offset", _) => page.offset = number()?,
        ("after", _) => page.after = Some(number()?),
        _ => return None,
    }
    Some(())
}

/// The query of the page that follows a page whose last task has this id.
pub fn query_after(page: &Page, last_id: i64) -> String {
    let mut query = String::new();
    if let Some(complete) = page.complete {
        query.push_str(&format!("complete={complete}&"));
    }
    if page.is_descending {
        query.push_str("order=desc&");
    }
    if let Some(limit) = page.limit {
        query.push_str(&format!("limit={limit}&"));
    }
    query + &format!("after={last_id}")
}
