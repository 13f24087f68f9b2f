//! The engine as its users see it.

#![allow(clippy::unwrap_used)]

mod acking;
mod basic_topology;
mod completing;
mod crashes;
mod defence;
mod drawings;
mod emissions;
mod evenness;
mod examples;
mod flow;
mod groupings;
mod kills;
mod kit;
mod labels;
mod latencies;
mod letting_go;
mod lifecycle;
mod metrics;
mod order;
mod random;
mod restarts;
mod settings;
mod timeouts;
mod validation;
mod word_count;
