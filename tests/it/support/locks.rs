//! Locks that a test holds while a request of the service runs into them.

use crate::support::{harness::App, http::Response};
use postgres::Client;
use serde_json::json;
use std::{
    io,
    thread::{self, JoinHandle},
};

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
