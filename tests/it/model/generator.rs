//! Chooses by chance what is sent: calls, texts, bodies, ids, tags and queries.

use super::{
    Actor, Body, Call, Content, KEYS, Login, MARK, Member, ORIGIN, PHRASES, THREADS, Tags, USERS_PER_THREAD,
    User, World,
    query::{some_filter, some_query},
};
use crate::support::{
    reference::Random,
    token::{SECRET, now, sign},
};
use serde_json::json;
use std::collections::BTreeMap;

/// The text as a JSON string, sometimes all in escapes.
fn spelled(random: &mut Random, text: &str) -> String {
    if !random.one_in(6) {
        return json!(text).to_string();
    }
    let units = text.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
    format!("\"{}\"", units.collect::<String>())
}

impl User {
    pub fn new(world_seed: u64, index: u64) -> Self {
        // Marks of two runs in one database differ, and those of one run differ in one digit.
        let mark = format!("{MARK}{:04x}{index:04x}", world_seed & 0xffff);
        let id = match index % 12 {
            0 => mark.clone(),
            1 => format!("{mark} with space "),
            2 => format!("a/b/../{mark}/tasks"),
            3 => format!("100%25{mark}%"),
            4 => format!("ü🙂{mark}"),
            5 => format!("auth0|{mark}?x=1&y#z"),
            6 => format!("'; drop table tasks; --{mark}\\"),
            7 => mark.clone() + &"🙂".repeat(255 - mark.len()),
            8 => format!("{mark}\n\t\u{1}"),
            9 => format!("..{mark}.."),
            10 => format!("\u{202e}{mark}e\u{301}"),
            _ => format!("{mark}+%2F"),
        };
        let expires = now() + 36_000;
        let tokens = vec![
            sign(SECRET, &json!({"user_id": id, "exp": expires})),
            sign(SECRET, &json!({"sub": id, "exp": expires})),
            sign(
                SECRET,
                &json!({"user_id": id, "sub": "another", "exp": expires, "iat": 1, "role": "admin"}),
            ),
        ];
        Self {
            index,
            id,
            mark,
            tokens,
            tasks: BTreeMap::new(),
            keys: BTreeMap::new(),
            deleted: Vec::new(),
            cursors: BTreeMap::new(),
            lists: BTreeMap::new(),
            list_tags: BTreeMap::new(),
        }
    }

    /// Whether the call names another user's task.
    pub fn is_anothers(&self, world: &World, call: &Call) -> bool {
        let id = call.task.as_ref().and_then(|task| task.parse::<i64>().ok());
        let owner = id.and_then(|id| world.ids.lock().unwrap().get(&id).copied());
        owner.is_some_and(|owner| owner != self.index)
    }

    pub fn is_collector(&self) -> bool {
        self.index.is_multiple_of(USERS_PER_THREAD)
    }

    /// A valid text with the user's mark.
    fn text(&self, random: &mut Random, chars_max: usize) -> String {
        let text = match random.below(12) {
            0 => format!(" {} ", self.mark),
            1 => self.mark.clone() + &"🙂".repeat(chars_max - self.mark.len()),
            _ => format!("{} {} {}", self.mark, random.pick(&PHRASES), random.below(1000)),
        };
        assert!(text.chars().count() <= chars_max);
        text
    }

    fn bad_text(&self, random: &mut Random, chars_max: usize) -> Member<String> {
        let mark = &self.mark;
        let (kind, json) = match random.below(6) {
            0 => ("too_long", json!(mark.clone() + &"🙂".repeat(chars_max + 1 - mark.len())).to_string()),
            1 => ("bad_text", format!("\"{mark}\\u0000\"")),
            2 => ("bad_text", format!("\"{mark}\\ud83d\"")),
            3 => ("string_type", random.pick(&["5", "true", "[]", "{\"a\": null}", "-1e9"]).to_owned()),
            _ if chars_max == 200 => {
                let blank = random.pick(&["", " ", "\\t\\n", "\u{a0}\u{2003}\u{3000}", "\u{2028}\u{85}"]);
                ("blank", format!("\"{blank}\""))
            }
            _ => ("string_type", "false".to_owned()),
        };
        match random.below(8) {
            0 => Member::Twice(json!(mark).to_string()),
            1 if chars_max == 200 => Member::Null,
            _ => Member::Bad(kind, json),
        }
    }

    /// The content unchanged, or with a single difference.
    pub fn altered(&self, random: &mut Random, mut content: Content) -> Content {
        match random.below(8) {
            0 => content.title = self.text(random, 200),
            1 => content.title.push(' '),
            2 => content.complete = !content.complete,
            3 if content.description.is_some() => content.description = None,
            3 => content.description = Some(String::new()),
            4 => content.description = Some(self.text(random, 1000)),
            _ => {}
        }
        content.title = content.title.chars().take(200).collect();
        content
    }

    /// A body for the method. Some have mistakes.
    pub fn body(&self, random: &mut Random, method: &str, like: Option<&Content>) -> Body {
        let one_in = if method == "PATCH" { 2 } else { 4 };
        let good = |random: &mut Random, chars_max: usize| {
            let text = self.text(random, chars_max);
            let json = spelled(random, &text);
            Member::Good(text, json)
        };
        let mut title = good(random, 200);
        let mut description = match random.below(5) {
            0 => Member::Absent,
            1 => Member::Null,
            2 if random.one_in(4) => Member::Good(String::new(), "\"\"".to_owned()),
            _ => good(random, 1000),
        };
        // A collector has so many complete tasks that a list of these alone comes in parts.
        let truth = if self.is_collector() { !random.one_in(8) } else { random.one_in(2) };
        let mut complete = Member::Good(truth, truth.to_string());
        if method == "POST" && random.one_in(if self.is_collector() { 10 } else { 3 }) {
            complete = Member::Absent;
        }
        if method == "PATCH" {
            if random.one_in(one_in) {
                title = Member::Absent;
            }
            if random.one_in(one_in) {
                description = Member::Absent;
            }
            if random.one_in(one_in) {
                complete = Member::Absent;
            }
        }
        if let Some(like) = like {
            title = Member::Good(like.title.clone(), spelled(random, &like.title));
            description = match &like.description {
                Some(text) => Member::Good(text.clone(), spelled(random, text)),
                None => random.pick(&[Member::Absent, Member::Null]),
            };
            complete = match like.complete {
                false if method == "POST" && random.one_in(2) => Member::Absent,
                complete => Member::Good(complete, complete.to_string()),
            };
            if method == "PATCH" && random.one_in(2) {
                title = Member::Absent;
            }
        } else if random.one_in(5) {
            let wrong = 1 + random.below(7);
            if wrong & 1 != 0 {
                title = if random.one_in(3) { Member::Absent } else { self.bad_text(random, 200) };
            }
            if wrong & 2 != 0 {
                description = self.bad_text(random, 1000);
            }
            if wrong & 4 != 0 {
                complete = match random.below(4) {
                    0 => Member::Null,
                    1 => Member::Absent,
                    2 => Member::Twice("true".to_owned()),
                    _ => Member::Bad("bool_type", random.pick(&["\"true\"", "1", "0", "[]"]).to_owned()),
                };
            }
        }
        let mut body = Body { title, description, complete, bytes: Vec::new(), broken: None };
        body.bytes = body.written(random);
        if like.is_none() && random.one_in(20) {
            let mark = &self.mark;
            let (kind, bytes) = match random.below(5) {
                0 => ("json_invalid", format!("{{\"title\": \"{mark}\"").into_bytes()),
                1 => ("object_type", format!("[\"{mark}\"]").into_bytes()),
                2 => ("json_invalid", Vec::new()),
                3 => ("utf8", [b"{\"title\": \"", mark.as_bytes(), b"\xff\"}"].concat()),
                _ => ("object_type", b"null".to_vec()),
            };
            (body.broken, body.bytes) = (Some(kind), bytes);
        }
        body
    }
}

impl Body {
    /// The body as JSON, its members in any order, with some that the service must ignore.
    fn written(&self, random: &mut Random) -> Vec<u8> {
        fn put<T>(members: &mut Vec<(&'static str, String)>, name: &'static str, member: &Member<T>) {
            match member {
                Member::Absent => {}
                Member::Null => members.push((name, "null".to_owned())),
                Member::Good(_, json) | Member::Bad(_, json) => members.push((name, json.clone())),
                Member::Twice(json) => members.extend([(name, json.clone()), (name, "null".to_owned())]),
            }
        }
        let mut members = Vec::new();
        put(&mut members, "title", &self.title);
        put(&mut members, "description", &self.description);
        put(&mut members, "complete", &self.complete);
        if random.one_in(4) {
            members.extend([("user_id", "\"another\"".to_owned()), ("id", "1".to_owned())]);
        }
        if random.one_in(2) {
            members.reverse();
        }
        let members: Vec<_> = members.iter().map(|(name, json)| format!("\"{name}\": {json}")).collect();
        format!("{{{}}}", members.join(", ")).into_bytes()
    }
}

impl Actor<'_> {
    pub fn first_call(&mut self) -> Call {
        let body = loop {
            let body = self.users[0].body(&mut self.random, "POST", None);
            if body.broken.is_none() && body.rules(true, false).is_empty() {
                break body;
            }
        };
        let body = Some(body);
        let media_type = Some("application/json");
        Call { method: "POST", task: None, media_type, body, ..Call::new(&self.users[0].id) }
    }

    pub fn call(&mut self, who: usize) -> Call {
        let user = &self.users[who];
        let random = &mut self.random;
        let mut call = Call::new(&user.id);
        let (method, is_task) = match random.below(if user.is_collector() { 28 } else { 30 }) {
            0..=4 => ("GET", true),
            5 => ("HEAD", true),
            6..=9 => ("GET", false),
            10 => ("HEAD", false),
            11..=16 => ("POST", false),
            17..=19 => ("PUT", true),
            20..=24 => ("PATCH", true),
            25 => ("OPTIONS", random.one_in(2)),
            26 => (random.pick(&["POST", "TRACE", "QUERY", "PROPFIND"]), true),
            27 => (random.pick(&["PUT", "PATCH", "PATCH", "PATCH", "DELETE"]), false),
            _ => ("DELETE", true),
        };
        call.method = method;
        call.task = is_task.then(|| some_id(self.world, user, random));
        if matches!(method, "POST" | "PUT" | "PATCH") {
            self.give_body(who, &mut call);
        }
        let user = &self.users[who];
        let random = &mut self.random;
        if method == "POST" && random.one_in(20) {
            call.keys = match random.below(5) {
                0 => vec![String::new()],
                1 => vec!["a b".to_owned()],
                2 => vec!["k".repeat(256)],
                3 => vec!["é".to_owned()],
                _ => vec!["k1".to_owned(), "k1".to_owned()],
            };
        }
        if random.one_in(if is_task { 4 } else { 20 }) {
            call.if_match = Some(some_tags(user, call.task.as_deref(), random));
        }
        if random.one_in(5) {
            call.if_none_match = Some(some_tags(user, call.task.as_deref(), random));
        }
        call.query = match method {
            _ if is_task => Vec::new(),
            "PATCH" | "DELETE" => some_filter(user, random),
            _ => some_query(user, random),
        };
        call.origin = match random.below(6) {
            0 => Some(ORIGIN),
            1 => Some("https://elsewhere.example"),
            _ => None,
        };
        // The answer must have this id, so it cannot be that to another request.
        call.request_id =
            random.one_in(2).then(|| format!("{}-{:016x}", user.mark, random.below(usize::MAX)));
        match random.below(24) {
            0 => call.login = Login::Missing,
            1 => call.login = Login::Invalid,
            2 | 3 => call.path_user = self.another_user(who),
            _ => {}
        }
        call
    }

    fn give_body(&mut self, who: usize, call: &mut Call) {
        let user = &self.users[who];
        let random = &mut self.random;
        call.media_type = match random.below(12) {
            0 => None,
            1 => Some("text/plain"),
            2 => Some("application/merge-patch+json"),
            3 => Some("Application/JSON ; charset=utf-8"),
            _ => Some("application/json"),
        };
        // What is there already, so that it is done although its version is another one.
        let own =
            call.task.as_ref().and_then(|task| task.parse().ok()).and_then(|id: i64| user.tasks.get(&id));
        let mut like = own.filter(|_| random.one_in(4)).map(|task| task.content.clone());
        if call.method == "POST" && random.one_in(2) {
            let key = random.pick(&KEYS);
            // The same body again, or another one with the same key.
            like = user.keys.get(key).filter(|_| !random.one_in(4)).map(|(content, _)| content.clone());
            like = like.map(|content| user.altered(random, content));
            call.keys = vec![key.to_owned()];
        }
        let has_body = !random.one_in(40);
        call.body = has_body.then(|| user.body(random, call.method, like.as_ref()));
    }

    /// The id of a user of this thread or another, or of one without any task.
    fn another_user(&mut self, who: usize) -> String {
        let index = self.random.below((THREADS * USERS_PER_THREAD) as usize + 1) as u64;
        match index == self.users[who].index {
            true => format!("{}x", self.users[who].id.chars().take(254).collect::<String>()),
            false => User::new(self.world.seed, index).id,
        }
    }
}

/// The id of an own task, a deleted one, another user's or none, or a text that is no id.
fn some_id(world: &World, user: &User, random: &mut Random) -> String {
    let own: Vec<i64> = user.tasks.keys().copied().collect();
    let (kind, index) = (random.below(32), random.below(1 << 40));
    let pick = |ids: &[i64]| ids.get(index % ids.len().max(1)).copied();
    let id = match kind {
        0..=1 => pick(&user.deleted),
        2..=4 => {
            let ids = world.ids.lock().unwrap();
            let others: Vec<i64> =
                ids.iter().filter(|(_, owner)| **owner != user.index).map(|(id, _)| *id).collect();
            pick(&others)
        }
        5 => {
            let huge = [i64::MAX, 1 << 53, (1 << 53) - 1, 1 << 31, 1 << 32, i64::from(i32::MAX)];
            pick(&huge)
        }
        6 => {
            const NONE: &str =
                "0|01|-1|+1|1.0|1e1|abc|9223372036854775808|18446744073709551617|１| 1|1 |0x1|tasks|1/|";
            let none: Vec<_> = NONE.split('|').collect();
            return none[index % none.len()].to_owned();
        }
        // One of the latest, so that some tasks are changed several times.
        7..=16 => pick(&own[own.len().saturating_sub(5)..]),
        _ => pick(&own),
    };
    id.unwrap_or(1 << 50).to_string()
}

fn some_tags(user: &User, id: Option<&str>, random: &mut Random) -> Tags {
    let task = id.and_then(|id| id.parse().ok()).and_then(|id: i64| user.tasks.get(&id));
    if random.one_in(8) {
        return Tags { lines: vec!["*".to_owned()], is_any: true, named: Vec::new() };
    }
    let mut named = Vec::new();
    for _ in 0..1 + random.below(3) {
        let other = user.tasks.values().next().map(|task| task.tags.last().unwrap());
        let lists: Vec<_> = user.list_tags.keys().collect();
        let list = lists.get(random.below(lists.len().max(1)));
        let tag = match (random.below(5), task, other) {
            (0..=2, None, _) if list.is_some() => (*list.unwrap()).clone(),
            (0..=1, Some(task), _) => task.tags.last().unwrap().clone(),
            (2, Some(task), _) => random.pick(&task.tags),
            (3, _, Some(other)) => other.clone(),
            _ => random.pick(&["\"x\"", "\"\"", "\"a,*,b\"", "\"0\""]).to_owned(),
        };
        named.push((random.one_in(4), tag));
    }
    let written: Vec<_> =
        named.iter().map(|(is_weak, tag)| if *is_weak { format!("W/{tag}") } else { tag.clone() }).collect();
    let lines = match random.below(3) {
        0 => written,
        1 => vec![written.join(", ")],
        _ => vec![written.join(",")],
    };
    Tags { lines, is_any: false, named }
}
