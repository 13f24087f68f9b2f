//! Values with what makes them exactly once. As JSON they are `[txid, value]` and `[txid, value, previous]`.

use serde::{Deserialize, Serialize};
use stratus_topology::TaskError;

/// A value and the transaction that wrote it last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionalValue<V>(
    /// The transaction.
    pub u64,
    /// The value.
    pub V,
);

/// A value, the transaction that wrote it last, and the value before that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpaqueValue<V> {
    txid: u64,
    current: V,
    previous: Option<V>,
}

impl<V: Clone> OpaqueValue<V> {
    /// A value that this transaction wrote over that one.
    pub fn new(txid: u64, current: V, previous: Option<V>) -> Self {
        Self { txid, current, previous }
    }

    /// The value that `txid` begins with: what the transactions before it have written.
    ///
    /// # Errors
    ///
    /// A later transaction has written already: the batches are behind the state.
    pub fn before(&self, txid: u64) -> Result<Option<&V>, TaskError> {
        match self.txid.cmp(&txid) {
            std::cmp::Ordering::Less => Ok(Some(&self.current)),
            std::cmp::Ordering::Equal => Ok(self.previous.as_ref()),
            std::cmp::Ordering::Greater => {
                Err(format!("transaction {txid} is behind the state, where {} has written", self.txid).into())
            }
        }
    }

    /// With a value that `txid` has written.
    ///
    /// # Errors
    ///
    /// As [`before`](Self::before).
    pub fn update(&self, txid: u64, value: V) -> Result<Self, TaskError> {
        let previous = self.before(txid)?.cloned();
        Ok(Self { txid, current: value, previous })
    }

    /// The latest value.
    pub fn current(&self) -> &V {
        &self.current
    }

    /// The value before the latest transaction.
    pub fn previous(&self) -> Option<&V> {
        self.previous.as_ref()
    }
}
