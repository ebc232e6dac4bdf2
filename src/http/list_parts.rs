//! A list that is sent in parts, so that the memory does not grow with it: each part is asked from the
//! database when it is sent, and no database connection is held while the client reads.

use super::App;
use crate::auth::Caller;
use crate::error::Error;
use crate::limits::{LIST_PART_ROWS, SORTED_PART_ROWS};
use crate::task::{Page, Position, SortKey, Task, Totals};
use serde::Serialize;

/// The state of a list that is being sent.
pub struct ListParts<'a> {
    pub app: &'a App,
    pub caller: Caller,
    /// The part of the list that has not been read from the database yet.
    pub rest: Page,
    pub count: usize,
    pub totals: Option<Totals>,
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
        let by = self.rest.order.by;
        let rows_max = if by == SortKey::Id { LIST_PART_ROWS } else { SORTED_PART_ROWS };
        let rows = self.app.store.list(&self.caller, &self.rest, rows_max)?;
        let tasks = rows.all()?;
        let mut part = Vec::new();
        if let Some(last) = tasks.last() {
            self.rest.after = Some(Position::of(last, by));
            part.push(b',');
            part.append(&mut members(&tasks)?);
        }
        self.count += tasks.len();
        self.is_done = i64::try_from(tasks.len()).is_ok_and(|count| count < rows_max);
        if self.is_done {
            part.append(&mut self.end()?);
        }
        Ok(Some(part))
    }

    /// The end of the JSON text, behind the last task.
    fn end(&self) -> Result<Vec<u8>, Error> {
        let mut end = format!("],\"count\":{}", self.count).into_bytes();
        if let Some(totals) = &self.totals {
            end.extend_from_slice(b",\"totals\":");
            end.append(&mut json(totals)?);
        }
        end.push(b'}');
        Ok(end)
    }
}

/// The members of a JSON array, with the commas between them.
pub fn members(tasks: &[Task]) -> Result<Vec<u8>, Error> {
    let mut array = json(tasks)?;
    array.pop();
    Ok(array.split_off(1))
}

fn json(value: &(impl Serialize + ?Sized)) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::Bug(error.to_string()))
}
