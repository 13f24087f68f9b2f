//! Executors: what runs the tasks of a component, one call after the other.

mod bolts;
mod spouts;

use std::{
    any::Any,
    fmt::Display,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures::FutureExt;
use tokio::sync::watch;

pub(crate) use bolts::{BoltExecutor, BoltTask, input_stats};
pub(crate) use spouts::{SpoutExecutor, SpoutTask};

/// What a topology is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Orders {
    /// The topology has not been active yet: nothing is opened or prepared.
    Wait,
    /// Spouts rest; bolts work off what there is.
    Rest,
    Work,
    End,
}

/// The place of no task.
pub(crate) const NOBODY: usize = usize::MAX;

/// The executor is to end.
#[derive(Debug)]
struct Ended;

/// The orders of a topology, as an executor sees them.
#[derive(Clone, Debug)]
pub(crate) struct Command(pub(crate) watch::Receiver<Orders>);

impl Command {
    fn current(&self) -> Orders {
        *self.0.borrow()
    }

    /// Whether the topology ends, or whoever gives orders is gone, which is an end, too.
    pub(crate) fn is_over(&self) -> bool {
        self.current() == Orders::End || self.0.has_changed().is_err()
    }

    /// Waits until the topology has been active. It may already rest again: its spouts may have emitted something that
    /// is to be worked off.
    async fn begin(&mut self) -> Result<(), Ended> {
        match self.0.wait_for(|orders| *orders != Orders::Wait).await.map(|orders| *orders) {
            Ok(Orders::Work | Orders::Rest) => Ok(()),
            _ => Err(Ended),
        }
    }

    /// Waits until the topology is to end.
    pub(crate) async fn end(&mut self) {
        // Whoever gives orders is gone: that is an end, too.
        let _ = self.0.wait_for(|orders| *orders == Orders::End).await;
    }

    /// Waits a while, unless the topology ends meanwhile.
    async fn pause(&mut self, time: Duration) -> Result<(), Ended> {
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            () = self.end() => Err(Ended),
        }
    }
}

/// Longer and longer pauses after one failure behind the other.
#[derive(Debug, Default)]
struct Backoff(u32);

impl Backoff {
    const FIRST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_secs(5);

    fn next(&mut self) -> Duration {
        let pause = Self::FIRST.saturating_mul(1 << self.0.min(16)).min(Self::LONGEST);
        self.0 += 1;
        pause
    }

    fn reset(&mut self) {
        self.0 = 0;
    }
}

/// Fragments that are worked on. They are under way until that is over, however it ends.
struct InHand {
    in_flight: Arc<AtomicUsize>,
    fragments: usize,
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(self.fragments, SeqCst);
    }
}

/// Runs a call of the user's code; a panic becomes its text. A method that is written by hand may panic before it
/// returns its future: hence calls are made inside of `call`, as `guarded(async { bolt.cleanup().await })`.
pub(crate) async fn guarded<T>(call: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(call).catch_unwind().await.map_err(|panic| described(panic.as_ref()))
}

/// Does something that may panic; a panic becomes its text.
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(AssertUnwindSafe(call)).map_err(|panic| described(panic.as_ref()))
}

/// Drops what the user's code made, which may panic once more.
fn discard<T>(things: impl IntoIterator<Item = T>) -> Result<(), String> {
    let mut result = Ok(());
    for thing in things {
        result = result.and(caught(|| drop(thing)));
    }
    result
}

/// An error's text, once and for all who want it: writing it is the user's code, too.
fn text_of(error: &dyn Display) -> String {
    caught(|| error.to_string()).unwrap_or_else(|panic| format!("an error whose text cannot be had: {panic}"))
}

fn described(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
