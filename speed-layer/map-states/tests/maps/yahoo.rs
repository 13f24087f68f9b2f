//! The reference topology of the Yahoo Streaming Benchmark: views of ads are counted by campaign and window of ten
//! seconds, in Redis. The oracle is the benchmark's own: a recount of the same events.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arrow::{
    array::{RecordBatch, StringArray},
    datatypes::DataType,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use stratus_map_states::{MapStore, RedisMaps};
use stratus_servers::redis::Redis;
use stratus_topology::{LocalCluster, TaskError, fields};
use stratus_trident::{Count, FeederBatchSpout, TridentCollector, TridentTopology, TridentTuple};

const WINDOW_MS: i64 = 10_000;

/// Ads by their campaign.
type Campaigns = Arc<BTreeMap<String, String>>;

fn event(random: &mut StdRng, at: i64) -> (String, String, &'static str, i64) {
    let ad = format!("ad-{}", random.random_range(0..1_000));
    let kind = ["view", "click", "purchase"][random.random_range(0..3)];
    let time = at + random.random_range(-3_000..3_000);
    let text = format!(
        "{{\"user_id\":\"u{}\",\"page_id\":\"p{}\",\"ad_id\":\"{ad}\",\"ad_type\":\"banner\",\"event_type\":\"{kind}\",\
         \"event_time\":\"{time}\",\"ip_address\":\"1.2.3.4\"}}",
        random.random_range(0..100),
        random.random_range(0..100),
    );
    (text, ad, kind, time)
}

/// What of an event counts: the ad, the kind, and the time.
fn parse(tuple: TridentTuple<'_>, out: &mut TridentCollector) -> Result<(), TaskError> {
    let event: serde_json::Value = serde_json::from_str(tuple.get(0)?)?;
    let field = |name: &str| event[name].as_str().ok_or_else(|| TaskError::from(format!("no {name}")));
    let time: i64 = field("event_time")?.parse()?;
    out.emit((field("ad_id")?, field("event_type")?, time))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn campaigns_are_counted_by_window_as_a_recount_says() {
    let Some(redis) = Redis::start(&[]).unwrap() else { return };
    let maps = RedisMaps::open(redis.url()).await.unwrap();
    let campaigns: Campaigns =
        Arc::new((0..1_000).map(|ad| (format!("ad-{ad}"), format!("campaign-{}", ad / 10))).collect());
    let line = fields([("event", DataType::Utf8)]);
    let spout = FeederBatchSpout::new(line.clone());
    let known = Arc::clone(&campaigns);
    let join = move |tuple: TridentTuple<'_>, out: &mut TridentCollector| {
        let (ad, time): (&str, i64) = (tuple.get(0)?, tuple.get(1)?);
        match known.get(ad) {
            Some(campaign) => out.emit((campaign.as_str(), time.div_euclid(WINDOW_MS) * WINDOW_MS)),
            None => Ok(()),
        }
    };
    let topology = TridentTopology::new();
    let _counts = topology
        .new_stream("events", spout.clone())
        .shuffle()
        .each(
            &["event"],
            parse,
            fields([("ad", DataType::Utf8), ("kind", DataType::Utf8), ("time", DataType::Int64)]),
        )
        .filter(&["kind"], |tuple: TridentTuple<'_>| Ok(tuple.get::<&str>(0)? == "view"))
        .project(&["ad", "time"])
        .each(&["ad", "time"], join, fields([("campaign", DataType::Utf8), ("window", DataType::Int64)]))
        .parallelism_hint(2)
        .group_by(&["campaign", "window"])
        .persistent_aggregate(maps.opaque::<i64>("windows"), &[], Count, "views")
        .parallelism_hint(2);
    let cluster = LocalCluster::new();
    cluster.submit("yahoo", topology.build().unwrap().topology).unwrap();

    let mut random = StdRng::seed_from_u64(3);
    let mut truth: BTreeMap<(String, i64), i64> = BTreeMap::new();
    for batch in 0..10 {
        let mut lines = Vec::new();
        for n in 0..1_000 {
            let (text, ad, kind, time) = event(&mut random, 1_700_000_000_000 + batch * 4_000 + n);
            if kind == "view" {
                let window = time.div_euclid(WINDOW_MS) * WINDOW_MS;
                *truth.entry((campaigns[&ad].clone(), window)).or_default() += 1;
            }
            lines.push(text);
        }
        let lines = RecordBatch::try_new(line.clone(), vec![Arc::new(StringArray::from(lines))]).unwrap();
        spout.feed_and_wait(lines).await;
    }
    cluster.kill("yahoo", Duration::from_secs(5)).await.unwrap();

    let text = redis.cli(&["HGETALL", "trident:{windows}"]).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let found = lines.chunks_exact(2).map(|entry| {
        let key: (String, i64) = serde_json::from_str(entry[0]).unwrap();
        let value: serde_json::Value = serde_json::from_str(entry[1]).unwrap();
        (key, value[1].as_i64().unwrap())
    });
    assert_eq!(found.collect::<BTreeMap<_, _>>(), truth);
}
