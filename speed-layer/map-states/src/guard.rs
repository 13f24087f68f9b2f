//! Which transactions a state may take.

use std::sync::Arc;

use stratus_trident::{StateKind, TransactionAttempt};

use crate::{
    MapError,
    standing::{Refusal, Standing},
};

/// The name of a kind, as it is stored.
pub(crate) fn name(kind: StateKind) -> &'static str {
    match kind {
        StateKind::NonTransactional => "non-transactional",
        StateKind::Transactional => "transactional",
        StateKind::Opaque => "opaque",
    }
}

/// A handle's transaction, and what the process knows of its state. States without a promise take whatever comes.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) kind: StateKind,
    /// The one under way, if it is to be guarded.
    txid: Option<u64>,
    /// What tells the attempt under way from others at the same transaction.
    attempt: Option<TransactionAttempt>,
    /// What tells the batch under way from others of the same number.
    digest: Option<u64>,
    pub(crate) standing: Arc<Standing>,
}

impl Guard {
    pub(crate) fn new(kind: StateKind, standing: Arc<Standing>) -> Self {
        Self { kind, txid: None, attempt: None, digest: None, standing }
    }

    /// Whether a transaction is to be compared with what the store holds.
    pub(crate) fn guards(&self, txid: Option<u64>) -> Option<u64> {
        txid.filter(|_| self.keeps_txids())
    }

    /// Whether states of this kind remember who wrote.
    pub(crate) fn keeps_txids(&self) -> bool {
        self.kind != StateKind::NonTransactional
    }

    /// The transaction under way, if it is guarded; 0 if not.
    pub(crate) fn under_way(&self) -> u64 {
        self.txid.unwrap_or(0)
    }

    /// What follows is this attempt's.
    pub(crate) fn begin_attempt(&mut self, attempt: TransactionAttempt) {
        self.attempt = Some(attempt);
    }

    /// The transaction that begins next is this batch.
    pub(crate) fn is_of(&mut self, digest: Option<u64>) {
        self.digest = digest;
    }

    /// The digest of the transaction under way; 0 if nobody knows.
    pub(crate) fn digest(&self) -> u64 {
        self.digest.unwrap_or(0)
    }

    /// The attempt at the transaction under way, if that is guarded and the attempt is known.
    pub(crate) fn attempt(&self) -> Option<TransactionAttempt> {
        self.attempt.filter(|attempt| Some(attempt.txid) == self.txid)
    }

    /// None is under way from here on. An error if this process may not write any more.
    pub(crate) fn end(&mut self, what: &str) -> Result<(), MapError> {
        self.txid = None;
        self.standing.check(what)
    }

    /// A transaction begins on a state that has seen this.
    pub(crate) fn begin(&mut self, what: &str, txid: Option<u64>, seen: Seen) -> Result<(), MapError> {
        self.end(what)?;
        let Some(asked) = self.guards(txid) else { return Ok(()) };
        check(what, asked, self.digest(), seen)?;
        if seen.txid == 0 && asked > 1 {
            self.standing.begins_late(what, asked);
        }
        self.txid = Some(asked);
        Ok(())
    }

    /// What is told from here on is that the state was cleared, if that is what an answer says.
    pub(crate) fn told(&self, error: MapError) -> MapError {
        match error {
            MapError::Cleared { what } => self.standing.refuse(&what, Refusal::Cleared),
            other => other,
        }
    }
}

/// What a state holds of the transactions that wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The highest; 0 before the first.
    pub(crate) txid: u64,
    /// Its digest; 0 if nobody knows.
    pub(crate) digest: u64,
}

/// Equal is a replay, or another task of the state, if it is the same batch.
pub(crate) fn check(what: &str, asked: u64, digest: u64, seen: Seen) -> Result<(), MapError> {
    if asked != 0 && asked < seen.txid {
        return Err(MapError::Behind { what: what.to_owned(), seen: seen.txid, asked });
    }
    if asked != 0 && asked == seen.txid && digest != 0 && seen.digest != 0 && digest != seen.digest {
        return Err(MapError::OtherBatch { what: what.to_owned(), txid: asked });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(txid: u64) -> Seen {
        Seen { txid, digest: 0 }
    }

    #[test]
    fn another_batch_of_the_same_number_is_told_from_a_replay() {
        let mut guard = Guard::new(StateKind::Opaque, Arc::default());
        for (asked, digest, taken) in [
            (7, Some(3), true),
            (7, None, true),
            (7, Some(4), false),
            (8, Some(4), true),
            (6, Some(3), false),
        ] {
            guard.is_of(digest);
            let begun = guard.begin("s", Some(asked), Seen { txid: 7, digest: 3 });
            assert_eq!(begun.is_ok(), taken, "{asked} {digest:?}");
        }
        guard.is_of(Some(4));
        guard.begin("s", Some(7), of(7)).unwrap();
    }

    #[test]
    fn equal_and_later_transactions_are_taken() {
        let mut guard = Guard::new(StateKind::Opaque, Arc::default());
        for (asked, seen) in [(1, 0), (1, 1), (5, 1), (u64::MAX, u64::MAX)] {
            guard.begin("s", Some(asked), of(seen)).unwrap();
            assert_eq!(guard.under_way(), asked);
        }
        assert!(matches!(guard.begin("s", Some(4), of(5)), Err(MapError::Behind { seen: 5, asked: 4, .. })));
        assert_eq!(guard.under_way(), 0, "a refused transaction is not under way");
    }

    #[test]
    fn what_one_handle_was_refused_all_are() {
        let standing = Arc::<Standing>::default();
        let mut one = Guard::new(StateKind::Transactional, Arc::clone(&standing));
        let two = Guard::new(StateKind::Transactional, standing);
        one.begin("s", Some(8), of(7)).unwrap();
        let error = two.told(MapError::Cleared { what: "s".to_owned() });
        assert!(matches!(error, MapError::Cleared { .. }), "{error}");
        assert!(matches!(one.begin("s", Some(9), of(8)), Err(MapError::Cleared { .. })));
        assert_eq!(one.under_way(), 0);
    }

    #[test]
    fn a_state_without_a_promise_takes_whatever_comes() {
        let mut guard = Guard::new(StateKind::NonTransactional, Arc::default());
        guard.begin("s", Some(1), of(9)).unwrap();
        assert_eq!(guard.under_way(), 0);
    }
}
