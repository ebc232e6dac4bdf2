//! `/docs` and `/openapi.json`: Swagger UI from the binary, so that no request of the page leaves
//! the origin.

use super::response::Response;

const OPENAPI: &str = include_str!("../../openapi.json");
const STYLE: &str = include_str!(concat!(env!("OUT_DIR"), "/swagger-ui.css"));
const BUNDLE: &str = include_str!(concat!(env!("OUT_DIR"), "/swagger-ui-bundle.js"));

const PAGE: &str = r##"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>tinytasks</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/docs.js"></script>
</body>
</html>
"##;

/// Without `validatorUrl: null` the page would send the document to a public validator.
const START: &str = r##"SwaggerUIBundle({url: "/openapi.json", dom_id: "#ui", validatorUrl: null, tryItOutEnabled: true});
"##;

/// Scripts and styles are files of this origin. Swagger UI draws its icons as data: images.
const PAGE_CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub fn page() -> Response {
    file("text/html; charset=utf-8", PAGE).with("Content-Security-Policy", PAGE_CSP)
}

pub fn openapi() -> Response {
    file("application/json", OPENAPI)
}

/// None for a name that is no asset of the page.
pub fn asset(name: &str) -> Option<Response> {
    const SCRIPT: &str = "text/javascript; charset=utf-8";
    match name {
        "swagger-ui.css" => Some(file("text/css; charset=utf-8", STYLE)),
        "swagger-ui-bundle.js" => Some(file(SCRIPT, BUNDLE)),
        "docs.js" => Some(file(SCRIPT, START)),
        _ => None,
    }
}

fn file(media_type: &'static str, text: &'static str) -> Response {
    Response::data(200, media_type, text.as_bytes()).with("Cache-Control", "no-cache")
}
