//! What a bolt emits, acks and fails through.

use std::{collections::BTreeMap, fmt, sync::Arc};

use arrow::array::RecordBatch;

use crate::{
    acker::FailReason,
    anchors::{Anchors, Origin},
    delivery::Delivery,
    lineage::{Label, TaskId},
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
    /// Each row's anchors: where they begin in `anchors`.
    starts: Vec<usize>,
    anchors: Vec<(Tuples, usize)>,
}

struct Settlement {
    delivery: Arc<Delivery>,
    rows: Option<Arc<[u32]>>,
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
            self.buffers[stream] = Some(Buffer { rows, starts: Vec::new(), anchors: Vec::new() });
        }
        let Some(buffer) = &mut self.buffers[stream] else { return Ok(()) };
        buffer.rows.append(tuple).map_err(|source| EmitError::Row { stream: (**name).clone(), source })?;
        buffer.starts.push(buffer.anchors.len());
        buffer.anchors.extend(anchors.iter().map(|anchor| (anchor.tuples.clone(), anchor.row)));
        if buffer.rows.len() >= self.router.batch_rows {
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

    /// How many rows went to each task since this was asked last. A tuple that goes to several tasks counts for each.
    pub fn take_sent(&mut self) -> BTreeMap<TaskId, u64> {
        std::mem::take(&mut self.router.sent)
    }

    /// Acks tuples: what was to be done with them is done, or is up to what was anchored to them.
    pub fn ack(&mut self, tuples: &Tuples) {
        self.settle(tuples, tuples.index.clone(), None);
    }

    /// Acks one tuple of a batch.
    pub fn ack_tuple(&mut self, tuple: Tuple<'_>) {
        self.ack_rows(tuple.tuples, &[tuple.row as u32]);
    }

    /// Acks these rows of a batch.
    pub fn ack_rows(&mut self, tuples: &Tuples, rows: &[u32]) {
        self.settle(tuples, Some(delivery_rows(tuples, rows)), None);
    }

    /// Fails tuples: the trees that they belong to will not be done, and their spouts are told why.
    pub fn fail(&mut self, tuples: &Tuples, why: impl fmt::Display) {
        let why = FailReason::Failed(why.to_string().into());
        self.settle(tuples, tuples.index.clone(), Some(why));
    }

    /// Fails one tuple of a batch.
    pub fn fail_tuple(&mut self, tuple: Tuple<'_>, why: impl fmt::Display) {
        self.fail_rows(tuple.tuples, &[tuple.row as u32], why);
    }

    /// Fails these rows of a batch.
    pub fn fail_rows(&mut self, tuples: &Tuples, rows: &[u32], why: impl fmt::Display) {
        let why = FailReason::Failed(why.to_string().into());
        self.settle(tuples, Some(delivery_rows(tuples, rows)), Some(why));
    }

    /// Gives the trees of these tuples their whole message time-out again, from now on.
    pub fn reset_timeout(&mut self, tuples: &Tuples) {
        tuples.delivery.reset_timeout(tuples.index.as_deref());
    }

    fn settle(&mut self, tuples: &Tuples, rows: Option<Arc<[u32]>>, failed: Option<FailReason>) {
        self.settlements.push(Settlement { delivery: Arc::clone(&tuples.delivery), rows, failed });
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
        let outgoing = self.router.plan(stream, &rows, to, Origin::Anchors(anchors))?;
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
            let mut starts = std::mem::take(&mut buffer.starts);
            let anchors = std::mem::take(&mut buffer.anchors);
            starts.push(anchors.len());
            let planned = if anchors.is_empty() {
                self.router.plan(stream, &rows, None, Origin::Anchors(Anchors::None))
            } else {
                let tuples: Vec<Tuple<'_>> =
                    anchors.iter().map(|(tuples, row)| Tuple { tuples, row: *row }).collect();
                let lists: Vec<Vec<Tuple<'_>>> =
                    starts.windows(2).map(|range| tuples[range[0]..range[1]].to_vec()).collect();
                self.router.plan(stream, &rows, None, Origin::Anchors(Anchors::Lists(&lists)))
            };
            match planned {
                Ok(outgoing) => self.router.send(outgoing).await?,
                Err(error) => {
                    // The bolt was told that they are on their way: whatever it makes of this error, and whenever it
                    // acks what they come from, their trees are not done.
                    lose(&anchors, &FailReason::Failed(error.to_string().into()));
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
        for Settlement { delivery, rows, failed } in self.settlements.drain(..) {
            match failed {
                None => delivery.ack(rows.as_deref()),
                Some(reason) => delivery.fail(rows.as_deref(), &reason),
            }
        }
        Ok(())
    }

    /// Forgets what a call has left that went wrong: what it was about to ack or had yet to send fails.
    pub(crate) fn abandon_call(&mut self, reason: &FailReason) {
        for Settlement { delivery, rows, failed } in self.settlements.drain(..) {
            delivery.fail(rows.as_deref(), failed.as_ref().unwrap_or(reason));
        }
        self.router.label = None;
        for buffer in self.buffers.iter_mut().filter_map(Option::take) {
            lose(&buffer.anchors, reason);
        }
    }

    /// The task's own announcements, see [`SYSTEM_STREAM`](crate::SYSTEM_STREAM).
    pub(crate) async fn announce(&mut self, event: &str) -> Result<(), EmitError> {
        self.router.announce(event).await
    }
}

/// Fails what tuples come from that will not leave.
fn lose(anchors: &[(Tuples, usize)], reason: &FailReason) {
    for (tuples, row) in anchors {
        tuples.delivery.fail(Some(&[tuples.delivery_row(*row) as u32]), reason);
    }
}

fn delivery_rows(tuples: &Tuples, rows: &[u32]) -> Arc<[u32]> {
    rows.iter().map(|row| tuples.delivery_row(*row as usize) as u32).collect()
}
