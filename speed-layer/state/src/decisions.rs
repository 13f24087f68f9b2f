//! The decisions that every store takes over the records it holds. What a commit may do is decided in the seam, by
//! [`stratus_seam::shard::judge`].

use std::collections::BTreeMap;

use stratus_seam::ids::{Generation, Token, TxId};
use stratus_seam::ledger::Ledger;
use stratus_seam::shard::{Scope, ShardCommit, ShardMeta, UNDO_DEPTH};
use stratus_seam::store::StoreError;

/// Whether the ledger is the one that a conditional write expects.
pub(crate) fn is_expected(held: Option<&Ledger>, expected: Option<(Token, u64)>) -> bool {
    held.map(|ledger| (ledger.token, ledger.revision)) == expected
}

/// What a claim does to a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The shard is not as it was seen: nothing.
    Refused,
    /// It is claimed already: nothing.
    Held,
    /// The writer changes, the contents stay.
    TakeOver,
    /// The contents belong to another generation and go.
    Empty,
}

/// Decides a claim by what the shard says of itself.
pub(crate) fn claim(
    held: Option<(Generation, Token)>,
    seen: Option<(Generation, Token)>,
    generation: Generation,
    token: Token,
) -> Claim {
    if held == Some((generation, token)) {
        Claim::Held
    } else if held != seen {
        Claim::Refused
    } else if held.is_some_and(|(of, _)| of == generation) {
        Claim::TakeOver
    } else {
        Claim::Empty
    }
}

/// The shard's record behind a commit that was judged to be applied, with the rows that it added.
pub(crate) fn behind(meta: &ShardMeta, commit: &ShardCommit, added: &BTreeMap<Scope, u64>) -> ShardMeta {
    let mut next = meta.clone();
    next.txid = commit.txid;
    next.attempt = Some(commit.attempt);
    for (scope, rows) in added {
        *next.rows.entry(*scope).or_default() += rows;
    }
    next
}

/// The first txid whose undo is kept when the shard holds `txid`.
pub(crate) fn first_undo(txid: TxId) -> TxId {
    (txid + 1).saturating_sub(UNDO_DEPTH)
}

/// A commit says of a key what the store does not hold: its writer, or the store, has lost something.
pub(crate) fn other_before(commit: &ShardCommit, scope: Scope, key: &str) -> StoreError {
    StoreError::Damaged(format!(
        "shard {}, txid {}: the commit replaces another state of key {key:?} (view {}, epoch {}) than the store holds",
        commit.shard, commit.txid, scope.view, scope.epoch
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_needs_the_shard_as_it_was_seen() {
        let (old, new) = (Generation::new(), Generation::new());
        let (a, b, c) = (Token::after(0), Token::after(0), Token::after(1));
        assert_eq!(claim(None, None, new, a), Claim::Empty);
        assert_eq!(claim(None, Some((new, b)), new, a), Claim::Refused);
        assert_eq!(claim(Some((new, b)), None, new, a), Claim::Refused);
        assert_eq!(claim(Some((new, b)), Some((new, c)), new, a), Claim::Refused);
        assert_eq!(claim(Some((new, b)), Some((new, b)), new, a), Claim::TakeOver);
        assert_eq!(claim(Some((old, b)), Some((old, b)), new, a), Claim::Empty);
        assert_eq!(claim(Some((new, a)), None, new, a), Claim::Held);
    }

    #[test]
    fn undo_is_kept_for_its_depth() {
        assert_eq!(first_undo(1), 0);
        assert_eq!(first_undo(UNDO_DEPTH), 1);
        assert_eq!(first_undo(UNDO_DEPTH + 5), 6);
    }
}
