//! Spouts: where batches come from.
//!
//! A spout has a coordinator, which says what is in a batch and writes that down, and emitters, which emit it. What is
//! written down is the batch's *metadata*; it is written before a tuple of the batch is emitted, so that a replay,
//! also one after a crash, is told the same.

mod feeder;
mod log;
mod rich;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use stratus_topology::{TaskContext, TaskError};

pub use feeder::FeederBatchSpout;
pub use log::{LogSpout, Records, Translator};
pub use rich::RichSpout;

use crate::{batch::TransactionAttempt, coordinator::Pace};

/// What a spout promises of its batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoutKind {
    /// Nothing: a replayed batch may have other tuples, and a tuple may be in several batches.
    NonTransactional,
    /// A replayed batch is the same batch, every tuple is in one batch, and none is left out.
    Transactional,
    /// A replayed batch may have other tuples, but each tuple is in exactly one batch that is committed.
    Opaque,
}

/// A source of batches. It is shared by its coordinator and its emitters.
#[async_trait]
pub trait TridentSpout: Send + Sync + 'static {
    /// The fields of its tuples.
    fn schema(&self) -> SchemaRef;

    /// What it promises.
    fn kind(&self) -> SpoutKind;

    /// How its batches are paced, if not as the topology's.
    fn pace(&self) -> Option<Pace> {
        None
    }

    /// Whether its batches are nobody else's, as remote calls are: streams of it cannot be put together with those of
    /// other spouts, and what they write to states belongs to no transaction.
    fn stands_alone(&self) -> bool {
        false
    }

    /// Whether the metadata that is written down of a batch stays, whatever becomes of its attempts. Then states take a
    /// batch with other metadata under the same number for what it is: another batch, which the ledger gave the number of
    /// one that it had forgotten.
    fn metadata_stays(&self) -> bool {
        false
    }

    /// The one that says what is in a batch. There is one at a time.
    ///
    /// # Errors
    ///
    /// An error restarts the task, which asks again a little later.
    async fn coordinator(&self, context: &TaskContext) -> Result<Box<dyn BatchCoordinator>, TaskError>;

    /// The emitter of one task.
    ///
    /// # Errors
    ///
    /// An error restarts the task, which asks again a little later.
    async fn emitter(&self, context: &TaskContext) -> Result<Box<dyn Emitter>, TaskError>;
}

/// Where a coordinator finds itself after a start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The last transaction that is known to be committed; 0 if none is.
    pub committed: u64,
    /// A number that rises with each recovery, over all processes, which a ledger can count: from it come the
    /// [fences](crate::TransactionAttempt::fence) against late writes. 0 if nobody counts.
    pub epoch: u64,
    /// The transactions after it that were begun, in order, with their metadata.
    pub open: Vec<(u64, String)>,
}

/// Says what is in a batch.
#[async_trait]
pub trait BatchCoordinator: Send {
    /// Where things stand. From here on this coordinator is the only one.
    ///
    /// # Errors
    ///
    /// An error restarts the coordinator, which asks again a little later.
    async fn recover(&mut self) -> Result<Recovery, TaskError>;

    /// Called after [`recover`](Self::recover) with the last transaction that any spout of the group has committed. A
    /// spout that was not in those batches, as it is new, begins behind them; one that should have been in them and
    /// does not know them has lost what it wrote down, and must not go on. For spouts that share their batches with
    /// others.
    ///
    /// # Errors
    ///
    /// An error restarts the coordinator, which recovers.
    async fn catch_up(&mut self, committed: u64) -> Result<(), TaskError> {
        let _ = committed;
        Ok(())
    }

    /// The metadata of the next batch, written down under this txid; `None` if there is nothing to emit now. The empty
    /// text is no metadata: it tells emitters that the spout has no part in a batch.
    ///
    /// Commits wait for it, so it should return within a few milliseconds. A source that cannot be read now is no error
    /// but `None`: whoever knows the source knows when to ask it again.
    ///
    /// # Errors
    ///
    /// An error means that what was written down is in doubt. It restarts the coordinator, which gives up everything
    /// that is under way and recovers.
    async fn next(&mut self, txid: u64) -> Result<Option<String>, TaskError>;

    /// The batch begins without this spout, whose [`next`](Self::next) had nothing for it: write that down, so that a
    /// replay after a crash has nothing of it either. For spouts that share their batches with others.
    ///
    /// # Errors
    ///
    /// An error restarts the coordinator, which recovers.
    async fn nothing(&mut self, txid: u64) -> Result<(), TaskError> {
        let _ = txid;
        Ok(())
    }

    /// The metadata for another attempt at a batch. Of a transactional spout it is the same; an opaque one may write
    /// down another.
    ///
    /// # Errors
    ///
    /// An error restarts the coordinator, which recovers.
    async fn again(&mut self, txid: u64, metadata: &str) -> Result<String, TaskError> {
        let _ = txid;
        Ok(metadata.to_owned())
    }

    /// Every state has committed this batch, and all before it: write that down.
    ///
    /// # Errors
    ///
    /// An error restarts the coordinator, which recovers.
    async fn committed(&mut self, txid: u64) -> Result<(), TaskError>;

    /// A batch failed: whether it is given up instead of being tried again. For spouts whose batches somebody waits for;
    /// by default a failed batch is always tried again, and so is one that other spouts have a part in.
    async fn give_up(&mut self, txid: u64, reason: &str) -> bool {
        let _ = (txid, reason);
        false
    }
}

/// Emits its task's part of batches.
#[async_trait]
pub trait Emitter: Send {
    /// The tuples of a batch that this task is to emit. The same metadata means the same tuples, if the spout promises
    /// so much. The empty text means that the spout has no part in the batch, which began for the sake of others that
    /// share it: nothing is emitted.
    ///
    /// # Errors
    ///
    /// An error fails the batch, which is tried again.
    async fn emit(
        &mut self,
        attempt: TransactionAttempt,
        metadata: &str,
    ) -> Result<Vec<RecordBatch>, TaskError>;
}
