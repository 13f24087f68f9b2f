//! A plan that is made once answers as one that is made for each batch.

use datafusion::arrow::array::RecordBatch;
use proptest::prelude::*;
use stratus_sql::{MergeStates, MicroBatchPlan};

use crate::events::*;

const PLAIN: &str = "SELECT k, count(*) AS c, sum(1000 / (i % 50)) AS s, approx_distinct(t) AS a FROM events WHERE b GROUP BY k";
const JOINED: &str =
    "SELECT label, count(*) AS c, sum(w) AS s, min(d) AS m FROM events JOIN dims USING (k) GROUP BY label";
const LEFT: &str =
    "SELECT label, count(*) AS c, sum(w) AS s FROM events LEFT JOIN dims ON events.k = dims.k GROUP BY label";
const UNGROUPED: &str = "SELECT count(*) AS c, max(i) AS m FROM events WHERE i > 100";

async fn hundred_batches(sql: &str, sizes: &[usize]) {
    let view = compile(sql).await;
    let dims = dimensions().await;
    let mut once = MicroBatchPlan::new(&view, &dims).await.unwrap();
    let mut merge = MergeStates::new(&view).await.unwrap();
    let everything = awkward(1, 4000).await;
    let mut shard = Vec::new();
    let mut from = 0;
    for size in sizes {
        let size = (*size).min(everything.num_rows() - from);
        let batch = everything.slice(from, size);
        from += size;
        let (states, failed) = once.run(vec![batch.clone()]).await.unwrap();
        let (expected, expected_failed) = crate::events::states(&view, vec![batch]).await;
        assert_eq!(rows(&states), rows(&expected), "{sql}");
        assert_eq!(failed, expected_failed, "{sql}");
        shard.extend(states);
        shard = merge.run(shard).await.unwrap();
    }
    let keys: usize = shard.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(
        keys,
        rows(&shard)
            .iter()
            .map(|row| format!("{:?}", row[0]))
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    );
    let split = merged(&view, vec![shard]).await;
    let whole = recomputed(&view, vec![everything.slice(0, from)]).await;
    assert_eq!(rows(&split), rows(&whole), "{sql}");
}

#[tokio::test]
async fn a_hundred_batches_through_one_plan() {
    let sizes: Vec<usize> = (0..100).map(|i| (i * 7) % 80).collect();
    for sql in [PLAIN, JOINED, LEFT, UNGROUPED] {
        hundred_batches(sql, &sizes).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn any_hundred_batches_through_one_plan(sizes in proptest::collection::vec(0usize..60, 100), pick in 0..4usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(hundred_batches([PLAIN, JOINED, LEFT, UNGROUPED][pick], &sizes));
    }
}

#[tokio::test]
async fn a_batch_needs_only_the_columns_that_the_view_reads() {
    let view = compile(JOINED).await;
    assert_eq!(view.source_columns(), ["d", "k"]);
    let mut plan = MicroBatchPlan::new(&view, &dimensions().await).await.unwrap();
    let full = awkward(1, 100).await;
    let indices = [full.schema().index_of("d").unwrap(), full.schema().index_of("k").unwrap()];
    let (few, _) = plan.run(vec![full.project(&indices).unwrap()]).await.unwrap();
    let (all, _) = plan.run(vec![full.clone()]).await.unwrap();
    assert_eq!(rows(&few), rows(&all));
    let error = plan.run(vec![full.project(&[2]).unwrap()]).await.unwrap_err();
    assert!(error.message.contains("is missing"), "{error:?}");
    // A run that failed leaves nothing behind.
    assert_eq!(rows(&plan.run(vec![full]).await.unwrap().0), rows(&all));
}

/// The cost of a plan that is made once is that of its rows: a sanity check, not a benchmark.
#[tokio::test]
async fn running_is_cheaper_than_planning() {
    let view = compile(PLAIN).await;
    let dims = dimensions().await;
    let batch = awkward(1, 100).await;
    let mut plan = MicroBatchPlan::new(&view, &dims).await.unwrap();
    plan.run(vec![batch.clone()]).await.unwrap();
    let started = std::time::Instant::now();
    for _ in 0..10 {
        plan.run(vec![batch.clone()]).await.unwrap();
    }
    let running = started.elapsed();
    let started = std::time::Instant::now();
    for _ in 0..10 {
        MicroBatchPlan::new(&view, &dims).await.unwrap().run(vec![batch.clone()]).await.unwrap();
    }
    assert!(running < started.elapsed());
}
