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
        let wanted = READ_BYTES.min(share);
        let chunk = log.read(partition, at, None, wanted).await?;
        if chunk.records.is_empty() {
            break;
        }
        at = chunk.to;
        bytes += chunk.bytes.len();
        // What comes in while we read goes into the next batch: waiting for it here would never end.
        let is_short = chunk.bytes.len() < wanted / 2;
        chunks.push(chunk);
        if is_short {
            break;
        }
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

/// Where the log ends in the partitions that hold no record from `at` on: there is nothing to read up to there, nor
/// will there be. A log that forgot its last records ends so, and nobody would ever come to stand at its end.
pub(crate) async fn nothing_left(
    log: &dyn Log,
    at: &OffsetVector,
) -> Result<BTreeMap<Partition, OffsetRange>, SpeedError> {
    // The end first: what is appended after it is not looked for.
    let end = log.end().await?;
    let mut ranges = BTreeMap::new();
    for (partition, to) in end.iter().filter(|(partition, to)| at.get(*partition) < *to) {
        let from = at.get(partition);
        if log.read(partition, from, Some(to), 1).await?.records.is_empty() {
            ranges.insert(partition, OffsetRange { from, to, records: 0 });
        }
    }
    Ok(ranges)
}

/// The records of an entry in the `wanted` partitions, again: the same ranges with the same number of records, or an error.
pub(crate) async fn read_again(
    log: &dyn Log,
    txn: &Txn,
    wanted: impl Fn(Partition) -> bool,
) -> Result<Vec<Chunk>, SpeedError> {
    let mut chunks = Vec::new();
    for (partition, range) in txn.ranges.iter().filter(|(partition, _)| wanted(**partition)) {
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
        // A range without records ends where the log did, and not behind a record.
        if found != range.records || (at != range.to && found > 0) {
            return Err(SpeedError::OtherRecords {
                txid: txn.txid,
                attempt: txn.attempt,
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
