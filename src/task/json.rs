//! Writes tasks as JSON text. The members are written one by one, because that is faster: 100 tasks take 14 µs,
//! whereas serde's derived code and jiff's `Display` take 30 µs (docs/speed.md). Nothing here can fail, because
//! writing to memory does not fail; so the results of the writers are ignored.

use super::Task;
use serde::Serialize;
use std::io::Write;

/// Most tasks fit into this many bytes.
const JSON_BYTES: usize = 512;

impl Task<'_> {
    /// The task as a JSON object.
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
        let _ = self.created_at.print(&mut *json);
        json.extend_from_slice(br#"","updated_at":""#);
        let _ = self.updated_at.print(&mut *json);
        // The same text as `Task::etag`, including its quotes. Calling that would make a String for each task,
        // which takes 11 µs more for 100 tasks.
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

/// Appends a member whose value is a number, a text, a boolean or null. `name` is the text up to the value.
fn append(json: &mut Vec<u8>, name: &str, value: &(impl Serialize + ?Sized)) {
    json.extend_from_slice(name.as_bytes());
    let _ = serde_json::to_writer(json, value);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::UtcMicros;
    use super::{Serialize, Task, append_tasks};

    /// The members of a task, serialized by serde's derived code.
    #[derive(Serialize)]
    struct Derived<'a> {
        id: i64,
        user_id: &'a str,
        title: &'a str,
        description: Option<&'a str>,
        complete: bool,
        created_at: UtcMicros,
        updated_at: UtcMicros,
        etag: String,
    }

    impl<'a> Derived<'a> {
        fn of(task: &Task<'a>) -> Self {
            let Task { id, user_id, title, description, complete, created_at, updated_at } = *task;
            Self { id, user_id, title, description, complete, created_at, updated_at, etag: task.etag() }
        }
    }

    #[test]
    fn a_task_is_written_byte_by_byte_as_serde_writes_it() {
        let texts = ["", "plain", "\"quoted\" \\ /", "\0\u{1}\t\r\n\u{7f}", "\u{2028}ü🙂\u{200f}"];
        let instants = [i64::MIN, -1, 0, 848_000_000_123_456, i64::MAX];
        let mut tasks = Vec::new();
        for (place, text) in texts.into_iter().enumerate() {
            for (instant, id) in instants.into_iter().zip([i64::MIN, -1, 0, 1, i64::MAX]) {
                tasks.push(Task {
                    id,
                    user_id: text,
                    title: text,
                    description: (place > 0).then_some(text),
                    complete: place % 2 == 0,
                    created_at: UtcMicros::from_micros_since_2000(instant),
                    updated_at: UtcMicros::from_micros_since_2000(instant.wrapping_add(1)),
                });
            }
        }
        let derived: Vec<_> = tasks.iter().map(Derived::of).collect();
        for (task, derived) in tasks.iter().zip(&derived) {
            assert_eq!(task.to_json(), serde_json::to_vec(derived).unwrap());
        }
        for count in [0, 1, 2, tasks.len()] {
            let mut array = b"[".to_vec();
            append_tasks(&mut array, tasks.get(..count).unwrap());
            array.push(b']');
            assert_eq!(array, serde_json::to_vec(derived.get(..count).unwrap()).unwrap(), "{count}");
        }
    }
}
