//! The one writer's hold on the ledger: every write compares with what was last seen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stratus_seam::ledger::Ledger;
use stratus_seam::store::{Durability, LedgerStore, LedgerWrite, StoreError, TxnChanges};

use crate::error::SpeedError;
use crate::standby::HEARTBEAT;

/// How often a write without an answer is settled by reading before the writer gives up and recovers.
const ATTEMPTS: u32 = 5;

/// The ledger as its writer last saw it.
#[derive(Debug)]
pub(crate) struct HeldLedger {
    store: Arc<dyn LedgerStore>,
    record: Ledger,
    written: Instant,
}

impl HeldLedger {
    /// Writes the first record of a hold, over `found`, which was read before.
    pub(crate) async fn take(
        store: Arc<dyn LedgerStore>,
        found: Option<&Ledger>,
        record: Ledger,
        txns: TxnChanges,
    ) -> Result<Self, SpeedError> {
        write(store.as_ref(), found, &record, txns, Durability::Now).await?;
        Ok(Self { store, record, written: Instant::now() })
    }

    pub(crate) const fn record(&self) -> &Ledger {
        &self.record
    }

    pub(crate) fn store(&self) -> &dyn LedgerStore {
        self.store.as_ref()
    }

    /// Writes the record again if nothing was written for a while, so that one who stands by knows that its writer
    /// is there. Answers whether it was.
    pub(crate) async fn keep_alive(&mut self) -> Result<bool, SpeedError> {
        if self.written.elapsed() < HEARTBEAT {
            return Ok(false);
        }
        self.advance(self.record.heartbeat(), TxnChanges::default(), Durability::Later).await?;
        Ok(true)
    }

    /// Writes the next record.
    pub(crate) async fn advance(
        &mut self,
        next: Ledger,
        txns: TxnChanges,
        durability: Durability,
    ) -> Result<(), SpeedError> {
        write(self.store.as_ref(), Some(&self.record), &next, txns, durability).await?;
        (self.record, self.written) = (next, Instant::now());
        Ok(())
    }
}

/// A write whose answer was lost is settled by reading: the new record stands, or the old one does and the write is
/// tried again, or neither, and somebody else has the ledger.
async fn write(
    store: &dyn LedgerStore,
    found: Option<&Ledger>,
    next: &Ledger,
    txns: TxnChanges,
    durability: Durability,
) -> Result<(), SpeedError> {
    let expected = found.map(|found| (found.token, found.revision));
    let mut attempt = 1;
    loop {
        let error = match store.write(expected, next, txns.clone(), durability).await {
            Ok(LedgerWrite::Written) => return Ok(()),
            Ok(LedgerWrite::Refused(stands)) => {
                // Our own write, answered late, may stand there.
                let ours = stands.is_some_and(|stands| *stands == *next);
                return if ours { Ok(()) } else { Err(SpeedError::LostLedger) };
            }
            Err(error @ StoreError::Unavailable { .. }) => error,
            Err(error) => return Err(error.into()),
        };
        if attempt == ATTEMPTS {
            return Err(error.into());
        }
        attempt += 1;
        tokio::time::sleep(Duration::from_millis(20) * attempt).await;
    }
}
