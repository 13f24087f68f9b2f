//! Where events come from: a log per source, and the codec that makes Arrow of its records.
//!
//! Both layers read the same log with the same codec, because the merged answer is exact only if a record is the
//! same row, or the same bad record, wherever it is read. So everything here is about saying the same thing twice:
//! a record keeps its offset and its bytes, a replaced log is noticed, and a verdict depends on the record alone.
//! Decoding is the speed layer's ceiling, so this crate stands apart from DataFusion and is measured on its own.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod appender;
pub mod codec;
pub mod conformance;
pub mod directory;
pub mod kafka;
mod line;

pub use appender::{AppendError, Appended, Appender};
pub use codec::{BadRecord, CodecError, CodecOptions, Decoded, JsonCodec, TimestampUnit};
pub use directory::DirectoryLog;
pub use kafka::KafkaLog;
pub use line::lines;

/// The longest record that is decoded unless an option says otherwise: 16 MiB. A log and the codec of one source
/// must have the same limit.
pub const DEFAULT_MAX_RECORD_BYTES: usize = 16 << 20;
/// A good size for one read: about 8,192 events of 240 bytes. Larger batches fall out of the cache.
pub const READ_BYTES: usize = 2 << 20;
