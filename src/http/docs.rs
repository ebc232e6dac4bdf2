//! `/docs` and `/openapi.json`: Swagger UI from the binary, so that no request of the page leaves
//! the origin.

use super::response::Response;

const OPENAPI: &str = include_str!("../../openapi.json");
const STYLE: &str = include_str!(concat!(env!("OUT_DIR"), "/swagger-ui.css"));
const BUNDLE: &str = include_str!(concat!(env!("OUT_DIR"), "/swagger-ui-bundle.js"));

const PAGE: &str = include_str!("docs.html");
const START: &str = include_str!("docs.js");

/// Scripts and styles are files of this origin. Swagger UI draws its icons as data: images.
const PAGE_CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub fn page() -> Response<'static> {
    file("text/html; charset=utf-8", PAGE)
        .with("Content-Security-Policy", PAGE_CSP)
        .with("Referrer-Policy", "no-referrer")
}

pub fn openapi() -> Response<'static> {
    file("application/json", OPENAPI)
}

/// None for a name that is no asset of the page.
pub fn asset(name: &str) -> Option<Response<'static>> {
    const SCRIPT: &str = "text/javascript; charset=utf-8";
    match name {
        "swagger-ui.css" => Some(file("text/css; charset=utf-8", STYLE)),
        "swagger-ui-bundle.js" => Some(file(SCRIPT, BUNDLE)),
        "docs.js" => Some(file(SCRIPT, START)),
        _ => None,
    }
}

fn file(media_type: &'static str, text: &'static str) -> Response<'static> {
    Response::data(200, media_type, text.as_bytes()).with("Cache-Control", "no-cache")
}
