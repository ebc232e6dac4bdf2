//! Certificates of a test's own.

use crate::support::harness::Directory;
use std::process::Command;

/// A certificate that signs itself, and its key, both named after `name`.
pub fn make_pair(directory: &Directory, name: &str) -> [String; 2] {
    let files = ["cert", "key"].map(|kind| directory.write(&format!("{name}.{kind}"), ""));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    command.args(["-days", "2", "-subj", &format!("/CN={name}"), "-out", &files[0], "-keyout", &files[1]]);
    let output = command.output().expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    files
}
