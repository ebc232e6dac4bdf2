//! "Configuration" and the commands: exit codes, one line for each bad variable, secrets that stay
//! secret.

use crate::support::{
    harness::{App, Database, Directory, Outcome, binary, by_shell, run, run_binary},
    token::SECRET,
};
use serde_json::{Value, json};

/// An address at which nobody listens.
const URL: &str = "postgres://user:pa55word@127.0.0.1:1/db";
const VERSION: &str = concat!("tinytasks ", env!("CARGO_PKG_VERSION"), "\n");

pub fn good() -> Vec<(&'static str, &'static str)> {
    vec![("DATABASE_URL", URL), ("JWT_SECRET_KEY", SECRET), ("PORT", "0")]
}

/// The valid variables with another value of this one. An empty value unsets it.
fn but<'a>(name: &'a str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut variables: Vec<_> = good().into_iter().filter(|(known, _)| *known != name).collect();
    if !value.is_empty() {
        variables.push((name, value));
    }
    variables
}

/// Asserts exit code 2, no standard output, and on standard error exactly one line for each of these names.
#[track_caller]
fn assert_complains(outcome: &Outcome, names: &[&str]) {
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{outcome:?}");
    let mut seen: Vec<_> =
        outcome.stderr.lines().map(|line| line.split_once(": ").map_or(line, |(name, _)| name)).collect();
    seen.sort_unstable();
    assert_eq!(seen, names, "{outcome:?}");
    for line in outcome.stderr.lines() {
        assert!(line.split(' ').count() > 3, "it says what is wrong and what would be right: {line}");
    }
}

/// The claims of a token, read without verifying it.
fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'-' => 62,
        _ => 63,
    };
    let mut bytes = Vec::new();
    for chunk in payload.as_bytes().chunks(4) {
        let group = chunk.iter().fold(0_u32, |group, byte| group << 6 | u32::from(digit(*byte)));
        let group = group << (6 * (4 - chunk.len()));
        bytes.extend(&group.to_be_bytes()[1..chunk.len()]);
    }
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn help_and_version_need_no_configuration() {
    for option in ["--help", "-h"] {
        let outcome = run_binary(&[option], &[]);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
        let commands = ["serve", "migrate", "check", "token", "--explain", "export", "purge"];
        for word in commands.iter().chain(&["--user", "--ttl", "--dry-run", "DATABASE_URL"]) {
            assert!(outcome.stdout.contains(word), "{word}");
        }
    }
    for arguments in [&["export", "--user", "alice", "--help"][..], &["token", "--user", "alice", "-h"]] {
        let outcome = run_binary(arguments, &[]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert!(outcome.stdout.contains("usage: ") && outcome.stdout.contains(arguments[0]), "{outcome:?}");
    }
    for option in ["--version", "-V"] {
        let outcome = run_binary(&[option], &[]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), VERSION));
    }
}

#[test]
fn a_bad_command_line_is_exit_code_2() {
    let longest = "x".repeat(256);
    for args in [
        &["nothing"][..],
        &["--nothing"],
        &["serve", "now"],
        &["migrate", "down"],
        &["check", "--fast"],
        &["--help", "--version"],
        &[""],
        &["token"],
        &["token", "alice"],
        &["token", "--user"],
        &["token", "--user", ""],
        &["token", "--user", &longest],
        &["token", "--user", "alice", "--ttl"],
        &["token", "--user", "alice", "--ttl", ""],
        &["token", "--user", "alice", "--ttl", "1"],
        &["token", "--user", "alice", "--ttl", "h"],
        &["token", "--user", "alice", "--ttl", "1w"],
        &["token", "--user", "alice", "--ttl", "0s"],
        &["token", "--user", "alice", "--ttl", "-1h"],
        &["token", "--user", "alice", "--ttl", "1.5h"],
        &["token", "--user", "alice", "--ttl", "0.5s"],
        &["token", "--user", "alice", "--user", "bob"],
        &["token", "--user", "alice", "--ttl", "1h", "--ttl", "2h"],
        &["token", "--user", "alice", "--ttl", "1 h"],
        &["token", "--user", "alice", "--ttl", "40000d"],
        &["token", "--user", "alice", "--ttl", "100000d"],
        &["token", "--user", "alice", "--ttl", "99999999999999999999d"],
        &["token", "--user", "alice", "--ttl", "1h\u{e9}"],
        &["token", "--user", "alice", "--x", "y"],
        &["token", "--explain", "x"],
        &["token", "--user", "alice", "--explain"],
    ] {
        let outcome = run_binary(args, &good());
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{args:?} {outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{args:?} {outcome:?}");
    }
}

#[test]
fn a_bad_variable_is_exit_code_2_and_one_line_that_names_it() {
    let same = "x".repeat(64);
    let short = "0123456789abcdef0123456789abcde";
    for (name, value) in [
        ("DATABASE_URL", ""),
        ("DATABASE_URL", "nonsense"),
        ("DATABASE_URL", "mysql://user:pa55word@127.0.0.1/db"),
        ("DATABASE_URL", "postgres://user:pa55word@127.0.0.1:99999/db"),
        ("DATABASE_URL", "postgres://user:pa55word@127.0.0.1/db?sslmode=pa55word"),
        ("DATABASE_URL", "postgres://user:pa55word@127.0.0.1/db?connect_timeout=pa55word"),
        // Passwords that begin with an x, and are not escaped.
        ("DATABASE_URL", "postgres://user:x?pa55word@127.0.0.1/db"),
        ("DATABASE_URL", "postgres://user:x?pa55word=pa55word@127.0.0.1/db"),
        ("DATABASE_URL", "postgres://user:x@pa55word:pa55word@127.0.0.1/db"),
        ("JWT_SECRET_KEY", ""),
        ("JWT_SECRET_KEY", short),
        ("JWT_SECRET_KEY", &same),
        ("BETTER_AUTH_SECRET", short),
        ("JWT_SECRET_KEY_PREVIOUS", short),
        ("JWT_SECRET_KEY_PREVIOUS", &same),
        ("JWT_LEEWAY_SECONDS", "61"),
        ("JWT_LEEWAY_SECONDS", "-1"),
        ("JWT_LEEWAY_SECONDS", "5s"),
        ("HOST", "no host"),
        ("HOST", "127.0.0.1:8000"),
        ("HOST", "127.0.0.256"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "http"),
        ("CORS_ORIGINS", "localhost:3000"),
        ("CORS_ORIGINS", "http://localhost:3000/"),
        ("CORS_ORIGINS", "http://localhost:3000/app"),
        ("CORS_ORIGINS", "http://user@localhost"),
        ("CORS_ORIGINS", "http://localhost?x"),
        ("CORS_ORIGINS", "http://a.example,*"),
        ("CORS_ORIGINS", "http://a.example,,http://b.example"),
        ("CORS_ORIGINS", "http://*.example"),
        ("CORS_ORIGINS", "null"),
        ("MAX_CONNECTIONS", "0"),
        ("MAX_CONNECTIONS", "many"),
        ("TRUSTED_PROXIES", "10.0.0.0/8"),
        ("DATABASE_POOL_SIZE", "0"),
        ("DATABASE_POOL_SIZE", "1001"),
        ("DATABASE_POOL_SIZE", "-1"),
        ("DATABASE_POOL_SIZE", "many"),
        ("DATABASE_PREPARED", "maybe"),
        ("DOCS", "off"),
        ("AUTO_MIGRATE", "1"),
        ("LOG_FORMAT", "xml"),
        ("RUST_LOG", "inof"),
        ("RUST_LOG", "info,tinytasks=all"),
        ("RUST_LOG", "=bogus="),
        ("RUST_LOG", "info,"),
        ("ADMIN_ADDR", "9100"),
        ("ADMIN_ADDR", "localhost:9100"),
        ("RATE_LIMIT", "0"),
        ("RATE_LIMIT", "-1"),
        ("RATE_LIMIT", "nan"),
        ("RATE_LIMIT", "inf"),
        ("RATE_LIMIT", "10/s"),
        ("REQUIRE_IF_MATCH", "yes"),
    ] {
        let mut variables = but(name, value);
        if name == "BETTER_AUTH_SECRET" {
            variables.retain(|(known, _)| *known != "JWT_SECRET_KEY");
        }
        let outcome = run_binary(&[], &variables);
        assert_complains(&outcome, &[name]);
        for secret in ["pa55word", SECRET, short, &same] {
            assert!(!outcome.stderr.contains(secret), "{outcome:?}");
        }
    }
}

#[test]
fn a_database_url_with_what_is_not_supported_is_refused_by_name() {
    for (query, word) in [
        ("sslmode=allow", "sslmode"),
        ("sslmode=", "sslmode"),
        ("sslmode=require&sslmode=disable", "sslmode"),
        ("sslmode=verify-ca", "verify-ca needs"),
        ("sslmode=verify-ca&sslrootcert=system", "verify-ca needs"),
        ("sslmode=pa55word&sslrootcert=system", "sslmode"),
        ("sslrootcert=pa55word", "sslrootcert"),
        ("sslmode=prefer&sslrootcert=pa55word", "sslrootcert"),
        ("sslmode=disable&sslrootcert=system", "sslrootcert"),
        ("sslmode=require&sslrootcert=system", "sslrootcert"),
        ("sslmode=verify-full&sslrootcert=pa55word", "sslrootcert"),
        ("sslmode=verify-full&sslrootcert=/dev/null", "sslrootcert"),
        ("sslmode=verify-full&sslrootcert=system&sslrootcert=system", "sslrootcert"),
        ("sslcert=pa55word", "sslcert"),
        ("sslkey=pa55word", "sslkey"),
        ("sslpassword=pa55word", "sslpassword"),
        ("sslcrl=pa55word", "sslcrl"),
        ("ssl_min_protocol_version=pa55word", "ssl_min_protocol_version"),
        ("sslnegotiation=pa55word", "sslnegotiation"),
        ("sslnegotiation=direct", "sslnegotiation"),
        ("gssencmode=require", "gssencmode"),
        ("require_auth=pa55word", "require_auth"),
        ("channel_binding=pa55word", "channel_binding"),
        ("sslmode=disable&channel_binding=require", "channel_binding"),
        ("channel_binding=require&channel_binding=disable", "channel_binding"),
        ("target_session_attrs=pa55word", "target_session_attrs"),
        ("passfile=pa55word", "passfile"),
        ("frobnicate=pa55word", "frobnicate"),
    ] {
        let url = format!("{URL}?{query}");
        for command in ["serve", "migrate", "check"] {
            let outcome = run_binary(&[command], &but("DATABASE_URL", &url));
            assert_complains(&outcome, &["DATABASE_URL"]);
            assert!(outcome.stderr.contains(word), "{query}: {outcome:?}");
            assert!(!outcome.stderr.contains("pa55word"), "{query}: {outcome:?}");
        }
    }
}

#[test]
fn a_root_certificate_that_cannot_be_read_is_named() {
    let files = Directory::create();
    let folder = files.path().display();
    let empty = files.write("empty", "");
    for (file, reason) in [
        (format!("{folder}/nothing"), "cannot be read: "),
        (empty.clone(), "has no certificate; give a file in PEM with the authority's certificate"),
    ] {
        let url = format!("{URL}?sslmode=verify-full&sslrootcert={file}");
        let outcome = run_binary(&["check"], &but("DATABASE_URL", &url));
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        let begin = format!("DATABASE_URL: sslrootcert: {file:?} {reason}");
        assert!(outcome.stderr.starts_with(&begin), "{outcome:?}");
    }
}

#[test]
fn all_bad_variables_are_named_at_once() {
    let variables = [
        ("JWT_SECRET_KEY", "secret"),
        ("PORT", "x"),
        ("CORS_ORIGINS", "x"),
        ("LOG_FORMAT", "x"),
        ("DOCS", "x"),
    ];
    let names = ["CORS_ORIGINS", "DATABASE_URL", "DOCS", "JWT_SECRET_KEY", "LOG_FORMAT", "PORT"];
    assert_complains(&run_binary(&[], &variables), &names);
    assert_complains(&run_binary(&["serve"], &variables), &names);
    assert_complains(&run_binary(&["check"], &variables), &names);
    assert_complains(&run_binary(&[], &[]), &["DATABASE_URL", "JWT_SECRET_KEY"]);
}

#[test]
fn a_secret_may_stand_in_a_file_and_then_not_in_the_variable() {
    let files = Directory::create();
    let database = Database::create();
    let url = files.write("url", &format!("{}\n", database.url));
    let secret = files.write("secret", &format!("{SECRET}\n"));
    let app = App::setup()
        .database(database)
        .unset("JWT_SECRET_KEY")
        .env("DATABASE_URL", "")
        .env("DATABASE_URL_FILE", &url)
        .env("JWT_SECRET_KEY_FILE", &secret)
        .spawn();
    app.user("alice").create("t");
    drop(app);

    for (name, content, is_good) in [
        ("none", SECRET.to_owned(), true),
        ("one", format!("{SECRET}\n"), true),
        ("one of another system", format!("{SECRET}\r\n"), true),
        ("two", format!("{SECRET}\n\n"), false),
        ("space", format!(" {SECRET}"), false),
    ] {
        let path = files.write(name, &content);
        let outcome = run_binary(&["token", "--user", "alice"], &[("JWT_SECRET_KEY_FILE", &path)]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let token = outcome.stdout.trim();
        let (signed, _) = token.rsplit_once('.').unwrap();
        let by_secret = {
            use jwt_simple::algorithms::{HS256Key, MACLike};
            let key = HS256Key::from_bytes(SECRET.as_bytes());
            format!(
                "{signed}.{}",
                crate::support::token::base64url(&key.authentication_tag(signed.as_bytes()))
            )
        };
        assert_eq!(token == by_secret, is_good, "{name}");
    }

    let mut both = good();
    both.push(("JWT_SECRET_KEY_FILE", &secret));
    both.push(("DATABASE_URL_FILE", &url));
    assert_complains(&run_binary(&[], &both), &["DATABASE_URL", "JWT_SECRET_KEY"]);
    let previous = [("JWT_SECRET_KEY_PREVIOUS", SECRET), ("JWT_SECRET_KEY_PREVIOUS_FILE", &secret)];
    let outcome = run_binary(&[], &[good(), previous.to_vec()].concat());
    assert_complains(&outcome, &["JWT_SECRET_KEY_PREVIOUS"]);
}

#[test]
fn a_secret_file_that_cannot_be_read_is_named_with_its_path() {
    let missing = [("DATABASE_URL", URL), ("JWT_SECRET_KEY_FILE", "/nothing/here")];
    let outcome = run_binary(&[], &missing);
    assert_complains(&outcome, &["JWT_SECRET_KEY_FILE"]);
    assert!(outcome.stderr.contains("/nothing/here"), "{outcome:?}");
    let outcome = run_binary(&["migrate"], &[("DATABASE_URL_FILE", "/nothing/here")]);
    assert_complains(&outcome, &["DATABASE_URL_FILE"]);
}

/// Runs `serve` with a `.env`, and `DATABASE_URL` empty so that it ends: the complaints tell what
/// was read.
fn with_dot_env(content: &str, variables: &[(&str, &str)]) -> Outcome {
    let directory = Directory::create();
    directory.write(".env", content);
    let mut command = binary(&directory);
    command.arg("serve").envs(variables.iter().copied());
    run(command)
}

#[test]
fn a_dot_env_that_cannot_be_read_is_not_passed_over() {
    let directory = Directory::create();
    std::fs::create_dir(directory.path().join(".env")).unwrap();
    let mut command = binary(&directory);
    command.arg("serve").envs(good());
    assert_complains(&run(command), &[".env"]);
}

#[test]
fn a_dot_env_file_fills_in_what_is_unset() {
    let secret = format!("JWT_SECRET_KEY={SECRET}\n");
    let none: &[(&str, &str)] = &[];
    for (content, variables, complaints) in [
        ("", none, &["DATABASE_URL", "JWT_SECRET_KEY"][..]),
        (&secret, none, &["DATABASE_URL"]),
        (&format!("# comment\n\n  {secret}PORT=8000 # comment\n"), none, &["DATABASE_URL"]),
        (&format!("{secret}PORT=\"8000\"\nHOST='127.0.0.1' # comment\r\n"), none, &["DATABASE_URL"]),
        (&format!("{secret}PORT=80x\n"), none, &["DATABASE_URL", "PORT"]),
        // The environment goes first.
        (&format!("{secret}PORT=80x\n"), &[("PORT", "8000")], &["DATABASE_URL"]),
        (&secret, &[("JWT_SECRET_KEY", "weak")], &["DATABASE_URL", "JWT_SECRET_KEY"]),
        // No expansion: this is 19 characters, whatever HOME is.
        ("JWT_SECRET_KEY=$HOME${HOME}`true`\n", &[("HOME", SECRET)], &["DATABASE_URL", "JWT_SECRET_KEY"]),
        (&format!("{secret}no line of this kind\n"), none, &[".env", "DATABASE_URL"]),
    ] {
        let outcome = with_dot_env(content, variables);
        assert_complains(&outcome, complaints);
        assert!(!outcome.stderr.contains(SECRET), "{outcome:?}");
    }
}

#[test]
fn token_prints_a_token_that_the_service_takes() {
    let app = App::spawn();
    let secret = [("JWT_SECRET_KEY", SECRET)];
    for (options, seconds) in [
        (&[][..], 3600),
        (&["--ttl", "30s"], 30),
        (&["--ttl", "15m"], 900),
        (&["--ttl", "1h"], 3600),
        (&["--ttl", "7d"], 604_800),
    ] {
        for user_id in ["alice", "\u{1F600} / %2F"] {
            let args = [&["token", "--user", user_id], options].concat();
            let outcome = run_binary(&args, &secret);
            assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
            let token = outcome.stdout.strip_suffix('\n').unwrap();
            assert!(!token.contains(char::is_whitespace));
            let claims = claims(token);
            assert_eq!(claims["user_id"], user_id);
            let ttl = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
            assert_eq!(ttl, seconds, "{options:?}");
            let target = format!("/api/{}/tasks", crate::support::token::segment(user_id));
            app.get(&target).bearer(token).send().expect(200);
        }
    }
    assert_complains(&run_binary(&["token", "--user", "alice"], &[]), &["JWT_SECRET_KEY"]);
    let issued = [secret[0], ("JWT_ISSUER", "i"), ("JWT_AUDIENCE", "a")];
    let outcome = run_binary(&["token", "--user", "alice"], &issued);
    let claims = claims(outcome.stdout.trim());
    assert_eq!(claims["iss"], "i");
    assert!(claims["aud"] == "a" || claims["aud"] == json!(["a"]), "{claims}");
}

#[test]
fn migrate_makes_the_table_and_needs_the_database_alone() {
    let database = Database::create();
    let outcome = run_binary(&["migrate"], &[("DATABASE_URL", &database.url)]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(database.value("select count(*) from tasks"), "0");
    let app = App::setup().database(database).env("AUTO_MIGRATE", "false").spawn();
    app.user("alice").create("t");
}

#[test]
fn without_auto_migrate_a_start_leaves_the_database_as_it_is() {
    let app = App::setup().env("AUTO_MIGRATE", "false").unhealthy().spawn();
    app.user("alice").request("GET", "/tasks").send();
    assert_eq!(app.database.value("select to_regclass('tasks') is null"), "true");
}

#[test]
fn a_command_that_cannot_do_its_work_is_exit_code_1_with_a_reason() {
    for command in ["migrate", "check"] {
        let outcome = run_binary(&[command], &good());
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(!outcome.stderr.is_empty() && !outcome.stderr.contains("pa55word"), "{outcome:?}");
    }
    assert_complains(&run_binary(&["migrate"], &[]), &["DATABASE_URL"]);
    assert_complains(&run_binary(&["check"], &[]), &["DATABASE_URL", "JWT_SECRET_KEY"]);
}

#[test]
fn a_database_url_may_have_the_longer_scheme() {
    let database = Database::create();
    let url = format!("{}?sslmode=disable", database.url.replacen("postgres://", "postgresql://", 1));
    let outcome = run_binary(&["migrate"], &[("DATABASE_URL", &url)]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{url}");
}

#[test]
fn too_few_descriptors_end_the_start_with_how_many_are_needed() {
    for (admin, needed) in [("", 197), ("127.0.0.1:0", 261)] {
        for arguments in [&[][..], &["check"]] {
            let directory = Directory::create();
            let mut command = binary(&directory);
            command.args(arguments);
            let mut command = by_shell(&command, "ulimit -n 100");
            command.envs(good()).env("DATABASE_POOL_SIZE", "16").env("ADMIN_ADDR", admin);
            let outcome = run(command);
            assert_eq!(outcome.code, Some(1), "{outcome:?}");
            let wanted = format!("the limit of open files (ulimit -n) is 100; make it {needed} or more\n");
            assert!(outcome.stderr.contains(&wanted), "{outcome:?}");
        }
    }
}

#[test]
fn fewer_connections_than_configured_are_told() {
    let reason =
        "the limit of open files (ulimit -n) leaves room for 135 of 1024 connections; make it 1189 or more";
    let app = App::setup().descriptors(300).env("DATABASE_POOL_SIZE", "16").spawn();
    let line = app.wait_for_log(|line| line.contains("fewer connections than MAX_CONNECTIONS"));
    assert!(line.contains(" INFO ") && line.contains(reason), "{line}");
    for (limit, more, lines) in [(300, "", 1), (300, "135", 0)] {
        let directory = Directory::create();
        let mut command = binary(&directory);
        command.arg("check");
        let mut command = by_shell(&command, &format!("ulimit -n {limit}"));
        command.envs(good()).env("DATABASE_URL", &app.database.url);
        command.env("DATABASE_POOL_SIZE", "16").env("MAX_CONNECTIONS", more);
        let outcome = run(command);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let wanted = format!("MAX_CONNECTIONS: {reason} (LimitNOFILE in a systemd unit)");
        assert_eq!(outcome.stdout.lines().filter(|line| *line == wanted).count(), lines, "{outcome:?}");
    }
}
