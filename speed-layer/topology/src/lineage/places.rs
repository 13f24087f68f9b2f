//! Root batches and their places in a list, found without looking through the list.

use std::{collections::HashMap, sync::Arc};

use super::RootBatch;

/// So many are looked through one by one; for more there is an index.
const FEW: usize = 8;

/// Root batches in the order in which they were first met. Under a backlog of small batches there are as many as rows,
/// so finding one must not take longer the more there are.
#[derive(Debug, Default)]
pub(crate) struct Places {
    batches: Vec<RootBatch>,
    /// The place that was asked for last. Neighbours mostly come from the same batch.
    last: usize,
    /// All of them, once they are not few.
    index: HashMap<RootBatch, usize>,
}

impl Places {
    /// The place of a batch, which is a new one if it was not met before.
    pub(crate) fn of(&mut self, batch: RootBatch) -> usize {
        if self.batches.get(self.last) == Some(&batch) {
            return self.last;
        }
        let known = match self.batches.len() <= FEW {
            true => self.batches.iter().position(|known| *known == batch),
            false => self.index.get(&batch).copied(),
        };
        self.last = known.unwrap_or_else(|| self.add(batch));
        self.last
    }

    fn add(&mut self, batch: RootBatch) -> usize {
        let place = self.batches.len();
        self.batches.push(batch);
        if place == FEW {
            self.index.extend(self.batches.iter().enumerate().map(|(place, batch)| (*batch, place)));
        } else if place > FEW {
            self.index.insert(batch, place);
        }
        place
    }

    /// The batches, each at its place.
    pub(crate) fn finish(self) -> Arc<[RootBatch]> {
        self.batches.into()
    }
}

/// What there is to say of the rows of each of some root batches.
#[derive(Debug)]
pub(crate) struct ByBatch<T> {
    places: Places,
    lists: Vec<Vec<T>>,
}

impl<T> Default for ByBatch<T> {
    fn default() -> Self {
        Self { places: Places::default(), lists: Vec::new() }
    }
}

impl<T> ByBatch<T> {
    /// Adds to what there is to say of a batch.
    pub(crate) fn push(&mut self, batch: RootBatch, what: T) {
        self.list(batch).push(what);
    }

    /// So much more will be said of a batch.
    pub(crate) fn expect(&mut self, batch: RootBatch, count: usize) {
        self.list(batch).reserve_exact(count);
    }

    fn list(&mut self, batch: RootBatch) -> &mut Vec<T> {
        let place = self.places.of(batch);
        if place == self.lists.len() {
            self.lists.push(Vec::new());
        }
        &mut self.lists[place]
    }

    /// The batches of which there is something to say.
    pub(crate) fn finish(self) -> impl Iterator<Item = (RootBatch, Vec<T>)> {
        self.places.batches.into_iter().zip(self.lists).filter(|(_, list)| !list.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_batch_has_one_place_whether_there_are_few_or_many() {
        for count in [1, FEW - 1, FEW, FEW + 1, FEW + 2, 1_000] {
            let batch = |n: usize| RootBatch { task: n as u32 % 3, number: n as u64 };
            let mut places = Places::default();
            for n in (0..count).chain((0..count).rev()).chain((0..count).step_by(2)) {
                assert_eq!(places.of(batch(n)), n, "{count}");
            }
            assert_eq!(places.finish().to_vec(), (0..count).map(batch).collect::<Vec<_>>());
        }
    }
}
