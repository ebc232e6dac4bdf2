//! The handler of a list: a user's tasks as one answer, whole where it is small or limited, else in
//! parts.

use super::App;
use super::list_parts::{ListParts, members};
use super::page;
use super::response::Response;
use super::tasks::tasks_path;
use crate::auth::Caller;
use crate::error::Error;
use crate::gate::Request;
use crate::limits::LIST_PART_ROWS;
use crate::task::{Page, Task};
use serde::Serialize;

/// The body of a list that is sent whole.
#[derive(Serialize)]
struct List<'a> {
    tasks: &'a [Task<'a>],
    count: usize,
}

/// `GET /api/{user_id}/tasks`.
pub fn list<'a>(app: &'a App, caller: Caller, request: &Request) -> Result<Response<'a>, Error> {
    let page = page::parse(request.query())?;
    let rows_max = page.limit.unwrap_or(LIST_PART_ROWS);
    let _turn = if rows_max > LIST_PART_ROWS { Some(app.turns.take()?) } else { None };
    // One row more says whether others follow.
    let rows = app.store.list(&caller, page, rows_max + 1)?;
    let mut tasks = rows.all()?;
    let has_more = i64::try_from(tasks.len()).is_ok_and(|count| count > rows_max);
    if has_more {
        tasks.pop();
    }
    let last_id = tasks.last().map(|task| task.id);
    if has_more && page.limit.is_none() {
        let first = [br#"{"tasks":["#.as_slice(), &members(&tasks)?].concat();
        let rest = Page { after: last_id, offset: 0, ..page };
        let parts = ListParts { app, count: tasks.len(), caller, rest, first: Some(first), is_done: false };
        return Ok(Response::list_in_parts(parts));
    }
    let response = Response::json(200, &List { tasks: &tasks, count: tasks.len() })?;
    match last_id.filter(|_| has_more) {
        Some(last_id) => {
            let (path, query) = (tasks_path(caller.user_id()), page::query_after(&page, last_id));
            Ok(response.with("Link", format!("<{path}?{query}>; rel=\"next\"")))
        }
        None => Ok(response),
    }
}
