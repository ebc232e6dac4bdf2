//! `Authorization` field → [`Caller`]. The only module that knows tokens and keys.
//! Guarantees the second half of the invariant: a `Caller` is a verified user who is also the user
//! in the path. Nothing else can make one, and the store takes nothing else.

use crate::config::Jwt;
use crate::error::Error;
use crate::task::UserId;
use jwt_simple::prelude::*;
use jwt_simple::{Error as TokenError, JWTError};
use serde::Deserializer;
use serde_json::Value;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Longer ones are refused unread. Better Auth's are below 1 KiB; the head's limit is 16 KiB.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
const TOKEN_HEADER_BYTES_MAX: usize = 2 * 1024;

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
    hs256: HS256Key,
    previous_hs256: Option<HS256Key>,
    options: VerificationOptions,
    leeway_seconds: u64,
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
    user_id: Option<Value>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Keys {
    pub fn new(jwt: &Jwt) -> Self {
        let only = |value: &Option<String>| value.clone().map(|value| HashSet::from([value]));
        let key = |secret: &String| HS256Key::from_bytes(secret.as_bytes());
        Self {
            hs256: key(&jwt.secret),
            previous_hs256: jwt.previous_secret.as_ref().map(key),
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
            remembered: Mutex::default(),
        }
    }

    /// The user of a good token, or why the token is none.
    fn verify(&self, token: &str) -> Result<UserId, String> {
        let now = seconds_since_epoch();
        if let Some((user_id, _)) = self.remembered().get(token).filter(|(_, when)| when.contains(&now)) {
            return Ok(user_id.clone());
        }
        let (user_id, expires_at) = self.verify_anew(token, now)?;
        if token.len() <= REMEMBERED_BYTES_MAX {
            let mut remembered = self.remembered();
            if remembered.len() >= REMEMBERED_MAX {
                remembered.clear();
            }
            remembered.insert(token.to_owned(), (user_id.clone(), now..expires_at));
        }
        Ok(user_id)
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The user, and the second since 1970 at which the token expires.
    fn verify_anew(&self, token: &str, now: u64) -> Result<(UserId, u64), String> {
        // RFC 7515 section 4.1.11: what must be understood and is not, is refused. The library
        // lets an empty list pass.
        let header = Token::decode_metadata(token).map_err(reason)?;
        if header.critical().is_some() {
            return Err("the header has crit".to_owned());
        }
        let claims = self.verified_claims(token).map_err(reason)?;
        let expires_at = claims.expires_at.ok_or("there is no exp")?.as_secs();
        let latest = now.saturating_add(self.leeway_seconds);
        if claims.invalid_before.is_some_and(|start| start.as_secs() > latest) {
            return Err("nbf lies in the future".to_owned());
        }
        let user = match claims.custom.user_id {
            Some(Value::String(user)) => user,
            Some(_) => return Err("the claim user_id is not a string".to_owned()),
            None => claims.subject.ok_or("there is neither user_id nor sub")?,
        };
        let user_id = UserId::parse(user).ok_or("the user is not 1 to 255 characters")?;
        Ok((user_id, expires_at))
    }

    /// By the secret in force; by the previous one where only the signature is wrong.
    fn verified_claims(&self, token: &str) -> Result<JWTClaims<UserClaim>, TokenError> {
        let verify = |key: &HS256Key| key.verify_token(token, Some(self.options.clone()));
        match (verify(&self.hs256), &self.previous_hs256) {
            (Err(error), Some(previous)) if is_bad_signature(&error) => verify(previous),
            (outcome, _) => outcome,
        }
    }
}

fn is_bad_signature(error: &TokenError) -> bool {
    matches!(error.downcast_ref(), Some(JWTError::InvalidAuthenticationTag))
}

/// The library's messages name claims and rules, never the token's content.
fn reason(error: TokenError) -> String {
    error.to_string()
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
    let user_id = keys.verify(token.trim_start()).map_err(Error::TokenInvalid)?;
    if user_id.as_str() != path_user {
        return Err(Error::Forbidden(user_id.as_str().to_owned()));
    }
    Ok(Caller { user_id })
}

/// A token for `user` that [`authorize`] accepts for `ttl`. Errors: the reason it cannot be made.
pub fn issue(jwt: &Jwt, user: &str, ttl: std::time::Duration) -> Result<String, String> {
    let user = UserId::parse(user.to_owned()).ok_or("the user must be 1 to 255 characters")?;
    let claim = UserClaim { user_id: Some(Value::from(user.as_str())) };
    let mut claims = Claims::with_custom_claims(claim, Duration::from_secs(ttl.as_secs()));
    claims.subject = Some(user.as_str().to_owned());
    claims.issuer = jwt.issuer.clone();
    claims.audiences = jwt.audience.clone().map(Into::into);
    HS256Key::from_bytes(jwt.secret.as_bytes()).authenticate(claims).map_err(reason)
}
