//! Offsets, and the vectors that say what a thing has absorbed.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of a partition of a source's log.
pub type Partition = u32;
/// A position in a partition. Dense in nothing: Kafka's have holes, a directory log's are byte positions.
pub type Offset = u64;

/// partition -> the offset after the last delivered record. A partition that is not listed stands at 0, so two
/// vectors that differ only in such entries are equal; the constructors keep no zeros.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "BTreeMap<Partition, Offset>")]
pub struct OffsetVector(BTreeMap<Partition, Offset>);

impl OffsetVector {
    /// The vector at which nothing has been absorbed.
    pub const fn zero() -> Self {
        Self(BTreeMap::new())
    }

    /// The offset after the last delivered record of `partition`; 0 where nothing was delivered.
    pub fn get(&self, partition: Partition) -> Offset {
        self.0.get(&partition).copied().unwrap_or(0)
    }

    /// Sets the entry of one partition.
    pub fn set(&mut self, partition: Partition, offset: Offset) {
        if offset == 0 {
            self.0.remove(&partition);
        } else {
            self.0.insert(partition, offset);
        }
    }

    /// The entries that are not 0, by partition.
    pub fn iter(&self) -> impl Iterator<Item = (Partition, Offset)> + '_ {
        self.0.iter().map(|(partition, offset)| (*partition, *offset))
    }

    /// Whether this vector lies at or above `other` on every partition: whoever stands here has absorbed `other`.
    pub fn covers(&self, other: &Self) -> bool {
        other.iter().all(|(partition, offset)| self.get(partition) >= offset)
    }

    /// The lower of both, partition by partition.
    pub fn meet(&self, other: &Self) -> Self {
        self.iter().map(|(partition, offset)| (partition, offset.min(other.get(partition)))).collect()
    }

    /// The higher of both, partition by partition.
    pub fn join(&self, other: &Self) -> Self {
        let mut joined = self.clone();
        for (partition, offset) in other.iter() {
            joined.set(partition, offset.max(self.get(partition)));
        }
        joined
    }
}

impl FromIterator<(Partition, Offset)> for OffsetVector {
    fn from_iter<I: IntoIterator<Item = (Partition, Offset)>>(entries: I) -> Self {
        Self(entries.into_iter().filter(|(_, offset)| *offset > 0).collect())
    }
}

impl From<BTreeMap<Partition, Offset>> for OffsetVector {
    fn from(entries: BTreeMap<Partition, Offset>) -> Self {
        entries.into_iter().collect()
    }
}

impl<const N: usize> From<[(Partition, Offset); N]> for OffsetVector {
    fn from(entries: [(Partition, Offset); N]) -> Self {
        entries.into_iter().collect()
    }
}

/// As `{0: 182, 1: 97}`.
impl fmt::Display for OffsetVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (partition, offset)) in self.iter().enumerate() {
            write!(f, "{}{partition}: {offset}", if i == 0 { "" } else { ", " })?;
        }
        f.write_str("}")
    }
}

/// The records of one partition from `from` (inclusive) to `to` (exclusive). Offsets are not dense, so the count
/// belongs to the range: a replay that delivers another number of records is not the same batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OffsetRange {
    /// The first offset.
    pub from: Offset,
    /// The offset after the last record.
    pub to: Offset,
    /// How many records were delivered, bad ones included.
    pub records: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_zero_is_no_entry() {
        let mut with = OffsetVector::from([(0, 0), (1, 5)]);
        assert_eq!(with, OffsetVector::from([(1, 5)]));
        with.set(1, 0);
        assert_eq!(with, OffsetVector::zero());
        let read: OffsetVector = serde_json::from_str(r#"{"0":0,"2":7}"#).unwrap();
        assert_eq!(read, OffsetVector::from([(2, 7)]));
    }

    #[test]
    fn covering_is_a_partial_order() {
        let low = OffsetVector::from([(0, 1), (1, 9)]);
        let high = OffsetVector::from([(0, 2), (1, 3)]);
        assert!(!low.covers(&high) && !high.covers(&low));
        assert_eq!(low.join(&high), OffsetVector::from([(0, 2), (1, 9)]));
        assert_eq!(low.meet(&high), OffsetVector::from([(0, 1), (1, 3)]));
        assert!(low.join(&high).covers(&low) && low.covers(&low.meet(&high)));
    }
}
