//! What the tests of preconditions, retries and lists share: a second instance of the service,
//! sessions that wait for a lock, requests of before HTTP/1.1, and clients that read slowly.

use crate::{
    harness::{App, Database, User},
    http::{Request, Response},
};
use postgres::Client;
use serde_json::{Value, json};
use std::{
    io::{self, Read, Write},
    net::TcpStream,
    thread::{self, JoinHandle},
    time::Duration,
};

/// Longer than the service lets a slow client wait.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Another instance of the service, on the same database.
pub fn second_instance(first: &App) -> App {
    // The database that it brings itself stays empty.
    App::setup().env("DATABASE_URL", &first.database.url).spawn()
}

/// A request that waits for the lock of a task.
pub struct Blocked {
    holder: Client,
    running: JoinHandle<io::Result<Response>>,
}

impl Blocked {
    /// PATCH makes a new task of alice's complete.
    pub fn patch(app: &App) -> Self {
        let id = app.user("alice").create_id();
        let mut holder = app.database.client();
        holder.batch_execute("begin; select from tasks for update").unwrap();
        let patch = app.user("alice").on_task("PATCH", id).json(json!({"complete": true}));
        let running = thread::spawn(move || patch.try_send());
        app.database.wait_until_blocked(1);
        Self { holder, running }
    }

    /// Frees the task, and waits for the answer.
    pub fn finish(self) -> io::Result<Response> {
        drop(self.holder);
        self.running.join().unwrap()
    }

    /// Waits for the answer that comes although the task is not freed.
    pub fn answer(self) -> io::Result<Response> {
        self.running.join().unwrap()
    }
}

/// A task, and its tag as GET gives it.
pub fn tagged(user: User, id: i64) -> (Value, String) {
    let response = user.on_task("GET", id).send().expect(200);
    let tag = response.field("ETag").expect("ETag").to_owned();
    (response.json(), tag)
}

/// As a client of before HTTP/1.1 sends it.
pub fn old_bytes(request: &Request) -> Vec<u8> {
    let text = String::from_utf8(request.bytes()).unwrap();
    text.replacen(" HTTP/1.1\r\n", " HTTP/1.0\r\n", 1).into_bytes()
}

/// Tasks by SQL, so many at once as a service could not take. The text of a title is its number.
pub fn insert_many(database: &Database, user_id: &str, count: i64, description_chars: i32) {
    let sql = "insert into tasks (user_id, title, description, complete) \
               select $1, number::text, nullif(repeat('\u{1F600}', $3), ''), number % 3 = 0 \
               from generate_series(1::bigint, $2) as number order by number.number";
    database.client().execute(sql, &[&user_id, &count, &description_chars]).unwrap();
}

/// A client that has read the status line, and then stops.
pub struct SlowClient {
    stream: TcpStream,
    read: Vec<u8>,
}

impl SlowClient {
    pub fn send(app: &App, bytes: &[u8]) -> Self {
        let mut stream = TcpStream::connect(&app.address).unwrap();
        stream.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
        stream.write_all(bytes).unwrap();
        let mut read = vec![0; "HTTP/1.1 200".len()];
        stream.read_exact(&mut read).unwrap();
        Self { stream, read }
    }

    pub fn status(&self) -> &str {
        std::str::from_utf8(&self.read["HTTP/1.1 ".len().."HTTP/1.1 200".len()]).unwrap()
    }

    /// All that comes until the connection ends: the head, and the body as it was sent.
    pub fn rest(mut self) -> (String, Vec<u8>) {
        if let Err(error) = self.stream.read_to_end(&mut self.read) {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "the connection stays open");
        }
        let end = self.read.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let body = self.read.split_off(end);
        (String::from_utf8(self.read).unwrap(), body)
    }
}
