//! What readers see of the events.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::json::ReaderBuilder;
use arrow::util::pretty::pretty_format_batches;
use datafusion::physical_plan::displayable;
use datafusion::prelude::{SessionConfig, SessionContext, col, lit};
use deltalake::DeltaTableBuilder;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use stratus_lake::{Lake, LakeError, MasterDataset, SourceTables};
use stratus_seam::offsets::OffsetVector;
use stratus_seam::schema::{Column, ColumnType, event_schema};
use url::Url;

use crate::samples::{at, events, letter, positions, source, source_of};

fn every_type() -> Vec<Column> {
    let point = ColumnType::Struct(vec![
        Column::new("x", ColumnType::Double),
        Column::new("tags", ColumnType::List(Box::new(ColumnType::Text))),
    ]);
    vec![
        Column { not_null: true, ..Column::new("id", ColumnType::BigInt) },
        Column::new("b", ColumnType::Boolean),
        Column::new("s", ColumnType::SmallInt),
        Column::new("i", ColumnType::Int),
        Column::new("r", ColumnType::Real),
        Column::new("d", ColumnType::Double),
        Column::new("n", ColumnType::Numeric(20, 4)),
        Column::new("t", ColumnType::Text),
        Column::new("y", ColumnType::Bytea),
        Column::new("day", ColumnType::Date),
        Column::new("ts", ColumnType::Timestamp),
        Column::new("tz", ColumnType::TimestampTz),
        Column::new("point", point.clone()),
        Column::new("points", ColumnType::List(Box::new(point))),
        Column::new("With Space", ColumnType::Int),
    ]
}

fn typed_events(columns: &[Column]) -> RecordBatch {
    let rows = r#"
        {"id":1,"b":true,"s":-3,"i":4,"r":0.5,"d":1e300,"n":"123456789.1234","t":"Grüße","y":"00ff","day":"2026-01-02",
         "ts":"2026-01-02T03:04:05.123456","tz":"2026-01-02T03:04:05.654321Z","point":{"x":1.5,"tags":["a",null,""]},
         "points":[{"x":null,"tags":[]},null,{"x":2,"tags":null}],"With Space":1,
         "_log":"the-log","_partition":0,"_offset":0,"_timestamp":"2026-01-02T03:04:05.000001Z"}
        {"id":2,"_log":"the-log","_partition":0,"_offset":7}
        {"id":3,"b":false,"s":32767,"i":-2147483648,"r":-0.0,"d":-0.0,"n":"-0.0001","t":"","y":"","day":"1969-12-31",
         "ts":"1969-12-31T23:59:59.999999","tz":"1969-12-31T23:59:59.999999Z","point":{},"points":[],
         "_log":"the-log","_partition":0,"_offset":9}"#;
    let mut reader = ReaderBuilder::new(event_schema(columns)).build(Cursor::new(rows)).unwrap();
    reader.next().unwrap().unwrap()
}

#[tokio::test]
async fn every_canonical_type_comes_back_as_it_went_in() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(&dir.path().display().to_string()).unwrap();
    let source = source_of(every_type());
    let mut tables = SourceTables::open(&lake, &source).await.unwrap();
    let written = typed_events(&source.columns);
    tables.append(&at([]), &at([(0, 10)]), vec![written.clone()], Vec::new()).await.unwrap();
    // Opened again, the schema that Delta kept still fits the declared one.
    SourceTables::open(&lake, &source).await.unwrap();

    let snapshot = MasterDataset::open(&lake, &source).await.unwrap().snapshot().await.unwrap();
    let schema = event_schema(&source.columns);
    for (table, rows) in [
        (snapshot.events(), 3),
        (snapshot.events_below(&at([(0, 10)]), None).unwrap(), 3),
        (snapshot.events_below(&at([(0, 9)]), None).unwrap(), 2),
    ] {
        assert_eq!(table.schema(), schema);
        // A session with every setting at its default: view types are on there.
        let batches = SessionContext::new().read_table(table).unwrap().collect().await.unwrap();
        let read = concat_batches(&batches[0].schema(), &batches).unwrap();
        assert_eq!(read.schema().fields(), schema.fields());
        assert_eq!(read, written.slice(0, rows));
    }
}

#[tokio::test]
async fn every_other_reader_sees_the_same_rows() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(&dir.path().display().to_string()).unwrap();
    let source = source_of(every_type());
    let mut tables = SourceTables::open(&lake, &source).await.unwrap();
    let written = typed_events(&source.columns);
    tables.append(&at([]), &at([(0, 10)]), vec![written.clone()], Vec::new()).await.unwrap();

    let folder = dir.path().join(format!("sources/{}/events", source.id));
    let url = Url::from_directory_path(folder.canonicalize().unwrap()).unwrap();
    let delta = DeltaTableBuilder::from_url(url).unwrap().load().await.unwrap();
    let context = SessionContext::new();
    context.register_table("events", delta.table_provider().await.unwrap()).unwrap();
    let rows = context.sql("SELECT * FROM events ORDER BY id").await.unwrap().collect().await.unwrap();
    let shown = |batches: &[RecordBatch]| pretty_format_batches(batches).unwrap().to_string();
    assert_eq!(shown(&rows), shown(std::slice::from_ref(&written)));

    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let files: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "parquet")).collect();
    let file = std::fs::File::open(&files[0]).unwrap();
    let plain: Vec<_> = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().collect();
    assert_eq!((files.len(), plain.len()), (1, 1));
    assert_eq!(plain[0].as_ref().unwrap(), &written);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every window of offsets holds exactly its rows, also when the table has gone on meanwhile.
    #[test]
    fn a_window_holds_exactly_its_rows(
        steps in proptest::collection::vec([0..6u64, 0..4u64, 0..9u64], 1..5),
        windows in proptest::collection::vec(([0..30u64, 0..20u64, 0..40u64], [0..30u64, 0..20u64, 0..40u64]), 4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let lake = Lake::open("memory://").unwrap();
            let source = source();
            let mut tables = SourceTables::open(&lake, &source).await.unwrap();
            let mut all = Vec::new();
            for step in &steps {
                let from = tables.absorbed();
                let ranges = (0u32..).zip(step).map(|(p, step)| (p, from.get(p)..from.get(p) + step));
                let to: OffsetVector = ranges.clone().map(|(p, range)| (p, range.end)).collect();
                let batches = ranges.clone().map(|(p, range)| events(p, range)).collect();
                all.extend(ranges.flat_map(|(p, range)| range.map(move |offset| (p, offset))));
                tables.append(&from, &to, batches, Vec::new()).await.unwrap();
            }
            all.sort_unstable();
            let end = tables.absorbed();
            let snapshot = MasterDataset::open(&lake, &source).await.unwrap().snapshot().await.unwrap();
            let later = at([(0, end.get(0) + 5), (1, end.get(1)), (2, end.get(2))]);
            let late = vec![events(0, end.get(0)..later.get(0))];
            tables.append(&end, &later, late, Vec::new()).await.unwrap();
            assert_eq!(positions(snapshot.events()).await, all);
            for (from, cut) in &windows {
                let cut: OffsetVector = (0u32..).zip(*cut).collect::<OffsetVector>().meet(&end);
                let from: OffsetVector = (0u32..).zip(*from).collect();
                for from in [None, Some(&from)] {
                    let low = from.cloned().unwrap_or_default();
                    let expected: Vec<_> = all
                        .iter()
                        .copied()
                        .filter(|(p, offset)| low.get(*p) <= *offset && *offset < cut.get(*p))
                        .collect();
                    assert_eq!(snapshot.count_below(&cut, from).await.unwrap(), expected.len() as u64);
                    let table = snapshot.events_below(&cut, from).unwrap();
                    let counted = SessionContext::new().read_table(Arc::clone(&table)).unwrap().count().await;
                    assert_eq!(counted.unwrap(), expected.len());
                    assert_eq!(positions(table).await, expected);
                }
            }
            let beyond = snapshot.events_below(&later, None);
            assert!(matches!(beyond, Err(LakeError::Invalid(_))));
        });
    }
}

#[tokio::test]
async fn filters_and_projections_reach_the_files_that_can_hold_rows() {
    let lake = Lake::open("memory://").unwrap();
    let source = source();
    let mut tables = SourceTables::open(&lake, &source).await.unwrap();
    let first = at([(0, 70_000), (1, 10), (2, 10)]);
    let batches = vec![events(1, 0..10), events(0, 0..70_000), events(2, 0..10)];
    tables.append(&at([]), &first, batches, Vec::new()).await.unwrap();
    let second = at([(0, 70_100), (1, 10), (2, 10)]);
    tables.append(&first, &second, vec![events(0, 70_000..70_100)], Vec::new()).await.unwrap();
    let snapshot = MasterDataset::open(&lake, &source).await.unwrap().snapshot().await.unwrap();

    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(4));
    let plan = async |cut: &OffsetVector, from: Option<&OffsetVector>| {
        let frame = context.read_table(snapshot.events_below(cut, from).unwrap()).unwrap();
        let frame = frame.filter(col("n").gt(lit(9_i64))).unwrap().select_columns(&["user"]).unwrap();
        let plan = frame.clone().create_physical_plan().await.unwrap();
        (displayable(plan.as_ref()).indent(true).to_string(), frame.count().await.unwrap())
    };
    // The large partition has a file of its own, the small ones share one, the second commit has a third.
    let (all, rows) = plan(&second, None).await;
    assert_eq!((all.matches("part-").count(), rows), (3, 70_112 - 4), "{all}");
    assert!(all.contains("predicate=n@1 > 9") && all.contains("projection=[user"), "{all}");
    assert!(!all.contains("_offset"), "no row needs to be looked at: {all}");
    let (cut, rows) = plan(&first, None).await;
    assert_eq!((cut.matches("part-").count(), rows), (2, 70_012 - 4), "{cut}");
    assert!(!cut.contains("_offset"), "{cut}");
    let (last, rows) = plan(&second, Some(&first)).await;
    assert_eq!((last.matches("part-").count(), rows), (1, 100), "{last}");
    let (across, rows) = plan(&at([(0, 65_000)]), None).await;
    assert_eq!((across.matches("part-").count(), rows), (1, 64_996), "{across}");
    assert!(across.contains("_offset"), "{across}");
    assert_eq!(snapshot.count_below(&at([(0, 65_000)]), None).await.unwrap(), 65_000);
}

#[tokio::test]
async fn a_cut_is_waited_for() {
    let lake = Lake::open("memory://").unwrap();
    let source = source();
    let master = MasterDataset::open(&lake, &source).await.unwrap();
    let mut tables = SourceTables::open(&lake, &source).await.unwrap();
    let cut = at([(0, 5), (1, 2)]);
    let poll = Duration::from_millis(5);
    let early = tokio::time::timeout(Duration::from_millis(60), master.wait_absorbed(&cut, poll)).await;
    assert!(early.is_err());
    let waiting = tokio::spawn(async move { master.wait_absorbed(&cut, poll).await });
    tables.append(&at([]), &at([(0, 9)]), vec![events(0, 0..9)], Vec::new()).await.unwrap();
    tokio::time::sleep(poll * 4).await;
    assert!(!waiting.is_finished());
    let end = at([(0, 9), (1, 2)]);
    tables.append(&at([(0, 9)]), &end, vec![events(1, 0..1)], vec![letter(1, 1)]).await.unwrap();
    let absorbed = tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(absorbed, end);
}

#[tokio::test]
async fn an_empty_source_has_no_rows_and_its_types() {
    let lake = Lake::open("memory://").unwrap();
    let source = source_of(every_type());
    let master = MasterDataset::open(&lake, &source).await.unwrap();
    let snapshot = master.snapshot().await.unwrap();
    let counts: BTreeMap<&str, usize> = BTreeMap::from([
        ("events", SessionContext::new().read_table(snapshot.events()).unwrap().count().await.unwrap()),
        ("dead", positions(master.dead_letters().await.unwrap()).await.len()),
    ]);
    assert!(counts.values().all(|count| *count == 0));
    assert_eq!(snapshot.events().schema(), event_schema(&source.columns));
}
