//! Random operations, right and wrong ones, against the model: on memory, redb and Redis, through restarts of redb
//! and new connections to Redis, and
//! behind a network that loses answers and delivers late.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use stratus_seam::ids::{Attempt, Generation, ShardNo, SourceId, Token, ViewId};
use stratus_seam::ledger::Ledger;
use stratus_seam::log::LogId;
use stratus_seam::offsets::{OffsetRange, OffsetVector};
use stratus_seam::shard::{Change, Scope, ShardCommit, Verdict};
use stratus_seam::store::{CutRequest, Durability, LedgerWrite, Pin, StateStore, TxnChanges};
use stratus_servers::redis::Redis;
use stratus_state::faults::{self, Fault, FaultyStore, Op, Plan, Rates};
use stratus_state::memory::MemoryStore;
use stratus_state::redb::RedbStore;
use stratus_state::redis::RedisStore;
use uuid::Uuid;

use crate::client::Client;
use crate::model::Model;

const SHARDS: ShardNo = 2;
const KEYS: [&str; 6] = ["[1]", "[\"a\"]", "[\"a\",1]", "", "\0", "[\"ключ\"]"];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Misfit {
    Fits,
    Again,
    OtherAttempt,
    Zombie,
    Gap,
    Behind,
    Stranger,
}

#[derive(Debug, Clone)]
enum Step {
    Claim { shard: ShardNo, seen_right: bool, new_generation: bool },
    Commit { shard: ShardNo, misfit: Misfit, keys: Vec<(usize, usize)> },
    Drop { shard: ShardNo, view: usize, by_owner: bool },
    Begin,
    Append { fits: bool, forget: u64, now: bool },
    Request,
    Withdraw,
    Pin { renew: bool },
    Unpin,
    Forget,
    Reopen,
}

fn misfit() -> impl Strategy<Value = Misfit> {
    use Misfit::{Again, Behind, Fits, Gap, OtherAttempt, Stranger, Zombie};
    prop_oneof![
        12 => Just(Fits),
        1 => Just(Again), 1 => Just(OtherAttempt), 1 => Just(Zombie), 1 => Just(Gap), 1 => Just(Behind),
        1 => Just(Stranger),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let keys = proptest::collection::vec((0..2usize, 0..KEYS.len()), 0..6);
    prop_oneof![
        4 => (0..SHARDS, proptest::bool::weighted(0.8), proptest::bool::weighted(0.2))
            .prop_map(|(shard, seen_right, new_generation)| Step::Claim { shard, seen_right, new_generation }),
        24 => (0..SHARDS, misfit(), keys)
            .prop_map(|(shard, misfit, keys)| Step::Commit { shard, misfit, keys }),
        3 => (0..SHARDS, 0..2usize, proptest::bool::weighted(0.8))
            .prop_map(|(shard, view, by_owner)| Step::Drop { shard, view, by_owner }),
        1 => Just(Step::Begin),
        6 => (proptest::bool::weighted(0.8), 0..6u64, any::<bool>())
            .prop_map(|(fits, forget, now)| Step::Append { fits, forget, now }),
        1 => Just(Step::Request),
        1 => Just(Step::Withdraw),
        2 => any::<bool>().prop_map(|renew| Step::Pin { renew }),
        1 => Just(Step::Unpin),
        1 => Just(Step::Forget),
        2 => Just(Step::Reopen),
    ]
}

/// A store that can be closed and opened again.
enum Place {
    Memory(MemoryStore),
    Redb { folder: tempfile::TempDir, open: Option<RedbStore> },
    Redis { url: String, open: Option<RedisStore> },
}

impl Place {
    fn redb() -> Self {
        Self::Redb { folder: tempfile::tempdir().unwrap(), open: None }
    }

    async fn store(&mut self) -> Arc<dyn StateStore> {
        match self {
            Self::Memory(store) => Arc::new(store.clone()),
            Self::Redb { folder, open } => {
                let path = folder.path().join("state.redb");
                Arc::new(open.get_or_insert_with(|| RedbStore::open(path).unwrap()).clone())
            }
            Self::Redis { url, open } => {
                if open.is_none() {
                    *open = Some(RedisStore::open(url).await.unwrap());
                }
                Arc::new(open.clone().unwrap())
            }
        }
    }

    fn close(&mut self) {
        match self {
            Self::Memory(_) => {}
            Self::Redb { open, .. } => *open = None,
            Self::Redis { open, .. } => *open = None,
        }
    }
}

struct Trial {
    place: Place,
    faults: Option<(u64, Rates)>,
    store: FaultyStore,
    source: SourceId,
    client: Client,
    model: Model,
    views: [ViewId; 2],
    /// The epoch that each shard is in, by view. A dropped one never comes back.
    epochs: BTreeMap<(ShardNo, usize), u32>,
}

/// Effects that come late harm no call that names what it replaces. Requests and pins do not: a late one may undo a
/// newer one, which costs time only, so that their contents cannot be foretold.
fn plan(faults: Option<(u64, Rates)>) -> Plan {
    let Some((seed, rates)) = faults else { return Box::new(|_| Fault::None) };
    let mut plan = faults::at_random(seed, rates);
    Box::new(move |call| match plan(call) {
        Fault::Late(_) if matches!(call.op, Op::Request | Op::Withdraw | Op::Pin | Op::Unpin) => Fault::After,
        fault => fault,
    })
}

impl Trial {
    async fn new(mut place: Place, faults: Option<(u64, Rates)>) -> Self {
        let store = FaultyStore::new(place.store().await, plan(faults));
        let source = SourceId::new();
        let client = Client { state: store.source(source).await.unwrap() };
        let (views, epochs) = ([ViewId::new(), ViewId::new()], BTreeMap::new());
        Self { place, faults, store, source, client, model: Model::default(), views, epochs }
    }

    async fn reopen(self) -> Self {
        let Self { mut place, faults, store, source, client, model, views, epochs } = self;
        store.settle().await;
        drop((store, client));
        place.close();
        let store = FaultyStore::new(place.store().await, plan(faults));
        let client = Client { state: store.source(source).await.unwrap() };
        Self { place, faults, store, source, client, model, views, epochs }
    }

    fn scope(&self, shard: ShardNo, view: usize) -> Scope {
        Scope { view: self.views[view], epoch: self.epochs.get(&(shard, view)).copied().unwrap_or(1) }
    }

    /// Every scope that any shard ever had.
    fn scopes(&self) -> Vec<Scope> {
        let last = self.epochs.values().copied().max().unwrap_or(1);
        let of = |view: &ViewId| (1..=last).map(|epoch| Scope { view: *view, epoch }).collect::<Vec<_>>();
        self.views.iter().flat_map(of).collect()
    }

    fn next_commit(&self, shard: ShardNo, misfit: Misfit, keys: &[(usize, usize)]) -> ShardCommit {
        let held = self.model.shards.get(&shard);
        if let (Misfit::Again, Some(last)) = (misfit, held.and_then(|held| held.last.clone())) {
            return last;
        }
        let (generation, token) = self.model.owner(shard).unwrap_or((Generation::new(), Token::after(0)));
        let txid = held.map_or(0, |held| held.txid);
        let attempt = Attempt::new();
        let mut changes: BTreeMap<(Scope, String), Change> = BTreeMap::new();
        for (view, key) in keys {
            let (scope, key) = (self.scope(shard, *view), KEYS[*key].to_owned());
            let before = held.and_then(|held| held.held().get(&(scope, key.clone())).cloned());
            let after = format!("{key}@{}", txid + 1);
            changes.insert((scope, key.clone()), Change { scope, key, before, after });
        }
        // In an order that is not the store's.
        let changes = changes.into_values().rev().collect();
        let fits = ShardCommit { shard, generation, token, txid: txid + 1, attempt, changes };
        match misfit {
            Misfit::Fits | Misfit::Again => fits,
            Misfit::OtherAttempt => ShardCommit { txid, ..fits },
            Misfit::Zombie => ShardCommit { token: Token::after(token.counter), ..fits },
            Misfit::Gap => ShardCommit { txid: txid + 2, ..fits },
            Misfit::Behind => ShardCommit { txid: txid.saturating_sub(1), ..fits },
            Misfit::Stranger => ShardCommit { generation: Generation::new(), ..fits },
        }
    }

    async fn take(mut self, step: &Step) -> Self {
        let ledger = &self.client.state.ledger;
        match step {
            Step::Claim { shard, seen_right, new_generation } => {
                let owner = self.model.owner(*shard);
                let other = Some((Generation::new(), Token::after(3)));
                let seen = if *seen_right { owner } else { other };
                let same = owner.map(|(generation, _)| generation).filter(|_| !new_generation);
                let (generation, token) = (same.unwrap_or_default(), Token::after(0));
                let done = self.client.claim(*shard, seen, generation, token).await;
                assert_eq!(done, self.model.claim(*shard, seen, generation, token));
            }
            Step::Commit { shard, misfit, keys } => {
                let commit = self.next_commit(*shard, *misfit, keys);
                let (verdict, lost) = self.client.commit(&commit).await;
                let want = self.model.commit(&commit);
                let same =
                    verdict == want || (lost && verdict == Ok(Verdict::Held) && want == Ok(Verdict::Apply));
                assert!(same, "{verdict:?}, not {want:?}");
            }
            Step::Drop { shard, view, by_owner } => {
                let owner = self.model.owner(*shard).unwrap_or((Generation::new(), Token::after(0)));
                let by = if *by_owner { owner } else { (owner.0, Token::after(8)) };
                let gone = [self.scope(*shard, *view)];
                let done = self.client.drop_scopes(*shard, by, &gone).await;
                assert_eq!(done, self.model.drop_scopes(*shard, by, &gone));
                if done {
                    *self.epochs.entry((*shard, *view)).or_insert(1) += 1;
                }
            }
            Step::Begin => {
                let views = self.views.map(|view| (view, OffsetVector::zero())).into();
                let log = LogId("log".into());
                let next = Ledger::begin("test", "engine", log, SHARDS, &views, OffsetVector::zero(), 0);
                let changes = TxnChanges { forget_all: true, ..TxnChanges::default() };
                self.write(true, &next, changes, Durability::Now).await;
            }
            Step::Append { fits, forget, now } => {
                let Some(held) = &self.model.ledger else { return self };
                let from = held.appended_to.get(0);
                let range = OffsetRange { from, to: from + 3, records: 2 };
                let (next, txn) = held.append(BTreeMap::from([(0, range)])).unwrap();
                let changes = TxnChanges { append: Some(txn), forget_below: *forget, forget_all: false };
                let durability = if *now { Durability::Now } else { Durability::Later };
                self.write(*fits, &next, changes, durability).await;
            }
            Step::Request => {
                let request = CutRequest { id: Uuid::new_v4(), views: self.views.to_vec() };
                self.client.read(|| ledger.request(request.clone())).await;
                self.model.requests.insert(request.id, request);
            }
            Step::Withdraw => {
                let id = self.model.requests.pop_first().map_or_else(Uuid::new_v4, |(id, _)| id);
                self.client.read(|| ledger.withdraw(id)).await;
            }
            Step::Pin { renew } => {
                let old = self.model.pins.last_key_value().filter(|_| *renew).map(|(id, _)| *id);
                let id = old.unwrap_or_else(Uuid::new_v4);
                let until_ms = self.model.pins.len() as u64 + 7;
                let pin = Pin { id, view: self.views[0], epoch: 2, until_ms };
                self.client.read(|| ledger.pin(pin.clone())).await;
                self.model.pins.insert(id, pin);
            }
            Step::Unpin => {
                let id = self.model.pins.pop_first().map_or_else(Uuid::new_v4, |(id, _)| id);
                self.client.read(|| ledger.unpin(id)).await;
            }
            Step::Forget => {
                self.client.read(|| self.store.forget(self.source)).await;
                self.model = Model::default();
                self.check().await;
                // A source that was dropped and made again has another id.
                self.source = SourceId::new();
                self.client = Client { state: self.store.source(self.source).await.unwrap() };
            }
            Step::Reopen => self = self.reopen().await,
        }
        self.check().await;
        self
    }

    async fn write(&mut self, fits: bool, next: &Ledger, changes: TxnChanges, durability: Durability) {
        let right = self.model.ledger.as_ref().map(|held| (held.token, held.revision));
        let wrong = right.map_or(Some((Token::after(0), 1)), |(token, revision)| Some((token, revision + 7)));
        let expected = if fits { right } else { wrong };
        let written = self.client.write(expected, next, &changes, durability).await;
        if !fits {
            assert_eq!(written, LedgerWrite::Refused(self.model.ledger.clone().map(Box::new)));
            return;
        }
        assert_eq!(written, LedgerWrite::Written);
        self.model.ledger = Some(next.clone());
        if changes.forget_all {
            self.model.txns.clear();
        }
        self.model.txns.retain(|txid, _| *txid >= changes.forget_below);
        self.model.txns.extend(changes.append.map(|txn| (txn.txid, txn)));
    }

    async fn check(&self) {
        self.model.check(&self.client, SHARDS, &self.scopes()).await;
    }
}

fn run(place: Place, faults: Option<(u64, Rates)>, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut trial = Trial::new(place, faults).await;
        // Begin with something to work on.
        for shard in 0..SHARDS {
            trial = trial.take(&Step::Claim { shard, seen_right: true, new_generation: true }).await;
        }
        trial = trial.take(&Step::Begin).await;
        for step in steps {
            trial = trial.take(step).await;
        }
        trial.store.settle().await;
        trial.store.calm();
        trial.check().await;
    });
}

fn rates() -> impl Strategy<Value = (u64, Rates)> {
    let rate = 0..150u32;
    (any::<u64>(), rate.clone(), rate.clone(), rate)
        .prop_map(|(seed, before, after, late)| (seed, Rates { before, after, late }))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn memory_does_as_the_model(steps in proptest::collection::vec(step(), 1..80)) {
        run(Place::Memory(MemoryStore::new()), None, &steps);
    }

    #[test]
    fn memory_does_so_behind_faults(steps in proptest::collection::vec(step(), 1..80), faults in rates()) {
        run(Place::Memory(MemoryStore::new()), Some(faults), &steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn redb_does_as_the_model(steps in proptest::collection::vec(step(), 1..60)) {
        run(Place::redb(), None, &steps);
    }

    #[test]
    fn redb_does_so_behind_faults(steps in proptest::collection::vec(step(), 1..60), faults in rates()) {
        run(Place::redb(), Some(faults), &steps);
    }
}

#[test]
fn redis_does_as_the_model_with_faults_and_without() {
    let Some(server) = Redis::shared().unwrap() else { return };
    let place = || Place::Redis { url: server.url().to_owned(), open: None };
    let config = ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() };
    let steps = proptest::collection::vec(step(), 1..60);
    proptest!(config, |(steps in steps, faults in proptest::option::of(rates()))| {
        run(place(), faults, &steps);
    });
}
