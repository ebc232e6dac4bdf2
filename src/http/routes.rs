//! The routes: each path with its methods and their handlers. The kind of a handler says which checks come
//! before it. Every route with GET also answers HEAD, and every route answers OPTIONS.

use super::response::Response;
use super::tasks::{self, JSON_OR_MERGE_PATCH};
use super::{App, bulk, docs, info, list};
use crate::auth::Caller;
use crate::error::Error;
use crate::gate::Request;
use std::borrow::Cow;

/// A path of the service, and what can be done there.
pub struct Route {
    /// The path, with a name in braces for each segment that a client chooses.
    pub template: &'static str,
    /// The handler of each method.
    handlers: &'static [(&'static str, Handler)],
}

/// A handler. Each variant has another condition under which the handler runs. A handler of tasks takes a
/// [`Caller`], which exists only once the user is verified.
#[derive(Clone, Copy)]
pub enum Handler {
    /// Runs for everybody.
    Open(fn(&App) -> Result<Response<'_>, Error>),
    /// Runs for everybody if `DOCS=true`; otherwise its path is unknown (404).
    Docs(fn(&Request, asset: &str) -> Result<Response<'static>, Error>),
    /// Runs for a verified user.
    Tasks(for<'a> fn(&'a App, Caller, &Request) -> Result<Response<'a>, Error>),
    /// Runs for a verified user, and takes the task's id as it is in the path.
    Task(for<'a> fn(&'a App, Caller, &Request, id: &str) -> Result<Response<'a>, Error>),
}

use Handler::{Docs, Open, Task, Tasks};

static ROUTES: [Route; 7] = [
    Route { template: "/", handlers: &[("GET", Open(info::root))] },
    Route { template: "/health", handlers: &[("GET", Open(info::health))] },
    Route { template: "/docs", handlers: &[("GET", Docs(docs::page))] },
    Route { template: "/docs/{asset}", handlers: &[("GET", Docs(docs::asset))] },
    Route { template: "/openapi.json", handlers: &[("GET", Docs(docs::openapi))] },
    Route {
        template: "/api/{user_id}/tasks",
        handlers: &[
            ("GET", Tasks(list::list)),
            ("POST", Tasks(tasks::create)),
            ("PATCH", Tasks(bulk::update)),
            ("DELETE", Tasks(bulk::delete)),
        ],
    },
    Route {
        template: "/api/{user_id}/tasks/{task_id}",
        handlers: &[
            ("GET", Task(tasks::show)),
            ("PUT", Task(tasks::replace)),
            ("PATCH", Task(tasks::patch)),
            ("DELETE", Task(tasks::delete)),
        ],
    },
];

/// A path that has a route, with the values of the segments that the client chose. A segment that the route's
/// template does not name is empty here.
pub struct Path<'p> {
    pub route: &'static Route,
    pub user_id: &'p str,
    pub task_id: &'p str,
    pub asset: &'p str,
}

/// Finds the route of a path from its segments. None for an unknown path. Except for `/`, every path with an
/// empty segment is unknown.
pub fn find<'p>(segments: &'p [Cow<str>], has_docs: bool) -> Option<Path<'p>> {
    let mut shown = ROUTES.iter().filter(|route| has_docs || !route.is_of_docs());
    shown.find_map(|route| route.matched(segments))
}

impl Route {
    fn is_of_docs(&self) -> bool {
        self.handlers.iter().any(|(_, handler)| matches!(handler, Docs(_)))
    }

    fn matched<'p>(&'static self, segments: &'p [Cow<str>]) -> Option<Path<'p>> {
        let mut path = Path { route: self, user_id: "", task_id: "", asset: "" };
        let mut given = segments.iter().map(AsRef::as_ref);
        for wanted in self.template.split('/').skip(1) {
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

    /// The handler of a method. Errors: `MethodNotAllowed`.
    pub fn handler(&self, method: &str) -> Result<Handler, Error> {
        let method = if method == "HEAD" { "GET" } else { method };
        let found = self.handlers.iter().find(|(known, _)| *known == method);
        found.map(|(_, handler)| *handler).ok_or_else(|| Error::MethodNotAllowed(self.methods()))
    }

    /// The answer to OPTIONS, also when the request is a CORS preflight.
    pub fn options(&self) -> Response<'static> {
        let methods = self.methods();
        let has_patch = methods.contains("PATCH");
        let response = Response::empty(204).with("Allow", methods);
        if has_patch { response.with("Accept-Patch", JSON_OR_MERGE_PATCH) } else { response }
    }

    /// The value of the `Allow` field (RFC 9110 section 10.2.1).
    fn methods(&self) -> String {
        let mut methods = String::new();
        for (method, _) in self.handlers {
            methods.push_str(if *method == "GET" { "GET, HEAD" } else { method });
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
            let found = find(&segments, true).map(|path| (path.route.template, path.user_id, path.task_id));
            assert_eq!(found, wanted, "{path}");
        }
        assert!(find(&["docs".into()], false).is_none());
    }
}
