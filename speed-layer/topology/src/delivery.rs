//! A batch in a bolt's hands: its rows' edges, and which of them are settled.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use crate::{
    acker::{AckMessage, Ackers, FailReason},
    declare::{SYSTEM_COMPONENT, TICK_STREAM},
    lineage::{Edge, Label, Lineage, TaskId},
    metrics::InputStats,
    topology::StreamRef,
};

/// Shared by all [`Tuples`](crate::Tuples) that are parts of it. Each row is acked or failed once; what is still open
/// when nobody holds the batch any more fails there and then, since nobody could ack it later.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) stream: Arc<StreamRef>,
    /// Who sent the rows: the end of each run, and its task.
    pub(crate) senders: Vec<(usize, TaskId)>,
    lineage: Lineage,
    pub(crate) label: Option<Label>,
    /// The XOR of the edges that were emitted with each row as an anchor. Only the executor that holds the batch
    /// writes, so these need no read-modify-write.
    emitted: Vec<AtomicU64>,
    settled: Vec<AtomicBool>,
    ackers: Ackers,
    stats: Arc<InputStats>,
}

impl Delivery {
    pub(crate) fn new(
        stream: Arc<StreamRef>,
        senders: Vec<(usize, TaskId)>,
        rows: usize,
        lineage: Lineage,
        label: Option<Label>,
        ackers: Ackers,
        stats: Arc<InputStats>,
    ) -> Self {
        let emitted = if lineage.is_unanchored() { Vec::new() } else { zeros(rows) };
        let settled = (0..rows).map(|_| AtomicBool::new(false)).collect();
        Self { stream, senders, lineage, label, emitted, settled, ackers, stats }
    }

    pub(crate) fn rows(&self) -> usize {
        self.settled.len()
    }

    pub(crate) fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// A tuple with this edge id was emitted and anchored to this row.
    pub(crate) fn anchored(&self, row: usize, id: u64) {
        let emitted = &self.emitted[row];
        emitted.store(emitted.load(Relaxed) ^ id, Relaxed);
    }

    /// Settles these rows, or all; those that are settled already stay as they are. Calls back with each that was open.
    fn settle(&self, rows: Option<&[u32]>, mut open: impl FnMut(usize)) -> usize {
        let mut count = 0;
        let mut one = |row: usize| {
            if !self.settled[row].load(Relaxed) {
                self.settled[row].store(true, Relaxed);
                count += 1;
                open(row);
            }
        };
        match rows {
            None => (0..self.rows()).for_each(&mut one),
            Some(rows) => rows.iter().for_each(|row| one(*row as usize)),
        }
        count
    }

    pub(crate) fn ack(&self, rows: Option<&[u32]>) {
        if self.lineage.is_unanchored() {
            self.stats.acked(self.settle(rows, |_| ()));
            return;
        }
        let expected = rows.map_or(self.rows(), <[u32]>::len);
        let mut messages = self.per_batch(expected);
        let count = self.settle(rows, |row| {
            let emitted = self.emitted[row].load(Relaxed);
            for edge in self.lineage.of_row(row) {
                messages[edge.batch as usize].push((edge.root, edge.id ^ emitted));
            }
        });
        self.stats.acked(count);
        for (batch, values) in self.lineage.batches.iter().zip(messages) {
            if !values.is_empty() {
                self.ackers.send(*batch, AckMessage::Ack { batch: *batch, values });
            }
        }
    }

    pub(crate) fn fail(&self, rows: Option<&[u32]>, reason: &FailReason) {
        let mut failed = self.per_batch(0);
        let count = self.settle(rows, |row| self.roots(row, &mut failed));
        if count > 0 {
            self.stats.failed(count);
        }
        for (batch, rows) in self.lineage.batches.iter().zip(failed) {
            if !rows.is_empty() {
                self.ackers.send(*batch, AckMessage::Fail { batch: *batch, rows, reason: reason.clone() });
            }
        }
    }

    /// Gives the trees of these rows their whole time-out again.
    pub(crate) fn reset_timeout(&self, rows: Option<&[u32]>) {
        let mut reset = self.per_batch(0);
        match rows {
            None => (0..self.rows()).for_each(|row| self.roots(row, &mut reset)),
            Some(rows) => rows.iter().for_each(|row| self.roots(*row as usize, &mut reset)),
        }
        for (batch, rows) in self.lineage.batches.iter().zip(reset) {
            if !rows.is_empty() {
                self.ackers.send(*batch, AckMessage::Reset { batch: *batch, rows });
            }
        }
    }

    fn roots(&self, row: usize, into: &mut [Vec<u32>]) {
        for edge in self.lineage.of_row(row) {
            into[edge.batch as usize].push(edge.root);
        }
    }

    /// A list per root batch, with room for so many if there is only one.
    fn per_batch<T>(&self, expected: usize) -> Vec<Vec<T>> {
        let batches = self.lineage.batches.len();
        (0..batches).map(|_| Vec::with_capacity(expected / batches)).collect()
    }

    /// Who sent a row.
    pub(crate) fn sender(&self, row: usize) -> TaskId {
        let run = self.senders.partition_point(|(end, _)| *end <= row);
        self.senders[run].1
    }

    /// The edges of a row, for what is emitted with it as an anchor.
    pub(crate) fn edges(&self, row: usize) -> &[Edge] {
        self.lineage.of_row(row)
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        // Of unanchored rows this tells nobody, but it counts them. Ticks are the engine's own: who lets them go has not
        // failed anything.
        let is_tick = self.stream.component == SYSTEM_COMPONENT && self.stream.stream == TICK_STREAM;
        if !is_tick {
            self.fail(None, &FailReason::Dropped);
        }
    }
}

fn zeros(rows: usize) -> Vec<AtomicU64> {
    (0..rows).map(|_| AtomicU64::new(0)).collect()
}
