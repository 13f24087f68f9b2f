//! Batches as Trident sees them.

use std::fmt;

use stratus_topology::Label;

/// One attempt at one transaction. Attempts only rise within a process, over restarts of the coordinator, too; in a new
/// process they begin anew, as nobody there remembers those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionAttempt {
    /// The transaction: batches commit in the order of these.
    pub txid: u64,
    /// The attempt at it.
    pub attempt: u64,
}

impl TransactionAttempt {
    pub(crate) fn label(self) -> Label {
        (self.txid, self.attempt)
    }

    pub(crate) fn of(label: Label) -> Self {
        Self { txid: label.0, attempt: label.1 }
    }
}

impl fmt::Display for TransactionAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.txid, self.attempt)
    }
}
