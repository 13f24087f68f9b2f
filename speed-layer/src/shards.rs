//! The one writer's hold on the shards.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::try_join_all;
use stratus_seam::crash;
use stratus_seam::ids::{Generation, ShardNo, Token, TxId};
use stratus_seam::shard::{Scope, ShardCommit, ShardMeta};
use stratus_seam::store::{ShardStore, StoreError};

use crate::error::SpeedError;

/// How often a call without an answer is settled by reading before the writer gives up and recovers.
const ATTEMPTS: u32 = 5;

/// The shards of a source, claimed, with the txid that each holds.
#[derive(Debug)]
pub(crate) struct HeldShards {
    store: Arc<dyn ShardStore>,
    generation: Generation,
    token: Token,
    /// By shard.
    txids: Vec<AtomicU64>,
    /// The scopes that some shard has keys of.
    scopes: Mutex<BTreeSet<Scope>>,
}

impl HeldShards {
    /// Claims every shard for (generation, token). `found` is what they said before; a shard of another generation
    /// is emptied.
    pub(crate) async fn claim(
        store: Arc<dyn ShardStore>,
        found: &[Option<ShardMeta>],
        generation: Generation,
        token: Token,
    ) -> Result<Self, SpeedError> {
        let (mut txids, mut scopes) = (Vec::new(), BTreeSet::new());
        for (shard, meta) in (0..).zip(found) {
            let seen = meta.as_ref().map(|meta| (meta.generation, meta.token));
            if !store.claim(shard, seen, generation, token).await? {
                return Err(SpeedError::LostShard(shard));
            }
            let kept = meta.as_ref().filter(|meta| meta.generation == generation);
            txids.push(AtomicU64::new(kept.map_or(0, |meta| meta.txid)));
            scopes.extend(kept.iter().flat_map(|meta| meta.rows.keys().copied()));
            crash::point("speed:after-claim");
        }
        Ok(Self { store, generation, token, txids, scopes: Mutex::new(scopes) })
    }

    fn held(&self, shard: ShardNo) -> Option<TxId> {
        self.txids.get(shard as usize).map(|held| held.load(Ordering::SeqCst))
    }

    fn locked(&self) -> MutexGuard<'_, BTreeSet<Scope>> {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The scopes that some shard has keys of.
    pub(crate) fn scopes(&self) -> Vec<Scope> {
        self.locked().iter().copied().collect()
    }

    /// Looks whether every shard is still held and complete: while nothing is committed nobody else would notice.
    pub(crate) async fn check(&self) -> Result<(), SpeedError> {
        for shard in 0..self.count() {
            let found = self.store.meta(shard).await?;
            let held = |meta: &ShardMeta| {
                let txid = self.held(shard);
                (meta.generation, meta.token, Some(meta.txid)) == (self.generation, self.token, txid)
            };
            let Some((meta, found)) = found.filter(|(meta, _)| held(meta)) else {
                return Err(SpeedError::LostShard(shard));
            };
            if let Some((scope, rows)) = meta.rows.iter().find(|(scope, rows)| found.get(scope) != Some(rows))
            {
                return Err(StoreError::Damaged(format!(
                    "shard {shard} has not the {rows} keys of epoch {} of view {} that its record counts: the store lost some",
                    scope.epoch, scope.view
                ))
                .into());
            }
        }
        Ok(())
    }

    pub(crate) fn count(&self) -> u32 {
        // As many as the ledger says, which is a u32.
        self.txids.len() as u32
    }

    /// The highest txid that every shard holds.
    pub(crate) fn lowest(&self) -> TxId {
        self.txids.iter().map(|held| held.load(Ordering::SeqCst)).min().unwrap_or(0)
    }

    /// Whether a shard lacks a txid.
    pub(crate) fn lacks(&self, shard: ShardNo, txid: TxId) -> bool {
        self.held(shard).is_some_and(|held| held < txid)
    }

    /// The states of some keys of a shard, in the order asked.
    pub(crate) async fn get(
        &self,
        shard: ShardNo,
        scope: Scope,
        keys: &[String],
    ) -> Result<Vec<Option<String>>, SpeedError> {
        Ok(self.store.get(shard, scope, keys).await?)
    }

    /// An empty commit of a shard, to be filled with changes.
    pub(crate) fn commit(
        &self,
        shard: ShardNo,
        txid: TxId,
        attempt: stratus_seam::ids::Attempt,
    ) -> ShardCommit {
        let (generation, token) = (self.generation, self.token);
        ShardCommit { shard, generation, token, txid, attempt, changes: Vec::new() }
    }

    /// Applies a txid to every shard that lacks it.
    pub(crate) async fn apply(&self, commits: Vec<ShardCommit>) -> Result<(), SpeedError> {
        let mut waiting: Vec<_> =
            commits.into_iter().filter(|commit| self.lacks(commit.shard, commit.txid)).collect();
        // In debug builds the first one alone, so that there is a moment between two shards to crash in.
        let alone = if cfg!(debug_assertions) { waiting.len().min(1) } else { 0 };
        let rest = waiting.split_off(alone);
        for group in [waiting, rest] {
            try_join_all(group.iter().map(|commit| settle_commit(self.store.as_ref(), commit))).await?;
            for commit in group {
                self.locked().extend(commit.changes.iter().map(|change| change.scope));
                if let Some(held) = self.txids.get(commit.shard as usize) {
                    held.store(commit.txid, Ordering::SeqCst);
                }
            }
            crash::point("speed:between-shards");
        }
        Ok(())
    }

    /// Deletes scopes from every shard.
    pub(crate) async fn drop_scopes(&self, gone: &[Scope]) -> Result<(), SpeedError> {
        for shard in 0..self.count() {
            if !self.store.drop_scopes(shard, self.generation, self.token, gone).await? {
                return Err(SpeedError::LostShard(shard));
            }
            crash::point("speed:between-drops");
        }
        self.locked().retain(|scope| !gone.contains(scope));
        Ok(())
    }
}

/// Commits to one shard; a lost answer is settled by asking again, since the same txid from the same ledger entry
/// is no change.
async fn settle_commit(store: &dyn ShardStore, commit: &ShardCommit) -> Result<(), SpeedError> {
    let mut attempt = 1;
    loop {
        let error = match store.commit(commit).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(refusal)) => {
                return Err(SpeedError::Refused { shard: commit.shard, txid: commit.txid, refusal });
            }
            Err(error @ StoreError::Unavailable { .. }) => error,
            Err(error) => return Err(error.into()),
        };
        if attempt == ATTEMPTS {
            return Err(error.into());
        }
        attempt += 1;
        tokio::time::sleep(Duration::from_millis(20) * attempt).await;
    }
}
