//! The parts of a request for a list: which tasks, in which order, beginning where, and how many.

use super::{Task, UtcMicros};
use crate::limits::{SEARCH_CHARS_MAX, TITLE_CHARS_MAX};

/// Which of a user's tasks a list shows.
pub struct Filter {
    /// Only tasks whose `complete` has this value.
    pub complete: Option<bool>,
    /// Only tasks that contain this text in their title or description.
    pub search: Option<Search>,
}

/// Which of a user's tasks a bulk change selects: all whose `complete` has this value and that the search, if
/// there is one, finds.
pub struct BulkSelection {
    pub complete: bool,
    pub search: Option<Search>,
}

/// A text to search for: 1–200 characters that PostgreSQL can hold (no U+0000).
pub struct Search(String);

impl Search {
    /// Returns None if the text is empty, longer than 200 characters, or contains U+0000.
    pub fn parse(text: String) -> Option<Self> {
        let fits = (1..=SEARCH_CHARS_MAX).contains(&text.chars().count()) && !text.contains('\0');
        fits.then_some(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The key by which a list is ordered. Tasks with the same key are ordered by their id, in the same direction.
#[derive(Clone, Copy, PartialEq)]
pub enum SortKey {
    Id,
    CreatedAt,
    UpdatedAt,
    /// The first 200 characters of the title. Rows that are older than the table's constraints may have longer
    /// titles.
    Title,
}

/// The order of a list.
#[derive(Clone, Copy)]
pub struct Order {
    pub by: SortKey,
    pub is_descending: bool,
}

impl Order {
    pub const DEFAULT: Self = Self { by: SortKey::Id, is_descending: false };

    /// An id before which no task comes in this order.
    pub fn first_id(self) -> i64 {
        if self.is_descending { i64::MAX } else { i64::MIN }
    }
}

/// A position in an order: that of a task when a list showed it. The task may have been changed or deleted since.
pub struct Position {
    pub value: SortValue,
    pub id: i64,
}

/// The sort key of one task, without its id.
pub enum SortValue {
    /// In the orders by id, in which the id alone is the key.
    None,
    Instant(UtcMicros),
    Title(String),
}

impl SortValue {
    pub fn instant(&self) -> Option<UtcMicros> {
        match self {
            Self::Instant(instant) => Some(*instant),
            Self::None | Self::Title(_) => None,
        }
    }

    pub fn title(&self) -> Option<&str> {
        match self {
            Self::Title(title) => Some(title),
            Self::None | Self::Instant(_) => None,
        }
    }
}

impl Position {
    /// The position of a task in an order by this key.
    pub fn of(task: &Task, by: SortKey) -> Self {
        let value = match by {
            SortKey::Id => SortValue::None,
            SortKey::CreatedAt => SortValue::Instant(task.created_at),
            SortKey::UpdatedAt => SortValue::Instant(task.updated_at),
            SortKey::Title => SortValue::Title(task.title.chars().take(TITLE_CHARS_MAX).collect()),
        };
        Self { value, id: task.id }
    }
}

/// Which part of a user's tasks a list shows.
pub struct Page {
    pub filter: Filter,
    pub order: Order,
    /// Only tasks that follow this position in the order.
    pub after: Option<Position>,
    /// How many tasks are skipped at the beginning.
    pub offset: i64,
    /// At most this many tasks; None means all.
    pub limit: Option<i64>,
    /// Whether the answer has [`Totals`].
    pub has_totals: bool,
}

/// How many tasks of a user a search finds, in all and by state.
#[derive(Clone, Copy)]
pub struct Totals {
    pub all: i64,
    pub open: i64,
    pub complete: i64,
}
