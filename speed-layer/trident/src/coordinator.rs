//! The master coordinator: batches are emitted ahead, and commit one after the other in the order of their txids.

mod transactions;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use stratus_topology::{
    DEFAULT_STREAM, FailReason, MessageId, MessageIds, Next, OutputFieldsDeclarer, Spout,
    SpoutOutputCollector, TaskContext, TaskError,
};
use tokio::time::Instant;

use transactions::{Action, Transactions};

use crate::{
    batch::{self, TransactionAttempt},
    bolt::{BATCH, COMMIT, batch_rows, batch_schema, commit_row, commit_schema},
    spout::{BatchCoordinator, TridentSpout},
};

/// How batches are paced.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Batches that may be under way at once; 0 is 1.
    pub max_pending: usize,
    /// The least time from one batch to the next: what comes in meanwhile goes into one.
    pub interval: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { max_pending: 3, interval: Duration::from_millis(5) }
    }
}

/// Attempts rise over all coordinators of the process, so that no bolt takes a new one's for an old one's.
static ATTEMPTS: AtomicU64 = AtomicU64::new(1);

/// The first pause before a batch that failed is tried again; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What a message of the coordinator was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    attempt: TransactionAttempt,
    commit: bool,
    /// Its rows that are not acked yet: where queues are short of bytes they travel in pieces.
    rows: usize,
}

/// The coordinator of the batches of one group of spouts.
pub(crate) struct MasterCoordinator {
    spouts: Arc<Vec<(String, Arc<dyn TridentSpout>)>>,
    pace: Pace,
    coordinators: Vec<(String, Box<dyn BatchCoordinator>)>,
    transactions: Transactions,
    /// The metadata of each open batch, for each spout.
    metadata: HashMap<u64, Vec<(String, String)>>,
    sent: HashMap<MessageId, Sent>,
    next_message: MessageId,
    /// Batches that are to be tried again, with when and after which pause.
    retries: HashMap<u64, (Instant, Duration)>,
    last_batch: Option<Instant>,
    /// What went wrong where an error could not be returned.
    broken: Option<TaskError>,
}

impl MasterCoordinator {
    pub(crate) fn new(spouts: Arc<Vec<(String, Arc<dyn TridentSpout>)>>, pace: Pace) -> Self {
        Self {
            spouts,
            transactions: Transactions::new(0, 0),
            pace,
            coordinators: Vec::new(),
            metadata: HashMap::new(),
            sent: HashMap::new(),
            next_message: 0,
            retries: HashMap::new(),
            last_batch: None,
            broken: None,
        }
    }

    /// Asks every spout where it stands. A transaction that one of them has committed was written down as committed
    /// only after every state held it, so the furthest one is right for all. Each counts its lives, so the highest count
    /// rises with each; only when the spout with the highest one has left the group it takes some lives until it does again.
    async fn recover(&mut self) -> Result<(), TaskError> {
        let (mut committed, mut epoch, mut open) = (0, 0, Vec::new());
        for (name, coordinator) in &mut self.coordinators {
            let recovery = coordinator.recover().await?;
            committed = recovery.committed.max(committed);
            epoch = recovery.epoch.max(epoch);
            open.extend(recovery.open.into_iter().map(|(txid, metadata)| (txid, name.clone(), metadata)));
        }
        for (name, coordinator) in &mut self.coordinators {
            let caught_up = coordinator.catch_up(committed).await;
            caught_up.map_err(|error| format!("spout `{name}`: {error}"))?;
        }
        self.transactions = Transactions::new(committed, epoch);
        self.metadata.clear();
        self.sent.clear();
        self.retries.clear();
        for (txid, name, metadata) in open.into_iter().filter(|(txid, _, _)| *txid > committed) {
            self.metadata.entry(txid).or_default().push((name, metadata));
        }
        let mut open: Vec<u64> = self.metadata.keys().copied().collect();
        open.sort_unstable();
        for txid in open {
            self.transactions.begin(txid, new_attempt());
            self.retries.insert(txid, (Instant::now(), FIRST_PAUSE));
        }
        Ok(())
    }

    async fn send_batch(
        &mut self,
        attempt: TransactionAttempt,
        out: &mut SpoutOutputCollector,
    ) -> Result<(), TaskError> {
        let mut spouts = self.metadata.get(&attempt.txid).cloned().unwrap_or_default();
        // Others had written the batch down when everything ended, and these had not: it was to begin at that moment, or
        // they were no part of the group then. What of it has reached a state nobody knows now, so nothing is added.
        for (name, coordinator) in &mut self.coordinators {
            if !spouts.iter().any(|(known, _)| known == name) {
                coordinator.nothing(attempt.txid).await?;
                spouts.push((name.clone(), String::new()));
            }
        }
        self.metadata.insert(attempt.txid, spouts.clone());
        let rows = batch_rows(&spouts, self.transactions.committed())?;
        self.send(attempt, false, BATCH, rows, out).await
    }

    async fn send(
        &mut self,
        attempt: TransactionAttempt,
        commit: bool,
        stream: &str,
        rows: arrow::array::RecordBatch,
        out: &mut SpoutOutputCollector,
    ) -> Result<(), TaskError> {
        let id = self.next_message;
        let count = rows.num_rows();
        let ids = MessageIds::Each(vec![id; count]);
        self.next_message += 1;
        self.sent.insert(id, Sent { attempt, commit, rows: count });
        out.label(Some(attempt.label())).await?;
        out.emit(stream, rows, ids).await?;
        Ok(())
    }

    /// Emits the next batch, if any spout has one.
    async fn begin(&mut self, out: &mut SpoutOutputCollector) -> Result<bool, TaskError> {
        if self.last_batch.is_some_and(|last| last.elapsed() < self.pace.interval) {
            return Ok(false);
        }
        let Some(txid) = self.transactions.next(self.pace.max_pending.max(1)) else { return Ok(false) };
        let (mut found, mut spouts) = (false, Vec::with_capacity(self.coordinators.len()));
        for (name, coordinator) in &mut self.coordinators {
            let metadata = coordinator.next(txid).await?;
            found |= metadata.is_some();
            spouts.push((name.clone(), metadata));
        }
        if !found {
            return Ok(false);
        }
        for ((_, coordinator), (_, metadata)) in self.coordinators.iter_mut().zip(&spouts) {
            if metadata.is_none() {
                coordinator.nothing(txid).await?;
            }
        }
        let spouts =
            spouts.into_iter().map(|(name, metadata)| (name, metadata.unwrap_or_default())).collect();
        self.metadata.insert(txid, spouts);
        self.last_batch = Some(Instant::now());
        let attempt = self.transactions.begin(txid, new_attempt());
        self.send_batch(attempt, out).await?;
        Ok(true)
    }

    /// Tries batches again whose pause is over.
    async fn retry(&mut self, out: &mut SpoutOutputCollector) -> Result<bool, TaskError> {
        let now = Instant::now();
        // After a recovery many may be open. What a task holds of them is bounded as that of new ones is.
        let last = self.transactions.committed().saturating_add(self.pace.max_pending.max(1) as u64);
        let due = self.retries.iter().filter(|(txid, (at, _))| **txid <= last && *at <= now);
        let mut due: Vec<u64> = due.map(|(txid, _)| *txid).collect();
        due.sort_unstable();
        for txid in &due {
            let mut spouts = self.metadata.get(txid).cloned().unwrap_or_default();
            for (name, metadata) in &mut spouts {
                if let Some((_, coordinator)) = self.coordinators.iter_mut().find(|(known, _)| known == name)
                {
                    *metadata = coordinator.again(*txid, metadata).await?;
                }
            }
            if self.metadata.insert(*txid, spouts.clone()).is_some_and(|before| before != spouts) {
                // Those behind it begin where it ends, which may be elsewhere now.
                for later in self.transactions.fail_after(*txid) {
                    self.retries.insert(later, (now, FIRST_PAUSE));
                }
            }
            let attempt = self.transactions.begin(*txid, new_attempt());
            if let Some((at, pause)) = self.retries.get_mut(txid) {
                // Should it fail again, then later; success forgets it.
                *at = now + Duration::from_secs(u32::MAX.into());
                *pause = (*pause * 2).min(LONGEST_PAUSE);
            }
            self.send_batch(attempt, out).await?;
        }
        Ok(!due.is_empty())
    }

    /// A digest of what is written down of a batch, if that stays.
    fn digest(&self, txid: u64) -> Option<u64> {
        let mut parts = Vec::new();
        // Who has no part in a batch may join and leave meanwhile.
        for (name, metadata) in self.metadata.get(&txid)?.iter().filter(|(_, metadata)| !metadata.is_empty())
        {
            if !self.spouts.iter().any(|(known, spout)| known == name && spout.metadata_stays()) {
                return None;
            }
            parts.push(metadata.as_str());
        }
        batch::digest(parts)
    }

    async fn commit(&mut self, out: &mut SpoutOutputCollector) -> Result<bool, TaskError> {
        match self.transactions.commit() {
            Some(attempt) => {
                let row = commit_row(self.transactions.committed(), self.digest(attempt.txid))?;
                self.send(attempt, true, COMMIT, row, out).await?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    async fn on_acked(&mut self, sent: Sent) -> Result<(), TaskError> {
        if self.transactions.acked(sent.attempt, sent.commit) == Action::Committed {
            for (_, coordinator) in &mut self.coordinators {
                coordinator.committed(sent.attempt.txid).await?;
            }
            self.metadata.remove(&sent.attempt.txid);
            self.retries.remove(&sent.attempt.txid);
        }
        Ok(())
    }

    async fn on_failed(&mut self, sent: Sent, reason: &str) {
        let txid = sent.attempt.txid;
        if self.transactions.failed(sent.attempt) != Action::Retry {
            return;
        }
        let mut gives_up = false;
        for (_, coordinator) in &mut self.coordinators {
            gives_up |= coordinator.give_up(txid, reason).await;
        }
        // The others' part of the batch is to be counted all the same.
        if gives_up && self.coordinators.len() == 1 {
            self.transactions.drop_failed(txid);
            self.metadata.remove(&txid);
            self.retries.remove(&txid);
            return;
        }
        let pause = self.retries.get(&txid).map_or(FIRST_PAUSE, |(_, pause)| *pause);
        self.retries.insert(txid, (Instant::now() + pause, pause));
    }
}

/// Attempts below this number have begun; those that begin from here on are not.
pub(crate) fn begun_attempts() -> u64 {
    ATTEMPTS.load(Relaxed)
}

fn new_attempt() -> u64 {
    ATTEMPTS.fetch_add(1, Relaxed)
}

#[async_trait]
impl Spout for MasterCoordinator {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        debug_assert_ne!(BATCH, DEFAULT_STREAM);
        declarer.declare_stream(BATCH, batch_schema());
        declarer.declare_stream(COMMIT, commit_schema());
    }

    async fn open(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        for (name, spout) in self.spouts.iter() {
            self.coordinators.push((name.clone(), spout.coordinator(context).await?));
        }
        self.recover().await
    }

    async fn next(&mut self, out: &mut SpoutOutputCollector) -> Result<Next, TaskError> {
        if let Some(error) = self.broken.take() {
            // Whatever was under way is another life's: the spouts say what is true.
            self.recover()
                .await
                .inspect_err(|_| self.broken = Some("the coordinator has not recovered yet".into()))?;
            return Err(error);
        }
        let worked = async {
            let mut worked = self.commit(out).await?;
            worked |= self.retry(out).await?;
            worked |= self.begin(out).await?;
            Ok::<_, TaskError>(worked)
        };
        match worked.await {
            Ok(worked) => Ok(if worked { Next::Emitted } else { Next::Idle }),
            Err(error) => {
                self.broken = Some("the coordinator recovers".into());
                Err(error)
            }
        }
    }

    async fn acked(&mut self, ids: &[MessageId]) {
        for id in ids {
            let Some(sent) = self.sent.get_mut(id) else { continue };
            sent.rows = sent.rows.saturating_sub(1);
            if sent.rows > 0 {
                continue;
            }
            let sent = *sent;
            if let Err(error) = self.on_acked(sent).await {
                self.broken = Some(error);
            }
            self.sent.remove(id);
        }
    }

    async fn failed(&mut self, ids: &[MessageId], reason: &FailReason) {
        for id in ids {
            if let Some(sent) = self.sent.remove(id) {
                self.on_failed(sent, &reason.to_string()).await;
            }
        }
    }
}
