//! A list that is sent in parts, so that its memory does not grow with its length. Each part is read from the
//! database just before it is sent, and no database connection is held while the client reads.

use super::App;
use crate::auth::Caller;
use crate::error::Error;
use crate::limits::{LIST_PART_ROWS, SORTED_PART_ROWS};
use crate::semaphore::Permit;
use crate::task::{Page, Position, SortKey, Totals, append_tasks};

/// A piece of the JSON text.
pub struct Part<'a> {
    pub json: Vec<u8>,
    /// The turn in which the part was made. The sending thread drops it once the memory of the text is counted.
    pub turn: Permit<'a>,
}

/// What is still to be sent of a list.
pub struct ListParts<'a> {
    pub app: &'a App,
    pub caller: Caller,
    /// The part of the list that has not been read from the database yet.
    pub rest: Page,
    pub count: usize,
    pub totals: Option<Totals>,
    pub is_done: bool,
}

impl<'a> ListParts<'a> {
    /// The owner of the tasks.
    pub fn user_id(&self) -> &str {
        self.caller.user_id()
    }

    /// The next piece of the JSON text. None after its end. Errors: those of the store, and `Unavailable` if there
    /// is no turn. After an error the text that was sent is incomplete.
    pub fn next_part(&mut self) -> Result<Option<Part<'a>>, Error> {
        if self.is_done {
            return Ok(None);
        }
        let turn = self.app.take_turn(false)?;
        let by = self.rest.order.by;
        let rows_max = if by == SortKey::Id { LIST_PART_ROWS } else { SORTED_PART_ROWS };
        let rows = self.app.store.list(&self.caller, &self.rest, rows_max)?;
        let tasks = rows.all()?;
        let mut part = Vec::new();
        if let Some(last) = tasks.last() {
            self.rest.after = Some(Position::of(last, by));
            part.push(b',');
            append_tasks(&mut part, &tasks);
        }
        self.count += tasks.len();
        self.is_done = i64::try_from(tasks.len()).is_ok_and(|count| count < rows_max);
        if self.is_done {
            append_end(&mut part, self.count, self.totals);
        }
        Ok(Some(Part { json: part, turn }))
    }
}

/// Appends the end of the JSON text, which follows the last task.
pub fn append_end(json: &mut Vec<u8>, count: usize, totals: Option<Totals>) {
    json.extend_from_slice(format!(r#"],"count":{count}"#).as_bytes());
    if let Some(Totals { all, open, complete }) = totals {
        let totals = format!(r#","totals":{{"all":{all},"open":{open},"complete":{complete}}}"#);
        json.extend_from_slice(totals.as_bytes());
    }
    json.push(b'}');
}
