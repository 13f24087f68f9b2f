//! Bolts that take tuples one by one.

use arrow::array::RecordBatch;
use async_trait::async_trait;

use crate::{
    anchors::Anchors,
    bolt::Bolt,
    collector::OutputCollector,
    config::ComponentConfig,
    context::{TaskContext, TaskError},
    declare::{DEFAULT_STREAM, OutputFieldsDeclarer},
    router::EmitError,
    row::{Row, RowBuilder},
    tuples::{Tuple, Tuples},
};

/// A bolt that takes one tuple after the other: what it emits is anchored to the tuple, `Ok` acks the tuple, and `Err`
/// fails this tuple alone. [`PerTuple`] makes a [`Bolt`] of it.
pub trait BasicBolt: Send + 'static {
    /// Declares the streams that it emits; none by default.
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        let _ = declarer;
    }

    /// The settings that it asks for.
    fn configuration(&self) -> ComponentConfig {
        ComponentConfig::default()
    }

    /// Called once, before everything else.
    ///
    /// # Errors
    ///
    /// After an error the executor starts over with a new bolt, a little later each time.
    fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        let _ = context;
        Ok(())
    }

    /// Works on one tuple.
    ///
    /// # Errors
    ///
    /// An error fails the tuple. What it has emitted stays emitted.
    fn execute(&mut self, tuple: Tuple<'_>, out: &mut BasicOutputCollector<'_>) -> Result<(), TaskError>;

    /// A tick of the clock, see [`ComponentConfig::tick`]. What it emits is not anchored.
    ///
    /// # Errors
    ///
    /// An error is logged and counted.
    fn tick(&mut self, out: &mut BasicOutputCollector<'_>) -> Result<(), TaskError> {
        let _ = out;
        Ok(())
    }

    /// Called once, after everything else, see [`Bolt::cleanup`].
    fn cleanup(&mut self) {}
}

/// What a [`BasicBolt`] emits through.
#[derive(Debug)]
pub struct BasicOutputCollector<'a> {
    outputs: &'a mut Outputs,
    row: u32,
}

/// What a bolt has emitted and not sent.
#[derive(Debug, Default)]
struct Outputs {
    streams: Vec<Output>,
    /// What leaves before what waits in the streams.
    ready: Vec<Ready>,
    ready_rows: usize,
    ready_bytes: usize,
    /// Rows and bytes of a batch, at most.
    most_rows: usize,
    most_bytes: usize,
}

/// Rows of the stream at this place, with their anchors.
#[derive(Debug)]
struct Ready {
    stream: usize,
    rows: RecordBatch,
    anchors: Vec<u32>,
}

/// Rows of one stream that wait for the end of the batch.
#[derive(Debug)]
struct Output {
    stream: String,
    rows: RowBuilder,
    /// The input row that each comes from.
    anchors: Vec<u32>,
    /// The streams with a listener in common, by their places: of those, only one has rows at a time, so that the rows
    /// leave in the order of their emission.
    meets: Vec<usize>,
}

impl Outputs {
    fn emit(&mut self, stream: usize, tuple: impl Row, row: u32) -> Result<(), TaskError> {
        for at in 0..self.streams[stream].meets.len() {
            self.finish(self.streams[stream].meets[at]);
        }
        let output = &mut self.streams[stream];
        output.rows.append(tuple)?;
        output.anchors.push(row);
        if output.rows.bytes() >= self.most_bytes {
            self.finish(stream);
        }
        Ok(())
    }

    /// Makes what waits in a stream ready to leave.
    fn finish(&mut self, stream: usize) {
        let output = &mut self.streams[stream];
        if !output.rows.is_empty() {
            self.ready_bytes += output.rows.bytes();
            let (rows, anchors) = (output.rows.finish(), std::mem::take(&mut output.anchors));
            self.ready_rows += rows.num_rows();
            self.ready.push(Ready { stream, rows, anchors });
        }
    }

    /// Makes everything ready to leave.
    fn finish_all(&mut self) {
        (0..self.streams.len()).for_each(|stream| self.finish(stream));
    }

    /// Makes streams with as many rows as a batch may have ready. Whether enough is ready to be sent.
    fn finish_full(&mut self) -> bool {
        for stream in 0..self.streams.len() {
            if self.streams[stream].rows.len() >= self.most_rows {
                self.finish(stream);
            }
        }
        self.ready_rows >= self.most_rows || self.ready_bytes >= self.most_bytes
    }

    /// Forgets what is ready and what waits.
    fn clear(&mut self) {
        self.finish_all();
        self.take_ready();
    }

    /// What is ready, which is to be sent.
    fn take_ready(&mut self) -> Vec<Ready> {
        self.ready_rows = 0;
        self.ready_bytes = 0;
        std::mem::take(&mut self.ready)
    }
}

impl BasicOutputCollector<'_> {
    /// Emits a tuple to the default stream.
    ///
    /// # Errors
    ///
    /// The component declares no default stream, or the tuple is not a row of it.
    pub fn emit(&mut self, tuple: impl Row) -> Result<(), TaskError> {
        self.emit_to(DEFAULT_STREAM, tuple)
    }

    /// Emits a tuple to a stream.
    ///
    /// # Errors
    ///
    /// The component does not declare the stream, or the tuple is not a row of it.
    pub fn emit_to(&mut self, stream: &str, tuple: impl Row) -> Result<(), TaskError> {
        let streams = &self.outputs.streams;
        let Some(stream) = streams.iter().position(|output| output.stream == stream) else {
            let declared: Vec<&str> = streams.iter().map(|output| output.stream.as_str()).collect();
            return Err(
                format!("stream `{stream}` is not declared, there are: {}", declared.join(", ")).into()
            );
        };
        self.outputs.emit(stream, tuple, self.row)
    }
}

/// Makes a [`Bolt`] of a [`BasicBolt`].
#[derive(Debug)]
pub struct PerTuple<B> {
    bolt: B,
    outputs: Outputs,
}

impl<B: BasicBolt> PerTuple<B> {
    /// The bolt that gives `bolt` tuples one by one.
    pub fn new(bolt: B) -> Self {
        Self { bolt, outputs: Outputs::default() }
    }

    /// Sends what is ready.
    async fn send(&mut self, input: Option<&Tuples>, out: &mut OutputCollector) -> Result<(), EmitError> {
        for Ready { stream, rows, anchors } in self.outputs.take_ready() {
            let anchors = match input {
                Some(input) => Anchors::Rows(input, &anchors),
                None => Anchors::None,
            };
            out.emit(&self.outputs.streams[stream].stream, rows, anchors).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl<B: BasicBolt> Bolt for PerTuple<B> {
    fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
        self.bolt.declare_output_fields(declarer);
    }

    fn configuration(&self) -> ComponentConfig {
        self.bolt.configuration()
    }

    async fn prepare(&mut self, context: &TaskContext) -> Result<(), TaskError> {
        let mut declarer = OutputFieldsDeclarer::default();
        self.bolt.declare_output_fields(&mut declarer);
        self.outputs.most_rows = context.topology().config().batch_rows;
        let names: Vec<String> = declarer.streams.keys().cloned().collect();
        for (stream, declaration) in declarer.streams {
            let rows = RowBuilder::new(declaration.schema, self.outputs.most_rows.min(1_024))?;
            let meet = |other: &String| context.topology().meet(context.component(), &stream, other);
            let others = names.iter().enumerate().filter(|(_, other)| **other != stream && meet(other));
            let meets = others.map(|(at, _)| at).collect();
            self.outputs.streams.push(Output { stream, rows, anchors: Vec::new(), meets });
        }
        self.bolt.prepare(context)
    }

    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        self.outputs.most_bytes = out.batch_bytes();
        let done = self.call(&input, out).await;
        if done.is_err() {
            // What could not leave has failed with the call. It must not leave with the next one.
            self.outputs.clear();
        }
        done
    }

    async fn cleanup(&mut self) {
        self.bolt.cleanup();
    }
}

impl<B: BasicBolt> PerTuple<B> {
    async fn call(&mut self, input: &Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        if input.is_tick() {
            let ticked = self.bolt.tick(&mut BasicOutputCollector { outputs: &mut self.outputs, row: 0 });
            // What it has emitted before an error stays emitted, as with tuples.
            self.outputs.finish_all();
            self.send(None, out).await?;
            return ticked;
        }
        for tuple in input.iter() {
            let row = tuple.row() as u32;
            if let Err(error) =
                self.bolt.execute(tuple, &mut BasicOutputCollector { outputs: &mut self.outputs, row })
            {
                out.fail_rows(input, &[row], error);
            }
            if self.outputs.finish_full() {
                self.send(Some(input), out).await?;
            }
        }
        self.outputs.finish_all();
        self.send(Some(input), out).await?;
        // A row that has failed stays so.
        out.ack(input);
        Ok(())
    }
}
