//! The routes: method, path, and the handler, whose kind says what the route needs. HEAD is answered
//! wherever GET is, and OPTIONS everywhere.

use super::response::Response;
use super::tasks::{self, JSON_OR_MERGE_PATCH};
use super::{App, docs, info, list, many};
use crate::auth::Caller;
use crate::error::Error;
use crate::gate::Request;
use std::borrow::Cow;

pub struct Route {
    pub method: &'static str,
    /// The path, with a name in braces for each segment that a client chooses.
    pub template: &'static str,
    pub handler: Handler,
}

/// A handler, named by the check that must pass before it runs. A handler of tasks takes a [`Caller`],
/// which exists only once the user is verified.
#[derive(Clone, Copy)]
pub enum Handler {
    /// Nothing.
    Open(fn(&App) -> Result<Response<'_>, Error>),
    /// `DOCS=true`, else the path is unknown.
    Docs(fn(&Request, asset: &str) -> Result<Response<'static>, Error>),
    /// A verified user.
    Tasks(for<'a> fn(&'a App, Caller, &Request) -> Result<Response<'a>, Error>),
    /// A verified user, and the task's id as the path has it.
    Task(for<'a> fn(&'a App, Caller, &Request, id: &str) -> Result<Response<'a>, Error>),
}

use Handler::{Docs, Open, Task, Tasks};

#[rustfmt::skip]
const ROUTES: [Route; 13] = [
    Route { method: "GET",    template: "/",                               handler: Open(info::root) },
    Route { method: "GET",    template: "/health",                         handler: Open(info::health) },
    Route { method: "GET",    template: "/docs",                           handler: Docs(docs::page) },
    Route { method: "GET",    template: "/docs/{asset}",                   handler: Docs(docs::asset) },
    Route { method: "GET",    template: "/openapi.json",                   handler: Docs(docs::openapi) },
    Route { method: "GET",    template: "/api/{user_id}/tasks",            handler: Tasks(list::list) },
    Route { method: "POST",   template: "/api/{user_id}/tasks",            handler: Tasks(tasks::create) },
    Route { method: "PATCH",  template: "/api/{user_id}/tasks",            handler: Tasks(many::update) },
    Route { method: "DELETE", template: "/api/{user_id}/tasks",            handler: Tasks(many::delete) },
    Route { method: "GET",    template: "/api/{user_id}/tasks/{task_id}",  handler: Task(tasks::show) },
    Route { method: "PUT",    template: "/api/{user_id}/tasks/{task_id}",  handler: Task(tasks::replace) },
    Route { method: "PATCH",  template: "/api/{user_id}/tasks/{task_id}",  handler: Task(tasks::patch) },
    Route { method: "DELETE", template: "/api/{user_id}/tasks/{task_id}",  handler: Task(tasks::delete) },
];

/// A path that has a route, with the segments that the client chose. Those that the template does not
/// name are empty.
#[derive(Default)]
pub struct Path<'p> {
    pub template: &'static str,
    pub user_id: &'p str,
    pub task_id: &'p str,
    pub asset: &'p str,
}

/// The path that these segments name. None for an unknown path; one with an empty segment is unknown.
pub fn find<'p>(segments: &'p [Cow<str>], has_docs: bool) -> Option<Path<'p>> {
    ROUTES.iter().find_map(|route| {
        let is_hidden = matches!(route.handler, Docs(_)) && !has_docs;
        if is_hidden { None } else { matched(route.template, segments) }
    })
}

fn matched<'p>(template: &'static str, segments: &'p [Cow<str>]) -> Option<Path<'p>> {
    let mut path = Path { template, ..Path::default() };
    let mut given = segments.iter().map(AsRef::as_ref);
    for wanted in template.split('/').skip(1) {
        let segment = given.next()?;
        match wanted {
            "{user_id}" if !segment.is_empty() => path.user_id = segment,
            "{task_id}" if !segment.is_empty() => path.task_id = segment,
            "{asset}" if docs::is_asset(segment) => path.asset = segment,
            literal if literal == segment && !literal.starts_with('{') => {}
            _ => return None,
        }
    }
    if given.next().is_some() { None } else { Some(path) }
}

impl Path<'_> {
    /// The handler of a method. Errors: `MethodNotAllowed`.
    pub fn handler(&self, method: &str) -> Result<Handler, Error> {
        let method = if method == "HEAD" { "GET" } else { method };
        let mut routes = ROUTES.iter();
        let route = routes.find(|route| route.template == self.template && route.method == method);
        route.map(|route| route.handler).ok_or_else(|| Error::MethodNotAllowed(self.methods()))
    }

    /// The answer to OPTIONS, a preflight included.
    pub fn options(&self) -> Response<'static> {
        let methods = self.methods();
        let has_patch = methods.contains("PATCH");
        let response = Response::empty(204).with("Allow", methods);
        if has_patch { response.with("Accept-Patch", JSON_OR_MERGE_PATCH) } else { response }
    }

    /// For the `Allow` field (RFC 9110 section 10.2.1).
    fn methods(&self) -> String {
        let mut methods = String::new();
        for route in ROUTES.iter().filter(|route| route.template == self.template) {
            methods.push_str(if route.method == "GET" { "GET, HEAD" } else { route.method });
            methods.push_str(", ");
        }
        methods + "OPTIONS"
    }
}

#[cfg(test)]
mod tests {
    use super::{Cow, find};

    #[test]
    fn a_path_has_the_template_that_it_fits_and_no_other() {
        for (path, wanted) in [
            ("/", Some(("/", "", ""))),
            ("/health", Some(("/health", "", ""))),
            ("/health/", None),
            ("//health", None),
            ("/docs/docs.js", Some(("/docs/{asset}", "", ""))),
            ("/docs/other.js", None),
            ("/docs/", None),
            ("/api/alice/tasks", Some(("/api/{user_id}/tasks", "alice", ""))),
            ("/api/{user_id}/tasks", Some(("/api/{user_id}/tasks", "{user_id}", ""))),
            ("/api//tasks", None),
            ("/api/alice/tasks/", None),
            ("/api/alice/tasks/1", Some(("/api/{user_id}/tasks/{task_id}", "alice", "1"))),
            ("/api/alice/tasks/1/", None),
            ("/API/alice/tasks", None),
            ("/docs/{asset}", None),
            ("/{asset}", None),
        ] {
            let segments: Vec<_> = path.split('/').skip(1).map(Cow::from).collect();
            let found = find(&segments, true).map(|path| (path.template, path.user_id, path.task_id));
            assert_eq!(found, wanted, "{path}");
        }
        assert!(find(&["docs".into()], false).is_none());
    }
}
