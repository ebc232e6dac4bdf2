//! Why a command ended before its time: the exit code, and lines for standard error.

use crate::config::Complaints;

pub struct Failure {
    pub exit_code: u8,
    pub lines: Vec<String>,
}

impl Failure {
    /// Nothing more to say.
    pub const SILENT: Self = Self { exit_code: 1, lines: Vec::new() };

    pub fn of_configuration(complaint: String) -> Self {
        Self { exit_code: 2, lines: vec![complaint] }
    }

    pub fn of_usage(complaint: &str) -> Self {
        Self::of_configuration(format!("{complaint}; see tinytasks --help"))
    }
}

impl From<Complaints> for Failure {
    fn from(complaints: Complaints) -> Self {
        Self { exit_code: 2, lines: complaints }
    }
}

/// What was begun did not succeed.
impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self { exit_code: 1, lines: vec![reason] }
    }
}
