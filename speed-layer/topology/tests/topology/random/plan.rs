//! A topology drawn from a seed.

use std::{collections::BTreeMap, time::Duration};

use arrow::{array::AsArray, array::RecordBatch, datatypes::Int64Type};
use fastrand::Rng;
use stratus_topology::*;

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) config: TopologyConfig,
    pub(super) spouts: Vec<Component>,
    pub(super) bolts: Vec<Bolt>,
    /// Tuples of each spout.
    pub(super) tuples: u32,
    /// How many mishaps there are, all in all: no more than that, so that the topology comes to an end.
    pub(super) mishaps: usize,
}

#[derive(Debug)]
pub(super) struct Component {
    pub(super) id: String,
    pub(super) executors: usize,
    pub(super) tasks: usize,
    pub(super) config: ComponentConfig,
}

#[derive(Debug)]
pub(super) struct Bolt {
    pub(super) part: Component,
    pub(super) inputs: BTreeMap<String, Way>,
    pub(super) job: Job,
    pub(super) mishap: Mishap,
}

/// What a bolt does with its tuples.
#[derive(Clone, Copy, Debug)]
pub(super) enum Job {
    /// Emits each so many times over.
    Copy(usize),
    /// Emits one for so many, or for fewer after a tick.
    Merge(usize),
    /// Emits for about every second.
    Filter,
    /// Acks only.
    End,
}

/// What goes wrong in a bolt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mishap {
    Fail,
    Error,
    Panic,
    Forget,
    /// Not really a mishap: tuples are acked by a later call.
    Hold,
    /// They are acked when their time is over.
    HoldTooLong,
}

/// A grouping, of which is known how many tasks receive each tuple.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    Shuffle,
    Local,
    Key,
    Roots,
    Partial,
    Global,
    All,
    Two,
}

impl Way {
    pub(super) fn made(self) -> Grouping {
        match self {
            Self::Shuffle => Grouping::Shuffle,
            Self::Local => Grouping::LocalOrShuffle,
            Self::Key => Grouping::fields(&["key"]),
            Self::Roots => Grouping::fields(&["roots", "key"]),
            Self::Partial => Grouping::partial_key(&["key"]),
            Self::Global => Grouping::Global,
            Self::All => Grouping::All,
            Self::Two => Grouping::custom(|| TwoTasks(0)),
        }
    }

    fn receivers(self, tasks: usize) -> usize {
        match self {
            Self::All => tasks,
            Self::Two => tasks.min(2),
            _ => 1,
        }
    }
}

/// Sends each row to two neighbours.
struct TwoTasks(usize);

impl CustomGrouping for TwoTasks {
    fn prepare(&mut self, context: &GroupingContext) {
        self.0 = context.targets.len();
    }

    fn choose_tasks(&mut self, rows: &RecordBatch, choice: &mut TaskChoice) -> Result<(), TaskError> {
        for (row, key) in rows.column(0).as_primitive::<Int64Type>().values().iter().enumerate() {
            let first = *key as usize % self.0;
            choice.send(row, first);
            if self.0 > 1 {
                choice.send(row, (first + 1) % self.0);
            }
        }
        Ok(())
    }
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        loop {
            let plan = Self::draw(seed, &mut rng);
            if plan.rows() < 4_000 {
                return plan;
            }
        }
    }

    fn draw(seed: u64, rng: &mut Rng) -> Self {
        let spouts: Vec<Component> =
            (0..rng.usize(1..4)).map(|n| Component::draw(format!("spout-{n}"), rng)).collect();
        let too_long = rng.u8(0..12) == 0;
        let mut sources: Vec<String> = spouts.iter().map(|spout| spout.id.clone()).collect();
        let mut bolts = Vec::new();
        for number in 0..rng.usize(1..7) {
            let bolt = Bolt::draw(format!("bolt-{number}"), &sources, too_long, rng);
            if !matches!(bolt.job, Job::End) {
                sources.push(bolt.part.id.clone());
            }
            bolts.push(bolt);
        }
        let mut config = TopologyConfig {
            ackers: rng.usize(1..4),
            message_timeout: Duration::from_secs(600),
            max_spout_pending: one(rng, &[1, 3, 20, 1_000]),
            batch_rows: one(rng, &[1, 3, 50, 4_096]),
            linger: Duration::from_millis(rng.u64(0..3)),
            queue_rows: one(rng, &[1, 2, 8, 100, 16_384]),
            queue_bytes: one(rng, &[1, 2_000, 16 << 20]),
            ..TopologyConfig::default()
        };
        let mishaps = one(rng, &[0, 2, 10, 40]);
        // Where nothing is held too long a busy machine must not make it so.
        if too_long && mishaps > 0 {
            config.message_timeout = Duration::from_secs(1);
        }
        Self { seed, config, spouts, bolts, tuples: rng.u32(1..150), mishaps }
    }

    /// How many tasks receive each tuple that a component emits.
    pub(super) fn receivers(&self, component: &str) -> usize {
        let listening = self.bolts.iter().filter_map(|bolt| Some((bolt, bolt.inputs.get(component)?)));
        listening.map(|(bolt, way)| way.receivers(bolt.part.tasks)).sum()
    }

    /// About how many rows bolts receive, without mishaps.
    fn rows(&self) -> usize {
        let mut emitted: BTreeMap<&str, usize> =
            self.spouts.iter().map(|spout| (spout.id.as_str(), self.tuples as usize)).collect();
        let mut rows = 0;
        for bolt in &self.bolts {
            let inputs = bolt.inputs.iter();
            let received: usize =
                inputs.map(|(source, way)| emitted[source.as_str()] * way.receivers(bolt.part.tasks)).sum();
            let factor = if let Job::Copy(times) = bolt.job { times } else { 1 };
            emitted.insert(&bolt.part.id, received * factor);
            rows += received;
        }
        rows
    }
}

impl Component {
    fn draw(id: String, rng: &mut Rng) -> Self {
        let executors = rng.usize(1..4);
        let config = ComponentConfig {
            own_thread: rng.u8(0..8) == 0,
            queue_rows: (rng.u8(0..4) == 0).then(|| rng.usize(1..10)),
            ..ComponentConfig::default()
        };
        Self { id, executors, tasks: executors + rng.usize(0..3), config }
    }
}

impl Bolt {
    fn draw(id: String, sources: &[String], too_long: bool, rng: &mut Rng) -> Self {
        let mut part = Component::draw(id, rng);
        part.config.tick = Some(Duration::from_millis(1));
        let ways =
            [Way::Shuffle, Way::Local, Way::Key, Way::Roots, Way::Partial, Way::Global, Way::All, Way::Two];
        let mut inputs = BTreeMap::new();
        for _ in 0..rng.usize(1..4) {
            inputs.insert(sources[rng.usize(0..sources.len())].clone(), one(rng, &ways));
        }
        let job = one(
            rng,
            &[Job::Copy(1), Job::Copy(1), Job::Copy(2), Job::Merge(2), Job::Merge(7), Job::Filter, Job::End],
        );
        let mishaps = [Mishap::Fail, Mishap::Error, Mishap::Panic, Mishap::Forget, Mishap::Hold];
        let mishap = if too_long { Mishap::HoldTooLong } else { one(rng, &mishaps) };
        Self { part, inputs, job, mishap }
    }
}

pub(super) fn one<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(0..of.len())]
}
