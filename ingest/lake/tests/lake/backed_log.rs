//! The master dataset read as a log, alone and behind a log that forgets.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use async_trait::async_trait;
use proptest::prelude::*;
use stratus_lake::{BackedLog, DeadLetter, Lake, MasterLog, SourceTables};
use stratus_logs::conformance::{LogFixture, every_promise};
use stratus_logs::{CodecOptions, DirectoryLog, JsonCodec, TimestampUnit};
use stratus_seam::catalog::Source;
use stratus_seam::log::{Chunk, Log, LogError};
use stratus_seam::offsets::{Offset, OffsetVector, Partition};
use stratus_seam::schema::{Column, ColumnType};
use tempfile::TempDir;

use crate::forgetful::ForgetfulLog;
use crate::samples::{columns, source, source_of};

const MOST: usize = 1 << 20;

/// Ingests all that a log has now, or up to `to`.
async fn ingest(lake: &Lake, source: &Source, log: &dyn Log, unit: TimestampUnit, to: Option<&OffsetVector>) {
    let mut tables = SourceTables::open(lake, source).await.unwrap();
    let options = CodecOptions { timestamp_unit: unit, ..CodecOptions::default() };
    let mut codec = JsonCodec::new(&source.columns, options).unwrap();
    let from = tables.absorbed();
    let (mut end, mut events, mut bad) = (from.clone(), Vec::new(), Vec::new());
    for partition in 0..log.partitions().await.unwrap() {
        let until = to.map(|to| to.get(partition));
        let chunk = log.read(partition, from.get(partition), until, MOST).await.unwrap();
        let decoded = codec.decode(&source.log, &chunk).unwrap();
        events.push(decoded.events);
        bad.extend(decoded.bad.into_iter().map(|bad| DeadLetter {
            partition: bad.partition,
            offset: bad.offset,
            timestamp: bad.timestamp,
            reason: bad.reason,
            raw: bad.raw,
        }));
        end.set(partition, chunk.to);
    }
    tables.append(&from, &end, events, bad).await.unwrap();
}

/// Moves the dataset on without records: what ingest does behind a gap.
async fn skip(lake: &Lake, source: &Source, to: OffsetVector) {
    let mut tables = SourceTables::open(lake, source).await.unwrap();
    let from = tables.absorbed();
    tables.append(&from, &from.join(&to), Vec::new(), Vec::new()).await.unwrap();
}

async fn master(lake: &Lake, source: &Source) -> Arc<dyn Log> {
    Arc::new(MasterLog::open(lake, source, MOST).await.unwrap())
}

/// The offsets of one partition's records, read by so many bytes, and where the reader then stands.
async fn drain(
    log: &dyn Log,
    partition: Partition,
    from: Offset,
    until: Option<Offset>,
    bytes: usize,
) -> (Vec<Offset>, Offset) {
    let (mut offsets, mut at) = (Vec::new(), from);
    loop {
        let chunk = log.read(partition, at, until, bytes).await.unwrap();
        assert_eq!((chunk.partition, chunk.from), (partition, at));
        let Some(last) = chunk.records.last() else {
            assert_eq!(chunk.to, at);
            return (offsets, at);
        };
        assert_eq!(chunk.to, last.offset + 1);
        offsets.extend(chunk.records.iter().map(|record| record.offset));
        at = chunk.to;
    }
}

struct Directory(TempDir, Lake, Source);

#[async_trait]
impl LogFixture for Directory {
    async fn log(&self) -> Arc<dyn Log> {
        let live = Arc::new(DirectoryLog::open(self.0.path()).unwrap());
        Arc::new(BackedLog::new(live, master(&self.1, &self.2).await))
    }

    async fn append(&self, partition: Partition, payloads: &[&[u8]]) {
        use std::io::Write;
        let path = self.0.path().join(format!("{partition}.jsonl"));
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        for payload in payloads {
            file.write_all(&[payload, &b"\n"[..]].concat()).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backed_log_keeps_every_promise() {
    every_promise(async || {
        let dir = tempfile::tempdir().unwrap();
        DirectoryLog::create(dir.path(), 2).unwrap();
        Directory(dir, Lake::open("memory://").unwrap(), source())
    })
    .await;
}

/// Good records and bad ones, with holes between their offsets, in two partitions.
fn fill(log: &ForgetfulLog, records: u64) {
    for n in 0..records {
        let payload = match n % 5 {
            3 => "not JSON".to_owned(),
            _ => format!(r#"{{"user":"u{n}","n":{n}}}"#),
        };
        log.append((n % 2) as usize, n % 3, payload);
    }
}

#[tokio::test]
async fn the_master_dataset_delivers_what_the_log_did() {
    let (lake, source, log) = (Lake::open("memory://").unwrap(), source(), ForgetfulLog::new(2));
    for _ in 0..3 {
        fill(&log, 40);
        ingest(&lake, &source, &log, TimestampUnit::Milli, None).await;
    }
    let master = master(&lake, &source).await;
    assert_eq!(
        (master.end().await.unwrap(), master.partitions().await.unwrap()),
        (log.end().await.unwrap(), 2)
    );
    for partition in 0..2 {
        let (all, end) = drain(&log, partition, 0, None, MOST).await;
        for bytes in [1, 100, 500, MOST] {
            assert_eq!(drain(&*master, partition, 0, None, bytes).await, (all.clone(), end));
        }
        for from in 0..end {
            let until = Some(from + 9);
            let got = drain(&*master, partition, from, until, 60).await;
            assert_eq!(got, drain(&log, partition, from, until, 60).await, "{partition} {from}");
        }
    }
}

#[tokio::test]
async fn what_is_forgotten_comes_from_the_master_dataset() {
    let (lake, source, log) = (Lake::open("memory://").unwrap(), source(), ForgetfulLog::new(2));
    fill(&log, 60);
    ingest(&lake, &source, &log, TimestampUnit::Milli, None).await;
    fill(&log, 20);
    let before = [drain(&log, 0, 0, None, 70).await, drain(&log, 1, 0, None, 70).await];
    let backed = BackedLog::new(Arc::new(log.clone()), master(&lake, &source).await);
    for below in 0..40 {
        log.forget(0, below);
        log.forget(1, below / 2);
        for (partition, before) in (0..).zip(&before) {
            for bytes in [1, 70, MOST] {
                assert_eq!(&drain(&backed, partition, 0, None, bytes).await, before, "below {below}");
            }
            let until = Some(17);
            let expected: Vec<Offset> = before.0.iter().copied().filter(|offset| *offset < 17).collect();
            assert_eq!(drain(&backed, partition, 0, until, 70).await.0, expected, "below {below}");
        }
    }
}

#[tokio::test]
async fn what_neither_has_yet_is_waited_for_and_a_gap_is_passed_over() {
    let (lake, source, log) = (Lake::open("memory://").unwrap(), source(), ForgetfulLog::new(1));
    for n in 0..10 {
        log.append(0, 0, format!(r#"{{"n":{n}}}"#));
    }
    ingest(&lake, &source, &log, TimestampUnit::Milli, Some(&OffsetVector::from([(0, 4)]))).await;
    log.forget(0, 7);
    let backed = BackedLog::new(Arc::new(log.clone()), master(&lake, &source).await);
    let chunk = backed.read(0, 2, None, MOST).await.unwrap();
    assert_eq!((chunk.from, chunk.to, chunk.records.len()), (2, 4, 2));
    for until in [None, Some(5), Some(9)] {
        let waits = backed.read(0, 4, until, MOST).await;
        let Err(LogError::Unavailable { source, .. }) = waits else { panic!("{waits:?}") };
        assert!(source.to_string().contains("waiting for ingest"), "{source}");
    }
    // Below what ingest has absorbed nothing is waited for.
    assert_eq!(drain(&backed, 0, 1, Some(4), MOST).await, (vec![1, 2, 3], 4));
    // Ingest decides that 4, 5 and 6 are lost, and stands at 7.
    skip(&lake, &source, OffsetVector::from([(0, 7)])).await;
    let chunk = backed.read(0, 4, None, MOST).await.unwrap();
    assert_eq!((chunk.from, chunk.to, chunk.records[0].offset), (4, 10, 7));
    assert_eq!(drain(&backed, 0, 0, None, 1).await, (vec![0, 1, 2, 3, 7, 8, 9], 10));
    for until in 4..=7 {
        assert_eq!(drain(&backed, 0, 4, Some(until), MOST).await, (vec![], 4));
    }
    // Nothing at all behind the gap.
    log.forget(0, 12);
    skip(&lake, &source, OffsetVector::from([(0, 12)])).await;
    assert_eq!(drain(&backed, 0, 4, None, MOST).await, (vec![], 4));
    log.append(0, 3, r#"{"n":1}"#);
    assert_eq!(drain(&backed, 0, 4, None, MOST).await, (vec![15], 16));
}

#[tokio::test]
async fn a_log_that_lost_its_tail_is_refused() {
    let (lake, source, log) = (Lake::open("memory://").unwrap(), source(), ForgetfulLog::new(1));
    fill(&ForgetfulLog::clone(&log), 0);
    for n in 0..6 {
        log.append(0, 0, format!(r#"{{"n":{n}}}"#));
    }
    ingest(&lake, &source, &log, TimestampUnit::Milli, None).await;
    let backed = BackedLog::new(Arc::new(log.clone()), master(&lake, &source).await);
    assert_eq!(backed.end().await.unwrap(), OffsetVector::from([(0, 6)]));
    log.lose_tail(0, 4);
    let Err(error @ LogError::Replaced { .. }) = backed.end().await else { panic!() };
    assert!(error.to_string().contains("offset 4, below 6"), "{error}");
}

#[tokio::test]
async fn a_fence_refuses_a_batch_that_is_under_way() {
    let (lake, source) = (Lake::open("memory://").unwrap(), source());
    let mut under_way = SourceTables::open(&lake, &source).await.unwrap();
    let mut decides = SourceTables::open(&lake, &source).await.unwrap();
    decides.fence().await.unwrap();
    let (from, to) = (OffsetVector::zero(), OffsetVector::from([(0, 4)]));
    let refused = under_way.append(&from, &to, Vec::new(), Vec::new()).await;
    assert!(matches!(refused, Err(stratus_lake::LakeError::Superseded { .. })), "{refused:?}");
    decides.append(&from, &to, Vec::new(), Vec::new()).await.unwrap();
    assert_eq!(decides.absorbed(), to);
}

/// A dead letter stays one, also when its first bytes would be a document.
#[tokio::test]
async fn a_dead_letter_is_bad_again() {
    let (lake, source) = (Lake::open("memory://").unwrap(), source());
    let mut tables = SourceTables::open(&lake, &source).await.unwrap();
    let letter = DeadLetter {
        partition: 0,
        offset: 3,
        timestamp: Some(5),
        reason: "too long".into(),
        raw: r#"{"n":1}"#.into(),
    };
    tables.append(&OffsetVector::zero(), &[(0, 4)].into(), Vec::new(), vec![letter]).await.unwrap();
    let chunk = master(&lake, &source).await.read(0, 0, None, MOST).await.unwrap();
    let mut codec = JsonCodec::new(&columns(), CodecOptions::default()).unwrap();
    let decoded = codec.decode(&source.log, &chunk).unwrap();
    assert_eq!((decoded.events.num_rows(), decoded.bad.len()), (0, 1));
    assert_eq!((decoded.bad[0].offset, decoded.bad[0].timestamp), (3, Some(5)));
}

fn every_type() -> Vec<Column> {
    let point = ColumnType::Struct(vec![
        Column::new("x", ColumnType::Double),
        Column { not_null: true, ..Column::new("at", ColumnType::TimestampTz) },
        Column::new("tags", ColumnType::List(Box::new(ColumnType::Text))),
    ]);
    vec![
        Column::new("b", ColumnType::Boolean),
        Column::new("s", ColumnType::SmallInt),
        Column::new("i", ColumnType::Int),
        Column { not_null: true, ..Column::new("l", ColumnType::BigInt) },
        Column::new("r", ColumnType::Real),
        Column::new("d", ColumnType::Double),
        Column::new("n", ColumnType::Numeric(38, 9)),
        Column::new("t", ColumnType::Text),
        Column::new("y", ColumnType::Bytea),
        Column::new("day", ColumnType::Date),
        Column::new("ts", ColumnType::Timestamp),
        Column::new("tz", ColumnType::TimestampTz),
        Column::new("point", point.clone()),
        Column::new("points", ColumnType::List(Box::new(point))),
        Column::new(
            "grid",
            ColumnType::List(Box::new(ColumnType::List(Box::new(ColumnType::Numeric(9, 2))))),
        ),
        Column::new("Wie \"geht's\"", ColumnType::Int),
    ]
}

/// The JSON of a value of a type, as a producer may spell it; timestamps as numbers of milliseconds, too.
fn json(kind: &ColumnType) -> BoxedStrategy<serde_json::Value> {
    use serde_json::json;
    let moment = -62_167_219_200_000_i64..253_402_300_800_000;
    match kind {
        ColumnType::Boolean => any::<bool>().prop_map(|v| json!(v)).boxed(),
        ColumnType::SmallInt => any::<i16>().prop_map(|v| json!(v)).boxed(),
        ColumnType::Int => any::<i32>().prop_map(|v| json!(v)).boxed(),
        ColumnType::BigInt => any::<i64>().prop_map(|v| json!(v)).boxed(),
        ColumnType::Real => {
            any::<f32>().prop_filter("finite", |v| v.is_finite()).prop_map(|v| json!(v)).boxed()
        }
        ColumnType::Double => {
            any::<f64>().prop_filter("finite", |v| v.is_finite()).prop_map(|v| json!(v)).boxed()
        }
        ColumnType::Numeric(38, 9) => {
            let most = 10_i128.pow(38) - 1;
            (-most..=most).prop_map(|v| json!(format!("{v}e-9"))).boxed()
        }
        ColumnType::Numeric(..) => {
            (-999_999_999..=999_999_999_i64).prop_map(|v| json!(format!("{v}e-2"))).boxed()
        }
        ColumnType::Text => any::<String>().prop_map(|v| json!(v)).boxed(),
        ColumnType::Bytea => "([A-Za-z0-9+/]{4}){0,5}".prop_map(|v| json!(v)).boxed(),
        ColumnType::Date => {
            (0..=9999, 1..=12, 1..=28).prop_map(|(y, m, d)| json!(format!("{y:04}-{m:02}-{d:02}"))).boxed()
        }
        ColumnType::Timestamp | ColumnType::TimestampTz => {
            let micros = (moment.clone(), 0..1000).prop_map(|(ms, us)| json!(format!("{ms}.{us:03}")));
            let is_before = |v: &serde_json::Value| !v.as_str().is_some_and(|v| v.starts_with("-621672192"));
            prop_oneof![moment.prop_map(|v| json!(v)), micros.prop_filter("in range", is_before)].boxed()
        }
        ColumnType::Struct(columns) => object(columns).boxed(),
        ColumnType::List(item) => {
            let item = prop_oneof![4 => json(item), 1 => Just(json!(null))];
            proptest::collection::vec(item, 0..4).prop_map(serde_json::Value::Array).boxed()
        }
    }
}

fn object(columns: &[Column]) -> impl Strategy<Value = serde_json::Value> + use<> {
    let fields: Vec<_> = columns
        .iter()
        .map(|column| {
            let name = column.name.clone();
            let value = json(&column.kind).prop_map(Some);
            let value = if column.not_null {
                value.boxed()
            } else {
                prop_oneof![3 => value, 1 => Just(None)].boxed()
            };
            value.prop_map(move |value| value.map(|value| (name.clone(), value)))
        })
        .collect();
    fields.prop_map(|fields| serde_json::Value::Object(fields.into_iter().flatten().collect()))
}

fn decode(columns: &[Column], unit: TimestampUnit, chunks: &[Chunk]) -> RecordBatch {
    let options = CodecOptions { timestamp_unit: unit, ..CodecOptions::default() };
    let mut codec = JsonCodec::new(columns, options).unwrap();
    let mut batches = Vec::new();
    for chunk in chunks {
        let decoded = codec.decode(&stratus_seam::log::LogId("the-log".into()), chunk).unwrap();
        assert!(decoded.bad.is_empty(), "{:?}", decoded.bad[0]);
        batches.push(decoded.events);
    }
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// An event comes back from the master dataset as the very same row, whatever unit the codec takes numbers for.
    #[test]
    fn an_event_decodes_to_the_row_that_it_was(records in proptest::collection::vec(object(&every_type()), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (lake, log) = (Lake::open("memory://").unwrap(), ForgetfulLog::new(1));
            let source = source_of(every_type());
            for record in &records {
                log.append(0, 1, record.to_string());
            }
            ingest(&lake, &source, &log, TimestampUnit::Milli, None).await;
            let live = log.read(0, 0, None, MOST).await.unwrap();
            let written = decode(&source.columns, TimestampUnit::Milli, &[live]);
            assert_eq!(written.num_rows(), records.len());
            let back = master(&lake, &source).await.read(0, 0, None, MOST).await.unwrap();
            for unit in [TimestampUnit::Second, TimestampUnit::Milli, TimestampUnit::Micro] {
                let read = decode(&source.columns, unit, std::slice::from_ref(&back));
                assert_eq!(read, written, "{}", String::from_utf8_lossy(&back.bytes));
            }
        });
    }
}
