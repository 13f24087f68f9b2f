//! A collector that keeps what a spout emits, for those who run a spout inside of something else.

use std::{collections::BTreeMap, sync::Arc};

use arrow::array::RecordBatch;
use tokio::sync::mpsc;

use super::{MessageIds, SpoutOutputCollector};
use crate::{
    acker::Ackers,
    context::TaskContext,
    declare::OutputFieldsDeclarer,
    router::{EmitError, OutStream, Router},
    topology::StreamRef,
};

/// What a spout has emitted at once.
#[derive(Clone, Debug)]
pub struct Emission {
    /// The stream.
    pub stream: String,
    /// The tuples.
    pub rows: RecordBatch,
    /// The spout's names for them.
    pub ids: MessageIds,
}

impl SpoutOutputCollector {
    /// A collector that sends nothing, and keeps what is emitted to the streams that a spout declares until
    /// [`take_kept`](Self::take_kept). Whoever runs the spout by itself tells it what was acked and what failed.
    pub fn keeping(declared: OutputFieldsDeclarer, context: &TaskContext) -> Self {
        let component = context.component();
        let streams = declared.streams.into_iter().map(|(stream, declaration)| OutStream {
            name: Arc::new(StreamRef { component: component.to_owned(), stream }),
            schema: declaration.schema,
            direct: declaration.direct,
            stats: Arc::default(),
            routes: Vec::new(),
            meets: Vec::new(),
        });
        let router = Router {
            task: context.task(),
            streams: streams.collect(),
            batch_rows: context.topology.config.batch_rows,
            in_flight: Arc::default(),
            ids: fastrand::Rng::new(),
            clock: context.clock.clone(),
            ackers: Ackers::new(Vec::new()),
            label: None,
            sent: BTreeMap::new(),
        };
        // Nobody settles anything but who runs the spout.
        let (events, _) = mpsc::unbounded_channel();
        let mut collector = Self::new(router, Ackers::new(Vec::new()), events, Arc::default());
        collector.kept = Some(Vec::new());
        collector
    }

    /// What was emitted since the last call, single tuples included; nothing, if this collector sends what is emitted.
    ///
    /// # Errors
    ///
    /// Single tuples that waited could not leave.
    pub async fn take_kept(&mut self) -> Result<Vec<Emission>, EmitError> {
        self.flush().await?;
        Ok(self.kept.as_mut().map(std::mem::take).unwrap_or_default())
    }
}
