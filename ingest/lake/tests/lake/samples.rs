//! A source, a log whose every record follows from its offset, and what a table holds of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, new_null_array};
use arrow::datatypes::{Int32Type, Int64Type};
use datafusion::datasource::TableProvider;
use datafusion::prelude::SessionContext;
use stratus_lake::DeadLetter;
use stratus_seam::catalog::{Connector, Source};
use stratus_seam::ids::SourceId;
use stratus_seam::log::LogId;
use stratus_seam::offsets::OffsetVector;
use stratus_seam::schema::{Column, ColumnType, event_schema};
use uuid::Uuid;

pub(crate) fn columns() -> Vec<Column> {
    vec![Column::new("user", ColumnType::Text), Column::new("n", ColumnType::BigInt)]
}

pub(crate) fn source_of(columns: Vec<Column>) -> Source {
    Source {
        id: SourceId::new(),
        name: "clicks".into(),
        columns,
        connector: Connector::Directory,
        options: BTreeMap::new(),
        log: LogId("the-log".into()),
        start: OffsetVector::zero(),
    }
}

pub(crate) fn source() -> Source {
    source_of(columns())
}

/// A source with a fixed id, for two processes.
pub(crate) fn fixed_source() -> Source {
    Source { id: SourceId(Uuid::from_u128(7)), ..source() }
}

/// Events of one partition at these offsets.
pub(crate) fn events(partition: u32, offsets: impl IntoIterator<Item = u64>) -> RecordBatch {
    let offsets: Vec<i64> = offsets.into_iter().map(|offset| i64::try_from(offset).unwrap()).collect();
    let schema = event_schema(&columns());
    let users: StringArray = offsets.iter().map(|offset| Some(format!("user-{}", offset % 10))).collect();
    let numbers: Int64Array = offsets.iter().map(|offset| Some(offset * 3)).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(users),
        Arc::new(numbers),
        Arc::new(StringArray::from(vec!["the-log"; offsets.len()])),
        Arc::new(Int32Array::from(vec![i32::try_from(partition).unwrap(); offsets.len()])),
        Arc::new(Int64Array::from(offsets.clone())),
        new_null_array(schema.field(5).data_type(), offsets.len()),
    ];
    RecordBatch::try_new(schema, columns).unwrap()
}

pub(crate) fn letter(partition: u32, offset: u64) -> DeadLetter {
    DeadLetter {
        partition,
        offset,
        timestamp: None,
        reason: "not JSON".into(),
        raw: format!("{{{partition}:{offset}").into(),
    }
}

/// The positions that a table holds, sorted; a record that is there twice is there twice.
pub(crate) async fn positions(table: Arc<dyn TableProvider>) -> Vec<(u32, u64)> {
    let context = SessionContext::new();
    let frame = context.read_table(table).unwrap();
    let frame = frame.select_columns(&["_partition", "_offset"]).unwrap();
    let mut found = Vec::new();
    for batch in frame.collect().await.unwrap() {
        let partitions = batch.column(0).as_primitive::<Int32Type>();
        let offsets = batch.column(1).as_primitive::<Int64Type>();
        for (partition, offset) in partitions.values().iter().zip(offsets.values()) {
            found.push((u32::try_from(*partition).unwrap(), u64::try_from(*offset).unwrap()));
        }
    }
    found.sort_unstable();
    found
}

pub(crate) fn at<const N: usize>(entries: [(u32, u64); N]) -> OffsetVector {
    OffsetVector::from(entries)
}
