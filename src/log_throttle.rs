//! Limits log lines that clients or a lack of resources could cause at any rate.

use crate::limits::LOG_INTERVAL;
use crate::threads::lock;
use std::mem;
use std::sync::Mutex;
use std::time::Instant;

/// Lets at most one line per [`LOG_INTERVAL`] through.
#[derive(Default)]
pub struct Throttle(Mutex<State>);

#[derive(Default)]
struct State {
    last_line: Option<Instant>,
    left_out: u64,
}

impl Throttle {
    /// Asks whether a line may be logged now. Returns how many lines were left out since the last one, or None if
    /// this one is left out too.
    pub fn next_line(&self) -> Option<u64> {
        let mut state = lock(&self.0);
        if state.last_line.is_some_and(|at| at.elapsed() < LOG_INTERVAL) {
            state.left_out += 1;
            return None;
        }
        state.last_line = Some(Instant::now());
        Some(mem::take(&mut state.left_out))
    }
}
