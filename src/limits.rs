//! Every duration, size and count that bounds a client, a wait or memory, with its unit and its
//! reason. The sums that must hold between them are asserted at compile time, at the end of each
//! group. A number in another file bounds nothing: it is a size to begin with, a default, the range of a
//! variable, or part of a format.

use std::ops::RangeInclusive;
use std::time::Duration;

// Clients: bytes, connections and deadlines of the gate.

/// The longest request line, with its CRLF. Eight kilobytes is what RFC 9112 section 3 recommends to support.
pub const REQUEST_LINE_BYTES_MAX: usize = 8 * 1024 + 2;
/// The longest header section, with the empty line behind it: a token of a few kilobytes fits, and a thousand of
/// them fit into memory.
pub const FIELDS_BYTES_MAX: usize = 16 * 1024 + 2;
/// The most header fields in one request. Browsers behind proxies send about thirty.
pub const FIELDS_MAX: usize = 64;
/// The largest request body. The largest valid task is about 8 KiB of JSON with every character escaped.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// The longest line with a chunk's size and its extensions (RFC 9112 section 7.1).
pub const CHUNK_LINE_BYTES_MAX: usize = 256;
/// The longest trailer section. Trailers are read and dropped.
pub const TRAILERS_BYTES_MAX: usize = 4 * 1024;
/// How much is read from a client at a time. Most requests arrive whole in one read of this size. So many
/// bytes lie on the stack of each thread that waits for its client.
pub const READ_BYTES: usize = 2 * 1024;

/// From the first byte of a request to the end of its header section.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// From the first byte of a request to the last byte of its body.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// `IDLE_TIMEOUT_SECONDS`: how long a connection may be idle between two requests before the gate
/// closes it. The default is what nginx gives its clients.
pub const IDLE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(75);
/// The least that `IDLE_TIMEOUT_SECONDS` may be: less makes clients connect for every request.
pub const IDLE_TIMEOUT_MIN: Duration = Duration::from_secs(5);
/// The most that it may be: some load balancers keep idle connections for 600 s, none of the usual ones for longer
/// than an hour.
pub const IDLE_TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// The time from a new TLS connection to its first request, the handshake included.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the kernel may take to have room for [`WRITE_BYTES`] more of an answer. A client that reads more
/// slowly is cut off. Linux says that there is room when a third of [`SEND_BUFFER_BYTES`] has been read, so it is
/// enough to read 16 KiB a second.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
/// How much of an answer is written at a time; each piece has [`WRITE_TIMEOUT`].
pub const WRITE_BYTES: usize = 64 * 1024;
/// The part of an unread answer that the kernel may hold. Linux uses twice this amount.
pub const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// After its deadline a connection can be written to for this long, for a last answer such as 408.
pub const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(1);
/// After the last answer the gate reads and drops what the client still sends. Without that the
/// kernel sends a reset, which can take the answer away before the client has read it (RFC 9112
/// section 9.6). That ends when the client closes, and after this time without a byte.
pub const LINGER_IDLE: Duration = Duration::from_secs(2);
/// Reading and dropping ends after this many bytes.
pub const LINGER_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Reading and dropping ends when the client sends more slowly than this on average.
pub const LINGER_BYTES_PER_SECOND_MIN: u64 = 16 * 1024;
/// Reading and dropping ends after this time in any case, which is enough for 10 MB at 1.5 Mbit/s. A
/// connection that lingers counts as idle, so it makes room for another at any time.
pub const LINGER_MAX: Duration = Duration::from_secs(60);
/// Clients that got 503 because all connections are taken stay connected for [`LINGER_IDLE`], at most this many.
/// When one more comes, the oldest is closed. Nothing is read from them.
pub const TURNED_AWAY_MAX: usize = 32;
/// After a 408 the reading side of the socket is shut down, so that a read returns at once. What the client
/// still sends is then looked for at this interval.
pub const LINGER_INTERVAL: Duration = Duration::from_millis(20);

/// A request whose answer is not there after this time is answered with 503.
pub const LATE_ANSWER: Duration = Duration::from_millis(8500);
/// How often the deadline thread looks at all connections: deadlines are kept to this precision.
pub const DEADLINE_INTERVAL: Duration = Duration::from_millis(250);

/// The descriptor limit must allow at least this many connections.
pub const CONNECTIONS_MIN: usize = 32;
/// How many connections of `ADMIN_ADDR` there are at most.
pub const ADMIN_CONNECTIONS_MAX: usize = 16;
/// The descriptors of one database connection: its socket, and those of the driver's event loop.
pub const DATABASE_CONNECTION_DESCRIPTORS: usize = 5;
/// The descriptors that the rest of the process needs: tiny_http, standard streams, files, and the resolution of
/// the database's host name.
pub const OTHER_DESCRIPTORS: usize = 48;
/// The descriptors of the listener at `ADMIN_ADDR`, beside its connections.
pub const ADMIN_DESCRIPTORS: usize = 16;
/// How many connections the kernel queues until they are accepted.
pub const BACKLOG: i32 = 4096;
/// A pooled thread with no client for this long ends, if there are more threads than clients.
pub const THREAD_IDLE: Duration = Duration::from_secs(10);
/// The stack of a pooled thread, enough for a TLS handshake. Untouched pages take no memory.
pub const STACK_BYTES: usize = 256 * 1024;
/// The pause after a connection could not be accepted, when descriptors or threads have run out.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// The log has at most one line in this time about failed TLS handshakes, and one about connections that cannot be
/// accepted or that had to take the thread of another.
pub const LOG_INTERVAL: Duration = Duration::from_secs(1);
/// How long the accepting thread waits for a connection before it looks if the service stops.
pub const ACCEPT_TIMEOUT: Duration = Duration::from_millis(100);
/// How long a connection to our own address may take: it stays on this machine.
pub const CONNECT_SELF_TIMEOUT: Duration = Duration::from_millis(50);

const _: () = assert!(IDLE_TIMEOUT_MIN.as_secs() < IDLE_TIMEOUT_MAX.as_secs());
const _: () = assert!(HEAD_TIMEOUT.as_millis() <= REQUEST_TIMEOUT.as_millis());
const _: () = assert!(LINGER_IDLE.as_millis() < LINGER_MAX.as_millis());
const _: () = assert!(LATE_ANSWER.as_millis() + DEADLINE_INTERVAL.as_millis() < 10_000);
const _: () = assert!(REQUEST_LINE_BYTES_MAX + FIELDS_BYTES_MAX <= BODY_BYTES_MAX);

// Answers: what is made and written for clients.

/// How many rows of a list are in memory at once; a longer list without `limit` is sent in parts.
pub const LIST_PART_ROWS: i64 = 128;
/// The same in an order other than by id, in which PostgreSQL sorts all that is left for each part.
pub const SORTED_PART_ROWS: i64 = 1000;
/// At most this many unknown parameters are named in one answer. Without a bound a request line of 8 KiB
/// could make an answer of a megabyte, and a line of 60 kB in the log.
pub const UNKNOWN_PARAMETERS_MAX: usize = 16;
/// How many large answers, or later parts of lists, are made at once. Others wait for their turn.
pub const TURNS: usize = 4;
/// The same for lists of at most [`LIST_PART_ROWS`], and first parts: a megabyte each, if every character is
/// escaped. As many as the pool has connections by default, so that usual lists wait for nothing else.
pub const SHORT_LIST_TURNS: usize = 16;
/// How long a list waits for its turn; then it is 503.
pub const TURN_WAIT: Duration = Duration::from_secs(5);
/// Answers of at most this size are not counted below.
pub const SMALL_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The memory of all larger answers together, while they are written to their clients.
pub const LARGE_ANSWERS_BYTES_MAX: usize = 32 * 1024 * 1024;
/// A large answer that is still unread after this time may be cut off to make room for another; one of a user
/// who holds more than the other user will, before. A client with 32 Mbit/s reads 4 MiB in this time.
pub const LARGE_ANSWER_SAFE: Duration = Duration::from_secs(1);
/// An answer that has had others cut off waits this long until their threads have given the memory back.
pub const LARGE_ANSWER_WAIT: Duration = Duration::from_secs(1);
/// Head and body are copied into one buffer up to this size, because a second system call costs more.
pub const COPY_BYTES_MAX: usize = 64 * 1024;
/// The longest `X-Request-Id` that is taken over from a client.
pub const REQUEST_ID_BYTES_MAX: usize = 64;

/// A user may spend at once the requests that accrue in this time under `RATE_LIMIT`.
pub const RATE_BURST: Duration = Duration::from_secs(10);
/// How many users the rate limiter counts at a time: some 3 MiB. It does not limit users beyond that.
pub const RATE_USERS_MAX: usize = 64 * 1024;

const _: () = assert!(TURN_WAIT.as_millis() < LATE_ANSWER.as_millis());

// Tokens and files that are followed.

/// How often the files of keys and certificates are looked at. A token with an unknown `kid` has them looked at
/// at once, as often at most. RFC 7517 names no figure; issuers publish a new key minutes before they use it.
pub const FILE_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A token with an unknown `kid` waits this long for that look, because a disk may not answer.
pub const FILE_LOOK_WAIT: Duration = Duration::from_secs(1);
/// `check` and the log warn of a certificate that expires in this time or sooner; so does the alert in
/// `deploy/prometheus`. Certbot renews 30 days before the end, so a renewal has failed for two weeks.
pub const CERTIFICATE_WARNING: Duration = Duration::from_secs(14 * 24 * 3600);
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
/// `RATE_LIMIT`, in requests a second for each user: from one in 100 seconds to a million, which limits nobody.
pub const RATE_LIMITS: RangeInclusive<f64> = 0.01..=1e6;
/// `DATABASE_POOL_SIZE`: ten times PostgreSQL's default for `max_connections`.
pub const POOL_SIZE_MAX: u32 = 1000;
/// `tinytasks token` without `--ttl`.
pub const TOKEN_TTL_DEFAULT: Duration = Duration::from_secs(3600);
/// `tinytasks token --explain` reads no more of standard input. A request's head is at most 16 KiB.
pub const EXPLAINED_BYTES_MAX: u64 = 64 * 1024;

const _: () = assert!(VERIFIED_TOKENS_MAX * VERIFIED_TOKEN_BYTES_MAX <= 4 * 1024 * 1024);

// Tasks: the contract's lengths, in Unicode code points.

pub const USER_ID_CHARS_MAX: usize = 255;
pub const TITLE_CHARS_MAX: usize = 200;
pub const DESCRIPTION_CHARS_MAX: usize = 1000;
/// `q`, the text that a list is searched for: as long as a title.
pub const SEARCH_CHARS_MAX: usize = 200;
/// `limit`, in tasks.
pub const LIST_LIMIT_MAX: i64 = 1000;

// The database. A statement waits at most CHECKOUT_MAX for a connection and STATEMENT_MAX for its answer,
// and no try of it begins or goes on after REQUEST_MAX.

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
/// All tries of one statement, waits for connections included. Below the 8.5 s after which the client
/// is told 503. A request of n statements may hold its thread for n times this; its client is
/// answered after [`LATE_ANSWER`] all the same.
pub const REQUEST_MAX: Duration = Duration::from_millis(8400);
/// How often a statement is tried where a failure makes another try harmless and useful.
pub const STATEMENT_TRIES_MAX: usize = 3;
/// The longest `Idempotency-Key`, by the contract.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
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
/// statement run: seven statements on the catalogue, together a few milliseconds.
pub const EXAMINE_INTERVAL: Duration = Duration::from_secs(2);
/// The same while they do not.
pub const NOT_READY_RETRY: Duration = Duration::from_millis(500);
/// Without a request and a question about health for this long, the service asks the database nothing.
pub const REST_AFTER: Duration = Duration::from_secs(60);
/// The first question about health after such a rest waits for the database's answer at most this
/// long. A suspended database takes about a second to come back.
pub const FIRST_ANSWER_MAX: Duration = Duration::from_secs(3);
/// When the server or the role has reached its connection limit, the pool tries to open another
/// connection after this pause, which then doubles each time.
pub const FULL_RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest such pause.
pub const FULL_RETRY_MAX: Duration = Duration::from_secs(30);
/// The pause while the pool has no connection at all.
pub const FULL_RETRY_EMPTY: Duration = Duration::from_millis(500);
/// `schema.sql` may rewrite a large table, or wait for another instance that does.
pub const SCHEMA_MAX: Duration = Duration::from_secs(3600);
/// A command's statement (the deletion of all tasks of a user, a count over the whole table).
pub const COMMAND_STATEMENT_MAX: Duration = Duration::from_secs(3600);
/// `tinytasks export` waits for the next row at most this long.
pub const EXPORT_ROW_MAX: Duration = Duration::from_secs(60);
/// The watching thread, where it gets no connection of its own, waits for one of the pool at most this long.
pub const WATCH_CHECKOUT_MAX: Duration = Duration::from_millis(500);

const _: () = assert!(STATEMENT_SERVER_MAX.as_millis() < STATEMENT_MAX.as_millis());
const _: () = assert!(CHECKOUT_MAX.as_millis() + STATEMENT_MAX.as_millis() <= REQUEST_MAX.as_millis());
const _: () = assert!(REQUEST_MAX.as_millis() < LATE_ANSWER.as_millis());
const _: () =
    assert!(WATCH_CHECKOUT_MAX.as_millis() + WATCH_INTERVAL.as_millis() < ANSWER_AGE_MAX.as_millis());
const _: () = assert!(PING_MAX.as_millis() + WATCH_INTERVAL.as_millis() <= ANSWER_AGE_MAX.as_millis());

// The log, and what is counted.

/// Log lines that wait for standard error. More are dropped. About 5,000 lines of requests.
pub const LOG_QUEUE_BYTES_MAX: usize = 1024 * 1024;
/// The size of each of the two buffers that take turns for lines. One in which more lines wait grows, and
/// shrinks back once they are written.
pub const LOG_BUFFER_BYTES: usize = 64 * 1024;
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

/// How long requests in flight may take after SIGTERM or SIGINT.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// After SIGTERM an idle connection stays open this long: its next request may be on its way already.
pub const DRAIN_IDLE: Duration = Duration::from_millis(500);
/// How often the end of all connections is looked for while the service stops.
pub const DRAIN_INTERVAL: Duration = Duration::from_millis(5);
/// How long a start with an inherited socket waits for the database. Clients wait in that socket
/// meanwhile, which is better for them than a 503 at each restart.
pub const START_DATABASE_WAIT: Duration = Duration::from_secs(3);
/// How often the database is looked for in that time.
pub const START_DATABASE_INTERVAL: Duration = Duration::from_millis(5);
/// `tinytasks healthcheck` gives up a connection, a read or a write after this. Container engines
/// allow a check 30 s unless told otherwise.
pub const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// It reads no more of an answer. That of `/health` has some 700 bytes.
pub const HEALTH_ANSWER_BYTES_MAX: u64 = 16 * 1024;
