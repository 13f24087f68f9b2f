//! From a batch's events to what it changes in each shard.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::Schema;
use futures::future::try_join_all;
use stratus_seam::encoding::{decode_rows, encode_rows};
use stratus_seam::ids::{ShardNo, ViewId};
use stratus_seam::ledger::{Ledger, Txn};
use stratus_seam::log::Chunk;
use stratus_seam::offsets::OffsetVector;
use stratus_seam::shard::{Change, Scope, ShardCommit, shard_of};

use crate::error::SpeedError;
use crate::live::{LiveView, LiveViews};
use crate::shards::HeldShards;

/// What one txid does: a commit for every shard, and the rows that each view left out.
#[derive(Debug)]
pub(crate) struct Effects {
    pub(crate) commits: Vec<ShardCommit>,
    pub(crate) failed: BTreeMap<ViewId, u64>,
    pub(crate) bad_records: u64,
}

/// Decodes the records of an entry once and aggregates them for every view that it feeds.
pub(crate) async fn effects(
    txn: &Txn,
    chunks: &[Chunk],
    ledger: &Ledger,
    live: &mut LiveViews,
    shards: &HeldShards,
) -> Result<Effects, SpeedError> {
    let mut decoded = Vec::with_capacity(chunks.len());
    let mut bad_records = 0;
    for chunk in chunks {
        let part = live.codec.decode(&ledger.log, chunk)?;
        bad_records += part.bad.len() as u64;
        decoded.push((chunk, part.events));
    }
    let mut commits: Vec<_> =
        (0..shards.count()).map(|shard| shards.commit(shard, txn.txid, txn.attempt)).collect();
    let mut failed = BTreeMap::new();
    for (id, epoch) in &txn.feeds {
        // A view that was dropped, or an epoch below its floor, is no longer anybody's concern.
        let header = ledger.views.get(id).and_then(|view| view.epochs.iter().find(|e| e.number == *epoch));
        let (Some(header), Some(view)) = (header, live.views.get_mut(id)) else { continue };
        let events =
            decoded.iter().filter_map(|(chunk, events)| above(chunk, events, &header.from)).collect();
        let (states, rows) = view.plan.run(events).await.map_err(|error| failure(view, &error))?;
        failed.insert(*id, rows);
        let scope = Scope { view: *id, epoch: *epoch };
        fold(view, scope, states, shards, &mut commits).await?;
    }
    Ok(Effects { commits, failed, bad_records })
}

fn failure(view: &LiveView, error: &dyn std::fmt::Display) -> SpeedError {
    SpeedError::View { view: view.name.clone(), message: error.to_string() }
}

/// The events of a chunk at or above a vector: in a new generation a view skips what its version already holds.
fn above(chunk: &Chunk, events: &RecordBatch, from: &OffsetVector) -> Option<RecordBatch> {
    let first = from.get(chunk.partition);
    if chunk.from >= first {
        return Some(events.clone());
    }
    if chunk.to <= first {
        return None;
    }
    let offsets = events.column_by_name(stratus_seam::schema::OFFSET_COLUMN)?;
    let offsets = arrow::array::AsArray::as_primitive_opt::<arrow::datatypes::Int64Type>(offsets)?;
    // Records, and so events, are in the order of their offsets.
    let skip = offsets.values().partition_point(|offset| (*offset as u64) < first);
    Some(events.slice(skip, events.num_rows() - skip))
}

/// Merges a batch's states of one view with those that the shards hold, and adds the changes to their commits.
async fn fold(
    view: &mut LiveView,
    scope: Scope,
    states: Vec<RecordBatch>,
    shards: &HeldShards,
    commits: &mut [ShardCommit],
) -> Result<(), SpeedError> {
    let keys = encode_keys(view, &states)?;
    if keys.is_empty() {
        return Ok(());
    }
    let count = shards.count();
    let mut by_shard: BTreeMap<ShardNo, Vec<String>> = BTreeMap::new();
    for key in keys {
        let shard = shard_of(&key, count);
        if commits.get(shard as usize).is_some_and(|commit| shards.lacks(shard, commit.txid)) {
            by_shard.entry(shard).or_default().push(key);
        }
    }
    let reads = by_shard.iter().map(async |(shard, keys)| {
        let held = shards.get(*shard, scope, keys).await?;
        Ok::<_, SpeedError>(keys.iter().cloned().zip(held))
    });
    let before: BTreeMap<String, Option<String>> = try_join_all(reads).await?.into_iter().flatten().collect();
    let held = held_rows(view, &before)?;
    let merged = if held.num_rows() == 0 {
        states
    } else {
        let input = states.into_iter().chain([held]).collect();
        view.merge.run(input).await.map_err(|error| failure(view, &error))?
    };
    for batch in &merged {
        let (keys, states) = batch.columns().split_at(view.keys);
        for (key, after) in encode_rows(keys)?.into_iter().zip(encode_rows(states)?) {
            let shard = shard_of(&key, count);
            // A key whose shard already holds this txid was not asked for.
            let Some(before) = before.get(&key) else { continue };
            if let Some(commit) = commits.get_mut(shard as usize) {
                commit.changes.push(Change { scope, key, before: before.clone(), after });
            }
        }
    }
    Ok(())
}

fn encode_keys(view: &LiveView, states: &[RecordBatch]) -> Result<Vec<String>, SpeedError> {
    let mut keys = Vec::new();
    for batch in states {
        keys.extend(encode_rows(&batch.columns()[..view.keys])?);
    }
    Ok(keys)
}

/// The states that the shards hold, as rows of flat states.
fn held_rows(view: &LiveView, before: &BTreeMap<String, Option<String>>) -> Result<RecordBatch, SpeedError> {
    let (key_fields, state_fields) = view.fields.split_at(view.keys);
    let held = || before.iter().filter_map(|(key, state)| Some((key.as_str(), state.as_deref()?)));
    let keys = decode_rows(held().map(|(key, _)| key), key_fields)?;
    let states = decode_rows(held().map(|(_, state)| state), state_fields)?;
    let columns: Vec<ArrayRef> = keys.into_iter().chain(states).collect();
    let schema = Schema::new(view.fields.clone());
    RecordBatch::try_new(schema.into(), columns).map_err(|error| failure(view, &error))
}
