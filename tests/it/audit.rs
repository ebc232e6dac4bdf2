//! Checks that the documents speak of things that exist: each file, item and test of `docs/AUDIT.md`,
//! `SECURITY.md`, the README and the pages in `docs`, each variable, each link. When a test is renamed
//! or removed, the promise that it proved must not stay behind.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The headings of `docs/AUDIT.md` whose tables are about files. All other tables are about claims.
const CORE: &str = "The trusted core";
const REST: &str = "The rest of the code";
/// The last cell of a claim that names no test begins with one of these.
const EXCUSES: [&str; 3] = ["none: ", "operator: ", "not applicable: "];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// All files below that folder, as paths from the root.
fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let name = format!("{folder}/{}", entry.unwrap().file_name().into_string().unwrap());
        if root().join(&name).is_dir() { found.extend(files(&name)) } else { found.push(name) }
    }
    found.sort();
    found
}

/// The texts between backticks, without those in code blocks.
fn spans(text: &str) -> Vec<&str> {
    let lines = text.lines().filter(|line| !line.starts_with("    ") && !line.starts_with("```"));
    lines.flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

/// The cells of each row of each table, and the heading above the table. Heads of tables are left out.
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

/// Whether a Rust file defines an item, given as `name` or `Type::name`.
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

/// Whether the module has a test of that name. The module `framing::served` is the file
/// `tests/it/framing/served.rs`.
fn is_test(module: &str, name: &str) -> bool {
    let path = format!("tests/it/{}", module.replace("::", "/"));
    let candidates = [format!("{path}.rs"), format!("{path}/mod.rs")];
    candidates.iter().any(|file| has_test(file, name))
}

fn has_test(file: &str, name: &str) -> bool {
    let Ok(text) = fs::read_to_string(root().join(file)) else {
        return false;
    };
    let Some((before, _)) = text.split_once(&format!("\nfn {name}()")) else {
        return false;
    };
    before.lines().rev().take_while(|line| line.starts_with("#[")).any(|line| line == "#[test]")
}

fn is_test_of_any_module(name: &str) -> bool {
    files("tests/it").iter().any(|file| has_test(file, name))
}

fn is_metric(name: &str) -> bool {
    ["src/metrics.rs", "src/http/admin.rs"].iter().any(|file| read(file).contains(&format!("\"{name}\"")))
}

/// Splits `FILE.rs: ITEM`. The file is below `src` unless it begins with `tests/`.
fn code(span: &str) -> Option<(String, &str)> {
    let (file, item) = span.split_once(".rs: ")?;
    let is_path = file.chars().all(|char| char.is_ascii_lowercase() || "_/".contains(char));
    let is_item = item.split("::").all(is_name);
    let folder = if file.starts_with("tests/") { "" } else { "src/" };
    (is_path && is_item).then(|| (format!("{folder}{file}.rs"), item))
}

/// `MODULE::TEST`, where the module of a folder is `FOLDER::FILE`.
fn test(span: &str) -> Option<(&str, &str)> {
    let is_lower = |text: &str| is_name(text) && text.to_ascii_lowercase() == text;
    span.rsplit_once("::").filter(|_| span.split("::").all(is_lower))
}

fn is_path(span: &str) -> bool {
    const FOLDERS: [&str; 7] = ["src/", "tests/", "docs/", "scripts/", "deploy/", "examples/", ".ci/"];
    let is_plain = span.chars().all(|char| char.is_ascii_alphanumeric() || "._/-".contains(char));
    let ends = [".rs", ".md", ".sql", ".toml", ".lock", "openapi.json"];
    let is_named = ends.iter().any(|end| span.ends_with(end));
    let is_route = span.starts_with('/');
    is_plain && !is_route && (FOLDERS.iter().any(|folder| span.starts_with(folder)) || is_named)
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
            assert!(is_test(module, name), "docs/AUDIT.md: {span}: {module} in tests/it has no such test");
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

/// A claim without a test has to say why there is none.
#[test]
fn each_claim_of_the_guide_names_a_test() {
    let guide = read("docs/AUDIT.md");
    let mut count = 0;
    for (heading, cells) in rows(&guide) {
        assert_eq!(cells.len(), 3, "{heading}: {cells:?}");
        if [CORE, REST].contains(&heading) {
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

/// Each file is listed in the table of the core or in that of the rest. A file of which only some functions belong
/// to the core is in both.
#[test]
fn each_file_of_src_is_in_the_trusted_core_or_in_the_rest() {
    let guide = read("docs/AUDIT.md");
    let (mut whole, mut partly, mut rest) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (heading, cells) in rows(&guide) {
        for span in spans(cells[0]) {
            let is_new = match (heading, code(span)) {
                (CORE, Some((file, _))) => {
                    partly.insert(file);
                    true
                }
                (CORE, None) => whole.insert(span.to_owned()),
                (REST, None) => rest.insert(span.to_owned()),
                _ => continue,
            };
            assert!(is_new, "docs/AUDIT.md: {span} is there twice");
        }
    }
    let all: BTreeSet<_> = files("src").into_iter().filter(|name| name.ends_with(".rs")).collect();
    let named: BTreeSet<_> = whole.union(&rest).cloned().collect();
    assert_eq!(named, all, "the files of the two tables, and those of src");
    assert_eq!(whole.intersection(&rest).collect::<Vec<_>>(), Vec::<&String>::new(), "in both tables");
    assert_eq!(partly.difference(&rest).collect::<Vec<_>>(), Vec::<&String>::new(), "what else is in them");
    assert!(whole.len() > 5 && partly.len() > 3, "{whole:?}, {partly:?}");
}

/// `docs/AUDIT.md` says that no code that serves requests exports or purges.
#[test]
fn the_commands_alone_export_and_purge() {
    for name in files("src").into_iter().filter(|name| name.ends_with(".rs")) {
        let text = read(&name);
        let calls = ["store::export", "store::purge", "privacy::"].iter().any(|call| text.contains(call));
        assert_eq!(calls, ["src/commands.rs", "src/store/mod.rs"].contains(&name.as_str()), "{name}");
    }
}

/// The README and `docs/configuration.md` have a row for each variable, with its default.
#[test]
fn each_variable_is_explained_with_its_default() {
    let source = read("src/config/variables.rs");
    let literals = |line: &str| line.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let is_variable =
        |line: &&str| ["secret(\"", "plain(\""].iter().any(|call| line.trim().starts_with(call));
    let variables: Vec<_> = source.lines().filter(is_variable).map(literals).collect();
    assert!(variables.len() > 20, "{variables:?}");
    for document in ["README.md", "docs/configuration.md"] {
        let text = read(document);
        for variable in &variables {
            let rows: Vec<_> = rows(&text)
                .into_iter()
                .filter(|(_, cells)| spans(cells[0]).contains(&&*variable[0]))
                .collect();
            assert_eq!(rows.len(), 1, "{document}: {}", variable[0]);
            let default = variable.get(1).filter(|default| !default.is_empty());
            let is_given = default.is_none_or(|default| rows[0].1[1].replace('`', "").contains(default));
            assert!(is_given, "{document}: {}: {} does not say {default:?}", variable[0], rows[0].1[1]);
        }
    }
}

/// Checks the links within the repository: the file and the heading must exist.
#[test]
fn each_link_of_the_documents_leads_somewhere() {
    let pages = files("docs").into_iter().filter(|name| name.ends_with(".md"));
    let mut count = 0;
    for name in pages.chain(["README.md".to_owned(), "SECURITY.md".to_owned()]) {
        let text = read(&name);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            count += 1;
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let folder = Path::new(&name).parent().unwrap();
            let target = if file.is_empty() { PathBuf::from(&name) } else { folder.join(file) };
            assert!(root().join(&target).exists(), "{name}: {link}");
            let is_there = heading.is_empty() || headings(&read(target.to_str().unwrap())).contains(heading);
            assert!(is_there, "{name}: {link}: no such heading");
        }
    }
    assert!(count > 40, "{count} links");
}

/// The headings of a page in the form in which links name them.
fn headings(text: &str) -> BTreeSet<String> {
    let is_kept = |char: &char| char.is_alphanumeric() || "-_ ".contains(*char);
    let headings = text.lines().filter_map(|line| line.strip_prefix('#'));
    let slug = |line: &str| line.trim_start_matches('#').trim().to_lowercase();
    headings.map(|line| slug(line).chars().filter(is_kept).collect::<String>().replace(' ', "-")).collect()
}

/// In these documents names may be shorter: a file's name without its folder if the file before it is in the same
/// folder, a module of tests, or the name of a test without its module.
#[test]
fn what_the_readme_the_threat_model_and_the_pages_name_is_there() {
    let pages = ["configuration", "limits", "measurements", "observability", "testing", "tokens"];
    let pages = pages.map(|page| format!("docs/{page}.md")).into_iter();
    let mut total = 0;
    for name in pages.chain(["README.md".to_owned(), "SECURITY.md".to_owned()]) {
        let text = read(&name);
        let lines = text.lines().filter(|line| !line.starts_with("    "));
        let count: usize = lines.map(|line| names_of(&name, line)).sum();
        assert!(count > 0, "{name}: no name was found");
        total += count;
    }
    assert!(total > 70, "{total} names");
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
            there(&format!("tests/it/{span}.rs"))
                || there(&format!("tests/it/{span}"))
                || is_test_of_any_module(span)
        } else if is_name(span) && span.matches('_').count() > 3 {
            is_test_of_any_module(span) || is_metric(span)
        } else {
            continue;
        };
        assert!(is_there, "{document}: {span} is not there: {line}");
        count += 1;
    }
    count
}
