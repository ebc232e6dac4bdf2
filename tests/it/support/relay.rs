//! A relay between the service and PostgreSQL that falls silent: its connections stay open, and no byte
//! comes through any more, as with a frozen server, a stuck proxy or a paused virtual machine.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

/// One connection through the relay.
struct Passage {
    client: TcpStream,
    server: Option<TcpStream>,
    is_silent: AtomicBool,
    is_closed: AtomicBool,
    /// Only this many bytes of the server reach the client.
    budget: AtomicUsize,
}

#[derive(Default)]
struct State {
    passages: Vec<Arc<Passage>>,
    /// The treatment of a new connection: silence from the start, or after this many bytes of the server.
    new_are_silent: bool,
    budget: Option<usize>,
    accepted: usize,
}

pub struct Relay {
    pub address: String,
    state: Arc<Mutex<State>>,
}

impl Relay {
    /// Starts a relay to the server at this host and port.
    pub fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Self { address: listener.local_addr().unwrap().to_string(), state: Arc::default() };
        let (state, server) = (Arc::clone(&relay.state), server.to_owned());
        thread::spawn(move || {
            for client in listener.incoming() {
                accept(&state, client.unwrap(), &server);
            }
        });
        relay
    }

    /// Starts a relay that never answers.
    pub fn silent() -> Self {
        let relay = Self::to("127.0.0.1:1");
        relay.silence_new(true);
        relay
    }

    /// The connections that are open now never carry a byte again.
    pub fn silence_open(&self) {
        for passage in &self.state.lock().unwrap().passages {
            passage.is_silent.store(true, SeqCst);
        }
    }

    /// Whether connections from now on are accepted and never answered.
    pub fn silence_new(&self, are_silent: bool) {
        self.state.lock().unwrap().new_are_silent = are_silent;
    }

    /// Connections from now on carry so many bytes of the server, and then fall silent.
    pub fn silence_after(&self, bytes: usize) {
        self.state.lock().unwrap().budget = Some(bytes);
    }

    /// Ends the connections that are open now.
    pub fn cut_open(&self) {
        for passage in self.state.lock().unwrap().passages.drain(..) {
            passage.close();
        }
    }

    /// How many connections there have been.
    pub fn accepted(&self) -> usize {
        self.state.lock().unwrap().accepted
    }

    /// How many connections neither side has ended.
    pub fn open(&self) -> usize {
        let state = self.state.lock().unwrap();
        state.passages.iter().filter(|passage| !passage.is_closed.load(SeqCst)).count()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cut_open();
    }
}

impl Passage {
    fn close(&self) {
        self.is_closed.store(true, SeqCst);
        for stream in [Some(&self.client), self.server.as_ref()].into_iter().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn accept(state: &Arc<Mutex<State>>, client: TcpStream, server: &str) {
    let mut state = state.lock().unwrap();
    let server = if state.new_are_silent { None } else { TcpStream::connect(server).ok() };
    let budget = AtomicUsize::new(state.budget.unwrap_or(usize::MAX));
    let is_silent = AtomicBool::new(state.new_are_silent);
    let passage = Arc::new(Passage { client, server, is_silent, is_closed: AtomicBool::new(false), budget });
    if passage.server.is_some() {
        let (there, back) = (Arc::clone(&passage), Arc::clone(&passage));
        thread::spawn(move || pass(&there, &there.client, there.server.as_ref().unwrap(), false));
        thread::spawn(move || pass(&back, back.server.as_ref().unwrap(), &back.client, true));
    } else if !state.new_are_silent {
        passage.close();
    }
    state.accepted += 1;
    state.passages.push(passage);
}

fn pass(passage: &Passage, mut from: &TcpStream, mut to: &TcpStream, is_answer: bool) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let mut allowed = count;
        if is_answer {
            let left = passage.budget.load(SeqCst);
            allowed = count.min(left);
            passage.budget.store(left - allowed, SeqCst);
        }
        if !passage.is_silent.load(SeqCst) && to.write_all(&bytes[..allowed]).is_err() {
            break;
        }
    }
    // A silent connection does not even pass on that one side has ended.
    if !passage.is_silent.load(SeqCst) {
        passage.close();
    }
}
