//! What a test starts with: `App::spawn()` is the built binary on a free port, with an empty
//! database of its own, a clean environment and an empty working directory. When it goes out of
//! scope the service is stopped and all of it is removed, so tests may run side by side.

use crate::{
    http::{Request, Response},
    token::{SECRET, segment, token},
};
use postgres::{Client, NoTls};
use serde_json::{Value, json};
use socket2::Socket;
use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, LazyLock, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

/// For conditions that come true soon or never: far beyond what a loaded machine needs. Less of it,
/// from `TINYTASKS_TEST_PATIENCE_SECONDS`, where many tests are meant to fail.
static PATIENCE: LazyLock<Duration> = LazyLock::new(|| {
    let seconds = env::var("TINYTASKS_TEST_PATIENCE_SECONDS").ok().map(|seconds| seconds.parse().unwrap());
    Duration::from_secs(seconds.unwrap_or(30))
});
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// The contract gives a stopping service 10 s for what is in flight.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// Polls until the condition holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < *PATIENCE, "{what} did not happen in {:?}", *PATIENCE);
        thread::sleep(POLL_INTERVAL);
    }
}

/// Polls until the condition holds many times in a row: a pool may keep some dead connections.
pub fn eventually_settles(what: &str, mut condition: impl FnMut() -> bool) {
    const TIMES: u32 = 30;
    let mut times = 0;
    eventually(what, || {
        times = if condition() { times + 1 } else { 0 };
        times == TIMES
    });
}

/// Also where an earlier process of the same number was killed and has left its own.
fn unique_name() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    static STARTED: LazyLock<u128> =
        LazyLock::new(|| SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis());
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("tinytasks_it_{}_{:x}_{count}", std::process::id(), *STARTED)
}

/// An empty directory, removed with all it holds.
pub struct Directory(PathBuf);

impl Directory {
    pub fn create() -> Self {
        let path = env::temp_dir().join(unique_name());
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file there and gives its path.
    pub fn write(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path.into_os_string().into_string().unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An empty database on the shared server, or on another.
pub struct Database {
    server_url: String,
    pub name: String,
    pub url: String,
}

impl Database {
    pub fn create() -> Self {
        if env::var_os("TINYTASKS_TEST_ON_CITUS").is_some() {
            let url = env::var("TINYTASKS_TEST_CITUS_URL");
            return Self::on_citus(&url.expect("TINYTASKS_TEST_CITUS_URL names a database on a coordinator"));
        }
        Self::create_as("")
    }

    /// With options of `create database`.
    pub fn create_as(options: &str) -> Self {
        let url = env::var("TINYTASKS_TEST_DATABASE_URL");
        Self::make(&url.expect("TINYTASKS_TEST_DATABASE_URL is unset: run ./scripts/test"), options)
    }

    /// The one database of that coordinator, with an empty table that is distributed: a new database
    /// would have to be made on every node. So only one test may run at a time.
    fn on_citus(url: &str) -> Self {
        let mut client = Client::connect(url, NoTls).unwrap();
        client.batch_execute(include_str!("../../schema.sql")).unwrap();
        client
            .batch_execute(
                "do $$ begin
                   if not exists (select from citus_tables where table_name = 'tasks'::regclass) then
                     perform create_distributed_table('tasks', 'user_id');
                   end if;
                 end $$;
                 truncate tasks",
            )
            .unwrap();
        let name = client.query_one("select current_database()::text", &[]).unwrap().get(0);
        // Without a server on which it would be dropped.
        Self { server_url: String::new(), name, url: url.to_owned() }
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

    /// Polls until so many statements of other sessions wait for a lock.
    pub fn wait_until_blocked(&self, count: i64) {
        let mut client = self.client();
        let sql = "select count(*) from pg_stat_activity \
                   where datname = current_database() and wait_event_type = 'Lock'";
        eventually("statements that wait for a lock", || {
            client.query_one(sql, &[]).unwrap().get::<_, i64>(0) == count
        });
    }

    /// Ends every session but the one that does this.
    pub fn terminate_sessions(&self) {
        self.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity \
             where datname = current_database() and pid <> pg_backend_pid()",
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
        // The server itself may be gone: a test may have stopped it.
        if let Ok(mut client) = Client::connect(&self.server_url, NoTls) {
            let sql = format!("drop database if exists {} with (force)", self.name);
            let _ = client.batch_execute(&sql);
        }
    }
}

/// The binary, in a clean environment and an empty working directory.
pub fn binary(directory: &Directory) -> Command {
    let built = env!("CARGO_BIN_EXE_tinytasks");
    let mut command = Command::new(env::var("TINYTASKS_BIN").unwrap_or_else(|_| built.to_owned()));
    command.env_clear().current_dir(directory.path()).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a command that ends by itself has left.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command to its end. Its output has to fit into a pipe.
pub fn run(mut command: Command) -> Outcome {
    let mut child = command.spawn().unwrap();
    let status = wait(&mut child, *PATIENCE);
    if status.is_none() {
        let _ = child.kill();
    }
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let outcome =
        Outcome { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) };
    assert!(status.is_some(), "{command:?} did not end: {outcome:?}");
    outcome
}

/// Runs the binary to its end.
pub fn run_binary(args: &[&str], variables: &[(&str, &str)]) -> Outcome {
    let directory = Directory::create();
    let mut command = binary(&directory);
    command.args(args).envs(variables.iter().copied());
    run(command)
}

fn wait(child: &mut Child, timeout: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        let status = child.try_wait().unwrap();
        if status.is_some() || start.elapsed() > timeout {
            return status;
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Everything the service has written to standard error so far.
#[derive(Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

impl Log {
    fn follow(&self, stderr: ChildStderr) {
        let mut reader = BufReader::new(stderr);
        loop {
            let mut line = Vec::new();
            let count = reader.read_until(b'\n', &mut line).unwrap_or(0);
            let mut lines = self.lines.lock().unwrap();
            if count == 0 {
                lines.1 = true;
            } else {
                lines.0.push(String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned());
            }
            self.changed.notify_all();
            if count == 0 {
                return;
            }
        }
    }
}

/// What an `App` is started with.
pub struct Setup {
    variables: Vec<(String, String)>,
    database: Option<Database>,
    awaits_health: bool,
    has_old_rows: bool,
    descriptors: Option<u32>,
    inherits: Option<OwnedFd>,
}

impl Setup {
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn unset(mut self, name: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self
    }

    pub fn database(mut self, database: Database) -> Self {
        self.database = Some(database);
        self
    }

    /// Does not wait for the database.
    pub fn unhealthy(mut self) -> Self {
        self.awaits_health = false;
        self
    }

    /// The database has tasks from before the rules.
    pub fn with_old_rows(mut self) -> Self {
        self.has_old_rows = true;
        self
    }

    /// The service may have only so many open files.
    pub fn descriptors(mut self, limit: u32) -> Self {
        self.descriptors = Some(limit);
        self
    }

    /// The service gets this socket as systemd would give it.
    pub fn inherits(mut self, listener: &Socket) -> Self {
        self.inherits = Some(listener.try_clone().unwrap().into());
        self
    }

    pub fn spawn(mut self) -> App {
        let database = self.database.unwrap_or_else(Database::create);
        let directory = Directory::create();
        let mut command = binary(&directory);
        if let Some(limit) = self.descriptors {
            command = limited(&command, limit);
        }
        if let Some(socket) = self.inherits {
            command = inheriting(&command, socket);
        }
        // The same tests on the other kind of socket; those on addresses of TCP then make no sense.
        if env::var_os("TINYTASKS_TEST_UNIX").is_some()
            && !self.variables.iter().any(|(name, _)| name == "HOST")
        {
            let path = directory.path().join("http").into_os_string().into_string().unwrap();
            self.variables.push(("HOST".to_owned(), format!("unix:{path}")));
        }
        // `envs` comes last: a test may give another DATABASE_URL.
        command.env("DATABASE_URL", &database.url).envs(self.variables).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let log = Arc::new(Log::default());
        let mut app = App {
            address: String::new(),
            child,
            log,
            database,
            has_old_rows: self.has_old_rows,
            _directory: directory,
        };
        let log = Arc::clone(&app.log);
        thread::spawn(move || log.follow(stderr));
        let line = app.wait_for_log(|line| line.contains("listening") && line.contains("://"));
        let (_, address) = line.split_once("://").expect(&line);
        app.address = address.split(['"', ' ']).next().unwrap().to_owned();
        if self.awaits_health {
            eventually("health", || app.get("/health").send().status == 200);
        }
        app
    }
}

/// A running service.
pub struct App {
    pub address: String,
    child: Child,
    log: Arc<Log>,
    pub database: Database,
    has_old_rows: bool,
    _directory: Directory,
}

impl App {
    pub fn spawn() -> Self {
        Self::setup().spawn()
    }

    pub fn setup() -> Setup {
        let variables = [("JWT_SECRET_KEY", SECRET), ("PORT", "0")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Setup {
            variables: variables.into(),
            database: None,
            awaits_health: true,
            has_old_rows: false,
            descriptors: None,
            inherits: None,
        }
    }

    pub fn request(&self, method: &str, target: &str) -> Request {
        let request = Request::new(&self.address, method, target);
        if self.has_old_rows { request.of_old_rows() } else { request }
    }

    pub fn get(&self, target: &str) -> Request {
        self.request("GET", target)
    }

    pub fn post(&self, target: &str) -> Request {
        self.request("POST", target)
    }

    pub fn patch(&self, target: &str) -> Request {
        self.request("PATCH", target)
    }

    pub fn put(&self, target: &str) -> Request {
        self.request("PUT", target)
    }

    pub fn delete(&self, target: &str) -> Request {
        self.request("DELETE", target)
    }

    /// Where metrics and probes are, for a service with `ADMIN_ADDR`.
    pub fn admin_address(&self) -> String {
        let line = self.wait_for_log(|line| line.contains("metrics and probes"));
        line.split_once("://").expect(&line).1.to_owned()
    }

    pub fn admin(&self, target: &str) -> Request {
        self.admin_by("GET", target)
    }

    pub fn admin_by(&self, method: &str, target: &str) -> Request {
        Request::new(&self.admin_address(), method, target).of_admin()
    }

    pub fn user<'a>(&'a self, user_id: &'a str) -> User<'a> {
        User { app: self, user_id }
    }

    /// The first line of the log that fits, however long ago it was written.
    pub fn wait_for_log(&self, fits: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        let mut lines = self.log.lines.lock().unwrap();
        loop {
            if let Some(line) = lines.0.iter().find(|line| fits(line)) {
                return line.clone();
            }
            let is_over = lines.1 || start.elapsed() > *PATIENCE;
            if is_over {
                // First, so that who stops the service later finds no poisoned lock.
                let all = lines.0.join("\n");
                drop(lines);
                panic!("the line is not in the log:\n{all}");
            }
            lines = self.log.changed.wait_timeout(lines, POLL_INTERVAL * 10).unwrap().0;
        }
    }

    /// All lines up to the one of this last request, which is made for that.
    pub fn log(&self) -> Vec<String> {
        let last = unique_name();
        self.get("/").header("X-Request-Id", &last).send();
        self.wait_for_log(|line| line.contains(&last));
        let lines = self.log.lines.lock().unwrap();
        lines.0.iter().take_while(|line| !line.contains(&last)).cloned().collect()
    }

    /// Everything it has written, without asking it for anything.
    pub fn log_so_far(&self) -> String {
        self.log.lines.lock().unwrap().0.join("\n")
    }

    /// By name, as `kill` has it.
    pub fn signal(&self, signal: &str) {
        // The shell's own: the program of that name is not on every machine.
        let mut command = Command::new("sh");
        command.args(["-c", "kill -s $0 $1", signal]).arg(self.child.id().to_string());
        assert!(command.status().unwrap().success());
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit code, once it has ended.
    pub fn wait_for_exit(&mut self) -> Option<i32> {
        let status = wait(&mut self.child, STOP_TIMEOUT.max(*PATIENCE));
        status.expect("the service does not end").code()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if self.is_running() {
            self.signal("TERM");
        }
        if wait(&mut self.child, STOP_TIMEOUT).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        // What the service said helps where the test has failed.
        if thread::panicking() {
            eprintln!("log of the service:\n{}", self.log_so_far());
        }
    }
}

/// Requests of one user, with a good token, to paths below the user's own.
#[derive(Clone, Copy)]
pub struct User<'a> {
    app: &'a App,
    user_id: &'a str,
}

impl User<'_> {
    /// `rest` follows the user's id: `/tasks…`.
    pub fn request(&self, method: &str, rest: &str) -> Request {
        let target = format!("/api/{}{rest}", segment(self.user_id));
        self.app.request(method, &target).bearer(&token(self.user_id))
    }

    /// With a number of no task, or of one.
    pub fn on_task(&self, method: &str, id: i64) -> Request {
        self.request(method, &format!("/tasks/{id}"))
    }

    pub fn post(&self, body: Value) -> Response {
        self.request("POST", "/tasks").json(body).send()
    }

    /// A new task.
    pub fn create(&self, title: &str) -> Value {
        self.post(json!({"title": title})).expect(201).json()
    }

    /// The number of a new task.
    pub fn create_id(&self) -> i64 {
        self.create("a task")["id"].as_i64().unwrap()
    }

    pub fn task(&self, id: i64) -> Value {
        self.on_task("GET", id).send().expect(200).json()
    }

    pub fn list(&self) -> Value {
        self.request("GET", "/tasks").send().expect(200).json()
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

    /// Of its superuser, ending in `/postgres`.
    pub fn url(&self) -> String {
        self.script("url", &[])
    }

    /// Its first line on standard output.
    fn script(&self, command: &str, more: &[&str]) -> String {
        let mut command = self.command(command, more);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        // Its end is awaited, not that of the pipe: the server may inherit it.
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
        // No assertion: the test may have stopped it.
        let _ = self.command("stop", &["immediate"]).stdout(Stdio::null()).status();
    }
}

/// The same command with a socket as its third descriptor.
fn inheriting(command: &Command, socket: OwnedFd) -> Command {
    let script = "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" 3<&0 0</dev/null";
    let mut inheriting = Command::new("/bin/sh");
    inheriting.args(["-c", script]).arg(command.get_program()).stdin(socket);
    inheriting.env_clear().current_dir(command.get_current_dir().unwrap());
    inheriting.stdout(Stdio::piped()).stderr(Stdio::piped());
    inheriting
}

/// The same command with so many open files at most.
pub fn limited(command: &Command, descriptors: u32) -> Command {
    let mut limited = Command::new("/bin/sh");
    limited.args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\"")]).arg(command.get_program());
    limited.env_clear().current_dir(command.get_current_dir().unwrap()).stdin(Stdio::null());
    limited.stdout(Stdio::piped()).stderr(Stdio::piped());
    limited
}
