//! Counts the words of what comes in by lines, in Redis:
//!
//! ```sh
//! echo "the man on the moon" | cargo run -p stratus-map-states --example word_count_redis -- redis://127.0.0.1:6379
//! redis-cli HGETALL "trident:{words}"
//! ```
//!
//! The lines are a batch each, numbered from 1 at every start. Nothing writes down what was in them, so the state begins
//! anew each time; with a `LogSpout`, whose ledger does, it would go on.

use std::{io::BufRead, sync::Arc, time::Duration};

use arrow::{
    array::{RecordBatch, StringArray},
    datatypes::DataType,
};
use stratus_map_states::{MapStore, RedisMaps};
use stratus_topology::{LocalCluster, fields};
use stratus_trident::{Count, FeederBatchSpout, TridentCollector, TridentTopology, TridentTuple};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let url = std::env::args().nth(1).ok_or("say where Redis is: redis://127.0.0.1:6379")?;
    let maps = RedisMaps::open(&url).await?;
    maps.clear("words").await?;

    let spout = FeederBatchSpout::new(fields([("line", DataType::Utf8)]));
    let topology = TridentTopology::new();
    let split = |tuple: TridentTuple<'_>, out: &mut TridentCollector| {
        tuple.get::<&str>(0)?.split_whitespace().try_for_each(|word| out.emit((word,)))
    };
    let _words = topology
        .new_stream("lines", spout.clone())
        .each(&["line"], split, fields([("word", DataType::Utf8)]))
        .group_by(&["word"])
        .persistent_aggregate(maps.opaque::<i64>("words").cached(10_000), &[], Count, "count")
        .parallelism_hint(2);
    let cluster = LocalCluster::new();
    cluster.submit("word-count", topology.build()?.topology)?;

    let mut last = None;
    for line in std::io::stdin().lock().lines() {
        let line = StringArray::from(vec![line?]);
        last =
            Some(spout.feed(RecordBatch::try_new(fields([("line", DataType::Utf8)]), vec![Arc::new(line)])?));
    }
    if let Some(last) = last {
        spout.wait(last).await;
    }
    cluster.kill("word-count", Duration::from_secs(5)).await?;
    Ok(())
}
