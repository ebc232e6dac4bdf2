//! "List parameters" in the contract: the orders, and pages in each of them while tasks come, go and
//! change.

use crate::support::{
    harness::{App, Database},
    http::Response,
    tasks::{follow, get, has_root_collation, ids, next, pages, parameters},
    token::segment,
};
use postgres::Client;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
};

const ORDERS: [&str; 8] = ["id", "-id", "created", "-created", "updated", "-updated", "title", "-title"];
const REQUEST_LINE_BYTES_MAX: usize = 8192;

/// Inserts tasks that tie in every order but that by id. Instants that differ do so by a microsecond.
fn insert_ties(database: &Database, user_id: &str, count: i64) {
    let sql = "insert into tasks (user_id, title, description, complete, created_at, updated_at) \
               select $1, chr(97 + (number * 7 % 5)::int), 'd', number % 3 = 0, \
                 timestamptz '2024-01-01 00:00:00.999998Z' + number * 5 % 4 * interval '1 microsecond', \
                 timestamptz '2024-01-02 00:00:00.999998Z' + number * 3 % 7 * interval '1 microsecond' \
               from generate_series(1::bigint, $2) as number order by number.number";
    database.client().execute(sql, &[&user_id, &count]).unwrap();
}

/// Inserts tasks with these titles, in this order.
fn insert_titles(database: &Database, user_id: &str, titles: &[&str]) {
    let sql = "insert into tasks (user_id, title) select $1, title \
               from unnest($2::text[]) with ordinality as new (title, number) order by number";
    database.client().execute(sql, &[&user_id, &titles]).unwrap();
}

fn tasks(response: &Response) -> Vec<Value> {
    response.json()["tasks"].as_array().unwrap().clone()
}

fn titles(response: &Response) -> Vec<String> {
    tasks(response).iter().map(|task| task["title"].as_str().unwrap().to_owned()).collect()
}

/// The ids of the tasks in this order. Titles must consist of lower-case ASCII letters, which every collation sorts
/// in the same way.
fn sorted(tasks: &[Value], order: &str) -> Vec<i64> {
    let (name, is_descending) = match order {
        "asc" => ("id", false),
        "desc" => ("id", true),
        _ => order.strip_prefix('-').map_or((order, false), |name| (name, true)),
    };
    let name = match name {
        "created" => "created_at",
        "updated" => "updated_at",
        name => name,
    };
    let mut keys: Vec<_> =
        tasks.iter().map(|task| (task[name].as_str(), task["id"].as_i64().unwrap())).collect();
    keys.sort_unstable();
    if is_descending {
        keys.reverse();
    }
    keys.into_iter().map(|(_, id)| id).collect()
}

#[test]
fn each_order_sorts_both_ways_and_ties_by_id_in_the_same_direction() {
    let app = App::spawn();
    let alice = app.user("alice");
    insert_ties(&app.database, "alice", 40);
    insert_ties(&app.database, "bob", 5);
    let all = tasks(&get(alice, ""));
    let chosen = |fits: &dyn Fn(&Value) -> bool| -> Vec<Value> {
        all.iter().filter(|task| fits(task)).cloned().collect()
    };
    let complete = chosen(&|task| task["complete"] == true);
    let found = chosen(&|task| task["complete"] == false && task["title"] == "b");
    for order in ORDERS.into_iter().chain(["asc", "desc"]) {
        let whole = sorted(&all, order);
        for (query, wanted) in [
            ("", whole.clone()),
            ("&limit=1000", whole.clone()),
            ("&limit=7", whole[..7].to_vec()),
            ("&offset=33", whole[33..].to_vec()),
            ("&offset=3&limit=7", whole[3..10].to_vec()),
            ("&offset=40", Vec::new()),
            ("&complete=true", sorted(&complete, order)),
            ("&complete=false&q=B", sorted(&found, order)),
        ] {
            let query = format!("?order={order}{query}");
            assert_eq!(ids(&get(alice, &query).expect(200)), wanted, "{query}");
        }
    }
    assert_eq!(ids(&get(alice, "")), sorted(&all, "id"));
}

/// Tasks written by the API itself: a changed task moves to the end in the order `updated`, but not in `created`.
#[test]
fn a_changed_task_moves_in_the_order_of_changes_alone() {
    let app = App::spawn();
    let alice = app.user("alice");
    let [a, b, c] = ["x", "y", "z"].map(|title| alice.create(title)["id"].as_i64().unwrap());
    alice.on_task("PATCH", a).json(json!({"complete": true})).send().expect(200);
    for (order, wanted) in [
        ("created", [a, b, c]),
        ("-created", [c, b, a]),
        ("updated", [b, c, a]),
        ("-updated", [a, c, b]),
        ("title", [a, b, c]),
    ] {
        assert_eq!(ids(&get(alice, &format!("?order={order}"))), wanted, "{order}");
    }
}

#[test]
fn titles_are_sorted_as_people_sort_them_where_postgresql_can() {
    let app = App::spawn();
    let alice = app.user("alice");
    // The root collation: marks before digits before letters, small before capital, and accents count
    // only where the letters are the same.
    let people = [
        "_", "10", "9", "a", "A", "ä", "Ä", "ab", "B", "cote", "coté", "côte", "e", "e", "é", "f", "z", "Z",
        "ω", "я", "中",
    ];
    let mut mixed = people;
    mixed.sort_unstable_by_key(|title| (title.len(), title.bytes().rev().collect::<Vec<_>>()));
    insert_titles(&app.database, "alice", &mixed);
    let by_database = "select array_agg(title order by title, id) from tasks";
    let wanted: Vec<String> = match has_root_collation(&app.database) {
        true => people.map(str::to_owned).into(),
        false => app.database.client().query_one(by_database, &[]).unwrap().get(0),
    };
    let back: Vec<String> = wanted.iter().rev().cloned().collect();
    assert_eq!(titles(&get(alice, "?order=title")), wanted);
    assert_eq!(titles(&get(alice, "?order=-title")), back);
    for (query, wanted) in [("?order=title&limit=2", wanted), ("?order=-title&limit=2", back)] {
        let seen: Vec<String> = pages(&app, "alice", query).iter().flat_map(titles).collect();
        assert_eq!(seen, wanted, "{query}");
    }
}

#[test]
fn titles_are_sorted_by_the_databases_collation_where_there_is_no_other() {
    if Database::is_on_citus() {
        return;
    }
    let database = Database::create();
    if has_root_collation(&database) {
        database.execute("drop collation \"und-x-icu\"");
    }
    let app = App::setup().database(database).spawn();
    insert_titles(&app.database, "alice", &["b", "a", "B", "ä", "Z", "a"]);
    let by_database = "select array_agg(title order by title, id) from tasks";
    let wanted: Vec<String> = app.database.client().query_one(by_database, &[]).unwrap().get(0);
    for query in ["?order=title", "?order=title&limit=1"] {
        let seen: Vec<String> = pages(&app, "alice", query).iter().flat_map(titles).collect();
        assert_eq!(seen, wanted, "{query}");
    }
}

/// Of a title from before the rules, the first 200 characters count.
#[test]
fn titles_of_older_rows_are_sorted_by_their_first_200_characters() {
    let database = Database::create();
    let app = App::setup().database(database).with_old_rows().spawn();
    app.database.execute("alter table tasks drop constraint tasks_title_length");
    // Four bytes each, and behind the Latin letters in every collation.
    let same = "\u{10428}".repeat(200);
    let long: Vec<String> = ["z", "b", "", "a"].map(|end| format!("{same}{end}")).into();
    let mut all: Vec<&str> = long.iter().map(String::as_str).collect();
    let huge = "y".repeat(100_000);
    all.push(&huge);
    all.push("a");
    insert_titles(&app.database, "alice", &all);
    let id = ids(&get(app.user("alice"), ""));
    let wanted = [id[5], id[4], id[0], id[1], id[2], id[3]];
    let back: Vec<i64> = wanted.iter().rev().copied().collect();
    for (order, wanted) in [("title", wanted.to_vec()), ("-title", back)] {
        for limit in ["", "&limit=1", "&limit=4"] {
            let query = format!("?order={order}{limit}");
            let seen: Vec<i64> = pages(&app, "alice", &query).iter().flat_map(ids).collect();
            assert_eq!(seen, wanted, "{query}");
        }
    }
}

/// The changes that another client makes between two pages.
struct Disturbance<'a> {
    app: &'a App,
    user_id: &'a str,
    client: &'a mut Client,
    /// Tasks that may be changed and deleted.
    movers: BTreeSet<i64>,
    turn: usize,
}

impl Disturbance<'_> {
    fn strike(&mut self, page: &[i64]) {
        let user = self.app.user(self.user_id);
        self.turn += 1;
        // Deletes the task at the cursor, if that is allowed, and one other task, shown or not.
        let last = page.last().filter(|id| self.movers.contains(id));
        let other = self.movers.iter().nth(self.turn * 7 % self.movers.len().max(1));
        for id in [last, other].into_iter().flatten().copied().collect::<BTreeSet<_>>() {
            user.on_task("DELETE", id).send().expect(204);
            self.movers.remove(&id);
        }
        // Another moves to the front or to the end.
        if let Some(id) = self.movers.iter().nth(self.turn * 5 % self.movers.len().max(1)) {
            let title = if self.turn.is_multiple_of(2) { "0" } else { "zz" };
            user.on_task("PATCH", *id).json(json!({"title": title})).send().expect(200);
        }
        // A new one comes to the end, and one anywhere.
        self.movers.insert(user.create("c")["id"].as_i64().unwrap());
        let place = self.turn % 4;
        let sql = format!(
            "insert into tasks (user_id, title, description, created_at, updated_at) values ($1, 'bb', 'd', \
               timestamptz '2024-01-01 00:00:00.999998Z' + {place} * interval '1 microsecond', \
               timestamptz '2024-01-02 00:00:00.999998Z' + {place} * interval '1 microsecond')"
        );
        self.client.execute(&sql, &[&self.user_id]).unwrap();
    }
}

#[test]
fn pages_in_every_order_show_each_task_that_stays_once_whatever_moves() {
    let app = App::spawn();
    let mut client = app.database.client();
    for order in ORDERS {
        for filter in ["", "&q=D"] {
            let user_id = format!("user {order}{filter}");
            insert_ties(&app.database, &user_id, 48);
            let all = tasks(&get(app.user(&user_id), ""));
            let (still, movers): (Vec<Value>, Vec<Value>) =
                all.into_iter().partition(|task| task["id"].as_i64().unwrap() % 2 == 0);
            let movers = movers.iter().map(|task| task["id"].as_i64().unwrap()).collect();
            let mut others =
                Disturbance { app: &app, user_id: &user_id, client: &mut client, movers, turn: 0 };
            let wanted = sorted(&still, order);
            let mut page = get(app.user(&user_id), &format!("?order={order}{filter}&limit=5")).expect(200);
            let mut seen = ids(&page);
            while let Some(target) = next(&page) {
                others.strike(&ids(&page));
                page = follow(&app, &user_id, &target);
                seen.extend(ids(&page));
            }
            assert!(others.turn > 5, "{user_id}: {} pages", others.turn);
            seen.retain(|id| wanted.contains(id));
            assert_eq!(seen, wanted, "{user_id}");
        }
    }
}

#[test]
fn pages_in_every_order_are_right_while_another_client_works() {
    let app = App::spawn();
    let alice = app.user("alice");
    insert_ties(&app.database, "alice", 60);
    let still = tasks(&get(alice, ""));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(SeqCst) {
                for title in ["0", "c", "z"] {
                    let id = alice.create(title)["id"].as_i64().unwrap();
                    alice.on_task("PATCH", id).json(json!({"title": "bb"})).send().expect(200);
                    alice.on_task("DELETE", id).send().expect(204);
                }
            }
        });
        // The other thread must end also when an assertion fails.
        let outcome = std::panic::catch_unwind(|| {
            for order in ORDERS {
                for limit in [1, 7] {
                    let query = format!("?order={order}&limit={limit}");
                    let mut seen: Vec<i64> = pages(&app, "alice", &query).iter().flat_map(ids).collect();
                    let wanted = sorted(&still, order);
                    seen.retain(|id| wanted.contains(id));
                    assert_eq!(seen, wanted, "{query}");
                }
            }
        });
        is_over.store(true, SeqCst);
        outcome.unwrap();
    });
}

#[test]
fn a_whole_list_of_any_length_is_sorted() {
    let app = App::spawn();
    let alice = app.user("alice");
    insert_ties(&app.database, "alice", 1234);
    let all = tasks(&get(alice, ""));
    let open: Vec<Value> = all.iter().filter(|task| task["complete"] == false).cloned().collect();
    let totals = json!({"all": 1234, "open": open.len(), "complete": 1234 - open.len()});
    for order in ORDERS {
        let whole = sorted(&all, order);
        for (query, wanted, totals) in [
            ("&totals=true", whole.clone(), &totals),
            ("&offset=700", whole[700..].to_vec(), &Value::Null),
            ("&complete=false&q=D", sorted(&open, order), &Value::Null),
        ] {
            let query = format!("?order={order}{query}");
            let response = get(alice, &query).expect(200);
            assert_eq!((ids(&response), next(&response)), (wanted, None), "{query}");
            assert_eq!(response.json()["totals"], *totals, "{query}");
        }
        let seen: Vec<i64> =
            pages(&app, "alice", &format!("?order={order}&limit=1000")).iter().flat_map(ids).collect();
        assert_eq!(seen, whole, "{order}");
        // All tasks after a cursor may be requested at once.
        let link = next(&get(alice, &format!("?order={order}&limit=300"))).unwrap();
        assert_eq!(ids(&follow(&app, "alice", &link.replace("limit=300", ""))), whole[300..], "{order}");
    }
}

#[test]
fn a_link_keeps_what_was_asked_for_and_drops_the_offset() {
    let app = App::spawn();
    let alice = app.user("alice");
    let q = "a&b=c%d+e #é;/?\u{1F600}";
    for index in 0..7 {
        alice.post(json!({"title": format!("{q} {index}"), "complete": index == 6})).expect(201);
    }
    alice.create("another");
    let open = ids(&get(alice, "?complete=false&limit=6"));
    for order in ORDERS {
        let query = format!("?order={order}&offset=1&totals=true&limit=2&q={}&complete=false", segment(q));
        let first = get(alice, &query).expect(200);
        let link = next(&first).unwrap();
        let mut named = parameters(&link);
        let position = if order.ends_with("id") { "after" } else { "cursor" };
        assert!(named.remove(position).is_some_and(|value| !value.is_empty()), "{link}");
        if order == "id" {
            named.entry("order".to_owned()).or_insert("id".to_owned());
        }
        let mut wanted = parameters(&query);
        wanted.remove("offset");
        assert_eq!(named, wanted, "{link}");
        let mut wanted = open.clone();
        if order.starts_with('-') {
            wanted.reverse();
        }
        let second = follow(&app, "alice", &link);
        assert_eq!((ids(&first), ids(&second)), (wanted[1..3].to_vec(), wanted[3..5].to_vec()), "{query}");
        for page in [&first, &second] {
            assert_eq!(page.json()["totals"], json!({"all": 7, "open": 6, "complete": 1}), "{query}");
        }
        let third = follow(&app, "alice", &next(&second).unwrap());
        assert_eq!((ids(&third), next(&third)), (wanted[5..].to_vec(), None), "{query}");
    }
}

#[test]
fn the_longest_link_fits_into_a_request_line() {
    let app = App::spawn();
    let widest = "\u{1F600}".repeat(200);
    let user_id = "\u{1F64B}".repeat(255);
    let user = app.user(&user_id);
    let all = [(); 3].map(|()| user.create(&widest)["id"].as_i64().unwrap());
    for (order, wanted) in [("title", all), ("-title", [all[2], all[1], all[0]])] {
        let query = format!("?order={order}&complete=false&totals=true&limit=1&q={}", segment(&widest));
        let answers = pages(&app, &user_id, &query);
        assert_eq!(answers.iter().flat_map(ids).collect::<Vec<_>>(), wanted);
        for link in answers.iter().filter_map(next) {
            let line = format!("GET {link} HTTP/1.1\r\n").len();
            assert!(line <= REQUEST_LINE_BYTES_MAX, "{line} bytes");
        }
    }
}
