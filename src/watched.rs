//! What files say, which are read again when they say something else. Guarantees: at most one caller
//! in a second waits for them, none with a lock held, and what is no good changes nothing.

use crate::panic::lock;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const LOOK_INTERVAL: Duration = Duration::from_secs(1);

pub struct Watched<T> {
    /// For the log.
    name: &'static str,
    files: Vec<String>,
    parse: Parse<T>,
    state: Mutex<State<T>>,
}

pub type NameAndBytes = (String, Vec<u8>);
/// Errors: the reason, which tells nothing of what the files hold.
type Parse<T> = fn(&[NameAndBytes]) -> Result<T, String>;

struct State<T> {
    current: Arc<T>,
    /// What was in them, or why they could not be read. Not their times: two states may have the same.
    seen: Result<Vec<NameAndBytes>, String>,
    looked: Option<Instant>,
    looked_out_of_turn: Option<Instant>,
}

impl<T> Watched<T> {
    pub fn open(name: &'static str, files: Vec<String>, parse: Parse<T>) -> Result<Self, String> {
        let seen = read(&files);
        let current = Arc::new(seen.as_deref().map_err(String::clone).and_then(parse)?);
        let state = State { current, seen, looked: None, looked_out_of_turn: None };
        Ok(Self { name, files, parse, state: Mutex::new(state) })
    }

    /// As it was up to a second ago. Who asks out of turn looks at once, unless another did so.
    pub fn current(&self, out_of_turn: bool) -> Arc<T> {
        let mut state = lock(&self.state);
        let looked = if out_of_turn { &mut state.looked_out_of_turn } else { &mut state.looked };
        if looked.is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL) {
            *looked = Some(Instant::now());
            drop(state);
            self.look();
            state = lock(&self.state);
        }
        Arc::clone(&state.current)
    }

    fn look(&self) {
        let now = read(&self.files);
        let mut state = lock(&self.state);
        if state.seen == now {
            return;
        }
        let parsed = now.as_deref().map_err(String::clone).and_then(self.parse);
        state.seen = now;
        let parsed = parsed.map(|parsed| state.current = Arc::new(parsed));
        drop(state);
        if let Err(reason) = parsed {
            log::error!(reason = reason.as_str(); "{} kept as it was", self.name);
        }
    }
}

fn read(files: &[String]) -> Result<Vec<NameAndBytes>, String> {
    let read = |file: &String| match std::fs::read(file) {
        Ok(content) => Ok((file.clone(), content)),
        Err(error) => Err(format!("{file:?} cannot be read: {error}")),
    };
    files.iter().map(read).collect()
}
