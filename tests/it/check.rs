//! `tinytasks check` on what it can examine: files, certificates, encoding, schema, rights and rows.

use crate::cli::good;
use crate::support::{
    harness::{App, Database, Directory, binary, run, run_binary},
    roles::Role,
    token::SECRET,
};
use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

#[test]
fn check_finds_a_missing_table_a_wrong_one_and_old_rows_that_break_a_rule() {
    let database = Database::create();
    let variables = [("DATABASE_URL", &*database.url), ("JWT_SECRET_KEY", SECRET), ("AUTO_MIGRATE", "false")];
    let check = || run_binary(&["check"], &variables);
    let outcome = check();
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(outcome.stderr, "schema: there is no table tasks; run `tinytasks migrate`\n");
    let files = Directory::create();
    let file = files.write("tinytasks.conf", "");
    let outcome = run_binary(&["--config", &file, "check"], &variables);
    let remedy = format!("run `tinytasks --config {file} migrate`\n");
    assert!(outcome.stderr.ends_with(&remedy), "{outcome:?}");
    assert_eq!(database.value("select to_regclass('tasks') is null"), "true", "it only looks");

    run_binary(&["migrate"], &[("DATABASE_URL", &database.url)]);
    let outcome = check();
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");

    database.execute("alter table tasks rename column title to heading");
    let outcome = check();
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("title"), "{outcome:?}");

    database.execute(
        "drop table tasks; create table tasks (id serial primary key, user_id varchar, \
         title varchar(200), description varchar(1000), complete boolean, created_at timestamp, \
         updated_at timestamp); insert into tasks (user_id, title) values ('alice', ' ')",
    );
    run_binary(&["migrate"], &[("DATABASE_URL", &database.url)]);
    let outcome = check();
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("title"), "{outcome:?}");
    database.execute("update tasks set title = 'mended'");
    assert_eq!(check().code, Some(0), "{outcome:?}");
}

#[test]
fn check_finds_a_right_and_an_index_that_are_missing() {
    let database = Database::create();
    run_binary(&["migrate"], &[("DATABASE_URL", &database.url)]);
    let role = format!("{}_reader", database.name);
    database
        .execute(&format!("create role {role} login password 'pa55word'; grant select on tasks to {role}"));
    let url = database.url_as(&role, "pa55word");
    let check = |url| run_binary(&["check"], &[("DATABASE_URL", url), ("JWT_SECRET_KEY", SECRET)]);
    let denied = check(&url);
    database.execute("drop index tasks_idempotency_key");
    let missing = check(&database.url);
    assert!(!missing.stderr.contains("owner: "), "{missing:?}");
    let owned_by_another = check(&url);
    database.execute(&format!("drop owned by {role}; drop role {role}"));
    let owner = format!(
        "owner: tasks belongs to role tinytasks; only tinytasks may run `tinytasks migrate` and \
                         change columns and rights, and role {role} may not"
    );
    for (outcome, begin, word) in [
        (denied, "rights: ", "may not insert"),
        (missing, "schema: ", "unique index on (user_id, idempotency_key)"),
        (owned_by_another, "schema: tasks has no unique index", &owner),
    ] {
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stderr.starts_with(begin) && outcome.stderr.contains(word), "{outcome:?}");
    }
}

/// An operator may run `check` as root although the service runs as another user.
#[test]
fn check_says_that_a_port_is_only_for_privileged_services() {
    let start = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    let start: u16 = start.trim().parse().unwrap();
    let lines_with = |port: &str| {
        let admin = format!("127.0.0.1:{port}");
        let with = |variable| run_binary(&["check"], &[good(), vec![variable]].concat()).stdout;
        with(("PORT", port)) + &with(("ADMIN_ADDR", &admin))
    };
    let said = "is free; a service that does not run as root can use it only with CAP_NET_BIND_SERVICE";
    assert!(!lines_with("0").contains(said));
    let may_bind = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    // Only root may bind a port below `start`, and where that is 0, there is none.
    match (1..start).rev().find(may_bind) {
        Some(port) => assert_eq!(lines_with(&port.to_string()).matches(said).count(), 2),
        None => eprintln!("skipped: this user may bind no port below {start}"),
    }
}

#[test]
fn check_reads_the_certificate_as_serve_does() {
    let files = [("TLS_CERT_FILE", "/nothing/cert"), ("TLS_KEY_FILE", "/nothing/key")];
    for command in ["serve", "check"] {
        let outcome = run_binary(&[command], &[good(), files.to_vec()].concat());
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(
            outcome.stderr.contains("TLS_CERT_FILE") && outcome.stderr.contains("/nothing"),
            "{outcome:?}"
        );
    }
}

#[test]
fn check_finds_an_encoding_that_cannot_hold_every_text() {
    let database = Database::create_as("encoding 'LATIN1' locale 'C' template template0");
    let outcome = run_binary(&["check"], &[("DATABASE_URL", &database.url), ("JWT_SECRET_KEY", SECRET)]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr == "encoding: is LATIN1, must be UTF8; make a new database\n", "{outcome:?}");
}

#[test]
fn a_table_that_the_service_makes_when_it_starts_is_not_missing() {
    let database = Database::create();
    let role = format!("{}_owner", database.name);
    database.execute(&format!("create role {role} login password 'pa55word'"));
    let url = database.url_as(&role, "pa55word");
    let check = || run_binary(&["check"], &[("DATABASE_URL", &*url), ("JWT_SECRET_KEY", SECRET)]);
    let begin = "schema: there is no table tasks, and";
    database.execute("revoke create on schema public from public");
    let may_not_create = check();
    database.execute("revoke usage on schema public from public");
    let may_not_use = check();
    database.execute(&format!("grant usage, create on schema public to {role}"));
    let may_create = check();
    let is_untouched = database.value("select to_regclass('tasks') is null");
    let app = App::setup().env("DATABASE_URL", &url).spawn();
    app.user("alice").create("t");
    drop(app);
    let made = check();
    database.execute(&format!("drop owned by {role}; drop role {role}"));
    assert_eq!(
        may_not_create.stderr,
        format!(
            "{begin} role {role} may not make it; run `grant create on schema public to {role}`, or \
             `tinytasks migrate` as the owner of schema public\n"
        )
    );
    assert_eq!(
        may_not_use.stderr,
        format!(
            "{begin} search_path names no schema that role {role} may use; create the schema, or run \
             `grant usage, create on schema NAME to {role}`\n"
        )
    );
    for outcome in [&may_not_create, &may_not_use] {
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
    }
    assert_eq!((may_create.code, &*may_create.stderr), (Some(0), ""), "{may_create:?}");
    let line = "\nschema: no table tasks yet; the service makes it when it starts\n";
    assert!(may_create.stdout.ends_with(line), "{may_create:?}");
    assert_eq!(is_untouched, "true");
    assert!(made.code == Some(0) && made.stdout.contains("every statement can be done"), "{made:?}");
}

#[test]
fn the_remedy_for_a_lost_column_works_and_a_view_is_named_as_such() {
    let database = Database::create();
    let variables = [("DATABASE_URL", &*database.url), ("JWT_SECRET_KEY", SECRET)];
    for (column, ty) in [
        ("title", "text"),
        ("description", "text"),
        ("complete", "boolean"),
        ("updated_at", "timestamptz"),
        ("idempotency_key", "text"),
        ("idempotency_hash", "bytea"),
    ] {
        run_binary(&["migrate"], &variables);
        database.execute("insert into tasks (user_id, title) values ('alice', 't')");
        database.execute(&format!("alter table tasks drop column {column}"));
        let remedy = format!("alter table tasks add column {column} {ty}");
        let outcome = run_binary(&["check"], &variables);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert_eq!(
            outcome.stderr,
            format!(
                "schema: column {column} of tasks is missing; restore the table from a backup, or run \
                 `{remedy}` and then `tinytasks migrate`\n"
            )
        );
        database.execute(&remedy);
        run_binary(&["migrate"], &variables);
        let outcome = run_binary(&["check"], &variables);
        // A row that has lost its title breaks the constraint on the title.
        let rows = if column == "title" { "rows: 1 break tasks_title_not_blank" } else { "" };
        assert!(outcome.stderr.starts_with(rows) && outcome.stderr.lines().count() < 2, "{outcome:?}");
        assert_eq!(outcome.stderr.is_empty(), rows.is_empty(), "{outcome:?}");
        database.execute("drop table tasks");
    }
    run_binary(&["migrate"], &variables);
    database.execute("alter table tasks drop column user_id");
    let outcome = run_binary(&["check"], &variables);
    assert_eq!(
        outcome.stderr,
        "schema: column user_id of tasks is missing; restore the table from a backup\n"
    );
    database.execute("alter table tasks rename to old_tasks; create view tasks as select * from old_tasks");
    let outcome = run_binary(&["check"], &variables);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(
        outcome.stderr,
        "schema: tasks is a view, must be a table; rename the view, or let search_path name another schema\n"
    );
}

#[test]
fn a_role_without_connections_is_told_where_to_raise_them() {
    let database = Database::create();
    run_binary(&["migrate"], &[("DATABASE_URL", &database.url)]);
    let role = Role::create(&database, "connection limit 0");
    let outcome = run_binary(&["check"], &[("DATABASE_URL", &role.url), ("JWT_SECRET_KEY", SECRET)]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let end = "(53300); raise max_connections or the role's connection limit, or lower DATABASE_POOL_SIZE\n";
    assert!(outcome.stderr.ends_with(end), "{outcome:?}");
}

#[test]
fn fewer_connections_than_the_service_wants_are_a_warning() {
    let database = Database::create();
    run_binary(&["migrate"], &[("DATABASE_URL", &database.url)]);
    let role = Role::create(&database, "connection limit 5");
    let check = |size| {
        run_binary(
            &["check"],
            &[("DATABASE_URL", &role.url), ("JWT_SECRET_KEY", SECRET), ("DATABASE_POOL_SIZE", size)],
        )
    };
    let warning = "warning: PostgreSQL allows this role 5 connections, and the service wants 6;";
    assert!(check("5").stdout.contains(warning), "{:?}", check("5"));
    assert!(!check("4").stdout.contains("warning: "), "{:?}", check("4"));
}

#[test]
fn a_name_that_only_the_environment_may_have_is_a_warning_in_the_services_own_file() {
    let files = Directory::create();
    let file =
        files.write("tinytasks.conf", "SSL_CERT_FILE=/x\nFOO=1\nCORS_ORIGIN=https://a.example\nPORT=0\n");
    let outcome = run_binary(&["--config", &file, "config"], &good());
    let lines: Vec<_> = outcome.stdout.lines().filter(|line| line.starts_with("warning: ")).collect();
    let unread = "is no variable of tinytasks, and nothing else reads this file; remove it, or set it in the environment";
    assert_eq!(
        lines,
        [
            "warning: CORS_ORIGIN: is no variable of tinytasks; did you mean CORS_ORIGINS?".to_owned(),
            format!("warning: FOO: {unread}"),
            format!("warning: SSL_CERT_FILE: {unread}"),
        ]
    );
    // Other programs read such a file too.
    files.write(".env", "SSL_CERT_FILE=/x\nFOO=1\n");
    let mut command = binary(&files);
    command.arg("config").envs(good());
    let outcome = run(command);
    assert!(!outcome.stdout.contains("warning"), "{outcome:?}");
}

fn permit(file: &str, mode: u32) {
    fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
}

/// Root alone is told so: in a container the files are open to the service, and the folder above them is not.
#[test]
fn a_secret_that_everybody_can_read_is_a_warning_of_check_by_root() {
    let database = Database::create();
    run_binary(&["migrate"], &[("DATABASE_URL", &database.url)]);
    let files = Directory::create();
    let is_root = fs::metadata(files.path()).unwrap().uid() == 0;
    let secret = files.write("jwt_secret_key", SECRET);
    let text =
        format!("DATABASE_URL={}\nJWT_SECRET_KEY_FILE={secret}\nPORT=0\nMAX_CONNECTIONS=64\n", database.url);
    let config = files.write("tinytasks.conf", &text);
    let warning = |name: &str, file: &str| {
        format!("warning: {name}: everybody on this machine can read {file:?}; run `chmod 600 {file}`")
    };
    let assert_warned = |warnings: &[String]| {
        let outcome = run_binary(&["--config", &config, "check"], &[]);
        assert_eq!((outcome.code, &*outcome.stderr), (Some(0), ""), "{outcome:?}");
        let lines: Vec<_> = outcome.stdout.lines().filter(|line| line.starts_with("warning: ")).collect();
        assert_eq!(lines, if is_root { warnings } else { &[] });
    };
    permit(&config, 0o644);
    permit(&secret, 0o604);
    assert_warned(&[warning("DATABASE_URL", &config), warning("JWT_SECRET_KEY", &secret)]);
    permit(&config, 0o640);
    assert_warned(&[warning("JWT_SECRET_KEY", &secret)]);
    permit(files.path().to_str().unwrap(), 0o750);
    assert_warned(&[]);
    permit(files.path().to_str().unwrap(), 0o755);
    permit(&secret, 0o600);
    assert_warned(&[]);
}
