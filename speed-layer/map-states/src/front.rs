//! A store with or without a cache in front of it.

use async_trait::async_trait;
use stratus_topology::TaskError;
use stratus_trident::{BackingMap, CachedMap, TransactionAttempt};

/// A store, or a cache of the keys that were used last in front of it.
#[derive(Debug)]
pub enum Front<T, B> {
    /// Every key is read from the store.
    Bare(B),
    /// Keys that were used lately are read from memory; every write goes to the store first.
    Cached(CachedMap<T, B>),
}

impl<T: Clone + Send + Sync + 'static, B: BackingMap<T>> Front<T, B> {
    /// A cache of at most so many keys; none if it is 0.
    pub(crate) fn new(map: B, cached: usize) -> Self {
        match cached {
            0 => Self::Bare(map),
            keys => Self::Cached(CachedMap::new(map, keys)),
        }
    }
}

#[async_trait]
impl<T: Clone + Send + Sync + 'static, B: BackingMap<T>> BackingMap<T> for Front<T, B> {
    fn begin_attempt(&mut self, attempt: TransactionAttempt) {
        match self {
            Self::Bare(map) => map.begin_attempt(attempt),
            Self::Cached(map) => map.begin_attempt(attempt),
        }
    }

    fn is_of(&mut self, digest: Option<u64>) {
        match self {
            Self::Bare(map) => map.is_of(digest),
            Self::Cached(map) => map.is_of(digest),
        }
    }

    async fn begin_commit(&mut self, txid: Option<u64>) -> Result<(), TaskError> {
        match self {
            Self::Bare(map) => map.begin_commit(txid).await,
            Self::Cached(map) => map.begin_commit(txid).await,
        }
    }

    async fn multi_get(&mut self, keys: &[String]) -> Result<Vec<Option<T>>, TaskError> {
        match self {
            Self::Bare(map) => map.multi_get(keys).await,
            Self::Cached(map) => map.multi_get(keys).await,
        }
    }

    async fn multi_put(&mut self, entries: Vec<(String, T)>) -> Result<(), TaskError> {
        match self {
            Self::Bare(map) => map.multi_put(entries).await,
            Self::Cached(map) => map.multi_put(entries).await,
        }
    }
}
