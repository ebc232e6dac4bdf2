//! Several instances behind HAProxy, with `deploy/haproxy.cfg` as it is, on one PostgreSQL with a
//! synchronous standby. Instances and the primary go under load; the ledger (see support/ledger.rs) says
//! whether anything acknowledged is lost or there twice, and the figures of docs/scaling.md are what
//! is printed here. TINYTASKS_SCALE_OUT_ROUNDS is its length.

use crate::support::{
    harness::{App, Database, Directory, eventually, number},
    http::{Connection, Request},
    instances::Instance,
    ledger::{Answer, Run, Writer, assert_kept, findings, tally, work_while},
    locks::Held,
    servers::{Server, UNSAFE},
    token::token,
};
use serde_json::json;
use std::{
    env,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

const CONFIGURATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/haproxy.cfg");
const INSTANCES: usize = 3;
const WRITERS: u64 = 8;
const READERS: u64 = 4;
/// The pause between two requests of a client, so that the machine's speed does not limit the test.
const PAUSE: Duration = Duration::from_millis(10);
/// This many good answers in a row show that the instance has recovered.
const GOOD_ANSWERS: usize = 50;
/// How long a program that watches the primary would take to decide that it is gone. The test uses no such program.
const DECISION: Duration = Duration::from_secs(2);

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

struct Balancer {
    child: Child,
    address: String,
    directory: Directory,
}

impl Balancer {
    fn start(instances: &[String; INSTANCES]) -> Self {
        let (directory, address) = (Directory::create(), free_address());
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f", CONFIGURATION]).env_clear().current_dir(directory.path());
        command.env("PATH", env::var_os("PATH").unwrap());
        command.env("TINYTASKS_ADMIN", directory.path().join("admin"));
        command.env("TINYTASKS_BIND", &address).stdin(Stdio::null());
        for (index, instance) in instances.iter().enumerate() {
            command.env(format!("TINYTASKS_{}", index + 1), instance);
        }
        // HAProxy's messages are dropped; they only say that instances come and go.
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.expect("haproxy is missing; scripts/test fetches it");
        let balancer = Self { child, address, directory };
        eventually("HAProxy", || TcpStream::connect(&balancer.address).is_ok());
        balancer
    }

    fn request(&self, method: &str, target: &str) -> Request {
        Request::new(&self.address, method, target)
    }

    /// HAProxy's answer to a command of its administrator.
    fn administer(&self, command: &str) -> String {
        let mut stream = UnixStream::connect(self.directory.path().join("admin")).unwrap();
        writeln!(stream, "{command}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// The value of that column of "show stat" for an instance.
    fn column(&self, index: usize, name: &str) -> String {
        let table = self.administer("show stat");
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split(',').collect()).collect();
        let column = lines[0].iter().position(|title| *title == name).unwrap();
        let wanted = format!("instance-{}", index + 1);
        let line = lines.iter().find(|line| line.get(1) == Some(&wanted.as_str())).unwrap();
        line[column].to_owned()
    }

    /// Makes HAProxy send no new requests to the instance, and waits until the instance has answered all it had.
    fn drain(&self, index: usize) {
        self.administer(&format!("set server instances/instance-{} state drain", index + 1));
        eventually("an instance without work", || self.column(index, "scur") == "0");
    }

    fn undrain(&self, index: usize) {
        self.administer(&format!("set server instances/instance-{} state ready", index + 1));
        self.wait_for(index);
    }

    fn wait_for(&self, index: usize) {
        eventually("an instance in use", || self.column(index, "status") == "UP");
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads continuously, on one connection for as long as it stays open, as browsers do.
fn read_on(run: &Run, address: &str, name: &str) {
    let request = Request::new(address, "GET", &format!("/api/{name}/tasks")).bearer(&token(name));
    let mut connection = None;
    while !run.is_over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let mut open = connection.take().or_else(|| Connection::open(address).ok());
        let response = open.as_mut().and_then(|open| {
            open.write(&request.bytes());
            open.read("GET").ok()
        });
        if let Some(response) = &response {
            response.hold_to_the_rules("GET", &request.target);
            connection = open.filter(|_| response.field("Connection").is_none());
        }
        let (status, what) = (response.map(|response| response.status), format!("kept GET {name}"));
        run.answers.lock().unwrap().push(Answer { what, began, took: began.elapsed(), status });
        thread::sleep(PAUSE);
    }
}

fn is_good(answer: &Answer) -> bool {
    answer.status.is_some_and(|status| status < 500)
}

/// Waits until the latest answers to requests that begin after this call are good.
fn wait_until_well(run: &Run) {
    let now = Instant::now();
    eventually("good answers", || {
        let answers = run.answers.lock().unwrap();
        let good = answers.iter().rev().take_while(|answer| is_good(answer) && answer.began >= now);
        good.count() >= GOOD_ANSWERS
    });
}

/// Prints an event and the times that belong to it, as lines for docs/scaling.md. Before the moment `mended`, no
/// request could succeed.
fn report(run: &Run, what: &str, event: Instant, mended: Instant) {
    let answers = run.answers.lock().unwrap();
    let those: Vec<_> = answers.iter().filter(|answer| answer.began + answer.took >= event).collect();
    let failed: Vec<_> = those.iter().filter(|answer| !is_good(answer)).collect();
    let cut = failed.iter().filter(|answer| answer.status.is_none()).count();
    let last = failed.iter().map(|answer| answer.began + answer.took).max().unwrap_or(event);
    let longest = those.iter().map(|answer| answer.took).max().unwrap_or_default();
    eprintln!(
        "{what}: {} requests in {:.1?}, {} failed ({:.2} %), {cut} of them without an answer; the last \
         failure {:.2?} after the event, {:.2?} after its end; the longest answer took {longest:.2?}",
        those.len(),
        event.elapsed(),
        failed.len(),
        100.0 * failed.len() as f64 / those.len().max(1) as f64,
        last - event,
        last.saturating_duration_since(mended),
    );
}

/// Sends SIGTERM to an instance, which must end with exit code 0.
fn stop(instance: &mut Instance) {
    let kill = Command::new("kill").arg(instance.child.id().to_string()).status();
    assert!(kill.unwrap().success());
    assert!(instance.child.wait().unwrap().success());
}

#[test]
fn what_was_acknowledged_survives_the_loss_of_instances_and_of_the_primary() {
    for round in 1..=number("TINYTASKS_SCALE_OUT_ROUNDS", 1) {
        let primary = Server::start(&["fsync=on"]);
        let standby = primary.synchronous_standby(&["fsync=on"]);
        let database = Database::create_on(&primary.url());
        let both = format!("{},{}", primary.address(), standby.address());
        let url = database.url.replace(&primary.address(), &both) + "?target_session_attrs=read-write";
        let addresses = [(); INSTANCES].map(|()| free_address());
        let mut instances = addresses.each_ref().map(|address| Instance::spawn_at(address, &url));
        eventually("health", || instances.iter().all(Instance::is_healthy));
        let balancer = Balancer::start(&addresses);
        let run = &Run::new(std::slice::from_ref(&balancer.address), PAUSE);
        let mut writers = Writer::several(WRITERS, round);
        let readers: Vec<_> = (0..READERS).map(|reader| format!("reader-{reader}")).collect();

        thread::scope(|scope| {
            work_while(run, &mut writers, || {
                for name in &readers {
                    scope.spawn(|| read_on(run, &balancer.address, name));
                }
                let undisturbed = Instant::now();
                wait_until_well(run);
                thread::sleep(Duration::from_secs(2));
                report(run, "undisturbed", undisturbed, undisturbed);

                let event = Instant::now();
                instances[0].child.kill().unwrap();
                instances[0].child.wait().unwrap();
                thread::sleep(Duration::from_secs(2));
                wait_until_well(run);
                instances[0] = Instance::spawn_at(&addresses[0], &url);
                eventually("health", || instances[0].is_healthy());
                wait_until_well(run);
                report(run, "an instance killed and started again", event, event);

                let event = Instant::now();
                for index in 0..INSTANCES {
                    stop(&mut instances[index]);
                    instances[index] = Instance::spawn_at(&addresses[index], &url);
                    eventually("health", || instances[index].is_healthy());
                    balancer.wait_for(index);
                }
                wait_until_well(run);
                report(run, "every instance stopped and started, one after the other", event, event);

                let event = Instant::now();
                for index in 0..INSTANCES {
                    balancer.drain(index);
                    stop(&mut instances[index]);
                    instances[index] = Instance::spawn_at(&addresses[index], &url);
                    eventually("health", || instances[index].is_healthy());
                    balancer.undrain(index);
                }
                wait_until_well(run);
                report(run, "the same, each drained before", event, event);
                let is_of_event = |answer: &&Answer| answer.began >= event && !is_good(answer);
                let failed: Vec<_> =
                    run.answers.lock().unwrap().iter().filter(is_of_event).cloned().collect();
                assert!(failed.is_empty(), "{failed:?}");

                let event = Instant::now();
                primary.kill();
                thread::sleep(DECISION);
                standby.promote();
                let promoted = Instant::now();
                wait_until_well(run);
                thread::sleep(Duration::from_secs(2));
                let what = format!("the primary killed, the standby promoted {:.1?} later", promoted - event);
                report(run, &what, event, promoted);
            });
        });
        let database_url = database.url.replace(&primary.address(), &standby.address());
        assert_kept(&writers, &database_url);
        eprintln!("round {round}: nothing lost, nothing twice: {:?}", tally(&writers));
    }
}

/// HAProxy sends a request again only if it could not send it before, and its own answers have the form of the
/// service's.
#[test]
fn a_request_that_was_sent_is_never_sent_again() {
    let addresses = [(); INSTANCES].map(|()| free_address());
    let on = |address: &str, setup: crate::support::harness::Setup| {
        let port = address.split_once(':').unwrap().1;
        setup.env("PORT", port).env("TRUSTED_PROXIES", "127.0.0.1").spawn()
    };
    // Another connection that is being made would wait for the lock below as well.
    let mut first = on(&addresses[0], App::setup().env("DATABASE_POOL_SIZE", "1"));
    // The third instance never runs.
    let balancer = Balancer::start(&addresses);
    let (alice, tasks) = (token("alice"), "/api/alice/tasks");
    let post = |title: &str| balancer.request("POST", tasks).bearer(&alice).json(json!({"title": title}));
    // Enough requests that each instance is tried, whether or not HAProxy has marked some as gone.
    for _ in 0..2 * INSTANCES {
        post("there").send().expect(201);
    }
    let asked = balancer.request("GET", "/health").header("X-Request-Id", "a-name");
    let asked = asked.header("X-Forwarded-For", "192.0.2.1").send().expect(200);
    assert_eq!(asked.field("X-Request-Id"), Some("a-name"));
    let line = first.wait_for_log(|line| line.contains("a-name"));
    assert!(line.contains("127.0.0.1") && !line.contains("192.0.2.1"), "{line}");

    // While a request waits for a lock, its instance is killed, and another one is available.
    let held = Held::table(&first.database);
    let sent = thread::scope(|scope| {
        let sent = scope.spawn(|| post("sent").header("X-Request-Id", "sent").send());
        first.database.wait_until_blocked(1);
        let url = &first.database.url;
        let second = on(&addresses[1], App::setup().env("DATABASE_URL", url).env("AUTO_MIGRATE", "false"));
        eventually("HAProxy's second instance", || {
            balancer.request("GET", "/health").header("X-Request-Id", "seen").send();
            second.log_so_far().contains("seen")
        });
        first.signal("KILL");
        let answer = sent.join().unwrap();
        first.wait_for_exit();
        let log = second.log();
        assert!(log.iter().all(|line| !line.contains("POST")), "sent again: {log:?}");
        answer
    });
    let sent = sent.expect_problem(503, "SERVICE_UNAVAILABLE");
    assert_eq!(sent.field("X-Request-Id"), Some("sent"));
    held.release();

    // Now none is left.
    let id = "\"}, {\"two\": \"";
    let nobody = post("nobody").header("X-Request-Id", "a").header("X-Request-Id", id).send();
    nobody.expect_problem(503, "SERVICE_UNAVAILABLE");
}

/// A commit that waits for the standby is not ended by `statement_timeout`, because its statement is over. Its
/// connection stays in use: if there were as many such writes as connections, reads would fail too.
#[test]
fn nothing_is_acknowledged_while_the_only_synchronous_standby_is_away() {
    let primary = Server::start(&[UNSAFE]);
    let standby = primary.synchronous_standby(&[UNSAFE]);
    let app = App::setup().database(Database::create_on(&primary.url())).spawn();
    let alice = app.user("alice");
    let id = alice.create_id();
    standby.stop("immediate");
    thread::scope(|scope| {
        let post = || alice.request("POST", "/tasks").json(json!({"title": "waits"})).send();
        let writes: Vec<_> = (0..4).map(|_| scope.spawn(post)).collect();
        alice.task(id);
        for write in writes {
            write.join().unwrap().expect_problem(503, "SERVICE_UNAVAILABLE");
        }
    });
    standby.start_again();
    alice.create("after");
}

/// The part of "distributed by `user_id`" that one server can run: PostgreSQL demands of every unique
/// index of such a table what the distributed ones demand, and shows whether a statement stays in one
/// part.
#[test]
fn the_table_may_lie_in_parts_by_user() {
    let database = Database::create();
    database.execute(
        "create table tasks (
            user_id text not null,
            id bigint not null generated by default as identity (maxvalue 9007199254740991),
            title text not null, description text, complete boolean not null default false,
            created_at timestamptz not null default now(), updated_at timestamptz not null default now(),
            idempotency_key text, idempotency_hash bytea,
            constraint tasks_pkey primary key (user_id, id)) partition by hash (user_id)",
    );
    for part in 0..4 {
        let bounds = format!("for values with (modulus 4, remainder {part})");
        database.execute(&format!("create table tasks_{part} partition of tasks {bounds}"));
    }
    let app = App::setup().database(database).spawn();
    let mut writers = Writer::several(WRITERS, 1);
    let run = Run::new(std::slice::from_ref(&app.address), Duration::ZERO);
    work_while(&run, &mut writers, || {
        eventually("many answers", || run.answers.lock().unwrap().len() > 500);
    });
    assert_kept(&writers, &app.database.url);
    assert!(run.answers.lock().unwrap().iter().all(is_good));
    assert_ne!(app.database.value("select count(distinct tableoid) from tasks"), "1");
    // Each has its own counters: of one user's statements, the other parts see nothing.
    let scans = "select string_agg((coalesce(idx_scan, 0) + seq_scan)::text, ' ' order by relname) \
                 from pg_stat_xact_user_tables where relname like 'tasks\\__'";
    let mut client = app.database.client();
    let mut transaction = client.transaction().unwrap();
    transaction.execute("select from tasks where user_id = 'alice' and id > 0 order by id", &[]).unwrap();
    let counts: String = transaction.query_one(scans, &[]).unwrap().get(0);
    assert_eq!(counts.split(' ').filter(|count| *count != "0").count(), 1, "{counts}");
}

/// Whether a standby that was away during the last writes has all the acknowledged writes in its table.
fn keeps_all_when_the_standby_was_away(is_synchronous: bool) -> bool {
    let primary = Server::start(&[UNSAFE]);
    let make = if is_synchronous { Server::synchronous_standby } else { Server::standby };
    let standby = make(&primary, &[UNSAFE]);
    let database = Database::create_on(&primary.url());
    let instance = Instance::spawn_at("127.0.0.1:0", &database.url);
    eventually("health", || instance.is_healthy());
    let mut writers = Writer::several(4, 1);
    let run = Run::new(std::slice::from_ref(&instance.address), PAUSE);
    work_while(&run, &mut writers, || {
        wait_until_well(&run);
        standby.stop("immediate");
        // No writer gets beyond its first write.
        let answered = || run.answers.lock().unwrap().len();
        let before = answered();
        let is_enough = || is_synchronous || answered() > before + GOOD_ANSWERS;
        thread::sleep(Duration::from_millis(500));
        eventually("writes that the standby has not got", is_enough);
    });
    primary.kill();
    standby.start_again();
    standby.promote();
    let url = database.url.replace(&primary.address(), &standby.address());
    findings(&writers, &url).is_empty()
}

/// A test of the checker: it must notice a lost write.
#[test]
fn only_a_synchronous_standby_has_all_that_was_acknowledged() {
    assert!(keeps_all_when_the_standby_was_away(true));
    assert!(!keeps_all_when_the_standby_was_away(false));
}
