//! The start of a test: `App::spawn()` is the built binary on a free port, with an empty
//! database of its own, a clean environment and an empty working directory. When it goes out of
//! scope the service is stopped and all of it is removed, so tests may run side by side.

mod database;
mod process;

pub use database::{Cluster, Database};
pub use process::{Outcome, binary, by_shell, run, run_binary};

use crate::support::{
    http::{Request, Response},
    token::{SECRET, segment, token},
};
use process::{inheriting, wait};
use serde_json::{Value, json};
use socket2::Socket;
use std::{
    env,
    fs::{self, File},
    io::{BufRead, BufReader},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    sync::{
        Arc, Condvar, LazyLock, Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

/// How long a test waits for a condition that comes true soon or never: far longer than a busy machine
/// needs. `TINYTASKS_TEST_PATIENCE_SECONDS` makes it shorter where many tests are meant to fail.
static PATIENCE: LazyLock<Duration> =
    LazyLock::new(|| Duration::from_secs(number("TINYTASKS_TEST_PATIENCE_SECONDS", 60)));

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

/// Polls until the condition holds 30 times in a row: a pool may still have some dead connections.
pub fn eventually_settles(what: &str, mut condition: impl FnMut() -> bool) {
    const TIMES: u32 = 30;
    let mut times = 0;
    eventually(what, || {
        times = if condition() { times + 1 } else { 0 };
        times == TIMES
    });
}

/// Unique also when an earlier process with the same id was killed and has left its files behind.
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

    /// Writes a file there, and returns its path.
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

/// Puts a named pipe in the place of a file, and returns when the service reads from it. It waits until the
/// returned end is dropped.
pub fn become_pipe(path: &Path) -> File {
    let beside = path.with_extension("pipe");
    assert!(Command::new("mkfifo").arg(&beside).status().unwrap().success());
    fs::rename(beside, path).unwrap();
    let (path, (sender, opened)) = (path.to_owned(), mpsc::channel());
    thread::spawn(move || sender.send(File::options().write(true).open(path)));
    opened.recv_timeout(Duration::from_secs(30)).expect("the service reads it").unwrap()
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

/// The arguments and environment of an `App`.
pub struct Setup {
    variables: Vec<(String, String)>,
    database: Option<Database>,
    awaits_health: bool,
    has_old_rows: bool,
    descriptors: Option<u32>,
    policy: Option<&'static str>,
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

    /// Does not wait until the service is healthy.
    pub fn unhealthy(mut self) -> Self {
        self.awaits_health = false;
        self
    }

    /// The database has tasks of an older table, which break rules.
    pub fn with_old_rows(mut self) -> Self {
        self.has_old_rows = true;
        self
    }

    /// Limits the number of the service's open files.
    pub fn descriptors(mut self, limit: u32) -> Self {
        self.descriptors = Some(limit);
        self
    }

    /// The service is started with this scheduling policy, an option of chrt(1).
    pub fn policy(mut self, policy: &'static str) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Passes this socket to the service as systemd would.
    pub fn inherits(mut self, listener: &Socket) -> Self {
        self.inherits = Some(listener.try_clone().unwrap().into());
        self
    }

    pub fn spawn(mut self) -> App {
        let database = self.database.unwrap_or_else(Database::create);
        let directory = Directory::create();
        let mut command = binary(&directory);
        if let Some(limit) = self.descriptors {
            command = by_shell(&command, &format!("ulimit -n {limit}"));
        }
        if let Some(policy) = self.policy {
            command = by_shell(&command, &format!("chrt {policy} --pid 0 $$"));
        }
        if let Some(socket) = self.inherits {
            command = inheriting(&command, socket);
        }
        // Runs the tests on a Unix socket instead. Tests of TCP addresses are then meaningless.
        if env::var_os("TINYTASKS_TEST_UNIX").is_some()
            && !self.variables.iter().any(|(name, _)| name == "HOST")
        {
            let path = directory.path().join("http").into_os_string().into_string().unwrap();
            self.variables.push(("HOST".to_owned(), format!("unix:{path}")));
        }
        // `envs` comes last, because a test may set another DATABASE_URL.
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
            policy: None,
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

    /// The address of metrics and probes, of a service with `ADMIN_ADDR`.
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

    /// Waits for the first matching line of the log, which may have been written long ago.
    pub fn wait_for_log(&self, fits: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        let mut lines = self.log.lines.lock().unwrap();
        loop {
            if let Some(line) = lines.0.iter().find(|line| fits(line)) {
                return line.clone();
            }
            let is_over = lines.1 || start.elapsed() > *PATIENCE;
            if is_over {
                // Unlocked first: the service is stopped later, and needs a lock that is not poisoned.
                let all = lines.0.join("\n");
                drop(lines);
                panic!("the line is not in the log:\n{all}");
            }
            lines = self.log.changed.wait_timeout(lines, POLL_INTERVAL * 10).unwrap().0;
        }
    }

    /// All lines of the log up to now. A request is made, and its own line ends them.
    pub fn log(&self) -> Vec<String> {
        let last = unique_name();
        self.get("/").header("X-Request-Id", &last).send();
        self.wait_for_log(|line| line.contains(&last));
        let lines = self.log.lines.lock().unwrap();
        lines.0.iter().take_while(|line| !line.contains(&last)).cloned().collect()
    }

    /// The log as far as it has been read, without a request.
    pub fn log_so_far(&self) -> String {
        self.log.lines.lock().unwrap().0.join("\n")
    }

    /// Sends the signal of that name, as for `kill`.
    pub fn signal(&self, signal: &str) {
        // Uses the shell's built-in `kill`, because not every machine has the program.
        let mut command = Command::new("sh");
        command.args(["-c", "kill -s $0 $1", signal]).arg(self.child.id().to_string());
        assert!(command.status().unwrap().success());
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end of the process, and returns its exit code.
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
        // When the test has failed, the log helps to find out why.
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

    /// A request to the task of that id, whether or not it exists.
    pub fn on_task(&self, method: &str, id: i64) -> Request {
        self.request(method, &format!("/tasks/{id}"))
    }

    pub fn post(&self, body: Value) -> Response {
        self.request("POST", "/tasks").json(body).send()
    }

    /// Creates a task, and returns it.
    pub fn create(&self, title: &str) -> Value {
        self.post(json!({"title": title})).expect(201).json()
    }

    /// Creates a task, and returns its id.
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

/// The number in that environment variable, or the default where it is unset.
pub fn number(name: &str, default: u64) -> u64 {
    let Ok(text) = env::var(name) else { return default };
    text.parse().unwrap_or_else(|_| panic!("{name} must be a number: {text}"))
}
