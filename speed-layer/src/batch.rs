//! Reading the records of a batch: new ones from where the ledger stands, or exactly those of an entry.

use std::collections::BTreeMap;

use futures::future::try_join_all;
use stratus_logs::READ_BYTES;
use stratus_seam::ledger::Txn;
use stratus_seam::log::{Chunk, Log};
use stratus_seam::offsets::{Offset, OffsetRange, OffsetVector, Partition};

use crate::error::SpeedError;

/// What is behind `from` in the log now, up to about `max_bytes` over all partitions, in chunks that stay in the
/// processor's cache while they are decoded. Partitions without records are not in it.
pub(crate) async fn read_new(
    log: &dyn Log,
    from: &OffsetVector,
    max_bytes: usize,
) -> Result<Vec<Chunk>, SpeedError> {
    let partitions = log.partitions().await?;
    let share = (max_bytes / partitions.max(1) as usize).max(1);
    let reads = (0..partitions).map(|partition| read_partition(log, partition, from.get(partition), share));
    Ok(try_join_all(reads).await?.into_iter().flatten().collect())
}

async fn read_partition(
    log: &dyn Log,
    partition: Partition,
    mut at: Offset,
    share: usize,
) -> Result<Vec<Chunk>, SpeedError> {
    let (mut chunks, mut bytes) = (Vec::new(), 0);
    while bytes < share {
        let chunk = log.read(partition, at, None, READ_BYTES.min(share)).await?;
        if chunk.records.is_empty() {
            break;
        }
        at = chunk.to;
        bytes += chunk.bytes.len();
        chunks.push(chunk);
    }
    Ok(chunks)
}

/// The ranges that some chunks stand for: those of one partition follow on one another.
pub(crate) fn ranges(chunks: &[Chunk]) -> BTreeMap<Partition, OffsetRange> {
    let mut ranges: BTreeMap<Partition, OffsetRange> = BTreeMap::new();
    for chunk in chunks {
        let records = chunk.records.len() as u64;
        let new = OffsetRange { from: chunk.from, to: chunk.to, records: 0 };
        let range = ranges.entry(chunk.partition).or_insert(new);
        range.to = chunk.to;
        range.records += records;
    }
    ranges
}

/// The records of an entry, again: the same ranges with the same number of records, or an error.
pub(crate) async fn read_again(log: &dyn Log, txn: &Txn) -> Result<Vec<Chunk>, SpeedError> {
    let mut chunks = Vec::new();
    for (partition, range) in &txn.ranges {
        let (mut at, mut found) = (range.from, 0);
        while at < range.to {
            let chunk = log.read(*partition, at, Some(range.to), READ_BYTES).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_of_a_partition_make_one_range() {
        let chunk = |partition, from, to| Chunk { partition, from, to, ..Chunk::default() };
        let found = ranges(&[chunk(0, 5, 9), chunk(0, 9, 20), chunk(3, 1, 2)]);
        let range = |from, to| OffsetRange { from, to, records: 0 };
        assert_eq!(found, BTreeMap::from([(0, range(5, 20)), (3, range(1, 2))]));
    }
}
