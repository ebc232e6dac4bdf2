//! Path and method → route, and one short function for each. A function that needs the store takes
//! a [`Caller`], so it cannot run before the user is verified.

use super::{
    App, docs,
    request::{Method, Request},
    response::Response,
};
use crate::{
    auth::Caller,
    error::{Error, FieldError},
    store::Reach,
    task::{Content, Patch, Task, TaskId},
};
use serde::Serialize;
use serde_json::json;

const MERGE_PATCH: &str = "application/merge-patch+json";
const JSON_ALONE: &str = "application/json";
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
            [""] => Some(Self::Root),
            ["health"] => Some(Self::Health),
            ["docs"] if has_docs => Some(Self::Docs),
            ["docs", asset] if has_docs && docs::asset(asset).is_some() => {
                Some(Self::DocsAsset(asset))
            }
            ["openapi.json"] if has_docs => Some(Self::OpenApi),
            ["api", user, "tasks"] if !user.is_empty() => Some(Self::Tasks { user }),
            ["api", user, "tasks", id] if !user.is_empty() && !id.is_empty() => {
                Some(Self::Task { user, id })
            }
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

    fn allow(&self) -> &'static str {
        match self {
            Self::Tasks { .. } => "GET, HEAD, POST, OPTIONS",
            Self::Task { .. } => "GET, HEAD, PUT, PATCH, DELETE, OPTIONS",
            _ => "GET, HEAD, OPTIONS",
        }
    }

    /// Errors: `MethodNotAllowed`.
    pub fn check_method(&self, method: Method) -> Result<(), Error> {
        let allow = self.allow();
        match allow.split(", ").any(|allowed| allowed == method.name()) {
            true => Ok(()),
            false => Err(Error::MethodNotAllowed(allow)),
        }
    }

    /// OPTIONS, a preflight included.
    pub fn options(&self) -> Response {
        let response = Response::empty(204).with("Allow", self.allow());
        match self {
            Self::Task { .. } => response.with("Accept-Patch", JSON_OR_MERGE_PATCH),
            _ => response,
        }
    }
}

pub fn root() -> Result<Response, Error> {
    Response::json(
        200,
        &json!({
            "message": "tinytasks: a to-do task service",
            "docs": "/docs",
            "openapi": "/openapi.json",
            "health": "/health",
        }),
    )
}

pub fn health(app: &App) -> Result<Response, Error> {
    let (code, status, database) = match app.store.reach() {
        Reach::Connected => (200, "healthy", "connected"),
        Reach::Disconnected => (503, "unhealthy", "disconnected"),
    };
    Response::json(
        code,
        &json!({
            "status": status,
            "service": "tinytasks",
            "version": env!("CARGO_PKG_VERSION"),
            "database": database,
        }),
    )
}

/// `/api/{user_id}/tasks`
pub fn tasks(app: &App, caller: &Caller, request: &Request) -> Result<Response, Error> {
    match request.method {
        Method::Post => create(app, caller, request),
        _ => list(app, caller),
    }
}

/// `/api/{user_id}/tasks/{task_id}`
pub fn task(app: &App, caller: &Caller, request: &Request, id: &str) -> Result<Response, Error> {
    let id = TaskId::parse(id);
    match request.method {
        Method::Put => {
            request.check_media_type(JSON_ALONE, JSON_ALONE)?;
            let (id, content) = both(id, Content::for_replace(&request.body))?;
            changed(&app.store.replace(caller, id, &content)?)
        }
        Method::Patch => {
            request.check_media_type(JSON_OR_MERGE_PATCH, MERGE_PATCH)?;
            let (id, patch) = both(id, Patch::parse(&request.body))?;
            changed(&app.store.patch(caller, id, &patch)?)
        }
        Method::Delete => {
            app.store.delete(caller, both(id, Ok(()))?.0)?;
            Ok(Response::empty(204))
        }
        _ => one(200, &app.store.get(caller, both(id, Ok(()))?.0)?),
    }
}

fn list(app: &App, caller: &Caller) -> Result<Response, Error> {
    #[derive(Serialize)]
    struct List<'a> {
        tasks: &'a [Task<'a>],
        count: usize,
    }
    let tasks = app.store.list(caller)?;
    Response::json(
        200,
        &List {
            count: tasks.len(),
            tasks: &tasks,
        },
    )
}

fn create(app: &App, caller: &Caller, request: &Request) -> Result<Response, Error> {
    request.check_media_type(JSON_ALONE, JSON_ALONE)?;
    let content = Content::for_create(&request.body)?;
    let task = app.store.insert(caller, &content)?;
    Ok(one(201, &task)?.with("Location", location(&task)))
}

fn changed(task: &Task) -> Result<Response, Error> {
    Ok(one(200, task)?.with("Content-Location", location(task)))
}

fn one(status: u16, task: &Task) -> Result<Response, Error> {
    let response = Response::json(status, task)?;
    Ok(response.with("Cache-Control", "private, no-cache"))
}

/// The path of a task, its user percent-encoded (RFC 3986 section 3.3).
fn location(task: &Task) -> String {
    let mut path = "/api/".to_owned();
    for byte in task.user_id.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                path.push(char::from(byte));
            }
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    format!("{path}/tasks/{}", task.id)
}

/// All that is wrong with the path and the body, in one answer.
fn both<T>(id: Result<TaskId, FieldError>, body: Result<T, Error>) -> Result<(TaskId, T), Error> {
    match (id, body) {
        (Ok(id), Ok(body)) => Ok((id, body)),
        (Err(wrong), Ok(_)) => Err(Error::Invalid(vec![wrong])),
        (Err(wrong), Err(Error::Invalid(more))) => {
            Err(Error::Invalid(std::iter::once(wrong).chain(more).collect()))
        }
        (_, Err(error)) => Err(error),
    }
}
