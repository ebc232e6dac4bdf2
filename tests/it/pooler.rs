//! A pooler in transaction mode between the service and PostgreSQL.

use crate::support::{
    harness::{App, Database, Directory, Outcome, eventually, run_binary},
    http::Request,
    ledger::{Run, Writer, assert_kept, exchange, work_while},
    tasks::{follow, next},
    token::SECRET,
};
use serde_json::json;
use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::fs::{MetadataExt, PermissionsExt},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// Debian's PgBouncer. In transaction mode it has fewer connections to the server than the service has to
/// PgBouncer.
struct PgBouncer {
    child: Child,
    address: String,
    _directory: Directory,
}

impl PgBouncer {
    /// `mode` is PgBouncer's `pool_mode`.
    fn start(database: &Database, mode: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (host, server_port) = database.server_address().split_once(':').unwrap();
        let (_, rest) = database.url.split_once("://").unwrap();
        let (user, password) = rest.split_once('@').unwrap().0.split_once(':').unwrap();
        let directory = Directory::create();
        // PgBouncer refuses to run as root, so the setting `user` names another user.
        let is_root = fs::metadata(directory.path()).unwrap().uid() == 0;
        let user_line = if is_root { "user = nobody\n" } else { "" };
        let pool_size = if mode == "transaction" { "default_pool_size = 2\n" } else { "" };
        let path = directory.write(
            "pgbouncer.ini",
            &format!(
                "[databases]\n* = host={host} port={server_port} user={user} password={password}\n\
                 [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
                 auth_type = any\npool_mode = {mode}\n{pool_size}{user_line}"
            ),
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let mut command = Command::new("pgbouncer");
        command.arg("--quiet").arg(&path).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().expect("pgbouncer is missing; scripts/test fetches it");
        let bouncer = Self { child, address: format!("127.0.0.1:{port}"), _directory: directory };
        eventually("PgBouncer", || TcpStream::connect(&bouncer.address).is_ok());
        bouncer
    }

    /// The URL of the database through PgBouncer.
    fn url(&self, database: &Database) -> String {
        database.url.replace(database.server_address(), &self.address)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn all_works_through_pgbouncer_in_transaction_mode() {
    let database = Database::create();
    let bouncer = PgBouncer::start(&database, "transaction");
    let url = bouncer.url(&database);
    // The migration runs through it too.
    let setup = App::setup().database(database).env("DATABASE_URL", &url);
    let app = setup.env("DATABASE_PREPARED", "false").spawn();
    let alice = app.user("alice");
    let task = alice.create("a task");
    let id = task["id"].as_i64().unwrap();
    let put = json!({"title": "t", "description": "d", "complete": true});
    alice.on_task("PUT", id).json(put.clone()).send().expect(200);
    let patched = alice.on_task("PATCH", id).json(json!({"description": null})).send().expect(200);
    let etag = patched.field("ETag").unwrap().to_owned();
    let stale = alice.on_task("PATCH", id).header("If-Match", "\"other\"").json(put.clone());
    assert_eq!(exchange(&app.address, &stale).unwrap().status, 412);
    alice.on_task("PUT", id).header("If-Match", &etag).json(put).send().expect(200);
    assert_eq!(alice.list()["tasks"], json!([alice.task(id)]));
    // More rows than are in memory at once, so several statements.
    app.database.execute(
        "insert into tasks (user_id, title, complete) select 'alice', 'many', n % 2 = 0
             from generate_series(1, 1999) n",
    );
    assert_eq!(alice.list()["count"], 2000);
    let page = alice.request("GET", "/tasks?complete=true&order=desc&limit=10").send().expect(200);
    assert!(page.json()["count"] == 10 && page.field("Link").is_some(), "{page:?}");
    // Every statement of a list and of a bulk change, with values that are null and with others.
    for order in ["id", "-id", "created", "-created", "updated", "-updated", "title", "-title"] {
        for more in ["", "&q=MANY&complete=true&limit=10&totals=true"] {
            let list = alice.request("GET", &format!("/tasks?order={order}{more}")).send().expect(200);
            assert_eq!(list.json()["count"], if more.is_empty() { 2000 } else { 10 }, "{order}{more}");
            if let Some(target) = next(&list) {
                assert_eq!(follow(&app, "alice", &target).json()["totals"]["all"], 1999, "{target}");
            }
        }
    }
    for (query, count) in [("?complete=false&q=many", 1000), ("?complete=true", 2000)] {
        let all = alice.request("PATCH", &format!("/tasks{query}")).json(json!({"complete": true}));
        assert_eq!(all.send().expect(200).json()["count"], count, "{query}");
    }
    let many = alice.request("DELETE", "/tasks?complete=true&q=many").send().expect(200);
    assert_eq!(many.json()["count"], 1999);
    assert_eq!(alice.request("DELETE", "/tasks?complete=false").send().expect(200).json()["count"], 0);
    alice.on_task("DELETE", id).send().expect(204);
    alice.on_task("GET", id).send().expect(404);

    // Many clients share the pooler's two connections.
    let mut writers = Writer::several(12, 1);
    let run = Run::new(std::slice::from_ref(&app.address), Duration::ZERO);
    work_while(&run, &mut writers, || thread::sleep(Duration::from_secs(2)));
    app.database.execute("delete from tasks where user_id = 'alice'");
    assert_kept(&writers, &app.database.url);
    let answers = run.answers.lock().unwrap();
    let failed: Vec<_> = answers.iter().filter(|answer| answer.status == Some(503)).collect();
    assert!(answers.len() > 100 && failed.is_empty(), "{failed:?}");
    assert_eq!(app.database.value("select count(*) from pg_stat_activity where datname = current_database() and application_name = 'tinytasks'"), "2");
}

/// The messages of the service that a pooler would see.
#[derive(Default, Debug)]
struct Seen {
    /// Names of the settings that sessions start with.
    sessions: BTreeSet<String>,
    statements: usize,
    named_statements: usize,
}

/// Passes connections on to the database, and listens (the protocol:
/// https://www.postgresql.org/docs/current/protocol-message-formats.html).
struct Tap {
    address: String,
    seen: Arc<Mutex<Seen>>,
}

impl Tap {
    fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tap = Self { address: listener.local_addr().unwrap().to_string(), seen: Arc::default() };
        let (server, seen) = (server.to_owned(), Arc::clone(&tap.seen));
        // The thread ends with the process.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(upstream) = TcpStream::connect(&server) else { return };
                let (mut from, mut to) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                });
                let seen = Arc::clone(&seen);
                thread::spawn(move || {
                    let _ = listen(&client, &upstream, &seen);
                    let _ = upstream.shutdown(Shutdown::Both);
                });
            }
        });
        tap
    }
}

/// Passes on the messages of the client to the server, and records them.
fn listen(mut client: &TcpStream, mut server: &TcpStream, seen: &Mutex<Seen>) -> io::Result<()> {
    let mut is_start = true;
    loop {
        let mut head = vec![0; if is_start { 4 } else { 5 }];
        client.read_exact(&mut head)?;
        let length = u32::from_be_bytes(head[head.len() - 4..].try_into().unwrap());
        let mut body = vec![0; length as usize - 4];
        client.read_exact(&mut body)?;
        let mut seen = seen.lock().unwrap();
        if is_start {
            let texts = String::from_utf8_lossy(&body[4..]);
            let names = texts.trim_end_matches('\0').split('\0').step_by(2);
            seen.sessions.extend(names.map(str::to_owned));
        } else if head[0] == b'P' {
            seen.statements += 1;
            seen.named_statements += usize::from(body[0] != 0);
        }
        is_start = false;
        drop(seen);
        server.write_all(&[head, body].concat())?;
    }
}

#[test]
fn a_pooler_that_keeps_no_session_sees_no_named_statement_and_no_setting() {
    let database = Database::create();
    let tap = Tap::start(database.server_address());
    // Without TLS, which would be asked for first.
    let url = database.url.replace(database.server_address(), &tap.address) + "?sslmode=disable";
    let setup = App::setup().database(database).env("DATABASE_URL", &url);
    let app = setup.env("DATABASE_PREPARED", "false").spawn();
    let alice = app.user("alice");
    let id = alice.create_id();
    let task = json!({"title": "t", "description": "d", "complete": true});
    alice.on_task("PUT", id).json(task.clone()).send().expect(200);
    alice.on_task("PATCH", id).json(json!({"description": null})).send().expect(200);
    assert_eq!(alice.list()["tasks"], json!([alice.task(id)]));
    alice.on_task("DELETE", id).send().expect(204);
    alice.on_task("DELETE", id).send().expect(404);
    let seen = tap.seen.lock().unwrap();
    assert!(!seen.sessions.is_empty() && seen.statements > 5, "{seen:?}");
    assert_eq!(seen.named_statements, 0, "{seen:?}");
    // The service must start its sessions only with settings that PgBouncer accepts by default.
    for name in &seen.sessions {
        let is_taken = ["user", "database", "client_encoding", "application_name"].contains(&name.as_str());
        assert!(is_taken, "{name}: {seen:?}");
    }
}

fn check(url: &str, more: &[(&str, &str)]) -> Outcome {
    run_binary(&["check"], &[&[("DATABASE_URL", url), ("JWT_SECRET_KEY", SECRET)], more].concat())
}

#[test]
fn all_works_through_stock_pgbouncer_and_a_statement_keeps_its_limit() {
    let database = Database::create();
    let bouncer = PgBouncer::start(&database, "session");
    let url = bouncer.url(&database);
    let setup = App::setup().database(database).env("DATABASE_URL", &url);
    let app = setup.env("DATABASE_POOL_SIZE", "4").spawn();
    let outcome = check(&url, &[]);
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
    let url = bouncer.url(&database);
    let outcome = run_binary(&["migrate"], &[("DATABASE_URL", &url)]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let outcome = check(&url, &[]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("DATABASE_PREPARED=false"), "{outcome:?}");
    let outcome = check(&url, &[("DATABASE_PREPARED", "false")]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let app = App::setup().database(database).env("DATABASE_URL", &url).unhealthy().spawn();
    // If many requests run at once, the pooler gives them one another's sessions.
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
