//! Remote calls: a call is a batch that runs through a topology, reads its states, and is answered.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arrow::{
    array::{RecordBatch, StringArray},
    datatypes::{DataType, SchemaRef},
};
use async_trait::async_trait;
use stratus_topology::{TaskContext, TaskError, fields};
use thiserror::Error;
use tokio::sync::oneshot;

use crate::{
    batch::TransactionAttempt,
    coordinator::Pace,
    spout::{BatchCoordinator, Emitter, Recovery, SpoutKind, TridentSpout},
};

/// Why a call has no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DrpcError {
    /// No topology answers calls of this function.
    #[error("no function `{function}` is known; there are: {known}")]
    Unknown {
        /// The function that was called.
        function: String,
        /// The functions that there are.
        known: String,
    },
    /// The batch of the call failed. Calls are not tried again.
    #[error("function `{function}` failed: {why}")]
    Failed {
        /// The function.
        function: String,
        /// What went wrong.
        why: String,
    },
    /// The topology that was to answer has ended, or began anew.
    #[error("the topology that answers function `{function}` has ended")]
    Ended {
        /// The function.
        function: String,
    },
    /// No answer came in time.
    #[error("function `{function}` did not answer within {after:?}")]
    TimedOut {
        /// The function.
        function: String,
        /// The time-out.
        after: Duration,
    },
}

type Answer = Result<String, String>;

/// So many calls may wait before those whose callers have gone are looked for.
const MOST_WAITING: usize = 1_024;

/// The calls of one function.
#[derive(Default)]
struct Calls {
    waiting: VecDeque<(String, oneshot::Sender<Answer>)>,
    open: HashMap<u64, oneshot::Sender<Answer>>,
}

/// Takes calls in this process. Clones share them.
#[derive(Clone)]
pub struct DrpcServer {
    functions: Arc<Mutex<HashMap<String, Calls>>>,
    timeout: Duration,
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
    /// A server whose calls wait for at most so long.
    pub fn new(timeout: Duration) -> Self {
        Self { functions: Arc::default(), timeout }
    }

    /// Calls a function: its stream begins with `arguments`, and the rows that it answers come back as a JSON array of
    /// arrays.
    ///
    /// # Errors
    ///
    /// The function is unknown, failed, or did not answer in time.
    pub async fn execute(&self, function: &str, arguments: &str) -> Result<String, DrpcError> {
        let name = || function.to_owned();
        let (answer, answered) = oneshot::channel();
        {
            let mut functions = self.lock();
            let known = functions.keys().cloned().collect::<Vec<_>>().join(", ");
            let calls = functions.get_mut(function).ok_or(DrpcError::Unknown { function: name(), known })?;
            if calls.waiting.len() >= MOST_WAITING {
                // While no topology takes calls up, those that nobody waits for any more stay here.
                calls.waiting.retain(|(_, answer)| !answer.is_closed());
            }
            calls.waiting.push_back((arguments.to_owned(), answer));
        }
        match tokio::time::timeout(self.timeout, answered).await {
            Err(_) => Err(DrpcError::TimedOut { function: name(), after: self.timeout }),
            Ok(Ok(Ok(rows))) => Ok(rows),
            Ok(Ok(Err(why))) => Err(DrpcError::Failed { function: name(), why }),
            Ok(Err(_)) => Err(DrpcError::Ended { function: name() }),
        }
    }

    pub(crate) fn spout(&self, function: &str) -> DrpcSpout {
        self.lock().entry(function.to_owned()).or_default();
        DrpcSpout { server: self.clone(), function: function.to_owned() }
    }

    pub(crate) fn answer(&self, function: &str, txid: u64, answer: Answer) {
        let open = self.lock().get_mut(function).and_then(|calls| calls.open.remove(&txid));
        if let Some(open) = open {
            // Whoever called may have stopped waiting.
            let _ = open.send(answer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Calls>> {
        self.functions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The calls of a function as batches.
#[derive(Clone, Debug)]
pub(crate) struct DrpcSpout {
    server: DrpcServer,
    function: String,
}

#[async_trait]
impl TridentSpout for DrpcSpout {
    fn schema(&self) -> SchemaRef {
        fields([("args", DataType::Utf8)])
    }

    fn kind(&self) -> SpoutKind {
        SpoutKind::NonTransactional
    }

    fn stands_alone(&self) -> bool {
        // A call is a batch.
        true
    }

    fn pace(&self) -> Option<Pace> {
        // Calls do not wait for one another.
        Some(Pace { max_pending: 64, interval: Duration::ZERO })
    }

    async fn coordinator(&self, _context: &TaskContext) -> Result<Box<dyn BatchCoordinator>, TaskError> {
        Ok(Box::new(self.clone()))
    }

    async fn emitter(&self, context: &TaskContext) -> Result<Box<dyn Emitter>, TaskError> {
        Ok(Box::new(Arguments { spout: self.clone(), is_first: context.task_index() == 0 }))
    }
}

#[async_trait]
impl BatchCoordinator for DrpcSpout {
    async fn recover(&mut self) -> Result<Recovery, TaskError> {
        // The numbers begin anew, so whatever was open can no longer be told from what comes.
        if let Some(calls) = self.server.lock().get_mut(&self.function) {
            calls.open.clear();
        }
        Ok(Recovery::default())
    }

    async fn next(&mut self, txid: u64) -> Result<Option<String>, TaskError> {
        let mut functions = self.server.lock();
        let Some(calls) = functions.get_mut(&self.function) else { return Ok(None) };
        // Calls that nobody waits for any more need no answer.
        while let Some((arguments, answer)) = calls.waiting.pop_front() {
            if !answer.is_closed() {
                calls.open.insert(txid, answer);
                return Ok(Some(arguments));
            }
        }
        Ok(None)
    }

    async fn committed(&mut self, txid: u64) -> Result<(), TaskError> {
        self.server.answer(
            &self.function,
            txid,
            Err("its stream answers nothing: end it with `returns`".to_owned()),
        );
        Ok(())
    }

    async fn give_up(&mut self, txid: u64, reason: &str) -> bool {
        self.server.answer(&self.function, txid, Err(reason.to_owned()));
        true
    }
}

/// Emits a call's arguments.
struct Arguments {
    spout: DrpcSpout,
    is_first: bool,
}

#[async_trait]
impl Emitter for Arguments {
    async fn emit(
        &mut self,
        _attempt: TransactionAttempt,
        metadata: &str,
    ) -> Result<Vec<RecordBatch>, TaskError> {
        if !self.is_first {
            return Ok(Vec::new());
        }
        let arguments = Arc::new(StringArray::from(vec![metadata]));
        Ok(vec![RecordBatch::try_new(self.spout.schema(), vec![arguments])?])
    }
}
