//! The memory of large answers. While they are made, it is that of a few, who take turns. While they
//! are written, all share so many bytes; small ones are as many as there are clients. Guarantees:
//! nobody keeps others from theirs by reading slowly. Where all is taken, the user who holds most loses
//! what is held longest, if that is more than a moment.

use crate::error::Error;
use crate::gate::Connection;
use crate::panic::lock;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

const SMALL_BYTES_MAX: usize = 64 * 1024;
const LARGE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// In this time a client reads 4 MiB at 32 Mbit/s.
const MOMENT: Duration = Duration::from_secs(1);
/// Large answers, or parts of them, that are made at once, however many are asked for.
const TURNS: usize = 4;
const TURN_WAIT: Duration = Duration::from_secs(5);

pub struct Rooms {
    held: Mutex<Held>,
    free_turns: Mutex<usize>,
    turn_freed: Condvar,
}

#[derive(Default)]
struct Held {
    bytes: usize,
    next: u64,
    by_age: BTreeMap<u64, Holder>,
}

struct Holder {
    user_id: String,
    bytes: usize,
    since: Instant,
    /// None until writing begins.
    reader: Option<Arc<Connection>>,
}

/// So much memory, given back with the value.
pub struct Room<'a>(&'a Rooms, Option<u64>);

/// To make a large answer, or a part of one; given back with the value.
pub struct Turn<'a>(&'a Rooms);

impl Rooms {
    pub fn new() -> Self {
        Self { held: Mutex::default(), free_turns: Mutex::new(TURNS), turn_freed: Condvar::new() }
    }

    /// Waits for it; who holds one waits for nothing but the database. Errors: `Unavailable`.
    pub fn turn(&self) -> Result<Turn<'_>, Error> {
        let free = lock(&self.free_turns);
        let waited = self.turn_freed.wait_timeout_while(free, TURN_WAIT, |free| *free == 0);
        let (mut free, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let full = || Error::Unavailable("too many large answers are being made".to_owned());
        *free = free.checked_sub(1).ok_or_else(full)?;
        Ok(Turn(self))
    }

    /// Errors: `Unavailable` while other large answers take it all, none of them for long.
    pub fn take(&self, bytes: usize, user_id: &str) -> Result<Room<'_>, Error> {
        if bytes <= SMALL_BYTES_MAX {
            return Ok(Room(self, None));
        }
        let mut held = lock(&self.held);
        while held.bytes > 0 && held.bytes + bytes > LARGE_BYTES_MAX {
            let is_slow =
                |(_, holder): &(_, &Holder)| holder.reader.is_some() && holder.since.elapsed() >= MOMENT;
            let mut shares = HashMap::new();
            for holder in held.by_age.values() {
                *shares.entry(&holder.user_id).or_default() += holder.bytes;
            }
            let share = |(_, holder): &(_, &Holder)| shares.get(&holder.user_id).copied().unwrap_or(0);
            // Of equals, `max_by_key` takes the last.
            let slowest = held.by_age.iter().rev().filter(is_slow).max_by_key(share);
            let full = || Error::Unavailable("too many large answers are being read".to_owned());
            let number = *slowest.ok_or_else(full)?.0;
            if let Some(reader) = held.remove(number) {
                log::warn!("a slow reader of a large answer is cut off, to make room");
                reader.cut();
            }
        }
        held.bytes += bytes;
        held.next += 1;
        let (number, user_id) = (held.next, user_id.to_owned());
        held.by_age.insert(number, Holder { user_id, bytes, since: Instant::now(), reader: None });
        Ok(Room(self, Some(number)))
    }
}

impl Held {
    fn remove(&mut self, number: u64) -> Option<Arc<Connection>> {
        let holder = self.by_age.remove(&number)?;
        self.bytes -= holder.bytes;
        holder.reader
    }
}

impl Room<'_> {
    /// From now on this one may be cut off.
    pub fn is_read_by(&self, reader: &Arc<Connection>) {
        let mut held = lock(&self.0.held);
        if let Some(holder) = self.1.and_then(|number| held.by_age.get_mut(&number)) {
            holder.reader = Some(Arc::clone(reader));
        }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.1.and_then(|number| lock(&self.0.held).remove(number));
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.0.free_turns) += 1;
        self.0.turn_freed.notify_one();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{Arc, Connection, Duration, LARGE_BYTES_MAX, MOMENT, Rooms, TURNS, lock};
    use socket2::{Domain, Socket, Type};
    use std::io::Read;
    use std::sync::mpsc;
    use std::thread;

    const MIB: usize = 1024 * 1024;

    /// And its other end.
    fn connection() -> (Arc<Connection>, Socket) {
        let (one, other) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        (Arc::new(Connection::new(one, Duration::from_secs(60))), other)
    }

    #[test]
    fn large_answers_share_what_there_is_and_small_ones_need_none_of_it() {
        let rooms = Rooms::new();
        // One that is larger than all of it has it alone.
        drop(rooms.take(LARGE_BYTES_MAX + 1, "alice").unwrap());
        let (half, rest) = (rooms.take(16 * MIB, "alice").unwrap(), rooms.take(16 * MIB, "bob").unwrap());
        assert!(rooms.take(64 * 1024, "alice").is_ok() && rooms.take(64 * 1024 + 1, "alice").is_err());
        drop(half);
        assert!(rooms.take(16 * MIB, "alice").is_ok() && rooms.take(16 * MIB + 1, "alice").is_err());
        drop(rest);
        assert_eq!(lock(&rooms.held).bytes, 0);
        assert!(lock(&rooms.held).by_age.is_empty());
    }

    #[test]
    fn who_has_read_longest_and_for_more_than_a_moment_makes_room() {
        let rooms = Rooms::new();
        let sizes = [10 * MIB, 10 * MIB, 10 * MIB];
        let [unread, slow, quick] = sizes.map(|bytes| rooms.take(bytes, "alice").unwrap());
        let ((reader, mut cut), (other, mut kept)) = (connection(), connection());
        slow.is_read_by(&reader);
        quick.is_read_by(&other);
        assert!(rooms.take(10 * MIB, "bob").is_err(), "none is slow yet");
        let begun: Vec<_> = lock(&rooms.held).by_age.keys().copied().take(2).collect();
        for number in begun {
            lock(&rooms.held).by_age.get_mut(&number).unwrap().since -= MOMENT;
        }
        let taken = rooms.take(10 * MIB, "bob").unwrap();
        assert_eq!(cut.read(&mut [0]).unwrap(), 0);
        kept.set_nonblocking(true).unwrap();
        assert!(kept.read(&mut [0]).is_err(), "is still connected");
        assert!(rooms.take(10 * MIB, "bob").is_err(), "what nobody reads yet is kept");
        drop((unread, slow, quick, taken));
        assert_eq!(lock(&rooms.held).bytes, 0);
    }

    #[test]
    fn who_holds_most_makes_room_before_who_has_held_longer() {
        let rooms = Rooms::new();
        let holders = [("bob", 9), ("eve", 7), ("eve", 8)];
        let _held = holders.map(|(user_id, size)| {
            let room = rooms.take(size * MIB, user_id).unwrap();
            room.is_read_by(&connection().0);
            room
        });
        lock(&rooms.held).by_age.values_mut().for_each(|holder| holder.since -= MOMENT);
        let left =
            |_taken: &_| lock(&rooms.held).by_age.values().map(|one| one.bytes / MIB).collect::<Vec<_>>();
        let first = rooms.take(10 * MIB, "alice").unwrap();
        assert_eq!(left(&first), [9, 8, 10]);
        // Now bob holds more than eve.
        assert_eq!(left(&rooms.take(7 * MIB, "alice").unwrap()), [8, 10, 7]);
    }

    #[test]
    fn turns_are_waited_for() {
        let rooms = Arc::new(Rooms::new());
        let mut turns: Vec<_> = (0..TURNS).map(|_| rooms.turn().unwrap()).collect();
        assert_eq!(*lock(&rooms.free_turns), 0);
        let (waiting, (sender, got)) = (Arc::clone(&rooms), mpsc::channel());
        let waits = thread::spawn(move || {
            let _turn = waiting.turn().unwrap();
            sender.send(())
        });
        assert!(got.recv_timeout(Duration::from_millis(50)).is_err());
        turns.pop();
        got.recv_timeout(Duration::from_secs(10)).unwrap();
        waits.join().unwrap().unwrap();
        turns.clear();
        assert_eq!(*lock(&rooms.free_turns), TURNS);
    }
}
