//! Parses the query of a list into a [`Page`] and that of a bulk change into a [`BulkSelection`], and writes the query
//! of the next page.

use super::cursor;
use super::request::form_decode;
use super::tasks::RESERVED;
use crate::error::{Error, FieldError};
use crate::limits::{LIST_LIMIT_MAX, UNKNOWN_PARAMETERS_MAX};
use crate::task::{BulkSelection, Filter, Order, Page, Position, Search, SortKey, SortValue, TaskId};
use percent_encoding::utf8_percent_encode;
use std::borrow::Cow;

/// The name of a parameter, and its rule in the words that a client gets.
type Parameter = (&'static str, &'static str);

const COMPLETE: Parameter = ("complete", "must be true or false, once");
const Q: Parameter = ("q", "must be 1 to 200 characters without U+0000, once");
const ORDER: Parameter =
    ("order", "must be id, created, updated or title, with - before it descending, or asc or desc, once");
const LIMIT: Parameter = ("limit", "must be a whole number from 1 to 1000, once");
const OFFSET: Parameter = ("offset", "must be a whole number from 0, once");
const AFTER: Parameter = ("after", "must be the id of a task, once, and only in the orders by id");
const CURSOR: Parameter =
    ("cursor", "must be one that a Link of this list gave, once, and only in the orders not by id");
const TOTALS: Parameter = ("totals", "must be true or false, once");

const OF_LIST: [Parameter; 8] = [COMPLETE, Q, ORDER, LIMIT, OFFSET, AFTER, CURSOR, TOTALS];
const OF_CHOSEN: [Parameter; 2] = [COMPLETE, Q];

/// The values of `order`, which may have a `-` before them for descending order.
const ORDERS: [(&str, SortKey); 4] = [
    ("id", SortKey::Id),
    ("created", SortKey::CreatedAt),
    ("updated", SortKey::UpdatedAt),
    ("title", SortKey::Title),
];

/// The page that the query of a list asks for. Errors: `Invalid` with every rule that the query breaks.
pub fn parse_page(query: &str) -> Result<Page, Error> {
    let mut given = Given::read(query, &OF_LIST);
    let filter = given.filter();
    let order = given.parse(ORDER, parse_order).unwrap_or(Order::DEFAULT);
    let limit = given.parse(LIMIT, |text| number(text).filter(|limit| *limit <= LIST_LIMIT_MAX));
    let offset = given.parse(OFFSET, |text| if text == "0" { Some(0) } else { number(text) });
    let by_id = |text: &str| match order.by {
        SortKey::Id => number(text).map(|id| Position { value: SortValue::None, id }),
        _ => None,
    };
    let after = given.parse(AFTER, by_id);
    let cursor = given.parse(CURSOR, |text| cursor::parse(text, order, &filter));
    let has_totals = given.parse(TOTALS, |text| text.parse().ok()).unwrap_or(false);
    for name in ["after", "cursor"] {
        if given.has("offset") && given.has(name) {
            given.errors.push(FieldError::new(&["query", name], "must not be with offset", "query"));
        }
    }
    given.finish(Page {
        filter,
        order,
        after: after.or(cursor),
        offset: offset.unwrap_or(0),
        limit,
        has_totals,
    })
}

/// Which tasks a bulk change selects. Errors: `Invalid` with every rule that the query breaks. A query without
/// `complete` breaks one, so that nobody changes all tasks by mistake.
pub fn parse_selection(query: &str) -> Result<BulkSelection, Error> {
    let mut given = Given::read(query, &OF_CHOSEN);
    let Filter { complete, search } = given.filter();
    if !given.has("complete") {
        given.errors.push(FieldError::new(&["query", "complete"], "is required", "missing"));
    }
    // If `complete` is missing or invalid, `finish` returns an error, so this default is never used.
    given.finish(BulkSelection { complete: complete.unwrap_or(false), search })
}

/// The parameters of a query, and the rules that they break.
struct Given {
    /// None for a value that is badly encoded.
    values: Vec<(&'static str, Option<String>)>,
    errors: Vec<FieldError>,
}

impl Given {
    fn read(query: &str, known: &[Parameter]) -> Self {
        let mut given = Self { values: Vec::new(), errors: Vec::new() };
        for (name, value) in pairs(query) {
            match known.iter().find(|(known, _)| *known == name) {
                Some((known, _)) => given.values.push((known, value)),
                // Ignored: some clients add such a parameter with a new value to each URL, so that no cache answers.
                None if name.starts_with('_') => {}
                None => given.refuse_unknown(name, known),
            }
        }
        given
    }

    fn refuse_unknown(&mut self, name: String, known: &[Parameter]) {
        let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        let msg = format!("is unknown; known are {}", names.join(", "));
        let loc = vec![Cow::Borrowed("query"), Cow::Owned(name)];
        if self.errors.len() < UNKNOWN_PARAMETERS_MAX {
            self.errors.push(FieldError { loc, msg: Cow::Owned(msg), kind: "unknown" });
        }
    }

    fn has(&self, name: &str) -> bool {
        self.values.iter().any(|(given, _)| *given == name)
    }

    /// The value of a parameter. None if the parameter is absent or breaks its rule; a broken rule is added to
    /// `errors`.
    fn parse<T>(&mut self, parameter: Parameter, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let (name, rule) = parameter;
        let mut values = self.values.iter().filter(|(given, _)| *given == name);
        let (_, value) = values.next()?;
        let is_repeated = values.next().is_some();
        let parsed = value.as_deref().and_then(parse).filter(|_| !is_repeated);
        if parsed.is_none() {
            self.errors.push(FieldError::new(&["query", name], rule, "query"));
        }
        parsed
    }

    fn filter(&mut self) -> Filter {
        let complete = self.parse(COMPLETE, |text| text.parse().ok());
        let search = self.parse(Q, |text| Search::parse(text.to_owned()));
        Filter { complete, search }
    }

    fn finish<T>(self, value: T) -> Result<T, Error> {
        if self.errors.is_empty() { Ok(value) } else { Err(Error::Invalid(self.errors)) }
    }
}

/// The decoded names and values of a query. A value that is badly encoded is None.
fn pairs(query: &str) -> impl Iterator<Item = (String, Option<String>)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (form_decode(name).unwrap_or_else(|| name.to_owned()), form_decode(value))
    })
}

fn number(text: &str) -> Option<i64> {
    TaskId::parse(text).ok().map(|number| number.get())
}

fn parse_order(text: &str) -> Option<Order> {
    let (name, is_descending) = match text {
        "asc" => ("id", false),
        "desc" => ("id", true),
        _ => text.strip_prefix('-').map_or((text, false), |name| (name, true)),
    };
    let (_, by) = ORDERS.into_iter().find(|(known, _)| *known == name)?;
    Some(Order { by, is_descending })
}

/// The query of the next page, which begins after the task at `last`. It has the parameters of this page's query,
/// but `after` or `cursor` names the new position, and there is no `offset`.
pub fn next(query: &str, page: &Page, last: &Position) -> String {
    let mut parameters: Vec<_> = pairs(query).filter(|(name, _)| is_kept(name)).collect();
    parameters.push(match page.order.by {
        SortKey::Id => ("after".to_owned(), Some(last.id.to_string())),
        _ => ("cursor".to_owned(), Some(cursor::write(last, page.order, &page.filter))),
    });
    let mut next = String::new();
    for (name, value) in parameters {
        let separator = if next.is_empty() { "" } else { "&" };
        next.extend([separator, &name, "="]);
        next.extend(utf8_percent_encode(&value.unwrap_or_default(), RESERVED));
    }
    next
}

fn is_kept(name: &str) -> bool {
    [COMPLETE, Q, ORDER, LIMIT, TOTALS].iter().any(|(kept, _)| *kept == name)
}
