//! A semaphore that serves threads in the order in which they came: a permit that is given back belongs at once
//! to the thread that has waited longest. With only a lock and a condition variable, a thread that comes later
//! would often take the permit first, because it is already running, and the woken thread would wait again.

use crate::threads::lock;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// A fixed number of permits.
pub struct Semaphore(Mutex<State>);

struct State {
    /// The number of permits that nobody holds. It is 0 while threads wait.
    free: usize,
    /// The waiting threads. The one that has waited longest comes first.
    waiting: VecDeque<Arc<Waiter>>,
}

struct Waiter {
    thread: Thread,
    has_permit: AtomicBool,
}

/// One permit. Dropping it gives it back.
pub struct Permit<'s>(&'s Semaphore);

impl Semaphore {
    pub fn new(permits: usize) -> Self {
        Self(Mutex::new(State { free: permits, waiting: VecDeque::new() }))
    }

    /// Waits at most `patience` for a permit. None if there was none in that time.
    pub fn acquire(&self, patience: Duration) -> Option<Permit<'_>> {
        let waiter = {
            let mut state = lock(&self.0);
            if state.free > 0 {
                state.free -= 1;
                return Some(Permit(self));
            }
            let waiter = Arc::new(Waiter { thread: thread::current(), has_permit: AtomicBool::new(false) });
            state.waiting.push_back(Arc::clone(&waiter));
            waiter
        };
        let end = Instant::now() + patience;
        while !waiter.has_permit.load(SeqCst) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return self.give_up(&waiter);
            }
            thread::park_timeout(left);
        }
        Some(Permit(self))
    }

    /// Ends a wait whose time is over. Returns the permit if it came at the last moment.
    fn give_up(&self, waiter: &Arc<Waiter>) -> Option<Permit<'_>> {
        lock(&self.0).waiting.retain(|other| !Arc::ptr_eq(other, waiter));
        waiter.has_permit.load(SeqCst).then(|| Permit(self))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.0);
        let Some(next) = state.waiting.pop_front() else {
            state.free += 1;
            return;
        };
        next.has_permit.store(true, SeqCst);
        drop(state);
        next.thread.unpark();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{Arc, AtomicBool, Duration, Semaphore, Waiter, lock, thread};
    use std::sync::mpsc;

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn there_are_as_many_permits_as_were_given() {
        let semaphore = Semaphore::new(2);
        let held = [semaphore.acquire(Duration::ZERO).unwrap(), semaphore.acquire(Duration::ZERO).unwrap()];
        assert!(semaphore.acquire(Duration::from_millis(20)).is_none());
        assert!(lock(&semaphore.0).waiting.is_empty(), "a wait that has ended is forgotten");
        drop(held);
        assert_eq!(lock(&semaphore.0).free, 2);
    }

    #[test]
    fn a_permit_that_comes_at_the_last_moment_is_not_lost() {
        let semaphore = Semaphore::new(0);
        let waiter = Arc::new(Waiter { thread: thread::current(), has_permit: AtomicBool::new(true) });
        drop(semaphore.give_up(&waiter));
        assert_eq!(lock(&semaphore.0).free, 1);
    }

    #[test]
    fn a_permit_goes_to_the_longest_wait_and_to_nobody_who_comes_later() {
        let semaphore = Arc::new(Semaphore::new(1));
        let held = semaphore.acquire(Duration::ZERO).unwrap();
        let (sender, served) = mpsc::channel();
        for number in 0..3 {
            let (waiting, sender) = (Arc::clone(&semaphore), sender.clone());
            thread::spawn(move || {
                let permit = waiting.acquire(LONG).unwrap();
                let (release, released) = mpsc::channel::<()>();
                sender.send((number, release)).unwrap();
                let _ = released.recv();
                drop(permit);
            });
            while lock(&semaphore.0).waiting.len() <= number {
                thread::yield_now();
            }
        }
        drop(held);
        for number in 0..3 {
            assert!(semaphore.acquire(Duration::ZERO).is_none(), "it belongs to a thread that waited");
            let (first, release) = served.recv_timeout(LONG).unwrap();
            assert_eq!(first, number);
            drop(release);
        }
        assert!(semaphore.acquire(LONG).is_some());
    }
}
