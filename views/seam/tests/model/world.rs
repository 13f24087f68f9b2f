//! The store, the log and the catalog, as plain values; every call is one step.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stratus_seam::catalog::{CatalogState, Version};
use stratus_seam::ids::{EpochNo, Generation, SourceId, Token, TxId, ViewId};
use stratus_seam::ledger::{Ledger, Txn};
use stratus_seam::log::LogId;
use stratus_seam::offsets::OffsetVector;
use stratus_seam::shard::{Refusal, Scope, ShardCommit, ShardMeta, Stand, UNDO_DEPTH, Verdict, judge};
use stratus_seam::store::{CutRequest, Pin as Lease, Tail, TxnChanges};

pub const SHARDS: u32 = 2;
pub const PARTITIONS: u32 = 2;
pub const ENGINE: &str = "model";

/// A rule that is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    Nothing,
    Undo,
    Floor,
    Numbers,
    Token,
    CompareAndSet,
    Revision,
    Attempt,
    Target,
    Stand,
    Start,
}

#[derive(Debug, Clone)]
pub struct Shard {
    pub meta: ShardMeta,
    pub states: BTreeMap<(Scope, String), String>,
    pub undo: BTreeMap<TxId, Vec<(Scope, String, Option<String>)>>,
}

/// What a store holds of one source.
#[derive(Debug, Clone, Default)]
pub struct Store {
    pub ledger: Option<Ledger>,
    pub txns: BTreeMap<TxId, Txn>,
    pub shards: BTreeMap<u32, Shard>,
    pub requests: Vec<CutRequest>,
    pub pins: Vec<Lease>,
}

/// Lost answers: the effect happened, did not, or has yet to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost;

type Late = Box<dyn FnOnce(&mut Store, Break)>;

pub struct World {
    pub random: StdRng,
    pub broken: Break,
    pub store: Store,
    pub late: Vec<Late>,
    pub faults: bool,
    /// The key of each event, by partition; the offset is the index.
    pub log: Vec<Vec<u8>>,
    /// Where the source begins: events below it are in the log, and are nobody's.
    pub start: OffsetVector,
    pub log_id: LogId,
    pub source: SourceId,
    pub views: Vec<ViewId>,
    pub catalog: CatalogState,
    /// The states of each version.
    pub published: BTreeMap<(ViewId, u32), BTreeMap<String, u64>>,
    /// The highest vector shown to anybody, by the generation that it was read in.
    pub shown: BTreeMap<Generation, OffsetVector>,
    pub now: u64,
    pub answers: u64,
    pub generations: u64,
    /// Versions that were retired.
    pub retired: u64,
    pub wrong: Option<String>,
    /// What happened, for the one who reads a failure.
    pub history: Vec<String>,
}

pub type Shared = Rc<RefCell<World>>;

impl World {
    pub fn new(seed: u64, broken: Break) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let log: Vec<Vec<u8>> = (0..PARTITIONS)
            .map(|_| (0..random.random_range(0..4)).map(|_| random.random_range(0..5)).collect())
            .collect();
        let first = |events: &Vec<u8>| random.random_range(0..=events.len() as u64);
        let start = (0..).zip(log.iter().map(first)).collect();
        Self {
            random,
            broken,
            store: Store::default(),
            late: Vec::new(),
            faults: true,
            log,
            start,
            log_id: LogId("log".into()),
            source: SourceId::new(),
            views: Vec::new(),
            catalog: CatalogState::default(),
            published: BTreeMap::new(),
            shown: BTreeMap::new(),
            now: 0,
            answers: 0,
            generations: 0,
            retired: 0,
            wrong: None,
            history: Vec::new(),
        }
    }

    pub fn note(&mut self, what: impl Into<String>) {
        self.history.push(format!("{}: {}", self.now, what.into()));
    }

    pub fn end(&self) -> OffsetVector {
        (0..).zip(&self.log).map(|(partition, events)| (partition, events.len() as u64)).collect()
    }

    /// Whether a view counts an event: one counts all, the other the even keys.
    pub fn counts(&self, view: ViewId, key: u8) -> bool {
        self.views.first() == Some(&view) || key.is_multiple_of(2)
    }

    /// The full recompute: the events of a view below a vector, by key.
    pub fn recount(&self, view: ViewId, below: &OffsetVector) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for (partition, events) in (0..).zip(&self.log) {
            let below = events.iter().take(below.get(partition) as usize);
            for key in below.skip(self.start.get(partition) as usize) {
                if self.counts(view, *key) {
                    *counts.entry(format!("[{key}]")).or_default() += 1;
                }
            }
        }
        counts
    }

    pub fn versions(&self, view: ViewId) -> Vec<Version> {
        self.catalog.versions_of(view).to_vec()
    }

    /// Decides what becomes of a writing call: done, or one of the three ways to lose its answer.
    fn fate(&mut self) -> Fate {
        if !self.faults {
            return Fate::Done;
        }
        match self.random.random_range(0..100) {
            0 => Fate::Before,
            1 => Fate::After,
            2 => Fate::Late,
            _ => Fate::Done,
        }
    }
}

enum Fate {
    Done,
    Before,
    After,
    Late,
}

/// A point at which anybody else may act.
pub async fn step() {
    struct Once(bool);
    impl Future for Once {
        type Output = ();
        fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            if std::mem::replace(&mut self.0, true) { Poll::Ready(()) } else { Poll::Pending }
        }
    }
    Once(false).await;
}

/// A read: one step.
pub async fn look<T>(world: &Shared, read: impl FnOnce(&World) -> T) -> T {
    step().await;
    read(&world.borrow())
}

/// A write: one step, whose answer may be lost.
pub async fn call<T: 'static>(
    world: &Shared,
    effect: impl FnOnce(&mut Store, Break) -> T + 'static,
) -> Result<T, Lost> {
    step().await;
    let world = &mut *world.borrow_mut();
    match world.fate() {
        Fate::Done => Ok(effect(&mut world.store, world.broken)),
        Fate::Before => Err(Lost),
        Fate::After => {
            effect(&mut world.store, world.broken);
            Err(Lost)
        }
        Fate::Late => {
            world.late.push(Box::new(move |store, broken| drop(effect(store, broken))));
            Err(Lost)
        }
    }
}

impl Store {
    /// The compare-and-set of the ledger.
    pub fn write(
        &mut self,
        expected: Option<(Token, u64)>,
        next: &Ledger,
        txns: &TxnChanges,
        broken: Break,
    ) -> bool {
        let stands = self.ledger.as_ref().map(|ledger| (ledger.token, ledger.revision));
        let equal = match (stands, expected, broken) {
            (Some((token, _)), Some((wanted, _)), Break::Revision) => token == wanted,
            (Some((_, revision)), Some((_, wanted)), Break::Token) => revision == wanted,
            _ => stands == expected,
        };
        if equal {
            self.ledger = Some(next.clone());
            if txns.forget_all {
                self.txns.clear();
            }
            self.txns.retain(|txid, _| *txid >= txns.forget_below);
            self.txns.extend(txns.append.iter().map(|txn| (txn.txid, txn.clone())));
        }
        equal
    }

    pub fn claim(
        &mut self,
        shard: u32,
        seen: Option<(Generation, Token)>,
        generation: Generation,
        token: Token,
    ) -> bool {
        let stands = self.shards.get(&shard).map(|s| (s.meta.generation, s.meta.token));
        if stands == Some((generation, token)) {
            return true;
        }
        if stands != seen {
            return false;
        }
        match self.shards.get_mut(&shard) {
            Some(held) if held.meta.generation == generation => held.meta.token = token,
            _ => {
                let meta = ShardMeta::empty(generation, token);
                self.shards.insert(shard, Shard { meta, states: BTreeMap::new(), undo: BTreeMap::new() });
            }
        }
        true
    }

    pub fn commit(&mut self, commit: &ShardCommit, broken: Break) -> Result<Verdict, Refusal> {
        let held = self.shards.get_mut(&commit.shard);
        let verdict = match (judge(held.as_ref().map(|held| &held.meta), commit), broken) {
            (Err(Refusal::Token { .. }), Break::Token) => Verdict::Apply,
            (Err(Refusal::Order { .. }) | Ok(Verdict::Held), Break::CompareAndSet) => Verdict::Apply,
            (Err(Refusal::Attempt(_)), Break::Attempt) => Verdict::Held,
            (verdict, _) => verdict?,
        };
        let Some(held) = held.filter(|_| verdict == Verdict::Apply) else { return Ok(verdict) };
        let mut undo = Vec::new();
        for change in &commit.changes {
            undo.push((change.scope, change.key.clone(), change.before.clone()));
            let before = held.states.insert((change.scope, change.key.clone()), change.after.clone());
            if before.is_none() {
                *held.meta.rows.entry(change.scope).or_default() += 1;
            }
        }
        held.undo.insert(commit.txid, undo);
        held.undo.retain(|txid, _| txid + UNDO_DEPTH > commit.txid);
        held.meta.txid = commit.txid;
        held.meta.attempt = Some(commit.attempt);
        Ok(verdict)
    }

    pub fn drop_scopes(&mut self, shard: u32, generation: Generation, token: Token, gone: &[Scope]) -> bool {
        let held = self.shards.get_mut(&shard);
        let Some(held) = held.filter(|held| (held.meta.generation, held.meta.token) == (generation, token))
        else {
            return false;
        };
        held.meta.drop_scopes(gone);
        held.states.retain(|(scope, _), _| !gone.contains(scope));
        for undo in held.undo.values_mut() {
            undo.retain(|(scope, ..)| !gone.contains(scope));
        }
        true
    }

    /// Where the shard stands, how many keys it lacks, and the rows.
    pub fn page(&self, shard: u32, scopes: &[Scope]) -> (Option<Stand>, u64, Vec<(Scope, String, String)>) {
        let missing = |held: &Shard| {
            let rows = |scope: &Scope| held.meta.rows.get(scope).copied().unwrap_or(0);
            let found = |scope: &Scope| held.states.keys().filter(|(of, _)| of == scope).count() as u64;
            scopes.iter().map(|scope| rows(scope).abs_diff(found(scope))).sum()
        };
        let missing = self.shards.get(&shard).map_or(0, missing);
        let stand = self.shards.get(&shard).map(|held| held.meta.stand());
        let states = self.shards.get(&shard).into_iter().flat_map(|held| &held.states);
        let asked = states.filter(|((scope, _), _)| scopes.contains(scope));
        (stand, missing, asked.map(|((scope, key), state)| (*scope, key.clone(), state.clone())).collect())
    }

    pub fn tail(&self, shard: u32, txid: TxId, scopes: &[Scope]) -> Option<Tail> {
        let held = self.shards.get(&shard)?;
        let count = |scope: &Scope| held.states.keys().filter(|(of, _)| of == scope).count() as u64;
        let of_scopes = |undo: &Vec<(Scope, String, Option<String>)>| {
            undo.iter().filter(|(scope, ..)| scopes.contains(scope)).cloned().collect()
        };
        Some(Tail {
            meta: held.meta.clone(),
            found: scopes.iter().map(|scope| (*scope, count(scope))).collect(),
            undo: held.undo.range(txid + 1..).map(|(txid, undo)| (*txid, of_scopes(undo))).collect(),
        })
    }
}

/// The epoch that a version would be paired with if numbers decided.
pub fn by_number(ledger: &Ledger, view: ViewId, number: u32) -> Option<EpochNo> {
    let epochs = &ledger.views.get(&view)?.epochs;
    epochs.iter().map(|epoch| epoch.number).find(|epoch| *epoch == number)
}
