//! Keeps the list of admitted connections and the number of pooled threads. When all places are taken, the
//! connection that has been idle longest is closed to make room for a new one. Guarantees: there are never
//! fewer pooled threads than admitted connections, so no connection waits for another one's thread.

use super::connection::Connection;
use crate::limits::DRAIN_IDLE;
use crate::threads::lock;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Instant;

pub struct Registry {
    connections_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How many connections were to be admitted. The id of a connection is this number at its admission.
    asked: u64,
    connections: HashMap<u64, Arc<Connection>>,
    threads: usize,
}

/// The place of one connection in the registry. Dropping it gives the place back.
pub struct Admission {
    registry: Arc<Registry>,
    id: u64,
}

/// How many connections there are, and how many there may be.
pub struct Counts {
    pub idle: usize,
    pub busy: usize,
    pub max: usize,
}

impl Registry {
    pub fn new(connections_max: usize) -> Self {
        Self { connections_max, state: Mutex::default() }
    }

    /// Admits a connection, and evicts an idle one if all places are taken. None if no connection is idle then.
    pub fn admit(self: &Arc<Self>, connection: &Arc<Connection>) -> Option<Admission> {
        let mut state = lock(&self.state);
        state.asked += 1;
        let id = state.asked;
        while state.connections.len() >= self.connections_max {
            if !state.evict_longest_idle(id) {
                return None;
            }
        }
        state.connections.insert(id, Arc::clone(connection));
        Some(Admission { registry: Arc::clone(self), id })
    }

    /// If there are fewer threads than connections, counts one more and returns true: the caller must start it.
    pub fn add_thread(&self) -> bool {
        let mut state = lock(&self.state);
        let is_missing = state.threads < state.connections.len();
        state.threads += usize::from(is_missing);
        is_missing
    }

    /// If there are more threads than connections, counts one less and returns true: the calling thread must
    /// end.
    pub fn remove_spare_thread(&self) -> bool {
        let mut state = lock(&self.state);
        let is_spare = state.threads > state.connections.len();
        state.threads -= usize::from(is_spare);
        is_spare
    }

    /// Takes back [`Self::add_thread`] for a thread that could not be started.
    pub fn undo_add_thread(&self) {
        lock(&self.state).threads -= 1;
    }

    pub fn counts(&self) -> Counts {
        let state = lock(&self.state);
        let idle =
            state.connections.values().filter(|connection| connection.status.idle_since().is_some()).count();
        Counts { idle, busy: state.connections.len() - idle, max: self.connections_max }
    }

    /// A copy of the list of connections, so that the caller can work on them without holding the lock.
    pub fn connections(&self) -> Vec<Arc<Connection>> {
        lock(&self.state).connections.values().cloned().collect()
    }

    /// Ends each connection that has been idle for [`DRAIN_IDLE`] since the service began to stop. A connection
    /// that has been idle for less time is left open, because its client may have sent a request that has not
    /// arrived yet; the answer to that request will say `Connection: close`. Returns true when no connection is
    /// left.
    pub fn drain(&self, stopping_since: Instant) -> bool {
        let connections = self.connections();
        for connection in &connections {
            let idle_since = connection.status.idle_since();
            if idle_since.is_some_and(|since| since.max(stopping_since).elapsed() >= DRAIN_IDLE) {
                connection.end_idleness();
            }
        }
        connections.is_empty()
    }
}

impl Admission {
    /// The number of the connection. No other connection of the registry has it.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Closes the connection that has been idle longest, so that its thread can serve the admitted one. Returns
    /// false if no other connection is idle.
    pub fn free_a_thread(&self) -> bool {
        lock(&self.registry.state).evict_longest_idle(self.id)
    }
}

impl State {
    /// Evicts the connection that has been idle longest, but never the one with the id `new`. Returns false if no
    /// other connection is idle.
    fn evict_longest_idle(&mut self, new: u64) -> bool {
        let others = self.connections.iter().filter(|(id, _)| **id != new);
        let idle = others.filter_map(|(id, one)| Some(Reverse((one.status.idle_since()?, *id))));
        let mut longest_first: BinaryHeap<_> = idle.collect();
        while let Some(Reverse((_, longest_idle))) = longest_first.pop() {
            if self.evict(longest_idle) {
                return true;
            }
        }
        false
    }

    /// Closes and removes a connection that was idle when it was chosen. Returns false if it has become busy
    /// since.
    fn evict(&mut self, id: u64) -> bool {
        let is_evicted = self.connections.get(&id).is_some_and(|connection| connection.evict());
        if is_evicted {
            self.connections.remove(&id);
        }
        is_evicted
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let removed = lock(&self.registry.state).connections.remove(&self.id);
        // Dropped after the lock is released, because this may close the socket.
        drop(removed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::connection::Connection;
    use super::super::connection::tests::{connection, opened_before};
    use super::{Arc, DRAIN_IDLE, HashMap, Instant, Registry, State};
    use std::io::{ErrorKind, Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    /// A connection that has been idle for five seconds, and the client's end of it.
    fn idle() -> (Arc<Connection>, TcpStream) {
        let (connection, other) = opened_before(Duration::from_secs(5));
        (Arc::new(connection), other)
    }

    fn counts(registry: &Registry) -> [usize; 3] {
        let counts = registry.counts();
        [counts.idle, counts.busy, counts.max]
    }

    #[test]
    fn the_connection_that_is_idle_longest_makes_room() {
        let registry = Arc::new(Registry::new(2));
        let (old, new) = (idle().0, connection().0);
        let admissions = [registry.admit(&new), registry.admit(&old), registry.admit(&connection().0)];
        assert!(admissions.iter().all(Option::is_some));
        assert!(old.status.idle_since().is_none() && new.status.idle_since().is_some());
        assert_eq!(counts(&registry), [2, 0, 2]);
        drop(admissions);
        assert_eq!(counts(&registry), [0, 0, 2]);
    }

    #[test]
    fn the_connection_that_is_idle_longest_gives_its_thread() {
        let registry = Arc::new(Registry::new(3));
        let (old, new, busy) = (idle().0, connection().0, connection().0);
        assert!(busy.status.become_busy());
        let [_busy, _old, new_one] =
            [registry.admit(&busy), registry.admit(&old), registry.admit(&new)].map(Option::unwrap);
        assert!(new_one.free_a_thread());
        assert!(old.status.idle_since().is_none() && new.status.idle_since().is_some());
        assert!(!new_one.free_a_thread(), "it is not closed for itself");
        assert_eq!(counts(&registry), [1, 1, 3]);
    }

    #[test]
    fn a_connection_that_becomes_busy_after_it_was_chosen_stays() {
        let [(busy, _), (idle, _)] = [connection(), connection()];
        assert!(busy.status.become_busy());
        let mut state = State { connections: HashMap::from([(1, busy), (2, idle)]), ..State::default() };
        assert!(!state.evict(1) && state.evict(2));
        assert_eq!(state.connections.into_keys().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn a_request_that_has_arrived_is_read_after_the_drain_has_begun() {
        let registry = Arc::new(Registry::new(2));
        let ((old, mut other), (new, _)) = (idle(), connection());
        let admissions = [registry.admit(&old), registry.admit(&new)];
        old.status.set_deadline(Duration::from_secs(5));
        other.write_all(b"G").unwrap();
        assert!(!registry.drain(Instant::now()));
        assert!(
            old.status.idle_since().is_some() && new.status.idle_since().is_some(),
            "the drain has only begun"
        );
        assert!(!registry.drain(Instant::now() - DRAIN_IDLE));
        assert!(old.status.idle_since().is_none() && new.status.idle_since().is_some());
        let mut buffer = [0; 2];
        assert_eq!(old.read(&mut buffer).unwrap(), b"G");
        assert!(old.status.become_busy());
        assert_eq!(old.read(&mut buffer).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        drop(admissions);
        assert!(registry.drain(Instant::now()));
    }

    #[test]
    fn there_is_a_thread_for_each_connection_and_only_a_spare_one_ends() {
        let registry = Arc::new(Registry::new(8));
        assert!(!registry.add_thread() && !registry.remove_spare_thread());
        let admissions = [registry.admit(&connection().0), registry.admit(&connection().0)];
        assert!(registry.add_thread() && registry.add_thread() && !registry.add_thread());
        assert!(!registry.remove_spare_thread());
        drop(admissions);
        let again = registry.admit(&connection().0);
        assert!(!registry.add_thread(), "a thread is there already");
        assert!(registry.remove_spare_thread() && !registry.remove_spare_thread());
        drop(again);
        assert!(registry.remove_spare_thread() && !registry.remove_spare_thread());
        let _admission = registry.admit(&connection().0);
        assert!(registry.add_thread() && !registry.add_thread());
        registry.undo_add_thread();
        assert!(registry.add_thread(), "the thread that could not be started is still missing");
    }

    #[test]
    fn all_connections_of_a_registry_have_their_deadline_enforced() {
        let registry = Arc::new(Registry::new(2));
        let (late, mut other) = idle();
        let _admission = registry.admit(&late);
        registry.connections().iter().for_each(|connection| connection.enforce_deadline());
        other.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_ne!(other.read(&mut [0]).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    }
}
