//! What a panic must not spoil: values behind a Mutex, which are whole at every moment, and whoever
//! has to go on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The one place where a panic ends: it is an error like others.
pub fn guarded<T, E>(work: impl FnOnce() -> Result<T, E>, error: impl FnOnce(String) -> E) -> Result<T, E> {
    let panic = |_| Err(error("BUG: panic, see the line before".to_owned()));
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(panic)
}

#[cfg(test)]
mod tests {
    use super::guarded;

    #[test]
    #[allow(clippy::panic, clippy::unwrap_used)]
    fn a_panic_is_an_error() {
        let outcome: Result<(), String> = guarded(|| panic!("a defect"), |reason| reason);
        assert_eq!(outcome.unwrap_err(), "BUG: panic, see the line before");
    }
}
