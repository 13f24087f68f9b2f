//! What a spout knows of one partition: what it has emitted, what is done, and what is to be emitted again.

use std::{collections::BTreeSet, time::Duration};

use super::{
    message_id::RecordId,
    offsets::OffsetManager,
    retries::{RetryPolicy, RetrySchedule, Verdict},
};

/// The decisions about one partition's records, without any I/O.
#[derive(Clone, Debug)]
pub struct PartitionLedger {
    offsets: OffsetManager,
    retries: RetrySchedule,
}

impl PartitionLedger {
    /// Nothing is emitted yet; reading begins at `start`.
    pub fn new(start: u64) -> Self {
        Self { offsets: OffsetManager::new(start), retries: RetrySchedule::default() }
    }

    /// The offsets.
    pub fn offsets(&self) -> &OffsetManager {
        &self.offsets
    }

    /// How many more records may be emitted until `limit` are not committed.
    pub fn room(&self, limit: usize) -> usize {
        limit.saturating_sub(self.offsets.uncommitted())
    }

    /// Whether records wait for their next emission, or for its outcome.
    pub fn has_failures(&self) -> bool {
        !self.retries.is_empty()
    }

    /// A record is emitted for the first time.
    pub fn emitted(&mut self, offset: u64) {
        self.offsets.emitted(offset);
    }

    /// Everything below this offset was emitted, or will not be.
    pub fn passed(&mut self, position: u64) {
        self.offsets.passed(position);
    }

    /// A record's tree is done. `false` if it is not this attempt that is under way.
    pub fn acked(&mut self, id: RecordId) -> bool {
        if !self.is_under_way(id) {
            return false;
        }
        self.finish(id.offset);
        true
    }

    /// A record's tree has failed. None if it is not this attempt that is under way.
    pub fn failed(&mut self, id: RecordId, now: Duration, policy: &RetryPolicy) -> Option<Verdict> {
        if !self.is_under_way(id) {
            return None;
        }
        let verdict = self.retries.failed(id.offset, now, policy);
        if verdict == Verdict::GivenUp {
            self.offsets.done(id.offset);
        }
        Some(verdict)
    }

    fn is_under_way(&self, id: RecordId) -> bool {
        self.offsets.is_open(id.offset)
            && !self.retries.is_scheduled(id.offset)
            && id.is_attempt(self.retries.failures(id.offset))
    }

    /// The records that may be emitted again now, by offset.
    pub fn ready(&mut self, now: Duration) -> &BTreeSet<u64> {
        self.retries.ready(now)
    }

    /// The number of the attempt that a record's next emission is.
    pub fn attempt(&self, offset: u64) -> u32 {
        self.retries.failures(offset)
    }

    /// A record is emitted again.
    pub fn emitted_again(&mut self, offset: u64) {
        self.retries.emitted(offset);
    }

    /// A record that was to be emitted again is not to be had any more, or makes no tuple.
    pub fn finish(&mut self, offset: u64) {
        self.retries.done(offset);
        self.offsets.done(offset);
    }

    /// The records below `offset` are not to be had any more. How many of them were to be emitted again.
    pub fn lost_below(&mut self, offset: u64) -> usize {
        let lost = self.retries.scheduled_below(offset);
        lost.iter().for_each(|offset| self.finish(*offset));
        lost.len()
    }

    /// The group knows this offset now.
    pub fn was_committed(&mut self, offset: u64) {
        self.offsets.was_committed(offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    fn id(offset: u64, attempt: u32) -> RecordId {
        RecordId { slot: 0, attempt, offset }
    }

    #[test]
    fn what_comes_of_another_attempt_is_ignored() {
        let policy = RetryPolicy::default();
        let mut ledger = PartitionLedger::new(0);
        (0..3).for_each(|offset| ledger.emitted(offset));
        assert_eq!(ledger.failed(id(1, 0), NOW, &policy), Some(Verdict::Again(NOW)));
        assert!(!ledger.acked(id(1, 0)), "it waits for its next attempt");
        assert_eq!(ledger.failed(id(1, 0), NOW, &policy), None);
        assert_eq!(ledger.ready(NOW).iter().copied().collect::<Vec<_>>(), [1]);
        assert_eq!(ledger.attempt(1), 1);
        ledger.emitted_again(1);
        assert!(!ledger.acked(id(1, 0)), "the second attempt is under way");
        assert!(ledger.acked(id(1, 1)));
        assert!(!ledger.has_failures());
        assert!(ledger.acked(id(0, 0)));
        assert!(!ledger.acked(id(0, 0)) && !ledger.acked(id(9, 0)));
        assert_eq!(ledger.offsets().to_commit(), Some(2));
    }

    #[test]
    fn what_is_given_up_or_lost_does_not_hold_the_commit_back() {
        let policy = RetryPolicy { limit: Some(0), ..RetryPolicy::default() };
        let mut ledger = PartitionLedger::new(0);
        (0..4).for_each(|offset| ledger.emitted(offset));
        assert_eq!(ledger.failed(id(0, 0), NOW, &policy), Some(Verdict::GivenUp));
        assert_eq!(ledger.offsets().to_commit(), Some(1));
        ledger.failed(id(1, 0), NOW, &RetryPolicy::default());
        ledger.failed(id(3, 0), NOW, &RetryPolicy::default());
        assert_eq!(ledger.lost_below(3), 1);
        assert_eq!(ledger.offsets().to_commit(), Some(2), "2 is under way");
        assert!(ledger.acked(id(2, 0)));
        assert_eq!(ledger.offsets().to_commit(), Some(3));
    }

    #[test]
    fn what_is_not_committed_takes_room_whether_done_or_not() {
        let mut ledger = PartitionLedger::new(0);
        (0..3).for_each(|offset| ledger.emitted(offset));
        assert_eq!(ledger.room(4), 1);
        assert!(ledger.acked(id(0, 0)));
        assert_eq!(ledger.room(4), 1);
        ledger.was_committed(1);
        assert_eq!((ledger.room(4), ledger.room(1)), (2, 0));
    }
}
