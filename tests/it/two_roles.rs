//! docs/operations.md, "From one role to two": its steps on a service that is running as the owner of everything.

use crate::operations::{boxed, shell, succeeds};
use crate::support::{
    harness::{App, Directory, eventually, run_binary},
    servers::{Server, UNSAFE},
    token::{SECRET, token},
};
use postgres::{Client, NoTls, error::SqlState};
use serde_json::json;
use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
};

/// psql runs without ON_ERROR_STOP on the command line, because the file itself must make it stop at an error.
const PSQL: &str = "psql --no-psqlrc --quiet --dbname=\"$URL\" --file=second_role.sql";

/// The start of docs/deploy.md: one role, which owns the database and the service's table.
fn server_with_one_role() -> Server {
    let server = Server::start(&[UNSAFE]);
    let mut superuser = server.client();
    superuser.batch_execute("create role tinytasks_old login password 'old'").unwrap();
    superuser.batch_execute("create database tasks_of_one_role owner tinytasks_old").unwrap();
    server
}

/// The statements of the page, with other role names, because the superuser of this server is already called
/// tinytasks.
fn statements() -> String {
    let text = boxed("sql", "alter schema public owner to tinytasks;");
    let text = text.replace("to tinytasks;", "to tinytasks_old;");
    text.replace("database tinytasks ", "database tasks_of_one_role ")
        .replace("\\connect tinytasks", "\\connect tasks_of_one_role")
}

fn url(server: &Server, role: &str, password: &str) -> String {
    format!("postgres://{role}:{password}@{}/tasks_of_one_role", server.address())
}

/// Every answer while the roles change is a success.
#[test]
fn a_running_service_goes_from_one_role_to_two_and_no_request_fails() {
    let server = server_with_one_role();
    let files = Directory::create();
    files.write("second_role.sql", &statements());
    let file = files.write("url", &url(&server, "tinytasks_old", "old"));
    let app = App::setup().env("DATABASE_URL", "").env("DATABASE_URL_FILE", &file).spawn();
    let (is_over, answers) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                app.user("alice").post(json!({"title": "while the roles change"})).expect(201);
                app.user("alice").request("GET", "/tasks?limit=1").send().expect(200);
                answers.fetch_add(1, Ordering::Relaxed);
            }
        });
        let some_more = || {
            let before = answers.load(Ordering::Relaxed);
            eventually("more answers", || {
                client.is_finished() || answers.load(Ordering::Relaxed) > before + 5
            });
        };
        some_more();
        succeeds(shell(PSQL, &files, &[("URL", &server.url())]));
        some_more();
        server.client().batch_execute("alter role tinytasks_service password '5ervice'").unwrap();
        let service = url(&server, "tinytasks_service", "5ervice");
        let check = boxed("sh", "AUTO_MIGRATE=false tinytasks check");
        let variables = [("SERVICE_URL", &*service), ("JWT_SECRET_KEY", SECRET)];
        assert!(succeeds(shell(check, &files, &variables)).stdout.contains("every statement can be done"));
        fs::rename(files.write("url.new", &service), &file).unwrap();
        app.signal("HUP");
        app.wait_for_log(|line| line.contains("secrets read again"));
        some_more();
        is_over.store(true, Ordering::Relaxed);
    });
    // Sessions end only now, because a write that loses its session is answered 503.
    let end = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'tinytasks_old'";
    server.client().batch_execute(end).unwrap();
    let request = || app.request("GET", "/api/alice/tasks").bearer(&token("alice")).send().status == 200;
    eventually("the second role at work", || {
        let count = "select count(*) from pg_stat_activity where usename = 'tinytasks_service'";
        request() && server.client().query_one(count, &[]).unwrap().get::<_, i64>(0) > 0
    });

    let mut second = Client::connect(&url(&server, "tinytasks_service", "5ervice"), NoTls).unwrap();
    for sql in ["drop table tasks", "alter table tasks add column x int", "create table mine (id int)"] {
        let error = second.batch_execute(sql).expect_err(sql);
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{sql}: {error:?}");
    }
    // The first role is still the owner, so it makes the next upgrade.
    let owner = url(&server, "tinytasks_old", "old");
    succeeds(run_binary(&["migrate"], &[("DATABASE_URL", &owner)]));
}

/// Guards against a mistake: if a statement fails, the revokes after it must not be done.
#[test]
fn steps_that_cannot_be_done_whole_change_nothing() {
    let server = server_with_one_role();
    let files = Directory::create();
    files.write("second_role.sql", &statements());
    let app = App::setup().env("DATABASE_URL", &url(&server, "tinytasks_old", "old")).spawn();
    server.client().batch_execute("create role tinytasks_service").unwrap();
    let rights = || {
        let sql = "select coalesce(datacl::text, '-') from pg_database where datname = 'tasks_of_one_role'";
        server.client().query_one(sql, &[]).unwrap().get::<_, String>(0)
    };
    let before = rights();
    let outcome = shell(PSQL, &files, &[("URL", &server.url())]);
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
    assert!(outcome.stderr.contains("already exists"), "{outcome:?}");
    assert_eq!(rights(), before);
    app.user("alice").create("after it");
}
