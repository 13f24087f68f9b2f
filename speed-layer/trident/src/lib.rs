//! Trident: exactly-once micro-batches on Storm topologies.
//!
//! A **stream** is a sequence of batches of tuples. Operations on streams are declared; between two repartitionings
//! they are fused into one bolt. Batches are processed ahead, several at a time, and **commit** one after the other in
//! the order of their transaction numbers. A **state** keeps beside each value what it takes to count every batch once,
//! however often it is tried.
//!
//! As in Storm: the vocabulary and the table of which spouts and states are exactly once together. Unlike Storm: what is
//! in a batch is written down before a tuple of it is emitted; a failure is told at once and not by a time-out; counts
//! are compared before the commit, not in it; and late words of an attempt that was replaced change nothing.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod aggregator;
mod batch;
mod bolt;
mod collector;
mod coordinator;
mod drpc;
mod graph;
mod keys;
mod multi_reduce;
mod operation;
mod plan;
mod processor;
mod spout;
mod state;
mod stream;
mod topology;
mod tuple;

pub use aggregator::{
    Aggregator, ChainedAggregator, Combined, CombinerAggregator, Count, Max, Min, Number, Reduced,
    ReducerAggregator, RowsAggregator, Sum,
};
pub use batch::TransactionAttempt;
pub use collector::TridentCollector;
pub use coordinator::Pace;
pub use drpc::{DrpcError, DrpcServer};
pub use graph::TridentError;
pub use multi_reduce::{JoinKind, MultiReducer};
pub use operation::{BatchFunction, Filter, Function};
pub use spout::{
    BatchCoordinator, Emitter, FeederBatchSpout, LogSpout, Records, Recovery, RichSpout, SpoutKind,
    Translator, TridentSpout,
};
pub use state::{
    BackingMap, CachedMap, MapState, MemoryMap, MemoryMaps, NonTransactionalMap, NonTransactionalMemoryMaps,
    OpaqueMap, OpaqueValue, QueryFunction, State, StateFactory, StateKind, StateUpdater, TransactionalMap,
    TransactionalMemoryMaps, TransactionalValue,
};
pub use stream::{GroupedStream, SnapshotGet, Stream};
pub use topology::{TridentPlan, TridentState, TridentTopology};
pub use tuple::{TridentTuple, TridentValue};
