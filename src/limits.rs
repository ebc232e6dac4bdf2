//! Every duration, size and count that bounds a client, a wait or memory, with its unit and its
//! reason. The sums that must hold between them are asserted at compile time, at the end of each
//! group. No other file defines such a number.

use std::time::Duration;

// Clients: bytes, connections and deadlines of the gate.

// Answers: what is made and written for clients.

// Tokens and files that are followed.

// Tasks: the contract's lengths, in Unicode code points.

pub const USER_ID_CHARS_MAX: usize = 255;
pub const TITLE_CHARS_MAX: usize = 200;
pub const DESCRIPTION_CHARS_MAX: usize = 1000;

// The database. A request spends at most CHECKOUT_MAX + STATEMENT_MAX on its first statement, and no
// statement of a request begins or goes on after REQUEST_MAX, so a handler thread is never held longer.

/// An attempt to connect to one address of one host takes at most this long, from the first packet to
/// the last prepared statement, unless `connect_timeout` in `DATABASE_URL` says otherwise.
/// A server that is merely busy may need a second for it.
pub const CONNECT_MAX: Duration = Duration::from_secs(5);
/// The largest `connect_timeout` that is taken as it is; a longer one means this.
pub const CONNECT_CEILING: Duration = Duration::from_secs(600);
/// An address that did not answer in time is tried after the other addresses for this long, so that
/// new connections do not wait for it again and again.
pub const SILENT_ADDRESS_LAST: Duration = Duration::from_secs(10);
/// The server ends a statement, and its waits for locks, after this long.
pub const STATEMENT_SERVER_MAX: Duration = Duration::from_secs(5);
/// A connection on which a statement has no answer after this long is given up. Exceeds
/// `STATEMENT_SERVER_MAX`, so that a server that is merely slow can say so first.
pub const STATEMENT_MAX: Duration = Duration::from_millis(5400);
/// The longest wait for a free connection.
pub const CHECKOUT_MAX: Duration = Duration::from_secs(3);
/// All statements of one request together, waits for connections included. Below the 8.5 s after
/// which the client is told 503.
pub const REQUEST_MAX: Duration = Duration::from_millis(8400);
/// How often a statement is tried where a failure makes another try harmless and useful.
pub const STATEMENT_TRIES_MAX: usize = 3;
/// How often a create tries to use an idempotency key that other requests free at the same time.
pub const IDEMPOTENCY_KEY_TRIES_MAX: usize = 3;
/// An idle connection must answer a ping within this long.
pub const PING_MAX: Duration = Duration::from_secs(1);
/// A connection that was used more recently than this is handed out without a ping: if it is dead,
/// the statement itself finds out.
pub const PING_AFTER: Duration = Duration::from_millis(500);
/// Closing a connection takes at most this long: the farewell of a few bytes must fit into a socket
/// buffer that a silent server may have left full.
pub const CLOSE_MAX: Duration = Duration::from_millis(100);
/// Sent data that stays unacknowledged for this long means that the other machine is gone
/// (TCP_USER_TIMEOUT); a connection that is idle for this long is probed (keepalive).
pub const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(5);
/// How often the watching thread asks the database whether it answers.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(500);
/// An answer older than this says nothing about now: a ping, the pause after it, and no more.
pub const ANSWER_AGE_MAX: Duration = Duration::from_millis(1500);
/// How often all connections are made anew because their server accepts no writes, in the hope that
/// new ones find the primary.
pub const READ_ONLY_RETRY: Duration = Duration::from_secs(5);
/// How often the watching thread looks whether the schema and the role's rights still let every
/// statement run: one look at the catalogue, of about a millisecond.
pub const EXAMINE_INTERVAL: Duration = Duration::from_secs(2);
/// The same while they do not.
pub const NOT_READY_RETRY: Duration = Duration::from_millis(500);
/// Without a request and a question about health for this long, the service asks the database nothing.
pub const REST_AFTER: Duration = Duration::from_secs(60);
/// The first question about health after such a rest waits for the database's answer at most this
/// long. A suspended database takes about a second to come back.
pub const FIRST_ANSWER_MAX: Duration = Duration::from_secs(3);
/// Where the server or the role has all the connections it may have, the pool asks for another one
/// after this pause, then after twice as long …
pub const FULL_RETRY_MIN: Duration = Duration::from_secs(1);
/// … and so on up to this.
pub const FULL_RETRY_MAX: Duration = Duration::from_secs(30);
/// The pause while the pool has no connection at all.
pub const FULL_RETRY_EMPTY: Duration = Duration::from_millis(500);
/// `schema.sql` may rewrite a large table, or wait for another instance that does.
pub const SCHEMA_MAX: Duration = Duration::from_secs(3600);
/// A command's statement (the deletion of all tasks of a user, a count over the whole table).
pub const COMMAND_STATEMENT_MAX: Duration = Duration::from_secs(3600);
/// `tinytasks export` waits for the next row at most this long.
pub const EXPORT_ROW_MAX: Duration = Duration::from_secs(60);

const _: () = assert!(STATEMENT_SERVER_MAX.as_millis() < STATEMENT_MAX.as_millis());
const _: () = assert!(CHECKOUT_MAX.as_millis() + STATEMENT_MAX.as_millis() <= REQUEST_MAX.as_millis());
const _: () = assert!(REQUEST_MAX.as_millis() < 8500);
const _: () = assert!(PING_MAX.as_millis() + WATCH_INTERVAL.as_millis() <= ANSWER_AGE_MAX.as_millis());

// The log.

// The life of the process.
