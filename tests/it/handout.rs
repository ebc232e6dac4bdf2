//! Clients and the pooled threads that serve them: each client has a thread at once, however many
//! come at the same moment, and threads and descriptors do not pile up.

use crate::support::{
    harness::{App, eventually},
    raw::{Raw, status, thread_stats, wait_for_no_client},
};
use std::{
    fs,
    net::TcpStream,
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
const HEALTH_AND_CLOSE: &str = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
const CONNECTIONS: usize = 20_000;

fn descriptors(app: &App) -> usize {
    fs::read_dir(format!("/proc/{}/fd", app.pid())).unwrap().count()
}

/// All clients open their connections before any of them sends a request, and none closes its connection before all
/// are answered. So all are answered only if there is a thread for each of them.
#[test]
fn all_connections_that_are_allowed_are_served_at_once_by_a_fresh_service() {
    const CLIENTS: usize = 1024;
    let app = App::setup().env("MAX_CONNECTIONS", &CLIENTS.to_string()).descriptors(4096).spawn();
    wait_for_no_client(&app);
    let (opened, answered) = (Barrier::new(CLIENTS), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let client = thread::Builder::new().stack_size(128 * 1024);
            let serve = || {
                let mut raw = Raw::open(&app);
                opened.wait();
                raw.send(HEALTH);
                raw.answer().unwrap().expect(200);
                answered.fetch_add(1, SeqCst);
                eventually("an answer for all", || answered.load(SeqCst) == CLIENTS);
            };
            client.spawn_scoped(scope, serve).unwrap();
        }
    });
    assert_eq!(answered.load(SeqCst), CLIENTS);
}

#[test]
fn each_thread_has_the_batch_policy_unless_an_operator_has_chosen_another_than_the_usual_one() {
    const BATCH: &str = "3";
    const IDLE: &str = "5";
    /// The number of this field in proc(5), /proc/PID/stat.
    const POLICY: usize = 41;
    for (given, policy) in [("--other", BATCH), ("--idle", IDLE)] {
        let app = App::setup().policy(given).spawn();
        ask_and_close(&app);
        let stats = thread_stats(&app);
        let has_policy = |(_, fields): &(_, Vec<String>)| fields[POLICY - 3] == policy;
        assert!(stats.len() > 3 && stats.iter().all(has_policy), "{given}: {stats:?}");
    }
}

fn ask_and_close(app: &App) {
    let mut raw = Raw::open(app);
    raw.send(HEALTH_AND_CLOSE);
    raw.answer().unwrap().expect(200);
    assert!(raw.answer().is_none());
}

#[test]
fn twenty_thousand_connections_leave_no_thread_and_no_descriptor_behind() {
    let app =
        App::setup().env("RUST_LOG", "info,tinytasks::http=warn").env("DATABASE_POOL_SIZE", "1").spawn();
    // The watching connection and that of the pool.
    let sessions = "select count(*)::text from pg_stat_activity where application_name = 'tinytasks' \
                    and datname = current_database()";
    eventually("the connections to PostgreSQL", || app.database.value(sessions) == "2");
    ask_and_close(&app);
    wait_for_no_client(&app);
    let (threads, open) = (status(&app, "Threads"), descriptors(&app));
    for _ in 0..CONNECTIONS / 2 {
        ask_and_close(&app);
    }
    // Clients that come one after another need two threads, because the last one's thread may still be closing its
    // connection. On a busy machine a few more threads may be doing that.
    assert!(status(&app, "Threads") <= threads + 8, "{} threads", status(&app, "Threads"));
    let left = AtomicUsize::new(CONNECTIONS / 2);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                while left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
                    ask_and_close(&app);
                }
            });
        }
    });
    // Sixteen clients come at a time, and for each of them a few threads may still be closing earlier connections.
    assert!(status(&app, "Threads") <= threads + 128, "{} threads", status(&app, "Threads"));
    wait_for_no_client(&app);
    assert!(descriptors(&app) <= open, "{} descriptors, {open} before", descriptors(&app));
    // Threads that have nothing to do end by themselves.
    eventually("an end of spare threads", || status(&app, "Threads") <= threads);
    TcpStream::connect(&app.address).unwrap();
}
