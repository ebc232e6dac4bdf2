//! Locks that a test holds while a request waits for them.

use crate::support::{
    harness::{App, Database},
    http::Response,
};
use postgres::Client;
use serde_json::json;
use std::{
    io,
    thread::{self, JoinHandle},
};

/// A transaction of the test's own. It holds its locks until it ends.
pub struct Held {
    client: Client,
    /// The number of rows that its statement found or changed.
    pub rows: u64,
}

impl Held {
    /// Runs the statement, and leaves its transaction open.
    pub fn by(database: &Database, sql: &str) -> Self {
        Self::on(database.client(), sql)
    }

    /// The same on an open connection.
    pub fn on(mut client: Client, sql: &str) -> Self {
        client.batch_execute("begin").unwrap();
        let rows = client.execute(sql, &[]).unwrap();
        Self { client, rows }
    }

    /// Locks all tasks.
    pub fn rows(database: &Database) -> Self {
        Self::by(database, "select from tasks for update")
    }

    /// Locks the whole table: other sessions cannot even read it.
    pub fn table(database: &Database) -> Self {
        Self::by(database, "lock table tasks in access exclusive mode")
    }

    pub fn commit(mut self) {
        self.client.batch_execute("commit").unwrap();
    }

    pub fn release(mut self) {
        self.client.batch_execute("rollback").unwrap();
    }
}

/// A request that waits for the lock of a task.
pub struct Blocked {
    held: Held,
    running: JoinHandle<io::Result<Response>>,
}

impl Blocked {
    /// A PATCH that sets `complete` of a new task of alice.
    pub fn patch(app: &App) -> Self {
        let id = app.user("alice").create_id();
        let held = Held::rows(&app.database);
        let patch = app.user("alice").on_task("PATCH", id).json(json!({"complete": true}));
        let running = thread::spawn(move || patch.try_send());
        app.database.wait_until_blocked(1);
        Self { held, running }
    }

    /// Releases the lock, and waits for the answer.
    pub fn finish(self) -> io::Result<Response> {
        self.held.release();
        self.running.join().unwrap()
    }

    /// Waits for the answer while the lock is still held.
    pub fn answer(self) -> io::Result<Response> {
        self.running.join().unwrap()
    }
}
