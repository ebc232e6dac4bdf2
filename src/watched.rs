//! A value that is made from files, and made again when their content has changed. There is one way
//! to read the files again, [`Watched::reload`], and three occasions for it: SIGHUP, a look at most
//! once a second, and a token with an unknown `kid`.
//! Guarantees: no lock is held while files are read; at most two callers a second wait for them; a
//! file that cannot be used leaves the value as it was.

use crate::limits::FILE_LOOK_INTERVAL;
use crate::panic::lock;
use std::sync::{Arc, Mutex};
use std::time::Instant;

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
    state: Mutex<State<S, T>>,
}

struct State<S, T> {
    current: Arc<T>,
    /// The result of the last look. Contents are compared, not the files' times: a file may be replaced
    /// by another of the same time.
    seen: Result<S, String>,
    /// Whether `seen` became the current value.
    outcome: Result<(), String>,
    looked: Option<Instant>,
    looked_out_of_turn: Option<Instant>,
}

impl<S: PartialEq, T> Watched<S, T> {
    /// `first` is what the files hold now. Errors: why it is no good.
    pub fn open(name: &'static str, first: S, read: Read<S>, parse: Parse<S, T>) -> Result<Self, String> {
        let current = Arc::new(parse(&first)?);
        let state =
            State { current, seen: Ok(first), outcome: Ok(()), looked: None, looked_out_of_turn: None };
        Ok(Self { name, read, parse, state: Mutex::new(state) })
    }

    /// The value. Looks at the files first if nobody has for [`FILE_LOOK_INTERVAL`].
    pub fn current(&self) -> Arc<T> {
        self.current_after_look(|state| &mut state.looked)
    }

    /// The value, for a caller with a reason to think that the files have just changed. Such callers
    /// look at the files at most once in [`FILE_LOOK_INTERVAL`] too, but have an interval of their own.
    pub fn current_out_of_turn(&self) -> Arc<T> {
        self.current_after_look(|state| &mut state.looked_out_of_turn)
    }

    fn current_after_look(&self, clock: fn(&mut State<S, T>) -> &mut Option<Instant>) -> Arc<T> {
        let mut state = lock(&self.state);
        let looked = clock(&mut state);
        if looked.is_none_or(|looked| looked.elapsed() >= FILE_LOOK_INTERVAL) {
            *looked = Some(Instant::now());
            drop(state);
            if let Reloaded::Refused(reason) = self.read_again() {
                log::error!(reason = reason.as_str(); "{} kept as it was", self.name);
            }
            state = lock(&self.state);
        }
        Arc::clone(&state.current)
    }

    /// Reads the files at once, on request of the operator. Errors: why the value stays as it was,
    /// also if the log has said so before.
    pub fn reload(&self) -> Result<(), String> {
        self.read_again();
        lock(&self.state).outcome.clone()
    }

    fn read_again(&self) -> Reloaded {
        let read = (self.read)();
        let mut state = lock(&self.state);
        if state.seen == read {
            return Reloaded::Unchanged;
        }
        let parsed = read.as_ref().map_err(String::clone).and_then(self.parse);
        state.seen = read;
        match parsed {
            Ok(value) => {
                state.current = Arc::new(value);
                state.outcome = Ok(());
                Reloaded::Replaced
            }
            Err(reason) => {
                state.outcome = Err(reason.clone());
                Reloaded::Refused(reason)
            }
        }
    }
}

enum Reloaded {
    Unchanged,
    Replaced,
    Refused(String),
}
