//! `/docs`: Swagger UI that asks nobody but the server it came from.

use crate::support::{
    harness::App,
    http::{Response, has_shape},
};
use flate2::read::GzDecoder;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

/// The values of `src` and `href` in the page.
fn references(page: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for attribute in [" src=", " href="] {
        for (index, _) in page.match_indices(attribute) {
            let value = &page[index + attribute.len()..];
            let quote = value.chars().next().filter(|char| ['"', '\''].contains(char));
            let quote = quote.expect("a quoted attribute");
            found.insert(value[1..].split(quote).next().unwrap().to_owned());
        }
    }
    found
}

/// RFC 3986 section 5 as far as these pages need it.
fn resolve(base: &str, reference: &str) -> String {
    let reference = reference.split(['#', '?']).next().unwrap();
    let path = match reference.strip_prefix('/') {
        Some(_) => reference.to_owned(),
        None => format!("{}/{reference}", base.rsplit_once('/').unwrap().0),
    };
    path.replace("/./", "/")
}

fn is_same_origin(reference: &str) -> bool {
    !reference.contains("://") && !reference.starts_with("//")
}

/// The directives of the Content-Security-Policy with their sources.
fn policy(response: &Response) -> BTreeMap<String, Vec<String>> {
    let directives = response.field("Content-Security-Policy").unwrap().split(';');
    let words = directives.map(|directive| directive.split_whitespace().map(str::to_owned));
    words.filter_map(|mut words| Some((words.next()?, words.collect()))).collect()
}

#[test]
fn docs_is_a_page_whose_references_are_its_own_and_exist() {
    let app = App::spawn();
    let page = app.get("/docs").send().expect(200);
    assert!(page.field("Content-Type").is_some_and(|kind| kind.starts_with("text/html")));
    let references = references(&page.text());
    let mut scripts = String::new();
    let mut styles = 0;
    for reference in references.iter().filter(|reference| !reference.starts_with("data:")) {
        assert!(is_same_origin(reference), "{reference}");
        let path = resolve("/docs", reference);
        let asset = app.get(&path).send().expect(200);
        assert!(!asset.body.is_empty(), "{path}");
        let kind = asset.field("Content-Type").unwrap();
        let extension = path.rsplit_once('.').unwrap().1;
        let wanted = match extension {
            "js" => "text/javascript",
            "css" => "text/css",
            "png" => "image/png",
            other => panic!("what is {other}?"),
        };
        assert!(kind.starts_with(wanted), "{path} is {kind}");
        match extension {
            "js" => scripts += &asset.text(),
            "css" => {
                styles += 1;
                assert_style_stays_at_home(&asset.text());
            }
            _ => {}
        }
    }
    assert!(styles > 0 && scripts.contains("SwaggerUIBundle"));
    assert!(scripts.contains("openapi.json") || page.text().contains("openapi.json"));
}

#[track_caller]
fn assert_style_stays_at_home(style: &str) {
    assert!(!style.contains("@import"));
    for (index, _) in style.match_indices("url(") {
        let target = style[index + 4..].trim_start_matches(['"', '\'']);
        assert!(target.starts_with("data:"), "{}", target.chars().take(60).collect::<String>());
    }
}

#[test]
fn the_policy_of_docs_lets_nothing_in_from_elsewhere_and_no_inline_script() {
    let app = App::spawn();
    let page = app.get("/docs").send().expect(200);
    let policy = policy(&page);
    assert_eq!(page.field("Referrer-Policy"), Some("no-referrer"));
    for (directive, sources) in &policy {
        for source in sources {
            let is_hash = source.starts_with("'sha256-");
            let is_known = ["'self'", "'none'", "data:"].contains(&source.as_str())
                || (directive.starts_with("style-src") && source == "'unsafe-inline'");
            assert!(is_hash || is_known, "{directive} {source}");
        }
    }
    let sources = |directive: &str| policy.get(directive).or(policy.get("default-src")).unwrap();
    assert_eq!(policy["default-src"], ["'none'"]);
    assert_eq!(policy["frame-ancestors"], ["'none'"]);
    assert_eq!(sources("connect-src"), &["'self'"]);
    for directive in ["base-uri", "form-action"] {
        assert!(policy.contains_key(directive), "{directive} does not fall back to default-src");
    }
    assert!(!sources("script-src").contains(&"data:".to_owned()));
    let has_hash = sources("script-src").iter().any(|source| source.starts_with("'sha256-"));
    let text = page.text();
    for (index, _) in text.match_indices("<script") {
        let tag = text[index..].split('>').next().unwrap();
        assert!(tag.contains(" src=") || has_hash, "{tag}");
    }
    assert!(!text.contains(" onload=") && !text.contains("javascript:"));
}

#[test]
fn openapi_json_is_served_as_json() {
    let app = App::spawn();
    let response = app.get("/openapi.json").send().expect(200);
    assert_eq!(response.field("Content-Type"), Some("application/json"));
    let document = response.json();
    assert!(document["openapi"].as_str().is_some_and(|version| has_shape(version, "3.1.0")));
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn with_docs_off_there_is_no_trace_of_it() {
    let with_docs = App::spawn();
    let page = with_docs.get("/docs").send().text();
    let app = App::setup().env("DOCS", "false").spawn();
    let assets = references(&page).into_iter().filter(|reference| !reference.starts_with("data:"));
    let mut paths: Vec<_> = assets.map(|reference| resolve("/docs", &reference)).collect();
    paths.extend(["/docs".to_owned(), "/openapi.json".to_owned()]);
    for path in paths {
        app.get(&path).send().expect_problem(404, "NOT_FOUND");
        app.request("OPTIONS", &path).send().expect(404);
    }
    app.get("/").send().expect(200);
}

/// A second visit downloads nothing, and the first one only a quarter of the bytes.
#[test]
fn the_files_of_the_page_are_compressed_and_not_sent_twice() {
    let app = App::spawn();
    for path in ["/docs", "/docs/swagger-ui-bundle.js", "/docs/docs.js", "/openapi.json"] {
        let plain = app.get(path).send().expect(200);
        assert_eq!(plain.field("Content-Encoding"), None, "{path}");
        for (accepted, is_compressed) in [
            ("gzip, deflate, br", true),
            ("GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; Q=0", false),
            ("br", false),
            ("identity", false),
        ] {
            let response = app.get(path).header("Accept-Encoding", accepted).send().expect(200);
            assert_eq!(
                response.field("Content-Encoding") == Some("gzip"),
                is_compressed,
                "{path} {accepted}"
            );
            assert_eq!(response.list("Vary"), ["Accept-Encoding", "Origin"], "{path} {accepted}");
            assert_eq!(response.field("ETag") == plain.field("ETag"), !is_compressed, "{path} {accepted}");
            if is_compressed {
                let mut content = Vec::new();
                GzDecoder::new(response.body.as_slice()).read_to_end(&mut content).unwrap();
                assert!(content == plain.body && response.body.len() < plain.body.len(), "{path}");
            }
            let tag = response.field("ETag").unwrap().to_owned();
            for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
                let again = app.get(path).header("Accept-Encoding", accepted).header("If-None-Match", &known);
                let again = again.send().expect(304);
                assert!(again.body.is_empty() && again.field("ETag") == Some(&tag), "{path} {known}");
            }
            let other = app.get(path).header("If-None-Match", "\"x\"").send();
            assert_eq!(other.status, 200, "{path}");
        }
    }
}
