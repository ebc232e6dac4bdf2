//! Every duration, size and count that limits a client, a wait or memory, with its unit and its reason. The
//! relations that must hold between them are asserted at compile time, at the end of each group. A number in
//! another file is not such a limit: it is an initial size, a default, the range of a variable, or part of a
//! format.

use std::ops::RangeInclusive;
use std::time::Duration;

// Clients: bytes, connections and deadlines of the gate.

/// The longest request line, with its CRLF. Eight kilobytes is what RFC 9112 section 3 recommends to support.
pub const REQUEST_LINE_BYTES_MAX: usize = 8 * 1024 + 2;
/// The longest header section, with the empty line after it. A token of a few kilobytes fits into it, and a
/// thousand such sections fit into memory.
pub const FIELDS_BYTES_MAX: usize = 16 * 1024 + 2;
/// The most header fields in one request. Browsers behind proxies send about thirty.
pub const FIELDS_MAX: usize = 64;
/// In how many fields of a refused head the service looks for the ones that the answer needs. This takes 16 KiB for
/// a moment.
pub const SALVAGED_FIELDS_MAX: usize = 512;
/// The largest request body. The largest valid task is about 8 KiB of JSON with every character escaped.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// The longest line with a chunk's size and its extensions (RFC 9112 section 7.1).
pub const CHUNK_LINE_BYTES_MAX: usize = 256;
/// The longest trailer section. Trailers are read and dropped.
pub const TRAILERS_BYTES_MAX: usize = 4 * 1024;
/// How much is read from a client at a time. Most requests arrive whole in one read of this size. The buffer is on
/// the stack of each thread that waits for its client.
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
/// The most that `IDLE_TIMEOUT_SECONDS` may be: some load balancers keep idle connections for 600 s, and none of
/// the usual ones for longer than an hour.
pub const IDLE_TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// The time from a new TLS connection to its first request, the handshake included.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the kernel may take until it has room for [`WRITE_BYTES`] more of an answer. A client that reads more
/// slowly is cut off. Linux reports room when a third of [`SEND_BUFFER_BYTES`] has been read, so a client that
/// reads 16 KiB a second is fast enough.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
/// How much of an answer is written at a time. Each such piece may take [`WRITE_TIMEOUT`].
pub const WRITE_BYTES: usize = 64 * 1024;
/// The part of an unread answer that the kernel may hold. Linux uses twice this amount.
pub const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// How many bytes of a client's requests the kernel may hold over TCP before the service reads them. Linux uses twice this
/// amount, which is also what a connection begins with. Without this bound, Linux would let the buffer of a client
/// that sends fast grow to 6 or 32 MiB.
pub const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;
/// After its deadline a connection can be written to for this long, for a last answer such as 408.
pub const FINAL_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// After the last answer the gate lingers: it reads and drops what the client still sends. Otherwise the kernel
/// would send a reset, which can destroy the answer before the client has read it (RFC 9112 section 9.6).
/// Lingering ends when the client closes the connection, and after this time without a byte.
pub const LINGER_IDLE: Duration = Duration::from_secs(2);
/// Lingering ends after this many bytes.
pub const LINGER_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Lingering ends when the client sends more slowly than this on average.
pub const LINGER_BYTES_PER_SECOND_MIN: u64 = 16 * 1024;
/// Lingering ends after this time in any case, which is enough for 10 MB at 1.5 Mbit/s. A connection that lingers
/// counts as idle, so it can be closed at any time to make room for another.
pub const LINGER_MAX: Duration = Duration::from_secs(60);
/// How many clients that got 503 because all connections are taken stay connected, each for [`LINGER_IDLE`]. When
/// one more comes, the oldest is closed. Nothing is read from them.
pub const TURNED_AWAY_MAX: usize = 32;
/// After a 408 the reading side of the socket is shut down, so a read returns at once instead of waiting. Lingering
/// then reads at this interval.
pub const LINGER_INTERVAL: Duration = Duration::from_millis(20);

/// A request that has no answer after this time is answered with 503.
pub const LATE_ANSWER: Duration = Duration::from_millis(8500);
/// How often the deadline thread looks at all connections. Deadlines are enforced with this precision.
pub const DEADLINE_INTERVAL: Duration = Duration::from_millis(250);

/// The descriptor limit must allow at least this many connections.
pub const CONNECTIONS_MIN: usize = 32;
/// The largest number of connections to `ADMIN_ADDR`.
pub const ADMIN_CONNECTIONS_MAX: usize = 16;
/// The descriptors of one database connection: its socket, and those of the driver's event loop.
pub const DATABASE_CONNECTION_DESCRIPTORS: usize = 5;
/// The descriptors that the rest of the process needs: tiny_http, standard streams, files, and the resolution of
/// the database's host name.
pub const OTHER_DESCRIPTORS: usize = 48;
/// The descriptors of the listener at `ADMIN_ADDR`, without those of its connections.
pub const ADMIN_DESCRIPTORS: usize = 16;
/// How many connections the kernel queues until they are accepted.
pub const BACKLOG: i32 = 4096;
/// A pooled thread that has had no client for this long ends if there are more threads than clients.
pub const THREAD_IDLE: Duration = Duration::from_secs(10);
/// The stack of a pooled thread, enough for a TLS handshake. Untouched pages take no memory.
pub const STACK_BYTES: usize = 256 * 1024;
/// The pause after a connection could not be accepted, when descriptors or threads have run out.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// In this time, at most one line is logged about failed TLS handshakes, and one about connections that cannot be
/// accepted or that had to take the thread of another one.
pub const LOG_INTERVAL: Duration = Duration::from_secs(1);
/// How long the accepting thread waits for a connection before it checks whether the service stops.
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
/// The same for a list that is not ordered by id. It is larger because PostgreSQL sorts all the remaining tasks
/// again for each part.
pub const SORTED_PART_ROWS: i64 = 1000;
/// At most this many unknown parameters are named in one answer. Without this limit a request line of 8 KiB could
/// cause an answer of a megabyte and a log line of 60 kB.
pub const UNKNOWN_PARAMETERS_MAX: usize = 64;
/// How much of a refused `Origin` the log shows: enough for a scheme, the longest host name and a port. Without this
/// bound, any client could cause log lines of 96 kB.
pub const LOGGED_ORIGIN_CHARS_MAX: usize = 280;
/// How many large answers, or later parts of lists, are made at once. Others wait for their turn.
pub const TURNS: usize = 4;
/// The same for lists of at most [`LIST_PART_ROWS`] rows, and for first parts of lists: a megabyte each if every
/// character is escaped. By default the pool has the same number of connections, so usual lists wait for a
/// connection and hardly ever for a turn.
pub const SHORT_LIST_TURNS: usize = 16;
/// How long a list waits for its turn. After that it is answered with 503.
pub const TURN_WAIT: Duration = Duration::from_secs(5);
/// Answers of at most this size are small: they do not count towards [`LARGE_ANSWERS_BYTES_MAX`].
pub const SMALL_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The memory of all larger answers together, while they are written to their clients.
pub const LARGE_ANSWERS_BYTES_MAX: usize = 32 * 1024 * 1024;
/// A large answer that is still unread after this time may be cut off to make room for another. If its user holds
/// more than the other user would, it may be cut off earlier. A client with 32 Mbit/s reads 4 MiB in this time.
pub const LARGE_ANSWER_SAFE: Duration = Duration::from_secs(1);
/// How long an answer for which others were cut off waits until their threads have given the memory back.
pub const LARGE_ANSWER_WAIT: Duration = Duration::from_secs(1);
/// Head and body are copied into one buffer up to this size, because a second system call costs more.
pub const COPY_BYTES_MAX: usize = 64 * 1024;
/// The longest `X-Request-Id` of a client that is used.
pub const REQUEST_ID_BYTES_MAX: usize = 64;

/// A user may send at once as many requests as accrue in this time under `RATE_LIMIT`.
pub const RATE_BURST: Duration = Duration::from_secs(10);
/// How many users the rate limiter counts at a time, in about 3 MiB. It does not limit further users.
pub const RATE_USERS_MAX: usize = 64 * 1024;

const _: () = assert!(TURN_WAIT.as_millis() < LATE_ANSWER.as_millis());

// Tokens, and files that are read again when they change.

/// How often the files of keys and certificates are examined for changes. A token with an unknown `kid` causes an
/// examination at once, but no more often than this. RFC 7517 names no figure; issuers publish a new key minutes
/// before they use it.
pub const FILE_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a token with an unknown `kid` waits for that examination. It is limited because a disk may not answer.
pub const FILE_LOOK_WAIT: Duration = Duration::from_secs(1);
/// `check`, the log and the alert in `deploy/prometheus` warn of a certificate that expires within this time.
/// Certbot renews 30 days before the expiry, so renewals have then been failing for two weeks.
pub const CERTIFICATE_WARNING: Duration = Duration::from_secs(14 * 24 * 3600);
/// How many verified tokens are remembered, so that a token that comes again costs only a look-up. When this many
/// are remembered, all are forgotten.
pub const VERIFIED_TOKENS_MAX: usize = 4096;
/// A longer token is not remembered but verified each time. Together with [`VERIFIED_TOKENS_MAX`], this limits the
/// remembered tokens to 4 MiB, and their user ids, which are parts of the tokens, to less than another 4 MiB.
/// Better Auth's tokens are shorter.
pub const VERIFIED_TOKEN_BYTES_MAX: usize = 1024;
/// The shortest secret: an HS256 key must be at least as long as the hash (RFC 7518 section 3.2).
pub const SECRET_BYTES_MIN: usize = 32;
/// The largest `JWT_LEEWAY_SECONDS`. Clocks that are set by NTP differ by less than a second.
pub const JWT_LEEWAY_MAX: Duration = Duration::from_secs(60);
/// The range of `RATE_LIMIT`, in requests a second for each user: from one in 100 seconds to a million, which
/// limits nobody.
pub const RATE_LIMITS: RangeInclusive<f64> = 0.01..=1e6;
/// The largest `DATABASE_POOL_SIZE`: ten times PostgreSQL's default for `max_connections`.
pub const POOL_SIZE_MAX: u32 = 1000;
/// How long a token of `tinytasks token` is valid without `--ttl`.
pub const TOKEN_TTL_DEFAULT: Duration = Duration::from_secs(3600);
/// How much `tinytasks token --explain` reads of standard input. A request's header section has at most 16 KiB.
pub const EXPLAINED_BYTES_MAX: u64 = 64 * 1024;

const _: () = assert!(VERIFIED_TOKENS_MAX * VERIFIED_TOKEN_BYTES_MAX <= 4 * 1024 * 1024);

// Tasks: the contract's lengths, in Unicode code points.

pub const USER_ID_CHARS_MAX: usize = 255;
pub const TITLE_CHARS_MAX: usize = 200;
pub const DESCRIPTION_CHARS_MAX: usize = 1000;
/// The longest `q`, the text for which a list is searched: as long as a title.
pub const SEARCH_CHARS_MAX: usize = 200;
/// The largest `limit` of a list, in tasks.
pub const LIST_LIMIT_MAX: i64 = 1000;

// The database. A try of a statement waits at most CHECKOUT_MAX for a connection and STATEMENT_MAX for its answer,
// and no try begins or goes on after REQUEST_MAX.

/// How long an attempt to connect to one address of a host may take, from the first packet to the last prepared
/// statement, unless `connect_timeout` in `DATABASE_URL` says otherwise. A busy server may need a second for it.
pub const CONNECT_MAX: Duration = Duration::from_secs(5);
/// The largest `connect_timeout` that is used. A longer one is shortened to this.
pub const CONNECT_CEILING: Duration = Duration::from_secs(600);
/// For this long, an address that did not answer in time is tried after the other addresses, so that not every new
/// connection waits for it.
pub const SILENT_ADDRESS_LAST: Duration = Duration::from_secs(10);
/// The server ends a statement, including its waits for locks, after this long.
pub const STATEMENT_SERVER_MAX: Duration = Duration::from_secs(5);
/// A connection on which a statement has no answer after this long is given up. Exceeds `STATEMENT_SERVER_MAX`, so
/// that a server that is only slow can report that it ended the statement.
pub const STATEMENT_MAX: Duration = Duration::from_millis(5400);
/// The longest wait for a free connection.
pub const CHECKOUT_MAX: Duration = Duration::from_secs(3);
/// How long all tries of one statement may take together, including the waits for connections. Less than
/// [`LATE_ANSWER`], after which the client gets a 503. A request of n statements may hold its thread for n times
/// this; its client gets the 503 all the same.
pub const REQUEST_MAX: Duration = Duration::from_millis(8400);
/// How often a statement is tried at most, if another try is harmless and may succeed.
pub const STATEMENT_TRIES_MAX: usize = 3;
/// The longest `Idempotency-Key`, by the contract.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// How often the creation of a task tries to use an idempotency key that other requests use and free at the same
/// time.
pub const IDEMPOTENCY_KEY_TRIES_MAX: usize = 3;
/// An idle connection must answer a ping within this long.
pub const PING_MAX: Duration = Duration::from_secs(1);
/// A connection that was used more recently than this is handed out without a ping. If it is broken, the statement
/// fails and detects that.
pub const PING_AFTER: Duration = Duration::from_millis(500);
/// How long closing a connection may take. The driver's last message of a few bytes must fit into a socket buffer,
/// and that of a silent server may be full.
pub const CLOSE_MAX: Duration = Duration::from_millis(100);
/// Data that stays unacknowledged for this long means that the other machine is gone (TCP_USER_TIMEOUT). A
/// connection that is idle for this long is probed (TCP keepalive).
pub const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(5);
/// How often the watching thread asks the database whether it answers.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(500);
/// An answer older than this no longer shows that the database is answering. A ping and the pause after it take no
/// longer than this.
pub const ANSWER_AGE_MAX: Duration = Duration::from_millis(1500);
/// How often all connections are replaced while their server accepts no writes, because new ones may reach the
/// primary.
pub const READ_ONLY_RETRY: Duration = Duration::from_secs(5);
/// How often the watching thread examines whether the schema and the role's rights still let every statement run.
/// This takes seven statements on the catalogue, together a few milliseconds.
pub const EXAMINE_INTERVAL: Duration = Duration::from_secs(2);
/// The same while the examination has found a problem.
pub const NOT_READY_RETRY: Duration = Duration::from_millis(500);
/// After this long without a request or a health check, the watching thread rests: it asks the database nothing.
pub const REST_AFTER: Duration = Duration::from_secs(60);
/// How long the first health check after such a rest waits for the database's answer. A suspended database takes
/// about a second to resume.
pub const FIRST_ANSWER_MAX: Duration = Duration::from_secs(3);
/// When the server or the role has reached its connection limit, the pool tries to open another connection after
/// this pause. The pause doubles after each further refusal.
pub const FULL_RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest such pause.
pub const FULL_RETRY_MAX: Duration = Duration::from_secs(30);
/// The same pause while the pool has no connection at all.
pub const FULL_RETRY_EMPTY: Duration = Duration::from_millis(500);
/// How long `schema.sql` may take: it may rewrite a large table, or wait for another instance that does.
pub const SCHEMA_MAX: Duration = Duration::from_secs(3600);
/// How long a statement of a command may take, such as the deletion of all tasks of a user.
pub const COMMAND_STATEMENT_MAX: Duration = Duration::from_secs(3600);
/// How long `tinytasks export` waits for the next row.
pub const EXPORT_ROW_MAX: Duration = Duration::from_secs(60);
/// How long the watching thread waits for a connection of the pool if it gets none of its own.
pub const WATCH_CHECKOUT_MAX: Duration = Duration::from_millis(500);

const _: () = assert!(STATEMENT_SERVER_MAX.as_millis() < STATEMENT_MAX.as_millis());
const _: () = assert!(CHECKOUT_MAX.as_millis() + STATEMENT_MAX.as_millis() <= REQUEST_MAX.as_millis());
const _: () = assert!(REQUEST_MAX.as_millis() < LATE_ANSWER.as_millis());
const _: () =
    assert!(WATCH_CHECKOUT_MAX.as_millis() + WATCH_INTERVAL.as_millis() < ANSWER_AGE_MAX.as_millis());
const _: () = assert!(PING_MAX.as_millis() + WATCH_INTERVAL.as_millis() <= ANSWER_AGE_MAX.as_millis());

// The log and the metrics.

/// How many bytes of log lines may wait for standard error: about 5,000 lines of requests. Further lines are
/// dropped.
pub const LOG_QUEUE_BYTES_MAX: usize = 1024 * 1024;
/// The size of each of the two buffers that are used in turn for log lines. A buffer grows if more lines wait in
/// it, and shrinks to this size once they are written.
pub const LOG_BUFFER_BYTES: usize = 64 * 1024;
/// How long the writing thread waits before it takes the lines, so that a busy service wakes it 500 times a second
/// and not once for each line. A crash loses at most the lines of this time.
pub const LOG_BATCH_DELAY: Duration = Duration::from_millis(2);
/// How long the end of the process waits until standard error has taken the last lines.
pub const LOG_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// How many histograms a thread remembers, so that it finds them without a lock. A thread answers few kinds of
/// requests. If all 1,024 threads remember this many, that takes 1 MiB.
pub const SERIES_PER_THREAD_MAX: usize = 16;

const _: () = assert!(LOG_BATCH_DELAY.as_millis() * 10 < LOG_FLUSH_TIMEOUT.as_millis());

// The life of the process.

/// How long requests in flight may take after SIGTERM or SIGINT.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// After SIGTERM an idle connection stays open this long: its next request may be on its way already.
pub const DRAIN_IDLE: Duration = Duration::from_millis(500);
/// While the service stops, how often it checks whether all connections have ended.
pub const DRAIN_INTERVAL: Duration = Duration::from_millis(5);
/// How long a start with an inherited socket waits for the database. Meanwhile clients wait in the queue of that
/// socket, which is better for them than a 503 at each restart.
pub const START_DATABASE_WAIT: Duration = Duration::from_secs(3);
/// How often the readiness of the database is checked in that time.
pub const START_DATABASE_INTERVAL: Duration = Duration::from_millis(5);
/// How long `tinytasks healthcheck` waits for a connection, a read or a write. Container engines allow a check 30 s
/// by default.
pub const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of an answer `tinytasks healthcheck` reads. The answer of `/health` has about 700 bytes.
pub const HEALTH_ANSWER_BYTES_MAX: u64 = 16 * 1024;
