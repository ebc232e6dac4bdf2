//! Path and method → route, and one short function for each. What needs the store takes a
//! [`Caller`], so it cannot run before the user is verified.

use super::response::Response;
use super::{App, conditional, docs};
use crate::auth::Caller;
use crate::error::{Error, FieldError};
use crate::gate::Request;
use crate::store::Readiness;
use crate::task::{Content, Page, Patch, Task, TaskId};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::json;

const JSON: &str = "application/json";
/// RFC 7396: a PATCH body is one.
const JSON_OR_MERGE_PATCH: &str = "application/json, application/merge-patch+json";

/// Rows of a list that are in memory at once.
const STREAM_ROWS: i64 = 128;

/// What a path names.
pub enum Route<'p> {
    Root,
    Health,
    Docs,
    DocsAsset(&'p str),
    OpenApi,
    Tasks { user: &'p str },
    Task { user: &'p str, id: &'p str },
}

impl<'p> Route<'p> {
    /// None for an unknown path; so is one with an empty segment in it.
    pub fn find(path: &'p [String], has_docs: bool) -> Option<Self> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match *path.as_slice() {
            // The target `*` has no segment.
            [""] | [] => Some(Self::Root),
            ["health"] => Some(Self::Health),
            ["docs"] if has_docs => Some(Self::Docs),
            ["docs", asset] if has_docs && docs::asset(asset).is_some() => Some(Self::DocsAsset(asset)),
            ["openapi.json"] if has_docs => Some(Self::OpenApi),
            ["api", user, "tasks"] if !user.is_empty() => Some(Self::Tasks { user }),
            ["api", user, "tasks", id] if !user.is_empty() && !id.is_empty() => Some(Self::Task { user, id }),
            _ => None,
        }
    }

    /// For the log: what a client cannot vary.
    pub fn template(&self) -> &'static str {
        match self {
            Self::Root => "/",
            Self::Health => "/health",
            Self::Docs => "/docs",
            Self::DocsAsset(_) => "/docs/{asset}",
            Self::OpenApi => "/openapi.json",
            Self::Tasks { .. } => "/api/{user_id}/tasks",
            Self::Task { .. } => "/api/{user_id}/tasks/{task_id}",
        }
    }

    /// Errors: `MethodNotAllowed`.
    pub fn check_method(&self, method: &str) -> Result<(), Error> {
        let methods = self.methods();
        let fits = methods.split(", ").any(|allowed| allowed == method);
        if fits { Ok(()) } else { Err(Error::MethodNotAllowed(methods)) }
    }

    fn methods(&self) -> &'static str {
        match self {
            Self::Tasks { .. } => "GET, HEAD, POST, OPTIONS",
            Self::Task { .. } => "GET, HEAD, PUT, PATCH, DELETE, OPTIONS",
            _ => "GET, HEAD, OPTIONS",
        }
    }

    /// OPTIONS, a preflight included.
    pub fn options<'a>(&self) -> Response<'a> {
        let response = Response::empty(204).with("Allow", self.methods());
        let has_patch = matches!(self, Self::Task { .. });
        if has_patch { response.with("Accept-Patch", JSON_OR_MERGE_PATCH) } else { response }
    }
}

pub fn root<'a>() -> Result<Response<'a>, Error> {
    let message = "tinytasks, a to-do task service";
    let links = json!({"message": message, "docs": "/docs", "openapi": "/openapi.json", "health": "/health"});
    Response::json(200, &links)
}

pub fn health<'a>(app: &App) -> Result<Response<'a>, Error> {
    let (code, status, database) = match app.store.pool.readiness() {
        Readiness::Ready => (200, "healthy", "connected"),
        Readiness::Unreachable => (503, "unhealthy", "disconnected"),
        Readiness::NotReady => (503, "unhealthy", "not ready"),
    };
    let version = env!("CARGO_PKG_VERSION");
    let health = json!({"status": status, "service": "tinytasks", "version": version, "database": database});
    Response::json(code, &health)
}

/// With a limit, or when all fit in one page, a plain answer; else a stream of pages. No database
/// connection is held while the client reads.
pub fn list<'a>(app: &'a App, caller: Caller, request: &Request) -> Result<Response<'a>, Error> {
    #[derive(Serialize)]
    struct List<'a> {
        tasks: &'a [Task<'a>],
        count: usize,
    }
    let page = conditional::page(request)?;
    let size = page.limit.unwrap_or(STREAM_ROWS);
    let _turn = (size > STREAM_ROWS).then(|| app.rooms.turn()).transpose()?;
    let found = app.store.list(&caller, page, size + 1)?;
    let mut tasks = found.all()?;
    let has_more = i64::try_from(tasks.len()).is_ok_and(|rows| rows > size) && tasks.pop().is_some();
    let last = tasks.last().map(|task| task.id).filter(|_| has_more);
    if page.limit.is_some() || last.is_none() {
        let response = Response::json(200, &List { tasks: &tasks, count: tasks.len() })?;
        let path = tasks_path(caller.user_id());
        let link = last.map(|last| format!("<{path}?{}>; rel=\"next\"", page.next(last)));
        return Ok(link.into_iter().fold(response, |response, link| response.with("Link", link)));
    }
    let (first, count) = (items(&tasks)?, tasks.len());
    Ok(stream(app, caller, Page { after: last, offset: 0, ..page }, &first, count))
}

/// A list of which `first` are the first `count` members; `page` begins behind them.
fn stream<'a>(app: &'a App, caller: Caller, mut page: Page, first: &[u8], mut count: usize) -> Response<'a> {
    let mut is_done = false;
    let rest = move || {
        if is_done {
            return Ok(None);
        }
        let _turn = app.rooms.turn()?;
        let found = app.store.list(&caller, page, STREAM_ROWS)?;
        let tasks = found.all()?;
        count += tasks.len();
        page.after = tasks.last().map(|task| task.id);
        is_done = tasks.is_empty();
        let part = if is_done {
            format!("],\"count\":{count}}}").into()
        } else {
            [b",".as_slice(), &items(&tasks)?].concat()
        };
        Ok(Some(part))
    };
    Response::data(200, JSON, [b"{\"tasks\":[", first].concat()).followed_by(Box::new(rest))
}

/// The members of a JSON array, with the commas between them.
fn items(tasks: &[Task]) -> Result<Vec<u8>, Error> {
    let mut array = serde_json::to_vec(tasks).map_err(|error| Error::Bug(error.to_string()))?;
    array.pop();
    Ok(array.split_off(1))
}

pub fn create<'a>(app: &App, caller: &Caller, request: &Request) -> Result<Response<'a>, Error> {
    request.check_media_type(JSON)?;
    let (key, content) = both(conditional::idempotency_key(request), Content::for_create(&request.body))?;
    let (found, is_replay) = app.store.insert(caller, &content, key)?;
    let task = found.one()?;
    let response = one(201, &task)?.with("Location", location(&task));
    Ok(if is_replay { response.with("Idempotent-Replayed", "true") } else { response })
}

/// `id` is as in the path. What is wrong with it is told with what is wrong with the body.
pub fn task<'a>(app: &App, caller: &Caller, request: &Request, id: &str) -> Result<Response<'a>, Error> {
    let (id, when) = (TaskId::parse(id), conditional::precondition(request));
    // After the body, because a precondition says nothing of a request that is bad without it (RFC
    // 9110 section 13.2.1); before the task, which need not be there.
    let required = || conditional::required(request, app.options.requires_if_match);
    let changed = match request.method {
        "PUT" => {
            request.check_media_type(JSON)?;
            let (id, content) = both(id, Content::for_replace(&request.body))?;
            required()?;
            app.store.update(caller, id, &when, &content.into())?
        }
        "PATCH" => {
            request.check_media_type(JSON_OR_MERGE_PATCH)?;
            let (id, patch) = both(id, Patch::parse(&request.body))?;
            required()?;
            app.store.update(caller, id, &when, &patch)?
        }
        "DELETE" => {
            let (id, ()) = both(id, Ok(()))?;
            required()?;
            app.store.delete(caller, id, &when)?;
            return Ok(Response::empty(204));
        }
        _ => {
            let found = app.store.get(caller, both(id, Ok(()))?.0)?;
            let task = found.one()?;
            let is_unchanged = conditional::is_unchanged(request, &task)?;
            return if is_unchanged { Ok(tagged(Response::empty(304), &task)) } else { one(200, &task) };
        }
    };
    let task = changed.one()?;
    Ok(one(200, &task)?.with("Content-Location", location(&task)))
}

/// All that is wrong with the head and the body, in one answer.
fn both<H, B>(head: Result<H, FieldError>, body: Result<B, Error>) -> Result<(H, B), Error> {
    match (head, body) {
        (Ok(head), Ok(body)) => Ok((head, body)),
        (Err(wrong), Ok(_)) => Err(Error::Invalid(vec![wrong])),
        (Err(wrong), Err(Error::Invalid(more))) => Err(Error::Invalid([vec![wrong], more].concat())),
        (_, Err(error)) => Err(error),
    }
}

fn one<'a>(status: u16, task: &Task) -> Result<Response<'a>, Error> {
    Response::json(status, task).map(|response| tagged(response, task))
}

fn tagged<'a>(response: Response<'a>, task: &Task) -> Response<'a> {
    response.with("Cache-Control", "private, no-cache").with("ETag", conditional::etag(task))
}

fn location(task: &Task) -> String {
    format!("{}/{}", tasks_path(task.user_id), task.id)
}

/// The path of a user's tasks, the user percent-encoded (RFC 3986 section 2.3).
fn tasks_path(user_id: &str) -> String {
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    format!("/api/{}/tasks", utf8_percent_encode(user_id, RESERVED))
}
