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

/// The content of a certificate of [`issue`].
pub struct Issued<'a> {
    pub name: &'a str,
    /// Its subjectAltName, as OpenSSL writes one: `DNS:localhost`.
    pub host: Option<&'a str>,
    /// Seconds since 1970, as is `end`.
    pub begin: i64,
    pub end: i64,
}

/// A certificate of any period that signs itself, and its key. A second one of the same name takes the
/// place of the first, with the same key.
pub fn issue(directory: &Directory, issued: &Issued) -> [String; 2] {
    let path = |kind: &str| directory.path().join(format!("{}.{kind}", issued.name));
    let path = |kind: &str| path(kind).to_str().unwrap().to_owned();
    let (cert, key, request, config) = (path("cert"), path("key"), path("request"), path("cnf"));
    let folder = directory.path().to_str().unwrap();
    let database = directory.write(&format!("{}.database", issued.name), "");
    let text = format!(
        "[ca]\ndefault_ca = own\n[own]\ndatabase = {database}\nserial = {database}.serial\n\
         new_certs_dir = {folder}\npolicy = any\ndefault_md = sha256\ncopy_extensions = copy\n\
         [any]\ncommonName = supplied\n"
    );
    std::fs::write(&config, text).unwrap();
    if !std::path::Path::new(&key).exists() {
        run(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &key]);
    }
    let subject = format!("/CN={}", issued.name);
    let mut arguments = vec!["req", "-new", "-key", &key, "-subj", &subject, "-out", &request];
    let extension = issued.host.map(|host| format!("subjectAltName={host}"));
    // Without any extension, openssl makes a certificate of X.509 version 1, which rustls refuses.
    arguments.extend(["-addext", extension.as_deref().unwrap_or("extendedKeyUsage=serverAuth")]);
    run(&arguments);
    let date = |seconds| jiff::Timestamp::from_second(seconds).unwrap().strftime("%Y%m%d%H%M%SZ").to_string();
    let (begin, end) = (date(issued.begin), date(issued.end));
    run(&[
        "ca",
        "-config",
        &config,
        "-selfsign",
        "-keyfile",
        &key,
        "-in",
        &request,
        "-batch",
        "-notext",
        "-create_serial",
        "-startdate",
        &begin,
        "-enddate",
        &end,
        "-out",
        &cert,
    ]);
    [cert, key]
}

fn run(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().expect("openssl is installed");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
