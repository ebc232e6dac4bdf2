//! `tinytasks check` on what it can examine: certificates, encoding, schema, rights and rows.

use crate::cli::good;
use crate::support::{
    harness::{Database, run_binary},
    token::SECRET,
};

#[test]
fn check_finds_a_missing_table_a_wrong_one_and_old_rows_that_break_a_rule() {
    let database = Database::create();
    let check = || run_binary(&["check"], &[("DATABASE_URL", &database.url), ("JWT_SECRET_KEY", SECRET)]);
    let outcome = check();
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("tasks"), "{outcome:?}");
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
    database.execute(&format!("drop owned by {role}; drop role {role}"));
    for (outcome, begin, word) in [
        (denied, "rights: ", "may not insert"),
        (missing, "schema: ", "unique index on (user_id, idempotency_key)"),
    ] {
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stderr.starts_with(begin) && outcome.stderr.contains(word), "{outcome:?}");
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
    assert!(
        outcome.stderr.starts_with("encoding: is LATIN1, must be UTF8; make a new database\n"),
        "{outcome:?}"
    );
}
