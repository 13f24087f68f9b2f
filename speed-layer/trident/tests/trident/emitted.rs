//! A spout that is looked at: what it emits says what may be counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::SchemaRef,
};
use async_trait::async_trait;
use stratus_topology::{TaskContext, TaskError};
use stratus_trident::{BatchCoordinator, Emitter, SpoutKind, TransactionAttempt, TridentSpout};

/// How often each word is in an attempt.
type Words = BTreeMap<String, i64>;

/// What was emitted in each attempt at each transaction.
#[derive(Clone, Default)]
pub(crate) struct Emitted(Arc<Mutex<BTreeMap<u64, BTreeMap<u64, Words>>>>);

impl Emitted {
    /// The spout, looked at.
    pub(crate) fn watch(&self, spout: impl TridentSpout) -> Wrapped {
        let emitted = self.clone();
        Wrapped(Box::new(spout), Box::new(move |emitter| Box::new(WatchedEmitter(emitter, emitted.clone()))))
    }

    fn note(&self, attempt: TransactionAttempt, rows: &[RecordBatch]) {
        let mut emitted = self.0.lock().unwrap();
        let words = emitted.entry(attempt.txid).or_default().entry(attempt.attempt).or_default();
        for line in rows.iter().flat_map(|rows| rows.column(0).as_string::<i32>().iter().flatten()) {
            line.split(' ').for_each(|word| *words.entry(word.to_owned()).or_default() += 1);
        }
    }

    /// What a word's count may be. The last attempt at a transaction decides; a word that it lacks, because the log has
    /// lost all of its records meanwhile, may be counted as an attempt before it had it.
    pub(crate) fn allowed(&self, word: &str) -> BTreeSet<i64> {
        let mut sums = BTreeSet::from([0]);
        for attempts in self.0.lock().unwrap().values() {
            let of = |words: &Words| words.get(word).copied().unwrap_or(0);
            let counts: BTreeSet<i64> = match attempts.last_key_value().map_or(0, |(_, words)| of(words)) {
                0 => attempts.values().map(of).collect(),
                last => BTreeSet::from([last]),
            };
            sums = sums.iter().flat_map(|sum| counts.iter().map(move |count| sum + count)).collect();
        }
        sums
    }

    pub(crate) fn words(&self) -> BTreeSet<String> {
        let emitted = self.0.lock().unwrap();
        emitted.values().flat_map(BTreeMap::values).flat_map(BTreeMap::keys).cloned().collect()
    }

    /// Transactions with attempts that are not alike.
    pub(crate) fn changed(&self) -> usize {
        let emitted = self.0.lock().unwrap();
        emitted.values().filter(|attempts| attempts.values().collect::<BTreeSet<_>>().len() > 1).count()
    }
}

/// A spout with something around each of its emitters.
pub(crate) struct Wrapped(pub(crate) Box<dyn TridentSpout>, pub(crate) Wrap);

pub(crate) type Wrap = Box<dyn Fn(Box<dyn Emitter>) -> Box<dyn Emitter> + Send + Sync>;

#[async_trait]
impl TridentSpout for Wrapped {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn kind(&self) -> SpoutKind {
        self.0.kind()
    }

    async fn coordinator(&self, context: &TaskContext) -> Result<Box<dyn BatchCoordinator>, TaskError> {
        self.0.coordinator(context).await
    }

    async fn emitter(&self, context: &TaskContext) -> Result<Box<dyn Emitter>, TaskError> {
        Ok((self.1)(self.0.emitter(context).await?))
    }
}

struct WatchedEmitter(Box<dyn Emitter>, Emitted);

#[async_trait]
impl Emitter for WatchedEmitter {
    async fn emit(
        &mut self,
        attempt: TransactionAttempt,
        metadata: &str,
    ) -> Result<Vec<RecordBatch>, TaskError> {
        let rows = self.0.emit(attempt, metadata).await?;
        self.1.note(attempt, &rows);
        Ok(rows)
    }
}
