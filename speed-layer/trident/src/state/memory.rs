//! Maps in memory: for tests, and for states that may go with the process.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use stratus_topology::{TaskContext, TaskError};

use super::{
    BackingMap, NonTransactionalMap, OpaqueMap, OpaqueValue, StateFactory, StateKind, TransactionalMap,
    TransactionalValue,
};
use crate::tuple::TridentValue;

/// A map in memory. Clones share it.
#[derive(Clone, Debug)]
pub struct MemoryMap<T>(Arc<Mutex<BTreeMap<String, T>>>);

impl<T> Default for MemoryMap<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone> MemoryMap<T> {
    /// Everything that it holds.
    pub fn entries(&self) -> BTreeMap<String, T> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl<T: Clone + Send + Sync + 'static> BackingMap<T> for MemoryMap<T> {
    async fn multi_get(&mut self, keys: &[String]) -> Result<Vec<Option<T>>, TaskError> {
        let map = self.lock();
        Ok(keys.iter().map(|key| map.get(key).cloned()).collect())
    }

    async fn multi_put(&mut self, entries: Vec<(String, T)>) -> Result<(), TaskError> {
        self.lock().extend(entries);
        Ok(())
    }
}

macro_rules! factories {
    ($($(#[$doc:meta])* $name:ident: $kind:ident, $state:ident<$value:ident>, $stored:ty, $latest:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<$value> {
            map: MemoryMap<$stored>,
        }

        impl<$value> Default for $name<$value> {
            fn default() -> Self {
                Self { map: MemoryMap::default() }
            }
        }

        impl<$value> Clone for $name<$value> {
            fn clone(&self) -> Self {
                Self { map: MemoryMap(Arc::clone(&self.map.0)) }
            }
        }

        impl<$value: TridentValue> $name<$value> {
            /// An empty map.
            pub fn new() -> Self {
                Self::default()
            }

            /// The latest values.
            pub fn values(&self) -> BTreeMap<String, $value> {
                let latest: fn($stored) -> $value = $latest;
                self.map.entries().into_iter().map(|(key, stored)| (key, latest(stored))).collect()
            }
        }

        #[async_trait]
        impl<$value: TridentValue> StateFactory for $name<$value> {
            type State = $state<$value, MemoryMap<$stored>>;

            fn kind(&self) -> StateKind {
                StateKind::$kind
            }

            async fn make(
                &self,
                _context: &TaskContext,
                _partition: usize,
                _count: usize,
            ) -> Result<Self::State, TaskError> {
                Ok($state::new(self.map.clone()))
            }
        }
    )*};
}

factories! {
    /// Makes opaque states in memory, one map for all partitions. Clones share it, and it outlives its topologies.
    MemoryMaps: Opaque, OpaqueMap<V>, OpaqueValue<V>, |stored| stored.current().clone();
    /// Makes transactional states in memory, one map for all partitions. Clones share it, and it outlives its
    /// topologies.
    TransactionalMemoryMaps: Transactional, TransactionalMap<V>, TransactionalValue<V>, |stored| stored.1;
    /// Makes states without a promise in memory, one map for all partitions. Clones share it, and it outlives its
    /// topologies.
    NonTransactionalMemoryMaps: NonTransactional, NonTransactionalMap<V>, V, |stored| stored;
}
