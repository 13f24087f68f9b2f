//! The master dataset as the other layers read it.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use datafusion::datasource::TableProvider;
use datafusion::prelude::SessionContext;
use deltalake::DeltaTable;
use deltalake::kernel::EagerSnapshot;
use serde::Deserialize;
use stratus_seam::catalog::Source;
use stratus_seam::offsets::OffsetVector;
use tokio::sync::Mutex;

use crate::files::{FileTable, LakeFile};
use crate::source_tables::{dead_letters_table, events_table};
use crate::span::{Place, Span, Window};
use crate::table::SourceTable;
use crate::{Lake, LakeError};

/// A source's events and dead letters, to be read. A clone reads the same, and shares what was read of the tables'
/// logs.
#[derive(Debug, Clone)]
pub struct MasterDataset {
    lake: Lake,
    start: OffsetVector,
    events: Arc<Followed>,
    dead_letters: Arc<Followed>,
}

/// A table, and its state as of the last look.
#[derive(Debug)]
struct Followed {
    table: SourceTable,
    state: Mutex<DeltaTable>,
}

impl Followed {
    fn new(table: SourceTable) -> Arc<Self> {
        let state = Mutex::new(table.delta());
        Arc::new(Self { table, state })
    }

    /// The newest version; reads only what was committed since the last look.
    async fn newest(&self) -> Result<EagerSnapshot, LakeError> {
        let mut state = self.state.lock().await;
        state.update_state().await.map_err(self.table.failed("could not read"))?;
        let snapshot = state.snapshot().map_err(self.table.failed("could not read"))?;
        Ok(snapshot.snapshot().clone())
    }
}

impl MasterDataset {
    /// Opens a source's tables, and makes them if ingest has not yet.
    ///
    /// # Errors
    /// As [`SourceTables::open`](crate::SourceTables::open).
    pub async fn open(lake: &Lake, source: &Source) -> Result<Self, LakeError> {
        Ok(Self {
            lake: lake.clone(),
            start: source.start.clone(),
            events: Followed::new(events_table(lake, source).await?.0),
            dead_letters: Followed::new(dead_letters_table(lake, source).await?.0),
        })
    }

    /// What the master dataset has absorbed by now.
    ///
    /// # Errors
    /// [`LakeError`] if the lake does not answer, or the table is damaged.
    pub async fn absorbed(&self) -> Result<OffsetVector, LakeError> {
        let snapshot = self.events.newest().await?;
        Ok(self.events.table.entries(&snapshot).await?.absorbed.join(&self.start))
    }

    /// Returns once everything below `cut` has been absorbed, with what has been. Looks again after each `poll`, and
    /// then asks for the next commit only. Waits for ever: put a timeout around it.
    ///
    /// # Errors
    /// As [`MasterDataset::absorbed`].
    pub async fn wait_absorbed(&self, cut: &OffsetVector, poll: Duration) -> Result<OffsetVector, LakeError> {
        let snapshot = self.events.newest().await?;
        let mut entries = self.events.table.entries(&snapshot).await?;
        loop {
            let absorbed = entries.absorbed.join(&self.start);
            if absorbed.covers(cut) {
                return Ok(absorbed);
            }
            if !self.events.table.follow(&mut entries).await? {
                tokio::time::sleep(poll).await;
            }
        }
    }

    /// The newest version of the events: a fixed set of rows, whatever is written meanwhile.
    ///
    /// # Errors
    /// As [`MasterDataset::absorbed`].
    pub async fn snapshot(&self) -> Result<MasterSnapshot, LakeError> {
        let snapshot = self.events.newest().await?;
        let entries = self.events.table.entries(&snapshot).await?;
        Ok(MasterSnapshot {
            lake: self.lake.clone(),
            table: self.events.table.clone(),
            absorbed: entries.absorbed.join(&self.start),
            files: files(&self.events.table, &snapshot)?.into(),
        })
    }

    /// The newest version of the dead letters, with [`dead_letter_schema`](crate::dead_letter_schema).
    ///
    /// # Errors
    /// As [`MasterDataset::absorbed`].
    pub async fn dead_letters(&self) -> Result<Arc<dyn TableProvider>, LakeError> {
        let snapshot = self.dead_letters.newest().await?;
        let table = &self.dead_letters.table;
        let files = files(table, &snapshot)?.into_iter().map(|file| file.file).collect();
        Ok(Arc::new(FileTable::new(self.lake.clone(), Arc::clone(&table.schema), files)))
    }
}

impl MasterDataset {
    /// What the events have absorbed by now, and their files.
    pub(crate) async fn event_files(&self) -> Result<(OffsetVector, TableFiles), LakeError> {
        let snapshot = self.snapshot().await?;
        let schema = Arc::clone(&snapshot.table.schema);
        Ok((snapshot.absorbed, TableFiles { schema, files: snapshot.files, dead_letters: false }))
    }

    /// The files of the dead letters by now.
    pub(crate) async fn dead_letter_files(&self) -> Result<TableFiles, LakeError> {
        let snapshot = self.dead_letters.newest().await?;
        let table = &self.dead_letters.table;
        let files = files(table, &snapshot)?.into();
        Ok(TableFiles { schema: Arc::clone(&table.schema), files, dead_letters: true })
    }
}

/// The files of one version of one of the two tables.
#[derive(Debug)]
pub(crate) struct TableFiles {
    schema: SchemaRef,
    files: Arc<[NotedFile]>,
    dead_letters: bool,
}

impl TableFiles {
    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    pub(crate) const fn is_dead_letters(&self) -> bool {
        self.dead_letters
    }

    /// The boxes around the files' rows, as far as they are known.
    pub(crate) fn spans(&self) -> impl Iterator<Item = Option<Span>> + '_ {
        self.files.iter().map(|file| file.span)
    }

    /// How many rows and bytes the files have.
    pub(crate) fn size(&self) -> (u64, u64) {
        let known = self.files.iter().filter_map(|file| Some((file.rows?, file.file.bytes)));
        known.fold((0, 0), |(rows, bytes), (more, held)| (rows + more, bytes + held))
    }

    /// The files that lie to a window as asked.
    pub(crate) fn placed(&self, window: &Window, wanted: impl Fn(Place) -> bool) -> Vec<LakeFile> {
        let here = self.files.iter().filter(|file| wanted(window.place(file.span.as_ref())));
        here.map(|file| file.file.clone()).collect()
    }
}

/// A file of a table, and what Delta notes of it.
#[derive(Debug, Clone)]
struct NotedFile {
    file: LakeFile,
    rows: Option<u64>,
    span: Option<Span>,
}

/// The part of Delta's statistics that we read; other writers may leave any of it out.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Stats {
    num_records: Option<u64>,
    min_values: Bounds,
    max_values: Bounds,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Bounds {
    _partition: Option<u32>,
    _offset: Option<u64>,
}

impl Stats {
    fn span(&self) -> Option<Span> {
        Some(Span {
            partitions: (self.min_values._partition?, self.max_values._partition?),
            offsets: (self.min_values._offset?, self.max_values._offset?),
        })
    }
}

fn files(table: &SourceTable, snapshot: &EagerSnapshot) -> Result<Vec<NotedFile>, LakeError> {
    let noted = |file: deltalake::kernel::LogicalFileView| {
        let path = format!("{}/{}", table.folder, file.path());
        if file.deletion_vector_descriptor().is_some() || file.path().contains("://") {
            let what = "another tool has deleted rows of the file or refers to a file elsewhere, which a master \
                        dataset does not know; restore the table's _delta_log";
            return Err(LakeError::Damaged { path, what: what.into() });
        }
        let bytes = u64::try_from(file.size()).unwrap_or(0);
        let stats =
            file.stats().and_then(|json| serde_json::from_str::<Stats>(&json).ok()).unwrap_or_default();
        Ok(NotedFile { file: LakeFile { path, bytes }, rows: stats.num_records, span: stats.span() })
    };
    snapshot.log_data().iter().map(noted).collect()
}

/// One version of a source's events. A clone is the same version.
#[derive(Debug, Clone)]
pub struct MasterSnapshot {
    lake: Lake,
    table: SourceTable,
    absorbed: OffsetVector,
    files: Arc<[NotedFile]>,
}

impl MasterSnapshot {
    /// What this version has absorbed.
    pub fn absorbed(&self) -> &OffsetVector {
        &self.absorbed
    }

    /// All its events, with exactly the source's [`event_schema`](stratus_seam::schema::event_schema).
    pub fn events(&self) -> Arc<dyn TableProvider> {
        let files = self.files.iter().map(|file| file.file.clone()).collect();
        Arc::new(FileTable::new(self.lake.clone(), Arc::clone(&self.table.schema), files))
    }

    /// Its events with `from <= _offset < cut` in their partition; from the beginning if there is no `from`.
    ///
    /// # Errors
    /// [`LakeError::Invalid`] if this version has not absorbed `cut`: events would be missing, silently.
    pub fn events_below(
        &self,
        cut: &OffsetVector,
        from: Option<&OffsetVector>,
    ) -> Result<Arc<dyn TableProvider>, LakeError> {
        let (inside, across, window) = self.sorted(cut, from)?;
        Ok(Arc::new(self.windowed(
            inside.into_iter().map(|file| file.file.clone()).collect(),
            across,
            &window,
        )))
    }

    /// How many events [`MasterSnapshot::events_below`] has. Reads only files that may lie on both sides.
    ///
    /// # Errors
    /// As there; [`LakeError::Unavailable`] if a file cannot be read.
    pub async fn count_below(
        &self,
        cut: &OffsetVector,
        from: Option<&OffsetVector>,
    ) -> Result<u64, LakeError> {
        let (inside, across, window) = self.sorted(cut, from)?;
        let known: u64 = inside.iter().filter_map(|file| file.rows).sum();
        let uncounted = inside.iter().filter(|file| file.rows.is_none()).map(|file| file.file.clone());
        let table = self.windowed(uncounted.collect(), across, &window);
        if table.whole.is_empty() && table.across.is_empty() {
            return Ok(known);
        }
        let count = async { SessionContext::new().read_table(Arc::new(table))?.count().await };
        let counted = count.await.map_err(self.table.failed("could not count the events of"))?;
        Ok(known + counted as u64)
    }

    fn windowed(&self, whole: Vec<LakeFile>, across: Vec<LakeFile>, window: &Window) -> FileTable {
        FileTable {
            lake: self.lake.clone(),
            schema: Arc::clone(&self.table.schema),
            whole,
            across,
            condition: Some(window.condition()),
        }
    }

    /// The files that lie in the window, and those that may lie across its edge.
    fn sorted(
        &self,
        cut: &OffsetVector,
        from: Option<&OffsetVector>,
    ) -> Result<(Vec<&NotedFile>, Vec<LakeFile>, Window), LakeError> {
        if !self.absorbed.covers(cut) {
            return Err(LakeError::Invalid(format!(
                "{} has absorbed {}, not yet {cut}",
                self.table.what, self.absorbed
            )));
        }
        let window = Window { from: from.cloned().unwrap_or_default(), cut: cut.clone() };
        let (mut inside, mut across) = (Vec::new(), Vec::new());
        for file in self.files.iter() {
            match window.place(file.span.as_ref()) {
                Place::Inside => inside.push(file),
                Place::Across => across.push(file.file.clone()),
                Place::Outside => {}
            }
        }
        Ok((inside, across, window))
    }
}
