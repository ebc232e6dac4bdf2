//! A request as the handlers see it. Relies on whoever made it: whole, and its body within the limit.

use crate::error::{Error, FieldError};

/// The fields of which a second one is refused: their meaning would be a guess. `Authorization`
/// is not here, because a second one is the business of `auth` (401).
const SINGLE_VALUED: [&str; 4] = [
    "Content-Type",
    "Origin",
    "X-Request-Id",
    "Access-Control-Request-Method",
];
const REQUEST_ID_BYTES_MAX: usize = 64;

pub struct Request {
    pub method: Method,
    /// The target in origin-form (RFC 9112 section 3.2.1), as sent.
    pub target: String,
    /// Names in any case.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The client's address, for the log.
    pub client: String,
}

/// RFC 9110 section 9. `Other` is every method that no route has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    Other,
}

impl Method {
    pub fn parse(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            _ => Self::Other,
        }
    }

    /// For the log, where an unknown method must not be a client's free choice of words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Other => "_OTHER",
        }
    }
}

impl Request {
    /// The values of all fields of that name.
    pub fn values<'r>(&'r self, name: &str) -> impl Iterator<Item = &'r str> {
        let same = move |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
        self.fields
            .iter()
            .filter(same)
            .map(|(_, value)| value.trim())
    }

    /// The value of the only field of that name; None where there is none, or more than one.
    pub fn single(&self, name: &str) -> Option<&str> {
        let mut values = self.values(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// The request's own id when it is fit for a log line and a header field.
    pub fn id(&self) -> Option<&str> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        self.single("X-Request-Id")
            .filter(|id| (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(is_plain))
    }

    /// Errors: `Malformed` when a field that can only be there once is there twice.
    pub fn check_fields(&self) -> Result<(), Error> {
        let repeated: Vec<_> = SINGLE_VALUED
            .into_iter()
            .filter(|name| self.values(name).nth(1).is_some())
            .map(|name| FieldError {
                loc: ("header", name),
                msg: "must be given once",
                kind: "header_repeated",
            })
            .collect();
        match repeated.is_empty() {
            true => Ok(()),
            false => Err(Error::Malformed(repeated)),
        }
    }

    /// Errors: `UnsupportedMediaType` unless the body is plain JSON (RFC 8259), or of the
    /// `also` media type.
    pub fn check_media_type(&self, accept: &'static str, also: &str) -> Result<(), Error> {
        let is_coded = |value: &str| !value.eq_ignore_ascii_case("identity");
        let codings = self
            .values("Content-Encoding")
            .flat_map(|value| value.split(','));
        if codings.map(str::trim).any(is_coded) {
            return Err(Error::UnsupportedMediaType("Accept-Encoding", "identity"));
        }
        let given = self.single("Content-Type").unwrap_or_default();
        let essence = given.split(';').next().unwrap_or_default().trim();
        let fits = ["application/json", also]
            .iter()
            .any(|wanted| essence.eq_ignore_ascii_case(wanted));
        match fits {
            true => Ok(()),
            false => Err(Error::UnsupportedMediaType("Accept", accept)),
        }
    }

    /// The segments of the path, each percent-decoded once, after the split (RFC 3986 section
    /// 2.4): a `%2F` is no separator. Errors: `Malformed` for a bad escape or invalid UTF-8.
    pub fn path(&self) -> Result<Vec<String>, Error> {
        let path = self.target.split('?').next().unwrap_or_default();
        let path = path.strip_prefix('/').unwrap_or(path);
        let segments: Option<_> = path.split('/').map(percent_decode).collect();
        segments.ok_or_else(|| {
            Error::Malformed(vec![FieldError {
                loc: ("path", ""),
                msg: "must be percent-encoded UTF-8",
                kind: "bad_escape",
            }])
        })
    }
}

/// RFC 3986 section 2.1.
fn percent_decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => hex_digit(rest.next()?)? * 16 + hex_digit(rest.next()?)?,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex_digit(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}

#[cfg(test)]
mod tests {
    use super::percent_decode;

    #[test]
    fn percent_decoding() {
        for (given, wanted) in [
            ("", Some("")),
            ("abc", Some("abc")),
            ("a%20b", Some("a b")),
            ("%2F%2f", Some("//")),
            ("%2525", Some("%25")),
            ("%F0%9F%99%82", Some("🙂")),
            ("a+b", Some("a+b")),
            ("%00", Some("\0")),
            ("%", None),
            ("%2", None),
            ("%2G", None),
            ("%+1", None),
            ("%FF", None),
            ("%C0%AF", None),
            ("%ED%A0%80", None),
        ] {
            assert_eq!(percent_decode(given).as_deref(), wanted, "{given}");
        }
    }
}
