//! Every duration, size and count that bounds a client, a wait or memory, with its unit and its
//! reason. The sums that must hold between them are asserted at compile time, at the end of each
//! group. No other file defines such a number.

use std::time::Duration;

// Clients: bytes, connections and deadlines of the gate.

// Answers: what is made and written for clients.

// Tokens and files that are followed.

/// Files are looked at again at most this often. RFC 7517 names no figure; issuers publish a new key
/// minutes before they use it.
pub const FILE_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Verified tokens that are kept, so that a token which comes again costs one look-up. At this number
/// all are dropped.
pub const VERIFIED_TOKENS_MAX: usize = 4096;
/// A longer token is verified each time. With [`VERIFIED_TOKENS_MAX`] this bounds the kept tokens to
/// 4 MiB. Better Auth's tokens are shorter.
pub const VERIFIED_TOKEN_BYTES_MAX: usize = 1024;
/// RFC 7518 section 3.2: an HS256 key is at least as long as the hash.
pub const SECRET_BYTES_MIN: usize = 32;
/// `JWT_LEEWAY_SECONDS`: clocks that keep time by NTP differ by far less than the default.
pub const JWT_LEEWAY_DEFAULT: Duration = Duration::from_secs(5);
pub const JWT_LEEWAY_MAX: Duration = Duration::from_secs(60);
/// `tinytasks token` without `--ttl`.
pub const TOKEN_TTL_DEFAULT: Duration = Duration::from_secs(3600);
/// `tinytasks token --explain` reads no more of standard input. A request's head is at most 16 KiB.
pub const EXPLAINED_BYTES_MAX: u64 = 64 * 1024;

const _: () = assert!(VERIFIED_TOKENS_MAX * VERIFIED_TOKEN_BYTES_MAX <= 4 * 1024 * 1024);
const _: () = assert!(JWT_LEEWAY_DEFAULT.as_secs() <= JWT_LEEWAY_MAX.as_secs());

// The database.

// The log, and what is counted.

/// Histograms that a thread finds without a lock. A thread answers few kinds of requests; with all
/// 1,024 threads at the bound this takes 1 MiB.
pub const SERIES_PER_THREAD_MAX: usize = 16;

// The life of the process.
