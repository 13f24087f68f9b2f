//! What a bolt emits, acks and fails through.

use std::{collections::BTreeMap, fmt, sync::Arc};

use arrow::array::RecordBatch;

use crate::{
    acker::FailReason,
    anchors::{Anchors, Held, Origin},
    delivery::Delivery,
    lineage::{ByBatch, Label, TaskId},
    router::{EmitError, Router},
    row::{Row, RowBuilder},
    tuples::{Tuple, Tuples},
};

/// A bolt's way out.
///
/// Emitting waits while a receiver has no room: that is how a slow bolt slows its sources down. Acks and fails never
/// wait; they leave when the call ends, behind everything that was emitted in it.
pub struct OutputCollector {
    router: Router,
    /// Single tuples that wait for the end of the call, by stream.
    buffers: Vec<Option<Buffer>>,
    settlements: Vec<Settlement>,
}

struct Buffer {
    rows: RowBuilder,
    anchors: Held,
    /// They leave when they hold so many bytes.
    most_bytes: usize,
}

struct Settlement {
    delivery: Arc<Delivery>,
    /// `None`: all.
    rows: Option<Vec<u32>>,
    /// `None`: acked.
    failed: Option<FailReason>,
}

impl fmt::Debug for OutputCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutputCollector of task {}", self.router.task)
    }
}

impl OutputCollector {
    pub(crate) fn new(router: Router) -> Self {
        let buffers = router.streams.iter().map(|_| None).collect();
        Self { router, buffers, settlements: Vec::new() }
    }

    /// Emits rows to a stream.
    ///
    /// # Errors
    ///
    /// The stream is unknown or direct, the rows or anchors do not fit, or the topology ends.
    pub async fn emit(
        &mut self,
        stream: &str,
        rows: RecordBatch,
        anchors: Anchors<'_>,
    ) -> Result<(), EmitError> {
        self.emit_to(stream, rows, None, anchors).await
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
        anchors: Anchors<'_>,
    ) -> Result<(), EmitError> {
        self.emit_to(stream, rows, Some(task), anchors).await
    }

    /// Emits one tuple, which leaves with others as a batch: when the call ends, or earlier if there are many, or when
    /// a tuple of another stream follows that has a listener in common with this one.
    ///
    /// # Errors
    ///
    /// As [`emit`](Self::emit).
    pub async fn emit_tuple(
        &mut self,
        stream: &str,
        tuple: impl Row + Send,
        anchors: &[Tuple<'_>],
    ) -> Result<(), EmitError> {
        let stream = self.router.stream(stream)?;
        let waits =
            |other: &usize| self.buffers[*other].as_ref().is_some_and(|buffer| !buffer.rows.is_empty());
        if self.router.streams[stream].meets.iter().any(waits) {
            self.flush().await?;
        }
        let declared = &self.router.streams[stream];
        let name = &declared.name;
        if self.buffers[stream].is_none() {
            let rows = RowBuilder::new(Arc::clone(&declared.schema), self.router.batch_rows.min(1_024))
                .map_err(|source| EmitError::Row { stream: (**name).clone(), source })?;
            let most_bytes = self.router.batch_bytes(stream);
            self.buffers[stream] = Some(Buffer { rows, anchors: Held::default(), most_bytes });
        }
        let Some(buffer) = &mut self.buffers[stream] else { return Ok(()) };
        buffer.rows.append(tuple).map_err(|source| EmitError::Row { stream: (**name).clone(), source })?;
        buffer.anchors.push(anchors);
        if buffer.rows.len() >= self.router.batch_rows || buffer.rows.bytes() >= buffer.most_bytes {
            self.flush().await?;
        }
        Ok(())
    }

    /// Marks what is emitted from now on in this call, see [`Label`].
    ///
    /// # Errors
    ///
    /// Single tuples that waited could not leave.
    pub async fn label(&mut self, label: Option<Label>) -> Result<(), EmitError> {
        self.flush().await?;
        self.router.label = label;
        Ok(())
    }

    /// How many bytes a batch may hold, whichever stream it is for.
    pub(crate) fn batch_bytes(&self) -> usize {
        let streams = 0..self.router.streams.len();
        streams.map(|stream| self.router.batch_bytes(stream)).min().unwrap_or(usize::MAX)
    }

    /// How many rows went to each task since this was asked last. A tuple that goes to several tasks counts for each.
    pub fn take_sent(&mut self) -> BTreeMap<TaskId, u64> {
        std::mem::take(&mut self.router.sent)
    }

    /// Acks tuples: what was to be done with them is done, or is up to what was anchored to them.
    pub fn ack(&mut self, tuples: &Tuples) {
        self.settle(tuples, None, None);
    }

    /// Acks one tuple of a batch.
    pub fn ack_tuple(&mut self, tuple: Tuple<'_>) {
        self.settle(tuple.tuples, Some(&[tuple.row as u32]), None);
    }

    /// Acks these rows of a batch.
    ///
    /// # Panics
    ///
    /// If one of the rows does not exist. The call then fails as after any other panic, and none of them is acked.
    pub fn ack_rows(&mut self, tuples: &Tuples, rows: &[u32]) {
        self.settle(tuples, Some(rows), None);
    }

    /// Fails tuples: the trees that they belong to will not be done, and their spouts are told why.
    pub fn fail(&mut self, tuples: &Tuples, why: impl fmt::Display) {
        self.settle(tuples, None, Some(FailReason::Failed(why.to_string().into())));
    }

    /// Fails one tuple of a batch.
    pub fn fail_tuple(&mut self, tuple: Tuple<'_>, why: impl fmt::Display) {
        self.fail_rows(tuple.tuples, &[tuple.row as u32], why);
    }

    /// Fails these rows of a batch.
    ///
    /// # Panics
    ///
    /// If one of the rows does not exist, as [`ack_rows`](Self::ack_rows).
    pub fn fail_rows(&mut self, tuples: &Tuples, rows: &[u32], why: impl fmt::Display) {
        self.settle(tuples, Some(rows), Some(FailReason::Failed(why.to_string().into())));
    }

    /// Gives the trees of these tuples their whole message time-out again, from now on.
    pub fn reset_timeout(&mut self, tuples: &Tuples) {
        tuples.delivery.reset_timeout();
    }

    fn settle(&mut self, tuples: &Tuples, rows: Option<&[u32]>, failed: Option<FailReason>) {
        let delivery = &tuples.delivery;
        let Some(rows) = rows else {
            self.settlements.push(Settlement { delivery: Arc::clone(delivery), rows: None, failed });
            return;
        };
        // Later it would be too late: some of the rows would have been marked, and not been reported.
        delivery.check(rows);
        // Tuples that are settled one by one become one list.
        match self.settlements.last_mut() {
            Some(Settlement { delivery: last, rows: Some(before), failed: as_before })
                if Arc::ptr_eq(last, delivery) && *as_before == failed =>
            {
                before.extend(rows);
            }
            _ => {
                let delivery = Arc::clone(delivery);
                self.settlements.push(Settlement { delivery, rows: Some(rows.to_vec()), failed });
            }
        }
    }

    async fn emit_to(
        &mut self,
        stream: &str,
        rows: RecordBatch,
        to: Option<TaskId>,
        anchors: Anchors<'_>,
    ) -> Result<(), EmitError> {
        // What was emitted earlier leaves earlier.
        self.flush().await?;
        let stream = self.router.stream(stream)?;
        let rows = self.router.checked(stream, rows)?;
        if let Some(given) = anchors.rows().filter(|given| *given != rows.num_rows()) {
            let stream = (*self.router.streams[stream].name).clone();
            return Err(EmitError::Count { stream, rows: rows.num_rows(), given, what: "anchors" });
        }
        if let Some((row, of)) = anchors.missing() {
            let stream = (*self.router.streams[stream].name).clone();
            return Err(EmitError::Anchor { stream, row, of });
        }
        let outgoing = self.router.plan(stream, &rows, to, Origin::Anchors(anchors))?;
        // While they wait for room they are not to keep memory that only they hold.
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
            let anchors = std::mem::take(&mut buffer.anchors);
            match self.router.plan(stream, &rows, None, Origin::Held(&anchors)) {
                Ok(outgoing) => {
                    drop(rows);
                    self.router.send(outgoing).await?;
                }
                Err(error) => {
                    // The bolt was told that they are on their way: whatever it makes of this error, and whenever it
                    // acks what they come from, their trees are not done.
                    anchors.lose(&FailReason::Failed(error.to_string().into()));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Ends a call: first what was emitted, then what was settled.
    pub(crate) async fn end_call(&mut self) -> Result<(), EmitError> {
        self.flush().await?;
        self.router.label = None;
        // One message for each root batch, however many words there were.
        let mut acks = ByBatch::default();
        for Settlement { delivery, rows, failed } in self.settlements.drain(..) {
            match failed {
                None => delivery.ack(rows.as_deref(), &mut acks),
                Some(reason) => delivery.fail(rows.as_deref(), &reason),
            }
        }
        self.router.ackers.ack(acks);
        Ok(())
    }

    /// Forgets what a call has left that went wrong: what it was about to ack or had yet to send fails.
    pub(crate) fn abandon_call(&mut self, reason: &FailReason) {
        for Settlement { delivery, rows, failed } in self.settlements.drain(..) {
            delivery.fail(rows.as_deref(), failed.as_ref().unwrap_or(reason));
        }
        self.router.label = None;
        for buffer in self.buffers.iter_mut().filter_map(Option::take) {
            buffer.anchors.lose(reason);
        }
    }

    /// The task's own announcements, see [`SYSTEM_STREAM`](crate::SYSTEM_STREAM).
    pub(crate) async fn announce(&mut self, event: &str) -> Result<(), EmitError> {
        self.router.announce(event).await
    }
}
