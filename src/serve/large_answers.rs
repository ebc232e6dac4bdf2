//! Limits the memory of large answers while they are written to their clients: all of them together may
//! take a fixed number of bytes; small answers are not counted. Guarantees: neither a client that reads
//! slowly nor a user who requests many large answers keeps other users from their answers. When all the
//! memory is taken, the user who holds the most loses the oldest answer. See [`Shares::to_cut_off`].

use crate::error::Error;
use crate::gate::Connection;
use crate::limits::{LARGE_ANSWER_SAFE, LARGE_ANSWER_WAIT, LARGE_ANSWERS_BYTES_MAX, SMALL_ANSWER_BYTES_MAX};
use crate::threads::lock;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

/// Counts the memory of all large answers: at most [`LARGE_ANSWERS_BYTES_MAX`], or one larger answer.
#[derive(Default)]
pub struct LargeAnswers {
    shares: Mutex<Shares>,
    /// Signalled when memory is given back.
    freed: Condvar,
}

#[derive(Default)]
struct Shares {
    bytes: usize,
    next_number: u64,
    /// The key is the share's number. Numbers increase, so the oldest share comes first.
    by_number: BTreeMap<u64, Holder>,
}

struct Holder {
    user_id: String,
    bytes: usize,
    since: Instant,
    connection: Arc<Connection>,
    /// True once the connection is cut off. The memory counts until the connection's thread gives it back.
    is_cut: bool,
}

/// The memory that one answer takes. Dropping the share gives the memory back.
pub struct Share<'a> {
    all: &'a LargeAnswers,
    number: u64,
}

impl LargeAnswers {
    /// Counts an answer of `bytes` bytes that is about to be written. If there is too little memory, cuts off
    /// other answers and waits until their threads give their memory back. Errors: `Unavailable` if cutting
    /// off every answer that may be cut off does not make enough room, or if the memory is not given back
    /// within [`LARGE_ANSWER_WAIT`].
    pub fn admit(
        &self,
        bytes: usize,
        user_id: &str,
        connection: &Arc<Connection>,
    ) -> Result<Option<Share<'_>>, Error> {
        if bytes <= SMALL_ANSWER_BYTES_MAX {
            return Ok(None);
        }
        let refused = || Error::Unavailable("too many large answers are being read".to_owned());
        let end = Instant::now() + LARGE_ANSWER_WAIT;
        let mut shares = lock(&self.shares);
        while !fits(shares.bytes, bytes) {
            for number in shares.to_cut_off(user_id, bytes).ok_or_else(refused)? {
                shares.cut_off(number);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(refused());
            }
            shares = self.freed.wait_timeout(shares, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let number = shares.next_number;
        let (user_id, connection) = (user_id.to_owned(), Arc::clone(connection));
        let holder = Holder { user_id, bytes, since: Instant::now(), connection, is_cut: false };
        shares.by_number.insert(number, holder);
        shares.next_number += 1;
        shares.bytes += bytes;
        Ok(Some(Share { all: self, number }))
    }
}

/// Whether `bytes` more fit in addition to `taken`. An answer larger than the limit fits only when nothing
/// else is taken.
fn fits(taken: usize, bytes: usize) -> bool {
    taken == 0 || taken + bytes <= LARGE_ANSWERS_BYTES_MAX
}

impl Shares {
    fn cut_off(&mut self, number: u64) {
        if let Some(holder) = self.by_number.get_mut(&number) {
            log::warn!("a reader of a large answer is cut off, to make room");
            holder.is_cut = true;
            holder.connection.cut();
        }
    }

    /// The numbers of the shares to cut off, in addition to those already cut off, so that an answer of
    /// `bytes` bytes to `user_id` fits. None if cutting off all that may be cut off is not enough. A share may
    /// be cut off in two cases: its user holds more than `user_id` would hold with the new answer; or the
    /// share is older than [`LARGE_ANSWER_SAFE`] and its user holds at least as much as `user_id` holds now.
    /// The user who holds the most loses shares first, the oldest share before newer ones.
    fn to_cut_off(&self, user_id: &str, bytes: usize) -> Option<Vec<u64>> {
        let mut staying = BTreeMap::new();
        let mut held = HashMap::from([(user_id, 0)]);
        for (number, holder) in &self.by_number {
            if !holder.is_cut {
                staying.insert(*number, holder);
                *held.entry(holder.user_id.as_str()).or_default() += holder.bytes;
            }
        }
        let mut chosen = Vec::new();
        while !fits(held.values().sum(), bytes) {
            let own = held.get(user_id).copied().unwrap_or_default();
            let (mut next, mut most) = (None, 0);
            // From the oldest to the newest, so that of several with the same amount the oldest is chosen.
            for (number, holder) in &staying {
                let theirs = held.get(holder.user_id.as_str()).copied().unwrap_or_default();
                let is_slow = holder.since.elapsed() >= LARGE_ANSWER_SAFE;
                let may_be_cut = theirs > own + bytes || theirs >= own && is_slow;
                if may_be_cut && theirs > most {
                    (next, most) = (Some(*number), theirs);
                }
            }
            let number = next?;
            let holder = staying.remove(&number)?;
            *held.entry(holder.user_id.as_str()).or_default() -= holder.bytes;
            chosen.push(number);
        }
        Some(chosen)
    }

    fn remove(&mut self, number: u64) -> Option<Holder> {
        let holder = self.by_number.remove(&number)?;
        self.bytes -= holder.bytes;
        Some(holder)
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let removed = lock(&self.all.shares).remove(self.number);
        self.all.freed.notify_all();
        // Dropped only after the lock is released: if this is the last reference to the connection, the drop closes
        // its socket.
        drop(removed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{Arc, Connection, LARGE_ANSWER_SAFE, LARGE_ANSWERS_BYTES_MAX, LargeAnswers, lock};
    use socket2::{Domain, Socket, Type};
    use std::io::Read;
    use std::thread::{self, Scope};
    use std::time::Duration;

    const MIB: usize = 1024 * 1024;

    /// A connection, and the client's end.
    fn connection() -> (Arc<Connection>, Socket) {
        let (one, other) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        (Arc::new(Connection::new(one, None, Duration::from_secs(60))), other)
    }

    /// Starts a thread that reads an answer of `size` MiB for the user until its connection is cut off.
    fn read<'s>(scope: &'s Scope<'s, '_>, answers: &'s LargeAnswers, user_id: &str, size: usize) {
        let (connection, mut client) = connection();
        // If the test fails, nothing cuts the connection off, and this timeout ends the thread.
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let share = answers.admit(size * MIB, user_id, &connection).unwrap();
        scope.spawn(move || {
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
            drop(share);
        });
    }

    fn age(answers: &LargeAnswers, count: usize) {
        lock(&answers.shares).by_number.values_mut().take(count).for_each(|holder| {
            holder.since -= LARGE_ANSWER_SAFE;
        });
    }

    fn held(answers: &LargeAnswers) -> Vec<usize> {
        lock(&answers.shares).by_number.values().map(|holder| holder.bytes / MIB).collect()
    }

    fn cut_off_all(answers: &LargeAnswers) {
        lock(&answers.shares).by_number.values().for_each(|holder| holder.connection.cut());
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
        assert_eq!(lock(&answers.shares).bytes, 0);
        assert!(lock(&answers.shares).by_number.is_empty());
    }

    #[test]
    fn the_answer_that_is_read_longest_makes_room_if_that_is_more_than_a_moment() {
        let answers = LargeAnswers::default();
        thread::scope(|scope| {
            for size in [9, 10, 11] {
                read(scope, &answers, "alice", size);
            }
            let (connection, _client) = connection();
            let admit = || answers.admit(10 * MIB, "alice", &connection);
            assert!(admit().is_err(), "none is slow yet");
            age(&answers, 1);
            let _fourth = admit().unwrap();
            assert_eq!(held(&answers), [10, 11, 10]);
            assert!(admit().is_err(), "the others are recent");
            cut_off_all(&answers);
        });
        assert_eq!(lock(&answers.shares).bytes, 0);
    }

    #[test]
    fn a_user_who_asks_for_ever_more_answers_leaves_room_for_others() {
        let answers = LargeAnswers::default();
        thread::scope(|scope| {
            for size in [9, 10, 11] {
                read(scope, &answers, "eve", size);
            }
            let (connection, _client) = connection();
            let admit = || answers.admit(10 * MIB, "bob", &connection);
            let first = admit().unwrap();
            assert_eq!(held(&answers), [10, 11, 10]);
            // Eve holds 21 MiB, and bob would hold 20.
            let second = admit().unwrap();
            assert_eq!(held(&answers), [11, 10, 10]);
            assert!(admit().is_err(), "bob would hold the most");
            drop((first, second));
            cut_off_all(&answers);
        });
    }

    #[test]
    fn a_user_who_holds_most_cuts_off_nobody_who_is_slow() {
        let answers = LargeAnswers::default();
        thread::scope(|scope| {
            read(scope, &answers, "bob", 1);
            age(&answers, 1);
            for size in [10, 10, 10] {
                read(scope, &answers, "eve", size);
            }
            let (connection, _client) = connection();
            assert!(answers.admit(2 * MIB, "eve", &connection).is_err());
            assert_eq!(held(&answers), [1, 10, 10, 10]);
            cut_off_all(&answers);
        });
    }

    #[test]
    fn nobody_is_cut_off_where_that_is_not_enough() {
        let answers = LargeAnswers::default();
        thread::scope(|scope| {
            read(scope, &answers, "bob", 1);
            age(&answers, 1);
            for user_id in ["a", "b", "c", "d", "e"] {
                read(scope, &answers, user_id, 6);
            }
            let (connection, _client) = connection();
            assert!(answers.admit(7 * MIB, "alice", &connection).is_err());
            assert_eq!(lock(&answers.shares).by_number.values().filter(|holder| holder.is_cut).count(), 0);
            cut_off_all(&answers);
        });
    }

    #[test]
    fn memory_counts_until_it_is_given_back() {
        let answers = LargeAnswers::default();
        let ((stuck, _one), (connection, _other)) = (connection(), connection());
        let share = answers.admit(32 * MIB, "alice", &stuck).unwrap();
        age(&answers, 1);
        assert!(answers.admit(MIB, "bob", &connection).is_err(), "alice's thread still has it");
        drop(share);
        assert!(answers.admit(MIB, "bob", &connection).is_ok());
    }

    #[test]
    fn the_user_who_holds_most_makes_room_before_one_who_has_held_longer() {
        let answers = LargeAnswers::default();
        thread::scope(|scope| {
            for (user_id, size) in [("bob", 9), ("eve", 7), ("eve", 8)] {
                read(scope, &answers, user_id, size);
            }
            age(&answers, 3);
            read(scope, &answers, "alice", 10);
            assert_eq!(held(&answers), [9, 8, 10], "eve held 15");
            read(scope, &answers, "carol", 7);
            assert_eq!(held(&answers), [9, 8, 7], "alice held 10");
            cut_off_all(&answers);
        });
    }
}
