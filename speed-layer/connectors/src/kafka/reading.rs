//! One task of a Kafka spout at work.

mod changes;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use stratus_logs::kafka::{KafkaGroup, KafkaReader, KafkaRecord, ReadError};
use stratus_seam::log::{LogError, LogId};
use stratus_topology::{DEFAULT_STREAM, MessageId, MessageIds, SpoutOutputCollector, TaskContext, TaskError};
use tokio::task::JoinHandle;

use super::{
    committer::Committer,
    config::{KafkaSpoutConfig, ProcessingGuarantee},
    message_id::RecordId,
    opening::{self, Found, Past, Place},
    outgoing::Outgoing,
    rereader::Rereader,
    retries::Verdict,
    slots::Slots,
    start::CommitNote,
    stats::KafkaSpoutStats,
    translator::RecordTranslator,
};

/// What a spout is made of, beside what it is reading.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) config: Arc<KafkaSpoutConfig>,
    pub(super) translator: Arc<dyn RecordTranslator>,
    pub(super) stats: KafkaSpoutStats,
}

/// A spout that is open.
pub(super) struct Reading {
    parts: Parts,
    context: TaskContext,
    place: Place,
    note: Arc<CommitNote>,
    group: KafkaGroup,
    id: LogId,
    partitions: u32,
    reader: KafkaReader,
    rereader: Rereader,
    committer: Committer,
    slots: Slots,
    /// Taken from the reader and not emitted yet: the next emission, or one that failed.
    fetched: Vec<(usize, KafkaRecord)>,
    /// A slot whose next offset the brokers do not have.
    astray: Option<(usize, u32, u64)>,
    short_of_room: bool,
    refresh_at: Duration,
    refreshing: Option<JoinHandle<Result<Found, LogError>>>,
}

impl Reading {
    pub(super) async fn open(parts: Parts, context: &TaskContext) -> Result<Self, TaskError> {
        Self::open_with(parts, context.clone(), Past::Offsets, &mut Slots::default()).await
    }

    /// Begins to read, with slots that follow those which have been used. They are taken if it succeeds.
    async fn open_with(
        parts: Parts,
        context: TaskContext,
        past: Past,
        slots: &mut Slots,
    ) -> Result<Self, TaskError> {
        let config = Arc::clone(&parts.config);
        let place = Place { task: context.task_index(), tasks: context.task_count() };
        let topology = CommitNote::of(context.topology_name());
        let group = KafkaGroup::new(&config.kafka, &config.topic, &config.group)?;
        let (found, note) = opening::open(&config, past, &group, topology, place).await?;
        let note = Arc::new(note);
        group.commit(found.news).await?;
        let mut reader = KafkaReader::new(group.clone());
        for (partition, start) in found.starts {
            slots.begin(partition, start)?;
            reader.seek(partition, start)?;
        }
        let now = context.now();
        let stats = parts.stats.clone();
        let committer = Committer::new(group.clone(), Arc::clone(&note), config.commit_interval, stats, now);
        Ok(Self {
            place,
            note,
            group,
            id: found.id,
            partitions: found.partitions,
            reader,
            rereader: Rereader::new(Arc::clone(&config)),
            committer,
            slots: std::mem::take(slots),
            fetched: Vec::new(),
            astray: None,
            short_of_room: false,
            refresh_at: now + config.refresh_interval,
            refreshing: None,
            context,
            parts,
        })
    }

    /// Emits what there is. Whether there was anything.
    pub(super) async fn next(&mut self, out: &mut SpoutOutputCollector) -> Result<bool, TaskError> {
        let now = self.context.now();
        self.reader.serve();
        self.refresh(now).await?;
        self.commit_if_due().await;
        let mut emitted = false;
        if self.parts.config.is_at_least_once() {
            for (number, partition) in self.slots.in_turn() {
                emitted |= self.emit_again(number, partition, now, out).await?;
            }
        }
        let fetched = self.fetch().await;
        if !self.fetched.is_empty() {
            self.emit_fetched(out).await?;
            emitted = true;
        }
        fetched?;
        Ok(emitted)
    }

    /// Takes records from the reader, unless some are left from the last time.
    async fn fetch(&mut self) -> Result<(), TaskError> {
        if !self.fetched.is_empty() {
            return Ok(());
        }
        if let Some((number, partition, offset)) = self.astray.take() {
            self.find_the_way(number, partition, offset).await?;
        }
        let config = Arc::clone(&self.parts.config);
        let (mut rows, mut bytes, mut taken) = (config.batch_rows, config.batch_bytes, Vec::new());
        self.short_of_room = false;
        for (number, partition) in self.slots.in_turn() {
            let Some(slot) = self.slots.get(number) else { continue };
            let room = match config.is_at_least_once() {
                true => slot.ledger.room(config.max_uncommitted_offsets),
                false => usize::MAX,
            };
            self.short_of_room |= room == 0;
            let read = self.reader.take(partition, None, rows.min(room), bytes, &mut taken);
            rows -= taken.len();
            bytes = bytes.saturating_sub(taken.iter().map(size).sum());
            self.fetched.extend(taken.drain(..).map(|record| (number, record)));
            match read {
                Ok(()) => {}
                Err(ReadError::OutOfRange { offset, .. }) => self.astray = Some((number, partition, offset)),
                Err(error) => return Err(error.into()),
            }
            if rows == 0 || bytes == 0 || self.astray.is_some() {
                break;
            }
        }
        if self.fetched.is_empty() {
            self.note_positions();
        }
        Ok(())
    }

    /// Everything that was read is emitted: the ledgers stand where the reader does, behind what is no record.
    fn note_positions(&mut self) {
        for (_, slot) in self.slots.each() {
            if let Some(position) = self.reader.position(slot.partition) {
                slot.ledger.passed(position);
            }
        }
    }

    async fn emit_fetched(&mut self, out: &mut SpoutOutputCollector) -> Result<(), TaskError> {
        let guarantee = self.parts.config.guarantee;
        if guarantee == ProcessingGuarantee::AtMostOnce {
            self.commit_fetched().await?;
        }
        let outgoing = Outgoing::of(&self.parts, &self.slots, &self.fetched, |_| 0)?;
        let ids = match guarantee == ProcessingGuarantee::AtLeastOnce || self.parts.config.track_tuples {
            true => outgoing.ids,
            false => MessageIds::None,
        };
        let count = self.fetched.len() as u64;
        let rows = outgoing.places.len() as u64;
        if rows > 0 {
            out.emit(DEFAULT_STREAM, outgoing.translated.rows, ids).await?;
        }
        let fetched = std::mem::take(&mut self.fetched);
        if guarantee == ProcessingGuarantee::AtLeastOnce {
            for place in outgoing.places {
                let (number, record) = &fetched[place as usize];
                if let Some(slot) = self.slots.get(*number) {
                    slot.ledger.emitted(record.offset());
                }
            }
        }
        self.note_positions();
        self.parts.stats.add_emitted(rows);
        self.parts.stats.add_without_tuple(count - rows);
        Ok(())
    }

    /// At most once: what is emitted next counts as done.
    async fn commit_fetched(&mut self) -> Result<(), TaskError> {
        let mut ends: BTreeMap<usize, u64> = BTreeMap::new();
        for (number, record) in &self.fetched {
            ends.insert(*number, record.offset() + 1);
        }
        let mut offsets = BTreeMap::new();
        for (number, end) in &ends {
            if let Some(slot) =
                self.slots.get(*number).filter(|slot| slot.ledger.offsets().committed() < *end)
            {
                offsets.insert(slot.partition, self.note.at(*end));
            }
        }
        if offsets.is_empty() {
            return Ok(());
        }
        // One that is under way could overtake this one, and then what is emitted now would be emitted again.
        self.committer.quiet(&mut self.slots, self.context.now()).await?;
        let group = self.group.clone();
        if let Err(error) = group.commit(offsets).await {
            self.parts.stats.add_failed_commits(1);
            return Err(error.into());
        }
        self.parts.stats.add_commits(1);
        for (number, end) in ends {
            if let Some(slot) = self.slots.get(number) {
                slot.ledger.passed(end);
                slot.ledger.was_committed(end);
            }
        }
        Ok(())
    }

    /// Emits records of a partition that have failed and have waited long enough.
    async fn emit_again(
        &mut self,
        number: usize,
        partition: u32,
        now: Duration,
        out: &mut SpoutOutputCollector,
    ) -> Result<bool, TaskError> {
        let Some(slot) = self.slots.get(number) else { return Ok(false) };
        if !slot.ledger.has_failures() {
            self.rereader.release(partition);
            return Ok(false);
        }
        let ready = slot.ledger.ready(now);
        if ready.is_empty() {
            return Ok(false);
        }
        let read = match self.rereader.read(partition, ready, self.parts.config.batch_rows) {
            Ok(read) => read,
            Err(ReadError::OutOfRange { .. }) => {
                let range = self.group.clone().range(partition).await?;
                self.rereader.release(partition);
                self.give_up_outside(number, partition, range);
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        read.lost.iter().for_each(|offset| slot.ledger.finish(*offset));
        for offset in read.lost {
            let what = "a failed record is gone before it could be emitted again; it counts as done";
            self.warn_of_loss(partition, offset, offset + 1, what);
        }
        if read.records.is_empty() {
            return Ok(false);
        }
        let records: Vec<(usize, KafkaRecord)> =
            read.records.into_iter().map(|record| (number, record)).collect();
        let attempts: BTreeMap<u64, u32> = match self.slots.get(number) {
            Some(slot) => {
                records.iter().map(|(_, r)| (r.offset(), slot.ledger.attempt(r.offset()))).collect()
            }
            None => BTreeMap::new(),
        };
        let attempt = |offset| attempts.get(&offset).copied().unwrap_or_default();
        let Outgoing { translated, places, ids } = Outgoing::of(&self.parts, &self.slots, &records, attempt)?;
        if !places.is_empty() {
            out.emit(DEFAULT_STREAM, translated.rows, ids).await?;
        }
        let Some(slot) = self.slots.get(number) else { return Ok(true) };
        let mut places = places.into_iter().peekable();
        for (place, (_, record)) in records.iter().enumerate() {
            match places.next_if_eq(&(place as u32)) {
                Some(_) => {
                    slot.ledger.emitted_again(record.offset());
                    self.parts.stats.add_retried(1);
                }
                None => slot.ledger.finish(record.offset()),
            }
        }
        Ok(true)
    }

    async fn commit_if_due(&mut self) {
        let now = self.context.now();
        self.committer.tend(&mut self.slots, now, self.short_of_room).await;
    }

    pub(super) async fn acked(&mut self, ids: &[MessageId]) {
        for id in ids {
            let id = RecordId::unpack(*id);
            if let Some(slot) = self.slots.get(id.slot) {
                slot.ledger.acked(id);
            }
        }
        self.commit_if_due().await;
    }

    pub(super) fn failed(&mut self, ids: &[MessageId], why: &dyn std::fmt::Display) {
        let now = self.context.now();
        let Parts { config, stats, .. } = &self.parts;
        if !config.is_at_least_once() {
            return;
        }
        for id in ids {
            let id = RecordId::unpack(*id);
            let Some(slot) = self.slots.get(id.slot) else { continue };
            if slot.ledger.failed(id, now, &config.retries) == Some(Verdict::GivenUp) {
                stats.add_given_up(1);
                let (topic, partition, offset) = (&config.topic, slot.partition, id.offset);
                tracing::error!(topic, partition, offset, %why, "a record has failed too often; it counts as done");
            }
        }
    }

    /// Commits what is done, and waits for it.
    pub(super) async fn settle(&mut self) {
        // Already logged; the offsets are committed the next time, or records are emitted again.
        let _ = self.committer.commit_now(&mut self.slots, self.context.now()).await;
    }
}

fn size(record: &KafkaRecord) -> usize {
    record.key().map_or(0, <[u8]>::len) + record.value().map_or(0, <[u8]>::len)
}
