//! A cache of the latest keys in front of a store.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use stratus_topology::TaskError;

use super::BackingMap;
use crate::batch::TransactionAttempt;

/// Keeps the values of the keys that were used last. A value is cached only after the store has taken it: a cache that
/// is ahead of its store would hide an update that was lost from its replay.
#[derive(Debug)]
pub struct CachedMap<T, B> {
    map: B,
    capacity: usize,
    /// The value of each key, with when it was used last.
    values: HashMap<String, (Option<T>, u64)>,
    by_use: BTreeMap<u64, String>,
    uses: u64,
    /// The life of the coordinator whose batches the values come from.
    epoch: u64,
}

impl<T: Clone + Send + Sync + 'static, B: BackingMap<T>> CachedMap<T, B> {
    /// A cache of at most so many keys.
    pub fn new(map: B, capacity: usize) -> Self {
        Self { map, capacity, values: HashMap::new(), by_use: BTreeMap::new(), uses: 0, epoch: 0 }
    }

    fn remember(&mut self, key: String, value: Option<T>) {
        self.uses += 1;
        if let Some((_, used)) = self.values.insert(key.clone(), (value, self.uses)) {
            self.by_use.remove(&used);
        }
        self.by_use.insert(self.uses, key);
        while self.values.len() > self.capacity {
            let Some((_, oldest)) = self.by_use.pop_first() else { return };
            self.values.remove(&oldest);
        }
    }

    fn forget(&mut self, key: &str) {
        if let Some((_, used)) = self.values.remove(key) {
            self.by_use.remove(&used);
        }
    }
}

#[async_trait]
impl<T: Clone + Send + Sync + 'static, B: BackingMap<T>> BackingMap<T> for CachedMap<T, B> {
    fn begin_attempt(&mut self, attempt: TransactionAttempt) {
        if attempt.epoch != self.epoch {
            // Between two lives another process may have had the ledger, and have written what this one has not seen.
            self.epoch = attempt.epoch;
            self.values.clear();
            self.by_use.clear();
        }
        self.map.begin_attempt(attempt);
    }

    fn is_of(&mut self, digest: Option<u64>) {
        self.map.is_of(digest);
    }

    async fn begin_commit(&mut self, txid: Option<u64>) -> Result<(), TaskError> {
        self.map.begin_commit(txid).await
    }

    async fn multi_get(&mut self, keys: &[String]) -> Result<Vec<Option<T>>, TaskError> {
        // All that is cached is taken first: what is remembered below may push it out.
        let cached: Vec<Option<Option<T>>> =
            keys.iter().map(|key| self.values.get(key).map(|(value, _)| value.clone())).collect();
        let missing = keys.iter().zip(&cached).filter(|(_, cached)| cached.is_none());
        let missing: Vec<String> = missing.map(|(key, _)| key.clone()).collect();
        let found = if missing.is_empty() { Vec::new() } else { self.map.multi_get(&missing).await? };
        let mut found = found.into_iter();
        let mut values = Vec::with_capacity(keys.len());
        for (key, cached) in keys.iter().zip(cached) {
            let value = cached.unwrap_or_else(|| found.next().flatten());
            self.remember(key.clone(), value.clone());
            values.push(value);
        }
        Ok(values)
    }

    async fn multi_put(&mut self, entries: Vec<(String, T)>) -> Result<(), TaskError> {
        // What the store holds after a failure nobody knows, so nothing is known of these keys until it has answered.
        entries.iter().for_each(|(key, _)| self.forget(key));
        self.map.multi_put(entries.clone()).await?;
        entries.into_iter().for_each(|(key, value)| self.remember(key, Some(value)));
        Ok(())
    }
}
