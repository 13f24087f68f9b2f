//! The spout.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use stratus_topology::{
    FailReason, MessageId, Next, OutputFieldsDeclarer, Spout, SpoutOutputCollector, TaskContext, TaskError,
};

use super::{
    config::KafkaSpoutConfig,
    reading::{Parts, Reading},
    stats::KafkaSpoutStats,
    translator::{RecordTranslator, WholeRecords},
};

/// Emits the records of a topic to the default stream.
///
/// Each task reads the partitions whose number leaves its index as the remainder of a division by the number of tasks,
/// and finds new ones while it runs. A clone is a spout of the same settings that is not open, and shares the counts,
/// so that a factory for a topology is `move || spout.clone()`.
///
/// ```
/// # use std::collections::BTreeMap;
/// use stratus_connectors::kafka::{KafkaSettings, KafkaSpout, KafkaSpoutConfig};
/// use stratus_topology::TopologyBuilder;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let kafka = KafkaSettings::new("localhost:9092", &BTreeMap::new())?;
/// let spout = KafkaSpout::new(KafkaSpoutConfig::new(kafka, "clicks", "clicks-by-page"));
/// let counts = spout.stats();
/// let mut builder = TopologyBuilder::new();
/// builder.set_spout("clicks", move || spout.clone(), 2);
/// # Ok(()) }
/// ```
pub struct KafkaSpout {
    parts: Parts,
    reading: Option<Reading>,
}

impl KafkaSpout {
    /// A spout of whole records, see [`WholeRecords`].
    pub fn new(config: KafkaSpoutConfig) -> Self {
        Self::with_translator(config, WholeRecords::default())
    }

    /// A spout of what a translator makes of the records.
    pub fn with_translator(config: KafkaSpoutConfig, translator: impl RecordTranslator) -> Self {
        let parts = Parts {
            config: Arc::new(config),
            translator: Arc::new(translator),
            stats: KafkaSpoutStats::default(),
        };
        Self { parts, reading: None }
    }

    /// The counts, of all clones together.
    pub fn stats(&self) -> KafkaSpoutStats {
        self.parts.stats.clone()
    }
}

impl Clone for KafkaSpout {
    fn clone(&self) -> Self {
        Self { parts: self.parts.clone(), reading: None }
    }
}

impl fmt::Debug for KafkaSpout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSpout").field("config", &self.parts.config).finish_non_exhaustive()
    }
}

#[async_trait]
impl Spout for KafkaSpout {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(self.parts.translator.schema());
    }

    async fn open(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        self.reading = Some(Reading::open(self.parts.clone(), context).await?);
        Ok(())
    }

    async fn deactivate(&mut self) {
        if let Some(reading) = &mut self.reading {
            reading.settle().await;
        }
    }

    async fn next(&mut self, out: &mut SpoutOutputCollector) -> Result<Next, TaskError> {
        let emitted = match &mut self.reading {
            Some(reading) => reading.next(out).await?,
            None => false,
        };
        Ok(if emitted { Next::Emitted } else { Next::Idle })
    }

    async fn acked(&mut self, ids: &[MessageId]) {
        if let Some(reading) = &mut self.reading {
            reading.acked(ids).await;
        }
    }

    async fn failed(&mut self, ids: &[MessageId], reason: &FailReason) {
        if let Some(reading) = &mut self.reading {
            reading.failed(ids, reason);
        }
    }

    async fn close(&mut self) {
        if let Some(reading) = &mut self.reading {
            reading.settle().await;
        }
        self.reading = None;
    }
}
