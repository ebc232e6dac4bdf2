//! Socket activation by systemd and notifications to it (sd_listen_fds(3), sd_notify(3)). Does nothing if the
//! service was not started by systemd.

use crate::threads::every;
use listenfd::ListenFd;
use sd_notify::{NotifyState, notify, watchdog_enabled};
use socket2::Socket;
use std::io;
use std::time::Duration;

/// The listening socket of a socket unit, if there is one. This removes variables from the environment, so it must
/// be called before a second thread is started. Errors: there is more than one socket, or the socket does not listen.
pub fn inherited() -> io::Result<Option<Socket>> {
    let mut sockets = ListenFd::from_env();
    if sockets.len() > 1 {
        return Err(io::Error::other("LISTEN_FDS: give one socket"));
    }
    let tcp = sockets.take_tcp_listener(0).map(|socket| socket.map(Socket::from));
    tcp.or_else(|_| sockets.take_unix_listener(0).map(|socket| socket.map(Socket::from)))
}

/// Tells systemd that the service answers, after its start or after a reload.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Tells systemd that the service reads its files again. A call of [`ready`] must follow.
pub fn reloading() {
    // A unit with `Type=notify-reload` needs the time too.
    tell(&[NotifyState::Reloading].into_iter().chain(NotifyState::monotonic_usec_now()).collect::<Vec<_>>());
}

/// Tells systemd that the service is stopping.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// If the unit has `WatchdogSec`, starts a thread that calls `is_alive` twice in that time, and tells systemd that
/// the service is alive if the call returns true. `is_alive` gets the time that it may take. Errors: the thread
/// cannot be started.
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
