//! A kit for tests of topologies: spouts with fixed tuples, and a run of a topology to its end that keeps everything
//! that was emitted. For time that a test moves by hand see [`Clock::manual`].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arrow::{
    array::{RecordBatch, RecordBatchOptions, UInt32Array},
    compute::concat_batches,
    datatypes::SchemaRef,
};
use async_trait::async_trait;
use thiserror::Error;

use crate::{
    acker::FailReason,
    bolt::Bolt,
    clock::Clock,
    cluster::{ClusterError, LocalCluster},
    collector::OutputCollector,
    config::ComponentConfig,
    context::{TaskContext, TaskError},
    declare::{DEFAULT_STREAM, OutputFieldsDeclarer},
    grouping::Grouping,
    lineage::TaskId,
    metrics::TopologyMetrics,
    row::{Row, RowBuilder, RowError},
    size::take_rows,
    spout::{MessageId, Next, Spout},
    spout_collector::{MessageIds, SpoutOutputCollector},
    topology::{Component, Part, StreamRef, Subscription, Topology},
    tuples::Tuples,
};

/// A reliable spout of fixed tuples. Clones share them: each tuple is emitted by whichever task comes first, and again
/// when it has failed or its spout was restarted. Tuple n has message id n.
#[derive(Clone, Debug)]
pub struct FixedSpout {
    schema: SchemaRef,
    stream: String,
    tuples: Arc<Mutex<Fixed>>,
    /// Of one task's clone: the task's place among its component's.
    task: usize,
}

#[derive(Debug, Default)]
struct Fixed {
    rows: Option<RecordBatch>,
    waiting: VecDeque<MessageId>,
    /// Who emitted what is under way.
    under_way: HashMap<MessageId, usize>,
    acked: BTreeSet<MessageId>,
    failures: Vec<(MessageId, FailReason)>,
    emitted: usize,
}

impl FixedSpout {
    /// Tuples a call emits, at most.
    const AT_ONCE: usize = 100;

    /// A spout without tuples yet.
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema, stream: DEFAULT_STREAM.to_owned(), tuples: Arc::default(), task: 0 }
    }

    /// Emits to this stream instead of the default one.
    #[must_use]
    pub fn on(mut self, stream: &str) -> Self {
        stream.clone_into(&mut self.stream);
        self
    }

    /// Adds a tuple.
    ///
    /// # Errors
    ///
    /// The tuple is not a row of the stream.
    pub fn row(self, row: impl Row) -> Result<Self, RowError> {
        let mut builder = RowBuilder::new(Arc::clone(&self.schema), 1)?;
        builder.append(row)?;
        Ok(self.rows(builder.finish()))
    }

    /// Adds tuples.
    ///
    /// # Panics
    ///
    /// The rows do not have the spout's schema.
    #[must_use]
    pub fn rows(self, rows: RecordBatch) -> Self {
        {
            let mut fixed = self.lock();
            let count = rows.num_rows();
            let before =
                fixed.rows.clone().unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(&self.schema)));
            let options = RecordBatchOptions::new().with_row_count(Some(count));
            let joined = RecordBatch::try_new_with_options(
                Arc::clone(&self.schema),
                rows.columns().to_vec(),
                &options,
            )
            .and_then(|rows| concat_batches(&self.schema, [&before, &rows]));
            match joined {
                Ok(joined) if same_names(&self.schema, &rows.schema()) => fixed.rows = Some(joined),
                _ => {
                    drop(fixed);
                    panic!("rows of {:?} for a spout of {:?}", rows.schema().fields(), self.schema.fields());
                }
            }
            let first = before.num_rows();
            fixed.waiting.extend((first..first + count).map(|id| id as MessageId));
        }
        self
    }

    /// The tuples whose trees are done.
    pub fn acked(&self) -> Vec<MessageId> {
        self.lock().acked.iter().copied().collect()
    }

    /// Every failure, in order.
    pub fn failures(&self) -> Vec<(MessageId, FailReason)> {
        self.lock().failures.clone()
    }

    /// How many emissions there were, those of failed tuples again included.
    pub fn emitted(&self) -> usize {
        self.lock().emitted
    }

    /// Whether every tuple's tree is done.
    pub fn is_done(&self) -> bool {
        let fixed = self.lock();
        fixed.acked.len() == fixed.rows.as_ref().map_or(0, RecordBatch::num_rows)
    }

    /// The next tuples for a task to emit.
    fn take(&self, task: usize) -> Result<Option<(RecordBatch, Vec<MessageId>)>, TaskError> {
        let mut fixed = self.lock();
        let count = Self::AT_ONCE.min(fixed.waiting.len());
        let Some(rows) = fixed.rows.clone().filter(|_| count > 0) else { return Ok(None) };
        let ids: Vec<MessageId> = fixed.waiting.drain(..count).collect();
        fixed.under_way.extend(ids.iter().map(|id| (*id, task)));
        fixed.emitted += count;
        let chosen = UInt32Array::from_iter_values(ids.iter().map(|id| *id as u32));
        Ok(Some((take_rows(&rows, &chosen)?, ids)))
    }

    fn lock(&self) -> MutexGuard<'_, Fixed> {
        self.tuples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Spout for FixedSpout {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare_stream(&self.stream, Arc::clone(&self.schema));
    }

    async fn open(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        // What this task's former spout had under way has nobody else.
        self.task = context.task_index();
        let index = self.task;
        let mut fixed = self.lock();
        let mut lost: Vec<MessageId> =
            fixed.under_way.iter().filter(|(_, task)| **task == index).map(|(id, _)| *id).collect();
        lost.sort_unstable();
        for id in lost {
            fixed.under_way.remove(&id);
            fixed.waiting.push_back(id);
        }
        Ok(())
    }

    async fn next(&mut self, out: &mut SpoutOutputCollector) -> Result<Next, TaskError> {
        match self.take(self.task)? {
            None => Ok(Next::Idle),
            Some((rows, ids)) => {
                out.emit(&self.stream, rows, MessageIds::Each(ids)).await?;
                Ok(Next::Emitted)
            }
        }
    }

    async fn acked(&mut self, ids: &[MessageId]) {
        let mut fixed = self.lock();
        for id in ids {
            fixed.under_way.remove(id);
            fixed.acked.insert(*id);
        }
    }

    async fn failed(&mut self, ids: &[MessageId], reason: &FailReason) {
        let mut fixed = self.lock();
        for id in ids {
            fixed.under_way.remove(id);
            fixed.waiting.push_back(*id);
            fixed.failures.push((*id, reason.clone()));
        }
    }
}

fn same_names(one: &SchemaRef, other: &SchemaRef) -> bool {
    let names =
        |schema: &SchemaRef| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    names(one) == names(other)
}

/// Everything that a topology emitted in a run to its end.
#[derive(Clone, Debug)]
pub struct CompletedTopology {
    emitted: BTreeMap<StreamRef, Vec<RecordBatch>>,
    /// The counts at the end.
    pub metrics: TopologyMetrics,
}

impl CompletedTopology {
    /// What a component emitted to a stream, in the order of its arrival.
    pub fn batches(&self, component: &str, stream: &str) -> &[RecordBatch] {
        let stream = StreamRef { component: component.to_owned(), stream: stream.to_owned() };
        self.emitted.get(&stream).map_or(&[], Vec::as_slice)
    }
}

/// Why a topology did not come to its end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CompletionError {
    /// No spout with this name can be replaced.
    #[error("the topology has no spout `{0}`")]
    NoSpout(String),
    /// The topology could not run.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Trees were still open.
    #[error("after {after:?} these spouts were not done: {open}")]
    TimedOut {
        /// The patience that was asked for.
        after: Duration,
        /// The spouts, with how far they came.
        open: String,
    },
}

/// Runs a topology with these spouts in place of its own of the same names, until all their tuples' trees are done; on
/// the current tokio runtime, by the system's clock, for at most `patience`. Nothing that the topology emits for itself
/// later, such as on a tick, is waited for.
///
/// # Errors
///
/// There is no such spout, or the trees are not done in time.
pub async fn complete_topology(
    topology: Topology,
    spouts: &[(&str, FixedSpout)],
    patience: Duration,
) -> Result<CompletedTopology, CompletionError> {
    complete_topology_by(Clock::system(), topology, spouts, patience).await
}

/// As [`complete_topology`], by this clock: ticks come and message time-outs pass when its hand is moved. The patience is
/// the system's time all the same.
///
/// # Errors
///
/// As [`complete_topology`].
pub async fn complete_topology_by(
    clock: Clock,
    mut topology: Topology,
    spouts: &[(&str, FixedSpout)],
    patience: Duration,
) -> Result<CompletedTopology, CompletionError> {
    for (id, fixed) in spouts {
        let spout = topology.components.get_mut(*id).filter(|component| component.is_spout());
        let spout = spout.ok_or_else(|| CompletionError::NoSpout((*id).to_owned()))?;
        let fixed = fixed.clone();
        spout.part = Part::Spout(Arc::new(move || Box::new(fixed.clone())));
    }
    let emitted = Arc::new(Mutex::new(BTreeMap::new()));
    let capture = capture(&topology, Arc::clone(&emitted));
    topology.components.insert("__capture".to_owned(), capture);
    let cluster = LocalCluster::with_clock(clock);
    cluster.submit("completing", topology)?;
    let deadline = tokio::time::Instant::now() + patience;
    let done = || spouts.iter().all(|(_, spout)| spout.is_done());
    while !(done() && cluster.is_idle("completing")?) {
        if tokio::time::Instant::now() > deadline {
            let open = spouts.iter().filter(|(_, spout)| !spout.is_done());
            let open: Vec<String> =
                open.map(|(id, spout)| format!("`{id}`: {} acked", spout.acked().len())).collect();
            cluster.kill("completing", Duration::ZERO).await?;
            return Err(CompletionError::TimedOut { after: patience, open: open.join(", ") });
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let metrics = cluster.metrics("completing")?;
    cluster.kill("completing", Duration::from_secs(1)).await?;
    let emitted = std::mem::take(&mut *emitted.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(CompletedTopology { emitted, metrics })
}

type Emitted = Arc<Mutex<BTreeMap<StreamRef, Vec<RecordBatch>>>>;

/// A bolt that listens to everything, also to what others are sent directly.
fn capture(topology: &Topology, emitted: Emitted) -> Component {
    let mut inputs = Vec::new();
    for (component, declared) in &topology.components {
        for stream in declared.streams.keys() {
            let source = StreamRef { component: component.clone(), stream: stream.clone() };
            inputs.push(Subscription { source, grouping: Grouping::Global });
        }
    }
    let last = topology.components.values().flat_map(|component| component.tasks.iter().copied()).max();
    let task: TaskId = last.unwrap_or_default() + 1;
    Component {
        part: Part::Bolt(Arc::new(move || Box::new(Capture(Arc::clone(&emitted))))),
        executors: 1,
        tasks: vec![task],
        streams: BTreeMap::new(),
        inputs,
        config: ComponentConfig::default(),
    }
}

struct Capture(Emitted);

#[async_trait]
impl Bolt for Capture {
    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        let mut emitted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = (*input.delivery.stream).clone();
        emitted.entry(stream).or_default().push(input.rows().clone());
        out.ack(&input);
        Ok(())
    }
}
