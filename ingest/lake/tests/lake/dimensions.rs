//! Dimension tables are copied by content.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use arrow::array::{Int32Array, RecordBatch, StringViewArray};
use arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::SessionContext;
use parquet::arrow::ArrowWriter;
use stratus_lake::{Lake, LakeError};
use stratus_seam::catalog::Dimension;
use stratus_seam::schema::{Column, ColumnType, arrow_schema};

fn columns() -> Vec<Column> {
    vec![Column::new("ad_id", ColumnType::Text), Column::new("campaign", ColumnType::BigInt)]
}

async fn rows(lake: &Lake, dimension: &Dimension) -> String {
    let table = lake.dimension_provider(dimension).await.unwrap();
    assert_eq!(table.schema(), arrow_schema(&dimension.columns));
    let batches = SessionContext::new().read_table(table).unwrap().collect().await.unwrap();
    pretty_format_batches(&batches).unwrap().to_string()
}

#[tokio::test]
async fn the_same_content_is_copied_once() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(&dir.path().join("lake").display().to_string()).unwrap();
    let file = dir.path().join("ads.csv");
    std::fs::write(&file, "campaign,extra,ad_id\n7,x,a\n,y,b\n").unwrap();
    let none = BTreeMap::new();
    let first = lake.copy_dimension("ads", &file, &none, &columns()).await.unwrap();
    let again = lake.copy_dimension("ads2", &file, &none, &columns()).await.unwrap();
    assert_eq!((first.rows, &first.hash, &first.path), (2, &again.hash, &again.path));
    assert_eq!(first.path, format!("dimensions/{}.parquet", first.hash));
    std::fs::write(&file, "campaign,extra,ad_id\n8,x,a\n").unwrap();
    let changed = lake.copy_dimension("ads", &file, &none, &columns()).await.unwrap();
    let narrower = lake.copy_dimension("ads", &file, &none, &columns()[..1]).await.unwrap();
    assert!(first.hash != changed.hash && changed.hash != narrower.hash);
    // What was copied first is still what it was.
    let shown = rows(&lake, &first).await;
    assert!(shown.contains("| a     | 7        |") && shown.contains("| b     |          |"), "{shown}");
    assert_eq!(std::fs::read_dir(dir.path().join("lake/dimensions")).unwrap().count(), 3);
}

#[tokio::test]
async fn parquet_is_cast_to_the_declared_columns() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open("memory://").unwrap();
    let file = dir.path().join("ads.parquet");
    let batch = RecordBatch::try_from_iter([
        ("campaign", Arc::new(Int32Array::from(vec![1, 2])) as _),
        ("ad_id", Arc::new(StringViewArray::from(vec!["a", "a rather long identifier"])) as _),
    ])
    .unwrap();
    let mut writer = ArrowWriter::try_new(File::create(&file).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let none = BTreeMap::new();
    let dimension = lake.copy_dimension("ads", &file, &none, &columns()).await.unwrap();
    assert!(rows(&lake, &dimension).await.contains("a rather long identifier"));
    let missing = [Column::new("nothing", ColumnType::Text)];
    let refused = lake.copy_dimension("ads", &file, &none, &missing).await.unwrap_err().to_string();
    assert!(refused.ends_with("ads.parquet: has no column nothing; it has campaign, ad_id"), "{refused}");
    let wrong = [Column::new("ad_id", ColumnType::Int)];
    let refused = lake.copy_dimension("ads", &file, &none, &wrong).await.unwrap_err();
    assert!(matches!(refused, LakeError::File { .. }), "{refused}");
    let not_null = [Column { not_null: true, ..Column::new("campaign", ColumnType::Int) }];
    assert_eq!(lake.copy_dimension("ads", &file, &none, &not_null).await.unwrap().rows, 2);
}

#[tokio::test]
async fn a_wrong_file_is_told_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open("memory://").unwrap();
    let file = dir.path().join("ads.txt");
    std::fs::write(&file, "a;1\nb;x\n").unwrap();
    let options = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let text = [("format", "csv"), ("header", "false"), ("delimiter", ";")];
    let refused = lake.copy_dimension("ads", &file, &options(&text), &columns()).await.unwrap_err();
    let expected = format!("{}:2: column campaign: 'x' is not a value of BIGINT", file.display());
    assert_eq!(refused.to_string(), expected);
    for wrong in [&[][..], &[("format", "xml")], &[("format", "csv"), ("header", "maybe")]] {
        let refused = lake.copy_dimension("ads", &file, &options(wrong), &columns()).await;
        assert!(matches!(refused, Err(LakeError::Invalid(_))), "{refused:?}");
    }
    let gone = lake.copy_dimension("ads", &dir.path().join("none.csv"), &options(&[]), &columns()).await;
    assert!(matches!(gone, Err(LakeError::File { .. })), "{gone:?}");
}

#[tokio::test]
async fn a_copy_that_was_tampered_with_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(&dir.path().join("lake").display().to_string()).unwrap();
    let file = dir.path().join("ads.csv");
    std::fs::write(&file, "ad_id,campaign\na,7\n").unwrap();
    let dimension = lake.copy_dimension("ads", &file, &BTreeMap::new(), &columns()).await.unwrap();
    std::fs::write(dir.path().join("lake").join(&dimension.path), b"PAR1").unwrap();
    let damaged = lake.dimension_provider(&dimension).await;
    assert!(matches!(damaged, Err(LakeError::Damaged { .. })), "{damaged:?}");
}
