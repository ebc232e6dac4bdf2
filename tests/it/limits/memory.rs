//! The memory that large answers and slow readers may take, in the service and in the kernel.

use crate::support::{
    harness::{App, eventually},
    http::Request,
    ledger::exchange,
    raw::{HEALTH, Raw, beside_a_victim, slow_reader, status, with_a_body},
    token::token,
};
use std::{
    fs, iter,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

/// Runs the action at the end of its scope, also when a test fails, so that the test's threads end.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

#[test]
fn readers_that_stop_reading_share_what_memory_there_is_for_large_answers() {
    let app = App::spawn();
    let before = status(&app, "VmRSS");
    let readers: Vec<_> = (0..400).map(|_| slow_reader(&app, "/docs/swagger-ui-bundle.js", "", 1)).collect();
    // The victim starts only after the readers' answers have been made, because making them keeps the machine busy.
    thread::sleep(Duration::from_secs(1));
    beside_a_victim(&app, || thread::sleep(Duration::from_secs(1)));
    let taken = status(&app, "VmHWM").saturating_sub(before);
    assert!(taken < 160 * 1024, "{taken} kB more than before");
    drop(readers);
    eventually("the document", || {
        let mut raw = Raw::open(&app);
        raw.send("GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n");
        raw.answer().is_some_and(|answer| answer.status == 200)
    });
}

/// 1,000 tasks each for eve and bob: 4 MiB as JSON.
fn insert_large_tasks(app: &App) {
    app.database.execute(
        "insert into tasks (user_id, title, description) \
         select user_id, 'x', repeat('\u{1F600}', 1000) \
         from unnest(array['eve', 'bob']) user_id, generate_series(1, 1000)",
    );
}

/// Whether the answer is 200, and not a 503 because of too little memory. The 4 MiB of JSON are not validated
/// against openapi.json, because with many clients at once that would be most of the work.
fn has_room(app: &App, request: &Request) -> bool {
    let answer = exchange(&app.address, request).unwrap();
    if answer.status != 200 {
        answer.hold_to_the_rules(&request.method, &request.target);
        answer.clone().expect_problem(503, "SERVICE_UNAVAILABLE");
    }
    answer.status == 200
}

/// Each reader has asked for 4 MiB of tasks, and reads hardly any of it. (A file of `/docs`, as in the
/// test above, is part of the program and takes no memory.)
#[test]
fn slow_readers_of_large_answers_make_room_for_others() {
    let app = App::spawn();
    insert_large_tasks(&app);
    let bob = app.user("bob");
    let small = bob.request("GET", "/tasks?limit=10");
    let large = bob.request("GET", "/tasks?limit=1000");
    large.send().expect(200);
    let before = status(&app, "VmRSS");
    let authorization = format!("Connection: close\r\nAuthorization: Bearer {}\r\n", token("eve"));
    let target = "/api/eve/tasks?limit=1000";
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                // A reader that is cut off connects again.
                while !is_over.load(SeqCst) {
                    let mut reader = slow_reader(&app, target, &authorization, 1);
                    while !is_over.load(SeqCst) && reader.read_some(4096) {
                        thread::sleep(Duration::from_millis(100));
                    }
                }
            });
        }
        let _end = OnDrop(|| is_over.store(true, SeqCst));
        // A small list is served at once, a large one when there is room again.
        eventually("a reader that is cut off", || {
            small.send().expect(200);
            has_room(&app, &large);
            app.log_so_far().contains("cut off, to make room")
        });
        for _ in 0..5 {
            eventually("room for another user", || has_room(&app, &large));
        }
    });
    let taken = status(&app, "VmHWM").saturating_sub(before);
    // The 32 MiB, four answers that are being made, and what the allocator keeps of these.
    assert!(taken < 256 * 1024, "{taken} kB more than before");
}

/// The answers of the user who holds the most are all recent. One is cut off nevertheless, for a user who holds
/// none.
#[test]
fn a_user_who_asks_for_many_large_answers_keeps_no_other_user_from_one() {
    let app = App::spawn();
    insert_large_tasks(&app);
    let authorization = format!("Connection: close\r\nAuthorization: Bearer {}\r\n", token("eve"));
    let eve = || slow_reader(&app, "/api/eve/tasks?limit=1000", &authorization, 1);
    let bob = app.user("bob");
    for _ in 0..5 {
        let greedy: Vec<_> = (0..8).map(|_| eve()).collect();
        // Some of these answers may still be in the making when bob sends his request.
        for target in ["/tasks?limit=100", "/tasks"] {
            bob.request("GET", target).send().expect(200);
        }
        drop(greedy);
    }
}

/// The first part of a list is counted before the head is sent, so too little memory can still become a 503. Bob
/// holds more than every other user, and his own answer is recent, so no answer is cut off for him.
#[test]
fn a_list_in_parts_that_finds_no_room_is_503() {
    const BYTES_MAX: usize = 32 * 1024 * 1024;
    let app = App::setup().env("RATE_LIMIT", "1000").spawn();
    app.database.execute(
        "insert into tasks (user_id, title, description) \
         select 'user' || user_number, 'x', repeat('\u{1F600}', 1000) \
             from generate_series(1, 7) user_number, generate_series(1, 900) \
         union all select 'bob', repeat(chr(1), 200), repeat(chr(1), 1000) from generate_series(1, 900)",
    );
    let page = |user: &str, limit: usize| format!("/api/{user}/tasks?limit={limit}");
    let size = |user, limit| app.get(&page(user, limit)).bearer(&token(user)).send().expect(200).body.len();
    let taken = 7 * size("user1", 900) + size("bob", 900);
    assert!(taken <= BYTES_MAX && taken + size("bob", 128) > BYTES_MAX, "{taken} bytes");

    let open = |user: &str| {
        let authorization = format!("Authorization: Bearer {}\r\n", token(user));
        let mut reader = slow_reader(&app, &page(user, 900), &authorization, 1);
        assert!(reader.read_some(1));
        reader
    };
    let _others: Vec<_> = (1..=7).map(|number| open(&format!("user{number}"))).collect();
    let list = app.user("bob").request("GET", "/tasks").bytes();
    eventually("no room", || {
        let _recent = open("bob");
        let mut raw = Raw::open(&app);
        raw.send(&list);
        if !raw.line().expect("an answer").starts_with("HTTP/1.1 503 ") {
            return false;
        }
        // The request was counted, so its answer says how many are left.
        let fields: Vec<_> = iter::from_fn(|| raw.line()).take_while(|line| line != "\r\n").collect();
        assert!(fields.iter().any(|field| field.starts_with("RateLimit: ")), "{fields:?}");
        true
    });
    app.wait_for_log(|line| line.contains("reason=\"too many large answers are being read\""));
}

/// Each first part has a megabyte, because every character is escaped. Only a few may be made at once, and the
/// memory of a reader that is cut off counts until it is given back.
#[test]
fn readers_that_come_again_and_again_for_lists_in_parts_take_no_more_memory() {
    let app = App::setup().env("MALLOC_MMAP_THRESHOLD_", "131072").env("MALLOC_ARENA_MAX", "2").spawn();
    app.database.execute(
        "insert into tasks (user_id, title, description) \
         select 'eve', repeat(chr(1), 200), repeat(chr(1), 1000) from generate_series(1, 130)",
    );
    let authorization = format!("Authorization: Bearer {}\r\n", token("eve"));
    app.user("eve").request("GET", "/tasks").send().expect(200);
    let before = status(&app, "VmRSS");
    for round in 1..=3 {
        let readers: Vec<_> =
            (0..400).map(|_| slow_reader(&app, "/api/eve/tasks", &authorization, 1)).collect();
        eventually("all are answered or cut off", || {
            app.log_so_far().matches("route=/api/{user_id}/tasks").count() == 1 + 400 * round
        });
        drop(readers);
    }
    let taken = status(&app, "VmHWM").saturating_sub(before);
    // 32 MiB that are being read, and 16 times a megabyte each of rows and JSON; stacks of 400 threads.
    assert!(taken < 128 * 1024, "{taken} kB more than before");
}

/// The allocator is set to return freed memory at once, so that only memory in use is measured.
#[test]
fn many_large_answers_at_once_are_made_in_turn() {
    let app = App::setup().env("MALLOC_MMAP_THRESHOLD_", "131072").env("MALLOC_ARENA_MAX", "2").spawn();
    insert_large_tasks(&app);
    let eve = app.user("eve");
    eve.request("GET", "/tasks?limit=1").send().expect(200);
    let large = eve.request("GET", "/tasks?limit=1000");
    let before = status(&app, "VmRSS");
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                eventually("a large answer", || has_room(&app, &large));
            });
        }
    });
    let taken = status(&app, "VmHWM").saturating_sub(before);
    large.send().expect(200);
    // 32 MiB that are being written, and four times 4 MiB of rows and up to 8 MiB of JSON.
    assert!(taken < 88 * 1024, "{taken} kB more than before");
}

#[test]
fn slow_readers_of_long_lists_keep_nobody_waiting() {
    const TASKS: i64 = 50_000;
    let app = App::spawn();
    app.database.execute(&format!(
        "insert into tasks (user_id, title) select 'eve', repeat('x', 200) from generate_series(1, {TASKS})"
    ));
    let authorization = format!("Authorization: Bearer {}\r\n", token("eve"));
    let readers: Vec<_> = (0..20).map(|_| slow_reader(&app, "/api/eve/tasks", &authorization, 1)).collect();
    beside_a_victim(&app, || thread::sleep(Duration::from_secs(3)));
    assert_eq!(app.user("eve").list()["count"], TASKS);
    drop(readers);
}

/// The service has closed its side before the client has read the answer. By default the kernel would
/// keep the rest for minutes.
#[test]
fn an_answer_that_nobody_takes_leaves_the_kernel() {
    const COUNT: usize = 20;
    let app = App::spawn();
    let mut readers: Vec<_> =
        (0..COUNT).map(|_| slow_reader(&app, "/openapi.json", "Connection: close\r\n", 1)).collect();
    readers.iter_mut().for_each(Raw::finish);
    eventually("the kernel to hold all of them", || orphans(&app) == COUNT);
    let start = Instant::now();
    while orphans(&app) > 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "{} are left", orphans(&app));
        thread::sleep(Duration::from_millis(100));
    }
}

/// Linux lets the buffer of a client that sends fast grow to many MiB. A client that then reads no answer has the
/// service read no more of what it sends.
#[test]
fn what_is_sent_and_not_read_takes_little_of_the_kernels_memory() {
    let app = App::spawn();
    let body = with_a_body("Content-Length: 60000", &"x".repeat(60_000));
    let mut clients: Vec<_> = (0..4).map(|_| Raw::open(&app)).collect();
    let mut largest = 0;
    for client in &mut clients {
        for _ in 0..130 {
            client.send(&body);
            assert!(client.answer().is_some());
        }
        client.set_write_timeout(Duration::from_millis(300));
        while client.send(HEALTH.repeat(10_000)) {}
        largest = largest.max(unread(&app));
    }
    assert!(largest <= 128 * 1024, "{largest} bytes of one client");
}

/// The bytes of the connection to the service that has the most of them unread.
fn unread(app: &App) -> u64 {
    let of_one = |words: &[String]| {
        let (_, unread) = words[4].split_once(':').unwrap();
        u64::from_str_radix(unread, 16).unwrap()
    };
    sockets(app).iter().map(|words| of_one(words)).max().unwrap_or(0)
}

/// The number of connections to the service that have unsent bytes and belong to no process any more.
fn orphans(app: &App) -> usize {
    let is_orphan = |words: &&Vec<String>| !words[4].starts_with("00000000:") && words[9] == "0";
    sockets(app).iter().filter(is_orphan).count()
}

/// The lines of the service's sockets in /proc/net/tcp, word by word.
fn sockets(app: &App) -> Vec<Vec<String>> {
    let port = app.address.parse::<SocketAddr>().unwrap().port();
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().map(str::to_owned).collect());
    lines.filter(|words: &Vec<String>| words[1].ends_with(&format!(":{port:04X}"))).collect()
}
