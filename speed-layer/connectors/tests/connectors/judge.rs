//! A bolt that notes every tuple and does with it as the test says, and a topology of a Kafka spout and that bolt.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use arrow::{
    array::{Array, AsArray},
    datatypes::{Int32Type, Int64Type},
};
use async_trait::async_trait;
use stratus_connectors::kafka::{KafkaSpout, KafkaSpoutConfig, KafkaSpoutStats};
use stratus_topology::{
    Bolt, ComponentConfig, LocalCluster, OutputCollector, TaskError, TaskId, TopologyBuilder, TopologyConfig,
    Tuples,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) value: String,
    pub(crate) task: TaskId,
    /// How often it was seen before.
    pub(crate) before: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sentence {
    Ack,
    Fail,
    /// To be judged again a little later.
    Hold,
}

type Judgement = Arc<dyn Fn(&Seen) -> Sentence + Send + Sync>;

struct Judge {
    seen: Arc<Mutex<Vec<Seen>>>,
    judgement: Judgement,
    held: Vec<(Tuples, u32, Seen)>,
}

impl Judge {
    fn sentence(&mut self, tuples: &Tuples, row: u32, seen: Seen, out: &mut OutputCollector) {
        match (self.judgement)(&seen) {
            Sentence::Ack => out.ack_rows(tuples, &[row]),
            Sentence::Fail => out.fail_rows(tuples, &[row], "so it was judged"),
            Sentence::Hold => self.held.push((tuples.clone(), row, seen)),
        }
    }
}

#[async_trait]
impl Bolt for Judge {
    fn configuration(&self) -> ComponentConfig {
        ComponentConfig { tick: Some(Duration::from_millis(10)), ..ComponentConfig::default() }
    }

    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        if input.is_tick() {
            out.ack(&input);
            for (tuples, row, seen) in std::mem::take(&mut self.held) {
                self.sentence(&tuples, row, seen, out);
            }
            return Ok(());
        }
        let rows = input.rows();
        let column = |name: &str| rows.column_by_name(name).unwrap().clone();
        let (partition, offset, value) = (column("partition"), column("offset"), column("value"));
        assert!(column("timestamp").is_valid(0) && column("topic").is_valid(0) && column("key").is_valid(0));
        for tuple in input.iter() {
            let row = tuple.row();
            let mut all = self.seen.lock().unwrap();
            let mut seen = Seen {
                partition: partition.as_primitive::<Int32Type>().value(row),
                offset: offset.as_primitive::<Int64Type>().value(row),
                value: String::from_utf8(value.as_binary::<i32>().value(row).to_vec()).unwrap(),
                task: tuple.source_task(),
                before: 0,
            };
            let same = |one: &&Seen| (one.partition, one.offset) == (seen.partition, seen.offset);
            seen.before = all.iter().filter(same).count();
            all.push(seen.clone());
            drop(all);
            self.sentence(&input, row as u32, seen, out);
        }
        Ok(())
    }
}

/// A topology that runs.
pub(crate) struct Run {
    pub(crate) cluster: LocalCluster,
    name: String,
    pub(crate) stats: KafkaSpoutStats,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Run {
    pub(crate) fn start(
        name: &str,
        config: KafkaSpoutConfig,
        tasks: usize,
        judgement: impl Fn(&Seen) -> Sentence + Send + Sync + 'static,
    ) -> Self {
        let spout = KafkaSpout::new(config);
        let (stats, seen) = (spout.stats(), Arc::new(Mutex::new(Vec::new())));
        let (judgement, notes): (Judgement, _) = (Arc::new(judgement), seen.clone());
        let mut builder = TopologyBuilder::new();
        builder
            .config(TopologyConfig { message_timeout: Duration::from_secs(60), ..TopologyConfig::default() });
        builder.set_spout("kafka", move || spout.clone(), tasks);
        let judge = move || Judge { seen: notes.clone(), judgement: judgement.clone(), held: Vec::new() };
        builder.set_bolt("judge", judge, 1).shuffle_grouping("kafka");
        let cluster = LocalCluster::new();
        cluster.submit(name, builder.build().unwrap()).unwrap();
        Self { cluster, name: name.to_owned(), stats, seen }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn offsets(&self) -> Vec<i64> {
        self.seen().iter().map(|seen| seen.offset).collect()
    }

    pub(crate) fn values(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.value).collect()
    }

    pub(crate) async fn until_seen(&self, count: usize) {
        crate::broker::eventually(&format!("{count} tuples"), || self.seen().len() >= count).await;
    }

    /// Ends it. Waits only for what is under way.
    pub(crate) async fn kill(self) {
        self.cluster.kill(&self.name, Duration::from_millis(500)).await.unwrap();
    }

    /// Starts it in a process of its own, as far as that can be had: see [`Process::crash`].
    pub(crate) fn start_apart(
        name: &str,
        config: KafkaSpoutConfig,
        tasks: usize,
        judgement: impl Fn(&Seen) -> Sentence + Send + Sync + 'static,
    ) -> (Self, Process) {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        let inside = runtime.enter();
        let run = Self::start(name, config, tasks, judgement);
        drop(inside);
        (run, Process(runtime))
    }

    pub(crate) fn deactivate(&self) {
        self.cluster.deactivate(&self.name).unwrap();
    }

    pub(crate) fn activate(&self) {
        self.cluster.activate(&self.name).unwrap();
    }
}

/// A runtime in which a topology runs.
pub(crate) struct Process(tokio::runtime::Runtime);

impl Process {
    /// Everything in it is gone; nothing is settled or closed.
    pub(crate) fn crash(self, run: Run) {
        self.0.shutdown_background();
        drop(run);
    }
}

/// Long enough for something that must not happen to happen.
pub(crate) async fn a_while() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}
