//! Batches for tests, and a cluster that runs a topology while a test looks at it.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{RecordBatch, StringArray},
    datatypes::{DataType, SchemaRef},
};
use stratus_topology::{LocalCluster, TopologyMetrics, fields};
use stratus_trident::TridentTopology;

/// A field `sentence`, or whatever it is called.
pub(crate) fn text(field: &str) -> SchemaRef {
    fields([(field, DataType::Utf8)])
}

/// A batch of texts.
pub(crate) fn batch(field: &str, texts: &[&str]) -> RecordBatch {
    RecordBatch::try_new(text(field), vec![Arc::new(StringArray::from(texts.to_vec()))]).unwrap()
}

/// Runs a topology while `test` runs.
pub(crate) async fn run<T>(
    topology: &TridentTopology,
    test: impl Future<Output = T>,
) -> (T, TopologyMetrics) {
    let plan = topology.build().unwrap();
    let cluster = LocalCluster::new();
    cluster.submit("test", plan.topology).unwrap();
    let done = match tokio::time::timeout(Duration::from_secs(30), test).await {
        Ok(done) => done,
        Err(_) => panic!("not done in time: {:#?}", cluster.metrics("test").unwrap()),
    };
    let metrics = cluster.metrics("test").unwrap();
    cluster.kill("test", Duration::from_secs(5)).await.unwrap();
    (done, metrics)
}
