//! The operations of a group, as a tree that rows run through.

use std::any::Any;

use arrow::array::RecordBatch;
use stratus_topology::{TaskContext, TaskError};

use crate::{
    batch::TransactionAttempt,
    graph::ProcessorFactory,
    processor::{BatchState, Processor},
};

/// An operation's place in the tree.
#[derive(Clone)]
pub(crate) struct Place {
    /// `None`: the spout, whose tuples are what is emitted.
    pub(crate) make: Option<ProcessorFactory>,
    /// The operations that take what comes of it.
    pub(crate) children: Vec<usize>,
    /// The streams that what comes of it goes out by.
    pub(crate) streams: Vec<String>,
}

/// The tree, parents before children.
#[derive(Clone, Default)]
pub(crate) struct Plan(pub(crate) Vec<Place>);

/// From which stream tuples go into which operation.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) component: String,
    pub(crate) stream: String,
    pub(crate) place: usize,
    pub(crate) input: usize,
}

/// What the operations keep of a batch.
pub(crate) type States = Vec<Option<BatchState>>;

/// What goes out, by stream.
pub(crate) type Outputs = Vec<(String, RecordBatch)>;

/// The operations of one task.
#[derive(Default)]
pub(crate) struct Operations {
    places: Vec<(Option<Box<dyn Processor>>, Place)>,
}

impl Plan {
    pub(crate) fn make(&self) -> Result<Operations, TaskError> {
        let places = self.0.iter().map(|place| {
            let processor = place.make.as_ref().map(|make| make()).transpose()?;
            Ok((processor, place.clone()))
        });
        Ok(Operations { places: places.collect::<Result<_, TaskError>>()? })
    }
}

impl Operations {
    pub(crate) async fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        for (processor, _) in &mut self.places {
            if let Some(processor) = processor {
                processor.prepare(context).await?;
            }
        }
        Ok(())
    }

    pub(crate) fn start_batch(&mut self, attempt: TransactionAttempt) -> States {
        let state = |processor: &mut Option<Box<dyn Processor>>| {
            processor.as_mut().map_or_else(|| Box::new(()) as Box<dyn Any + Send>, |p| p.start_batch(attempt))
        };
        self.places.iter_mut().map(|(processor, _)| Some(state(processor))).collect()
    }

    /// Rows that the group's own spout has emitted.
    pub(crate) fn emitted(&mut self, states: &mut States, rows: RecordBatch) -> Result<Outputs, TaskError> {
        let mut outputs = Vec::new();
        self.pass_on(0, states, vec![rows], &mut outputs)?;
        Ok(outputs)
    }

    /// Rows that came by a stream.
    pub(crate) fn received(
        &mut self,
        sources: &[Source],
        (component, stream): (&str, &str),
        states: &mut States,
        rows: RecordBatch,
    ) -> Result<Outputs, TaskError> {
        let mut outputs = Vec::new();
        for source in sources.iter().filter(|source| source.component == component && source.stream == stream)
        {
            self.run(source.place, source.input, states, rows.clone(), &mut outputs)?;
        }
        Ok(outputs)
    }

    pub(crate) async fn finish_batch(
        &mut self,
        attempt: TransactionAttempt,
        digest: Option<u64>,
        mut states: States,
    ) -> Result<Outputs, TaskError> {
        let mut outputs = Vec::new();
        // Parents first: what they come to in the end their children take before theirs.
        for place in 0..self.places.len() {
            let mut emitted = Vec::new();
            if let (Some(processor), Some(state)) = (&mut self.places[place].0, states[place].take()) {
                processor.is_of(digest);
                processor.finish_batch(attempt, state, &mut emitted).await?;
            }
            self.pass_on(place, &mut states, emitted, &mut outputs)?;
        }
        Ok(outputs)
    }

    fn run(
        &mut self,
        place: usize,
        input: usize,
        states: &mut States,
        rows: RecordBatch,
        outputs: &mut Outputs,
    ) -> Result<(), TaskError> {
        let mut emitted = Vec::new();
        if let (Some(processor), Some(state)) = (&mut self.places[place].0, states[place].as_mut()) {
            processor.execute(state, input, rows, &mut emitted)?;
        }
        self.pass_on(place, states, emitted, outputs)
    }

    /// Gives what came of an operation to those that follow it.
    fn pass_on(
        &mut self,
        place: usize,
        states: &mut States,
        emitted: Vec<RecordBatch>,
        outputs: &mut Outputs,
    ) -> Result<(), TaskError> {
        if emitted.is_empty() {
            return Ok(());
        }
        let Place { children, streams, .. } = self.places[place].1.clone();
        for rows in emitted.into_iter().filter(|rows| rows.num_rows() > 0) {
            for stream in &streams {
                outputs.push((stream.clone(), rows.clone()));
            }
            for child in &children {
                self.run(*child, 0, states, rows.clone(), outputs)?;
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Operations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} operations", self.places.len())
    }
}
