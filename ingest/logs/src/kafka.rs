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
