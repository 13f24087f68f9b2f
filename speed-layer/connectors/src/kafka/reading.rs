//! One task of a Kafka spout at work.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use stratus_logs::kafka::{KafkaGroup, KafkaReader, KafkaRecord, ReadError};
use stratus_seam::log::{LogError, LogId};
use stratus_topology::{DEFAULT_STREAM, MessageId, MessageIds, SpoutOutputCollector, TaskContext, TaskError};
use tokio::task::JoinHandle;

use super::{
    committer::Committer,
    config::{KafkaSpoutConfig, ProcessingGuarantee},
    message_id::{MessageIdError, RecordId},
    opening::{self, Found, Place},
    rereader::Rereader,
    retries::Verdict,
    slots::Slots,
    start::{CommitNote, FirstPollOffsetStrategy},
    stats::KafkaSpoutStats,
    translator::{Record, RecordTranslator, Translated},
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

/// Rows to be emitted, with the place of each one's record.
struct Outgoing {
    translated: Translated,
    places: Vec<u32>,
    ids: MessageIds,
}

impl Reading {
    pub(super) async fn open(parts: Parts, context: &TaskContext) -> Result<Self, TaskError> {
        let strategy = parts.config.first_poll;
        Self::open_with(parts, context.clone(), strategy, Slots::default()).await
    }

    async fn open_with(
        parts: Parts,
        context: TaskContext,
        strategy: FirstPollOffsetStrategy,
        mut slots: Slots,
    ) -> Result<Self, TaskError> {
        let config = Arc::clone(&parts.config);
        let place = Place { task: context.task_index(), tasks: context.task_count() };
        let note = Arc::new(CommitNote::of(context.topology_name()));
        let group = KafkaGroup::new(&config.kafka, &config.topic, &config.group)?;
        let found = opening::open(&config, strategy, &group, &note, place).await?;
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
            slots,
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
        let outgoing = self.translate(&self.fetched, |_, _| 0)?;
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
        let attempt = |_, offset| attempts.get(&offset).copied().unwrap_or_default();
        let Outgoing { translated, places, ids } = self.translate(&records, attempt)?;
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

    fn translate(
        &self,
        records: &[(usize, KafkaRecord)],
        attempt: impl Fn(usize, u64) -> u32,
    ) -> Result<Outgoing, TaskError> {
        let topic = self.parts.config.topic.as_str();
        let partitions = self.slots.partitions();
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
        let translated = self.parts.translator.translate(&views)?;
        let places = translated.places(records.len())?;
        let id = |place: &u32| {
            let (slot, record) = &records[*place as usize];
            RecordId { slot: *slot, attempt: attempt(*slot, record.offset()), offset: record.offset() }.pack()
        };
        let ids = places.iter().map(id).collect::<Result<Vec<MessageId>, MessageIdError>>()?;
        let ids = match ids.first() {
            Some(first) if ids.iter().zip(*first..).all(|(id, expected)| *id == expected) => {
                MessageIds::From(*first)
            }
            _ => MessageIds::Each(ids),
        };
        Ok(Outgoing { translated, places, ids })
    }

    /// Goes on where the topic has records, if it does not have the next one.
    async fn find_the_way(&mut self, number: usize, partition: u32, offset: u64) -> Result<(), TaskError> {
        let range = match self.group.clone().range(partition).await {
            Ok(range) => range,
            Err(error) => {
                self.astray = Some((number, partition, offset));
                return Err(error.into());
            }
        };
        if offset < range.start {
            let what = "records are gone before they were read, by retention or by hand; reading goes on behind them";
            self.warn_of_loss(partition, offset, range.start, what);
            self.reader.seek(partition, range.start)?;
            if let Some(slot) = self.slots.get(number) {
                slot.ledger.passed(range.start);
            }
        } else if offset > range.end {
            let to = match self.parts.config.guarantee {
                ProcessingGuarantee::AtMostOnce => range.end,
                _ => range.start,
            };
            let what = "the partition ends before the place where it was read; reading begins anew";
            tracing::warn!(topic = self.parts.config.topic, partition, offset, end = range.end, to, "{what}");
            self.rereader.release(partition);
            self.slots.begin(partition, to)?;
            self.reader.seek(partition, to)?;
        }
        Ok(())
    }

    /// Failed records that the topic no longer has count as done.
    fn give_up_outside(&mut self, number: usize, partition: u32, range: std::ops::Range<u64>) {
        let Some(slot) = self.slots.get(number) else { return };
        let beyond: Vec<u64> = slot.ledger.ready(self.context.now()).range(range.end..).copied().collect();
        let lost = slot.ledger.lost_below(range.start) + beyond.len();
        beyond.iter().for_each(|offset| slot.ledger.finish(*offset));
        if lost > 0 {
            self.parts.stats.add_vanished(lost as u64);
            tracing::warn!(
                topic = self.parts.config.topic,
                partition,
                lost,
                begins = range.start,
                ends = range.end,
                "failed records are gone from the topic before they could be emitted again; they count as done"
            );
        }
    }

    fn warn_of_loss(&self, partition: u32, from: u64, to: u64, what: &str) {
        self.parts.stats.add_vanished(to - from);
        tracing::warn!(topic = self.parts.config.topic, partition, from, to, "{what}");
    }

    /// Looks for new partitions now and then, without waiting for the answer.
    async fn refresh(&mut self, now: Duration) -> Result<(), TaskError> {
        if self.refreshing.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(refreshing) = self.refreshing.take()
        {
            match refreshing.await? {
                Ok(found) if found.id != self.id => return self.begin_anew(&found.id).await,
                Ok(found) => {
                    for (partition, start) in found.starts {
                        tracing::info!(
                            topic = self.parts.config.topic,
                            partition,
                            start,
                            "a new partition is read"
                        );
                        self.slots.begin(partition, start)?;
                        self.reader.seek(partition, start)?;
                    }
                    self.partitions = self.partitions.max(found.partitions);
                }
                Err(error) => {
                    tracing::warn!(topic = self.parts.config.topic, %error, "new partitions cannot be looked for");
                }
            }
        }
        if self.refreshing.is_none() && now >= self.refresh_at {
            self.refresh_at = now + self.parts.config.refresh_interval;
            let look =
                opening::refresh(self.group.clone(), Arc::clone(&self.note), self.place, self.partitions);
            self.refreshing = Some(tokio::spawn(look));
        }
        Ok(())
    }

    /// The topic was deleted and made again: none of its offsets means what it meant.
    async fn begin_anew(&mut self, id: &LogId) -> Result<(), TaskError> {
        let topic = &self.parts.config.topic;
        tracing::warn!(topic, was = %self.id, is = %id, "the topic was created anew; it is read from its beginning");
        let mut slots = std::mem::take(&mut self.slots);
        slots.retire();
        let earliest = FirstPollOffsetStrategy::Earliest;
        *self = Self::open_with(self.parts.clone(), self.context.clone(), earliest, slots).await?;
        Ok(())
    }

    async fn commit_if_due(&mut self) {
        if self.parts.config.guarantee != ProcessingGuarantee::AtMostOnce {
            let now = self.context.now();
            self.committer.tend(&mut self.slots, now, self.short_of_room).await;
        }
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
        if self.parts.config.guarantee != ProcessingGuarantee::AtMostOnce {
            // Already logged; the offsets are committed the next time, or records are emitted again.
            let _ = self.committer.commit_now(&mut self.slots, self.context.now()).await;
        }
    }
}

fn size(record: &KafkaRecord) -> usize {
    record.key().map_or(0, <[u8]>::len) + record.value().map_or(0, <[u8]>::len)
}
