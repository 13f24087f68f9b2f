//! Ackers: who follows every spout tuple's tree until it is done, failed, or out of time.
//!
//! An acker is a task that owns an array per root batch: the XOR of all that was reported for each of its rows. It
//! never waits for anybody, so acks cannot take part in a deadlock; what waits in front of it is bounded by the tuples
//! that are pending.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
    time::Duration,
};

use tokio::sync::mpsc;

use crate::{
    clock::Clock,
    executor::Command,
    lineage::{ByBatch, Lineage, RootBatch, TaskId},
    metrics::OutputStats,
};

/// Why a spout's tuples failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailReason {
    /// A bolt failed a tuple of the tree, and said this.
    Failed(Arc<str>),
    /// A bolt let a tuple of the tree go without an ack: a panic, or an oversight.
    Dropped,
    /// The tree was not done within the message time-out.
    TimedOut,
}

impl fmt::Display for FailReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(why) => write!(f, "failed by a bolt: {why}"),
            Self::Dropped => write!(f, "a bolt let it go without an ack"),
            Self::TimedOut => write!(f, "not done within the message time-out"),
        }
    }
}

/// What spouts and bolts tell an acker.
#[derive(Debug)]
pub(crate) enum AckMessage {
    /// A spout emitted a batch; `values` are the XOR of each row's first edges. It is sent before any of its rows.
    Begin {
        batch: RootBatch,
        values: Vec<u64>,
        spout: mpsc::UnboundedSender<SpoutEvent>,
        stats: Arc<OutputStats>,
    },
    /// To be XORed in: (row, value).
    Ack { batch: RootBatch, values: Vec<(u32, u64)> },
    /// Rows that failed.
    Fail { batch: RootBatch, rows: Vec<u32>, reason: FailReason },
    /// Rows that get their whole time-out again.
    Reset { batch: RootBatch, rows: Vec<u32> },
    /// A spout task lost its memory: nobody waits for its batches up to this one.
    Forget { up_to: RootBatch },
}

/// What an acker tells a spout's executor: rows of a batch.
#[derive(Debug)]
pub(crate) enum SpoutEvent {
    Acked { batch: RootBatch, rows: Vec<u32> },
    Failed { batch: RootBatch, rows: Vec<u32>, reason: FailReason },
}

/// The ackers of a topology, from the outside.
#[derive(Clone, Debug)]
pub(crate) struct Ackers(Arc<[mpsc::UnboundedSender<AckMessage>]>);

impl Ackers {
    pub(crate) fn new(ackers: Vec<mpsc::UnboundedSender<AckMessage>>) -> Self {
        Self(ackers.into())
    }

    pub(crate) fn exist(&self) -> bool {
        !self.0.is_empty()
    }

    pub(crate) fn send(&self, batch: RootBatch, message: AckMessage) {
        let acker = (u64::from(batch.task).wrapping_add(batch.number) % self.0.len() as u64) as usize;
        // An acker that is gone has nobody left to tell: the topology ends.
        let _ = self.0[acker].send(message);
    }

    /// Reports what was XORed up for rows.
    pub(crate) fn ack(&self, acks: ByBatch<(u32, u64)>) {
        for (batch, values) in acks.finish() {
            self.send(batch, AckMessage::Ack { batch, values });
        }
    }

    /// Fails rows.
    pub(crate) fn fail(&self, failed: ByBatch<u32>, reason: &FailReason) {
        for (batch, rows) in failed.finish() {
            self.send(batch, AckMessage::Fail { batch, rows, reason: reason.clone() });
        }
    }

    /// Gives rows their whole time-out again.
    pub(crate) fn reset(&self, reset: ByBatch<u32>) {
        for (batch, rows) in reset.finish() {
            self.send(batch, AckMessage::Reset { batch, rows });
        }
    }

    /// Fails the trees of rows that nobody will receive.
    pub(crate) fn lost(&self, lineage: &Lineage) {
        let mut lost = ByBatch::default();
        lineage.edges.iter().for_each(|edge| lost.push(lineage.batches[edge.batch as usize], edge.root));
        self.fail(lost, &FailReason::Dropped);
    }

    /// Tells every acker that a spout task's batches below `next` have lost their spout.
    pub(crate) fn forget(&self, task: TaskId, next: u64) {
        for acker in self.0.iter() {
            if let Some(number) = next.checked_sub(1) {
                let _ = acker.send(AckMessage::Forget { up_to: RootBatch { task, number } });
            }
        }
    }
}

/// A root batch that is under way.
struct Pending {
    values: Vec<u64>,
    settled: Vec<bool>,
    open: usize,
    spout: mpsc::UnboundedSender<SpoutEvent>,
    stats: Arc<OutputStats>,
    begun: Duration,
    /// When the first of its open rows runs out of time.
    deadline: Duration,
    /// Each row's own deadline, once one was reset.
    deadlines: Option<Vec<Duration>>,
}

/// One acker task.
pub(crate) struct Acker {
    messages: mpsc::UnboundedReceiver<AckMessage>,
    clock: Clock,
    timeout: Duration,
    pending: HashMap<RootBatch, Pending>,
    deadlines: BTreeSet<(Duration, RootBatch)>,
}

impl Acker {
    pub(crate) fn new(
        messages: mpsc::UnboundedReceiver<AckMessage>,
        clock: Clock,
        timeout: Duration,
    ) -> Self {
        Self { messages, clock, timeout, pending: HashMap::new(), deadlines: BTreeSet::new() }
    }

    /// Works until the topology ends. Somebody may hold tuples for longer than that, so the senders do not say when.
    pub(crate) async fn run(mut self, mut command: Command) {
        let mut messages = Vec::with_capacity(64);
        loop {
            let timer = self.timer();
            tokio::select! {
                biased;
                () = command.end() => return,
                count = self.messages.recv_many(&mut messages, 64) => {
                    if count == 0 {
                        return;
                    }
                    for message in messages.drain(..) {
                        self.handle(message);
                    }
                    self.expire();
                }
                () = timer => self.expire(),
            }
        }
    }

    /// Waits for the first deadline. Looking a tenth of the time-out later than need be saves a timer per batch.
    fn timer(&self) -> impl Future<Output = ()> + use<> {
        let clock = self.clock.clone();
        let first = self.deadlines.first().map(|(deadline, _)| deadline.saturating_add(self.timeout / 10));
        async move {
            match first {
                Some(deadline) => clock.sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        }
    }

    fn handle(&mut self, message: AckMessage) {
        match message {
            AckMessage::Begin { batch, values, spout, stats } => self.begin(batch, values, spout, stats),
            AckMessage::Ack { batch, values } => self.ack(batch, &values),
            AckMessage::Fail { batch, rows, reason } => self.fail(batch, rows, reason),
            AckMessage::Reset { batch, rows } => self.reset(batch, &rows),
            AckMessage::Forget { up_to } => {
                let kept = |batch: &RootBatch| batch.task != up_to.task || batch.number > up_to.number;
                self.pending.retain(|batch, pending| {
                    let kept = kept(batch);
                    if !kept {
                        pending.stats.forgotten(pending.open);
                    }
                    kept
                });
                self.deadlines.retain(|(_, batch)| kept(batch));
            }
        }
    }

    fn begin(
        &mut self,
        batch: RootBatch,
        values: Vec<u64>,
        spout: mpsc::UnboundedSender<SpoutEvent>,
        stats: Arc<OutputStats>,
    ) {
        let begun = self.clock.now();
        let deadline = begun.saturating_add(self.timeout);
        let rows = values.len();
        let pending = Pending {
            values,
            settled: vec![false; rows],
            open: rows,
            spout,
            stats,
            begun,
            deadline,
            deadlines: None,
        };
        // Rows that went nowhere are done: nothing was XORed in.
        let done: Vec<u32> = (0..rows as u32).filter(|row| pending.values[*row as usize] == 0).collect();
        self.pending.insert(batch, pending);
        self.deadlines.insert((deadline, batch));
        self.settle(batch, done, None);
    }

    fn ack(&mut self, batch: RootBatch, values: &[(u32, u64)]) {
        // Late words about a batch that is settled change nothing.
        let Some(pending) = self.pending.get_mut(&batch) else { return };
        let mut done = Vec::new();
        for (row, value) in values {
            let sum = &mut pending.values[*row as usize];
            *sum ^= value;
            if *sum == 0 {
                if done.is_empty() {
                    done.reserve(values.len());
                }
                done.push(*row);
            }
        }
        // A sum may pass zero and leave it again: another edge of the same tuple follows in this message.
        done.retain(|row| pending.values[*row as usize] == 0);
        self.settle(batch, done, None);
    }

    fn fail(&mut self, batch: RootBatch, rows: Vec<u32>, reason: FailReason) {
        if self.pending.contains_key(&batch) {
            self.settle(batch, rows, Some(reason));
        }
    }

    fn reset(&mut self, batch: RootBatch, rows: &[u32]) {
        let Some(pending) = self.pending.get_mut(&batch) else { return };
        let deadline = self.clock.now().saturating_add(self.timeout);
        let deadlines = pending.deadlines.get_or_insert_with(|| vec![pending.deadline; pending.values.len()]);
        for row in rows {
            deadlines[*row as usize] = deadline;
        }
    }

    /// Settles the rows among these that are open: done, or failed for a reason.
    fn settle(&mut self, batch: RootBatch, mut rows: Vec<u32>, reason: Option<FailReason>) {
        let Some(pending) = self.pending.get_mut(&batch) else { return };
        rows.retain(|row| !std::mem::replace(&mut pending.settled[*row as usize], true));
        if rows.is_empty() {
            return;
        }
        pending.open -= rows.len();
        let event = match reason {
            None => {
                pending.stats.completed(rows.len(), self.clock.now().saturating_sub(pending.begun));
                SpoutEvent::Acked { batch, rows }
            }
            Some(reason) => {
                pending.stats.failed(rows.len(), &reason);
                SpoutEvent::Failed { batch, rows, reason }
            }
        };
        // A spout that is gone for good needs no news.
        let _ = pending.spout.send(event);
        if pending.open == 0 {
            self.deadlines.remove(&(pending.deadline, batch));
            self.pending.remove(&batch);
        }
    }

    /// Fails what is out of time.
    fn expire(&mut self) {
        let now = self.clock.now();
        while let Some((deadline, batch)) =
            self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= now)
        {
            self.deadlines.remove(&(deadline, batch));
            let Some(pending) = self.pending.get_mut(&batch) else { continue };
            let open = (0..pending.values.len() as u32).filter(|row| !pending.settled[*row as usize]);
            let deadlines = pending.deadlines.as_deref();
            let due = |row: &u32| deadlines.is_none_or(|deadlines| deadlines[*row as usize] <= now);
            let (late, in_time): (Vec<u32>, Vec<u32>) = open.partition(due);
            // Each of these was reset, or there would be none.
            let next =
                in_time.iter().filter_map(|row| deadlines.map(|deadlines| deadlines[*row as usize])).min();
            if let Some(next) = next {
                pending.deadline = next;
                self.deadlines.insert((next, batch));
            }
            self.settle(batch, late, Some(FailReason::TimedOut));
        }
    }
}
