//! Views from their SQL to their answers: one binary, one module per subject.

#![allow(clippy::unwrap_used)]

#[path = "sql/aggregates.rs"]
mod aggregates;
#[path = "sql/events.rs"]
mod events;
#[path = "sql/micro_batches.rs"]
mod micro_batches;
#[path = "sql/pushdown.rs"]
mod pushdown;
#[path = "sql/refusals.rs"]
mod refusals;
#[path = "sql/rows.rs"]
mod rows;
