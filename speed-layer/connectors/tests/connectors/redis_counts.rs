//! What the counting bolt adds.

use std::{borrow::Cow, collections::BTreeMap};

use arrow::datatypes::DataType;
use stratus_connectors::redis::{IncrementField, RedisIncrement, RedisIncrementBolt, RedisIncrementMapper};
use stratus_topology::{RowBuilder, TaskError, Tuple, fields};

use crate::redis_server::{Client, Run, pair, pairs, server, settings, spout};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn increments_are_the_true_counts() {
    let Some(server) = server() else { return };
    let mut random = fastrand::Rng::with_seed(7);
    let mut truth: BTreeMap<String, u64> = BTreeMap::new();
    let words: Vec<String> = (0..20_000).map(|_| format!("word {}", random.u32(..500))).collect();
    words.iter().for_each(|word| *truth.entry(word.clone()).or_default() += 1);
    let tuples = pairs(words.iter().map(|word| pair(word, "")));
    let bolt = RedisIncrementBolt::new(settings(&server), IncrementField::new("counts", "key"));
    let run = Run::start(&tuples, bolt, 3);
    run.until_done().await;
    assert_eq!(tuples.failures(), []);
    run.kill().await;
    let mut client = Client::of(&server).await;
    assert_eq!(client.ask::<BTreeMap<String, u64>>("HGETALL counts").await, truth);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_fields_of_a_batch_are_one_increment() {
    let Some(server) = server() else { return };
    // The spout emits a hundred at once.
    let tuples = pairs((0..100).map(|n| pair(["a", "b"][n % 2], "")));
    let bolt = RedisIncrementBolt::new(settings(&server), IncrementField::new("counts", "key"));
    let run = Run::start(&tuples, bolt, 1);
    run.until_done().await;
    run.kill().await;
    let mut client = Client::of(&server).await;
    assert_eq!(client.ask::<Vec<u32>>("HMGET counts a b").await, [50, 50]);
    assert_eq!(client.calls("hincrby").await, 2);
}

/// Adds the second field to a hash that is named like the first one's beginning.
struct ByKind;

impl RedisIncrementMapper for ByKind {
    fn increment<'a>(&'a self, tuple: Tuple<'a>) -> Result<RedisIncrement<'a>, TaskError> {
        let (hash, field) = tuple.get::<&str>(0)?.split_once(' ').ok_or("it has no kind")?;
        Ok(RedisIncrement {
            hash: hash.as_bytes().into(),
            field: Cow::Borrowed(field.as_bytes()),
            amount: tuple.get(1)?,
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amounts_and_hashes_may_be_the_tuples_own() {
    let Some(server) = server() else { return };
    let mut rows =
        RowBuilder::new(fields([("key", DataType::Utf8), ("amount", DataType::Int64)]), 8).unwrap();
    let half = i64::MAX / 2;
    // The last field's sum is too large for one increment, and not for the two that it takes.
    let given =
        [("a x", 5), ("b x", 7), ("a x", -8), ("a y", 0), ("b z", -half), ("b z", -half), ("b z", -half)];
    given.iter().for_each(|given| rows.append(*given).unwrap());
    rows.append(("b z", half)).unwrap();
    let tuples = spout(rows.finish());
    let run = Run::start(&tuples, RedisIncrementBolt::new(settings(&server), ByKind), 1);
    run.until_done().await;
    assert_eq!(tuples.failures(), []);
    run.kill().await;
    let mut client = Client::of(&server).await;
    assert_eq!(client.ask::<Vec<i64>>("HMGET a x y").await, [-3, 0]);
    assert_eq!(client.ask::<Vec<i64>>("HMGET b x z").await, [7, -2 * half]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_field_of_the_tuple_is_the_amount() {
    let Some(server) = server() else { return };
    let mut rows =
        RowBuilder::new(fields([("key", DataType::Utf8), ("amount", DataType::Int32)]), 3).unwrap();
    [("a", 5), ("b", 7), ("a", 8)].iter().for_each(|given| rows.append(*given).unwrap());
    let mapper = IncrementField::new("sums", "key").by("amount");
    let run = Run::start(&spout(rows.finish()), RedisIncrementBolt::new(settings(&server), mapper), 1);
    run.until_done().await;
    run.kill().await;
    let mut client = Client::of(&server).await;
    assert_eq!(client.ask::<Vec<i64>>("HMGET sums a b").await, [13, 7]);
}
