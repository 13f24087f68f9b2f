//! Servers that refuse for what they are: replicas, nodes of a cluster, servers with users of few rights.

use stratus_connectors::redis::{IncrementField, RedisIncrementBolt, RedisSettings};
use stratus_servers::redis::Redis;

use crate::broker::eventually;
use crate::redis_server::{Client, Run, pair, pairs, server, settings};

fn count(settings: RedisSettings, hash: &str) -> Run {
    let bolt = RedisIncrementBolt::new(settings, IncrementField::new(hash, "key"));
    Run::start(&pairs([pair("a", ""), pair("b", ""), pair("a", "")]), bolt, 1)
}

/// The reason of the first failure.
async fn refused(run: &Run) -> String {
    eventually("they have failed", || run.spout.failures().len() >= 3).await;
    run.spout.failures()[0].1.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_refuses_until_it_is_the_master() {
    let Some(primary) = server() else { return };
    let replica = primary.replica().unwrap();
    replica.until_caught_up(&primary).unwrap();
    let run = count(settings(&replica), "counts");
    let why = refused(&run).await;
    assert!(why.contains("HINCRBY of key `counts`: READONLY") && why.contains("the master"), "{why}");
    replica.promote().unwrap();
    run.until_done().await;
    run.kill().await;
    assert_eq!(Client::of(&replica).await.ask::<Vec<u32>>("HMGET counts a b").await, [2, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_a_cluster_is_told_as_such() {
    let Some(node) = Redis::start(&["--cluster-enabled", "yes"]).unwrap() else { return };
    let run = count(settings(&node), "counts");
    let why = refused(&run).await;
    assert!(why.contains("CLUSTERDOWN") && why.contains("single servers only"), "{why}");
    run.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_needs_the_right_to_the_bolts_commands_and_keys_alone() {
    let Some(server) = server() else { return };
    let mut client = Client::of(&server).await;
    client.ask::<redis::Value>("ACL SETUSER counter on >s3cret ~counts +hincrby").await;
    let url = format!("redis://counter:s3cret@127.0.0.1:{}", server.port());
    let settings = RedisSettings::new(&url).unwrap();
    settings.check().await.unwrap();
    let run = count(settings.clone(), "counts");
    run.until_done().await;
    run.kill().await;
    assert_eq!(client.ask::<Vec<u32>>("HMGET counts a b").await, [2, 1]);
    let run = count(settings, "others");
    let why = refused(&run).await;
    assert!(why.contains("HINCRBY of key `others`: NOPERM") && !why.contains("s3cret"), "{why}");
    run.kill().await;
}
