//! Dimension tables: small tables that views join, copied into the lake under the hash of their content.
//!
//! A view's states depend on the very rows that it joined, so a copy never changes: other content has another name.

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{CastOptions, cast_with_options, concat_batches};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::datasource::{MemTable, TableProvider};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sha2::{Digest, Sha256};
use stratus_seam::catalog::Dimension;
use stratus_seam::schema::{Column, arrow_schema};

use crate::csv::{self, Dialect};
use crate::lake::dimension_file;
use crate::writer::{to_parquet, with_schema};
use crate::{Lake, LakeError};

/// A dimension table is held in memory by every query that joins it.
const LARGEST: u64 = 1 << 30;

/// Part of the hash: another number whenever the same file would be read as other rows.
const READING: &str = "stratus dimension 1";

/// How a file is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text(Dialect),
    Parquet,
}

impl Format {
    /// From `format`, `header` and `delimiter`; without a format the file's name decides.
    fn of(file: &FilePath, options: &BTreeMap<String, String>) -> Result<Self, LakeError> {
        let extension = file.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        let format = options.get("format").cloned().or(extension).unwrap_or_default();
        let text = |delimiter: u8| -> Result<Self, LakeError> {
            let header = match options.get("header").map(String::as_str) {
                None | Some("true") => true,
                Some("false") => false,
                Some(other) => {
                    return Err(LakeError::Invalid(format!(
                        "header must be 'true' or 'false', not '{other}'"
                    )));
                }
            };
            let delimiter = match options.get("delimiter").map(String::as_bytes) {
                None => delimiter,
                Some([one]) if one.is_ascii() => *one,
                Some(_) => return Err(LakeError::Invalid("delimiter must be one ASCII character".into())),
            };
            Ok(Self::Text(Dialect { header, delimiter }))
        };
        match format.as_str() {
            "csv" => text(b','),
            "tsv" => text(b'\t'),
            "parquet" => Ok(Self::Parquet),
            other => {
                Err(LakeError::Invalid(format!("format must be 'csv', 'tsv' or 'parquet', not '{other}'")))
            }
        }
    }
}

/// A file's content, read and ready to be put.
struct Copy {
    hash: String,
    rows: u64,
    parquet: Bytes,
}

impl Lake {
    /// Copies a file of this machine (CSV, TSV or Parquet) into the lake as a dimension table. The same content,
    /// declared the same, is copied once.
    ///
    /// Options: `format` (by default the file's extension), and for text `header` (`'true'` by default: the first
    /// line names the columns, in any order, more of them than are declared) and `delimiter`. In text an empty field
    /// is NULL, BYTEA is written `\x00ff`, and a TIMESTAMPTZ without an offset is UTC. Other options are not read.
    ///
    /// # Errors
    /// [`LakeError::Line`] or [`LakeError::File`] if the file cannot be read as the declared columns,
    /// [`LakeError::Invalid`] for the options, [`LakeError::Unavailable`] for the lake.
    pub async fn copy_dimension(
        &self,
        name: &str,
        file: &FilePath,
        options: &BTreeMap<String, String>,
        columns: &[Column],
    ) -> Result<Dimension, LakeError> {
        let format = Format::of(file, options)?;
        let (source, declared) = (file.to_path_buf(), columns.to_vec());
        let copied = tokio::task::spawn_blocking(move || copy(&source, format, &declared)).await;
        let copied =
            copied.map_err(LakeError::unavailable(format!("could not read {}", file.display())))??;
        let path = dimension_file(&copied.hash);
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store().put_opts(&Path::from(path.as_str()), copied.parquet.into(), options).await {
            // Who has the name has the content.
            Ok(_) | Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {}
            Err(error) => return Err(LakeError::unavailable(format!("could not write {path}"))(error)),
        }
        Ok(Dimension {
            name: name.to_owned(),
            columns: columns.to_vec(),
            hash: copied.hash,
            path,
            rows: copied.rows,
        })
    }

    /// A dimension table's rows, in memory, with exactly its declared types.
    ///
    /// # Errors
    /// [`LakeError::Unavailable`] if the copy cannot be read, [`LakeError::Damaged`] if it is not what was copied.
    pub async fn dimension_provider(
        &self,
        dimension: &Dimension,
    ) -> Result<Arc<dyn TableProvider>, LakeError> {
        let what = format!("could not read {}", dimension.path);
        let found = self
            .store()
            .get(&Path::from(dimension.path.as_str()))
            .await
            .map_err(LakeError::unavailable(&what))?;
        let bytes = found.bytes().await.map_err(LakeError::unavailable(&what))?;
        let schema = arrow_schema(&dimension.columns);
        let damaged = |what: String| LakeError::Damaged { path: dimension.path.clone(), what };
        let as_declared = Arc::clone(&schema);
        let read = tokio::task::spawn_blocking(move || read_parquet(bytes, &as_declared)).await;
        let batches = read.map_err(LakeError::unavailable(&what))?.map_err(damaged)?;
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        if rows as u64 != dimension.rows {
            return Err(damaged(format!("has {rows} rows, but {} were copied", dimension.rows)));
        }
        let table = MemTable::try_new(schema, vec![batches]).map_err(LakeError::unavailable(&what))?;
        Ok(Arc::new(table))
    }
}

fn copy(file: &FilePath, format: Format, columns: &[Column]) -> Result<Copy, LakeError> {
    let shown = file.display().to_string();
    let wrong = |what: String| LakeError::File { file: shown.clone(), what };
    let size = std::fs::metadata(file).map_err(|error| wrong(error.to_string()))?.len();
    if size > LARGEST {
        return Err(wrong(format!("has {size} bytes; a dimension table may have {LARGEST}")));
    }
    let bytes = Bytes::from(std::fs::read(file).map_err(|error| wrong(error.to_string()))?);
    let declared = serde_json::to_vec(columns).map_err(|error| wrong(error.to_string()))?;
    let mut hash = Sha256::new();
    for part in [READING.as_bytes(), format!("{format:?}").as_bytes(), &declared, &bytes] {
        // Each part with its length, so that no two lists of parts run together into the same bytes.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let schema = arrow_schema(columns);
    let rows = match format {
        Format::Text(dialect) => csv::read(&bytes, dialect, columns, &shown)?,
        Format::Parquet => {
            let batches = read_parquet(bytes, &schema).map_err(wrong)?;
            concat_batches(&schema, &batches).map_err(|error| wrong(error.to_string()))?
        }
    };
    let parquet = to_parquet(std::slice::from_ref(&rows), &schema)?;
    Ok(Copy { hash: hex::encode(hash.finalize()), rows: rows.num_rows() as u64, parquet })
}

/// A Parquet file's rows as the columns of a schema, found by name; errors say what does not fit.
fn read_parquet(bytes: Bytes, schema: &SchemaRef) -> Result<Vec<RecordBatch>, String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .and_then(|builder| builder.with_batch_size(8192).build())
        .map_err(|error| error.to_string())?;
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let mut batches = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|error| error.to_string())?;
        let mut columns = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let name = field.name();
            let found = batch.column_by_name(name).ok_or_else(|| {
                let names: Vec<_> = batch.schema().fields().iter().map(|f| f.name().clone()).collect();
                format!("has no column {name}; it has {}", names.join(", "))
            })?;
            let cast = cast_with_options(found, field.data_type(), &options);
            columns.push(cast.map_err(|error| format!("column {name}: {error}"))?);
        }
        let batch = RecordBatch::try_new(Arc::clone(schema), columns).map_err(|error| error.to_string())?;
        batches.push(with_schema(&batch, schema).map_err(|error| error.to_string())?);
    }
    Ok(batches)
}
