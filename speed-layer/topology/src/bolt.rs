//! Bolts: what happens to tuples.

use async_trait::async_trait;

use crate::{
    collector::OutputCollector,
    config::ComponentConfig,
    context::{TaskContext, TaskError},
    declare::OutputFieldsDeclarer,
    tuples::Tuples,
};

/// A bolt that takes tuples by the batch. All calls to one bolt come one after the other. For tuples one by one see
/// [`BasicBolt`](crate::BasicBolt).
#[async_trait]
pub trait Bolt: Send + 'static {
    /// Declares the streams that it emits; none by default.
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        let _ = declarer;
    }

    /// The settings that it asks for.
    fn configuration(&self) -> ComponentConfig {
        ComponentConfig::default()
    }

    /// Called once, before everything else, when the topology is active for the first time.
    ///
    /// # Errors
    ///
    /// After an error the executor starts over with a new bolt, a little later each time.
    async fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        let _ = context;
        Ok(())
    }

    /// Works on some tuples. Each of them is acked or failed through the collector, now or in a later call. How many
    /// tuples come at once depends only on how many are waiting: one when it is quiet, a full batch when it is not.
    ///
    /// # Errors
    ///
    /// After an error every tuple of this call that is not settled fails with the error's text.
    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError>;

    /// Called once, after everything else: when the topology ends, or when the executor starts over, since another of
    /// its tasks has panicked. A bolt that panicked itself is dropped without, and a killed process does not call it.
    async fn cleanup(&mut self) {}
}
