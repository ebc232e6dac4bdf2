//! Lists and bulk changes: what a query asks for, which tasks that are, and in which order.

use super::{Call, Outcome, Rule, Task, User, World, perform::learned_tag};
use crate::support::{http::Response, tasks::parameters};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
};

/// The longest list that is sent in one piece without `limit`.
const WHOLE_TASKS_MAX: usize = 128;
/// Each parameter of a list with its rule. The first two are those of a bulk change.
const RULES: [(&str, &str); 8] = [
    ("complete", "must be true or false, once"),
    ("q", "must be 1 to 200 characters without U+0000, once"),
    ("order", "must be id, created, updated or title, with - before it descending, or asc or desc, once"),
    ("limit", "must be a whole number from 1 to 1000, once"),
    ("offset", "must be a whole number from 0, once"),
    ("after", "must be the id of a task, once, and only in the orders by id"),
    ("cursor", "must be one that a Link of this list gave, once, and only in the orders not by id"),
    ("totals", "must be true or false, once"),
];
/// The parameters that a link repeats.
const KEPT: [&str; 5] = ["complete", "q", "order", "limit", "totals"];

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum By {
    Id,
    Created,
    Updated,
    Title,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Order {
    pub by: By,
    pub is_descending: bool,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    pub complete: Option<bool>,
    pub q: Option<String>,
}

/// What a cursor stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    pub order: Order,
    pub filter: Filter,
    /// What the last task was ordered by, and its id.
    last: (String, i64),
}

#[derive(Debug)]
pub struct Page {
    pub filter: Filter,
    pub order: Order,
    beyond: Option<(String, i64)>,
    limit: Option<usize>,
    offset: u64,
    pub has_totals: bool,
    /// What a link repeats, in the order of the request.
    kept: Vec<(&'static str, String)>,
}

impl Order {
    fn parse(text: &str) -> Self {
        let (name, is_descending) =
            text.strip_prefix('-').map_or((text, text == "desc"), |name| (name, true));
        let by = match name {
            "created" => By::Created,
            "updated" => By::Updated,
            "title" => By::Title,
            _ => By::Id,
        };
        Self { by, is_descending }
    }

    pub fn name(self) -> String {
        let name = match self.by {
            By::Id => "id",
            By::Created => "created",
            By::Updated => "updated",
            By::Title => "title",
        };
        format!("{}{name}", if self.is_descending { "-" } else { "" })
    }

    /// What the task is ordered by, before its id.
    fn value(self, task: &Task) -> String {
        match self.by {
            By::Id => String::new(),
            By::Created => task.created_at.clone(),
            By::Updated => task.updated_at.clone(),
            By::Title => task.content.title.clone(),
        }
    }
}

impl Filter {
    fn fits(&self, task: &Task) -> bool {
        let folded = |text: &str| text.to_lowercase().to_uppercase();
        let content = &task.content;
        let is_found = self.q.as_ref().is_none_or(|q| {
            let texts = [Some(&content.title), content.description.as_ref()];
            texts.into_iter().flatten().any(|text| folded(text).contains(&folded(q)))
        });
        is_found && self.complete.is_none_or(|complete| content.complete == complete)
    }
}

/// The parameters of a call, and the rules that they break.
struct Given<'c> {
    call: &'c Call,
    rules: Vec<Rule>,
}

impl<'c> Given<'c> {
    fn of(call: &'c Call, known: &[(&str, &str)]) -> Self {
        let mut given = Self { call, rules: Vec::new() };
        let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        let msg = format!("is unknown; known are {}", names.join(", "));
        for (name, _, _) in &call.query {
            if !names.contains(name) && !name.starts_with('_') {
                given.rules.push((format!("query.{name}"), msg.clone(), "unknown"));
            }
        }
        given
    }

    fn has(&self, name: &str) -> bool {
        self.call.query.iter().any(|(given, _, _)| *given == name)
    }

    fn parse<T>(&mut self, name: &str, parse: impl Fn(&'c str) -> Option<T>) -> Option<T> {
        let mut values = self.call.query.iter().filter(|(given, _, _)| *given == name);
        let (_, value, is_good) = values.next()?;
        let is_once = values.next().is_none();
        let parsed = parse(value).filter(|_| *is_good && is_once);
        if parsed.is_none() {
            let (_, msg) = RULES.iter().find(|(known, _)| *known == name).unwrap();
            self.rules.push((format!("query.{name}"), (*msg).to_owned(), "query"));
        }
        parsed
    }

    fn filter(&mut self) -> Filter {
        let complete = self.parse("complete", |text| Some(text == "true"));
        let q = self.parse("q", |text| Some(text.to_owned()));
        Filter { complete, q }
    }
}

/// The tasks that a bulk change is to choose, and the rules that its query breaks.
pub fn filter_of(call: &Call) -> (Filter, Vec<Rule>) {
    let mut given = Given::of(call, &RULES[..2]);
    let filter = given.filter();
    if !given.has("complete") {
        given.rules.push(("query.complete".to_owned(), "is required".to_owned(), "missing"));
    }
    (filter, given.rules)
}

impl World<'_> {
    /// The place of each title in the order of titles, which PostgreSQL knows.
    fn ranks<'t>(&self, titles: impl Iterator<Item = &'t str>) -> BTreeMap<String, usize> {
        let titles: Vec<&str> = titles.collect::<BTreeSet<_>>().into_iter().collect();
        let mut collator = self.collator.lock().unwrap();
        let sql = format!(
            "select title from unnest($1::text[]) as given (title) order by title collate \"{}\"",
            self.collation
        );
        let sorted = collator.query(&sql, &[&titles]).unwrap();
        sorted.iter().enumerate().map(|(rank, row)| (row.get(0), rank)).collect()
    }
}

impl User {
    pub fn decide_list(&self, call: &Call) -> Outcome {
        let mut given = Given::of(call, &RULES);
        let filter = given.filter();
        let order = given.parse("order", |text| Some(Order::parse(text)));
        // Where the order is bad, `after` and `cursor` are judged by the default.
        let order = order.unwrap_or(Order { by: By::Id, is_descending: false });
        let limit = given.parse("limit", |text| text.parse().ok());
        let offset = given.parse("offset", |text| text.parse().ok()).unwrap_or(0);
        let is_by_id = order.by == By::Id;
        let after = given
            .parse("after", |text| text.parse().ok().filter(|_| is_by_id))
            .map(|id: i64| (String::new(), id));
        let is_place = |place: &&Place| !is_by_id && (place.order, &place.filter) == (order, &filter);
        let cursor = given.parse("cursor", |text| self.cursors.get(text).filter(is_place).cloned());
        let beyond = after.or(cursor.map(|place| place.last));
        let has_totals = given.parse("totals", |text| Some(text == "true")).unwrap_or(false);
        for name in ["after", "cursor"] {
            if given.has("offset") && given.has(name) {
                given.rules.push((format!("query.{name}"), "must not be with offset".to_owned(), "query"));
            }
        }
        if !given.rules.is_empty() {
            return Outcome::Broken(422, given.rules);
        }
        let kept = call.query.iter().filter(|(name, _, _)| KEPT.contains(name));
        let kept = kept.map(|(name, value, _)| (*name, value.clone())).collect();
        Outcome::List(Page { filter, order, beyond, limit, offset, has_totals, kept })
    }

    /// The ids of the tasks that a bulk change chooses.
    pub fn chosen(&self, filter: &Filter) -> Vec<i64> {
        self.tasks.values().filter(|task| filter.fits(task)).map(|task| task.id).collect()
    }

    /// The tasks of the page, and the place that the next one begins behind.
    fn page(&self, world: &World, page: &Page) -> (Vec<&Task>, Option<Place>) {
        let order = page.order;
        let mut tasks: Vec<&Task> = self.tasks.values().filter(|task| page.filter.fits(task)).collect();
        let titles = tasks.iter().map(|task| task.content.title.as_str());
        let titles = titles.chain(page.beyond.iter().map(|(value, _)| value.as_str()));
        let ranks = if order.by == By::Title { world.ranks(titles) } else { BTreeMap::new() };
        // Instants are ordered as their texts are.
        let key = |value: String, id: i64| match order.by {
            By::Title => (format!("{:09}", ranks[&value]), id),
            _ => (value, id),
        };
        tasks.sort_by_cached_key(|task| key(order.value(task), task.id));
        if order.is_descending {
            tasks.reverse();
        }
        if let Some((value, id)) = &page.beyond {
            let place = key(value.clone(), *id);
            tasks.retain(|task| {
                let own = key(order.value(task), task.id);
                if order.is_descending { own < place } else { own > place }
            });
        }
        let offset = usize::try_from(page.offset).unwrap_or(usize::MAX).min(tasks.len());
        tasks.drain(..offset);
        let Some(limit) = page.limit.filter(|limit| *limit < tasks.len()) else { return (tasks, None) };
        tasks.truncate(limit);
        let last = tasks.last().unwrap();
        let last = (order.value(last), last.id);
        (tasks, Some(Place { order, filter: page.filter.clone(), last }))
    }

    fn totals(&self, q: Option<&String>) -> Value {
        let count = |complete| self.chosen(&Filter { complete, q: q.cloned() }).len();
        json!({"all": count(None), "open": count(Some(false)), "complete": count(Some(true))})
    }

    /// The answer to the list: status, fields and body. Its tag and its cursor are taken from what is
    /// seen, and checked.
    pub fn list(
        &mut self,
        world: &World,
        call: &Call,
        page: &Page,
        seen: &Response,
    ) -> (u16, Vec<(&'static str, String)>, Value) {
        let (tasks, next) = self.page(world, page);
        let count = tasks.len();
        let tasks: Vec<_> = tasks.into_iter().map(|task| self.shown(task)).collect();
        let mut body = json!({"count": count, "tasks": tasks});
        if page.has_totals {
            body["totals"] = self.totals(page.filter.q.as_ref());
        }
        if page.limit.is_none() && count > WHOLE_TASKS_MAX {
            return (200, vec![("cache-control", "no-store".to_owned())], body);
        }
        let tag = self.learn_list(page, next.as_ref(), &body, seen);
        let is_known = call.if_none_match.as_ref().is_some_and(|tags| tags.matches(&tag, true));
        let mut fields = vec![("etag", tag), ("cache-control", "private, no-cache".to_owned())];
        if is_known {
            return (304, fields, Value::Null);
        }
        if let Some(next) = next {
            let link = seen.field("Link").unwrap_or("none");
            let is_right = self.names_page(link, page, next);
            fields.push(("link", if is_right { link } else { "another" }.to_owned()));
        }
        (200, fields, body)
    }

    /// The tag of a list with that content. The same content has always the same tag, and a tag that of
    /// one content alone.
    fn learn_list(&mut self, page: &Page, next: Option<&Place>, body: &Value, seen: &Response) -> String {
        let hash = |sent: &dyn Fn(&mut DefaultHasher)| {
            let mut hasher = DefaultHasher::new();
            sent(&mut hasher);
            (body.to_string(), next.map(|next| &next.last)).hash(&mut hasher);
            hasher.finish()
        };
        // Links to the same page may be spelled in more than one way.
        let meaning = hash(&|hasher| next.map(|_| linked(page)).hash(hasher));
        let spelling = hash(&|hasher| next.map(|_| &page.kept).hash(hasher));
        let tag = self.lists.get(&spelling).cloned().unwrap_or_else(|| learned_tag(seen));
        let before = self.list_tags.insert(tag.clone(), meaning);
        assert!(before.is_none_or(|before| before == meaning), "the tag {tag} was that of another list");
        self.lists.insert(spelling, tag.clone());
        tag
    }

    /// Whether the link names the page behind that place. Its cursor is learned.
    fn names_page(&mut self, link: &str, page: &Page, next: Place) -> bool {
        let target = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\""));
        let Some(target) = target.filter(|target| target.starts_with(&format!("{}?", self.path()))) else {
            return false;
        };
        let mut named = parameters(target);
        let is_there = if next.order.by == By::Id {
            named.remove("after") == Some(next.last.1.to_string())
        } else {
            let Some(cursor) = named.remove("cursor") else { return false };
            *self.cursors.entry(cursor).or_insert_with(|| next.clone()) == next
        };
        without_defaults(&mut named);
        is_there && named == linked(page)
    }

    /// Learns times and tags of the tasks that a bulk change has changed from the list that shows them.
    pub fn learn_stale(&mut self, seen: &Response) {
        if !self.tasks.values().any(|task| task.is_stale) {
            return;
        }
        let list = seen.clone().expect(200).json();
        for shown in list["tasks"].as_array().unwrap() {
            let task = self.tasks.get_mut(&shown["id"].as_i64().unwrap()).expect("no task of the user");
            if task.is_stale {
                task.learn_version(&shown["updated_at"], shown["etag"].as_str().unwrap().to_owned());
                task.is_stale = false;
            }
        }
        assert!(!self.tasks.values().any(|task| task.is_stale), "a changed task is missing: {list}");
    }
}

/// The parameters of a link beside the place.
fn linked(page: &Page) -> BTreeMap<String, String> {
    let mut linked = page.kept.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    without_defaults(&mut linked);
    linked
}

fn without_defaults(named: &mut BTreeMap<String, String>) {
    named.retain(|name, value| match name.as_str() {
        "order" => !["id", "asc"].contains(&value.as_str()),
        "totals" => value == "true",
        _ => true,
    });
}
