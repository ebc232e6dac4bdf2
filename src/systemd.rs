//! What systemd hands down and wants to hear, where it has started us; nothing elsewhere.

use crate::panic::every;
use listenfd::ListenFd;
use sd_notify::{NotifyState, notify, watchdog_enabled};
use socket2::Socket;
use std::io;
use std::time::Duration;

/// The listening socket of a socket unit. To be called before there is a second thread, as it takes
/// its variables out of the environment.
pub fn inherited() -> io::Result<Option<Socket>> {
    let mut sockets = ListenFd::from_env();
    if sockets.len() > 1 {
        return Err(io::Error::other("LISTEN_FDS: give one socket"));
    }
    let tcp = sockets.take_tcp_listener(0).map(|socket| socket.map(Socket::from));
    tcp.or_else(|_| sockets.take_unix_listener(0).map(|socket| socket.map(Socket::from)))
}

pub fn ready() {
    say(&[NotifyState::Ready]);
}

/// Followed by `ready`.
pub fn reloading() {
    // The time is what `Type=notify-reload` wants to know.
    say(&[NotifyState::Reloading].into_iter().chain(NotifyState::monotonic_usec_now()).collect::<Vec<_>>());
}

pub fn stopping() {
    say(&[NotifyState::Stopping]);
}

/// Says from time to time that the service is alive, as long as it is.
pub fn start_watchdog(is_alive: impl Fn(Duration) -> bool + Send + 'static) -> io::Result<()> {
    let Some(period) = watchdog_enabled() else {
        return Ok(());
    };
    every(period / 2, "watchdog", move || match is_alive(period / 4) {
        true => say(&[NotifyState::Watchdog]),
        false => log::error!("the service does not answer itself"),
    })
}

fn say(states: &[NotifyState]) {
    if let Err(error) = notify(states) {
        log::warn!(reason = error.to_string().as_str(); "systemd cannot be told");
    }
}
