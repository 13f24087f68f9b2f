//! The example, from a topic to the hash.

use std::{collections::BTreeMap, time::Duration};

use stratus_servers::{free_port, redis::Redis};

use crate::broker::{PATIENCE, Topic};
use crate::kafka_counts::{Arguments, run};
use crate::redis_server::{Client, server};

fn arguments(topic: &Topic, server: &Redis) -> Arguments {
    Arguments {
        brokers: topic.settings().brokers().to_owned(),
        topic: topic.name.clone(),
        redis: server.url().to_owned(),
        hash: "counts".to_owned(),
        group: "connectors".to_owned(),
    }
}

async fn until_counted(client: &mut Client, words: u64) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while client.ask::<Vec<u64>>("HVALS counts").await.iter().sum::<u64>() < words {
        assert!(tokio::time::Instant::now() < deadline, "not all words are counted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_words_of_a_topic_are_counted_exactly_when_nothing_fails() {
    let (Some(topic), Some(server)) = (Topic::new(2), server()) else { return };
    let mut random = fastrand::Rng::with_seed(11);
    let mut truth: BTreeMap<String, u64> = BTreeMap::new();
    let mut lines: Vec<String> = Vec::new();
    for _ in 0..3_000 {
        let words: Vec<String> = (0..random.usize(..8)).map(|_| format!("w{}", random.u32(..300))).collect();
        words.iter().for_each(|word| *truth.entry(word.clone()).or_default() += 1);
        lines.push(words.join(" "));
    }
    let words = truth.values().sum();
    let mut client = Client::of(&server).await;
    topic.send(0, &lines[..1_000]);
    topic.send(1, &lines[1_000..2_000]);
    // It is stopped in the midst: what it has read is counted, and the next run goes on behind that.
    let stop = until_counted(&mut client, 10);
    run(arguments(&topic, &server), stop).await.unwrap();
    let mut other = Client::of(&server).await;
    topic.send(1, &lines[2_000..]);
    run(arguments(&topic, &server), until_counted(&mut other, words)).await.unwrap();
    assert_eq!(other.ask::<BTreeMap<String, u64>>("HGETALL counts").await, truth);
    assert_eq!((topic.committed_offset(0), topic.committed_offset(1)), (Some(1_000), Some(2_000)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_cannot_be_used_end_the_example_with_their_names() {
    let (Some(topic), Some(server)) = (Topic::new(1), server()) else { return };
    let given = arguments(&topic, &server);
    let port = free_port().unwrap();
    let given = Arguments { redis: format!("redis://:s3cret@127.0.0.1:{port}"), ..given };
    let error = run(given, std::future::pending::<()>()).await.unwrap_err().to_string();
    assert!(error.contains(&format!("127.0.0.1:{port}")) && !error.contains("s3cret"), "{error}");
    let given = Arguments { topic: "no-such-topic".to_owned(), ..arguments(&topic, &server) };
    let error = run(given, std::future::pending::<()>()).await.unwrap_err().to_string();
    assert!(error.contains("no-such-topic"), "{error}");
}

#[test]
fn arguments_are_taken_and_mistakes_are_told() {
    let of = |given: &str, url: Option<&str>| {
        Arguments::of(given.split_whitespace().map(str::to_owned), url.map(str::to_owned))
    };
    let given = of("--topic t --brokers b:1 --redis redis://r", Some("redis://other")).unwrap();
    assert_eq!(
        (given.topic.as_str(), given.brokers.as_str(), given.redis.as_str()),
        ("t", "b:1", "redis://r")
    );
    assert_eq!((given.hash.as_str(), given.group.as_str()), ("counts", "kafka-counts"));
    assert_eq!(of("--topic t --brokers b", Some("redis://other")).unwrap().redis, "redis://other");
    for (wrong, told) in [
        ("--topic t --redis r", "--brokers is missing"),
        ("--topic t --brokers b", "--redis is missing"),
        ("--topic", "--topic has no value"),
        ("--help", "--help is not an argument"),
    ] {
        let error = of(wrong, None).unwrap_err().to_string();
        assert!(error.starts_with(told) && error.contains("usage: "), "{error}");
    }
}
