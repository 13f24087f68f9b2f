//! Commits of offsets, one after the other, while the spout goes on.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use stratus_logs::kafka::KafkaGroup;
use stratus_seam::log::LogError;
use tokio::task::JoinHandle;

use super::{slots::Slots, start::CommitNote, stats::KafkaSpoutStats};

/// How long after a failure, or when the spout stands still for want of a commit, the next commit waits.
const SOON: Duration = Duration::from_millis(200);
/// How long a commit may take when the spout waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// An offset of a slot's partition.
type Offsets = Vec<(usize, u32, u64)>;

pub(super) struct Committer {
    group: KafkaGroup,
    note: Arc<CommitNote>,
    interval: Duration,
    stats: KafkaSpoutStats,
    /// When the next one is due.
    due: Duration,
    last: Duration,
    under_way: Option<(Offsets, JoinHandle<Result<(), LogError>>)>,
}

impl Committer {
    pub(super) fn new(
        group: KafkaGroup,
        note: Arc<CommitNote>,
        interval: Duration,
        stats: KafkaSpoutStats,
        now: Duration,
    ) -> Self {
        Self { group, note, interval, stats, due: now + interval, last: now, under_way: None }
    }

    /// Notes a commit that has ended, and begins one if it is time. `short_of_room`: records wait until there is one.
    pub(super) async fn tend(&mut self, slots: &mut Slots, now: Duration, short_of_room: bool) {
        if self.under_way.as_ref().is_some_and(|(_, commit)| commit.is_finished())
            && self.finish(slots).await.is_err()
        {
            self.due = self.due.min(now + SOON);
        }
        let due = now >= self.due || (short_of_room && now >= self.last + SOON);
        if due && self.under_way.is_none() {
            self.due = now + self.interval;
            self.last = now;
            self.begin(slots);
        }
    }

    fn begin(&mut self, slots: &mut Slots) {
        let offsets: Offsets = slots
            .each()
            .filter_map(|(number, slot)| Some((number, slot.partition, slot.ledger.offsets().to_commit()?)))
            .collect();
        if offsets.is_empty() {
            return;
        }
        let told: BTreeMap<_, _> =
            offsets.iter().map(|(_, partition, offset)| (*partition, self.note.at(*offset))).collect();
        let group = self.group.clone();
        self.under_way = Some((offsets, tokio::spawn(async move { group.commit(told).await })));
    }

    /// Waits for the commit that is under way.
    async fn finish(&mut self, slots: &mut Slots) -> Result<(), LogError> {
        let Some((offsets, commit)) = self.under_way.take() else { return Ok(()) };
        let done = match tokio::time::timeout(PATIENCE, commit).await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => Err(given_up(error)),
            Err(error) => Err(given_up(error)),
        };
        match &done {
            Ok(()) => {
                self.stats.add_commits(1);
                for (number, _, offset) in offsets {
                    if let Some(slot) = slots.get(number) {
                        slot.ledger.was_committed(offset);
                    }
                }
            }
            Err(error) => {
                self.stats.add_failed_commits(1);
                tracing::warn!(topic = self.group.topic(), %error, "offsets were not committed; it is tried again");
            }
        }
        done
    }

    /// Commits what there is and waits until it is done.
    pub(super) async fn commit_now(&mut self, slots: &mut Slots, now: Duration) -> Result<(), LogError> {
        // What becomes of it is known then; what it did not commit, the next one does.
        let _ = self.finish(slots).await;
        self.due = now + self.interval;
        self.last = now;
        self.begin(slots);
        self.finish(slots).await
    }
}

fn given_up(error: impl std::error::Error + Send + Sync + 'static) -> LogError {
    LogError::Unavailable { what: "the commit was given up".to_owned(), source: Box::new(error) }
}
