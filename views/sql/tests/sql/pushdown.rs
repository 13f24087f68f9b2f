//! What the optimizer may move and what it may not.

use datafusion::physical_plan::displayable;
use stratus_sql::session;

use crate::events::*;

async fn physical(plan: datafusion::logical_expr::LogicalPlan) -> String {
    let state = session::session_context().state();
    let plan = state.create_physical_plan(&plan).await.unwrap();
    displayable(plan.as_ref()).indent(false).to_string()
}

fn logical(plan: &datafusion::logical_expr::LogicalPlan) -> String {
    session::session_context().state().optimize(plan).unwrap().display_indent().to_string()
}

#[tokio::test]
async fn only_the_columns_that_are_read_are_scanned() {
    let view = compile(
        "SELECT k, count(*) AS c, sum(i / 2) AS s FROM events WHERE t = 'x' AND 10 / s > 1 GROUP BY k",
    )
    .await;
    assert_eq!(view.source_columns(), ["i", "k", "s", "t"]);
    let plan = view.states_plan(table(vec![]), &dimensions().await).unwrap().plan;
    let text = logical(&plan);
    assert!(text.contains("TableScan: events projection=[k, s, i, t]"), "{text}");
    let view = compile("SELECT count(*) AS c FROM events").await;
    assert!(view.source_columns().is_empty());
}

#[tokio::test]
async fn a_fallible_condition_stays_in_the_stage_and_a_sure_one_moves() {
    let view = compile("SELECT label, count(*) AS c FROM events JOIN dims USING (k) WHERE t = 'x' AND i > 5 AND 10 / s > 1 GROUP BY label").await;
    let plan = view.states_plan(table(vec![]), &dimensions().await).unwrap().plan;
    let text = logical(&plan);
    let stage = text.lines().find(|line| line.contains("RowStage")).unwrap();
    assert!(stage.contains("10") && stage.contains("events.s"), "{text}");
    assert!(!stage.contains("events.t"), "{text}");
    let below: String = text.lines().skip_while(|line| !line.contains("Join")).collect();
    assert!(below.contains("events.t = Utf8(\"x\")") && below.contains("events.i"), "{text}");
}

#[tokio::test]
async fn a_key_filter_reaches_both_scans() {
    let view = compile("SELECT k AS page, upper(k) AS loud, count(*) AS c, sum(i) / count(*) AS m FROM events GROUP BY k HAVING count(*) > 0").await;
    let schema = view.descriptor().state_schema();
    let states = union(scan(schema.clone(), "batch", vec![]), scan(schema, "speed", vec![]));
    let merged = view.merged_plan(states).unwrap();
    let filtered = datafusion::logical_expr::LogicalPlanBuilder::from(merged)
        .filter(datafusion::prelude::col("page").eq(datafusion::prelude::lit("k3")))
        .unwrap()
        .build()
        .unwrap();
    let text = logical(&filtered);
    let aggregate = text.lines().position(|line| line.contains("Aggregate")).unwrap();
    let filters: Vec<usize> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| line.contains("g0 = Utf8(\"k3\")"))
        .map(|(i, _)| i)
        .collect();
    assert_eq!(filters.len(), 2, "{text}");
    assert!(filters.iter().all(|line| *line > aggregate), "{text}");
    assert!(physical(filtered).await.contains("UnionExec"));
}

#[tokio::test]
async fn an_unused_aggregate_is_not_read() {
    let view = compile("SELECT k, count(*) AS c, approx_distinct(t) AS a FROM events GROUP BY k").await;
    let schema = view.descriptor().state_schema();
    let merged = view.merged_plan(scan(schema, "states", vec![])).unwrap();
    let plan = datafusion::logical_expr::LogicalPlanBuilder::from(merged)
        .project(vec![datafusion::prelude::col("k"), datafusion::prelude::col("c")])
        .unwrap()
        .build()
        .unwrap();
    let text = logical(&plan);
    assert!(text.contains("TableScan: states projection=[g0, a0_s0]"), "{text}");
}

#[tokio::test]
async fn the_batch_plan_runs_in_parallel_and_merges_each_key_once() {
    let view = compile("SELECT l, count(*) AS c FROM events GROUP BY l").await;
    let config = session::session_config().with_target_partitions(4);
    let context = session::session_context_with(config, Default::default());
    let parts: Vec<_> =
        cut(&awkward(1, 3000).await, &[700, 1500, 2200]).into_iter().map(|part| vec![part]).collect();
    let schema = parts[0][0].schema();
    let source = std::sync::Arc::new(datafusion::datasource::MemTable::try_new(schema, parts).unwrap());
    let plan = view.states_plan(source, &Default::default()).unwrap().plan;
    let physical = context.state().create_physical_plan(&plan).await.unwrap();
    let text = displayable(physical.as_ref()).indent(false).to_string();
    assert!(text.contains("FinalPartitioned") && text.contains("RowStageExec"), "{text}");
    let states = run(&context, plan).await;
    let keys: Vec<_> = rows(&states).into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(keys.len(), keys.iter().collect::<std::collections::HashSet<_>>().len());
    assert_eq!(keys.len(), 3000);
}
