//! Reads what is new in a log beside the coordinator, so that commits and acks never wait for a log.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use stratus_seam::{
    log::{Log, LogError},
    offsets::{OffsetVector, Partition},
};
use stratus_topology::TaskError;
use tokio::{task::JoinHandle, time::Instant};

use super::ranges::{Found, read_new};

/// How long a coordinator waits for a read: most are done sooner.
const MOMENT: Duration = Duration::from_millis(1);
/// How long a log is asked to wait for records before it is read all the same.
const PATIENCE: Duration = Duration::from_secs(1);
/// The pause before a partition that could not be read is read again; it doubles up to the longest.
const FIRST_REST: Duration = Duration::from_millis(10);
const LONGEST_REST: Duration = Duration::from_secs(5);
/// The least time between two looks that find nothing, at most: some logs see news where there is nothing to read.
const LONGEST_LULL: Duration = Duration::from_millis(20);

/// Reads a log from where the ledger stands.
pub(super) struct Reader {
    log: Arc<dyn Log>,
    max_bytes: usize,
    skips: bool,
    stage: Stage,
    /// Partitions that cannot be read now; `None`: the log as a whole.
    rests: BTreeMap<Option<Partition>, Rest>,
    /// The least time between two looks, while they find nothing.
    lull: Duration,
    /// What the log said when it was no longer the one that was read.
    replaced: Option<String>,
}

/// What is under way.
enum Stage {
    Nothing,
    Reading(Task<Found>),
    /// There was nothing to read.
    Waiting(Task<()>),
}

struct Rest {
    until: Instant,
    pause: Duration,
}

/// A task that ends when nobody wants to know what comes of it.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Reader {
    /// Reads up to about `max_bytes` at a time. `skips`: records that are gone are passed over.
    pub(super) fn new(log: Arc<dyn Log>, max_bytes: usize, skips: bool) -> Self {
        let (stage, rests) = (Stage::Nothing, BTreeMap::new());
        Self { log, max_bytes, skips, stage, rests, lull: Duration::ZERO, replaced: None }
    }

    /// What was read is not wanted any more: the next read begins elsewhere.
    pub(super) fn forget(&mut self) {
        self.stage = Stage::Nothing;
    }

    /// An error once the log has said that it is another one, or has lost its end. It stays, also if the log grows past
    /// the place where it was read: the offsets do not mean what they meant.
    pub(super) fn check(&self) -> Result<(), TaskError> {
        self.replaced.clone().map_or(Ok(()), |error| Err(error.into()))
    }

    /// What is behind `from`, if it is known within a moment. Until there is something, `from` stays the same.
    pub(super) async fn next(&mut self, from: &OffsetVector) -> Result<Option<Found>, TaskError> {
        loop {
            self.check()?;
            match &mut self.stage {
                Stage::Nothing => self.stage = self.look(from),
                Stage::Waiting(task) if !task.0.is_finished() => return Ok(None),
                Stage::Waiting(_) => self.stage = Stage::Nothing,
                Stage::Reading(task) => {
                    let Ok(done) = tokio::time::timeout(MOMENT, &mut task.0).await else {
                        return Ok(None);
                    };
                    self.stage = Stage::Nothing;
                    let mut found = done.unwrap_or_else(Found::panicked);
                    self.rest(&mut found);
                    if !found.is_empty() {
                        self.lull = Duration::ZERO;
                        return Ok(Some(found));
                    }
                    self.check()?;
                    self.stage = self.wait(from.clone());
                    self.lull = (self.lull * 2).clamp(Duration::from_millis(1), LONGEST_LULL);
                    return Ok(None);
                }
            }
        }
    }

    /// Begins to read what can be read now.
    fn look(&self, from: &OffsetVector) -> Stage {
        let now = Instant::now();
        let resting = self.rests.iter().filter(|(_, rest)| rest.until > now);
        let except: BTreeSet<Option<Partition>> = resting.map(|(partition, _)| *partition).collect();
        if except.contains(&None) {
            return self.wait(from.clone());
        }
        let (log, from) = (Arc::clone(&self.log), from.clone());
        let (max_bytes, skips) = (self.max_bytes, self.skips);
        let except: BTreeSet<Partition> = except.into_iter().flatten().collect();
        Stage::Reading(Task(tokio::spawn(async move {
            read_new(log.as_ref(), &from, max_bytes, skips, &except).await
        })))
    }

    /// Waits until there may be something.
    fn wait(&self, from: OffsetVector) -> Stage {
        let (log, lull) = (Arc::clone(&self.log), self.lull);
        let again = self.rests.values().map(|rest| rest.until).min();
        let whole = self.rests.get(&None).map(|rest| rest.until);
        Stage::Waiting(Task(tokio::spawn(async move {
            let began = Instant::now();
            if let Some(until) = whole {
                return tokio::time::sleep_until(until).await;
            }
            tokio::select! {
                news = log.appended(&from, PATIENCE) => if news.is_err() {
                    // What is wrong the next read will say.
                    tokio::time::sleep(LONGEST_LULL).await;
                },
                () = tokio::time::sleep_until(again.unwrap_or(began + PATIENCE)) => {}
            }
            tokio::time::sleep_until(began + lull).await;
        })))
    }

    /// Lets what could not be read rest, and says so.
    fn rest(&mut self, found: &mut Found) {
        let now = Instant::now();
        let failed: BTreeSet<Option<Partition>> =
            found.failures.iter().map(|(partition, _)| *partition).collect();
        // Those that rested until now and were read.
        let whole = failed.contains(&None);
        self.rests.retain(|partition, rest| rest.until > now || whole || failed.contains(partition));
        for (partition, error) in found.failures.drain(..) {
            if let Some(LogError::Replaced { .. }) = error.downcast_ref() {
                self.replaced.get_or_insert(error.to_string());
            }
            let before = self.rests.get(&partition).map(|rest| rest.pause);
            let pause = before.map_or(FIRST_REST, |before| (before * 2).min(LONGEST_REST));
            self.rests.insert(partition, Rest { until: now + pause, pause });
            match partition {
                Some(partition) => {
                    tracing::warn!(partition, ?pause, "a partition of the log cannot be read: {error}");
                }
                None => tracing::warn!(?pause, "the log cannot be read: {error}"),
            }
        }
    }
}
