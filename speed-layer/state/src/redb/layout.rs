//! The tables, and how keys and values are put into bytes. Numbers in keys are big-endian, so that ranges are in
//! their order; what belongs to a source, a shard or a scope begins with its name and is deleted as one range.

use std::collections::BTreeMap;
use std::ops::Bound;

use redb::TableDefinition;
use serde::{Deserialize, Serialize};
use stratus_seam::ids::{Attempt, EpochNo, Generation, ShardNo, SourceId, Token, TxId, ViewId};
use stratus_seam::shard::{Scope, ShardMeta};
use uuid::Uuid;

use super::trouble::Trouble;

pub(super) type Bytes = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// The version of this layout. A file with another one is not read.
pub(super) const VERSION: u64 = 1;
pub(super) const LAYOUT: TableDefinition<'static, &'static str, u64> = TableDefinition::new("layout");
pub(super) const LEDGER: Bytes = TableDefinition::new("ledger");
pub(super) const TXNS: Bytes = TableDefinition::new("txns");
pub(super) const REQUESTS: Bytes = TableDefinition::new("requests");
pub(super) const PINS: Bytes = TableDefinition::new("pins");
pub(super) const META: Bytes = TableDefinition::new("meta");
pub(super) const STATE: Bytes = TableDefinition::new("state");
pub(super) const UNDO: Bytes = TableDefinition::new("undo");

/// Every table whose keys begin with a source.
pub(super) const OF_SOURCES: [Bytes; 7] = [LEDGER, TXNS, REQUESTS, PINS, META, STATE, UNDO];

const SHARD: usize = 16;
const SHARD_END: usize = SHARD + 4;
const SCOPE_LEN: usize = 20;

pub(super) fn of_source(source: SourceId) -> [u8; 16] {
    *source.0.as_bytes()
}

pub(super) fn of_txn(source: SourceId, txid: TxId) -> Vec<u8> {
    [&of_source(source)[..], &txid.to_be_bytes()].concat()
}

pub(super) fn of_id(source: SourceId, id: Uuid) -> Vec<u8> {
    [&of_source(source)[..], id.as_bytes()].concat()
}

pub(super) fn of_shard(source: SourceId, shard: ShardNo) -> [u8; SHARD_END] {
    let mut key = [0; SHARD_END];
    key[..SHARD].copy_from_slice(source.0.as_bytes());
    key[SHARD..].copy_from_slice(&shard.to_be_bytes());
    key
}

pub(super) fn of_scope(source: SourceId, shard: ShardNo, scope: Scope) -> Vec<u8> {
    let mut key = of_shard(source, shard).to_vec();
    put_scope(&mut key, scope);
    key
}

pub(super) fn put_scope(key: &mut Vec<u8>, scope: Scope) {
    key.extend_from_slice(scope.view.0.as_bytes());
    key.extend_from_slice(&scope.epoch.to_be_bytes());
}

pub(super) fn of_undo(source: SourceId, shard: ShardNo, txid: TxId) -> Vec<u8> {
    [&of_shard(source, shard)[..], &txid.to_be_bytes()].concat()
}

/// The scope in a key of `state`.
pub(super) fn scope_in(key: &[u8]) -> Result<Scope, Trouble> {
    scope_at(key, SHARD_END)
}

/// The txid and scope in a key of `undo`.
pub(super) fn undo_in(key: &[u8]) -> Result<(TxId, Scope), Trouble> {
    let txid = key.get(SHARD_END..SHARD_END + 8).and_then(|bytes| bytes.try_into().ok());
    let txid = txid.map(u64::from_be_bytes).ok_or_else(|| cut_off("undo"))?;
    Ok((txid, scope_at(key, SHARD_END + 8)?))
}

fn scope_at(key: &[u8], at: usize) -> Result<Scope, Trouble> {
    let bytes = key.get(at..at + SCOPE_LEN).ok_or_else(|| cut_off("key"))?;
    let (view, epoch) = bytes.split_at(16);
    let view = Uuid::from_slice(view).map_err(|_| cut_off("key"))?;
    let epoch = epoch.try_into().map(u32::from_be_bytes).map_err(|_| cut_off("key"))?;
    Ok(Scope { view: ViewId(view), epoch })
}

/// The range of all keys that begin with `prefix`.
pub(super) fn beginning_with(prefix: &[u8]) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return (Bound::Included(prefix.to_vec()), Bound::Excluded(end));
        }
        end.pop();
    }
    (Bound::Included(prefix.to_vec()), Bound::Unbounded)
}

/// A range as redb takes it.
pub(super) fn slices(range: &(Bound<Vec<u8>>, Bound<Vec<u8>>)) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (range.0.as_ref().map(Vec::as_slice), range.1.as_ref().map(Vec::as_slice))
}

pub(super) fn text(bytes: &[u8]) -> Result<String, Trouble> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Trouble::Damaged("a text in it is not UTF-8".into()))
}

pub(super) fn cut_off(what: &str) -> Trouble {
    Trouble::Damaged(format!("an entry ({what}) in it is cut off"))
}

/// The record of a shard as it is stored.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredMeta {
    generation: Generation,
    token: Token,
    txid: TxId,
    attempt: Option<Attempt>,
    rows: Vec<(Scope, u64)>,
    floors: Vec<(ViewId, EpochNo)>,
}

impl From<&ShardMeta> for StoredMeta {
    fn from(meta: &ShardMeta) -> Self {
        let rows = meta.rows.iter().map(|(scope, rows)| (*scope, *rows)).collect();
        let floors = meta.floors.iter().map(|(view, floor)| (*view, *floor)).collect();
        let ShardMeta { generation, token, txid, attempt, .. } = *meta;
        Self { generation, token, txid, attempt, rows, floors }
    }
}

impl From<StoredMeta> for ShardMeta {
    fn from(stored: StoredMeta) -> Self {
        let StoredMeta { generation, token, txid, attempt, rows, floors } = stored;
        let (rows, floors) = (BTreeMap::from_iter(rows), BTreeMap::from_iter(floors));
        Self { generation, token, txid, attempt, rows, floors }
    }
}

/// Appends what one change overwrote to a chunk of undo: length and bytes of the key, then 0 for an absent state, or
/// 1 with length and bytes of it.
pub(super) fn put_undo(chunk: &mut Vec<u8>, key: &str, before: Option<&str>) -> Result<(), Trouble> {
    put_text(chunk, key)?;
    match before {
        None => chunk.push(0),
        Some(state) => {
            chunk.push(1);
            put_text(chunk, state)?;
        }
    }
    Ok(())
}

fn put_text(chunk: &mut Vec<u8>, text: &str) -> Result<(), Trouble> {
    let len = u32::try_from(text.len()).map_err(|_| {
        Trouble::TooLarge(format!("a key or state has {} bytes, the limit is 4 GiB", text.len()))
    })?;
    chunk.extend_from_slice(&len.to_be_bytes());
    chunk.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Reads a chunk of undo back.
pub(super) fn undo_of(
    scope: Scope,
    mut chunk: &[u8],
    into: &mut Vec<(Scope, String, Option<String>)>,
) -> Result<(), Trouble> {
    while !chunk.is_empty() {
        let key = take_text(&mut chunk)?;
        let before = match take(&mut chunk, 1)? {
            [0] => None,
            _ => Some(take_text(&mut chunk)?),
        };
        into.push((scope, key, before));
    }
    Ok(())
}

fn take<'a>(chunk: &mut &'a [u8], len: usize) -> Result<&'a [u8], Trouble> {
    let (head, rest) = chunk.split_at_checked(len).ok_or_else(|| cut_off("undo"))?;
    *chunk = rest;
    Ok(head)
}

fn take_text(chunk: &mut &[u8]) -> Result<String, Trouble> {
    let len = take(chunk, 4)?.try_into().map(u32::from_be_bytes).map_err(|_| cut_off("undo"))?;
    text(take(chunk, len as usize)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undo_comes_back_as_it_was_put() {
        let scope = Scope { view: ViewId::new(), epoch: 3 };
        let entries = [("", None), ("a\0\"", Some("")), ("ключ", Some("[1,\"é\"]"))];
        let mut chunk = Vec::new();
        for (key, before) in entries {
            put_undo(&mut chunk, key, before).unwrap();
        }
        let mut back = Vec::new();
        undo_of(scope, &chunk, &mut back).unwrap();
        let want = entries.map(|(key, before)| (scope, key.to_owned(), before.map(str::to_owned)));
        assert_eq!(back, want);
        chunk.pop();
        assert!(undo_of(scope, &chunk, &mut back).is_err());
    }

    #[test]
    fn a_prefix_covers_its_keys_and_no_others() {
        let (from, to) = beginning_with(&[1, 255, 255]);
        assert_eq!((from, to), (Bound::Included(vec![1, 255, 255]), Bound::Excluded(vec![2])));
        assert_eq!(beginning_with(&[255]), (Bound::Included(vec![255]), Bound::Unbounded));
    }

    #[test]
    fn scopes_are_read_back_from_keys() {
        let (source, scope) = (SourceId::new(), Scope { view: ViewId::new(), epoch: 70_000 });
        assert_eq!(scope_in(&of_scope(source, 9, scope)).ok(), Some(scope));
        let mut key = of_undo(source, 9, 300);
        put_scope(&mut key, scope);
        assert_eq!(undo_in(&key).ok(), Some((300, scope)));
        assert!(undo_in(&key[..40]).is_err());
    }
}
