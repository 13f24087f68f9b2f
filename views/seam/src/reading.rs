//! Reading: which version and epochs answer a query, and what a shard held at a txid.
//!
//! A reader sets its pin, then reads the ledger and chooses; it pages every shard, each page at or above T, then
//! takes each shard's tail and settles; at the end it reads the ledger again. If anything that it relied on has
//! moved, it starts over.
//!
//! That every page must stand between T and the tail is not implied by the tail's own txid. A shard that lost its
//! tail alone is replayed under the ledger's token, and a page from before the replay would pass for one from after
//! it; and if the loss comes between a page and the tail, the tail has no undo for what the page has too much.

use std::collections::{BTreeMap, HashMap};

use crate::ids::{EpochNo, Generation, Token, TxId, ViewId};
use crate::ledger::{Epoch, Ledger};
use crate::offsets::OffsetVector;
use crate::shard::{Scope, Stand, UNDO_DEPTH};
use crate::store::Tail;

/// What answers a query over a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The index of the version among those given.
    pub version: usize,
    /// The epochs to be merged with it, unbroken from its cut.
    pub chain: Vec<Epoch>,
    /// T, the txid to read at.
    pub txid: TxId,
    /// What the answer stands for: every event below this vector, and no other.
    pub vector: OffsetVector,
}

impl Choice {
    /// The scopes of the chain within the shards.
    pub fn scopes(&self, view: ViewId) -> Vec<Scope> {
        self.chain.iter().map(|epoch| Scope { view, epoch: epoch.number }).collect()
    }
}

/// Why no answer can be given now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotYet {
    /// The view has no version: its first run is still to come.
    #[error("its first batch version is not published yet")]
    NoVersion,
    /// The speed layer has not taken the view up.
    #[error("the speed layer has not taken it up yet")]
    NotTakenUp,
    /// T lies below what was shown before, or below where the log stood when the speed state was lost.
    #[error("its speed state is being rebuilt and stands at {at}, short of {wanted}")]
    CatchingUp {
        /// Where T stands.
        at: OffsetVector,
        /// What it must reach.
        wanted: OffsetVector,
    },
    /// No version joins on to the speed state. A header is missing, which is never taken for an empty epoch.
    #[error("no batch version joins on to the speed state")]
    NoChain,
}

/// Chooses the newest version for which an unbroken chain of epochs exists, once T has passed its cut. `cuts` are
/// those of the view's versions, oldest first; `shown` is the highest vector that this reader showed before: with
/// it and the generation's target an answer is never older than an earlier one.
///
/// # Errors
/// [`NotYet`] if there is nothing to answer from.
pub fn choose(
    ledger: &Ledger,
    view: ViewId,
    cuts: &[OffsetVector],
    shown: &OffsetVector,
) -> Result<Choice, NotYet> {
    if cuts.is_empty() {
        return Err(NotYet::NoVersion);
    }
    let epochs = ledger.views.get(&view).ok_or(NotYet::NotTakenUp)?;
    let wanted = ledger.target.join(shown);
    let at = &ledger.committed_to;
    if !at.covers(&wanted) {
        return Err(NotYet::CatchingUp { at: at.clone(), wanted });
    }
    let mut behind = None;
    for (version, cut) in cuts.iter().enumerate().rev() {
        let Some(chain) = epochs.chain(cut) else { continue };
        if at.covers(cut) {
            let (chain, vector) = (chain.to_vec(), at.clone());
            return Ok(Choice { version, chain, txid: ledger.committed, vector });
        }
        behind = behind.or(Some(cut.clone()));
    }
    Err(behind
        .map_or(NotYet::NoChain, |cut| NotYet::CatchingUp { at: at.clone(), wanted: cut.join(&wanted) }))
}

/// Why a read must start over at a fresh T.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// The ledger or a shard has another generation or writer than the ledger had at the start.
    #[error("the speed state changed hands while it was read")]
    ChangedHands,
    /// A shard does not hold T: it lost its tail.
    #[error("a shard holds txid {has} only, short of {wanted}")]
    Behind {
        /// What it holds.
        has: TxId,
        /// T.
        wanted: TxId,
    },
    /// More txids have passed than a shard keeps undo for.
    #[error("the speed state moved on by more than {UNDO_DEPTH} txids while it was read")]
    TooOld,
    /// The epochs were dropped.
    #[error("epoch {0} was dropped while it was read")]
    Dropped(EpochNo),
    /// A page was read of a scope that had not as many keys as its record said.
    #[error("a shard lacked {0} keys of an epoch while it was read: the store lost some")]
    Incomplete(u64),
    /// A scope has not as many keys as its record says.
    #[error("a shard has {found} keys of an epoch where it must have {rows}: the store lost some")]
    Evicted {
        /// How many there are.
        found: u64,
        /// How many there must be.
        rows: u64,
    },
}

/// Whether a page can be brought to the ledger's T: undo leads back from what is newer, nothing leads forward.
/// Answers with the txid that it stands at.
///
/// # Errors
/// [`Stale`] if not.
pub fn usable_page(
    generation: Generation,
    token: Token,
    txid: TxId,
    stand: Option<Stand>,
    missing: u64,
) -> Result<TxId, Stale> {
    let paged = at_or_above(generation, token, txid, stand)?;
    if missing > 0 { Err(Stale::Incomplete(missing)) } else { Ok(paged) }
}

fn at_or_above(
    generation: Generation,
    token: Token,
    txid: TxId,
    stand: Option<Stand>,
) -> Result<TxId, Stale> {
    let stand = stand.ok_or(Stale::ChangedHands)?;
    if stand.generation != generation || stand.token != token {
        return Err(Stale::ChangedHands);
    }
    if stand.txid < txid {
        return Err(Stale::Behind { has: stand.txid, wanted: txid });
    }
    Ok(stand.txid)
}

/// Whether a shard's tail, taken after its pages, can bring them to the ledger's T. `paged` is the highest txid that
/// a page stood at.
///
/// # Errors
/// [`Stale`] if not.
pub fn settle(
    generation: Generation,
    token: Token,
    txid: TxId,
    paged: TxId,
    tail: Option<&Tail>,
    scopes: &[Scope],
) -> Result<(), Stale> {
    let tail = tail.ok_or(Stale::ChangedHands)?;
    let meta = &tail.meta;
    at_or_above(generation, token, txid.max(paged), Some(meta.stand()))?;
    if meta.txid - txid > UNDO_DEPTH {
        return Err(Stale::TooOld);
    }
    for scope in scopes {
        if meta.has_dropped(*scope) {
            return Err(Stale::Dropped(scope.epoch));
        }
        let rows = meta.rows.get(scope).copied().unwrap_or(0);
        let found = tail.found.get(scope).copied().unwrap_or(0);
        if found != rows {
            return Err(Stale::Evicted { found, rows });
        }
    }
    Ok(())
}

/// What the paged scopes held at T: for each key the undo of the earliest txid above T that touched it, else what
/// was read. A key that was paged twice counts once.
pub fn as_of(
    pages: impl IntoIterator<Item = (Scope, String, String)>,
    tail: &Tail,
) -> BTreeMap<Scope, HashMap<String, String>> {
    let mut held: BTreeMap<Scope, HashMap<String, String>> = BTreeMap::new();
    for (scope, key, state) in pages {
        held.entry(scope).or_default().insert(key, state);
    }
    // From the latest to the earliest, so that the earliest has the last word.
    for (scope, key, before) in tail.undo.values().rev().flatten() {
        let rows = held.entry(*scope).or_default();
        match before {
            Some(state) => rows.insert(key.clone(), state.clone()),
            None => rows.remove(key),
        };
    }
    held
}

/// Whether what was chosen from `before` still held when everything had been read.
///
/// # Errors
/// [`Stale`] if not.
pub fn still_holds(
    before: &Ledger,
    after: Option<&Ledger>,
    view: ViewId,
    first: EpochNo,
) -> Result<(), Stale> {
    let after = after
        .filter(|after| after.generation == before.generation && after.token == before.token)
        .ok_or(Stale::ChangedHands)?;
    let floor = after.views.get(&view).map(|epochs| epochs.floor).ok_or(Stale::Dropped(first))?;
    if floor > first { Err(Stale::Dropped(first)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::ids::Attempt;
    use crate::log::LogId;
    use crate::offsets::OffsetRange;
    use crate::shard::ShardMeta;

    fn ranges(from: u64, to: u64) -> BTreeMap<u32, OffsetRange> {
        BTreeMap::from([(0, OffsetRange { from, to, records: to - from })])
    }

    fn at(offset: u64) -> OffsetVector {
        OffsetVector::from([(0, offset)])
    }

    fn ledger(view: ViewId, target: OffsetVector) -> Ledger {
        let views = BTreeMap::from([(view, OffsetVector::zero())]);
        Ledger::begin("test", "e", LogId("l".into()), 2, &views, target, 0)
    }

    #[test]
    fn the_newest_version_whose_cut_was_passed_answers() {
        let view = ViewId::new();
        let (ledger, one) = ledger(view, OffsetVector::zero()).append(ranges(0, 5)).unwrap();
        let ledger = ledger.commit(&one, &BTreeMap::new()).unwrap();
        let (ledger, two) = ledger.append(ranges(5, 9)).unwrap();
        let ledger = ledger.cut(&[view], Uuid::new_v4()).unwrap();
        let cuts = [OffsetVector::zero(), at(9)];
        let shown = OffsetVector::zero();
        let before = choose(&ledger, view, &cuts, &shown).unwrap();
        assert_eq!((before.version, before.chain.len(), before.vector), (0, 2, at(5)));
        let ledger = ledger.commit(&two, &BTreeMap::new()).unwrap();
        let after = choose(&ledger, view, &cuts, &shown).unwrap();
        assert_eq!((after.version, after.chain.len(), after.vector), (1, 1, at(9)));
        assert_eq!(choose(&ledger, view, &[], &shown), Err(NotYet::NoVersion));
        assert_eq!(choose(&ledger, view, &[at(7)], &shown), Err(NotYet::NoChain));
    }

    #[test]
    fn nobody_is_shown_an_older_vector_than_before() {
        let view = ViewId::new();
        let (ledger, one) = ledger(view, at(9)).append(ranges(0, 5)).unwrap();
        let ledger = ledger.commit(&one, &BTreeMap::new()).unwrap();
        let cuts = [OffsetVector::zero()];
        let waiting = choose(&ledger, view, &cuts, &OffsetVector::zero());
        assert_eq!(waiting, Err(NotYet::CatchingUp { at: at(5), wanted: at(9) }));
        let (ledger, two) = ledger.append(ranges(5, 9)).unwrap();
        let ledger = ledger.commit(&two, &BTreeMap::new()).unwrap();
        assert!(choose(&ledger, view, &cuts, &OffsetVector::zero()).is_ok());
        assert!(choose(&ledger, view, &cuts, &at(10)).is_err());
    }

    fn tail(txid: TxId, rows: u64, found: u64) -> (Tail, Scope) {
        let scope = Scope { view: ViewId::new(), epoch: 1 };
        let mut meta = ShardMeta::empty(Generation::new(), Token::after(0));
        meta.txid = txid;
        meta.attempt = Some(Attempt::new());
        meta.rows.insert(scope, rows);
        (Tail { meta, found: BTreeMap::from([(scope, found)]), undo: BTreeMap::new() }, scope)
    }

    #[test]
    fn the_earliest_undo_above_t_has_the_last_word() {
        let (mut tail, scope) = tail(3, 2, 2);
        let undo = |key: &str, before: Option<&str>| (scope, key.to_owned(), before.map(str::to_owned));
        tail.undo.insert(2, vec![undo("a", Some("a@1")), undo("new", None)]);
        tail.undo.insert(3, vec![undo("a", Some("a@2")), undo("b", Some("b@1"))]);
        let row = |key: &str, state: &str| (scope, key.to_owned(), state.to_owned());
        let pages = [row("a", "a@3"), row("b", "b@3"), row("new", "new@2"), row("a", "a@3"), row("c", "c@1")];
        let held = as_of(pages, &tail);
        let want = [("a", "a@1"), ("b", "b@1"), ("c", "c@1")];
        let want: HashMap<String, String> = want.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        assert_eq!(held[&scope], want);
    }

    #[test]
    fn a_read_that_was_overtaken_starts_over() {
        let (tail, scope) = tail(20, 2, 2);
        let (generation, token) = (tail.meta.generation, tail.meta.token);
        let check = |txid| settle(generation, token, txid, txid, Some(&tail), &[scope]);
        assert_eq!(check(20), Ok(()));
        assert_eq!(check(4), Ok(()));
        assert_eq!(check(3), Err(Stale::TooOld));
        assert_eq!(check(21), Err(Stale::Behind { has: 20, wanted: 21 }));
        let page_of_a_lost_txid = settle(generation, token, 19, 21, Some(&tail), &[scope]);
        assert_eq!(page_of_a_lost_txid, Err(Stale::Behind { has: 20, wanted: 21 }));
        let other = settle(generation, Token::after(0), 20, 20, Some(&tail), &[scope]);
        assert_eq!(other, Err(Stale::ChangedHands));
    }

    #[test]
    fn a_dropped_epoch_is_not_an_empty_one() {
        let (mut tail, scope) = tail(1, 0, 0);
        let (generation, token) = (tail.meta.generation, tail.meta.token);
        assert_eq!(settle(generation, token, 1, 1, Some(&tail), &[scope]), Ok(()));
        tail.meta.drop_scopes(&[scope]);
        assert_eq!(settle(generation, token, 1, 1, Some(&tail), &[scope]), Err(Stale::Dropped(1)));
        let next = Scope { epoch: 2, ..scope };
        assert_eq!(settle(generation, token, 1, 1, Some(&tail), &[next]), Ok(()));
    }

    #[test]
    fn a_page_of_a_scope_that_lacks_keys_is_not_used() {
        let (tail, _) = tail(1, 2, 2);
        let page =
            |missing| usable_page(tail.meta.generation, tail.meta.token, 1, Some(tail.meta.stand()), missing);
        assert_eq!(page(0), Ok(1));
        assert_eq!(page(1), Err(Stale::Incomplete(1)));
    }

    #[test]
    fn a_lost_key_is_noticed() {
        let (tail, scope) = tail(1, 2, 1);
        let settled = settle(tail.meta.generation, tail.meta.token, 1, 1, Some(&tail), &[scope]);
        assert_eq!(settled, Err(Stale::Evicted { found: 1, rows: 2 }));
    }

    #[test]
    fn a_floor_that_rose_past_the_chain_is_noticed() {
        let view = ViewId::new();
        let (before, _) = ledger(view, OffsetVector::zero()).append(ranges(0, 5)).unwrap();
        let cut = before.cut(&[view], Uuid::new_v4()).unwrap();
        assert_eq!(still_holds(&before, Some(&cut), view, 1), Ok(()));
        let raised = cut.raise_floor(view, 2).unwrap();
        assert_eq!(still_holds(&before, Some(&raised), view, 1), Err(Stale::Dropped(1)));
        assert_eq!(still_holds(&before, Some(&before.take_over(0)), view, 1), Err(Stale::ChangedHands));
        assert_eq!(still_holds(&before, None, view, 1), Err(Stale::ChangedHands));
    }
}
