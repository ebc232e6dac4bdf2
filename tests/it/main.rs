//! Black-box tests: the built binary on a port of its own, against a PostgreSQL database of its own.
//! `./scripts/test` brings the database server; see `support/harness` for what a test starts with.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "in a test a broken assumption is a failure, and should stop it at once"
)]

#[path = "../../src/store/statements.rs"]
#[allow(dead_code, reason = "only the texts and types of the statements are of interest")]
mod statements;
mod support;

mod admin;
mod audit;
mod auth;
mod bare;
mod bulk;
mod certificates;
mod check;
mod claims;
mod cli;
mod commands;
mod conditional;
mod connections;
mod contract;
mod cors;
mod cursors;
mod database;
mod database_tls;
mod distributed;
mod docs;
mod durability;
mod etags;
mod faults;
mod framing;
mod handout;
mod idempotency;
mod instances;
mod jwks;
mod limits;
mod list;
mod list_etag;
mod logging;
mod long_lists;
mod metrics;
mod model;
mod old_certificates;
mod older;
mod operations;
mod order;
mod package;
mod pooler;
mod privacy;
mod proxies;
mod proxies_alone;
mod race;
mod readiness;
mod routes;
mod scale_out;
mod schema;
mod search;
mod shutdown;
mod stalled_log;
mod silence;
mod systemd;
mod tasks;
mod tidy;
mod tls;
mod two_roles;
mod unix;
mod users;
mod validation;
mod wrong_things;
