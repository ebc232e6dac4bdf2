//! "List parameters" in the contract: `q`.

use crate::support::{
    harness::{App, Database, User},
    tasks::{get, has_root_collation, ids, insert_many, pages},
    token::segment,
};
use serde_json::{Value, json};

const ONE_CHAR: &str = "\u{1F600}";

/// Texts in which something could be special to SQL, to `like`, to regular expressions or to HTTP.
const TEXTS: [&str; 30] = [
    "50% off",
    "50 off",
    "5000 off",
    "a_b",
    "axb",
    "a__b",
    "c:\\new",
    "c:\\\\new",
    "c:/new",
    "it's",
    "its",
    "say \"hi\"",
    "say hi",
    "''",
    "a.b*c",
    "aXbbc",
    "[x](y)",
    "^x$",
    "$1",
    "{0} {}",
    "<b>&amp;",
    "a+b",
    "a b",
    "tab\there",
    "line\nbreak",
    "x; drop table tasks --",
    "a=b&c=d?e#f",
    "/* % _ \\ */",
    "e\u{301}a \u{202e}b \u{FFFD}",
    "\u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467}",
];

/// The titles of the tasks that the service finds, in the order of their ids.
fn found(user: User, query: &str) -> Vec<String> {
    let list = get(user, query).expect(200).json();
    let tasks = list["tasks"].as_array().unwrap();
    assert_eq!(list["count"], tasks.len(), "{query}");
    tasks.iter().map(|task| task["title"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn no_character_is_special() {
    let app = App::spawn();
    let alice = app.user("alice");
    for text in TEXTS {
        alice.create(text);
    }
    let parts = [
        "%", "_", "__", "\\", "\\\\", "'", "''", "\"", ".", "*", ".*", "^", "$", "[", "]", "(", ")", "{}",
        "|", "?", "+", "&", "=", "#", "/", ";", "--", "%%", "%_%", "\\%", "\\_", "a_b", "a%b", "50%", "50_",
        "\t", "\n", " ", "  ", "$1", ":", "b", "OFF", "&amp;", "\u{301}", "\u{200D}", "\u{202e}", "\u{FFFD}",
    ];
    for q in parts.iter().chain(&TEXTS) {
        let wanted: Vec<_> =
            TEXTS.iter().filter(|text| text.to_lowercase().contains(&q.to_lowercase())).collect();
        assert_eq!(found(alice, &format!("?q={}", segment(q))).iter().collect::<Vec<_>>(), wanted, "{q:?}");
    }
}

#[test]
fn title_and_description_are_searched_each_by_itself() {
    let app = App::spawn();
    let alice = app.user("alice");
    for (title, description) in [
        ("both milk", Some("milk")),
        ("title milk", None),
        ("title Milk ", Some("")),
        ("description", Some("some\nMILK here")),
        ("neither", Some("mil k")),
        ("null", None),
        // Title and description are not searched as one text.
        ("end mi", Some("lk begins")),
    ] {
        alice.post(json!({"title": title, "description": description})).expect(201);
    }
    for (q, wanted) in [
        ("milk", &["both milk", "title milk", "title Milk ", "description"][..]),
        ("mILK+h", &["description"]),
        ("null", &["null"]),
        ("lk+begins", &["end mi"]),
        ("mi%0Alk", &[]),
        ("mi+lk", &[]),
        ("mi%20lk", &[]),
        ("false", &[]),
        ("alice", &[]),
    ] {
        assert_eq!(found(alice, &format!("?q={q}")), wanted, "{q}");
    }
    // A description that is taken away is found no longer.
    let id = ids(&get(alice, "?q=some"))[0];
    alice.on_task("PATCH", id).json(json!({"description": null})).send().expect(200);
    assert_eq!(found(alice, "?q=some"), [] as [&str; 0]);
}

#[test]
fn case_is_ignored_beyond_ascii_where_postgresql_knows_unicode() {
    let app = App::spawn();
    let has_unicode = has_root_collation(&app.database);
    for (index, (text, q, is_found)) in [
        ("Milk", "mILK", true),
        ("Äpfel", "ÄPFEL", has_unicode),
        ("ÄPFEL", "äpfel", has_unicode),
        // The last sigma of a word is another letter than those inside.
        ("οδοσα", "ΟΔΟΣ", has_unicode),
        ("ΟΔΟΣ", "οδος", has_unicode),
        ("οδος", "ΟΔΟΣ", has_unicode),
        ("ΟΔΟΣΑ", "οδοσ", has_unicode),
        ("Hauptstraße 1", "STRASSE", has_unicode),
        ("HAUPTSTRASSE 1", "straße", has_unicode),
        ("Привет, мир", "ПРИВЕТ", has_unicode),
        ("ΆΛΦΑ", "άλφα", has_unicode),
        ("\u{10400}x", "\u{10428}X", has_unicode),
        // Accents count, and so does the form of composition.
        ("Äpfel", "apfel", false),
        ("é", "e\u{301}", false),
        ("naïve", "naive", false),
    ]
    .into_iter()
    .enumerate()
    {
        for place in ["title", "description"] {
            let user_id = format!("user {index} {place}");
            let user = app.user(&user_id);
            let mut body = json!({"title": "x"});
            body[place] = json!(text);
            user.post(body).expect(201);
            let count = found(user, &format!("?q={}", segment(q))).len();
            assert_eq!(count, usize::from(is_found), "{q} in {text}, the {place}");
        }
    }
}

/// Where PostgreSQL is built without ICU, the locale of the database says what case is.
#[test]
fn without_the_root_collation_ascii_letters_are_found_in_any_case() {
    if Database::is_on_citus() {
        return;
    }
    let database = Database::create();
    if has_root_collation(&database) {
        database.execute("drop collation \"und-x-icu\"");
    }
    let app = App::setup().database(database).spawn();
    let alice = app.user("alice");
    for title in ["Buy MILK", "50% ä", "ü"] {
        alice.create(title);
    }
    for (q, wanted) in
        [("milk", &["Buy MILK"][..]), ("%25", &["50% ä"]), ("%C3%A4", &["50% ä"]), ("bUY+m", &["Buy MILK"])]
    {
        assert_eq!(found(alice, &format!("?q={q}")), wanted, "{q}");
    }
    let count = alice.request("PATCH", "/tasks?complete=false&q=MILK").json(json!({"complete": true}));
    assert_eq!(count.send().expect(200).json(), json!({"count": 1}));
}

#[test]
fn a_text_of_1_to_200_characters_is_searched_for_and_no_other() {
    let app = App::spawn();
    let alice = app.user("alice");
    let widest = ONE_CHAR.repeat(200);
    alice.post(json!({"title": "t", "description": ONE_CHAR.repeat(1000)})).expect(201);
    alice.create(&widest);
    alice.create("plain");
    for (q, count) in [
        (ONE_CHAR.to_owned(), 2),
        (widest.clone(), 2),
        ("x".repeat(200), 0),
        // Code points are counted, not what they look like.
        ("e\u{301}".repeat(100), 0),
        (" ".to_owned(), 0),
        ("\u{1}".to_owned(), 0),
    ] {
        let query = format!("?q={}", segment(&q));
        assert_eq!(get(alice, &query).expect(200).json()["count"], count, "{query}");
    }
    let bad = [
        String::new(),
        segment(&ONE_CHAR.repeat(201)),
        segment(&"x".repeat(201)),
        segment(&"e\u{301}".repeat(101)),
        segment(&" ".repeat(201)),
        "%00".to_owned(),
        "milk%00".to_owned(),
        "%ff".to_owned(),
        "a%C3".to_owned(),
        "%C0%AF".to_owned(),
        "%ED%A0%80".to_owned(),
        "%F4%90%80%80".to_owned(),
        "a&q=a".to_owned(),
        "a&q=b".to_owned(),
        "a&%71=a".to_owned(),
    ];
    for q in bad {
        for query in [format!("?q={q}"), format!("?limit=1&q={q}"), format!("?order=title&q={q}")] {
            let response = get(alice, &query).expect_problem(422, "VALIDATION_ERROR");
            let errors = response.field_errors();
            assert!(errors.iter().all(|(loc, _)| loc == "query.q"), "{query}: {errors:?}");
        }
    }
    get(alice, "?q").expect_problem(422, "VALIDATION_ERROR");
}

/// `URLSearchParams` and forms write a space as a plus.
#[test]
fn a_plus_is_a_space_and_an_escaped_plus_is_a_plus() {
    let app = App::spawn();
    let alice = app.user("alice");
    for title in ["a b", "a+b", "a  b", "ab"] {
        alice.create(title);
    }
    for (q, wanted) in [
        ("a+b", &["a b"][..]),
        ("a%20b", &["a b"]),
        ("a%2Bb", &["a+b"]),
        ("a%2bb", &["a+b"]),
        ("a++b", &["a  b"]),
        ("+", &["a b", "a  b"]),
        ("%2B", &["a+b"]),
        ("%2520", &[]),
        ("%61%62", &["ab"]),
    ] {
        assert_eq!(found(alice, &format!("?q={q}")), wanted, "{q}");
    }
}

#[test]
fn a_search_finds_nothing_of_another_user() {
    let app = App::spawn();
    let (alice, bob) = (app.user("alice"), app.user("bob"));
    alice.create("milk of alice");
    for q in ["milk", "bob", "secret", "%25", "_"] {
        bob.post(json!({"title": format!("milk {q}"), "description": "secret"})).expect(201);
    }
    for q in ["milk", "bob", "secret", "%25", "_", "m", "%27+or+1%3D1--"] {
        for more in ["", "&limit=1", "&order=title", "&totals=true"] {
            let list = get(alice, &format!("?q={q}{more}")).expect(200).json();
            let tasks = list["tasks"].as_array().unwrap();
            assert!(tasks.iter().all(|task| task["user_id"] == "alice"), "{q}{more}: {list}");
            let wanted = usize::from("milk of alice".contains(q));
            assert_eq!(tasks.len(), wanted, "{q}{more}");
            if more == "&totals=true" {
                assert_eq!(list["totals"]["all"], wanted, "{q}");
            }
        }
    }
}

/// Every combination, against what a client would pick from the whole list by itself.
#[test]
fn a_search_goes_with_every_other_parameter() {
    let app = App::spawn();
    let alice = app.user("alice");
    for index in 0..12 {
        let title = if index % 3 == 0 { format!("Bread {index:02}") } else { format!("MILK {index:02}") };
        let description = if index % 4 == 0 { json!("with milk") } else { Value::Null };
        let complete = [1, 2, 5, 6, 11].contains(&index);
        alice.post(json!({"title": title, "description": description, "complete": complete})).expect(201);
        app.user("bob").create("milk of bob");
    }
    let all = alice.list()["tasks"].as_array().unwrap().clone();
    let has = |task: &Value, text: &str| task.to_string().to_lowercase().contains(text);
    for q in ["milk", "bread", "1", "none"] {
        let found: Vec<&Value> = all
            .iter()
            .filter(|task| [&task["title"], &task["description"]].into_iter().any(|part| has(part, q)))
            .collect();
        let complete = found.iter().filter(|task| task["complete"] == true).count();
        let totals = json!({"all": found.len(), "open": found.len() - complete, "complete": complete});
        for state in [None, Some(true), Some(false)] {
            for order in ["id", "-id", "title", "-title"] {
                let mut wanted: Vec<_> =
                    found.iter().filter(|task| state.is_none_or(|state| task["complete"] == state)).collect();
                // Titles begin with B or M, then go by number, as ids do.
                if order.ends_with("title") {
                    wanted.sort_by_key(|task| task["title"].as_str().unwrap());
                }
                if order.starts_with('-') {
                    wanted.reverse();
                }
                let wanted: Vec<i64> = wanted.iter().map(|task| task["id"].as_i64().unwrap()).collect();
                let state = state.map(|state| format!("&complete={state}")).unwrap_or_default();
                for limit in ["", "&limit=1", "&limit=3", "&limit=1000"] {
                    let query = format!("?q={}&order={order}{state}{limit}", q.to_uppercase());
                    let seen: Vec<i64> = pages(&app, "alice", &query).iter().flat_map(ids).collect();
                    assert_eq!(seen, wanted, "{query}");
                }
                let query = format!("?q={q}&order={order}{state}&offset=1&limit=2&totals=true");
                let page = get(alice, &query).expect(200);
                let some: Vec<_> = wanted.iter().copied().skip(1).take(2).collect();
                assert_eq!((ids(&page), &page.json()["totals"]), (some, &totals), "{query}");
            }
        }
    }
}

#[test]
fn a_long_list_is_searched_to_its_end() {
    let app = App::spawn();
    let alice = app.user("alice");
    insert_many(&app.database, "alice", 1234, 10);
    app.database.execute("update tasks set description = 'Needle' where title::int % 400 = 7");
    for (q, wanted) in [
        ("NEEDLE", (1..=1234).filter(|number| number % 400 == 7).collect::<Vec<i64>>()),
        ("99", (1..=1234).filter(|number| number.to_string().contains("99")).collect()),
        ("1", (1..=1234).filter(|number| number.to_string().contains('1')).collect()),
    ] {
        let back: Vec<String> = wanted.iter().rev().map(i64::to_string).collect();
        let wanted: Vec<String> = wanted.iter().map(i64::to_string).collect();
        assert_eq!(found(alice, &format!("?q={q}")), wanted, "{q}");
        assert_eq!(found(alice, &format!("?q={q}&order=-id")), back, "{q}");
    }
}
