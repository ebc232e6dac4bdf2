//! Instances of the service beside the one that a test begins with.

use crate::support::{
    harness::{App, Directory, binary},
    http::Request,
    token::SECRET,
};
use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    thread,
};

/// Another instance of the service, on the same database.
pub fn second_instance(first: &App) -> App {
    // It also creates a database of its own, which stays empty.
    App::setup().env("DATABASE_URL", &first.database.url).spawn()
}

/// A service that may be killed at any moment. (`App` would drop its database at the end.)
pub struct Instance {
    pub child: Child,
    pub address: String,
    _directory: Directory,
}

impl Instance {
    pub fn spawn(database_url: &str) -> Self {
        Self::spawn_at("127.0.0.1:0", database_url)
    }

    pub fn spawn_at(address: &str, database_url: &str) -> Self {
        let directory = Directory::create();
        let mut command = binary(&directory);
        let (host, port) = address.split_once(':').unwrap();
        let variables = [("HOST", host), ("PORT", port), ("DATABASE_URL", database_url)];
        // After SIGKILL its inner socket stays behind, so it is made in a directory that is removed.
        command.envs(variables).env("JWT_SECRET_KEY", SECRET).env("TMPDIR", directory.path());
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let line = lines.find(|line| line.contains(" listening ")).expect("it does not listen");
        let (_, address) = line.split_once("http://").unwrap();
        // The log is read and dropped: a full pipe would stop the service.
        thread::spawn(move || lines.for_each(drop));
        Self { child, address: address.to_owned(), _directory: directory }
    }

    pub fn is_healthy(&self) -> bool {
        let answer = Request::new(&self.address, "GET", "/health").try_send();
        answer.is_ok_and(|answer| answer.status == 200)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
