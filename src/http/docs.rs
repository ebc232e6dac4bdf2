//! `/docs` and `/openapi.json`: Swagger UI is part of the binary, so the page sends no request to another
//! origin. The binary contains each file compressed by gzip, which most clients accept.

use super::conditional::is_not_modified;
use super::response::Response;
use crate::error::Error;
use crate::gate::Request;
use flate2::read::GzDecoder;
use std::io::Read;
use std::sync::LazyLock;

/// The name of each file, a hash of its content, and the content compressed by gzip. `build.rs` makes them.
const FILES: [(&str, &str, &[u8]); 6] = include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// The uncompressed files, in the order of [`FILES`]. They are made when a client that does not accept gzip asks
/// for a file for the first time.
static PLAIN: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut plain = Vec::new();
    for (_, _, compressed) in FILES {
        let mut content = Vec::new();
        // The content is part of this program, and a test decompresses every file.
        let _ = GzDecoder::new(compressed).read_to_end(&mut content);
        plain.push(content);
    }
    plain
});

/// Scripts and styles may come only from this origin. Images may also be `data:` URLs, which Swagger UI uses for
/// its icons.
const PAGE_CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// Name and media type of each file that the page loads.
const ASSETS: [(&str, &str); 4] =
    [("swagger-ui.css", STYLE), ("swagger-ui-bundle.js", SCRIPT), ("docs.css", STYLE), ("docs.js", SCRIPT)];

/// `GET /docs`.
pub fn page(request: &Request, _: &str) -> Result<Response<'static>, Error> {
    let page = file(request, "docs.html", "text/html; charset=utf-8")?;
    Ok(page.with("Content-Security-Policy", PAGE_CSP).with("Referrer-Policy", "no-referrer"))
}

/// `GET /openapi.json`.
pub fn openapi(request: &Request, _: &str) -> Result<Response<'static>, Error> {
    file(request, "openapi.json", "application/json")
}

/// `GET /docs/{asset}`.
pub fn asset(request: &Request, name: &str) -> Result<Response<'static>, Error> {
    let (name, media_type) = ASSETS.into_iter().find(|asset| asset.0 == name).ok_or(Error::NoSuchRoute)?;
    file(request, name, media_type)
}

/// Whether the page loads a file of this name.
pub fn is_asset(name: &str) -> bool {
    ASSETS.iter().any(|asset| asset.0 == name)
}

/// The answer with a file: compressed if the client accepts gzip, and 304 if the client already has the file.
/// `no-cache` makes browsers ask at each visit, because an upgrade may bring another file.
fn file(request: &Request, name: &str, media_type: &'static str) -> Result<Response<'static>, Error> {
    let index = FILES.iter().position(|file| file.0 == name).ok_or(Error::NoSuchRoute)?;
    let (_, hash, compressed) = FILES.get(index).copied().ok_or(Error::NoSuchRoute)?;
    let is_compressed = takes_gzip(request);
    // RFC 9110 section 8.8.3.3: the same content has another entity tag for each content coding.
    let tag = if is_compressed { format!("\"{hash}-gzip\"") } else { format!("\"{hash}\"") };
    let response = if is_not_modified(request, &tag) {
        Response::empty(304)
    } else if is_compressed {
        Response::data(200, media_type, compressed).with("Content-Encoding", "gzip")
    } else {
        Response::data(200, media_type, PLAIN.get(index).ok_or(Error::NoSuchRoute)?.as_slice())
    };
    Ok(response.with("Cache-Control", "no-cache").with("ETag", tag).with("Vary", "Accept-Encoding"))
}

/// Whether the client accepts gzip (RFC 9110 section 12.5.3). A weight of zero refuses a coding.
fn takes_gzip(request: &Request) -> bool {
    let mut codings = request.values("Accept-Encoding").flat_map(|value| value.split(','));
    codings.any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().strip_prefix(['q', 'Q']).and_then(|weight| weight.strip_prefix('='));
        let weight = weight.unwrap_or("1");
        name.trim().eq_ignore_ascii_case("gzip") && weight.bytes().any(|byte| (b'1'..=b'9').contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use super::{FILES, PLAIN};

    #[test]
    fn every_file_can_be_read() {
        for ((name, ..), plain) in FILES.iter().zip(PLAIN.iter()) {
            assert!(plain.len() > 100 && std::str::from_utf8(plain).is_ok(), "{name}");
        }
    }
}
