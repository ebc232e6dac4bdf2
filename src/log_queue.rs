//! The way of a log line to standard error: a bounded queue and one thread that writes. Guarantees:
//! no caller ever waits for whoever reads standard error; a line that does not fit into the queue is
//! dropped whole and counted, and the log says so when it flows again.

use crate::limits::{LOG_BATCH_DELAY, LOG_BUFFER_BYTES, LOG_FLUSH_TIMEOUT, LOG_QUEUE_BYTES_MAX};
use crate::metrics;
use crate::threads::{lock, spawn};
use std::io::{self, Write};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Instant;

static QUEUE: Queue = Queue { state: Mutex::new(State::EMPTY), changed: Condvar::new() };

/// Makes a line of the number of lines that were dropped.
type LineForDropped = Box<dyn Fn(u64) -> String + Send>;

struct Queue {
    state: Mutex<State>,
    /// Lines have come into an empty queue, or all have been written.
    changed: Condvar,
}

struct State {
    /// Whole lines.
    lines: Vec<u8>,
    /// Lines dropped since the log last said so.
    dropped: u64,
    /// The thread has taken lines and has not written them yet.
    is_writing: bool,
    is_started: bool,
}

impl State {
    const EMPTY: Self = Self { lines: Vec::new(), dropped: 0, is_writing: false, is_started: false };
}

/// Starts the thread that writes. Errors: no thread can be started.
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

/// Queues a line, which ends in a line feed, or drops it.
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

/// Puts a line on standard error that is no record of the log: a command's reason to fail. Goes
/// through the queue where its thread runs, because that thread may hold standard error's own lock.
pub fn say(line: &str) {
    if lock(&QUEUE.state).is_started {
        push(format!("{line}\n").as_bytes());
    } else {
        // When standard error is gone there is no place to report that.
        let _ = writeln!(io::stderr(), "{line}");
    }
}

/// Waits until all lines are written, but no longer than [`LOG_FLUSH_TIMEOUT`].
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
    /// Waits for lines, takes all that there are in exchange for an empty buffer, and returns the number
    /// of those dropped. Two buffers take turns: a new one for each batch would grow line by line, in the
    /// threads of clients.
    fn take(&self, lines: &mut Vec<u8>) -> u64 {
        let mut state = lock(&self.state);
        while state.lines.is_empty() {
            state = self.changed.wait(state).unwrap_or_else(|error| error.into_inner());
        }
        state.is_writing = true;
        drop(state);
        // Lines that come meanwhile wake nobody, and are written by the same system call.
        thread::sleep(LOG_BATCH_DELAY);
        let mut state = lock(&self.state);
        std::mem::swap(&mut state.lines, lines);
        std::mem::take(&mut state.dropped)
    }

    /// Blocks for as long as nobody reads standard error. No lock is held meanwhile, neither the
    /// queue's nor one of this thread's making that a caller of [`push`] could want.
    fn write(&self, lines: &[u8], dropped: u64, line_for_dropped: &LineForDropped) {
        let mut written = io::stderr().write_all(lines);
        if dropped > 0 {
            written = written.and_then(|()| io::stderr().write_all(line_for_dropped(dropped).as_bytes()));
        }
        let mut state = lock(&self.state);
        if written.is_err() {
            // Standard error is closed, or its disk is full. How much was written is unknown, so all lines count
            // as dropped. The next lines that can be written are followed by their number.
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
