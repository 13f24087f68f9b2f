//! Storm topologies over columnar streams.
//!
//! A **topology** is a graph of **spouts**, which emit tuples, and **bolts**, which take tuples and may emit others. What
//! travels between them is a **stream**: its fields are an Arrow schema, and tuples travel as the rows of
//! [`RecordBatch`](arrow::array::RecordBatch)es. A **grouping** says which **task** of a bolt receives which tuple;
//! **executors** run the tasks.
//!
//! Every spout tuple with an id is the root of a tree: what bolts emit *anchored* to a tuple belongs to the same trees.
//! When everything in a tree is **acked**, its spout is told so; when something **fails**, is let go, or the **message
//! time-out** passes, the spout is told that instead, and a reliable spout emits the tuple again.
//!
//! As in Storm: the vocabulary, the contracts of spouts, bolts, groupings and acks, at-least-once processing, and that
//! what one task sends to another arrives in order. Unlike Storm: batches of columns instead of single objects, so that
//! the price of a hop is paid per batch; queues that are bounded in rows and bytes, and senders that wait instead of
//! overflowing or dropping; exact counts instead of samples; a panic or a forgotten ack fails at once instead of after a
//! time-out; and a topology with a cycle of bolts is refused, since it could wait for itself.
//!
//! The engine knows neither Kafka nor Redis nor views. A small topology:
//!
//! ```
//! # use std::sync::{Arc, Mutex};
//! use arrow::datatypes::DataType;
//! use stratus_topology::*;
//!
//! struct Split;
//!
//! impl BasicBolt for Split {
//!     fn declare_output_fields(&self, declarer: &mut OutputFieldsDeclarer) {
//!         declarer.declare(fields([("word", DataType::Utf8)]));
//!     }
//!
//!     fn execute(&mut self, tuple: Tuple<'_>, out: &mut BasicOutputCollector<'_>) -> Result<(), TaskError> {
//!         for word in tuple.get::<&str>(0)?.split(' ') {
//!             out.emit((word,))?;
//!         }
//!         Ok(())
//!     }
//! }
//! # fn main() -> Result<(), TopologyError> {
//! # use testing::FixedSpout;
//! # let lines = FixedSpout::new(fields([("line", DataType::Utf8)])).row(("the quick fox",)).unwrap();
//! let mut builder = TopologyBuilder::new();
//! builder.set_spout("lines", move || lines.clone(), 1);
//! builder.set_bolt("split", || PerTuple::new(Split), 2).shuffle_grouping("lines");
//! let topology = builder.build()?;
//! # Ok(()) }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod acker;
mod anchors;
mod basic_bolt;
mod bolt;
mod builder;
mod cell;
mod clock;
mod cluster;
mod collector;
mod config;
mod context;
mod declare;
mod delivery;
mod dot;
mod executor;
mod grouping;
mod hash;
mod lineage;
mod metrics;
mod queue;
mod rolling;
mod router;
mod row;
mod size;
mod spout;
mod spout_collector;
pub mod testing;
mod topology;
mod tuples;

pub use acker::FailReason;
pub use anchors::Anchors;
pub use basic_bolt::{BasicBolt, BasicOutputCollector, PerTuple};
pub use bolt::Bolt;
pub use builder::{BoltDeclarer, SpoutDeclarer, TopologyBuilder, TopologyError};
pub use cell::{CellError, FromCell};
pub use clock::{Clock, ClockHand};
pub use cluster::{ClusterError, Killed, LocalCluster, TopologyStatus};
pub use collector::OutputCollector;
pub use config::{ComponentConfig, TopologyConfig};
pub use context::{TaskContext, TaskError};
pub use declare::{
    DEFAULT_STREAM, OutputFieldsDeclarer, SYSTEM_COMPONENT, SYSTEM_STREAM, StreamDeclaration, TICK_STREAM,
    fields,
};
pub use grouping::{CustomGrouping, Grouping, GroupingContext, TaskChoice};
pub use hash::{Unhashable, hash_rows};
pub use lineage::{Label, TaskId};
pub use metrics::{
    ComponentMetrics, InputMetrics, LatencySnapshot, OutputMetrics, QueueFill, TopologyMetrics,
};
pub use rolling::{Rankings, SlidingWindowCounter};
pub use router::EmitError;
pub use row::{ColumnBuilder, Row, RowBuilder, RowError, ToCell};
pub use spout::{MessageId, Next, Spout};
pub use spout_collector::{Emission, MessageIds, SpoutOutputCollector};
pub use topology::{Component, StreamRef, Subscription, Topology};
pub use tuples::{FieldError, Tuple, Tuples, WrongField};
