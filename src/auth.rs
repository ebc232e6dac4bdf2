//! `Authorization` field → [`Caller`]. The only module that knows tokens and keys.
//! Guarantees the second half of the invariant: for a request, a `Caller` is a verified user who is
//! also the user in the path. Nothing else can make one, and the store takes nothing else.

use crate::config::Jwt;
use crate::error::Error;
use crate::panic::lock;
use crate::task::UserId;
use crate::watched::{NameAndBytes, Watched};
use jwt_simple::prelude::*;
use jwt_simple::{Error as TokenError, JWTError};
use serde::Deserializer;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

/// Longer ones are refused. Better Auth's are below 1 KiB; the head's limit is 16 KiB.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
const TOKEN_HEADER_BYTES_MAX: usize = 2 * 1024;
const UNKNOWN_KID: &str = "no key of the JWKS has this kid";

/// A verified user who is also the user in the path (401 and 403 are behind us).
pub struct Caller {
    user_id: UserId,
}

impl Caller {
    pub fn user_id(&self) -> &str {
        self.user_id.as_str()
    }
}

/// What a token must be signed with and say.
pub struct Keys {
    /// That in force, and the previous one.
    hs256: Vec<HS256Key>,
    jwks: Watched<Jwks>,
    options: VerificationOptions,
    leeway_seconds: u64,
}

/// Keys that are good together, and what they have verified: a key that goes takes all of it along.
#[derive(Default)]
struct Jwks {
    ed25519: Vec<Ed25519PublicKey>,
    remembered: Mutex<Remembered>,
}

/// Tokens that were good, and when they are for certain, in seconds since 1970: from when they were
/// verified until they expire.
type Remembered = HashMap<String, (UserId, Range<u64>)>;
/// Then all are forgotten. With the next, not more than 4 MiB.
const REMEMBERED_MAX: usize = 4096;
const REMEMBERED_BYTES_MAX: usize = 1024;

/// The claims that the library does not name. A claim that is there but no string is not absent:
/// it must not let `sub` take its place.
#[derive(Serialize, Deserialize)]
struct UserClaim {
    #[serde(default, deserialize_with = "present")]
    user_id: Option<String>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

impl Jwks {
    /// RFC 7517 section 5: keys of other kinds are passed over. The library refuses a private key.
    fn parse(files: &[NameAndBytes]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Box<RawValue>>,
        }
        let Some((file, text)) = files.first() else {
            return Ok(Self::default());
        };
        // The library's message may repeat what the file holds, and that may be a secret.
        let set: Set = serde_json::from_slice(text).map_err(|error| {
            format!("{file:?} is no JWKS (line {}, column {})", error.line(), error.column())
        })?;
        let keys = set.keys.iter().filter_map(|key| Ed25519PublicKey::from_jwk(key.get()).ok());
        let jwks = Self { ed25519: keys.collect(), ..Self::default() };
        let skipped = set.keys.len() - jwks.ed25519.len();
        if jwks.ed25519.is_empty() {
            return Err(format!("{file:?} has no public Ed25519 key"));
        }
        log::info!(keys = jwks.ed25519.len(); "JWKS read");
        if skipped > 0 {
            log::warn!(skipped; "JWKS has keys that are not public Ed25519 keys");
        }
        Ok(jwks)
    }

    fn key(&self, kid: Option<&str>) -> Result<&Ed25519PublicKey, &'static str> {
        match (kid, self.ed25519.as_slice()) {
            (None, [key]) => Ok(key),
            (None, _) => Err("there is no kid, and the JWKS has several keys"),
            (_, keys) => keys.iter().find(|key| key.key_id().as_deref() == kid).ok_or(UNKNOWN_KID),
        }
    }
}

impl Keys {
    /// Errors: what is wrong with `JWT_JWKS_FILE`.
    pub fn new(jwt: &Jwt) -> Result<Self, String> {
        let only = |value: &Option<String>| value.clone().map(|value| HashSet::from([value]));
        let secrets = jwt.secret.iter().chain(&jwt.previous_secret);
        let jwks = Watched::open("JWKS", jwt.jwks_file.iter().cloned().collect(), Jwks::parse);
        Ok(Self {
            hs256: secrets.map(|secret| HS256Key::from_bytes(secret.as_bytes())).collect(),
            jwks: jwks.map_err(|reason| format!("JWT_JWKS_FILE: {reason}"))?,
            options: VerificationOptions {
                time_tolerance: Some(Duration::from_secs(jwt.leeway.as_secs())),
                // Lets `iat` lie in the future, and switches the check of `nbf` off: see `verify`.
                accept_future: true,
                allowed_issuers: only(&jwt.issuer),
                allowed_audiences: only(&jwt.audience),
                max_token_length: Some(TOKEN_BYTES_MAX),
                max_header_length: Some(TOKEN_HEADER_BYTES_MAX),
                ..VerificationOptions::default()
            },
            leeway_seconds: jwt.leeway.as_secs(),
        })
    }

    /// The user of a good token and when it expires, in seconds since 1970; or why it is none.
    pub fn verify(&self, token: &str) -> Result<(UserId, u64), String> {
        match self.verify_by(&self.jwks.current(false), token) {
            // That may be the sign of a new file.
            Err(reason) if reason == UNKNOWN_KID => self.verify_by(&self.jwks.current(true), token),
            outcome => outcome,
        }
    }

    fn verify_by(&self, jwks: &Jwks, token: &str) -> Result<(UserId, u64), String> {
        let now = seconds_since_epoch();
        if let Some((user_id, when)) =
            lock(&jwks.remembered).get(token).filter(|(_, when)| when.contains(&now))
        {
            return Ok((user_id.clone(), when.end));
        }
        let (user_id, expires_at) = self.verify_anew(jwks, token, now)?;
        if token.len() <= REMEMBERED_BYTES_MAX {
            let mut remembered = lock(&jwks.remembered);
            if remembered.len() >= REMEMBERED_MAX {
                remembered.clear();
            }
            remembered.insert(token.to_owned(), (user_id.clone(), now..expires_at));
        }
        Ok((user_id, expires_at))
    }

    /// The user, and the second since 1970 at which the token expires.
    fn verify_anew(&self, jwks: &Jwks, token: &str, now: u64) -> Result<(UserId, u64), String> {
        // RFC 7515 section 4.1.11: what must be understood and is not, is refused. The library
        // lets an empty list pass.
        let header = Token::decode_metadata(token).map_err(reason)?;
        if header.critical().is_some() {
            return Err("the header has crit".to_owned());
        }
        // RFC 8725 section 3.1: this only picks the key, and a key verifies its own algorithm alone.
        // That of RFC 8037 has a second name since RFC 9864.
        let is_ed25519 = ["EdDSA", "Ed25519"].contains(&header.algorithm()) && !jwks.ed25519.is_empty();
        let claims: JWTClaims<UserClaim> = if is_ed25519 {
            jwks.key(header.key_id())?.verify_token(token, Some(self.options.clone()))
        } else {
            self.verified_by_secret(token)
        }
        .map_err(reason)?;
        let expires_at = claims.expires_at.ok_or("there is no exp")?.as_secs();
        let latest = now.saturating_add(self.leeway_seconds);
        if claims.invalid_before.is_some_and(|start| start.as_secs() > latest) {
            return Err("nbf lies in the future".to_owned());
        }
        let user = claims.custom.user_id.or(claims.subject).ok_or("there is neither user_id nor sub")?;
        let user_id = UserId::parse(user).ok_or("the user is not 1 to 255 characters")?;
        Ok((user_id, expires_at))
    }

    /// By the secret in force; by the previous one where only the signature is wrong.
    fn verified_by_secret(&self, token: &str) -> Result<JWTClaims<UserClaim>, TokenError> {
        let mut outcomes = self.hs256.iter().map(|key| key.verify_token(token, Some(self.options.clone())));
        match outcomes.next() {
            Some(Err(error)) if is_bad_signature(&error) => outcomes.next().unwrap_or(Err(error)),
            Some(outcome) => outcome,
            None => Err(JWTError::AlgorithmMismatch.into()),
        }
    }
}

fn is_bad_signature(error: &TokenError) -> bool {
    matches!(error.downcast_ref(), Some(JWTError::InvalidAuthenticationTag))
}

/// Never the token's content: the library's own messages name rules, those of JSON would quote it.
fn reason(error: TokenError) -> String {
    match (error.downcast_ref::<JWTError>(), error.downcast_ref::<serde_json::Error>()) {
        (Some(rule), _) => rule.to_string(),
        (_, Some(error)) if error.is_data() => {
            format!("malformed: user_id, or another member, is of a wrong type, at column {}", error.column())
        }
        (_, Some(error)) => format!("malformed JSON, at column {}", error.column()),
        _ => "malformed".to_owned(),
    }
}

fn seconds_since_epoch() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// RFC 6750 section 2.1: takes the values of all `Authorization` fields of a request and the user
/// in its path. Errors: `TokenMissing`, `TokenInvalid` (401), `Forbidden` (403), in that order.
pub fn authorize(keys: &Keys, fields: &[&str], path_user: &str) -> Result<Caller, Error> {
    let field = match fields {
        [] => return Err(Error::TokenMissing),
        [field] => field.trim(),
        _ => return Err(Error::TokenInvalid("two Authorization fields".to_owned())),
    };
    let (scheme, token) = field.split_once(' ').unwrap_or((field, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Error::TokenMissing);
    }
    let (user_id, _) = keys.verify(token.trim_start()).map_err(Error::TokenInvalid)?;
    if user_id.as_str() != path_user {
        return Err(Error::Forbidden(user_id.as_str().to_owned()));
    }
    Ok(Caller { user_id })
}

/// A token for `user` that [`authorize`] accepts for `ttl`. Errors: the reason it cannot be made.
pub fn issue(jwt: &Jwt, user: &str, ttl: std::time::Duration) -> Result<String, String> {
    let secret = jwt.secret.as_ref().ok_or("JWT_SECRET_KEY: is needed; a JWKS can only verify tokens")?;
    let user = UserId::parse(user.to_owned()).ok_or("--user: must be 1 to 255 characters")?;
    let valid_for = Duration::from_secs(ttl.as_secs());
    // The library's clock ends there.
    Clock::now_since_epoch().checked_add(valid_for).ok_or("--ttl: must end before February 2106")?;
    let claim = UserClaim { user_id: Some(user.as_str().to_owned()) };
    let mut claims = Claims::with_custom_claims(claim, valid_for);
    claims.subject = Some(user.as_str().to_owned());
    claims.issuer = jwt.issuer.clone();
    claims.audiences = jwt.audience.clone().map(Into::into);
    HS256Key::from_bytes(secret.as_bytes()).authenticate(claims).map_err(reason)
}
