//! Recognizes secrets that anybody can guess (too short, one repeated character, printed in public sources),
//! values that were probably mistyped, and secrets in the place of a path.

use crate::limits::SECRET_BYTES_MIN;
use std::path::Path;

/// Parts of the placeholders in documentation, in examples and in default values of programs, in lower case and
/// without the characters between words. Fewer than one random secret in 1,000,000,000 contains one of them.
const PLACEHOLDERS: [&str; 25] = [
    // Better Auth's default (packages/better-auth/src/utils/constants.ts) is
    // better-auth-secret-12345678901234567890, and was shorter in earlier versions.
    "betterauthsecret1",
    // jwt.io signs its example with a-string-secret-at-least-256-bits-long, and earlier with
    // your-256-bit-secret.
    "astringsecret",
    "your256",
    "changeme",
    "changethis",
    "changeit",
    "changein",
    "pleasechange",
    "replaceme",
    "replacethis",
    "replacewith",
    "placeholder",
    "yoursecret",
    "yoursuper",
    "yourjwt",
    "yourbetter",
    "yourauth",
    "yourrandom",
    "yourlong",
    "supersecret",
    "opensslrand",
    "donotuse",
    "notforproduction",
    "generatea",
    "insecure",
];
/// Words that placeholders share with secrets that a person has made up. They count only in a secret that has fewer
/// than [`MADE_UP_DIGITS_MIN`] digits.
const SECRET_WORDS: [&str; 8] = [
    "mysecret",
    "secretkey",
    "jwtsecret",
    "authsecret",
    "defaultsecret",
    "fallbacksecret",
    "developmentsecret",
    "secretsecret",
];
/// A secret with so many digits is not taken for a placeholder because of [`SECRET_WORDS`].
const MADE_UP_DIGITS_MIN: usize = 4;

/// The reason why a secret is too weak as a key of HS256; None when no weakness is found.
pub fn weakness(secret: &str) -> Option<&'static str> {
    let first = secret.chars().next();
    let plain: String =
        secret.chars().filter(char::is_ascii_alphanumeric).map(|char| char.to_ascii_lowercase()).collect();
    let contains = |words: &[&str]| words.iter().any(|word| plain.contains(word));
    let has_digits = plain.bytes().filter(u8::is_ascii_digit).count() >= MADE_UP_DIGITS_MIN;
    if secret.len() < SECRET_BYTES_MIN {
        Some("is shorter than 32 bytes; give 32 random bytes, such as openssl rand -base64 32 prints")
    } else if secret.chars().all(|char| Some(char) == first) {
        Some("is one repeated character; give 32 random bytes, such as openssl rand -base64 32 prints")
    } else if contains(&PLACEHOLDERS) || !has_digits && contains(&SECRET_WORDS) {
        Some(
            "is a placeholder or default that public sources print, so anybody can sign with it; \
              give 32 random bytes, such as openssl rand -base64 32 prints",
        )
    } else {
        None
    }
}

/// Whether quotation marks are around a value.
pub fn is_quoted(value: &str) -> bool {
    let has = |quote| value.len() > 1 && value.starts_with(quote) && value.ends_with(quote);
    has('"') || has('\'')
}

/// Whether a text that should be the path of a secret's file may be the secret itself, so that it must not be
/// shown. Slashes do not prove that it is a path: base64 has slashes too, and one secret in 64 begins with one.
/// But a text of less than 32 bytes is too short for a valid secret.
pub fn may_be_value(path: &str) -> bool {
    let folder = path.strip_prefix('/').and_then(|rest| rest.split_once('/')).map(|(folder, _)| folder);
    let is_path = match folder {
        Some(folder) => path.len() < SECRET_BYTES_MIN || Path::new("/").join(folder).is_dir(),
        None => path.starts_with("./") || path.starts_with("../"),
    };
    !is_path
}

/// The warning for quotation marks, white space or a byte order mark at the ends of a value, which were probably
/// not meant to be part of it.
pub fn doubtful_ends(value: &str) -> Option<&'static str> {
    if is_quoted(value) {
        Some(
            "has quotation marks around it, and they are taken as part of the value; \
              container engines keep those of an env file, so remove them there",
        )
    } else if value.trim() != value {
        Some(
            "begins or ends with white space, which is taken as part of the value; remove it if it slipped in",
        )
    } else if value.starts_with('\u{feff}') {
        Some("begins with a byte order mark, which is taken as part of the value; save the file without it")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{doubtful_ends, may_be_value, weakness};

    #[test]
    fn a_secret_that_anybody_can_guess_is_weak() {
        for secret in [
            "",
            "0123456789abcdef0123456789abcde",
            &"a".repeat(64),
            &"ab".repeat(15),
            "better-auth-secret-12345678901234567890",
            "\"better-auth-secret-12345678901234567890\"",
            "a-string-secret-at-least-256-bits-long",
            "changeme-changeme-changeme-changeme",
            "CHANGE_ME_CHANGE_ME_CHANGE_ME_CHANGE_ME",
            "change-this-to-a-long-random-string-please",
            "your-secret-key-at-least-32-characters-long",
            "your_super_secret_jwt_key_goes_here_thanks",
            "please-change-this-in-production-to-something",
            "development-secret-key-not-for-production-use",
            "mysupersecretjwtsecretmysupersecretjwtsecret",
            "generate-with-openssl-rand-base64-32-please",
            "<replace with 32 random bytes or more than that>",
            "your-256-bit-secret-your-256-bit-secret",
            "super-secret-jwt-token-with-at-least-32-characters-long",
            "this-is-a-secret-key-at-least-32-characters-long",
            "secret-secret-secret-secret-secret-secret",
            "dev-only-secret-do-not-use-in-production",
            "GENERATE_A_STRONG_SECRET_FOR_PRODUCTION",
        ] {
            assert!(weakness(secret).is_some(), "{secret}");
        }
        for secret in [
            &"ab".repeat(16),
            "correct horse battery staple correct horse",
            "0123456789abcdef0123456789abcdef",
            "Yl4JmSSkQbnGlc5mPMr0uCYUAjr1Tn8vFtaq1O3zDnA=",
            "another-secret-that-is-at-least-32-bytes-long",
            "previous-jwt-secret-for-the-rotation-0123456789",
            "better-auth-secret-of-the-test-suite-0123",
            "a 256-bit test value 0123456789abcdef",
        ] {
            assert_eq!(weakness(secret), None, "{secret}");
        }
    }

    #[test]
    fn quotes_and_white_space_at_the_ends_are_doubtful() {
        for value in ["\"x\"", "'x'", " x", "x\n", "x\r", "\u{feff}x"] {
            assert!(doubtful_ends(value).is_some(), "{value:?}");
        }
        for value in ["", "x", "\"", "\"x", "x'", "x y", "\"x'"] {
            assert_eq!(doubtful_ends(value), None, "{value:?}");
        }
    }

    #[test]
    fn a_path_is_told_from_a_secret_in_its_place() {
        for path in [
            "/nothing/here",
            "./secrets/jwt_secret_key_of_the_service",
            "../x",
            "/tmp/jwt_secret_key_of_the_service",
        ] {
            assert!(!may_be_value(path), "{path}");
        }
        for value in [
            "postgres://u:p@127.0.0.1/x",
            "Yl4JmSSkQbnGlc5mPMr0uCYUAjr1Tn8vFtaq1O3zDnA=",
            "/l4JmSSkQbnGlc5mPMr0uCYUAjr1Tn8vFtaq1O3zDnA=",
            "/l4JmSSkQbnGlc5mP/r0uCYUAjr1Tn8vFtaq1O3zDnA=",
            "jwt_secret",
        ] {
            assert!(may_be_value(value), "{value}");
        }
    }
}
