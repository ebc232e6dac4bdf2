//! Isolation, proven by comparison: random requests of many users at once, on one service and one
//! database, each answer held against a model of the contract that knows nothing of the service's
//! code. A user acts from one thread alone, so the model knows exactly what that user must be told:
//! status, every header field, the whole body. All that a user stores and sends carries the user's
//! mark, and every answer is searched for the marks of others. At the end so is the table, row by row.
//!
//! `TINYTASKS_MODEL_STEPS` and `TINYTASKS_MODEL_SEED` choose more requests, and others: the same seed
//! sends the same requests, but for the other users' ids that it asks for.

mod decide;
mod generator;
mod perform;
mod request;
mod runner;

use crate::support::{
    harness::{App, number},
    http::Connection,
    reference::Random,
};
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
/// The first user of a thread begins with so many tasks: a list without limit comes in several parts.
const TASKS_OF_COLLECTORS: u64 = 200;
/// No text of the service or of the test has it, but for marks.
const MARK: &str = "Zq7";
const MARK_DIGITS: usize = 8;
const ORIGIN: &str = "http://localhost:3000";
/// The same for all users, so that they collide.
const KEYS: [&str; 5] = ["k1", "K1", "\"k1\"", "k1,k2", "~!@#$%^&*()"];
const PHRASES: [&str; 6] =
    ["buy milk", "a\"b\\c/d", "🙂👩‍👩‍👧", "e\u{301} é", "\u{202e}rtl\u{2028}", "\t\r\n x "];

/// What all threads know.
struct World<'a> {
    app: &'a App,
    seed: u64,
    /// Every id that was ever given, and the index of its user. An id given twice is a failure.
    ids: Mutex<BTreeMap<i64, u64>>,
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
    /// That in force is the last.
    tags: Vec<String>,
    key: Option<String>,
}

/// One user's part of the model.
struct User {
    index: u64,
    id: String,
    mark: String,
    tokens: Vec<String>,
    tasks: BTreeMap<i64, Task>,
    /// What POST was sent with, and the task that it made.
    keys: BTreeMap<String, (Content, i64)>,
    deleted: Vec<i64>,
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
    /// It is no JSON object: the type of the field error.
    broken: Option<&'static str>,
}

/// `If-Match` or `If-None-Match`.
#[derive(Debug, Default)]
struct Tags {
    lines: Vec<String>,
    is_any: bool,
    /// Whether weak, and the tag.
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
    /// Decoded; None for the list.
    task: Option<String>,
    /// Name, value, whether the value keeps the rule.
    query: Vec<(&'static str, String, bool)>,
    login: Login,
    keys: Vec<String>,
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
    media_type: Option<&'static str>,
    body: Option<Body>,
    origin: Option<&'static str>,
    request_id: Option<String>,
}

/// `loc` joined with dots, `msg`, `type`.
type Rule = (String, &'static str, &'static str);

/// What the contract says of a call, before anything of it is done.
#[derive(Debug)]
enum Outcome {
    Refused { status: u16, code: &'static str, detail: &'static str, field: Option<(&'static str, String)> },
    Broken(u16, Vec<Rule>),
    Options,
    List(Page),
    Shown(i64),
    NotModified(i64),
    Created(Content, Option<String>),
    Replayed(i64),
    Changed(i64, Content),
    Deleted(i64),
}

#[derive(Debug, Default, Clone, Copy)]
struct Page {
    complete: Option<bool>,
    is_descending: bool,
    limit: Option<usize>,
    offset: u64,
    after: Option<i64>,
}

/// What the answer must be. The rules for every answer are `support/http.rs`'s.
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
    // A line for each request would hide what is printed on a difference.
    let app = App::setup().env("RUST_LOG", "info,tinytasks::http=warn").spawn();
    let (ids, has_failed) = (Mutex::default(), AtomicBool::new(false));
    let world = World { app: &app, seed, ids, has_failed };
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
