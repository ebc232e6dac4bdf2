//! The rules of structure that a reader cannot see: which file may name which crate, how SQL is
//! written, how long files and functions may be, and that the version has a heading in the changelog.

use crate::statements::{COUNT, EXPORT, PURGE, STATEMENTS};
use std::{fs, path::Path};

/// Lines of one file of `src`, its unit tests not counted.
const SOURCE_LINES_MAX: usize = 300;
/// `limits.rs` may be longer, because it is a list in which a reader looks things up.
const LIMITS_LINES_MAX: usize = 340;
/// Lines of one file of tests.
const TEST_LINES_MAX: usize = 500;
/// Lines of one function of `src`, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// The path in the repository and the text of every Rust file below this folder.
fn rust_files(folder: &str) -> Vec<(String, String)> {
    fn collect(directory: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_str().unwrap();
                found.push((name.to_owned(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut found);
    found.sort();
    assert!(found.len() > 5);
    found
}

/// The files of `src`, each without its unit tests, which are at its end.
fn sources() -> Vec<(String, String)> {
    let mut files = rust_files("src");
    for (name, text) in &mut files {
        assert!(!text.contains("    #[cfg(test)]"), "{name}: what is only for tests belongs to its end");
        text.truncate(text.find("#[cfg(test)]").unwrap_or(text.len()));
    }
    files
}

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The numbered lines without comments. (No string in `src` has a space before `//`.)
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = |line: &'_ str| line.find(" //").map_or(line.len(), |start| start);
    let lines = text.lines().map(move |line| &line[..code(line)]);
    lines.enumerate().map(|(index, line)| (index + 1, line)).filter(|(_, line)| !line.starts_with("//"))
}

/// Whether the line contains the word, not as a part of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |char: Option<char>| char.is_some_and(|char| char.is_alphanumeric() || char == '_');
    line.match_indices(word).any(|(start, _)| {
        let (before, after) = (&line[..start], &line[start + word.len()..]);
        !is_part(before.chars().next_back()) && !is_part(after.chars().next())
    })
}

#[test]
fn a_crate_is_named_in_its_module_alone() {
    for (word, homes) in [
        ("tiny_http", "src/gate/handout.rs"),
        ("postgres", "src/store"),
        ("r2d2", "src/store"),
        ("r2d2_postgres", "src/store"),
        ("jwt_simple", "src/keys.rs src/jwks.rs src/token.rs src/commands/token.rs"),
        ("httparse", "src/gate"),
        ("rustls", "src/gate src/store/tls.rs src/commands/healthcheck.rs src/logging.rs"),
        ("x509_cert", "src/gate/x509.rs"),
        ("rustls_native_certs", "src/store/tls.rs"),
        ("tokio_postgres_rustls", "src/store"),
        ("percent_encoding", "src/store/tls.rs src/http/request.rs src/http/query.rs src/http/tasks.rs"),
        ("base64::", "src/http/cursor.rs"),
        ("xxhash_rust", "src/http/cursor.rs src/http/list.rs"),
        ("signal_hook", "src/serve/mod.rs"),
        ("preempt_rt", "src/serve/mod.rs"),
        ("sd_notify", "src/systemd.rs"),
        ("listenfd", "src/systemd.rs"),
        ("env_logger", "src/logging.rs"),
        ("env::var", "src/config/source.rs"),
        ("env::var_os", "src/config/source.rs"),
        ("env::vars_os", "src/config/source.rs"),
        ("env::vars", "src/config/source.rs"),
        ("catch_unwind", "src/threads.rs"),
        ("tokio", "src/store/stream.rs"),
        ("set_hook", "src/logging.rs"),
    ] {
        for (name, text) in sources() {
            for (number, line) in code_lines(&text) {
                // The scheme of a URL is not the name of a crate.
                let is_named = has_word(line, word) && !line.contains(&format!("{word}://"));
                let is_home = homes.split(' ').any(|home| name.starts_with(home));
                assert!(!is_named || is_home, "{name}:{number} names {word}: {line}");
            }
        }
    }
}

#[test]
fn a_panic_is_caught_in_one_place() {
    let calls =
        |text: &str| code_lines(text).map(|(_, line)| line.matches("catch_unwind(").count()).sum::<usize>();
    let count: usize = sources().iter().map(|(_, text)| calls(text)).sum();
    assert_eq!(count, 1);
}

/// The text of every string literal that is a statement on tasks.
fn statements(text: &str) -> Vec<String> {
    const VERBS: [&str; 6] = ["select ", "insert ", "update ", "delete ", "with ", "merge "];
    let mut found = Vec::new();
    let literals = text.split('"').skip(1).step_by(2);
    for literal in literals {
        let words = literal.split_whitespace().collect::<Vec<_>>().join(" ") + " ";
        let is_sql = VERBS.iter().any(|verb| words.to_lowercase().starts_with(verb));
        if is_sql && has_word(&words, "tasks") {
            found.push(words);
        }
    }
    found
}

#[test]
fn every_statement_on_tasks_carries_the_user_as_its_first_parameter() {
    for (name, text) in sources() {
        let found = statements(&text);
        assert!(found.is_empty() || name.starts_with("src/store"), "{name} has SQL");
        // These files examine the table as a whole and serve no request.
        let whole = ["schema", "check", "check/table", "examination"];
        if whole.iter().any(|file| name == format!("src/store/{file}.rs")) {
            continue;
        }
        // The statements of this file are checked below, in the form that PostgreSQL gets.
        if name == "src/store/statements.rs" {
            continue;
        }
        assert!(found.is_empty(), "{name} has SQL on tasks of its own: {found:?}");
    }
    let of_requests = STATEMENTS.iter().flat_map(|statement| [statement.sql(true), statement.sql(false)]);
    for sql in of_requests.chain([EXPORT, COUNT, PURGE]) {
        let sql = sql.split_whitespace().collect::<Vec<_>>().join(" ") + " ";
        let is_insert = sql.starts_with("insert into tasks (user_id,") && sql.contains("values ($1,");
        // No later condition can make the statement reach other users' rows.
        let others = sql.split_once("where user_id = $1 ").map(|(_, rest)| rest);
        let is_bound = others.is_some_and(|rest| rest.is_empty() || rest.starts_with("and "))
            || others.is_some_and(|rest| rest.starts_with("order by "));
        let is_widened = others.is_some_and(|rest| outside_parentheses(rest).contains(" or "));
        assert!(is_insert || is_bound && !is_widened, "{sql}");
        assert_eq!(sql.matches(" tasks ").count(), 1, "one table, once: {sql}");
    }
}

fn outside_parentheses(sql: &str) -> String {
    let mut depth = 0;
    let is_outside = |character: &char| {
        depth += i32::from(*character == '(') - i32::from(*character == ')');
        depth == 0
    };
    sql.chars().filter(is_outside).collect()
}

#[test]
fn no_statement_is_put_together_with_format() {
    const VERBS: [&str; 7] = ["select", "insert", "update", "delete", "alter", "create", "drop"];
    for (name, text) in sources() {
        for (index, _) in text.match_indices("format!(") {
            let argument = text[index + "format!(".len()..].trim_start().trim_start_matches('"');
            let first = argument.split_whitespace().next().unwrap_or_default().to_lowercase();
            assert!(!VERBS.contains(&first.as_str()), "{name}: format!({first}");
        }
    }
}

/// The type argument of `docs/AUDIT.md`: a `Caller` exists only after authorization, and the store requires one.
#[test]
fn nobody_but_auth_makes_a_caller_and_the_store_asks_for_one() {
    let auth = read("src/auth.rs");
    assert!(auth.contains("behind us).\npub struct Caller {\n    user_id: UserId,\n}\n"), "its field");
    // A module inside `auth` could access the private field.
    assert!(!auth.lines().any(|line| line.starts_with("mod ") || line.starts_with("pub mod ")));
    let body = |begin: &str| auth.split_once(begin).unwrap().1.split("\n}\n").next().unwrap();
    let of_caller = body("impl Caller {");
    assert_eq!((of_caller.matches("pub fn ").count(), of_caller.matches("Self {").count()), (1, 0));
    assert_eq!(body("pub fn authorize(").matches("Caller {").count(), 1);
    for (name, text) in sources() {
        // The three places are the struct, its `impl`, and the one place that makes a value.
        let (count, wanted) = (text.matches("Caller {").count(), if name == "src/auth.rs" { 3 } else { 0 });
        assert_eq!(count, wanted, "{name}");
        assert!(!text.contains(" for Caller"), "{name} has another way to one");
        // The commands export and purge need no `Caller`, because they act for the operator, who has DATABASE_URL.
        if !name.starts_with("src/store/") || name == "src/store/privacy.rs" {
            continue;
        }
        assert!(!has_word(&text, "UserId") && !text.contains("pub mod "), "{name}");
        // Every function that is about tasks takes the user whose tasks they are.
        for (index, _) in text.match_indices("fn ") {
            let signature = text[index..].split(['{', ';']).next().unwrap();
            let is_about_tasks = ["TaskId", "Page", "Content", "Patch", "user"];
            let is_about_tasks = is_about_tasks.iter().any(|word| has_word(signature, word));
            assert!(!is_about_tasks || signature.contains("caller: &"), "{name}: {signature}");
        }
    }
    let store = read("src/store/mod.rs");
    let count = |way| store.matches(way).count();
    assert_eq!((count("pool.query("), count("pool.execute(")), (1, 1), "two ways to the statements");
    for method in [
        "list<",
        "totals(",
        "get<",
        "insert<",
        "update<",
        "delete(",
        "update_many(",
        "delete_many(",
        "change<",
        "change_many(",
        "tasks<",
    ] {
        let (_, signature) = store.split_once(&format!("fn {method}")).unwrap();
        assert!(signature.split('{').next().unwrap().contains("caller: &"), "{method}");
    }
}

/// Checks what must not be in the code, because a reader cannot see that something is absent.
#[test]
fn what_is_said_to_be_absent_is_absent() {
    assert!(read("Cargo.toml").contains("\nunsafe_code = \"forbid\"\n"));
    for (word, homes) in [
        ("unsafe", ""),
        // The service runs no other program and writes no file, except the path of its socket.
        ("Command", ""),
        ("File", ""),
        ("OpenOptions", ""),
        ("fs::write", ""),
        ("remove_file", "src/gate/listen.rs"),
        // The service connects only to PostgreSQL and to itself.
        ("TcpStream", ""),
        ("ToSocketAddrs", "src/config.rs src/store/url.rs"),
        ("UnixStream", "src/gate/handout.rs"),
        ("connect_timeout", "src/gate/listen.rs src/store/url.rs src/commands/healthcheck.rs"),
        // The service uses neither cookies nor redirects.
        ("Cookie", ""),
        ("Set-Cookie", ""),
        ("301", ""),
        ("302", ""),
        ("307", ""),
        ("308", ""),
        // Values never become part of a statement's text, and there are no regular expressions, which could
        // backtrack.
        ("simple_query", "src/store/check.rs"),
        ("batch_execute", "src/store/schema.rs"),
        ("Regex", ""),
    ] {
        for (name, text) in sources() {
            for (number, line) in code_lines(&text).filter(|(_, line)| has_word(line, word)) {
                let is_home = homes.split(' ').any(|home| !home.is_empty() && name.starts_with(home));
                assert!(is_home, "{name}:{number} has {word}: {line}");
            }
        }
    }
}

/// Clippy reports code that may panic (Cargo.toml), and no file may silence these lints.
#[test]
fn what_may_panic_is_left_to_the_tests() {
    let manifest = read("Cargo.toml");
    for lint in ["unwrap_used", "expect_used", "panic", "indexing_slicing"] {
        assert!(manifest.contains(&format!("\n{lint} = ")), "{lint} is not on");
    }
    for (name, text) in sources() {
        for (number, line) in code_lines(&text) {
            for lint in
                ["unwrap_used", "expect_used", "panic", "indexing_slicing", "string_slice", "unreachable"]
            {
                let excused = line.contains("allow(") || line.contains("expect(clippy");
                assert!(!(excused && line.contains(lint)), "{name}:{number} {line}");
            }
            for word in ["panic!(", "todo!(", "unimplemented!(", "unreachable!(", "dbg!("] {
                assert!(!line.contains(word), "{name}:{number} {line}");
            }
            let is_const = line.trim_start().starts_with("const ") || line.contains(" const ");
            for word in [".unwrap()", ".expect("] {
                // In a constant, a failure is an error of compilation.
                assert!(!line.contains(word) || is_const, "{name}:{number} {line}");
            }
        }
    }
}

#[test]
fn every_module_says_first_what_it_is_for() {
    for (name, text) in sources() {
        assert!(text.starts_with("//! "), "{name}");
    }
}

#[test]
fn no_file_is_too_long() {
    for (files, lines_max) in [(sources(), SOURCE_LINES_MAX), (rust_files("tests"), TEST_LINES_MAX)] {
        for (name, text) in files {
            let lines = text.lines().count();
            let lines_max = if name == "src/limits.rs" { LIMITS_LINES_MAX } else { lines_max };
            assert!(lines <= lines_max, "{name} has {lines} lines; at most {lines_max} are allowed");
        }
    }
}

#[test]
fn no_function_is_too_long() {
    let mut count = 0;
    for (name, text) in sources() {
        for (number, function, lines) in functions(&text) {
            count += 1;
            let is_short = lines <= FUNCTION_LINES_MAX;
            assert!(
                is_short,
                "{name}:{number}: {function} has {lines} lines, more than {FUNCTION_LINES_MAX}"
            );
        }
    }
    assert!(count > 300, "only {count} functions were found");
}

/// Each function: the line it begins on, its name, and its number of lines. Its end is the first line
/// that begins with a closing brace at the indentation of the line with `fn`.
fn functions(text: &str) -> Vec<(usize, &str, usize)> {
    let lines: Vec<_> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let has_body_elsewhere = !line.ends_with('}') && !line.ends_with(';');
        let indentation = &line[..line.len() - line.trim_start().len()];
        let end = format!("{indentation}}}");
        let length = lines[index..].iter().position(|line| has_body_elsewhere && line.starts_with(&end));
        found.push((index + 1, name, length.unwrap_or(0) + 1));
    }
    found
}

/// The name of the function whose declaration begins on this line.
fn function_name(line: &str) -> Option<&str> {
    let (before, rest) = line.split_once("fn ")?;
    let is_declaration = before
        .split_whitespace()
        .all(|word| word.starts_with("pub") || ["const", "async", "unsafe", "extern"].contains(&word));
    let name = rest.split(['(', '<']).next()?;
    (is_declaration && !name.is_empty()).then_some(name)
}

#[test]
fn the_version_has_a_heading_in_the_changelog_and_stands_in_the_document() {
    let version = env!("CARGO_PKG_VERSION");
    let changelog = read("CHANGELOG.md");
    let is_heading = |line: &str| line.starts_with("## ") && has_version(line, version);
    assert!(changelog.lines().any(is_heading), "{version}");
    let document: serde_json::Value = serde_json::from_str(&read("openapi.json")).unwrap();
    assert_eq!(document["info"]["version"], version);
}

fn has_version(line: &str, version: &str) -> bool {
    line.split([' ', '[', ']', '(', ')']).any(|word| word.trim_start_matches('v') == version)
}
