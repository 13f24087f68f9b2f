//! Which transactions a state may take.

use stratus_trident::StateKind;

use crate::MapError;

/// The name of a kind, as it is stored.
pub(crate) fn name(kind: StateKind) -> &'static str {
    match kind {
        StateKind::NonTransactional => "non-transactional",
        StateKind::Transactional => "transactional",
        StateKind::Opaque => "opaque",
    }
}

/// What a handle knows of the transactions of its state. States without a promise take whatever comes.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    pub(crate) kind: StateKind,
    /// The one under way, if it is to be guarded.
    txid: Option<u64>,
    /// The highest that the store has acknowledged to this handle.
    acknowledged: u64,
}

impl Guard {
    pub(crate) fn new(kind: StateKind) -> Self {
        Self { kind, txid: None, acknowledged: 0 }
    }

    /// Whether a transaction is to be compared with what the store holds.
    pub(crate) fn guards(&self, txid: Option<u64>) -> Option<u64> {
        txid.filter(|_| self.kind != StateKind::NonTransactional)
    }

    /// The transaction under way, if it is guarded; 0 if not.
    pub(crate) fn under_way(&self) -> u64 {
        self.txid.unwrap_or(0)
    }

    /// A transaction begins on a state that has seen `seen`; 0 is none.
    pub(crate) fn begin(&mut self, what: &str, txid: Option<u64>, seen: u64) -> Result<(), MapError> {
        self.txid = None;
        let Some(asked) = self.guards(txid) else { return Ok(()) };
        if seen < self.acknowledged {
            let acknowledged = self.acknowledged;
            return Err(MapError::WentBack { what: what.to_owned(), acknowledged, found: seen });
        }
        check(what, asked, seen)?;
        self.txid = Some(asked);
        Ok(())
    }

    /// The store has taken a write of this transaction; 0 is none.
    pub(crate) fn taken(&mut self, txid: u64) {
        self.acknowledged = self.acknowledged.max(txid);
    }
}

/// Equal is a replay, or another task of the state.
pub(crate) fn check(what: &str, asked: u64, seen: u64) -> Result<(), MapError> {
    if asked != 0 && asked < seen {
        return Err(MapError::Behind { what: what.to_owned(), seen, asked });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_and_later_transactions_are_taken() {
        let mut guard = Guard::new(StateKind::Opaque);
        for (asked, seen) in [(1, 0), (1, 1), (5, 1), (u64::MAX, u64::MAX)] {
            guard.begin("s", Some(asked), seen).unwrap();
            assert_eq!(guard.under_way(), asked);
        }
        assert!(matches!(guard.begin("s", Some(4), 5), Err(MapError::Behind { seen: 5, asked: 4, .. })));
        assert_eq!(guard.under_way(), 0, "a refused transaction is not under way");
    }

    #[test]
    fn a_store_that_goes_back_is_seen() {
        let mut guard = Guard::new(StateKind::Transactional);
        guard.taken(7);
        let error = guard.begin("s", Some(8), 6).unwrap_err();
        assert!(matches!(error, MapError::WentBack { acknowledged: 7, found: 6, .. }), "{error}");
        guard.begin("s", Some(8), 7).unwrap();
    }

    #[test]
    fn a_state_without_a_promise_takes_whatever_comes() {
        let mut guard = Guard::new(StateKind::NonTransactional);
        guard.begin("s", Some(1), 9).unwrap();
        assert_eq!(guard.under_way(), 0);
    }
}
