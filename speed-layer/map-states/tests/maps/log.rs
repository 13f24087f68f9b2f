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
pub(crate) struct Lines(Arc<Mutex<Vec<Kept>>>);

/// A partition's lines, of which the first ones may be gone.
#[derive(Clone, Debug, Default)]
struct Kept {
    lines: Vec<String>,
    earliest: Offset,
}

impl Lines {
    pub(crate) fn new(partitions: usize) -> Self {
        Self(Arc::new(Mutex::new(vec![Kept::default(); partitions])))
    }

    pub(crate) fn append(&self, partition: usize, line: String) {
        self.append_all(partition, [line]);
    }

    /// At once: nobody sees some of them only.
    pub(crate) fn append_all(&self, partition: usize, lines: impl IntoIterator<Item = String>) {
        self.0.lock().unwrap()[partition].lines.extend(lines);
    }

    /// Loses the records below an offset for good, as retention does.
    pub(crate) fn forget(&self, partition: usize, earliest: Offset) {
        let kept = &mut self.0.lock().unwrap()[partition];
        kept.earliest = kept.earliest.max(earliest);
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
        for (partition, kept) in self.0.lock().unwrap().iter().enumerate() {
            end.set(partition as Partition, kept.lines.len() as Offset);
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
        let Kept { lines, earliest } = &partitions[partition as usize];
        if from < *earliest {
            return Err(LogError::Gone { log: "lines".to_owned(), partition, from, earliest: *earliest });
        }
        for (line, offset) in lines.iter().zip(0..).skip(from as usize) {
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
