//! Why a command failed: its exit code, and the lines for standard error.

pub struct Failure {
    pub exit_code: u8,
    pub lines: Vec<String>,
}

impl Failure {
    /// Exit code 1 without a line: the reason is on standard output, or nobody reads it.
    pub const SILENT: Self = Self { exit_code: 1, lines: Vec::new() };

    /// Exit code 2.
    pub fn of_configuration(complaint: String) -> Self {
        Self { exit_code: 2, lines: vec![complaint] }
    }

    /// Exit code 2, for a bad command line.
    pub fn of_usage(complaint: &str) -> Self {
        Self::of_configuration(format!("{complaint}; see tinytasks --help"))
    }

    /// Under `--config FILE`: a remedy that names `tinytasks migrate` names it with that option, because
    /// without it the command would use another configuration.
    pub fn for_file(self, file: &str) -> Self {
        let with_option = format!("`tinytasks --config {file} migrate`");
        let line = |line: String| line.replace("`tinytasks migrate`", &with_option);
        Self { lines: self.lines.into_iter().map(line).collect(), ..self }
    }
}

/// A text of outside, such as a database's name, on one line and without a terminal's control sequences.
pub fn escaped(text: &str) -> String {
    let shown = |char: char| if char.is_control() { char.escape_default().to_string() } else { char.into() };
    text.chars().map(shown).collect()
}

impl From<Vec<String>> for Failure {
    fn from(complaints: Vec<String>) -> Self {
        Self { exit_code: 2, lines: complaints }
    }
}

/// Exit code 1: configuration and command line were good, but the work failed.
impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self { exit_code: 1, lines: vec![reason] }
    }
}
