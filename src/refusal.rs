//! Everything that a token can be refused for: the text for the log, and the label for the metrics.

use std::fmt;

/// Why a token was refused. The text of a refusal is for the log and for `tinytasks token --explain`, never for
/// the client. Of the token, it repeats only times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TokenRefusal {
    /// The request has more than one `Authorization` field.
    TwoFields,
    /// The token is not three parts of base64url with dots between (RFC 7515 section 7.1).
    NotCompact,
    /// The header is not a JSON object with `alg` (RFC 7515 section 4), or `kid` or `typ` is no string.
    BadHeader,
    /// The header has `crit`, and the service supports no extension (RFC 7515 section 4.1.11).
    Critical,
    /// `typ` says that the token is not a JWT (RFC 7519 section 5.1).
    NotJwt,
    /// No configured key is for the `alg` of the header (RFC 8725 section 3.1).
    Algorithm,
    /// The JWKS has several keys, and the header has no `kid`.
    NoKid,
    /// The JWKS has no key with the `kid` of the header.
    UnknownKid,
    /// The signature was made with none of the configured secrets.
    SecretSignature,
    /// The signature was not made with the key that `kid` names.
    KeySignature,
    /// The claims are not one JSON object, or name a claim twice.
    BadClaims,
    NoExpiry,
    BadExpiry,
    /// Holds `exp`, in seconds since 1970.
    Expired(u64),
    BadNotBefore,
    /// Holds `nbf`, in seconds since 1970.
    NotYetValid(u64),
    Issuer,
    Audience,
    NoUser,
    BadUser,
}

impl TokenRefusal {
    /// All values that [`TokenRefusal::label`] returns.
    #[rustfmt::skip]
    pub const LABELS: [&str; 9] = [
        "malformed", "algorithm", "unknown_key", "signature", "expired", "not_yet_valid", "issuer",
        "audience", "claims",
    ];

    /// The value of the label `reason` in the metric of refused tokens.
    pub fn label(self) -> &'static str {
        match self {
            Self::TwoFields | Self::NotCompact | Self::BadHeader | Self::Critical => "malformed",
            Self::NotJwt | Self::BadClaims => "malformed",
            Self::Algorithm => "algorithm",
            Self::NoKid | Self::UnknownKid => "unknown_key",
            Self::SecretSignature | Self::KeySignature => "signature",
            Self::Expired(_) => "expired",
            Self::NotYetValid(_) => "not_yet_valid",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::NoExpiry | Self::BadExpiry | Self::BadNotBefore => "claims",
            Self::NoUser | Self::BadUser => "claims",
        }
    }
}

impl fmt::Display for TokenRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TwoFields => "the request has two Authorization fields",
            Self::NotCompact => "the token is not three parts of base64url with dots between",
            Self::BadHeader => "the token's header is not a JSON object with alg, or kid or typ is no string",
            Self::Critical => "the token's header has crit, and no extension is supported",
            Self::NotJwt => "the token's typ is not JWT",
            Self::Algorithm => "no key is configured for the token's alg",
            Self::NoKid => "the token has no kid, and the JWKS has several keys",
            Self::UnknownKid => "no key of the JWKS has the token's kid",
            Self::SecretSignature => "the token's signature was not made with the configured secret",
            Self::KeySignature => "the token's signature was not made with the key that its kid names",
            Self::BadClaims => "the token's claims are not a JSON object that has each name once",
            Self::NoExpiry => "the token has no exp",
            Self::BadExpiry => "the token's exp is not a number",
            Self::Expired(at) => return write!(f, "the token expired at {}", time(*at)),
            Self::BadNotBefore => "the token's nbf is not a number",
            Self::NotYetValid(at) => return write!(f, "the token is not valid before {}", time(*at)),
            Self::Issuer => "the token's iss is missing or not JWT_ISSUER",
            Self::Audience => "the token's aud is missing or does not have JWT_AUDIENCE in it",
            Self::NoUser => "the token has neither user_id nor sub",
            Self::BadUser => "the token's user is not a string of 1 to 255 characters, or is . or ..",
        })
    }
}

/// The time in seconds since 1970 as a timestamp. Times after the year 9999 become the last moment of that year.
fn time(unix_seconds: u64) -> jiff::Timestamp {
    let seconds = i64::try_from(unix_seconds).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX)
}
