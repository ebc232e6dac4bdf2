//! Decides how often the pool asks for another connection while the server allows no more: after ever longer
//! pauses. The log says once that the server allows no more connections.

use crate::limits::{FULL_RETRY_EMPTY, FULL_RETRY_MAX, FULL_RETRY_MIN};
use crate::threads::lock;
use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What is known since the server or the role reached its connection limit.
#[derive(Default)]
pub struct Backoff(Mutex<Full>);

#[derive(Default)]
struct Full {
    /// The last attempt. None while connections are allowed.
    asked: Option<Instant>,
    /// The time until the next attempt, while the pool has a connection.
    pause: Duration,
    /// Whether the log has said that no more connections are allowed.
    is_known: bool,
}

impl Backoff {
    /// Whether another connection may be attempted now; `open` is how many there are. Errors: the server allows no
    /// more, and the pause is not over yet. If the pool has no connection at all, the pause is always short,
    /// because then no request can be served.
    pub fn check(&self, open: u32) -> io::Result<()> {
        let mut full = lock(&self.0);
        let pause = if open == 0 { full.pause.min(FULL_RETRY_EMPTY) } else { full.pause };
        if full.asked.is_some_and(|at| at.elapsed() < pause) {
            return Err(io::Error::other("the database allows no more connections"));
        }
        // The pause begins anew, so that only one of several threads makes the attempt.
        full.asked = full.asked.map(|_| Instant::now());
        Ok(())
    }

    /// Records that the server refused a connection. The pause doubles up to `FULL_RETRY_MAX`; it starts again from
    /// the shortest one if the pool has no connection. `wanted` is the size of the pool.
    pub fn note_refused(&self, open: u32, wanted: u32, reason: &str) {
        let mut full = lock(&self.0);
        if !full.is_known {
            log::warn!(connections = open, wanted, reason; "the database allows no more connections");
        }
        full.pause = match open {
            0 => FULL_RETRY_EMPTY,
            _ => (full.pause * 2).clamp(FULL_RETRY_MIN, FULL_RETRY_MAX),
        };
        full.asked = Some(Instant::now());
        full.is_known = true;
    }

    /// Records that a connection was made. Once the pool has all its connections, the next refusal is logged again.
    pub fn note_connected(&self, open: u32, wanted: u32) {
        let mut full = lock(&self.0);
        full.asked = None;
        if open >= wanted {
            *full = Full::default();
        }
    }
}
