//! Ranges of a log's partitions, and the records in them.

use std::collections::BTreeMap;

use stratus_seam::{
    log::{Chunk, Log, LogError},
    offsets::{Offset, OffsetRange, OffsetVector, Partition},
};
use stratus_topology::TaskError;

/// How many bytes one read asks for.
const READ_BYTES: usize = 512 << 10;

/// What is behind `from` in every partition now, up to about `max_bytes` in all. `skips`: records that are gone are
/// passed over, otherwise they are an error.
pub(super) async fn read_new(
    log: &dyn Log,
    from: &OffsetVector,
    max_bytes: usize,
    skips: bool,
) -> Result<Vec<Chunk>, TaskError> {
    let partitions = log.partitions().await?;
    let share = (max_bytes / partitions.max(1) as usize).max(1);
    let mut chunks = Vec::new();
    for partition in 0..partitions {
        let (mut at, mut bytes) = (from.get(partition), 0);
        while bytes < share {
            let wanted = READ_BYTES.min(share);
            let chunk = match log.read(partition, at, None, wanted).await {
                Err(LogError::Gone { earliest, .. }) if skips && earliest > at => {
                    tracing::warn!(
                        partition,
                        from = at,
                        earliest,
                        "records are gone from the log and are left out"
                    );
                    at = earliest;
                    continue;
                }
                read => read?,
            };
            if chunk.records.is_empty() {
                break;
            }
            at = chunk.to;
            bytes += chunk.bytes.len();
            // What comes in meanwhile goes into the next batch: waiting for it here would never end.
            let is_short = chunk.bytes.len() < wanted / 2;
            chunks.push(chunk);
            if is_short {
                break;
            }
        }
    }
    Ok(chunks)
}

/// The ranges that some chunks stand for. Each begins where its partition stood, also if records were passed over.
pub(super) fn of(chunks: &[Chunk], at: &OffsetVector) -> BTreeMap<Partition, OffsetRange> {
    let mut ranges: BTreeMap<Partition, OffsetRange> = BTreeMap::new();
    for chunk in chunks {
        let from = at.get(chunk.partition);
        let range = ranges.entry(chunk.partition).or_insert(OffsetRange { from, to: chunk.to, records: 0 });
        range.to = chunk.to;
        range.records += chunk.records.len() as u64;
    }
    ranges
}

/// Whether these are all records of a range.
pub(super) fn covers(chunks: &[Chunk], range: OffsetRange) -> bool {
    let records: u64 = chunks.iter().map(|chunk| chunk.records.len() as u64).sum();
    let to: Option<Offset> = chunks.last().map(|chunk| chunk.to);
    records == range.records && (to == Some(range.to) || range.records == 0)
}

/// The records of a range, again: the same number of them, or an error. `skips`: those that are gone are passed over.
pub(super) async fn read_again(
    log: &dyn Log,
    partition: Partition,
    range: OffsetRange,
    skips: bool,
) -> Result<Vec<Chunk>, TaskError> {
    let (mut at, mut chunks) = (range.from, Vec::new());
    let mut complete = true;
    while at < range.to {
        let chunk = match log.read(partition, at, Some(range.to), READ_BYTES).await {
            Err(LogError::Gone { earliest, .. }) if skips && earliest > at => {
                tracing::warn!(
                    partition,
                    from = at,
                    earliest,
                    "records are gone from the log and are left out"
                );
                (at, complete) = (earliest, false);
                continue;
            }
            read => read?,
        };
        if chunk.records.is_empty() {
            break;
        }
        at = chunk.to;
        chunks.push(chunk);
    }
    if !complete || covers(&chunks, range) {
        return Ok(chunks);
    }
    let found: usize = chunks.iter().map(|chunk| chunk.records.len()).sum();
    let OffsetRange { from, to, records } = range;
    Err(format!(
        "partition {partition}, offsets {from}..{to}: {records} records were there, and {found} are now"
    )
    .into())
}
