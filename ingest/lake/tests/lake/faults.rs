//! A store in memory that fails where it is told to, and remembers through the restart of whoever uses it.

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What happens at a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It has its effect, but the answer is lost.
    AnswerLost,
    /// Neither it nor any later one has an effect: the process was killed before it.
    DiesBefore,
    /// It has its effect, and no later one has: the process was killed after it.
    DiesAfter,
}

#[derive(Debug)]
struct Plan {
    /// Counts only puts of paths that contain this.
    of: String,
    /// Puts that still succeed.
    healthy: usize,
    fault: Fault,
    dead: bool,
}

/// A store over a shared memory.
#[derive(Debug, Clone)]
pub(crate) struct FaultyStore {
    memory: Arc<InMemory>,
    plan: Arc<Mutex<Option<Plan>>>,
}

impl FaultyStore {
    pub(crate) fn over(memory: &Arc<InMemory>) -> Self {
        Self { memory: Arc::clone(memory), plan: Arc::new(Mutex::new(None)) }
    }

    /// Lets `healthy` puts of paths that contain `of` succeed, and then strikes.
    pub(crate) fn strike(&self, of: &str, healthy: usize, fault: Fault) {
        *self.plan.lock().unwrap() = Some(Plan { of: of.into(), healthy, fault, dead: false });
    }

    /// Whether this put has its effect, and whether its answer arrives.
    fn fate(&self, location: &Path) -> (bool, bool) {
        let mut held = self.plan.lock().unwrap();
        let Some(plan) = held.as_mut() else { return (true, true) };
        if plan.dead {
            return (false, false);
        }
        if !location.as_ref().contains(&plan.of) {
            return (true, true);
        }
        if plan.healthy > 0 {
            plan.healthy -= 1;
            return (true, true);
        }
        match plan.fault {
            Fault::AnswerLost => {
                *held = None;
                (true, false)
            }
            Fault::DiesBefore => {
                plan.dead = true;
                (false, false)
            }
            Fault::DiesAfter => {
                plan.dead = true;
                (true, false)
            }
        }
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStore")
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let (happens, is_answered) = self.fate(location);
        let lost = || Error::Generic { store: "FaultyStore", source: "connection reset".into() };
        if !happens {
            return Err(lost());
        }
        let answer = self.memory.put_opts(location, payload, options).await;
        if is_answered { answer } else { Err(lost()) }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.memory.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.memory.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.memory.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.memory.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.memory.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.memory.copy_opts(from, to, options).await
    }
}
