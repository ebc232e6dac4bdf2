//! PgBouncer as Debian's package has it (session mode), and in transaction mode.

use crate::{
    harness::{App, Database, Directory, eventually, run_binary},
    http::Request,
    token::SECRET,
};
use serde_json::json;
use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::{MetadataExt, PermissionsExt},
    process::{Child, Command, Stdio},
    thread,
};

struct PgBouncer {
    child: Child,
    url: String,
    _directory: Directory,
}

impl PgBouncer {
    fn start(database: &Database, mode: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (host, server_port) = database.server_address().split_once(':').unwrap();
        let (user, password) =
            database.url.split_once("://").unwrap().1.split_once('@').unwrap().0.split_once(':').unwrap();
        let directory = Directory::create();
        // It does not serve as root.
        let user_line =
            if fs::metadata(directory.path()).unwrap().uid() == 0 { "user = postgres\n" } else { "" };
        let path = directory.write(
            "pgbouncer.ini",
            &format!(
                "[databases]\n* = host={host} port={server_port} user={user} password={password}\n\
                 [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
                 auth_type = any\npool_mode = {mode}\n{user_line}"
            ),
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let mut command = Command::new("/usr/sbin/pgbouncer");
        command.arg("--quiet").arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("PgBouncer is not installed; scripts/test installs it");
        let address = format!("127.0.0.1:{port}");
        let url = database.url.replace(database.server_address(), &address);
        eventually("PgBouncer", || TcpStream::connect(&address).is_ok());
        Self { child, url, _directory: directory }
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn check(url: &str, more: &[(&str, &str)]) -> crate::harness::Outcome {
    run_binary(&["check"], &[&[("DATABASE_URL", url), ("JWT_SECRET_KEY", SECRET)], more].concat())
}

#[test]
fn all_works_through_stock_pgbouncer_and_a_statement_keeps_its_limit() {
    let database = Database::create();
    let bouncer = PgBouncer::start(&database, "session");
    let setup = App::setup().database(database).env("DATABASE_URL", &bouncer.url);
    let app = setup.env("DATABASE_POOL_SIZE", "4").spawn();
    let outcome = check(&bouncer.url, &[]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let alice = app.user("alice");
    for _ in 0..60 {
        let id = alice.create_id();
        alice.on_task("PATCH", id).json(json!({"complete": true})).send().expect(200);
    }
    // The server ends the statement, so it is known that nothing was done.
    let mut holder = app.database.client();
    let mut lock = holder.transaction().unwrap();
    lock.batch_execute("lock table tasks in access exclusive mode").unwrap();
    let refused = alice.on_task("PATCH", 1).json(json!({"title": "t"})).send();
    let detail = refused.expect_problem(503, "SERVICE_UNAVAILABLE").json()["detail"].clone();
    assert_eq!(detail, "not possible at the moment, try again soon");
    lock.rollback().unwrap();
}

#[test]
fn a_pooler_in_transaction_mode_is_noticed_and_the_variable_is_named() {
    let database = Database::create();
    let bouncer = PgBouncer::start(&database, "transaction");
    let outcome = run_binary(&["migrate"], &[("DATABASE_URL", &bouncer.url)]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let outcome = check(&bouncer.url, &[]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("DATABASE_PREPARED=false"), "{outcome:?}");
    let outcome = check(&bouncer.url, &[("DATABASE_PREPARED", "false")]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let app = App::setup().database(database).env("DATABASE_URL", &bouncer.url).unhealthy().spawn();
    // Many at once get one another's sessions.
    let list = app.user("alice").request("GET", "/tasks");
    eventually("a line in the log", || {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| Request::send(&list));
            }
        });
        app.log_so_far().contains("set DATABASE_PREPARED=false")
    });
}
