//! The crates: docs/dependencies.md has each that Cargo.toml names, and Cargo.toml the Rust that they all need.

use serde_json::Value;
use std::process::Command;

const MANIFEST: &str = include_str!("../../Cargo.toml");
const LOCK: &str = include_str!("../../Cargo.lock");
const DOCUMENT: &str = include_str!("../../docs/dependencies.md");

/// The crates that the manifest names, those of the build included.
fn named() -> Vec<&'static str> {
    let sections =
        MANIFEST.split("\n[").filter(|section| section.split(']').next().unwrap().ends_with("dependencies"));
    let lines = sections.flat_map(str::lines).filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.split_once(" = ")?.0)).collect()
}

/// The cells of a crate's row in the document.
fn row(name: &str) -> Vec<&'static str> {
    let begin = format!("| `{name}` ");
    let row = DOCUMENT.lines().find(|line| line.starts_with(&begin));
    let row = row.unwrap_or_else(|| panic!("docs/dependencies.md has no row for {name}"));
    row.trim_matches('|').split('|').map(str::trim).collect()
}

#[test]
fn each_crate_has_a_row_with_its_version_its_date_and_its_reason() {
    let names = named();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        let cells = row(name);
        assert_eq!(cells.len(), 8, "{name}: {cells:?}");
        let version = cells[0].rsplit(' ').next().unwrap();
        let entry = format!("name = \"{name}\"\nversion = \"{version}\"\n");
        assert!(LOCK.contains(&entry), "{name}: Cargo.lock does not have {version}");
        let is_date = jiff::civil::Date::strptime("%Y-%m-%d", cells[3]).is_ok();
        assert!(is_date, "{name}: {} is no date", cells[3]);
        assert!(cells[1].len() > 10 && cells[7].len() > 2, "{name}: what for, and why: {cells:?}");
    }
}

#[test]
fn the_manifest_asks_for_the_rust_that_its_crates_need() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--locked", "--offline", "--format-version=1"]);
    cargo.args(["--filter-platform", "x86_64-unknown-linux-gnu"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let version = |package: &Value| -> Vec<u32> {
        let text = package["rust_version"].as_str().unwrap_or("1.0");
        text.split('.').map(|number| number.parse().unwrap()).collect()
    };
    let packages = metadata["packages"].as_array().unwrap();
    let own = version(packages.iter().find(|package| package["name"] == "tinytasks").unwrap());
    for package in packages {
        let needed = version(package);
        assert!(needed[..2] <= own[..2], "{} {} needs Rust {needed:?}", package["name"], package["version"]);
    }
    let image = include_str!("../../deploy/Containerfile").split_once("FROM rust:").unwrap().1;
    let of_image = image.split_once('-').unwrap().0.split('.').map(|number| number.parse().unwrap());
    assert!(own[..2] <= of_image.collect::<Vec<u32>>()[..], "the image is built with an older Rust: {image}");
}
