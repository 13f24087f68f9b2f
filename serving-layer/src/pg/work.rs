//! A statement at work on the runtime for queries, while its connection waits on another: computing and encoding
//! never hold up a socket.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::scalar::ScalarValue;
use futures::StreamExt;
use stratus_sql::{SqlError, sqlstate_of};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::errors::error;
use super::rows::{BatchRows, Formats, Promise, Rows};
use crate::service::{Answer, Notice, SqlSession};

/// A task that is stopped when it is dropped.
#[derive(Debug)]
pub(crate) struct Task<T>(JoinHandle<T>);

impl<T: Send + 'static> Task<T> {
    /// Starts it.
    pub(crate) fn start(on: &Handle, work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(on.spawn(work))
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, SqlError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // What went wrong is in the log of the panic; the client cannot do anything about it.
        Pin::new(&mut self.0).poll(context).map(|ended| ended.map_err(|_| without_an_answer()))
    }
}

/// What a statement reports while it runs.
#[derive(Debug)]
pub(crate) enum Event {
    /// There will be rows with these columns.
    Columns(SchemaRef, Vec<Notice>),
    /// Some rows.
    Rows(Rows),
    /// There are no more rows.
    End,
    /// A command was carried out: its tag.
    Done(String, Vec<Notice>),
    /// It has failed.
    Failed(SqlError),
}

/// What is to be run.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// The statement.
    pub(crate) text: String,
    /// The values of its parameters.
    pub(crate) parameters: Vec<ScalarValue>,
    /// The forms in which its columns are asked for.
    pub(crate) formats: Formats,
    /// The columns that the client was promised, if it was.
    pub(crate) promised: Option<SchemaRef>,
}

/// A statement that runs; it stops when this is dropped.
///
/// One portion of rows waits in the channel and one in the task, so that a client that reads slowly slows the
/// query down instead of filling the memory.
#[derive(Debug)]
pub(crate) struct Running {
    events: mpsc::Receiver<Event>,
    _task: Task<()>,
}

impl Running {
    /// Starts a statement.
    pub(crate) fn start(on: &Handle, session: Arc<dyn SqlSession>, job: Job) -> Self {
        let (sender, events) = mpsc::channel(1);
        let task = Task::start(on, async move {
            let last = match run(&*session, job, &sender).await {
                Ok(Some(last)) => last,
                Ok(None) => return,
                Err(failed) => Event::Failed(failed),
            };
            let _ = sender.send(last).await;
        });
        Self { events, _task: task }
    }

    /// The next event. Nothing is lost if this is dropped.
    pub(crate) async fn next(&mut self) -> Event {
        // The sender is gone without a last event only if the task has panicked.
        self.events.recv().await.unwrap_or_else(|| Event::Failed(without_an_answer()))
    }
}

fn without_an_answer() -> SqlError {
    let mut failed = error("XX000", "the statement ended without an answer");
    failed.hint = Some("this is a fault of the server, and its log tells more".to_owned());
    failed
}

/// Runs a statement and reports all but the last event, which it returns; none if nobody listens any more.
async fn run(
    session: &dyn SqlSession,
    job: Job,
    events: &mpsc::Sender<Event>,
) -> Result<Option<Event>, SqlError> {
    let (mut rows, notices) = match session.run(&job.text, job.parameters).await? {
        Answer::Done { tag, notices } => return Ok(Some(Event::Done(tag, notices))),
        Answer::Rows { rows, notices } => (rows, notices),
    };
    let promise = Promise::new(job.promised.as_ref(), &rows.schema())?;
    let columns = Arc::clone(promise.columns());
    job.formats.check(columns.fields().len())?;
    if events.send(Event::Columns(Arc::clone(&columns), notices)).await.is_err() {
        return Ok(None);
    }
    while let Some(batch) = rows.next().await {
        let batch = promise.keep(batch.map_err(|failed| sqlstate_of(&failed))?)?;
        let mut batch = BatchRows::new(&columns, &batch, &job.formats)?;
        while let Some(rows) = batch.next_rows()? {
            if events.send(Event::Rows(rows)).await.is_err() {
                return Ok(None);
            }
        }
    }
    Ok(Some(Event::End))
}
