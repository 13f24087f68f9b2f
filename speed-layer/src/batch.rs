//! Reading the records of a batch: new ones from where the ledger stands, or exactly those of an entry.

use std::collections::BTreeMap;

use futures::future::try_join_all;
use stratus_seam::ledger::Txn;
use stratus_seam::log::{Chunk, Log};
use stratus_seam::offsets::{OffsetRange, OffsetVector, Partition};

use crate::error::SpeedError;

/// What is behind `from` in the log now, up to about `max_bytes` over all partitions. Partitions without records are
/// not in it.
pub(crate) async fn read_new(
    log: &dyn Log,
    from: &OffsetVector,
    max_bytes: usize,
) -> Result<Vec<Chunk>, SpeedError> {
    let partitions = log.partitions().await?;
    let share = (max_bytes / partitions.max(1) as usize).max(1);
    let reads = (0..partitions).map(|partition| log.read(partition, from.get(partition), None, share));
    let chunks = try_join_all(reads).await?;
    Ok(chunks.into_iter().filter(|chunk| !chunk.records.is_empty()).collect())
}

/// The ranges that some chunks stand for.
pub(crate) fn ranges(chunks: &[Chunk]) -> BTreeMap<Partition, OffsetRange> {
    chunks
        .iter()
        .map(|chunk| {
            let range = OffsetRange { from: chunk.from, to: chunk.to, records: chunk.records.len() as u64 };
            (chunk.partition, range)
        })
        .collect()
}

/// The records of an entry, again: the same ranges with the same number of records, or an error.
pub(crate) async fn read_again(log: &dyn Log, txn: &Txn, max_bytes: usize) -> Result<Vec<Chunk>, SpeedError> {
    let mut chunks = Vec::new();
    for (partition, range) in &txn.ranges {
        let (mut at, mut found) = (range.from, 0);
        while at < range.to {
            let chunk = log.read(*partition, at, Some(range.to), max_bytes).await?;
            if chunk.records.is_empty() {
                break;
            }
            at = chunk.to;
            found += chunk.records.len() as u64;
            chunks.push(chunk);
        }
        if at != range.to || found != range.records {
            return Err(SpeedError::OtherRecords {
                txid: txn.txid,
                partition: *partition,
                from: range.from,
                to: range.to,
                expected: range.records,
                found,
            });
        }
    }
    Ok(chunks)
}
