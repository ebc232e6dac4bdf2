//! A list that is sent in parts, so that the memory does not grow with it: each part is asked from the
//! database when it is sent, and no database connection is held while the client reads.

use super::App;
use crate::auth::Caller;
use crate::error::Error;
use crate::limits::LIST_PART_ROWS;
use crate::task::{Page, Task};

/// A list without an end that is known yet: each part is asked from the database when it is sent.
pub struct ListParts<'a> {
    pub app: &'a App,
    pub caller: Caller,
    /// The part of the list that has not been read from the database yet.
    pub rest: Page,
    pub count: usize,
    /// The beginning of the JSON text, with the tasks that were found with the first question.
    pub first: Option<Vec<u8>>,
    pub is_done: bool,
}

impl ListParts<'_> {
    /// Whose tasks these are.
    pub fn user_id(&self) -> &str {
        self.caller.user_id()
    }

    /// The next piece of the JSON text; None after its end. Errors: those of the store. The text is not
    /// complete then.
    pub fn next_part(&mut self) -> Result<Option<Vec<u8>>, Error> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        if self.is_done {
            return Ok(None);
        }
        let _turn = self.app.turns.take()?;
        let rows = self.app.store.list(&self.caller, self.rest, LIST_PART_ROWS)?;
        let tasks = rows.all()?;
        let Some(last) = tasks.last() else {
            self.is_done = true;
            return Ok(Some(format!("],\"count\":{}}}", self.count).into_bytes()));
        };
        self.count += tasks.len();
        self.rest.after = Some(last.id);
        Ok(Some([b",".as_slice(), &members(&tasks)?].concat()))
    }
}

/// The members of a JSON array, with the commas between them.
pub fn members(tasks: &[Task]) -> Result<Vec<u8>, Error> {
    let mut array = serde_json::to_vec(tasks).map_err(|error| Error::Bug(error.to_string()))?;
    array.pop();
    Ok(array.split_off(1))
}
