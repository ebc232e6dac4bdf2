//! Tasks → JSON text. The members are written one by one, because the code that serde derives takes
//! twice as long, and a list of 100 tasks is mostly this work.

use super::Task;
use serde::Serialize;
use std::io::Write;

/// Most tasks fit into this many bytes.
const JSON_BYTES: usize = 512;

impl Task<'_> {
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = Vec::with_capacity(JSON_BYTES);
        self.append_to(&mut json);
        json
    }

    fn append_to(&self, json: &mut Vec<u8>) {
        append(json, r#"{"id":"#, &self.id);
        append(json, r#","user_id":"#, self.user_id);
        append(json, r#","title":"#, self.title);
        append(json, r#","description":"#, &self.description);
        append(json, r#","complete":"#, &self.complete);
        json.extend_from_slice(br#","created_at":""#);
        // Here and below: memory takes everything that is written to it.
        let _ = self.created_at.print(&mut *json);
        json.extend_from_slice(br#"","updated_at":""#);
        let _ = self.updated_at.print(&mut *json);
        // As `Task::etag` has it. The quotes of the tag are part of it.
        let _ = write!(json, r#"","etag":"\"{:x}\""}}"#, self.updated_at.version());
    }
}

/// Appends tasks as the elements of a JSON array, with the commas between them.
pub fn append_tasks(json: &mut Vec<u8>, tasks: &[Task]) {
    for (place, task) in tasks.iter().enumerate() {
        if place > 0 {
            json.push(b',');
        }
        task.append_to(json);
    }
}

/// Appends a member whose value is a number, a text, a truth value or nothing.
fn append(json: &mut Vec<u8>, name: &str, value: &(impl Serialize + ?Sized)) {
    json.extend_from_slice(name.as_bytes());
    let _ = serde_json::to_writer(json, value);
}
