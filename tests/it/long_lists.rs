//! Lists of any length: in one stream, with bounded memory, for clients that read slowly or stop.

use crate::support::{
    harness::{App, eventually},
    http::{Connection, Response},
    raw::{Raw, status},
    slow::{SlowClient, old_bytes},
    tasks::{get, ids, insert_many, next},
    token::token,
};
use serde_json::Value;
use std::collections::BTreeSet;
use std::thread;

/// The tasks have about 4 KB each, together far more than all buffers between service and client hold.
const WIDE_TASKS: i64 = 10_000;
const DESCRIPTION_CHARS_MAX: i32 = 1000;
/// How many lists are streamed at the same time.
const SLOW_CLIENTS: usize = 30;

#[test]
fn without_a_limit_the_list_is_whole_however_long() {
    let app = App::spawn();
    // Near the number of tasks that the service reads at once.
    for count in [0, 1, 127, 128, 129, 255, 256, 257, 1234] {
        let user_id = format!("user-{count}");
        let user = app.user(&user_id);
        insert_many(&app.database, &user_id, count, 0);
        let titles = |query: &str| -> Vec<i64> {
            let response = get(user, query).expect(200);
            assert_eq!(next(&response), None, "{count} {query}");
            let list = response.json();
            let tasks = list["tasks"].as_array().unwrap();
            assert_eq!(list["count"], tasks.len(), "{count} {query}");
            assert!(tasks.iter().all(|task| task["user_id"] == user_id.as_str()));
            tasks.iter().map(|task| task["title"].as_str().unwrap().parse().unwrap()).collect()
        };
        let all: Vec<i64> = (1..=count).collect();
        let back: Vec<i64> = all.iter().rev().copied().collect();
        let open: Vec<i64> = all.iter().copied().filter(|title| title % 3 != 0).collect();
        assert_eq!(titles(""), all);
        assert_eq!(titles("?order=desc"), back);
        assert_eq!(titles("?complete=false"), open);
        // The offset is applied once, not for each part of the list.
        assert_eq!(titles("?offset=3"), all.iter().skip(3).copied().collect::<Vec<_>>());
        assert_eq!(titles("?order=desc&offset=700"), back.iter().skip(700).copied().collect::<Vec<_>>());
        let first = get(user, "?limit=1").expect(200);
        if let Some(after) = ids(&first).first() {
            assert_eq!(titles(&format!("?after={after}")), all[1..]);
            assert_eq!(titles(&format!("?order=desc&after={after}")), [] as [i64; 0]);
        }
    }
}

/// The list is 40 MB of JSON, and the service holds one page of it at a time.
#[test]
fn a_list_of_any_length_takes_the_same_memory() {
    let app = App::spawn();
    let bytes_of_a_list_with = |more: u32| {
        app.database.execute(&format!(
            "insert into tasks (user_id, title, description) \
             select 'alice', 'x', repeat('y', 1000) from generate_series(1, {more})"
        ));
        let mut raw = Raw::open(&app);
        let token = token("alice");
        raw.send(format!("GET /api/alice/tasks HTTP/1.0\r\nAuthorization: Bearer {token}\r\n\r\n"));
        raw.count_to_the_end()
    };
    assert!(bytes_of_a_list_with(1000) > 1 << 20);
    let before = status(&app, "VmHWM");
    assert!(bytes_of_a_list_with(34_000) > 35 << 20);
    let taken = status(&app, "VmHWM") - before;
    assert!(taken < 8 * 1024, "{taken} kB more than a list of 1,000");
}

#[test]
fn a_long_list_leaves_the_connection_fit_for_the_next_request() {
    let app = App::spawn();
    let alice = app.user("alice");
    insert_many(&app.database, "alice", 1234, 0);
    let mut connection = Connection::open(&app.address).unwrap();
    for _ in 0..2 {
        connection.write(&alice.request("GET", "/tasks").bytes());
        let list = connection.read("GET").unwrap().expect(200);
        assert_eq!(list.field("Content-Length"), None);
        assert_eq!(list.field("Cache-Control"), Some("no-store"));
        assert_eq!(ids(&list).len(), 1234);
        connection.write(&alice.request("HEAD", "/tasks").bytes());
        let head = connection.read("HEAD").unwrap().expect(200);
        head.hold_to_the_rules("HEAD", "/api/alice/tasks");
        let names = |response: &Response| -> Vec<String> {
            response.fields.iter().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(names(&head), names(&list));
        connection.write(&alice.request("HEAD", "/tasks?limit=2").bytes());
        let head = connection.read("HEAD").unwrap().expect(200);
        assert!(next(&head).is_some());
        connection.write(&app.get("/health").bytes());
        connection.read("GET").unwrap().expect(200);
    }
}

#[test]
fn a_client_of_before_http_1_1_gets_the_list_without_chunks_and_then_the_end() {
    let app = App::spawn();
    insert_many(&app.database, "few", 3, 0);
    insert_many(&app.database, "many", 1234, 0);
    for (user_id, count) in [("few", 3), ("many", 1234)] {
        for method in ["GET", "HEAD"] {
            let request = app.user(user_id).request(method, "/tasks").header("Connection", "keep-alive");
            let (head, body) = SlowClient::send(&app, &old_bytes(&request)).rest();
            let head = head.to_lowercase();
            assert!(!head.contains("transfer-encoding") && head.contains("connection: close"), "{head}");
            if method == "HEAD" {
                assert!(body.is_empty());
                continue;
            }
            let list: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(list["count"], count);
            assert_eq!(list["tasks"].as_array().map(Vec::len), Some(count));
        }
    }
}

#[test]
fn a_list_that_fails_on_the_way_ends_without_an_end() {
    let app = App::spawn();
    let alice = app.user("alice");
    insert_many(&app.database, "alice", WIDE_TASKS, DESCRIPTION_CHARS_MAX);
    let request = alice.request("GET", "/tasks");
    for (fault, is_old) in [("rename", false), ("rename", true), ("lock", false)] {
        let bytes = if is_old { old_bytes(&request) } else { request.bytes() };
        let client = SlowClient::send(&app, &bytes);
        assert_eq!(client.status(), "200");
        // The service holds no lock while the client waits, so the table can be changed.
        let mut holder = app.database.client();
        let mut change = holder.transaction().unwrap();
        change.batch_execute("alter table tasks rename to tasks_away").unwrap();
        let mut change = Some(change);
        if fault == "rename" {
            change.take().unwrap().commit().unwrap();
        }
        let (head, body) = client.rest();
        assert!(body.len() > 1000, "{fault}: {} bytes", body.len());
        assert!(head.to_lowercase().contains("transfer-encoding: chunked") != is_old, "{head}");
        // The last chunk is missing from a chunked answer, and the end of the JSON text from any other answer.
        assert!(!body.ends_with(b"\r\n0\r\n\r\n"), "{fault}");
        let text = String::from_utf8_lossy(&body);
        assert!(!text.contains("\"count\"") && !text.contains("error_code"), "{fault}");
        assert!(!is_old || serde_json::from_slice::<Value>(&body).is_err());
        match change.take() {
            Some(change) => change.rollback().unwrap(),
            None => app.database.execute("alter table tasks_away rename to tasks"),
        }
        eventually("the list", || get(alice, "?limit=1").status == 200);
    }
    app.wait_for_log(|line| line.contains("answer not completed"));
    assert_eq!(get(alice, "?offset=9990").expect(200).json()["count"], WIDE_TASKS - 9990);
}

/// The service asks for the parts one by one, while the client reads the list and others change it.
#[test]
fn a_sorted_list_shows_each_task_that_stays_once_whatever_moves_meanwhile() {
    let app = App::spawn();
    let alice = app.user("alice");
    for (order, column) in [("title", "title"), ("-title", "title"), ("updated", "updated_at")] {
        app.database.execute("truncate tasks");
        insert_many(&app.database, "alice", WIDE_TASKS, DESCRIPTION_CHARS_MAX);
        // Many tasks get the same sort key, so that ties extend over many parts.
        app.database.execute(
            "update tasks set title = chr(97 + length(title)), created_at = 'epoch', \
               updated_at = timestamptz 'epoch' + title::int % 3 * interval '1 second'",
        );
        let list = alice.request("GET", &format!("/tasks?order={order}")).header("Connection", "close");
        let client = SlowClient::send(&app, &old_bytes(&list));
        assert_eq!(client.status(), "200");
        app.database.execute(
            "delete from tasks where id % 4 = 0; \
             update tasks set title = 'a', updated_at = now() where id % 4 = 1; \
             insert into tasks (user_id, title) select 'alice', 'c' from generate_series(1, 1000)",
        );
        let (_, body) = client.rest();
        let list: Value = serde_json::from_slice(&body).unwrap();
        let seen = list["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_i64().unwrap());
        let direction = if order.starts_with('-') { "desc" } else { "asc" };
        let sql = format!(
            "select id from tasks where id % 4 in (2, 3) and id <= (select max(id) - 1000 from tasks) \
             order by {column} {direction}, id {direction}"
        );
        let rows = app.database.client().query(&sql, &[]).unwrap();
        let stayed: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(stayed.len(), 5000);
        let are_there: BTreeSet<i64> = stayed.iter().copied().collect();
        assert_eq!(seen.filter(|id| are_there.contains(id)).collect::<Vec<_>>(), stayed, "{order}");
    }
}

#[test]
fn a_client_that_reads_slowly_holds_no_database_connection() {
    let app = App::setup().env("DATABASE_POOL_SIZE", "1").spawn();
    insert_many(&app.database, "alice", WIDE_TASKS, DESCRIPTION_CHARS_MAX);
    let alice = app.user("alice");
    let request = alice.request("GET", "/tasks").header("Connection", "close");
    let client = SlowClient::send(&app, &request.bytes());
    assert_eq!(client.status(), "200");
    for _ in 0..20 {
        let id = app.user("bob").create_id();
        app.user("bob").on_task("DELETE", id).send().expect(204);
    }
    // No transaction is open either.
    eventually("idleness", || {
        let sql = "select count(*) from pg_stat_activity where datname = current_database() \
                   and application_name = 'tinytasks' and state <> 'idle'";
        app.database.value(sql) == "0"
    });
    // The list also survives when the database ends the connection meanwhile.
    app.database.terminate_sessions();
    let (_, body) = client.rest();
    let end = format!("],\"count\":{WIDE_TASKS}}}\r\n0\r\n\r\n");
    assert!(body.ends_with(end.as_bytes()));
}

#[test]
fn slow_clients_are_many_and_others_are_served() {
    let app = App::spawn();
    let alice = app.user("alice");
    insert_many(&app.database, "alice", WIDE_TASKS, DESCRIPTION_CHARS_MAX);
    insert_many(&app.database, "bob", 50, 0);
    let list = alice.request("GET", "/tasks").header("Connection", "close");
    let slow: Vec<_> = (0..SLOW_CLIENTS).map(|_| SlowClient::send(&app, &list.bytes())).collect();
    assert!(slow.iter().all(|client| client.status() == "200"));
    for _ in 0..3 {
        assert_eq!(get(alice, "?limit=5").expect(200).json()["count"], 5);
        assert_eq!(app.user("bob").list()["count"], 50);
        let id = app.user("bob").create_id();
        app.user("bob").on_task("DELETE", id).send().expect(204);
        app.get("/health").send().expect(200);
    }
    // These clients read at the same time, because a client that reads nothing for long is cut off.
    let readers: Vec<_> = slow.into_iter().take(3).map(|client| thread::spawn(|| client.rest())).collect();
    for reader in readers {
        let (_, body) = reader.join().unwrap();
        assert!(body.ends_with(format!("],\"count\":{WIDE_TASKS}}}\r\n0\r\n\r\n").as_bytes()));
    }
}
