//! How often a server that allows no more connections is asked for another one: ever more rarely, and
//! the log says so once.

use crate::limits::{FULL_RETRY_EMPTY, FULL_RETRY_MAX, FULL_RETRY_MIN};
use crate::panic::lock;
use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The state since the server, or the role, has had as many connections as it may have.
#[derive(Default)]
pub struct Backoff(Mutex<Full>);

#[derive(Default)]
struct Full {
    retry_at: Option<Instant>,
    pause: Duration,
    /// The log has said so.
    is_known: bool,
}

impl Backoff {
    /// Errors: the server is full, and it is not yet time to ask again.
    pub fn check(&self) -> io::Result<()> {
        let mut full = lock(&self.0);
        let now = Instant::now();
        if full.retry_at.is_some_and(|at| now < at) {
            return Err(io::Error::other("the database allows no more connections"));
        }
        // Of several threads one asks.
        full.retry_at = full.retry_at.map(|_| now + full.pause);
        Ok(())
    }

    /// The pause doubles up to `FULL_RETRY_MAX`; without any connection it stays short, because then
    /// nothing can be served.
    pub fn note_refused(&self, open: u32, wanted: u32, reason: &str) {
        let mut full = lock(&self.0);
        if !full.is_known {
            log::warn!(connections = open, wanted, reason; "the database allows no more connections");
        }
        full.pause = match open {
            0 => FULL_RETRY_EMPTY,
            _ => (full.pause * 2).clamp(FULL_RETRY_MIN, FULL_RETRY_MAX),
        };
        full.retry_at = Some(Instant::now() + full.pause);
        full.is_known = true;
    }

    /// When the pool has all its connections, the next refusal is logged again.
    pub fn note_connected(&self, open: u32, wanted: u32) {
        let mut full = lock(&self.0);
        full.retry_at = None;
        if open >= wanted {
            *full = Full::default();
        }
    }
}
