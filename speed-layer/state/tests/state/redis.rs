//! The Redis store on real servers.

use std::sync::Arc;

use stratus_seam::store::StateStore;
use stratus_servers::redis::Redis;
use stratus_state::conformance;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_keeps_the_promises() {
    let Some(server) = Redis::start(&[]).unwrap() else { return };
    let store = stratus_state::open("redis", server.url()).await.unwrap();
    conformance::run_all(|| async { store.clone() as Arc<dyn StateStore> }).await;
}
