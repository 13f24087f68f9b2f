//! What the tests put into topologies, and how they look at them.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch},
    datatypes::{DataType, Int64Type, SchemaRef},
};
use async_trait::async_trait;
use stratus_topology::*;

/// The schema of most streams here: one number.
pub(crate) fn number() -> SchemaRef {
    fields([("n", DataType::Int64)])
}

/// Rows of [`number`].
pub(crate) fn numbers(values: impl IntoIterator<Item = i64>) -> RecordBatch {
    let column: ArrayRef = Arc::new(values.into_iter().collect::<Int64Array>());
    RecordBatch::try_new(number(), vec![column]).unwrap()
}

/// What [`numbers`] made rows of.
pub(crate) fn values(rows: &RecordBatch) -> Vec<i64> {
    rows.column(0).as_primitive::<Int64Type>().values().to_vec()
}

/// A future that a closure bolt returns.
pub(crate) type Call<'a> = Pin<Box<dyn Future<Output = Result<(), TaskError>> + Send + 'a>>;
type Execute = Box<dyn for<'a> FnMut(Tuples, &'a mut OutputCollector) -> Call<'a> + Send>;

/// A bolt made of a closure.
pub(crate) struct FnBolt {
    execute: Execute,
    streams: Vec<(String, SchemaRef, bool)>,
    config: ComponentConfig,
}

/// A bolt that declares a default stream of numbers and does this with each batch.
pub(crate) fn bolt<F>(execute: F) -> FnBolt
where
    F: for<'a> FnMut(Tuples, &'a mut OutputCollector) -> Call<'a> + Send + 'static,
{
    let streams = vec![(DEFAULT_STREAM.to_owned(), number(), false)];
    FnBolt { execute: Box::new(execute), streams, config: ComponentConfig::default() }
}

/// A bolt that looks at each batch, acks it and emits nothing.
pub(crate) fn sink(mut look: impl FnMut(&Tuples) + Send + 'static) -> FnBolt {
    bolt(move |input, out| {
        look(&input);
        out.ack(&input);
        Box::pin(async { Ok(()) })
    })
}

impl FnBolt {
    /// With the settings that it asks for.
    pub(crate) fn asking(mut self, config: ComponentConfig) -> Self {
        self.config = config;
        self
    }

    pub(crate) fn stream(mut self, id: &str, schema: SchemaRef) -> Self {
        self.streams.push((id.to_owned(), schema, false));
        self
    }

    pub(crate) fn direct_stream(mut self, id: &str, schema: SchemaRef) -> Self {
        self.streams.push((id.to_owned(), schema, true));
        self
    }
}

#[async_trait]
impl Bolt for FnBolt {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        for (id, schema, direct) in &self.streams {
            match direct {
                true => declarer.declare_direct_stream(id, Arc::clone(schema)),
                false => declarer.declare_stream(id, Arc::clone(schema)),
            }
        }
    }

    fn configuration(&self) -> ComponentConfig {
        self.config.clone()
    }

    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        (self.execute)(input, out).await
    }
}

/// A spout that emits what a test feeds it, one batch per call, and remembers what it was told. Clones share all.
#[derive(Clone, Debug)]
pub(crate) struct Feeder {
    schema: SchemaRef,
    fed: Arc<Mutex<Fed>>,
}

#[derive(Debug, Default)]
pub(crate) struct Fed {
    waiting: VecDeque<(RecordBatch, MessageIds)>,
    pub(crate) acked: Vec<MessageId>,
    pub(crate) failed: Vec<(MessageId, FailReason)>,
    /// How often `next` was called.
    pub(crate) asked: usize,
    /// The other calls.
    pub(crate) calls: Vec<&'static str>,
}

impl Feeder {
    pub(crate) fn new() -> Self {
        Self::of(number())
    }

    pub(crate) fn of(schema: SchemaRef) -> Self {
        Self { schema, fed: Arc::default() }
    }

    /// One tuple: the number, which is also its message id.
    pub(crate) fn feed(&self, n: u64) {
        self.feed_rows(numbers([n as i64]), MessageIds::From(n));
    }

    pub(crate) fn feed_rows(&self, rows: RecordBatch, ids: MessageIds) {
        self.look().waiting.push_back((rows, ids));
    }

    pub(crate) fn look(&self) -> MutexGuard<'_, Fed> {
        self.fed.lock().unwrap()
    }

    /// What was acked since the last time, in order.
    pub(crate) fn acks(&self) -> Vec<MessageId> {
        let mut acked = std::mem::take(&mut self.look().acked);
        acked.sort_unstable();
        acked
    }

    /// What failed since the last time, in order.
    pub(crate) fn failures(&self) -> Vec<(MessageId, FailReason)> {
        let mut failed = std::mem::take(&mut self.look().failed);
        failed.sort_unstable_by_key(|(id, _)| *id);
        failed
    }

    /// Of how many tuples it was told the end.
    pub(crate) fn told(&self) -> usize {
        let fed = self.look();
        fed.acked.len() + fed.failed.len()
    }

    /// Makes the spouts of a component.
    pub(crate) fn spout(&self) -> impl Fn() -> Self + Send + Sync + 'static {
        let feeder = self.clone();
        move || feeder.clone()
    }
}

#[async_trait]
impl Spout for Feeder {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(Arc::clone(&self.schema));
    }

    async fn open(&mut self, _: &TaskContext) -> Result<(), TaskError> {
        self.look().calls.push("open");
        Ok(())
    }

    async fn activate(&mut self) {
        self.look().calls.push("activate");
    }

    async fn deactivate(&mut self) {
        self.look().calls.push("deactivate");
    }

    async fn next(&mut self, out: &mut SpoutOutputCollector) -> Result<Next, TaskError> {
        let waiting = {
            let mut fed = self.look();
            fed.asked += 1;
            fed.waiting.pop_front()
        };
        match waiting {
            None => Ok(Next::Idle),
            Some((rows, ids)) => {
                out.emit(DEFAULT_STREAM, rows, ids).await?;
                Ok(Next::Emitted)
            }
        }
    }

    async fn acked(&mut self, ids: &[MessageId]) {
        assert!(!ids.is_empty(), "told of nothing");
        self.look().acked.extend(ids);
    }

    async fn failed(&mut self, ids: &[MessageId], reason: &FailReason) {
        assert!(!ids.is_empty(), "told of nothing");
        self.look().failed.extend(ids.iter().map(|id| (*id, reason.clone())));
    }

    async fn close(&mut self) {
        self.look().calls.push("close");
    }
}

/// The name that the tests submit by.
pub(crate) const NAME: &str = "tested";

/// A cluster that runs what was built.
pub(crate) fn run(builder: &TopologyBuilder) -> LocalCluster {
    let cluster = LocalCluster::new();
    cluster.submit(NAME, builder.build().unwrap()).unwrap();
    cluster
}

/// A cluster that runs what was built, by a clock that stands still.
pub(crate) fn run_by_hand(builder: &TopologyBuilder) -> (LocalCluster, ClockHand) {
    let (clock, hand) = Clock::manual();
    let cluster = LocalCluster::with_clock(clock);
    cluster.submit(NAME, builder.build().unwrap()).unwrap();
    (cluster, hand)
}

/// Waits for something that has to happen.
pub(crate) async fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < Duration::from_secs(20), "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until everything that was sent has been executed and nothing more follows.
pub(crate) async fn settled(cluster: &LocalCluster) {
    let counts = || {
        let metrics = cluster.metrics(NAME).unwrap();
        let (mut sent, mut executed) = (0, 0);
        for component in metrics.components.values() {
            sent += component.outputs.values().map(|output| output.transferred).sum::<u64>();
            let inputs = component.inputs.iter().filter(|((source, _), _)| source != SYSTEM_COMPONENT);
            executed += inputs.map(|(_, input)| input.executed).sum::<u64>();
        }
        (sent, executed)
    };
    let (mut last, mut calm) = (counts(), 0);
    let begun = Instant::now();
    while calm < 4 {
        assert!(begun.elapsed() < Duration::from_secs(20), "sent and executed: {last:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
        let now = counts();
        calm = if now == last && now.0 == now.1 { calm + 1 } else { 0 };
        last = now;
    }
}

/// Ends the topology, which must have worked off everything.
pub(crate) async fn end(cluster: &LocalCluster) {
    let killed = cluster.kill(NAME, Duration::from_secs(20)).await.unwrap();
    assert!(killed.drained, "{:#?}", cluster.topologies());
}

/// The failure that a bolt names.
pub(crate) fn because(why: &str) -> FailReason {
    FailReason::Failed(why.into())
}

/// No message id.
pub(crate) const NOTHING: [MessageId; 0] = [];
