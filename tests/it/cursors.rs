//! "List parameters" in the contract: what a cursor is good for, and cursors that nobody gave.

use crate::support::{
    harness::{App, User},
    http::{Connection, Response},
    tasks::{get, ids, insert_many, next, parameters},
    token::base64url,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const BY_ID: [&str; 4] = ["id", "-id", "asc", "desc"];
const BY_CURSOR: [&str; 6] = ["created", "-created", "updated", "-updated", "title", "-title"];

/// The cursor in the link of the page that has one task of this query.
fn cursor(user: User, query: &str) -> String {
    let link = next(&get(user, &format!("{query}&limit=1")).expect(200)).expect(query);
    parameters(&link).remove("cursor").expect(&link)
}

/// The parameters that the errors of a 422 name.
fn refused(response: Response) -> BTreeSet<String> {
    let response = response.expect_problem(422, "VALIDATION_ERROR");
    assert_eq!(response.field("Link"), None);
    let locs = response.field_errors().into_iter();
    locs.map(|(loc, _)| loc.strip_prefix("query.").expect(&loc).to_owned()).collect()
}

#[track_caller]
fn assert_refused(user: User, query: &str, names: &[&str]) {
    let response = get(user, query);
    let wanted: BTreeSet<_> = names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(response.status, 422, "{query}: {}", response.text());
    assert_eq!(refused(response), wanted, "{query}");
}

#[test]
fn a_position_is_named_by_after_in_orders_by_id_and_by_a_cursor_in_the_others() {
    let app = App::spawn();
    let alice = app.user("alice");
    insert_many(&app.database, "alice", 5, 0);
    let good = cursor(alice, "?order=title");
    for order in BY_ID {
        assert_refused(alice, &format!("?order={order}&cursor={good}"), &["cursor"]);
        assert_refused(alice, &format!("?cursor={good}&order={order}&limit=2"), &["cursor"]);
        assert_refused(alice, &format!("?order={order}&cursor=x"), &["cursor"]);
        get(alice, &format!("?order={order}&after=1")).expect(200);
    }
    assert_refused(alice, &format!("?cursor={good}"), &["cursor"]);
    for order in BY_CURSOR {
        let good = cursor(alice, &format!("?order={order}"));
        assert_refused(alice, &format!("?order={order}&after=1"), &["after"]);
        assert_refused(alice, &format!("?after=1&order={order}&limit=2"), &["after"]);
        assert_refused(alice, &format!("?order={order}&cursor={good}&after=1"), &["after"]);
        assert_refused(alice, &format!("?order={order}&cursor={good}&cursor={good}"), &["cursor"]);
        assert_refused(alice, &format!("?order={order}&cursor={good}&limit=0"), &["limit"]);
        // Other parameters do not change which tasks follow the cursor.
        let rest = ids(&get(alice, &format!("?order={order}"))).split_off(1);
        for more in ["", "&limit=1000", "&limit=4", "&totals=true", "&totals=false", "&_=1"] {
            let query = format!("?order={order}&cursor={good}{more}");
            assert_eq!(ids(&get(alice, &query).expect(200)), rest, "{query}");
        }
    }
}

#[test]
fn a_cursor_does_not_go_with_an_offset() {
    let app = App::spawn();
    let alice = app.user("alice");
    insert_many(&app.database, "alice", 5, 0);
    for order in BY_CURSOR {
        let good = cursor(alice, &format!("?order={order}"));
        for offset in ["0", "1"] {
            for query in [
                format!("?order={order}&cursor={good}&offset={offset}"),
                format!("?offset={offset}&order={order}&cursor={good}&limit=2"),
            ] {
                let names = refused(get(alice, &query));
                let fits = names.iter().all(|name| ["cursor", "offset"].contains(&name.as_str()));
                assert!(fits && !names.is_empty(), "{query}: {names:?}");
            }
        }
    }
}

#[test]
fn a_cursor_is_for_its_order_and_its_filters_alone() {
    let app = App::spawn();
    let alice = app.user("alice");
    for index in 0..8 {
        let body = json!({"title": format!("milk {index}"), "complete": index % 2 == 0});
        alice.post(body).expect(201);
    }
    let filters = ["", "&complete=true", "&q=milk", "&complete=false&q=milk"];
    let others = filters.into_iter().chain(["&complete=false", "&q=ilk", "&complete=true&q=milk"]);
    for made_in in BY_CURSOR {
        for made_with in filters {
            let cursor = cursor(alice, &format!("?order={made_in}{made_with}"));
            for order in BY_CURSOR {
                for filter in others.clone() {
                    let query = format!("?order={order}&cursor={cursor}{filter}");
                    let case = format!("{made_in}{made_with}: {query}");
                    let response = get(alice, &query);
                    if (order, filter) == (made_in, made_with) {
                        let all = ids(&get(alice, &format!("?order={order}{filter}")));
                        assert_eq!(ids(&response.expect(200)), all[1..], "{case}");
                    } else {
                        assert_eq!(response.status, 422, "{case}");
                        assert_eq!(refused(response), BTreeSet::from(["cursor".to_owned()]), "{case}");
                    }
                }
            }
        }
    }
}

/// A cursor names a position. It gives no right, so another user's shows nothing of that user.
#[test]
fn a_cursor_of_another_user_shows_ones_own_tasks_alone() {
    let app = App::spawn();
    let (alice, bob) = (app.user("alice"), app.user("bob"));
    for index in 0..6 {
        [alice, bob][index % 2].create("t");
    }
    for order in BY_CURSOR {
        let cursor = cursor(bob, &format!("?order={order}"));
        let response = get(alice, &format!("?order={order}&cursor={cursor}"));
        match response.status {
            200 => {
                let list = response.json();
                let tasks = list["tasks"].as_array().unwrap();
                assert!(tasks.iter().all(|task| task["user_id"] == "alice"), "{order}: {list}");
            }
            _ => assert_eq!(refused(response), BTreeSet::from(["cursor".to_owned()]), "{order}"),
        }
    }
}

#[test]
fn a_cursor_that_nobody_gave_is_422() {
    let app = App::spawn();
    let alice = app.user("alice");
    insert_many(&app.database, "alice", 3, 0);
    let texts = [
        "",
        "x",
        "=",
        "====",
        "1",
        "0",
        "null",
        "-",
        "_",
        ".",
        "*",
        "a b",
        "{}",
        "[]",
        "AAAA",
        "////",
        "____",
        "\u{0}",
        "a\u{0}b",
        "\u{1F600}",
        "2024-01-01T00:00:00.000000Z",
        "9223372036854775807",
    ];
    let mut values: Vec<String> = texts.iter().map(|text| crate::support::token::segment(text)).collect();
    // The same texts encoded in base64url; and values that are no valid text.
    values.extend(texts.iter().map(|text| base64url(text.as_bytes())));
    values.extend(["%ff", "%C3", "%ED%A0%80", "%", "%zz", "%u0041"].map(str::to_owned));
    values.extend([7, 100, 4000].map(|count| "A".repeat(count)));
    values.push("%00".repeat(2000));
    for order in BY_CURSOR {
        assert_refused(alice, &format!("?order={order}&cursor"), &["cursor"]);
        for value in &values {
            assert_refused(alice, &format!("?order={order}&cursor={value}"), &["cursor"]);
        }
    }
}

/// Decodes base64url (RFC 4648 section 5). `None` for any other text.
fn from_base64url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut group, mut bits) = (0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' | b'+' => 62,
            b'_' | b'/' => 63,
            _ => return None,
        };
        group = group << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((group >> bits) as u8);
        }
    }
    Some(bytes)
}

/// All cursors that differ from `good` in one character, or in one byte of the decoded text.
fn forged(good: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for at in 0..good.len() {
        all.insert(good[..at].to_owned());
        all.insert(format!("{}{}", &good[..at], &good[at + 1..]));
        for other in ["A", "9", "%00"] {
            all.insert(format!("{}{other}{}", &good[..at], &good[at + 1..]));
        }
    }
    if let Some(bytes) = from_base64url(good) {
        for at in 0..bytes.len() {
            for other in [0, b'0', b'9', b'-', b'"', 0x7f, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = other;
                all.insert(base64url(&changed));
            }
            // Numbers and texts that become longer.
            let longer = [&bytes[..at], b"99999999999999999999", &bytes[at..]].concat();
            all.insert(base64url(&longer));
        }
    }
    all.remove(good);
    all
}

#[test]
fn a_cursor_that_was_changed_is_a_position_or_422_and_never_more() {
    let app = App::spawn();
    let alice = app.user("alice");
    alice.create("a");
    alice.create("b\u{1F600}\"\\");
    let mut connection = Connection::open(&app.address).unwrap();
    for order in BY_CURSOR {
        for filter in ["", "&q=b&complete=false"] {
            let filter = if order.ends_with("title") { filter } else { "" };
            alice.create("bb");
            let good = cursor(alice, &format!("?order={order}{filter}"));
            for value in forged(&good) {
                let query = format!("?order={order}&cursor={value}{filter}");
                connection.write(&alice.request("GET", &format!("/tasks{query}")).bytes());
                let response = connection.read("GET").unwrap();
                response.hold_to_the_rules("GET", "/api/alice/tasks");
                match response.status {
                    200 => _ = ids(&response),
                    422 => assert_eq!(refused(response), BTreeSet::from(["cursor".to_owned()]), "{query}"),
                    _ => panic!("{query} of {good}: {response:?}"),
                }
            }
        }
    }
    assert!(!app.log_so_far().contains("BUG"));
}

/// Cursors with the list's own number, but another value or id. This test knows how a cursor is made:
/// a JSON array of list, value and id, or list and id.
#[test]
fn a_forged_position_is_one_or_422() {
    let app = App::spawn();
    let alice = app.user("alice");
    insert_many(&app.database, "alice", 3, 0);
    let (good, either) = (&[200][..], &[200, 422][..]);
    let instants = [
        (json!(0), good),
        (json!(i64::MAX), either),
        (json!(i64::MAX as u64 + 1), either),
        (json!(u64::MAX), good),
        // The ends of what PostgreSQL can store, of what is finite, and of what can be shown.
        (json!((-210_866_803_200_000_000_i64).cast_unsigned()), either),
        (json!((-210_866_803_200_000_001_i64).cast_unsigned()), either),
        (json!(9_224_318_015_999_999_999_u64), either),
        (json!(9_224_318_016_000_000_000_u64), either),
        (json!((-62_167_219_200_000_000_i64).cast_unsigned()), good),
        (json!(253_402_300_800_000_000_u64), good),
        (json!(-1), &[422]),
        (json!(1.5), &[422]),
        (json!(1e300), &[422]),
        (json!("0"), &[422]),
        (Value::Null, &[422]),
    ];
    let titles = [
        (json!(""), good),
        (json!("\u{10ffff}".repeat(200)), good),
        (json!("\u{1}"), good),
        (json!("x".repeat(201)), &[422]),
        (json!("a\u{0}b"), &[422]),
        (json!(1), &[422]),
        (json!(["x"]), &[422]),
        (Value::Null, &[422]),
    ];
    let ids = [
        (json!(0), either),
        (json!(-1), either),
        (json!(i64::MIN), either),
        (json!(i64::MAX), good),
        (json!(i64::MAX as u64 + 1), &[422]),
        (json!("1"), &[422]),
        (json!(1.0), &[422]),
    ];
    for order in BY_CURSOR {
        let text = cursor(alice, &format!("?order={order}"));
        let parts: Value = serde_json::from_slice(&from_base64url(&text).unwrap()).unwrap();
        let at = parts.as_array().unwrap().len() - 2;
        let values = if order.ends_with("title") { &titles[..] } else { &instants[..] };
        let changes =
            values.iter().map(|change| (at, change)).chain(ids.iter().map(|change| (at + 1, change)));
        for (at, (value, statuses)) in changes {
            let mut forged = parts.clone();
            forged[at] = value.clone();
            let query = format!("?order={order}&cursor={}", base64url(forged.to_string().as_bytes()));
            let status = get(alice, &query).status;
            assert!(statuses.contains(&status), "{query}: {forged}: {status}");
        }
        for forged in [
            json!([]),
            json!([parts]),
            json!({}),
            json!([parts[0], parts[1]]),
            json!([0, parts[1], parts[2]]),
        ] {
            let query = format!("?order={order}&cursor={}", base64url(forged.to_string().as_bytes()));
            assert_refused(alice, &query, &["cursor"]);
        }
    }
}
