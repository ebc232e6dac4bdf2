//! Every variable of the configuration, in the order in which `tinytasks config` prints them.

/// A variable of the environment, the `.env` file or the file of `--config`.
pub struct Variable {
    pub name: &'static str,
    /// The value if the variable is unset. Empty if the variable then has no value.
    pub default: &'static str,
    /// The value of a secret is never printed. `NAME_FILE` may name a file that contains it.
    pub is_secret: bool,
}

const fn secret(name: &'static str) -> Variable {
    Variable { name, default: "", is_secret: true }
}

const fn plain(name: &'static str, default: &'static str) -> Variable {
    Variable { name, default, is_secret: false }
}

pub const VARIABLES: [Variable; 25] = [
    secret("DATABASE_URL"),
    // Of the sizes 4, 8 and 16, this one was fastest with sixteen clients on two cores.
    plain("DATABASE_POOL_SIZE", "16"),
    plain("DATABASE_PREPARED", "true"),
    plain("AUTO_MIGRATE", "true"),
    secret("JWT_SECRET_KEY"),
    secret("BETTER_AUTH_SECRET"),
    secret("JWT_SECRET_KEY_PREVIOUS"),
    plain("JWT_JWKS_FILE", ""),
    plain("JWT_ISSUER", ""),
    plain("JWT_AUDIENCE", ""),
    plain("JWT_LEEWAY_SECONDS", "5"),
    plain("HOST", "127.0.0.1"),
    plain("PORT", "8000"),
    plain("TLS_CERT_FILE", ""),
    plain("TLS_KEY_FILE", ""),
    plain("MAX_CONNECTIONS", "1024"),
    plain("IDLE_TIMEOUT_SECONDS", "75"),
    plain("TRUSTED_PROXIES", ""),
    plain("CORS_ORIGINS", "http://localhost:3000"),
    plain("RATE_LIMIT", ""),
    plain("REQUIRE_IF_MATCH", "false"),
    plain("DOCS", "true"),
    plain("ADMIN_ADDR", ""),
    plain("LOG_FORMAT", "text"),
    plain("RUST_LOG", "info"),
];

/// The position of a variable in [`VARIABLES`].
pub fn place(name: &str) -> Option<usize> {
    VARIABLES.iter().position(|variable| variable.name == name)
}

/// Whether this service reads a variable of that name.
pub fn is_ours(name: &str) -> bool {
    VARIABLES.iter().any(|variable| {
        let file = name.strip_suffix("_FILE").filter(|_| variable.is_secret);
        variable.name == name || file == Some(variable.name)
    })
}

/// The variable of this service that `name` was probably meant to be. None if `name` is a variable of this service,
/// or does not look like one.
pub fn meant(name: &str) -> Option<&'static str> {
    if is_ours(name) {
        return None;
    }
    let upper = name.to_ascii_uppercase();
    let plain = upper.strip_prefix("TINYTASKS_").unwrap_or(&upper);
    let distance = |variable: &&Variable| edits(plain, variable.name);
    let nearest = VARIABLES.iter().min_by_key(distance)?;
    let is_near = match plain.len() {
        // Short names are similar to many variables that have nothing to do with this service.
        0..6 => plain == nearest.name,
        6..10 => distance(&nearest) <= 1,
        _ => distance(&nearest) <= 2,
    };
    let is_begun = |variable: &&Variable| plain.contains('_') && variable.name.starts_with(plain);
    if let Some(variable) = VARIABLES.iter().find(is_begun) {
        return Some(variable.name);
    }
    let is_of_family =
        ["JWT_", "CORS_", "TLS_", "TRUSTED_", "TINYTASKS_"].iter().any(|family| upper.starts_with(family));
    (is_near || is_of_family).then_some(nearest.name)
}

/// The Levenshtein distance: how many characters must be inserted, deleted or replaced.
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (index, a) in from.chars().enumerate() {
        let mut next = vec![index + 1];
        for ((b, above), diagonal) in to.chars().zip(row.iter().skip(1)).zip(&row) {
            let left = next.last().copied().unwrap_or_default();
            next.push((diagonal + usize::from(a != b)).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.pop().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{edits, meant};

    #[test]
    fn a_slip_is_told_from_the_names_of_others() {
        for (name, wanted) in [
            ("CORS_ORIGIN", Some("CORS_ORIGINS")),
            ("CORS_ALLOWED_ORIGINS", Some("CORS_ORIGINS")),
            ("JWT_SECRET", Some("JWT_SECRET_KEY")),
            ("JWT_ISSUER_FILE", Some("JWT_ISSUER")),
            ("DATABASE_POOLSIZE", Some("DATABASE_POOL_SIZE")),
            ("DATABASE_URI", Some("DATABASE_URL")),
            ("DATABASE_URl", Some("DATABASE_URL")),
            ("TRUSTED_PROXY", Some("TRUSTED_PROXIES")),
            ("TINYTASKS_PORT", Some("PORT")),
            ("RATE_LIMITS", Some("RATE_LIMIT")),
            ("port", Some("PORT")),
            ("IDLE_TIMEOUT", Some("IDLE_TIMEOUT_SECONDS")),
            ("CORS_ORIGINS", None),
            ("DATABASE_URL_UNPOOLED", None),
            ("DATABASE", None),
            ("SSL_CERT_FILE", None),
            ("DATABASE_URL_FILE", None),
            ("BETTER_AUTH_URL", None),
            ("PATH", None),
            ("POST", None),
            ("PWD", None),
            ("HOSTNAME", None),
            ("LOGNAME", None),
            ("PGHOST", None),
            ("RUST_BACKTRACE", None),
            ("NODE_ENV", None),
        ] {
            assert_eq!(meant(name), wanted, "{name}");
        }
    }

    #[test]
    fn edits_are_the_fewest() {
        for (from, to, wanted) in [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("abc", "ab", 1)] {
            assert_eq!((edits(from, to), edits(to, from)), (wanted, wanted), "{from} {to}");
        }
    }
}
