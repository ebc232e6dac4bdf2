//! How a line of a `.env` file is read.

/// Name and value of a trimmed line of a `.env` file: quotes, comments, no expansion. The name is
/// empty where the line is; None where it cannot be read.
pub fn line(line: &str) -> Option<(&str, &str)> {
    if line.is_empty() || line.starts_with('#') {
        return Some(("", ""));
    }
    let (name, rest) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
    let (name, rest) = (name.trim(), rest.trim_start());
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let (value, after) = match rest.chars().next() {
        Some(quote @ ('"' | '\'')) => rest.strip_prefix(quote)?.split_once(quote)?,
        Some('#') => ("", rest),
        _ => (rest.split(" #").next()?.split("\t#").next()?.trim_end(), ""),
    };
    let after = after.trim_start();
    let fits = !name.is_empty() && is_name(name) && (after.is_empty() || after.starts_with('#'));
    fits.then_some((name, value))
}

#[cfg(test)]
mod tests {
    #[test]
    fn dot_env_lines() {
        for (line, wanted) in [
            ("A=b", Some(("A", "b"))),
            ("A = b c", Some(("A", "b c"))),
            ("export A=b", Some(("A", "b"))),
            ("A=b # c", Some(("A", "b"))),
            ("A=b#c", Some(("A", "b#c"))),
            ("A=b\t# c # d", Some(("A", "b"))),
            ("A=", Some(("A", ""))),
            ("A=# c", Some(("A", ""))),
            ("A=\"b # c\" # d", Some(("A", "b # c"))),
            ("A='$B \"'", Some(("A", "$B \""))),
            ("A=b=c", Some(("A", "b=c"))),
            ("# A=b", Some(("", ""))),
            ("", Some(("", ""))),
            ("A", None),
            ("=b", None),
            ("A B=c", None),
            ("A=\"b", None),
            ("A=\"b\" c", None),
        ] {
            assert_eq!(super::line(line), wanted, "{line}");
        }
    }
}
