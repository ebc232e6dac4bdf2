//! Writes a call as a request.

use super::{Call, Login, User};
use crate::support::{
    http::Request,
    reference::Random,
    tasks::parameters,
    token::{HEADER, SECRET, now, segment, sign, sign_text, token},
};
use serde_json::json;

impl Call {
    pub fn new(user: &str) -> Self {
        Self {
            method: "GET",
            path_user: user.to_owned(),
            task: None,
            query: Vec::new(),
            login: Login::Good,
            keys: Vec::new(),
            if_match: None,
            if_none_match: None,
            media_type: None,
            body: None,
            origin: None,
            request_id: None,
        }
    }

    /// The target, sometimes with every character percent-encoded.
    pub fn target(&self, random: &mut Random) -> String {
        let everything = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
        let written = |text: &str, random: &mut Random| {
            if random.one_in(8) { everything(text) } else { segment(text) }
        };
        let mut target = format!("/api/{}/tasks", written(&self.path_user, random));
        if let Some(task) = &self.task {
            target += &format!("/{}", written(task, random));
        }
        for (index, (name, value, _)) in self.query.iter().enumerate() {
            let separator = if index == 0 { '?' } else { '&' };
            // A space may be written as forms do.
            let space = random.pick(&["%20", "+"]);
            target += &format!("{separator}{name}={}", written(value, random).replace("%20", space));
        }
        target
    }

    pub fn request(&self, user: &User, target: &str, random: &mut Random) -> Request {
        let mut request = Request::new("model", self.method, target);
        let good = random.pick(&user.tokens);
        let scheme = random.pick(&["Bearer", "Bearer", "bearer", "BEARER"]);
        request = match self.login {
            Login::Good => request.header("Authorization", &format!("{scheme} {good}")),
            Login::Missing if random.one_in(2) => request,
            Login::Missing => request.header("Authorization", &format!("Basic {good}")),
            Login::Invalid if random.one_in(4) => request.bearer(&good).bearer(&good),
            Login::Invalid => request.bearer(&bad_token(user, &good, random)),
        };
        for key in &self.keys {
            request = request.header("Idempotency-Key", key);
        }
        for (name, tags) in [("If-Match", &self.if_match), ("If-None-Match", &self.if_none_match)] {
            for line in tags.iter().flat_map(|tags| &tags.lines) {
                request = request.header(name, line);
            }
        }
        for (name, value) in [
            ("Content-Type", self.media_type),
            ("Origin", self.origin),
            ("X-Request-Id", self.request_id.as_deref()),
        ] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        match &self.body {
            Some(body) => request.body(&body.bytes),
            None => request,
        }
    }
}

fn bad_token(user: &User, good: &str, random: &mut Random) -> String {
    let id = &user.id;
    let expires = now() + 3600;
    let (head, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = head.split_once('.').unwrap();
    match random.below(10) {
        0 => sign("another secret for the tests, also long enough", &json!({"user_id": id, "exp": expires})),
        1 => sign(SECRET, &json!({"user_id": id, "exp": now() - 60})),
        2 => sign(SECRET, &json!({"user_id": id})),
        3 => sign(SECRET, &json!({"user_id": [id], "sub": id, "exp": expires})),
        4 => sign(SECRET, &json!({"user_id": "", "sub": id, "exp": expires})),
        5 => sign_text(SECRET, r#"{"alg":"none"}"#, &json!({"user_id": id, "exp": expires}).to_string()),
        6 => format!("{head}."),
        7 => {
            // A valid signature, but of another token.
            let other = token("another");
            format!("{header}.{payload}.{}", other.rsplit_once('.').unwrap().1)
        }
        8 => sign_text(SECRET, HEADER, "{}"),
        _ => {
            let (first, rest) = signature.split_at(1);
            format!("{head}.{}{rest}", if first == "A" { "B" } else { "A" })
        }
    }
}

/// The call that a link names.
pub fn followed(call: &Call, link: &str) -> (Call, String) {
    let target = link.trim_start_matches('<').split_once('>').unwrap().0.to_owned();
    let mut next = Call { method: call.method, ..Call::new(&call.path_user) };
    const NAMES: [&str; 7] = ["complete", "q", "order", "limit", "after", "cursor", "totals"];
    // In the order of the link, as the next link repeats it.
    for pair in target.split_once('?').unwrap().1.split('&') {
        let (name, value) = parameters(&format!("?{pair}")).pop_first().unwrap();
        let name = NAMES.into_iter().find(|known| *known == name);
        next.query.push((name.unwrap(), value, true));
    }
    (next, target)
}
