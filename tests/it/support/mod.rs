//! Shared by the tests: the service under test, its database, clients good and bad, and the rules
//! that every answer keeps.

pub mod certificates;
pub mod document;
pub mod harness;
pub mod http;
pub mod instances;
pub mod jwks;
pub mod ledger;
pub mod locks;
pub mod raw;
pub mod reference;
pub mod relay;
pub mod roles;
pub mod samples;
pub mod servers;
pub mod slow;
pub mod tasks;
pub mod token;
