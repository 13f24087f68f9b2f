//! A Kafka topic as a source's log, and as the place where HTTP puts events.

mod appender;
mod group;
mod lane;
mod log;
mod native;
mod reader;
mod settings;
mod topic;

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use stratus_seam::log::LogError;

pub use appender::KafkaAppender;
pub use group::{Committed, KafkaGroup};
pub use log::KafkaLog;
pub use reader::{KafkaReader, KafkaRecord, ReadError};
pub use settings::{KafkaSettings, KafkaSettingsError};
pub use topic::{KafkaTopic, Start, StartError, TopicFacts};

/// How long the brokers may take to answer a question.
const PATIENCE: Duration = Duration::from_secs(10);

fn unavailable(what: impl Into<String>, error: KafkaError) -> LogError {
    LogError::Unavailable { what: what.into(), source: Box::new(error) }
}

fn unavailable_code(what: impl Into<String>, code: RDKafkaErrorCode) -> LogError {
    unavailable(what, KafkaError::Global(code))
}

/// Runs what may block without an end on a thread of its own, which a runtime that shuts down does not wait for.
async fn apart<T: Send + 'static>(
    what: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("kafka-commit".to_owned());
    // Nobody may be waiting any more.
    let begun = thread.spawn(move || _ = tell.send(what()));
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| LogError::Unavailable {
        what: "a thread is needed for the brokers' answer".to_owned(),
        source,
    };
    begun.map_err(|error| failed(error.into()))?;
    told.await.map_err(|error| failed(error.into()))?
}

/// Runs what blocks on a thread where that does no harm.
async fn blocking<T: Send + 'static>(
    what: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(what).await {
        Ok(done) => done,
        Err(error) => Err(LogError::Unavailable {
            what: "the process is shutting down".to_owned(),
            source: Box::new(error),
        }),
    }
}
