//! Tokens, good and bad, made without the service: compact JWS by hand, so that any header and any
//! payload can be signed.

use jwt_simple::algorithms::{HS256Key, MACLike};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

pub const SECRET: &str = "a secret for the tests, of 43 bytes, so good";
pub const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// A good token of that user.
pub fn token(user_id: &str) -> String {
    sign(SECRET, &json!({"user_id": user_id, "exp": now() + 3600}))
}

pub fn sign(secret: &str, claims: &Value) -> String {
    sign_text(secret, HEADER, &claims.to_string())
}

/// Header and payload are taken as they are.
pub fn sign_text(secret: &str, header: &str, payload: &str) -> String {
    sign_parts(secret, &format!("{}.{}", base64url(header.as_bytes()), base64url(payload.as_bytes())))
}

/// A token of parts that need not be base64url.
pub fn sign_parts(secret: &str, signed: &str) -> String {
    let tag = HS256Key::from_bytes(secret.as_bytes()).authentication_tag(signed.as_bytes());
    format!("{signed}.{}", base64url(&tag))
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs().try_into().unwrap()
}

/// RFC 4648 section 5, without padding.
pub fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let octet = |index| u32::from(chunk.get(index).copied().unwrap_or(0));
        let group = octet(0) << 16 | octet(1) << 8 | octet(2);
        for index in 0..=chunk.len() {
            text.push(ALPHABET[(group >> (18 - 6 * index) & 63) as usize] as char);
        }
    }
    text
}

/// A segment of a path: everything but unreserved characters is percent-encoded.
pub fn segment(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => (byte as char).into(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}
