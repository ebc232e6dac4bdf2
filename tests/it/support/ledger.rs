//! Clients that record every answer, and a checker that compares the table with their records: nothing
//! acknowledged may be missing, nothing may be there twice, and nothing refused may be there. Each
//! writer has a user of its own and one request at a time, so it knows what the table may hold.

use crate::support::{
    http::{Connection, Request, Response},
    reference::Random,
    token::token,
};
use postgres::{Client, NoTls};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io, mem,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// The pause between two tries of one request.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// A writer works on this many of its latest entries, so that lists stay short.
const RECENT: usize = 20;

/// One try of one request.
#[derive(Clone, Debug)]
pub struct Answer {
    pub what: String,
    pub began: Instant,
    pub took: Duration,
    /// `None` when the connection broke.
    pub status: Option<u16>,
}

/// The state that the writers share.
pub struct Run {
    /// Addresses of the instances of the service. An instance that is started again has a new one.
    pub addresses: Mutex<Vec<String>>,
    pub answers: Mutex<Vec<Answer>>,
    pub is_over: AtomicBool,
    /// The pause between two requests of a writer.
    pub pause: Duration,
}

impl Run {
    pub fn new(addresses: &[String], pause: Duration) -> Self {
        let (answers, is_over) = (Mutex::default(), AtomicBool::default());
        Self { addresses: Mutex::new(addresses.to_vec()), answers, is_over, pause }
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

/// The rows that the table may hold under one title.
#[derive(Debug)]
struct Entry {
    key: Option<String>,
    /// The description that it was made with.
    first: String,
    id: Option<i64>,
    etag: Option<String>,
    may_be_absent: bool,
    may_be: Vec<String>,
}

#[derive(Default, Debug, Clone, Copy)]
pub struct Tally {
    pub acknowledged: usize,
    /// Writes that were given up without an answer that says whether they were done.
    pub unknown: usize,
    /// Writes that were answered only at a later try.
    pub retried: usize,
    pub replayed: usize,
    pub refused: usize,
    pub read: usize,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.retried += other.retried;
        self.replayed += other.replayed;
        self.refused += other.refused;
        self.read += other.read;
    }
}

/// Sends one request on a connection of its own. The answer is not checked.
pub fn exchange(address: &str, request: &Request) -> io::Result<Response> {
    let mut connection = Connection::open(address)?;
    connection.write(&request.clone().header("Connection", "close").bytes());
    connection.read(&request.method)
}

pub struct Writer {
    user: String,
    token: String,
    random: Random,
    stamps: u64,
    ledger: BTreeMap<String, Entry>,
    pub tally: Tally,
}

impl Writer {
    pub fn new(name: &str, seed: u64) -> Self {
        let (random, ledger) = (Random::new(seed), BTreeMap::new());
        Self { user: name.to_owned(), token: token(name), random, stamps: 0, ledger, tally: Tally::default() }
    }

    pub fn several(count: u64, seed: u64) -> Vec<Self> {
        (0..count).map(|index| Self::new(&format!("writer-{index}"), seed ^ (index << 32))).collect()
    }

    /// Runs until the run is over.
    pub fn work(&mut self, run: &Run) {
        while !run.is_over() {
            let chosen = self.choose();
            match (self.random.below(12), chosen) {
                (4, _) => self.create(run, false),
                (5..=7, Some(title)) => self.patch(run, &title),
                (8, Some(title)) => self.delete(run, &title),
                (9, Some(title)) => self.be_refused(run, &title),
                (10, Some(title)) => self.read(run, &title),
                (11, Some(title)) => self.replay(run, &title),
                _ => self.create(run, true),
            }
            thread::sleep(run.pause);
        }
    }

    /// The title of one of the latest tasks that certainly exist.
    fn choose(&mut self) -> Option<String> {
        let there = self.ledger.iter().rev().filter(|(_, entry)| !entry.may_be_absent);
        let titles: Vec<&String> = there.map(|(title, _)| title).take(RECENT).collect();
        let index = self.random.below(titles.len().max(1));
        titles.get(index).map(|title| (*title).clone())
    }

    /// A text that is never repeated and sorts after all earlier ones.
    fn stamp(&mut self, what: &str) -> String {
        self.stamps += 1;
        format!("{what}-{:08}", self.stamps)
    }

    /// Below the user's own tasks.
    fn request(&self, method: &str, rest: &str) -> Request {
        let target = format!("/api/{}/tasks{rest}", self.user);
        Request::new("", method, &target).bearer(&self.token)
    }

    /// Sends the request once. `None` after a 503 or no answer: then the outcome is unknown.
    fn send(&mut self, run: &Run, request: &Request) -> Option<Response> {
        let addresses = run.addresses.lock().unwrap().clone();
        let address = &addresses[self.random.below(addresses.len())];
        let began = Instant::now();
        let response = exchange(address, request).ok();
        let status = response.as_ref().map(|response| response.status);
        let what = format!("{} {}", request.method, request.target);
        run.answers.lock().unwrap().push(Answer { what, began, took: began.elapsed(), status });
        response.filter(|response| {
            if response.status == 503 {
                response.hold_to_the_rules(&request.method, &request.target);
            }
            response.status != 503
        })
    }

    /// Tries several times, as a frontend does. Also returns whether any try failed.
    fn insist(&mut self, run: &Run, request: &Request) -> (Option<Response>, bool) {
        let mut has_failed = false;
        loop {
            let response = self.send(run, request);
            let is_told = response.is_some();
            if is_told || run.is_over() || self.random.below(8) == 0 {
                self.tally.retried += usize::from(is_told && has_failed);
                return (response, has_failed);
            }
            has_failed = true;
            thread::sleep(RETRY_PAUSE);
        }
    }

    fn create(&mut self, run: &Run, has_key: bool) {
        let (title, description) = (self.stamp("task"), self.stamp("made"));
        let key = has_key.then(|| format!("key-{title}"));
        let request = self.creation(&title, &description, key.as_deref());
        // Without a key a second try might make a second task.
        let response = if has_key { self.insist(run, &request).0 } else { self.send(run, &request) };
        let mut entry = Entry {
            key,
            first: description.clone(),
            id: None,
            etag: None,
            may_be_absent: true,
            may_be: vec![description],
        };
        match response {
            Some(response) => {
                self.tally.acknowledged += 1;
                let is_replay = response.field("Idempotent-Replayed").is_some();
                // A first try can be a replay: the service repeats it when it loses its connection.
                assert!(has_key || !is_replay, "{}: a replay without a key: {response:?}", self.user);
                self.tally.replayed += usize::from(is_replay);
                entry.may_be_absent = false;
                entry.learn(&title, &response.expect(201));
            }
            None => self.tally.unknown += 1,
        }
        self.ledger.insert(title, entry);
    }

    fn creation(&self, title: &str, description: &str, key: Option<&str>) -> Request {
        let request = self.request("POST", "").json(json!({"title": title, "description": description}));
        key.into_iter().fold(request, |request, key| request.header("Idempotency-Key", key))
    }

    /// Sends the same POST again, which must return the task as it is now.
    fn replay(&mut self, run: &Run, title: &str) {
        let entry = &self.ledger[title];
        let Some(key) = &entry.key else { return };
        let request = self.creation(title, &entry.first, Some(key));
        if let Some(response) = self.send(run, &request) {
            let response = response.expect(201);
            assert_eq!(response.field("Idempotent-Replayed"), Some("true"), "{title}: {response:?}");
            self.ledger.get_mut(title).unwrap().learn(title, &response);
            self.tally.replayed += 1;
        }
    }

    /// Changes a task, half of the time with a precondition. If an earlier try was done, the answer to the next one
    /// shows that.
    fn patch(&mut self, run: &Run, title: &str) {
        let description = self.stamp("changed");
        let entry = &self.ledger[title];
        let etag = entry.etag.clone().filter(|_| self.stamps.is_multiple_of(2));
        let request = self.on(entry, "PATCH").json(json!({"description": description}));
        let request = etag.iter().fold(request, |request, etag| request.header("If-Match", etag));
        let (response, _) = self.insist(run, &request);
        let entry = self.ledger.get_mut(title).unwrap();
        entry.etag = None;
        match response {
            Some(response) => {
                self.tally.acknowledged += 1;
                entry.may_be = vec![description];
                entry.learn(title, &response.expect(200));
            }
            None => {
                self.tally.unknown += 1;
                entry.may_be.push(description);
            }
        }
    }

    fn delete(&mut self, run: &Run, title: &str) {
        let request = self.on(&self.ledger[title], "DELETE");
        let (response, has_failed) = self.insist(run, &request);
        let entry = self.ledger.get_mut(title).unwrap();
        entry.may_be_absent = true;
        match response {
            Some(response) => {
                self.tally.acknowledged += 1;
                entry.may_be.clear();
                let was_done = response.status == 404 && has_failed;
                assert!(was_done || response.status == 204, "{title}: {response:?}");
            }
            None => self.tally.unknown += 1,
        }
    }

    /// A refused write must leave no trace: none of these stamps is in the ledger.
    fn be_refused(&mut self, run: &Run, title: &str) {
        let stamp = self.stamp("refused");
        let entry = &self.ledger[title];
        let task = |title: &str| json!({"title": title, "description": stamp});
        let (request, status) = match (self.random.below(5), &entry.key) {
            (0, _) => (self.request("POST", "").json(task(" ")), 422),
            (1, Some(key)) => {
                (self.request("POST", "").header("Idempotency-Key", key).json(task(&stamp)), 422)
            }
            (2, _) => {
                let patch = self.on(entry, "PATCH").json(json!({"description": stamp}));
                (patch.header("If-Match", "\"of another task\""), 412)
            }
            (3, _) => {
                let others = Request::new("", "POST", "/api/nobody/tasks").bearer(&self.token);
                (others.json(task(&stamp)), 403)
            }
            _ => (self.on(entry, "PATCH").json(json!({"title": null, "description": stamp})), 422),
        };
        if let Some(response) = self.send(run, &request) {
            response.expect(status);
            self.tally.refused += 1;
        }
    }

    /// Reads one task and the list, which must both contain what was acknowledged.
    fn read(&mut self, run: &Run, title: &str) {
        let request = self.on(&self.ledger[title], "GET");
        if let Some(response) = self.send(run, &request) {
            self.ledger.get_mut(title).unwrap().learn(title, &response.expect(200));
            self.tally.read += 1;
        }
        let request = self.request("GET", "?order=desc&limit=100");
        let Some(response) = self.send(run, &request) else { return };
        let list = response.expect(200).json();
        let rows = list["tasks"].as_array().unwrap().iter().map(Row::of_json).collect::<Vec<_>>();
        let mut findings = Vec::new();
        // Tasks beyond the end of this page are not missing.
        let last = rows.iter().map(|row| row.id).min().filter(|_| rows.len() == 100).unwrap_or(0);
        let expected = self.ledger.iter().filter(|(_, entry)| entry.id.is_some_and(|id| id >= last));
        compare(&self.user, expected, &rows, &self.ledger, &mut findings);
        assert!(findings.is_empty(), "a list: {findings:#?}");
        self.tally.read += 1;
    }

    fn on(&self, entry: &Entry, method: &str) -> Request {
        self.request(method, &format!("/{}", entry.id.unwrap()))
    }
}

impl Entry {
    /// Checks the task in an answer against what is known about it, and records what was unknown.
    fn learn(&mut self, title: &str, response: &Response) {
        let row = Row::of_json(&response.json());
        assert!(self.id.is_none_or(|id| id == row.id), "{title} has two ids: {self:?} {response:?}");
        assert_eq!(row.title, title, "{response:?}");
        assert!(self.may_be.contains(&row.description), "{title}: {self:?} {response:?}");
        self.id = Some(row.id);
        // While the outcome of a change is unknown, the tag is unknown too.
        self.etag = response.field("ETag").filter(|_| self.may_be.len() == 1).map(str::to_owned);
    }
}

struct Row {
    id: i64,
    title: String,
    description: String,
}

impl Row {
    fn of_json(task: &Value) -> Self {
        let text = |name: &str| task[name].as_str().unwrap_or_default().to_owned();
        Self { id: task["id"].as_i64().unwrap(), title: text("title"), description: text("description") }
    }
}

fn compare<'l>(
    user: &str,
    expected: impl Iterator<Item = (&'l String, &'l Entry)>,
    rows: &[Row],
    ledger: &BTreeMap<String, Entry>,
    findings: &mut Vec<String>,
) {
    let mut by_title: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        by_title.entry(&row.title).or_default().push(row);
    }
    for (title, entry) in expected {
        if !entry.may_be_absent && !by_title.contains_key(title.as_str()) {
            findings.push(format!("missing: {title} of {user}: {entry:?}"));
        }
    }
    for (title, rows) in by_title {
        if rows.len() > 1 {
            findings.push(format!("{} times: {title} of {user}", rows.len()));
        }
        let Some(entry) = ledger.get(title) else {
            findings.push(format!("refused or never sent: {title} of {user}"));
            continue;
        };
        for row in rows {
            let is_known = entry.may_be.contains(&row.description);
            if !is_known || entry.id.is_some_and(|id| id != row.id) {
                let (id, is) = (row.id, &row.description);
                findings.push(format!("wrong: {title} of {user}: {id} {is}, must be {entry:?}"));
            }
        }
    }
}

/// All contradictions between the table and the writers' ledgers. No writer may be at work meanwhile.
pub fn findings(writers: &[Writer], database_url: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let mut of_user: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    let sql = "select user_id, id, title, coalesce(description, '') from tasks";
    for row in Client::connect(database_url, NoTls).unwrap().query(sql, &[]).unwrap() {
        let task = Row { id: row.get(1), title: row.get(2), description: row.get(3) };
        of_user.entry(row.get(0)).or_default().push(task);
    }
    for writer in writers {
        let rows = of_user.remove(&writer.user).unwrap_or_default();
        compare(&writer.user, writer.ledger.iter(), &rows, &writer.ledger, &mut findings);
    }
    let of_nobody = of_user.iter().map(|(user, rows)| format!("{} tasks of {user}", rows.len()));
    findings.extend(of_nobody);
    findings
}

#[track_caller]
pub fn assert_kept(writers: &[Writer], database_url: &str) {
    let findings = findings(writers, database_url);
    assert!(findings.is_empty(), "{} findings: {:#?}", findings.len(), &findings[..findings.len().min(20)]);
}

pub fn tally(writers: &[Writer]) -> Tally {
    let mut all = Tally::default();
    writers.iter().for_each(|writer| all += writer.tally);
    all
}

/// The writers work while `meanwhile` runs, and until it has returned.
pub fn work_while<R>(run: &Run, writers: &mut [Writer], meanwhile: impl FnOnce() -> R) -> R {
    struct Over<'r>(&'r Run);
    impl Drop for Over<'_> {
        // Set also when `meanwhile` fails, because the scope waits for the writers.
        fn drop(&mut self) {
            self.0.is_over.store(true, Ordering::Relaxed);
        }
    }
    run.is_over.store(false, Ordering::Relaxed);
    thread::scope(|scope| {
        for writer in writers {
            scope.spawn(|| {
                let over = Over(run);
                writer.work(run);
                // A writer that fails ends the run of all.
                mem::forget(over);
            });
        }
        let _over = Over(run);
        meanwhile()
    })
}
