//! The owner of one shard, as the speed layer has one: it knows the previous states, and here also what the shard
//! held at every txid.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use stratus_seam::ids::{Attempt, Generation, ShardNo, SourceId, Token, TxId, ViewId};
use stratus_seam::ledger::Ledger;
use stratus_seam::log::LogId;
use stratus_seam::offsets::OffsetVector;
use stratus_seam::reading::{Stale, as_of, settle};
use stratus_seam::shard::{Change, Scope, ShardCommit, Verdict};
use stratus_seam::store::{ShardStore, SourceState, StateStore, Tail};

pub(super) type Held = BTreeMap<(Scope, String), String>;

#[derive(Debug)]
pub(super) struct Owner {
    pub(super) shards: Arc<dyn ShardStore>,
    pub(super) shard: ShardNo,
    pub(super) generation: Generation,
    pub(super) token: Token,
    pub(super) txid: TxId,
    pub(super) attempt: Option<Attempt>,
    pub(super) held: Held,
    pub(super) history: BTreeMap<TxId, Held>,
    pub(super) dropped: BTreeSet<Scope>,
}

pub(super) async fn fresh(store: &Arc<dyn StateStore>) -> SourceState {
    store.source(SourceId::new()).await.unwrap()
}

pub(super) fn scope() -> Scope {
    Scope { view: ViewId::new(), epoch: 1 }
}

pub(super) fn record() -> Ledger {
    let views =
        BTreeMap::from([(ViewId::new(), OffsetVector::zero()), (ViewId::new(), OffsetVector::zero())]);
    Ledger::begin(
        "conformance",
        "engine 1",
        LogId("log".into()),
        2,
        &views,
        OffsetVector::from([(0, 9), (3, 7)]),
        4,
    )
}

impl Owner {
    /// Claims an empty shard.
    pub(super) async fn claim(state: &SourceState, shard: ShardNo) -> Self {
        let (generation, token) = (Generation::new(), Token::after(0));
        let shards = state.shards.clone();
        assert!(shards.claim(shard, None, generation, token).await.unwrap());
        let history = BTreeMap::from([(0, Held::new())]);
        Self {
            shards,
            shard,
            generation,
            token,
            txid: 0,
            attempt: None,
            held: Held::new(),
            history,
            dropped: BTreeSet::new(),
        }
    }

    /// The commit of the next txid, which sets these states.
    pub(super) fn next(&self, states: &[(Scope, &str, &str)]) -> ShardCommit {
        let change = |(scope, key, after): &(Scope, &str, &str)| {
            let before = self.held.get(&(*scope, (*key).to_owned())).cloned();
            Change { scope: *scope, key: (*key).to_owned(), before, after: (*after).to_owned() }
        };
        ShardCommit {
            shard: self.shard,
            generation: self.generation,
            token: self.token,
            txid: self.txid + 1,
            attempt: Attempt::new(),
            changes: states.iter().map(change).collect(),
        }
    }

    /// Takes note of a commit that the shard holds.
    pub(super) fn note(&mut self, commit: &ShardCommit) {
        for change in &commit.changes {
            self.held.insert((change.scope, change.key.clone()), change.after.clone());
        }
        (self.txid, self.attempt) = (commit.txid, Some(commit.attempt));
        self.history.insert(self.txid, self.held.clone());
    }

    /// Takes note that a scope was dropped.
    pub(super) fn dropped(&mut self, gone: Scope) {
        self.dropped.insert(gone);
        for held in self.history.values_mut().chain([&mut self.held]) {
            held.retain(|(scope, _), _| *scope != gone);
        }
    }

    /// Commits the next txid.
    pub(super) async fn commit(&mut self, states: &[(Scope, &str, &str)]) {
        let commit = self.next(states);
        assert_eq!(self.shards.commit(&commit).await.unwrap(), Ok(Verdict::Apply));
        self.note(&commit);
    }

    /// All rows of some scopes as pages give them, in pages of `limit`.
    pub(super) async fn pages(&self, scopes: &[Scope], limit: usize) -> Vec<(Scope, String, String)> {
        let mut rows = Vec::new();
        for scope in scopes {
            let mut after: Option<String> = None;
            for turn in 0.. {
                assert!(turn < 100_000, "the pages of {scope:?} come to no end");
                let page = self.shards.page(self.shard, *scope, after.as_deref(), limit).await.unwrap();
                rows.extend(page.rows.into_iter().map(|(key, state)| (*scope, key, state)));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        rows
    }

    /// The tail above a txid, which must be usable.
    pub(super) async fn tail(&self, txid: TxId, scopes: &[Scope]) -> Tail {
        let tail = self.shards.tail(self.shard, txid, scopes).await.unwrap();
        let settled =
            |scopes: &[Scope]| settle(self.generation, self.token, txid, txid, tail.as_ref(), scopes);
        let (dropped, standing): (Vec<Scope>, Vec<Scope>) =
            scopes.iter().partition(|scope| self.dropped.contains(scope));
        settled(&standing).unwrap();
        for scope in dropped {
            assert_eq!(
                settled(&[scope]),
                Err(Stale::Dropped(scope.epoch)),
                "a dropped scope passes for an empty one"
            );
        }
        tail.unwrap()
    }

    /// Checks that pages and the tail taken after them give what the shard held at `txid`.
    pub(super) async fn settles(&self, pages: Vec<(Scope, String, String)>, txid: TxId, scopes: &[Scope]) {
        let read = as_of(pages, &self.tail(txid, scopes).await);
        let held = &self.history[&txid];
        for scope in scopes {
            let of_scope = held.iter().filter(|((of, _), _)| of == scope);
            let want: HashMap<_, _> =
                of_scope.map(|((_, key), state)| (key.clone(), state.clone())).collect();
            assert_eq!(read.get(scope).cloned().unwrap_or_default(), want, "scope {scope:?} at txid {txid}");
        }
    }

    /// Checks everything that the shard shows: record, counts, states one by one, and pages, now.
    pub(super) async fn check(&self, scopes: &[Scope]) {
        let (meta, found) = self.shards.meta(self.shard).await.unwrap().unwrap();
        assert_eq!((meta.generation, meta.token), (self.generation, self.token));
        assert_eq!((meta.txid, meta.attempt), (self.txid, self.attempt));
        let tail = self.tail(self.txid, scopes).await;
        assert_eq!(tail.meta, meta);
        for scope in scopes {
            let keys: Vec<_> =
                self.held.keys().filter(|(of, _)| of == scope).map(|(_, key)| key.clone()).collect();
            let count = keys.len() as u64;
            assert_eq!(meta.rows.get(scope).copied().unwrap_or(0), count, "rows of {scope:?}");
            assert_eq!(found.get(scope).copied().unwrap_or(0), count, "found of {scope:?}");
            assert_eq!(tail.found.get(scope), Some(&count), "tail.found of {scope:?}");
            let states = self.shards.get(self.shard, *scope, &keys).await.unwrap();
            let want: Vec<_> = keys.into_iter().map(|key| self.held.get(&(*scope, key)).cloned()).collect();
            assert_eq!(states, want);
        }
        assert!(
            meta.rows.keys().all(|scope| found.contains_key(scope)),
            "every scope of the record is counted"
        );
        // The smallest pages, so that every key is also the last of one.
        self.settles(self.pages(scopes, 1).await, self.txid, scopes).await;
    }
}
