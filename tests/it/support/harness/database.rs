//! PostgreSQL for a test: an empty database on the shared server, or a server of the test's own.

use super::{Directory, PATIENCE, eventually, process::wait, unique_name};
use postgres::{Client, NoTls};
use std::{
    env,
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

/// The number of [`Database`]s of the running test on Citus.
static IN_USE_ON_CITUS: AtomicUsize = AtomicUsize::new(0);

/// An empty database on the shared server, or on another.
pub struct Database {
    server_url: String,
    pub name: String,
    pub url: String,
}

impl Database {
    pub fn create() -> Self {
        if Self::is_on_citus() {
            let url = env::var("TINYTASKS_TEST_CITUS_URL");
            return Self::on_citus(&url.expect("TINYTASKS_TEST_CITUS_URL names a database on a coordinator"));
        }
        Self::create_as("")
    }

    /// Whether [`Database::create`] uses a coordinator of Citus.
    pub fn is_on_citus() -> bool {
        env::var_os("TINYTASKS_TEST_ON_CITUS").is_some()
    }

    /// The one database of that coordinator, with an empty table that is distributed: a new database
    /// would have to be made on every node. So only one test may run at a time, and the instances of a
    /// test share the table, which is emptied for the first of them.
    fn on_citus(url: &str) -> Self {
        let mut client = Client::connect(url, NoTls).unwrap();
        client.batch_execute(include_str!("../../../../schema.sql")).unwrap();
        client
            .batch_execute(
                "do $$ begin
                   if not exists (select from citus_tables where table_name = 'tasks'::regclass) then
                     perform create_distributed_table('tasks', 'user_id');
                   end if;
                 end $$",
            )
            .unwrap();
        if IN_USE_ON_CITUS.fetch_add(1, Ordering::Relaxed) == 0 {
            client.batch_execute("truncate tasks").unwrap();
        }
        let name = client.query_one("select current_database()::text", &[]).unwrap().get(0);
        // No server's URL: this database is not dropped.
        Self { server_url: String::new(), name, url: url.to_owned() }
    }

    /// Creates a database with these options of `create database`.
    pub fn create_as(options: &str) -> Self {
        let url = env::var("TINYTASKS_TEST_DATABASE_URL");
        Self::make(&url.expect("TINYTASKS_TEST_DATABASE_URL is unset: run ./scripts/test"), options)
    }

    /// The URL is that of a superuser and ends in `/postgres`.
    pub fn create_on(server_url: &str) -> Self {
        Self::make(server_url, "")
    }

    fn make(server_url: &str, options: &str) -> Self {
        let name = unique_name();
        let base = server_url.strip_suffix("/postgres").expect("the server's URL ends in /postgres");
        let database = Self { server_url: server_url.to_owned(), url: format!("{base}/{name}"), name };
        database.on_server(&format!("create database {} {options}", database.name));
        database
    }

    fn on_server(&self, sql: &str) {
        Client::connect(&self.server_url, NoTls).unwrap().batch_execute(sql).unwrap();
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.url, NoTls).unwrap()
    }

    pub fn execute(&self, sql: &str) {
        self.client().batch_execute(sql).unwrap();
    }

    /// The first column of the first row, as text.
    pub fn value(&self, sql: &str) -> String {
        let row = self.client().query_one(&format!("select ({sql})::text"), &[]).unwrap();
        row.get(0)
    }

    /// Polls until exactly that many statements of other sessions wait for a lock.
    pub fn wait_until_blocked(&self, count: i64) {
        let mut client = self.client();
        let sql = "select count(*) from pg_stat_activity \
                   where datname = current_database() and wait_event_type = 'Lock'";
        eventually("statements that wait for a lock", || {
            client.query_one(sql, &[]).unwrap().get::<_, i64>(0) == count
        });
    }

    /// Ends every other session in the database, those of the service first: one that waits for a lock must
    /// not get it because its holder has ended before.
    pub fn terminate_sessions(&self) {
        self.execute(
            "select pg_terminate_backend(pid) from (select pid from pg_stat_activity \
             where datname = current_database() and pid <> pg_backend_pid() \
             order by application_name = 'tinytasks' desc) as session",
        );
    }

    /// Host and port.
    pub fn server_address(&self) -> &str {
        let (_, rest) = self.url.split_once("://").unwrap();
        let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
        rest.split('/').next().unwrap()
    }

    /// The URL with another user and password.
    pub fn url_as(&self, role: &str, password: &str) -> String {
        format!("postgres://{role}:{password}@{}/{}", self.server_address(), self.name)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.server_url.is_empty() {
            IN_USE_ON_CITUS.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        // A test may have stopped the server.
        if let Ok(mut client) = Client::connect(&self.server_url, NoTls) {
            let sql = format!("drop database if exists {} with (force)", self.name);
            let _ = client.batch_execute(&sql);
        }
    }
}

/// A PostgreSQL server that a test may stop, in a directory of its own.
pub struct Cluster {
    directory: Directory,
}

impl Cluster {
    pub fn start() -> Self {
        let cluster = Self { directory: Directory::create() };
        cluster.script("start", &[]);
        cluster
    }

    pub fn start_again(&self) {
        self.script("start", &[]);
    }

    pub fn stop(&self) {
        self.script("stop", &["immediate"]);
    }

    /// The URL of its superuser. It ends in `/postgres`.
    pub fn url(&self) -> String {
        self.script("url", &[])
    }

    /// Returns the first line of its standard output.
    fn script(&self, command: &str, more: &[&str]) -> String {
        let mut command = self.command(command, more);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        // The end of the script is awaited, not that of the pipe, which the server may have inherited.
        let status = wait(&mut child, *PATIENCE * 2);
        assert!(status.is_some_and(|status| status.success()), "{command:?}: {status:?}");
        let mut line = String::new();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.take(1000).read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn command(&self, command: &str, more: &[&str]) -> Command {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/cluster");
        let mut built = Command::new(script);
        built.arg(command).arg(self.directory.path().join("cluster")).args(more);
        built
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The test may have stopped it, so a failure is ignored.
        let _ = self.command("stop", &["immediate"]).stdout(Stdio::null()).status();
    }
}
