//! Verifies tokens with the configured secrets and public keys. jwt-simple provides the keys and the cryptography.
//! Its check of claims is not used, because it would refuse a token for the type of a claim that this service does
//! not read.
//! Guarantees: the key determines the algorithm, never the token; no claim of a token is used before its
//! signature is verified.

use crate::jwks;
use crate::limits::{VERIFIED_TOKEN_BYTES_MAX, VERIFIED_TOKENS_MAX};
use crate::refusal::TokenRefusal;
use crate::task::UserId;
use crate::threads::lock;
use crate::token::{Claims, Jws, numeric_date, string};
use crate::watched::Watched;
use jwt_simple::algorithms::{Ed25519PublicKey, EdDSAPublicKeyLike, HS256Key, MACLike};
use jwt_simple::reexports::ct_codecs;
use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The configured secrets, JWKS file and required claims. Two values are equal when the contents of their
/// files are equal.
#[derive(PartialEq)]
pub struct TokenSettings {
    /// May be absent only if there is a JWKS.
    pub secret: Option<String>,
    pub previous_secret: Option<String>,
    /// The path of the JWKS file, and its content.
    pub jwks: Option<(String, Vec<u8>)>,
    pub issuer: Option<String>,
    pub audience: Option<String>,
    pub leeway: Duration,
}

/// The keys that verify tokens: the configured secrets and the keys of the JWKS. The files are read again
/// when they change.
pub struct Keys(Arc<Watched<TokenSettings, KeySet>>);

impl Keys {
    /// `jwt` is the current configuration; `read` reads it again later. Errors: what is wrong with
    /// `JWT_JWKS_FILE`.
    pub fn open(
        jwt: TokenSettings,
        read: fn() -> Result<TokenSettings, Vec<String>>,
    ) -> Result<Self, String> {
        let read = move || read().map_err(|complaints| complaints.join("; "));
        Watched::open("set of keys", jwt, Box::new(read), KeySet::new).map(Self)
    }

    /// Starts the thread that reads the files again when they change. Errors: the thread cannot be started.
    pub fn follow(&self) -> io::Result<()> {
        self.0.follow()
    }

    /// Reads secrets and JWKS again at once. Errors: why the keys stay as they are.
    pub fn reload(&self) -> Result<(), String> {
        self.0.reload()
    }

    /// The user of a valid token, and its `exp` in seconds since 1970. Errors: why the token is refused.
    pub fn verify(&self, token: &str) -> Result<(UserId, u64), TokenRefusal> {
        match self.0.current().verify(token) {
            // The issuer may have begun to use a new key a moment ago.
            Err(TokenRefusal::UnknownKid) => self.0.current_after_look().verify(token),
            verdict => verdict,
        }
    }
}

/// Keys that are in force at the same time. The set is never changed, only replaced as a whole; the tokens that
/// its keys have verified are part of it, so they are forgotten with it.
struct KeySet {
    /// The current secret, then the previous one.
    secrets: Vec<HS256Key>,
    public_keys: Vec<Ed25519PublicKey>,
    issuer: Option<String>,
    audience: Option<String>,
    leeway_seconds: u64,
    verified: Mutex<VerifiedTokens>,
}

/// Token → its user, and the period in which it need not be verified again, in seconds since 1970: from its last
/// verification to its `exp`.
type VerifiedTokens = HashMap<String, (UserId, Range<u64>)>;

impl KeySet {
    fn new(jwt: &TokenSettings) -> Result<Self, String> {
        let secrets = jwt.secret.iter().chain(&jwt.previous_secret);
        Ok(Self {
            secrets: secrets.map(|secret| HS256Key::from_bytes(secret.as_bytes())).collect(),
            public_keys: jwt
                .jwks
                .as_ref()
                .map_or_else(|| Ok(Vec::new()), |(file, text)| jwks::parse(file, text))?,
            issuer: jwt.issuer.clone(),
            audience: jwt.audience.clone(),
            leeway_seconds: jwt.leeway.as_secs(),
            verified: Mutex::default(),
        })
    }

    fn verify(&self, token: &str) -> Result<(UserId, u64), TokenRefusal> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if let Some((user_id, good)) = lock(&self.verified).get(token)
            && good.contains(&now)
        {
            return Ok((user_id.clone(), good.end));
        }
        let (user_id, expires_at) = self.verify_uncached(token, now)?;
        if token.len() <= VERIFIED_TOKEN_BYTES_MAX {
            let mut verified = lock(&self.verified);
            if verified.len() >= VERIFIED_TOKENS_MAX {
                verified.clear();
            }
            verified.insert(token.to_owned(), (user_id.clone(), now..expires_at));
        }
        Ok((user_id, expires_at))
    }

    fn verify_uncached(&self, token: &str, now: u64) -> Result<(UserId, u64), TokenRefusal> {
        let jws = Jws::parse(token)?;
        self.check_signature(&jws)?;
        let claims = Claims::parse(&jws)?;
        let expires_at = self.check_times(&claims, now)?;
        if self.issuer.is_some() && claims.issuer.as_deref().and_then(string) != self.issuer {
            return Err(TokenRefusal::Issuer);
        }
        if self.audience.as_deref().is_some_and(|audience| !claims.has_audience(audience)) {
            return Err(TokenRefusal::Audience);
        }
        Ok((claims.user()?, expires_at))
    }

    /// RFC 8725 section 3.1: `alg` only selects among the kinds of keys that are configured, and a key of one kind
    /// is never used as a key of another kind.
    fn check_signature(&self, jws: &Jws) -> Result<(), TokenRefusal> {
        match jws.header.algorithm.as_str() {
            "HS256" if !self.secrets.is_empty() => {
                let is_by = |key: &HS256Key| {
                    ct_codecs::verify(&key.authentication_tag(jws.signed.as_bytes()), &jws.signature)
                };
                if self.secrets.iter().any(is_by) { Ok(()) } else { Err(TokenRefusal::SecretSignature) }
            }
            // RFC 8037 section 3.1 and RFC 9864 section 2.2 give the same algorithm two names.
            "EdDSA" | "Ed25519" if !self.public_keys.is_empty() => {
                let keys = self.keys_of(jws)?;
                let is_by_one = keys.into_iter().any(|key| is_signed_by(key, jws));
                if is_by_one { Ok(()) } else { Err(TokenRefusal::KeySignature) }
            }
            _ => Err(TokenRefusal::Algorithm),
        }
    }

    /// The keys that the header's `kid` names; or, if the header has no `kid`, the only key of the set.
    fn keys_of(&self, jws: &Jws) -> Result<Vec<&Ed25519PublicKey>, TokenRefusal> {
        let Some(kid) = &jws.header.key_id else {
            return match self.public_keys.as_slice() {
                [key] => Ok(vec![key]),
                _ => Err(TokenRefusal::NoKid),
            };
        };
        let kid = string(kid).ok_or(TokenRefusal::BadHeader)?;
        let has_kid = |key: &&Ed25519PublicKey| key.key_id().as_ref() == Some(&kid);
        let keys: Vec<_> = self.public_keys.iter().filter(has_kid).collect();
        if keys.is_empty() { Err(TokenRefusal::UnknownKid) } else { Ok(keys) }
    }

    /// Checks `exp` and `nbf` (RFC 7519 sections 4.1.4 and 4.1.5), and returns `exp`.
    fn check_times(&self, claims: &Claims, now: u64) -> Result<u64, TokenRefusal> {
        let expiry = claims.expiry.as_deref().ok_or(TokenRefusal::NoExpiry)?;
        let expires_at = numeric_date(expiry).ok_or(TokenRefusal::BadExpiry)?;
        if expires_at.saturating_add(self.leeway_seconds) <= now {
            return Err(TokenRefusal::Expired(expires_at));
        }
        if let Some(not_before) = &claims.not_before {
            let good_from = numeric_date(not_before).ok_or(TokenRefusal::BadNotBefore)?;
            if good_from > now.saturating_add(self.leeway_seconds) {
                return Err(TokenRefusal::NotYetValid(good_from));
            }
        }
        Ok(expires_at)
    }
}

fn is_signed_by(key: &Ed25519PublicKey, jws: &Jws) -> bool {
    let Ok(signature) = jws.signature.as_slice().try_into() else {
        return false;
    };
    key.public_key().as_ref().verify(jws.signed, &signature).is_ok()
}
