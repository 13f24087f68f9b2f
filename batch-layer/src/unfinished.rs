//! Records of runs that another process left unfinished: they are settled by the catalog, once it is plain that their
//! process has ended.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::time::{Duration, Instant};

use stratus_lake::LakeError;
use stratus_seam::catalog_log::now_ms;
use stratus_seam::ids::{RunId, ViewId};
use stratus_seam::runs::{Recovery, RunRecord, recover};

use crate::error::BatchError;
use crate::run::BatchLayer;

/// Between two looks at the records of other processes.
const POLL: Duration = Duration::from_secs(2);
/// After a look that failed.
const BACKOFF: Duration = Duration::from_secs(1);

/// What earlier looks have shown.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Runs that have ended.
    ended: HashSet<RunId>,
    /// The last sign of life of the others, and since when it is that one.
    alive: HashMap<RunId, (u64, Instant)>,
}

impl Seen {
    /// For how long a run has shown no other sign of life.
    fn silent(&mut self, record: &RunRecord) -> Duration {
        let seen = self.alive.entry(record.id).or_insert((record.beat, Instant::now()));
        if seen.0 != record.beat {
            *seen = (record.beat, Instant::now());
        }
        seen.1.elapsed()
    }
}

impl BatchLayer {
    /// Settles what an earlier process left, however long the lake takes. One that may have others beside it has to
    /// watch them first: then nothing is done here.
    pub(crate) async fn settle_at_once(&self) {
        while self.silence.is_zero()
            && let Err(error) = self.settle(&mut Seen::default()).await
        {
            tracing::warn!("the records of earlier runs cannot be read, which will be tried again: {error}");
            tokio::time::sleep(BACKOFF).await;
        }
    }

    /// Follows the runs of other processes, and settles those that fall silent.
    pub(crate) async fn watch_others(&self) -> Infallible {
        if self.silence.is_zero() {
            return std::future::pending().await;
        }
        let mut seen = Seen::default();
        loop {
            if let Err(error) = self.settle(&mut seen).await {
                tracing::warn!("the records of other runs cannot be read: {error}");
            }
            tokio::time::sleep(POLL.min(self.silence)).await;
        }
    }

    async fn settle(&self, seen: &mut Seen) -> Result<(), BatchError> {
        let mut listed = HashSet::new();
        for view in self.records.views().await? {
            for run in self.records.ids(view).await? {
                listed.insert(run);
                if !seen.ended.contains(&run) && !self.work.has(run) {
                    self.settle_run(view, run, seen).await?;
                }
            }
        }
        seen.ended.retain(|run| listed.contains(run));
        seen.alive.retain(|run, _| listed.contains(run));
        Ok(())
    }

    async fn settle_run(&self, view: ViewId, run: RunId, seen: &mut Seen) -> Result<(), BatchError> {
        let record = match self.records.read(view, run).await {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(()),
            Err(LakeError::Damaged { path, what }) => {
                tracing::warn!("the record {path} of a run cannot be understood: {what}");
                seen.ended.insert(run);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let versions = self.catalog.refresh().await?;
        let settled = recover(&record, versions.versions_of(view), now_ms());
        if settled == Recovery::Leave {
            seen.ended.insert(run);
            return Ok(());
        }
        if !record.status.is_end() && seen.silent(&record) < self.silence {
            return Ok(());
        }
        match settled {
            Recovery::Leave => {}
            Recovery::End(ended) => {
                tracing::info!(run = %ended.id, view = %view, status = ended.status.name(), "a run of another process");
                self.records.write(&ended).await?;
            }
            Recovery::TakeUp(record) => self.queue(record).await,
        }
        Ok(())
    }
}
