//! Aggregate functions of SQL in a Trident topology.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Float64Type};
use stratus_speed::{LocalCluster, SqlCombiner};
use stratus_topology::fields;
use stratus_trident::{FeederBatchSpout, MemoryMaps, TridentTopology};

#[tokio::test(flavor = "multi_thread")]
async fn an_average_is_combined_over_tasks_and_batches() {
    let average = SqlCombiner::new("avg", &[DataType::Float64]).unwrap();
    let schema = fields([("key", DataType::Utf8), ("number", DataType::Float64)]);
    let (spout, states) = (FeederBatchSpout::new(schema.clone()), MemoryMaps::<String>::new());
    let topology = TridentTopology::new();
    let averages = topology
        .new_stream("numbers", spout.clone())
        .shuffle()
        .parallelism_hint(2)
        .group_by(&["key"])
        .persistent_aggregate(states.clone(), &["number"], average.clone(), "state")
        .parallelism_hint(2);
    assert!(averages.new_values_stream().is_some());
    let cluster = LocalCluster::new();
    cluster.submit("averages", topology.build().unwrap().topology).unwrap();

    let mut truth: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for batch in 0..5_u32 {
        let numbers: Vec<(String, f64)> =
            (0..40_u32).map(|n| (format!("k{}", (n * 7 + batch) % 6), f64::from(n * batch))).collect();
        for (key, number) in &numbers {
            truth.entry(format!("[\"{key}\"]")).or_default().push(*number);
        }
        let (keys, values): (Vec<String>, Vec<f64>) = numbers.into_iter().unzip();
        let columns: Vec<ArrayRef> =
            vec![Arc::new(StringArray::from(keys)), Arc::new(Float64Array::from(values))];
        spout.feed_and_wait(RecordBatch::try_new(schema.clone(), columns).unwrap()).await;
    }
    cluster.kill("averages", Duration::from_secs(10)).await.unwrap();
    let found = states.values();
    let values = average.column(found.values().map(String::as_str)).unwrap();
    let values = values.as_primitive::<Float64Type>().values();
    let want: Vec<f64> =
        truth.values().map(|numbers| numbers.iter().sum::<f64>() / numbers.len() as f64).collect();
    assert!(found.keys().eq(truth.keys()), "{found:?}");
    assert!(
        values.iter().zip(&want).all(|(value, want)| (value - want).abs() < 1e-9),
        "{values:?}, {want:?}"
    );
}
