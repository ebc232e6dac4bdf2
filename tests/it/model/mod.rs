//! Isolation, proven by comparison: random requests of many users at once, on one service and one
//! database. Each answer is compared with that of a model of the contract, which shares no code with
//! the service. Each user acts from one thread, so the model knows exactly what the answer must be:
//! status, every header field, the whole body. Whatever a user stores and sends carries the user's mark,
//! and every answer is searched for marks of other users. At the end the table is compared row by row.
//!
//! `TINYTASKS_MODEL_STEPS` sets the number of requests, `TINYTASKS_MODEL_SEED` chooses them: the same
//! seed sends the same requests, except for ids of other users' tasks.

mod decide;
mod generator;
mod list;
mod perform;
mod query;
mod request;
mod runner;

use crate::support::{
    harness::{App, number},
    http::Connection,
    reference::Random,
    tasks::has_root_collation,
};
use list::{Filter, Page, Place};
use postgres::Client;
use runner::assert_table;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Mutex, atomic::AtomicBool},
    thread,
    time::Instant,
};

const STEPS_DEFAULT: u64 = 12_000;
const THREADS: u64 = 4;
const USERS_PER_THREAD: u64 = 6;
/// The first user of a thread begins with so many tasks that a list without limit comes in parts.
const TASKS_OF_COLLECTORS: u64 = 200;
/// The beginning of a mark. No other text of the service or of the test has it.
const MARK: &str = "Zq7";
const MARK_DIGITS: usize = 8;
const ORIGIN: &str = "http://localhost:3000";
/// Idempotency keys. All users use the same ones.
const KEYS: [&str; 5] = ["k1", "K1", "\"k1\"", "k1,k2", "~!@#$%^&*()"];
const PHRASES: [&str; 6] =
    ["buy milk", "a\"b\\c/d", "🙂👩‍👩‍👧", "e\u{301} é", "\u{202e}rtl\u{2028}", "\t\r\n x "];

/// Shared by all threads.
struct World<'a> {
    app: &'a App,
    seed: u64,
    /// Every id that was ever given, and the index of its user. An id given twice is a failure.
    ids: Mutex<BTreeMap<i64, u64>>,
    /// Sorts titles by that collation of PostgreSQL.
    collator: Mutex<Client>,
    collation: &'static str,
    has_failed: AtomicBool,
}

#[derive(Clone, PartialEq, Debug)]
struct Content {
    title: String,
    description: Option<String>,
    complete: bool,
}

#[derive(Debug)]
struct Task {
    id: i64,
    content: Content,
    created_at: String,
    updated_at: String,
    /// All tags that the task has had; the last is the current one.
    tags: Vec<String>,
    key: Option<String>,
    /// A bulk change has changed it, so its time and its tag are other ones, which are not known yet.
    is_stale: bool,
}

/// One user's part of the model.
struct User {
    index: u64,
    id: String,
    mark: String,
    tokens: Vec<String>,
    tasks: BTreeMap<i64, Task>,
    /// By idempotency key: the content of the POST, and the id of the task that it created.
    keys: BTreeMap<String, (Content, i64)>,
    deleted: Vec<i64>,
    /// The cursors that links gave.
    cursors: BTreeMap<String, Place>,
    /// The tags of lists by a hash of what was sent, and the other way round.
    lists: BTreeMap<u64, String>,
    list_tags: BTreeMap<String, u64>,
}

/// A member of a body: its JSON, and what the contract says of it.
#[derive(Clone, Debug)]
enum Member<T> {
    Absent,
    Null,
    Good(T, String),
    Bad(&'static str, String),
    Twice(String),
}

#[derive(Debug)]
struct Body {
    title: Member<String>,
    description: Member<String>,
    complete: Member<bool>,
    bytes: Vec<u8>,
    /// The type of the field error, when the body is no JSON object.
    broken: Option<&'static str>,
}

/// `If-Match` or `If-None-Match`.
#[derive(Debug, Default)]
struct Tags {
    lines: Vec<String>,
    is_any: bool,
    /// Whether the tag is weak, and the tag.
    named: Vec<(bool, String)>,
}

#[derive(Debug, PartialEq, Clone, Copy)]
enum Login {
    Good,
    Missing,
    Invalid,
}

/// One thread, its users and its connection.
struct Actor<'a> {
    world: &'a World<'a>,
    number: u64,
    random: Random,
    users: Vec<User>,
    connection: Connection,
    tally: BTreeMap<String, u64>,
}

/// A request, and what its parts mean.
#[derive(Debug)]
struct Call {
    method: &'static str,
    path_user: String,
    /// The decoded task id; `None` for the list.
    task: Option<String>,
    query: Vec<Parameter>,
    login: Login,
    keys: Vec<String>,
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
    media_type: Option<&'static str>,
    body: Option<Body>,
    origin: Option<&'static str>,
    request_id: Option<String>,
}

/// Name, value, and whether the value is valid by itself.
type Parameter = (&'static str, String, bool);

/// `loc` joined with dots, `msg`, `type`.
type Rule = (String, String, &'static str);

/// The contract's verdict on a call, before the call is made.
#[derive(Debug)]
enum Outcome {
    Refused {
        status: u16,
        code: &'static str,
        detail: &'static str,
        field: Option<(&'static str, String)>,
    },
    Broken(u16, Vec<Rule>),
    Options,
    List(Page),
    Shown(i64),
    NotModified(i64),
    Created(Content, Option<String>),
    Replayed(i64),
    Changed(i64, Content),
    /// `If-Match` does not hold, and the task has already all that is asked for.
    Done(i64),
    Failed(i64),
    Deleted(i64),
    ChangedMany(Filter, bool),
    DeletedMany(Filter),
}

/// The answer that the contract demands, without the rules that `support/http.rs` checks in every answer.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    fields: BTreeMap<String, String>,
    body: Value,
}

#[test]
fn every_answer_is_the_one_that_a_model_of_the_contract_gives() {
    let steps = number("TINYTASKS_MODEL_STEPS", STEPS_DEFAULT);
    let seed = number("TINYTASKS_MODEL_SEED", 1);
    assert_eq!(User::new(seed, 0).mark.len(), MARK.len() + MARK_DIGITS);
    // A log line for each request would hide the report of a difference.
    let app = App::setup().env("RUST_LOG", "info,tinytasks::http=warn").spawn();
    let (ids, has_failed) = (Mutex::default(), AtomicBool::new(false));
    let collator = Mutex::new(app.database.client());
    let collation = if has_root_collation(&app.database) { "und-x-icu" } else { "default" };
    let world = World { app: &app, seed, ids, collator, collation, has_failed };
    let start = Instant::now();
    let actors = thread::scope(|scope| {
        let work = |number| {
            let mut actor = Actor::new(&world, number);
            actor.work(steps / THREADS);
            (actor.users, actor.tally)
        };
        let threads: Vec<_> = (0..THREADS).map(|number| scope.spawn(move || work(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("see above")).collect::<Vec<_>>()
    });
    let mut tally: BTreeMap<String, u64> = BTreeMap::new();
    let mut users = Vec::new();
    for (some, counts) in actors {
        users.extend(some);
        for (what, count) in counts {
            *tally.entry(what).or_default() += count;
        }
    }
    let rows = assert_table(&app.database, &users);
    let never: Vec<_> = tally.iter().filter(|(_, count)| **count == 0).collect();
    assert!(never.is_empty() || steps < STEPS_DEFAULT, "the test has lost its sight: {never:?}");
    eprintln!("seed {seed}: {steps} steps, {rows} rows, {:.1?}: {tally:?}", start.elapsed());
}
