//! The handlers that change many tasks of a user at once: either all tasks that the query selects, or none.

use super::App;
use super::query;
use super::request::check_media_type;
use super::response::Response;
use super::tasks::{JSON_OR_MERGE_PATCH, both};
use crate::auth::Caller;
use crate::error::Error;
use crate::gate::Request;
use crate::task::parse_complete;
use serde_json::json;

/// `PATCH /api/{user_id}/tasks`.
pub fn update<'a>(app: &'a App, caller: Caller, request: &Request) -> Result<Response<'a>, Error> {
    check_media_type(request, JSON_OR_MERGE_PATCH)?;
    let (selection, complete) = both(query::parse_selection(request.query()), parse_complete(&request.body))?;
    let count = app.store.update_many(&caller, &selection, complete)?;
    Response::json(200, &json!({"count": count}))
}

/// `DELETE /api/{user_id}/tasks`.
pub fn delete<'a>(app: &'a App, caller: Caller, request: &Request) -> Result<Response<'a>, Error> {
    let selection = query::parse_selection(request.query())?;
    let count = app.store.delete_many(&caller, &selection)?;
    Response::json(200, &json!({"count": count}))
}
