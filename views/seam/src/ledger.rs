//! The ledger: one record per source that says which offsets each txid stands for, how far all shards have
//! committed, where the epochs of each view begin and end, and who may write.
//!
//! The changes below are pure: each takes the record as it was read and gives the next one. A store writes it only
//! if the (token, revision) it replaces is the one that was read, so that every change is decided on facts that
//! still hold.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{Attempt, EpochNo, Generation, Token, TxId, ViewId};
use crate::log::LogId;
use crate::offsets::{OffsetRange, OffsetVector, Partition};

/// The record of one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The life of the speed state that this record describes.
    pub generation: Generation,
    /// Why this generation was begun, for people.
    pub reason: String,
    /// The one writer.
    pub token: Token,
    /// The version of the engine whose states these are: another one may lay them out otherwise.
    pub engine: String,
    /// Goes up by one with every write.
    pub revision: u64,
    /// The incarnation of the log that the offsets belong to.
    pub log: LogId,
    /// How many shards the keys are spread over, fixed for the generation.
    pub shards: u32,
    /// Where txid 1 begins.
    pub start: OffsetVector,
    /// The highest txid with an entry.
    pub appended: TxId,
    /// Where the entry of `appended` ends, and the next one begins.
    pub appended_to: OffsetVector,
    /// T: every shard holds it and all before it.
    pub committed: TxId,
    /// Where the entry of `committed` ends: what an answer at T stands for.
    pub committed_to: OffsetVector,
    /// The ends of the log when the generation was begun. Until T has passed them, answers could be older than
    /// what was shown before.
    pub target: OffsetVector,
    /// The epochs of each view.
    pub views: BTreeMap<ViewId, ViewEpochs>,
}

/// The epochs of a view that readers may use, oldest first. The last one is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewEpochs {
    /// Epochs below this number are gone, or may be at any moment.
    pub floor: EpochNo,
    /// Their headers.
    pub epochs: Vec<Epoch>,
}

/// The header of an epoch: the run of txids of a view between two of its cuts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// Its name.
    pub number: EpochNo,
    /// The vector at which it begins; rows below it are not counted in it.
    pub from: OffsetVector,
    /// The vector at which it ends; none while it is open.
    pub to: Option<OffsetVector>,
    /// Its txids are those above this one.
    pub after: TxId,
    /// The request that the cut at `from` answers.
    pub request: Option<Uuid>,
    /// Rows of committed txids that an expression of the view failed on.
    pub failed_rows: u64,
}

/// The entry of one txid: what a replay must read, and whom it feeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Txn {
    /// Its number.
    pub txid: TxId,
    /// This appending of it.
    pub attempt: Attempt,
    /// The offsets of each partition; a partition without records is not listed.
    pub ranges: BTreeMap<Partition, OffsetRange>,
    /// The epochs that it belongs to.
    pub feeds: Vec<(ViewId, EpochNo)>,
}

/// A change that does not fit the record it was to be made on: the caller worked from facts that no longer hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerMisfit {
    /// A range does not begin where the entry before it ends.
    #[error(
        "txid {txid}, partition {partition}: the range {from}..{to} does not follow on {expected}, where the entry before it ends"
    )]
    NotContiguous {
        /// The txid that was to be appended.
        txid: TxId,
        /// The partition.
        partition: Partition,
        /// The beginning of the range.
        from: u64,
        /// The end of the range.
        to: u64,
        /// Where it had to begin.
        expected: u64,
    },
    /// A txid was to be committed out of turn.
    #[error("txid {txid} was to be committed, but {committed} is committed and {appended} is the last entry")]
    OutOfTurn {
        /// The txid.
        txid: TxId,
        /// The last committed one.
        committed: TxId,
        /// The last one with an entry.
        appended: TxId,
    },
    /// There is no such view in the ledger.
    #[error("view {0} has no epochs in the ledger")]
    NoSuchView(ViewId),
}

impl Ledger {
    /// The record of a new generation in which each view begins at the vector given for it. `seen` is the highest
    /// token counter that was found anywhere in the old state.
    pub fn begin(
        reason: impl Into<String>,
        engine: impl Into<String>,
        log: LogId,
        shards: u32,
        views: &BTreeMap<ViewId, OffsetVector>,
        target: OffsetVector,
        seen: u64,
    ) -> Self {
        let start =
            views.values().cloned().reduce(|low, from| low.meet(&from)).unwrap_or_else(|| target.clone());
        let epochs = |from: &OffsetVector| ViewEpochs {
            floor: 1,
            epochs: vec![Epoch {
                number: 1,
                from: from.clone(),
                to: None,
                after: 0,
                request: None,
                failed_rows: 0,
            }],
        };
        Self {
            generation: Generation::new(),
            reason: reason.into(),
            engine: engine.into(),
            token: Token::after(seen),
            revision: 1,
            log,
            shards,
            appended: 0,
            appended_to: start.clone(),
            committed: 0,
            committed_to: start.clone(),
            start,
            target,
            views: views.iter().map(|(view, from)| (*view, epochs(from))).collect(),
        }
    }

    fn next(&self) -> Self {
        Self { revision: self.revision + 1, ..self.clone() }
    }

    /// The same again: its writer says that it is there.
    pub fn heartbeat(&self) -> Self {
        self.next()
    }

    /// The same record under a new writer. `seen` is the highest token counter found on the shards.
    pub fn take_over(&self, seen: u64) -> Self {
        Self { token: Token::after(seen.max(self.token.counter)), ..self.next() }
    }

    /// Appends the entry of the next txid.
    ///
    /// # Errors
    /// [`LedgerMisfit::NotContiguous`] if a range does not begin where the last entry ends.
    pub fn append(&self, ranges: BTreeMap<Partition, OffsetRange>) -> Result<(Self, Txn), LedgerMisfit> {
        let txid = self.appended + 1;
        let mut next = self.next();
        for (partition, range) in &ranges {
            let expected = self.appended_to.get(*partition);
            if range.from != expected || range.to < range.from {
                return Err(LedgerMisfit::NotContiguous {
                    txid,
                    partition: *partition,
                    from: range.from,
                    to: range.to,
                    expected,
                });
            }
            next.appended_to.set(*partition, range.to);
        }
        next.appended = txid;
        let feeds =
            self.views.iter().filter_map(|(view, epochs)| Some((*view, epochs.open()?.number))).collect();
        Ok((next, Txn { txid, attempt: Attempt::new(), ranges, feeds }))
    }

    /// Moves T to `txn`, which every shard holds. `failed` are the rows that each view left out of this batch.
    ///
    /// # Errors
    /// [`LedgerMisfit::OutOfTurn`] unless `txn` is the one after T and has an entry.
    pub fn commit(&self, txn: &Txn, failed: &BTreeMap<ViewId, u64>) -> Result<Self, LedgerMisfit> {
        if txn.txid != self.committed + 1 || txn.txid > self.appended {
            return Err(LedgerMisfit::OutOfTurn {
                txid: txn.txid,
                committed: self.committed,
                appended: self.appended,
            });
        }
        let mut next = self.next();
        next.committed = txn.txid;
        for (partition, range) in &txn.ranges {
            next.committed_to.set(*partition, range.to);
        }
        for (view, number) in &txn.feeds {
            let rows = failed.get(view).copied().unwrap_or(0);
            let epoch =
                next.views.get_mut(view).and_then(|v| v.epochs.iter_mut().find(|e| e.number == *number));
            if let Some(epoch) = epoch {
                epoch.failed_rows += rows;
            }
        }
        Ok(next)
    }

    /// Cuts the views behind the last entry: their open epochs end there, and new ones begin.
    ///
    /// # Errors
    /// [`LedgerMisfit::NoSuchView`] if one of them is not in the ledger.
    pub fn cut(&self, views: &[ViewId], request: Uuid) -> Result<Self, LedgerMisfit> {
        let mut next = self.next();
        for view in views {
            let epochs = next.views.get_mut(view).ok_or(LedgerMisfit::NoSuchView(*view))?;
            let open = epochs.epochs.last_mut().ok_or(LedgerMisfit::NoSuchView(*view))?;
            // A cut ahead of the position (a new generation that still skips rows below a version) stays there:
            // the epoch is empty up to its own beginning.
            let at = self.appended_to.join(&open.from);
            open.to = Some(at.clone());
            let number = open.number + 1;
            epochs.epochs.push(Epoch {
                number,
                from: at,
                to: None,
                after: self.appended,
                request: Some(request),
                failed_rows: 0,
            });
        }
        Ok(next)
    }

    /// Lets a new view begin behind the last entry.
    pub fn add_view(&self, view: ViewId) -> Self {
        let mut next = self.next();
        next.views.entry(view).or_insert_with(|| ViewEpochs {
            floor: 1,
            epochs: vec![Epoch {
                number: 1,
                from: self.appended_to.clone(),
                to: None,
                after: self.appended,
                request: None,
                failed_rows: 0,
            }],
        });
        next
    }

    /// Forgets views that were dropped.
    pub fn drop_views(&self, views: &[ViewId]) -> Self {
        let mut next = self.next();
        next.views.retain(|view, _| !views.contains(view));
        next
    }

    /// Raises the floor of a view: from now on no reader may use an epoch below it. Shards are cleaned afterwards,
    /// never before.
    ///
    /// # Errors
    /// [`LedgerMisfit::NoSuchView`] if the view is not in the ledger, or if nothing would be left of it.
    pub fn raise_floor(&self, view: ViewId, floor: EpochNo) -> Result<Self, LedgerMisfit> {
        let mut next = self.next();
        let epochs = next.views.get_mut(&view).ok_or(LedgerMisfit::NoSuchView(view))?;
        epochs.floor = epochs.floor.max(floor);
        epochs.epochs.retain(|epoch| epoch.number >= epochs.floor);
        if epochs.epochs.is_empty() {
            return Err(LedgerMisfit::NoSuchView(view));
        }
        Ok(next)
    }
}

impl ViewEpochs {
    /// The epoch that new txids feed.
    pub fn open(&self) -> Option<&Epoch> {
        self.epochs.last().filter(|epoch| epoch.to.is_none())
    }

    /// The unbroken chain of epochs whose first `from` equals `cut`, through to the open one. Vectors decide, never
    /// numbers; a missing header is no chain, never an empty epoch.
    pub fn chain(&self, cut: &OffsetVector) -> Option<&[Epoch]> {
        let first = self.epochs.iter().position(|epoch| epoch.from == *cut)?;
        let chain = &self.epochs[first..];
        let joined = chain.windows(2).all(|pair| pair[0].to.as_ref() == Some(&pair[1].from));
        let open = chain.last().is_some_and(|epoch| epoch.to.is_none());
        (joined && open && chain[0].number >= self.floor).then_some(chain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(from: u64, to: u64) -> BTreeMap<Partition, OffsetRange> {
        BTreeMap::from([(0, OffsetRange { from, to, records: to - from })])
    }

    fn ledger(view: ViewId) -> Ledger {
        let views = BTreeMap::from([(view, OffsetVector::zero())]);
        Ledger::begin("test", "e", LogId("l".into()), 2, &views, OffsetVector::zero(), 0)
    }

    #[test]
    fn entries_follow_on_one_another() {
        let ledger = ledger(ViewId::new());
        let (ledger, first) = ledger.append(ranges(0, 5)).unwrap();
        assert!(matches!(ledger.append(ranges(4, 6)), Err(LedgerMisfit::NotContiguous { expected: 5, .. })));
        let (ledger, second) = ledger.append(ranges(5, 6)).unwrap();
        assert!(matches!(ledger.commit(&second, &BTreeMap::new()), Err(LedgerMisfit::OutOfTurn { .. })));
        let ledger = ledger.commit(&first, &BTreeMap::new()).unwrap();
        assert_eq!(ledger.committed_to, OffsetVector::from([(0, 5)]));
        assert_eq!(ledger.revision, 4);
    }

    #[test]
    fn a_cut_ends_one_epoch_where_the_next_begins() {
        let view = ViewId::new();
        let (ledger, _) = ledger(view).append(ranges(0, 5)).unwrap();
        let request = Uuid::new_v4();
        let ledger = ledger.cut(&[view], request).unwrap();
        let epochs = &ledger.views[&view];
        let cut = OffsetVector::from([(0, 5)]);
        assert_eq!(epochs.chain(&cut).unwrap().len(), 1);
        assert_eq!(epochs.chain(&OffsetVector::zero()).unwrap().len(), 2);
        assert_eq!(epochs.chain(&OffsetVector::from([(0, 4)])), None);
        assert_eq!(epochs.open().unwrap().request, Some(request));
        let (_, txn) = ledger.append(ranges(5, 9)).unwrap();
        assert_eq!(txn.feeds, vec![(view, 2)]);
    }

    #[test]
    fn a_chain_with_a_missing_link_is_none() {
        let view = ViewId::new();
        let (ledger, _) = ledger(view).append(ranges(0, 5)).unwrap();
        let (ledger, _) = ledger.cut(&[view], Uuid::new_v4()).unwrap().append(ranges(5, 7)).unwrap();
        let mut epochs = ledger.cut(&[view], Uuid::new_v4()).unwrap().views[&view].clone();
        assert_eq!(epochs.chain(&OffsetVector::zero()).unwrap().len(), 3);
        epochs.epochs.remove(1);
        assert_eq!(epochs.chain(&OffsetVector::zero()), None);
    }

    #[test]
    fn below_the_floor_nothing_is_readable() {
        let view = ViewId::new();
        let (ledger, _) = ledger(view).append(ranges(0, 5)).unwrap();
        let ledger = ledger.cut(&[view], Uuid::new_v4()).unwrap().raise_floor(view, 2).unwrap();
        assert_eq!(ledger.views[&view].chain(&OffsetVector::zero()), None);
        assert!(ledger.views[&view].chain(&OffsetVector::from([(0, 5)])).is_some());
        assert!(ledger.raise_floor(view, 9).is_err());
    }
}
