//! Storm's `ShuffleGroupingTest`, with several emitters at once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;

use crate::kit::*;
use stratus_topology::*;

/// Emits so many tuples in batches of sizes of its own, or one by one.
struct Emitter {
    task: usize,
    left: usize,
}

#[async_trait]
impl Spout for Emitter {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(number());
    }

    async fn open(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        self.task = context.task_index();
        Ok(())
    }

    async fn next(&mut self, out: &mut SpoutOutputCollector) -> Result<Next, TaskError> {
        let size = [1, 1 + self.left * 7_919 % 300, 4_096, 1_000][self.task % 4].min(self.left);
        if size == 0 {
            return Ok(Next::Idle);
        }
        self.left -= size;
        match self.task % 4 {
            0 => out.emit_tuple(DEFAULT_STREAM, (self.task as i64,), Some(0)).await?,
            task => out.emit(DEFAULT_STREAM, numbers(vec![task as i64; size]), MessageIds::From(0)).await?,
        }
        Ok(Next::Emitted)
    }
}

/// How many tuples of each emitter each task has received.
type Received = Arc<Mutex<BTreeMap<(usize, i64), usize>>>;

struct Tally(usize, Received);

#[async_trait]
impl Bolt for Tally {
    async fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        self.0 = context.task_index();
        Ok(())
    }

    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        for from in values(input.rows()) {
            *self.1.lock().unwrap().entry((self.0, from)).or_default() += 1;
        }
        out.ack(&input);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shuffle_of_several_emitters_is_even() {
    const EACH: usize = 30_000;
    const TASKS: usize = 6;
    for grouping in [Grouping::Shuffle, Grouping::LocalOrShuffle, Grouping::None] {
        let received = Received::default();
        let mut builder = TopologyBuilder::new();
        builder.set_spout("spout", || Emitter { task: 0, left: EACH }, 4);
        let receiving = Arc::clone(&received);
        let tally = move || Tally(0, Arc::clone(&receiving));
        builder.set_bolt("bolt", tally, 2).set_num_tasks(TASKS).input("spout", grouping.clone());
        let cluster = run(&builder);
        until("acks", || {
            let metrics = cluster.metrics(NAME).unwrap();
            metrics.components["spout"].outputs[DEFAULT_STREAM].acked == 4 * EACH as u64
        })
        .await;
        end(&cluster).await;
        let received = received.lock().unwrap();
        for from in 0..4 {
            let of_one: Vec<usize> =
                (0..TASKS).map(|task| received.get(&(task, from)).copied().unwrap_or(0)).collect();
            assert_eq!(of_one.iter().sum::<usize>(), EACH);
            let (least, most) = (of_one.iter().min().unwrap(), of_one.iter().max().unwrap());
            assert!(most - least <= 128, "{grouping:?} from {from}: {of_one:?}");
        }
        // Emitters begin with different tasks, so that what is uneven does not add up: well within what it may be.
        let all: Vec<usize> =
            (0..TASKS).map(|task| (0..4).map(|from| received[&(task, from)]).sum()).collect();
        let (least, most) = (all.iter().min().unwrap(), all.iter().max().unwrap());
        assert!(most - least <= 4 * 128, "{grouping:?}: {all:?}");
        assert!(*most <= 4 * EACH / TASKS * 102 / 100, "{grouping:?}: {all:?}");
    }
}
