//! One Delta table of a source: opened, followed, and extended by commits whose place nobody else can take.
//!
//! A commit is put under the number right behind the version whose entries were checked, only if that number is
//! free. So the snapshot that was checked is the one that the commit follows, and nothing that others committed can
//! come between. Deltalake's own retry loop would move on to a later number, without comparing entries.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::transaction::{CommitData, CommitProperties, PROTOCOL, TransactionError};
use deltalake::kernel::{Action, EagerSnapshot, StructType};
use deltalake::logstore::{CommitOrBytes, LogStoreRef, get_actions};
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::{DeltaTable, DeltaTableBuilder, checkpoints};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use stratus_seam::catalog::Source;
use stratus_seam::log::LogId;
use stratus_seam::offsets::{Offset, OffsetVector};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::entries::{Entries, Names, is_commit};
use crate::writer::{Rows, add, arrange, encode};
use crate::{Lake, LakeError};

/// A checkpoint is made after so many versions: whoever opens the table reads fewer commits than that.
const CHECKPOINT_EVERY: u64 = 50;

/// How often a put whose answer was lost is tried again, and how long the first wait is; it doubles.
const PUT_ATTEMPTS: u32 = 6;
const FIRST_WAIT: Duration = Duration::from_millis(10);

/// The properties that a table is made with. Commits are frequent, so those that a checkpoint covers go after a week
/// instead of a month. Transaction entries never expire: `delta.setTransactionRetentionDuration` stays unset.
const PROPERTIES: [(&str, &str); 2] =
    [("delta.appendOnly", "true"), ("delta.logRetentionDuration", "interval 7 days")];

/// A Delta table of a source.
#[derive(Debug, Clone)]
pub(crate) struct SourceTable {
    /// For people: the source and the place.
    pub(crate) what: String,
    pub(crate) schema: SchemaRef,
    pub(crate) log: LogId,
    pub(crate) names: Names,
    /// Its folder in the lake.
    pub(crate) folder: String,
    store: Arc<dyn ObjectStore>,
    log_store: LogStoreRef,
}

impl SourceTable {
    /// Opens the table in a folder of the lake, and makes it if there is none; with its newest version.
    pub(crate) async fn open(
        lake: &Lake,
        source: &Source,
        kind: &str,
        folder: String,
        schema: SchemaRef,
    ) -> Result<(Self, EagerSnapshot), LakeError> {
        let what = format!("{kind} of source {} ({folder})", source.name);
        let failed = format!("could not open {what}");
        let url = lake.root().join(&format!("{folder}/")).map_err(LakeError::unavailable(&failed))?;
        let log_store = DeltaTableBuilder::from_url(url.clone())
            .map_err(LakeError::unavailable(&failed))?
            .with_storage_backend(Arc::clone(lake.whole_store()), url)
            .build_storage()
            .map_err(LakeError::unavailable(&failed))?;
        let table = Self {
            what,
            schema,
            log: source.log.clone(),
            names: Names::new(source.id, &source.log),
            folder,
            store: Arc::clone(lake.store()),
            log_store,
        };
        let snapshot = match table.log_store.is_delta_table_location().await {
            Ok(true) => table.load().await?,
            Ok(false) => {
                let made = table.make().await;
                // Whoever makes it first, it is the same table; if nobody did, the first error tells more.
                table.load().await.map_err(|error| made.err().unwrap_or(error))?
            }
            Err(error) => return Err(table.failed("could not open")(error)),
        };
        table.check(&snapshot)?;
        Ok((table, snapshot))
    }

    pub(crate) fn failed<E>(&self, what: &str) -> impl FnOnce(E) -> LakeError + use<E>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        LakeError::unavailable(format!("{what} {}", self.what))
    }

    fn delta_schema(&self) -> Result<StructType, LakeError> {
        self.schema.as_ref().try_into_kernel().map_err(|error: arrow::error::ArrowError| {
            LakeError::Invalid(format!("{} cannot be kept in Delta: {error}", self.what))
        })
    }

    /// Makes the table as its version 0, or fails if somebody else has. Deltalake's retry would put the same creation
    /// behind the other one, as a version that ends the ingester which has read the first.
    async fn make(&self) -> Result<(), LakeError> {
        DeltaTable::new(Arc::clone(&self.log_store))
            .create()
            .with_columns(self.delta_schema()?.fields().cloned())
            .with_configuration(PROPERTIES.map(|(name, value)| (name.to_owned(), Some(value.to_owned()))))
            .with_save_mode(SaveMode::ErrorIfExists)
            .with_commit_properties(CommitProperties::default().with_max_retries(0))
            .await
            .map_err(self.failed("could not make"))?;
        Ok(())
    }

    /// Its newest version.
    async fn load(&self) -> Result<EagerSnapshot, LakeError> {
        EagerSnapshot::try_new(self.log_store.as_ref(), None).await.map_err(self.failed("could not read"))
    }

    /// A table of which the state is brought up to date in steps.
    pub(crate) fn delta(&self) -> DeltaTable {
        DeltaTable::new(Arc::clone(&self.log_store))
    }

    /// That the table is one that we may read and write.
    fn check(&self, snapshot: &EagerSnapshot) -> Result<(), LakeError> {
        PROTOCOL.can_write_to(snapshot).map_err(self.failed("could not use"))?;
        let (declared, found) = (self.delta_schema()?, snapshot.schema());
        let named = |schema: &StructType| -> Vec<String> {
            schema.fields().map(|field| format!("{} {}", field.name(), field.data_type())).collect()
        };
        if named(&declared) != named(&found) {
            return Err(LakeError::Damaged {
                path: self.folder.clone(),
                what: format!(
                    "the table has the columns ({}), but the source declares ({})",
                    named(&found).join(", "),
                    named(&declared).join(", ")
                ),
            });
        }
        Ok(())
    }

    /// The entries as of a snapshot.
    pub(crate) async fn entries(&self, snapshot: &EagerSnapshot) -> Result<Entries, LakeError> {
        let mut entries = Entries::none(snapshot.version());
        // A commit of ours carries all entries. Behind one of a maintenance tool each is looked up by its name.
        if let Some(actions) = self.commit_at(snapshot.version()).await? {
            entries.read(&actions, &self.names);
            if entries.commit.is_some() {
                return Ok(entries);
            }
        }
        let look_up = |app: String| async move {
            let found = snapshot.transaction_version(self.log_store.as_ref(), app).await;
            found.map_err(self.failed("could not read the entries of"))
        };
        entries = Entries::none(snapshot.version());
        entries.commit = look_up(self.names.commit()).await?;
        let partitions = look_up(self.names.partitions()).await?.and_then(|n| u32::try_from(n).ok());
        let found: Vec<(u32, Option<i64>)> = stream::iter(0..partitions.unwrap_or(0))
            .map(|partition| async move {
                Ok::<_, LakeError>((partition, look_up(self.names.partition(partition)).await?))
            })
            .buffered(8)
            .try_collect()
            .await?;
        for (partition, offset) in found {
            entries.absorbed.set(partition, offset.and_then(|n| Offset::try_from(n).ok()).unwrap_or(0));
        }
        if entries.commit.is_none() && snapshot.log_data().num_files() > 0 {
            return Err(LakeError::Damaged {
                path: self.folder.clone(),
                what: "the table holds rows, but no entry says up to where: another tool has removed them. \
                       Reading the log again would double the rows; restore the table's _delta_log"
                    .into(),
            });
        }
        Ok(entries)
    }

    /// Brings entries up to date; true if there was anything new.
    pub(crate) async fn follow(&self, entries: &mut Entries) -> Result<bool, LakeError> {
        let from = entries.version;
        while let Some(actions) = self.commit_at(entries.version + 1).await? {
            *entries = entries.after(&actions, &self.names);
        }
        Ok(entries.version > from)
    }

    /// The commit that made a version.
    async fn commit_at(&self, version: u64) -> Result<Option<Vec<Action>>, LakeError> {
        let read = self.log_store.read_commit_entry(version).await;
        let bytes = read.map_err(self.failed("could not read the log of"))?;
        let parse = |bytes: Bytes| {
            get_actions(version, &bytes).map_err(|error| LakeError::Damaged {
                path: format!("{}/_delta_log/{version:020}.json", self.folder),
                what: format!("cannot be understood: {error}"),
            })
        };
        bytes.map(parse).transpose()
    }
}

/// The one writer of a table in this process.
#[derive(Debug)]
pub(crate) struct TableWriter {
    pub(crate) table: SourceTable,
    entries: Entries,
    /// Where the source's history begins.
    start: OffsetVector,
    /// Set when a commit's fate is unknown or lost: what the entries say may no longer be true.
    in_doubt: bool,
    checkpoint: Option<JoinHandle<()>>,
}

impl TableWriter {
    pub(crate) async fn new(
        (table, snapshot): (SourceTable, EagerSnapshot),
        start: &OffsetVector,
    ) -> Result<Self, LakeError> {
        let entries = table.entries(&snapshot).await?;
        Ok(Self { table, entries, start: start.clone(), in_doubt: false, checkpoint: None })
    }

    /// What the table has absorbed, from where the source begins.
    pub(crate) fn absorbed(&self) -> OffsetVector {
        self.entries.absorbed.join(&self.start)
    }

    /// Whether another writer has committed since this one last looked.
    pub(crate) async fn is_overtaken(&self) -> Result<bool, LakeError> {
        Ok(self.table.commit_at(self.entries.version + 1).await?.is_some())
    }

    pub(crate) fn superseded(&self) -> LakeError {
        LakeError::Superseded { table: self.table.what.clone(), version: self.entries.version + 1 }
    }

    /// Takes over what others have committed. Whoever calls this must check anew.
    pub(crate) async fn catch_up(&mut self) -> Result<(), LakeError> {
        self.table.follow(&mut self.entries).await?;
        self.in_doubt = false;
        Ok(())
    }

    /// That nothing stands in the way of a commit from `from` on.
    pub(crate) fn may_follow(&self, from: &OffsetVector) -> Result<(), LakeError> {
        if self.in_doubt {
            return Err(LakeError::Invalid(format!(
                "an earlier write to {} failed, so that what it has absorbed is not known: open it anew",
                self.table.what
            )));
        }
        let absorbed = self.absorbed();
        if absorbed == *from {
            return Ok(());
        }
        Err(LakeError::OutOfStep { table: self.table.what.clone(), absorbed, from: from.clone() })
    }

    /// The rows of a batch, checked and sorted into files.
    pub(crate) fn arrange(
        &self,
        batches: Vec<RecordBatch>,
        from: &OffsetVector,
        to: &OffsetVector,
    ) -> Result<Vec<Rows>, LakeError> {
        arrange(batches, &self.table.schema, &self.table.log, from, to)
    }

    /// Commits the rows together with entries that say `to`, right behind the version whose entries are known.
    pub(crate) async fn commit(&mut self, to: &OffsetVector, files: Vec<Rows>) -> Result<(), LakeError> {
        self.may_follow(&self.absorbed())?;
        let id = i64::from_be_bytes(*Uuid::new_v4().as_bytes().first_chunk().unwrap_or(&[0; 8])) & i64::MAX;
        let entries = Entries::write(to, id, &self.table.names)
            .ok_or_else(|| LakeError::Invalid(format!("{to} is beyond what the lake can hold")))?;
        let mut actions = Vec::with_capacity(files.len());
        for rows in files {
            actions.push(Action::Add(self.write(rows).await?));
        }
        let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
        let commit = CommitData::new(actions, operation, HashMap::new(), entries)
            .get_bytes()
            .map_err(self.table.failed("could not write a commit of"))?;
        self.in_doubt = true;
        self.put(id, commit).await?;
        self.in_doubt = false;
        self.entries = Entries { version: self.entries.version + 1, absorbed: to.clone(), commit: Some(id) };
        self.make_checkpoint().await;
        Ok(())
    }

    /// Writes one file; it is durable on return, and belongs to the table once a commit names it.
    async fn write(&self, rows: Rows) -> Result<deltalake::kernel::Add, LakeError> {
        let schema = Arc::clone(&self.table.schema);
        let encoded = tokio::task::spawn_blocking(move || encode(&rows, &schema).map(|bytes| (bytes, rows)));
        let (bytes, rows) = encoded.await.map_err(self.table.failed("could not write rows of"))??;
        let name = format!("part-{}.parquet", Uuid::now_v7().simple());
        let path = Path::from(format!("{}/{name}", self.table.folder));
        let size = bytes.len();
        self.table
            .store
            .put(&path, bytes.into())
            .await
            .map_err(LakeError::unavailable(format!("could not write {path}")))?;
        Ok(add(name, size, &rows))
    }

    /// Puts the commit under the next number. An answer that was lost is settled by who stands there; as long as
    /// nobody does, the same bytes may be put again, because only one put can be the first.
    async fn put(&self, id: i64, commit: Bytes) -> Result<(), LakeError> {
        let version = self.entries.version + 1;
        let mut wait = FIRST_WAIT;
        let mut attempt = 1;
        loop {
            let bytes = CommitOrBytes::LogBytes(commit.clone());
            let put = self.table.log_store.write_commit_entry(version, bytes, Uuid::new_v4()).await;
            let Err(error) = put else { return Ok(()) };
            match self.table.commit_at(version).await {
                Ok(Some(stands)) if is_commit(&stands, &self.table.names, id) => return Ok(()),
                Ok(Some(_)) => return Err(self.superseded()),
                Ok(None) | Err(_) => {}
            }
            if attempt == PUT_ATTEMPTS || matches!(error, TransactionError::SerializeLogJson { .. }) {
                return Err(self.table.failed("could not commit to")(error));
            }
            tracing::warn!(table = %self.table.what, version, attempt, %error, "a commit is put again");
            tokio::time::sleep(wait).await;
            wait *= 2;
            attempt += 1;
        }
    }

    /// Now and then starts a checkpoint of the newest version, beside the commits that follow. One that fails
    /// costs later readers time, and nothing else.
    async fn make_checkpoint(&mut self) {
        if !self.entries.version.is_multiple_of(CHECKPOINT_EVERY) {
            return;
        }
        self.settle().await;
        let table = self.table.clone();
        let version = self.entries.version;
        self.checkpoint = Some(tokio::spawn(async move {
            let make = async || -> Result<(), deltalake::DeltaTableError> {
                let mut delta = table.delta();
                delta.load_version(version).await?;
                checkpoints::create_checkpoint(&delta, None).await?;
                checkpoints::cleanup_metadata(&delta, None).await?;
                Ok(())
            };
            if let Err(error) = make().await {
                tracing::warn!(table = %table.what, version, %error, "no checkpoint was made");
            }
        }));
    }

    /// Waits for the checkpoint that is being made, if any.
    pub(crate) async fn settle(&mut self) {
        if let Some(checkpoint) = self.checkpoint.take() {
            // A checkpoint that panicked is as one that failed.
            let _ = checkpoint.await;
        }
    }
}
