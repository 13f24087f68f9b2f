//! The executor of a bolt's tasks.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch},
    compute::concat_batches,
};

use super::{Backoff, Command, Ended, InHand, NOBODY, caught, discard, guarded, text_of};
use crate::{
    acker::{Ackers, FailReason},
    bolt::Bolt,
    clock::Clock,
    collector::OutputCollector,
    context::TaskContext,
    declare::{SYSTEM_COMPONENT, TICK_STREAM, tick_schema},
    delivery::Delivery,
    lineage::{Label, Lineage, LineageChain, TaskId},
    metrics::{ComponentStats, InputStats},
    queue::{Fragment, QueueReceiver},
    router::EmitError,
    size::batch_bytes,
    topology::{BoltFactory, StreamRef},
    tuples::Tuples,
};

/// A fragment with fewer rows is put together with those behind it.
const SMALL: usize = 1_024;

/// One task of a bolt.
pub(crate) struct BoltTask {
    pub(crate) context: TaskContext,
    pub(crate) out: OutputCollector,
}

/// Runs some tasks of a bolt.
pub(crate) struct BoltExecutor {
    pub(crate) tasks: Vec<BoltTask>,
    pub(crate) make: BoltFactory,
    pub(crate) queue: QueueReceiver,
    pub(crate) command: Command,
    pub(crate) clock: Clock,
    pub(crate) tick: Option<Duration>,
    pub(crate) batch_rows: usize,
    pub(crate) ackers: Ackers,
    pub(crate) stats: Arc<ComponentStats>,
    pub(crate) inputs: HashMap<StreamRef, Arc<InputStats>>,
    pub(crate) in_flight: Arc<AtomicUsize>,
    /// Fragments that were taken and did not fit to those before them.
    pub(crate) ahead: VecDeque<Fragment>,
    /// The place of the task whose call is or was the latest.
    pub(crate) at: usize,
}

/// Why an executor stopped working with its bolts.
enum Broken {
    Panicked,
    Ended,
}

impl From<Ended> for Broken {
    fn from(_: Ended) -> Self {
        Self::Ended
    }
}

/// A bolt could not be prepared.
struct NotReady;

/// Fragments as one batch for one task.
struct Batch {
    task: usize,
    tuples: Tuples,
    stats: Arc<InputStats>,
    fragments: usize,
}

impl BoltExecutor {
    /// Works until the topology ends.
    pub(crate) async fn run(mut self) {
        if self.command.begin().await.is_err() {
            return;
        }
        let mut backoff = Backoff::default();
        loop {
            let mut bolts = Vec::with_capacity(self.tasks.len());
            // The calls are guarded one by one, where it is known what they were for. This is for whatever else panics:
            // an executor that is gone would leave a topology that looks alive and does nothing.
            let ended = match guarded(self.live(&mut bolts, &mut backoff)).await {
                Ok(ended) => ended,
                Err(panic) => {
                    self.strayed(&panic);
                    false
                }
            };
            // The one that panicked is in no state to be called.
            let others = bolts.iter_mut().enumerate().filter(|(at, _)| ended || *at != self.at);
            for (_, bolt) in others {
                if let Err(panic) = guarded(async { bolt.cleanup().await }).await {
                    self.stats.panicked(&panic);
                }
            }
            // The bolts go, and with them what they hold: its trees fail at once.
            if let Err(panic) = discard(bolts) {
                self.stats.panicked(&panic);
            }
            if ended || self.command.pause(backoff.next()).await.is_err() {
                return;
            }
        }
    }

    /// Prepares bolts and works with them. Whether that is all, or the executor is to start over.
    async fn live(&mut self, bolts: &mut Vec<Box<dyn Bolt>>, backoff: &mut Backoff) -> bool {
        match self.prepare(bolts).await {
            Ok(()) => matches!(self.work(bolts, backoff).await, Broken::Ended),
            Err(NotReady) => false,
        }
    }

    /// Something panicked outside of the calls to the bolts. What the tasks were about to send or ack fails.
    fn strayed(&mut self, panic: &str) {
        tracing::error!(component = self.component(), panic, "the executor of a bolt panicked");
        self.stats.panicked(panic);
        let reason = FailReason::Failed(format!("bolt `{}` panicked: {panic}", self.component()).into());
        for task in &mut self.tasks {
            if let Err(panic) = caught(|| task.out.abandon_call(&reason)) {
                self.stats.panicked(&panic);
            }
        }
    }

    fn component(&self) -> &str {
        self.tasks.first().map_or("", |task| task.context.component())
    }

    /// Adds new bolts, ready to work.
    async fn prepare(&mut self, bolts: &mut Vec<Box<dyn Bolt>>) -> Result<(), NotReady> {
        self.at = NOBODY;
        for task in &mut self.tasks {
            let make = &self.make;
            let prepared = guarded(async {
                let mut bolt = make();
                bolt.prepare(&task.context).await.map(|()| bolt)
            });
            match prepared.await {
                Ok(Ok(bolt)) => bolts.push(bolt),
                Ok(Err(error)) => {
                    let error = text_of(&error);
                    tracing::warn!(
                        component = task.context.component(),
                        error,
                        "a bolt could not be prepared"
                    );
                    self.stats.erred(&error);
                    return Err(NotReady);
                }
                Err(panic) => {
                    tracing::error!(component = task.context.component(), panic, "preparing a bolt panicked");
                    self.stats.panicked(&panic);
                    return Err(NotReady);
                }
            }
            // Whoever listens hears of it; if the topology ends, that is seen soon enough.
            if let Err(panic) = guarded(task.out.announce("startup")).await {
                self.stats.panicked(&panic);
                return Err(NotReady);
            }
        }
        Ok(())
    }

    async fn work(&mut self, bolts: &mut [Box<dyn Bolt>], backoff: &mut Backoff) -> Broken {
        let mut next_tick = self.tick.map(|tick| self.clock.now().saturating_add(tick));
        // Ticks come first. But one may take longer than the time to the next, and tuples must come, too.
        let mut ticked = false;
        loop {
            let waiting = if std::mem::take(&mut ticked) { self.waiting() } else { None };
            let clock = self.clock.clone();
            let tick_due = async {
                match next_tick {
                    Some(time) => clock.sleep_until(time).await,
                    None => std::future::pending().await,
                }
            };
            let fragment = tokio::select! {
                biased;
                () = self.command.end() => return Broken::Ended,
                () = std::future::ready(()), if waiting.is_some() => waiting,
                () = tick_due => None,
                fragment = next(&mut self.ahead, &mut self.queue) => match fragment {
                    Some(fragment) => Some(fragment),
                    None => return Broken::Ended,
                },
            };
            let done = match (fragment, self.tick) {
                (Some(fragment), _) => {
                    let batch = self.gather(fragment);
                    let _in_hand =
                        InHand { in_flight: Arc::clone(&self.in_flight), fragments: batch.fragments };
                    self.execute(bolts, batch).await
                }
                (None, Some(tick)) => {
                    next_tick = Some(self.clock.now().saturating_add(tick));
                    ticked = true;
                    self.tick_all(bolts, tick).await
                }
                (None, None) => Ok(()),
            };
            match done {
                Ok(()) => backoff.reset(),
                Err(broken) => return broken,
            }
        }
    }

    /// A fragment that is there.
    fn waiting(&mut self) -> Option<Fragment> {
        self.ahead.pop_front().or_else(|| self.queue.try_recv())
    }

    async fn tick_all(&mut self, bolts: &mut [Box<dyn Bolt>], tick: Duration) -> Result<(), Broken> {
        let source = StreamRef { component: SYSTEM_COMPONENT.to_owned(), stream: TICK_STREAM.to_owned() };
        let stats = self.inputs.get(&source).cloned().unwrap_or_default();
        let source = Arc::new(source);
        for task in 0..bolts.len() {
            let interval: ArrayRef = Arc::new(Int64Array::from(vec![tick.as_millis() as i64]));
            let Ok(rows) = RecordBatch::try_new(tick_schema(), vec![interval]) else { return Ok(()) };
            let tuples =
                self.delivered(Arc::clone(&source), vec![(1, 0)], rows, Lineage::unanchored(), None, &stats);
            self.execute(bolts, Batch { task, tuples, stats: Arc::clone(&stats), fragments: 0 }).await?;
        }
        Ok(())
    }

    /// Puts a small fragment together with those that wait behind it, as long as they are for the same task and of the
    /// same stream: order is kept, and a bolt that is behind gets larger batches. What is taken out makes room in the
    /// queue for more, so it is bounded as what a sender puts together.
    fn gather(&mut self, first: Fragment) -> Batch {
        let mut rows = first.rows.num_rows();
        let mut bytes = first.bytes();
        let most_bytes = batch_bytes(self.queue.byte_capacity());
        let mut fragments = vec![first];
        while rows < self.batch_rows
            && bytes < most_bytes
            && fragments[fragments.len() - 1].rows.num_rows() < SMALL
        {
            let Some(next) = self.waiting() else { break };
            let first = &fragments[0];
            let next_bytes = next.bytes();
            let fits = next.to == first.to
                && next.stream == first.stream
                && next.label == first.label
                && next.rows.num_rows() < SMALL
                && rows + next.rows.num_rows() <= self.batch_rows
                && bytes + next_bytes <= most_bytes;
            if !fits {
                self.ahead.push_front(next);
                break;
            }
            rows += next.rows.num_rows();
            bytes += next_bytes;
            fragments.push(next);
        }
        if fragments.len() > 1 {
            let batches: Vec<&RecordBatch> = fragments.iter().map(|fragment| &fragment.rows).collect();
            // Arrow panics where it does not expect that something overflows.
            match caught(|| concat_batches(batches[0].schema_ref(), batches)) {
                Ok(Ok(rows)) => {
                    let mut chain = LineageChain::default();
                    for fragment in &fragments {
                        chain.push(&fragment.lineage, fragment.rows.num_rows());
                    }
                    return self.batch(&fragments, rows, chain.finish());
                }
                // Some batches cannot be put together, such as two with too large dictionaries: then one by one.
                Ok(Err(_)) | Err(_) => {
                    fragments.drain(1..).rev().for_each(|later| self.ahead.push_front(later))
                }
            }
        }
        let (rows, lineage) =
            (fragments[0].rows.clone(), std::mem::replace(&mut fragments[0].lineage, Lineage::unanchored()));
        self.batch(&fragments, rows, lineage)
    }

    /// What `fragments` bring, as one batch.
    fn batch(&self, fragments: &[Fragment], rows: RecordBatch, lineage: Lineage) -> Batch {
        let Fragment { to, stream, label, .. } = &fragments[0];
        let task = self.tasks.iter().position(|task| task.context.task() == *to).unwrap_or_default();
        let stats = self.inputs.get(&**stream).cloned().unwrap_or_default();
        let mut senders: Vec<(usize, TaskId)> = Vec::with_capacity(1);
        let mut end = 0;
        for fragment in fragments {
            end += fragment.rows.num_rows();
            match senders.last_mut() {
                Some(last) if last.1 == fragment.from => last.0 = end,
                _ => senders.push((end, fragment.from)),
            }
        }
        let tuples = self.delivered(Arc::clone(stream), senders, rows, lineage, *label, &stats);
        Batch { task, tuples, stats, fragments: fragments.len() }
    }

    fn delivered(
        &self,
        stream: Arc<StreamRef>,
        senders: Vec<(usize, TaskId)>,
        rows: RecordBatch,
        lineage: Lineage,
        label: Option<Label>,
        stats: &Arc<InputStats>,
    ) -> Tuples {
        let ackers = self.ackers.clone();
        let delivery =
            Delivery::new(stream, senders, rows.num_rows(), lineage, label, ackers, Arc::clone(stats));
        Tuples::new(Arc::new(delivery), rows)
    }

    async fn execute(&mut self, bolts: &mut [Box<dyn Bolt>], batch: Batch) -> Result<(), Broken> {
        let Batch { task, tuples, stats, .. } = batch;
        let rows = tuples.len();
        let delivery = Arc::clone(&tuples.delivery);
        self.at = task;
        let BoltTask { context, out } = &mut self.tasks[task];
        let begun = self.clock.now();
        let outcome = guarded(async { bolts[task].execute(tuples, out).await }).await;
        stats.executed(rows, self.clock.now().saturating_sub(begun));
        let error = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(text_of(&error)),
            Err(panic) => return Err(panicked(context, out, &delivery, &self.stats, &panic)),
        };
        // What was emitted and acked before the error stays so.
        let ended = match guarded(out.end_call()).await {
            Ok(Ok(())) => None,
            Ok(Err(EmitError::Stopped)) => return Err(Broken::Ended),
            Ok(Err(error)) => {
                let error = text_of(&error);
                // Not all that was emitted has left, so nothing of this call may be acked.
                let reason = FailReason::Failed(error.as_str().into());
                if let Err(panic) = caught(|| out.abandon_call(&reason)) {
                    return Err(panicked(context, out, &delivery, &self.stats, &panic));
                }
                Some(error)
            }
            Err(panic) => return Err(panicked(context, out, &delivery, &self.stats, &panic)),
        };
        if let Some(error) = error.or(ended) {
            tracing::warn!(
                component = context.component(),
                task = context.task(),
                error,
                "a bolt failed its tuples"
            );
            self.stats.erred(&error);
            delivery.fail(None, &FailReason::Failed(error.into()));
        }
        Ok(())
    }
}

/// A call panicked, or a grouping of what it emitted.
fn panicked(
    context: &TaskContext,
    out: &mut OutputCollector,
    delivery: &Delivery,
    stats: &ComponentStats,
    panic: &str,
) -> Broken {
    tracing::error!(component = context.component(), task = context.task(), panic, "a bolt panicked");
    stats.panicked(panic);
    let reason = FailReason::Failed(format!("bolt `{}` panicked: {panic}", context.component()).into());
    // What it was about to ack may be what is wrong.
    if let Err(panic) = caught(|| out.abandon_call(&reason)) {
        stats.panicked(&panic);
    }
    delivery.fail(None, &reason);
    Broken::Panicked
}

async fn next(ahead: &mut VecDeque<Fragment>, queue: &mut QueueReceiver) -> Option<Fragment> {
    match ahead.pop_front() {
        Some(fragment) => Some(fragment),
        None => queue.recv().await,
    }
}

/// The counters of a component's inputs, for its executors.
pub(crate) fn input_stats(
    inputs: &BTreeMap<(String, String), Arc<InputStats>>,
) -> HashMap<StreamRef, Arc<InputStats>> {
    let by_stream = inputs.iter().map(|((component, stream), stats)| {
        (StreamRef { component: component.clone(), stream: stream.clone() }, Arc::clone(stats))
    });
    by_stream.collect()
}
