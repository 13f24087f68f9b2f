//! Failed tuples that wait for the next tick.

use std::{collections::BTreeMap, sync::Arc};

use arrow::error::ArrowError;
use stratus_topology::{OutputCollector, TaskError, Tuples};

/// Rows of a batch, each with the reason that it fails for.
pub(super) type Failures = BTreeMap<u32, Arc<str>>;

/// Failed tuples that their spouts are not told of yet. What is dropped with this fails too, with another reason.
#[derive(Default)]
pub(super) struct Held(Vec<(Tuples, Arc<str>)>);

impl Held {
    /// Adds these rows of a batch. The others are let go.
    pub(super) fn add(&mut self, input: &Tuples, failures: Failures) -> Result<(), ArrowError> {
        let mut by_reason: BTreeMap<Arc<str>, Vec<u32>> = BTreeMap::new();
        for (row, why) in failures {
            by_reason.entry(why).or_default().push(row);
        }
        for (why, rows) in by_reason {
            self.0.push((input.take(&rows)?, why));
        }
        Ok(())
    }

    /// Fails them all. The error says how many there were and why the first of them failed.
    pub(super) fn release(&mut self, out: &mut OutputCollector) -> Result<(), TaskError> {
        let count: usize = self.0.iter().map(|(tuples, _)| tuples.len()).sum();
        let mut first = None;
        for (tuples, why) in self.0.drain(..) {
            out.fail(&tuples, &why);
            first = first.or(Some(why));
        }
        match first {
            Some(why) => Err(format!("failed tuples: {count}; the first: {why}").into()),
            None => Ok(()),
        }
    }
}
