//! The process that counts, and is killed.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc, time::Duration};

use arrow::datatypes::DataType;
use stratus_connectors::kafka::KafkaSettings;
use stratus_logs::kafka::KafkaLog;
use stratus_map_states::{MapStore, RedisMaps};
use stratus_seam::{ids::SourceId, log::Log, store::LedgerStore};
use stratus_topology::{LocalCluster, TaskError, fields};
use stratus_trident::{Count, LogSpout, Pace, Records, TridentCollector, TridentTopology, TridentTuple};

/// Where the child finds everything: a JSON object.
pub(super) const ASKED: &str = "EXACTLY_ONCE_CHILD";

fn split(tuple: TridentTuple<'_>, out: &mut TridentCollector) -> Result<(), TaskError> {
    std::str::from_utf8(tuple.get(0)?)?.split(' ').try_for_each(|word| out.emit((word,)))
}

/// Until it is there: a child that ended by itself could not be killed.
async fn at_last<T, E: Debug>(mut open: impl AsyncFnMut() -> Result<T, E>) -> T {
    loop {
        match open().await {
            Ok(open) => return open,
            Err(error) => eprintln!("not yet: {error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn count(asked: &serde_json::Value) {
    let text = |name: &str| asked[name].as_str().unwrap().to_owned();
    let settings = KafkaSettings::new(&text("brokers"), &BTreeMap::new()).unwrap();
    let (topic, url, name) = (text("topic"), text("redis"), text("name"));
    let log: Arc<dyn Log> =
        Arc::new(at_last(async || KafkaLog::open(&settings, &topic, "words").await).await);
    let source: SourceId = serde_json::from_value(asked["source"].clone()).unwrap();
    let maps = at_last(async || RedisMaps::open(&url).await).await;
    let states = at_last(async || stratus_state::open("redis", &url).await).await;
    let ledger: Arc<dyn LedgerStore> = at_last(async || states.source(source).await).await.ledger;
    let spout = match asked["spout"].as_str() {
        Some("opaque") => LogSpout::opaque(log, ledger, Records),
        _ => LogSpout::transactional(log, ledger, Records),
    };
    let spout = spout.max_bytes(300);
    // In a slow life each new value takes its time, behind the state's write and before the batch is committed: long
    // enough to be seen and cut off by another process.
    let pause = if asked["slow"] == true { Duration::from_millis(1) } else { Duration::ZERO };
    let look = move |_: TridentTuple<'_>| std::thread::sleep(pause);
    let topology = TridentTopology::new().pace(Pace { max_pending: 4, interval: Duration::from_millis(1) });
    let words = topology
        .new_stream("lines", spout)
        .each(&["value"], split, fields([("word", DataType::Utf8)]))
        .parallelism_hint(2)
        .group_by(&["word"]);
    let cached = asked["cached"].as_u64().unwrap() as usize;
    if asked["state"].as_str() == Some("opaque") {
        let counts = maps.opaque::<i64>(&name).cached(cached);
        let counts = words.persistent_aggregate(counts, &[], Count, "n").parallelism_hint(2);
        let _seen = counts.new_values_stream().unwrap().peek(look);
    } else {
        let counts = maps.transactional::<i64>(&name).cached(cached);
        let counts = words.persistent_aggregate(counts, &[], Count, "n").parallelism_hint(2);
        let _seen = counts.new_values_stream().unwrap().peek(look);
    }
    let cluster = LocalCluster::new();
    cluster.submit(&name, topology.build().unwrap().topology).unwrap();
    std::future::pending::<()>().await;
}

/// What the test starts, and kills. Without being asked it does nothing.
#[test]
fn process() {
    let Ok(asked) = std::env::var(ASKED) else { return };
    let asked = serde_json::from_str(&asked).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(count(&asked));
}
