//! Roles of PostgreSQL other than the one that owns everything.

use crate::support::harness::Database;
use std::thread;

/// A role with the rights that docs/operations.md gives it, and the URL of the database for it.
pub struct Role<'d> {
    database: &'d Database,
    pub name: String,
    pub url: String,
}

impl<'d> Role<'d> {
    /// `options` are those of `create role`.
    pub fn create(database: &'d Database, options: &str) -> Self {
        let name = format!("{}_role", database.name);
        database.execute(&format!(
            "create role {name} login password 'row5-0nly' {options};
             grant select, insert, update, delete on tasks to {name}"
        ));
        let url = database.url_as(&name, "row5-0nly");
        Self { database, name, url }
    }
}

impl Drop for Role<'_> {
    fn drop(&mut self) {
        if !thread::panicking() {
            let drop = format!("drop owned by {0} cascade; drop role {0}", self.name);
            self.database.terminate_sessions();
            self.database.execute(&drop);
        }
    }
}
