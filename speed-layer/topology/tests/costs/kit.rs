//! Spouts and bolts of these tests.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use stratus_topology::*;

pub(crate) const NAME: &str = "measured";

pub(crate) fn text() -> SchemaRef {
    fields([("text", DataType::Utf8)])
}

pub(crate) fn number() -> SchemaRef {
    fields([("n", DataType::Int64)])
}

/// What a test does in each call of `next`, with the number of the call.
pub(crate) type Emit = Box<dyn for<'a> FnMut(usize, &'a mut SpoutOutputCollector) -> Call<'a, Next> + Send>;
/// What a test does with each batch.
pub(crate) type Execute = Box<dyn for<'a> FnMut(Tuples, &'a mut OutputCollector) -> Call<'a, ()> + Send>;
pub(crate) type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T, TaskError>> + Send + 'a>>;

/// How many tuples were acked, and failed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) acked: Arc<AtomicUsize>,
    pub(crate) failed: Arc<AtomicUsize>,
}

pub(crate) struct Emitter {
    pub(crate) schema: SchemaRef,
    pub(crate) emit: Emit,
    pub(crate) calls: usize,
    pub(crate) told: Told,
}

#[async_trait]
impl Spout for Emitter {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(Arc::clone(&self.schema));
    }

    async fn next(&mut self, out: &mut SpoutOutputCollector) -> Result<Next, TaskError> {
        self.calls += 1;
        (self.emit)(self.calls - 1, out).await
    }

    async fn acked(&mut self, ids: &[MessageId]) {
        self.told.acked.fetch_add(ids.len(), SeqCst);
    }

    async fn failed(&mut self, ids: &[MessageId], _: &FailReason) {
        self.told.failed.fetch_add(ids.len(), SeqCst);
    }
}

pub(crate) struct Executor {
    pub(crate) schema: SchemaRef,
    pub(crate) execute: Execute,
}

#[async_trait]
impl Bolt for Executor {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        declarer.declare(Arc::clone(&self.schema));
    }

    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        (self.execute)(input, out).await
    }
}

/// Waits for something that has to happen.
pub(crate) async fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < Duration::from_secs(60), "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
