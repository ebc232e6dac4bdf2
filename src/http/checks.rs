//! The checks in the contract's order: path and route (404), method (405), token (401), user (403),
//! rate (429), fields (400), and then the handler. Trusted core: a handler of tasks runs only with the
//! [`Caller`] that [`auth::authorize`] has made for the user in the path.

use super::App;
use super::record::Trace;
use super::request::{check_fields, segments};
use super::response::Response;
use super::routes::{self, Handler};
use crate::auth::{self, Caller};
use crate::error::Error;
use crate::gate::Request;

/// Checks a request and runs its handler. Errors: any [`Error`].
pub fn answer<'a>(app: &'a App, request: &Request, trace: &mut Trace) -> Result<Response<'a>, Error> {
    let segments = segments(request)?;
    let path = routes::find(&segments, app.options.has_docs).ok_or(Error::NoSuchRoute)?;
    trace.route = path.route.template;
    if request.method == "OPTIONS" {
        check_fields(request)?;
        return Ok(path.route.options());
    }
    match path.route.handler(request.method)? {
        Handler::Open(handler) => {
            check_fields(request)?;
            handler(app)
        }
        Handler::Docs(handler) => {
            check_fields(request)?;
            handler(request, path.asset)
        }
        Handler::Tasks(handler) => {
            let caller = authorize(app, request, path.user_id, trace)?;
            check_fields(request)?;
            handler(app, caller, request)
        }
        Handler::Task(handler) => {
            let caller = authorize(app, request, path.user_id, trace)?;
            check_fields(request)?;
            handler(app, caller, request, path.task_id)
        }
    }
}

/// Verifies the user of the token, who must be the user in the path, and counts the request for the user's rate
/// limit. Errors: `TokenMissing`, `TokenInvalid`, `Forbidden`, `RateLimited`.
fn authorize(app: &App, request: &Request, path_user: &str, trace: &mut Trace) -> Result<Caller, Error> {
    let authorization: Vec<&str> = request.values("Authorization").collect();
    let caller = auth::authorize(&app.keys, &authorization, path_user)?;
    request.note_user(caller.user_id());
    if let Some(limiter) = &app.options.rate_limiter {
        let (allowance, outcome) = limiter.count(caller.user_id());
        trace.allowance = Some(allowance);
        outcome?;
    }
    Ok(caller)
}
