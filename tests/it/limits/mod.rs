//! Limits: of sizes, of memory, of time, and of requests a second. Each ends what exceeds it, and
//! nobody else notices.

mod deadlines;
mod memory;
mod rate;
mod sizes;
