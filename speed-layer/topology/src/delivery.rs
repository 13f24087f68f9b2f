//! Claims to the rows of a batch in a bolt's hands.

mod book;

use std::sync::{Arc, MutexGuard};

use crate::{
    acker::{Ackers, FailReason},
    declare::{SYSTEM_COMPONENT, TICK_STREAM},
    lineage::{ByBatch, Edge, Label, Lineage, RootBatch, TaskId},
    metrics::InputStats,
    topology::StreamRef,
};
use book::{Book, Received};

/// A claim to all rows of a batch, or to a part of them. Each row is acked or failed once, by whichever claim. A row that
/// no claim is left to fails there and then, since nobody could ack it later.
///
/// Rows are named by their position in the claim.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) stream: Arc<StreamRef>,
    pub(crate) label: Option<Label>,
    /// Who sent the rows: the end of each run, and its task.
    senders: Vec<(usize, TaskId)>,
    /// The batch's row of each row; `None`: the same.
    rows: Option<Box<[u32]>>,
    len: usize,
    received: Arc<Received>,
}

impl Delivery {
    /// The claim to a whole batch that was received.
    pub(crate) fn new(
        stream: Arc<StreamRef>,
        senders: Vec<(usize, TaskId)>,
        rows: usize,
        lineage: Lineage,
        label: Option<Label>,
        ackers: Ackers,
        stats: Arc<InputStats>,
    ) -> Self {
        // Ticks are the engine's own: who lets them go has not failed anything.
        let is_tick = stream.component == SYSTEM_COMPONENT && stream.stream == TICK_STREAM;
        let received = Arc::new(Received::new(rows, lineage, ackers, stats, !is_tick));
        Self { stream, label, senders, rows: None, len: rows, received }
    }

    /// A claim to some of its rows.
    pub(crate) fn part(&self, positions: &[u32]) -> Self {
        let mut senders: Vec<(usize, TaskId)> = Vec::new();
        for (at, position) in positions.iter().enumerate() {
            let sender = self.sender(*position as usize);
            match senders.last_mut() {
                Some(last) if last.1 == sender => last.0 = at + 1,
                _ => senders.push((at + 1, sender)),
            }
        }
        let rows: Box<[u32]> = positions.iter().map(|position| self.row(*position as usize)).collect();
        self.received.lock().claim(&rows);
        Self {
            stream: Arc::clone(&self.stream),
            label: self.label,
            senders,
            len: rows.len(),
            rows: Some(rows),
            received: Arc::clone(&self.received),
        }
    }

    /// Makes sure that these rows exist, before anything is said of one of them.
    ///
    /// # Panics
    ///
    /// If one does not.
    pub(crate) fn check(&self, positions: &[u32]) {
        let last = positions.iter().max().copied().unwrap_or_default() as usize;
        assert!(
            positions.is_empty() || last < self.len,
            "row {last} of {} tuples of {}",
            self.len,
            self.stream
        );
    }

    fn row(&self, position: usize) -> u32 {
        self.rows.as_ref().map_or(position as u32, |rows| rows[position])
    }

    /// Who sent a row.
    pub(crate) fn sender(&self, position: usize) -> TaskId {
        let run = self.senders.partition_point(|(end, _)| *end <= position);
        self.senders[run].1
    }

    /// Settles these rows, or all; those that are settled already stay as they are. Calls back with each that was open:
    /// the lineage, its place there, and the XOR of what was emitted with it as an anchor.
    fn settle(&self, positions: Option<&[u32]>, mut open: impl FnMut(&Lineage, usize, u64)) -> usize {
        let mut book = self.received.lock();
        let mut count = 0;
        let mut one = |position: usize| {
            let place = book.place(self.row(position));
            if book.settle(place) {
                count += 1;
                open(book.lineage(), place, book.emitted(place));
            }
        };
        match positions {
            None => (0..self.len).for_each(&mut one),
            Some(positions) => positions.iter().for_each(|position| one(*position as usize)),
        }
        count
    }

    /// Acks these rows, or all. What is to be reported of them goes to `acks`, which must reach the ackers.
    pub(crate) fn ack(&self, positions: Option<&[u32]>, acks: &mut ByBatch<(u32, u64)>) {
        let expected = positions.map_or(self.len, <[u32]>::len);
        let mut first = true;
        let count = self.settle(positions, |lineage, place, emitted| {
            if std::mem::take(&mut first)
                && let [batch] = *lineage.batches
            {
                acks.expect(batch, expected);
            }
            for edge in lineage.of_row(place) {
                acks.push(lineage.batches[edge.batch as usize], (edge.root, edge.id ^ emitted));
            }
        });
        self.received.stats.acked(count);
    }

    /// Fails these rows, or all.
    pub(crate) fn fail(&self, positions: Option<&[u32]>, reason: &FailReason) {
        let mut failed = ByBatch::default();
        let count = self.settle(positions, |lineage, place, _| roots(lineage, place, &mut failed));
        self.received.failed(count, failed, reason);
    }

    /// Gives the trees of all its rows their whole time-out again.
    pub(crate) fn reset_timeout(&self) {
        let mut reset = ByBatch::default();
        let book = self.received.lock();
        (0..self.len).for_each(|position| roots(book.lineage(), book.place(self.row(position)), &mut reset));
        drop(book);
        self.received.ackers.reset(reset);
    }

    /// Its rows, to anchor what is emitted to them.
    pub(crate) fn anchors(&self) -> Anchoring<'_> {
        Anchoring { delivery: self, book: self.received.lock() }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.received.release(self.rows.as_deref());
    }
}

/// The rows of a claim while tuples are anchored to them.
pub(crate) struct Anchoring<'a> {
    delivery: &'a Delivery,
    book: MutexGuard<'a, Book>,
}

impl Anchoring<'_> {
    /// The root batches that the edges count by.
    pub(crate) fn batches(&self) -> &Arc<[RootBatch]> {
        &self.book.lineage().batches
    }

    /// Whether nobody waits for any of the rows.
    pub(crate) fn none(&self) -> bool {
        self.book.lineage().is_unanchored()
    }

    /// Whether each row has exactly one edge.
    pub(crate) fn one_each(&self) -> bool {
        !self.none() && self.book.lineage().starts.is_none()
    }

    /// How many edges a row has.
    pub(crate) fn count(&self, position: usize) -> usize {
        self.book.lineage().of_row(self.book.place(self.delivery.row(position))).len()
    }

    /// The edges of a row that a tuple is emitted for, with an edge of its own from `id`. Rows that nobody waits for
    /// have none, and then there is no edge.
    pub(crate) fn grow(&mut self, position: usize, id: impl FnOnce() -> u64) -> (u64, &[Edge]) {
        let place = self.book.place(self.delivery.row(position));
        if self.book.lineage().of_row(place).is_empty() {
            return (0, &[]);
        }
        let id = id();
        self.book.anchored(place, id);
        (id, self.book.lineage().of_row(place))
    }
}

/// The roots of a row.
fn roots(lineage: &Lineage, place: usize, into: &mut ByBatch<u32>) {
    for edge in lineage.of_row(place) {
        into.push(lineage.batches[edge.batch as usize], edge.root);
    }
}

#[cfg(test)]
mod tests;
