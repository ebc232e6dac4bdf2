//! `tinytasks token`: makes a token, or explains one.

use super::print;
use crate::config;
use crate::error::TokenRefusal;
use crate::failure::Failure;
use crate::keys::{self, Keys};
use crate::limits::{EXPLAINED_BYTES_MAX, TOKEN_TTL_DEFAULT};
use jiff::Timestamp;
use std::io::{self, Read};
use std::time::Duration;

/// `token --user ID [--ttl 1h]`.
pub fn issue(options: &[&str]) -> Result<(), Failure> {
    let (mut user, mut ttl) = (None, None);
    for option in options.chunks(2) {
        match *option {
            ["--user", value] if user.is_none() => user = Some(value),
            ["--ttl", value] if ttl.is_none() => {
                let wanted = "--ttl: give a number and s, m, h or d, such as 1h";
                ttl = Some(duration(value).ok_or_else(|| Failure::of_usage(wanted))?);
            }
            _ => {
                let wanted = "give --user ID [--ttl 1h], or --explain alone";
                return Err(Failure::of_usage(&format!("token: bad option {}; {wanted}", option.join(" "))));
            }
        }
    }
    let user = user.ok_or_else(|| Failure::of_usage("token: --user ID is missing"))?;
    let ttl = ttl.unwrap_or(TOKEN_TTL_DEFAULT);
    let token = keys::issue(&config::load_jwt()?, user, ttl).map_err(|reason| Failure::of_usage(&reason))?;
    print(&format!("{token}\n"))
}

/// `30s`, `15m`, `1h`, `7d`.
fn duration(text: &str) -> Option<Duration> {
    let units: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3600), ('d', 86400)];
    let (number, seconds) =
        units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(*unit)?, seconds)))?;
    let number: u64 = number.parse().ok().filter(|number| *number > 0)?;
    number.checked_mul(*seconds).map(Duration::from_secs)
}

/// `token --explain`: what a request with the token on standard input would meet, and the log say.
pub fn explain() -> Result<(), Failure> {
    let keys = Keys::open(config::load_jwt()?, config::load_jwt).map_err(Failure::of_configuration)?;
    let input = io::read_to_string(io::stdin().take(EXPLAINED_BYTES_MAX));
    let input = input.map_err(|error| format!("standard input: {error}"))?;
    let (token, removed) = bare(&input);
    if !removed.is_empty() {
        print(&format!("removed before judging: {}\n", removed.join(", ")))?;
    }
    let refusal = match keys.verify(&token) {
        Ok((user_id, expires_at)) => {
            let seconds = i64::try_from(expires_at).unwrap_or(i64::MAX);
            let until = Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
            return print(&format!("accepted: user {:?}, until {until}\n", user_id.as_str()));
        }
        Err(refusal) => refusal,
    };
    print(&format!("refused: {refusal}\n"))?;
    if let Some(remedy) = remedy(refusal) {
        print(&format!("remedy: {remedy}\n"))?;
    }
    Err(Failure::SILENT)
}

/// The advice for a refusal whose reason alone does not say what to do.
fn remedy(refusal: TokenRefusal) -> Option<&'static str> {
    match refusal {
        TokenRefusal::SecretSignature => Some(
            "give issuer and service the same secret, byte for byte; `tinytasks config` says where \
             the service has its own from",
        ),
        TokenRefusal::KeySignature => Some("fetch the issuer's JWKS anew into JWT_JWKS_FILE"),
        TokenRefusal::UnknownKid => {
            Some("the issuer may have a new key: fetch its JWKS anew into JWT_JWKS_FILE")
        }
        TokenRefusal::Algorithm => {
            Some("HS256 needs JWT_SECRET_KEY, EdDSA needs JWT_JWKS_FILE; no other algorithm is supported")
        }
        TokenRefusal::NoExpiry => Some("have the issuer set exp, in seconds since 1970"),
        TokenRefusal::NoUser => Some("have the issuer put the user's id into user_id or sub"),
        TokenRefusal::NotCompact => Some("give the whole token: it begins with eyJ and has two dots in it"),
        _ => None,
    }
}

/// A token without what people copy with it, and the names of that.
fn bare(input: &str) -> (String, Vec<&'static str>) {
    let mut rest = input.trim();
    let mut removed = Vec::new();
    while let Some((inner, name)) = without_wrapping(rest) {
        rest = inner.trim();
        removed.push(name);
    }
    let token: String = rest.split_whitespace().collect();
    // Two tokens would become one here, which is then refused as malformed.
    if token.len() < rest.len() {
        removed.push("white space inside the token");
    }
    (token, removed)
}

fn without_wrapping(text: &str) -> Option<(&str, &'static str)> {
    for quote in ['"', '\'', '`'] {
        if let Some(inner) = text.strip_prefix(quote) {
            return Some((inner.strip_suffix(quote).unwrap_or(inner), "quotation marks"));
        }
    }
    for (prefix, name) in [
        ("-H ", "the option -H"),
        ("Authorization:", "the name of the header"),
        ("Bearer ", "the scheme Bearer"),
    ] {
        let is_there = text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        if let Some(inner) = text.get(prefix.len()..).filter(|_| is_there) {
            return Some((inner, name));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::bare;

    #[test]
    fn what_people_copy_with_a_token_is_removed() {
        for (input, names) in [
            ("a.b.c", 0),
            ("\n a.b.c\r\n", 0),
            ("Bearer a.b.c", 1),
            ("bearer   a.b.c\n", 1),
            ("Authorization: Bearer a.b.c", 2),
            ("authorization:bearer a.b.c", 2),
            ("\"a.b.c\"", 1),
            ("'Bearer a.b.c'\n", 2),
            ("-H 'Authorization: Bearer a.b.c'", 4),
            ("a.b\n  .c", 1),
            ("\"a.b.c", 1),
        ] {
            let (token, removed) = bare(input);
            assert_eq!((token.as_str(), removed.len()), ("a.b.c", names), "{input:?}");
        }
        for input in ["", "Bearer", "\"", "\u{e9}\u{e9}\u{e9}\u{e9}"] {
            assert!(!bare(input).0.contains('.'), "{input:?}");
        }
    }
}
