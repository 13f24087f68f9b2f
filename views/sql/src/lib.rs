//! A view, written once in SQL, and the three plans that it becomes.
//!
//! The batch layer, the speed layer and the serving layer must agree on every row, so none of them reads SQL on
//! its own: this crate parses and validates a definition once, analyses it without optimising it, and splits it
//! into a plan from events to *states* (partial results that can be merged), a plan from states to states, and a
//! plan from states to the columns that users see. Aggregates travel as DataFusion's own accumulator states,
//! through three generic wrappers ([`combinators`]). Whatever can fail on a value is evaluated in one stage
//! ([`row_stage`]), which both layers share and which no optimizer rule can look into.
//!
//! Alternatives that were rejected: cutting DataFusion's physical plans between its partial and its final
//! aggregation (the optimizer has by then rewritten the definition, a partial aggregation may emit one key twice,
//! and its state columns are named after SQL text), and states of our own for every aggregate (a second
//! implementation of each, to be kept equal to the first).
//!
//! There is no I/O here, and all sessions of the product come from [`session`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod canonical;
pub mod cataloged;
mod class;
pub mod combinators;
pub mod ddl;
mod definition;
mod descriptor;
mod error;
mod exact;
mod extremes;
mod feed;
mod key_grid;
mod merge;
mod micro_batch;
mod position;
mod query;
mod relations;
pub mod row_stage;
pub mod session;
mod text_states;
mod view;

pub use class::Class;
pub use descriptor::{Descriptor, STATE_FORMAT, StateColumn};
pub use error::{SqlError, sqlstate_of};
pub use key_grid::KeyGrid;
pub use merge::MergeStates;
pub use micro_batch::MicroBatchPlan;
pub use relations::{Relation, Relations};
pub use row_stage::FailedRows;
pub use text_states::TextStates;
pub use view::{AggregateInfo, KeyColumn, StatesPlan, View};
