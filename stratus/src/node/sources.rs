//! The logs of the sources: opened for each layer that reads them, and for HTTP, which appends to them.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use stratus_logs::codec::{CodecOptions, JsonCodec};
use stratus_logs::kafka::{KafkaAppender, KafkaLog, KafkaSettings, KafkaSettingsError};
use stratus_logs::{AppendError, Appended, Appender, DirectoryLog};
use stratus_seam::catalog::{Connector, Source};
use stratus_seam::ids::SourceId;
use stratus_seam::log::Log;
use stratus_serving::Logs;
use stratus_sql::SqlError;
use tokio::sync::Mutex;

use super::roles::Roles;
use crate::config::Config;

/// What options of CREATE TABLE begin with that are handed to the Kafka client.
pub(super) const PROPERTY: &str = "properties.";

/// Who reads a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Reader {
    Ingest,
    Speed,
    Serving,
}

impl Reader {
    const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Speed => "speed",
            Self::Serving => "serving",
        }
    }
}

/// Opens logs on demand.
#[derive(Debug)]
pub(crate) struct OpenLogs {
    dir: PathBuf,
    /// Whether every layer runs in this process. What HTTP has appended to a directory log is made durable before
    /// anybody reads it, which only the process that appends can do.
    whole: bool,
    kafka: Option<KafkaSettings>,
    inlets: Mutex<HashMap<SourceId, Arc<Inlet>>>,
    readers: Mutex<HashMap<(SourceId, Reader), Arc<dyn Log>>>,
}

/// Where HTTP puts a source's events.
#[derive(Debug)]
pub(super) struct Inlet {
    target: Target,
    check: Arc<std::sync::Mutex<JsonCodec>>,
}

#[derive(Debug)]
enum Target {
    /// The appender is opened when it is first needed: partitions that nobody appends to over HTTP stay free for
    /// other programs.
    Directory(DirectoryLog, Mutex<Option<Arc<Appender>>>),
    Kafka(KafkaAppender),
}

impl OpenLogs {
    pub(super) fn new(config: &Config, roles: Roles) -> anyhow::Result<Self> {
        let whole = roles == Roles::ALL;
        let kafka = Self::kafka_of(config)?;
        let dir = config.logs_dir();
        Ok(Self { dir, whole, kafka, inlets: Mutex::default(), readers: Mutex::default() })
    }

    /// The Kafka client's settings, if Kafka is configured.
    pub(crate) fn kafka_of(config: &Config) -> Result<Option<KafkaSettings>, KafkaSettingsError> {
        let Some(brokers) = &config.kafka.brokers else { return Ok(None) };
        let properties = config.kafka.properties.iter();
        let properties = properties.map(|(name, value)| (name.clone(), value.0.clone())).collect();
        KafkaSettings::new(brokers, &properties).map(Some)
    }

    /// The settings of the Kafka client among the options of a CREATE TABLE.
    pub(crate) fn properties(options: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let own = options.iter().filter_map(|(name, value)| Some((name.strip_prefix(PROPERTY)?, value)));
        own.map(|(name, value)| (name.to_owned(), value.clone())).collect()
    }

    /// Refuses what needs every layer in one process.
    pub(super) fn allow(&self, connector: Connector) -> Result<(), SqlError> {
        if self.whole || connector == Connector::Kafka {
            return Ok(());
        }
        Err(SqlError::new("0A000", "a source over a directory log needs every layer in one process")
            .hint("run `stratus up`, or use connector = 'kafka'"))
    }

    /// Where a source's partitions lie.
    pub(super) fn directory(&self, source_name: &str, options: &BTreeMap<String, String>) -> PathBuf {
        options.get("path").map_or_else(|| self.dir.join(source_name), PathBuf::from)
    }

    /// The Kafka client's settings for a source with these options.
    pub(super) fn kafka(&self, options: &BTreeMap<String, String>) -> Result<KafkaSettings, SqlError> {
        let settings = self.kafka.as_ref().ok_or_else(|| {
            SqlError::new("55000", "no Kafka is configured")
                .hint("set kafka.brokers in stratus.toml, or STRATUS__KAFKA__BROKERS, for every layer")
        })?;
        settings
            .with_source(&Self::properties(options))
            .map_err(|error| SqlError::new("22023", error.to_string()))
    }

    /// The log of a source, for one who reads it from one end to the other: each has its own place in it.
    pub(super) async fn reader(&self, source: &Source, reader: Reader) -> Result<Arc<dyn Log>, SqlError> {
        self.allow(source.connector)?;
        if source.connector == Connector::Directory {
            // What a power cut could still take back must be cut off before anybody absorbs it.
            self.inlet(source).await?;
        }
        let mut readers = self.readers.lock().await;
        if let Some(log) = readers.get(&(source.id, reader)) {
            return Ok(Arc::clone(log));
        }
        let log: Arc<dyn Log> = match source.connector {
            Connector::Directory => Arc::new(self.open_directory(source).await?),
            Connector::Kafka => {
                let (settings, topic) = (self.kafka(&source.options)?, topic(source)?);
                let name = format!("stratus-{}-{}", source.name, reader.name());
                let opened = KafkaLog::open(&settings, topic, &name).await;
                Arc::new(opened.map_err(|error| SqlError::new("58030", error.to_string()))?)
            }
        };
        readers.insert((source.id, reader), Arc::clone(&log));
        Ok(log)
    }

    async fn open_directory(&self, source: &Source) -> Result<DirectoryLog, SqlError> {
        let dir = self.directory(&source.name, &source.options);
        let opened = tokio::task::spawn_blocking(move || DirectoryLog::open(dir)).await;
        let io = |error: &dyn std::fmt::Display| SqlError::new("58030", error.to_string());
        opened.map_err(|error| io(&error))?.map_err(|error| io(&error))
    }

    /// Where HTTP puts a source's events.
    pub(super) async fn inlet(&self, source: &Source) -> Result<Arc<Inlet>, SqlError> {
        let mut inlets = self.inlets.lock().await;
        if let Some(inlet) = inlets.get(&source.id) {
            return Ok(Arc::clone(inlet));
        }
        let check = JsonCodec::new(&source.columns, codec_options(&source.options)?)
            .map_err(|error| SqlError::new("0A000", error.to_string()))?;
        let target = match source.connector {
            Connector::Directory => Target::Directory(self.open_directory(source).await?, Mutex::default()),
            Connector::Kafka => {
                let (settings, topic) = (self.kafka(&source.options)?, topic(source)?);
                let opened = KafkaAppender::open(&settings, topic).await;
                Target::Kafka(opened.map_err(|error| SqlError::new("58030", error.to_string()))?)
            }
        };
        let inlet = Arc::new(Inlet { target, check: Arc::new(std::sync::Mutex::new(check)) });
        if inlet.owns_partitions().await
            && let Err(error) = inlet.directory_appender().await
        {
            tracing::warn!(source = source.name, "HTTP cannot append to the source's partitions: {error}");
        }
        inlets.insert(source.id, Arc::clone(&inlet));
        Ok(inlet)
    }

    /// Forgets a source that was dropped.
    pub(super) async fn close(&self, source: SourceId) {
        self.inlets.lock().await.remove(&source);
        self.readers.lock().await.retain(|(id, _), _| *id != source);
    }
}

/// The topic of a source over Kafka.
fn topic(source: &Source) -> Result<&str, SqlError> {
    let topic = source.options.get("topic").map(String::as_str);
    topic.ok_or_else(|| SqlError::new("22023", format!("source \"{}\" names no topic", source.name)))
}

/// How a source's records are decoded, from the options of its CREATE TABLE.
pub(super) fn codec_options(options: &BTreeMap<String, String>) -> Result<CodecOptions, SqlError> {
    let mut codec = CodecOptions::default();
    if let Some(unit) = options.get("timestamp_unit") {
        codec.timestamp_unit = unit.parse().map_err(|_| {
            SqlError::new("22023", format!("timestamp_unit = '{unit}' is not known"))
                .hint("it is 's', 'ms' or 'us'")
        })?;
    }
    Ok(codec)
}

#[async_trait]
impl Logs for OpenLogs {
    async fn log(&self, source: &Source) -> Result<Arc<dyn Log>, SqlError> {
        self.reader(source, Reader::Serving).await
    }
}

impl Inlet {
    /// Whether HTTP has appended to this directory before. Then the appender is opened before anything is read: it
    /// cuts off a torn tail and makes the rest durable, so that nobody absorbs lines that a power cut could still
    /// take back.
    async fn owns_partitions(&self) -> bool {
        let Target::Directory(log, _) = &self.target else { return false };
        let dir = log.dir().to_owned();
        let owned = move || {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).any(|path| path.extension().is_some_and(|end| end == "owner"))
        };
        tokio::task::spawn_blocking(owned).await.unwrap_or(false)
    }

    async fn directory_appender(&self) -> Result<Option<Arc<Appender>>, AppendError> {
        let Target::Directory(log, appender) = &self.target else { return Ok(None) };
        let mut appender = appender.lock().await;
        if let Some(open) = appender.as_ref() {
            return Ok(Some(Arc::clone(open)));
        }
        let log = log.clone();
        let opened = tokio::task::spawn_blocking(move || Appender::open(&log)).await;
        let opened = Arc::new(opened.map_err(|_| AppendError::Closed)??);
        *appender = Some(Arc::clone(&opened));
        Ok(Some(opened))
    }

    /// Appends the lines of a body and answers once they are durable in the log.
    pub(super) async fn append(&self, body: Bytes) -> Result<Appended, AppendError> {
        match (&self.target, self.directory_appender().await?) {
            (Target::Kafka(appender), _) => appender.append(body).await,
            (Target::Directory(..), Some(appender)) => appender.append(body).await,
            (Target::Directory(..), None) => Err(AppendError::Closed),
        }
    }

    /// How many of some records will be dead letters.
    pub(super) fn dead_letters(&self, body: &[u8]) -> u64 {
        let mut check = self.check.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        stratus_logs::lines(body).filter(|line| check.check(line).is_err()).count() as u64
    }
}
