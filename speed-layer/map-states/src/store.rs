//! What a store of states offers.

use async_trait::async_trait;
use serde::{Serialize, de::DeserializeOwned};
use stratus_trident::{BackingMap, StateKind, TridentValue};

use crate::{MapError, NonTransactionalStates, OpaqueStates, TransactionalStates};

/// What states store: values of JSON.
pub trait Stored: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {}

impl<T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> Stored for T {}

/// A store of states by name. A name may be any text, and belongs to one state of one topology: states of topologies
/// with ledgers of their own would refuse each other's transactions.
#[async_trait]
pub trait MapStore: Clone + Send + Sync + 'static {
    /// The values of one state.
    type Map<T: Stored>: BackingMap<T>;

    /// The values of the state of this name, which is begun if it does not exist. Every call is a handle on the same
    /// values.
    ///
    /// # Errors
    ///
    /// It cannot be reached, is damaged, or is of another kind.
    async fn map<T: Stored>(&self, kind: StateKind, name: &str) -> Result<Self::Map<T>, MapError>;

    /// Deletes a state: its values, and what it has seen. End the topologies that use it before: they are refused
    /// afterwards.
    ///
    /// # Errors
    ///
    /// It may or may not have been deleted.
    async fn clear(&self, name: &str) -> Result<(), MapError>;

    /// Makes opaque states: exactly once with transactional and with opaque spouts.
    fn opaque<V: TridentValue>(&self, name: &str) -> OpaqueStates<V, Self> {
        OpaqueStates::new(self.clone(), name)
    }

    /// Makes transactional states: exactly once with transactional spouts.
    fn transactional<V: TridentValue>(&self, name: &str) -> TransactionalStates<V, Self> {
        TransactionalStates::new(self.clone(), name)
    }

    /// Makes states without a promise: a replayed batch counts again.
    fn non_transactional<V: TridentValue>(&self, name: &str) -> NonTransactionalStates<V, Self> {
        NonTransactionalStates::new(self.clone(), name)
    }
}
