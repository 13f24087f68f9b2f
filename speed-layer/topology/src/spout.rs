//! Spouts: where tuples come from.

use async_trait::async_trait;

use crate::{
    acker::FailReason,
    config::ComponentConfig,
    context::{TaskContext, TaskError},
    declare::OutputFieldsDeclarer,
    spout_collector::SpoutOutputCollector,
};

/// A spout's own name for a tuple; it gets it back when the tuple's tree is done or has failed.
pub type MessageId = u64;

/// Whether a spout had anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It emitted, or may at once have more.
    Emitted,
    /// It has nothing at present; it is asked again after a moment.
    Idle,
}

/// A source of tuples. All calls to one spout come one after the other.
#[async_trait]
pub trait Spout: Send + 'static {
    /// Declares the streams that it emits.
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer);

    /// The settings that it asks for.
    fn configuration(&self) -> ComponentConfig {
        ComponentConfig::default()
    }

    /// Called once, before everything else, when the topology is active for the first time.
    ///
    /// # Errors
    ///
    /// After an error the executor starts over with a new spout, a little later each time.
    async fn open(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        let _ = context;
        Ok(())
    }

    /// The topology is active again.
    async fn activate(&mut self) {}

    /// The topology is no longer active: [`next`](Self::next) is not called until it is.
    async fn deactivate(&mut self) {}

    /// Emits some tuples. It should return within a few milliseconds also if it has none, as acks wait meanwhile. It is
    /// not called while too many of the task's tuples are pending.
    ///
    /// # Errors
    ///
    /// An error is logged and counted, and the spout is asked again, a little later each time.
    async fn next(&mut self, out: &mut SpoutOutputCollector) -> Result<Next, TaskError>;

    /// The trees of these tuples are done.
    async fn acked(&mut self, ids: &[MessageId]) {
        let _ = ids;
    }

    /// The trees of these tuples will not be done; a reliable spout emits them again.
    async fn failed(&mut self, ids: &[MessageId], reason: &FailReason) {
        let _ = (ids, reason);
    }

    /// Called once, after everything else: when the topology ends, or when the executor starts over, since another of
    /// its tasks has panicked; what is still open then counts as failed. A spout that panicked itself is dropped
    /// without, and a killed process does not call it.
    async fn close(&mut self) {}
}
