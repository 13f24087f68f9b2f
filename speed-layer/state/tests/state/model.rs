//! A plain model of the contracts, kept apart from every store: it knows what each call must answer, and what a shard
//! held at every txid.

use std::collections::{BTreeMap, HashMap};

use stratus_seam::ids::{Attempt, Generation, ShardNo, Token, TxId};
use stratus_seam::ledger::{Ledger, Txn};
use stratus_seam::reading::{as_of, settle};
use stratus_seam::shard::{Refusal, Scope, ShardCommit, UNDO_DEPTH, Verdict};
use stratus_seam::store::{CutRequest, Pin};
use uuid::Uuid;

use crate::client::Client;

type Held = BTreeMap<(Scope, String), String>;

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) ledger: Option<Ledger>,
    pub(crate) txns: BTreeMap<TxId, Txn>,
    pub(crate) requests: BTreeMap<Uuid, CutRequest>,
    pub(crate) pins: BTreeMap<Uuid, Pin>,
    pub(crate) shards: BTreeMap<ShardNo, ModelShard>,
}

#[derive(Debug)]
pub(crate) struct ModelShard {
    pub(crate) generation: Generation,
    pub(crate) token: Token,
    pub(crate) txid: TxId,
    pub(crate) attempt: Option<Attempt>,
    pub(crate) history: BTreeMap<TxId, Held>,
    pub(crate) last: Option<ShardCommit>,
}

impl ModelShard {
    pub(crate) fn held(&self) -> &Held {
        &self.history[&self.txid]
    }
}

impl Model {
    pub(crate) fn owner(&self, shard: ShardNo) -> Option<(Generation, Token)> {
        self.shards.get(&shard).map(|shard| (shard.generation, shard.token))
    }

    pub(crate) fn claim(
        &mut self,
        shard: ShardNo,
        seen: Option<(Generation, Token)>,
        generation: Generation,
        token: Token,
    ) -> bool {
        let owner = self.owner(shard);
        if owner == Some((generation, token)) {
            return true;
        }
        if owner != seen {
            return false;
        }
        match self.shards.get_mut(&shard) {
            Some(same) if same.generation == generation => same.token = token,
            _ => {
                let history = BTreeMap::from([(0, Held::new())]);
                let empty = ModelShard { generation, token, txid: 0, attempt: None, history, last: None };
                self.shards.insert(shard, empty);
            }
        }
        true
    }

    pub(crate) fn commit(&mut self, commit: &ShardCommit) -> Result<Verdict, Refusal> {
        let offered = commit.generation;
        let Some(shard) = self.shards.get_mut(&commit.shard) else {
            return Err(Refusal::Generation { has: None, offered });
        };
        if shard.generation != offered {
            return Err(Refusal::Generation { has: Some(shard.generation), offered });
        }
        if shard.token != commit.token {
            return Err(Refusal::Token { has: shard.token, offered: commit.token });
        }
        if shard.txid == commit.txid {
            let same = shard.attempt == Some(commit.attempt);
            return if same { Ok(Verdict::Held) } else { Err(Refusal::Attempt(commit.txid)) };
        }
        if shard.txid + 1 != commit.txid {
            return Err(Refusal::Order { has: shard.txid, offered: commit.txid });
        }
        let mut held = shard.held().clone();
        for change in &commit.changes {
            held.insert((change.scope, change.key.clone()), change.after.clone());
        }
        shard.history.insert(commit.txid, held);
        (shard.txid, shard.attempt) = (commit.txid, Some(commit.attempt));
        shard.last = Some(commit.clone());
        Ok(Verdict::Apply)
    }

    pub(crate) fn drop_scopes(&mut self, shard: ShardNo, by: (Generation, Token), gone: &[Scope]) -> bool {
        if self.owner(shard) != Some(by) {
            return false;
        }
        for held in self.shards.get_mut(&shard).unwrap().history.values_mut() {
            held.retain(|(scope, _), _| !gone.contains(scope));
        }
        true
    }

    /// Checks everything that a store shows against the model.
    pub(crate) async fn check(&self, client: &Client, shards: ShardNo, scopes: &[Scope]) {
        let on = &client.state;
        assert_eq!(client.read(|| on.ledger.read()).await, self.ledger);
        let txns: Vec<_> = self.txns.values().cloned().collect();
        assert_eq!(client.read(|| on.ledger.txns(0)).await, txns);
        let mut requests = client.read(|| on.ledger.requests()).await;
        requests.sort_by_key(|request| request.id);
        assert_eq!(requests, self.requests.values().cloned().collect::<Vec<_>>());
        let mut pins = client.read(|| on.ledger.pins()).await;
        pins.sort_by_key(|pin| pin.id);
        assert_eq!(pins, self.pins.values().cloned().collect::<Vec<_>>());
        for shard in 0..shards {
            self.check_shard(client, shard, scopes).await;
        }
    }

    async fn check_shard(&self, client: &Client, no: ShardNo, scopes: &[Scope]) {
        let on = &client.state.shards;
        let meta = client.read(|| on.meta(no)).await;
        let Some(shard) = self.shards.get(&no) else {
            assert_eq!(meta, None);
            return;
        };
        let (meta, found) = meta.unwrap();
        assert_eq!((meta.generation, meta.token), (shard.generation, shard.token));
        assert_eq!((meta.txid, meta.attempt), (shard.txid, shard.attempt));
        let mut rows = Vec::new();
        for scope in scopes {
            let held: Vec<_> = shard.held().iter().filter(|((of, _), _)| of == scope).collect();
            let count = held.len() as u64;
            assert_eq!(meta.rows.get(scope).copied().unwrap_or(0), count);
            assert_eq!(found.get(scope).copied().unwrap_or(0), count);
            let keys: Vec<_> = held.iter().map(|((_, key), _)| key.clone()).collect();
            let states = client.read(|| on.get(no, *scope, &keys)).await;
            assert_eq!(states, held.iter().map(|(_, state)| Some((*state).clone())).collect::<Vec<_>>());
            let mut after: Option<String> = None;
            loop {
                let page = client.read(|| on.page(no, *scope, after.as_deref(), 3)).await;
                rows.extend(page.rows.into_iter().map(|(key, state)| (*scope, key, state)));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        for (txid, held) in shard.history.range(shard.txid.saturating_sub(UNDO_DEPTH)..) {
            let tail = client.read(|| on.tail(no, *txid, scopes)).await;
            let standing: Vec<Scope> =
                scopes.iter().filter(|scope| !meta.has_dropped(**scope)).copied().collect();
            settle(shard.generation, shard.token, *txid, *txid, tail.as_ref(), &standing).unwrap();
            let tail = tail.unwrap();
            assert_eq!(tail.meta, meta);
            let mut want: BTreeMap<Scope, HashMap<String, String>> = BTreeMap::new();
            for ((scope, key), state) in held {
                want.entry(*scope).or_default().insert(key.clone(), state.clone());
            }
            let mut read = as_of(rows.clone(), &tail);
            read.retain(|_, rows| !rows.is_empty());
            assert_eq!(read, want, "shard {no} as of {txid}");
        }
    }
}
