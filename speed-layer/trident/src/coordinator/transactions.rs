//! What becomes of batches: a pure record of attempts and phases.

use std::collections::BTreeMap;

use crate::batch::TransactionAttempt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its tuples are under way.
    Processing,
    /// Its tuples have arrived; it waits for its turn.
    Processed,
    /// The states are writing it.
    Committing,
    /// It failed and is to be tried again.
    Failed,
    /// It failed and is not tried again: when its turn comes it is passed over.
    Dropped,
}

/// What a message calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    None,
    /// The transaction is committed by every state.
    Committed,
    /// The transaction is to be tried again.
    Retry,
}

/// The transactions under way.
#[derive(Debug)]
pub(super) struct Transactions {
    committed: u64,
    epoch: u64,
    active: BTreeMap<u64, (u64, Phase)>,
}

impl Transactions {
    /// Those after this one, in this life of the coordinator.
    pub(super) fn new(committed: u64, epoch: u64) -> Self {
        Self { committed, epoch, active: BTreeMap::new() }
    }

    /// The last one that is committed.
    pub(super) fn committed(&self) -> u64 {
        self.committed
    }

    /// The next one to begin, if fewer than `most` are under way.
    pub(super) fn next(&self, most: usize) -> Option<u64> {
        let last = self.active.last_key_value().map_or(self.committed, |(txid, _)| *txid);
        (self.active.len() < most).then_some(last + 1)
    }

    /// An attempt at a transaction begins; it replaces those before it.
    pub(super) fn begin(&mut self, txid: u64, attempt: u64) -> TransactionAttempt {
        self.active.insert(txid, (attempt, Phase::Processing));
        TransactionAttempt { txid, epoch: self.epoch, attempt }
    }

    /// The attempt whose turn it is to commit, if it is ready. It is told once.
    pub(super) fn commit(&mut self) -> Option<TransactionAttempt> {
        loop {
            let txid = self.committed + 1;
            let (attempt, phase) = self.active.get_mut(&txid)?;
            match phase {
                Phase::Processed => {
                    *phase = Phase::Committing;
                    return Some(TransactionAttempt { txid, epoch: self.epoch, attempt: *attempt });
                }
                Phase::Dropped => {
                    self.active.remove(&txid);
                    self.committed = txid;
                }
                _ => return None,
            }
        }
    }

    /// The processing, or the commit, of an attempt is done.
    pub(super) fn acked(&mut self, attempt: TransactionAttempt, commit: bool) -> Action {
        match self.active.get_mut(&attempt.txid) {
            Some((current, phase)) if *current == attempt.attempt => match (*phase, commit) {
                (Phase::Processing, false) => {
                    *phase = Phase::Processed;
                    Action::None
                }
                (Phase::Committing, true) => {
                    self.active.remove(&attempt.txid);
                    self.committed = attempt.txid;
                    Action::Committed
                }
                _ => Action::None,
            },
            // Late words of an attempt that was replaced change nothing.
            _ => Action::None,
        }
    }

    /// An attempt failed.
    pub(super) fn failed(&mut self, attempt: TransactionAttempt) -> Action {
        match self.active.get_mut(&attempt.txid) {
            Some((current, phase)) if *current == attempt.attempt => match *phase {
                Phase::Failed | Phase::Dropped => Action::None,
                _ => {
                    *phase = Phase::Failed;
                    Action::Retry
                }
            },
            _ => Action::None,
        }
    }

    /// A transaction that failed is not tried again.
    pub(super) fn drop_failed(&mut self, txid: u64) {
        if let Some((_, phase)) = self.active.get_mut(&txid) {
            *phase = Phase::Dropped;
        }
    }

    /// Fails everything behind a transaction; answers with what that is.
    pub(super) fn fail_after(&mut self, txid: u64) -> Vec<u64> {
        let later = self.active.range_mut(txid + 1..);
        later
            .map(|(later, (_, phase))| {
                *phase = Phase::Failed;
                *later
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_commit_in_their_order() {
        let mut transactions = Transactions::new(4, 0);
        let five = transactions.begin(5, 1);
        let six = transactions.begin(6, 2);
        assert_eq!(transactions.next(2), None);
        assert_eq!(transactions.acked(six, false), Action::None);
        assert_eq!(transactions.commit(), None);
        assert_eq!(transactions.acked(five, false), Action::None);
        assert_eq!(transactions.commit(), Some(five));
        assert_eq!(transactions.commit(), None, "once");
        assert_eq!(transactions.acked(five, true), Action::Committed);
        assert_eq!(transactions.commit(), Some(six));
        assert_eq!(transactions.next(2), Some(7));
    }

    #[test]
    fn late_words_of_an_attempt_that_was_replaced_change_nothing() {
        let mut transactions = Transactions::new(0, 0);
        let first = transactions.begin(1, 1);
        assert_eq!(transactions.failed(first), Action::Retry);
        assert_eq!(transactions.failed(first), Action::None);
        let second = transactions.begin(1, 2);
        assert_eq!(transactions.failed(first), Action::None);
        assert_eq!(transactions.acked(first, false), Action::None);
        assert_eq!(transactions.acked(second, false), Action::None);
        assert_eq!(transactions.commit(), Some(second));
        assert_eq!(transactions.failed(second), Action::Retry, "a commit that failed");
        assert_eq!(transactions.acked(second, true), Action::None);
    }

    #[test]
    fn a_dropped_batch_is_passed_over_in_its_turn() {
        let mut transactions = Transactions::new(0, 0);
        let first = transactions.begin(1, 1);
        let second = transactions.begin(2, 2);
        assert_eq!(transactions.acked(second, false), Action::None);
        assert_eq!(transactions.failed(first), Action::Retry);
        transactions.drop_failed(1);
        assert_eq!(transactions.commit(), Some(second));
    }
}
