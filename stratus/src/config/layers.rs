//! Where settings come from: a TOML file and the environment. Both become the same list, each setting with the
//! place to name when it is wrong.

use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{OPEN, is_section, known, meant, open};
use super::{ConfigError, Problem};

/// What the names of variables begin with.
const PREFIX: &str = "STRATUS__";

/// One key with a value.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) key: &'static str,
    /// The entry's name if `key` is a table whose entries the user names.
    pub(super) entry: Option<String>,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

impl Setting {
    /// The entry's name.
    pub(super) fn entry(&self) -> Result<&str, Problem> {
        self.entry.as_deref().ok_or_else(|| Problem::new("an entry of this table has no name"))
    }
}

/// A value, as its origin wrote it.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Flag(bool),
    Texts(Vec<String>),
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
            Self::Flag(_) => Err(Problem::new("the value is true or false; it has to be a string")),
            Self::Texts(_) => Err(Problem::new("the value is of type array; it has to be a string")),
            Self::Other(kind) => {
                Err(Problem::new(format!("the value is of type {kind}; it has to be a string")))
            }
        }
    }

    /// As the Kafka client wants it: everything is text there.
    pub(super) fn written(&self) -> Result<String, Problem> {
        match self {
            Self::Integer(number) => Ok(number.to_string()),
            Self::Flag(flag) => Ok(flag.to_string()),
            other => other.text().map(str::to_owned),
        }
    }

    /// A whole number; the environment has them as text.
    pub(super) fn integer(&self) -> Option<i64> {
        match self {
            Self::Text(text) => text.trim().parse().ok(),
            Self::Integer(number) => Some(*number),
            Self::Flag(_) | Self::Texts(_) | Self::Other(_) => None,
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
            if let Some(table) = open(&name) {
                let mut entries = Vec::new();
                flatten("", value, &mut entries);
                for (entry, value, start) in entries {
                    let origin = at(start);
                    if entry.is_empty() {
                        return Err(
                            Problem::new(format!("\"{table}\" is a table of names and values")).at(&origin)
                        );
                    }
                    settings.push(Setting { key: table, entry: Some(entry), value, origin });
                }
                continue;
            }
            let Some(key) = known(&name) else { return Err(unknown("key", &name).at(&origin)) };
            settings.push(Setting { key, entry: None, value: of_toml(value), origin });
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
        let open = OPEN.iter().find_map(|table| {
            let entry = rest.get(table.len() + 3..)?;
            name.strip_prefix(table)?.strip_prefix('.').map(|_| (*table, entry.to_owned()))
        });
        let origin = Origin::Variable(variable.clone());
        if let Some((key, entry)) = open {
            // Names of librdkafka have points, which a variable's name cannot have.
            let entry =
                if key == "kafka.properties" { entry.to_lowercase().replace('_', ".") } else { entry };
            settings.push(Setting { key, entry: Some(entry), value: Value::Text(value), origin });
            continue;
        }
        let Some(key) = known(&name) else { return Err(unknown_variable(&name).at(&origin)) };
        settings.push(Setting { key, entry: None, value: Value::Text(value), origin });
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

/// The entries of an open table: `a.b = 1` and `"a.b" = 1` are the same entry.
fn flatten(prefix: &str, value: &Spanned<DeValue<'_>>, entries: &mut Vec<(String, Value, usize)>) {
    match value.get_ref().as_table() {
        None => entries.push((prefix.to_owned(), of_toml(value), value.span().start)),
        Some(table) => {
            for (key, value) in table {
                let key = key.get_ref();
                let name = if prefix.is_empty() { key.to_string() } else { format!("{prefix}.{key}") };
                flatten(&name, value, entries);
            }
        }
    }
}

fn of_toml(value: &Spanned<DeValue<'_>>) -> Value {
    match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Other("an integer of more than 64 bits"),
        },
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Array(items) => {
            let texts: Option<Vec<String>> =
                items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect();
            texts.map_or(Value::Other("array"), Value::Texts)
        }
        other => Value::Other(other.type_str()),
    }
}

/// The line, from 1, of a byte position.
fn line_of(text: &str, position: usize) -> usize {
    text.bytes().take(position).filter(|byte| *byte == b'\n').count() + 1
}
