//! The structural rules that a reader cannot see: who may name what, how SQL is written, and that
//! the version has a heading in the changelog.

use std::{fs, path::Path};

const LINES_MAX: usize = 300;
/// A ceiling against growth. The aim is 2,500.
const LINES_MAX_ALL: usize = 7500;

/// Path below the repository, and the text without `#[cfg(test)]` and what follows it.
fn sources() -> Vec<(String, String)> {
    fn collect(directory: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap().to_owned();
                let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
                found.push((name.to_str().unwrap().to_owned(), code));
            }
        }
    }
    let mut found = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    found.sort();
    assert!(found.len() > 5);
    found
}

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The numbered lines without comments. (In a string of ours no space stands before `//`.)
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = |line: &'_ str| line.find(" //").map_or(line.len(), |start| start);
    let lines = text.lines().map(move |line| &line[..code(line)]);
    lines.enumerate().map(|(index, line)| (index + 1, line)).filter(|(_, line)| !line.starts_with("//"))
}

/// Whether the word is there, not as a part of a longer one.
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
        ("jwt_simple", "src/keys.rs src/token.rs"),
        ("httparse", "src/gate"),
        ("rustls", "src/gate src/store/tls.rs src/commands/healthcheck.rs"),
        ("rustls_native_certs", "src/store/tls.rs"),
        ("tokio_postgres_rustls", "src/store"),
        ("percent_encoding", "src/store/tls.rs src/http/request.rs src/http/tasks.rs"),
        ("signal_hook", "src/serve/mod.rs"),
        ("sd_notify", "src/systemd.rs"),
        ("listenfd", "src/systemd.rs"),
        ("env_logger", "src/logging.rs"),
        ("env::var", "src/config/source.rs"),
        ("env::var_os", "src/config/source.rs"),
        ("env::vars_os", "src/config/source.rs"),
        ("env::vars", "src/config/source.rs"),
        ("catch_unwind", "src/panic.rs"),
        ("tokio", "src/store/stream.rs"),
        ("set_hook", "src/logging.rs"),
    ] {
        for (name, text) in sources() {
            for (number, line) in code_lines(&text) {
                // A URL's scheme is no crate, nor is a name in a text.
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
    let mut count = 0;
    for (name, text) in sources() {
        let found = statements(&text);
        assert!(found.is_empty() || name.starts_with("src/store"), "{name} has SQL");
        // Files that look at the table as a whole; they serve no request.
        if ["schema", "check", "readiness"].iter().any(|file| name == format!("src/store/{file}.rs")) {
            continue;
        }
        for sql in found {
            count += 1;
            let is_insert = sql.starts_with("insert into tasks (user_id,") && sql.contains("values ($1,");
            let is_bound = sql.contains("where user_id = $1 ");
            assert!(is_insert || is_bound, "{name}: {sql}");
            assert_eq!(sql.matches(" tasks ").count(), 1, "{name}: one table, once: {sql}");
        }
    }
    assert!(count >= 6, "the rule has lost its sight: {count} statements");
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

/// The type argument of `docs/AUDIT.md`: who has a `Caller` was authorized, and the store asks for one.
#[test]
fn nobody_but_auth_makes_a_caller_and_the_store_asks_for_one() {
    let auth = read("src/auth.rs");
    assert!(auth.contains("behind us).\npub struct Caller {\n    user_id: UserId,\n}\n"), "its field");
    // A module inside would see the field.
    assert!(!auth.lines().any(|line| line.starts_with("mod ") || line.starts_with("pub mod ")));
    let body = |begin: &str| auth.split_once(begin).unwrap().1.split("\n}\n").next().unwrap();
    let of_caller = body("impl Caller {");
    assert_eq!((of_caller.matches("pub fn ").count(), of_caller.matches("Self {").count()), (1, 0));
    assert_eq!(body("pub fn authorize(").matches("Caller {").count(), 1);
    for (name, text) in sources() {
        // Its head, its methods, and the one place that makes one.
        let (count, wanted) = (text.matches("Caller {").count(), if name == "src/auth.rs" { 3 } else { 0 });
        assert_eq!(count, wanted, "{name}");
        assert!(!text.contains(" for Caller"), "{name} has another way to one");
        // The commands export and purge act for whoever has DATABASE_URL.
        if !name.starts_with("src/store/") || name == "src/store/privacy.rs" {
            continue;
        }
        assert!(!has_word(&text, "UserId") && !text.contains("pub mod "), "{name}");
        // What asks for tasks asks for them on behalf of somebody.
        for (index, _) in text.match_indices("fn ") {
            let signature = text[index..].split(['{', ';']).next().unwrap();
            let is_about_tasks = ["TaskId", "Page", "Content", "Patch", "user"];
            let is_about_tasks = is_about_tasks.iter().any(|word| has_word(signature, word));
            assert!(!is_about_tasks || signature.contains("caller: &"), "{name}: {signature}");
        }
    }
    let store = read("src/store/mod.rs");
    assert_eq!(store.matches("pool.query(").count(), 1, "one way to the statements");
    for method in ["list", "get", "insert", "update", "delete", "change", "tasks"] {
        let (_, signature) = store.split_once(&format!("fn {method}")).unwrap();
        assert!(signature.split('{').next().unwrap().contains("caller: &"), "{method}");
    }
}

/// What a reader cannot see: that there is none.
#[test]
fn what_is_said_to_be_absent_is_absent() {
    assert!(read("Cargo.toml").contains("\nunsafe_code = \"forbid\"\n"));
    for (word, homes) in [
        ("unsafe", ""),
        // No other program is run, and no file written but the socket's.
        ("Command", ""),
        ("File", ""),
        ("OpenOptions", ""),
        ("fs::write", ""),
        ("remove_file", "src/gate/listen.rs"),
        // Nobody is connected to but PostgreSQL, and ourselves.
        ("TcpStream", ""),
        ("ToSocketAddrs", "src/config.rs src/store/url.rs"),
        ("UnixStream", "src/gate/handout.rs"),
        ("connect_timeout", "src/gate/listen.rs src/store/url.rs src/commands/healthcheck.rs"),
        // Neither cookies nor redirects.
        ("Cookie", ""),
        ("Set-Cookie", ""),
        ("301", ""),
        ("302", ""),
        ("307", ""),
        ("308", ""),
        // No text in the place of a value, and no pattern that backtracks.
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

/// Clippy finds them (Cargo.toml); nobody may have told it to look away.
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
                // In a constant it is the compiler that would fail.
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
fn the_program_stays_small() {
    let lines = |text: &str| text.lines().count();
    let sources = sources();
    let long = sources.iter().filter(|(_, text)| lines(text) > LINES_MAX).map(|(name, _)| name.as_str());
    let all: usize = sources.iter().map(|(_, text)| lines(text)).sum();
    assert_eq!((long.collect(), all < LINES_MAX_ALL), (Vec::<&str>::new(), true), "src has {all} lines");
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
