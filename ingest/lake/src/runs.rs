//! Requests for runs, records of runs, and where schedules stand: small JSON files of the lake, through which the
//! layers reach the batch layer from other processes.
//!
//! Requests have a folder of their own, which is empty nearly always, so that looking for new ones is cheap however
//! many records are kept. A request is put once, by whoever asks. The batch layer turns it into a record, which it
//! alone writes, and then removes the request: until then it is taken up again by whoever finds it.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;
use stratus_seam::ids::{RunId, ViewId};
use stratus_seam::runs::{RunRecord, ScheduleState};
use uuid::Uuid;

use crate::lake::{REQUESTS_FOLDER, RUNS_FOLDER, request_file, run_file, runs_folder, schedule_file};
use crate::{Lake, LakeError};

/// Records are read so many at a time.
const CONCURRENCY: usize = 8;

/// The requests and records of runs in a lake. A clone is the same.
#[derive(Debug, Clone)]
pub struct Runs {
    store: Arc<dyn ObjectStore>,
}

impl Lake {
    /// The requests and records of runs.
    pub fn runs(&self) -> Runs {
        Runs { store: Arc::clone(self.store()) }
    }
}

impl Runs {
    /// Leaves a request for a run. A request that is there already stays as it is.
    ///
    /// # Errors
    /// [`LakeError::Unavailable`]; the request may be there all the same.
    pub async fn request(&self, record: &RunRecord) -> Result<(), LakeError> {
        let file = request_file(record.id);
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&Path::from(file.as_str()), json(&file, record)?.into(), options).await {
            Ok(_) | Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(()),
            Err(error) => Err(LakeError::unavailable(format!("could not put {file}"))(error)),
        }
    }

    /// The requests that nobody has taken up, oldest first. One that cannot be understood is told in the log and
    /// removed.
    ///
    /// # Errors
    /// [`LakeError::Unavailable`].
    pub async fn requests(&self) -> Result<Vec<RunRecord>, LakeError> {
        let mut requests = Vec::new();
        for id in self.ids_in(REQUESTS_FOLDER).await? {
            match self.get::<RunRecord>(&request_file(id)).await {
                Ok(Some(request)) if request.id == id => requests.push(request),
                // Withdrawn meanwhile.
                Ok(None) => {}
                Ok(Some(_)) => self.discard(id, "it has another run's id").await?,
                Err(LakeError::Damaged { what, .. }) => self.discard(id, &what).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(requests)
    }

    async fn discard(&self, id: RunId, why: &str) -> Result<(), LakeError> {
        tracing::warn!(
            request = request_file(id),
            "a request for a run cannot be understood and is removed: {why}"
        );
        self.withdraw(id).await
    }

    /// Removes a request, if it is there.
    ///
    /// # Errors
    /// [`LakeError::Unavailable`].
    pub async fn withdraw(&self, id: RunId) -> Result<(), LakeError> {
        self.delete(&request_file(id)).await
    }

    /// Writes a record, over an earlier one of the run.
    ///
    /// # Errors
    /// [`LakeError::Unavailable`]; it may be written all the same.
    pub async fn write(&self, record: &RunRecord) -> Result<(), LakeError> {
        self.put(&run_file(record.view, record.id), record).await
    }

    /// The record of a run, if there is one.
    ///
    /// # Errors
    /// [`LakeError::Unavailable`], or [`LakeError::Damaged`] if it cannot be understood.
    pub async fn read(&self, view: ViewId, id: RunId) -> Result<Option<RunRecord>, LakeError> {
        self.get(&run_file(view, id)).await
    }

    /// The runs of a view that have a record, oldest first.
    ///
    /// # Errors
    /// [`LakeError::Unavailable`].
    pub async fn ids(&self, view: ViewId) -> Result<Vec<RunId>, LakeError> {
        self.ids_in(&runs_folder(view)).await
    }

    /// The records of a view, oldest first. One that cannot be understood is left out, and told in the log.
    ///
    /// # Errors
    /// [`LakeError::Unavailable`].
    pub async fn of_view(&self, view: ViewId) -> Result<Vec<RunRecord>, LakeError> {
        let ids = self.ids(view).await?;
        let read = stream::iter(ids).map(|id| async move {
            match self.read(view, id).await {
                Err(LakeError::Damaged { path, what }) => {
                    tracing::warn!("the record {path} of a run cannot be understood: {what}");
                    Ok(None)
                }
                other => other,
            }
        });
        let records: Vec<Option<RunRecord>> = read.buffered(CONCURRENCY).try_collect().await?;
        Ok(records.into_iter().flatten().collect())
    }

    /// Removes the record of a run, if it is there.
    ///
    /// # Errors
    /// [`LakeError::Unavailable`].
    pub async fn remove(&self, view: ViewId, id: RunId) -> Result<(), LakeError> {
        self.delete(&run_file(view, id)).await
    }

    /// Where the schedule of a view stands; nothing if it never did.
    ///
    /// # Errors
    /// [`LakeError::Unavailable`], or [`LakeError::Damaged`] if it cannot be understood.
    pub async fn schedule(&self, view: ViewId) -> Result<Option<ScheduleState>, LakeError> {
        self.get(&schedule_file(view)).await
    }

    /// Writes where the schedule of a view stands.
    ///
    /// # Errors
    /// [`LakeError::Unavailable`]; it may be written all the same.
    pub async fn write_schedule(&self, view: ViewId, state: &ScheduleState) -> Result<(), LakeError> {
        self.put(&schedule_file(view), state).await
    }

    /// The views that have records, or where a schedule stands.
    ///
    /// # Errors
    /// [`LakeError::Unavailable`].
    pub async fn views(&self) -> Result<Vec<ViewId>, LakeError> {
        let failed = LakeError::unavailable(format!("could not list {RUNS_FOLDER}"));
        let folder = Path::from(RUNS_FOLDER);
        let listed = self.store.list_with_delimiter(Some(&folder)).await.map_err(failed)?;
        let views = listed.common_prefixes.iter().filter_map(Path::filename);
        Ok(views.filter_map(|name| Uuid::try_parse(name).ok()).map(ViewId).collect())
    }

    /// Removes everything that is recorded of a view.
    ///
    /// # Errors
    /// [`LakeError::Unavailable`]; what was not removed is by a second call.
    pub async fn remove_view(&self, view: ViewId) -> Result<(), LakeError> {
        for id in self.ids(view).await? {
            self.remove(view, id).await?;
        }
        self.delete(&schedule_file(view)).await
    }

    /// The runs that have a file in a folder, oldest first.
    async fn ids_in(&self, folder: &str) -> Result<Vec<RunId>, LakeError> {
        let failed = LakeError::unavailable(format!("could not list {folder}"));
        let prefix = Path::from(folder);
        let listed = self.store.list_with_delimiter(Some(&prefix)).await.map_err(failed)?;
        let id = |path: &Path| {
            let name = path.filename()?.strip_suffix(".json")?;
            Uuid::try_parse(name).ok().map(RunId)
        };
        let mut ids: Vec<RunId> = listed.objects.iter().filter_map(|file| id(&file.location)).collect();
        ids.sort();
        Ok(ids)
    }

    async fn put(&self, file: &str, value: &impl Serialize) -> Result<(), LakeError> {
        let put = self.store.put(&Path::from(file), json(file, value)?.into()).await;
        put.map(drop).map_err(LakeError::unavailable(format!("could not put {file}")))
    }

    async fn get<T: DeserializeOwned>(&self, file: &str) -> Result<Option<T>, LakeError> {
        let failed = || LakeError::unavailable(format!("could not read {file}"));
        let bytes: Bytes = match self.store.get(&Path::from(file)).await {
            Ok(found) => found.bytes().await.map_err(failed())?,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed()(error)),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| LakeError::Damaged {
            path: file.to_owned(),
            what: format!("its {} bytes cannot be understood: {error}", bytes.len()),
        })
    }

    async fn delete(&self, file: &str) -> Result<(), LakeError> {
        match self.store.delete(&Path::from(file)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(LakeError::unavailable(format!("could not remove {file}"))(error)),
        }
    }
}

/// A value as a line of JSON.
fn json(file: &str, value: &impl Serialize) -> Result<Vec<u8>, LakeError> {
    let mut bytes = serde_json::to_vec(value)
        .map_err(LakeError::unavailable(format!("could not write {file} as JSON")))?;
    bytes.push(b'\n');
    Ok(bytes)
}
