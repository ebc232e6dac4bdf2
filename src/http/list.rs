//! The handler of a list. A list that is short or has a `limit` is sent as a whole; any other list is sent in
//! parts.

use super::App;
use super::conditional::is_not_modified;
use super::list_parts::{ListParts, append_end};
use super::query;
use super::response::Response;
use super::tasks::tasks_path;
use crate::auth::Caller;
use crate::error::Error;
use crate::gate::Request;
use crate::limits::LIST_PART_ROWS;
use crate::task::{Page, Position, append_tasks};
use xxhash_rust::xxh3::Xxh3;

/// `GET /api/{user_id}/tasks`.
pub fn list<'a>(app: &'a App, caller: Caller, request: &Request) -> Result<Response<'a>, Error> {
    let page = query::parse_page(request.query())?;
    let rows_max = page.limit.unwrap_or(LIST_PART_ROWS);
    let turn = app.take_turn(rows_max <= LIST_PART_ROWS)?;
    let totals = match page.has_totals {
        true => Some(app.store.totals(&caller, page.filter.search.as_ref())?),
        false => None,
    };
    // One row more than needed shows whether other tasks follow.
    let rows = app.store.list(&caller, &page, rows_max + 1)?;
    let mut tasks = rows.all()?;
    let has_more = i64::try_from(tasks.len()).is_ok_and(|count| count > rows_max);
    if has_more {
        tasks.pop();
    }
    let last = tasks.last().map(|task| Position::of(task, page.order.by));
    let count = tasks.len();
    let mut json = br#"{"tasks":["#.to_vec();
    append_tasks(&mut json, &tasks);
    if has_more && page.limit.is_none() {
        let rest = Page { after: last, offset: 0, ..page };
        let rest = ListParts { app, count, totals, caller, rest, is_done: false };
        return Ok(Response::list_in_parts(json, rest).made_in(turn));
    }
    append_end(&mut json, count, totals);
    let link = match last {
        Some(last) if has_more => {
            let (path, query) = (tasks_path(caller.user_id()), query::next(request.query(), &page, &last));
            Some(format!("<{path}?{query}>; rel=\"next\""))
        }
        _ => None,
    };
    let etag = etag(&json, link.as_deref());
    if is_not_modified(request, &etag) {
        return Ok(Response::empty(304).with_etag(etag).made_in(turn));
    }
    let response = Response::json_text(200, json).with_etag(etag).made_in(turn);
    Ok(match link {
        Some(link) => response.with("Link", link),
        None => response,
    })
}

/// The entity tag of a list: a hash of the body and of the `Link` field. `Link` is included because a client
/// that reuses a stored list after a 304 also reuses the stored link to the next page.
fn etag(json: &[u8], link: Option<&str>) -> String {
    let mut hash = Xxh3::new();
    hash.update(link.unwrap_or_default().as_bytes());
    hash.update(json);
    format!("\"{:032x}\"", hash.digest128())
}
