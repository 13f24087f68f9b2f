//! Batches as Trident sees them.

use std::fmt;

use stratus_topology::Label;

/// One attempt at one transaction. Attempts only rise within a process, over restarts of the coordinator, too; in a new
/// process they begin anew, and there the epoch tells them from those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionAttempt {
    /// The transaction: batches commit in the order of these.
    pub txid: u64,
    /// The life of the coordinator that it belongs to, counted by the spouts' ledgers over all processes: 24 bits. 0 if
    /// no ledger counts.
    pub epoch: u64,
    /// The attempt at it: 40 bits.
    pub attempt: u64,
}

/// Bits of a label's second half that are the attempt; those above are the epoch.
const ATTEMPT: u32 = 40;

impl TransactionAttempt {
    /// A number that rises from attempt to attempt at the same transaction, whichever process makes it; `None` if no
    /// ledger counts the coordinator's lives. A store that keeps the highest one that wrote can refuse a write of an
    /// earlier attempt that comes late.
    pub fn fence(self) -> Option<u64> {
        (self.epoch > 0).then_some(self.label().1)
    }

    pub(crate) fn label(self) -> Label {
        (self.txid, self.epoch << ATTEMPT | self.attempt & ((1 << ATTEMPT) - 1))
    }

    pub(crate) fn of(label: Label) -> Self {
        Self { txid: label.0, epoch: label.1 >> ATTEMPT, attempt: label.1 & ((1 << ATTEMPT) - 1) }
    }
}

impl fmt::Display for TransactionAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.txid, self.attempt)
    }
}

/// A number for what spouts have written down of a batch, whoever of them did; never 0. `None` of nothing. States keep
/// it: neither the hash nor what spouts write down may change under a transaction that is under way.
pub(crate) fn digest(mut metadata: Vec<&str>) -> Option<u64> {
    if metadata.is_empty() {
        return None;
    }
    metadata.sort_unstable();
    Some(xxhash_rust::xxh3::xxh3_64(metadata.join("\n").as_bytes()).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_rise_with_attempts_and_over_the_coordinators_lives() {
        let fence = |epoch, attempt| TransactionAttempt { txid: 7, epoch, attempt }.fence();
        assert_eq!(fence(0, 9), None);
        let most = (1 << ATTEMPT) - 1;
        let rising = [(1, 1), (1, 2), (1, most), (2, 1), (2, 3), ((1 << 24) - 1, 0)];
        assert!(rising.map(|(epoch, attempt)| fence(epoch, attempt)).is_sorted_by(|one, two| one < two));
        for (epoch, attempt) in rising {
            let attempt = TransactionAttempt { txid: 7, epoch, attempt };
            assert_eq!(TransactionAttempt::of(attempt.label()), attempt);
        }
    }
}
