//! What a spout counts.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// The counts of a spout, over all its tasks and their restarts. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct KafkaSpoutStats(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    emitted: AtomicU64,
    retried: AtomicU64,
    without_tuple: AtomicU64,
    given_up: AtomicU64,
    vanished: AtomicU64,
    commits: AtomicU64,
    failed_commits: AtomicU64,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $read:ident, $add:ident;)*) => {
        impl KafkaSpoutStats {
            $(
                $(#[$doc])*
                pub fn $read(&self) -> u64 {
                    self.0.$read.load(Relaxed)
                }

                pub(super) fn $add(&self, count: u64) {
                    self.0.$read.fetch_add(count, Relaxed);
                }
            )*
        }
    };
}

counters! {
    /// Records that were emitted for the first time.
    emitted, add_emitted;
    /// Emissions of records that had failed.
    retried, add_retried;
    /// Records that the translator made no tuple of.
    without_tuple, add_without_tuple;
    /// Records that failed too often and count as done.
    given_up, add_given_up;
    /// Offsets that were still to be read, or to be emitted again, and that the topic has no longer.
    vanished, add_vanished;
    /// Commits.
    commits, add_commits;
    /// Commits that failed; each is tried again.
    failed_commits, add_failed_commits;
}
