//! Starts threads, and keeps a panic from stopping the service: a way to lock a mutex after a panic, the only
//! place that catches panics, and a loop that goes on after a panic.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Locks a mutex, even if a thread has panicked while it held the lock. That is safe here, because in this program
/// every value behind a mutex is consistent after each statement.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does the work, and turns a panic into an error. This is the only place that catches panics.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| "BUG: panic, see the line before".to_owned())
}

/// Starts a thread. Errors: no thread can be started.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

/// Starts a thread that repeats `work` for ever, with a pause after each run. A panic ends only the run in which
/// it happens. Errors: no thread can be started.
pub fn every(pause: Duration, name: &str, mut work: impl FnMut() + Send + 'static) -> io::Result<()> {
    spawn(name, move || {
        loop {
            let _ = guarded(&mut work);
            thread::sleep(pause);
        }
    })
}

#[cfg(test)]
#[allow(clippy::panic, clippy::unwrap_used)]
mod tests {
    use super::{Duration, every, guarded};
    use crate::error::Error;
    use std::sync::mpsc;

    #[test]
    fn a_panic_is_an_error() {
        let outcome: Result<(), String> = guarded(|| panic!("a defect"));
        assert_eq!(outcome.unwrap_err(), "BUG: panic, see the line before");
        assert_eq!(guarded(|| 1), Ok(1));
        let error = guarded(|| panic!("a defect")).map_err(Error::Bug).unwrap_or_else(|error| error);
        assert_eq!(error.entry().1, "INTERNAL_ERROR");
    }

    #[test]
    fn a_thread_that_works_for_ever_goes_on_after_a_panic() {
        let (sender, did) = mpsc::channel();
        every(Duration::ZERO, "test", move || {
            let _ = sender.send(());
            panic!("a defect");
        })
        .unwrap();
        for _ in 0..3 {
            did.recv_timeout(Duration::from_secs(10)).unwrap();
        }
    }
}
