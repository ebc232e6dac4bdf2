//! The database fails under clients that write and read all the time: it is stopped, frozen, locked,
//! crowded, full, replaced by its standby. In each case: only 503, each in time; `/health` tells the
//! truth, soon; all is well again soon after the database is, without a restart; nothing that was
//! acknowledged is lost. And what stands between service and database, or beside the service.

use crate::support::{
    harness::{App, Database, Setup, eventually},
    http::Request,
    ledger::{Answer, Run, Writer, assert_kept, tally, work_while},
    locks::Held,
    servers::{Server, UNSAFE},
};
use postgres::{Client, NoTls};
use serde_json::json;
use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const ANSWER_MAX: Duration = Duration::from_secs(10);
const HEALTH_LAG_MAX: Duration = Duration::from_secs(2);
const RECOVERY_MAX: Duration = Duration::from_secs(5);
const UNSEEN_MAX: Duration = Duration::from_secs(1);
/// `/health` waits for nothing. This much time is allowed only because the machine may be busy.
const HEALTH_ANSWER_MAX: Duration = Duration::from_secs(1);
const HEALTH_INTERVAL: Duration = Duration::from_millis(50);
/// This many good answers in a row show that the service has recovered.
const GOOD_ANSWERS: usize = 30;

struct Outage {
    /// Until this moment, all was well.
    begins: Instant,
    /// From here on the database was of no use for certain …
    gone: Instant,
    /// … until it began to come back …
    mends: Instant,
    /// … and from here on it was there for certain.
    back: Instant,
}

/// The answer of `/health` while the database is gone.
#[derive(Clone, Copy)]
enum Health {
    Down,
    /// The database answers pings, although it cannot serve requests.
    Up,
}

/// A service with clients that work on it.
struct Scene {
    app: App,
    /// The URL of the database from which the table is read afterwards.
    database_url: String,
    writers: Vec<Writer>,
    pause: Duration,
}

impl Scene {
    fn new(app: App) -> Self {
        let database_url = app.database.url.clone();
        Self { app, database_url, writers: Writer::several(6, 1), pause: Duration::from_millis(5) }
    }

    fn on(server: &Server) -> Self {
        Self::new(setup_on(server).spawn())
    }

    /// Runs `fail`, which breaks and repairs the database, while the clients work. Then checks all their answers.
    fn survives(&mut self, health: Health, fail: impl FnOnce(&Run) -> Outage) {
        let run = Run::new(std::slice::from_ref(&self.app.address), self.pause);
        let (probes, is_over) = (Mutex::default(), AtomicBool::new(false));
        let outage = thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    probe(&self.app.address, &probes);
                    thread::sleep(HEALTH_INTERVAL);
                }
            });
            let outage = work_while(&run, &mut self.writers, || {
                eventually("work", || is_well_since(&run, None));
                let outage = fail(&run);
                let start = Instant::now();
                while !is_well_since(&run, Some(outage.back)) && start.elapsed() < RECOVERY_MAX * 2 {
                    thread::sleep(HEALTH_INTERVAL);
                }
                // Gives `/health` the time that it may take to notice.
                thread::sleep((outage.back + HEALTH_LAG_MAX + HEALTH_INTERVAL * 2) - Instant::now());
                outage
            });
            is_over.store(true, Ordering::Relaxed);
            outage
        });
        let answers = run.answers.into_inner().unwrap();
        self.report(&answers, &outage);
        judge_answers(&answers, &outage);
        judge_health(&probes.into_inner().unwrap(), &outage, health);
        assert!(self.app.is_running());
        assert_kept(&self.writers, &self.database_url);
    }

    fn report(&self, answers: &[Answer], outage: &Outage) {
        let failed = answers.iter().filter(|answer| answer.status == Some(503)).count();
        let good = |answer: &&Answer| answer.began >= outage.back && answer.status != Some(503);
        let well = answers.iter().filter(good).map(|answer| answer.began + answer.took).min();
        let last = answers.iter().filter(|answer| answer.status == Some(503)).map(|answer| answer.began);
        eprintln!(
            "{}: away for {:.1?}; {} answers, {failed} of them 503; the longest took {:.1?}; the first \
             good one {:.1?} after it was back, the last 503 to a request of {:.1?} after; {:?}",
            thread::current().name().unwrap_or_default(),
            outage.back - outage.gone,
            answers.len(),
            answers.iter().map(|answer| answer.took).max().unwrap_or_default(),
            well.map(|well| well - outage.back),
            last.max().map(|last| last.saturating_duration_since(outage.back)),
            tally(&self.writers),
        );
    }
}

fn probe(address: &str, probes: &Mutex<Vec<Answer>>) {
    let began = Instant::now();
    let answer = Request::new(address, "GET", "/health").send();
    let (what, status) = (answer.text(), Some(answer.status));
    probes.lock().unwrap().push(Answer { what, began, took: began.elapsed(), status });
}

/// Whether the latest answers are successes, to requests that began after this moment.
fn is_well_since(run: &Run, moment: Option<Instant>) -> bool {
    let is_good = |answer: &&Answer| {
        let is_since = moment.is_none_or(|moment| answer.began >= moment);
        is_since && answer.status.is_some_and(|status| status < 500)
    };
    run.answers.lock().unwrap().iter().rev().take_while(is_good).count() >= GOOD_ANSWERS
}

fn judge_answers(answers: &[Answer], outage: &Outage) {
    for answer in answers {
        let status = answer.status.unwrap_or_else(|| panic!("no answer: {answer:?}"));
        assert!(status < 500 || status == 503, "{answer:?}");
        assert!(answer.took < ANSWER_MAX, "{answer:?}");
        let is_well = answer.began < outage.back + RECOVERY_MAX || status < 500;
        assert!(is_well, "{:.1?} after it was back: {answer:?}", answer.began - outage.back);
    }
    // Clients may not notice a short outage, because requests wait for a connection and are tried again.
    let is_seen = answers.iter().any(|answer| answer.status == Some(503));
    assert!(is_seen || outage.back - outage.gone < UNSEEN_MAX, "nobody has noticed");
    let is_good = |answer: &Answer| answer.began > outage.back && answer.status != Some(503);
    assert!(answers.iter().any(is_good), "not well again");
}

fn judge_health(probes: &[Answer], outage: &Outage, health: Health) {
    for probe in probes {
        let ended = probe.began + probe.took;
        let wanted = if ended < outage.begins || probe.began > outage.back + HEALTH_LAG_MAX {
            200
        } else if probe.began > outage.gone + HEALTH_LAG_MAX && ended < outage.mends {
            if matches!(health, Health::Up) { 200 } else { 503 }
        } else {
            continue;
        };
        let at = probe.began.saturating_duration_since(outage.gone);
        assert_eq!(probe.status, Some(wanted), "{at:.1?} after the database was gone: {probe:?}");
        assert!(probe.took < HEALTH_ANSWER_MAX, "{at:.1?} after the database was gone: {probe:?}");
        // An answer without this member would come from the gate, not from the health check.
        assert!(probe.what.contains("\"database\""), "{probe:?}");
    }
}

fn setup_on(server: &Server) -> Setup {
    App::setup().database(Database::create_on(&server.url()))
}

#[test]
fn an_immediate_restart_of_the_database() {
    let server = Server::start(&[UNSAFE]);
    Scene::on(&server).survives(Health::Down, |_| {
        let begins = Instant::now();
        server.stop("immediate");
        let gone = Instant::now();
        server.start_again();
        Outage { begins, gone, mends: gone, back: Instant::now() }
    });
}

#[test]
fn a_database_that_is_stopped_for_a_while() {
    let server = Server::start(&[UNSAFE]);
    Scene::on(&server).survives(Health::Down, |_| {
        let begins = Instant::now();
        server.stop("fast");
        let gone = Instant::now();
        thread::sleep(Duration::from_secs(5));
        let mends = Instant::now();
        server.start_again();
        Outage { begins, gone, mends, back: Instant::now() }
    });
}

/// The connections stay open, but the database does not answer on them.
#[test]
fn a_database_that_stands_still_for_a_while() {
    let server = Server::start(&[UNSAFE]);
    let url = server.url();
    Scene::on(&server).survives(Health::Down, |_| {
        let begins = Instant::now();
        let frozen = server.freeze();
        let gone = Instant::now();
        thread::sleep(Duration::from_secs(12));
        let mends = Instant::now();
        drop(frozen);
        Client::connect(&url, NoTls).unwrap();
        Outage { begins, gone, mends, back: Instant::now() }
    });
}

/// With more clients than requests are answered at once: `/health` does not wait for any of them.
#[test]
fn a_lock_on_the_table() {
    let mut scene = Scene::new(App::spawn());
    (scene.writers, scene.pause) = (Writer::several(60, 1), Duration::from_millis(200));
    let client = scene.app.database.client();
    scene.survives(Health::Up, |_| {
        let begins = Instant::now();
        let held = Held::on(client, "lock table tasks in access exclusive mode");
        let gone = Instant::now();
        thread::sleep(Duration::from_secs(8));
        let mends = Instant::now();
        held.release();
        Outage { begins, gone, mends, back: Instant::now() }
    });
}

#[test]
fn a_database_whose_connections_are_all_taken() {
    let server = Server::start(&[UNSAFE, "max_connections=16", "max_wal_senders=0"]);
    let url = server.url();
    // With the default pool size the service would take all connections itself.
    let mut scene = Scene::new(setup_on(&server).env("DATABASE_POOL_SIZE", "8").spawn());
    let name = scene.app.database.name.clone();
    scene.survives(Health::Down, |_| {
        let begins = Instant::now();
        let mut taken = vec![Client::connect(&url, NoTls).unwrap()];
        let end = "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1";
        // The service also tries to take each connection that becomes free.
        eventually("having every connection", || {
            taken[0].execute(end, &[&name]).unwrap();
            taken.extend(std::iter::from_fn(|| Client::connect(&url, NoTls).ok()));
            taken.len() == 16
        });
        let gone = Instant::now();
        thread::sleep(Duration::from_secs(4));
        let mends = Instant::now();
        drop(taken);
        eventually("a free connection", || Client::connect(&url, NoTls).is_ok());
        Outage { begins, gone, mends, back: Instant::now() }
    });
}

#[test]
fn a_disk_that_is_full() {
    let server = match Server::start_on_small_disk(120, &[UNSAFE]) {
        Ok(server) => server,
        Err(reason) => return eprintln!("skipped: no small disk can be mounted here: {reason}"),
    };
    let mut scene = Scene::on(&server);
    scene.survives(Health::Up, |run| {
        let begins = Instant::now();
        server.fill_disk();
        // First the free pages of the table must be used up.
        let failed = |answer: &Answer| answer.status == Some(503);
        eventually("a full disk", || {
            run.answers.lock().unwrap().iter().filter(|one| failed(one)).count() > 9
        });
        let gone = Instant::now();
        server.make_room();
        Outage { begins, gone, mends: gone, back: Instant::now() }
    });
}

/// Every acknowledged write is on both servers, because the standby is synchronous.
fn failover(end_primary: impl FnOnce(&Server)) {
    let primary = Server::start(&[UNSAFE]);
    let standby = primary.synchronous_standby(&[UNSAFE]);
    let database = Database::create_on(&primary.url());
    let both = format!("{},{}", primary.address(), standby.address());
    let url = database.url.replace(&primary.address(), &both) + "?target_session_attrs=read-write";
    let database_url = database.url.replace(&primary.address(), &standby.address());
    let app = App::setup().database(database).env("DATABASE_URL", &url).spawn();
    let mut scene = Scene { database_url, ..Scene::new(app) };
    scene.survives(Health::Down, |_| {
        let begins = Instant::now();
        end_primary(&primary);
        let gone = Instant::now();
        // A standby accepts no writes, so the database counts as away while there is only a standby.
        thread::sleep(Duration::from_secs(4));
        let mends = Instant::now();
        standby.promote();
        Outage { begins, gone, mends, back: Instant::now() }
    });
}

#[test]
fn a_primary_that_crashes_and_a_standby_that_takes_over() {
    failover(|primary| primary.stop("immediate"));
}

#[test]
fn a_standby_serves_reads_and_after_its_promotion_all() {
    let primary = Server::start(&[UNSAFE]);
    let database = Database::create_on(&primary.url());
    let first = App::setup().env("DATABASE_URL", &database.url).spawn();
    let alice = first.user("alice");
    let task = alice.create("a task");
    let id = task["id"].as_i64().unwrap();
    let standby = primary.standby(&[UNSAFE]);
    let url = database.url.replace(&primary.address(), &standby.address());
    let mut app = App::setup().env("DATABASE_URL", &url).unhealthy().spawn();
    let alice = app.user("alice");
    app.wait_for_log(|line| line.contains("database not ready") && line.contains("is a standby"));
    eventually("the list", || alice.request("GET", "/tasks").send().status == 200);
    let update = json!({"title": "t", "complete": true});
    for _ in 0..10 {
        assert_eq!(alice.list()["tasks"], json!([task]));
        assert_eq!(alice.task(id), task);
        for request in [
            alice.request("POST", "/tasks").json(update.clone()),
            alice.request("POST", "/tasks").json(update.clone()).header("Idempotency-Key", "k"),
            alice.on_task("PUT", id).json(update.clone()),
            alice.on_task("PATCH", id).json(update.clone()),
            alice.on_task("DELETE", id),
        ] {
            let start = Instant::now();
            request.send().expect_problem(503, "SERVICE_UNAVAILABLE");
            assert!(start.elapsed() < ANSWER_MAX, "{:?}", start.elapsed());
        }
        assert_eq!(app.get("/health").send().expect(503).json()["database"], "not ready");
    }
    primary.stop("immediate");
    standby.promote();
    let promoted = Instant::now();
    eventually("a write", || alice.on_task("PATCH", id).json(update.clone()).send().status == 200);
    eventually("health", || app.get("/health").send().status == 200);
    assert!(promoted.elapsed() < RECOVERY_MAX, "{:?}", promoted.elapsed());
    assert!(app.is_running());
}

#[test]
fn a_statement_that_is_cancelled_is_503_and_not_done() {
    // Another connection that is being made would wait for the lock as well.
    let app = App::setup().env("DATABASE_POOL_SIZE", "1").spawn();
    let alice = app.user("alice");
    let before = alice.create("a task");
    let id = before["id"].as_i64().unwrap();
    let held = Held::table(&app.database);
    let update = json!({"title": "t", "complete": true});
    for request in [
        alice.request("GET", "/tasks"),
        alice.on_task("GET", id),
        alice.request("POST", "/tasks").json(update.clone()),
        alice.request("POST", "/tasks").json(update.clone()).header("Idempotency-Key", "k"),
        alice.on_task("PUT", id).json(update.clone()),
        alice.on_task("PATCH", id).json(update.clone()),
        alice.on_task("DELETE", id),
    ] {
        thread::scope(|scope| {
            let asked = scope.spawn(|| request.send());
            app.database.wait_until_blocked(1);
            app.database.execute(
                "select pg_cancel_backend(pid) from pg_stat_activity \
                 where datname = current_database() and wait_event_type = 'Lock'",
            );
            asked.join().unwrap().expect_problem(503, "SERVICE_UNAVAILABLE");
        });
    }
    app.get("/health").send().expect(200);
    held.release();
    assert_eq!(alice.list()["tasks"], json!([before]));
}

/// The pool has a single connection, so every request finds that one dead.
#[test]
fn a_read_outlives_its_connection_and_so_does_a_create_with_a_key_and_no_other_write_is_done_twice() {
    let app = App::setup().env("DATABASE_POOL_SIZE", "1").spawn();
    let alice = app.user("alice");
    let id = alice.create_id();
    for round in 0..10 {
        let title = json!({"title": format!("{round}")});
        for (request, wanted) in [
            (alice.request("GET", "/tasks"), &[200][..]),
            (alice.on_task("GET", id), &[200]),
            (alice.request("POST", "/tasks").json(title.clone()), &[201, 503]),
            (alice.on_task("PATCH", id).json(title.clone()), &[200, 503]),
            (
                alice.request("POST", "/tasks").json(title).header("Idempotency-Key", &format!("{round}")),
                &[201],
            ),
        ] {
            // A connection that was used just now is not pinged before the next use.
            eventually("a connection", || alice.on_task("GET", id).send().status == 200);
            app.database.terminate_sessions();
            let status = request.send().status;
            assert!(wanted.contains(&status), "{round} {} {}: {status}", request.method, request.target);
        }
        let count = format!("select count(*) from tasks where title = '{round}' and id <> {id}");
        let count: i64 = app.database.value(&count).parse().unwrap();
        assert!((1..=2).contains(&count), "{round}: {count}");
    }
}
