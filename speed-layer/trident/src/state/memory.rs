//! Maps in memory: for tests, and for states that may go with the process.

use std::{
    collections::BTreeMap,
    marker::PhantomData,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use stratus_topology::{TaskContext, TaskError};

use super::{BackingMap, OpaqueMap, OpaqueValue, StateFactory, StateKind};
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

/// Makes opaque states in memory, one map for all partitions. Clones share it, and it outlives its topologies.
#[derive(Debug)]
pub struct MemoryMaps<V> {
    map: MemoryMap<OpaqueValue<V>>,
    value: PhantomData<V>,
}

impl<V> Default for MemoryMaps<V> {
    fn default() -> Self {
        Self { map: MemoryMap::default(), value: PhantomData }
    }
}

impl<V> Clone for MemoryMaps<V> {
    fn clone(&self) -> Self {
        Self { map: MemoryMap(Arc::clone(&self.map.0)), value: PhantomData }
    }
}

impl<V: TridentValue> MemoryMaps<V> {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// The latest values.
    pub fn values(&self) -> BTreeMap<String, V> {
        self.map.entries().into_iter().map(|(key, value)| (key, value.current().clone())).collect()
    }
}

#[async_trait]
impl<V: TridentValue> StateFactory for MemoryMaps<V> {
    type State = OpaqueMap<V, MemoryMap<OpaqueValue<V>>>;

    fn kind(&self) -> StateKind {
        StateKind::Opaque
    }

    async fn make(
        &self,
        _context: &TaskContext,
        _partition: usize,
        _count: usize,
    ) -> Result<Self::State, TaskError> {
        Ok(OpaqueMap::new(self.map.clone()))
    }
}
