//! Takes log lines to standard error through a bounded queue and one writing thread. Guarantees: no caller
//! waits for the program that reads standard error. A line that does not fit into the queue is dropped as a
//! whole and counted; once lines can be written again, the log says how many were dropped.

use crate::limits::{LOG_BATCH_DELAY, LOG_BUFFER_BYTES, LOG_FLUSH_TIMEOUT, LOG_QUEUE_BYTES_MAX};
use crate::metrics;
use crate::threads::{lock, spawn};
use std::io::{self, Write};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Instant;

static QUEUE: Queue = Queue { state: Mutex::new(State::EMPTY), changed: Condvar::new() };

/// Makes the log line that says how many lines were dropped.
type LineForDropped = Box<dyn Fn(u64) -> String + Send>;

struct Queue {
    state: Mutex<State>,
    /// Signalled when a line has come into an empty queue, and when the taken lines have been written.
    changed: Condvar,
}

struct State {
    /// Whole lines.
    lines: Vec<u8>,
    /// The number of lines dropped since the log last said how many.
    dropped: u64,
    /// True while the writing thread writes lines that it has taken.
    is_writing: bool,
    is_started: bool,
}

impl State {
    const EMPTY: Self = Self { lines: Vec::new(), dropped: 0, is_writing: false, is_started: false };
}

/// Starts the writing thread. Errors: no thread can be started.
pub fn start(line_for_dropped: LineForDropped) -> io::Result<()> {
    let work = move || {
        let mut lines = Vec::with_capacity(LOG_BUFFER_BYTES);
        loop {
            lines.clear();
            lines.shrink_to(LOG_BUFFER_BYTES);
            let dropped = QUEUE.take(&mut lines);
            QUEUE.write(&lines, dropped, &line_for_dropped);
        }
    };
    spawn("log", work)?;
    let mut state = lock(&QUEUE.state);
    state.lines.reserve(LOG_BUFFER_BYTES);
    state.is_started = true;
    Ok(())
}

/// Queues a line, which must end in a line feed. Drops it if the queue is full.
pub fn push(line: &[u8]) {
    let mut state = lock(&QUEUE.state);
    if state.lines.len() + line.len() > LOG_QUEUE_BYTES_MAX {
        state.dropped += 1;
        metrics::log_lines_dropped(1);
        return;
    }
    let was_empty = state.lines.is_empty();
    state.lines.extend_from_slice(line);
    drop(state);
    if was_empty {
        QUEUE.changed.notify_all();
    }
}

/// Writes a line that is not a log record to standard error: the reason for which a command failed. If the
/// writing thread runs, the line goes through the queue, because that thread may hold the lock of standard
/// error.
pub fn say(line: &str) {
    if lock(&QUEUE.state).is_started {
        push(format!("{line}\n").as_bytes());
    } else {
        // An error is ignored: without standard error it cannot be reported anywhere.
        let _ = writeln!(io::stderr(), "{line}");
    }
}

/// Waits until all lines are written, at most [`LOG_FLUSH_TIMEOUT`].
pub fn flush() {
    let began = Instant::now();
    let mut state = lock(&QUEUE.state);
    while !state.lines.is_empty() || state.is_writing {
        let Some(left) = LOG_FLUSH_TIMEOUT.checked_sub(began.elapsed()) else {
            return;
        };
        state =
            QUEUE.changed.wait_timeout(state, left).map_or_else(|error| error.into_inner().0, |wait| wait.0);
    }
}

impl Queue {
    /// Waits for lines, takes them all in exchange for the empty buffer `lines`, and returns how many lines were
    /// dropped. The same two buffers are used in turn: a new buffer for each batch would have to grow line by
    /// line, which would take time in the threads that serve clients.
    fn take(&self, lines: &mut Vec<u8>) -> u64 {
        let mut state = lock(&self.state);
        while state.lines.is_empty() {
            state = self.changed.wait(state).unwrap_or_else(|error| error.into_inner());
        }
        state.is_writing = true;
        drop(state);
        // Lines that come during this pause wake no thread, and are written by the same system call.
        thread::sleep(LOG_BATCH_DELAY);
        let mut state = lock(&self.state);
        std::mem::swap(&mut state.lines, lines);
        std::mem::take(&mut state.dropped)
    }

    /// Writes lines to standard error, and blocks as long as nobody reads it. While it blocks, this thread holds no
    /// lock for which a caller of [`push`] could wait.
    fn write(&self, lines: &[u8], dropped: u64, line_for_dropped: &LineForDropped) {
        let mut written = io::stderr().write_all(lines);
        if dropped > 0 {
            written = written.and_then(|()| io::stderr().write_all(line_for_dropped(dropped).as_bytes()));
        }
        let mut state = lock(&self.state);
        if written.is_err() {
            // Standard error is closed, or its disk is full. How much was written is unknown, so all these lines
            // count as dropped. The next lines that can be written are followed by the number of dropped lines.
            let count = lines.iter().filter(|byte| **byte == b'\n').count();
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            metrics::log_lines_dropped(count);
            state.dropped = state.dropped.saturating_add(dropped).saturating_add(count);
        }
        state.is_writing = false;
        drop(state);
        self.changed.notify_all();
    }
}
