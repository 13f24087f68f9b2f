//! From the anchors of what is emitted to its lineage.

use std::sync::Arc;

use crate::{
    acker::FailReason,
    delivery::Delivery,
    grouping::Selection,
    lineage::{Edge, Lineage, Places, RootBatch},
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

    /// Makes sure that the tuples exist; the row that does not, and of how many.
    pub(crate) fn missing(&self) -> Option<(u32, usize)> {
        match self {
            Self::Rows(tuples, rows) => {
                let missing = rows.iter().find(|row| **row as usize >= tuples.len());
                missing.map(|row| (*row, tuples.len()))
            }
            _ => None,
        }
    }
}

/// The anchors of single tuples that wait to be sent together.
#[derive(Default)]
pub(crate) struct Held {
    /// Where each row's anchors begin.
    starts: Vec<usize>,
    /// A tuple by its claim and its position there.
    anchors: Vec<(Arc<Delivery>, u32)>,
}

impl Held {
    /// Adds the anchors of the next row.
    pub(crate) fn push(&mut self, anchors: &[Tuple<'_>]) {
        self.starts.push(self.anchors.len());
        self.anchors
            .extend(anchors.iter().map(|anchor| (Arc::clone(&anchor.tuples.delivery), anchor.row as u32)));
    }

    /// Fails what the rows come from: they will not leave.
    pub(crate) fn lose(&self, reason: &FailReason) {
        for one in self.anchors.chunk_by(|(one, _), (other, _)| Arc::ptr_eq(one, other)) {
            let positions: Vec<u32> = one.iter().map(|(_, position)| *position).collect();
            one[0].0.fail(Some(&positions), reason);
        }
    }

    /// The anchors of a row.
    fn of_row(&self, row: usize) -> &[(Arc<Delivery>, u32)] {
        let end = self.starts.get(row + 1).copied().unwrap_or(self.anchors.len());
        &self.anchors[self.starts[row]..end]
    }

    /// The claim that all anchors belong to, if each row has exactly one.
    fn one_each(&self) -> Option<&Arc<Delivery>> {
        let (first, _) = self.anchors.first()?;
        let each = self.starts.iter().enumerate().all(|(row, start)| row == *start)
            && self.starts.len() == self.anchors.len();
        (each && self.anchors.iter().all(|(claim, _)| Arc::ptr_eq(claim, first))).then_some(first)
    }
}

/// Where the trees of emitted rows stand before the emission.
pub(crate) enum Origin<'a> {
    /// The rows are roots themselves; `values` are the XOR of each one's edges.
    Roots { batch: RootBatch, values: &'a mut [u64] },
    /// The rows grow from these.
    Anchors(Anchors<'a>),
    /// The rows were emitted one by one and grow from these.
    Held(&'a Held),
}

impl Origin<'_> {
    /// How many bytes of lineage each row gets, if that is the same for all and more than usual.
    pub(crate) fn row_bytes(&self) -> usize {
        let Self::Anchors(Anchors::Every(every)) = self else { return 0 };
        let edges: usize = every
            .iter()
            .map(|tuples| {
                let anchors = tuples.delivery.anchors();
                (0..tuples.len()).map(|row| anchors.count(row)).sum::<usize>()
            })
            .sum();
        edges * size_of::<Edge>()
    }
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
        Origin::Anchors(Anchors::Same(tuples)) => of_one(&tuples.delivery, rows, ids),
        Origin::Anchors(Anchors::Rows(tuples, from)) => {
            of_one(&tuples.delivery, rows.map(|row| from[row] as usize), ids)
        }
        Origin::Anchors(Anchors::Every(every)) => {
            let mut merge = Merge::default();
            for _ in rows {
                every.iter().for_each(|tuples| merge.add(&tuples.delivery, 0..tuples.len(), ids));
                merge.end_row();
            }
            merge.finish()
        }
        Origin::Anchors(Anchors::Lists(lists)) => {
            let mut merge = Merge::default();
            for row in rows {
                for tuple in &lists[row] {
                    merge.add(&tuple.tuples.delivery, [tuple.row], ids);
                }
                merge.end_row();
            }
            merge.finish()
        }
        Origin::Held(held) => {
            if let Some(claim) = held.one_each() {
                return of_one(claim, rows.map(|row| held.anchors[row].1 as usize), ids);
            }
            let mut merge = Merge::default();
            for row in rows {
                for (claim, position) in held.of_row(row) {
                    merge.add(claim, [*position as usize], ids);
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
    let mut anchors = delivery.anchors();
    if anchors.none() {
        return Lineage::unanchored();
    }
    let from = Arc::clone(anchors.batches());
    let mut places = Places::default();
    let mut starts = (!anchors.one_each()).then(|| Vec::with_capacity(rows.len() + 1));
    let mut edges = Vec::with_capacity(rows.len());
    for row in rows {
        if let Some(starts) = &mut starts {
            starts.push(edges.len() as u32);
        }
        let (id, anchor) = anchors.grow(row, || edge_id(ids));
        // Only the batches that these rows come from: the rest of the delivery's would go with every fragment, from
        // bolt to bolt.
        edges.extend(anchor.iter().map(|edge| {
            let batch = places.of(from[edge.batch as usize]) as u32;
            Edge { batch, root: edge.root, id }
        }));
    }
    if edges.is_empty() {
        return Lineage::unanchored();
    }
    if let Some(starts) = &mut starts {
        starts.push(edges.len() as u32);
    }
    let batches = if from.len() == 1 { from } else { places.finish() };
    Lineage { batches, edges, starts }
}

/// Several anchors for a row: trees that meet in it. A tree that several anchors belong to is one edge for the row,
/// the XOR of theirs, or what is later acked for the row would be counted more than once.
#[derive(Default)]
struct Merge {
    places: Places,
    edges: Vec<Edge>,
    starts: Vec<u32>,
    row: Vec<Edge>,
}

impl Merge {
    fn add(&mut self, delivery: &Delivery, rows: impl IntoIterator<Item = usize>, ids: &mut fastrand::Rng) {
        let mut anchors = delivery.anchors();
        let from = Arc::clone(anchors.batches());
        for row in rows {
            let (id, anchor) = anchors.grow(row, || edge_id(ids));
            for edge in anchor {
                let batch = self.places.of(from[edge.batch as usize]) as u32;
                self.row.push(Edge { batch, root: edge.root, id });
            }
        }
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
        Lineage { batches: self.places.finish(), edges: self.edges, starts: Some(self.starts) }
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
