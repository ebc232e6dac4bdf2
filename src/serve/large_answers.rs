//! The memory of large answers while they are written to their clients: all of them share a fixed
//! number of bytes, and small ones are not counted. Guarantees: a client that reads slowly does not
//! keep others from their answers. When all memory is taken, the user who holds the most loses the answer
//! that was begun first, unless that was only a moment ago.

use crate::error::Error;
use crate::gate::Connection;
use crate::limits::{LARGE_ANSWER_SAFE, LARGE_ANSWERS_BYTES_MAX, SMALL_ANSWER_BYTES_MAX};
use crate::panic::lock;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Instant;

#[derive(Default)]
pub struct LargeAnswers(Mutex<Shares>);

#[derive(Default)]
struct Shares {
    bytes: usize,
    next_number: u64,
    /// By number: the oldest share first.
    by_number: BTreeMap<u64, Holder>,
}

struct Holder {
    user_id: String,
    bytes: usize,
    since: Instant,
    connection: Arc<Connection>,
}

/// The memory of one answer, given back when it is dropped. None for a small answer.
pub struct Share<'a> {
    all: &'a LargeAnswers,
    number: Option<u64>,
}

impl LargeAnswers {
    /// The share of a small answer, which is not counted.
    pub fn small(&self) -> Share<'_> {
        Share { all: self, number: None }
    }

    /// Counts an answer of this size that is about to be written. Errors: `Unavailable` while other
    /// large answers take all the memory, and all of them are recent.
    pub fn admit(
        &self,
        bytes: usize,
        user_id: &str,
        connection: &Arc<Connection>,
    ) -> Result<Share<'_>, Error> {
        if bytes <= SMALL_ANSWER_BYTES_MAX {
            return Ok(self.small());
        }
        let mut shares = lock(&self.0);
        // An answer that is larger than all of the memory has it alone.
        while shares.bytes > 0 && shares.bytes + bytes > LARGE_ANSWERS_BYTES_MAX {
            let Some(number) = shares.one_to_cut_off() else {
                return Err(Error::Unavailable("too many large answers are being read".to_owned()));
            };
            if let Some(slow) = shares.remove(number) {
                log::warn!("a slow reader of a large answer is cut off, to make room");
                slow.connection.cut();
            }
        }
        let number = shares.next_number;
        shares.next_number += 1;
        shares.bytes += bytes;
        let (user_id, connection) = (user_id.to_owned(), Arc::clone(connection));
        shares.by_number.insert(number, Holder { user_id, bytes, since: Instant::now(), connection });
        Ok(Share { all: self, number: Some(number) })
    }
}

impl Shares {
    /// The oldest share of the user who holds the most, among the shares that are no longer recent.
    fn one_to_cut_off(&self) -> Option<u64> {
        let mut bytes_of_user: HashMap<&str, usize> = HashMap::new();
        for holder in self.by_number.values() {
            *bytes_of_user.entry(&holder.user_id).or_default() += holder.bytes;
        }
        let mut chosen: Option<(u64, usize)> = None;
        for (number, holder) in &self.by_number {
            if holder.since.elapsed() < LARGE_ANSWER_SAFE {
                continue;
            }
            let bytes = bytes_of_user.get(holder.user_id.as_str()).copied().unwrap_or(0);
            if chosen.is_none_or(|(_, most)| bytes > most) {
                chosen = Some((*number, bytes));
            }
        }
        chosen.map(|(number, _)| number)
    }

    fn remove(&mut self, number: u64) -> Option<Holder> {
        let holder = self.by_number.remove(&number)?;
        self.bytes -= holder.bytes;
        Some(holder)
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let removed = lock(&self.all.0).remove(number);
            // This may be the last reference to the connection: it is closed without the lock.
            drop(removed);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{Arc, Connection, LARGE_ANSWER_SAFE, LARGE_ANSWERS_BYTES_MAX, LargeAnswers, lock};
    use socket2::{Domain, Socket, Type};
    use std::io::Read;
    use std::time::Duration;

    const MIB: usize = 1024 * 1024;

    /// A connection, and the client's end.
    fn connection() -> (Arc<Connection>, Socket) {
        let (one, other) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        (Arc::new(Connection::new(one, None, Duration::from_secs(60))), other)
    }

    fn age(answers: &LargeAnswers, count: usize) {
        lock(&answers.0).by_number.values_mut().take(count).for_each(|holder| {
            holder.since -= LARGE_ANSWER_SAFE;
        });
    }

    #[test]
    fn large_answers_share_what_there_is_and_small_ones_need_none_of_it() {
        let answers = LargeAnswers::default();
        let (connection, _other) = connection();
        let admit = |bytes, user| answers.admit(bytes, user, &connection);
        drop(admit(LARGE_ANSWERS_BYTES_MAX + 1, "alice").unwrap());
        let (half, rest) = (admit(16 * MIB, "alice").unwrap(), admit(16 * MIB, "bob").unwrap());
        assert!(admit(64 * 1024, "alice").is_ok() && admit(64 * 1024 + 1, "alice").is_err());
        drop(half);
        assert!(admit(16 * MIB, "alice").is_ok() && admit(16 * MIB + 1, "alice").is_err());
        drop(rest);
        assert_eq!(lock(&answers.0).bytes, 0);
        assert!(lock(&answers.0).by_number.is_empty());
    }

    #[test]
    fn the_answer_that_is_read_longest_makes_room_if_that_is_more_than_a_moment() {
        let answers = LargeAnswers::default();
        let ((slow, mut cut), (quick, mut kept)) = (connection(), connection());
        let held =
            [&slow, &quick, &quick].map(|connection| answers.admit(10 * MIB, "alice", connection).unwrap());
        assert!(answers.admit(10 * MIB, "bob", &quick).is_err(), "none is slow yet");
        age(&answers, 1);
        let taken = answers.admit(10 * MIB, "bob", &quick).unwrap();
        assert_eq!(cut.read(&mut [0]).unwrap(), 0);
        kept.set_nonblocking(true).unwrap();
        assert!(kept.read(&mut [0]).is_err(), "is still connected");
        assert!(answers.admit(10 * MIB, "bob", &quick).is_err(), "the others are recent");
        drop((held, taken));
        assert_eq!(lock(&answers.0).bytes, 0);
    }

    #[test]
    fn the_user_who_holds_most_makes_room_before_one_who_has_held_longer() {
        let answers = LargeAnswers::default();
        let (connection, _other) = connection();
        let _held = [("bob", 9), ("eve", 7), ("eve", 8)]
            .map(|(user_id, size)| answers.admit(size * MIB, user_id, &connection).unwrap());
        age(&answers, 3);
        let left =
            || -> Vec<_> { lock(&answers.0).by_number.values().map(|holder| holder.bytes / MIB).collect() };
        let first = answers.admit(10 * MIB, "alice", &connection).unwrap();
        assert_eq!(left(), [9, 8, 10]);
        // Now bob holds more than eve.
        let second = answers.admit(7 * MIB, "alice", &connection).unwrap();
        assert_eq!(left(), [8, 10, 7]);
        drop((first, second));
    }
}
