//! The bolt that writes values.

use std::{borrow::Cow, fmt, sync::Arc};

use async_trait::async_trait;
use stratus_topology::{Bolt, ComponentConfig, OutputCollector, TaskContext, TaskError, Tuple, Tuples};

use super::{batch::Batch, data_type::RedisDataType, desk::Desk, settings::RedisSettings};

/// What is written for a tuple.
pub trait RedisStoreMapper: Send + Sync + 'static {
    /// The type of the values, and with it the command.
    fn data_type(&self) -> RedisDataType;

    /// A tuple's key. `tuple.get::<&[u8]>(0)?.into()` is one that is bytes or text.
    ///
    /// # Errors
    ///
    /// The tuple has none, which fails it.
    fn key<'a>(&self, tuple: Tuple<'a>) -> Result<Cow<'a, [u8]>, TaskError>;

    /// A tuple's value.
    ///
    /// # Errors
    ///
    /// The tuple has none, which fails it.
    fn value<'a>(&self, tuple: Tuple<'a>) -> Result<Cow<'a, [u8]>, TaskError>;
}

/// Writes each tuple's value to its key, in the order of the tuples. At least once: see the [module](super).
///
/// A clone is a bolt with the same settings and a connection of its own, so that a factory for a topology is
/// `move || bolt.clone()`.
///
/// ```
/// use stratus_connectors::redis::{RedisDataType, RedisSettings, RedisStoreBolt, StoreFields};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let redis = RedisSettings::new("redis://localhost:6379")?;
/// let prices = StoreFields::new(RedisDataType::Hash("prices".to_owned()), "article", "price");
/// let bolt = RedisStoreBolt::new(redis, prices);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisStoreBolt {
    desk: Desk,
    mapper: Arc<dyn RedisStoreMapper>,
}

impl RedisStoreBolt {
    /// A bolt that writes what a mapper makes of tuples to a server.
    pub fn new(settings: RedisSettings, mapper: impl RedisStoreMapper) -> Self {
        Self { desk: Desk::new(settings), mapper: Arc::new(mapper) }
    }
}

impl fmt::Debug for RedisStoreBolt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStoreBolt").field("settings", self.desk.settings()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Bolt for RedisStoreBolt {
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
            let command = || Ok(data_type.store(&self.mapper.key(tuple)?, &self.mapper.value(tuple)?));
            batch.add(tuple, command());
        }
        let (_, failures) = self.desk.ask(batch).await;
        self.desk.settle(&input, failures, out)
    }
}
