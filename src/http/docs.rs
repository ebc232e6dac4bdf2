//! `/docs` and `/openapi.json`: Swagger UI from the binary, so that no request of the page leaves
//! the origin.

use super::response::Response;
use crate::error::Error;

const OPENAPI: &str = include_str!("../../openapi.json");
const STYLE: &str = include_str!(concat!(env!("OUT_DIR"), "/swagger-ui.css"));
const BUNDLE: &str = include_str!(concat!(env!("OUT_DIR"), "/swagger-ui-bundle.js"));

const PAGE: &str = include_str!("docs.html");
const START: &str = include_str!("docs.js");

/// Scripts and styles come from this origin alone. Swagger UI draws its icons as `data:` images.
const PAGE_CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Name, media type and content of each file that the page loads.
const ASSETS: [(&str, &str, &str); 3] = [
    ("swagger-ui.css", "text/css; charset=utf-8", STYLE),
    ("swagger-ui-bundle.js", SCRIPT, BUNDLE),
    ("docs.js", SCRIPT, START),
];

/// `GET /docs`.
pub fn page(_: &str) -> Result<Response<'static>, Error> {
    let page = file("text/html; charset=utf-8", PAGE);
    Ok(page.with("Content-Security-Policy", PAGE_CSP).with("Referrer-Policy", "no-referrer"))
}

/// `GET /openapi.json`.
pub fn openapi(_: &str) -> Result<Response<'static>, Error> {
    Ok(file("application/json", OPENAPI))
}

/// `GET /docs/{asset}`.
pub fn asset(name: &str) -> Result<Response<'static>, Error> {
    let asset = ASSETS.into_iter().find(|asset| asset.0 == name);
    asset.map(|(_, media_type, text)| file(media_type, text)).ok_or(Error::NoSuchRoute)
}

pub fn is_asset(name: &str) -> bool {
    ASSETS.iter().any(|asset| asset.0 == name)
}

fn file(media_type: &'static str, text: &'static str) -> Response<'static> {
    Response::data(200, media_type, text.as_bytes()).with("Cache-Control", "no-cache")
}
