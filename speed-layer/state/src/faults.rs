//! Any store behind an unreliable network: answers that are lost, and effects that come late.
//!
//! A plan decides before each call what goes wrong with it. As it runs before the call, a plan that holds a
//! [`MemoryStore`] can also make that store lose things at exactly this point: see [`with_losses`].

use std::fmt;
use std::future::Future;
use std::pin::Pin as Pinned;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use stratus_seam::ids::{Generation, ShardNo, SourceId, Token, TxId};
use stratus_seam::ledger::{Ledger, Txn};
use stratus_seam::shard::{Refusal, Scope, ShardCommit, ShardMeta, Verdict};
use stratus_seam::store::{
    CutRequest, Durability, LedgerStore, LedgerWrite, Page, Pin, ShardStore, SourceState, StateStore,
    StoreError, Tail, TxnChanges,
};
use uuid::Uuid;

use crate::memory::{MemoryStore, Snapshot};

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// An error, and no effect.
    Before,
    /// The effect, and then an error instead of the answer.
    After,
    /// An error, and the effect just before the call that is this many calls later, of whichever kind. 0 counts as
    /// 1. A call that only reads has no effect to come late.
    Late(u32),
}

/// The calls of the traits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "named as the methods they stand for")]
pub enum Op {
    Forget,
    Read,
    Write,
    Txns,
    Request,
    Requests,
    Withdraw,
    Pin,
    Pins,
    Unpin,
    Meta,
    Claim,
    Get,
    Commit,
    Page,
    Find,
    Tail,
    DropScopes,
}

impl Op {
    /// Whether the call changes nothing.
    pub fn reads(self) -> bool {
        use Op::{Find, Get, Meta, Page, Pins, Read, Requests, Tail, Txns};
        matches!(self, Read | Txns | Requests | Pins | Meta | Get | Page | Find | Tail)
    }
}

/// A call that is about to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The number of the call on this store, from 1.
    pub number: u64,
    /// Which call.
    pub op: Op,
    /// On which source.
    pub source: SourceId,
    /// On which shard; none for calls on the ledger.
    pub shard: Option<ShardNo>,
}

/// Decides what goes wrong with each call, in the order in which they are made.
pub type Plan = Box<dyn FnMut(&Call) -> Fault + Send>;

type Effect = Pinned<Box<dyn Future<Output = ()> + Send>>;

/// A store whose calls go wrong as planned. Asking for a source never does. Clones share plan and late effects.
#[derive(Clone)]
pub struct FaultyStore {
    inner: Arc<dyn StateStore>,
    line: Arc<Mutex<Line>>,
}

struct Line {
    plan: Plan,
    calls: u64,
    /// Effects that are still to come, with the number of the call before which they do.
    late: Vec<(u64, Effect)>,
}

impl FaultyStore {
    /// Puts `inner` behind a plan.
    pub fn new(inner: Arc<dyn StateStore>, plan: Plan) -> Self {
        Self { inner, line: Arc::new(Mutex::new(Line { plan, calls: 0, late: Vec::new() })) }
    }

    /// From now on nothing more goes wrong. Late effects are still late.
    pub fn calm(&self) {
        self.with_line(|line| line.plan = Box::new(|_| Fault::None));
    }

    /// Lets all effects that are still to come happen now, in the order in which they are due.
    pub async fn settle(&self) {
        self.happen(u64::MAX).await;
    }

    fn with_line<T>(&self, look: impl FnOnce(&mut Line) -> T) -> T {
        look(&mut self.line.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn happen(&self, until: u64) {
        let due = self.with_line(|line| {
            line.late.sort_by_key(|(due, _)| *due);
            let later = line.late.partition_point(|(due, _)| *due <= until);
            line.late.drain(..later).collect::<Vec<_>>()
        });
        for (_, effect) in due {
            effect.await;
        }
    }

    /// Makes a call as the plan has it. `call` owns all it needs, since it may have to wait.
    async fn make<T: Send + 'static>(
        &self,
        op: Op,
        source: SourceId,
        shard: Option<ShardNo>,
        call: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (number, fault) = self.with_line(|line| {
            line.calls += 1;
            let call = Call { number: line.calls, op, source, shard };
            (line.calls, (line.plan)(&call))
        });
        self.happen(number).await;
        match fault {
            Fault::None => return call.await,
            Fault::Before => {}
            Fault::After => drop(call.await),
            Fault::Late(_) if op.reads() => {}
            Fault::Late(calls) => {
                let effect = Box::pin(async move { drop(call.await) });
                self.with_line(|line| line.late.push((number + u64::from(calls.max(1)), effect)));
            }
        }
        let what = format!("call {number}, {op:?} of source {source}");
        Err(StoreError::Unavailable { what, source: format!("fault as planned: {fault:?}").into() })
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (calls, late) = self.with_line(|line| (line.calls, line.late.len()));
        f.debug_struct("FaultyStore")
            .field("inner", &self.inner)
            .field("calls", &calls)
            .field("late", &late)
            .finish()
    }
}

#[async_trait]
impl StateStore for FaultyStore {
    async fn source(&self, source: SourceId) -> Result<SourceState, StoreError> {
        let inner = self.inner.source(source).await?;
        let handle = Arc::new(FaultySource { store: self.clone(), source, inner });
        Ok(SourceState { ledger: handle.clone(), shards: handle })
    }

    async fn forget(&self, source: SourceId) -> Result<(), StoreError> {
        let inner = self.inner.clone();
        self.make(Op::Forget, source, None, async move { inner.forget(source).await }).await
    }
}

#[derive(Debug)]
struct FaultySource {
    store: FaultyStore,
    source: SourceId,
    inner: SourceState,
}

impl FaultySource {
    async fn on_ledger<T, F>(
        &self,
        op: Op,
        call: impl FnOnce(Arc<dyn LedgerStore>) -> F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let call = call(self.inner.ledger.clone());
        self.store.make(op, self.source, None, call).await
    }

    async fn on_shard<T, F>(
        &self,
        op: Op,
        shard: ShardNo,
        call: impl FnOnce(Arc<dyn ShardStore>) -> F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let call = call(self.inner.shards.clone());
        self.store.make(op, self.source, Some(shard), call).await
    }
}

#[async_trait]
impl LedgerStore for FaultySource {
    async fn read(&self) -> Result<Option<Ledger>, StoreError> {
        self.on_ledger(Op::Read, |on| async move { on.read().await }).await
    }

    async fn write(
        &self,
        expected: Option<(Token, u64)>,
        next: &Ledger,
        txns: TxnChanges,
        durability: Durability,
    ) -> Result<LedgerWrite, StoreError> {
        let next = next.clone();
        let call =
            |on: Arc<dyn LedgerStore>| async move { on.write(expected, &next, txns, durability).await };
        self.on_ledger(Op::Write, call).await
    }

    async fn txns(&self, first: TxId) -> Result<Vec<Txn>, StoreError> {
        self.on_ledger(Op::Txns, |on| async move { on.txns(first).await }).await
    }

    async fn request(&self, request: CutRequest) -> Result<(), StoreError> {
        self.on_ledger(Op::Request, |on| async move { on.request(request).await }).await
    }

    async fn requests(&self) -> Result<Vec<CutRequest>, StoreError> {
        self.on_ledger(Op::Requests, |on| async move { on.requests().await }).await
    }

    async fn withdraw(&self, id: Uuid) -> Result<(), StoreError> {
        self.on_ledger(Op::Withdraw, |on| async move { on.withdraw(id).await }).await
    }

    async fn pin(&self, pin: Pin) -> Result<(), StoreError> {
        self.on_ledger(Op::Pin, |on| async move { on.pin(pin).await }).await
    }

    async fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        self.on_ledger(Op::Pins, |on| async move { on.pins().await }).await
    }

    async fn unpin(&self, id: Uuid) -> Result<(), StoreError> {
        self.on_ledger(Op::Unpin, |on| async move { on.unpin(id).await }).await
    }
}

#[async_trait]
impl ShardStore for FaultySource {
    async fn meta(
        &self,
        shard: ShardNo,
    ) -> Result<Option<(ShardMeta, std::collections::BTreeMap<Scope, u64>)>, StoreError> {
        self.on_shard(Op::Meta, shard, |on| async move { on.meta(shard).await }).await
    }

    async fn claim(
        &self,
        shard: ShardNo,
        seen: Option<(Generation, Token)>,
        generation: Generation,
        token: Token,
    ) -> Result<bool, StoreError> {
        let call = |on: Arc<dyn ShardStore>| async move { on.claim(shard, seen, generation, token).await };
        self.on_shard(Op::Claim, shard, call).await
    }

    async fn get(
        &self,
        shard: ShardNo,
        scope: Scope,
        keys: &[String],
    ) -> Result<Vec<Option<String>>, StoreError> {
        let keys = keys.to_vec();
        self.on_shard(Op::Get, shard, |on| async move { on.get(shard, scope, &keys).await }).await
    }

    async fn commit(&self, commit: &ShardCommit) -> Result<Result<Verdict, Refusal>, StoreError> {
        let commit = commit.clone();
        self.on_shard(Op::Commit, commit.shard, |on| async move { on.commit(&commit).await }).await
    }

    async fn page(
        &self,
        shard: ShardNo,
        scope: Scope,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let after = after.map(str::to_owned);
        let call =
            |on: Arc<dyn ShardStore>| async move { on.page(shard, scope, after.as_deref(), limit).await };
        self.on_shard(Op::Page, shard, call).await
    }

    async fn find(&self, shard: ShardNo, scope: Scope, keys: &[String]) -> Result<Page, StoreError> {
        let keys = keys.to_vec();
        self.on_shard(Op::Find, shard, |on| async move { on.find(shard, scope, &keys).await }).await
    }

    async fn tail(&self, shard: ShardNo, txid: TxId, scopes: &[Scope]) -> Result<Option<Tail>, StoreError> {
        let scopes = scopes.to_vec();
        self.on_shard(Op::Tail, shard, |on| async move { on.tail(shard, txid, &scopes).await }).await
    }

    async fn drop_scopes(
        &self,
        shard: ShardNo,
        generation: Generation,
        token: Token,
        gone: &[Scope],
    ) -> Result<bool, StoreError> {
        let gone = gone.to_vec();
        let call =
            |on: Arc<dyn ShardStore>| async move { on.drop_scopes(shard, generation, token, &gone).await };
        self.on_shard(Op::DropScopes, shard, call).await
    }
}

/// How often things go wrong, in calls of a thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// [`Fault::Before`].
    pub before: u32,
    /// [`Fault::After`].
    pub after: u32,
    /// [`Fault::Late`], by one to eight calls.
    pub late: u32,
}

/// A plan of faults at random. The same seed gives the same faults for the same number of calls.
pub fn at_random(seed: u64, rates: Rates) -> Plan {
    let mut dice = Dice(seed);
    Box::new(move |_| {
        let (throw, late) = (dice.below(1000), dice.below(8) + 1);
        if throw < rates.before {
            Fault::Before
        } else if throw < rates.before + rates.after {
            Fault::After
        } else if throw < rates.before + rates.after + rates.late {
            Fault::Late(late)
        } else {
            Fault::None
        }
    })
}

/// How often a store loses something, in calls of a thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LossRates {
    /// How often a snapshot is taken, to which it may go back.
    pub snapshot: u32,
    /// The whole store goes back to the last snapshot.
    pub whole: u32,
    /// The shard that is called goes back alone. Needs a call on a shard.
    pub shard: u32,
}

/// A plan under which `memory` also loses its tail at random, just before a call; what else goes wrong is up to
/// `faults`. Lost keys are left to the caller, who knows which there are: [`MemoryStore::evict`].
pub fn with_losses(memory: MemoryStore, seed: u64, rates: LossRates, mut faults: Plan) -> Plan {
    let mut dice = Dice(seed);
    let mut last: Snapshot = memory.snapshot();
    Box::new(move |call| {
        let throw = dice.below(1000);
        if throw < rates.snapshot {
            last = memory.snapshot();
        } else if throw < rates.snapshot + rates.whole {
            memory.restore(&last);
        } else if throw < rates.snapshot + rates.whole + rates.shard
            && let Some(shard) = call.shard
        {
            memory.restore_shard(call.source, shard, &last);
        }
        faults(call)
    })
}

/// A small generator of numbers (SplitMix64): the plans need repeatable throws and nothing else.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % u64::from(end)) as u32
    }
}
