//! Finds the value of a variable: in the environment, else in the `.env` file or the file of `--config`, else
//! the default. Collects complaints, warnings, and the values that are used.

use super::variables::{VARIABLES, is_ours, meant};
use super::{dot_env, secret};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;
use std::{env, fs, io, mem};

/// The path of `--config`. Unset if `.env` in the working directory is used.
static FILE: OnceLock<String> = OnceLock::new();

/// The file's content when it was first read. Like the environment, it stays the same for the life of the process:
/// the service reads only those files again that variables name.
static CONTENT: OnceLock<Content> = OnceLock::new();

#[derive(Clone, Default)]
struct Content {
    variables: BTreeMap<String, String>,
    /// One line for each variable that cannot be used.
    complaints: Vec<String>,
    /// One line for each variable that can be used but was probably meant otherwise.
    warnings: Vec<String>,
    /// False if the file could not be read, so that it is unknown which variables it sets.
    is_known: bool,
}

/// Makes [`Source`] read this file instead of `.env`. To be called at the start of the process; a second call has
/// no effect.
pub fn read_from(file: &str) {
    let _ = FILE.set(file.to_owned());
}

/// What is shown in place of a secret.
const HIDDEN: &str = "(hidden)";
const ENVIRONMENT: &str = "environment";

/// A variable with the value that is used.
pub struct Setting {
    pub name: &'static str,
    /// The value; for a secret, a text in its place.
    pub shown: String,
    /// `default`, `environment`, or the path of the file.
    pub origin: String,
}

impl Setting {
    /// The file that contains a secret. None if this is no secret, or if its value is in the environment.
    pub fn file_of_secret(&self) -> Option<&Path> {
        (self.shown == HIDDEN && self.origin != ENVIRONMENT).then_some(Path::new(&self.origin))
    }
}

/// Reads variables. An empty value counts as unset.
pub struct Source {
    /// The file, with the complaints and warnings about it, to which those about the environment are added.
    file: Content,
    pub settings: Vec<Setting>,
}

impl Content {
    fn read() -> Self {
        let (name, is_required) = FILE.get().map_or((".env", false), |file| (file.as_str(), true));
        let text = match fs::read_to_string(name) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_required => String::new(),
            Err(error) => {
                let complaint =
                    format!("{name}: cannot be read: {error}; give a file that this user may read");
                return Self { complaints: vec![complaint], ..Self::default() };
            }
        };
        let mut content = Self { is_known: true, ..Self::default() };
        // Some editors write an invisible byte order mark before the first line.
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let place = format!("{name}: line {}", index + 1);
            match dot_env::line(line.trim()) {
                Ok(("", _)) => {}
                Ok((variable, value)) => {
                    if content.variables.insert(variable.to_owned(), value.to_owned()).is_some() {
                        content.warnings.push(format!(
                            "{place} sets {variable} once more, and counts; remove the line that does not"
                        ));
                    }
                }
                Err(reason) => content.complaints.push(format!("{place} {reason}")),
            }
        }
        content
    }
}

impl Source {
    /// Reads the file, if that has not been done in this process before.
    pub fn open() -> Self {
        Self { file: CONTENT.get_or_init(Content::read).clone(), settings: Vec::new() }
    }

    /// All complaints. If the file could not be read, only the complaint about the file, because variables that seem
    /// to be missing may be in the file.
    pub fn take_complaints(&mut self) -> Vec<String> {
        let mut complaints = mem::take(&mut self.file.complaints);
        if !self.file.is_known {
            complaints.truncate(1);
        }
        complaints
    }

    pub fn take_warnings(&mut self) -> Vec<String> {
        mem::take(&mut self.file.warnings)
    }

    pub fn complain(&mut self, name: &str, complaint: &str) {
        self.file.complaints.push(format!("{name}: {complaint}"));
    }

    pub fn warn(&mut self, name: &str, warning: &str) {
        self.file.warnings.push(format!("{name}: {warning}"));
    }

    /// Warns of variables that do not belong to this service but look like a mistyped variable of it. Warns of every
    /// unknown variable in the file of `--config`, because only this service reads that file. The environment and
    /// `.env` may hold variables of other programs.
    pub fn warn_of_unknown(&mut self) {
        let has_own_file = FILE.get().is_some();
        let of_environment = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        let mut names: Vec<_> = of_environment.map(|name| (name, false)).collect();
        names.extend(self.file.variables.keys().map(|name| (name.clone(), has_own_file)));
        for (name, is_in_own_file) in names {
            if let Some(meant) = meant(&name) {
                self.warn(&name, &format!("is no variable of tinytasks; did you mean {meant}?"));
            } else if is_in_own_file && !is_ours(&name) {
                self.warn(
                    &name,
                    "is no variable of tinytasks, and nothing else reads this file; remove it, or set it in the \
                     environment",
                );
            }
        }
    }

    /// The value of a variable that is not a secret, or its default. None if it has neither.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        let default =
            || VARIABLES.iter().find(|variable| variable.name == name).map(|variable| variable.default);
        let (value, origin) = match self.find(name) {
            Some((value, origin)) => (value, origin),
            None => (default()?.to_owned(), "default".to_owned()),
        };
        self.settings.push(Setting { name, shown: value.clone(), origin });
        Some(value).filter(|value| !value.is_empty())
    }

    /// The value of a name that is set, and where it comes from.
    fn find(&mut self, name: &str) -> Option<(String, String)> {
        let (value, origin) = match env::var(name) {
            Ok(value) => (value, ENVIRONMENT.to_owned()),
            Err(env::VarError::NotPresent) => {
                let file = FILE.get().map_or(".env", String::as_str);
                (self.file.variables.get(name)?.clone(), file.to_owned())
            }
            Err(env::VarError::NotUnicode(_)) => {
                self.complain(name, "is not UTF-8; give text");
                return None;
            }
        };
        if value.is_empty() { None } else { Some((value, origin)) }
    }

    /// The value of a secret: that of the variable itself, or the content of the file that `NAME_FILE` names.
    pub fn secret(&mut self, name: &'static str) -> Option<String> {
        let value = self.find(name);
        let name_of_file = format!("{name}_FILE");
        let found = match (value, self.find(&name_of_file)) {
            (Some(found), None) => Some(found),
            (Some(found), Some(_)) => {
                self.complain(name, &format!("is set, and {name_of_file} is too; keep one of them"));
                Some(found)
            }
            (None, Some((path, _))) => self.secret_file(&name_of_file, &path).map(|secret| (secret, path)),
            (None, None) => None,
        };
        let (shown, origin) = match &found {
            Some((_, origin)) => (HIDDEN, origin.as_str()),
            None => ("", "default"),
        };
        self.settings.push(Setting { name, shown: shown.to_owned(), origin: origin.to_owned() });
        let (value, _) = found?;
        if let Some(doubt) = secret::doubtful_ends(&value) {
            let name = self.name_in_force(name);
            self.warn(&name, doubt);
        }
        Some(value)
    }

    fn secret_file(&mut self, name: &str, path: &str) -> Option<String> {
        if secret::may_be_value(path) && !Path::new(path).exists() {
            self.complain(name, "names no file that is there; give a path, not the secret itself");
            return None;
        }
        let Ok(text) = String::from_utf8(self.content(name, path)?) else {
            self.complain(name, &format!("{path:?} is not UTF-8; give text"));
            return None;
        };
        Some(text.strip_suffix("\r\n").or(text.strip_suffix('\n')).unwrap_or(&text).to_owned())
    }

    /// The bytes of a file. None after a complaint about the variable that names it.
    pub fn content(&mut self, name: &str, path: &str) -> Option<Vec<u8>> {
        match fs::read(path) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                let wanted = "give a file that this user may read";
                self.complain(name, &format!("{path:?} cannot be read: {error}; {wanted}"));
                None
            }
        }
    }

    /// Whether a name has a value, even one that is not UTF-8.
    fn has(&self, name: &str) -> bool {
        match env::var_os(name) {
            Some(value) => !value.is_empty(),
            None => self.file.variables.get(name).is_some_and(|value| !value.is_empty()),
        }
    }

    /// Whether a secret's variable or its `NAME_FILE` is set.
    pub fn is_set(&self, name: &str) -> bool {
        self.has(name) || self.has(&format!("{name}_FILE"))
    }

    /// The name of the variable that provides a secret: `NAME` or `NAME_FILE`.
    pub fn name_in_force(&self, name: &str) -> String {
        let name_of_file = format!("{name}_FILE");
        if !self.has(name) && self.has(&name_of_file) { name_of_file } else { name.to_owned() }
    }

    /// The value of a secret that is required. `wanted` is the end of the complaint, after "is missing; ".
    pub fn required_secret(&mut self, name: &'static str, wanted: &str) -> Option<String> {
        if !self.is_set(name) {
            self.complain(name, &format!("is missing; {wanted}"));
        }
        self.secret(name)
    }

    /// The parsed value of a variable that has a default. None after a complaint. `wanted` is the end of the
    /// complaint, after "give ".
    pub fn parse<T>(
        &mut self,
        name: &'static str,
        wanted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        self.optional(name, wanted, parse).flatten()
    }

    /// The parsed value of a variable without a default: `Some(None)` if it is unset, None after a complaint.
    pub fn optional<T>(
        &mut self,
        name: &'static str,
        wanted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<Option<T>> {
        let Some(text) = self.text(name) else {
            return Some(None);
        };
        let value = parse(text.trim());
        if value.is_none() {
            let quotes = if secret::is_quoted(&text) { ", without quotation marks" } else { "" };
            self.complain(name, &format!("{text:?} does not fit; give {wanted}{quotes}"));
        }
        value.map(Some)
    }

    pub fn boolean(&mut self, name: &'static str) -> Option<bool> {
        self.parse(name, "true or false", |text| text.parse().ok())
    }
}
