//! Spreading rows evenly without breaking batches into crumbs.

use super::Selection;

/// A piece of a batch is not made smaller than this for the sake of evenness.
const CRUMB: usize = 64;

/// Counts what each target has received, and gives to those that have received least.
pub(super) struct Shuffle {
    pub(super) sent: Vec<u64>,
    /// Where among equals it begins, so that many emitters do not all begin with the same task.
    start: usize,
}

impl Shuffle {
    pub(super) fn new(targets: usize, start: usize) -> Self {
        Self { sent: vec![0; targets], start }
    }

    /// Cuts `count` rows into contiguous pieces.
    pub(super) fn cut(&mut self, count: usize, parts: &mut Vec<(usize, Selection)>) {
        let targets = self.sent.len();
        if targets == 1 {
            parts.push((0, Selection::All));
            return;
        }
        let mut order: Vec<usize> = (0..targets).collect();
        order.sort_by_key(|target| (self.sent[*target], (target + self.start) % targets));
        order.truncate((count / CRUMB).clamp(1, targets));
        // Those that already have more than all would have in the end receive nothing.
        let mut total: u64 = order.iter().map(|target| self.sent[*target]).sum::<u64>() + count as u64;
        while let Some(last) =
            order.last().copied().filter(|last| self.sent[*last] * order.len() as u64 > total)
        {
            order.pop();
            total -= self.sent[last];
        }
        let mut offset = 0;
        for (place, target) in order.iter().enumerate() {
            let left = (order.len() - place) as u64;
            // The remainder goes to the last ones, one each.
            let level = total / left;
            let rows = (level - self.sent[*target].min(level)) as usize;
            total -= self.sent[*target] + rows as u64;
            self.sent[*target] += rows as u64;
            if rows == count {
                parts.push((*target, Selection::All));
            } else if rows > 0 {
                parts.push((*target, Selection::Slice { offset, rows }));
            }
            offset += rows;
        }
        debug_assert_eq!(offset, count);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_row_goes_somewhere_once_in_order_and_evenly(
            targets in 1_usize..9,
            batches in prop::collection::vec(1_usize..5_000, 1..60),
        ) {
            let mut shuffle = Shuffle::new(targets, 3);
            let mut sent = vec![0; targets];
            for count in batches {
                let mut parts = Vec::new();
                shuffle.cut(count, &mut parts);
                let mut next = 0;
                for (target, selection) in parts {
                    let rows = match selection {
                        Selection::All => count,
                        Selection::Slice { offset, rows } => {
                            prop_assert_eq!(offset, next);
                            rows
                        }
                        Selection::Rows(_) => unreachable!("a shuffle only slices"),
                    };
                    next += rows;
                    sent[target] += rows;
                }
                prop_assert_eq!(next, count);
                let (least, most) = (sent.iter().min().unwrap(), sent.iter().max().unwrap());
                prop_assert!(most - least <= 2 * CRUMB, "{:?}", sent);
            }
        }
    }
}
