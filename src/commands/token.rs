//! `tinytasks token`: makes a token, or explains why a token is accepted or refused.

use super::print;
use crate::config;
use crate::failure::{Failure, escaped};
use crate::keys::{Keys, TokenSettings};
use crate::limits::{EXPLAINED_BYTES_MAX, TOKEN_TTL_DEFAULT};
use crate::refusal::TokenRefusal;
use crate::task::UserId;
use crate::token::{Claims, Jws};
use jiff::Timestamp;
use jwt_simple::algorithms::{HS256Key, MACLike};
use jwt_simple::reexports::coarsetime;
use serde::{Deserialize, Serialize};
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
    let token = token_for(&config::load_jwt()?, user, ttl).map_err(|reason| Failure::of_usage(&reason))?;
    print(&format!("{token}\n"))
}

/// A token for `user` that [`Keys::verify`] accepts for the time `ttl`. Errors: why it cannot be made.
fn token_for(jwt: &TokenSettings, user: &str, ttl: Duration) -> Result<String, String> {
    #[derive(Serialize, Deserialize)]
    struct User {
        user_id: String,
    }
    let secret = jwt.secret.as_ref().ok_or("JWT_SECRET_KEY: is needed; a JWKS can only verify tokens")?;
    let user = UserId::parse(user.to_owned()).ok_or("--user: must be 1 to 255 characters, not . or ..")?;
    let valid_for = coarsetime::Duration::from_secs(ttl.as_secs());
    // The library's clock counts seconds in 32 bits, and ends in February 2106.
    coarsetime::Clock::now_since_epoch()
        .checked_add(valid_for)
        .ok_or("--ttl: must end before February 2106")?;
    let claim = User { user_id: user.as_str().to_owned() };
    let mut claims = jwt_simple::claims::Claims::with_custom_claims(claim, valid_for);
    claims.subject = Some(user.as_str().to_owned());
    claims.issuer = jwt.issuer.clone();
    claims.audiences = jwt.audience.clone().map(Into::into);
    HS256Key::from_bytes(secret.as_bytes()).authenticate(claims).map_err(|error| error.to_string())
}

/// Parses a duration such as `30s`, `15m`, `1h` or `7d`.
fn duration(text: &str) -> Option<Duration> {
    let units: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3600), ('d', 86400)];
    let (number, seconds) =
        units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(*unit)?, seconds)))?;
    let number: u64 = number.parse().ok().filter(|number| *number > 0)?;
    number.checked_mul(*seconds).map(Duration::from_secs)
}

/// `token --explain`: says whether the service would accept the token on standard input. If not, says the reason,
/// as the log would, and the remedy.
pub fn explain() -> Result<(), Failure> {
    let settings = config::load_jwt()?;
    let wanted = [&settings.issuer, &settings.audience].map(|value| value.clone().unwrap_or_default());
    let keys = Keys::open(settings, config::load_jwt).map_err(Failure::of_configuration)?;
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
    print(&format!("remedy: {}\n", remedy(refusal, &token, &wanted)))?;
    Err(Failure::SILENT)
}

/// The remedy for a refusal. The last argument has `JWT_ISSUER` and `JWT_AUDIENCE`.
fn remedy(refusal: TokenRefusal, token: &str, [issuer, audience]: &[String; 2]) -> String {
    let remedy = match refusal {
        TokenRefusal::Issuer => return of_claim("iss", token, "JWT_ISSUER", issuer),
        TokenRefusal::Audience => return of_claim("aud", token, "JWT_AUDIENCE", audience),
        TokenRefusal::SecretSignature => {
            "give issuer and service the same secret, byte for byte; `tinytasks config` says where \
             the service has its own from"
        }
        TokenRefusal::KeySignature => "fetch the issuer's JWKS anew into JWT_JWKS_FILE",
        TokenRefusal::UnknownKid => "the issuer may have a new key: fetch its JWKS anew into JWT_JWKS_FILE",
        TokenRefusal::NoKid => "have the issuer name its key in kid, or leave one key alone in the JWKS",
        TokenRefusal::Algorithm => {
            "HS256 needs JWT_SECRET_KEY, EdDSA needs JWT_JWKS_FILE; no other algorithm is supported"
        }
        TokenRefusal::Critical => "have the issuer leave crit out of the header",
        TokenRefusal::NotJwt => {
            "have the issuer set typ to JWT or leave it out; this may be another kind of token"
        }
        TokenRefusal::BadHeader => {
            "give the whole token; if it is whole, have the issuer make alg, kid and typ strings"
        }
        TokenRefusal::BadClaims => "have the issuer sign one JSON object in which no name is there twice",
        TokenRefusal::Expired(_) => {
            "get a new token; if this one is new, set the clocks of issuer and service right"
        }
        TokenRefusal::NotYetValid(_) => {
            "wait until then; if it should be valid now, set the clocks of issuer and service right"
        }
        TokenRefusal::NoExpiry | TokenRefusal::BadExpiry => "have the issuer set exp, in seconds since 1970",
        TokenRefusal::BadNotBefore => "have the issuer set nbf in seconds since 1970, or leave it out",
        TokenRefusal::NoUser => "have the issuer put the user's id into user_id or sub",
        TokenRefusal::BadUser => {
            "have the issuer put the user's id into user_id as a string; sub counts only where there is no user_id"
        }
        TokenRefusal::NotCompact => "give the whole token: it begins with eyJ and has two dots in it",
        TokenRefusal::TwoFields => "send one Authorization field",
    };
    remedy.to_owned()
}

/// The remedy for a claim that differs from its variable. Neither value is a secret. The signature of the token
/// has been verified, because otherwise the refusal would be another one.
fn of_claim(claim: &str, token: &str, variable: &str, wanted: &str) -> String {
    let claims = Jws::parse(token).and_then(|jws| Claims::parse(&jws)).ok();
    let value = claims.and_then(|claims| if claim == "iss" { claims.issuer } else { claims.audience });
    match value {
        None => format!(
            "the token has no {claim}: have the issuer set it to {wanted:?}, or set {variable}=* to take any"
        ),
        Some(value) => format!(
            "the token's {claim} is {}, and {variable} is {wanted:?}: make them equal, character for character",
            escaped(value.get())
        ),
    }
}

/// The token without what people often copy together with it, and the names of the parts that were removed.
fn bare(input: &str) -> (String, Vec<&'static str>) {
    let mut rest = input.trim();
    let mut removed = Vec::new();
    while let Some((inner, name)) = without_wrapping(rest) {
        rest = inner.trim();
        removed.push(name);
    }
    let token: String = rest.split_whitespace().collect();
    // Two tokens become one here, and that one is then refused as malformed.
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
