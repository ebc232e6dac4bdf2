//! What docs/operations.md tells an operator to do, done with the very text that stands there.
