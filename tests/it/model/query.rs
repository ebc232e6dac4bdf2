//! Chooses by chance the queries of lists and of bulk changes.

use super::{Parameter, User};
use crate::support::reference::Random;

const ORDERS: [&str; 10] =
    ["asc", "desc", "id", "-id", "created", "-created", "updated", "-updated", "title", "-title"];

fn good(text: &str) -> (String, bool) {
    (text.to_owned(), true)
}

fn bad(random: &mut Random, texts: &[&str]) -> (String, bool) {
    (random.pick(texts).to_owned(), false)
}

/// A text to search for, which some of the user's tasks may have.
fn some_q(user: &User, random: &mut Random) -> (String, bool) {
    let mark = user.mark.clone();
    match random.below(14) {
        0 => good(&mark.to_uppercase()),
        1 => good(&format!("{} b", mark.to_lowercase())),
        2 => good(random.pick(&["%", "_", "\\", "b\\c/D", "a\"B", "+", " ", "  ", "&q=x"])),
        3 => good(random.pick(&["MILK", "buy m", "Buy%", "🙂👩‍👩‍👧", "é", "e\u{301}", "\u{202e}RTL", "\t\r\n"])),
        4 => {
            // A whole title, the longest there may be.
            let all: Vec<_> = user.tasks.values().collect();
            let title = all.get(random.below(all.len().max(1))).map(|task| task.content.title.as_str());
            good(title.unwrap_or("none"))
        }
        5 => good(&"🙂".repeat(180 + random.below(21))),
        6 if random.one_in(4) => match random.below(3) {
            0 => (String::new(), false),
            1 => ("🙂".repeat(201), false),
            _ => ("milk\0".to_owned(), false),
        },
        7 => good(&random.below(10).to_string()),
        _ => good(&random.below(100).to_string()),
    }
}

fn some_value(name: &str, user: &User, random: &mut Random) -> (String, bool) {
    if random.one_in(25) {
        return match name {
            "complete" | "totals" => bad(random, &["", "True", "1", "null"]),
            "order" => bad(random, &["", "ASC", "-asc", "asc ", "--id", "created_at", "Title"]),
            "limit" => bad(random, &["", "0", "1001", "-1", "01", "1.5", "all"]),
            "q" => bad(random, &["", "\0"]),
            "cursor" => bad(random, &["", "x", "WzAsMCwwXQ", "\0", "é", "[1,2,3]"]),
            _ => bad(random, &["", "-1", "00", "9223372036854775808", "x", "+1"]),
        };
    }
    let count = user.tasks.len();
    match name {
        "complete" => good(random.pick(&["true", "false"])),
        "q" => some_q(user, random),
        "order" => good(random.pick(&ORDERS)),
        "limit" => match random.below(4) {
            0 => good(random.pick(&["1", "1000"])),
            // Near the number of tasks.
            1 => good(&(count + random.below(3)).saturating_sub(1).clamp(1, 1000).to_string()),
            _ => good(&(1 + random.below(20)).to_string()),
        },
        "offset" => match random.below(4) {
            0 => good(random.pick(&["0", "1", "9223372036854775807"])),
            _ => good(&random.below(count + 2).to_string()),
        },
        "totals" => good(random.pick(&["true", "true", "false"])),
        "cursor" => {
            let all: Vec<_> = user.cursors.keys().collect();
            all.get(random.below(all.len().max(1))).map_or(("x".to_owned(), false), |text| good(text))
        }
        "after" => {
            let ids: Vec<i64> = user.tasks.keys().copied().chain([1, i64::MAX]).collect();
            good(&random.pick(&ids).to_string())
        }
        _ => good(random.pick(&["", "1", "é"])),
    }
}

/// For a list.
pub fn some_query(user: &User, random: &mut Random) -> Vec<Parameter> {
    if !user.cursors.is_empty() && random.one_in(5) {
        return with_cursor(user, random);
    }
    let mut query = Vec::new();
    let all = ["complete", "q", "order", "limit", "offset", "after", "totals", "_", "cursor", "foo", "Limit"];
    for (index, name) in all.into_iter().enumerate() {
        let likely = [2, 5, 2, 2, 6, 6, 4, 10, 40, 40, 60][index];
        let is_in_the_way = name == "after" && query.len() > 1 && !random.one_in(4);
        if !random.one_in(likely) || is_in_the_way {
            continue;
        }
        let (value, is_good) = some_value(name, user, random);
        query.push((name, value, is_good));
    }
    finish(query, random)
}

/// A cursor that a link gave at some time: mostly with its order and its filters.
fn with_cursor(user: &User, random: &mut Random) -> Vec<Parameter> {
    let all: Vec<_> = user.cursors.iter().collect();
    let (cursor, place) = random.pick(&all);
    let mut query = vec![("order", place.order.name(), true), ("cursor", cursor.clone(), true)];
    let complete = place.filter.complete.map(|complete| ("complete", complete.to_string(), true));
    query.extend(complete);
    query.extend(place.filter.q.clone().map(|q| ("q", q, true)));
    for name in ["limit", "totals", "order", "complete", "q", "offset"] {
        let likely = if ["limit", "totals"].contains(&name) { 2 } else { 15 };
        if random.one_in(likely) {
            query.retain(|(given, _, _)| *given != name);
            let (value, is_good) = some_value(name, user, random);
            query.push((name, value, is_good));
        }
    }
    finish(query, random)
}

/// For a bulk change. A collector keeps its many tasks, so little of it is chosen.
pub fn some_filter(user: &User, random: &mut Random) -> Vec<Parameter> {
    let mut query = Vec::new();
    if !random.one_in(12) {
        let (value, is_good) = some_value("complete", user, random);
        query.push(("complete", value, is_good));
    }
    if user.is_collector() {
        query.push(("q", format!(" {}", 100 + random.below(900)), true));
    } else if random.one_in(2) {
        let (value, is_good) = some_q(user, random);
        query.push(("q", value, is_good));
    }
    for name in ["limit", "order", "foo", "_"] {
        if random.one_in(30) {
            let (value, is_good) = some_value(name, user, random);
            query.push((name, value, is_good));
        }
    }
    finish(query, random)
}

/// In any order, sometimes with one parameter twice.
fn finish(mut query: Vec<Parameter>, random: &mut Random) -> Vec<Parameter> {
    if random.one_in(2) {
        query.reverse();
    }
    if random.one_in(40)
        && let Some(first) = query.first().cloned()
    {
        query.push(first);
    }
    query
}
