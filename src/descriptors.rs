//! How many connections of clients the limit on open files (RLIMIT_NOFILE) leaves room for.

use crate::config::Config;
use crate::limits::{
    ADMIN_CONNECTIONS_MAX, ADMIN_DESCRIPTORS, CONNECTIONS_MIN, DATABASE_CONNECTION_DESCRIPTORS,
    OTHER_DESCRIPTORS, TURNED_AWAY_MAX,
};
use std::fs;

/// The room for connections of clients.
pub struct Room {
    pub connections: usize,
    /// Why there is room for fewer connections than `MAX_CONNECTIONS`. None if there is room for all.
    pub shortage: Option<String>,
}

/// Finds out how many connections the service may have with this configuration. Errors: the limit allows fewer than
/// [`CONNECTIONS_MIN`].
pub fn room(config: &Config) -> Result<Room, String> {
    let (wanted, own) = (config.connections_max, own(config));
    let soft = open_files_max().unwrap_or(usize::MAX);
    let room = soft.saturating_sub(own);
    if room < CONNECTIONS_MIN {
        let needed = own + CONNECTIONS_MIN;
        return Err(format!("the limit of open files (ulimit -n) is {soft}; make it {needed} or more"));
    }
    if room >= wanted {
        return Ok(Room { connections: wanted, shortage: None });
    }
    let needed = wanted.saturating_add(own);
    let shortage = format!(
        "the limit of open files (ulimit -n) leaves room for {room} of {wanted} connections; make it {needed} or more"
    );
    Ok(Room { connections: room, shortage: Some(shortage) })
}

/// How many file descriptors the service needs, not counting those of its public clients' connections.
fn own(config: &Config) -> usize {
    let database = config.database.connections_max() as usize * DATABASE_CONNECTION_DESCRIPTORS;
    let admin = ADMIN_DESCRIPTORS + ADMIN_CONNECTIONS_MAX + TURNED_AWAY_MAX;
    database + OTHER_DESCRIPTORS + TURNED_AWAY_MAX + config.admin.map_or(0, |_| admin)
}

/// The soft limit. None if there is no limit. The line is "Max open files <soft> <hard> files" (proc(5)).
fn open_files_max() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}
