//! Servers that end, stall and refuse while tuples come.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use stratus_connectors::redis::{
    IncrementField, RedisDataType, RedisIncrementBolt, RedisSettings, RedisStoreBolt, StoreFields,
};
use stratus_servers::proxy::{Harm, Proxy, Way};

use crate::broker::eventually;
use crate::redis_server::{Client, Run, impatient, pair, pairs, server, settings};

const TUPLES: usize = 20_000;
const WORDS: usize = 100;

/// Waits until some tuples are through, and not all.
async fn midst(run: &Run) {
    eventually("some are done", || run.spout.acked().len() >= TUPLES / 20).await;
}

async fn until_some_failed(run: &Run) {
    assert!(!run.spout.is_done());
    eventually("some have failed", || !run.spout.failures().is_empty()).await;
}

/// Every count is at least the true one.
async fn assert_none_is_lost(client: &mut Client) {
    let counts: BTreeMap<String, usize> = client.ask("HGETALL counts").await;
    assert_eq!(counts.len(), WORDS);
    assert!(counts.values().all(|count| *count >= TUPLES / WORDS), "{counts:?}");
}

fn words() -> impl Iterator<Item = (String, String)> {
    (0..TUPLES).map(|n| pair(&format!("w{}", n % WORDS), ""))
}

fn counting(settings: RedisSettings) -> RedisIncrementBolt {
    RedisIncrementBolt::new(settings, IncrementField::new("counts", "key"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_increment_is_lost_when_the_server_stalls() {
    let Some(server) = server() else { return };
    let run = Run::start(&pairs(words()), counting(impatient(&server)), 2);
    midst(&run).await;
    server.pause().unwrap();
    until_some_failed(&run).await;
    let why = run.spout.failures()[0].1.to_string();
    let place = format!("the Redis server 127.0.0.1:{} did not answer", server.port());
    assert!(why.contains(&place) && why.contains("no answer within 300ms"), "{why}");
    server.resume().unwrap();
    run.until_done().await;
    run.kill().await;
    assert_none_is_lost(&mut Client::of(&server).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_increment_is_lost_when_the_server_dies() {
    let Some(mut server) = server() else { return };
    let run = Run::start(&pairs(words()), counting(settings(&server)), 2);
    midst(&run).await;
    server.kill().unwrap();
    until_some_failed(&run).await;
    let emitted = run.spout.emitted();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let again = run.spout.emitted() - emitted;
    assert!(again <= 10_000, "{again} emissions within half a second");
    server.restart().unwrap();
    run.until_done().await;
    run.kill().await;
    assert_none_is_lost(&mut Client::of(&server).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_is_exact_although_the_server_dies_and_stalls() {
    let Some(mut server) = server() else { return };
    let stored = (0..TUPLES).map(|n| pair(&format!("key-{n}"), &format!("value {n}")));
    let mapper = StoreFields::new(RedisDataType::String, "key", "value");
    let run = Run::start(&pairs(stored), RedisStoreBolt::new(impatient(&server), mapper), 2);
    midst(&run).await;
    server.kill().unwrap();
    until_some_failed(&run).await;
    server.restart().unwrap();
    let acked = run.spout.acked().len();
    eventually("it goes on", || run.spout.acked().len() > acked).await;
    let failed = run.spout.failures().len();
    server.pause().unwrap();
    eventually("some have failed again", || run.spout.failures().len() > failed).await;
    server.resume().unwrap();
    run.until_done().await;
    run.kill().await;
    let mut client = Client::of(&server).await;
    assert_eq!(client.ask::<usize>("DBSIZE").await, TUPLES);
    let keys: Vec<String> = (0..TUPLES).map(|n| format!("key-{n}")).collect();
    let values: Vec<String> = client.ask(&format!("MGET {}", keys.join(" "))).await;
    assert!(values.iter().enumerate().all(|(n, value)| *value == format!("value {n}")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_lost_make_counts_too_high_and_never_too_low() {
    let Some(server) = server() else { return };
    let proxy = Proxy::start(server.port()).unwrap();
    let url = format!("redis://127.0.0.1:{}?timeout_ms=20000", proxy.port());
    let run = Run::start(&pairs(words()), counting(RedisSettings::new(&url).unwrap()), 1);
    midst(&run).await;
    let mut cuts = 0;
    proxy.harm(move |way, _| match way {
        Way::Back if cuts < 3 => {
            cuts += 1;
            Harm::Cut
        }
        _ => Harm::None,
    });
    run.until_done().await;
    assert!(!run.spout.failures().is_empty());
    run.kill().await;
    let mut client = Client::of(&server).await;
    assert_none_is_lost(&mut client).await;
    let counts: BTreeMap<String, usize> = client.ask("HGETALL counts").await;
    assert!(counts.values().sum::<usize>() > TUPLES, "what had no answer had taken effect");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_another_type_fails_its_tuples_and_does_not_spin() {
    let Some(server) = server() else { return };
    let mut client = Client::of(&server).await;
    client.ask::<redis::Value>("SET counts text").await;
    let tuples = pairs((0..100).map(|n| pair(&format!("w{n}"), "")));
    let began = Instant::now();
    let run = Run::start(&tuples, counting(settings(&server)), 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let rounds = tuples.emitted() / 100;
    let most = began.elapsed().as_millis() as usize / 100 + 2;
    assert!((2..=most).contains(&rounds), "emitted {rounds} times");
    let expected = format!(
        "the Redis server 127.0.0.1:{} refused HINCRBY of key `counts`: WRONGTYPE Operation against a key holding the \
         wrong kind of value; the key holds a value of another type: give the bolt another key, or delete what is there",
        server.port()
    );
    assert_eq!(tuples.failures()[0].1.to_string(), format!("failed by a bolt: {expected}"));
    assert_eq!(run.last_error(), Some(format!("failed tuples: 100; the first: {expected}")));
    client.ask::<redis::Value>("DEL counts").await;
    run.until_done().await;
    run.kill().await;
    assert_eq!(client.ask::<u32>("HLEN counts").await, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_refused_tuple_does_not_hold_up_the_others() {
    let Some(server) = server() else { return };
    let mut client = Client::of(&server).await;
    client.ask::<redis::Value>("SET wrong text").await;
    let mapper = StoreFields::new(RedisDataType::List, "key", "value");
    let stored = (0..TUPLES).map(|n| if n == 0 { pair("wrong", "") } else { pair(&format!("k{n}"), "x") });
    let run = Run::start(&pairs(stored), RedisStoreBolt::new(settings(&server), mapper), 1);
    eventually("all others are done", || run.spout.acked().len() == TUPLES - 1).await;
    assert!(run.spout.failures().iter().all(|(id, _)| *id == 0));
    client.ask::<redis::Value>("DEL wrong").await;
    run.until_done().await;
    run.kill().await;
    assert_eq!(client.ask::<usize>("DBSIZE").await, TUPLES);
}
