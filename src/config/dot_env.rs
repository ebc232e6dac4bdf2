//! Parses a line of a `.env` file.

/// The name and value in a trimmed line of a `.env` file. Quotes and comments are understood; variables are not
/// expanded. The name is empty for an empty line or a comment. Errors: why the line cannot be read, and what
/// would be right.
pub fn line(line: &str) -> Result<(&str, &str), &'static str> {
    const NO_ASSIGNMENT: &str = "is not NAME=value; write # before a comment";
    if line.is_empty() || line.starts_with('#') {
        return Ok(("", ""));
    }
    let assignment = line.strip_prefix("export ").unwrap_or(line).split_once('=');
    let (name, rest) =
        assignment.map(|(name, rest)| (name.trim(), rest.trim_start())).ok_or(NO_ASSIGNMENT)?;
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty() || !name.bytes().all(is_part) {
        return Err(NO_ASSIGNMENT);
    }
    let Some(quote @ ('"' | '\'')) = rest.chars().next() else {
        let value = if rest.starts_with('#') { "" } else { before(before(rest, " #"), "\t#").trim_end() };
        return Ok((name, value));
    };
    let quoted = rest.strip_prefix(quote).and_then(|rest| rest.split_once(quote));
    let (value, after) =
        quoted.ok_or("has a quotation mark that is not closed; close it in the same line")?;
    let after = after.trim_start();
    if after.is_empty() || after.starts_with('#') {
        Ok((name, value))
    } else {
        Err(
            "goes on behind the closing quotation mark; put the other kind of mark around a value that has one in it",
        )
    }
}

/// The text before `end`, or the whole text if it does not contain `end`.
fn before<'t>(text: &'t str, end: &str) -> &'t str {
    text.split_once(end).map_or(text, |(before, _)| before)
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
            assert_eq!(super::line(line).ok(), wanted, "{line}");
        }
    }
}
