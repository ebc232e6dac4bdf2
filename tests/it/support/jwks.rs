//! Ed25519 keys, a JWKS of them, and the file that the service follows.

use crate::support::{
    harness::{App, Directory, Setup},
    token::{base64url, now},
};
use jwt_simple::algorithms::{Ed25519KeyPair, EdDSAKeyPairLike};
use serde_json::{Value, json};
use std::fs;

pub const ISSUER: &str = "https://auth.example";
pub const AUDIENCE: &str = "https://api.example";

/// A key of the issuer.
pub struct Key {
    pub pair: Ed25519KeyPair,
    pub kid: &'static str,
}

impl Key {
    pub fn new(kid: &'static str) -> Self {
        Self { pair: Ed25519KeyPair::generate(), kid }
    }

    pub fn x(&self) -> String {
        base64url(&self.pair.public_key().to_bytes())
    }

    /// The form that Better Auth publishes: neither `alg` nor `use`.
    pub fn entry(&self) -> Value {
        json!({"crv": "Ed25519", "x": self.x(), "kty": "OKP", "kid": self.kid})
    }

    /// Header and payload are taken as they are.
    pub fn sign_text(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(payload.as_bytes()));
        let signature = self.pair.key_pair().as_ref().sk.sign(&signed, None);
        format!("{signed}.{}", base64url(signature.as_ref()))
    }

    pub fn sign(&self, header: Value, claims: &Value) -> String {
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    /// A good token of alice, as Better Auth makes it.
    pub fn token(&self) -> String {
        self.sign(json!({"alg": "EdDSA", "kid": self.kid}), &claims())
    }

    pub fn token_without_kid(&self) -> String {
        self.sign(json!({"alg": "EdDSA"}), &claims())
    }
}

pub fn claims() -> Value {
    json!({"sub": "alice", "iss": ISSUER, "aud": AUDIENCE, "exp": now() + 600})
}

pub fn jwks(keys: &[&Key]) -> String {
    json!({"keys": keys.iter().map(|key| key.entry()).collect::<Vec<_>>()}).to_string()
}

/// The file that the service follows.
pub struct JwksFile {
    directory: Directory,
    pub path: String,
}

impl JwksFile {
    pub fn new(content: &str) -> Self {
        let directory = Directory::create();
        let path = directory.write("jwks.json", content);
        Self { directory, path }
    }

    pub fn of(keys: &[&Key]) -> Self {
        Self::new(&jwks(keys))
    }

    /// Writes another file beside it, and returns its path.
    pub fn write(&self, name: &str, content: &str) -> String {
        self.directory.write(name, content)
    }

    /// Replaces the file in one step, so that nobody ever reads half of it.
    pub fn replace(&self, content: &str) {
        fs::rename(self.write("new", content), &self.path).unwrap();
    }

    /// A service with this file and without a secret.
    pub fn setup(&self) -> Setup {
        let setup = App::setup().unset("JWT_SECRET_KEY").env("JWT_JWKS_FILE", &self.path);
        // One connection, the one of the health check: on a busy machine others would come late.
        let setup = setup.env("DATABASE_POOL_SIZE", "1");
        setup.env("JWT_ISSUER", ISSUER).env("JWT_AUDIENCE", AUDIENCE)
    }

    pub fn variables(&self) -> Vec<(&str, &str)> {
        vec![("JWT_JWKS_FILE", &self.path), ("JWT_ISSUER", ISSUER), ("JWT_AUDIENCE", AUDIENCE)]
    }
}
