//! Callers of a Redis server that accepts connections and says nothing, as one does that was stopped.

use std::time::{Duration, Instant};

use stratus_seam::ids::SourceId;
use stratus_seam::store::{StateStore, StoreError};
use stratus_servers::proxy::{Harm, Proxy, Way};
use stratus_servers::redis::Redis;
use stratus_state::redis::RedisStore;

const PATIENCE: Duration = Duration::from_secs(1);

/// Each call is told within its time, however many wait: they do not stand in line to be disappointed one by one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_of_a_silent_server_are_told_in_time() {
    let Some(server) = Redis::start(&["--appendonly", "no"]).unwrap() else { return };
    let proxy = Proxy::start(server.port()).unwrap();
    let url = format!("redis://127.0.0.1:{}?timeout_ms={}", proxy.port(), PATIENCE.as_millis());
    let store = RedisStore::open(&url).await.unwrap();
    let shards = store.source(SourceId::new()).await.unwrap().shards;
    proxy.harm(|way, _| if way == Way::Back { Harm::Mute } else { Harm::None });

    let began = Instant::now();
    let calls = (0..32).map(|shard| {
        let shards = shards.clone();
        tokio::spawn(async move { (shards.meta(shard).await, shards.meta(shard).await) })
    });
    for call in calls.collect::<Vec<_>>() {
        let (first, second) = call.await.unwrap();
        for answer in [first, second] {
            assert!(matches!(answer, Err(StoreError::Unavailable { .. })), "{answer:?}");
        }
    }
    // Two calls, each with a wait for a connection and one for its answer; twice that for a busy machine. One by
    // one it were 16 waits for each of the two connections.
    let took = began.elapsed();
    assert!(took < 8 * PATIENCE, "{took:?}");

    proxy.harm(|_, _| Harm::None);
    tokio::time::sleep(2 * PATIENCE).await;
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(shards.meta(0).await);
    }
    assert!(matches!(answers.last(), Some(Ok(None))), "{answers:?}");
}
