//! The state of one connection, which several threads read and change: its phase, and its deadline. Each method
//! holds the lock for a moment and makes no system call, so no thread waits here for a client.

use crate::threads::lock;
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub struct Status(Mutex<State>);

struct State {
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
        Self(Mutex::new(State { phase: Phase::Idle, idle_since: now, deadline, is_reading_ended: false }))
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
        let state = lock(&self.0);
        let is_idle = matches!(state.phase, Phase::Idle | Phase::Lingering);
        if is_idle { Some(state.idle_since) } else { None }
    }

    pub fn is(&self, phase: Phase) -> bool {
        lock(&self.0).phase == phase
    }

    /// Ends the phase `from`, and begins the phase `to`. Returns false if the connection was in another phase,
    /// which it then stays in.
    pub fn change(&self, from: Phase, to: Phase) -> bool {
        let mut state = lock(&self.0);
        let is_from = state.phase == from;
        if is_from {
            state.phase = to;
        }
        is_from
    }

    /// Begins a request. Returns false if the connection was evicted while it was idle.
    pub fn become_busy(&self) -> bool {
        self.change(Phase::Idle, Phase::Busy) || self.change(Phase::Ending, Phase::Busy)
    }

    /// After an answer, waits for the next request, which must begin within `time`.
    pub fn become_idle(&self, time: Duration) {
        self.set_deadline(time);
        self.stop_being_busy(Phase::Idle);
    }

    /// After the last answer. Until the client closes the connection, it can be evicted.
    pub fn begin_to_linger(&self) {
        self.stop_being_busy(Phase::Lingering);
    }

    fn stop_being_busy(&self, next: Phase) {
        let mut state = lock(&self.0);
        state.idle_since = Instant::now();
        if state.phase == Phase::Busy {
            state.phase = next;
        }
    }

    pub fn end_reading(&self) {
        lock(&self.0).is_reading_ended = true;
    }

    pub fn is_reading_ended(&self) -> bool {
        lock(&self.0).is_reading_ended
    }

    /// Moves both instants into the past, as if `time` had passed.
    #[cfg(test)]
    pub fn age(&self, time: Duration) {
        let mut state = lock(&self.0);
        state.deadline -= time;
        state.idle_since -= time;
    }
}
