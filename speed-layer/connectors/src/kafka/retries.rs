//! When records that failed are emitted again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

/// How long a record waits after each of its failures: [`initial`](Self::initial) after the first, and after the n-th
/// [`period`](Self::period) · 2ⁿ⁻¹, up to [`longest`](Self::longest).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// After the first failure.
    pub initial: Duration,
    /// What is doubled with each further failure.
    pub period: Duration,
    /// Never longer than this.
    pub longest: Duration,
    /// How often a record is emitted again before it is given up; without a limit if `None`.
    pub limit: Option<u32>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            initial: Duration::ZERO,
            period: Duration::from_millis(2),
            longest: Duration::from_secs(10),
            limit: None,
        }
    }
}

impl RetryPolicy {
    /// How long to wait after this failure, which is the record's n-th; `None`: it is given up.
    pub fn wait(&self, failures: u32) -> Option<Duration> {
        if self.limit.is_some_and(|limit| failures > limit) {
            return None;
        }
        let wait = match failures {
            0 | 1 => self.initial,
            _ => self.period.saturating_mul(1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX)),
        };
        Some(wait.min(self.longest))
    }
}

/// What becomes of a record that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is emitted again, not before this time.
    Again(Duration),
    /// It has failed too often.
    GivenUp,
}

/// The records of one partition that have failed and are not done.
#[derive(Clone, Debug, Default)]
pub struct RetrySchedule {
    /// How often each has failed.
    failures: HashMap<u64, u32>,
    /// Those that wait, by the time until when and by offset.
    waiting: BTreeMap<u64, Duration>,
    by_time: BTreeSet<(Duration, u64)>,
    /// Those that have waited long enough and are not emitted yet.
    ready: BTreeSet<u64>,
}

impl RetrySchedule {
    /// Whether no record has failed, other than those that are done.
    pub fn is_empty(&self) -> bool {
        self.failures.is_empty()
    }

    /// How often a record has failed.
    pub fn failures(&self, offset: u64) -> u32 {
        self.failures.get(&offset).copied().unwrap_or(0)
    }

    /// Whether a record has failed and is not emitted again yet.
    pub fn is_scheduled(&self, offset: u64) -> bool {
        self.waiting.contains_key(&offset) || self.ready.contains(&offset)
    }

    /// A record that was emitted has failed.
    pub fn failed(&mut self, offset: u64, now: Duration, policy: &RetryPolicy) -> Verdict {
        let failures = self.failures(offset).saturating_add(1);
        let Some(wait) = policy.wait(failures) else {
            self.done(offset);
            return Verdict::GivenUp;
        };
        self.failures.insert(offset, failures);
        let until = now + wait;
        if wait.is_zero() {
            self.ready.insert(offset);
        } else {
            self.waiting.insert(offset, until);
            self.by_time.insert((until, offset));
        }
        Verdict::Again(until)
    }

    /// The records that may be emitted now, by offset.
    pub fn ready(&mut self, now: Duration) -> &BTreeSet<u64> {
        while let Some((_, offset)) = self.by_time.first().copied().filter(|(until, _)| *until <= now) {
            self.by_time.pop_first();
            self.waiting.remove(&offset);
            self.ready.insert(offset);
        }
        &self.ready
    }

    /// A record is emitted again.
    pub fn emitted(&mut self, offset: u64) {
        self.ready.remove(&offset);
    }

    /// A record is done, or will never be.
    pub fn done(&mut self, offset: u64) {
        self.failures.remove(&offset);
        self.ready.remove(&offset);
        if let Some(until) = self.waiting.remove(&offset) {
            self.by_time.remove(&(until, offset));
        }
    }

    /// The failed records below an offset that wait for their next emission.
    pub fn scheduled_below(&self, offset: u64) -> Vec<u64> {
        self.ready
            .range(..offset)
            .chain(self.waiting.range(..offset).map(|(offset, _)| offset))
            .copied()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn waits_double_up_to_the_longest() {
        let policy = RetryPolicy::default();
        let waits: Vec<Duration> = (1..=5).map(|failures| policy.wait(failures).unwrap()).collect();
        assert_eq!(waits, [Duration::ZERO, 4 * MS, 8 * MS, 16 * MS, 32 * MS]);
        for failures in [14, 31, 32, 33, 34, 1_000, u32::MAX] {
            assert_eq!(policy.wait(failures), Some(policy.longest));
        }
    }

    #[test]
    fn a_record_is_given_up_after_its_last_retry() {
        let policy = RetryPolicy { limit: Some(2), period: Duration::ZERO, ..RetryPolicy::default() };
        let mut schedule = RetrySchedule::default();
        for _ in 0..2 {
            assert_eq!(schedule.failed(7, MS, &policy), Verdict::Again(MS));
            assert!(schedule.ready(MS).contains(&7));
            schedule.emitted(7);
        }
        assert_eq!(schedule.failed(7, MS, &policy), Verdict::GivenUp);
        assert!(schedule.is_empty());
        assert!(schedule.ready(Duration::MAX).is_empty());
        let never = RetryPolicy { limit: Some(0), ..RetryPolicy::default() };
        assert_eq!(schedule.failed(8, MS, &never), Verdict::GivenUp);
    }

    #[test]
    fn what_is_ready_comes_in_the_order_of_offsets() {
        let policy = RetryPolicy { initial: 5 * MS, ..RetryPolicy::default() };
        let mut schedule = RetrySchedule::default();
        schedule.failed(9, MS, &policy);
        schedule.failed(3, 2 * MS, &policy);
        schedule.failed(5, 9 * MS, &policy);
        assert!(schedule.ready(5 * MS).is_empty());
        assert!(schedule.is_scheduled(3) && schedule.is_scheduled(9));
        assert_eq!(schedule.ready(7 * MS).iter().copied().collect::<Vec<_>>(), [3, 9]);
        assert_eq!(schedule.scheduled_below(9), [3, 5]);
        schedule.emitted(3);
        assert!(!schedule.is_scheduled(3));
        assert_eq!((schedule.failures(3), schedule.failures(4)), (1, 0));
        schedule.done(3);
        schedule.done(5);
        assert_eq!(schedule.ready(Duration::MAX).iter().copied().collect::<Vec<_>>(), [9]);
        assert!(!schedule.is_empty());
    }
}
