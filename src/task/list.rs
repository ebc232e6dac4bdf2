//! The parts of a question for a list: which tasks, in which order, from where on, and how many.

use super::{Task, UtcMicros};
use crate::limits::{SEARCH_CHARS_MAX, TITLE_CHARS_MAX};

/// Which of a user's tasks a list shows.
#[derive(Clone)]
pub struct Filter {
    /// Only tasks in this state.
    pub complete: Option<bool>,
    /// Only tasks with this text in their title or description.
    pub search: Option<Search>,
}

/// Which of a user's tasks are changed at once: all in this state that the search, if any, finds.
pub struct Chosen {
    pub complete: bool,
    pub search: Option<Search>,
}

/// A text to look for: 1–200 characters that PostgreSQL can hold (no U+0000).
#[derive(Clone)]
pub struct Search(String);

impl Search {
    /// Returns None when the text is empty, longer than 200 characters or has a U+0000.
    pub fn parse(text: String) -> Option<Self> {
        let fits = (1..=SEARCH_CHARS_MAX).contains(&text.chars().count()) && !text.contains('\0');
        fits.then_some(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The key that a list is ordered by. Tasks of the same key are ordered by their id, in the same direction.
#[derive(Clone, Copy, PartialEq)]
pub enum SortKey {
    Id,
    CreatedAt,
    UpdatedAt,
    /// The first 200 characters of the title; rows from before the rules may have more.
    Title,
}

#[derive(Clone, Copy)]
pub struct Order {
    pub by: SortKey,
    pub is_descending: bool,
}

impl Order {
    pub const DEFAULT: Self = Self { by: SortKey::Id, is_descending: false };

    /// An id that no task comes before in this order.
    pub fn first_id(self) -> i64 {
        if self.is_descending { i64::MAX } else { i64::MIN }
    }
}

/// A place in an order: that of a task as a list has shown it, whatever has become of it since.
#[derive(Clone)]
pub struct Position {
    pub value: SortValue,
    pub id: i64,
}

/// The key of one task in an order, beside its id.
#[derive(Clone)]
pub enum SortValue {
    /// In the orders by id.
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
#[derive(Clone)]
pub struct Page {
    pub filter: Filter,
    pub order: Order,
    /// Only tasks that follow this position in the order.
    pub after: Option<Position>,
    pub offset: i64,
    /// At most this many tasks; None means all.
    pub limit: Option<i64>,
    /// Whether the answer has [`Totals`].
    pub has_totals: bool,
}

/// How many tasks of a user a search chooses, whatever their state.
#[derive(Clone, Copy)]
pub struct Totals {
    pub all: i64,
    pub open: i64,
    pub complete: i64,
}
