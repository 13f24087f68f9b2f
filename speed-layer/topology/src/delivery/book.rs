//! What is known of a batch's rows: their edges, which are settled, and who has a claim to them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::roots;
use crate::{
    acker::{Ackers, FailReason},
    lineage::{ByBatch, Lineage},
    metrics::InputStats,
};

/// A batch that was received, shared by all claims to its rows.
#[derive(Debug)]
pub(super) struct Received {
    book: Mutex<Book>,
    pub(super) ackers: Ackers,
    pub(super) stats: Arc<InputStats>,
    /// Whether rows that are let go count as failed.
    counts: bool,
}

/// An entry for each row that somebody claims.
#[derive(Debug)]
pub(super) struct Book {
    /// The rows that have an entry, ascending; `None`: all.
    kept: Option<Vec<u32>>,
    lineage: Lineage,
    /// The XOR of the edges that were emitted with each row as an anchor; empty if nobody waits for the rows.
    emitted: Vec<u64>,
    settled: Vec<bool>,
    /// Whether there is a claim to the whole batch.
    whole: bool,
    /// How many claims to parts each row is in; empty if there never was one.
    parts: Vec<u32>,
    /// In how many entries somebody has a claim, once nobody has one to the whole.
    claimed: usize,
}

/// Fewer entries than this are never too many.
const FEW: usize = 16;

impl Received {
    /// With a claim to the whole.
    pub(super) fn new(
        rows: usize,
        lineage: Lineage,
        ackers: Ackers,
        stats: Arc<InputStats>,
        counts: bool,
    ) -> Self {
        let emitted = if lineage.is_unanchored() { Vec::new() } else { vec![0; rows] };
        let settled = vec![false; rows];
        let book = Book { kept: None, lineage, emitted, settled, whole: true, parts: Vec::new(), claimed: 0 };
        Self { book: Mutex::new(book), ackers, stats, counts }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts rows as failed and tells the ackers.
    pub(super) fn failed(&self, count: usize, failed: ByBatch<u32>, reason: &FailReason) {
        if count > 0 {
            self.stats.failed(count);
            self.ackers.fail(failed, reason);
        }
    }

    /// Gives up a claim to these rows, or to all. What is still open and has no other claim fails.
    pub(super) fn release(&self, rows: Option<&[u32]>) {
        let mut failed = ByBatch::default();
        let mut count = 0;
        let mut book = self.lock();
        match rows {
            None => {
                book.whole = false;
                let entries = 0..book.settled.len();
                for place in entries {
                    match book.parts.get(place) {
                        None | Some(0) => count += book.forget(place, &mut failed),
                        Some(_) => book.claimed += 1,
                    }
                }
            }
            Some(rows) => {
                for row in rows {
                    let place = book.place(*row);
                    book.parts[place] -= 1;
                    if book.parts[place] == 0 && !book.whole {
                        book.claimed -= 1;
                        count += book.forget(place, &mut failed);
                    }
                }
            }
        }
        book.shrink();
        drop(book);
        if self.counts {
            // Of rows that nobody waits for this tells nobody.
            self.failed(count, failed, &FailReason::Dropped);
        }
    }
}

impl Book {
    /// The entry of a row. Whoever asks has a claim to it.
    pub(super) fn place(&self, row: u32) -> usize {
        match &self.kept {
            None => row as usize,
            Some(kept) => {
                kept.binary_search(&row).unwrap_or_else(|_| unreachable!("claimed rows have an entry"))
            }
        }
    }

    pub(super) fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// The XOR of what was emitted with a row as an anchor.
    pub(super) fn emitted(&self, place: usize) -> u64 {
        self.emitted.get(place).copied().unwrap_or_default()
    }

    /// A tuple with this edge was emitted and anchored to a row.
    pub(super) fn anchored(&mut self, place: usize, id: u64) {
        self.emitted[place] ^= id;
    }

    /// Settles a row. Whether it was open.
    pub(super) fn settle(&mut self, place: usize) -> bool {
        !std::mem::replace(&mut self.settled[place], true)
    }

    /// Adds a claim to a part.
    pub(super) fn claim(&mut self, rows: &[u32]) {
        if self.parts.is_empty() {
            self.parts = vec![0; self.settled.len()];
        }
        for row in rows {
            let place = self.place(*row);
            self.parts[place] += 1;
        }
    }

    /// Settles a row that nobody has a claim to any more. How many failed by that.
    fn forget(&mut self, place: usize, failed: &mut ByBatch<u32>) -> usize {
        if !self.settle(place) {
            return 0;
        }
        roots(&self.lineage, place, failed);
        1
    }

    /// Drops the entries without a claim once they are most: a few held rows do not keep the memory of their batch.
    fn shrink(&mut self) {
        let entries = self.settled.len();
        if self.whole || self.claimed == 0 || entries <= FEW || self.claimed * 2 > entries {
            return;
        }
        let places: Vec<usize> = (0..entries).filter(|place| self.parts[*place] > 0).collect();
        self.kept = Some(match &self.kept {
            None => places.iter().map(|place| *place as u32).collect(),
            Some(kept) => places.iter().map(|place| kept[*place]).collect(),
        });
        self.lineage = self.lineage.of_rows(places.iter().copied());
        if !self.emitted.is_empty() {
            self.emitted = places.iter().map(|place| self.emitted[*place]).collect();
        }
        self.settled = places.iter().map(|place| self.settled[*place]).collect();
        self.parts = places.iter().map(|place| self.parts[*place]).collect();
    }
}
