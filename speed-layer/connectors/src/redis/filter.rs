//! The bolt that lets pass what is known.

use std::{borrow::Cow, fmt, sync::Arc};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use redis::Value;
use stratus_topology::{
    Anchors, Bolt, ComponentConfig, DEFAULT_STREAM, OutputCollector, OutputFieldsDeclarer, TaskContext,
    TaskError, Tuple, Tuples,
};

use super::{batch::Batch, data_type::RedisMembership, desk::Desk, settings::RedisSettings};

/// Which tuples pass.
pub trait RedisFilterMapper: Send + Sync + 'static {
    /// Where a key has to be for its tuple to pass.
    fn membership(&self) -> RedisMembership;

    /// The fields of the tuples that come, and so of those that pass.
    fn schema(&self) -> SchemaRef;

    /// A tuple's key.
    ///
    /// # Errors
    ///
    /// The tuple has none, which fails it.
    fn key<'a>(&self, tuple: Tuple<'a>) -> Result<Cow<'a, [u8]>, TaskError>;
}

/// Emits the tuples whose keys the server has, as they are and anchored to themselves; the others are acked and end
/// here. At least once: see the [module](super).
///
/// A clone is a bolt with the same settings and a connection of its own, so that a factory for a topology is
/// `move || bolt.clone()`.
#[derive(Clone)]
pub struct RedisFilterBolt {
    desk: Desk,
    mapper: Arc<dyn RedisFilterMapper>,
}

impl RedisFilterBolt {
    /// A bolt that lets pass what a mapper says.
    pub fn new(settings: RedisSettings, mapper: impl RedisFilterMapper) -> Self {
        Self { desk: Desk::new(settings), mapper: Arc::new(mapper) }
    }
}

impl fmt::Debug for RedisFilterBolt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisFilterBolt").field("settings", self.desk.settings()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Bolt for RedisFilterBolt {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(self.mapper.schema());
    }

    fn configuration(&self) -> ComponentConfig {
        Desk::configuration()
    }

    async fn prepare(&mut self, _context: &TaskContext) -> Result<(), TaskError> {
        Ok(self.desk.open().await?)
    }

    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        if input.is_tick() {
            return self.desk.tick(&input, out);
        }
        let membership = self.mapper.membership();
        let mut batch = Batch::with_capacity(input.len());
        for tuple in input.iter() {
            batch.add(tuple, self.mapper.key(tuple).map(|key| membership.command(&key)));
        }
        let (answers, failures) = self.desk.ask(batch).await;
        let is_there = |answer: &Value| !matches!(answer, Value::Nil | Value::Int(0));
        let passing: Vec<u32> =
            answers.iter().filter(|(_, answer)| is_there(answer)).map(|(row, _)| *row).collect();
        if !passing.is_empty() {
            let rows = input.take(&passing)?.rows().clone();
            out.emit(DEFAULT_STREAM, rows, Anchors::Rows(&input, &passing)).await?;
        }
        self.desk.settle(&input, failures, out)
    }
}
