//! The bolt that looks keys up.

use std::{borrow::Cow, fmt, sync::Arc};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use stratus_topology::{
    Anchors, Bolt, ComponentConfig, DEFAULT_STREAM, OutputCollector, OutputFieldsDeclarer, Row, RowBuilder,
    TaskContext, TaskError, Tuple, Tuples,
};

use super::{batch::Batch, data_type::RedisDataType, desk::Desk, found::RedisFound, settings::RedisSettings};

/// What is looked up for a tuple, and what is emitted.
pub trait RedisLookupMapper: Send + Sync + 'static {
    /// The type of the values, and with it the command.
    fn data_type(&self) -> RedisDataType;

    /// The fields of what is emitted.
    fn schema(&self) -> SchemaRef;

    /// A tuple's key.
    ///
    /// # Errors
    ///
    /// The tuple has none, which fails it.
    fn key<'a>(&self, tuple: Tuple<'a>) -> Result<Cow<'a, [u8]>, TaskError>;

    /// Emits what becomes of a tuple and of what its key holds: any number of tuples. `None`: the key, or the field or
    /// member, is not there. Numbers of members are 0 then.
    ///
    /// # Errors
    ///
    /// Nothing can be made of it, which fails the tuple. What was emitted for it stays emitted.
    fn emit(
        &self,
        tuple: Tuple<'_>,
        found: Option<&RedisFound>,
        rows: &mut LookupRows,
    ) -> Result<(), TaskError>;
}

/// What is emitted for a batch of tuples.
#[derive(Debug)]
pub struct LookupRows {
    rows: RowBuilder,
    /// The input row that each comes from.
    anchors: Vec<u32>,
    row: u32,
}

impl LookupRows {
    /// Emits a tuple, anchored to the one that was looked up.
    ///
    /// # Errors
    ///
    /// It is not a row of the mapper's schema.
    pub fn emit(&mut self, tuple: impl Row) -> Result<(), TaskError> {
        self.rows.append(tuple)?;
        self.anchors.push(self.row);
        Ok(())
    }
}

/// Looks each tuple's key up, and emits what its mapper makes of both, anchored to the tuple. The tuples of a batch are
/// looked up together, and keep their order. At least once: see the [module](super).
///
/// A clone is a bolt with the same settings and a connection of its own, so that a factory for a topology is
/// `move || bolt.clone()`.
#[derive(Clone)]
pub struct RedisLookupBolt {
    desk: Desk,
    mapper: Arc<dyn RedisLookupMapper>,
}

impl RedisLookupBolt {
    /// A bolt that looks up what a mapper makes of tuples.
    pub fn new(settings: RedisSettings, mapper: impl RedisLookupMapper) -> Self {
        Self { desk: Desk::new(settings), mapper: Arc::new(mapper) }
    }
}

impl fmt::Debug for RedisLookupBolt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLookupBolt").field("settings", self.desk.settings()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Bolt for RedisLookupBolt {
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
        let data_type = self.mapper.data_type();
        let mut batch = Batch::with_capacity(input.len());
        for tuple in input.iter() {
            batch.add(tuple, self.mapper.key(tuple).map(|key| data_type.look_up(&key)));
        }
        let (answers, mut failures) = self.desk.ask(batch).await;
        let rows = RowBuilder::new(self.mapper.schema(), answers.len())?;
        let mut rows = LookupRows { rows, anchors: Vec::with_capacity(answers.len()), row: 0 };
        for (row, answer) in answers {
            rows.row = row;
            let found = RedisFound::of(&answer);
            let tuple = input.tuple(row as usize);
            if let Err(error) = found.and_then(|found| self.mapper.emit(tuple, found.as_ref(), &mut rows)) {
                failures.insert(row, error.to_string().into());
            }
        }
        if !rows.anchors.is_empty() {
            out.emit(DEFAULT_STREAM, rows.rows.finish(), Anchors::Rows(&input, &rows.anchors)).await?;
        }
        self.desk.settle(&input, failures, out)
    }
}
