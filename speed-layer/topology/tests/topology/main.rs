//! The engine as its users see it.

#![allow(clippy::unwrap_used)]

mod acking;
mod crashes;
mod drawings;
mod emissions;
mod flow;
mod groupings;
mod kit;
mod labels;
mod lifecycle;
mod metrics;
mod order;
mod random;
mod settings;
mod timeouts;
mod validation;
mod word_count;
