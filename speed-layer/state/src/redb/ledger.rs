//! The ledger of one source in the file.

use async_trait::async_trait;
use redb::{ReadTransaction, ReadableTable};
use serde::de::DeserializeOwned;
use stratus_seam::ids::{Token, TxId};
use stratus_seam::ledger::{Ledger, Txn};
use stratus_seam::store::{CutRequest, Durability, LedgerStore, LedgerWrite, Pin, StoreError, TxnChanges};
use uuid::Uuid;

use super::RedbSource;
use super::layout::{self, Bytes};
use super::trouble::Trouble;
use crate::decisions;

#[async_trait]
impl LedgerStore for RedbSource {
    async fn read(&self) -> Result<Option<Ledger>, StoreError> {
        let key = layout::of_source(self.source);
        self.look("read the ledger", move |txn| {
            let table = txn.open_table(layout::LEDGER)?;
            let record = table.get(key.as_slice())?;
            Ok(record.map(|record| serde_json::from_slice(record.value())).transpose()?)
        })
        .await
    }

    async fn write(
        &self,
        expected: Option<(Token, u64)>,
        next: &Ledger,
        txns: TxnChanges,
        durability: Durability,
    ) -> Result<LedgerWrite, StoreError> {
        let (source, next) = (self.source, next.clone());
        Self::write(self, "write the ledger", durability, move |txn| {
            let key = layout::of_source(source);
            let mut table = txn.open_table(layout::LEDGER)?;
            let held: Option<Ledger> = match table.get(key.as_slice())? {
                Some(record) => Some(serde_json::from_slice(record.value())?),
                None => None,
            };
            if !decisions::is_expected(held.as_ref(), expected) {
                return Ok((LedgerWrite::Refused(held.map(Box::new)), false));
            }
            table.insert(key.as_slice(), serde_json::to_vec(&next)?.as_slice())?;
            let mut entries = txn.open_table(layout::TXNS)?;
            if txns.forget_all {
                let all = layout::beginning_with(&key);
                entries.retain_in::<&[u8], _>(layout::slices(&all), |_, _| false)?;
            } else if txns.forget_below > 0 {
                let below = layout::of_txn(source, 0)..layout::of_txn(source, txns.forget_below);
                entries.retain_in::<&[u8], _>(below.start.as_slice()..below.end.as_slice(), |_, _| false)?;
            }
            if let Some(txn) = &txns.append {
                let key = layout::of_txn(source, txn.txid);
                entries.insert(key.as_slice(), serde_json::to_vec(txn)?.as_slice())?;
            }
            Ok((LedgerWrite::Written, true))
        })
        .await
    }

    async fn txns(&self, first: TxId) -> Result<Vec<Txn>, StoreError> {
        let from = layout::of_txn(self.source, first);
        let (_, to) = layout::beginning_with(&layout::of_source(self.source));
        self.look("read the entries", move |txn| {
            let range = (std::ops::Bound::Included(from), to);
            list(txn, layout::TXNS, &range)
        })
        .await
    }

    async fn request(&self, request: CutRequest) -> Result<(), StoreError> {
        self.put("leave a cut request", layout::REQUESTS, request.id, serde_json::to_vec(&request)).await
    }

    async fn requests(&self) -> Result<Vec<CutRequest>, StoreError> {
        let range = layout::beginning_with(&layout::of_source(self.source));
        self.look("read the cut requests", move |txn| list(txn, layout::REQUESTS, &range)).await
    }

    async fn withdraw(&self, id: Uuid) -> Result<(), StoreError> {
        self.take("withdraw a cut request", layout::REQUESTS, id).await
    }

    async fn pin(&self, pin: Pin) -> Result<(), StoreError> {
        self.put("set a pin", layout::PINS, pin.id, serde_json::to_vec(&pin)).await
    }

    async fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        let range = layout::beginning_with(&layout::of_source(self.source));
        self.look("read the pins", move |txn| list(txn, layout::PINS, &range)).await
    }

    async fn unpin(&self, id: Uuid) -> Result<(), StoreError> {
        self.take("take a pin back", layout::PINS, id).await
    }
}

impl RedbSource {
    async fn put(
        &self,
        verb: &str,
        table: Bytes,
        id: Uuid,
        record: Result<Vec<u8>, serde_json::Error>,
    ) -> Result<(), StoreError> {
        let key = layout::of_id(self.source, id);
        let record = record.map_err(|error| Trouble::from(error).told(&self.what(verb)))?;
        Self::write(self, verb, Durability::Later, move |txn| {
            txn.open_table(table)?.insert(key.as_slice(), record.as_slice())?;
            Ok(((), true))
        })
        .await
    }

    async fn take(&self, verb: &str, table: Bytes, id: Uuid) -> Result<(), StoreError> {
        let key = layout::of_id(self.source, id);
        Self::write(self, verb, Durability::Later, move |txn| {
            let there = txn.open_table(table)?.remove(key.as_slice())?.is_some();
            Ok(((), there))
        })
        .await
    }
}

/// The JSON records of a range, in the order of their keys.
fn list<T: DeserializeOwned>(
    txn: &ReadTransaction,
    table: Bytes,
    range: &(std::ops::Bound<Vec<u8>>, std::ops::Bound<Vec<u8>>),
) -> Result<Vec<T>, Trouble> {
    let table = txn.open_table(table)?;
    let mut records = Vec::new();
    for entry in ReadableTable::range::<&[u8]>(&table, layout::slices(range))? {
        records.push(serde_json::from_slice(entry?.1.value())?);
    }
    Ok(records)
}
