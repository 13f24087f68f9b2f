//! What an operator can set: `stratus.toml`, and over it the environment.

mod keys;
mod layers;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use layers::{Origin, Setting, Value};

/// The file that is read when no other is named, if it exists in the current folder.
pub(crate) const DEFAULT_FILE: &str = "stratus.toml";

/// More shards than this would be more redb tables and commits than any one process has a use for.
const MOST_SHARDS: u32 = 1024;

/// The whole configuration, with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// `[data]`
    pub(crate) data: DataConfig,
    /// `[lake]`
    pub(crate) lake: LakeConfig,
    /// `[state]`
    pub(crate) state: StateConfig,
    /// `[kafka]`
    pub(crate) kafka: KafkaConfig,
    /// `[pg]`
    pub(crate) pg: ListenConfig,
    /// `[http]`
    pub(crate) http: ListenConfig,
}

/// Where the process keeps what it owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataConfig {
    /// The data directory; relative to the current folder.
    pub(crate) dir: PathBuf,
}

/// The lake: master dataset, versions of views, catalog.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct LakeConfig {
    /// A path or a `file://` URL; below the data directory if none is given.
    pub(crate) url: Option<String>,
}

/// The store of the speed layer's state.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct StateConfig {
    /// Which store.
    pub(crate) kind: StateKind,
    /// The path of redb's file; below the data directory if none is given.
    pub(crate) url: Option<String>,
    /// How many shards a new generation spreads the keys over.
    pub(crate) shards: u32,
}

/// The stores there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StateKind {
    /// A file of this process.
    Redb,
    /// This process's memory: gone with it, and then rebuilt from the log and the lake.
    Memory,
}

/// Kafka, which this version does not read yet.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct KafkaConfig {
    /// The bootstrap servers. Always none in this version: setting them is an error.
    pub(crate) brokers: Option<String>,
}

/// A front door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListenConfig {
    /// The address, loopback only; port 0 means any free port.
    pub(crate) listen: SocketAddr,
}

/// What is wrong with the configuration, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}{}", .hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default())]
pub(crate) struct ConfigError {
    /// `file:line`, or the name of a variable.
    pub(crate) place: String,
    /// What is wrong.
    pub(crate) problem: String,
    /// What to do.
    pub(crate) hint: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: DataConfig { dir: PathBuf::from("data") },
            lake: LakeConfig { url: None },
            state: StateConfig { kind: StateKind::Redb, url: None, shards: 16 },
            kafka: KafkaConfig::default(),
            pg: ListenConfig { listen: SocketAddr::from(([127, 0, 0, 1], 5433)) },
            http: ListenConfig { listen: SocketAddr::from(([127, 0, 0, 1], 8080)) },
        }
    }
}

impl Config {
    /// The configuration from a file (else `stratus.toml` in the current folder, if it is there) and the
    /// environment, which goes before the file.
    pub(crate) fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let implied = Path::new(DEFAULT_FILE);
        let file = file.or_else(|| implied.is_file().then_some(implied));
        let mut settings = match file {
            Some(path) => layers::of_file(path)?,
            None => Vec::new(),
        };
        settings.extend(layers::of_environment(env)?);
        Self::of(&settings)
    }

    /// The defaults with these settings over them, the later ones over the earlier ones.
    fn of(settings: &[Setting]) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        for setting in settings {
            config.set(setting).map_err(|problem| problem.at(&setting.origin))?;
        }
        config.check(settings)?;
        Ok(config)
    }

    fn set(&mut self, setting: &Setting) -> Result<(), Problem> {
        let value = &setting.value;
        match setting.key {
            "data.dir" => self.data.dir = PathBuf::from(value.text()?),
            "lake.url" => self.lake.url = Some(lake_url(value.text()?)?),
            "state.kind" => self.state.kind = state_kind(value.text()?)?,
            "state.url" => self.state.url = Some(state_url(value.text()?)?),
            "state.shards" => self.state.shards = shards(value)?,
            "kafka.brokers" => {
                return Err(Problem::new("reading from Kafka is not in this version").hint(
                    "leave it out: sources are directory logs, appended to over HTTP or by any program",
                ));
            }
            "pg.listen" => self.pg.listen = listen(value.text()?)?,
            "http.listen" => self.http.listen = listen(value.text()?)?,
            other => return Err(Problem::new(format!("\"{other}\" is listed as a key and not read"))),
        }
        Ok(())
    }

    /// What only shows when all settings are known.
    fn check(&self, settings: &[Setting]) -> Result<(), ConfigError> {
        let last = |key: &str| settings.iter().rev().find(|setting| setting.key == key);
        let state_url = last("state.url").filter(|_| self.state.kind == StateKind::Memory);
        if let Some(setting) = state_url {
            return Err(Problem::new("state.kind is \"memory\", which has no place on disk")
                .hint("leave state.url out, or set state.kind = \"redb\"")
                .at(&setting.origin));
        }
        let same = self.pg.listen == self.http.listen && self.pg.listen.port() != 0;
        if let Some(setting) = last("http.listen").or_else(|| last("pg.listen")).filter(|_| same) {
            let problem = format!("pg.listen and http.listen are both {}", self.pg.listen);
            return Err(Problem::new(problem).hint("give each a port of its own").at(&setting.origin));
        }
        Ok(())
    }

    /// The folder of the directory logs, one folder per source.
    pub(crate) fn logs_dir(&self) -> PathBuf {
        self.data.dir.join("logs")
    }

    /// The lake's location: a path or a URL.
    pub(crate) fn lake_url(&self) -> String {
        match &self.lake.url {
            Some(url) => url.clone(),
            None => self.data.dir.join("lake").display().to_string(),
        }
    }

    /// The path of redb's file.
    pub(crate) fn state_path(&self) -> PathBuf {
        match &self.state.url {
            Some(url) => PathBuf::from(url),
            None => self.data.dir.join("state.redb"),
        }
    }
}

/// The variables of this process. Those that are not text are none of ours.
pub(crate) fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// What is wrong with one value; where it stands is added by who knows it.
#[derive(Debug)]
struct Problem {
    what: String,
    hint: Option<String>,
}

impl Problem {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn at(self, origin: &Origin) -> ConfigError {
        ConfigError { place: origin.to_string(), problem: self.what, hint: self.hint }
    }
}

/// The scheme of a URL, none for a path.
fn scheme(url: &str) -> Option<&str> {
    url.split_once("://").map(|(scheme, _)| scheme)
}

fn lake_url(url: &str) -> Result<String, Problem> {
    match scheme(url) {
        None | Some("file" | "memory") => Ok(url.to_owned()),
        Some(scheme) => Err(Problem::new(format!("a lake on {scheme}:// is not in this version"))
            .hint("give a folder, as in lake.url = \"/var/lib/stratus/lake\"")),
    }
}

fn state_kind(kind: &str) -> Result<StateKind, Problem> {
    match kind {
        "redb" => Ok(StateKind::Redb),
        "memory" => Ok(StateKind::Memory),
        "redis" => {
            Err(Problem::new("state in Redis is not in this version")
                .hint("leave it out: redb is the default"))
        }
        other => Err(Problem::new(format!("there is no state store \"{other}\""))
            .hint("state.kind is \"redb\" (the default) or \"memory\"")),
    }
}

fn state_url(url: &str) -> Result<String, Problem> {
    match scheme(url) {
        None => Ok(url.to_owned()),
        Some("file") => Ok(url.trim_start_matches("file://").to_owned()),
        Some(scheme) => Err(Problem::new(format!("state on {scheme}:// is not in this version"))
            .hint("give the path of redb's file, or leave it out")),
    }
}

fn shards(value: &Value) -> Result<u32, Problem> {
    let wanted = || Problem::new(format!("state.shards is a whole number from 1 to {MOST_SHARDS}"));
    let number = value.integer().ok_or_else(wanted)?;
    u32::try_from(number).ok().filter(|shards| (1..=MOST_SHARDS).contains(shards)).ok_or_else(wanted)
}

fn listen(text: &str) -> Result<SocketAddr, Problem> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    let address: SocketAddr = numeric.parse().map_err(|_| {
        Problem::new(format!("\"{text}\" is not an address and a port"))
            .hint("write it as \"127.0.0.1:8080\"")
    })?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    Err(Problem::new(format!(
        "{address} can be reached from other machines, and there is no authentication yet"
    ))
    .hint(format!("listen on 127.0.0.1:{}", address.port())))
}

/// A URL without its user, password and parameters.
fn redacted(url: &str) -> String {
    let (url, parameters) = match url.split_once('?') {
        Some((url, _)) => (url, "?***"),
        None => (url, ""),
    };
    match url.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://***@{host}{parameters}"),
            None => format!("{url}{parameters}"),
        },
        None => format!("{url}{parameters}"),
    }
}

impl fmt::Debug for LakeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LakeConfig").field("url", &self.url.as_deref().map(redacted)).finish()
    }
}

impl fmt::Debug for StateConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateConfig")
            .field("kind", &self.kind)
            .field("url", &self.url.as_deref().map(redacted))
            .field("shards", &self.shards)
            .finish()
    }
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConfig").field("brokers", &self.brokers.as_deref().map(redacted)).finish()
    }
}

#[cfg(test)]
mod tests;
