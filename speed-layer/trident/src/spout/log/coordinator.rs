//! Says which records of a log are in which batch, and writes that into the ledger.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use stratus_seam::{
    ids::{SourceId, Token, ViewId},
    ledger::{Ledger, Txn},
    log::LogError,
    offsets::OffsetVector,
    store::{Durability, LedgerWrite, TxnChanges},
};
use stratus_topology::TaskError;

use super::{
    LogSpout, Translator,
    ranges::{self, Ranges},
    reader::Reader,
};
use crate::spout::{BatchCoordinator, Recovery, SpoutKind};

/// The one writer of the ledger.
pub(super) struct LogCoordinator<T> {
    spout: LogSpout<T>,
    reader: Reader,
    /// The ledger as this coordinator wrote it last; none while it is in doubt.
    record: Option<Ledger>,
}

impl<T: Translator> LogCoordinator<T> {
    pub(super) fn new(spout: LogSpout<T>) -> Self {
        let reader = Reader::new(Arc::clone(&spout.log), spout.max_bytes, spout.kind == SpoutKind::Opaque);
        Self { spout, reader, record: None }
    }

    fn record(&self) -> Result<&Ledger, TaskError> {
        self.record.as_ref().ok_or_else(|| "the ledger was not taken over".into())
    }

    /// Writes the ledger. A write without an answer may have happened, so what the ledger says decides.
    async fn write(
        &mut self,
        next: Ledger,
        changes: TxnChanges,
        durability: Durability,
    ) -> Result<(), TaskError> {
        let held = self.record()?;
        let expected = (held.token, held.revision);
        let refused = match self.spout.ledger.write(Some(expected), &next, changes, durability).await {
            Ok(LedgerWrite::Written) => None,
            Ok(LedgerWrite::Refused(found)) => Some(found.map(|found| *found)),
            Err(error) => {
                tracing::warn!("a write of the ledger has no answer: {error}");
                Some(self.spout.ledger.read().await?)
            }
        };
        match refused {
            None => {}
            Some(Some(found)) if (found.token, found.revision) == (next.token, next.revision) => {}
            Some(_) => {
                self.record = None;
                return Err("the ledger was taken over by another coordinator, or was lost".into());
            }
        }
        self.spout.known().acknowledge(&next);
        self.record = Some(next);
        Ok(())
    }

    /// Writes down again what the store has lost: how far everything is committed, then each open batch, as it was.
    async fn restore(&mut self, expected: Option<(Token, u64)>, lost: Ledger) -> Result<(), TaskError> {
        tracing::warn!(
            source = %lost.log,
            committed = lost.committed,
            appended = lost.appended,
            found = ?expected.map(|(_, revision)| revision),
            acknowledged = lost.revision,
            "the store has lost the end of the spout's ledger; it is written down again"
        );
        let (token, open): (Token, Vec<Txn>) = {
            let mut known = self.spout.known();
            (known.restore(&lost), known.open.values().cloned().collect())
        };
        self.take(expected, Ledger { token, ..lost.take_over(0) }).await?;
        // Should this be cut off, the record names entries that are missing, which nobody goes on from.
        for txn in &open {
            let record = self.record()?;
            let next = Ledger { revision: record.revision + 1, ..record.clone() };
            let changes =
                TxnChanges { append: Some(txn.clone()), forget_below: next.committed, forget_all: false };
            self.write(next, changes, Durability::Now).await?;
        }
        self.begin(open.into_iter().map(|txn| (txn.txid, txn)).collect())
    }

    /// From here on the record that was written is what is known.
    fn begin(&mut self, open: BTreeMap<u64, Txn>) -> Result<(), TaskError> {
        let record = self.record()?.clone();
        self.spout.known().begin(record, open);
        Ok(())
    }

    /// Writes the first record of this life.
    async fn take(&mut self, expected: Option<(Token, u64)>, next: Ledger) -> Result<(), TaskError> {
        match self.spout.ledger.write(expected, &next, TxnChanges::default(), Durability::Now).await? {
            LedgerWrite::Written => {
                self.record = Some(next);
                Ok(())
            }
            LedgerWrite::Refused(_) => Err("another coordinator takes the ledger over at this moment".into()),
        }
    }

    /// Writes down what is in a batch. The ledger's numbers are the coordinator's: batches that began without this
    /// spout, before it was one of the group, have empty entries.
    async fn append(&mut self, txid: u64, ranges: Ranges) -> Result<(), TaskError> {
        loop {
            let appended = self.record()?.appended;
            if appended >= txid {
                return Err(format!(
                    "the ledger holds batch {appended} already, and {txid} was to be written"
                )
                .into());
            }
            let of_this = if appended + 1 == txid { ranges.clone() } else { Ranges::new() };
            let (next, txn) = self.record()?.append(of_this)?;
            let changes =
                TxnChanges { append: Some(txn.clone()), forget_below: next.committed, forget_all: false };
            self.write(next, changes, Durability::Now).await?;
            // By its own number, which is what a commit goes by.
            self.spout.known().open.insert(txn.txid, txn);
            if appended + 1 == txid {
                return Ok(());
            }
        }
    }

    /// Commits the entries up to a batch, one after the other.
    async fn commit(&mut self, txid: u64) -> Result<(), TaskError> {
        loop {
            let first = self.spout.known().open.first_key_value().map(|(_, txn)| txn.clone());
            let Some(txn) = first.filter(|txn| txn.txid <= txid) else { return Ok(()) };
            let next = self.record()?.commit(&txn, &BTreeMap::new())?;
            let changes = TxnChanges { forget_below: next.committed, ..TxnChanges::default() };
            self.write(next, changes, Durability::Now).await?;
            self.spout.known().open.remove(&txn.txid);
        }
    }
}

#[async_trait]
impl<T: Translator> BatchCoordinator for LogCoordinator<T> {
    async fn recover(&mut self) -> Result<Recovery, TaskError> {
        self.reader.check()?;
        let (ledger, log) = (Arc::clone(&self.spout.ledger), self.spout.log.id().await?);
        let found = ledger.read().await?;
        self.record = None;
        self.spout.read().clear();
        self.reader.forget();
        let expected = found.as_ref().map(|found| (found.token, found.revision));
        let lost = self.spout.known().lost(found.as_ref()).cloned();
        match (lost, found) {
            (_, Some(Ledger { log: was, .. })) | (Some(Ledger { log: was, .. }), None) if was != log => {
                return Err(format!(
                    "the ledger is of the log {was}, which is now {log}: its offsets mean others"
                )
                .into());
            }
            (Some(lost), _) => self.restore(expected, lost).await?,
            (None, Some(found)) => {
                let (end, absorbed) = (self.spout.log.end().await?, &found.appended_to);
                let lost = absorbed.iter().find(|(partition, absorbed)| end.get(*partition) < *absorbed);
                if let Some((partition, absorbed)) = lost {
                    return Err(LogError::lost_its_tail(partition, end.get(partition), absorbed).into());
                }
                // Nobody else changes them without changing the record.
                let txns = ledger.txns(found.committed + 1).await?.into_iter();
                let open: BTreeMap<u64, Txn> =
                    txns.filter(|txn| txn.txid <= found.appended).map(|txn| (txn.txid, txn)).collect();
                let missing = (found.committed + 1..=found.appended).find(|txid| !open.contains_key(txid));
                if let Some(txid) = missing {
                    return Err(format!(
                        "the ledger has batches up to {} and lacks batch {txid}: its store has lost it. Restore the \
                         ledger; or delete it with the states, and count again",
                        found.appended
                    )
                    .into());
                }
                self.take(expected, found.take_over(0)).await?;
                self.begin(open)?;
            }
            (None, None) => {
                let stream = BTreeMap::from([(ViewId(SourceId::default().0), self.spout.start.clone())]);
                let (engine, target) = (env!("CARGO_PKG_VERSION"), OffsetVector::zero());
                let first = Ledger::begin("first start", engine, log, 0, &stream, target, 0);
                self.take(None, first).await?;
                self.begin(BTreeMap::new())?;
            }
        }
        let Ledger { committed, token, .. } = *self.record()?;
        let known = self.spout.known();
        let open = known.open.iter().map(|(txid, txn)| Ok((*txid, metadata(&txn.ranges)?)));
        let open = open.collect::<Result<_, TaskError>>()?;
        Ok(Recovery { committed, epoch: token.counter, open })
    }

    async fn catch_up(&mut self, committed: u64) -> Result<(), TaskError> {
        let record = self.record()?;
        match record.appended {
            appended if appended >= committed => self.commit(committed).await,
            // Nothing of this log was in the batches that the group has committed: a new ledger goes on behind them.
            0 => {
                let next = Ledger {
                    appended: committed,
                    committed,
                    revision: record.revision + 1,
                    ..record.clone()
                };
                self.write(next, TxnChanges::default(), Durability::Now).await
            }
            // Going on where it ends would count again what the entries that are missing had counted.
            appended => Err(format!(
                "its ledger ends with batch {appended}, while the spouts that it shares its batches with have \
                 committed batch {committed}: either the ledger lost its tail, or the spout was not part of this \
                 topology for a while. Restore the ledger; or delete it and say with `start` which offsets were \
                 counted"
            )
            .into()),
        }
    }

    async fn next(&mut self, txid: u64) -> Result<Option<String>, TaskError> {
        let at = self.record()?.appended_to.clone();
        let Some(found) = self.reader.next(&at).await? else { return Ok(None) };
        let ranges = ranges::of(&found, &at);
        let metadata = metadata(&ranges)?;
        self.spout.read().insert(txid, Arc::new(found.chunks));
        self.append(txid, ranges).await?;
        Ok(Some(metadata))
    }

    async fn nothing(&mut self, txid: u64) -> Result<(), TaskError> {
        self.append(txid, Ranges::new()).await
    }

    async fn committed(&mut self, txid: u64) -> Result<(), TaskError> {
        self.spout.read().remove(&txid);
        self.commit(txid).await?;
        let committed_to = self.record()?.committed_to.clone();
        self.spout.log.acknowledge(&committed_to).await;
        Ok(())
    }
}

fn metadata(ranges: &Ranges) -> Result<String, TaskError> {
    Ok(serde_json::to_string(ranges)?)
}
