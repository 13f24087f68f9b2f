//! The bolt that counts.

use std::{borrow::Cow, collections::HashMap, fmt, sync::Arc};

use async_trait::async_trait;
use stratus_topology::{Bolt, ComponentConfig, OutputCollector, TaskContext, TaskError, Tuple, Tuples};

use super::{batch::Batch, desk::Desk, settings::RedisSettings};

/// What a tuple adds, and to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisIncrement<'a> {
    /// The key of a hash.
    pub hash: Cow<'a, [u8]>,
    /// A field of it.
    pub field: Cow<'a, [u8]>,
    /// What is added to the whole number in the field; a field that is not there is 0.
    pub amount: i64,
}

/// What is added for a tuple.
pub trait RedisIncrementMapper: Send + Sync + 'static {
    /// What a tuple adds.
    ///
    /// # Errors
    ///
    /// Nothing can be made of the tuple, which fails it.
    fn increment<'a>(&'a self, tuple: Tuple<'a>) -> Result<RedisIncrement<'a>, TaskError>;
}

/// Adds to fields of hashes (`HINCRBY`). What tuples of one batch add to the same field is added up first, so that a
/// busy field costs one command per batch; with a fields grouping in front it is one task's alone.
///
/// At least once: a tuple whose increment was not answered is emitted again and counts twice if it had taken effect.
/// Counts are never too low, and too high by at most what was under way when something failed. Where they must be
/// exact, keep them in a Trident state.
///
/// A clone is a bolt with the same settings and a connection of its own, so that a factory for a topology is
/// `move || bolt.clone()`.
#[derive(Clone)]
pub struct RedisIncrementBolt {
    desk: Desk,
    mapper: Arc<dyn RedisIncrementMapper>,
}

impl RedisIncrementBolt {
    /// A bolt that adds what a mapper makes of tuples.
    pub fn new(settings: RedisSettings, mapper: impl RedisIncrementMapper) -> Self {
        Self { desk: Desk::new(settings), mapper: Arc::new(mapper) }
    }
}

impl fmt::Debug for RedisIncrementBolt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisIncrementBolt").field("settings", self.desk.settings()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Bolt for RedisIncrementBolt {
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
        let mut batch = Batch::with_capacity(input.len());
        let sums = add_up(&*self.mapper, &input, &mut batch);
        for RedisIncrement { hash, field, amount } in sums {
            batch.commands.cmd("HINCRBY").arg(&*hash).arg(&*field).arg(amount);
        }
        let (_, failures) = self.desk.ask(batch).await;
        self.desk.settle(&input, failures, out)
    }
}

/// A hash, and a field of it.
type Target<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// The sums of what tuples add, in the order of the fields' first tuples; which sum a tuple belongs to is its place in
/// `batch`.
fn add_up<'a>(
    mapper: &'a dyn RedisIncrementMapper,
    input: &'a Tuples,
    batch: &mut Batch,
) -> Vec<RedisIncrement<'a>> {
    let mut sums: Vec<RedisIncrement<'a>> = Vec::new();
    let mut known: HashMap<Target<'a>, usize> = HashMap::new();
    for tuple in input.iter() {
        let one = match mapper.increment(tuple) {
            Ok(one) => one,
            Err(error) => {
                batch.refuse(tuple, &error);
                continue;
            }
        };
        let next = sums.len();
        let place = known.entry((one.hash.clone(), one.field.clone())).or_insert(next);
        // A sum that is too large for one increment begins another one.
        match sums.get_mut(*place).and_then(|sum| Some((sum.amount.checked_add(one.amount)?, sum))) {
            Some((amount, sum)) => sum.amount = amount,
            None => {
                *place = next;
                sums.push(one);
            }
        }
        batch.places.push((tuple.row() as u32, *place));
    }
    sums
}
