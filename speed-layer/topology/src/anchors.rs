//! From the anchors of what is emitted to its lineage.

use std::sync::Arc;

use crate::{
    delivery::Delivery,
    grouping::Selection,
    lineage::{Edge, Lineage, RootBatch},
    tuples::{Tuple, Tuples},
};

/// The tuples that emitted rows come from. A tree is done only when what was anchored to it is done, too.
#[derive(Clone, Copy, Debug)]
pub enum Anchors<'a> {
    /// Nothing depends on the rows.
    None,
    /// Row n comes from tuple n; there are as many of both.
    Same(&'a Tuples),
    /// Row n comes from the tuple with the n-th of these row numbers.
    Rows(&'a Tuples, &'a [u32]),
    /// Every row comes from all of these tuples together.
    Every(&'a [&'a Tuples]),
    /// Row n comes from all tuples of the n-th list.
    Lists(&'a [Vec<Tuple<'a>>]),
}

impl Anchors<'_> {
    /// For how many rows these are anchors; `None`: for any number.
    pub(crate) fn rows(&self) -> Option<usize> {
        match self {
            Self::None | Self::Every(_) => None,
            Self::Same(tuples) => Some(tuples.len()),
            Self::Rows(_, rows) => Some(rows.len()),
            Self::Lists(lists) => Some(lists.len()),
        }
    }
}

/// Where the trees of emitted rows stand before the emission.
pub(crate) enum Origin<'a> {
    /// The rows are roots themselves; `values` are the XOR of each one's edges.
    Roots { batch: RootBatch, values: &'a mut [u64] },
    /// The rows grow from these.
    Anchors(Anchors<'a>),
}

/// The lineage of the selected rows of a batch that begins with row `base` of what was emitted. Every call stands for
/// deliveries of its own, with edges of their own.
pub(crate) fn lineage(
    origin: &mut Origin<'_>,
    base: usize,
    rows: usize,
    selection: &Selection,
    ids: &mut fastrand::Rng,
) -> Lineage {
    match selection {
        Selection::All => of_rows(origin, base..base + rows, ids),
        Selection::Slice { offset, rows } => of_rows(origin, base + offset..base + offset + rows, ids),
        Selection::Rows(chosen) => {
            of_rows(origin, chosen.values().iter().map(|row| base + *row as usize), ids)
        }
    }
}

fn of_rows(
    origin: &mut Origin<'_>,
    rows: impl ExactSizeIterator<Item = usize>,
    ids: &mut fastrand::Rng,
) -> Lineage {
    match origin {
        Origin::Roots { batch, values } => {
            let edges = rows.map(|row| {
                let id = edge_id(ids);
                values[row] ^= id;
                Edge { batch: 0, root: row as u32, id }
            });
            Lineage { edges: edges.collect(), batches: Arc::from([*batch]), starts: None }
        }
        Origin::Anchors(Anchors::None) => Lineage::unanchored(),
        Origin::Anchors(Anchors::Same(tuples)) => {
            of_one(&tuples.delivery, rows.map(|row| tuples.delivery_row(row)), ids)
        }
        Origin::Anchors(Anchors::Rows(tuples, from)) => {
            of_one(&tuples.delivery, rows.map(|row| tuples.delivery_row(from[row] as usize)), ids)
        }
        Origin::Anchors(Anchors::Every(every)) => {
            let mut merge = Merge::default();
            for _ in rows {
                for tuples in every.iter() {
                    (0..tuples.len())
                        .for_each(|row| merge.add(&tuples.delivery, tuples.delivery_row(row), ids));
                }
                merge.end_row();
            }
            merge.finish()
        }
        Origin::Anchors(Anchors::Lists(lists)) => {
            let mut merge = Merge::default();
            for row in rows {
                for tuple in &lists[row] {
                    merge.add(&tuple.tuples.delivery, tuple.tuples.delivery_row(tuple.row), ids);
                }
                merge.end_row();
            }
            merge.finish()
        }
    }
}

/// One anchor for each row, all in one delivery.
fn of_one(
    delivery: &Delivery,
    rows: impl ExactSizeIterator<Item = usize>,
    ids: &mut fastrand::Rng,
) -> Lineage {
    let from = delivery.lineage();
    if from.is_unanchored() {
        return Lineage::unanchored();
    }
    let batches = Arc::clone(&from.batches);
    if from.starts.is_none() {
        let edges = rows.map(|row| {
            let id = edge_id(ids);
            delivery.anchored(row, id);
            Edge { id, ..from.edges[row] }
        });
        return Lineage { edges: edges.collect(), batches, starts: None };
    }
    let mut starts = Vec::with_capacity(rows.len() + 1);
    let mut edges = Vec::with_capacity(rows.len());
    for row in rows {
        starts.push(edges.len() as u32);
        let anchor = delivery.edges(row);
        if anchor.is_empty() {
            continue;
        }
        let id = edge_id(ids);
        delivery.anchored(row, id);
        edges.extend(anchor.iter().map(|edge| Edge { id, ..*edge }));
    }
    starts.push(edges.len() as u32);
    Lineage { batches, edges, starts: Some(starts) }
}

/// Several anchors for a row: trees that meet in it. A tree that several anchors belong to is one edge for the row,
/// the XOR of theirs, or what is later acked for the row would be counted more than once.
#[derive(Default)]
struct Merge {
    batches: Vec<RootBatch>,
    edges: Vec<Edge>,
    starts: Vec<u32>,
    row: Vec<Edge>,
}

impl Merge {
    fn add(&mut self, delivery: &Delivery, row: usize, ids: &mut fastrand::Rng) {
        let anchor = delivery.edges(row);
        if anchor.is_empty() {
            return;
        }
        let id = edge_id(ids);
        delivery.anchored(row, id);
        for edge in anchor {
            let batch = self.place(delivery.lineage().batches[edge.batch as usize]);
            self.row.push(Edge { batch, root: edge.root, id });
        }
    }

    fn place(&mut self, batch: RootBatch) -> u32 {
        let known = self.batches.iter().rposition(|known| *known == batch);
        known.unwrap_or_else(|| {
            self.batches.push(batch);
            self.batches.len() - 1
        }) as u32
    }

    fn end_row(&mut self) {
        self.starts.push(self.edges.len() as u32);
        self.row.sort_unstable_by_key(|edge| (edge.batch, edge.root));
        let first = self.edges.len();
        for edge in self.row.drain(..) {
            match self.edges[first..].last_mut() {
                Some(last) if (last.batch, last.root) == (edge.batch, edge.root) => last.id ^= edge.id,
                _ => self.edges.push(edge),
            }
        }
    }

    fn finish(mut self) -> Lineage {
        if self.edges.is_empty() {
            return Lineage::unanchored();
        }
        self.starts.push(self.edges.len() as u32);
        Lineage { batches: self.batches.into(), edges: self.edges, starts: Some(self.starts) }
    }
}

fn edge_id(ids: &mut fastrand::Rng) -> u64 {
    loop {
        let id = ids.u64(..);
        // Zero would be an edge that nobody misses.
        if id != 0 {
            return id;
        }
    }
}
