//! The phase and the deadline of one connection, which several threads read and change. The lock is never held
//! during a system call on the socket, so no thread waits here for a client.

use crate::threads::lock;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The state of a connection, which all threads share.
pub struct Status(Mutex<Inner>);

struct Inner {
    phase: Phase,
    /// When the connection became idle or began to linger.
    idle_since: Instant,
    deadline: Instant,
    /// True once another thread has shut down the reading side of the socket, so that no read waits any more.
    is_reading_ended: bool,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Phase {
    /// No byte of the next request has been read yet.
    Idle,
    /// From the first byte of a request to the end of its answer.
    Busy,
    /// The service stops, and the connection was idle. If a request has already arrived, it is still answered, as
    /// the last one.
    Ending,
    /// Closed by another thread to make room.
    Evicted,
    /// The last answer is written. Bytes that the client still sends are read and dropped.
    Lingering,
}

impl Status {
    /// The status of a new connection, whose first request must begin within `time`.
    pub fn new(time: Duration) -> Self {
        let now = Instant::now();
        let deadline = now + time;
        Self(Mutex::new(Inner { phase: Phase::Idle, idle_since: now, deadline, is_reading_ended: false }))
    }

    /// Sets the deadline to `time` from now. It holds for all reads and writes until the next call.
    pub fn set_deadline(&self, time: Duration) {
        lock(&self.0).deadline = Instant::now() + time;
    }

    /// The time since the deadline. None before the deadline.
    pub fn overdue(&self) -> Option<Duration> {
        Instant::now().checked_duration_since(lock(&self.0).deadline)
    }

    /// Since when the connection has been waiting for a request or lingering. None in every other phase.
    pub fn idle_since(&self) -> Option<Instant> {
        let inner = lock(&self.0);
        let is_idle = matches!(inner.phase, Phase::Idle | Phase::Lingering);
        if is_idle { Some(inner.idle_since) } else { None }
    }

    /// Whether this is the phase at the moment.
    pub fn is(&self, phase: Phase) -> bool {
        lock(&self.0).phase == phase
    }

    /// Marks the connection as busy with a request. Returns false if it was evicted while it was idle.
    pub fn become_busy(&self) -> bool {
        self.change(&[Phase::Idle, Phase::Ending], Phase::Busy)
    }

    /// Marks a busy connection as idle. Its next request must begin within `time`.
    pub fn become_idle(&self, time: Duration) {
        self.set_deadline(time);
        self.stop_being_busy(Phase::Idle);
    }

    /// Marks a busy connection as lingering.
    pub fn begin_to_linger(&self) {
        self.stop_being_busy(Phase::Lingering);
    }

    fn stop_being_busy(&self, next: Phase) {
        let mut inner = lock(&self.0);
        inner.idle_since = Instant::now();
        if inner.phase == Phase::Busy {
            inner.phase = next;
        }
    }

    /// Marks the connection as evicted if it is in the phase `from`. Returns whether it was.
    pub fn evict_from(&self, from: Phase) -> bool {
        self.change(&[from], Phase::Evicted)
    }

    /// Marks the connection as ending if it is idle. Returns whether it was.
    pub fn end_idleness(&self) -> bool {
        self.change(&[Phase::Idle], Phase::Ending)
    }

    /// Changes the phase if it is one of `from`. Returns whether it was.
    fn change(&self, from: &[Phase], to: Phase) -> bool {
        let mut inner = lock(&self.0);
        let fits = from.contains(&inner.phase);
        if fits {
            inner.phase = to;
        }
        fits
    }

    /// Records that the reading side of the socket is about to be shut down.
    pub fn note_reading_ended(&self) {
        lock(&self.0).is_reading_ended = true;
    }

    /// Whether [`Self::note_reading_ended`] was called.
    pub fn is_reading_ended(&self) -> bool {
        lock(&self.0).is_reading_ended
    }
}

#[cfg(test)]
impl Status {
    /// Moves both instants into the past, as if `time` had passed.
    pub fn age(&self, time: Duration) {
        let mut inner = lock(&self.0);
        inner.deadline -= time;
        inner.idle_since -= time;
    }
}
