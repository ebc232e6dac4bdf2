//! Tasks: many at once, one with its tag, and lists of them.

use crate::support::{
    harness::{App, Database, User},
    http::Response,
    token::token,
};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use std::collections::BTreeMap;

/// The task, and the tag that GET returns for it.
pub fn tagged(user: User, id: i64) -> (Value, String) {
    let response = user.on_task("GET", id).send().expect(200);
    let tag = response.field("ETag").expect("ETag").to_owned();
    (response.json(), tag)
}

/// Inserts tasks by SQL, which is quicker than requests. The title of each is its number.
pub fn insert_many(database: &Database, user_id: &str, count: i64, description_chars: i32) {
    let sql = "insert into tasks (user_id, title, description, complete) \
               select $1, number::text, nullif(repeat('\u{1F600}', $3), ''), number % 3 = 0 \
               from generate_series(1::bigint, $2) as number order by number.number";
    database.client().execute(sql, &[&user_id, &count, &description_chars]).unwrap();
}

#[track_caller]
pub fn ids(response: &Response) -> Vec<i64> {
    let list = response.json();
    let ids: Vec<_> =
        list["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_i64().unwrap()).collect();
    assert_eq!(list["count"], ids.len());
    ids
}

/// The target of the next page.
pub fn next(response: &Response) -> Option<String> {
    let link = response.field("Link")?;
    let target = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\""));
    Some(target.unwrap_or_else(|| panic!("{link}")).to_owned())
}

pub fn get(user: User, query: &str) -> Response {
    user.request("GET", &format!("/tasks{query}")).send()
}

/// The answer to a target as a link gives it.
pub fn follow(app: &App, user_id: &str, target: &str) -> Response {
    app.get(target).bearer(&token(user_id)).send().expect(200)
}

/// The page of that query, and all that follow by their links.
pub fn pages(app: &App, user_id: &str, query: &str) -> Vec<Response> {
    let mut pages = vec![get(app.user(user_id), query).expect(200)];
    while let Some(target) = next(&pages[pages.len() - 1]) {
        pages.push(follow(app, user_id, &target));
        assert!(pages.len() < 10_000, "the pages have no end: {target}");
    }
    pages
}

/// The parameters of a target, decoded as those of a form.
pub fn parameters(target: &str) -> BTreeMap<String, String> {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let decoded = |text: &str| {
        let text = text.replace('+', " ");
        percent_decode_str(&text).decode_utf8().unwrap().into_owned()
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pairs: Vec<_> = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
    let count = pairs.len();
    let named: BTreeMap<_, _> =
        pairs.into_iter().map(|(name, value)| (decoded(name), decoded(value))).collect();
    assert_eq!(named.len(), count, "a parameter is there twice: {target}");
    named
}

/// Whether PostgreSQL has the root collation of Unicode.
pub fn has_root_collation(database: &Database) -> bool {
    database.value("select exists (select from pg_collation where collname = 'und-x-icu')") == "true"
}
