//! Reads records again that have failed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use stratus_logs::kafka::{KafkaGroup, KafkaReader, KafkaRecord, ReadError};

use super::config::KafkaSpoutConfig;

/// So many offsets are rather read over than jumped over.
const NEAR: u64 = 4_096;

/// A second connection that goes back to records that have failed, while the first one goes on. Made when the first
/// record fails.
#[derive(Debug)]
pub(super) struct Rereader {
    config: Arc<KafkaSpoutConfig>,
    reader: Option<KafkaReader>,
    /// What is being looked for, by partition. It is looked for from the lowest offset to the highest, and only then
    /// for what has failed in the meantime: going back each time could go on for ever.
    passes: BTreeMap<u32, BTreeSet<u64>>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Reread {
    pub(super) records: Vec<KafkaRecord>,
    /// Offsets that no record has any more: compaction took them.
    pub(super) lost: Vec<u64>,
}

impl Rereader {
    pub(super) fn new(config: Arc<KafkaSpoutConfig>) -> Self {
        Self { config, reader: None, passes: BTreeMap::new() }
    }

    /// Reads on towards the records of a partition that are `ready`, without waiting.
    pub(super) fn read(
        &mut self,
        partition: u32,
        ready: &BTreeSet<u64>,
        rows: usize,
    ) -> Result<Reread, ReadError> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => {
                let KafkaSpoutConfig { kafka, topic, group, .. } = &*self.config;
                none.insert(KafkaReader::new(KafkaGroup::new(kafka, topic, group)?))
            }
        };
        let pass = self.passes.entry(partition).or_default();
        pass.retain(|offset| ready.contains(offset));
        if pass.is_empty() {
            pass.extend(ready.iter().take(rows));
        }
        let (Some(first), Some(last)) = (pass.first().copied(), pass.last().copied()) else {
            return Ok(Reread::default());
        };
        let is_near = reader.is_before(partition, first)
            && reader.position(partition).is_some_and(|position| first - position <= NEAR);
        if !is_near {
            reader.seek(partition, first)?;
        }
        let mut found = Reread::default();
        reader.take(partition, Some(last + 1), NEAR as usize, self.config.batch_bytes, &mut found.records)?;
        found.records.retain(|record| pass.remove(&record.offset()));
        let position = reader.position(partition).unwrap_or_default();
        found.lost = pass.range(..position).copied().collect();
        found.lost.iter().for_each(|offset| _ = pass.remove(offset));
        reader.serve();
        Ok(found)
    }

    /// Nothing of a partition is to be read again at present.
    pub(super) fn release(&mut self, partition: u32) {
        if self.passes.remove(&partition).is_some()
            && let Some(reader) = &mut self.reader
        {
            reader.stop(partition);
        }
    }
}
