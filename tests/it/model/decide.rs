//! Decides what the contract says of a call, before the call is made.

use super::{Body, Call, Content, Login, Member, Outcome, Rule, Tags, User, list::filter_of};

fn refused(status: u16, code: &'static str, detail: &'static str) -> Outcome {
    Outcome::Refused { status, code, detail, field: None }
}

fn refused_with(
    status: u16,
    code: &'static str,
    detail: &'static str,
    name: &'static str,
    value: &str,
) -> Outcome {
    Outcome::Refused { status, code, detail, field: Some((name, value.to_owned())) }
}

fn no_such_task() -> Outcome {
    refused(404, "NOT_FOUND", "there is no such task")
}

pub fn methods(call: &Call) -> &'static str {
    match call.task {
        Some(_) => "GET, HEAD, PUT, PATCH, DELETE, OPTIONS",
        None => "GET, HEAD, POST, PATCH, DELETE, OPTIONS",
    }
}

impl User {
    /// The outcome, by the contract's order of checks.
    pub fn decide(&self, call: &Call) -> Outcome {
        if call.task.as_deref() == Some("") {
            return refused(404, "NOT_FOUND", "there is nothing at this path");
        }
        if !methods(call).split(", ").any(|method| method == call.method) {
            let detail = "the method is not allowed here";
            return refused_with(405, "METHOD_NOT_ALLOWED", detail, "allow", methods(call));
        }
        let is_options = call.method == "OPTIONS";
        let bearer = |code, detail, value| refused_with(401, code, detail, "www-authenticate", value);
        match call.login {
            _ if is_options => {}
            Login::Missing => return bearer("AUTH_MISSING", "a bearer token is required", "Bearer"),
            Login::Invalid => {
                return bearer("AUTH_INVALID", "the token is not valid", "Bearer error=\"invalid_token\"");
            }
            Login::Good if call.path_user != self.id => {
                return refused(403, "AUTH_FORBIDDEN", "the token is another user's");
            }
            Login::Good => {}
        }
        if call.keys.len() > 1 {
            let msg = "must be given once".to_owned();
            let rule = ("header.Idempotency-Key".to_owned(), msg, "header_repeated");
            return Outcome::Broken(400, vec![rule]);
        }
        match (call.method, &call.task) {
            ("OPTIONS", _) => Outcome::Options,
            (_, None) if call.method == "POST" => self.decide_create(call),
            ("PATCH" | "DELETE", None) => decide_many(call),
            (_, None) => self.decide_list(call),
            (_, Some(task)) => self.decide_task(call, task),
        }
    }

    fn decide_create(&self, call: &Call) -> Outcome {
        if let Some(outcome) = wrong_media_type(call, &["application/json"]) {
            return outcome;
        }
        let mut rules = Vec::new();
        let key = call.keys.first();
        if key
            .is_some_and(|key| !(1..=255).contains(&key.len()) || !key.bytes().all(|b| b.is_ascii_graphic()))
        {
            let msg = "must be 1 to 255 visible ASCII characters";
            rules.push(("header.Idempotency-Key".to_owned(), msg.to_owned(), "idempotency_key"));
        }
        let body = call.body.as_ref();
        if let Some(rule) = body_is_broken(body) {
            return broken(rules, rule);
        }
        let body = body.unwrap();
        rules.extend(body.rules(true, false));
        if !rules.is_empty() {
            return Outcome::Broken(422, rules);
        }
        let content = body.content();
        match key.and_then(|key| self.keys.get(key)) {
            Some((first, id)) if *first == content => Outcome::Replayed(*id),
            Some(_) => {
                let detail = "the Idempotency-Key was used with another body";
                refused(422, "IDEMPOTENCY_KEY_REUSED", detail)
            }
            None => Outcome::Created(content, key.cloned()),
        }
    }

    fn decide_task(&self, call: &Call, task: &str) -> Outcome {
        let is_canonical = task.bytes().all(|byte| byte.is_ascii_digit()) && !task.starts_with('0');
        let id = task.parse::<i64>().ok().filter(|_| is_canonical);
        let mut rules = Vec::new();
        if id.is_none() {
            let msg = "must be a whole number from 1 to 9223372036854775807, without leading zeros";
            rules.push(("path.task_id".to_owned(), msg.to_owned(), "path_id"));
        }
        if let "PUT" | "PATCH" = call.method {
            let accepted: &[_] = match call.method {
                "PUT" => &["application/json"],
                _ => &["application/json", "application/merge-patch+json"],
            };
            let body = call.body.as_ref();
            if let Some(outcome) = wrong_media_type(call, accepted) {
                return outcome;
            }
            if let Some(rule) = body_is_broken(body) {
                return broken(rules, rule);
            }
            let body = body.unwrap();
            if call.method == "PATCH" && body.has_no_field() {
                let msg = "must have at least one of title, description, complete";
                return broken(rules, ("body".to_owned(), msg.to_owned(), "no_fields"));
            }
            rules.extend(body.rules(call.method == "PUT", call.method == "PUT"));
        }
        let Some(id) = id.filter(|_| rules.is_empty()) else { return Outcome::Broken(422, rules) };
        let Some(task) = self.tasks.get(&id) else { return no_such_task() };
        let tag = task.tags.last().unwrap();
        let is_other = call.if_match.as_ref().is_some_and(|tags| !tags.matches(tag, false));
        let is_excluded = call.if_none_match.as_ref().is_some_and(|tags| tags.matches(tag, true));
        let content = match call.method {
            "PUT" => call.body.as_ref().unwrap().content(),
            "PATCH" => call.body.as_ref().unwrap().patched(&task.content),
            _ => task.content.clone(),
        };
        match call.method {
            "GET" | "HEAD" if is_excluded && !is_other => Outcome::NotModified(id),
            "GET" | "HEAD" if !is_other => Outcome::Shown(id),
            "PUT" | "PATCH" if is_other && !is_excluded && content == task.content => Outcome::Done(id),
            _ if is_other || is_excluded => Outcome::Failed(id),
            "DELETE" => Outcome::Deleted(id),
            _ => Outcome::Changed(id, content),
        }
    }
}

fn wrong_media_type(call: &Call, accepted: &[&str]) -> Option<Outcome> {
    let essence = call.media_type.unwrap_or_default().split(';').next().unwrap().trim();
    let fits = accepted.iter().any(|accepted| accepted.eq_ignore_ascii_case(essence));
    let detail = match accepted {
        [_] => "Content-Type: must be application/json",
        _ => "Content-Type: must be application/json or application/merge-patch+json",
    };
    let wrong = || refused_with(415, "UNSUPPORTED_MEDIA_TYPE", detail, "accept", &accepted.join(", "));
    (!fits).then(wrong)
}

/// 400 for what is wrong with the body as a whole, with what is wrong besides.
fn broken(mut rules: Vec<Rule>, rule: Rule) -> Outcome {
    rules.push(rule);
    Outcome::Broken(400, rules)
}

fn body_is_broken(body: Option<&Body>) -> Option<Rule> {
    let kind = body.map_or(Some("json_invalid"), |body| body.broken)?;
    let msg = match kind {
        "object_type" => "must be a JSON object",
        "utf8" => "must be UTF-8",
        _ => "must be valid JSON",
    };
    let kind = if kind == "utf8" { "json_invalid" } else { kind };
    Some(("body".to_owned(), msg.to_owned(), kind))
}

fn decide_many(call: &Call) -> Outcome {
    let (filter, mut rules) = filter_of(call);
    let mut complete = None;
    if call.method == "PATCH" {
        let accepted = ["application/json", "application/merge-patch+json"];
        let body = call.body.as_ref();
        if let Some(outcome) = wrong_media_type(call, &accepted) {
            return outcome;
        }
        if let Some(rule) = body_is_broken(body) {
            return broken(rules, rule);
        }
        let kind = match &body.unwrap().complete {
            Member::Absent => {
                let msg = "must have complete".to_owned();
                return broken(rules, ("body".to_owned(), msg, "no_fields"));
            }
            Member::Null => "null",
            Member::Bad(kind, _) => kind,
            Member::Twice(_) => "duplicate",
            Member::Good(value, _) => {
                complete = Some(*value);
                ""
            }
        };
        if complete.is_none() {
            rules.push(("body.complete".to_owned(), message("complete", kind).to_owned(), kind));
        }
    }
    match complete {
        _ if !rules.is_empty() => Outcome::Broken(422, rules),
        Some(complete) => Outcome::ChangedMany(filter, complete),
        None => Outcome::DeletedMany(filter),
    }
}

impl Body {
    fn has_no_field(&self) -> bool {
        matches!(
            (&self.title, &self.description, &self.complete),
            (Member::Absent, Member::Absent, Member::Absent)
        )
    }

    /// Every rule that the body breaks.
    pub fn rules(&self, needs_title: bool, needs_complete: bool) -> Vec<Rule> {
        fn rule<T>(member: &Member<T>, is_needed: bool, may_be_null: bool) -> Option<&'static str> {
            match member {
                Member::Absent if is_needed => Some("missing"),
                Member::Null if !may_be_null => Some("null"),
                Member::Bad(kind, _) => Some(kind),
                Member::Twice(_) => Some("duplicate"),
                _ => None,
            }
        }
        let rules = [
            ("title", rule(&self.title, needs_title, false)),
            ("description", rule(&self.description, false, true)),
            ("complete", rule(&self.complete, needs_complete, false)),
        ];
        let rules = rules.into_iter().filter_map(|(name, kind)| kind.map(|kind| (name, kind)));
        rules.map(|(name, kind)| (format!("body.{name}"), message(name, kind).to_owned(), kind)).collect()
    }

    fn content(&self) -> Content {
        let absent = Content { title: String::new(), description: None, complete: false };
        self.patched(&absent)
    }

    fn patched(&self, old: &Content) -> Content {
        let mut content = old.clone();
        if let Member::Good(title, _) = &self.title {
            content.title.clone_from(title);
        }
        match &self.description {
            Member::Good(description, _) => content.description = Some(description.clone()),
            Member::Null => content.description = None,
            _ => {}
        }
        if let Member::Good(complete, _) = &self.complete {
            content.complete = *complete;
        }
        content
    }
}

fn message(name: &str, kind: &str) -> &'static str {
    match (name, kind) {
        (_, "missing") => "is required",
        (_, "null") => "must not be null",
        (_, "string_type") => "must be a string",
        (_, "bool_type") => "must be true or false",
        (_, "bad_text") => "must not contain U+0000 or a lone surrogate",
        (_, "duplicate") => "must be given once",
        (_, "blank") => "must not be empty or white space alone",
        ("title", "too_long") => "must be at most 200 characters",
        ("description", "too_long") => "must be at most 1000 characters",
        _ => panic!("{name} {kind}"),
    }
}

impl Tags {
    pub fn matches(&self, tag: &str, weakly: bool) -> bool {
        self.is_any || self.named.iter().any(|(is_weak, named)| named == tag && (weakly || !is_weak))
    }
}
