//! Limits of sizes, of memory, of time, and of requests a second. What exceeds a limit is ended, and
//! other clients do not notice.

mod deadlines;
mod memory;
mod rate;
mod sizes;
