//! Records that are about to be emitted.

use stratus_logs::kafka::KafkaRecord;
use stratus_topology::{MessageId, MessageIds, TaskError};

use super::{
    message_id::{MessageIdError, RecordId},
    reading::Parts,
    slots::Slots,
    translator::{Record, Translated},
};

/// Rows to be emitted, with the place of each one's record.
pub(super) struct Outgoing {
    pub(super) translated: Translated,
    pub(super) places: Vec<u32>,
    pub(super) ids: MessageIds,
}

impl Outgoing {
    /// What the translator makes of records, each with the number of its slot. `attempt` tells how often the record with
    /// an offset has failed.
    pub(super) fn of(
        parts: &Parts,
        slots: &Slots,
        records: &[(usize, KafkaRecord)],
        attempt: impl Fn(u64) -> u32,
    ) -> Result<Self, TaskError> {
        let topic = parts.config.topic.as_str();
        let partitions = slots.partitions();
        let views: Vec<Record<'_>> = records
            .iter()
            .map(|(number, record)| Record {
                topic,
                partition: partitions.get(number).copied().unwrap_or_default(),
                offset: record.offset(),
                key: record.key(),
                value: record.value(),
                timestamp: record.timestamp(),
            })
            .collect();
        let translated = parts.translator.translate(&views)?;
        let places = translated.places(records.len())?;
        let id = |place: &u32| {
            let (slot, record) = &records[*place as usize];
            RecordId { slot: *slot, attempt: attempt(record.offset()), offset: record.offset() }.pack()
        };
        let ids = places.iter().map(id).collect::<Result<Vec<MessageId>, MessageIdError>>()?;
        let ids = match ids.first() {
            Some(first) if ids.iter().zip(*first..).all(|(id, expected)| *id == expected) => {
                MessageIds::From(*first)
            }
            _ => MessageIds::Each(ids),
        };
        Ok(Self { translated, places, ids })
    }
}
