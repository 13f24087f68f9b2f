//! State in memory, for tests: the contracts in their plainest form, and a store that can lose things on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use stratus_seam::ids::{Generation, ShardNo, SourceId, Token, TxId};
use stratus_seam::ledger::{Ledger, Txn};
use stratus_seam::shard::{Refusal, Scope, ShardCommit, ShardMeta, Verdict, judge};
use stratus_seam::store::{
    CutRequest, Durability, LedgerStore, LedgerWrite, Page, Pin, ShardStore, SourceState, StateStore,
    StoreError, Tail, TxnChanges,
};
use uuid::Uuid;

use crate::decisions::{self, Claim};

/// A store in memory. Clones are handles on the same contents, which are gone with the last of them.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Sources>>);

type Sources = BTreeMap<SourceId, Contents>;

/// What a [`MemoryStore`] held at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot(Sources);

#[derive(Debug, Clone, Default)]
struct Contents {
    ledger: Option<Ledger>,
    txns: BTreeMap<TxId, Txn>,
    requests: BTreeMap<Uuid, CutRequest>,
    pins: BTreeMap<Uuid, Pin>,
    shards: BTreeMap<ShardNo, Shard>,
}

#[derive(Debug, Clone)]
struct Shard {
    meta: ShardMeta,
    state: BTreeMap<Scope, BTreeMap<String, String>>,
    undo: BTreeMap<TxId, Vec<(Scope, String, Option<String>)>>,
}

impl Shard {
    /// By how many keys a scope differs from what the record says of it.
    fn missing(&self, scope: Scope) -> u64 {
        let rows = self.meta.rows.get(&scope).copied().unwrap_or(0);
        rows.abs_diff(self.state.get(&scope).map_or(0, |keys| keys.len() as u64))
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the store holds now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.sources().clone())
    }

    /// Goes back to a snapshot as a whole: everything written since is lost.
    pub fn restore(&self, snapshot: &Snapshot) {
        *self.sources() = snapshot.0.clone();
    }

    /// Lets one shard go back to a snapshot, as the failover of one server among several does. A shard that did not
    /// exist then is empty afterwards.
    pub fn restore_shard(&self, source: SourceId, shard: ShardNo, snapshot: &Snapshot) {
        let then = snapshot.0.get(&source).and_then(|contents| contents.shards.get(&shard)).cloned();
        let mut sources = self.sources();
        let shards = &mut sources.entry(source).or_default().shards;
        match then {
            Some(then) => shards.insert(shard, then),
            None => shards.remove(&shard),
        };
    }

    /// Lets the ledger of a source, with its entries, requests and pins, go back to a snapshot while the shards stay.
    pub fn restore_ledger(&self, source: SourceId, snapshot: &Snapshot) {
        let then = snapshot.0.get(&source).cloned().unwrap_or_default();
        let mut sources = self.sources();
        let now = sources.entry(source).or_default();
        *now = Contents { shards: std::mem::take(&mut now.shards), ..then };
    }

    /// Loses one key, as a server that evicts does: the shard's record still counts it. Answers whether it was there.
    pub fn evict(&self, source: SourceId, shard: ShardNo, scope: Scope, key: &str) -> bool {
        let mut sources = self.sources();
        let shard = sources.get_mut(&source).and_then(|contents| contents.shards.get_mut(&shard));
        shard.and_then(|shard| shard.state.get_mut(&scope)).is_some_and(|keys| keys.remove(key).is_some())
    }

    // Nothing that holds the lock can stop half-way, so a poisoned one guards whole contents all the same.
    fn sources(&self) -> MutexGuard<'_, Sources> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("sources", &self.sources().len()).finish()
    }
}

#[async_trait]
impl StateStore for MemoryStore {
    async fn source(&self, source: SourceId) -> Result<SourceState, StoreError> {
        let handle = Arc::new(MemorySource { store: self.clone(), source });
        Ok(SourceState { ledger: handle.clone(), shards: handle })
    }

    async fn forget(&self, source: SourceId) -> Result<(), StoreError> {
        self.sources().remove(&source);
        Ok(())
    }
}

#[derive(Debug)]
struct MemorySource {
    store: MemoryStore,
    source: SourceId,
}

impl MemorySource {
    fn look<T>(&self, at: impl FnOnce(&Contents) -> T) -> T {
        match self.store.sources().get(&self.source) {
            Some(contents) => at(contents),
            None => at(&Contents::default()),
        }
    }

    fn change<T>(&self, how: impl FnOnce(&mut Contents) -> T) -> T {
        how(self.store.sources().entry(self.source).or_default())
    }
}

#[async_trait]
impl LedgerStore for MemorySource {
    async fn read(&self) -> Result<Option<Ledger>, StoreError> {
        Ok(self.look(|contents| contents.ledger.clone()))
    }

    async fn write(
        &self,
        expected: Option<(Token, u64)>,
        next: &Ledger,
        txns: TxnChanges,
        _: Durability,
    ) -> Result<LedgerWrite, StoreError> {
        Ok(self.change(|contents| {
            if !decisions::is_expected(contents.ledger.as_ref(), expected) {
                return LedgerWrite::Refused(contents.ledger.clone().map(Box::new));
            }
            contents.ledger = Some(next.clone());
            contents.txns.retain(|txid, _| !txns.forget_all && *txid >= txns.forget_below);
            contents.txns.extend(txns.append.map(|txn| (txn.txid, txn)));
            LedgerWrite::Written
        }))
    }

    async fn txns(&self, first: TxId) -> Result<Vec<Txn>, StoreError> {
        Ok(self.look(|contents| contents.txns.range(first..).map(|(_, txn)| txn.clone()).collect()))
    }

    async fn request(&self, request: CutRequest) -> Result<(), StoreError> {
        self.change(|contents| contents.requests.insert(request.id, request));
        Ok(())
    }

    async fn requests(&self) -> Result<Vec<CutRequest>, StoreError> {
        Ok(self.look(|contents| contents.requests.values().cloned().collect()))
    }

    async fn withdraw(&self, id: Uuid) -> Result<(), StoreError> {
        self.change(|contents| contents.requests.remove(&id));
        Ok(())
    }

    async fn pin(&self, pin: Pin) -> Result<(), StoreError> {
        self.change(|contents| contents.pins.insert(pin.id, pin));
        Ok(())
    }

    async fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        Ok(self.look(|contents| contents.pins.values().cloned().collect()))
    }

    async fn unpin(&self, id: Uuid) -> Result<(), StoreError> {
        self.change(|contents| contents.pins.remove(&id));
        Ok(())
    }
}

impl Shard {
    fn empty(generation: Generation, token: Token) -> Self {
        let meta = ShardMeta::empty(generation, token);
        Self { meta, state: BTreeMap::new(), undo: BTreeMap::new() }
    }

    fn found(&self, scope: Scope) -> u64 {
        self.state.get(&scope).map_or(0, |keys| keys.len() as u64)
    }

    fn apply(&mut self, commit: &ShardCommit) -> Result<(), StoreError> {
        let (mut touched, mut added) = (BTreeSet::new(), BTreeMap::new());
        for change in &commit.changes {
            let held = self.state.get(&change.scope).and_then(|keys| keys.get(&change.key));
            if held != change.before.as_ref() || !touched.insert((change.scope, &change.key)) {
                return Err(decisions::other_before(commit, change.scope, &change.key));
            }
            if held.is_none() {
                *added.entry(change.scope).or_default() += 1;
            }
        }
        self.meta = decisions::behind(&self.meta, commit, &added);
        for change in &commit.changes {
            self.state.entry(change.scope).or_default().insert(change.key.clone(), change.after.clone());
        }
        let undo =
            commit.changes.iter().map(|change| (change.scope, change.key.clone(), change.before.clone()));
        self.undo.insert(commit.txid, undo.collect());
        self.undo = self.undo.split_off(&decisions::first_undo(commit.txid));
        Ok(())
    }
}

#[async_trait]
impl ShardStore for MemorySource {
    async fn meta(&self, shard: ShardNo) -> Result<Option<(ShardMeta, BTreeMap<Scope, u64>)>, StoreError> {
        Ok(self.look(|contents| {
            let shard = contents.shards.get(&shard)?;
            let scopes = shard.meta.rows.keys().chain(shard.state.keys());
            let found = scopes.map(|scope| (*scope, shard.found(*scope))).collect();
            Some((shard.meta.clone(), found))
        }))
    }

    async fn claim(
        &self,
        shard: ShardNo,
        seen: Option<(Generation, Token)>,
        generation: Generation,
        token: Token,
    ) -> Result<bool, StoreError> {
        Ok(self.change(|contents| {
            let held = contents.shards.get(&shard).map(|shard| (shard.meta.generation, shard.meta.token));
            match decisions::claim(held, seen, generation, token) {
                Claim::Refused => return false,
                Claim::Held => {}
                Claim::TakeOver => {
                    if let Some(shard) = contents.shards.get_mut(&shard) {
                        shard.meta.token = token;
                    }
                }
                Claim::Empty => {
                    contents.shards.insert(shard, Shard::empty(generation, token));
                }
            }
            true
        }))
    }

    async fn get(
        &self,
        shard: ShardNo,
        scope: Scope,
        keys: &[String],
    ) -> Result<Vec<Option<String>>, StoreError> {
        Ok(self.look(|contents| {
            let held = contents.shards.get(&shard).and_then(|shard| shard.state.get(&scope));
            keys.iter().map(|key| held.and_then(|held| held.get(key)).cloned()).collect()
        }))
    }

    async fn commit(&self, commit: &ShardCommit) -> Result<Result<Verdict, Refusal>, StoreError> {
        self.change(|contents| {
            let shard = contents.shards.get_mut(&commit.shard);
            let verdict = match judge(shard.as_ref().map(|shard| &shard.meta), commit) {
                Ok(verdict) => verdict,
                Err(refusal) => return Ok(Err(refusal)),
            };
            if let (Verdict::Apply, Some(shard)) = (verdict, shard) {
                shard.apply(commit)?;
            }
            Ok(Ok(verdict))
        })
    }

    async fn page(
        &self,
        shard: ShardNo,
        scope: Scope,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        Ok(self.look(|contents| {
            let Some(shard) = contents.shards.get(&shard) else { return Page::default() };
            let (stand, missing) = (Some(shard.meta.stand()), shard.missing(scope));
            let Some(keys) = shard.state.get(&scope) else {
                return Page { stand, missing, ..Page::default() };
            };
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let mut rest = keys.range::<str, _>((from, Bound::Unbounded));
            let row = |(key, state): (&String, &String)| (key.clone(), state.clone());
            let rows: Vec<_> = rest.by_ref().take(limit.max(1)).map(row).collect();
            let next = rest.next().and_then(|_| rows.last()).map(|(key, _)| key.clone());
            Page { rows, next, stand, missing }
        }))
    }

    async fn find(&self, shard: ShardNo, scope: Scope, keys: &[String]) -> Result<Page, StoreError> {
        Ok(self.look(|contents| {
            let Some(shard) = contents.shards.get(&shard) else { return Page::default() };
            let held = shard.state.get(&scope);
            let row = |key: &String| Some((key.clone(), held?.get(key)?.clone()));
            let (stand, missing) = (Some(shard.meta.stand()), shard.missing(scope));
            Page { rows: keys.iter().filter_map(row).collect(), next: None, stand, missing }
        }))
    }

    async fn tail(&self, shard: ShardNo, txid: TxId, scopes: &[Scope]) -> Result<Option<Tail>, StoreError> {
        Ok(self.look(|contents| {
            let shard = contents.shards.get(&shard)?;
            let mut undo: BTreeMap<TxId, Vec<_>> = BTreeMap::new();
            for (txid, changes) in shard.undo.range((Bound::Excluded(txid), Bound::Unbounded)) {
                let asked: Vec<_> =
                    changes.iter().filter(|(scope, ..)| scopes.contains(scope)).cloned().collect();
                if !asked.is_empty() {
                    undo.insert(*txid, asked);
                }
            }
            let found = scopes.iter().map(|scope| (*scope, shard.found(*scope))).collect();
            Some(Tail { meta: shard.meta.clone(), found, undo })
        }))
    }

    async fn drop_scopes(
        &self,
        shard: ShardNo,
        generation: Generation,
        token: Token,
        gone: &[Scope],
    ) -> Result<bool, StoreError> {
        Ok(self.change(|contents| {
            let shard = contents.shards.get_mut(&shard);
            let Some(shard) = shard.filter(|s| (s.meta.generation, s.meta.token) == (generation, token))
            else {
                return false;
            };
            shard.meta.drop_scopes(gone);
            shard.state.retain(|scope, _| !gone.contains(scope));
            for changes in shard.undo.values_mut() {
                changes.retain(|(scope, ..)| !gone.contains(scope));
            }
            true
        }))
    }
}
