//! What a source has lost: records that its log forgot before ingest had them in the master dataset.
//!
//! There is one authority. Ingest alone reads the log in order and knows what the master dataset holds, so it decides
//! what a gap is, and records it in the catalog before it reads on. Every other layer follows the master dataset.

use serde::{Deserialize, Serialize};

use crate::ids::SourceId;
use crate::log::LogId;
use crate::offsets::{Offset, OffsetVector, Partition};

/// A range of offsets that neither the log nor the master dataset holds. How many records it held nobody can say:
/// offsets are not dense.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The source.
    pub source: SourceId,
    /// The incarnation of its log.
    pub log: LogId,
    /// The partition.
    pub partition: Partition,
    /// The first offset that may have held a record that is lost.
    pub from: Offset,
    /// The first offset that the log still had.
    pub to: Offset,
    /// When it was found, in milliseconds since the epoch; for people, decides nothing.
    pub found_ms: u64,
}

/// The gaps of one source, by partition and offset. No two of them overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gaps(Vec<Gap>);

impl Gaps {
    /// Adds a gap. One that is known changes nothing; one that overlaps with known ones becomes one with them, found
    /// when the first of them was: ingest may die after it recorded a gap, and find a longer one when it is back.
    pub fn insert(&mut self, mut gap: Gap) {
        let known = std::mem::take(&mut self.0);
        for other in known {
            if other.partition == gap.partition && other.from < gap.to && gap.from < other.to {
                gap.from = gap.from.min(other.from);
                gap.to = gap.to.max(other.to);
                gap.found_ms = other.found_ms.min(gap.found_ms);
            } else {
                self.0.push(other);
            }
        }
        self.0.push(gap);
        self.0.sort_by_key(|gap| (gap.partition, gap.from));
    }

    /// The gaps, by partition and offset.
    pub fn as_slice(&self) -> &[Gap] {
        &self.0
    }

    /// How many offsets below a vector lie in a gap.
    pub fn below(&self, vector: &OffsetVector) -> u64 {
        let lost = |gap: &Gap| vector.get(gap.partition).min(gap.to).saturating_sub(gap.from);
        self.0.iter().map(lost).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is added in whatever order, each offset is lost once, and no two gaps overlap.
        #[test]
        fn gaps_are_the_union_of_what_was_added(
            added in proptest::collection::vec((0..3u32, 0..20u64, 1..8u64), 0..12),
            vector in proptest::collection::btree_map(0..3u32, 0..30u64, 0..3),
        ) {
            let source = SourceId::new();
            let (mut gaps, mut offsets) = (Gaps::default(), BTreeSet::new());
            for (partition, from, length) in added {
                let to = from + length;
                gaps.insert(Gap { source, log: LogId("l".into()), partition, from, to, found_ms: 0 });
                offsets.extend((from..to).map(|offset| (partition, offset)));
                let before = gaps.clone();
                gaps.insert(Gap { source, log: LogId("l".into()), partition, from, to, found_ms: 9 });
                prop_assert_eq!(&before, &gaps);
            }
            let held: Vec<_> =
                gaps.as_slice().iter().flat_map(|gap| (gap.from..gap.to).map(|o| (gap.partition, o))).collect();
            prop_assert_eq!(&held, &offsets.iter().copied().collect::<Vec<_>>());
            let vector = OffsetVector::from(vector);
            let below = offsets.iter().filter(|(p, o)| *o < vector.get(*p)).count() as u64;
            prop_assert_eq!(gaps.below(&vector), below);
        }
    }
}
