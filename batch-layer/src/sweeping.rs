//! Removing what nobody can need any more: versions that no reader can choose, the files that no version lists and
//! no run can publish, and everything of views that were dropped.
//!
//! Versions leave the catalog first, and their files a grace time after, for the queries that still read them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use stratus_seam::catalog::{Action, CatalogState, ViewDefinition};
use stratus_seam::catalog_log::CatalogError;
use stratus_seam::ids::ViewId;
use stratus_seam::retention::{KEPT_VERSIONS, VersionFolder, orphaned, retirable};

use crate::error::BatchError;
use crate::run::BatchLayer;

/// Between two sweeps.
const EVERY: Duration = Duration::from_secs(60);

/// What was swept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Versions that left the catalog.
    pub versions: usize,
    /// Files that were removed.
    pub files: usize,
}

/// Something without use.
#[derive(Debug)]
enum Unused {
    /// Files that no version lists.
    Folder(VersionFolder),
    /// The versions of a view that was dropped.
    View(ViewId),
    /// The records of one.
    Records(ViewId),
}

impl Unused {
    fn name(&self) -> String {
        match self {
            Self::Folder(folder) => folder.path.clone(),
            Self::View(view) => format!("view {view}"),
            Self::Records(view) => format!("records {view}"),
        }
    }
}

impl BatchLayer {
    pub(crate) async fn keep_swept(&self) -> Infallible {
        loop {
            tokio::time::sleep(EVERY).await;
            match self.sweep().await {
                Ok(swept) if swept == Swept::default() => {}
                Ok(swept) => tracing::info!(versions = swept.versions, files = swept.files, "swept"),
                Err(error) => {
                    tracing::warn!("not everything could be swept, which will be tried again: {error}")
                }
            }
        }
    }

    /// Sweeps once. What has just come to be without use is only noted; it goes with a sweep after the grace time.
    ///
    /// # Errors
    /// [`BatchError`] for the lake or the state store; what was not swept is by a later call.
    pub async fn sweep(&self) -> Result<Swept, BatchError> {
        // The folders first: a view whose folder is seen was in the catalog before.
        let (with_files, with_records) = (self.lake.view_folders().await?, self.records.views().await?);
        let catalog = self.catalog.refresh().await?;
        let mut swept = Swept::default();
        for view in catalog.views.values().filter(|view| catalog.versions_of(view.id).len() > KEPT_VERSIONS) {
            swept.versions += self.retire(view).await?;
        }

        let catalog = self.catalog.refresh().await?;
        let dropped = |view: &&ViewId| catalog.view(**view).is_none();
        let mut unused: Vec<Unused> = with_files.iter().filter(dropped).copied().map(Unused::View).collect();
        unused.extend(with_records.iter().filter(dropped).copied().map(Unused::Records));
        for view in with_files.iter().filter(|view| catalog.view(**view).is_some()) {
            let folders = self.lake.version_folders(*view).await?;
            let orphans = orphaned(&folders, catalog.versions_of(*view));
            unused.extend(orphans.into_iter().cloned().map(Unused::Folder));
        }
        let unused: BTreeMap<String, Unused> =
            unused.into_iter().map(|unused| (unused.name(), unused)).collect();
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let over =
            self.unused.lock().await.over(unused.keys().cloned(), ms(self.began.elapsed()), ms(self.grace));
        for goes in over.iter().filter_map(|name| unused.get(name)) {
            swept.files += match goes {
                Unused::Folder(folder) => self.lake.remove_version(folder).await?,
                Unused::View(view) => self.lake.remove_view(*view).await?,
                Unused::Records(view) => self.records.remove_view(*view).await.map(|()| 0)?,
            };
        }
        if swept.files > 0 {
            metrics::counter!("stratus_batch_swept_files_total").increment(swept.files as u64);
        }
        Ok(swept)
    }

    /// Takes the versions of a view that no reader can choose out of the catalog, and says how many.
    async fn retire(&self, view: &ViewDefinition) -> Result<usize, BatchError> {
        let Some(ledger) = self.states.source(view.source).await?.ledger.read().await? else { return Ok(0) };
        let mut retired = 0;
        let decide = |catalog: &CatalogState| {
            let numbers = retirable(&ledger, view.id, catalog.versions_of(view.id));
            retired = numbers.len();
            if numbers.is_empty() {
                return Ok(Vec::new());
            }
            Ok::<_, CatalogError>(vec![Action::RetireVersions { view: view.id, numbers }])
        };
        self.catalog.commit(decide).await?;
        Ok(retired)
    }
}
