//! A value that is made from files, and made again when their content has changed. In the service, a thread
//! of its own looks at the files once a second, and at once when a token has an unknown `kid`. SIGHUP has them
//! read again too.
//! Guarantees: a thread that serves clients reads no file, because a disk may not answer; a file that
//! cannot be used leaves the value as it was.

use crate::limits::{FILE_LOOK_INTERVAL, FILE_LOOK_WAIT};
use crate::threads::{every, lock};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Reads the files. Errors: why that failed, without anything that the files hold.
type Read<S> = Box<dyn Fn() -> Result<S, String> + Send + Sync>;
/// Makes the value from what was read. Errors: as for [`Read`].
type Parse<S, T> = fn(&S) -> Result<T, String>;

/// `T` is the value; `S` is what was read from the files.
pub struct Watched<S, T> {
    /// For the log.
    name: &'static str,
    read: Read<S>,
    parse: Parse<S, T>,
    /// Locked while the files are read, so that a later read never gives way to an earlier one.
    reading: Mutex<()>,
    state: Mutex<State<S, T>>,
    /// Signalled when somebody wants a look at the files, and at the end of each look.
    changed: Condvar,
}

struct State<S, T> {
    current: Arc<T>,
    /// The result of the last look. Contents are compared, not the files' times: a file may be replaced
    /// by another of the same time.
    seen: Result<S, String>,
    /// Whether `seen` became the current value.
    outcome: Result<(), String>,
    look: Look,
    /// When somebody last wanted a look.
    wanted: Option<Instant>,
    is_followed: bool,
}

#[derive(PartialEq)]
enum Look {
    /// When its time has come.
    Due,
    /// At once.
    Wanted,
    /// Under way.
    Begun,
}

impl<S: PartialEq + Send + 'static, T: Send + Sync + 'static> Watched<S, T> {
    /// `first` is what the files hold now. Errors: why it is no good.
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

    /// Starts the thread that looks at the files. Errors: there can be no more threads.
    pub fn follow(self: &Arc<Self>) -> io::Result<()> {
        let followed = Arc::clone(self);
        every(Duration::ZERO, "files", move || followed.look_in_time())?;
        lock(&self.state).is_followed = true;
        Ok(())
    }

    pub fn current(&self) -> Arc<T> {
        Arc::clone(&lock(&self.state).current)
    }

    /// The value after a fresh look at the files, for a caller with a reason to think that they have just
    /// changed. One caller in [`FILE_LOOK_INTERVAL`] waits for such a look, [`FILE_LOOK_WAIT`] at most; the
    /// others get the value as it is.
    pub fn current_after_look(&self) -> Arc<T> {
        let mut state = lock(&self.state);
        if state.is_followed && state.wanted.is_none_or(|wanted| wanted.elapsed() >= FILE_LOOK_INTERVAL) {
            state.wanted = Some(Instant::now());
            // One that has begun may have read the files before they changed.
            state.look = Look::Wanted;
            self.changed.notify_all();
            state = self.wait_while(state, FILE_LOOK_WAIT, |state| state.look != Look::Due);
        }
        Arc::clone(&state.current)
    }

    /// The thread that follows the files: waits for the time of the next look, or until one is wanted.
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

    /// Reads the files at once, on request of the operator. Errors: why the value stays as it was,
    /// also if the log has said so before.
    pub fn reload(&self) -> Result<(), String> {
        self.read_again();
        lock(&self.state).outcome.clone()
    }

    /// Returns why the value stays as it was, where that is news.
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
