//! `schema.sql`: on an empty database, twice, from several instances at once, and as the upgrade of
//! the older table. The constraints against the rules of the service.

use crate::support::{
    harness::{App, Database, Directory, binary, run_binary},
    http::{Connection, is_timestamp},
    token::token,
};
use postgres::error::SqlState;
use serde_json::{Value, json};
use std::{collections::BTreeSet, process::Stdio};

/// The older table as the contract gives it.
const OLD_TABLE: &str = "create table tasks (id serial primary key, user_id varchar, \
    title varchar(200), description varchar(1000), complete boolean, created_at timestamp, \
    updated_at timestamp)";

fn migrate(database: &Database) {
    let outcome = run_binary(&["migrate"], &[("DATABASE_URL", &database.url)]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
}

/// Everything about the table that a client of the database can see.
fn description(database: &Database) -> String {
    database.value(
        "select jsonb_build_array( \
           (select jsonb_agg(to_jsonb(c) order by ordinal_position) from information_schema.columns c \
             where table_name = 'tasks'), \
           (select jsonb_agg(array[conname, pg_get_constraintdef(oid), convalidated::text] order by conname) \
             from pg_constraint where conrelid = 'tasks'::regclass), \
           (select jsonb_agg(indexdef order by indexdef) from pg_indexes where tablename = 'tasks'), \
           (select jsonb_agg(array[relname, relkind::text, relnamespace::text] order by relname) \
             from pg_class where relname like '%task%'))",
    )
}

/// How the table has to be, whether it was made or upgraded.
fn assert_types(database: &Database) {
    for (column, wanted) in [
        ("id", "bigint NO"),
        ("user_id", "text NO"),
        ("title", "text NO"),
        ("description", "text YES"),
        ("complete", "boolean NO"),
        ("created_at", "timestamp with time zone NO"),
        ("updated_at", "timestamp with time zone NO"),
    ] {
        let seen = database.value(&format!(
            "select data_type || ' ' || is_nullable from information_schema.columns \
             where table_name = 'tasks' and column_name = '{column}'"
        ));
        assert_eq!(seen, wanted, "{column}");
    }
    let sequence = "select format_type(seqtypid, null) from pg_sequence \
                    where seqrelid = pg_get_serial_sequence('tasks', 'id')::regclass";
    assert_eq!(database.value(sequence), "bigint");
    let key = "select pg_get_constraintdef(oid) from pg_constraint \
               where conrelid = 'tasks'::regclass and contype = 'p'";
    assert_eq!(database.value(key), "PRIMARY KEY (user_id, id)");
    let others = "select count(*) from pg_index join pg_attribute on attrelid = indrelid and attnum = indkey[0] \
                  where indrelid = 'tasks'::regclass and indisunique and attname <> 'user_id'";
    assert_eq!(database.value(others), "0", "every unique index begins with user_id");
}

#[test]
fn a_fresh_database_gets_the_table_and_a_second_time_changes_nothing() {
    let database = Database::create();
    migrate(&database);
    assert_types(&database);
    database.execute("insert into tasks (user_id, title) values ('alice', 't')");
    let rows = "select jsonb_agg(t) from tasks t";
    let before = (description(&database), database.value(rows));
    for _ in 0..2 {
        migrate(&database);
        assert_eq!((description(&database), database.value(rows)), before);
    }
    let app = App::setup().database(database).spawn();
    assert_eq!((description(&app.database), app.database.value(rows)), before);
    assert!(app.user("alice").create_id() > 1);
}

#[test]
fn a_second_time_waits_for_nobody_who_uses_the_table() {
    let database = Database::create();
    migrate(&database);
    let mut client = database.client();
    let mut transaction = client.transaction().unwrap();
    transaction.execute("insert into tasks (user_id, title) values ('alice', 't')", &[]).unwrap();
    migrate(&database);
    transaction.rollback().unwrap();
}

#[test]
fn schema_sql_can_be_applied_with_psql_as_well() {
    let sql = include_str!("../../schema.sql");
    let database = Database::create();
    let mut client = database.client();
    client.batch_execute(sql).unwrap();
    client.batch_execute(sql).unwrap();
    let by_client = description(&database);
    migrate(&database);
    assert_eq!(description(&database), by_client);
}

#[test]
fn instances_that_start_at_the_same_moment_agree() {
    for prepare in ["select 1", OLD_TABLE] {
        let database = Database::create();
        database.execute(prepare);
        database.execute(
            "do $$ begin if to_regclass('tasks') is not null then \
               insert into tasks (user_id, title, complete, created_at, updated_at) \
               select 'alice', 't' || n, false, now(), now() from generate_series(1, 500) n; \
             end if; end $$",
        );
        let directory = Directory::create();
        let spawn = |_| {
            let mut command = binary(&directory);
            command.arg("migrate").env("DATABASE_URL", &database.url).stdout(Stdio::null());
            command.spawn().unwrap()
        };
        let children: Vec<_> = (0..6).map(spawn).collect();
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{output:?}");
        }
        assert_types(&database);
        // The services themselves, the schema being there or not.
        let app = App::setup().database(database).spawn();
        app.user("alice").create("t");
    }
}

/// Rows of the older table, in SQL: `(id, user, title, description, complete, created, updated)`.
const OLD_ROWS: [&str; 4] = [
    "(1, 'alice', 'first', null, true, '2020-01-01 00:00:00', '2020-01-02 03:04:05.678901')",
    "(7, 'alice', ' spaced ', 'text', false, '2024-03-31 02:30:00', '2024-03-31 02:30:00')",
    "(8, 'bob', 'not hers', '', false, '1969-12-31 23:59:59.999999', '1970-01-01 00:00:00')",
    "(2147483000, 'alice', 'last', null, false, '2038-01-19 03:14:08', '2038-01-19 03:14:08')",
];

fn old_database() -> Database {
    let database = Database::create();
    // Times are UTC whatever the server's own zone: here one with daylight saving.
    let name = &database.name;
    database.execute(&format!("alter database {name} set timezone = 'Europe/Berlin'; {OLD_TABLE}"));
    database
}

#[test]
fn the_older_table_is_upgraded_in_place_and_every_row_id_and_instant_survives() {
    let database = old_database();
    database.execute(&format!("insert into tasks values {}", OLD_ROWS.join(",")));
    migrate(&database);
    assert_types(&database);
    let app = App::setup().database(database).spawn();
    let task =
        |id: i64, title: &str, description: Option<&str>, complete: bool, created: &str, updated: &str| {
            let version = updated.parse::<jiff::Timestamp>().unwrap().as_microsecond();
            json!({"id": id, "user_id": "alice", "title": title, "description": description,
                "complete": complete, "created_at": created, "updated_at": updated,
                "etag": format!("\"{version:x}\"")})
        };
    let wanted = [
        task(1, "first", None, true, "2020-01-01T00:00:00.000000Z", "2020-01-02T03:04:05.678901Z"),
        task(
            7,
            " spaced ",
            Some("text"),
            false,
            "2024-03-31T02:30:00.000000Z",
            "2024-03-31T02:30:00.000000Z",
        ),
        task(
            2_147_483_000,
            "last",
            None,
            false,
            "2038-01-19T03:14:08.000000Z",
            "2038-01-19T03:14:08.000000Z",
        ),
    ];
    let alice = app.user("alice");
    assert_eq!(alice.list(), json!({"tasks": wanted, "count": 3}));
    let bob = app.user("bob").task(8);
    assert_eq!(bob["created_at"], "1969-12-31T23:59:59.999999Z");

    let patched = alice.on_task("PATCH", 7).json(json!({"complete": true})).send().expect(200).json();
    assert_eq!(patched["created_at"], wanted[1]["created_at"]);
    assert!(patched["updated_at"].as_str() > wanted[1]["updated_at"].as_str());
    // Its last change lies in the future, and the next one still comes later.
    let patched = alice.on_task("PATCH", 2_147_483_000).json(json!({"complete": true})).send().json();
    assert!(patched["updated_at"].as_str() > wanted[2]["updated_at"].as_str());
    alice.on_task("DELETE", 1).send().expect(204);
    assert!(alice.create_id() > 2_147_483_000);
}

#[test]
fn new_ids_go_on_above_the_old_ones_wherever_the_old_sequence_stands() {
    for (case, prepare, wanted) in [
        ("in step", "insert into tasks (user_id, title) select 'bob', 't' from generate_series(1, 9)", 10),
        ("no row, never used", "select 1", 1),
        ("no row, used", "select nextval('tasks_id_seq'), nextval('tasks_id_seq')", 3),
        ("behind", "insert into tasks (id, user_id, title) values (50, 'bob', 't')", 51),
        (
            "ahead",
            "insert into tasks (id, user_id, title) values (50, 'bob', 't'); select setval('tasks_id_seq', 1000)",
            1001,
        ),
        ("ahead, not called", "select setval('tasks_id_seq', 1000, false)", 1000),
        (
            "highest deleted",
            "insert into tasks (user_id, title) select 'bob', 't' from generate_series(1, 9); delete from tasks where id > 4",
            10,
        ),
        (
            "at the end of integer",
            "insert into tasks (id, user_id, title) values (2147483647, 'bob', 't'); select setval('tasks_id_seq', 2147483647)",
            2_147_483_648,
        ),
    ] {
        let database = old_database();
        database.execute(prepare);
        let app = App::setup().database(database).spawn();
        let first = app.user("alice").create_id();
        assert_eq!(first, wanted, "{case}");
        assert_eq!(app.user("alice").create_id(), wanted + 1, "{case}");
    }
}

#[test]
fn variants_of_the_older_table_are_upgraded_too() {
    let row = "insert into tasks (id, user_id, title, complete, created_at, updated_at) \
               values (5, 'alice', 't', false, '2020-01-01', '2020-01-01')";
    for (case, table) in [
        ("bigserial", OLD_TABLE.replace("serial", "bigserial")),
        (
            "all not null",
            OLD_TABLE
                .replace("timestamp", "timestamp not null")
                .replace("boolean", "boolean not null default false"),
        ),
        ("defaults", OLD_TABLE.replace("timestamp", "timestamp default (now() at time zone 'utc')")),
        ("an index", OLD_TABLE.to_owned() + "; create index ix_tasks_user_id on tasks (user_id)"),
        ("another key name", OLD_TABLE.replace("primary key", "constraint my_key primary key")),
        ("no sequence", OLD_TABLE.replace("serial", "integer")),
        ("zoned", OLD_TABLE.replace("timestamp", "timestamptz")),
        ("text", OLD_TABLE.replace("varchar(200)", "text")),
    ] {
        let database = Database::create();
        database.execute(&table);
        database.execute(&format!("set timezone = 'UTC'; {row}"));
        let app = App::setup().database(database).spawn();
        let alice = app.user("alice");
        assert_eq!(alice.task(5)["created_at"], "2020-01-01T00:00:00.000000Z", "{case}");
        assert_eq!(alice.create_id(), 6, "{case}");
        let before = description(&app.database);
        migrate(&app.database);
        assert_eq!(description(&app.database), before, "{case}");
    }
}

/// Old rows that break a constraint: the id; the values of title, description, complete, created, updated; and the
/// field that the error names if a change of `complete` is refused.
const BROKEN_ROWS: [(i64, &str, &str); 12] = [
    (1, "'', null, false, '2020-01-01', '2020-01-01'", "body.title"),
    (2, "' ', null, false, '2020-01-01', '2020-01-01'", "body.title"),
    (3, "E'\\u00a0\\u3000', null, false, '2020-01-01', '2020-01-01'", "body.title"),
    (4, "null, null, false, '2020-01-01', '2020-01-01'", "body.title"),
    (5, "'t', null, null, '2020-01-01', '2020-01-01'", ""),
    (6, "'t', null, false, '2020-01-02', '2020-01-01'", ""),
    (7, "'t', null, false, null, null", ""),
    (8, "'t', null, false, '2020-01-01', null", ""),
    (9, "'t', null, false, null, '2020-01-01'", ""),
    (10, "'t', null, false, '-infinity', 'infinity'", ""),
    (11, "'t', null, false, '4000-01-01 BC', '9999-12-31 23:59:59.999999'", ""),
    (12, "'t', null, false, '2020-01-01', '20000-01-01'", ""),
];

#[test]
fn an_old_row_that_breaks_a_rule_is_readable_and_changing_it_is_never_500() {
    let database = old_database();
    for (id, values, _) in BROKEN_ROWS {
        database.execute(&format!("insert into tasks values ({id}, 'alice', {values})"));
    }
    let app = App::setup().database(database).with_old_rows().spawn();
    let alice = app.user("alice");
    let list = alice.list();
    assert_eq!(list["count"], BROKEN_ROWS.len());
    for (index, (id, values, field)) in BROKEN_ROWS.into_iter().enumerate() {
        let task = alice.task(id);
        assert_eq!(list["tasks"][index], task);
        assert!(task["title"].is_string() && task["complete"].is_boolean(), "{task}");
        for name in ["created_at", "updated_at"] {
            assert!(task[name].as_str().is_some_and(is_timestamp), "{values}: {task}");
        }
        let response = alice.on_task("PATCH", id).json(json!({"complete": true})).send();
        match response.status {
            200 => assert_eq!(alice.task(id)["complete"], true),
            422 => {
                assert_eq!(response.field_errors()[0].0, field, "{values}");
                assert_eq!(alice.task(id), task);
            }
            status => panic!("{values}: {status} {}", response.text()),
        }
        // A PUT replaces every field that broke a rule.
        let replaced = alice.on_task("PUT", id).json(json!({"title": "good", "complete": false})).send();
        assert_eq!(replaced.status, 200, "{values}: {}", replaced.text());
        alice.on_task("DELETE", id).send().expect(204);
    }
}

#[test]
fn old_rows_of_users_and_with_texts_that_cannot_be_asked_for_do_no_harm() {
    let database = Database::create();
    database.execute(&OLD_TABLE.replace("varchar(200)", "text").replace("varchar(1000)", "text"));
    database.execute(
        "insert into tasks values \
           (1, null, 't', null, false, now(), now()), \
           (2, '', 't', null, false, now(), now()), \
           (3, repeat('x', 256), 't', null, false, now(), now()), \
           (4, 'alice', repeat('x', 201), null, false, now(), now()), \
           (5, 'alice', 't', repeat('x', 1001), false, now(), now()), \
           (0, 'alice', 't', null, false, now(), now()), \
           (-1, 'alice', 't', null, false, now(), now())",
    );
    let app = App::setup().database(database).with_old_rows().spawn();
    let alice = app.user("alice");
    assert_eq!(app.database.value("select count(*) from tasks"), "7");
    let list = alice.list();
    let ids: Vec<_> =
        list["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, [-1, 0, 4, 5]);
    for (id, field) in [(4, "body.title"), (5, "body.description")] {
        let response = alice.on_task("PATCH", id).json(json!({"complete": true})).send();
        assert!([200, 422].contains(&response.status), "{}", response.text());
        if response.status == 422 {
            assert_eq!(response.field_errors(), [(field.to_owned(), "too_long".to_owned())]);
        }
    }
    alice.on_task("PATCH", 4).json(json!({"title": "short"})).send().expect(200);
    assert_eq!(alice.create_id(), 6);
}

#[test]
fn the_table_refuses_what_the_service_refuses() {
    let database = Database::create();
    migrate(&database);
    let mut client = database.client();
    let insert = "insert into tasks (user_id, title) values";
    let check = SqlState::CHECK_VIOLATION;
    let not_null = SqlState::NOT_NULL_VIOLATION;
    for (sql, refused) in [
        (format!("{insert} ('alice', 't')"), None),
        (format!("{insert} ('alice', repeat('\u{1F600}', 200))"), None),
        (format!("{insert} ('alice', repeat('x', 201))"), Some(&check)),
        (format!("{insert} ('alice', '')"), Some(&check)),
        (format!("{insert} ('alice', E' \\t\\n\\u2003')"), Some(&check)),
        (format!("{insert} ('alice', null)"), Some(&not_null)),
        (format!("{insert} (repeat('\u{1F600}', 255), 't')"), None),
        (format!("{insert} (repeat('x', 256), 't')"), Some(&check)),
        (format!("{insert} ('', 't')"), Some(&check)),
        (format!("{insert} (null, 't')"), Some(&not_null)),
        ("update tasks set description = repeat('\u{1F600}', 1000)".to_owned(), None),
        ("update tasks set description = repeat('x', 1001)".to_owned(), Some(&check)),
        ("update tasks set description = ''".to_owned(), None),
        ("update tasks set complete = null".to_owned(), Some(&not_null)),
        ("update tasks set created_at = null".to_owned(), Some(&not_null)),
        ("update tasks set updated_at = null".to_owned(), Some(&not_null)),
        ("update tasks set updated_at = created_at - interval '1 microsecond'".to_owned(), Some(&check)),
        ("insert into tasks (id, user_id, title) values (9007199254740991, 'alice', 't')".to_owned(), None),
        (
            "insert into tasks (id, user_id, title) values (9007199254740992, 'alice', 't')".to_owned(),
            Some(&check),
        ),
        ("insert into tasks (id, user_id, title) values (0, 'alice', 't')".to_owned(), Some(&check)),
        ("insert into tasks (id, user_id, title) values (-1, 'alice', 't')".to_owned(), Some(&check)),
    ] {
        let seen = client.execute(&sql, &[]).err();
        let seen = seen.as_ref().map(|error| error.code().expect(&sql));
        assert_eq!(seen, refused, "{sql}");
    }
}

/// Unicode's property White_Space (PropList.txt): 25 code points.
const WHITE_SPACE: [(u32, u32); 10] = [
    (0x9, 0xD),
    (0x20, 0x20),
    (0x85, 0x85),
    (0xA0, 0xA0),
    (0x1680, 0x1680),
    (0x2000, 0x200A),
    (0x2028, 0x2029),
    (0x202F, 0x202F),
    (0x205F, 0x205F),
    (0x3000, 0x3000),
];

fn white_space() -> BTreeSet<u32> {
    WHITE_SPACE.into_iter().flat_map(|(first, last)| first..=last).collect()
}

#[test]
fn the_constraint_takes_every_code_point_for_white_space_that_is_and_no_other() {
    let database = Database::create();
    migrate(&database);
    let wanted = white_space();
    assert_eq!(wanted.len(), 25);
    let by_rust = (0..=0x10_FFFF).filter(|&point| char::from_u32(point).is_some_and(char::is_whitespace));
    assert_eq!(by_rust.collect::<BTreeSet<_>>(), wanted);
    // The rules themselves, evaluated for a title of each code point alone.
    let rules = database.value(
        "select string_agg('(' || pg_get_expr(conbin, conrelid) || ')', ' and ') from pg_constraint \
         where conrelid = 'tasks'::regclass and contype = 'c' \
           and conkey = array[(select attnum from pg_attribute \
             where attrelid = 'tasks'::regclass and attname = 'title')]",
    );
    let refused = format!(
        "select point from (select point, chr(point) as title from generate_series(1, 1114111) point \
         where point not between 55296 and 57343) t where not ({rules}) order by point"
    );
    let refused = database.client().query(&refused, &[]).unwrap();
    let refused = refused.iter().map(|row| u32::try_from(row.get::<_, i32>(0)).unwrap());
    assert_eq!(refused.collect::<BTreeSet<_>>(), wanted);
}

/// The code points that some definition counts as white space and another does not, with all their neighbours.
fn suspects() -> impl Iterator<Item = u32> {
    let ranges = [(1, 0x900), (0x1600, 0x1900), (0x2000, 0x2100), (0x2800, 0x2801), (0x2FF0, 0x3100)];
    let more = [(0xA000, 0xA010), (0xFE00, 0xFFFF), (0x1_BCA0, 0x1_BCA4), (0x1_D173, 0x1_D17B)];
    let last = [(0xE_0000, 0xE_0080), (0x10_FFFE, 0x10_FFFF)];
    ranges.into_iter().chain(more).chain(last).flat_map(|(first, last)| first..=last)
}

#[test]
fn the_service_takes_the_same_code_points_for_white_space() {
    let app = App::spawn();
    let token = token("alice");
    let mut connection = Connection::open(&app.address).unwrap();
    let mut seen = BTreeSet::new();
    for point in suspects() {
        // `complete` is invalid too, so that no task is created.
        let body = json!({"title": char::from_u32(point).unwrap().to_string(), "complete": 0});
        let request = app.post("/api/alice/tasks").bearer(&token).json(body);
        connection.write(&request.bytes());
        let errors = connection.read("POST").unwrap().expect(422).field_errors();
        if errors.contains(&("body.title".to_owned(), "blank".to_owned())) {
            seen.insert(point);
        }
    }
    assert_eq!(seen, white_space());
}

#[test]
fn a_role_that_may_only_read_and_write_rows_is_enough_for_the_service() {
    for prepare in ["select 1", OLD_TABLE] {
        let database = Database::create();
        database.execute(prepare);
        migrate(&database);
        let role = format!("{}_role", database.name);
        let password = "row5-0nly";
        database.execute(&format!(
            "create role {role} login password '{password}'; \
             grant select, insert, update, delete on tasks to {role}"
        ));
        let url = database.url_as(&role, password);
        let app =
            App::setup().database(database).env("DATABASE_URL", &url).env("AUTO_MIGRATE", "false").spawn();
        let alice = app.user("alice");
        let id = alice.create_id();
        alice.on_task("PATCH", id).json(json!({"complete": true})).send().expect(200);
        let full = json!({"title": "t", "complete": true});
        alice.on_task("PUT", id).json(full).send().expect(200);
        assert_eq!(alice.list()["count"], 1);
        alice.on_task("DELETE", id).send().expect(204);
        // If the schema exists, even a start that would apply it needs no more rights.
        let outcome = run_binary(&["migrate"], &[("DATABASE_URL", &url)]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        app.database.execute(&format!("drop owned by {role} cascade; drop role {role}"));
    }
}

#[test]
fn an_id_is_never_given_again_even_after_a_restart() {
    let app = App::spawn();
    app.user("alice").create_id();
    let last = app.user("alice").create_id();
    app.user("alice").on_task("DELETE", last).send().expect(204);
    migrate(&app.database);
    let task: Value = app.user("alice").create("t");
    assert!(task["id"].as_i64() > Some(last), "{task}");
}
