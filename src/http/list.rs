//! A user's tasks as one answer: whole where it is small or limited, else in parts, so that the
//! memory does not grow with the list. No database connection is held while the client reads.

use super::App;
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

/// A list without an end that is known yet: each part is asked from the database when it is sent.
pub struct ListParts<'a> {
    app: &'a App,
    caller: Caller,
    /// What has not been asked for yet.
    rest: Page,
    count: usize,
    /// The beginning of the JSON text, with the tasks that were found with the first question.
    first: Option<Vec<u8>>,
    is_done: bool,
}

impl ListParts<'_> {
    /// Whose tasks these are.
    pub fn user_id(&self) -> &str {
        self.caller.user_id()
    }

    /// The next piece of the JSON text; None after its end. Errors: those of the store. The text is not
    /// complete then.
    pub fn next_part(&mut self) -> Result<Option<Vec<u8>>, Error> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        if self.is_done {
            return Ok(None);
        }
        let _turn = self.app.turns.take()?;
        let rows = self.app.store.list(&self.caller, self.rest, LIST_PART_ROWS)?;
        let tasks = rows.all()?;
        let Some(last) = tasks.last() else {
            self.is_done = true;
            return Ok(Some(format!("],\"count\":{}}}", self.count).into_bytes()));
        };
        self.count += tasks.len();
        self.rest.after = Some(last.id);
        Ok(Some([b",".as_slice(), &members(&tasks)?].concat()))
    }
}

/// The members of a JSON array, with the commas between them.
fn members(tasks: &[Task]) -> Result<Vec<u8>, Error> {
    let mut array = serde_json::to_vec(tasks).map_err(|error| Error::Bug(error.to_string()))?;
    array.pop();
    Ok(array.split_off(1))
}
