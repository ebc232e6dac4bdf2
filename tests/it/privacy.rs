//! `tinytasks export` and `tinytasks purge`: all of one user's tasks, and nothing of anybody else.

use crate::support::{
    harness::{App, Database, Directory, Outcome, binary, eventually, run_binary},
    roles::Role,
    tasks::insert_many,
    token::SECRET,
};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
};

/// Runs the command with the database's URL as its only variable.
fn command(database: &Database, arguments: &[&str]) -> Outcome {
    run_binary(arguments, &[("DATABASE_URL", &database.url)])
}

fn export(database: &Database, user_id: &str) -> Vec<Value> {
    let outcome = command(database, &["export", "--user", user_id]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    assert!(outcome.stdout.is_empty() || outcome.stdout.ends_with('\n'));
    outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn purge(database: &Database, arguments: &[&str]) -> String {
    let outcome = command(database, &[&["purge"], arguments].concat());
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    outcome.stdout
}

/// Users whose tasks a faulty command might affect when it is run for `al_ce`.
const OTHERS: [&str; 7] = ["alice", "al_ce2", "AL_CE", " al_ce", "al_ce ", "%", "al\\_ce"];

fn with_users() -> App {
    let app = App::spawn();
    for user_id in OTHERS {
        app.user(user_id).create("another's");
    }
    for body in [
        json!({"title": "first"}),
        json!({"title": " \"quoted\"\n\u{1F600}\u{2028} ", "description": "a\tb\\", "complete": true}),
        json!({"title": "third", "description": ""}),
    ] {
        app.user("al_ce").post(body).expect(201);
    }
    app
}

#[test]
fn an_export_is_what_the_list_holds_a_line_each() {
    let app = with_users();
    let list = app.user("al_ce").list();
    let exported = export(&app.database, "al_ce");
    assert_eq!((Value::from(exported.clone()), exported.len()), (list["tasks"].clone(), 3));
    for user_id in OTHERS {
        assert_eq!(Value::from(export(&app.database, user_id)), app.user(user_id).list()["tasks"]);
    }
    assert_eq!(export(&app.database, "nobody"), Vec::<Value>::new());
}

#[test]
fn a_purge_deletes_all_of_one_user_and_a_dry_run_only_counts() {
    let app = with_users();
    let others = || OTHERS.map(|user_id| app.user(user_id).list());
    let (before, key) = (others(), "a key");
    let keyed = |title| {
        let request = app.user("al_ce").request("POST", "/tasks").json(json!({"title": title}));
        request.header("Idempotency-Key", "key").send().status
    };
    assert_eq!((keyed(key), keyed(key), keyed("other")), (201, 201, 422));
    let dry_run = ["--user", "al_ce", "--dry-run"];
    assert_eq!(purge(&app.database, &dry_run), "would delete 4 tasks of \"al_ce\"\n");
    assert_eq!(app.user("al_ce").list()["count"], 4);
    let last = app.user("al_ce").list()["tasks"][3]["id"].as_i64().unwrap();

    assert_eq!(purge(&app.database, &["--user", "al_ce"]), "deleted 4 tasks of \"al_ce\"\n");
    assert_eq!(app.user("al_ce").list(), json!({"tasks": [], "count": 0}));
    assert_eq!(app.database.value("select count(*) from tasks where user_id = 'al_ce'"), "0");
    assert_eq!(others(), before);
    for arguments in [&dry_run[..], &["--user", "al_ce"]] {
        assert!(purge(&app.database, arguments).contains(" 0 tasks "));
    }
    // The idempotency key is free again, and no id is assigned twice.
    assert_eq!(keyed("other"), 201);
    assert!(app.user("al_ce").list()["tasks"][0]["id"].as_i64().unwrap() > last);
}

#[test]
fn row_security_that_hides_rows_is_named_in_place_of_a_part_of_the_tasks() {
    let database = Database::create();
    command(&database, &["migrate"]);
    database.execute("insert into tasks (user_id, title) values ('alice', 'seen'), ('alice', 'hidden')");
    let role = Role::create(&database, "");
    let policy = |using: &str| {
        database.execute(&format!(
            "alter table tasks enable row level security; drop policy if exists p on tasks;
             create policy p on tasks to {} using ({using}) with check (true)",
            role.name
        ));
    };
    let run = |arguments: &[&str]| run_binary(arguments, &[("DATABASE_URL", &role.url)]);
    let commands = [
        &["export", "--user", "alice"][..],
        &["purge", "--user", "alice", "--dry-run"],
        &["purge", "--user", "alice"],
    ];
    policy("title = 'seen'");
    for arguments in commands {
        let outcome = run(arguments);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{outcome:?}");
        assert!(
            outcome.stderr.contains("row security") && outcome.stderr.contains("create policy"),
            "{outcome:?}"
        );
    }
    assert_eq!(database.value("select count(*) from tasks"), "2");
    policy("true");
    let outcomes = commands.map(|arguments| run(arguments).stdout);
    assert_eq!(outcomes[0].lines().count(), 2);
    assert_eq!(outcomes[1], "would delete 2 tasks of \"alice\"\n");
    assert_eq!(outcomes[2], "deleted 2 tasks of \"alice\"\n");
    assert_eq!(database.value("select count(*) from tasks"), "0");
}

#[test]
fn both_go_by_the_configured_database_and_say_why_not_with_the_usual_exit_codes() {
    let database = Database::create();
    let longest = "x".repeat(256);
    for arguments in [
        &["export"][..],
        &["export", "alice"],
        &["export", "--user"],
        &["export", "--user", ""],
        &["export", "--user", &longest],
        &["export", "--user", "alice", "bob"],
        &["export", "--user", "alice", "--dry-run"],
        &["purge"],
        &["purge", "--user"],
        &["purge", "--user", ""],
        &["purge", "--user", &longest],
        &["purge", "--dry-run"],
        &["purge", "--user", "alice", "--dry"],
        &["purge", "--user", "alice", "--user", "bob"],
    ] {
        let outcome = command(&database, arguments);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{arguments:?} {outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{arguments:?} {outcome:?}");
    }
    let url = "postgres://user:pa55word@127.0.0.1:1/db";
    let commands =
        [&["export", "--user", "a"][..], &["purge", "--user", "a"], &["purge", "--dry-run", "--user", "a"]];
    for arguments in commands {
        // Three faults: there is no table, no database, or no variable.
        let outcome = command(&database, arguments);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{outcome:?}");
        assert!(outcome.stderr.contains("tasks"), "{outcome:?}");
        let outcome = run_binary(arguments, &[("DATABASE_URL", url), ("JWT_SECRET_KEY", "bad")]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{outcome:?}");
        assert!(!outcome.stderr.is_empty() && !outcome.stderr.contains("pa55word"), "{outcome:?}");
        let outcome = run_binary(arguments, &[("JWT_SECRET_KEY", SECRET)]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{outcome:?}");
        assert!(outcome.stderr.starts_with("DATABASE_URL: "), "{outcome:?}");
    }
}

#[test]
fn an_argument_that_is_not_utf8_is_not_taken_for_another_user() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let app = App::spawn();
    app.user("a\u{FFFD}").create("kept");
    let directory = Directory::create();
    let mut command = binary(&directory);
    command.args(["purge", "--user"]).arg(OsStr::from_bytes(b"a\xFF")).env("DATABASE_URL", &app.database.url);
    let outcome = crate::support::harness::run(command);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert_eq!(app.user("a\u{FFFD}").list()["count"], 1);
}

/// The most memory that a process has had so far, in KiB.
fn peak_kib(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn an_export_of_any_size_takes_the_same_memory_and_shows_one_moment() {
    const COUNT: i64 = 60_000;
    let database = Database::create();
    command(&database, &["migrate"]);
    insert_many(&database, "alice", COUNT, 300);
    let directory = Directory::create();
    let mut exporting = binary(&directory);
    exporting.args(["export", "--user", "alice"]).env("DATABASE_URL", &database.url);
    let mut child = exporting.stderr(Stdio::inherit()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    assert!(first.starts_with("{\"id\":"), "{first}");
    let at_first = peak_kib(child.id());

    // The export has begun, and its pipe is full. Changes made from now on must not be in it.
    database.execute("update tasks set title = 'changed'");
    assert_eq!(purge(&database, &["--user", "alice"]), format!("deleted {COUNT} tasks of \"alice\"\n"));
    let (mut count, mut peak) = (1, 0);
    for line in lines.lines() {
        let line = line.unwrap();
        assert!(line.ends_with('}') && !line.contains("changed"), "{line}");
        count += 1;
        if count % 10_000 == 0 && count < COUNT {
            peak = peak_kib(child.id());
        }
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(count, COUNT);
    // All of it is 90 MB.
    assert!(peak < at_first + 4 * 1024, "{peak} KiB, and {at_first} KiB after the first line");
}

#[test]
fn a_pipe_that_is_closed_ends_an_export_without_a_word_but_not_as_if_it_were_whole() {
    let database = Database::create();
    command(&database, &["migrate"]);
    insert_many(&database, "alice", 20_000, 100);
    let directory = Directory::create();
    let mut command = binary(&directory);
    command.args(["export", "--user", "alice"]).env("DATABASE_URL", &database.url);
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut code = None;
    eventually("its end", || {
        code = child.try_wait().unwrap();
        code.is_some()
    });
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(1), &b""[..]));
}
