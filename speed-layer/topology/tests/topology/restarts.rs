//! After a restart the counts still add up, and those who share an executor with one that panicked are told to go.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;

use crate::kit::*;
use stratus_topology::*;

type Log = Arc<Mutex<Vec<String>>>;

/// Emits five tuples in two ways, and panics when it is told to.
struct Moody {
    task: usize,
    emitted: bool,
    panics: Arc<Mutex<Option<usize>>>,
    log: Log,
}

impl Moody {
    fn say(&self, what: &str) {
        self.log.lock().unwrap().push(format!("{what} {}", self.task));
    }
}

#[async_trait]
impl Spout for Moody {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(number());
    }

    async fn open(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        self.task = context.task_index();
        self.say("open");
        Ok(())
    }

    async fn next(&mut self, out: &mut SpoutOutputCollector) -> Result<Next, TaskError> {
        if !std::mem::replace(&mut self.emitted, true) {
            out.emit(DEFAULT_STREAM, numbers([0, 1, 2]), MessageIds::From(0)).await?;
            out.emit_tuple(DEFAULT_STREAM, (3_i64,), Some(3)).await?;
            out.emit_tuple(DEFAULT_STREAM, (4_i64,), Some(4)).await?;
            return Ok(Next::Emitted);
        }
        let panics = self.panics.lock().unwrap().take_if(|task| *task == self.task).is_some();
        assert!(!panics, "enough");
        Ok(Next::Idle)
    }

    async fn close(&mut self) {
        self.say("close");
    }
}

/// Emitted, acked, failed, pending, restarted.
fn counts(cluster: &LocalCluster) -> (u64, u64, u64, u64, u64) {
    let metrics = cluster.metrics(NAME).unwrap();
    let (spout, output) =
        (&metrics.components["spout"], &metrics.components["spout"].outputs[DEFAULT_STREAM]);
    (output.emitted, output.acked, output.failed, spout.pending as u64, output.restarted)
}

#[tokio::test]
async fn what_was_open_when_a_spout_panicked_counts_as_failed() {
    let (log, panics) = (Log::default(), Arc::new(Mutex::new(None)));
    let (logging, panicking) = (Arc::clone(&log), Arc::clone(&panics));
    let mut builder = TopologyBuilder::new();
    let make =
        move || Moody { task: 0, emitted: false, panics: Arc::clone(&panicking), log: Arc::clone(&logging) };
    // One executor for the first two tasks, one for the third.
    builder.set_spout("spout", make, 2).set_num_tasks(3);
    // Acks the even ones and holds the others.
    let hold = || {
        let mut held = Vec::new();
        bolt(move |input: Tuples, out| {
            let values = values(input.rows());
            let even: Vec<u32> =
                (0..values.len() as u32).filter(|row| values[*row as usize] % 2 == 0).collect();
            out.ack_rows(&input, &even);
            held.push(input);
            Box::pin(async { Ok(()) })
        })
    };
    builder.set_bolt("bolt", hold, 2).shuffle_grouping("spout");
    let cluster = run(&builder);
    // Tuples 0, 2 and 4 of each task are acked, 1 and 3 are open.
    until("acks", || counts(&cluster) == (15, 9, 0, 6, 0)).await;
    for round in 1..=3 {
        *panics.lock().unwrap() = Some(1);
        // Both tasks of the executor lose two tuples, and begin anew.
        let expected = (15 + round * 10, 9 + round * 6, round * 4, 6, round * 4);
        until("a restart", || counts(&cluster) == expected).await;
    }
    let (emitted, acked, failed, pending, _) = counts(&cluster);
    assert_eq!(emitted, acked + failed + pending);
    assert_eq!(cluster.metrics(NAME).unwrap().components["spout"].panics, 3);
    // The sibling was closed each time, the one that panicked was not.
    let said = |what: &str| log.lock().unwrap().iter().filter(|said| *said == what).count();
    assert_eq!([said("open 0"), said("open 1"), said("open 2")], [4, 4, 1]);
    assert_eq!([said("close 0"), said("close 1"), said("close 2")], [3, 0, 0]);
    let text = cluster.prometheus();
    let line =
        "stratus_topology_restarted_total{topology=\"tested\",component=\"spout\",stream=\"default\"} 12";
    assert!(text.contains(line), "{text}");
    cluster.kill(NAME, Duration::ZERO).await.unwrap();
    assert_eq!([said("close 0"), said("close 1"), said("close 2")], [4, 1, 1]);
}

/// Writes down its calls, and panics at a number.
struct Crew {
    task: usize,
    log: Log,
}

#[async_trait]
impl Bolt for Crew {
    async fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        self.task = context.task_index();
        self.log.lock().unwrap().push(format!("prepare {}", self.task));
        Ok(())
    }

    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        assert!(values(input.rows()) != [self.task as i64], "enough");
        out.ack(&input);
        Ok(())
    }

    async fn cleanup(&mut self) {
        self.log.lock().unwrap().push(format!("cleanup {}", self.task));
    }
}

#[tokio::test]
async fn bolts_that_share_an_executor_with_one_that_panicked_clean_up() {
    let (feeder, log) = (Feeder::new(), Log::default());
    let logging = Arc::clone(&log);
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", feeder.spout(), 1);
    let make = move || Crew { task: 0, log: Arc::clone(&logging) };
    builder.set_bolt("bolt", make, 1).set_num_tasks(3).all_grouping("spout");
    let cluster = run(&builder);
    feeder.feed_rows(numbers([1]), MessageIds::From(1));
    until("a failure", || feeder.told() == 1).await;
    until("a restart", || log.lock().unwrap().len() == 8).await;
    end(&cluster).await;
    let prepared = ["prepare 0", "prepare 1", "prepare 2"];
    let expected =
        [&prepared[..], &["cleanup 0", "cleanup 2"], &prepared, &["cleanup 0", "cleanup 1", "cleanup 2"]];
    assert_eq!(*log.lock().unwrap(), expected.concat());
}
