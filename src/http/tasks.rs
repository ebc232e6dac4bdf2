//! The handlers of tasks. Each takes a [`Caller`], so it cannot run before the user is verified.

use super::App;
use super::conditional;
use super::request::check_media_type;
use super::response::Response;
use crate::auth::Caller;
use crate::error::Error;
use crate::gate::Request;
use crate::task::{Content, Patch, Task, TaskId};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

const JSON: &str = "application/json";
/// The media types of a PATCH body, which is a JSON merge patch (RFC 7396).
pub const JSON_OR_MERGE_PATCH: &str = "application/json, application/merge-patch+json";

/// `POST /api/{user_id}/tasks`.
pub fn create<'a>(app: &'a App, caller: Caller, request: &Request) -> Result<Response<'a>, Error> {
    check_media_type(request, JSON)?;
    let (key, content) =
        both(conditional::idempotency_key(request).map_err(Error::from), Content::parse(&request.body))?;
    let (rows, is_replay) = app.store.insert(&caller, &content, key)?;
    let task = rows.one()?;
    let response = show_task(201, &task).with("Location", location(&task));
    Ok(if is_replay { response.with("Idempotent-Replayed", "true") } else { response })
}

/// `GET /api/{user_id}/tasks/{task_id}`.
pub fn show<'a>(app: &'a App, caller: Caller, request: &Request, id: &str) -> Result<Response<'a>, Error> {
    let id = TaskId::parse(id)?;
    let rows = app.store.get(&caller, id)?;
    let task = rows.one()?;
    let when = conditional::precondition(request);
    if when.if_match_fails(task.updated_at) {
        return Err(task.precondition_failed());
    }
    if when.if_none_match_fails(task.updated_at) {
        return Ok(Response::empty(304).with_etag(task.etag()));
    }
    Ok(show_task(200, &task))
}

/// `PUT /api/{user_id}/tasks/{task_id}`.
pub fn replace<'a>(app: &'a App, caller: Caller, request: &Request, id: &str) -> Result<Response<'a>, Error> {
    check_media_type(request, JSON)?;
    let (id, patch) = both(TaskId::parse(id).map_err(Error::from), Patch::for_replace(&request.body))?;
    update(app, &caller, request, id, &patch)
}

/// `PATCH /api/{user_id}/tasks/{task_id}`.
pub fn patch<'a>(app: &'a App, caller: Caller, request: &Request, id: &str) -> Result<Response<'a>, Error> {
    check_media_type(request, JSON_OR_MERGE_PATCH)?;
    let (id, patch) = both(TaskId::parse(id).map_err(Error::from), Patch::parse(&request.body))?;
    update(app, &caller, request, id, &patch)
}

/// Checks that a required precondition is present (428), then makes the change. The caller has parsed the body
/// before, because preconditions count only for a request that is valid otherwise (RFC 9110 section 13.2.1). A
/// missing precondition is refused even if there is no such task.
fn update<'a>(
    app: &App,
    caller: &Caller,
    request: &Request,
    id: TaskId,
    patch: &Patch,
) -> Result<Response<'a>, Error> {
    conditional::check_required(request, app.options.requires_if_match)?;
    let rows = app.store.update(caller, id, &conditional::precondition(request), patch)?;
    let task = rows.one()?;
    Ok(show_task(200, &task).with("Content-Location", location(&task)))
}

/// `DELETE /api/{user_id}/tasks/{task_id}`.
pub fn delete<'a>(app: &'a App, caller: Caller, request: &Request, id: &str) -> Result<Response<'a>, Error> {
    let id = TaskId::parse(id)?;
    conditional::check_required(request, app.options.requires_if_match)?;
    app.store.delete(&caller, id, &conditional::precondition(request))?;
    Ok(Response::empty(204))
}

/// Both values. Errors: `Invalid` with the field errors of head and body together; `Malformed` with them if the
/// body is malformed.
pub fn both<H, B>(head: Result<H, Error>, body: Result<B, Error>) -> Result<(H, B), Error> {
    match (head, body) {
        (Ok(head), Ok(body)) => Ok((head, body)),
        (Err(Error::Invalid(wrong)), Err(Error::Invalid(more))) => {
            Err(Error::Invalid([wrong, more].concat()))
        }
        (Err(Error::Invalid(wrong)), Err(Error::Malformed(more))) => {
            Err(Error::Malformed([wrong, more].concat()))
        }
        (_, Err(error)) | (Err(error), Ok(_)) => Err(error),
    }
}

fn show_task<'a>(status: u16, task: &Task) -> Response<'a> {
    Response::json_text(status, task.to_json()).with_etag(task.etag())
}

fn location(task: &Task) -> String {
    format!("{}/{}", tasks_path(task.user_id), task.id)
}

/// The characters that are percent-encoded in the URLs of answers: all except the unreserved ones (RFC 3986
/// section 2.3).
pub const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The path of a user's tasks, with the user id percent-encoded.
pub fn tasks_path(user_id: &str) -> String {
    format!("/api/{}/tasks", utf8_percent_encode(user_id, RESERVED))
}
