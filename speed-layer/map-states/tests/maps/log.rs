//! A log in memory, and its records as lines.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use arrow::{
    array::{RecordBatch, StringArray},
    datatypes::{DataType, SchemaRef},
};
use async_trait::async_trait;
use stratus_seam::{
    log::{Chunk, Log, LogError, LogId, RecordSpan},
    offsets::{Offset, OffsetVector, Partition},
};
use stratus_topology::{TaskError, fields};
use stratus_trident::Translator;

/// Lines by partition. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Lines(Arc<Mutex<Vec<Vec<String>>>>);

impl Lines {
    pub(crate) fn new(partitions: usize) -> Self {
        Self(Arc::new(Mutex::new(vec![Vec::new(); partitions])))
    }

    pub(crate) fn append(&self, partition: usize, line: String) {
        self.0.lock().unwrap()[partition].push(line);
    }
}

#[async_trait]
impl Log for Lines {
    async fn id(&self) -> Result<LogId, LogError> {
        Ok(LogId("lines".to_owned()))
    }

    async fn partitions(&self) -> Result<u32, LogError> {
        Ok(self.0.lock().unwrap().len() as u32)
    }

    async fn end(&self) -> Result<OffsetVector, LogError> {
        let mut end = OffsetVector::zero();
        for (partition, lines) in self.0.lock().unwrap().iter().enumerate() {
            end.set(partition as Partition, lines.len() as Offset);
        }
        Ok(end)
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        until: Option<Offset>,
        max_bytes: usize,
    ) -> Result<Chunk, LogError> {
        let (mut bytes, mut records) = (Vec::new(), Vec::new());
        let partitions = self.0.lock().unwrap();
        for (line, offset) in partitions[partition as usize].iter().zip(0..).skip(from as usize) {
            let is_full = !records.is_empty() && bytes.len() >= max_bytes;
            if is_full || until.is_some_and(|until| offset >= until) {
                break;
            }
            let start = bytes.len() as u32;
            bytes.extend_from_slice(line.as_bytes());
            records.push(RecordSpan { offset, start, end: bytes.len() as u32, timestamp: None });
        }
        Ok(Chunk { partition, from, to: from + records.len() as Offset, bytes: bytes.into(), records })
    }

    async fn appended(&self, _seen: &OffsetVector, _patience: Duration) -> Result<(), LogError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(())
    }
}

/// Each record as a `line`.
#[derive(Clone)]
pub(crate) struct AsLines;

impl Translator for AsLines {
    fn schema(&self) -> SchemaRef {
        fields([("line", DataType::Utf8)])
    }

    fn translate(&mut self, records: &Chunk) -> Result<RecordBatch, TaskError> {
        let lines = (0..records.records.len()).map(|index| str::from_utf8(records.payload(index)));
        let lines: StringArray = lines.map(|line| line.map(Some)).collect::<Result<_, _>>()?;
        Ok(RecordBatch::try_new(self.schema(), vec![Arc::new(lines)])?)
    }
}
