//! Which connections there are, and room for honest clients: at the limit the one that is idle
//! longest is closed, and late ones are ended.

use super::client::Connection;
use crate::panic::lock;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The descriptor limit has to bear so many.
const CONNECTIONS_MIN: usize = 32;
/// For a request that is on its way when the service stops.
const LAST_CHANCE: Duration = Duration::from_millis(500);

pub struct Registry {
    max: usize,
    connections: Mutex<HashMap<u64, Arc<Connection>>>,
}

/// Of a connection; given back with the value.
pub struct Place {
    registry: Arc<Registry>,
    id: u64,
}

impl Registry {
    /// For as many as are wanted, or as the descriptor limit bears when the service itself needs
    /// `own`. Errors: it bears hardly any.
    pub fn new(wanted: usize, own: usize) -> Result<Self, String> {
        // "Max open files <soft> <hard> files", proc(5).
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        let soft = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(usize::MAX);
        let room = soft.saturating_sub(own);
        if room < CONNECTIONS_MIN {
            let needed = own + CONNECTIONS_MIN;
            return Err(format!("the limit of open files (ulimit -n) is {soft}; make it {needed} or more"));
        }
        Ok(Self { max: wanted.min(room), connections: Mutex::default() })
    }

    /// None when all are taken and none is idle.
    pub fn admit(self: &Arc<Self>, id: u64, connection: &Arc<Connection>) -> Option<Place> {
        let mut connections = lock(&self.connections);
        while connections.len() >= self.max {
            let idle = connections.iter().filter_map(|(id, one)| Some((one.idle_since()?, *id)));
            let (_, id) = idle.min()?;
            evict(&mut connections, id);
        }
        connections.insert(id, Arc::clone(connection));
        Some(Place { registry: Arc::clone(self), id })
    }

    /// Idle, busy, and at most.
    pub fn counts(&self) -> [f64; 3] {
        let connections = lock(&self.connections);
        let idle = connections.values().filter(|connection| connection.idle_since().is_some()).count();
        [idle, connections.len() - idle, self.max].map(|count| count as f64)
    }

    pub fn enforce_deadlines(&self) {
        lock(&self.connections).values().for_each(|connection| connection.enforce_deadline());
    }

    /// Closes those that have been idle for a while: others may be about to ask, and are told with
    /// their answer that it is the last. True when none is left.
    pub fn drain(&self) -> bool {
        let connections = lock(&self.connections);
        let is_due = |since: Instant| since.elapsed() >= LAST_CHANCE;
        let idle = connections.values().filter(|connection| connection.idle_since().is_some_and(is_due));
        idle.for_each(|connection| connection.end_idleness());
        connections.is_empty()
    }
}

/// Not if it has turned busy since it was chosen.
fn evict(connections: &mut HashMap<u64, Arc<Connection>>, id: u64) {
    if connections.get(&id).is_some_and(|connection| connection.evict()) {
        connections.remove(&id);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.registry.connections).remove(&self.id);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::client::tests::{client, connection, late};
    use super::super::client::{Client, Connection};
    use super::{Arc, Duration, HashMap, Registry, evict};
    use std::io::{ErrorKind, Read, Write};
    use std::net::TcpStream;

    /// Idle for five seconds, and its other end.
    fn idle() -> (Arc<Connection>, TcpStream) {
        let (connection, other) = late(Duration::from_secs(5));
        (Arc::new(connection), other)
    }

    #[test]
    fn the_longest_idle_makes_room() {
        let registry = Arc::new(Registry::new(2, 0).unwrap());
        let (old, new) = (idle().0, connection());
        let places = [registry.admit(1, &new), registry.admit(2, &old), registry.admit(3, &connection())];
        assert!(places.iter().all(Option::is_some));
        assert!(old.idle_since().is_none() && new.idle_since().is_some());
        assert_eq!(registry.counts(), [2.0, 0.0, 2.0]);
        drop(places);
        assert_eq!(registry.counts(), [0.0, 0.0, 2.0]);
    }

    #[test]
    fn who_turns_busy_after_being_chosen_stays() {
        let [busy, idle] = [connection(), connection()];
        let (client, _) = client(&busy, b"", 1);
        assert!(client.leave_idleness());
        let mut connections = HashMap::from([(1, busy), (2, idle)]);
        [1, 2].into_iter().for_each(|id| evict(&mut connections, id));
        assert_eq!(connections.into_keys().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn who_is_about_to_ask_has_a_last_chance() {
        let registry = Arc::new(Registry::new(2, 0).unwrap());
        let ((old, mut other), new) = (idle(), connection());
        let places = [registry.admit(1, &old), registry.admit(2, &new)];
        old.set_deadline(Duration::from_secs(5));
        other.write_all(b"G").unwrap();
        assert!(!registry.drain());
        assert!(old.idle_since().is_none() && new.idle_since().is_some());
        // Who has asked already, and was not noticed yet, is heard.
        let mut client = Client::new(&old, None, &Arc::default()).unwrap();
        let mut buffer = [0; 2];
        assert_eq!(client.read(&mut buffer).unwrap(), b"G");
        assert!(client.leave_idleness());
        assert_eq!(client.read(&mut buffer).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        drop(places);
        assert!(registry.drain());
    }

    #[test]
    fn who_is_late_is_ended() {
        let registry = Arc::new(Registry::new(2, 0).unwrap());
        let (late, mut other) = idle();
        let _place = registry.admit(1, &late);
        registry.enforce_deadlines();
        other.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_ne!(other.read(&mut [0]).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    }
}
