//! Parses tokens: RFC 7515 (JWS) and RFC 7519 (JWT). Nothing that is parsed here can be trusted before
//! `keys.rs` has checked the signature.
//! Guarantees: a header parameter or claim that the contract does not use never causes a refusal, whatever its
//! type is.

use crate::refusal::TokenRefusal;
use crate::task::UserId;
use jwt_simple::reexports::ct_codecs::{Base64UrlSafeNoPadding, Decoder};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::time::Duration;

/// The parts of a token (RFC 7515 section 7.1). None of them is verified.
pub struct Jws<'t> {
    pub header: Header,
    /// Header and payload as sent: the text that is signed.
    pub signed: &'t str,
    /// The encoded claims. [`Claims::parse`] decodes them once the signature is verified.
    payload: &'t str,
    pub signature: Vec<u8>,
}

/// The parameters of the JOSE header that are read. All others are ignored.
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
    /// Splits a token and decodes its header and signature. Errors: `NotCompact`, `BadHeader`, `Critical`,
    /// `NotJwt`.
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
        // RFC 9068 section 2.1 defines `at+jwt`; RFC 7519 section 5.1 recommends upper case for `JWT`; and each
        // may have the prefix `application/` (RFC 7515 section 4.1.9).
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

/// The claims that the contract uses. Each is kept as JSON and checked only where it is used, so that a claim
/// which is not used cannot cause a refusal.
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

    /// The user: `user_id`, or `sub` if there is no `user_id`. A `user_id` that is not a string is an error, and
    /// `sub` does not replace it. Errors: `NoUser`, `BadUser`.
    pub fn user(&self) -> Result<UserId, TokenRefusal> {
        let claim = self.user_id.as_ref().or(self.subject.as_ref()).ok_or(TokenRefusal::NoUser)?;
        string(claim).and_then(UserId::parse).ok_or(TokenRefusal::BadUser)
    }

    /// Whether `aud` is this string, or an array that contains it (RFC 7519 section 4.1.3).
    pub fn has_audience(&self, wanted: &str) -> bool {
        let Some(claim) = &self.audience else {
            return false;
        };
        let list: Vec<&RawValue> = serde_json::from_str(claim.get()).unwrap_or_else(|_| vec![&**claim]);
        list.into_iter().any(|entry| string(entry).as_deref() == Some(wanted))
    }
}

/// Parses a JSON object. None for any other text. (For an array, serde would fill the members by position.)
fn json_object<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    // RFC 7519 section 7.2: the text must be UTF-8, also in members that are skipped.
    let text = str::from_utf8(text).ok()?;
    if !text.trim_ascii_start().starts_with('{') {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// Deserializes a member so that `null` differs from an absent member.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

/// The value of a JSON string. None for any other JSON.
pub fn string(json: &RawValue) -> Option<String> {
    serde_json::from_str(json.get()).ok()
}

/// A NumericDate (RFC 7519 section 2): seconds since 1970, without its fraction. A time before 1970 counts as 0.
/// None for any other JSON.
pub fn numeric_date(json: &RawValue) -> Option<u64> {
    let number: serde_json::Number = serde_json::from_str(json.get()).ok()?;
    number.as_u64().or_else(|| {
        let seconds = number.as_f64()?.max(0.0);
        Some(Duration::try_from_secs_f64(seconds).map_or(u64::MAX, |since| since.as_secs()))
    })
}
