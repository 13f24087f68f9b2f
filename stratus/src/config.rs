//! What an operator can set: `stratus.toml`, and over it the environment.

mod keys;
mod layers;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use layers::{Origin, Setting};
pub(crate) use values::Secret;
use values::{brokers, lake_url, listen, redacted, shards, state_kind, state_url};

/// The file that is read when no other is named, if it exists in the current folder.
pub(crate) const DEFAULT_FILE: &str = "stratus.toml";

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
    pub(crate) pg: PgConfig,
    /// `[http]`
    pub(crate) http: HttpConfig,
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
    /// The path of redb's file, below the data directory if none is given; or the URL of a Redis server.
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
    /// A Redis or Valkey server, which several processes may share.
    Redis,
}

/// Kafka.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct KafkaConfig {
    /// The bootstrap servers, `host:port` with commas between them.
    pub(crate) brokers: Option<String>,
    /// Settings that are handed to the Kafka client as they are.
    pub(crate) properties: BTreeMap<String, Secret>,
}

/// The PostgreSQL front door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PgConfig {
    /// The address; port 0 means any free port.
    pub(crate) listen: SocketAddr,
    /// Users and their passwords or verifiers. None: any user is let in, from this machine alone.
    pub(crate) users: BTreeMap<String, Secret>,
}

/// The HTTP front door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HttpConfig {
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
            pg: PgConfig { listen: SocketAddr::from(([127, 0, 0, 1], 5433)), users: BTreeMap::new() },
            http: HttpConfig { listen: SocketAddr::from(([127, 0, 0, 1], 8080)) },
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
            "kafka.brokers" => self.kafka.brokers = Some(brokers(value)?),
            "kafka.properties" => {
                self.kafka.properties.insert(setting.entry()?.to_owned(), Secret(value.written()?));
            }
            "pg.users" => {
                self.pg.users.insert(setting.entry()?.to_owned(), Secret(value.text()?.to_owned()));
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
        let origin = last("state.url").or_else(|| last("state.kind"));
        let misfit = match (self.state.kind, self.state.url.as_deref()) {
            (StateKind::Memory, Some(_)) => Some(
                Problem::new("state.kind is \"memory\", which has no place on disk")
                    .hint("leave state.url out, or set state.kind = \"redb\""),
            ),
            (StateKind::Redis, None) => Some(
                Problem::new("state.kind is \"redis\", and nothing says where the server is")
                    .hint("set state.url = \"redis://127.0.0.1:6379\""),
            ),
            (StateKind::Redis, Some(url)) if !values::is_redis(url) => Some(
                Problem::new("state.kind is \"redis\", and state.url is not the URL of a Redis server")
                    .hint("write it as \"redis://127.0.0.1:6379\", or rediss:// for TLS"),
            ),
            (StateKind::Redb, Some(url)) if values::is_redis(url) => Some(
                Problem::new("state.url is the URL of a Redis server, and state.kind is not \"redis\"")
                    .hint("set state.kind = \"redis\""),
            ),
            _ => None,
        };
        if let (Some(problem), Some(setting)) = (misfit, origin) {
            return Err(problem.at(&setting.origin));
        }
        if let Some(setting) = last("kafka.properties").filter(|_| self.kafka.brokers.is_none()) {
            return Err(Problem::new("there are settings for Kafka, and no brokers")
                .hint("set kafka.brokers = \"host:9092\"")
                .at(&setting.origin));
        }
        if let Some(setting) = last("pg.listen").filter(|_| self.pg.users.is_empty())
            && !self.pg.listen.ip().is_loopback()
        {
            let problem =
                format!("{} can be reached from other machines, and there are no users", self.pg.listen);
            return Err(Problem::new(problem)
                .hint(format!(
                    "name users with passwords under [pg.users], or listen on 127.0.0.1:{}",
                    self.pg.listen.port()
                ))
                .at(&setting.origin));
        }
        if let Some(setting) = last("http.listen").filter(|_| !self.http.listen.ip().is_loopback()) {
            let problem =
                format!("{} can be reached from other machines, and HTTP knows no users", self.http.listen);
            return Err(Problem::new(problem)
                .hint(format!("listen on 127.0.0.1:{}", self.http.listen.port()))
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

impl StateConfig {
    /// The store's URL without user, password and parameters.
    pub(crate) fn shown_url(&self) -> String {
        self.url.as_deref().map(redacted).unwrap_or_default()
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

#[cfg(test)]
mod tests;
