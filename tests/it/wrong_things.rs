//! What people set or break, and the line that they get for it: it names the variable or the thing, and says
//! what would be right. The tests of each subject have more; these are the cases that belong to no single one.

use crate::support::{
    harness::{App, Database, Directory, Outcome, binary, run, run_binary},
    roles::Role,
    token::SECRET,
};
use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt};

/// An address at which nobody listens.
const URL: &str = "postgres://u:pa55word@127.0.0.1:1/db";
const RANDOM: &str = "give 32 random bytes, such as openssl rand -base64 32 prints";

/// A valid configuration with these variables added or changed. An empty value unsets a variable.
fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut variables = vec![("DATABASE_URL", URL), ("JWT_SECRET_KEY", SECRET), ("PORT", "0")];
    variables.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
    variables.extend(more);
    variables
}

/// Asserts that there is only this line, no result, and exit code 2.
#[track_caller]
fn assert_refused(outcome: &Outcome, line: &str) {
    assert_eq!((outcome.code, &*outcome.stdout, &*outcome.stderr), (Some(2), "", &*format!("{line}\n")));
}

/// Asserts exit code 1, and a line with this beginning and this end.
#[track_caller]
fn assert_fails(outcome: &Outcome, begin: &str, part: &str) {
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let is_said = |line: &str| line.starts_with(begin) && line.contains(part);
    assert!(outcome.stderr.lines().any(is_said), "{begin}…{part}: {outcome:?}");
}

#[test]
fn a_value_that_does_not_fit_is_shown_with_one_that_would() {
    let origins = "origins such as https://app.example.org (scheme, host, port) with commas between, or *";
    let host = "an IP address, a name with an address such as localhost, or unix:/path of 107 bytes at most";
    let port = "a number from 0 to 65535";
    for (name, value, wanted) in [
        ("PORT", "abc", port),
        ("PORT", " ", port),
        ("PORT", "tcp://10.0.0.1:8000", port),
        ("PORT", "'8000'", "a number from 0 to 65535, without quotation marks"),
        ("HOST", "*", host),
        ("HOST", "nosuch.invalid", host),
        ("HOST", "unix:relative.sock", host),
        ("ADMIN_ADDR", ":9100", "address and port, such as 127.0.0.1:9100"),
        ("CORS_ORIGINS", "true", origins),
        ("CORS_ORIGINS", "http://a.example;http://b.example", origins),
        ("TRUSTED_PROXIES", "nginx", "IP addresses or unix, commas between"),
        ("RATE_LIMIT", "unlimited", "a number from 0.01 to 1000000"),
        ("MAX_CONNECTIONS", "-1", "a number from 1"),
        ("REQUIRE_IF_MATCH", "True", "true or false"),
        ("LOG_FORMAT", "JSON", "text or json"),
        ("RUST_LOG", "verbose", "levels such as info or warn,tinytasks=info"),
    ] {
        for command in ["check", "serve"] {
            let line = format!("{name}: {value:?} does not fit; give {wanted}");
            assert_refused(&run_binary(&[command], &with(&[(name, value)])), &line);
        }
    }
}

#[test]
fn variables_that_contradict_each_other_or_are_something_else_are_explained() {
    let claims = [("JWT_ISSUER", "*"), ("JWT_AUDIENCE", "*")];
    for (set, line) in [
        (&[("TLS_CERT_FILE", "/x")][..], "TLS_CERT_FILE: and TLS_KEY_FILE go together; give both or none"),
        (&[("TLS_KEY_FILE", "/x")], "TLS_CERT_FILE: and TLS_KEY_FILE go together; give both or none"),
        (
            &[("PORT", "8000"), ("ADMIN_ADDR", "127.0.0.1:8000")],
            "ADMIN_ADDR: is the address of HOST and PORT; give another port",
        ),
        (
            &[("JWT_JWKS_FILE", "https://auth.example.org/api/auth/jwks"), claims[0], claims[1]],
            "JWT_JWKS_FILE: is an address; fetch the JWKS into a file, and give its path",
        ),
        (
            &[("DATABASE_URL", "\"postgres://u:pa55word@127.0.0.1/db\"")],
            "DATABASE_URL: has quotation marks around it; give postgres://… without them",
        ),
        (&[("DATABASE_URL", "jdbc:postgresql://127.0.0.1/db")], "DATABASE_URL: must begin with postgres://"),
        (&[("DATABASE_URL", "${DATABASE_URL}")], "DATABASE_URL: must begin with postgres://"),
    ] {
        for command in ["check", "serve"] {
            assert_refused(&run_binary(&[command], &with(set)), line);
        }
    }
}

#[test]
fn what_is_wrong_with_the_file_of_a_secret_names_the_file() {
    let files = Directory::create();
    let (empty, short) = (files.write("empty", "\n"), files.write("short", "0123456789\n"));
    let marked = files.write("marked", &format!("\u{feff}{URL}\n"));
    let named = files.write("named", &format!("DATABASE_URL={URL}\n"));
    let longer = files.write("longer", &format!("{URL}\n\n"));
    let folder = files.path().to_str().unwrap();
    let weak = |name: &str| format!("{name}: is shorter than 32 bytes; {RANDOM}");
    let folder_line = format!(
        "JWT_SECRET_KEY_FILE: {folder:?} cannot be read: Is a directory (os error 21); \
                               give a file that this user may read"
    );
    let no_path =
        |name: &str| format!("{name}: names no file that is there; give a path, not the secret itself");
    for (name, path, line) in [
        ("JWT_SECRET_KEY", &*empty, weak("JWT_SECRET_KEY_FILE")),
        ("JWT_SECRET_KEY", &short, weak("JWT_SECRET_KEY_FILE")),
        ("JWT_SECRET_KEY", folder, folder_line),
        // The message must not contain the secret itself.
        ("JWT_SECRET_KEY", SECRET, no_path("JWT_SECRET_KEY_FILE")),
        ("DATABASE_URL", URL, no_path("DATABASE_URL_FILE")),
        (
            "DATABASE_URL",
            &empty,
            "DATABASE_URL_FILE: is empty; give postgres://user:password@host/database".to_owned(),
        ),
        (
            "DATABASE_URL",
            &marked,
            "DATABASE_URL_FILE: begins with a byte order mark; save the file without it".to_owned(),
        ),
        ("DATABASE_URL", &longer, "DATABASE_URL_FILE: ends with white space; remove it".to_owned()),
        (
            "DATABASE_URL",
            &named,
            "DATABASE_URL_FILE: begins with the variable's name; give the value alone, \
             postgres://user:password@host/database"
                .to_owned(),
        ),
    ] {
        let file = format!("{name}_FILE");
        for command in ["check", "serve", "healthcheck"] {
            assert_refused(&run_binary(&[command], &with(&[(name, ""), (&file, path)])), &line);
        }
    }
    let previous = [("JWT_SECRET_KEY_PREVIOUS_FILE", &*short)];
    assert_refused(&run_binary(&["check"], &with(&previous)), &weak("JWT_SECRET_KEY_PREVIOUS_FILE"));
    let both = [("JWT_SECRET_KEY", ""), ("BETTER_AUTH_SECRET", SECRET), ("BETTER_AUTH_SECRET_FILE", &empty)];
    let line = "BETTER_AUTH_SECRET: is set, and BETTER_AUTH_SECRET_FILE is too; keep one of them";
    assert_refused(&run_binary(&["token", "--user", "alice"], &with(&both)), line);
}

#[test]
fn a_bad_configuration_file_is_named_with_its_line() {
    let files = Directory::create();
    let no_assignment = "is not NAME=value; write # before a comment";
    for (content, number, reason) in [
        ("[Service]\nPORT=0\n", 1, no_assignment),
        ("PORT=0\nHOST: 127.0.0.1\n", 2, no_assignment),
        (
            "PORT=0\n\nHOST=\"127.0.0.1\n",
            3,
            "has a quotation mark that is not closed; close it in the same line",
        ),
        (
            "HOST='it''s'\n",
            1,
            "goes on behind the closing quotation mark; \
             put the other kind of mark around a value that has one in it",
        ),
        ("PORT=0\nset HOST=127.0.0.1\n", 2, no_assignment),
    ] {
        let file = files.write("tinytasks.conf", content);
        for command in ["check", "config", "migrate"] {
            let outcome = run_binary(&["--config", &file, command], &with(&[]));
            assert_eq!(outcome.code, Some(2), "{content}: {outcome:?}");
            let line = format!("{file}: line {number} {reason}\n");
            assert_eq!(outcome.stderr, line, "{content}: {outcome:?}");
        }
    }
    // The invisible byte order mark of an editor is accepted.
    let file = files.write("tinytasks.conf", "\u{feff}PORT=8123\n");
    let outcome = run_binary(&["--config", &file, "config"], &with(&[("PORT", "")])[..2]);
    assert!(outcome.stdout.contains("\nPORT=8123 "), "{outcome:?}");
}

#[test]
fn a_configuration_file_that_cannot_be_read_is_the_only_complaint() {
    let files = Directory::create();
    let folder = files.path().to_str().unwrap();
    for command in ["check", "serve", "config", "migrate"] {
        let outcome = run_binary(&["--config", folder, command], &[]);
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        let line = format!(
            "{folder}: cannot be read: Is a directory (os error 21); give a file that this user may read\n"
        );
        assert_eq!(outcome.stderr, line, "{command}");
    }
}

#[test]
fn a_variable_that_stands_twice_in_a_file_is_a_warning() {
    let files = Directory::create();
    let file = files.write("tinytasks.conf", "MAX_CONNECTIONS=1\n# one more\nMAX_CONNECTIONS=2\n");
    let outcome = run_binary(&["--config", &file, "config"], &with(&[]));
    assert_eq!((outcome.code, &*outcome.stderr), (Some(0), ""), "{outcome:?}");
    let warning = format!(
        "warning: {file}: line 3 sets MAX_CONNECTIONS once more, and counts; remove the line that does not"
    );
    assert!(outcome.stdout.lines().any(|line| line == warning), "{outcome:?}");
    assert!(outcome.stdout.contains("MAX_CONNECTIONS=2 "), "{outcome:?}");
}

#[test]
fn a_set_of_keys_of_which_none_can_be_used_is_told_what_it_has() {
    let files = Directory::create();
    for (keys, reason) in [
        ("", "has no key in it; let the issuer publish its Ed25519 key"),
        (
            r#"{"kty":"OKP","crv":"Ed25519","x":"AA"}"#,
            "has an Ed25519 key that cannot be used; its kty must be OKP, its x 32 bytes in base64url, \
             and its use sig or absent",
        ),
        (
            r#"{"kty":"OKP","crv":"Ed25519","x":"AA","d":"pa55word"}"#,
            "has a private key (its member d); give the issuer's public keys alone",
        ),
        (
            r#"{"kty":"EC","crv":"P-256"}, {"kty":"RSA"}, 7"#,
            "has no public Ed25519 key for signatures, only others; let the issuer sign with EdDSA",
        ),
    ] {
        let file = files.write("jwks", &format!("{{\"keys\":[{keys}]}}"));
        let set = [("JWT_JWKS_FILE", &*file), ("JWT_ISSUER", "*"), ("JWT_AUDIENCE", "*")];
        assert_refused(&run_binary(&["serve"], &with(&set)), &format!("JWT_JWKS_FILE: {file:?} {reason}"));
    }
}

#[test]
fn a_command_line_that_is_not_understood_is_answered_with_what_to_write() {
    let user = "give export --user ID, or purge --user ID [--dry-run]";
    for (arguments, line) in [
        (&["start"][..], "unknown command: start"),
        (&["--port", "8000"], "unknown option: --port 8000"),
        (&["check", "now"], "check: unknown argument now"),
        (&["check", "--bogus"], "check: unknown option --bogus"),
        (&["serve", "extra"], "serve: unknown argument extra"),
        (&["migrate", "--force=yes"], "migrate: unknown option --force=yes"),
        (&["help", "start"], "unknown command: start"),
        (&["--config"], "--config: give a file behind it"),
        (&["check", "--config", "x"], "give --config FILE before the command"),
        (&["check", "--config=x"], "give --config FILE before the command"),
        (&["token"], "token: --user ID is missing"),
        (
            &["token", "--user=a", "--for=1h"],
            "token: bad option --for=1h; give --user ID [--ttl 1h], or --explain alone",
        ),
        (&["token", "--user", "a", "--ttl", "2w"], "--ttl: give a number and s, m, h or d, such as 1h"),
        (&["token", "--user", ".."], "--user: must be 1 to 255 characters, not . or .."),
        (&["export", "a"], user),
        (&["purge", "--user", "a", "--yes"], user),
    ] {
        assert_refused(&run_binary(arguments, &with(&[])), &format!("{line}; see tinytasks --help"));
    }
}

#[test]
fn an_option_may_have_its_value_behind_an_equals_sign() {
    let database = Database::create();
    let files = Directory::create();
    let content = format!("DATABASE_URL={}\nJWT_SECRET_KEY={SECRET}\n", database.url);
    let file = format!("--config={}", files.write("a=b.conf", &content));
    for arguments in [
        &["migrate"][..],
        &["token", "--user=a=b", "--ttl=1h"],
        &["export", "--user=a"],
        &["purge", "--user=a", "--dry-run"],
    ] {
        let outcome = run_binary(&[&[&*file], arguments].concat(), &[]);
        assert_eq!((outcome.code, &*outcome.stderr), (Some(0), ""), "{arguments:?}: {outcome:?}");
    }
}

#[test]
fn an_address_that_cannot_be_had_is_found_by_check_and_ends_serve() {
    let database = Database::create();
    run_binary(&["migrate"], &[("DATABASE_URL", &database.url)]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let port = address.port().to_string();
    let files = Directory::create();
    let missing = format!("unix:{}/nothing/socket", files.path().display());
    let file = format!("unix:{}", files.write("file", "mine"));
    for (set, place) in [
        (("HOST", "192.0.2.1"), "192.0.2.1:0"),
        (("HOST", &*missing), &*missing),
        (("HOST", &*file), &*file),
        (("ADMIN_ADDR", "192.0.2.1:9100"), "192.0.2.1:9100"),
        (("PORT", &*port), &*address.to_string()),
    ] {
        let variables = with(&[("DATABASE_URL", &*database.url), set]);
        // The program that has the port does not answer.
        if set.0 != "PORT" {
            let admin = if set.0 == "ADMIN_ADDR" { "ADMIN_ADDR " } else { "" };
            let outcome = run_binary(&["check"], &variables);
            assert_fails(&outcome, &format!("address: cannot listen on {admin}{place}: "), "; give another");
        }
        assert_fails(&run_binary(&["serve"], &variables), &format!("cannot listen on {place}: "), "");
    }
}

/// Each row: what is wrong, a URL, and parts of what is said.
fn wrong_urls(database: &Database) -> Vec<(&'static str, String, [String; 2])> {
    let [good, address] = [&*database.url, database.server_address()].map(str::to_owned);
    let (host, port) = address.split_once(':').unwrap();
    let server = format!("{host} port {port}: ");
    let of = |password: &str, name: &str| {
        let user = good.split("://").nth(1).unwrap().split(':').next().unwrap();
        format!("postgres://{user}{password}@{address}/{name}")
    };
    let row = |what, url, begin: &str, part: &str| (what, url, [begin.to_owned(), part.to_owned()]);
    vec![
        row(
            "wrong password",
            of(":wrong", &database.name),
            &server,
            "password authentication failed for user",
        ),
        row(
            "no password",
            of("", &database.name),
            &server,
            "password missing; give postgres://user:password@host/database in DATABASE_URL",
        ),
        row(
            "another kind of server",
            format!("{good}?target_session_attrs=read-only"),
            &server,
            "not read only; target_session_attrs in DATABASE_URL refuses this server",
        ),
        row(
            "missing database",
            good.replace(&database.name, "nothing"),
            &server,
            "\"nothing\" does not exist",
        ),
        row(
            "line break in the name",
            good.replace(&database.name, "a%0A%1B%5B1mb"),
            &server,
            "[1mb\" does not exist",
        ),
        row(
            "no TLS there",
            format!("{good}?sslmode=require"),
            &server,
            "does not support TLS; switch TLS on there",
        ),
        row("nobody listens", URL.to_owned(), "127.0.0.1 port 1: ", "Connection refused"),
        row("no such host", "postgres://u:p@nosuch.invalid/db".to_owned(), "nosuch.invalid: ", "address"),
        row(
            "no such socket",
            "postgres://u:p@%2Fnothing/db".to_owned(),
            "/nothing port 5432: ",
            "No such file or directory (os error 2); start PostgreSQL there",
        ),
    ]
}

#[test]
fn a_database_that_cannot_be_reached_is_named_with_its_address_by_every_command() {
    let database = Database::create();
    for (what, url, [begin, part]) in wrong_urls(&database) {
        let variables = with(&[("DATABASE_URL", &url)]);
        let check = run_binary(&["check"], &variables);
        assert_fails(&check, &format!("database: {begin}"), &part);
        assert!(check.stderr.lines().count() == 1 && !check.stderr.contains('\u{1b}'), "{what}: {check:?}");
        for arguments in [&["migrate"][..], &["export", "--user", "alice"], &["purge", "--user", "alice"]] {
            assert_fails(&run_binary(arguments, &variables), &begin, &part);
        }
        let app = App::setup().env("DATABASE_URL", &url).unhealthy().spawn();
        let line = app.wait_for_log(|line| line.contains("database out of reach"));
        // The log writes quotation marks with a backslash.
        let line = line.replace('\\', "");
        assert!(line.contains(" ERROR ") && line.contains(&begin) && line.contains(&part), "{what}: {line}");
        for said in [&check.stderr, &line] {
            assert!(!said.contains("pa55word") && !said.contains("wrong@"), "{what}: {said}");
        }
    }
}

#[test]
fn a_role_that_may_not_do_the_work_of_a_command_is_told_which_right_it_lacks() {
    let database = Database::create();
    run_binary(&["migrate"], &[("DATABASE_URL", &database.url)]);
    let role = Role::create(&database, "");
    let variables = with(&[("DATABASE_URL", &role.url)]);
    // The service's role has no right to change the table.
    database.execute("drop index tasks_idempotency_key");
    assert_fails(
        &run_binary(&["migrate"], &variables),
        "the schema cannot be applied: ",
        "owner of table tasks",
    );
    database.execute(&format!("revoke select on tasks from {}", role.name));
    for arguments in [&["export", "--user", "alice"][..], &["purge", "--user", "alice"]] {
        let outcome = run_binary(arguments, &variables);
        assert_fails(&outcome, "", "permission denied for table tasks");
    }
    database.execute("drop table tasks");
    let outcome = run_binary(&["export", "--user", "alice"], &variables);
    assert_fails(&outcome, "", "relation \"tasks\" does not exist");
    database.execute(&format!("revoke create on schema public from public, {}", role.name));
    assert_fails(&run_binary(&["migrate"], &variables), "the schema cannot be applied: ", "schema public");
}

#[test]
fn what_was_probably_meant_otherwise_is_a_warning_of_check_config_and_serve() {
    let database = Database::create();
    run_binary(&["migrate"], &[("DATABASE_URL", &database.url)]);
    let files = Directory::create();
    let marked = files.write("marked", &format!("\u{feff}{SECRET}"));
    fs::set_permissions(&marked, fs::Permissions::from_mode(0o600)).unwrap();
    let other = format!("other {SECRET}");
    for (set, warning) in [
        (
            &[("BETTER_AUTH_SECRET", &*other)][..],
            "BETTER_AUTH_SECRET: is not used, as JWT_SECRET_KEY is set to something else",
        ),
        (
            &[("JWT_SECRET_KEY", ""), ("JWT_SECRET_KEY_FILE", &marked)],
            "JWT_SECRET_KEY_FILE: begins with a byte order mark, which is taken as part of the value; \
             save the file without it",
        ),
        (
            &[("JWT_ISSUER", "\"https://a.example\"")],
            "JWT_ISSUER: has quotation marks around it, and they are taken as part of the value; \
             container engines keep those of an env file, so remove them there",
        ),
        (
            &[("JWT_AUDIENCE", "tasks ")],
            "JWT_AUDIENCE: begins or ends with white space, which is taken as part of the value; \
             remove it if it slipped in",
        ),
        (&[("JWT_SECRET", SECRET)], "JWT_SECRET: is no variable of tinytasks; did you mean JWT_SECRET_KEY?"),
        (&[("TLS_CERT", "/x")], "TLS_CERT: is no variable of tinytasks; did you mean TLS_CERT_FILE?"),
    ] {
        // Few connections, so that the limit of open files causes no warning.
        let few = ("MAX_CONNECTIONS", "64");
        let variables = with(&[&[("DATABASE_URL", &*database.url), few], set].concat());
        for command in ["check", "config"] {
            let outcome = run_binary(&[command], &variables);
            assert_eq!((outcome.code, &*outcome.stderr), (Some(0), ""), "{warning}: {outcome:?}");
            let lines: Vec<_> = outcome.stdout.lines().filter(|line| line.starts_with("warning: ")).collect();
            assert_eq!(lines, [format!("warning: {warning}")], "{command}");
        }
        let setup = set.iter().fold(App::setup(), |setup, (name, value)| setup.env(name, value));
        let line = setup.spawn().wait_for_log(|line| line.contains(warning));
        assert!(line.contains(" WARN "), "{line}");
    }
    // A quotation mark that is part of the value is distinguishable from those around it.
    for (value, shown) in [("\"a\"", r#""\"a\"""#), ("'a'", r#""'a'""#), ("a b", r#""a b""#), ("a", "a")] {
        let outcome = run_binary(&["config"], &with(&[("JWT_ISSUER", value)]));
        let line = format!("JWT_ISSUER={shown} ");
        assert!(outcome.stdout.lines().any(|shown| shown.starts_with(&line)), "{line}: {outcome:?}");
    }
    // The same secret under both names causes no warning.
    let outcome = run_binary(&["config"], &with(&[("BETTER_AUTH_SECRET", SECRET)]));
    assert!(!outcome.stdout.contains("warning"), "{outcome:?}");
}

#[test]
fn a_file_beside_the_service_is_told_from_the_environment() {
    let directory = Directory::create();
    directory.write(".env", "CORS_ORIGIN=https://a.example\nPORT=abc\n");
    let mut command = binary(&directory);
    command.arg("config").envs(with(&[])).env_remove("PORT");
    let outcome = run(command);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert_eq!(outcome.stderr, "PORT: \"abc\" does not fit; give a number from 0 to 65535\n");
    let warning = "warning: CORS_ORIGIN: is no variable of tinytasks; did you mean CORS_ORIGINS?";
    assert!(outcome.stdout.lines().any(|line| line == warning), "{outcome:?}");
    assert!(outcome.stdout.lines().any(|line| line.starts_with("PORT=abc ") && line.ends_with("# .env")));
}

#[test]
fn a_health_check_says_where_it_has_asked_and_what_may_be_wrong() {
    let remedy = "; is the service running, at this HOST and PORT?";
    let database = Database::create();
    let (_, port) = database.server_address().rsplit_once(':').unwrap();
    for (set, begin) in [
        (("PORT", "1"), "127.0.0.1:1: Connection refused"),
        (("HOST", "unix:/nothing/here"), "unix:/nothing/here: No such file"),
        // PostgreSQL answers at this port instead of tinytasks.
        (("PORT", port), &*format!("127.0.0.1:{port}: something else than tinytasks answers there")),
    ] {
        assert_fails(&run_binary(&["healthcheck"], &with(&[set])), begin, remedy);
    }
}
