//! States go into Parquet and come back as the descriptor says.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, ListArray,
    RecordBatch, StringArray, StructArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Schema, SchemaRef, UInt64Type};
use datafusion::physical_plan::displayable;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{SessionConfig, SessionContext, col, lit};
use futures::stream;
use stratus_lake::{Lake, LakeError, WrittenVersion};
use stratus_seam::catalog::{RunKind, Version};
use stratus_seam::ids::{Generation, RunId, ViewId};
use stratus_seam::offsets::OffsetVector;
use stratus_seam::retention::orphaned;

/// Every type that a key or a state may have.
fn states() -> RecordBatch {
    let point: Fields =
        vec![Field::new("x", DataType::Int64, true), Field::new("name", DataType::Utf8, true)].into();
    let points = StructArray::new(
        point.clone(),
        vec![
            Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])) as ArrayRef,
            Arc::new(StringArray::from(vec![Some("a"), Some(""), None])),
        ],
        Some(vec![true, true, false].into()),
    );
    let floats = ListArray::from_iter_primitive::<Float64Type, _, _>(vec![
        Some(vec![Some(1.5), None, Some(-0.0)]),
        Some(vec![]),
        None,
    ]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("g0", Arc::new(StringArray::from(vec![Some("k"), Some(""), None]))),
        ("g1", Arc::new(points)),
        ("g2", Arc::new(TimestampMicrosecondArray::from(vec![Some(1), Some(-1), None]).with_timezone("UTC"))),
        ("g3", Arc::new(Float64Array::from(vec![Some(0.1), Some(f64::INFINITY), Some(f64::MIN_POSITIVE)]))),
        ("a0_s0", Arc::new(UInt64Array::from(vec![u64::MAX, 0, 1 << 63]))),
        ("a1_s0", Arc::new(BinaryArray::from_opt_vec(vec![Some(b"\x00\xff"), Some(b""), None]))),
        ("a2_s0", Arc::new(floats)),
        (
            "a3_s0",
            Arc::new(
                Decimal128Array::from(vec![Some(i128::from(i64::MAX) * 7), Some(-1), None])
                    .with_precision_and_scale(38, 4)
                    .unwrap(),
            ),
        ),
        ("a4_s0", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .unwrap()
}

async fn write(
    lake: &Lake,
    view: ViewId,
    number: u32,
    batches: Vec<RecordBatch>,
) -> Result<WrittenVersion, LakeError> {
    let schema = states().schema();
    let stream = stream::iter(batches.into_iter().map(Ok));
    let stream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), stream));
    lake.write_version(view, number, RunId::new(), schema, stream).await
}

#[tokio::test]
async fn every_type_of_state_comes_back_as_it_went_in() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(&dir.path().display().to_string()).unwrap();
    let view = ViewId::new();
    let written = write(&lake, view, 3, vec![states(), states().slice(0, 0), states()]).await.unwrap();
    assert_eq!((written.files.len(), written.groups), (1, 6));
    assert!(written.files[0].path.starts_with(&format!("views/{view}/v3-")));
    let size = std::fs::metadata(dir.path().join(&written.files[0].path)).unwrap().len();
    assert_eq!(size, written.files[0].bytes);

    let table = lake.version_provider(&written.files, states().schema());
    let batches = SessionContext::new().read_table(table).unwrap().collect().await.unwrap();
    let read = concat_batches(&batches[0].schema(), &batches).unwrap();
    assert_eq!(read.schema().fields(), states().schema().fields());
    // In the order of their keys, NULL first: each row twice.
    let [k, empty, null] = [0, 1, 2].map(|row| states().slice(row, 1));
    let sorted = [null.clone(), null, empty.clone(), empty, k.clone(), k];
    assert_eq!(read, concat_batches(&states().schema(), &sorted).unwrap());
}

/// Rows come in any order and are found by the statistics of the parts of a file.
#[tokio::test]
async fn a_look_up_reads_few_rows() {
    const GROUPS: u64 = 300_000;
    let lake = Lake::open("memory://").unwrap();
    // Every number below GROUPS once, out of order: the factor has no divisor in common with it.
    let mixed = |i: u64| i * 7_919 % GROUPS;
    let batches: Vec<RecordBatch> = (0..GROUPS)
        .step_by(10_000)
        .map(|first| {
            let numbers = || (first..first + 10_000).map(mixed);
            let texts: ArrayRef =
                Arc::new(numbers().map(|n| Some(format!("{n:06}"))).collect::<StringArray>());
            let states: ArrayRef = Arc::new(numbers().collect::<UInt64Array>());
            RecordBatch::try_from_iter_with_nullable([("g0", texts, true), ("a0_s0", states, true)]).unwrap()
        })
        .collect();
    let schema = batches[0].schema();
    let stream = stream::iter(batches.into_iter().map(Ok));
    let stream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), stream));
    let written =
        lake.write_version(ViewId::new(), 1, RunId::new(), Arc::clone(&schema), stream).await.unwrap();
    assert_eq!(written.groups, GROUPS);

    // One partition, so that rows come in the order of the file.
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let table = || lake.version_provider(&written.files, Arc::clone(&schema));
    let all = context.read_table(table()).unwrap().collect().await.unwrap();
    let states: Vec<u64> =
        all.iter().flat_map(|b| b.column(1).as_primitive::<UInt64Type>().values().to_vec()).collect();
    assert!(states.iter().copied().eq(0..GROUPS), "not in the order of the keys");

    let frame = context.read_table(table()).unwrap().filter(col("g0").eq(lit("123456"))).unwrap();
    let plan = frame.create_physical_plan().await.unwrap();
    let found = datafusion::physical_plan::collect(Arc::clone(&plan), context.task_ctx()).await.unwrap();
    assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    let mut leaf = &plan;
    while let Some(below) = leaf.children().first().copied() {
        leaf = below;
    }
    let read = leaf.metrics().unwrap().output_rows().unwrap();
    // One page, of a single row group.
    assert!(read <= GROUPS as usize / 10, "a look-up read {read} of {GROUPS} rows");
}

#[tokio::test]
async fn the_descriptor_decides_what_a_column_is() {
    let lake = Lake::open("memory://").unwrap();
    let written = write(&lake, ViewId::new(), 1, vec![states()]).await.unwrap();
    // As if the file had been written with other types than the descriptor's: those are what is read.
    let other = |field: &Arc<Field>| match field.name().as_str() {
        "a4_s0" => Field::new("a4_s0", DataType::Int64, true),
        "a1_s0" => Field::new("a1_s0", DataType::LargeBinary, true),
        _ => field.as_ref().clone(),
    };
    let schema: SchemaRef =
        Arc::new(Schema::new(states().schema().fields().iter().map(other).collect::<Vec<_>>()));
    let table = lake.version_provider(&written.files, Arc::clone(&schema));
    let batches = SessionContext::new().read_table(table).unwrap().collect().await.unwrap();
    assert_eq!(batches[0].schema().fields(), schema.fields());
}

#[tokio::test]
async fn a_key_is_looked_up_in_the_files() {
    let lake = Lake::open("memory://").unwrap();
    let written = write(&lake, ViewId::new(), 1, vec![states()]).await.unwrap();
    let context = SessionContext::new();
    let frame = context.read_table(lake.version_provider(&written.files, states().schema())).unwrap();
    let frame = frame.filter(col("g0").eq(lit("k"))).unwrap().select_columns(&["a0_s0"]).unwrap();
    let plan = frame.clone().create_physical_plan().await.unwrap();
    let shown = displayable(plan.as_ref()).indent(true).to_string();
    assert!(shown.contains("predicate=g0@0 = k") && shown.contains("pruning_predicate"), "{shown}");
    assert_eq!(frame.count().await.unwrap(), 1);
}

/// Parquet's statistics leave NaN out; whoever prunes by them would lose the group.
#[tokio::test]
async fn a_group_whose_key_is_nan_is_found() {
    let lake = Lake::open("memory://").unwrap();
    let keys: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), Some(f64::NAN), Some(-0.0), None]));
    let batch = RecordBatch::try_from_iter([("g0", keys)]).unwrap();
    let stream = stream::iter([Ok(batch.clone())]);
    let stream = Box::pin(RecordBatchStreamAdapter::new(batch.schema(), stream));
    let written = lake.write_version(ViewId::new(), 1, RunId::new(), batch.schema(), stream).await.unwrap();
    for (filter, found) in [
        (col("g0").eq(lit(f64::NAN)), 1),
        (col("g0").gt(lit(5.0)), 1),
        (col("g0").gt_eq(lit(1.0)), 2),
        (col("g0").is_null(), 1),
    ] {
        let table = lake.version_provider(&written.files, batch.schema());
        let frame = SessionContext::new().read_table(table).unwrap().filter(filter.clone()).unwrap();
        assert_eq!(frame.count().await.unwrap(), found, "{filter}");
    }
}

#[tokio::test]
async fn a_version_may_have_no_groups() {
    let lake = Lake::open("memory://").unwrap();
    let written = write(&lake, ViewId::new(), 1, Vec::new()).await.unwrap();
    assert_eq!(written, WrittenVersion { files: Vec::new(), groups: 0 });
    let table = lake.version_provider(&written.files, states().schema());
    let frame = SessionContext::new().read_table(table).unwrap().filter(col("g0").eq(lit("k"))).unwrap();
    assert_eq!(frame.clone().count().await.unwrap(), 0);
    assert_eq!(frame.schema().as_arrow().fields(), states().schema().fields());
}

#[tokio::test]
async fn other_columns_are_refused() {
    let lake = Lake::open("memory://").unwrap();
    let other = states().project(&[1, 0]).unwrap();
    let refused = write(&lake, ViewId::new(), 1, vec![other]).await;
    assert!(matches!(refused, Err(LakeError::Invalid(_))), "{refused:?}");
}

#[tokio::test]
async fn only_files_that_nothing_can_name_are_swept() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(&dir.path().display().to_string()).unwrap();
    let (view, other) = (ViewId::new(), ViewId::new());
    let published = write(&lake, view, 1, vec![states()]).await.unwrap();
    let failed = write(&lake, view, 2, vec![states()]).await.unwrap();
    let others = write(&lake, other, 1, vec![states()]).await.unwrap();
    let version = Version {
        view,
        number: 1,
        parent: None,
        cut: OffsetVector::zero(),
        generation: Generation::new(),
        fingerprint: String::new(),
        descriptor: serde_json::Value::Null,
        files: published.files.clone(),
        kind: RunKind::Full,
        groups: 3,
        events: 3,
        failed_rows: 0,
        published_ms: 0,
        took_ms: 0,
        run: None,
    };
    let kept = [version];
    // Nobody has published version 2: the run that wrote it may yet.
    let folders = lake.version_folders(view).await.unwrap();
    assert_eq!(folders.len(), 2);
    assert!(orphaned(&folders, &kept).is_empty());
    let second = Version { number: 2, parent: Some(1), files: Vec::new(), ..kept[0].clone() };
    let published_both = [kept[0].clone(), second];
    let orphans = orphaned(&folders, &published_both);
    assert_eq!(orphans.len(), 1);
    assert_eq!(lake.remove_version(orphans[0]).await.unwrap(), 1);
    let there = |version: &WrittenVersion| dir.path().join(&version.files[0].path).exists();
    let found = BTreeMap::from([("p", there(&published)), ("f", there(&failed)), ("o", there(&others))]);
    assert_eq!(found, BTreeMap::from([("p", true), ("f", false), ("o", true)]));
    assert_eq!(lake.version_folders(view).await.unwrap().len(), 1, "no empty folder stays");
    let mut views = lake.view_folders().await.unwrap();
    views.sort();
    assert_eq!(views, [view, other]);
    assert_eq!(lake.remove_view(view).await.unwrap(), 1);
    assert!(!there(&published) && there(&others));
    assert_eq!(lake.view_folders().await.unwrap(), [other]);
}
