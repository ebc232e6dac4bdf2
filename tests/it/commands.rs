//! `--config`, `--help` of each command, `config`, `healthcheck`, and what `check` finds before
//! `serve` meets it.

use crate::support::{
    certificates::make_pair,
    harness::{App, Database, Directory, Outcome, binary, eventually, run, run_binary},
    token::{HEADER, SECRET, base64url, now, sign, sign_parts, sign_text, token},
};
use serde_json::json;
use std::{
    ffi::OsStr,
    fs::File,
    net::{TcpListener, TcpStream},
    os::unix::ffi::OsStrExt,
    path::Path,
};

const COMMANDS: [&str; 8] =
    ["serve", "config", "check", "healthcheck", "migrate", "token", "export", "purge"];
const OTHER_SECRET: &str = "another secret, which is 44 bytes long, fine";

#[track_caller]
fn succeeds(outcome: &Outcome) {
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
}

/// A configuration that is never served: a free port, and a database that no test asks.
fn variables<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut variables =
        vec![("DATABASE_URL", "postgres://u:pa55word@127.0.0.1:1/db"), ("JWT_SECRET_KEY", SECRET)];
    variables.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
    variables.extend(more);
    variables
}

#[test]
fn each_command_has_help_that_needs_no_configuration() {
    let all = run_binary(&["--help"], &[]);
    succeeds(&all);
    for command in COMMANDS {
        let line = if command == "serve" { "[serve]" } else { command };
        assert!(all.stdout.contains(&format!("\n  tinytasks {line} ")), "{command}");
        let texts = [&[command, "--help"][..], &[command, "-h"], &["help", command]].map(|arguments| {
            let outcome = run_binary(arguments, &[]);
            succeeds(&outcome);
            outcome.stdout
        });
        assert!(texts[0].starts_with("usage: tinytasks ") && texts[0].contains(command), "{texts:?}");
        assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
        assert!(texts[0].lines().all(|line| line.len() <= 100), "{texts:?}");
    }
    for arguments in [&["nothing", "--help"][..], &["help", "nothing"]] {
        assert_eq!(run_binary(arguments, &[]).code, Some(2));
    }
}

#[test]
fn a_configuration_file_takes_the_place_of_dot_env_for_every_command() {
    let database = Database::create();
    let directory = Directory::create();
    directory.write(".env", "PORT=nonsense\n");
    let text = format!("# a comment\nDATABASE_URL=\"{}\"\nJWT_SECRET_KEY='{SECRET}'\nPORT=0\n", database.url);
    let file = directory.write("tinytasks.conf", &text);
    let with = |arguments: &[&str]| {
        let mut command = binary(&directory);
        command.args(["--config", &file]).args(arguments);
        run(command)
    };
    succeeds(&with(&["migrate"]));
    succeeds(&with(&["check"]));
    succeeds(&with(&["token", "--user", "alice"]));
    succeeds(&with(&["export", "--user", "alice"]));
    let config = with(&["config"]);
    succeeds(&config);
    let is_from_file = |line: &str| line.starts_with("PORT=0 ") && line.ends_with(&format!("# {file}"));
    assert!(config.stdout.lines().any(is_from_file), "{config:?}");
    // Without `--config`, the other file is used.
    let mut command = binary(&directory);
    command.args(["check"]).envs(variables(&[]));
    assert!(run(command).stderr.starts_with("PORT: "));
    for arguments in [&["--config"][..], &["check", "--config", &file], &["check", "--config=x"]] {
        assert_eq!(run_binary(arguments, &variables(&[])).code, Some(2), "{arguments:?}");
    }
    let missing = run_binary(&["--config", "/nothing/here", "check"], &variables(&[]));
    assert_eq!(missing.code, Some(2), "{missing:?}");
    assert!(missing.stderr.starts_with("/nothing/here: cannot be read"), "{missing:?}");
}

#[test]
fn config_prints_what_is_in_force_and_where_it_came_from_and_no_secret() {
    let directory = Directory::create();
    directory.write(".env", "CORS_ORIGINS=https://a.example # ours\nPORT=1\n");
    let secret = directory.write("secret", &format!("{SECRET}\n"));
    let mut command = binary(&directory);
    command.arg("config").env("DATABASE_URL", "postgres://u:pa55word@127.0.0.1:1/db").env("PORT", "8123");
    command.env("JWT_SECRET_KEY_FILE", &secret).env("JWT_ISSUER", "two words");
    let outcome = run(command);
    succeeds(&outcome);
    for (setting, origin) in [
        ("DATABASE_URL=(hidden)", "environment"),
        ("JWT_SECRET_KEY=(hidden)", &*secret),
        ("PORT=8123", "environment"),
        ("HOST=127.0.0.1", "default"),
        ("CORS_ORIGINS=https://a.example", ".env"),
        ("JWT_ISSUER=\"two words\"", "environment"),
        ("IDLE_TIMEOUT_SECONDS=75", "default"),
        ("RATE_LIMIT=", "default"),
    ] {
        let fits = |line: &str| {
            line.split_once(" # ").is_some_and(|(left, right)| left.trim_end() == setting && right == origin)
        };
        assert!(outcome.stdout.lines().any(fits), "{setting} {origin}: {}", outcome.stdout);
    }
    assert!(!outcome.stdout.contains("pa55word") && !outcome.stdout.contains(SECRET), "{outcome:?}");
    // An invalid variable is named on standard error.
    let outcome = run_binary(&["config"], &variables(&[("PORT", "x")]));
    assert_eq!((outcome.code, outcome.stderr.lines().count()), (Some(2), 1), "{outcome:?}");
    assert!(outcome.stdout.contains("DATABASE_POOL_SIZE=16"), "{outcome:?}");
}

/// `.env.example` names every variable that the service reads, and no other.
#[test]
fn the_example_has_every_variable_with_its_default() {
    let example =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(".env.example")).unwrap();
    let outcome = run_binary(&["config"], &variables(&[]));
    let names: Vec<&str> = outcome.stdout.lines().filter_map(|line| line.split('=').next()).collect();
    assert!(names.len() > 20, "{outcome:?}");
    for name in &names {
        let mut lines = example.lines().map(|line| line.trim_start_matches("# "));
        assert!(lines.any(|line| line.starts_with(&format!("{name}="))), "{name} is not in .env.example");
    }
    for line in example.lines() {
        let assignment = line.trim_start_matches("# ");
        let Some((name, value)) = assignment.split_once('=').filter(|(name, _)| !name.contains(' ')) else {
            continue;
        };
        let name = name.strip_suffix("_FILE").filter(|_| !names.contains(&name)).unwrap_or(name);
        assert!(names.contains(&name), "{name} is no variable");
        let default = outcome.stdout.lines().find(|line| line.starts_with(&format!("{name}="))).unwrap();
        if default.ends_with("# default")
            && default.split(" # ").next().unwrap().trim_end() != format!("{name}=")
        {
            assert!(default.starts_with(&format!("{name}={value} ")), "{line}: {default}");
        }
    }
    // With its commented lines made real, the file is a valid configuration.
    let directory = Directory::create();
    let file = directory.write("example", &example);
    let outcome = run_binary(&["--config", &file, "config"], &variables(&[]));
    assert_eq!(outcome.stderr, "", "{outcome:?}");
}

#[test]
fn healthcheck_asks_the_service_at_its_own_address() {
    let app = App::spawn();
    let port = app.address.rsplit(':').next().unwrap();
    let healthy = run_binary(&["healthcheck"], &variables(&[("PORT", port)]));
    succeeds(&healthy);
    assert!(healthy.stdout.contains("\"healthy\""), "{healthy:?}");
    let everywhere = run_binary(&["healthcheck"], &variables(&[("PORT", port), ("HOST", "0.0.0.0")]));
    succeeds(&everywhere);

    let sick = App::setup().env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing").unhealthy().spawn();
    let port = sick.address.rsplit(':').next().unwrap();
    let outcome = run_binary(&["healthcheck"], &variables(&[("PORT", port)]));
    assert_eq!((outcome.code, outcome.stdout.contains("\"unhealthy\"")), (Some(1), true), "{outcome:?}");

    let nobody = run_binary(&["healthcheck"], &variables(&[("PORT", "1")]));
    assert_eq!(nobody.code, Some(1), "{nobody:?}");
    assert!(nobody.stderr.contains("127.0.0.1:1"), "{nobody:?}");
    let unknown = run_binary(&["healthcheck"], &variables(&[("PORT", "0")]));
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
}

#[test]
fn healthcheck_asks_over_a_unix_socket_too() {
    let directory = Directory::create();
    let host = format!("unix:{}/http", directory.path().display());
    let app = App::setup().env("HOST", &host).spawn();
    succeeds(&run_binary(&["healthcheck"], &variables(&[("HOST", &host)])));
    drop(app);
    assert_eq!(run_binary(&["healthcheck"], &variables(&[("HOST", &host)])).code, Some(1));
}

#[test]
fn healthcheck_over_https_takes_the_certificate_of_the_service_and_no_other() {
    let files = Directory::create();
    let [cert, key] = make_pair(&files, "own");
    let [other, _] = make_pair(&files, "other");
    let setup = App::setup().env("TLS_CERT_FILE", &cert).env("TLS_KEY_FILE", &key).unhealthy();
    let app = setup.spawn();
    let port = app.address.rsplit(':').next().unwrap();
    let check = |cert: &str| {
        run_binary(
            &["healthcheck"],
            &variables(&[("PORT", port), ("TLS_CERT_FILE", cert), ("TLS_KEY_FILE", &key)]),
        )
    };
    eventually("health", || check(&cert).code == Some(0));
    let outcome = check(&other);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("not that of TLS_CERT_FILE"), "{outcome:?}");
}

#[test]
fn check_finds_an_address_that_cannot_be_had() {
    let database = Database::create();
    run_binary(&["migrate"], &[("DATABASE_URL", &database.url)]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let port = address.port().to_string();
    let check = |more: &[(&'static str, &str)]| {
        let more: Vec<_> = [&[("DATABASE_URL", database.url.as_str())], more].concat();
        let mut variables = vec![("JWT_SECRET_KEY", SECRET)];
        variables.extend(more);
        run_binary(&["check"], &variables)
    };
    // The program that has the port does not answer, and closes the connection.
    let answering = std::thread::spawn(move || drop(taken.accept()));
    let outcome = check(&[("PORT", &port)]);
    // If `check` has not connected, the thread is still waiting, and this connection ends its wait.
    let _ = TcpStream::connect(address);
    answering.join().unwrap();
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.starts_with(&format!("address: cannot listen on {address}")), "{outcome:?}");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = taken.local_addr().unwrap().to_string();
    let outcome = check(&[("PORT", "0"), ("ADMIN_ADDR", &admin)]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("ADMIN_ADDR") && outcome.stderr.contains(&admin), "{outcome:?}");
    drop(taken);
    for (host, admin) in
        [("127.0.0.1", "127.0.0.1:8000"), ("0.0.0.0", "127.0.0.1:8000"), ("localhost", "0.0.0.0:8000")]
    {
        let outcome = check(&[("HOST", host), ("ADMIN_ADDR", admin)]);
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.stderr.starts_with("ADMIN_ADDR: "), "{outcome:?}");
    }
    // The service itself may run while its configuration is examined.
    let app = App::spawn();
    let outcome = check(&[("PORT", app.address.rsplit(':').next().unwrap())]);
    succeeds(&outcome);
    assert!(outcome.stdout.contains("is that of a running tinytasks"), "{outcome:?}");
}

#[test]
fn a_name_that_looks_like_ours_is_a_warning_of_check_and_of_serve() {
    let database = Database::create();
    run_binary(&["migrate"], &[("DATABASE_URL", &database.url)]);
    let more = [("DATABASE_URL", database.url.as_str()), ("CORS_ORIGIN", "https://a.example"), ("PORT", "0")];
    let outcome = run_binary(&["check"], &variables(&more));
    succeeds(&outcome);
    let warning = "warning: CORS_ORIGIN: is no variable of tinytasks; did you mean CORS_ORIGINS?";
    assert!(outcome.stdout.lines().any(|line| line == warning), "{outcome:?}");
    let app = App::setup().env("TINYTASKS_PORT", "1").spawn();
    let line = app.wait_for_log(|line| line.contains("TINYTASKS_PORT"));
    assert!(line.contains(" WARN ") && line.contains("did you mean PORT?"), "{line}");
}

#[test]
fn a_secret_that_public_sources_print_is_refused_by_every_command() {
    for (name, value) in [
        ("BETTER_AUTH_SECRET", "better-auth-secret-12345678901234567890"),
        ("JWT_SECRET_KEY", "better-auth-secret-12345678901234567890"),
        ("JWT_SECRET_KEY", "\"better-auth-secret-12345678901234567890\""),
        ("JWT_SECRET_KEY_PREVIOUS", "changeme-changeme-changeme-changeme"),
        ("JWT_SECRET_KEY", "a-string-secret-at-least-256-bits-long"),
    ] {
        let mut variables = variables(&[(name, value)]);
        if name == "BETTER_AUTH_SECRET" {
            variables.retain(|(name, _)| *name != "JWT_SECRET_KEY");
        }
        for arguments in [&["serve"][..], &["check"], &["token", "--user", "alice"]] {
            let outcome = run_binary(arguments, &variables);
            assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{outcome:?}");
            let complaint = format!("{name}: is a placeholder or default that public sources print");
            assert!(outcome.stderr.starts_with(&complaint), "{outcome:?}");
            assert!(!outcome.stderr.contains(value), "{outcome:?}");
        }
    }
}

#[test]
fn a_value_that_still_has_its_quotes_is_a_warning() {
    let quoted = format!("\"{SECRET}\"");
    let app = App::setup().env("JWT_SECRET_KEY", &quoted).spawn();
    let line = app.wait_for_log(|line| line.contains("quotation marks around it"));
    assert!(line.contains(" WARN ") && !line.contains(SECRET), "{line}");
    // The quotation marks are part of the value, as the warning says.
    let token = |secret| sign(secret, &json!({"user_id": "alice", "exp": now() + 60}));
    let status = |secret| app.get("/api/alice/tasks").bearer(&token(secret)).send().status;
    assert_eq!((status(&*quoted), status(SECRET)), (200, 401));
    let outcome = run_binary(&["check"], &variables(&[("PORT", "\"8000\"")]));
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert!(outcome.stderr.contains("without quotation marks"), "{outcome:?}");
}

#[test]
fn an_unescaped_at_in_the_url_is_explained() {
    for url in ["postgres://u:pa@55word@127.0.0.1:1/db", "postgres://u@x:pa55word@127.0.0.1:1/db"] {
        let outcome = run_binary(&["check"], &variables(&[("DATABASE_URL", url)]));
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(
            outcome.stderr.starts_with("DATABASE_URL: ") && outcome.stderr.contains("%40"),
            "{outcome:?}"
        );
        assert!(!outcome.stderr.contains("55word"), "{outcome:?}");
    }
}

#[test]
fn a_host_may_be_a_name_and_the_log_says_what_was_bound() {
    for host in ["localhost", "LOCALHOST", "127.0.0.1"] {
        let app = App::setup().env("HOST", host).spawn();
        assert!(
            app.address.starts_with("127.0.0.1:") || app.address.starts_with("[::1]:"),
            "{}",
            app.address
        );
        app.get("/health").send().expect(200);
    }
    for host in ["no host", "127.0.0.256", "localhost:8000", "http://localhost", "1", ""] {
        let outcome = run_binary(&["check"], &variables(&[("HOST", host)]));
        assert_eq!(outcome.stderr.starts_with("HOST: "), !host.is_empty(), "{host}: {outcome:?}");
    }
}

#[test]
fn the_idle_timeout_is_a_number_of_seconds_from_5_to_3600() {
    for (value, is_good) in
        [("5", true), ("3600", true), ("4", false), ("3601", false), ("75s", false), ("-5", false)]
    {
        let outcome = run_binary(&["config"], &variables(&[("IDLE_TIMEOUT_SECONDS", value)]));
        assert_eq!(outcome.code == Some(0), is_good, "{value}: {outcome:?}");
        assert_eq!(outcome.stderr.starts_with("IDLE_TIMEOUT_SECONDS: "), !is_good, "{value}: {outcome:?}");
    }
}

/// `token --explain` with this on standard input.
fn explain(input: &str) -> Outcome {
    explain_with(input, &[])
}

fn explain_with(input: &str, variables: &[(&str, &str)]) -> Outcome {
    let directory = Directory::create();
    let stdin = File::open(directory.write("stdin", input)).unwrap();
    let mut command = binary(&directory);
    command.args(["token", "--explain"]).env("JWT_SECRET_KEY", SECRET).stdin(stdin);
    command.envs(variables.iter().copied());
    run(command)
}

#[test]
fn explain_shows_the_issuer_and_the_audience_that_a_token_has_beside_those_that_count() {
    let variables = [("JWT_ISSUER", "https://a.example"), ("JWT_AUDIENCE", "tasks")];
    for (changes, remedy) in [
        (
            json!({"iss": "https://a.example/"}),
            r#"the token's iss is "https://a.example/", and JWT_ISSUER is "https://a.example": make them equal, character for character"#,
        ),
        (
            json!({"iss": "a\u{9b}b"}),
            r#"the token's iss is "a\u{9b}b", and JWT_ISSUER is "https://a.example": make them equal, character for character"#,
        ),
        (
            json!({}),
            r#"the token has no iss: have the issuer set it to "https://a.example", or set JWT_ISSUER=* to take any"#,
        ),
        (
            json!({"iss": "https://a.example", "aud": ["web", 1]}),
            r#"the token's aud is ["web",1], and JWT_AUDIENCE is "tasks": make them equal, character for character"#,
        ),
        (
            json!({"iss": "https://a.example"}),
            r#"the token has no aud: have the issuer set it to "tasks", or set JWT_AUDIENCE=* to take any"#,
        ),
    ] {
        let mut claims = json!({"user_id": "alice", "exp": now() + 60});
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let outcome = explain_with(&sign(SECRET, &claims), &variables);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(1), ""), "{outcome:?}");
        let lines: Vec<_> = outcome.stdout.lines().collect();
        assert_eq!(lines[1..], [format!("remedy: {remedy}")], "{outcome:?}");
    }
}

#[test]
fn explain_understands_a_token_as_people_copy_it() {
    let token = sign(SECRET, &json!({"user_id": "alice", "exp": now() + 600}));
    let (first, second) = token.split_at(60);
    for (input, removed) in [
        (token.clone(), None),
        (format!("\n{token}\n"), None),
        (format!("Bearer {token}"), Some("the scheme Bearer")),
        (format!("Authorization: Bearer {token}\r\n"), Some("the name of the header, the scheme Bearer")),
        (format!("\"{token}\""), Some("quotation marks")),
        (format!("{first}\n  {second}\n"), Some("white space inside the token")),
    ] {
        let outcome = explain(&input);
        succeeds(&outcome);
        let lines: Vec<&str> = outcome.stdout.lines().collect();
        let wanted = removed.map(|removed| format!("removed before judging: {removed}"));
        assert_eq!(
            lines.first().filter(|_| lines.len() > 1).map(|line| (*line).to_owned()),
            wanted,
            "{outcome:?}"
        );
        assert!(lines.last().unwrap().starts_with("accepted: user \"alice\", until 2"), "{outcome:?}");
    }
}

#[test]
fn explain_says_what_to_do_where_the_reason_leaves_that_open() {
    for (token, reason, remedy) in [
        (
            sign(OTHER_SECRET, &json!({"user_id": "alice", "exp": now() + 60})),
            "the token's signature was not made with the configured secret",
            "give issuer and service the same secret",
        ),
        (sign(SECRET, &json!({"user_id": "alice"})), "the token has no exp", "in seconds since 1970"),
        (
            sign_text(SECRET, r#"{"alg":"RS256"}"#, "{}"),
            "no key is configured for the token's alg",
            "no other algorithm",
        ),
        ("nonsense".to_owned(), "the token is not three parts", "begins with eyJ"),
        (format!("{0}.{0}", token("alice")), "the token is not three parts", "begins with eyJ"),
        (
            sign_parts(SECRET, &format!("{}.eyJhI", base64url(HEADER.as_bytes()))),
            "the token is not three parts",
            "begins with eyJ",
        ),
        (
            sign_text(SECRET, HEADER, r#"{"user_id":"alice","exp":1}"#),
            "the token expired at 1970-01-01T00:00:01Z",
            "remedy: get a new token; if this one is new, set the clocks of issuer and service right\n",
        ),
        (
            sign_text(SECRET, r#"{"alg":"HS256","typ":"JOSE"}"#, "{}"),
            "the token's typ is not JWT",
            "set typ to JWT or leave it out",
        ),
        (
            sign(SECRET, &json!({"user_id": 7, "sub": "alice", "exp": now() + 60})),
            "the token's user is not a string",
            "sub counts only where there is no user_id",
        ),
    ] {
        let outcome = explain(&token);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(1), ""), "{outcome:?}");
        assert!(outcome.stdout.starts_with(&format!("refused: {reason}")), "{outcome:?}");
        assert!(outcome.stdout.contains(remedy), "{outcome:?}");
        assert!(!outcome.stdout.contains(SECRET) && !outcome.stdout.contains(OTHER_SECRET), "{outcome:?}");
    }
}

#[test]
fn a_variable_that_is_not_utf_8_has_one_line() {
    let directory = Directory::create();
    let mut command = binary(&directory);
    command.arg("migrate").env("DATABASE_URL", OsStr::from_bytes(b"postgres://\xff"));
    let outcome = run(command);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert_eq!(outcome.stderr, "DATABASE_URL: is not UTF-8; give text\n");
}
