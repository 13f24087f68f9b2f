//! What the bolts that ask emit.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use arrow::{array::AsArray, datatypes::DataType};
use stratus_connectors::redis::{
    FilterField, LookupField, RedisDataType, RedisFilterBolt, RedisLookupBolt, RedisMembership,
};
use stratus_servers::redis::Redis;
use stratus_topology::{
    BasicBolt, BasicOutputCollector, Bolt, DEFAULT_STREAM, PerTuple, TaskError, TopologyBuilder, Tuple,
    fields,
    testing::{FixedSpout, complete_topology},
};

use crate::broker::PATIENCE;
use crate::redis_server::{Client, Run, pair, pairs, server, settings};

/// What a bolt emits for keys, with the tuples' first two fields.
async fn emitted(bolt: impl Bolt + Clone + Sync, keys: &[&str]) -> Vec<(String, Option<String>)> {
    let spout = pairs(keys.iter().map(|key| pair(key, "given")));
    let emitting = spout.clone();
    let mut builder = TopologyBuilder::new();
    builder.set_spout("keys", move || emitting.clone(), 1);
    builder.set_bolt("redis", move || bolt.clone(), 1).shuffle_grouping("keys");
    let topology = builder.build().unwrap();
    let completed = complete_topology(topology, &[("keys", spout.clone())], PATIENCE).await.unwrap();
    assert_eq!(spout.failures(), []);
    let mut all = Vec::new();
    for rows in completed.batches("redis", DEFAULT_STREAM) {
        let (keys, values) = (rows.column(0).as_string::<i32>(), rows.column(1).as_string::<i32>());
        all.extend(keys.iter().flatten().map(str::to_owned).zip(values.iter().map(|v| v.map(str::to_owned))));
    }
    all
}

async fn looked_up(server: &Redis, data_type: RedisDataType, keys: &[&str]) -> Vec<Option<String>> {
    let bolt = RedisLookupBolt::new(settings(server), LookupField::new(data_type, "key", "found"));
    let emitted = emitted(bolt, keys).await;
    let (emitted, values): (Vec<String>, Vec<_>) = emitted.into_iter().unzip();
    assert_eq!(emitted, keys, "in order, and all");
    values
}

fn some(value: &str) -> Option<String> {
    Some(value.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_data_type_is_looked_up_and_absent_keys_are_nulls() {
    let Some(server) = server() else { return };
    let mut client = Client::of(&server).await;
    for command in [
        "SET s 1",
        "SET empty ",
        "HSET h x 2 y 3",
        "RPUSH l first second",
        "SADD set a b c",
        "ZADD z 2.5 x -1 y",
        "PFADD p a b a",
    ] {
        client.ask::<redis::Value>(command).await;
    }
    let strings = looked_up(&server, RedisDataType::String, &["s", "none", "empty", "s"]).await;
    assert_eq!(strings, [some("1"), None, some(""), some("1")]);
    let hash = looked_up(&server, RedisDataType::Hash("h".to_owned()), &["y", "none", "x"]).await;
    assert_eq!(hash, [some("3"), None, some("2")]);
    let none = looked_up(&server, RedisDataType::Hash("none".to_owned()), &["y"]).await;
    assert_eq!(none, [None]);
    for _ in 0..2 {
        let list = looked_up(&server, RedisDataType::List, &["l", "none"]).await;
        assert_eq!(list, [some("first"), None], "what is looked up stays");
    }
    let set = looked_up(&server, RedisDataType::Set, &["set", "none"]).await;
    assert_eq!(set, [some("3"), some("0")]);
    let scores = looked_up(&server, RedisDataType::SortedSet("z".to_owned()), &["x", "none", "y"]).await;
    assert_eq!(scores, [some("2.5"), None, some("-1")]);
    let numbers = looked_up(&server, RedisDataType::HyperLogLog, &["p", "none"]).await;
    assert_eq!(numbers, [some("2"), some("0")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_known_passes_a_filter() {
    let Some(server) = server() else { return };
    let mut client = Client::of(&server).await;
    for command in ["RPUSH a 1", "SET c 1", "HSET h a 1 c 1", "SADD s a c", "ZADD z 0 a 1 c"] {
        client.ask::<redis::Value>(command).await;
    }
    for membership in [
        RedisMembership::Keys,
        RedisMembership::Hash("h".to_owned()),
        RedisMembership::Set("s".to_owned()),
        RedisMembership::SortedSet("z".to_owned()),
    ] {
        let schema = fields([("key", DataType::Utf8), ("value", DataType::Utf8)]);
        let mapper = FilterField::new(membership.clone(), "key", schema);
        let bolt = RedisFilterBolt::new(settings(&server), mapper);
        let passed = emitted(bolt, &["a", "b", "c", "d", "a"]).await;
        let given = |key: &str| (key.to_owned(), some("given"));
        assert_eq!(passed, [given("a"), given("c"), given("a")], "{membership:?}");
    }
}

/// Fails what it gets, until it is told not to.
struct Gate(Arc<AtomicBool>);

impl BasicBolt for Gate {
    fn execute(&mut self, _tuple: Tuple<'_>, _out: &mut BasicOutputCollector<'_>) -> Result<(), TaskError> {
        match self.0.load(SeqCst) {
            true => Ok(()),
            false => Err("closed".into()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_emitted_is_anchored_to_what_was_looked_up() {
    let Some(server) = server() else { return };
    let (spout, open) = (pairs([pair("none", "")]), Arc::new(AtomicBool::new(false)));
    let lookup = LookupField::new(RedisDataType::String, "key", "found");
    let (lookup, gate) = (RedisLookupBolt::new(settings(&server), lookup), Arc::clone(&open));
    let emitting = spout.clone();
    let mut builder = TopologyBuilder::new();
    builder.set_spout("tuples", move || emitting.clone(), 1);
    builder.set_bolt("redis", move || lookup.clone(), 1).shuffle_grouping("tuples");
    builder.set_bolt("gate", move || PerTuple::new(Gate(Arc::clone(&gate))), 1).shuffle_grouping("redis");
    let cluster = stratus_topology::LocalCluster::new();
    cluster.submit("anchored", builder.build().unwrap()).unwrap();
    crate::broker::eventually("it has failed", || !spout.failures().is_empty()).await;
    assert_eq!(spout.failures()[0].1.to_string(), "failed by a bolt: closed");
    open.store(true, SeqCst);
    crate::broker::eventually("it is done", || spout.is_done()).await;
    cluster.kill("anchored", Duration::from_secs(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_another_type_fails_its_lookup_alone() {
    let Some(server) = server() else { return };
    let mut client = Client::of(&server).await;
    client.ask::<redis::Value>("RPUSH list 1").await;
    let mapper = LookupField::new(RedisDataType::String, "key", "found");
    let spout: FixedSpout = pairs([pair("a", ""), pair("list", ""), pair("b", "")]);
    let run = Run::start(&spout, RedisLookupBolt::new(settings(&server), mapper), 1);
    crate::broker::eventually("it has failed", || !spout.failures().is_empty()).await;
    let (id, why) = spout.failures()[0].clone();
    assert_eq!(id, 1);
    assert!(why.to_string().contains("refused GET of key `list`: WRONGTYPE"), "{why}");
    client.ask::<redis::Value>("DEL list").await;
    run.until_done().await;
    run.kill().await;
}
