//! Stores to test, and what is done with the states in them.

use async_trait::async_trait;
use stratus_map_states::{MapError, MapStore, RedbMaps, RedisMaps, Stored};
use stratus_servers::redis::Redis;
use stratus_trident::{BackingMap, MapState, OpaqueMap, OpaqueValue, StateKind};

/// A store that can be closed and opened again.
#[async_trait]
pub(crate) trait Place: Sized + Send {
    type Maps: MapStore;

    /// None if the store cannot be had on this machine.
    fn begin() -> Option<Self>;

    async fn open(&self) -> Self::Maps;
}

/// A folder for a file.
pub(crate) struct File(tempfile::TempDir);

#[async_trait]
impl Place for File {
    type Maps = RedbMaps;

    fn begin() -> Option<Self> {
        Some(Self(tempfile::tempdir().unwrap()))
    }

    async fn open(&self) -> RedbMaps {
        // Writes that nobody waits for any more hold the file open to their end.
        for _ in 0..500 {
            match RedbMaps::open(self.0.path().join("deep/states.redb")).await {
                Ok(maps) => return maps,
                Err(error) => assert!(error.to_string().contains("it is in use"), "{error}"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("the file is still in use");
    }
}

#[async_trait]
impl Place for Redis {
    type Maps = RedisMaps;

    fn begin() -> Option<Self> {
        Self::start(&["--appendfsync", "always"]).unwrap()
    }

    async fn open(&self) -> RedisMaps {
        RedisMaps::open(&format!("{}?timeout_ms=20000", self.url())).await.unwrap()
    }
}

/// The values alone.
pub(crate) async fn plain<T: Stored, M: MapStore>(maps: &M, name: &str) -> M::Map<T> {
    maps.map(StateKind::NonTransactional, name).await.unwrap()
}

/// An opaque state.
pub(crate) async fn opaque<M: MapStore>(
    maps: &M,
    name: &str,
) -> Result<OpaqueMap<i64, M::Map<OpaqueValue<i64>>>, MapError> {
    Ok(OpaqueMap::new(maps.map(StateKind::Opaque, name).await?))
}

/// One transaction that adds to keys; what they are then.
pub(crate) async fn add(
    state: &mut impl MapState<i64>,
    txid: u64,
    keys: &[String],
    amount: i64,
) -> Result<Vec<i64>, stratus_topology::TaskError> {
    state.begin_commit(Some(txid)).await?;
    let updated = state.multi_update(keys, &mut |_, before| Ok(before.unwrap_or(0) + amount)).await?;
    state.commit(Some(txid)).await?;
    Ok(updated)
}

/// The same until the store answers: a busy machine may be slower than a short time-out, and a replay is exact.
pub(crate) async fn add_again(
    state: &mut impl MapState<i64>,
    txid: u64,
    keys: &[String],
    amount: i64,
) -> Result<Vec<i64>, stratus_topology::TaskError> {
    for _ in 0..100 {
        match add(state, txid, keys, amount).await {
            Err(error) if matches!(error.downcast_ref(), Some(MapError::Unavailable { .. })) => {}
            answer => return answer,
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    add(state, txid, keys, amount).await
}

pub(crate) fn keys(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|key| format!("[\"k{key}\"]")).collect()
}

/// The values of a map.
pub(crate) async fn get<T: Stored>(map: &mut impl BackingMap<T>, keys: &[String]) -> Vec<Option<T>> {
    map.multi_get(keys).await.unwrap()
}
