//! Which spout tuples each row of a batch stands for: a column beside the rows.
//!
//! A spout's batch is a *root batch*; its rows are the roots of tuple trees, so a root is dense: (spout task, number of
//! the batch, row), and an acker is an array per root batch. As in Storm, each delivery of a tuple is an *edge* with a
//! random id, and a tree is done when the XOR over everything that was reported for its root is zero.

mod places;

use std::sync::{Arc, LazyLock};

pub(crate) use places::{ByBatch, Places};

/// A task of a topology.
pub type TaskId = u32;

/// A mark that travels with rows from bolt to bolt: rows with different labels never come in one batch. The engine does
/// not care what it means; Trident marks the rows of a transaction with its number and attempt.
pub type Label = (u64, u64);

/// A batch that a spout task emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RootBatch {
    /// The spout task.
    pub(crate) task: TaskId,
    /// The how manyth of this task, over its restarts.
    pub(crate) number: u64,
}

/// A row's part in one tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edge {
    /// Index of the root batch in [`Lineage::batches`].
    pub(crate) batch: u32,
    /// Row in the root batch.
    pub(crate) root: u32,
    /// Random id of this delivery; zero is no id.
    pub(crate) id: u64,
}

/// The edges of each row of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Lineage {
    /// The root batches of the edges, and no others: what is done per batch is at most done per edge.
    pub(crate) batches: Arc<[RootBatch]>,
    pub(crate) edges: Vec<Edge>,
    /// Where each row's edges begin, with the end of the last; `None`: every row has exactly one.
    pub(crate) starts: Option<Vec<u32>>,
}

static NO_BATCHES: LazyLock<Arc<[RootBatch]>> = LazyLock::new(|| Arc::from([]));

impl Lineage {
    /// Rows without a root: nobody waits for them.
    pub(crate) fn unanchored() -> Self {
        Self { batches: Arc::clone(&NO_BATCHES), edges: Vec::new(), starts: None }
    }

    pub(crate) fn is_unanchored(&self) -> bool {
        self.edges.is_empty()
    }

    /// The edges of one row.
    pub(crate) fn of_row(&self, row: usize) -> &[Edge] {
        match &self.starts {
            None if self.edges.is_empty() => &[],
            None => &self.edges[row..=row],
            Some(starts) => &self.edges[starts[row] as usize..starts[row + 1] as usize],
        }
    }

    /// The lineage of some of the rows, by itself.
    pub(crate) fn of_rows(&self, rows: impl ExactSizeIterator<Item = usize>) -> Self {
        if self.is_unanchored() {
            return Self::unanchored();
        }
        let mut chosen = LineageChain { uneven: self.starts.is_some(), ..LineageChain::default() };
        for row in rows {
            if chosen.uneven {
                chosen.starts.push(chosen.edges.len() as u32);
            }
            chosen.add(&self.batches, self.of_row(row));
        }
        chosen.finish()
    }

    /// How many bytes it holds in memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.batches)
            + self.edges.capacity() * size_of::<Edge>()
            + self.starts.as_ref().map_or(0, |starts| starts.capacity() * size_of::<u32>())
    }
}

/// Puts the lineages of batches one behind the other.
#[derive(Debug, Default)]
pub(crate) struct LineageChain {
    places: Places,
    edges: Vec<Edge>,
    starts: Vec<u32>,
    rows: usize,
    /// Whether a row had none or several edges so far.
    uneven: bool,
}

impl LineageChain {
    /// Adds the lineage of the next `rows` rows.
    pub(crate) fn push(&mut self, lineage: &Lineage, rows: usize) {
        let even = lineage.starts.is_none() && (!lineage.is_unanchored() || rows == 0);
        if !even && !self.uneven {
            // Until here row n had edge n.
            self.starts = (0..self.rows as u32).collect();
            self.uneven = true;
        }
        if self.uneven {
            let mut end = self.edges.len() as u32;
            for row in 0..rows {
                self.starts.push(end);
                end += lineage.of_row(row).len() as u32;
            }
        }
        self.add(&lineage.batches, &lineage.edges);
        self.rows += rows;
    }

    /// Adds edges whose batches are these.
    fn add(&mut self, batches: &[RootBatch], edges: &[Edge]) {
        let places = &mut self.places;
        self.edges.extend(
            edges.iter().map(|edge| Edge { batch: places.of(batches[edge.batch as usize]) as u32, ..*edge }),
        );
    }

    pub(crate) fn finish(mut self) -> Lineage {
        if self.edges.is_empty() {
            return Lineage::unanchored();
        }
        let starts = self.uneven.then(|| {
            self.starts.push(self.edges.len() as u32);
            self.starts
        });
        Lineage { batches: self.places.finish(), edges: self.edges, starts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lineage(number: u64, roots: &[&[u32]]) -> Lineage {
        let mut starts = vec![0];
        let mut edges = Vec::new();
        for row in roots {
            edges.extend(row.iter().map(|root| Edge { batch: 0, root: *root, id: u64::from(*root) + 1 }));
            starts.push(edges.len() as u32);
        }
        let one_each = roots.iter().all(|row| row.len() == 1);
        let batches = Arc::from([RootBatch { task: 1, number }]);
        Lineage { batches, edges, starts: (!one_each).then_some(starts) }
    }

    fn roots(lineage: &Lineage, row: usize) -> Vec<(u64, u32)> {
        let edges = lineage.of_row(row).iter();
        edges.map(|edge| (lineage.batches[edge.batch as usize].number, edge.root)).collect()
    }

    #[test]
    fn a_chain_keeps_each_rows_roots() {
        let parts = [
            lineage(7, &[&[0], &[1]]),
            lineage(8, &[&[0, 1], &[], &[2]]),
            lineage(7, &[&[5]]),
            Lineage::unanchored(),
        ];
        let rows = [2, 3, 1, 2];
        let mut chain = LineageChain::default();
        for (part, rows) in parts.iter().zip(rows) {
            chain.push(part, rows);
        }
        let whole = chain.finish();
        let expected: Vec<Vec<(u64, u32)>> = vec![
            vec![(7, 0)],
            vec![(7, 1)],
            vec![(8, 0), (8, 1)],
            vec![],
            vec![(8, 2)],
            vec![(7, 5)],
            vec![],
            vec![],
        ];
        let found: Vec<_> = (0..8).map(|row| roots(&whole, row)).collect();
        assert_eq!(found, expected);
        assert_eq!(whole.batches.len(), 2);
    }

    #[test]
    fn some_rows_have_a_lineage_of_their_own_with_no_other_batches() {
        let mut chain = LineageChain::default();
        (0..100).for_each(|number| chain.push(&lineage(number, &[&[number as u32]]), 1));
        let even = chain.finish();
        let some = even.of_rows([70, 3].into_iter());
        assert!(some.starts.is_none());
        assert_eq!([roots(&some, 0), roots(&some, 1)], [[(70, 70)], [(3, 3)]]);
        assert_eq!(some.batches.len(), 2);

        let uneven = lineage(8, &[&[0, 1], &[], &[2]]);
        let some = uneven.of_rows([1, 0].into_iter());
        assert_eq!([roots(&some, 0), roots(&some, 1)], [vec![], vec![(8, 0), (8, 1)]]);
        assert!(uneven.of_rows([1].into_iter()).is_unanchored());
    }

    #[test]
    fn a_chain_of_single_edges_needs_no_starts() {
        let mut chain = LineageChain::default();
        chain.push(&lineage(1, &[&[0], &[1]]), 2);
        chain.push(&lineage(2, &[&[3]]), 1);
        let whole = chain.finish();
        assert!(whole.starts.is_none());
        assert_eq!(roots(&whole, 2), [(2, 3)]);
    }
}
