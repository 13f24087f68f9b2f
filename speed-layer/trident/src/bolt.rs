//! The bolt that runs a group of operations, batch by batch.
//!
//! Tuples are not anchored. At the end of a batch every task tells each task behind it how many tuples of the batch it
//! has sent there; these words are anchored to the coordinator's tuple, so a batch is done when all of them are acked,
//! and a task acks them when the counts are right and its own operations and words are done. A task that has lost
//! tuples with its memory cannot come to the right count: the batch fails and is tried again.

mod operations;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch},
    datatypes::{Int64Type, SchemaRef},
};
use async_trait::async_trait;
use stratus_topology::{
    Anchors, Bolt, EmitError, OutputCollector, OutputFieldsDeclarer, TaskContext, TaskError, TaskId, Tuples,
};

pub(crate) use operations::{Operations, Place, Plan as OperationsPlan, Source};
pub(crate) use words::{
    BATCH, COMMIT, COORD, batch_rows, batch_schema, commit_row, commit_schema, coord_schema,
};

use crate::{
    batch::TransactionAttempt,
    spout::{Emitter, TridentSpout},
};

/// Batches this far behind one that is finished are forgotten.
const REMEMBERED: u64 = 1_000;

/// What a task of a group is to do.
pub(crate) struct GroupBolt {
    pub(crate) spec: Arc<GroupSpec>,
    operations: Operations,
    emitter: Option<Box<dyn Emitter>>,
    batches: BTreeMap<u64, Batch>,
    /// Attempts below these were replaced; what still comes of them is nobody's.
    attempts: BTreeMap<u64, u64>,
    listeners: Vec<TaskId>,
    /// How many tasks report before the commit, and how many only then.
    reports: Reports,
}

/// Words of tasks, by when they come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reports {
    early: usize,
    late: usize,
}

/// What the tasks of a group have in common.
pub(crate) struct GroupSpec {
    /// The declared streams.
    pub(crate) streams: Vec<(String, SchemaRef)>,
    /// From which (component, stream) tuples go into which operation, as which input.
    pub(crate) sources: Vec<Source>,
    /// The components that report to this one.
    pub(crate) upstream: BTreeSet<String>,
    /// Those of them whose words come only while the batch commits: they write a state, or are behind one that does.
    pub(crate) late: BTreeSet<String>,
    /// The components that this one reports to.
    pub(crate) downstream: BTreeSet<String>,
    pub(crate) commits: bool,
    pub(crate) spout: Option<(String, Arc<dyn TridentSpout>)>,
    pub(crate) operations: operations::Plan,
}

/// A batch under way.
struct Batch {
    attempt: u64,
    received: u64,
    expected: u64,
    reports: Reports,
    /// Whether it is this batch's turn to commit.
    committing: bool,
    /// What tells it from other batches of the same number, if that is known.
    digest: Option<u64>,
    states: operations::States,
    /// The words that are acked when this task is done with the batch.
    held: Vec<Tuples>,
    sent: BTreeMap<TaskId, u64>,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Tuples are coming.
    Gathering,
    /// All have come; the commit has not.
    Complete,
    /// Something went wrong with this attempt.
    Failed(String),
}

impl GroupBolt {
    pub(crate) fn new(spec: Arc<GroupSpec>) -> Self {
        Self {
            operations: Operations::default(),
            spec,
            emitter: None,
            batches: BTreeMap::new(),
            attempts: BTreeMap::new(),
            listeners: Vec::new(),
            reports: Reports::default(),
        }
    }

    /// The batch of an attempt; `None` if a later attempt has replaced it.
    fn batch(&mut self, attempt: TransactionAttempt) -> Option<&mut Batch> {
        let latest = self.attempts.entry(attempt.txid).or_insert(attempt.attempt);
        if *latest > attempt.attempt {
            return None;
        }
        if *latest < attempt.attempt {
            *latest = attempt.attempt;
            self.batches.remove(&attempt.txid);
        }
        if !self.batches.contains_key(&attempt.txid) {
            // Far fewer are ever under way. Those of calls that failed are not asked for again.
            let forgotten = attempt.txid.saturating_sub(REMEMBERED);
            self.batches.retain(|txid, _| *txid > forgotten);
            self.attempts.retain(|txid, _| *txid > forgotten);
        }
        let operations = &mut self.operations;
        Some(self.batches.entry(attempt.txid).or_insert_with(|| Batch {
            attempt: attempt.attempt,
            received: 0,
            expected: 0,
            reports: Reports::default(),
            committing: false,
            digest: None,
            states: operations.start_batch(attempt),
            held: Vec::new(),
            sent: BTreeMap::new(),
            phase: Phase::Gathering,
        }))
    }

    /// Batches up to this one are committed: nothing of them is needed any more.
    fn forget(&mut self, committed: u64) {
        self.batches.retain(|txid, _| *txid > committed);
        self.attempts.retain(|txid, _| *txid > committed);
    }

    /// Emits what operations have come to, and remembers how much went where.
    async fn send(
        &mut self,
        attempt: TransactionAttempt,
        outputs: Vec<(String, RecordBatch)>,
        out: &mut OutputCollector,
    ) -> Result<(), EmitError> {
        if outputs.is_empty() {
            return Ok(());
        }
        out.label(Some(attempt.label())).await?;
        let _ = out.take_sent();
        for (stream, rows) in outputs {
            out.emit(&stream, rows, Anchors::None).await?;
        }
        let sent = out.take_sent();
        if let Some(batch) = self.batch(attempt) {
            for (task, rows) in sent {
                *batch.sent.entry(task).or_default() += rows;
            }
        }
        Ok(())
    }

    /// Something went wrong with a batch: whoever waits for it is told, and what comes later of this attempt, too.
    fn fail(&mut self, attempt: TransactionAttempt, why: &dyn std::fmt::Display, out: &mut OutputCollector) {
        tracing::warn!(%attempt, "a batch fails: {why}");
        if let Some(batch) = self.batch(attempt) {
            batch.phase = Phase::Failed(why.to_string());
            batch.states.clear();
            let held = std::mem::take(&mut batch.held);
            held.iter().for_each(|tuples| out.fail(tuples, why));
        }
    }

    async fn on_batch(
        &mut self,
        attempt: TransactionAttempt,
        input: Tuples,
        out: &mut OutputCollector,
    ) -> Result<(), EmitError> {
        let rows = input.rows();
        if let Some(committed) = rows.column(2).as_primitive::<Int64Type>().iter().flatten().next() {
            self.forget(committed as u64);
        }
        let spec = Arc::clone(&self.spec);
        let name = spec.spout.as_ref().map_or("", |(name, _)| name);
        let names = rows.column(0).as_string::<i32>();
        let row = names.iter().position(|known| known == Some(name));
        let Some(metadata) = row.map(|row| rows.column(1).as_string::<i32>().value(row).to_owned()) else {
            // The rest of a word that was cut in pieces, or its beginning.
            out.ack(&input);
            return Ok(());
        };
        let Some(batch) = self.batch(attempt) else {
            out.ack(&input);
            return Ok(());
        };
        batch.held.push(input);
        let emitted = match &mut self.emitter {
            Some(emitter) => emitter.emit(attempt, &metadata).await,
            None => Err("this task has no emitter".into()),
        };
        let fragments = match emitted {
            Ok(fragments) => fragments,
            Err(error) => {
                self.fail(attempt, &error, out);
                return Ok(());
            }
        };
        for rows in fragments.into_iter().filter(|rows| rows.num_rows() > 0) {
            let Some(batch) = self.batches.get_mut(&attempt.txid) else { return Ok(()) };
            match self.operations.emitted(&mut batch.states, rows) {
                Ok(outputs) => self.send(attempt, outputs, out).await?,
                Err(error) => {
                    self.fail(attempt, &error, out);
                    return Ok(());
                }
            }
        }
        self.proceed(attempt, out).await
    }

    async fn on_rows(
        &mut self,
        attempt: TransactionAttempt,
        input: &Tuples,
        out: &mut OutputCollector,
    ) -> Result<(), EmitError> {
        let source = (input.source_component(), input.source_stream());
        let count = input.len() as u64;
        let spec = Arc::clone(&self.spec);
        let rows = input.rows().clone();
        let Some(batch) = self.batch(attempt) else { return Ok(()) };
        batch.received += count;
        if matches!(batch.phase, Phase::Failed(_)) {
            return Ok(());
        }
        let Some(batch) = self.batches.get_mut(&attempt.txid) else { return Ok(()) };
        match self.operations.received(&spec.sources, source, &mut batch.states, rows) {
            Ok(outputs) => self.send(attempt, outputs, out).await,
            Err(error) => {
                self.fail(attempt, &error, out);
                Ok(())
            }
        }
    }

    async fn on_count(
        &mut self,
        attempt: TransactionAttempt,
        input: Tuples,
        out: &mut OutputCollector,
    ) -> Result<(), EmitError> {
        let counts: i64 = input.rows().column(0).as_primitive::<Int64Type>().values().iter().sum();
        let words = input.len();
        let late = self.spec.late.contains(input.source_component());
        let waits_for_commit = !self.spec.late.is_empty();
        let Some(batch) = self.batch(attempt) else {
            out.ack(&input);
            return Ok(());
        };
        if let Phase::Failed(why) = &batch.phase {
            out.fail(&input, why);
            return Ok(());
        }
        batch.expected += counts as u64;
        if late {
            batch.reports.late += words;
            batch.held.push(input);
        } else {
            batch.reports.early += words;
            if waits_for_commit {
                // The others report only when the batch commits, and it does so only if this is acked.
                out.ack(&input);
            } else {
                batch.held.push(input);
            }
        }
        self.proceed(attempt, out).await
    }

    /// Goes on with a batch as far as what has come allows.
    async fn proceed(
        &mut self,
        attempt: TransactionAttempt,
        out: &mut OutputCollector,
    ) -> Result<(), EmitError> {
        let (all, commits) = (self.reports, self.spec.commits);
        let Some(batch) = self.batch(attempt) else { return Ok(()) };
        let begun_to_commit = batch.committing || batch.reports.late > 0;
        if begun_to_commit && batch.reports.early < all.early {
            // All tasks have seen the whole batch before it commits: this one lost its memory since.
            let why = format!("batch {attempt} is to be committed, but this task does not have it");
            self.fail(attempt, &why, out);
            return Ok(());
        }
        if batch.reports != all {
            return Ok(());
        }
        if batch.received != batch.expected {
            let why = format!("{} of {} tuples of batch {attempt} have come", batch.received, batch.expected);
            self.fail(attempt, &why, out);
            return Ok(());
        }
        if commits && !batch.committing {
            // The rest is done at the commit, in the order of the transactions.
            batch.phase = Phase::Complete;
            if all.late == 0 {
                std::mem::take(&mut batch.held).iter().for_each(|tuples| out.ack(tuples));
            }
            return Ok(());
        }
        self.finish(attempt, out).await
    }

    async fn on_commit(
        &mut self,
        attempt: TransactionAttempt,
        input: Tuples,
        out: &mut OutputCollector,
    ) -> Result<(), EmitError> {
        let word = |column| input.rows().column(column).as_primitive::<Int64Type>().iter().flatten().next();
        let (committed, digest) = (word(0).unwrap_or(0), word(1).map(i64::cast_unsigned));
        self.forget(committed as u64);
        // Where states follow on one another, this may be the first that a task hears of a batch.
        let may_begin = self.reports.early == 0 && self.reports.late > 0;
        let known = self.batches.get(&attempt.txid).is_some_and(|batch| batch.attempt == attempt.attempt);
        let batch = if known || may_begin { self.batch(attempt) } else { None };
        match batch {
            Some(batch) if !matches!(batch.phase, Phase::Failed(_)) => {
                batch.committing = true;
                batch.digest = digest;
                batch.held.push(input);
                self.proceed(attempt, out).await
            }
            _ => {
                let why = format!("batch {attempt} is to be committed, but this task does not have it");
                out.fail(&input, why);
                Ok(())
            }
        }
    }

    /// Finishes a batch's operations, tells those behind how much they were sent, and lets the batch go.
    async fn finish(
        &mut self,
        attempt: TransactionAttempt,
        out: &mut OutputCollector,
    ) -> Result<(), EmitError> {
        let Some(mut batch) = self.batches.remove(&attempt.txid) else { return Ok(()) };
        let held = std::mem::take(&mut batch.held);
        let outputs = match self.operations.finish_batch(attempt, batch.digest, batch.states).await {
            Ok(outputs) => outputs,
            Err(error) => {
                tracing::warn!(%attempt, "a batch fails: {error}");
                held.iter().for_each(|tuples| out.fail(tuples, &error));
                return Ok(());
            }
        };
        out.label(Some(attempt.label())).await?;
        let _ = out.take_sent();
        for (stream, rows) in outputs {
            out.emit(&stream, rows, Anchors::None).await?;
        }
        for (task, rows) in out.take_sent() {
            *batch.sent.entry(task).or_default() += rows;
        }
        let anchors: Vec<&Tuples> = held.iter().collect();
        for task in &self.listeners {
            let count = batch.sent.get(task).copied().unwrap_or(0) as i64;
            let counts: ArrayRef = Arc::new(Int64Array::from(vec![count]));
            let rows = RecordBatch::try_new(coord_schema(), vec![counts])?;
            out.emit_direct(*task, COORD, rows, Anchors::Every(&anchors)).await?;
        }
        held.iter().for_each(|tuples| out.ack(tuples));
        Ok(())
    }
}

#[async_trait]
impl Bolt for GroupBolt {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        for (stream, schema) in &self.spec.streams {
            declarer.declare_stream(stream, Arc::clone(schema));
        }
        declarer.declare_direct_stream(COORD, coord_schema());
    }

    async fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        let spec = Arc::clone(&self.spec);
        self.operations = spec.operations.make()?;
        self.operations.prepare(context).await?;
        self.listeners = spec.downstream.iter().flat_map(|id| context.component_tasks(id).to_vec()).collect();
        let (late, early): (Vec<_>, Vec<_>) = spec.upstream.iter().partition(|id| spec.late.contains(*id));
        let tasks = |of: Vec<&String>| of.into_iter().map(|id| context.component_tasks(id).len()).sum();
        self.reports = Reports { early: tasks(early), late: tasks(late) };
        if let Some((_, spout)) = &spec.spout {
            self.emitter = Some(spout.emitter(context).await?);
        }
        Ok(())
    }

    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        let attempt = TransactionAttempt::of(input.label().ok_or("a tuple belongs to no batch")?);
        let done = match input.source_stream() {
            BATCH => self.on_batch(attempt, input, out).await,
            COMMIT => self.on_commit(attempt, input, out).await,
            COORD => self.on_count(attempt, input, out).await,
            _ => {
                let done = self.on_rows(attempt, &input, out).await;
                // Nobody waits for rows: they are counted.
                out.ack(&input);
                done
            }
        };
        match done {
            Err(EmitError::Stopped) => Err(EmitError::Stopped.into()),
            // Rows that did not leave are not among those that were counted, and rows are not anchored: nobody else
            // would notice.
            Err(error) => {
                self.fail(attempt, &error, out);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}
