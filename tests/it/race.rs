//! Several clients of one user race for one task. What all of them were told must fit one history of
//! that task: every change rests on the version before it, none is lost, a precondition holds for
//! one of many, and nobody is shown what was over before the request began.
//!
//! `TINYTASKS_RACE_ROUNDS` and `TINYTASKS_RACE_SEED` choose more rounds, and others.

use crate::support::{
    harness::{App, number},
    http::{Connection, Request, Response},
    reference::Random,
    token::token,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Barrier, Mutex},
    thread,
    time::Instant,
};

const ROUNDS_DEFAULT: u64 = 25;
const USERS: [&str; 2] = ["racer-a", "racer-b"];
const CLIENTS: u64 = 4;
const REQUESTS_PER_ROUND: u64 = 12;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Create,
    Read,
    List,
    Change,
    Delete,
}

/// A request, its answer, and the period between them, in which the service processed the request at some moment.
#[derive(Debug)]
struct Event {
    kind: Kind,
    body: Value,
    if_match: Option<String>,
    began: Instant,
    ended: Instant,
    answer: Response,
}

impl Event {
    fn could_be_before(&self, other: &Self) -> bool {
        self.began < other.ended
    }

    /// The task in the answer.
    fn task(&self, id: i64) -> Option<Value> {
        let json = self.answer.json();
        match self.kind {
            Kind::List => json["tasks"].as_array().unwrap().iter().find(|task| task["id"] == id).cloned(),
            _ => Some(json),
        }
    }
}

struct Client<'a> {
    user: &'a str,
    token: String,
    random: Random,
    connection: Connection,
    tag: Option<String>,
}

/// The state that the clients of one user share in a round.
struct Round {
    key: String,
    number: u64,
    /// The tag of the latest answer: all clients try to change the same version.
    tag: Mutex<Option<String>>,
    barrier: Barrier,
}

impl Client<'_> {
    fn send(&mut self, kind: Kind, request: &Request, body: Value, if_match: Option<String>) -> Event {
        let request = match (&body, &if_match) {
            (Value::Null, _) => request.clone(),
            (body, _) => request.clone().json(body.clone()),
        };
        let request = if_match.iter().fold(request, |request, tag| request.header("If-Match", tag));
        let began = Instant::now();
        self.connection.write(&request.bytes());
        let answer = self.connection.read(&request.method).unwrap();
        let ended = Instant::now();
        answer.hold_to_the_rules(&request.method, &request.target);
        Event { kind, body, if_match, began, ended, answer }
    }

    fn request(&self, method: &str, rest: &str) -> Request {
        let target = format!("/api/{}/tasks{rest}", self.user);
        Request::new("race", method, &target).bearer(&self.token)
    }

    fn play(&mut self, round: &Round, number: u64) -> Vec<Event> {
        let create = self.request("POST", "").header("Idempotency-Key", &round.key);
        // In some rounds one of the clients uses the same key with another content.
        let is_other = number == 0 && round.number.is_multiple_of(3);
        let title = if is_other { "another" } else { "the same" };
        round.barrier.wait();
        let mut events = vec![self.send(Kind::Create, &create, json!({"title": title}), None)];
        if is_other && events[0].answer.status == 422 {
            events.push(self.send(Kind::Create, &create, json!({"title": "the same"}), None));
        }
        // All clients wait here, because a late request would make another task once the key is free.
        round.barrier.wait();
        let id = match events.last().unwrap().answer.status {
            201 => events.last().unwrap().answer.json()["id"].as_i64().unwrap(),
            _ => return events,
        };
        for count in 0..REQUESTS_PER_ROUND {
            let event = self.one(round, id, count);
            if let Some(tag) = event.answer.field("ETag") {
                self.tag = Some(tag.to_owned());
                self.tag.clone_into(&mut round.tag.lock().unwrap());
            }
            events.push(event);
        }
        self.tag = None;
        events
    }

    fn one(&mut self, round: &Round, id: i64, count: u64) -> Event {
        let path = format!("/{id}");
        let if_match = match self.random.below(5) {
            0..=1 => round.tag.lock().unwrap().clone(),
            2 => self.tag.clone(),
            _ => None,
        };
        let stamp = format!("{} {count} {}", self.user, self.random.below(1 << 40));
        let (kind, method, body) = match self.random.below(20) {
            0..=3 => (Kind::Read, "GET", Value::Null),
            4 => (Kind::List, "GET", Value::Null),
            5..=8 => (Kind::Change, "PATCH", json!({"title": stamp})),
            9..=12 => (Kind::Change, "PATCH", json!({"description": stamp})),
            13 => (Kind::Change, "PATCH", json!({"description": null})),
            14..=15 => (Kind::Change, "PATCH", json!({"complete": count.is_multiple_of(2)})),
            // PUT sets all fields.
            16..=18 => {
                let put = json!({"title": stamp, "description": null, "complete": false});
                (Kind::Change, "PUT", put)
            }
            _ if count > REQUESTS_PER_ROUND / 2 => (Kind::Delete, "DELETE", Value::Null),
            _ => (Kind::Read, "GET", Value::Null),
        };
        if kind == Kind::List {
            return self.send(kind, &self.request(method, ""), body, None);
        }
        let if_match = if_match.filter(|_| kind != Kind::Read);
        self.send(kind, &self.request(method, &path), body, if_match)
    }
}

/// One task's life, as the answers tell it.
struct History<'e> {
    id: i64,
    /// Each version of the task with the event that made it, in the order of `updated_at`.
    versions: Vec<(&'e Event, Value)>,
    end: Option<&'e Event>,
}

fn tag(event: &Event) -> &str {
    event.answer.field("ETag").unwrap()
}

/// Whether the answer may be that to a change which found all its values already set, in a version other than the
/// one that `If-Match` names.
fn may_be_repeated(event: &Event) -> bool {
    let task = event.answer.json();
    let has_all = event.body.as_object().unwrap().iter().all(|(name, value)| task[name] == *value);
    event.if_match.as_deref().is_some_and(|if_match| if_match != tag(event)) && has_all
}

/// The task after this change. Its time and its tag are taken from the answer.
fn changed(task: &Value, change: &Event) -> Value {
    let mut changed = task.clone();
    for (name, value) in change.body.as_object().unwrap() {
        changed[name] = value.clone();
    }
    let answer = change.answer.json();
    for name in ["updated_at", "etag"] {
        changed[name] = answer[name].clone();
    }
    changed
}

/// The event that made each version, in the order of `updated_at`. If several events show the same version, one of
/// them has made it, and the others found their change already done.
fn versions<'e>(made: &'e Event, changes: Vec<&'e Event>) -> Vec<(&'e Event, Value)> {
    let mut by_time: BTreeMap<String, Vec<&Event>> = BTreeMap::new();
    for event in changes {
        let updated_at = event.answer.json()["updated_at"].as_str().unwrap().to_owned();
        by_time.entry(updated_at).or_default().push(event);
    }
    let mut versions = vec![(made, made.answer.json())];
    for mut same in by_time.into_values() {
        let (last_event, last) = versions.last().unwrap();
        if same.iter().all(|event| may_be_repeated(event) && event.answer.json() == *last) {
            continue;
        }
        // A change without a precondition has always made the version; a change whose precondition names a version
        // other than the last one never has.
        same.sort_by_cached_key(|event| {
            let if_match = event.if_match.as_deref();
            let rests_on_another = if_match.is_some_and(|if_match| if_match != tag(last_event));
            let is_other = changed(last, event) != event.answer.json();
            (if_match.is_some(), rests_on_another, is_other, event.began)
        });
        assert!(same[1..].iter().all(|event| may_be_repeated(event)), "made twice: {same:#?}");
        versions.push((same[0], same[0].answer.json()));
    }
    versions
}

/// Checks all answers of a round, of all clients, to requests about one task. Returns the task's id, and whether it
/// is deleted.
fn judge(events: &[Event]) -> (i64, bool) {
    let status = |event: &Event| event.answer.status;
    let is_replay = |event: &Event| event.answer.field("Idempotent-Replayed").is_some();
    let made: Vec<_> = events
        .iter()
        .filter(|event| event.kind == Kind::Create && status(event) == 201 && !is_replay(event))
        .collect();
    assert_eq!(made.len(), 1, "one of many makes the task: {events:#?}");
    let id = made[0].answer.json()["id"].as_i64().unwrap();
    let changes = events.iter().filter(|event| event.kind == Kind::Change && status(event) == 200);
    let versions = versions(made[0], changes.collect());
    let mut ends = events.iter().filter(|event| event.kind == Kind::Delete && status(event) == 204);
    let end = ends.next();
    assert!(ends.next().is_none(), "deleted twice: {events:#?}");
    let history = History { id, versions, end };
    history.hold_together();
    events.iter().for_each(|event| history.explain(event));
    (id, end.is_some())
}

impl History<'_> {
    /// Each version follows from the one before.
    fn hold_together(&self) {
        assert_eq!(self.versions[0].0.kind, Kind::Create, "a change is older than the task");
        for pair in self.versions.windows(2) {
            let ((old_event, old), (event, new)) = (&pair[0], &pair[1]);
            assert_ne!(old["updated_at"], new["updated_at"], "two versions of one time: {old} {new}");
            assert_ne!(tag(old_event), tag(event), "two versions of one tag: {old} {new}");
            let wanted = changed(old, event);
            assert_eq!(*new, wanted, "an update is lost; left: seen, right: expected");
            if let Some(if_match) = &event.if_match {
                assert_eq!(if_match, tag(old_event), "If-Match let {event:?} pass");
            }
        }
        for (index, (early, _)) in self.versions.iter().enumerate() {
            for (late, _) in &self.versions[index..] {
                assert!(early.could_be_before(late), "{early:?} was done after {late:?}, or is dated so");
            }
            let end = self.end;
            assert!(end.is_none_or(|end| early.could_be_before(end)), "a change after the end: {early:?}");
        }
        if let Some((end, if_match)) = self.end.and_then(|end| Some((end, end.if_match.as_ref()?))) {
            assert_eq!(if_match, tag(self.versions.last().unwrap().0), "If-Match let {end:?} pass");
        }
    }

    /// Asserts that there was a moment during the request at which the answer was true.
    fn explain(&self, event: &Event) {
        match (event.kind, event.answer.status) {
            (Kind::Create, 422) => {
                event.answer.clone().expect_problem(422, "IDEMPOTENCY_KEY_REUSED");
                assert_ne!(event.body, self.versions[0].0.body, "{event:?}");
            }
            (Kind::Create, 201) => {
                assert_eq!(event.body, self.versions[0].0.body, "{event:?}");
                self.explain_reading(event);
            }
            (Kind::Read | Kind::Change | Kind::List, 200) => self.explain_reading(event),
            (Kind::Delete, 204) => {}
            (_, 412) => {
                let if_match = event.if_match.as_deref().expect("412 without If-Match");
                let at = self.versions.iter().position(|(version, _)| tag(version) == if_match);
                // A tag of the previous round belongs to another task.
                if let Some(at) = at {
                    let is_over = |(next, _): &(&Event, Value)| next.could_be_before(event);
                    assert!(self.versions.get(at + 1).is_some_and(is_over), "412 for no reason: {event:?}");
                }
                assert!(self.end.is_none_or(|end| event.could_be_before(end)), "{event:?}");
            }
            (_, 404) => self.explain_absence(event),
            _ => panic!("{event:?}"),
        }
    }

    fn explain_absence(&self, event: &Event) {
        assert!(self.end.is_some_and(|end| end.could_be_before(event)), "404 for no reason: {event:?}");
    }

    fn explain_reading(&self, event: &Event) {
        let Some(task) = event.task(self.id) else { return self.explain_absence(event) };
        let at = self.versions.iter().position(|(_, version)| *version == task);
        let at = at.unwrap_or_else(|| panic!("nobody made this version: {event:?}"));
        let version = self.versions[at].0;
        assert!(version.could_be_before(event), "{event:?} before {version:?}");
        let next = self.versions.get(at + 1).map(|(next, _)| *next).or(self.end);
        assert!(next.is_none_or(|next| event.could_be_before(next)), "stale: {event:?} after {next:?}");
        if event.kind != Kind::List {
            assert_eq!(tag(event), tag(version), "{event:?}");
        }
    }
}

/// Runs all rounds of one user. Returns the number of answers of each kind.
fn race(app: &App, user: &str, seed: u64, rounds: u64) -> BTreeMap<String, u64> {
    let client = |number: u64| Client {
        user,
        token: token(user),
        random: Random::new(seed.wrapping_mul(CLIENTS).wrapping_add(number) << 20),
        connection: Connection::open(&app.address).unwrap(),
        tag: None,
    };
    let mut clients: Vec<_> = (0..CLIENTS).map(client).collect();
    let (mut key, mut there, mut tally) = ("key-0".to_owned(), 0, BTreeMap::new());
    for number in 0..rounds {
        let round = Round {
            key: key.clone(),
            number,
            tag: Mutex::default(),
            barrier: Barrier::new(CLIENTS as usize),
        };
        let events: Vec<Event> = thread::scope(|scope| {
            let play = |(number, client)| {
                let round = &round;
                scope.spawn(move || Client::play(client, round, number))
            };
            let threads: Vec<_> = (0..).zip(&mut clients).map(play).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("see above")).collect()
        });
        let what = format!("TINYTASKS_RACE_SEED={seed}, {user}, round {number}");
        let guard = OnFailure(what);
        let (id, is_deleted) = judge(&events);
        let last = app.user(user).on_task("GET", id).send();
        assert_eq!(last.status, if is_deleted { 404 } else { 200 }, "after the round: {last:?}");
        drop(guard);
        if is_deleted {
            // The task is deleted, so its key is free again.
            *tally.entry("keys freed".to_owned()).or_default() += 1;
        } else {
            there += 1;
            key = format!("key-{}", number + 1);
        }
        for event in events {
            *tally.entry(format!("{:?} {}", event.kind, event.answer.status)).or_default() += 1;
        }
    }
    assert_eq!(app.user(user).list()["count"], there, "the tasks that nobody deleted");
    tally
}

struct OnFailure(String);

impl Drop for OnFailure {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

#[test]
fn what_racing_clients_of_one_user_are_told_fits_one_history() {
    let rounds = number("TINYTASKS_RACE_ROUNDS", ROUNDS_DEFAULT);
    let seed = number("TINYTASKS_RACE_SEED", 1);
    let app = App::setup().env("RUST_LOG", "info,tinytasks::http=warn").spawn();
    let start = Instant::now();
    let tallies: Vec<_> = thread::scope(|scope| {
        let race = |user| {
            let app = &app;
            scope.spawn(move || race(app, user, seed, rounds))
        };
        let threads: Vec<_> = USERS.map(race).into();
        threads.into_iter().map(|thread| thread.join().expect("see above")).collect()
    });
    eprintln!("seed {seed}: {rounds} rounds of {} users, {:.1?}: {tallies:?}", USERS.len(), start.elapsed());
    for what in ["Create 201", "Create 422", "Change 200", "Change 412", "Delete 204", "keys freed"] {
        let is_there = tallies.iter().any(|tally| tally.contains_key(what));
        assert!(is_there || rounds < ROUNDS_DEFAULT, "{what} never happened: {tallies:?}");
    }
}
