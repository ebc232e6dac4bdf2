//! The files that are shipped beside the program agree with it. `scripts/package test` tests the package itself.

use crate::support::{
    certificates::make_pair,
    harness::{Directory, run_binary},
};
use std::fs;

fn read(name: &str) -> String {
    fs::read_to_string(format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn the_version_stands_in_the_manual_and_in_the_packages_changelog() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(read("deploy/tinytasks.8").lines().next().unwrap().contains(&format!("\"tinytasks {version}\"")));
    assert!(read("deploy/debian/changelog").starts_with(&format!("tinytasks ({version}-")));
}

#[test]
fn the_manual_knows_every_command() {
    let manual = read("deploy/tinytasks.8").replace('\\', "");
    let help = run_binary(&["--help"], &[]).stdout;
    let commands =
        help.lines().filter_map(|line| line.trim_start_matches("usage:").trim().strip_prefix("tinytasks "));
    let mut count = 0;
    for command in commands.filter(|command| !command.starts_with(['-', '['])) {
        let words: Vec<_> =
            command.split_whitespace().take_while(|word| !word.starts_with('[')).take(2).collect();
        let words = if words.get(1).is_some_and(|word| word.starts_with("--")) {
            words.join(" ")
        } else {
            words[0].to_owned()
        };
        assert!(manual.contains(&format!("tinytasks {words}")), "{words}: {help}");
        count += 1;
    }
    assert!(count >= 4, "{help}");
}

/// The service accepts each value that the file sets or suggests.
#[test]
fn the_example_configuration_is_taken() {
    // systemd puts the certificate where it is here.
    let files = Directory::create();
    let [cert, key] = make_pair(&files, "example");
    let text = read("deploy/tinytasks.conf")
        .replace("/run/credentials/tinytasks.service/cert.pem", &cert)
        .replace("/run/credentials/tinytasks.service/key.pem", &key)
        .replace(
            "/etc/tinytasks/database_url",
            &files.write("database_url", "postgres://nobody@127.0.0.1:1/x"),
        )
        .replace(
            "/etc/tinytasks/jwt_secret_key",
            &files.write("jwt_secret_key", crate::support::token::SECRET),
        );
    for is_suggested in [false, true] {
        let lines = text.lines().map(|line| if is_suggested { line.trim_start_matches('#') } else { line });
        let variables = lines.filter_map(|line| line.split_once('='));
        let variables =
            variables.filter(|(name, _)| name.chars().all(|char| char.is_ascii_uppercase() || char == '_'));
        let variables: Vec<_> = variables.collect();
        assert!(variables.len() > 2);
        let outcome = run_binary(&["check"], &variables);
        // The database is not there; nothing is said of a variable.
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stdout.contains("configuration: complete"), "{outcome:?}");
    }
}
