//! Sends the calls of some users, and compares each answer with that of the model.

use super::{
    Actor, Call, Content, Filter, MARK, Outcome, TASKS_OF_COLLECTORS, THREADS, USERS_PER_THREAD, User, World,
    list::By, perform::answer_of, request::followed,
};
use crate::support::{
    harness::Database,
    http::{Connection, Response},
    reference::Random,
};
use serde_json::Value;
use std::{collections::BTreeMap, sync::atomic::Ordering::SeqCst, thread};

impl<'a> Actor<'a> {
    pub fn new(world: &'a World<'a>, number: u64) -> Self {
        let first = number * USERS_PER_THREAD;
        let users = (first..first + USERS_PER_THREAD).map(|index| User::new(world.seed, index)).collect();
        let random = Random::new(world.seed.wrapping_mul(THREADS).wrapping_add(number) << 20);
        let connection = Connection::open(&world.app.address).unwrap();
        Self { world, number, random, users, connection, tally: BTreeMap::new() }
    }

    pub fn work(&mut self, steps: u64) {
        for step in 0..steps {
            if self.world.has_failed.load(SeqCst) {
                return;
            }
            let is_first = step < TASKS_OF_COLLECTORS;
            let who = if is_first { 0 } else { self.random.below(USERS_PER_THREAD as usize) };
            let call = if is_first { self.first_call() } else { self.call(who) };
            let next = self.step(step, who, call);
            // Sometimes the links are followed to the end.
            let mut next = next.filter(|_| self.random.one_in(3));
            while let Some((call, target)) = next {
                let call = Call { request_id: None, ..call };
                next = self.exchange(step, who, &call, &target);
            }
        }
    }

    fn step(&mut self, step: u64, who: usize, call: Call) -> Option<(Call, String)> {
        let target = call.target(&mut self.random);
        let next = self.exchange(step, who, &call, &target);
        if self.users[who].tasks.values().any(|task| task.is_stale) {
            // A bulk change gives no tags. The list does.
            let list = Call::new(&self.users[who].id);
            let target = list.target(&mut self.random);
            self.exchange(step, who, &list, &target);
        }
        next
    }

    /// Sends the call, checks the answer, and returns the call that its link names.
    fn exchange(&mut self, step: u64, who: usize, call: &Call, target: &str) -> Option<(Call, String)> {
        let user = &self.users[who];
        let request = call.request(user, target, &mut self.random);
        let context = format!(
            "TINYTASKS_MODEL_SEED={}, thread {}, step {step}, user {:?}\n{}",
            self.world.seed,
            self.number,
            user.id,
            String::from_utf8_lossy(&request.bytes())
        );
        let mut on_failure = OnFailure { context, world: self.world };
        self.connection.write(&request.bytes());
        let seen = self.connection.read(call.method).unwrap();
        on_failure.context += &format!("\nseen: {seen:?}");
        let outcome = user.decide(call);
        on_failure.context += &format!("\nexpected: {outcome:?}");
        assert_no_others_mark(&user.mark, &seen);
        let user = &mut self.users[who];
        let mut wanted = user.perform(self.world, call, &outcome, &seen);
        seen.hold_to_the_rules(call.method, target);
        if let Some(id) = &call.request_id {
            assert_eq!(seen.field("X-Request-Id"), Some(id.as_str()), "the answer to another request");
        }
        if let ("HEAD", 200, Some(length)) = (call.method, seen.status, seen.field("Content-Length")) {
            assert_eq!(length, wanted.body.to_string().len().to_string(), "the length that GET gives");
        }
        if call.method == "HEAD" {
            wanted.body = Value::Null;
        }
        assert_eq!(answer_of(call, &seen), wanted, "left: seen, right: expected");
        let what = if call.task.is_some() { "task" } else { "list" };
        *self.tally.entry(format!("{} {what} {}", call.method, seen.status)).or_default() += 1;
        let is_in_parts = seen.field("Transfer-Encoding").is_some();
        let page = if let Outcome::List(page) = &outcome { Some(page) } else { None };
        let filter = page.map(|page| &page.filter);
        let is_filtered = matches!(filter, Some(Filter { complete: Some(_), .. }));
        let is_by = |by: By| page.is_some_and(|page| page.order.by == by);
        let has_place = |name: &str| page.is_some() && call.query.iter().any(|(given, _, _)| *given == name);
        let is_many = matches!(outcome, Outcome::ChangedMany(..) | Outcome::DeletedMany(_));
        for (what, is_so) in [
            ("all", true),
            ("replayed", matches!(outcome, Outcome::Replayed(_))),
            ("another's id", wanted.status == 404 && user.is_anothers(self.world, call)),
            ("another's path", wanted.status == 403),
            ("list in parts", is_in_parts),
            ("list in parts, filtered", is_in_parts && is_filtered),
            ("next page", seen.field("Link").is_some()),
            ("list by created", is_by(By::Created)),
            ("list by updated", is_by(By::Updated)),
            ("list by title", is_by(By::Title)),
            ("list in parts, sorted", is_in_parts && !is_by(By::Id)),
            ("list by cursor", has_place("cursor")),
            ("list after an id", has_place("after")),
            ("list searched", filter.is_some_and(|filter| filter.q.is_some())),
            ("totals", page.is_some_and(|page| page.has_totals)),
            ("many", is_many && wanted.body["count"].as_u64() > Some(1)),
            ("done already", matches!(outcome, Outcome::Done(_))),
            ("list not modified", page.is_some() && wanted.status == 304),
            ("task not modified", page.is_none() && wanted.status == 304),
            ("precondition failed", wanted.status == 412),
        ] {
            *self.tally.entry(what.to_owned()).or_default() += u64::from(is_so);
        }
        if seen.field("Connection") == Some("close") {
            self.connection = Connection::open(&self.world.app.address).unwrap();
        }
        match (outcome, seen.field("Link")) {
            (Outcome::List(_), Some(link)) => Some(followed(call, link)),
            _ => None,
        }
    }
}

/// When a thread fails, prints where, and stops the other threads.
struct OnFailure<'a> {
    context: String,
    world: &'a World<'a>,
}

impl Drop for OnFailure<'_> {
    fn drop(&mut self) {
        if thread::panicking() && !self.world.has_failed.swap(true, SeqCst) {
            eprintln!("{}", self.context);
        }
    }
}

fn assert_no_others_mark(mark: &str, seen: &Response) {
    let fields: String = seen.fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    for text in [fields, seen.text()] {
        for (at, _) in text.match_indices(MARK) {
            let found: String = text[at..].chars().take(mark.len()).collect();
            assert_eq!(found, mark, "ANOTHER USER'S BYTES");
        }
    }
}

/// Compares every row of the table with the model, and returns their number.
pub fn assert_table(database: &Database, users: &[User]) -> usize {
    let mut wanted = BTreeMap::new();
    for user in users {
        for task in user.tasks.values() {
            let Content { title, description, complete } = task.content.clone();
            let times = (task.created_at.clone(), task.updated_at.clone());
            let row = (user.id.clone(), title, description, complete, times, task.key.clone());
            wanted.insert(task.id, row);
        }
    }
    let form = "YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"";
    let sql = format!(
        "select id, user_id, title, description, complete, to_char(created_at at time zone 'UTC', '{form}'),
         to_char(updated_at at time zone 'UTC', '{form}'), idempotency_key from tasks"
    );
    let mut seen = BTreeMap::new();
    for row in database.client().query(&sql, &[]).unwrap() {
        let task = (row.get(1), row.get(2), row.get(3), row.get(4), (row.get(5), row.get(6)), row.get(7));
        seen.insert(row.get::<_, i64>(0), task);
    }
    for id in wanted.keys().chain(seen.keys()) {
        assert_eq!(seen.get(id), wanted.get(id), "task {id} in the table; left: seen, right: expected");
    }
    seen.len()
}
