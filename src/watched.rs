//! A value that is made from files, and made again when their content has changed. In the service, a separate
//! thread examines the files once a second, and at once if a token has an unknown `kid`. SIGHUP makes the
//! service read them again too.
//! Guarantees: a thread that serves clients reads no file, because a disk may not answer; if a file cannot be
//! used, the value stays as it is.

use crate::limits::{FILE_LOOK_INTERVAL, FILE_LOOK_WAIT};
use crate::threads::{every, lock};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Reads the files. Errors: why that failed; the text contains nothing from the files.
type Read<S> = Box<dyn Fn() -> Result<S, String> + Send + Sync>;
/// Makes the value from what was read. Errors: why that failed; the text contains nothing from the files.
type Parse<S, T> = fn(&S) -> Result<T, String>;

/// A value of type `T`, made from the content of files, which has the type `S`.
pub struct Watched<S, T> {
    /// What the value is called in log lines.
    name: &'static str,
    read: Read<S>,
    parse: Parse<S, T>,
    /// Locked while the files are read, so that the result of a later read is never replaced by that of an earlier
    /// one.
    reading: Mutex<()>,
    state: Mutex<State<S, T>>,
    /// Signalled when a caller wants the files to be read, and after each read of the following thread.
    changed: Condvar,
}

struct State<S, T> {
    current: Arc<T>,
    /// The result of the last read. Contents are compared, not modification times, because a file may be replaced
    /// by another one with the same time.
    seen: Result<S, String>,
    /// Whether `seen` became the current value.
    outcome: Result<(), String>,
    look: Look,
    /// When a caller last wanted the files to be read.
    wanted: Option<Instant>,
    is_followed: bool,
}

/// The state of the thread that follows the files.
#[derive(PartialEq)]
enum Look {
    /// The thread reads the files after the usual interval.
    Due,
    /// A caller wants the files to be read at once.
    Wanted,
    /// The thread is reading the files.
    Begun,
}

impl<S: PartialEq + Send + 'static, T: Send + Sync + 'static> Watched<S, T> {
    /// `first` is the current content of the files. Errors: why it cannot be used.
    pub fn open(
        name: &'static str,
        first: S,
        read: Read<S>,
        parse: Parse<S, T>,
    ) -> Result<Arc<Self>, String> {
        let current = Arc::new(parse(&first)?);
        let (look, wanted) = (Look::Due, None);
        let state = State { current, seen: Ok(first), outcome: Ok(()), look, wanted, is_followed: false };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        Ok(Arc::new(Self { name, read, parse, reading: Mutex::new(()), state, changed }))
    }

    /// Starts the thread that follows the files. Errors: the thread cannot be started.
    pub fn follow(self: &Arc<Self>) -> io::Result<()> {
        let followed = Arc::clone(self);
        every(Duration::ZERO, "files", move || followed.look_in_time())?;
        lock(&self.state).is_followed = true;
        Ok(())
    }

    /// The current value. Reads no file.
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&lock(&self.state).current)
    }

    /// The value after the files have been read anew, for a caller that has a reason to think that they have just
    /// changed. Only one caller per [`FILE_LOOK_INTERVAL`] waits for that, at most [`FILE_LOOK_WAIT`]; the others
    /// get the current value.
    pub fn current_after_look(&self) -> Arc<T> {
        let mut state = lock(&self.state);
        if state.is_followed && state.wanted.is_none_or(|wanted| wanted.elapsed() >= FILE_LOOK_INTERVAL) {
            state.wanted = Some(Instant::now());
            // This also holds while a read is under way, because it may have begun before the files changed.
            state.look = Look::Wanted;
            self.changed.notify_all();
            state = self.wait_while(state, FILE_LOOK_WAIT, |state| state.look != Look::Due);
        }
        Arc::clone(&state.current)
    }

    /// One round of the thread that follows the files: waits for the interval, or until a caller wants a read, then
    /// reads the files.
    fn look_in_time(&self) {
        let is_unwanted = |state: &mut State<S, T>| state.look != Look::Wanted;
        self.wait_while(lock(&self.state), FILE_LOOK_INTERVAL, is_unwanted).look = Look::Begun;
        if let Some(reason) = self.read_again() {
            log::error!(reason = reason.as_str(); "{} kept as it was", self.name);
        }
        let mut state = lock(&self.state);
        if state.look == Look::Begun {
            state.look = Look::Due;
            self.changed.notify_all();
        }
    }

    fn wait_while<'s>(
        &self,
        state: MutexGuard<'s, State<S, T>>,
        patience: Duration,
        condition: impl FnMut(&mut State<S, T>) -> bool,
    ) -> MutexGuard<'s, State<S, T>> {
        let waited = self.changed.wait_timeout_while(state, patience, condition);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Reads the files at once, at the operator's request. Errors: why the value stays as it is, even if that has
    /// been logged before.
    pub fn reload(&self) -> Result<(), String> {
        self.read_again();
        lock(&self.state).outcome.clone()
    }

    /// Reads the files. Returns why the value stays as it is, unless the result is the same as that of the last read.
    fn read_again(&self) -> Option<String> {
        let _one_at_a_time = lock(&self.reading);
        let read = (self.read)();
        if lock(&self.state).seen == read {
            return None;
        }
        let parsed = read.as_ref().map_err(String::clone).and_then(self.parse);
        let mut state = lock(&self.state);
        state.seen = read;
        state.outcome = parsed.map(|value| state.current = Arc::new(value));
        state.outcome.clone().err()
    }
}
