//! Runs one task's spout: asks it for tuples, puts them into batches, and tells it what became of them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use arrow::array::RecordBatch;
use stratus_topology::{
    DEFAULT_STREAM, FailReason, MessageId, MessageIds, Next, OutputFieldsDeclarer, Spout,
    SpoutOutputCollector, TaskContext, TaskError,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::batch::TransactionAttempt;

/// How long a spout rests that has nothing.
const IDLE: Duration = Duration::from_millis(1);
/// The first pause after an error; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What a task's spout is to do.
pub(super) enum Order {
    /// Fill a batch of this attempt.
    Emit(TransactionAttempt, oneshot::Sender<Vec<RecordBatch>>),
    /// This transaction is committed, and all before it.
    Committed(u64),
    /// This transaction failed.
    Failed(u64, Arc<str>),
    /// Whatever is under way failed.
    FailAll,
}

/// A spout, and what it has emitted.
pub(super) struct Host {
    spout: Box<dyn Spout>,
    out: SpoutOutputCollector,
    max_batch_size: usize,
    /// Tuples that are in no batch yet. While there are some the spout is asked for more only by a batch.
    waiting: VecDeque<(RecordBatch, MessageIds)>,
    /// Messages in batches under way, by transaction.
    open: BTreeMap<u64, Vec<MessageId>>,
    /// Attempts below this one were replaced.
    first: Arc<AtomicU64>,
    ready: Arc<AtomicBool>,
    rests_until: Instant,
    pause: Duration,
}

impl Host {
    pub(super) fn new(
        spout: Box<dyn Spout>,
        context: &TaskContext,
        max_batch_size: usize,
        first: Arc<AtomicU64>,
        ready: Arc<AtomicBool>,
    ) -> Self {
        let mut declared = OutputFieldsDeclarer::default();
        spout.declare_output_fields(&mut declared);
        Self {
            spout,
            out: SpoutOutputCollector::keeping(declared, context),
            max_batch_size,
            waiting: VecDeque::new(),
            open: BTreeMap::new(),
            first,
            ready,
            rests_until: Instant::now(),
            pause: FIRST_PAUSE,
        }
    }

    pub(super) async fn open(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        self.spout.open(context).await?;
        self.spout.activate().await;
        Ok(())
    }

    /// Works until nobody gives orders any more.
    pub(super) async fn work(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        loop {
            let rests_until = self.rests_until;
            let asks = self.waiting.is_empty();
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => break,
                },
                () = tokio::time::sleep_until(rests_until), if asks => { self.ask().await; }
            }
            self.ready.store(!self.waiting.is_empty(), SeqCst);
        }
        self.spout.close().await;
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Emit(TransactionAttempt { attempt, .. }, answer) if attempt < self.first.load(SeqCst) => {
                let _ = answer.send(Vec::new());
            }
            Order::Emit(TransactionAttempt { txid, .. }, answer) => {
                // Of an attempt that was replaced.
                self.fail(txid, "its batch is tried again").await;
                self.gather().await;
                let (rows, ids) = self.take();
                self.open.insert(txid, ids);
                // Whoever asked may be gone; then the batch fails, and is tried again.
                let _ = answer.send(rows);
            }
            Order::Committed(txid) => {
                let later = self.open.split_off(&(txid + 1));
                let ids: Vec<MessageId> =
                    std::mem::replace(&mut self.open, later).into_values().flatten().collect();
                self.ack(&ids).await;
            }
            Order::Failed(txid, why) => self.fail(txid, &why).await,
            Order::FailAll => {
                while let Some(txid) = self.open.first_key_value().map(|(txid, _)| *txid) {
                    self.fail(txid, "the coordinator began anew").await;
                }
            }
        }
    }

    /// Asks for more, until a batch is full or there is nothing more.
    async fn gather(&mut self) {
        // A spout may say that it has more and emit nothing.
        for _ in 0..self.max_batch_size {
            let rows: usize = self.waiting.iter().map(|(rows, _)| rows.num_rows()).sum();
            if rows >= self.max_batch_size || Instant::now() < self.rests_until || !self.ask().await {
                return;
            }
        }
    }

    /// Asks the spout once. Whether it may have more.
    async fn ask(&mut self) -> bool {
        let asked = self.spout.next(&mut self.out).await;
        let kept = self.out.take_kept().await;
        let mut unheard = Vec::new();
        for emission in kept.unwrap_or_default() {
            if emission.stream == DEFAULT_STREAM {
                self.waiting.push_back((emission.rows, emission.ids));
            } else {
                // Nobody listens to it.
                unheard.extend(ids(&emission.ids, emission.rows.num_rows()));
            }
        }
        self.ack(&unheard).await;
        match asked {
            Ok(next) => {
                self.pause = FIRST_PAUSE;
                if next == Next::Idle {
                    self.rests_until = Instant::now() + IDLE;
                }
                next == Next::Emitted
            }
            Err(error) => {
                tracing::warn!(pause = ?self.pause, "a spout failed: {error}");
                self.rests_until = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                false
            }
        }
    }

    /// The tuples of a batch, with their messages.
    fn take(&mut self) -> (Vec<RecordBatch>, Vec<MessageId>) {
        let (mut batch, mut messages, mut room) = (Vec::new(), Vec::new(), self.max_batch_size);
        while room > 0
            && let Some((rows, names)) = self.waiting.pop_front()
        {
            let (count, taken) = (rows.num_rows(), rows.num_rows().min(room));
            messages.extend(ids(&names, taken));
            batch.push(rows.slice(0, taken));
            room -= taken;
            if taken < count {
                let names = match names {
                    MessageIds::None => MessageIds::None,
                    MessageIds::From(first) => MessageIds::From(first.wrapping_add(taken as u64)),
                    MessageIds::Each(mut ids) => MessageIds::Each(ids.split_off(taken)),
                };
                self.waiting.push_front((rows.slice(taken, count - taken), names));
            }
        }
        (batch, messages)
    }

    async fn ack(&mut self, ids: &[MessageId]) {
        if !ids.is_empty() {
            self.spout.acked(ids).await;
        }
    }

    async fn fail(&mut self, txid: u64, why: &str) {
        let ids = self.open.remove(&txid).unwrap_or_default();
        if !ids.is_empty() {
            self.spout.failed(&ids, &FailReason::Failed(why.into())).await;
        }
    }
}

/// The names of the first rows of an emission.
fn ids(names: &MessageIds, rows: usize) -> Vec<MessageId> {
    match names {
        MessageIds::None => Vec::new(),
        MessageIds::From(first) => (0..rows as u64).map(|row| first.wrapping_add(row)).collect(),
        MessageIds::Each(ids) => ids[..rows].to_vec(),
    }
}
