//! The directory log keeps the promises of every log, also with an appender between it and its producers.

use std::fs;
use std::sync::Arc;

use async_trait::async_trait;
use stratus_logs::DirectoryLog;
use stratus_logs::conformance::{LogFixture, every_promise};
use stratus_seam::log::Log;
use stratus_seam::offsets::Partition;
use tempfile::TempDir;

use crate::write;

struct Directory(TempDir);

#[async_trait]
impl LogFixture for Directory {
    async fn log(&self) -> Arc<dyn Log> {
        Arc::new(DirectoryLog::open(self.0.path()).unwrap())
    }

    async fn append(&self, partition: Partition, payloads: &[&[u8]]) {
        for payload in payloads {
            write(self.0.path(), partition, payload);
            write(self.0.path(), partition, b"\n");
        }
    }

    async fn append_part(&self, partition: Partition, bytes: &[u8]) -> bool {
        write(self.0.path(), partition, bytes);
        true
    }

    async fn add_partition(&self) -> bool {
        let path = self.0.path().join("log.json");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("\"partitions\":2", "\"partitions\":3")).unwrap();
        true
    }

    async fn replace(&self) -> bool {
        for entry in fs::read_dir(self.0.path()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        DirectoryLog::create(self.0.path(), 2).unwrap();
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_log_keeps_every_promise() {
    every_promise(async || {
        let dir = tempfile::tempdir().unwrap();
        DirectoryLog::create(dir.path(), 2).unwrap();
        Directory(dir)
    })
    .await;
}
