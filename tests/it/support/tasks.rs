//! Tasks: many at once, one with its tag, and lists of them.

use crate::support::{
    harness::{Database, User},
    http::Response,
};
use serde_json::Value;

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
