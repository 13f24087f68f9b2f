//! The files of a view's versions: the states of all groups, in plain Parquet.
//!
//! A run writes into a folder of its own, so that a run that fails, or one that lost the race to publish, leaves
//! nothing that another one could take for its own. A version's files never change.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::datasource::TableProvider;
use datafusion::execution::SendableRecordBatchStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use parquet::arrow::AsyncArrowWriter;
use stratus_seam::catalog::VersionFile;
use stratus_seam::ids::{RunId, ViewId};
use stratus_seam::retention::VersionFolder;
use uuid::Uuid;

use crate::files::{FileTable, LakeFile};
use crate::lake::{VIEWS_FOLDER, view_folder};
use crate::sorting::{by_key, cause};
use crate::writer::properties;
use crate::{Lake, LakeError};

/// A file is closed once it has about so many bytes.
const FILE_BYTES: usize = 256 << 20;

/// What a run has written: durable, and not yet part of anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenVersion {
    /// The files, for [`Version::files`]; none if there are no groups.
    pub files: Vec<VersionFile>,
    /// Their rows: the groups.
    pub groups: u64,
}

impl Lake {
    /// Writes the states of version `number` of a view in the order of their keys, so that a look-up reads few parts
    /// of the files, into a folder of this run alone. On return the files are durable; the catalog
    /// commit that publishes the version makes them part of the lake.
    ///
    /// # Errors
    /// What the stream fails with, or [`LakeError::Unavailable`] for the lake; [`LakeError::Invalid`] if a batch has
    /// other columns than `schema`.
    pub async fn write_version(
        &self,
        view: ViewId,
        number: u32,
        run: RunId,
        schema: SchemaRef,
        states: SendableRecordBatchStream,
    ) -> Result<WrittenVersion, LakeError> {
        self.write_version_in_files_of(view, (number, run), schema, states, FILE_BYTES).await
    }

    async fn write_version_in_files_of(
        &self,
        view: ViewId,
        (number, run): (u32, RunId),
        schema: SchemaRef,
        states: SendableRecordBatchStream,
        file_bytes: usize,
    ) -> Result<WrittenVersion, LakeError> {
        let folder = format!("{}/v{number}-{run}", view_folder(view));
        let mut written = WrittenVersion { files: Vec::new(), groups: 0 };
        let mut states = by_key(&schema, states).map_err(|error| cause(error, &folder))?;
        let mut open: Option<StateFile> = None;
        while let Some(batch) = states.next().await {
            let batch = batch.map_err(|error| cause(error, &folder))?;
            if batch.num_rows() == 0 {
                continue;
            }
            let mut file = match open.take() {
                Some(file) => file,
                None => {
                    let path = format!("{folder}/part-{}.parquet", written.files.len());
                    StateFile::create(self.store(), path, &schema)?
                }
            };
            file.writer.write(&batch).await.map_err(file.failed())?;
            file.rows += batch.num_rows() as u64;
            if file.writer.bytes_written() + file.writer.in_progress_size() < file_bytes {
                open = Some(file);
            } else {
                written.files.push(file.close().await?);
            }
        }
        if let Some(file) = open {
            written.files.push(file.close().await?);
        }
        written.groups = written.files.iter().map(|file| file.rows).sum();
        Ok(written)
    }

    /// The states of a version, with exactly `schema`: each column is cast to the type that the version's descriptor
    /// gives it, whatever the reader would make of the file. No files: no rows.
    pub fn version_provider(&self, files: &[VersionFile], schema: SchemaRef) -> Arc<dyn TableProvider> {
        let files = files.iter().map(|file| LakeFile { path: file.path.clone(), bytes: file.bytes });
        Arc::new(FileTable::new(self.clone(), schema, files.collect()))
    }

    /// The views that have a folder of versions, whatever the catalog says of them.
    ///
    /// # Errors
    /// [`LakeError::Unavailable`].
    pub async fn view_folders(&self) -> Result<Vec<ViewId>, LakeError> {
        let failed = LakeError::unavailable(format!("could not list {VIEWS_FOLDER}"));
        let folder = Path::from(VIEWS_FOLDER);
        let listed = self.store().list_with_delimiter(Some(&folder)).await.map_err(failed)?;
        let names = listed.common_prefixes.iter().filter_map(Path::filename);
        Ok(names.filter_map(|name| Uuid::try_parse(name).ok()).map(ViewId).collect())
    }

    /// The folders that runs of a view have written files into, whatever became of the runs.
    ///
    /// # Errors
    /// [`LakeError::Unavailable`].
    pub async fn version_folders(&self, view: ViewId) -> Result<Vec<VersionFolder>, LakeError> {
        let folder = view_folder(view);
        let failed = LakeError::unavailable(format!("could not list {folder}"));
        let prefix = Path::from(folder.as_str());
        let listed = self.store().list_with_delimiter(Some(&prefix)).await.map_err(failed)?;
        let number = |path: &Path| path.filename()?.strip_prefix('v')?.split_once('-')?.0.parse().ok();
        let found = listed.common_prefixes.iter();
        Ok(found
            .filter_map(|path| Some(VersionFolder { path: path.to_string(), number: number(path)? }))
            .collect())
    }

    /// Removes a folder of a version with its files, and says how many there were. Queries that still read them
    /// fail.
    ///
    /// # Errors
    /// [`LakeError::Unavailable`]; what was not removed is by a second call.
    pub async fn remove_version(&self, folder: &VersionFolder) -> Result<usize, LakeError> {
        self.remove_folder(&folder.path).await
    }

    /// Removes all files of a view that was dropped, and says how many. Queries that still read them fail.
    ///
    /// # Errors
    /// As [`Lake::remove_version`].
    pub async fn remove_view(&self, view: ViewId) -> Result<usize, LakeError> {
        let mut removed = 0;
        for folder in self.version_folders(view).await? {
            removed += self.remove_version(&folder).await?;
        }
        Ok(removed + self.remove_folder(&view_folder(view)).await?)
    }

    async fn remove_folder(&self, folder: &str) -> Result<usize, LakeError> {
        let failed = || LakeError::unavailable(format!("could not remove files of {folder}"));
        let prefix = Path::from(folder);
        let found: Vec<Path> = self
            .store()
            .list(Some(&prefix))
            .map_ok(|file| file.location)
            .try_collect()
            .await
            .map_err(failed())?;
        let removed = self.store().delete_stream(stream::iter(found.into_iter().map(Ok)).boxed());
        let count = removed.try_fold(0, |count, _| futures::future::ok(count + 1)).await.map_err(failed())?;
        self.forget_empty_folder(folder).await;
        Ok(count)
    }

    /// On a disk an empty folder stays behind, which object stores do not have.
    async fn forget_empty_folder(&self, folder: &str) {
        let Some(path) = self.root().to_file_path().ok().filter(|_| self.root().scheme() == "file") else {
            return;
        };
        let folder = path.join(folder);
        if let Err(error) = tokio::fs::remove_dir(&folder).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::debug!("the empty folder {} stays: {error}", folder.display());
        }
    }
}

/// A file of states that is being written.
struct StateFile {
    path: String,
    rows: u64,
    writer: AsyncArrowWriter<BufWriter>,
}

impl StateFile {
    fn create(store: &Arc<dyn ObjectStore>, path: String, schema: &SchemaRef) -> Result<Self, LakeError> {
        let upload = BufWriter::new(Arc::clone(store), Path::from(path.as_str()));
        let writer = AsyncArrowWriter::try_new(upload, Arc::clone(schema), Some(properties(schema)?))
            .map_err(LakeError::unavailable(format!("could not write {path}")))?;
        Ok(Self { path, rows: 0, writer })
    }

    fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        &self,
    ) -> impl FnOnce(E) -> LakeError + use<E> {
        LakeError::unavailable(format!("could not write {}", self.path))
    }

    /// Closes the file; it is durable on return.
    async fn close(mut self) -> Result<VersionFile, LakeError> {
        let failed = self.failed();
        self.writer.finish().await.map_err(failed)?;
        let bytes = self.writer.bytes_written() as u64;
        Ok(VersionFile { path: self.path, bytes, rows: self.rows })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use datafusion::prelude::SessionContext;

    use object_store::ObjectStoreExt;

    use super::*;

    fn states(batches: i64) -> (SchemaRef, SendableRecordBatchStream) {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("g0", DataType::Int64, false)]));
        let of = Arc::clone(&schema);
        let batches = (0..batches).map(move |i| {
            let column = Int64Array::from_iter_values(i * 1000..(i + 1) * 1000);
            Ok(RecordBatch::try_new(Arc::clone(&of), vec![Arc::new(column)])?)
        });
        let stream = RecordBatchStreamAdapter::new(Arc::clone(&schema), stream::iter(batches));
        (schema, Box::pin(stream))
    }

    #[tokio::test]
    async fn a_large_version_has_several_files() {
        let lake = Lake::open("memory://").unwrap();
        let (schema, stream) = states(20);
        let view = ViewId::new();
        let written = lake
            .write_version_in_files_of(view, (1, RunId::new()), Arc::clone(&schema), stream, 20_000)
            .await
            .unwrap();
        assert!(written.files.len() > 2, "{written:?}");
        assert_eq!(written.groups, 20_000);
        let context = SessionContext::new();
        let table = lake.version_provider(&written.files, schema);
        assert_eq!(context.read_table(table).unwrap().count().await.unwrap(), 20_000);
        for file in &written.files {
            let found = lake.store().head(&Path::from(file.path.as_str())).await.unwrap();
            assert_eq!(found.size, file.bytes);
        }
    }
}
