//! One value of all batches, in redb and in Redis, in states of every kind, and over a restart.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{Int64Array, RecordBatch},
    datatypes::DataType,
};
use stratus_map_states::MapStore;
use stratus_servers::redis::Redis;
use stratus_topology::{LocalCluster, fields};
use stratus_trident::{
    BackingMap, FeederBatchSpout, MapState, OpaqueValue, StateFactory, StateKind, Sum, TransactionalValue,
    TridentTopology,
};

use crate::stores::{File, Place};

fn numbers(numbers: &[i64]) -> RecordBatch {
    let schema = fields([("number", DataType::Int64)]);
    RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(numbers.to_vec()))]).unwrap()
}

/// Sums batches up in a state.
async fn sum<F>(spout: &FeederBatchSpout, factory: F, batches: &[&[i64]])
where
    F: StateFactory,
    F::State: MapState<i64>,
{
    let topology = TridentTopology::new();
    topology.new_stream("numbers", spout.clone()).parallelism_hint(2).persistent_aggregate(
        factory,
        &["number"],
        Sum,
        "sum",
    );
    let cluster = LocalCluster::new();
    cluster.submit("sum", topology.build().unwrap().topology).unwrap();
    for batch in batches {
        spout.feed_and_wait(numbers(batch)).await;
    }
    cluster.kill("sum", Duration::from_secs(10)).await.unwrap();
}

fn spouts() -> [FeederBatchSpout; 3] {
    [(); 3].map(|()| FeederBatchSpout::new(fields([("number", DataType::Int64)])))
}

async fn all<P: Place>() {
    let Some(place) = P::begin() else { return };
    let spouts = spouts();
    for batches in [&[&[1, 2, 3][..], &[]], &[&[10][..], &[20, 30]]] {
        let maps = place.open().await;
        sum(&spouts[0], maps.opaque::<i64>("opaque"), batches).await;
        sum(&spouts[1], maps.transactional::<i64>("transactional").cached(10), batches).await;
        sum(&spouts[2], maps.non_transactional::<i64>("plain"), batches).await;
    }
    let (maps, key) = (place.open().await, ["[]".to_owned()]);
    let mut opaque = maps.map::<OpaqueValue<i64>>(StateKind::Opaque, "opaque").await.unwrap();
    assert_eq!(opaque.multi_get(&key).await.unwrap(), [Some(OpaqueValue::new(4, 66, Some(16)))]);
    let kind = StateKind::Transactional;
    let mut transactional = maps.map::<TransactionalValue<i64>>(kind, "transactional").await.unwrap();
    assert_eq!(transactional.multi_get(&key).await.unwrap(), [Some(TransactionalValue(4, 66))]);
    let mut plain = maps.map::<i64>(StateKind::NonTransactional, "plain").await.unwrap();
    assert_eq!(plain.multi_get(&key).await.unwrap(), [Some(66)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_redb() {
    all::<File>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_redis() {
    all::<Redis>().await;
}
