//! Kills that meet.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;

use crate::kit::*;
use stratus_topology::*;

/// Takes its time to clean up.
struct Tidy(Arc<AtomicUsize>);

#[async_trait]
impl Bolt for Tidy {
    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        out.ack(&input);
        Ok(())
    }

    async fn cleanup(&mut self) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.0.fetch_add(1, SeqCst);
    }
}

fn tidy(cleaned: &Arc<AtomicUsize>) -> TopologyBuilder {
    let mut builder = TopologyBuilder::new();
    builder.set_spout("spout", Feeder::new().spout(), 1);
    let cleaning = Arc::clone(cleaned);
    builder.set_bolt("bolt", move || Tidy(Arc::clone(&cleaning)), 3).shuffle_grouping("spout");
    builder
}

#[tokio::test]
async fn whoever_kills_returns_when_everything_is_closed_and_the_name_is_free_only_then() {
    let cleaned = Arc::new(AtomicUsize::new(0));
    let builder = tidy(&cleaned);
    let cluster = Arc::new(run(&builder));
    tokio::time::sleep(Duration::from_millis(20)).await;
    let kills = (0..4).map(|_| {
        let (cluster, cleaned) = (Arc::clone(&cluster), Arc::clone(&cleaned));
        tokio::spawn(async move {
            let killed = cluster.kill(NAME, Duration::from_secs(5)).await.unwrap();
            (killed.drained, cleaned.load(SeqCst))
        })
    });
    let kills: Vec<_> = kills.collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let taken = cluster.submit(NAME, builder.build().unwrap());
    assert_eq!(taken, Err(ClusterError::Taken(NAME.to_owned())), "it still closes");
    for kill in kills {
        assert_eq!(kill.await.unwrap(), (true, 3));
    }
    cluster.submit(NAME, builder.build().unwrap()).unwrap();
    end(&cluster).await;
}

#[tokio::test]
async fn a_kill_that_is_given_up_halfway_can_be_finished_by_another() {
    let cleaned = Arc::new(AtomicUsize::new(0));
    let cluster = run(&tidy(&cleaned));
    tokio::time::sleep(Duration::from_millis(20)).await;
    let short = tokio::time::timeout(Duration::from_millis(50), cluster.kill(NAME, Duration::from_secs(5)));
    assert!(short.await.is_err());
    assert_eq!(cleaned.load(SeqCst), 0);
    assert_eq!(cluster.topologies()[NAME].1, TopologyStatus::Killed);
    end(&cluster).await;
    assert_eq!(cleaned.load(SeqCst), 3);
}
