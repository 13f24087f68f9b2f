//! What every [`Log`] promises, as functions that any implementation can be put through.
//!
//! They know nothing of lines or of byte positions: offsets are opaque numbers that rise. A fixture makes the log
//! do what its producers and its operators would do.
//!
//! # Panics
//! All of these functions panic where a promise is broken: they are for tests.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use stratus_seam::log::{Log, LogError};
use stratus_seam::offsets::{Offset, OffsetVector, Partition};
use tokio::time::Instant;

/// A log that can be written to, for tests. It begins empty, with two partitions.
#[async_trait]
pub trait LogFixture: Send + Sync {
    /// A new handle, which knows nothing of what other handles have read.
    async fn log(&self) -> Arc<dyn Log>;

    /// Appends records and returns once a reader may see them.
    async fn append(&self, partition: Partition, payloads: &[&[u8]]);

    /// Appends the beginning of a record whose rest comes with [`LogFixture::append`]; false if no producer of such
    /// a log can be caught in the middle of a record.
    async fn append_part(&self, _partition: Partition, _bytes: &[u8]) -> bool {
        false
    }

    /// Adds a partition; false if that cannot be done.
    async fn add_partition(&self) -> bool {
        false
    }

    /// Deletes the log and makes a new, empty one of the same name; false if that cannot be done.
    async fn replace(&self) -> bool {
        false
    }
}

/// Records as a reader gets them.
type Records = Vec<(Offset, Vec<u8>)>;

/// Puts a log through all of the functions below, each with a fixture of its own.
pub async fn every_promise<F: LogFixture>(make: impl AsyncFn() -> F) {
    an_empty_log_has_nothing(&make().await).await;
    records_come_whole_and_in_order(&make().await).await;
    a_record_is_delivered_alike_again(&make().await).await;
    a_read_stops_before_until(&make().await).await;
    partitions_are_apart(&make().await).await;
    a_record_that_is_being_written_is_waited_for(&make().await).await;
    a_waiting_reader_is_woken(&make().await).await;
    partitions_are_added(&make().await).await;
    a_replaced_log_is_noticed(&make().await).await;
}

/// An empty log has an id, partitions, no end and no records.
pub async fn an_empty_log_has_nothing(fixture: &impl LogFixture) {
    let log = fixture.log().await;
    assert_eq!(id(&*log).await, id(&*fixture.log().await).await, "two handles, one id");
    assert_eq!(log.partitions().await.expect("partitions"), 2);
    assert_eq!(log.end().await.expect("end"), OffsetVector::zero());
    let chunk = log.read(0, 0, None, 1 << 20).await.expect("a read of nothing");
    assert!(chunk.records.is_empty());
    assert_eq!((chunk.partition, chunk.from, chunk.to), (0, 0, 0));
}

/// However small the pieces, the records are the same: whole, in order, none twice, none left out.
pub async fn records_come_whole_and_in_order(fixture: &impl LogFixture) {
    let log = fixture.log().await;
    let payloads = payloads(300);
    let mut written = 0;
    for size in [1, 2, 97, 200] {
        append(fixture, 0, &payloads[written..written + size]).await;
        written += size;
    }
    for max_bytes in [1, 100, 5_000, 1 << 20] {
        let (records, to) = drain(&*log, 0, 0, None, max_bytes).await;
        let delivered: Vec<&[u8]> = records.iter().map(|(_, payload)| &payload[..]).collect();
        assert_eq!(delivered, payloads, "read by {max_bytes} bytes");
        assert!(records.is_sorted_by(|a, b| a.0 < b.0), "offsets rise");
        assert_eq!(log.end().await.expect("end").get(0), to, "a reader that has all stands at the end");
    }
}

/// A record keeps its offset and its bytes, from wherever it is read, also through a new handle.
pub async fn a_record_is_delivered_alike_again(fixture: &impl LogFixture) {
    let payloads = payloads(40);
    append(fixture, 1, &payloads[..20]).await;
    let log = fixture.log().await;
    let (before, middle) = drain(&*log, 1, 0, None, 1_000).await;
    append(fixture, 1, &payloads[20..]).await;
    let (all, _) = drain(&*log, 1, 0, None, 1 << 20).await;
    assert_eq!(all[..20], before);
    let (after, _) = drain(&*log, 1, middle, None, 1 << 20).await;
    assert_eq!(all[20..], after, "reading on repeats and skips nothing");
    let again = fixture.log().await;
    for (index, (offset, _)) in all.iter().enumerate() {
        let (rest, _) = drain(&*again, 1, *offset, None, 777).await;
        assert_eq!(all[index..], rest, "from a record's own offset on");
    }
}

/// `until` is the first offset that is not delivered.
pub async fn a_read_stops_before_until(fixture: &impl LogFixture) {
    append(fixture, 0, &payloads(30)).await;
    let log = fixture.log().await;
    let (all, to) = drain(&*log, 0, 0, None, 1 << 20).await;
    for (index, (until, _)) in all.iter().enumerate() {
        for max_bytes in [1, 500, 1 << 20] {
            let (records, stopped) = drain(&*log, 0, 0, Some(*until), max_bytes).await;
            assert_eq!(records, all[..index], "until {until} by {max_bytes}");
            assert!(stopped <= *until);
        }
    }
    assert_eq!(drain(&*log, 0, 0, Some(to), 500).await.0, all);
}

/// What is appended to one partition shows in no other.
pub async fn partitions_are_apart(fixture: &impl LogFixture) {
    let log = fixture.log().await;
    append(fixture, 1, &payloads(3)).await;
    assert_eq!(log.end().await.expect("end").get(0), 0);
    assert!(drain(&*log, 0, 0, None, 1 << 20).await.0.is_empty());
    assert_eq!(drain(&*log, 1, 0, None, 1 << 20).await.0.len(), 3);
}

/// Half a record is not delivered, and is not the end; the whole one is.
pub async fn a_record_that_is_being_written_is_waited_for(fixture: &impl LogFixture) {
    let log = fixture.log().await;
    append(fixture, 0, &payloads(2)).await;
    let (first, to) = drain(&*log, 0, 0, None, 1 << 20).await;
    if !fixture.append_part(0, b"{\"half\":").await {
        return;
    }
    for max_bytes in [1, 1 << 20] {
        assert_eq!(drain(&*log, 0, 0, None, max_bytes).await, (first.clone(), to));
        assert_eq!(log.end().await.expect("end").get(0), to);
    }
    append(fixture, 0, &[b"1}".to_vec()]).await;
    let (rest, _) = drain(&*log, 0, to, None, 1 << 20).await;
    assert_eq!(rest.iter().map(|(_, payload)| &payload[..]).collect::<Vec<_>>(), [b"{\"half\":1}"]);
}

/// Waiting ends with an append, and with the end of patience, and at once if there is something already.
pub async fn a_waiting_reader_is_woken(fixture: &impl LogFixture) {
    const LONG: Duration = Duration::from_secs(60);
    let log = fixture.log().await;
    let nothing = OffsetVector::zero();
    let began = Instant::now();
    log.appended(&nothing, Duration::from_millis(100)).await.expect("waiting");
    assert!(began.elapsed() >= Duration::from_millis(90), "there was nothing to wake up for");
    let late = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        append(fixture, 1, &payloads(1)).await;
    };
    let (woken, ()) = tokio::join!(log.appended(&nothing, LONG), late);
    woken.expect("waiting");
    log.appended(&nothing, LONG).await.expect("waiting");
    assert!(began.elapsed() < LONG, "an append wakes the reader");
    let end = log.end().await.expect("end");
    let began = Instant::now();
    log.appended(&end, Duration::from_millis(100)).await.expect("waiting");
    assert!(began.elapsed() >= Duration::from_millis(90), "all was seen");
}

/// A handle sees partitions that are added later.
pub async fn partitions_are_added(fixture: &impl LogFixture) {
    let log = fixture.log().await;
    let before = log.partitions().await.expect("partitions");
    if !fixture.add_partition().await {
        return;
    }
    assert_eq!(log.partitions().await.expect("partitions"), before + 1);
    append(fixture, before, &payloads(2)).await;
    assert_eq!(drain(&*log, before, 0, None, 1 << 20).await.0.len(), 2);
    assert!(log.end().await.expect("end").get(before) > 0);
}

/// Whoever has read the old log is told, and is never given records of the new one under offsets of the old one.
pub async fn a_replaced_log_is_noticed(fixture: &impl LogFixture) {
    append(fixture, 0, &payloads(20)).await;
    let log = fixture.log().await;
    let old = id(&*log).await;
    let (_, to) = drain(&*log, 0, 0, None, 1 << 20).await;
    if !fixture.replace().await {
        return;
    }
    append(fixture, 0, &payloads(200)).await;
    assert_ne!(id(&*log).await, old, "a new log has another id");
    assert_ne!(id(&*fixture.log().await).await, old, "also for a new handle");
    for from in [0, to] {
        let read = log.read(0, from, None, 1 << 20).await;
        assert!(matches!(read, Err(LogError::Replaced { .. })), "a read from {from} gave {read:?}");
    }
    let end = log.end().await;
    assert!(matches!(end, Err(LogError::Replaced { .. })), "the end is {end:?}");
}

/// Reads until there is nothing further, and checks each chunk by itself.
async fn drain(
    log: &dyn Log,
    partition: Partition,
    from: Offset,
    until: Option<Offset>,
    max_bytes: usize,
) -> (Records, Offset) {
    let (mut records, mut position) = (Records::new(), from);
    loop {
        let chunk = log.read(partition, position, until, max_bytes).await.expect("a read");
        assert_eq!((chunk.partition, chunk.from), (partition, position));
        let (Some(first), Some(last)) = (chunk.records.first(), chunk.records.last()) else {
            assert_eq!(chunk.to, position, "an empty chunk goes nowhere");
            return (records, position);
        };
        assert!(first.offset >= position && last.offset < chunk.to, "offsets lie in the chunk");
        let sizes = (0..chunk.records.len()).map(|index| chunk.payload(index).len());
        let largest = sizes.clone().max().unwrap_or(0);
        assert!(sizes.sum::<usize>() <= max_bytes.saturating_add(largest), "about {max_bytes} bytes");
        records
            .extend((0..chunk.records.len()).map(|i| (chunk.records[i].offset, chunk.payload(i).to_vec())));
        position = chunk.to;
    }
}

async fn id(log: &dyn Log) -> stratus_seam::log::LogId {
    log.id().await.expect("the id")
}

async fn append(fixture: &impl LogFixture, partition: Partition, payloads: &[Vec<u8>]) {
    let payloads: Vec<&[u8]> = payloads.iter().map(|payload| &payload[..]).collect();
    fixture.append(partition, &payloads).await;
}

/// Records of many sizes, each different.
fn payloads(count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|n| format!("{{\"n\":{n},\"text\":\"{}\"}}", "x".repeat(n * n % 311)).into_bytes())
        .collect()
}
