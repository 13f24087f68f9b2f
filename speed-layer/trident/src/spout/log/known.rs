//! What a process knows of its spout's ledger. When the ledger's store has lost its end, that is more than the store
//! knows.

use std::collections::BTreeMap;

use stratus_seam::{
    ids::Token,
    ledger::{Ledger, Txn},
};

/// What the coordinators of a process have been acknowledged, one after the other.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The last record that the store has acknowledged; while that is being restored, what it was.
    acknowledged: Option<Ledger>,
    /// The entries of batches that are not committed in it.
    pub(super) open: BTreeMap<u64, Txn>,
    /// The last token with which the store was told again what it has lost, until it knows all of it. Those of one
    /// restoring share their random half.
    restoring: Option<Token>,
}

impl Known {
    /// The store has acknowledged this record.
    pub(super) fn acknowledge(&mut self, record: &Ledger) {
        // A record of a restoring that is cut off stands for less than the one before.
        if self.restoring.is_none() {
            self.acknowledged = Some(record.clone());
        }
    }

    /// A coordinator goes on from this record, in which these batches are open.
    pub(super) fn begin(&mut self, record: Ledger, open: BTreeMap<u64, Txn>) {
        *self = Self { acknowledged: Some(record), open, restoring: None };
    }

    /// What the store has lost, if what is found there is none, or no successor of what it has acknowledged: whoever
    /// replaces a record, be it another process, counts its revision up. What counts lower is an earlier record, or one
    /// that somebody's late write has made of that.
    pub(super) fn lost(&self, found: Option<&Ledger>) -> Option<&Ledger> {
        let acknowledged = self.acknowledged.as_ref()?;
        let is_back = |found: &Ledger| {
            self.restoring.is_some_and(|token| token.id == found.token.id)
                || found.revision < acknowledged.revision
                || (found.revision == acknowledged.revision && found.token != acknowledged.token)
        };
        found.is_none_or(is_back).then_some(acknowledged)
    }

    /// The token with which what is known is written down again. Should that be cut off, it begins again with the next.
    pub(super) fn restore(&mut self, lost: &Ledger) -> Token {
        let token = match self.restoring {
            Some(Token { counter, id }) => Token { counter: counter + 1, id },
            None => Token::after(lost.token.counter),
        };
        self.restoring = Some(token);
        token
    }
}

#[cfg(test)]
mod tests {
    use stratus_seam::{log::LogId, offsets::OffsetVector};

    use super::*;

    #[test]
    fn what_is_no_successor_of_what_was_acknowledged_has_lost_it() {
        let first = Ledger::begin("", "", LogId("l".into()), 0, &BTreeMap::new(), OffsetVector::zero(), 0);
        let second = first.take_over(0);
        let (appended, txn) = second.append(BTreeMap::new()).unwrap();
        let mut known = Known::default();
        assert_eq!(known.lost(None), None, "nothing is known yet");
        known.begin(second.clone(), BTreeMap::new());
        known.acknowledge(&appended);
        let late = first.take_over(0);
        for (found, is_lost) in [
            (None, true),
            (Some(&first), true),
            (Some(&second), true),
            (Some(&late), true),
            (Some(&late.take_over(0)), true),
            (Some(&appended), false),
            (Some(&appended.take_over(0)), false),
            // A write without an answer has happened.
            (Some(&appended.commit(&txn, &BTreeMap::new()).unwrap()), false),
        ] {
            assert_eq!(known.lost(found), is_lost.then_some(&appended), "{found:?}");
        }
        // A restoring that is cut off, and somebody who takes over from that.
        let (token, other) = (known.restore(&appended), known.restore(&appended));
        assert!(appended.token.counter < token.counter && token.counter < other.counter);
        for token in [other, token] {
            let again = Ledger { appended: 0, token, ..appended.take_over(0) };
            known.acknowledge(&again);
            assert_eq!(known.lost(Some(&again)), Some(&appended));
        }
        let again = Ledger { appended: 0, token, ..appended.take_over(0) };
        assert_eq!(known.lost(Some(&again.take_over(0))), None);
        let (whole, _) = again.append(BTreeMap::new()).unwrap();
        known.begin(whole.clone(), BTreeMap::new());
        assert_eq!(known.lost(Some(&whole)), None);
        assert_eq!(known.lost(Some(&appended)), Some(&whole));
    }
}
