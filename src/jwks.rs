//! The file of a JWKS (RFC 7517) → the public keys in it that verify tokens.

use jwt_simple::algorithms::Ed25519PublicKey;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The public Ed25519 keys of a JWKS. Keys of other types and for other uses are skipped (RFC 7517 section 5).
/// Private keys are skipped too, because the library does not accept them as public keys.
pub fn parse(file: &str, text: &[u8]) -> Result<Vec<Ed25519PublicKey>, String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Box<RawValue>>,
    }
    // The library's message is not used, because it may repeat a part of the file, which may be a secret.
    let set: Set = serde_json::from_slice(text).map_err(|error| {
        format!("JWT_JWKS_FILE: {file:?} is no JWKS (line {}, column {}); save the issuer's there, which Better Auth has at /api/auth/jwks", error.line(), error.column())
    })?;
    let keys = set.keys.iter().filter_map(|key| Ed25519PublicKey::from_jwk(key.get()).ok());
    let keys: Vec<_> = keys.collect();
    if keys.is_empty() {
        return Err(format!("JWT_JWKS_FILE: {file:?} {}", why_none(&set.keys)));
    }
    log::info!(keys = keys.len(); "JWKS read");
    let skipped = set.keys.len() - keys.len();
    if skipped > 0 {
        log::warn!(skipped; "JWKS has keys that are not public Ed25519 keys for signatures");
    }
    Ok(keys)
}

/// Why no key of the set can be used, and what would be right. The text contains nothing from the file.
fn why_none(keys: &[Box<RawValue>]) -> &'static str {
    #[derive(Default, Deserialize)]
    struct Key {
        #[serde(rename = "crv")]
        curve: Option<String>,
        #[serde(rename = "d")]
        private: Option<Box<RawValue>>,
    }
    let keys = keys.iter().map(|key| serde_json::from_str(key.get()).unwrap_or_default());
    let keys: Vec<Key> = keys.collect();
    if keys.is_empty() {
        "has no key in it; let the issuer publish its Ed25519 key"
    } else if keys.iter().any(|key| key.private.is_some()) {
        "has a private key (its member d); give the issuer's public keys alone"
    } else if keys.iter().any(|key| key.curve.as_deref() == Some("Ed25519")) {
        "has an Ed25519 key that cannot be used; its kty must be OKP, its x 32 bytes in base64url, \
         and its use sig or absent"
    } else {
        "has no public Ed25519 key for signatures, only others; let the issuer sign with EdDSA"
    }
}
