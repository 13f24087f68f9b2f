//! When offsets are committed, and which.

use std::time::Duration;

/// How long after a failure, or when the spout stands still for want of a commit, the next commit waits.
const SOON: Duration = Duration::from_millis(200);
/// How often offsets are committed that have not changed. Of a group without members Kafka forgets each offset some
/// time after its last commit (`offsets.retention.minutes`, seven days), however busy the topic's other partitions are.
const RENEWAL: Duration = Duration::from_secs(3_600);

/// Which offsets a commit tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    /// Those that the group does not know yet.
    News,
    /// All, so that none is forgotten.
    All,
}

/// The decisions about when to commit, without a clock of their own.
#[derive(Debug)]
pub(super) struct Timetable {
    interval: Duration,
    /// When the next commit is due.
    due: Duration,
    /// When the last one began.
    last: Duration,
    /// When all offsets are to be told again.
    renewal: Duration,
}

impl Timetable {
    /// The first commit tells all offsets: nobody knows how long ago the group was told those that are gone on from.
    pub(super) fn new(interval: Duration, now: Duration) -> Self {
        let due = now.saturating_add(interval);
        Self { interval, due, last: now, renewal: due.min(now + RENEWAL) }
    }

    /// What is to be committed now, if anything is. `short_of_room`: records wait until there is a commit.
    pub(super) fn round(&self, now: Duration, short_of_room: bool) -> Option<Round> {
        let round = self.round_at_once(now);
        let presses = short_of_room || round == Round::All;
        (now >= self.due || (presses && now >= self.last + SOON)).then_some(round)
    }

    /// What is to be committed if it cannot wait.
    pub(super) fn round_at_once(&self, now: Duration) -> Round {
        match now >= self.renewal {
            true => Round::All,
            false => Round::News,
        }
    }

    /// A commit begins.
    pub(super) fn begun(&mut self, now: Duration) {
        self.due = now.saturating_add(self.interval);
        self.last = now;
    }

    /// A commit has ended well.
    pub(super) fn done(&mut self, round: Round, now: Duration) {
        if round == Round::All {
            self.renewal = now + RENEWAL;
        }
    }

    /// A commit has failed.
    pub(super) fn failed(&mut self, now: Duration) {
        self.due = self.due.min(now + SOON);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn commits_come_at_their_interval_or_sooner_if_they_make_room() {
        let mut table = Timetable::new(30 * SECOND, SECOND);
        table.done(Round::All, SECOND);
        assert_eq!(table.round(30 * SECOND, false), None);
        assert_eq!(table.round(31 * SECOND, false), Some(Round::News));
        assert_eq!(table.round(2 * SECOND, true), Some(Round::News));
        table.begun(31 * SECOND);
        assert_eq!(table.round(31 * SECOND + SOON / 2, true), None);
        assert_eq!(table.round(31 * SECOND + SOON, true), Some(Round::News));
        assert_eq!(table.round(60 * SECOND, false), None);
        table.failed(32 * SECOND);
        assert_eq!(table.round(32 * SECOND + SOON, false), Some(Round::News));
    }

    #[test]
    fn all_offsets_are_told_at_first_and_then_every_hour_until_it_succeeds() {
        let mut table = Timetable::new(30 * SECOND, SECOND);
        assert_eq!(table.round(31 * SECOND, false), Some(Round::All));
        table.begun(31 * SECOND);
        table.done(Round::All, 32 * SECOND);
        assert_eq!(table.round(61 * SECOND, false), Some(Round::News));
        let later = 32 * SECOND + RENEWAL;
        table.begun(later - SECOND);
        assert_eq!(table.round(later, false), Some(Round::All), "it does not wait for the interval");
        table.begun(later);
        table.failed(later + SOON / 2);
        assert_eq!(table.round(later + SOON / 2, false), None, "a failure is not repeated at once");
        assert_eq!(table.round(later + SOON, false), Some(Round::All));
        table.done(Round::News, later + SECOND);
        assert_eq!(table.round_at_once(later + SECOND), Round::All);
        table.done(Round::All, later + SECOND);
        assert_eq!(table.round_at_once(later + SECOND), Round::News);
    }

    #[test]
    fn a_long_interval_does_not_let_offsets_be_forgotten() {
        let table = Timetable::new(Duration::MAX, SECOND);
        assert_eq!(table.round(RENEWAL, false), None);
        assert_eq!(table.round(RENEWAL + SECOND, false), Some(Round::All));
    }
}
