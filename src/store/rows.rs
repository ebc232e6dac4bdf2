//! Converts rows of PostgreSQL into tasks, and instants into the type that the driver sends.

use super::sqlstate;
use super::statements::Effect;
use crate::error::Error;
use crate::task::{Task, UtcMicros};
use postgres::types::{FromSql, Timestamp, Type};
use postgres::{Column, Row};
use std::error::Error as StdError;
use std::time::{Duration, SystemTime};

/// The rows that a statement returned. The tasks made from them borrow their texts.
pub struct Tasks<'c> {
    pub user_id: &'c str,
    pub rows: Vec<Row>,
    /// The effect of the statement that returned the rows.
    pub effect: Effect,
}

impl Tasks<'_> {
    /// All tasks. Errors: a row cannot be read, see [`Tasks::unreadable`].
    pub fn all(&self) -> Result<Vec<Task<'_>>, Error> {
        let task = |row| task(self.user_id, row).map_err(|error| self.unreadable(&error));
        self.rows.iter().map(task).collect()
    }

    /// The first task. Errors: `NoSuchTask` if there is no row; the row cannot be read, see
    /// [`Tasks::unreadable`].
    pub fn one(&self) -> Result<Task<'_>, Error> {
        let row = self.rows.first().ok_or(Error::NoSuchTask)?;
        task(self.user_id, row).map_err(|error| self.unreadable(&error))
    }

    /// The error for a column whose type the service cannot read. Until the table is corrected, the watching
    /// thread reports that type. If the statement was a change, the change has been made although its row cannot
    /// be shown.
    pub fn unreadable(&self, error: &postgres::Error) -> Error {
        Error::unanswered(self.effect.is_change(), sqlstate::cause(error))
    }
}

/// Converts a row into a task of this user. Every statement that returns tasks begins with these columns, in this
/// order.
pub fn task<'t>(user_id: &'t str, row: &'t Row) -> Result<Task<'t>, postgres::Error> {
    Ok(Task {
        id: row.try_get(0)?,
        user_id,
        title: row.try_get(1)?,
        description: row.try_get(2)?,
        complete: row.try_get(3)?,
        created_at: row.try_get(4)?,
        updated_at: row.try_get(5)?,
    })
}

/// Whether [`task`] can read rows with these columns. A statement that returns fewer columns returns the first
/// ones.
pub fn can_be_read(columns: &[Column]) -> bool {
    let accepts = [
        i64::accepts,
        <&str>::accepts,
        <Option<&str>>::accepts,
        bool::accepts,
        UtcMicros::accepts,
        UtcMicros::accepts,
    ];
    columns.iter().zip(accepts).all(|(column, accepts)| accepts(column.type_()))
}

/// Reads the binary form of a `timestamptz`: microseconds since 2000-01-01T00:00:00Z as a big-endian i64. The
/// smallest number means `-infinity` and the largest `infinity`
/// (https://www.postgresql.org/docs/current/datatype-datetime.html).
impl<'a> FromSql<'a> for UtcMicros {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self::from_micros_since_2000(i64::from_be_bytes(raw.try_into()?)))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }
}

/// Converts an instant into the type that the driver sends as a `timestamptz`.
pub fn as_timestamp(instant: UtcMicros) -> Timestamp<SystemTime> {
    const YEAR_2000: Duration = Duration::from_secs(946_684_800);
    match instant.micros_since_2000() {
        i64::MIN => Timestamp::NegInfinity,
        i64::MAX => Timestamp::PosInfinity,
        micros => {
            let (year_2000, distance) = (SystemTime::UNIX_EPOCH + YEAR_2000, micros.unsigned_abs());
            let distance = Duration::from_micros(distance);
            Timestamp::Value(if micros < 0 { year_2000 - distance } else { year_2000 + distance })
        }
    }
}

pub fn as_timestamps(versions: &[UtcMicros]) -> Vec<Timestamp<SystemTime>> {
    versions.iter().copied().map(as_timestamp).collect()
}

#[cfg(test)]
mod tests {
    use super::{Duration, SystemTime, Timestamp, UtcMicros, as_timestamp};

    #[test]
    fn a_version_may_lie_before_1970_or_at_infinity() {
        let year_2000 = SystemTime::UNIX_EPOCH + Duration::from_secs(946_684_800);
        for (micros, wanted) in [
            (i64::MIN, Timestamp::NegInfinity),
            (-946_684_801_000_000, Timestamp::Value(SystemTime::UNIX_EPOCH - Duration::from_secs(1))),
            (-1, Timestamp::Value(year_2000 - Duration::from_micros(1))),
            (0, Timestamp::Value(year_2000)),
            (1, Timestamp::Value(year_2000 + Duration::from_micros(1))),
            (i64::MAX, Timestamp::PosInfinity),
        ] {
            assert_eq!(as_timestamp(UtcMicros::from_micros_since_2000(micros)), wanted);
        }
    }
}
