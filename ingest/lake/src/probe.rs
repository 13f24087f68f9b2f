//! Trying out whether an object store does what the lake needs of it.

use std::time::{Duration, SystemTime};

use object_store::path::Path;
use object_store::{Error, ObjectStoreExt, PutMode, PutOptions};
use uuid::Uuid;

use crate::{Lake, LakeError};

/// What a trial found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Probed {
    /// Whether a second put of the same name was refused, without which two writers would overwrite one another.
    pub puts_only_if_absent: bool,
    /// How far the store's clock is from this machine's.
    pub skew: Duration,
}

impl Lake {
    /// Writes an object, tries to write it again, reads it, and deletes it.
    ///
    /// # Errors
    /// [`LakeError::Unavailable`] if any of it is not possible.
    pub async fn probe(&self) -> Result<Probed, LakeError> {
        let path = Path::from(format!("probe/{}", Uuid::now_v7()));
        let failed = |verb: &str| LakeError::unavailable(format!("could not {verb} {path} in the lake"));
        let store = self.store();
        let tried = self.attempt(&path).await;
        // Also if something failed: it may be there.
        match (tried, store.delete(&path).await) {
            (Ok(probed), Ok(())) => Ok(probed),
            (Ok(_), Err(error)) => Err(failed("delete")(error)),
            (Err(first), _) => Err(first),
        }
    }

    async fn attempt(&self, path: &Path) -> Result<Probed, LakeError> {
        let failed = |verb: &str| LakeError::unavailable(format!("could not {verb} {path} in the lake"));
        let store = self.store();
        let create = || PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        store.put_opts(path, "one".into(), create()).await.map_err(failed("write"))?;
        let again = store.put_opts(path, "two".into(), create()).await;
        let refused = matches!(again, Err(Error::AlreadyExists { .. }));
        let found = store.get(path).await.map_err(failed("read"))?;
        let written: SystemTime = found.meta.last_modified.into();
        let text = found.bytes().await.map_err(failed("read"))?;
        let now = SystemTime::now();
        let skew = now.duration_since(written).or_else(|_| written.duration_since(now)).unwrap_or_default();
        Ok(Probed { puts_only_if_absent: refused && &text[..] == b"one", skew })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_does_what_the_lake_needs() {
        let folder = tempfile::tempdir().unwrap();
        for url in ["memory://".to_owned(), folder.path().display().to_string()] {
            let probed = Lake::open(&url).unwrap().probe().await.unwrap();
            assert!(probed.puts_only_if_absent && probed.skew < Duration::from_secs(60), "{probed:?}");
        }
    }
}
