//! The memory of large answers while they are made: a few are made at a time, and others wait for
//! their turn, however many are asked for.

use crate::error::Error;
use crate::limits::{TURN_WAIT, TURNS};
use crate::panic::lock;
use std::sync::{Condvar, Mutex, PoisonError};

pub struct Turns {
    free: Mutex<usize>,
    freed: Condvar,
}

/// The right to make one large answer, or a part of one; given back when it is dropped.
pub struct Turn<'a>(&'a Turns);

impl Turns {
    pub fn new() -> Self {
        Self { free: Mutex::new(TURNS), freed: Condvar::new() }
    }

    /// Waits for a turn. Whoever has one waits for nothing but the database, so turns come back.
    /// Errors: `Unavailable` after [`TURN_WAIT`].
    pub fn take(&self) -> Result<Turn<'_>, Error> {
        let free = lock(&self.free);
        let waited = self.freed.wait_timeout_while(free, TURN_WAIT, |free| *free == 0);
        let (mut free, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *free == 0 {
            return Err(Error::Unavailable("too many large answers are being made".to_owned()));
        }
        *free -= 1;
        Ok(Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{TURNS, Turns, lock};
    use std::sync::{Arc, mpsc};
    use std::thread;
    use std::time::Duration;

    #[test]
    fn a_large_answer_waits_for_its_turn() {
        let all = Arc::new(Turns::new());
        let mut taken: Vec<_> = (0..TURNS).map(|_| all.take().unwrap()).collect();
        assert_eq!(*lock(&all.free), 0);
        let (waiting, (sender, got)) = (Arc::clone(&all), mpsc::channel());
        let waits = thread::spawn(move || {
            let _turn = waiting.take().unwrap();
            sender.send(())
        });
        assert!(got.recv_timeout(Duration::from_millis(50)).is_err());
        taken.pop();
        got.recv_timeout(Duration::from_secs(10)).unwrap();
        waits.join().unwrap().unwrap();
        taken.clear();
        assert_eq!(*lock(&all.free), TURNS);
    }
}
