//! What a spout emits through, and which of its tuples are pending.

mod kept;

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use arrow::array::RecordBatch;
use tokio::sync::mpsc;

use crate::{
    acker::{AckMessage, Ackers, FailReason, SpoutEvent},
    anchors::{Anchors, Origin},
    lineage::{Label, RootBatch, TaskId},
    metrics::ComponentStats,
    router::{EmitError, Router},
    row::{Row, RowBuilder},
    spout::MessageId,
};

pub use kept::Emission;

/// A spout's names for the rows of a batch.
#[derive(Clone, Debug)]
pub enum MessageIds {
    /// Nobody wants to know what becomes of them.
    None,
    /// This one and those that follow it.
    From(MessageId),
    /// One for each row.
    Each(Vec<MessageId>),
}

impl MessageIds {
    fn of(&self, row: u32) -> MessageId {
        match self {
            Self::None => 0,
            Self::From(first) => first.wrapping_add(u64::from(row)),
            Self::Each(ids) => ids[row as usize],
        }
    }
}

/// A spout's way out. Emitting waits while a receiver has no room.
pub struct SpoutOutputCollector {
    router: Router,
    ackers: Ackers,
    events: mpsc::UnboundedSender<SpoutEvent>,
    stats: Arc<ComponentStats>,
    buffers: Vec<Option<Buffer>>,
    pending: HashMap<u64, Pending>,
    pending_rows: usize,
    next_batch: u64,
    /// What is acked as soon as it is emitted, since nobody follows it.
    pub(crate) done: Vec<MessageId>,
    /// Single tuples that could not leave later, and why.
    pub(crate) lost: Vec<(Vec<MessageId>, FailReason)>,
    /// What was emitted, if it is kept instead of sent.
    kept: Option<Vec<Emission>>,
}

struct Buffer {
    rows: RowBuilder,
    /// Empty: the rows have no ids.
    ids: Vec<MessageId>,
    since: Duration,
    /// They leave when they hold so many bytes.
    most_bytes: usize,
}

struct Pending {
    ids: MessageIds,
    open: usize,
}

impl fmt::Debug for SpoutOutputCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpoutOutputCollector of task {}, {} tuples pending", self.router.task, self.pending_rows)
    }
}

impl SpoutOutputCollector {
    pub(crate) fn new(
        router: Router,
        ackers: Ackers,
        events: mpsc::UnboundedSender<SpoutEvent>,
        stats: Arc<ComponentStats>,
    ) -> Self {
        let buffers = router.streams.iter().map(|_| None).collect();
        Self {
            router,
            ackers,
            events,
            stats,
            buffers,
            pending: HashMap::new(),
            pending_rows: 0,
            next_batch: 0,
            done: Vec::new(),
            lost: Vec::new(),
            kept: None,
        }
    }

    /// Emits rows to a stream, under these names.
    ///
    /// # Errors
    ///
    /// The stream is unknown or direct, the rows or ids do not fit, or the topology ends.
    pub async fn emit(&mut self, stream: &str, rows: RecordBatch, ids: MessageIds) -> Result<(), EmitError> {
        self.flush().await?;
        let stream = self.router.stream(stream)?;
        self.emit_to(stream, rows, None, ids).await
    }

    /// Emits rows to one task that listens to a direct stream.
    ///
    /// # Errors
    ///
    /// As [`emit`](Self::emit); also if the stream is not direct or the task does not listen.
    pub async fn emit_direct(
        &mut self,
        task: TaskId,
        stream: &str,
        rows: RecordBatch,
        ids: MessageIds,
    ) -> Result<(), EmitError> {
        self.flush().await?;
        let stream = self.router.stream(stream)?;
        self.emit_to(stream, rows, Some(task), ids).await
    }

    /// Emits one tuple, which leaves with others as a batch: when there are enough, when the spout has no more, or when
    /// the topology's [`linger`](crate::TopologyConfig::linger) is over; also when a tuple of another stream follows
    /// that has a listener in common with this one.
    ///
    /// # Errors
    ///
    /// As [`emit`](Self::emit).
    pub async fn emit_tuple(
        &mut self,
        stream: &str,
        tuple: impl Row + Send,
        id: Option<MessageId>,
    ) -> Result<(), EmitError> {
        let stream = self.router.stream(stream)?;
        let named = |buffer: &Buffer| !buffer.ids.is_empty();
        let other_kind = |buffer: &Buffer| !buffer.rows.is_empty() && named(buffer) != id.is_some();
        let waits =
            |other: &usize| self.buffers[*other].as_ref().is_some_and(|buffer| !buffer.rows.is_empty());
        if self.buffers[stream].as_ref().is_some_and(other_kind)
            || self.router.streams[stream].meets.iter().any(waits)
        {
            self.flush().await?;
        }
        let declared = &self.router.streams[stream];
        let wrong = |source| EmitError::Row { stream: (*declared.name).clone(), source };
        if self.buffers[stream].is_none() {
            let rows = RowBuilder::new(Arc::clone(&declared.schema), self.router.batch_rows.min(1_024))
                .map_err(wrong)?;
            let most_bytes = self.router.batch_bytes(stream);
            self.buffers[stream] = Some(Buffer { rows, ids: Vec::new(), since: Duration::ZERO, most_bytes });
        }
        let Some(buffer) = &mut self.buffers[stream] else { return Ok(()) };
        if buffer.rows.is_empty() {
            buffer.since = self.router.clock.now();
        }
        buffer.rows.append(tuple).map_err(wrong)?;
        buffer.ids.extend(id);
        if buffer.rows.len() >= self.router.batch_rows || buffer.rows.bytes() >= buffer.most_bytes {
            self.flush().await?;
        }
        Ok(())
    }

    /// Marks what is emitted from now on, see [`Label`].
    ///
    /// # Errors
    ///
    /// Single tuples that waited could not leave.
    pub async fn label(&mut self, label: Option<Label>) -> Result<(), EmitError> {
        self.flush().await?;
        self.router.label = label;
        Ok(())
    }

    async fn emit_to(
        &mut self,
        stream: usize,
        rows: RecordBatch,
        to: Option<TaskId>,
        ids: MessageIds,
    ) -> Result<(), EmitError> {
        let rows = self.router.checked(stream, rows)?;
        let count = rows.num_rows();
        if let MessageIds::Each(ids) = &ids
            && ids.len() != count
        {
            let stream = (*self.router.streams[stream].name).clone();
            return Err(EmitError::Count { stream, rows: count, given: ids.len(), what: "ids" });
        }
        if count == 0 {
            return Ok(());
        }
        if let Some(kept) = &mut self.kept {
            kept.push(Emission { stream: self.router.streams[stream].name.stream.clone(), rows, ids });
            return Ok(());
        }
        if matches!(ids, MessageIds::None) || !self.ackers.exist() {
            let outgoing = self.router.plan(stream, &rows, to, Origin::Anchors(Anchors::None))?;
            drop(rows);
            self.router.send(outgoing).await?;
            if !matches!(ids, MessageIds::None) {
                self.done.extend((0..count as u32).map(|row| ids.of(row)));
                self.router.streams[stream].stats.unfollowed(count);
            }
            return Ok(());
        }
        let batch = RootBatch { task: self.router.task, number: self.next_batch };
        let mut values = vec![0; count];
        let outgoing = self.router.plan(stream, &rows, to, Origin::Roots { batch, values: &mut values })?;
        self.next_batch += 1;
        self.pending.insert(batch.number, Pending { ids, open: count });
        self.add_pending(count);
        let stats = Arc::clone(&self.router.streams[stream].stats);
        // Before any of the rows, so that the acker knows the batch before it hears of it from a bolt.
        self.ackers.send(batch, AckMessage::Begin { batch, values, spout: self.events.clone(), stats });
        drop(rows);
        self.router.send(outgoing).await
    }

    /// Sends the tuples that wait.
    pub(crate) async fn flush(&mut self) -> Result<(), EmitError> {
        for stream in 0..self.buffers.len() {
            let Some(buffer) = &mut self.buffers[stream] else { continue };
            if buffer.rows.is_empty() {
                continue;
            }
            let rows = buffer.rows.finish();
            let ids = match std::mem::take(&mut buffer.ids) {
                ids if ids.is_empty() => MessageIds::None,
                ids => MessageIds::Each(ids),
            };
            let named = ids.clone();
            if let Err(error) = self.emit_to(stream, rows, None, ids).await {
                // The spout was told that they are on their way.
                if let MessageIds::Each(ids) = named {
                    self.lost.push((ids, FailReason::Failed(error.to_string().into())));
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whether tuples have waited for longer than this.
    pub(crate) fn lingers(&self, linger: Duration) -> bool {
        let now = self.router.clock.now();
        self.buffers
            .iter()
            .flatten()
            .any(|buffer| !buffer.rows.is_empty() && now >= buffer.since.saturating_add(linger))
    }

    /// Tuples that are neither acked nor failed, with those that still wait to be sent.
    pub(crate) fn pending(&self) -> usize {
        let waiting: usize = self.buffers.iter().flatten().map(|buffer| buffer.ids.len()).sum();
        self.pending_rows + waiting
    }

    /// The spout's names for rows that are settled. Empty if the batch is unknown: another spout's, before a restart.
    pub(crate) fn settled(&mut self, batch: RootBatch, rows: &[u32]) -> Vec<MessageId> {
        let Some(pending) = self.pending.get_mut(&batch.number) else { return Vec::new() };
        let ids = rows.iter().map(|row| pending.ids.of(*row)).collect();
        pending.open -= rows.len();
        if pending.open == 0 {
            self.pending.remove(&batch.number);
        }
        self.pending_rows -= rows.len();
        self.stats.pending.fetch_sub(rows.len(), std::sync::atomic::Ordering::SeqCst);
        ids
    }

    fn add_pending(&mut self, rows: usize) {
        self.pending_rows += rows;
        self.stats.pending.fetch_add(rows, std::sync::atomic::Ordering::SeqCst);
    }

    /// Forgets everything that is under way: the spout that emitted it is gone. The ackers, who alone know what of it
    /// is still open, count that as failed.
    pub(crate) fn forget(&mut self) {
        self.ackers.forget(self.router.task, self.next_batch);
        self.pending.clear();
        self.stats
            .pending
            .fetch_sub(std::mem::take(&mut self.pending_rows), std::sync::atomic::Ordering::SeqCst);
        self.buffers.iter_mut().for_each(|buffer| *buffer = None);
        self.done.clear();
        self.lost.clear();
    }

    /// The task's own announcements, see [`SYSTEM_STREAM`](crate::SYSTEM_STREAM).
    pub(crate) async fn announce(&mut self, event: &str) -> Result<(), EmitError> {
        self.router.announce(event).await
    }
}
