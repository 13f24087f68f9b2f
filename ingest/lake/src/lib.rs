//! The lake: everything that is precious besides the log itself.
//!
//! Events are kept for ever in Delta tables that any Delta reader understands, versions of views in plain Parquet
//! because Delta cannot hold their types, and the catalog in numbered commits that are put only if absent. One crate
//! keeps them so that one rule holds for all: **what a commit names is on disk, whole, before the commit is**, and
//! of two that want the same commit exactly one gets it.
//!
//! ```text
//! <root>/catalog/<20-digit n>.json                              one commit of the catalog
//! <root>/sources/<source id>/events/                            Delta table: the master dataset of a source
//! <root>/sources/<source id>/dead_letters/                      Delta table: its records that could not be decoded
//! <root>/views/<view id>/v<number>-<run>/part-<i>.parquet       the states of one version, one folder per run
//! <root>/runs/requests/<run>.json                               a run that was asked for
//! <root>/runs/<view id>/<run>.json                              how far a run is, or what came of it
//! <root>/runs/<view id>/schedule.json                           where a view's schedule stands
//! <root>/dimensions/<sha-256>.parquet                           a dimension table, by its content
//! ```
//!
//! **What survives what.** A process may be killed at any instruction: every file appears under its name only when it
//! is whole, and nothing refers to a file before that. A local lake also survives the loss of power: files are synced
//! before they get their name, and their folders after, before the call returns (see [`disk`]). What a commit names
//! was therefore durable before the commit was. Files that no commit names (of a run or an ingester that was killed)
//! are never read; those of views are found by [`Lake::version_folders`] and removed.
//!
//! Deltalake's OPTIMIZE must never be run on the tables: two at once double the rows.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod backed_log;
mod catalog;
mod csv;
mod dead_letters;
mod dimensions;
pub mod disk;
mod entries;
mod error;
mod files;
mod lake;
mod master;
mod master_log;
mod probe;
mod row_json;
mod runs;
mod sorting;
mod source_tables;
mod span;
mod table;
mod versions;
mod writer;

pub use backed_log::BackedLog;
pub use catalog::LakeCatalog;
pub use dead_letters::{DeadLetter, dead_letter_schema};
pub use error::LakeError;
pub use lake::Lake;
pub use master::{MasterDataset, MasterSnapshot};
pub use master_log::MasterLog;
pub use probe::Probed;
pub use runs::Runs;
pub use source_tables::SourceTables;
pub use versions::WrittenVersion;
