//! Commits of offsets, one after the other, while the spout goes on.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use stratus_logs::kafka::KafkaGroup;
use stratus_seam::log::LogError;
use tokio::task::JoinHandle;

use super::{
    slots::Slots,
    start::CommitNote,
    stats::KafkaSpoutStats,
    timetable::{Round, Timetable},
};

/// How long the spout waits for a commit when it must.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Committer {
    group: KafkaGroup,
    note: Arc<CommitNote>,
    stats: KafkaSpoutStats,
    timetable: Timetable,
    /// There is never a second one, which might overtake it.
    under_way: Option<Commit>,
}

struct Commit {
    round: Round,
    /// The slots and their offsets.
    offsets: Vec<(usize, u64)>,
    outcome: JoinHandle<Result<(), LogError>>,
}

impl Committer {
    pub(super) fn new(
        group: KafkaGroup,
        note: Arc<CommitNote>,
        interval: Duration,
        stats: KafkaSpoutStats,
        now: Duration,
    ) -> Self {
        Self { group, note, stats, timetable: Timetable::new(interval, now), under_way: None }
    }

    /// Notes a commit that has ended, and begins one if it is time. `short_of_room`: records wait until there is one.
    pub(super) async fn tend(&mut self, slots: &mut Slots, now: Duration, short_of_room: bool) {
        if self.under_way.as_ref().is_some_and(|commit| commit.outcome.is_finished())
            && self.finish(slots, now).await.is_err()
        {
            self.timetable.failed(now);
        }
        if self.under_way.is_none()
            && let Some(round) = self.timetable.round(now, short_of_room)
        {
            self.begin(slots, round, now);
        }
    }

    fn begin(&mut self, slots: &mut Slots, round: Round, now: Duration) {
        self.timetable.begun(now);
        let (mut offsets, mut told) = (Vec::new(), BTreeMap::new());
        for (number, slot) in slots.each() {
            let manager = slot.ledger.offsets();
            let offset = match round {
                Round::News => manager.to_commit(),
                Round::All => Some(manager.done_up_to()),
            };
            if let Some(offset) = offset {
                offsets.push((number, offset));
                told.insert(slot.partition, self.note.at(offset));
            }
        }
        if offsets.is_empty() {
            self.timetable.done(round, now);
            return;
        }
        let group = self.group.clone();
        let outcome = tokio::spawn(async move { group.commit(told).await });
        self.under_way = Some(Commit { round, offsets, outcome });
    }

    /// Waits for the commit that is under way. If it takes too long it stays under way.
    async fn finish(&mut self, slots: &mut Slots, now: Duration) -> Result<(), LogError> {
        let Some(commit) = &mut self.under_way else { return Ok(()) };
        let outcome = tokio::time::timeout(PATIENCE, &mut commit.outcome).await.map_err(without_outcome)?;
        let Some(Commit { round, offsets, .. }) = self.under_way.take() else { return Ok(()) };
        let done = outcome.map_err(without_outcome).flatten();
        match &done {
            Ok(()) => {
                self.stats.add_commits(1);
                self.timetable.done(round, now);
                for (number, offset) in offsets {
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

    /// Waits until no commit is under way, whatever becomes of it: for what must not be overtaken by one.
    pub(super) async fn quiet(&mut self, slots: &mut Slots, now: Duration) -> Result<(), LogError> {
        let done = self.finish(slots, now).await;
        match self.under_way {
            Some(_) => done,
            None => Ok(()),
        }
    }

    /// Commits what there is and waits until it is done.
    pub(super) async fn commit_now(&mut self, slots: &mut Slots, now: Duration) -> Result<(), LogError> {
        // What it does not commit, the next one does.
        self.quiet(slots, now).await?;
        self.begin(slots, self.timetable.round_at_once(now), now);
        self.finish(slots, now).await
    }
}

fn without_outcome(error: impl std::error::Error + Send + Sync + 'static) -> LogError {
    LogError::Unavailable { what: "nothing is heard of a commit".to_owned(), source: Box::new(error) }
}
