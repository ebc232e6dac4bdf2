//! `Authorization` field → [`Caller`]. Guarantees the second half of the invariant: a `Caller` is a verified
//! user who is also the user in the path. Only this module can make a `Caller`, and the methods of the store
//! require one.

use crate::error::Error;
use crate::keys::Keys;
use crate::refusal::TokenRefusal;
use crate::task::UserId;

/// A verified user who is also the user in the path (401 and 403 are behind us).
pub struct Caller {
    user_id: UserId,
}

impl Caller {
    pub fn user_id(&self) -> &str {
        self.user_id.as_str()
    }
}

/// Verifies the bearer token of a request (RFC 6750 section 2.1). `fields` are the values of all its
/// `Authorization` fields, `path_user` is the user in its path. Errors, checked in this order: `TokenMissing`
/// (401), `TokenInvalid` (401), `Forbidden` (403).
pub fn authorize(keys: &Keys, fields: &[&str], path_user: &str) -> Result<Caller, Error> {
    let field = match fields {
        [] => return Err(Error::TokenMissing),
        [field] => field.trim(),
        _ => return Err(Error::TokenInvalid(TokenRefusal::TwoFields)),
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
