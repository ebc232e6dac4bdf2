//! docs/operations.md, done as it is written there: its SQL and its commands are taken from the text.

use crate::support::{
    harness::{App, Database, Directory, Outcome, become_pipe, eventually, run, run_binary},
    servers::{Server, UNSAFE},
    tasks::tagged,
    token::{SECRET, now, segment, sign},
};
use postgres::{Client, NoTls, error::SqlState};
use serde_json::{Value, json};
use std::{
    env,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

const DOCUMENT: &str = include_str!("../../docs/operations.md");
const OTHER_SECRET: &str = "another secret of enough bytes, also for tests";

/// The code block in this language that contains `part`.
pub fn boxed(language: &str, part: &str) -> &'static str {
    let start = format!("```{language}\n");
    let boxes = DOCUMENT.split(&start).skip(1);
    let mut boxes = boxes.map(|text| text.split("```").next().unwrap());
    boxes.find(|text| text.contains(part)).unwrap_or_else(|| panic!("no box has {part}"))
}

/// Runs commands as an operator would, with the newest PostgreSQL's programs and tinytasks in PATH.
pub fn shell(script: &str, directory: &Directory, variables: &[(&str, &str)]) -> Outcome {
    let cluster = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/cluster");
    let newest = Command::new(cluster).arg("programs").arg(directory.path()).output().unwrap();
    let newest = String::from_utf8(newest.stdout).unwrap().trim().into();
    let own = Path::new(env!("CARGO_BIN_EXE_tinytasks")).parent().unwrap().to_owned();
    let usual = env::var_os("PATH").unwrap();
    let path = [own, newest].into_iter().chain(env::split_paths(&usual));
    let mut command = Command::new("sh");
    command.args(["-euc", script]).current_dir(directory.path()).env_clear();
    command.env("PATH", env::join_paths(path).unwrap()).envs(variables.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    run(command)
}

pub fn succeeds(outcome: Outcome) -> Outcome {
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    outcome
}

/// A cluster with the two roles and their database.
struct Site {
    server: Server,
    files: Directory,
}

impl Site {
    fn start() -> Self {
        let site = Self { server: Server::start(&[UNSAFE]), files: Directory::create() };
        site.files.write("roles.sql", boxed("sql", "create role"));
        let psql = "psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname=\"$URL\" --file=roles.sql";
        succeeds(shell(psql, &site.files, &[("URL", &site.server.url())]));
        // This statement is what psql's \password sends.
        site.set_password("owner", "0wner");
        site.set_password("service", "5ervice");
        site
    }

    fn migrated() -> Self {
        let site = Self::start();
        succeeds(shell(
            boxed("sh", "tinytasks migrate"),
            &site.files,
            &[("OWNER_URL", &site.url("owner", "0wner"))],
        ));
        site.owner().batch_execute(boxed("sql", " on tasks to ")).unwrap();
        site
    }

    fn set_password(&self, role: &str, password: &str) {
        let sql = format!("alter role tinytasks_{role} password '{password}'");
        self.server.client().batch_execute(&sql).unwrap();
    }

    fn url(&self, role: &str, password: &str) -> String {
        format!("postgres://tinytasks_{role}:{password}@{}/tinytasks", self.server.address())
    }

    fn owner(&self) -> Client {
        Client::connect(&self.url("owner", "0wner"), NoTls).unwrap()
    }

    fn service_url(&self) -> String {
        self.url("service", "5ervice")
    }

    /// Starts the service as the document says.
    fn spawn(&self) -> App {
        App::setup().env("DATABASE_URL", &self.service_url()).env("AUTO_MIGRATE", "false").spawn()
    }

    /// Runs the script with the owner's password in the file that the document names.
    fn with_password_file(&self, script: &str) {
        let file = self.files.write("pgpass", "*:*:tinytasks:tinytasks_owner:0wner\n");
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        let variables = [("PGPASSFILE", &*file), ("SERVER", &*self.server.address())];
        succeeds(shell(script, &self.files, &variables));
    }

    fn run(&self, arguments: &[&str]) -> String {
        let url = self.service_url();
        succeeds(run_binary(arguments, &[("DATABASE_URL", &url), ("JWT_SECRET_KEY", SECRET)])).stdout
    }
}

#[test]
fn the_service_role_is_enough_for_all_that_the_service_and_its_commands_do() {
    let site = Site::migrated();
    let app = site.spawn();
    let alice = app.user("alice");
    app.get("/health").send().expect(200);
    let id = alice.create_id();
    let create =
        || alice.request("POST", "/tasks").json(json!({"title": "once"})).header("Idempotency-Key", "k");
    let created = create().send().expect(201).json();
    let again = create().send().expect(201);
    assert_eq!((again.json(), again.field("Idempotent-Replayed")), (created, Some("true")));
    assert_eq!((alice.task(id)["title"].clone(), alice.list()["count"].clone()), (json!("a task"), json!(2)));
    let full = json!({"title": "t", "complete": true});
    alice.on_task("PUT", id).json(full).send().expect(200);
    let (_, tag) = tagged(alice, id);
    let patch = |body| alice.on_task("PATCH", id).json(body).header("If-Match", &tag).send();
    patch(json!({"complete": false})).expect(200);
    patch(json!({"complete": false})).expect(200);
    patch(json!({"complete": true})).expect(412);
    let (_, tag) = tagged(alice, id);
    alice.on_task("DELETE", id).header("If-Match", &tag).send().expect(204);
    for query in ["?order=title&q=ONCE&totals=true", "?order=-updated&limit=1", "?order=created"] {
        assert_eq!(alice.request("GET", &format!("/tasks{query}")).send().expect(200).json()["count"], 1);
    }
    let all = alice.request("PATCH", "/tasks?complete=false").json(json!({"complete": true}));
    assert_eq!(all.send().expect(200).json()["count"], 1);
    assert_eq!(alice.request("DELETE", "/tasks?complete=false").send().expect(200).json()["count"], 0);

    assert!(site.run(&["check"]).contains("rows: all keep the rules"));
    assert_eq!(site.run(&["export", "--user", "alice"]).lines().count(), 1);
    assert_eq!(site.run(&["purge", "--user", "alice", "--dry-run"]), "would delete 1 tasks of \"alice\"\n");
    assert_eq!(site.run(&["purge", "--user", "alice"]), "deleted 1 tasks of \"alice\"\n");
}

#[test]
fn the_service_role_can_do_nothing_else() {
    let site = Site::migrated();
    site.owner().batch_execute("create table others (id int); insert into others values (1)").unwrap();
    let mut service = Client::connect(&site.service_url(), NoTls).unwrap();
    service.batch_execute("insert into tasks (user_id, title) values ('alice', 't')").unwrap();
    for sql in [
        "create table mine (id int)",
        "create temporary table mine (id int)",
        "create schema mine",
        "create view mine as select 1",
        "create function mine() returns int language sql as 'select 1'",
        "create database mine",
        "create role mine",
        "truncate tasks",
        "drop table tasks",
        "alter table tasks add column more text",
        "alter table tasks drop constraint tasks_title_length",
        "alter table tasks disable trigger all",
        "create index on tasks (title)",
        "create rule mine as on delete to tasks do instead nothing",
        "select * from others",
        "insert into others values (2)",
        "select setval('tasks_id_seq', 1)",
        "select nextval('tasks_id_seq')",
        "select rolpassword from pg_authid",
        "copy tasks to '/tmp/tinytasks'",
        "copy tasks from program 'true'",
        "alter system set ssl = off",
        "alter role tinytasks_service superuser",
        "set role tinytasks_owner",
    ] {
        let error = service.batch_execute(sql).expect_err(sql);
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{sql}: {error:?}");
    }
    assert_eq!(service.query("select from tasks", &[]).unwrap().len(), 1);
    // No other role can connect to the database, and the owner cannot connect to other databases.
    site.server.client().batch_execute("create role stranger login password 'x'").unwrap();
    let stranger = format!("postgres://stranger:x@{}/tinytasks", site.server.address());
    let Err(error) = Client::connect(&stranger, NoTls) else { panic!("a stranger is let in") };
    assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{error:?}");
}

#[test]
fn a_dump_restored_on_another_server_gives_the_same_service() {
    let site = Site::migrated();
    let app = site.spawn();
    let create = |app: &App, title: &str| {
        let request = app.user("alice").request("POST", "/tasks").json(json!({"title": title}));
        request.header("Idempotency-Key", "k").send().expect(201).json()
    };
    create(&app, "with a key");
    for user_id in ["alice", "alice", "b\u{F6}b \u{1F600}"] {
        app.user(user_id).create("\u{1F600} \\ \"title\"\n");
    }
    let last = app.user("alice").create_id();
    app.user("alice").on_task("DELETE", last).send().expect(204);
    site.with_password_file(boxed("sh", "pg_dump"));
    let dump = site.files.path().join("tinytasks.dump");
    assert_eq!(fs::metadata(&dump).unwrap().permissions().mode() & 0o777, 0o600);
    app.user("alice").create("after the dump");

    let new = Site::start();
    fs::copy(dump, new.files.path().join("tinytasks.dump")).unwrap();
    new.with_password_file(boxed("sh", "pg_restore"));
    let restored = new.spawn();
    assert!(new.run(&["check"]).contains("rows: all keep the rules"));
    let tasks = |app: &App, user_id: &str| {
        let list = app.user(user_id).list();
        let mut tasks: Vec<Value> = list["tasks"].as_array().unwrap().clone();
        tasks.retain(|task| task["title"] != "after the dump");
        let ids = tasks.iter().map(|task| task["id"].as_i64().unwrap());
        let tags: Vec<String> = ids.map(|id| tagged(app.user(user_id), id).1).collect();
        (tasks, tags)
    };
    for user_id in ["alice", "b\u{F6}b \u{1F600}"] {
        assert_eq!(tasks(&restored, user_id), tasks(&app, user_id));
        assert!(!tasks(&restored, user_id).0.is_empty());
    }
    assert_eq!(restored.user("alice").create_id(), last + 1);
    assert_eq!(create(&restored, "with a key"), create(&app, "with a key"));
    // The owner can migrate the restored database.
    succeeds(run_binary(&["migrate"], &[("DATABASE_URL", &new.url("owner", "0wner"))]));
}

#[test]
fn a_new_database_password_is_taken_over_and_no_request_fails() {
    let site = Site::migrated();
    let file = site.files.write("url", &site.service_url());
    let setup = App::setup().env("DATABASE_URL", "").env("DATABASE_URL_FILE", &file);
    let app = setup.env("AUTO_MIGRATE", "false").spawn();
    let answers = || app.user("alice").request("GET", "/tasks").send().expect(200);
    answers();
    site.set_password("service", "n3w");
    answers();
    let beside = site.files.write("url.new", &site.url("service", "n3w"));
    fs::rename(beside, &file).unwrap();
    app.signal("HUP");
    app.wait_for_log(|line| line.contains("secrets read again"));
    answers();
    let end = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'tinytasks_service'";
    assert!(DOCUMENT.contains(end));
    site.server.client().batch_execute(end).unwrap();
    eventually("new sessions", || {
        let count = "select count(*) from pg_stat_activity where usename = 'tinytasks_service'";
        answers();
        site.server.client().query_one(count, &[]).unwrap().get::<_, i64>(0) > 1
    });
    assert!(Client::connect(&site.service_url(), NoTls).is_err());
}

#[test]
fn a_bad_file_keeps_its_own_secret_and_no_other() {
    let files = Directory::create();
    let database = Database::create();
    let (url, secret) = (files.write("url", &database.url), files.write("secret", SECRET));
    let setup = App::setup().database(database).env("DATABASE_URL", "").env("DATABASE_URL_FILE", &url);
    let app = setup.env("JWT_SECRET_KEY", "").env("JWT_SECRET_KEY_FILE", &secret).spawn();
    let status = |secret| {
        let token = sign(secret, &json!({"user_id": "alice", "exp": now() + 60}));
        app.get("/api/alice/tasks").bearer(&token).send().status
    };
    files.write("secret", OTHER_SECRET);
    files.write("url", "nonsense");
    app.signal("HUP");
    let line = app.wait_for_log(|line| line.contains("DATABASE_URL kept as it was"));
    assert!(line.contains("DATABASE_URL_FILE") && !line.contains("nonsense"), "{line}");
    assert_eq!((status(SECRET), status(OTHER_SECRET)), (401, 200));
    let log = app.log_so_far();
    assert!(!log.contains("token secrets kept") && !log.contains("secrets read again"), "{log}");
}

/// The file lies on a disk that does not answer. A named pipe that nobody writes to stands for that.
#[test]
fn a_secret_that_cannot_be_read_to_its_end_holds_up_nobody() {
    let files = Directory::create();
    let secret = files.write("secret", SECRET);
    let mut app = App::setup().env("JWT_SECRET_KEY", "").env("JWT_SECRET_KEY_FILE", &secret).spawn();
    let _writer = become_pipe(Path::new(&secret));
    for _ in 0..3 {
        app.user("alice").create("t");
    }
    app.signal("HUP");
    app.user("alice").create("t");
    app.signal("TERM");
    assert_eq!(app.wait_for_exit(), Some(0));
}

#[test]
fn another_database_is_none_that_a_running_service_goes_over_to() {
    let other = Database::create();
    let files = Directory::create();
    let file = files.write("url", &other.url);
    let setup = App::setup().database(other).env("DATABASE_URL", "").env("DATABASE_URL_FILE", &file);
    let app = setup.spawn();
    files.write("url", &format!("{}x", app.database.url));
    app.signal("HUP");
    let line = app.wait_for_log(|line| line.contains("DATABASE_URL kept as it was"));
    assert!(line.contains("DATABASE_URL: names another database"), "{line}");
    app.user("alice").create("t");
}

#[test]
fn a_new_secret_logs_nobody_out_until_the_old_one_is_dropped() {
    let files = Directory::create();
    let secret = files.write("secret", SECRET);
    let previous = files.write("previous", SECRET);
    let setup = App::setup().unset("JWT_SECRET_KEY").env("JWT_SECRET_KEY_FILE", &secret);
    let app = setup.env("JWT_SECRET_KEY_PREVIOUS_FILE", &previous).spawn();
    let status = |secret| {
        let token = sign(secret, &json!({"user_id": "alice", "exp": 9_999_999_999_i64}));
        app.get(&format!("/api/{}/tasks", segment("alice"))).bearer(&token).send().status
    };
    assert_eq!((status(SECRET), status(OTHER_SECRET)), (200, 401));
    files.write("secret", OTHER_SECRET);
    app.signal("HUP");
    eventually("the new one", || status(SECRET) == 200 && status(OTHER_SECRET) == 200);
    files.write("previous", OTHER_SECRET);
    app.signal("HUP");
    eventually("no old one", || status(SECRET) == 401);
    assert_eq!(status(OTHER_SECRET), 200);
}

/// The script of docs/tokens.md, which may meet a JWKS in any layout.
#[test]
fn the_script_that_fetches_keys_takes_a_set_in_any_layout_and_nothing_else() {
    const KEY: &str = r#""kty":"OKP","crv":"Ed25519","kid":"a","x":"AA""#;
    const SECRET_KEY: &str = " contains a private or symmetric key\n";
    let files = Directory::create();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/better-auth/refresh-jwks \"$URL\" jwks.json");
    let spaced = KEY.replace(':', " :\n  ");
    for (content, refusal) in [
        (format!("{{\"keys\":[{{{KEY}}}]}}"), ""),
        (format!("{{\n  \"keys\": [\n    {{\r\n\t{spaced}\n    }}\n  ]\n}}\n"), ""),
        (format!("{{\n  \"keys\": [\n{{{spaced},\n\"d\"\n: \"AA\"}}]}}"), SECRET_KEY),
        ("{\"keys\":[{\"kty\" : \"oct\"}]}".to_owned(), SECRET_KEY),
        (format!("{{\"keys\":[{{{KEY}}},{{\"k\": \"AA\"}}]}}"), SECRET_KEY),
        ("<html>\n\"keys\": [{".to_owned(), " is not a JWKS with at least one key\n"),
        ("{\"keys\": []}".to_owned(), " is not a JWKS with at least one key\n"),
        (String::new(), " is not a JWKS with at least one key\n"),
    ] {
        let old = files.write("jwks.json", "old");
        let url = format!("file://{}", files.write("served", &content));
        let outcome = shell(script, &files, &[("URL", &url)]);
        assert_eq!(outcome.code, Some(i32::from(!refusal.is_empty())), "{content}: {outcome:?}");
        assert!(outcome.stderr.ends_with(refusal), "{content}: {outcome:?}");
        let kept = fs::read_to_string(old).unwrap();
        assert_eq!(kept, if refusal.is_empty() { &*content } else { "old" });
    }
}
