//! The calls of a function as batches: one call, one batch, one attempt.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{RecordBatch, StringArray},
    datatypes::{DataType, SchemaRef},
};
use async_trait::async_trait;
use stratus_topology::{TaskContext, TaskError, fields};

use super::DrpcServer;
use crate::{
    batch::TransactionAttempt,
    coordinator::Pace,
    spout::{BatchCoordinator, Emitter, Recovery, SpoutKind, TridentSpout},
};

/// The calls of a function as batches.
#[derive(Clone, Debug)]
pub(crate) struct DrpcSpout {
    pub(super) server: DrpcServer,
    pub(super) function: String,
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
        Some(Pace { max_pending: 64, interval: std::time::Duration::ZERO })
    }

    async fn coordinator(&self, _context: &TaskContext) -> Result<Box<dyn BatchCoordinator>, TaskError> {
        Ok(Box::new(Coordinator::new(self)))
    }

    async fn emitter(&self, context: &TaskContext) -> Result<Box<dyn Emitter>, TaskError> {
        Ok(Box::new(Arguments::new(self, context.task_index() == 0)))
    }
}

/// Somebody who is there to answer calls, until this is dropped.
struct Presence(DrpcSpout);

impl Presence {
    fn new(spout: &DrpcSpout) -> Self {
        spout.server.with(&spout.function, |calls| calls.come());
        Self(spout.clone())
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.server.with(&self.0.function, |calls| calls.go());
    }
}

/// Takes calls up. The metadata of a batch is the number of its call: the arguments stay with the call, and so go with
/// its caller.
struct Coordinator {
    presence: Presence,
    /// The call of each transaction under way.
    calls: HashMap<u64, u64>,
}

impl Coordinator {
    fn new(spout: &DrpcSpout) -> Self {
        Self { presence: Presence::new(spout), calls: HashMap::new() }
    }

    /// Answers the call of a transaction, if nobody has yet.
    fn settle(&mut self, txid: u64, why: &str) {
        let Presence(spout) = &self.presence;
        if let Some(number) = self.calls.remove(&txid) {
            spout.server.with(&spout.function, |calls| calls.settle(number, Err(why.to_owned())));
        }
    }

    /// Nobody will say any more what becomes of the calls under way: their callers need not wait.
    fn let_go(&mut self) {
        let Presence(spout) = &self.presence;
        for number in self.calls.drain().map(|(_, number)| number) {
            spout.server.with(&spout.function, |calls| drop(calls.leave(number)));
        }
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.let_go();
    }
}

#[async_trait]
impl BatchCoordinator for Coordinator {
    async fn recover(&mut self) -> Result<Recovery, TaskError> {
        self.let_go();
        Ok(Recovery::default())
    }

    async fn next(&mut self, txid: u64) -> Result<Option<String>, TaskError> {
        let Presence(spout) = &self.presence;
        let number = spout.server.with(&spout.function, |calls| calls.begin()).flatten();
        if let Some(number) = number {
            self.calls.insert(txid, number);
        }
        Ok(number.map(|number| number.to_string()))
    }

    async fn committed(&mut self, txid: u64) -> Result<(), TaskError> {
        self.settle(txid, "its stream answers nothing: end it with `returns`");
        Ok(())
    }

    async fn give_up(&mut self, txid: u64, reason: &str) -> bool {
        self.settle(txid, reason);
        true
    }
}

/// Emits a call's arguments.
struct Arguments {
    presence: Presence,
    is_first: bool,
}

impl Arguments {
    fn new(spout: &DrpcSpout, is_first: bool) -> Self {
        Self { presence: Presence::new(spout), is_first }
    }
}

#[async_trait]
impl Emitter for Arguments {
    async fn emit(
        &mut self,
        attempt: TransactionAttempt,
        metadata: &str,
    ) -> Result<Vec<RecordBatch>, TaskError> {
        if !self.is_first {
            return Ok(Vec::new());
        }
        let Presence(spout) = &self.presence;
        let number: u64 = metadata.parse()?;
        let arguments = spout.server.with(&spout.function, |calls| calls.emit(number, attempt.attempt));
        // Of a call whose caller has gone there is nothing to do.
        let Some(arguments) = arguments.flatten() else { return Ok(Vec::new()) };
        let arguments = Arc::new(StringArray::from(vec![arguments]));
        Ok(vec![RecordBatch::try_new(spout.schema(), vec![arguments])?])
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

    use super::*;
    use crate::drpc::DrpcError;

    fn spout() -> (DrpcServer, DrpcSpout) {
        let server = DrpcServer::new(Duration::from_secs(30));
        let spout = server.spout("f");
        (server, spout)
    }

    /// Polls once: the call is entered, and has no answer yet.
    async fn enter(call: std::pin::Pin<&mut impl Future<Output = Result<String, DrpcError>>>) {
        let mut call = call;
        let pending = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending())).await;
        assert!(pending);
    }

    async fn take_up(coordinator: &mut Coordinator, emitter: &mut Arguments, attempt: TransactionAttempt) {
        let metadata = coordinator.next(attempt.txid).await.unwrap().unwrap();
        assert_eq!(emitter.emit(attempt, &metadata).await.unwrap()[0].num_rows(), 1);
    }

    const OLD: TransactionAttempt = TransactionAttempt { txid: 1, epoch: 0, attempt: 7 };
    const NEW: TransactionAttempt = TransactionAttempt { txid: 1, epoch: 0, attempt: 8 };

    #[tokio::test]
    async fn a_late_batch_of_a_coordinator_that_panicked_does_not_answer_anothers_call() {
        let (server, spout) = spout();
        let (mut coordinator, mut emitter) = (Coordinator::new(&spout), Arguments::new(&spout, true));
        let mut one = pin!(server.execute("f", "one"));
        enter(one.as_mut()).await;
        take_up(&mut coordinator, &mut emitter, OLD).await;
        drop(coordinator);
        assert!(matches!(one.await, Err(DrpcError::Ended { .. })), "nobody knows of it any more");

        let mut coordinator = Coordinator::new(&spout);
        coordinator.recover().await.unwrap();
        let mut other = pin!(server.execute("f", "other"));
        enter(other.as_mut()).await;
        take_up(&mut coordinator, &mut emitter, NEW).await;
        server.answer("f", OLD, Ok("the first one's".to_owned()));
        enter(other.as_mut()).await;
        server.answer("f", NEW, Ok("its own".to_owned()));
        assert_eq!(other.await.unwrap(), "its own");
    }

    #[tokio::test]
    async fn two_topologies_that_answer_one_function_do_not_cross_their_calls() {
        let (server, spout) = spout();
        let (mut emitter, mut first) = (Arguments::new(&spout, true), Coordinator::new(&spout));
        let mut second = Coordinator::new(&server.spout("f"));
        let (mut one, mut other) = (pin!(server.execute("f", "one")), pin!(server.execute("f", "other")));
        enter(one.as_mut()).await;
        enter(other.as_mut()).await;
        take_up(&mut first, &mut emitter, OLD).await;
        take_up(&mut second, &mut emitter, NEW).await;
        server.answer("f", NEW, Ok("other".to_owned()));
        server.answer("f", OLD, Ok("one".to_owned()));
        assert_eq!((one.await.unwrap(), other.await.unwrap()), ("one".to_owned(), "other".to_owned()));
        // One of them goes, and the other one's calls go on.
        let mut third = pin!(server.execute("f", "third"));
        enter(third.as_mut()).await;
        let metadata = second.next(2).await.unwrap();
        drop(first);
        assert!(second.give_up(2, "no").await && metadata.is_some());
        assert!(matches!(third.await, Err(DrpcError::Failed { why, .. }) if why == "no"));
    }

    #[tokio::test]
    async fn a_call_leaves_with_its_caller() {
        let (server, spout) = spout();
        let (mut coordinator, mut emitter) = (Coordinator::new(&spout), Arguments::new(&spout, true));
        {
            let mut one = pin!(server.execute("f", "one"));
            enter(one.as_mut()).await;
        }
        assert_eq!(coordinator.next(1).await.unwrap(), None, "it was not begun");
        let metadata = {
            let mut one = pin!(server.execute("f", "one"));
            enter(one.as_mut()).await;
            coordinator.next(1).await.unwrap().unwrap()
        };
        assert!(emitter.emit(NEW, &metadata).await.unwrap().is_empty(), "it was begun and not emitted");
        server.answer("f", NEW, Ok(String::new()));
        coordinator.committed(1).await.unwrap();
    }
}
