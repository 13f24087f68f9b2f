//! What ingest writes: a source's events and its dead letters, each record once, whatever crashes.
//!
//! Two Delta tables have no common commit, so the dead letters go first, with entries of their own. If the process
//! dies between the two, the records are replayed, perhaps in batches that end elsewhere; the dead letters' own
//! entries say which of them are in already. The table of events alone decides who may go on.

use arrow::array::RecordBatch;
use deltalake::kernel::EagerSnapshot;
use stratus_seam::catalog::Source;
use stratus_seam::log::LogId;
use stratus_seam::offsets::OffsetVector;
use stratus_seam::schema::event_schema;

use crate::dead_letters::{DeadLetter, dead_letter_schema, not_yet_written, to_batch};
use crate::lake::{dead_letters_folder, events_folder};
use crate::table::{SourceTable, TableWriter};
use crate::{Lake, LakeError};

/// The master dataset of a source, with its newest version.
pub(crate) async fn events_table(
    lake: &Lake,
    source: &Source,
) -> Result<(SourceTable, EagerSnapshot), LakeError> {
    let schema = event_schema(&source.columns);
    SourceTable::open(lake, source, "the master dataset", events_folder(source.id), schema).await
}

/// The dead letters of a source, with their newest version.
pub(crate) async fn dead_letters_table(
    lake: &Lake,
    source: &Source,
) -> Result<(SourceTable, EagerSnapshot), LakeError> {
    let folder = dead_letters_folder(source.id);
    SourceTable::open(lake, source, "the dead letters", folder, dead_letter_schema()).await
}

/// The writer of a source's master dataset and dead letters. Of two that write the same source, in one process or
/// in two, exactly one goes on; the other one gets [`LakeError::Superseded`].
#[derive(Debug)]
pub struct SourceTables {
    log: LogId,
    events: TableWriter,
    dead_letters: TableWriter,
}

impl SourceTables {
    /// Opens both tables, and makes them if there are none.
    ///
    /// # Errors
    /// [`LakeError::Unavailable`] if the lake does not answer; [`LakeError::Damaged`] if a table is there that is
    /// not this source's.
    pub async fn open(lake: &Lake, source: &Source) -> Result<Self, LakeError> {
        let events = events_table(lake, source).await?;
        let dead_letters = dead_letters_table(lake, source).await?;
        Ok(Self {
            log: source.log.clone(),
            events: TableWriter::new(events, &source.start).await?,
            dead_letters: TableWriter::new(dead_letters, &source.start).await?,
        })
    }

    /// What the source's tables have absorbed, as this writer knows it: the next batch begins here.
    pub fn absorbed(&self) -> OffsetVector {
        self.events.absorbed()
    }

    /// Writes the records from `from` (inclusive) to `to` (exclusive) durably: the bad ones as dead letters, then
    /// the events and the entries that say `to`, in one commit. A batch may hold neither, if only its end moved; if
    /// that did not move either, nothing is written.
    ///
    /// # Errors
    /// - [`LakeError::OutOfStep`] if `from` is not what was absorbed, [`LakeError::Invalid`] if the rows do not lie
    ///   in [from, to) in order: nothing was written, and the writer is as good as before;
    /// - [`LakeError::Superseded`] if another ingester has written: this one must stop;
    /// - [`LakeError::Unavailable`] if the lake did not answer: the batch may or may not have been written. Open
    ///   anew, and go on from what was absorbed.
    pub async fn append(
        &mut self,
        from: &OffsetVector,
        to: &OffsetVector,
        events: Vec<RecordBatch>,
        dead_letters: Vec<DeadLetter>,
    ) -> Result<(), LakeError> {
        self.events.may_follow(from)?;
        if !to.covers(from) {
            return Err(LakeError::Invalid(format!("a batch cannot go back from {from} to {to}")));
        }
        let files = self.events.arrange(events, from, to)?;
        // The letters are checked as the events are, all of them: which ones are in already comes after.
        let letters = vec![to_batch(&dead_letters, &self.log)?];
        self.dead_letters.arrange(letters, from, to)?;
        self.bury(from, to, &dead_letters).await?;
        stratus_seam::crash::point("ingest:after-dead-letters");
        if from == to {
            return Ok(());
        }
        self.events.commit(to, files).await
    }

    /// Writes the dead letters that are not in yet.
    async fn bury(
        &mut self,
        from: &OffsetVector,
        to: &OffsetVector,
        letters: &[DeadLetter],
    ) -> Result<(), LakeError> {
        loop {
            let written = self.dead_letters.absorbed();
            let left = not_yet_written(letters, &written);
            if left.is_empty() {
                return Ok(());
            }
            let rows = self.dead_letters.arrange(vec![to_batch(&left, &self.log)?], from, to)?;
            match self.dead_letters.commit(&written.join(to), rows).await {
                Ok(()) => return Ok(()),
                // An ingester that was here before may have written them and died, or lost the race for the events.
                // Whoever wrote last there does not say who may go on: that is for the events to say.
                Err(LakeError::Superseded { .. }) => {
                    if self.events.is_overtaken().await? {
                        return Err(self.events.superseded());
                    }
                    self.dead_letters.catch_up().await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Commits nothing but that this writer is the one: afterwards the tables still stand where they stood, and a
    /// batch that another ingester has under way is refused. What is decided next is decided on facts that hold.
    ///
    /// # Errors
    /// [`LakeError::Superseded`] if another ingester has written; [`LakeError::Unavailable`] as for
    /// [`SourceTables::append`].
    pub async fn fence(&mut self) -> Result<(), LakeError> {
        let absorbed = self.events.absorbed();
        self.events.commit(&absorbed, Vec::new()).await
    }

    /// Waits for work in the background, which no commit depends on: before an orderly exit.
    pub async fn settle(&mut self) {
        self.events.settle().await;
        self.dead_letters.settle().await;
    }
}
