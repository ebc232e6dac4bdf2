//! Cursors: converts a position in a list into text for a URL, and back. A cursor is valid only for the order
//! and filter of its list. It contains only data that the client has already received.

use crate::limits::TITLE_CHARS_MAX;
use crate::task::{Filter, Order, Position, Search, SortKey, SortValue, UtcMicros};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64;

/// The cursor of a position, in base64url. The title in it has at most 200 characters, so a cursor takes at most
/// 1,700 bytes.
pub fn write(position: &Position, order: Order, filter: &Filter) -> String {
    let list = list_number(order, filter);
    match &position.value {
        SortValue::None => encode(&(list, position.id)),
        SortValue::Instant(instant) => encode(&(list, instant.version(), position.id)),
        SortValue::Title(title) => encode(&(list, title, position.id)),
    }
}

/// The position that a cursor names. None if the cursor is malformed, or belongs to another order or filter.
pub fn parse(text: &str, order: Order, filter: &Filter) -> Option<Position> {
    let (list, value, id) = match order.by {
        SortKey::Id => return None,
        SortKey::CreatedAt | SortKey::UpdatedAt => {
            let (list, version, id): (u64, u64, i64) = decode(text)?;
            (list, SortValue::Instant(UtcMicros::from_version(version)?), id)
        }
        SortKey::Title => {
            let (list, title, id): (u64, String, i64) = decode(text)?;
            if title.chars().count() > TITLE_CHARS_MAX || title.contains('\0') {
                return None;
            }
            (list, SortValue::Title(title), id)
        }
    };
    (list == list_number(order, filter)).then_some(Position { value, id })
}

/// A hash of order and filter, with which [`parse`] recognizes the cursors of other lists. It protects clients
/// from their own mistakes. It need not protect the service: whatever a cursor says, a list shows only tasks of
/// its caller.
fn list_number(order: Order, filter: &Filter) -> u64 {
    let search = filter.search.as_ref().map(Search::as_str);
    let parts = (order.by as u8, order.is_descending, filter.complete, search);
    xxh3_64(&serde_json::to_vec(&parts).unwrap_or_default())
}

fn encode(parts: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(parts).unwrap_or_default())
}

fn decode<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}
