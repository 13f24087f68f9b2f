//! Ranges of a log's partitions, and the records in them.

use std::collections::{BTreeMap, BTreeSet};

use stratus_seam::{
    log::{Chunk, Log, LogError},
    offsets::{Offset, OffsetRange, OffsetVector, Partition},
};
use stratus_topology::TaskError;
use tokio::task::JoinError;

/// How many bytes one read asks for.
const READ_BYTES: usize = 512 << 10;

/// The offsets of each partition in a batch.
pub(super) type Ranges = BTreeMap<Partition, OffsetRange>;

/// What a look behind some offsets has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The records; those of one partition follow on one another.
    pub(super) chunks: Vec<Chunk>,
    /// Up to where records are gone that were passed over.
    skipped: BTreeMap<Partition, Offset>,
    /// Partitions that could not be read, with why; `None`: the log as a whole.
    pub(super) failures: Vec<(Option<Partition>, TaskError)>,
}

impl Found {
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.skipped.is_empty()
    }

    /// Reading has panicked.
    pub(super) fn panicked(error: JoinError) -> Self {
        Self { failures: vec![(None, error.into())], ..Self::default() }
    }
}

/// What is behind `from` in every partition now, but for those in `except`, up to about `max_bytes` in all. `skips`:
/// records that are gone are passed over, otherwise they are an error. A partition's error is its own.
pub(super) async fn read_new(
    log: &dyn Log,
    from: &OffsetVector,
    max_bytes: usize,
    skips: bool,
    except: &BTreeSet<Partition>,
) -> Found {
    let mut found = Found::default();
    let partitions = match log.partitions().await {
        Ok(partitions) => partitions,
        Err(error) => {
            found.failures.push((None, error.into()));
            return found;
        }
    };
    let mut behind: Vec<(Partition, Offset)> = (0..partitions)
        .filter(|partition| !except.contains(partition))
        .map(|partition| (partition, from.get(partition)))
        .collect();
    // A share for each; then those that have more divide what is left.
    let mut left = max_bytes.max(1);
    while left > 0 && !behind.is_empty() {
        let share = (left / behind.len()).max(1);
        let mut more = Vec::new();
        for (partition, at) in behind {
            match read_share(log, partition, at, share, skips, &mut found).await {
                Ok(read) => {
                    left = left.saturating_sub(read.bytes);
                    more.extend(read.more.map(|at| (partition, at)));
                }
                Err(error) => found.failures.push((Some(partition), error.into())),
            }
        }
        behind = more;
    }
    found
}

/// What was read of a partition.
struct Read {
    bytes: usize,
    /// Where to go on, if there may be more.
    more: Option<Offset>,
}

async fn read_share(
    log: &dyn Log,
    partition: Partition,
    mut at: Offset,
    share: usize,
    skips: bool,
    found: &mut Found,
) -> Result<Read, LogError> {
    let mut bytes = 0;
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
                found.skipped.insert(partition, earliest);
                at = earliest;
                continue;
            }
            read => read?,
        };
        if chunk.records.is_empty() {
            return Ok(Read { bytes, more: None });
        }
        at = chunk.to;
        bytes += chunk.bytes.len();
        // What comes in meanwhile goes into the next batch: waiting for it here would never end.
        let is_short = chunk.bytes.len() < wanted / 2;
        found.chunks.push(chunk);
        if is_short {
            return Ok(Read { bytes, more: None });
        }
    }
    Ok(Read { bytes, more: Some(at) })
}

/// The ranges of what was found. Each begins where its partition stood, also if records were passed over: a partition
/// that has lost all of them is passed over for good.
pub(super) fn of(found: &Found, at: &OffsetVector) -> Ranges {
    let range = |partition, to| OffsetRange { from: at.get(partition), to, records: 0 };
    let skipped = found.skipped.iter();
    let mut ranges: Ranges = skipped.map(|(partition, to)| (*partition, range(*partition, *to))).collect();
    for chunk in &found.chunks {
        let range = ranges.entry(chunk.partition).or_insert_with(|| range(chunk.partition, chunk.to));
        range.to = chunk.to;
        range.records += chunk.records.len() as u64;
    }
    ranges
}

/// Whether these are all records of a range.
pub(super) fn covers(chunks: &[Chunk], range: OffsetRange) -> bool {
    let to: Option<Offset> = chunks.last().map(|chunk| chunk.to);
    count(chunks) == range.records && (to == Some(range.to) || range.records == 0)
}

fn count(chunks: &[Chunk]) -> u64 {
    chunks.iter().map(|chunk| chunk.records.len() as u64).sum()
}

/// The records of a range, again: the same number of them, or an error. `skips`: those that are gone for good are
/// passed over, whether the log has forgotten its beginning or was compacted.
pub(super) async fn read_again(
    log: &dyn Log,
    partition: Partition,
    range: OffsetRange,
    skips: bool,
) -> Result<Vec<Chunk>, TaskError> {
    let (mut at, mut chunks) = (range.from, Vec::new());
    while at < range.to {
        let chunk = match log.read(partition, at, Some(range.to), READ_BYTES).await {
            Err(LogError::Gone { earliest, .. }) if skips && earliest > at => {
                at = earliest;
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
    if covers(&chunks, range) {
        return Ok(chunks);
    }
    let OffsetRange { from, to, records } = range;
    let left = count(&chunks);
    // What a log has shown it shows again, until it is gone: what is missing below its end will not come back. A log
    // that ends before the range has lost its tail, or is not all there yet.
    if skips && left < records && log.end().await?.get(partition) >= to {
        tracing::warn!(
            partition,
            from,
            to,
            records,
            left,
            "records are gone from the log and are left out of a replay"
        );
        return Ok(chunks);
    }
    Err(format!(
        "partition {partition}, offsets {from}..{to}: {records} records were there, and {left} are now"
    )
    .into())
}
