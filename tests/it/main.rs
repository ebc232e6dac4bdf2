//! Black-box tests: the built binary on a port of its own, against a PostgreSQL database of its own.
//! `./scripts/test` brings the database server; see `harness.rs` for what a test starts with.

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

mod harness;
mod http;
mod ledger;
mod probe;
mod raw;
mod reference;
mod servers;
mod token;

mod attack;
mod audit;
mod auth;
mod bare;
mod cli;
mod conditional;
mod contract;
mod cors;
mod database;
mod database_tls;
mod docs;
mod durability;
mod faults;
mod fuzz;
mod gate;
mod idempotency;
mod instances;
mod jwks;
mod limits;
mod list;
mod logging;
mod metrics;
mod model;
mod operations;
mod package;
mod privacy;
mod proxies;
mod proxies_alone;
mod race;
mod scale_out;
mod schema;
mod shutdown;
mod systemd;
mod tasks;
mod tidy;
mod tls;
mod two_roles;
mod unix;
mod validation;
mod wire;
