//! Every duration, size and count that bounds a client, a wait or memory, with its unit and its
//! reason. The sums that must hold between them are asserted at compile time, at the end of each
//! group. No other file defines such a number.

use std::ops::RangeInclusive;
use std::time::Duration;

// Clients: bytes, connections and deadlines of the gate.

/// `IDLE_TIMEOUT_SECONDS` may be set from here: less makes clients connect for every request.
pub const IDLE_TIMEOUT_MIN: Duration = Duration::from_secs(5);
/// To here: some load balancers keep idle connections for 600 s, none of the usual ones for longer
/// than an hour.
pub const IDLE_TIMEOUT_MAX: Duration = Duration::from_secs(3600);

const _: () = assert!(IDLE_TIMEOUT_MIN.as_secs() < IDLE_TIMEOUT_MAX.as_secs());

// Answers: what is made and written for clients.

// Tokens and files that are followed.

/// Files are looked at again at most this often. RFC 7517 names no figure; issuers publish a new key
/// minutes before they use it.
pub const FILE_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Verified tokens that are kept, so that a token which comes again costs one look-up. At this number
/// all are dropped.
pub const VERIFIED_TOKENS_MAX: usize = 4096;
/// A longer token is verified each time. With [`VERIFIED_TOKENS_MAX`] this bounds the kept tokens to
/// 4 MiB, and their users, which are parts of them, to less than that again. Better Auth's tokens are
/// shorter.
pub const VERIFIED_TOKEN_BYTES_MAX: usize = 1024;
/// RFC 7518 section 3.2: an HS256 key is at least as long as the hash.
pub const SECRET_BYTES_MIN: usize = 32;
/// `JWT_LEEWAY_SECONDS`. Clocks that keep time by NTP differ by less than a second.
pub const JWT_LEEWAY_MAX: Duration = Duration::from_secs(60);
/// `RATE_LIMIT`, in requests a second and user: one in 100 seconds to as good as none.
pub const RATE_LIMITS: RangeInclusive<f64> = 0.01..=1e6;
/// `DATABASE_POOL_SIZE`: ten times what PostgreSQL takes unless told otherwise.
pub const POOL_SIZE_MAX: u32 = 1000;
/// `tinytasks token` without `--ttl`.
pub const TOKEN_TTL_DEFAULT: Duration = Duration::from_secs(3600);
/// `tinytasks token --explain` reads no more of standard input. A request's head is at most 16 KiB.
pub const EXPLAINED_BYTES_MAX: u64 = 64 * 1024;

const _: () = assert!(VERIFIED_TOKENS_MAX * VERIFIED_TOKEN_BYTES_MAX <= 4 * 1024 * 1024);

// The database.

// The log, and what is counted.

/// Log lines that wait for standard error. More are dropped. About 5,000 lines of requests.
pub const LOG_QUEUE_BYTES_MAX: usize = 1024 * 1024;
/// The writing thread waits so long before it takes the lines, so that a busy service wakes it 500
/// times a second and not once a line. A crash loses no more than the lines of this time.
pub const LOG_BATCH_DELAY: Duration = Duration::from_millis(2);
/// The end of the process waits no longer for standard error to take the last lines.
pub const LOG_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Histograms that a thread finds without a lock. A thread answers few kinds of requests; with all
/// 1,024 threads at the bound this takes 1 MiB.
pub const SERIES_PER_THREAD_MAX: usize = 16;

const _: () = assert!(LOG_BATCH_DELAY.as_millis() * 10 < LOG_FLUSH_TIMEOUT.as_millis());

// The life of the process.

/// `tinytasks healthcheck` gives up a connection, a read or a write after this. Container engines
/// allow a check 30 s unless told otherwise.
pub const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// It reads no more of an answer. That of `/health` has some 700 bytes.
pub const HEALTH_ANSWER_BYTES_MAX: u64 = 16 * 1024;
