//! A Kafka spout.
//!
//! [`KafkaSpout`] reads a topic; [`KafkaSpoutConfig`] says how, and [`RecordTranslator`] what becomes of the records.
//! Offsets are kept in a consumer group, so that the usual tools show how far a topology is; partitions are assigned by
//! hand, so that no rebalance interrupts it.
//!
//! At least once, the offset of a record is committed when its tree and those of all records before it are done
//! ([`offsets`]). A record whose tree fails is read again over a second connection, while the first one goes on, and
//! emitted again after a pause that grows with its failures ([`retries`]); what failed together is emitted again in
//! order. Only what is committed survives a restart: the records behind it are emitted once more. Offsets that have not
//! changed are committed again every hour, since Kafka forgets those of a group without members after a while.
//!
//! Only committed transactions are read. Unlike Storm's spout this one reads one topic, emits to one stream, and does
//! not hand headers on.

mod committer;
mod config;
pub mod ledger;
pub mod message_id;
pub mod offsets;
mod opening;
mod outgoing;
mod reading;
mod rereader;
pub mod retries;
mod slots;
mod spout;
mod start;
mod stats;
mod timetable;
mod translator;

pub use config::{KafkaSpoutConfig, ProcessingGuarantee};
pub use retries::RetryPolicy;
pub use spout::KafkaSpout;
pub use start::{Beginning, CommitNote, FirstPollOffsetStrategy};
pub use stats::KafkaSpoutStats;
pub use stratus_logs::kafka::{Committed, KafkaSettings, KafkaSettingsError, Start};
pub use translator::{Record, RecordTranslator, Translated, TranslationError, WholeRecords};
