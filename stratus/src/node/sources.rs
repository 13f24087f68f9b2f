//! The logs of the sources, and the appenders behind HTTP, each opened once.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use stratus_logs::codec::{CodecOptions, JsonCodec};
use stratus_logs::{Appender, DirectoryLog};
use stratus_seam::catalog::{Connector, Source};
use stratus_seam::ids::SourceId;
use stratus_seam::log::Log;
use stratus_serving::Logs;
use stratus_sql::SqlError;
use tokio::sync::Mutex;

/// A source's log as this process has it open.
#[derive(Debug, Clone)]
pub(super) struct OpenLog {
    pub(super) log: DirectoryLog,
    pub(super) codec: CodecOptions,
    appender: Arc<Mutex<Option<Arc<Appender>>>>,
    check: Arc<std::sync::Mutex<JsonCodec>>,
}

/// Opens logs on demand.
#[derive(Debug)]
pub(super) struct OpenLogs {
    dir: PathBuf,
    open: Mutex<HashMap<SourceId, OpenLog>>,
}

impl OpenLogs {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, open: Mutex::default() }
    }

    /// Where a source's partitions lie.
    pub(super) fn directory(
        &self,
        source_name: &str,
        options: &std::collections::BTreeMap<String, String>,
    ) -> PathBuf {
        options.get("path").map_or_else(|| self.dir.join(source_name), PathBuf::from)
    }

    /// The open log of a source.
    pub(super) async fn open(&self, source: &Source) -> Result<OpenLog, SqlError> {
        let mut open = self.open.lock().await;
        if let Some(log) = open.get(&source.id) {
            return Ok(log.clone());
        }
        if source.connector != Connector::Directory {
            return Err(SqlError::new("0A000", "sources over Kafka are not in this version"));
        }
        let dir = self.directory(&source.name, &source.options);
        let opened = tokio::task::spawn_blocking(move || DirectoryLog::open(dir)).await;
        let log = opened
            .map_err(|error| SqlError::new("58030", error.to_string()))?
            .map_err(|error| SqlError::new("58030", error.to_string()))?;
        let codec = codec_options(&source.options)?;
        let check = JsonCodec::new(&source.columns, codec)
            .map_err(|error| SqlError::new("0A000", error.to_string()))?;
        let log =
            OpenLog { log, codec, appender: Arc::default(), check: Arc::new(std::sync::Mutex::new(check)) };
        if log.owns_partitions().await
            && let Err(error) = log.appender().await
        {
            tracing::warn!(source = source.name, "HTTP cannot append to the source's partitions: {error}");
        }
        open.insert(source.id, log.clone());
        Ok(log)
    }

    /// Forgets a source that was dropped.
    pub(super) async fn close(&self, source: SourceId) {
        self.open.lock().await.remove(&source);
    }
}

/// How a source's records are decoded, from the options of its CREATE TABLE.
pub(super) fn codec_options(
    options: &std::collections::BTreeMap<String, String>,
) -> Result<CodecOptions, SqlError> {
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
        Ok(Arc::new(self.open(source).await?.log))
    }
}

impl OpenLog {
    /// Whether HTTP has appended before. Then the appender is opened before anything is read: it cuts off a torn tail
    /// and makes the rest durable, so that nobody absorbs lines that a power cut could still take back.
    async fn owns_partitions(&self) -> bool {
        let dir = self.log.dir().to_owned();
        let owned = move || {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).any(|path| path.extension().is_some_and(|end| end == "owner"))
        };
        tokio::task::spawn_blocking(owned).await.unwrap_or(false)
    }

    /// The appender, opened when it is first needed: partitions that nobody appends to over HTTP stay free for
    /// other programs.
    pub(super) async fn appender(&self) -> Result<Arc<Appender>, stratus_logs::AppendError> {
        let mut appender = self.appender.lock().await;
        if let Some(open) = appender.as_ref() {
            return Ok(Arc::clone(open));
        }
        let log = self.log.clone();
        let opened = tokio::task::spawn_blocking(move || Appender::open(&log)).await;
        let opened = Arc::new(opened.map_err(|_| stratus_logs::AppendError::Closed)??);
        *appender = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// How many of some records will be dead letters.
    pub(super) fn dead_letters(&self, body: &[u8]) -> u64 {
        let mut check = self.check.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        stratus_logs::lines(body).filter(|line| check.check(line).is_err()).count() as u64
    }
}
