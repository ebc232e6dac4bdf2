//! Socket activation and notifications of systemd (sd_listen_fds(3), sd_notify(3)). Does nothing where
//! something else has started the service.

use crate::threads::every;
use listenfd::ListenFd;
use sd_notify::{NotifyState, notify, watchdog_enabled};
use socket2::Socket;
use std::io;
use std::time::Duration;

/// The listening socket of a socket unit, if there is one. Must be called before a second thread is
/// started, because it removes variables from the environment. Errors: more than one socket, or one
/// that does not listen.
pub fn inherited() -> io::Result<Option<Socket>> {
    let mut sockets = ListenFd::from_env();
    if sockets.len() > 1 {
        return Err(io::Error::other("LISTEN_FDS: give one socket"));
    }
    let tcp = sockets.take_tcp_listener(0).map(|socket| socket.map(Socket::from));
    tcp.or_else(|_| sockets.take_unix_listener(0).map(|socket| socket.map(Socket::from)))
}

/// The service answers, after its start or after reloading.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The service reads its files again. [`ready`] must follow.
pub fn reloading() {
    // `Type=notify-reload` needs the time.
    tell(&[NotifyState::Reloading].into_iter().chain(NotifyState::monotonic_usec_now()).collect::<Vec<_>>());
}

/// The service ends.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Where the unit has `WatchdogSec`, starts a thread that tells systemd twice in that time that the
/// service is alive, as long as `is_alive` says so. `is_alive` gets the time that it may take. Errors:
/// no thread can be started.
pub fn start_watchdog(is_alive: impl Fn(Duration) -> bool + Send + 'static) -> io::Result<()> {
    let Some(period) = watchdog_enabled() else {
        return Ok(());
    };
    every(period / 2, "watchdog", move || match is_alive(period / 4) {
        true => tell(&[NotifyState::Watchdog]),
        false => log::error!("the service does not answer its own probe"),
    })
}

fn tell(states: &[NotifyState]) {
    if let Err(error) = notify(states) {
        log::warn!(reason = error.to_string().as_str(); "cannot notify systemd");
    }
}
