//! Remote calls: a call is a batch that runs through a topology, reads its states, and is answered.

mod calls;
mod error;
mod spout;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;

use self::calls::{Answer, Calls, Limits, Refusal};
use crate::batch::TransactionAttempt;

pub use error::DrpcError;
pub(crate) use spout::DrpcSpout;

/// So many calls a function may have under way, unless it is told otherwise.
const MOST_CALLS: usize = 1_024;
/// So many bytes their arguments may have together.
const MOST_BYTES: usize = 64 << 20;

/// Takes calls in this process. Clones share them.
///
/// A call waits until the function's topology takes it up: also before the topology has begun, while it rests, and while
/// its coordinator begins anew after a panic. When the topology has ended, and no other one answers the function, its
/// calls end at once. So do those of callers who stop waiting.
#[derive(Clone)]
pub struct DrpcServer {
    functions: Arc<Mutex<BTreeMap<String, Calls>>>,
    timeout: Duration,
    limits: Limits,
}

impl Default for DrpcServer {
    fn default() -> Self {
        Self::new(Duration::from_secs(30))
    }
}

impl fmt::Debug for DrpcServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lock().keys()).finish()
    }
}

impl DrpcServer {
    /// A server whose calls wait for at most so long. A function has at most 1,024 calls under way, with 64 MiB of
    /// arguments.
    pub fn new(timeout: Duration) -> Self {
        let limits = Limits { calls: MOST_CALLS, bytes: MOST_BYTES };
        Self { functions: Arc::default(), timeout, limits }
    }

    /// Each function has at most so many calls under way, whose arguments have at most so many bytes together. More
    /// are refused at once. A call whose arguments alone have more bytes is taken when no other one has any.
    #[must_use]
    pub fn at_most(mut self, calls: usize, bytes: usize) -> Self {
        self.limits = Limits { calls, bytes };
        self
    }

    /// Calls a function: its stream begins with `arguments`, and the rows that it answers come back as a JSON array of
    /// arrays.
    ///
    /// # Errors
    ///
    /// The function is unknown, has too many calls under way, failed, has ended, or did not answer in time.
    pub async fn execute(&self, function: &str, arguments: &str) -> Result<String, DrpcError> {
        let name = || function.to_owned();
        let (number, answered) = self.enter(function, arguments)?;
        let _entered = Entered { server: self, function, number };
        match tokio::time::timeout(self.timeout, answered).await {
            Err(_) => Err(DrpcError::TimedOut { function: name(), after: self.timeout }),
            Ok(Ok(Ok(rows))) => Ok(rows),
            Ok(Ok(Err(why))) => Err(DrpcError::Failed { function: name(), why }),
            Ok(Err(_)) => Err(DrpcError::Ended { function: name() }),
        }
    }

    fn enter(&self, function: &str, arguments: &str) -> Result<(u64, oneshot::Receiver<Answer>), DrpcError> {
        let name = || function.to_owned();
        let mut functions = self.lock();
        let Some(calls) = functions.get_mut(function) else {
            let known: Vec<&str> = functions.keys().map(String::as_str).collect();
            return Err(DrpcError::Unknown { function: name(), known: known.join(", ") });
        };
        calls.enter(arguments, self.limits).map_err(|refusal| match refusal {
            Refusal::Busy { calls, bytes } => DrpcError::Busy { function: name(), calls, bytes },
            Refusal::Ended => DrpcError::Ended { function: name() },
        })
    }

    /// The spout of a function's calls, for a topology that is to answer them.
    pub(crate) fn spout(&self, function: &str) -> DrpcSpout {
        self.lock().entry(function.to_owned()).or_default().declare();
        DrpcSpout { server: self.clone(), function: function.to_owned() }
    }

    /// Answers the call that was emitted as this attempt.
    pub(crate) fn answer(&self, function: &str, attempt: TransactionAttempt, answer: Answer) {
        self.with(function, |calls| calls.answer(attempt.attempt, answer));
    }

    fn with<T>(&self, function: &str, work: impl FnOnce(&mut Calls) -> T) -> Option<T> {
        self.lock().get_mut(function).map(work)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Calls>> {
        self.functions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call under way. It leaves with whoever waits for it: answered, out of time, or gone.
struct Entered<'a> {
    server: &'a DrpcServer,
    function: &'a str,
    number: u64,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.server.with(self.function, |calls| drop(calls.leave(self.number)));
    }
}
