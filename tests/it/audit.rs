//! What the documents for auditors name is there: each file, item and test of `docs/AUDIT.md`, of
//! `SECURITY.md` and of the README's table of threats. A renamed test must not leave a promise behind.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// By so many lines a file may have changed since its length was written down.
const LINES_OFF_MAX: usize = 15;
/// What the last cell of a claim begins with when it names no test.
const EXCUSES: [&str; 3] = ["none: ", "operator: ", "not applicable: "];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// All below that folder, as paths from the root.
fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let name = format!("{folder}/{}", entry.unwrap().file_name().into_string().unwrap());
        if root().join(&name).is_dir() { found.extend(files(&name)) } else { found.push(name) }
    }
    found.sort();
    found
}

/// What stands between backticks, fenced blocks and indented ones apart.
fn spans(text: &str) -> Vec<&str> {
    let lines = text.lines().filter(|line| !line.starts_with("    ") && !line.starts_with("```"));
    lines.flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

/// Cells of the rows of all tables, heads and rules apart, with the heading that they stand under.
fn rows(text: &str) -> Vec<(&str, Vec<&str>)> {
    let lines: Vec<_> = text.lines().collect();
    let (mut heading, mut rows) = ("", Vec::new());
    for (index, line) in lines.iter().enumerate() {
        if line.starts_with('#') {
            heading = line.trim_start_matches('#').trim();
        }
        let is_rule = |line: &str| line.starts_with("|-");
        let is_head = lines.get(index + 1).is_some_and(|next| is_rule(next));
        if line.starts_with('|') && !is_rule(line) && !is_head {
            let cells = line.trim_matches('|').split(" | ").map(str::trim);
            rows.push((heading, cells.collect()));
        }
    }
    rows
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|char| char.is_ascii_alphanumeric() || char == '_')
}

/// Whether a file of Rust defines it: `name`, or `Type::name`.
fn defines(file: &str, item: &str) -> bool {
    let text = read(file);
    let (of, name) = item.rsplit_once("::").map_or((None, item), |(of, name)| (Some(of), name));
    let is_end = |rest: &str| !rest.starts_with(|char: char| char.is_ascii_alphanumeric() || char == '_');
    let has = |kind: &str, name: &str| {
        let begin = format!("{kind} {name}");
        text.match_indices(&begin).any(|(at, _)| is_end(&text[at + begin.len()..]))
    };
    let kinds = ["fn", "struct", "enum", "trait", "const", "static", "static mut", "type"];
    let is_type_there = of.is_none_or(|of| {
        has("struct", of) || has("enum", of) || text.contains(&format!("impl {of} ")) || has("trait", of)
    });
    is_type_there && kinds.iter().any(|kind| has(kind, name))
}

/// Whether `tests/it/MODULE.rs` has a test of that name.
fn is_test(module: &str, name: &str) -> bool {
    let file = format!("tests/it/{module}.rs");
    let Ok(text) = fs::read_to_string(root().join(&file)) else {
        return false;
    };
    let Some((before, _)) = text.split_once(&format!("\nfn {name}()")) else {
        return false;
    };
    before.lines().rev().take_while(|line| line.starts_with("#[")).any(|line| line == "#[test]")
}

fn is_test_of_any_module(name: &str) -> bool {
    files("tests/it").iter().any(|file| is_test(Path::new(file).file_stem().unwrap().to_str().unwrap(), name))
}

/// `FILE.rs: ITEM`, the file below `src` unless it begins with `tests/`.
fn code(span: &str) -> Option<(String, &str)> {
    let (file, item) = span.split_once(".rs: ")?;
    let is_path = file.chars().all(|char| char.is_ascii_lowercase() || "_/".contains(char));
    let is_item = item.split("::").all(is_name);
    let folder = if file.starts_with("tests/") { "" } else { "src/" };
    (is_path && is_item).then(|| (format!("{folder}{file}.rs"), item))
}

/// `MODULE::TEST`.
fn test(span: &str) -> Option<(&str, &str)> {
    span.split_once("::").filter(|(module, name)| {
        let is_lower = |text: &str| is_name(text) && text.to_ascii_lowercase() == text;
        is_lower(module) && is_lower(name)
    })
}

fn is_path(span: &str) -> bool {
    const FOLDERS: [&str; 7] = ["src/", "tests/", "docs/", "scripts/", "deploy/", "examples/", ".ci/"];
    let is_plain = span.chars().all(|char| char.is_ascii_alphanumeric() || "._/-".contains(char));
    let ends = [".rs", ".md", ".sql", ".toml", ".lock", "openapi.json"];
    let is_named = ends.iter().any(|end| span.ends_with(end));
    is_plain && (FOLDERS.iter().any(|folder| span.starts_with(folder)) || is_named)
}

#[test]
fn what_the_guide_names_is_there() {
    let guide = read("docs/AUDIT.md");
    let (mut items, mut tests, mut paths) = (0, 0, 0);
    for span in spans(&guide) {
        if let Some((file, item)) = code(span) {
            items += 1;
            assert!(defines(&file, item), "docs/AUDIT.md: {span}: {file} has no {item}");
        } else if let Some((module, name)) = test(span) {
            tests += 1;
            assert!(is_test(module, name), "docs/AUDIT.md: {span}: tests/it/{module}.rs has no such test");
        } else if is_path(span) {
            paths += 1;
            assert!(root().join(span).exists(), "docs/AUDIT.md: {span}: no such file");
        } else {
            let is_like_a_name = span.contains(".rs") || span.contains("::");
            assert!(!is_like_a_name, "docs/AUDIT.md: {span}: neither an item nor a test nor a file");
        }
    }
    assert!(items > 100 && tests > 100 && paths > 30, "{items} items, {tests} tests, {paths} paths");
}

/// Or says why there is none.
#[test]
fn each_claim_of_the_guide_names_a_test() {
    let guide = read("docs/AUDIT.md");
    let mut count = 0;
    for (heading, cells) in rows(&guide) {
        assert_eq!(cells.len(), 3, "{heading}: {cells:?}");
        if heading == "The path of a request" {
            continue;
        }
        count += 1;
        let proof = cells[2];
        let is_proven = spans(proof).into_iter().any(|span| test(span).is_some() || code(span).is_some());
        let is_excused = EXCUSES.iter().any(|excuse| proof.starts_with(excuse));
        assert!(is_proven || is_excused, "{heading}: {}: {proof}", cells[0]);
    }
    assert!(count > 100, "{count} claims");
}

/// Every file of `src`, once, with its length without `#[cfg(test)]` and what follows.
#[test]
fn the_path_of_a_request_leads_through_every_file() {
    let guide = read("docs/AUDIT.md");
    let mut seen = BTreeSet::new();
    for (_, cells) in rows(&guide).into_iter().filter(|(heading, _)| *heading == "The path of a request") {
        let name = spans(cells[0])[0].to_owned();
        let lines = read(&name).split("#[cfg(test)]").next().unwrap().lines().count();
        let said: usize = cells[1].parse().unwrap();
        assert!(said.abs_diff(lines) <= LINES_OFF_MAX, "{name} has {lines} lines, not {said}");
        assert!(seen.insert(name.clone()), "{name} is there twice");
    }
    let all: BTreeSet<_> = files("src").into_iter().filter(|name| name.ends_with(".rs")).collect();
    assert_eq!(all.difference(&seen).collect::<Vec<_>>(), Vec::<&String>::new(), "not in docs/AUDIT.md");
}

/// Names in `SECURITY.md` and in the README's tables are shorter: a file next to the one before it, a
/// module of tests, a test by its name alone.
#[test]
fn what_the_readme_and_the_threat_model_name_is_there() {
    let readme = read("README.md");
    let section = |begin: &str| {
        let (_, rest) = readme.split_once(begin).unwrap_or_else(|| panic!("README.md has no {begin}"));
        rest.split("\n## ").next().unwrap().to_owned()
    };
    let security = read("SECURITY.md");
    for (name, text) in [
        ("README.md", section("\n## Code tour\n")),
        ("README.md", section("\n## Security\n").split("\n### ").next().unwrap().to_owned()),
        ("SECURITY.md", security),
    ] {
        let mut count = 0;
        for line in text.lines() {
            count += names_of(name, line);
        }
        assert!(count > 10, "{name}: {count} names");
    }
}

/// Checks the names in a line, and counts them.
fn names_of(document: &str, line: &str) -> usize {
    let (mut count, mut folder) = (0, String::new());
    let mut is_list_of_tests = false;
    for (index, span) in line.split('`').enumerate() {
        if index % 2 == 0 {
            let is_between = [", ", " and ", ""].contains(&span);
            is_list_of_tests =
                span.ends_with("test ") || span.ends_with("tests ") || (is_list_of_tests && is_between);
            continue;
        }
        let there = |path: &str| root().join(path).exists();
        let is_there = if let Some((module, name)) = test(span) {
            is_test(module, name) || defines(&format!("src/{module}.rs"), name)
        } else if is_path(span) && !span.contains('/') && span.ends_with(".rs") {
            let beside = format!("{folder}/{span}");
            there(&beside) || there(&format!("tests/it/{span}"))
        } else if is_path(span) {
            folder = span.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
            there(span) || there(&format!("tests/it/{span}"))
        } else if is_list_of_tests {
            there(&format!("tests/it/{span}.rs")) || is_test_of_any_module(span)
        } else if is_name(span) && span.matches('_').count() > 3 {
            is_test_of_any_module(span)
        } else {
            continue;
        };
        assert!(is_there, "{document}: {span} is not there: {line}");
        count += 1;
    }
    count
}
