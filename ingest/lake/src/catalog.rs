//! The catalog's commits as files of the lake.

use std::sync::Arc;

use async_trait::async_trait;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use stratus_seam::catalog::Commit;
use stratus_seam::catalog_log::{CatalogError, CatalogLog, Put};

use crate::lake::catalog_file;

/// The catalog's commits in the lake, one JSON file each, put only if absent.
#[derive(Debug, Clone)]
pub struct LakeCatalog {
    store: Arc<dyn ObjectStore>,
}

impl LakeCatalog {
    pub(crate) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store }
    }
}

fn unavailable(what: &str, number: u64, error: Error) -> CatalogError {
    CatalogError::Unavailable { what: format!("{what} {}", catalog_file(number)), source: error.into() }
}

#[async_trait]
impl CatalogLog for LakeCatalog {
    async fn read(&self, number: u64) -> Result<Option<Commit>, CatalogError> {
        let failed = |error| unavailable("could not read", number, error);
        let path = Path::from(catalog_file(number));
        let bytes = match self.store.get(&path).await {
            Ok(found) => found.bytes().await.map_err(failed)?,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| CatalogError::Damaged {
            number,
            what: format!("({path}, {} bytes) cannot be understood: {error}", bytes.len()),
        })
    }

    async fn put(&self, number: u64, commit: &Commit) -> Result<Put, CatalogError> {
        let mut bytes = serde_json::to_vec(commit).map_err(|error| CatalogError::Unavailable {
            what: format!("could not write {} as JSON", catalog_file(number)),
            source: error.into(),
        })?;
        bytes.push(b'\n');
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&Path::from(catalog_file(number)), bytes.into(), options).await {
            Ok(_) => Ok(Put::Done),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Put::Taken),
            Err(error) => Err(unavailable("could not put", number, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use stratus_seam::catalog::{Action, Dimension};
    use stratus_seam::catalog_log::Catalog;

    use super::*;
    use crate::Lake;

    fn create(name: &str) -> Vec<Action> {
        vec![Action::CreateDimension(Dimension {
            name: name.into(),
            columns: Vec::new(),
            hash: "h".into(),
            path: "p".into(),
            rows: 0,
        })]
    }

    #[tokio::test]
    async fn commits_are_found_again_by_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display().to_string();
        let catalog = Catalog::new(Arc::new(Lake::open(&path).unwrap().catalog()));
        for name in ["a", "b"] {
            catalog.commit(|_| Ok::<_, CatalogError>(create(name))).await.unwrap();
        }
        let again = Catalog::new(Arc::new(Lake::open(&path).unwrap().catalog()));
        assert_eq!(*again.refresh().await.unwrap(), *catalog.seen());
        assert!(dir.path().join("catalog/00000000000000000002.json").exists());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn writers_that_race_all_get_their_commit_and_none_twice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display().to_string();
        let writers = (0..8).map(|i| {
            let catalog = Catalog::new(Arc::new(Lake::open(&path).unwrap().catalog()));
            tokio::spawn(async move {
                let name = format!("d{i}");
                catalog.commit(|_| Ok::<_, CatalogError>(create(&name))).await.map(|_| ())
            })
        });
        for written in futures::future::join_all(writers).await {
            written.unwrap().unwrap();
        }
        let state = Catalog::new(Arc::new(Lake::open(&path).unwrap().catalog())).refresh().await.unwrap();
        assert_eq!((state.head, state.dimensions.len()), (8, 8));
    }

    #[tokio::test]
    async fn a_garbled_commit_is_named_and_never_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let lake = Lake::open(&dir.path().display().to_string()).unwrap();
        let catalog = Catalog::new(Arc::new(lake.catalog()));
        catalog.commit(|_| Ok::<_, CatalogError>(create("a"))).await.unwrap();
        let file = dir.path().join("catalog/00000000000000000001.json");
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
        let error = Catalog::new(Arc::new(lake.catalog())).refresh().await.unwrap_err();
        assert!(matches!(error, CatalogError::Damaged { number: 1, .. }), "{error}");
        assert!(error.to_string().contains("catalog/00000000000000000001.json"), "{error}");
    }
}
