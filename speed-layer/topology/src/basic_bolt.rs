//! Bolts that take tuples one by one.

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

    /// Called once, after everything else.
    fn cleanup(&mut self) {}
}

/// What a [`BasicBolt`] emits through.
#[derive(Debug)]
pub struct BasicOutputCollector<'a> {
    streams: &'a mut [Output],
    row: u32,
}

/// Rows of one stream that wait for the end of the batch.
#[derive(Debug)]
struct Output {
    stream: String,
    rows: RowBuilder,
    /// The input row that each comes from.
    anchors: Vec<u32>,
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
        let Some(output) = self.streams.iter_mut().find(|output| output.stream == stream) else {
            let declared: Vec<&str> = self.streams.iter().map(|output| output.stream.as_str()).collect();
            return Err(
                format!("stream `{stream}` is not declared, there are: {}", declared.join(", ")).into()
            );
        };
        output.rows.append(tuple)?;
        output.anchors.push(self.row);
        Ok(())
    }
}

/// Makes a [`Bolt`] of a [`BasicBolt`].
#[derive(Debug)]
pub struct PerTuple<B> {
    bolt: B,
    streams: Vec<Output>,
    batch_rows: usize,
}

impl<B: BasicBolt> PerTuple<B> {
    /// The bolt that gives `bolt` tuples one by one.
    pub fn new(bolt: B) -> Self {
        Self { bolt, streams: Vec::new(), batch_rows: 0 }
    }

    /// Sends what waits in streams with at least so many rows.
    async fn send(
        &mut self,
        input: Option<&Tuples>,
        least: usize,
        out: &mut OutputCollector,
    ) -> Result<(), EmitError> {
        for output in self.streams.iter_mut().filter(|output| output.rows.len() >= least.max(1)) {
            let rows = output.rows.finish();
            let anchors = match input {
                Some(input) => Anchors::Rows(input, &output.anchors),
                None => Anchors::None,
            };
            let sent = out.emit(&output.stream, rows, anchors).await;
            output.anchors.clear();
            sent?;
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
        self.batch_rows = context.topology().config().batch_rows;
        for (stream, declaration) in declarer.streams {
            let rows = RowBuilder::new(declaration.schema, self.batch_rows.min(1_024))?;
            self.streams.push(Output { stream, rows, anchors: Vec::new() });
        }
        self.bolt.prepare(context)
    }

    async fn execute(&mut self, input: Tuples, out: &mut OutputCollector) -> Result<(), TaskError> {
        let done = self.call(&input, out).await;
        if done.is_err() {
            // What could not leave has failed with the call. It must not leave with the next one.
            for output in &mut self.streams {
                output.rows.finish();
                output.anchors.clear();
            }
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
            let ticked = self.bolt.tick(&mut BasicOutputCollector { streams: &mut self.streams, row: 0 });
            // What it has emitted before an error stays emitted, as with tuples.
            self.send(None, 1, out).await?;
            return ticked;
        }
        for tuple in input.iter() {
            let row = tuple.row() as u32;
            if let Err(error) =
                self.bolt.execute(tuple, &mut BasicOutputCollector { streams: &mut self.streams, row })
            {
                out.fail_rows(input, &[row], error);
            }
            let full = |output: &Output| output.rows.len() >= self.batch_rows;
            if self.streams.iter().any(full) {
                self.send(Some(input), self.batch_rows, out).await?;
            }
        }
        self.send(Some(input), 1, out).await?;
        // A row that has failed stays so.
        out.ack(input);
        Ok(())
    }
}
