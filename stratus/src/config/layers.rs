//! Where settings come from: a TOML file and the environment. Both become the same list, each setting with the
//! place to name when it is wrong.

use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{is_section, known, meant};
use super::{ConfigError, Problem};

/// What the names of variables begin with.
const PREFIX: &str = "STRATUS__";

/// One key with a value.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) key: &'static str,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// A value, as its origin wrote it.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    /// A type that no key has; its name in TOML.
    Other(&'static str),
}

impl Value {
    /// A text that is not empty.
    pub(super) fn text(&self) -> Result<&str, Problem> {
        match self {
            Self::Text(text) if text.trim().is_empty() => Err(Problem::new("the value is empty")),
            Self::Text(text) => Ok(text),
            Self::Integer(_) => Err(Problem::new("the value is a number").hint("write it in quotes")),
            Self::Other(kind) => {
                Err(Problem::new(format!("the value is of type {kind}; it has to be a string")))
            }
        }
    }

    /// A whole number; the environment has them as text.
    pub(super) fn integer(&self) -> Option<i64> {
        match self {
            Self::Text(text) => text.trim().parse().ok(),
            Self::Integer(number) => Some(*number),
            Self::Other(_) => None,
        }
    }
}

/// Where a setting stands.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    File { path: PathBuf, line: usize },
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// The settings of a file.
pub(super) fn of_file(path: &Path) -> Result<Vec<Setting>, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
        place: path.display().to_string(),
        problem: format!("the configuration cannot be read: {error}"),
        hint: None,
    })?;
    of_text(path, &text)
}

/// The settings of a file's text.
pub(super) fn of_text(path: &Path, text: &str) -> Result<Vec<Setting>, ConfigError> {
    let at = |start: usize| Origin::File { path: path.to_owned(), line: line_of(text, start) };
    let document = DeTable::parse(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        Problem::new(error.message().to_owned()).at(&at(start))
    })?;
    let mut settings = Vec::new();
    for (section, value) in document.get_ref() {
        let origin = at(section.span().start);
        let name: &str = section.get_ref();
        let table = value.get_ref().as_table();
        let Some(table) = table.filter(|_| is_section(name)) else {
            let what = if table.is_some() { "section" } else { "key" };
            return Err(unknown(what, name).at(&origin));
        };
        for (key, value) in table {
            let origin = at(key.span().start);
            let name = format!("{name}.{}", key.get_ref());
            let Some(key) = known(&name) else { return Err(unknown("key", &name).at(&origin)) };
            settings.push(Setting { key, value: of_toml(value), origin });
        }
    }
    Ok(settings)
}

/// The settings of an environment. Variables that do not begin with `STRATUS__` are not ours.
pub(super) fn of_environment(
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Vec<Setting>, ConfigError> {
    let mut settings = Vec::new();
    for (variable, value) in variables {
        let Some(rest) = variable.strip_prefix(PREFIX) else { continue };
        let name = rest.to_lowercase().replace("__", ".");
        let origin = Origin::Variable(variable);
        let Some(key) = known(&name) else { return Err(unknown_variable(&name).at(&origin)) };
        settings.push(Setting { key, value: Value::Text(value), origin });
    }
    Ok(settings)
}

fn unknown(what: &str, name: &str) -> Problem {
    let problem = Problem::new(format!("there is no {what} \"{name}\""));
    let near_section = ["data", "lake", "state", "kafka", "pg", "http"];
    match meant(name) {
        Some(key) => problem.hint(format!("did you mean \"{key}\"?")),
        None if what == "section" => problem.hint(format!("there are: {}", near_section.join(", "))),
        None => problem.hint("docs/configuration.md lists them"),
    }
}

fn unknown_variable(name: &str) -> Problem {
    let variable = |key: &str| format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"));
    let problem = Problem::new(format!("there is no key \"{name}\" for this variable"));
    match meant(name) {
        Some(key) => problem.hint(format!("did you mean {}?", variable(key))),
        None => problem.hint("docs/configuration.md lists them"),
    }
}

fn of_toml(value: &Spanned<DeValue<'_>>) -> Value {
    match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Other("an integer of more than 64 bits"),
        },
        other => Value::Other(other.type_str()),
    }
}

/// The line, from 1, of a byte position.
fn line_of(text: &str, position: usize) -> usize {
    text.bytes().take(position).filter(|byte| *byte == b'\n').count() + 1
}
