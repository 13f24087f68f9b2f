//! Which files hold events of a window of offsets, as pure arithmetic over what is known of each file.

use std::collections::BTreeMap;

use datafusion::logical_expr::{Expr, ident, lit};
use stratus_seam::offsets::{Offset, OffsetVector, Partition};
use stratus_seam::schema::{OFFSET_COLUMN, PARTITION_COLUMN};

/// Where the rows of a file stand: the box around their partitions and offsets, both ends inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) partitions: (Partition, Partition),
    pub(crate) offsets: (Offset, Offset),
}

impl Span {
    /// The box around some rows' ranges; none without rows.
    pub(crate) fn around(ranges: &BTreeMap<Partition, (Offset, Offset)>) -> Option<Self> {
        let (first, _) = ranges.first_key_value()?;
        let (last, _) = ranges.last_key_value()?;
        let low = ranges.values().map(|range| range.0).min()?;
        let high = ranges.values().map(|range| range.1).max()?;
        Some(Self { partitions: (*first, *last), offsets: (low, high) })
    }
}

/// How a file lies to a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Every row is in the window.
    Inside,
    /// No row is.
    Outside,
    /// Rows may be on both sides: each one must be looked at.
    Across,
}

/// Per partition the offsets from `from` (inclusive) to `cut` (exclusive).
#[derive(Debug, Clone)]
pub(crate) struct Window {
    pub(crate) from: OffsetVector,
    pub(crate) cut: OffsetVector,
}

/// A file that claims more partitions than this is looked at row by row.
const WIDEST: u32 = 100_000;

impl Window {
    /// How a file lies to the window; one of which nothing is known lies across.
    pub(crate) fn place(&self, span: Option<&Span>) -> Place {
        let Some(Span { partitions: (first, last), offsets: (low, high) }) = span else {
            return Place::Across;
        };
        if last < first || high < low || last - first >= WIDEST {
            return Place::Across;
        }
        let (mut all, mut any) = (true, false);
        for partition in *first..=*last {
            let (from, cut) = (self.from.get(partition), self.cut.get(partition));
            all &= from <= *low && *high < cut;
            any |= from.max(*low) <= *high && from.max(*low) < cut;
        }
        match (all, any) {
            (true, _) => Place::Inside,
            (false, true) => Place::Across,
            (false, false) => Place::Outside,
        }
    }

    /// The window as a condition on a row.
    pub(crate) fn condition(&self) -> Expr {
        self.cut
            .iter()
            .filter_map(|(partition, cut)| {
                // A partition or offset that the columns cannot hold is in no row.
                let is_partition = ident(PARTITION_COLUMN).eq(lit(i32::try_from(partition).ok()?));
                let mut here = is_partition;
                if let Ok(cut) = i64::try_from(cut) {
                    here = here.and(ident(OFFSET_COLUMN).lt(lit(cut)));
                }
                match (self.from.get(partition), i64::try_from(self.from.get(partition))) {
                    (0, _) => Some(here),
                    (_, Ok(from)) => Some(here.and(ident(OFFSET_COLUMN).gt_eq(lit(from)))),
                    (_, Err(_)) => None,
                }
            })
            .reduce(Expr::or)
            .unwrap_or_else(|| lit(false))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vector() -> impl Strategy<Value = OffsetVector> {
        proptest::collection::btree_map(0..4u32, 0..12u64, 0..4).prop_map(OffsetVector::from)
    }

    proptest! {
        /// Every placement of rows within the box agrees with what is said of the box.
        #[test]
        fn a_place_is_true_of_every_row(
            from in vector(),
            cut in vector(),
            rows in proptest::collection::vec((0..4u32, 0..12u64), 1..6),
        ) {
            let window = Window { from, cut };
            let mut ranges = BTreeMap::new();
            for (partition, offset) in &rows {
                let range = ranges.entry(*partition).or_insert((*offset, *offset));
                *range = (range.0.min(*offset), range.1.max(*offset));
            }
            let holds = |(partition, offset): &(u32, u64)| {
                window.from.get(*partition) <= *offset && *offset < window.cut.get(*partition)
            };
            match window.place(Span::around(&ranges).as_ref()) {
                Place::Inside => prop_assert!(rows.iter().all(holds)),
                Place::Outside => prop_assert!(!rows.iter().any(holds)),
                Place::Across => {}
            }
        }

        /// For a file of one partition nothing is looked at without need.
        #[test]
        fn one_partition_is_placed_exactly(from in 0..9u64, cut in 0..9u64, low in 0..9u64, more in 0..9u64) {
            let window = Window { from: [(1, from)].into(), cut: [(1, cut)].into() };
            let span = Span { partitions: (1, 1), offsets: (low, low + more) };
            let inside = (low..=low + more).filter(|o| from <= *o && *o < cut).count() as u64;
            let expected = match inside {
                0 => Place::Outside,
                n if n == more + 1 => Place::Inside,
                _ => Place::Across,
            };
            prop_assert_eq!(window.place(Some(&span)), expected);
        }
    }

    #[test]
    fn a_file_of_which_nothing_is_known_is_looked_at() {
        let window = Window { from: OffsetVector::zero(), cut: OffsetVector::zero() };
        assert_eq!(window.place(None), Place::Across);
    }

    #[test]
    fn an_empty_window_holds_nothing() {
        let window = Window { from: OffsetVector::zero(), cut: OffsetVector::zero() };
        assert_eq!(window.condition(), lit(false));
    }
}
