//! What the tasks of a source's topology share: the batches under way, and what went wrong.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stratus_seam::ids::{EpochNo, Token, TxId, ViewId};
use stratus_seam::ledger::{Ledger, Txn};
use stratus_seam::log::{Chunk, LogError, LogId};
use stratus_seam::offsets::OffsetVector;
use stratus_seam::recovery::Unreadable;
use stratus_seam::shard::Scope;
use stratus_seam::store::StoreError;
use stratus_trident::TransactionAttempt;
use tokio::sync::{Notify, watch};

use crate::error::SpeedError;
use crate::layer::SpeedLayer;
use crate::live::{LiveView, LiveViews};
use crate::startup::Hold;

/// One entry of the ledger under way, with all that its tasks need to know. It belongs to the hold that it was begun
/// or taken up under: if that is lost, whatever still works on it is refused.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Its number in this process.
    pub(crate) number: u64,
    pub(crate) hold: Arc<Hold>,
    pub(crate) txn: Txn,
    pub(crate) log: LogId,
    pub(crate) views: Arc<LiveViews>,
    /// The epochs that it feeds and that are still somebody's concern.
    pub(crate) feeds: Vec<Feed>,
    /// Its records, if they were read when it was begun.
    pub(crate) chunks: Option<Vec<Chunk>>,
    /// What the tasks counted in each attempt.
    tallies: Mutex<HashMap<u64, Tally>>,
    /// The attempt that a shard was last brought up to it by.
    committed_by: AtomicU64,
}

/// An epoch of a view that a batch feeds.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) scope: Scope,
    pub(crate) view: Arc<LiveView>,
    /// Rows below this are not counted in it: the view's version holds them already.
    pub(crate) from: OffsetVector,
}

/// What is counted beside the states.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    /// The rows that each view left out.
    pub(crate) failed: BTreeMap<ViewId, u64>,
    pub(crate) bad_records: u64,
}

impl Batch {
    pub(crate) fn new(
        hold: Arc<Hold>,
        record: &Ledger,
        txn: Txn,
        views: Arc<LiveViews>,
        chunks: Option<Vec<Chunk>>,
    ) -> Self {
        // A view that was dropped, or an epoch below its floor, is no longer anybody's concern.
        let feed = |(id, number): &(ViewId, EpochNo)| {
            let header = record.views.get(id)?.epochs.iter().find(|epoch| epoch.number == *number)?;
            let view = Arc::clone(views.views.get(id)?);
            let scope = Scope { view: *id, epoch: *number };
            Some(Feed { scope, view, from: header.from.clone() })
        };
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            feeds: txn.feeds.iter().filter_map(feed).collect(),
            log: record.log.clone(),
            hold,
            txn,
            views,
            chunks,
            tallies: Mutex::default(),
            committed_by: AtomicU64::new(0),
        }
    }

    /// Adds to what an attempt counted.
    pub(crate) fn count(&self, attempt: TransactionAttempt, add: impl FnOnce(&mut Tally)) {
        add(lock(&self.tallies).entry(attempt.attempt).or_default());
    }

    /// Shards are brought up to it by this attempt.
    pub(crate) fn committed_by(&self, attempt: TransactionAttempt) {
        self.committed_by.store(attempt.attempt, Ordering::SeqCst);
    }

    /// What the attempt counted that is committed.
    pub(crate) fn tally(&self) -> Tally {
        lock(&self.tallies).get(&self.committed_by.load(Ordering::SeqCst)).cloned().unwrap_or_default()
    }
}

/// Batches by what they are asked for.
#[derive(Debug, Default)]
struct Batches {
    /// Of the present hold.
    open: BTreeMap<TxId, Arc<Batch>>,
    /// Attempts are unique in a process, over all holds.
    attempts: HashMap<u64, Arc<Batch>>,
}

/// What a coordinator remembers beyond its own life.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// The token of each hold on the ledger.
    pub(crate) own: Vec<Token>,
    /// The entry whose records turned out to be others than were written down, if one did.
    pub(crate) unreadable: Option<Unreadable>,
    /// Once another process has taken the ledger, this one waits for its silence before every attempt, until one has
    /// succeeded.
    pub(crate) stands_by: bool,
    /// Whether there was a hold before.
    pub(crate) began: bool,
}

/// One source's work.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) layer: SpeedLayer,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) past: tokio::sync::Mutex<Past>,
    batches: Mutex<Batches>,
    /// Why the present hold must be let go, if it must.
    failure: Mutex<Option<SpeedError>>,
    verdict: Mutex<Option<Result<(), SpeedError>>>,
    ended: Notify,
}

/// Tokens of its own holds that a process remembers. A store may go back to an old one, but seldom so far.
const OWN_TOKENS: usize = 10_000;

impl Past {
    /// A hold with this token begins.
    pub(crate) fn hold(&mut self, token: Token) {
        if self.own.len() == OWN_TOKENS {
            self.own.remove(0);
        }
        self.own.push(token);
    }
}

impl Work {
    pub(crate) fn new(layer: SpeedLayer, stop: watch::Receiver<bool>) -> Self {
        Self {
            layer,
            stop,
            past: tokio::sync::Mutex::default(),
            batches: Mutex::default(),
            failure: Mutex::default(),
            verdict: Mutex::default(),
            ended: Notify::new(),
        }
    }

    /// The name of the source.
    pub(crate) fn source(&self) -> &str {
        &self.layer.source.name
    }

    /// A batch is begun, or taken up.
    pub(crate) fn open(&self, batch: Batch) -> Arc<Batch> {
        let batch = Arc::new(batch);
        lock(&self.batches).open.insert(batch.txn.txid, Arc::clone(&batch));
        batch
    }

    /// An attempt at the batch of this number begins; none if that is no longer open.
    pub(crate) fn attempt(&self, attempt: TransactionAttempt, number: u64) -> Option<Arc<Batch>> {
        let mut batches = lock(&self.batches);
        if let Some(known) = batches.attempts.get(&attempt.attempt) {
            return Some(Arc::clone(known));
        }
        let open = batches.open.get(&attempt.txid).filter(|batch| batch.number == number);
        let batch = Arc::clone(open?);
        batches.attempts.insert(attempt.attempt, Arc::clone(&batch));
        Some(batch)
    }

    /// The batch of an attempt that has begun.
    pub(crate) fn batch(&self, attempt: TransactionAttempt) -> Option<Arc<Batch>> {
        lock(&self.batches).attempts.get(&attempt.attempt).cloned()
    }

    /// Nothing up to this txid is under way any more.
    pub(crate) fn close(&self, txid: TxId) {
        let mut batches = lock(&self.batches);
        batches.open.retain(|open, _| *open > txid);
        batches.attempts.retain(|_, batch| batch.txn.txid > txid);
    }

    /// A new hold begins: what was under way belongs to nobody.
    pub(crate) fn clear(&self) {
        *lock(&self.batches) = Batches::default();
    }

    /// Notes what went wrong with a batch. What another attempt cannot mend is recovered from before it is tried
    /// again. `hold` is the one that the batch belonged to.
    pub(crate) fn failed(&self, hold: &Hold, error: SpeedError) -> SpeedError {
        let passes = matches!(
            error,
            SpeedError::Store(StoreError::Unavailable { .. })
                | SpeedError::Log(LogError::Unavailable { .. })
                | SpeedError::View { .. }
        );
        if !hold.is_over() {
            self.layer.standing.fails(&error);
        }
        if matches!(error, SpeedError::Log(LogError::Unavailable { .. })) {
            metrics::counter!("stratus_speed_log_waits_total", "source" => self.source().to_owned())
                .increment(1);
        }
        if passes || hold.is_over() {
            return error;
        }
        hold.end();
        let told = SpeedError::Recovers(error.to_string());
        lock(&self.failure).get_or_insert(error);
        told
    }

    /// Notes what went wrong outside of any batch.
    pub(crate) fn broken(&self, error: SpeedError) -> SpeedError {
        self.layer.standing.fails(&error);
        let told = SpeedError::Recovers(error.to_string());
        lock(&self.failure).get_or_insert(error);
        told
    }

    /// Takes the reason for which the last hold is let go.
    pub(crate) fn take_failure(&self) -> Option<SpeedError> {
        lock(&self.failure).take()
    }

    /// Whether the present hold must be let go.
    pub(crate) fn has_failed(&self) -> bool {
        lock(&self.failure).is_some()
    }

    /// The work is over.
    pub(crate) fn end(&self, verdict: Result<(), SpeedError>) {
        lock(&self.verdict).get_or_insert(verdict);
        self.ended.notify_one();
    }

    /// Waits until the work is over.
    pub(crate) async fn ended(&self) -> Result<(), SpeedError> {
        loop {
            if let Some(verdict) = lock(&self.verdict).take() {
                return verdict;
            }
            self.ended.notified().await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
