//! Why a command failed: its exit code, and the lines for standard error.

/// The failure of a command.
pub struct Failure {
    pub exit_code: u8,
    pub lines: Vec<String>,
}

impl Failure {
    /// Exit code 1 without a line: the reason is already on standard output, or nobody reads the output.
    pub const SILENT: Self = Self { exit_code: 1, lines: Vec::new() };

    /// Exit code 2, for an invalid configuration.
    pub fn of_configuration(complaint: String) -> Self {
        Self { exit_code: 2, lines: vec![complaint] }
    }

    /// Exit code 2, for an invalid command line.
    pub fn of_usage(complaint: &str) -> Self {
        Self::of_configuration(format!("{complaint}; see tinytasks --help"))
    }

    /// Adapts a failure under `--config FILE`: a remedy that mentions `tinytasks migrate` then includes this option,
    /// because without it the command would use another configuration.
    pub fn for_file(self, file: &str) -> Self {
        let with_option = format!("`tinytasks --config {file} migrate`");
        let line = |line: String| line.replace("`tinytasks migrate`", &with_option);
        Self { lines: self.lines.into_iter().map(line).collect(), ..self }
    }
}

/// Escapes the control characters of a text from outside, such as the name of a database, so that it stays on one
/// line and cannot control the terminal.
pub fn escaped(text: &str) -> String {
    let shown = |char: char| if char.is_control() { char.escape_default().to_string() } else { char.into() };
    text.chars().map(shown).collect()
}

impl From<Vec<String>> for Failure {
    fn from(complaints: Vec<String>) -> Self {
        Self { exit_code: 2, lines: complaints }
    }
}

/// Exit code 1: configuration and command line are valid, but the work failed.
impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self { exit_code: 1, lines: vec![reason] }
    }
}
