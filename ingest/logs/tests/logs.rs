//! The directory log, its appender and the codec, put together as the layers use them.

#![allow(clippy::unwrap_used)]

#[path = "logs/appender.rs"]
mod appender;
#[path = "logs/codec.rs"]
mod codec;
#[path = "logs/conformance.rs"]
mod conformance;
#[path = "logs/directory.rs"]
mod directory;
#[path = "logs/kafka.rs"]
mod kafka;
#[path = "logs/oracle.rs"]
mod oracle;
#[path = "logs/torn.rs"]
mod torn;

use std::fs::File;
use std::io::Write;
use std::path::Path;

use stratus_logs::DirectoryLog;
use stratus_seam::log::Log;
use stratus_seam::offsets::{Offset, Partition};

/// Appends bytes to a partition as any program may.
fn write(dir: &Path, partition: Partition, bytes: &[u8]) {
    let path = dir.join(format!("{partition}.jsonl"));
    File::options().create(true).append(true).open(path).unwrap().write_all(bytes).unwrap();
}

/// All records of a partition from an offset on, and where the reader stands then.
async fn drain(
    log: &DirectoryLog,
    partition: Partition,
    from: Offset,
    max_bytes: usize,
) -> (Vec<(Offset, Vec<u8>)>, Offset) {
    let (mut records, mut position) = (Vec::new(), from);
    loop {
        let chunk = log.read(partition, position, None, max_bytes).await.unwrap();
        if chunk.records.is_empty() {
            assert_eq!(chunk.to, position);
            return (records, position);
        }
        records
            .extend((0..chunk.records.len()).map(|i| (chunk.records[i].offset, chunk.payload(i).to_vec())));
        position = chunk.to;
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}
