//! A token taken apart: RFC 7515 (JWS) and RFC 7519 (JWT). Pure parsing; what is read here is
//! unverified until `keys.rs` has checked the signature.
//! Guarantees: a header or claim that the contract does not read cannot refuse a token, whatever its
//! type is.

use crate::error::TokenRefusal;
use crate::task::UserId;
use jwt_simple::reexports::ct_codecs::{Base64UrlSafeNoPadding, Decoder};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::time::Duration;

/// A token taken apart (RFC 7515 section 7.1). Nothing of it is verified.
pub struct Jws<'t> {
    pub header: Header,
    /// Header and payload as they were sent: what the signature is over.
    pub signed: &'t str,
    /// Decoded by [`Claims::parse`], once the signature is verified.
    payload: &'t str,
    pub signature: Vec<u8>,
}

/// The members of the JOSE header that are read. All others lead nowhere.
#[derive(Deserialize)]
pub struct Header {
    #[serde(rename = "alg")]
    pub algorithm: String,
    #[serde(rename = "typ")]
    kind: Option<String>,
    #[serde(rename = "kid")]
    pub key_id: Option<Box<RawValue>>,
    #[serde(default, rename = "crit", deserialize_with = "present")]
    critical: Option<Box<RawValue>>,
}

impl<'t> Jws<'t> {
    pub fn parse(token: &'t str) -> Result<Self, TokenRefusal> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenRefusal::NotCompact)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenRefusal::NotCompact)?;
        // A fourth part would leave a dot in the payload.
        if !payload.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
            return Err(TokenRefusal::NotCompact);
        }
        let header: Header = json_object(&decode(header)?).ok_or(TokenRefusal::BadHeader)?;
        if header.critical.is_some() {
            return Err(TokenRefusal::Critical);
        }
        // RFC 9068 section 2.1 has `at+jwt`; RFC 7519 section 5.1 recommends upper case for `JWT`; and
        // `application/` may stand before each (RFC 7515 section 4.1.9).
        let kind = header.kind.as_deref().unwrap_or("JWT").to_ascii_uppercase();
        if kind != "JWT" && kind != "APPLICATION/JWT" && !kind.ends_with("+JWT") {
            return Err(TokenRefusal::NotJwt);
        }
        Ok(Self { header, signed, payload, signature: decode(signature)? })
    }
}

fn decode(part: &str) -> Result<Vec<u8>, TokenRefusal> {
    Base64UrlSafeNoPadding::decode_to_vec(part, None).map_err(|_| TokenRefusal::NotCompact)
}

/// The claims that the contract reads, each still as JSON: only one that counts may refuse a token.
#[derive(Deserialize)]
pub struct Claims {
    #[serde(default, deserialize_with = "present")]
    user_id: Option<Box<RawValue>>,
    #[serde(rename = "sub")]
    subject: Option<Box<RawValue>>,
    #[serde(rename = "exp")]
    pub expiry: Option<Box<RawValue>>,
    #[serde(default, rename = "nbf", deserialize_with = "present")]
    pub not_before: Option<Box<RawValue>>,
    #[serde(rename = "iss")]
    pub issuer: Option<Box<RawValue>>,
    #[serde(rename = "aud")]
    pub audience: Option<Box<RawValue>>,
}

impl Claims {
    /// The claims of a token whose signature is verified. Errors: `NotCompact`, `BadClaims`.
    pub fn parse(jws: &Jws) -> Result<Self, TokenRefusal> {
        json_object(&decode(jws.payload)?).ok_or(TokenRefusal::BadClaims)
    }

    /// A `user_id` that is no string does not let `sub` take its place.
    pub fn user(&self) -> Result<UserId, TokenRefusal> {
        let claim = self.user_id.as_ref().or(self.subject.as_ref()).ok_or(TokenRefusal::NoUser)?;
        string(claim).and_then(UserId::parse).ok_or(TokenRefusal::BadUser)
    }

    /// RFC 7519 section 4.1.3: a string, or an array with it.
    pub fn has_audience(&self, wanted: &str) -> bool {
        let Some(claim) = &self.audience else {
            return false;
        };
        let list: Vec<&RawValue> = serde_json::from_str(claim.get()).unwrap_or_else(|_| vec![&**claim]);
        list.into_iter().any(|entry| string(entry).as_deref() == Some(wanted))
    }
}

/// None for everything but one JSON object of this shape. (serde would fill the
/// members from an array as well.)
fn json_object<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    // RFC 7519 section 7.2: UTF-8, also in the members that are skipped.
    let text = str::from_utf8(text).ok()?;
    if !text.trim_ascii_start().starts_with('{') {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// Tells a member that is null from one that is absent.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

pub fn string(json: &RawValue) -> Option<String> {
    serde_json::from_str(json.get()).ok()
}

/// RFC 7519 section 2: seconds since 1970, here without a fraction. Earlier ones count as 0.
pub fn numeric_date(json: &RawValue) -> Option<u64> {
    let number: serde_json::Number = serde_json::from_str(json.get()).ok()?;
    number.as_u64().or_else(|| {
        let seconds = number.as_f64()?.max(0.0);
        Some(Duration::try_from_secs_f64(seconds).map_or(u64::MAX, |since| since.as_secs()))
    })
}
