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
    /// The last attempt; none while connections are allowed.
    asked: Option<Instant>,
    /// The time until the next attempt, while the pool has a connection.
    pause: Duration,
    /// The log has said so.
    is_known: bool,
}

impl Backoff {
    /// Errors: the server is full, and it is not yet time to ask again. The pause stays short without any
    /// connection, also where it was set while there were some: then nothing can be served.
    pub fn check(&self, open: u32) -> io::Result<()> {
        let mut full = lock(&self.0);
        let pause = if open == 0 { full.pause.min(FULL_RETRY_EMPTY) } else { full.pause };
        if full.asked.is_some_and(|at| at.elapsed() < pause) {
            return Err(io::Error::other("the database allows no more connections"));
        }
        // Of several threads one asks.
        full.asked = full.asked.map(|_| Instant::now());
        Ok(())
    }

    /// The pause doubles up to `FULL_RETRY_MAX`, and begins anew when the pool has no connection.
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

    /// When the pool has all its connections, the next refusal is logged again.
    pub fn note_connected(&self, open: u32, wanted: u32) {
        let mut full = lock(&self.0);
        full.asked = None;
        if open >= wanted {
            *full = Full::default();
        }
    }
}
