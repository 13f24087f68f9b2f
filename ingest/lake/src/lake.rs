//! Where the lake is, and what lies where in it.

use std::sync::Arc;

use datafusion::execution::object_store::ObjectStoreUrl;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use sha2::{Digest, Sha256};
use stratus_seam::ids::{RunId, SourceId, ViewId};
use url::Url;
use uuid::Uuid;

use crate::LakeError;
use crate::catalog::LakeCatalog;
use crate::disk::DurableDisk;

/// A lake. A clone is the same lake.
#[derive(Debug, Clone)]
pub struct Lake {
    place: Arc<Place>,
}

#[derive(Debug)]
struct Place {
    /// Ends with a slash.
    root: Url,
    /// The object store that the URL's path is a path of: what Delta wants.
    whole: Arc<dyn ObjectStore>,
    /// The same from the root down: what everything else wants.
    store: Arc<dyn ObjectStore>,
    /// The name under which a query engine's sessions know the store.
    scans: ObjectStoreUrl,
}

impl Lake {
    /// Opens the lake at `file:///path`, at a plain path (made if it does not exist), or, for tests, at `memory://`:
    /// an empty one that lives as long as its clones.
    ///
    /// # Errors
    /// [`LakeError::Invalid`] if the URL is none of these; [`LakeError::Unavailable`] if the folder cannot be made.
    pub fn open(url: &str) -> Result<Self, LakeError> {
        if url.starts_with("memory:") {
            return Self::over(Arc::new(InMemory::new()));
        }
        let path = if let Some(rest) = url.strip_prefix("file:") {
            let parsed =
                Url::parse(url).map_err(|error| LakeError::Invalid(format!("lake {url}: {error}")))?;
            parsed
                .to_file_path()
                .map_err(|()| LakeError::Invalid(format!("lake {url}: {rest} is not an absolute path")))?
        } else if url.contains("://") {
            let what = "a lake is at file:///path, a plain path, or memory://";
            return Err(LakeError::Invalid(format!("lake {url}: {what}")));
        } else {
            url.into()
        };
        let what = || LakeError::unavailable(format!("could not open the lake at {}", path.display()));
        std::fs::create_dir_all(&path).map_err(what())?;
        let path = path.canonicalize().map_err(what())?;
        let root = Url::from_directory_path(&path)
            .map_err(|()| LakeError::Invalid(format!("lake {}: not an absolute path", path.display())))?;
        Self::at(root, Arc::new(DurableDisk::new()), "")
    }

    /// A lake over the whole of an object store that puts if absent: one that injects faults, say.
    ///
    /// # Errors
    /// None that a caller could bring about.
    pub fn over(store: Arc<dyn ObjectStore>) -> Result<Self, LakeError> {
        let root = Url::parse("memory:///").map_err(LakeError::unavailable("could not name the lake"))?;
        Self::at(root, store, &Uuid::new_v4().to_string())
    }

    fn at(root: Url, whole: Arc<dyn ObjectStore>, instance: &str) -> Result<Self, LakeError> {
        let what = format!("could not open the lake at {root}");
        let prefix = Path::from_url_path(root.path()).map_err(LakeError::unavailable(&what))?;
        let store: Arc<dyn ObjectStore> = if prefix.as_ref().is_empty() {
            Arc::clone(&whole)
        } else {
            Arc::new(PrefixStore::new(Arc::clone(&whole), prefix))
        };
        let host = hex::encode(&Sha256::digest(format!("{root}{instance}"))[..16]);
        let scans = ObjectStoreUrl::parse(format!("stratus-lake://{host}/"))
            .map_err(LakeError::unavailable(&what))?;
        Ok(Self { place: Arc::new(Place { root, whole, store, scans }) })
    }

    /// The URL of the lake's root, with a slash at its end.
    pub fn root(&self) -> &Url {
        &self.place.root
    }

    /// The catalog's commits.
    pub fn catalog(&self) -> LakeCatalog {
        LakeCatalog::new(Arc::clone(self.store()))
    }

    /// The object store from the lake's root down.
    pub(crate) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.place.store
    }

    /// The object store that [`Lake::root`]'s path is a path of.
    pub(crate) fn whole_store(&self) -> &Arc<dyn ObjectStore> {
        &self.place.whole
    }

    /// The name under which sessions know [`Lake::store`].
    pub(crate) fn scans(&self) -> &ObjectStoreUrl {
        &self.place.scans
    }
}

/// The folder of a source's events.
pub(crate) fn events_folder(source: SourceId) -> String {
    format!("sources/{source}/events")
}

/// The folder of a source's dead letters.
pub(crate) fn dead_letters_folder(source: SourceId) -> String {
    format!("sources/{source}/dead_letters")
}

/// The folder of all views' versions.
pub(crate) const VIEWS_FOLDER: &str = "views";

/// The folder of a view's versions.
pub(crate) fn view_folder(view: ViewId) -> String {
    format!("{VIEWS_FOLDER}/{view}")
}

/// The folder of all records of runs.
pub(crate) const RUNS_FOLDER: &str = "runs";

/// The folder of the requests that nobody has taken up.
pub(crate) const REQUESTS_FOLDER: &str = "runs/requests";

/// The file of a request.
pub(crate) fn request_file(run: RunId) -> String {
    format!("{REQUESTS_FOLDER}/{run}.json")
}

/// The folder of a view's records.
pub(crate) fn runs_folder(view: ViewId) -> String {
    format!("{RUNS_FOLDER}/{view}")
}

/// The file of a record.
pub(crate) fn run_file(view: ViewId, run: RunId) -> String {
    format!("{}/{run}.json", runs_folder(view))
}

/// The file of where a view's schedule stands.
pub(crate) fn schedule_file(view: ViewId) -> String {
    format!("{}/schedule.json", runs_folder(view))
}

/// The file of a dimension table's content.
pub(crate) fn dimension_file(hash: &str) -> String {
    format!("dimensions/{hash}.parquet")
}

/// The file of a commit of the catalog.
pub(crate) fn catalog_file(number: u64) -> String {
    format!("catalog/{number:020}.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lake_is_opened_at_a_path_or_a_url() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a lake").display().to_string();
        let by_path = Lake::open(&path).unwrap();
        let by_url = Lake::open(by_path.root().as_str()).unwrap();
        assert_eq!(by_path.root(), by_url.root());
        assert_eq!(by_path.scans(), by_url.scans());
        assert_ne!(Lake::open("memory://").unwrap().scans(), Lake::open("memory://").unwrap().scans());
        let refused = Lake::open("s3://bucket/lake").unwrap_err();
        assert!(refused.to_string().contains("memory://"), "{refused}");
    }
}
