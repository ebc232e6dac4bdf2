//! Path and method → route, and one short function for each. What needs the store takes a
//! [`Caller`], so it cannot run before the user is verified.

use super::request::Request;
use super::response::Response;
use super::{App, docs};
use crate::auth::Caller;
use crate::error::{Error, FieldError};
use crate::task::{Content, Patch, Task, TaskId};
use serde::Serialize;
use serde_json::json;

const JSON: &str = "application/json";
/// RFC 7396: a PATCH body is one.
const JSON_OR_MERGE_PATCH: &str = "application/json, application/merge-patch+json";

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
    pub fn options(&self) -> Response {
        let response = Response::empty(204).with("Allow", self.methods());
        let has_patch = matches!(self, Self::Task { .. });
        if has_patch { response.with("Accept-Patch", JSON_OR_MERGE_PATCH) } else { response }
    }
}

pub fn root() -> Result<Response, Error> {
    let message = "tinytasks, a to-do task service";
    let links = json!({"message": message, "docs": "/docs", "openapi": "/openapi.json", "health": "/health"});
    Response::json(200, &links)
}

pub fn health(app: &App) -> Result<Response, Error> {
    let (code, status, database) = match app.store.is_reachable() {
        true => (200, "healthy", "connected"),
        false => (503, "unhealthy", "disconnected"),
    };
    let version = env!("CARGO_PKG_VERSION");
    let health = json!({"status": status, "service": "tinytasks", "version": version, "database": database});
    Response::json(code, &health)
}

pub fn list(app: &App, caller: &Caller) -> Result<Response, Error> {
    #[derive(Serialize)]
    struct List<'a> {
        tasks: &'a [Task<'a>],
        count: usize,
    }
    let tasks = app.store.list(caller)?;
    Response::json(200, &List { tasks: &tasks, count: tasks.len() })
}

pub fn create(app: &App, caller: &Caller, request: &Request) -> Result<Response, Error> {
    request.check_media_type(JSON)?;
    let task = app.store.insert(caller, &Content::for_create(&request.body)?)?;
    Ok(one(201, &task)?.with("Location", location(&task)))
}

/// `id` is as in the path. What is wrong with it is told after what is wrong with the fields.
pub fn task(app: &App, caller: &Caller, request: &Request, id: &str) -> Result<Response, Error> {
    let id = TaskId::parse(id);
    let changed = match request.method {
        "PUT" => {
            request.check_media_type(JSON)?;
            let (id, content) = both(id, Content::for_replace(&request.body))?;
            app.store.replace(caller, id, &content)?
        }
        "PATCH" => {
            request.check_media_type(JSON_OR_MERGE_PATCH)?;
            let (id, patch) = both(id, Patch::parse(&request.body))?;
            app.store.patch(caller, id, &patch)?
        }
        "DELETE" => {
            app.store.delete(caller, both(id, Ok(()))?.0)?;
            return Ok(Response::empty(204));
        }
        _ => return one(200, &app.store.get(caller, both(id, Ok(()))?.0)?),
    };
    Ok(one(200, &changed)?.with("Content-Location", location(&changed)))
}

/// All that is wrong with the path and the body, in one answer.
fn both<T>(id: Result<TaskId, FieldError>, body: Result<T, Error>) -> Result<(TaskId, T), Error> {
    match (id, body) {
        (Ok(id), Ok(body)) => Ok((id, body)),
        (Err(wrong), Ok(_)) => Err(Error::Invalid(vec![wrong])),
        (Err(wrong), Err(Error::Invalid(more))) => Err(Error::Invalid([vec![wrong], more].concat())),
        (_, Err(error)) => Err(error),
    }
}

fn one(status: u16, task: &Task) -> Result<Response, Error> {
    Ok(Response::json(status, task)?.with("Cache-Control", "private, no-cache"))
}

/// The path of a task, its user percent-encoded (RFC 3986 section 2.3).
fn location(task: &Task) -> String {
    let mut path = "/api/".to_owned();
    for byte in task.user_id.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => path.push(byte.into()),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    format!("{path}/tasks/{}", task.id)
}
