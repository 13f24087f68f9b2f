//! What the storing bolt writes, read back by a bare client.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use arrow::datatypes::DataType;
use stratus_connectors::redis::{RedisDataType, RedisStoreBolt, RedisStoreMapper, StoreFields};
use stratus_topology::{RowBuilder, TaskError, Tuple, fields};

use crate::redis_server::{Client, Run, pair, pairs, server, settings, spout};

/// Stores pairs.
async fn store(
    server: &stratus_servers::redis::Redis,
    data_type: RedisDataType,
    stored: impl IntoIterator<Item = (String, String)>,
) {
    let bolt = RedisStoreBolt::new(settings(server), StoreFields::new(data_type, "key", "value"));
    let run = Run::start(&pairs(stored), bolt, 1);
    run.until_done().await;
    assert_eq!(run.spout.failures(), []);
    run.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_data_type_is_stored() {
    let Some(server) = server() else { return };
    let mut client = Client::of(&server).await;
    store(&server, RedisDataType::String, [pair("s", "1"), pair("t", "x"), pair("s", "2")]).await;
    assert_eq!(client.ask::<Vec<String>>("MGET s t").await, ["2", "x"]);

    let prices = RedisDataType::Hash("prices".to_owned());
    store(&server, prices, [pair("pear", "3"), pair("fig", "4"), pair("pear", "5")]).await;
    let prices: BTreeMap<String, u32> = client.ask("HGETALL prices").await;
    assert_eq!(prices, BTreeMap::from([("fig".to_owned(), 4), ("pear".to_owned(), 5)]));

    store(&server, RedisDataType::List, [pair("l", "a"), pair("l", "b"), pair("l", "a")]).await;
    assert_eq!(client.ask::<Vec<String>>("LRANGE l 0 -1").await, ["a", "b", "a"]);

    store(&server, RedisDataType::Set, [pair("set", "a"), pair("set", "b"), pair("set", "a")]).await;
    let members: BTreeSet<String> = client.ask("SMEMBERS set").await;
    assert_eq!(members, BTreeSet::from(["a".to_owned(), "b".to_owned()]));

    let ranks = RedisDataType::SortedSet("ranks".to_owned());
    store(&server, ranks, [pair("x", "2.5"), pair("y", "-1"), pair("z", "2")]).await;
    let ranks: Vec<(String, f64)> = client.ask("ZRANGE ranks 0 -1 WITHSCORES").await;
    assert_eq!(ranks, [("y".to_owned(), -1.0), ("z".to_owned(), 2.0), ("x".to_owned(), 2.5)]);

    let visitors = (0..1_000).map(|n| pair("visitors", &format!("visitor {}", n % 100)));
    store(&server, RedisDataType::HyperLogLog, visitors).await;
    assert!((97..=103).contains(&client.ask::<u64>("PFCOUNT visitors").await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_and_truth_values_are_stored_as_text_and_bytes_as_they_are() {
    let Some(server) = server() else { return };
    let schema = fields([
        ("key", DataType::Int32),
        ("bytes", DataType::Binary),
        ("large", DataType::UInt64),
        ("fraction", DataType::Float32),
        ("truth", DataType::Boolean),
    ]);
    let mut rows = RowBuilder::new(schema, 1).unwrap();
    rows.append((-7, &b"\xff\0\r\n"[..], u64::MAX, 0.5_f32, true)).unwrap();
    let rows = rows.finish();
    let mut client = Client::of(&server).await;
    let expected: [(&str, &[u8]); 4] = [
        ("bytes", b"\xff\0\r\n"),
        ("large", b"18446744073709551615"),
        ("fraction", b"0.5"),
        ("truth", b"true"),
    ];
    for (value, stored) in expected {
        let mapper = StoreFields::new(RedisDataType::String, "key", value);
        let run = Run::start(&spout(rows.clone()), RedisStoreBolt::new(settings(&server), mapper), 1);
        run.until_done().await;
        run.kill().await;
        assert_eq!(client.ask::<Vec<u8>>("GET -7").await, stored, "{value}");
    }
}

/// Keys made of two fields, and no value for some tuples.
struct Made;

impl RedisStoreMapper for Made {
    fn data_type(&self) -> RedisDataType {
        RedisDataType::String
    }

    fn key<'a>(&self, tuple: Tuple<'a>) -> Result<Cow<'a, [u8]>, TaskError> {
        Ok(format!("{}-{}", tuple.get::<&str>(0)?, tuple.get::<&str>(1)?).into_bytes().into())
    }

    fn value<'a>(&self, tuple: Tuple<'a>) -> Result<Cow<'a, [u8]>, TaskError> {
        match tuple.get::<&[u8]>(1)? {
            b"none" => Err("there is none".into()),
            value => Ok(value.into()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tuple_that_a_mapper_refuses_fails_and_the_others_do_not() {
    let Some(server) = server() else { return };
    let tuples = pairs([pair("a", "1"), pair("b", "none"), pair("c", "3")]);
    let run = Run::start(&tuples, RedisStoreBolt::new(settings(&server), Made), 1);
    crate::broker::eventually("it has failed twice", || tuples.failures().len() >= 2).await;
    assert_eq!(tuples.acked(), [0, 2]);
    let (id, why) = &tuples.failures()[0];
    assert_eq!((*id, why.to_string().as_str()), (1, "failed by a bolt: there is none"));
    assert_eq!(run.last_error().as_deref(), Some("failed tuples: 1; the first: there is none"));
    let mut client = Client::of(&server).await;
    assert_eq!(
        client.ask::<Vec<Option<String>>>("MGET a-1 b-none c-3").await,
        [Some("1".into()), None, Some("3".into())]
    );
    run.kill().await;
}
