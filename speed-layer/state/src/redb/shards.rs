//! The shards of one source in the file.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Range};

use async_trait::async_trait;
use redb::{ReadTransaction, ReadableTable, Table, WriteTransaction};
use stratus_seam::ids::{Generation, ShardNo, SourceId, Token, TxId};
use stratus_seam::shard::{Refusal, Scope, ShardCommit, ShardMeta, Verdict, judge};
use stratus_seam::store::{Durability, Page, ShardStore, StoreError, Tail};

use super::RedbSource;
use super::layout::{self, StoredMeta};
use super::trouble::Trouble;
use crate::decisions::{self, Claim};

/// About how many bytes of undo share one value.
const CHUNK: usize = 32 << 10;

type Rows<'txn> = Table<'txn, &'static [u8], &'static [u8]>;

fn meta_in(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<Option<ShardMeta>, Trouble> {
    let Some(record) = table.get(key)? else { return Ok(None) };
    Ok(Some(serde_json::from_slice::<StoredMeta>(record.value())?.into()))
}

fn put_meta(table: &mut Rows<'_>, key: &[u8], meta: &ShardMeta) -> Result<(), Trouble> {
    table.insert(key, serde_json::to_vec(&StoredMeta::from(meta))?.as_slice())?;
    Ok(())
}

fn clear(txn: &WriteTransaction, table: layout::Bytes, prefix: &[u8]) -> Result<(), Trouble> {
    let range = layout::beginning_with(prefix);
    Ok(txn.open_table(table)?.retain_in::<&[u8], _>(layout::slices(&range), |_, _| false)?)
}

/// A commit as the writing thread needs it, laid out by the caller: the thread that all sources share does nothing
/// but insert.
struct Laid {
    source: SourceId,
    /// The commit without its changes.
    head: ShardCommit,
    bytes: Vec<u8>,
    /// The changes in the order of their keys.
    rows: Vec<Row>,
    /// Key and value of each chunk of undo.
    undo: Vec<(Vec<u8>, Vec<u8>)>,
}

/// One change: where its key in the table and its states lie within the bytes.
struct Row {
    scope: Scope,
    key: Range<usize>,
    before: Option<Range<usize>>,
    after: Range<usize>,
}

impl Laid {
    fn out(source: SourceId, commit: &ShardCommit) -> Result<Self, Trouble> {
        let mut changes: Vec<_> = commit.changes.iter().collect();
        changes.sort_by(|a, b| (a.scope, &a.key).cmp(&(b.scope, &b.key)));
        let shard = layout::of_shard(source, commit.shard);
        let mut bytes = Vec::new();
        let mut rows = Vec::with_capacity(changes.len());
        let mut undo: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut last: Option<(Scope, u32)> = None;
        for change in changes {
            let start = bytes.len();
            bytes.extend_from_slice(&shard);
            layout::put_scope(&mut bytes, change.scope);
            bytes.extend_from_slice(change.key.as_bytes());
            let key = start..bytes.len();
            let mut put = |text: &String| {
                let start = bytes.len();
                bytes.extend_from_slice(text.as_bytes());
                start..bytes.len()
            };
            let (before, after) = (change.before.as_ref().map(&mut put), put(&change.after));
            rows.push(Row { scope: change.scope, key, before, after });

            let full = undo.last().is_none_or(|(_, chunk)| chunk.len() >= CHUNK);
            let chunk = match last {
                Some((scope, chunk)) if scope == change.scope => chunk + u32::from(full),
                _ => 0,
            };
            if last != Some((change.scope, chunk)) {
                let mut key = layout::of_undo(source, commit.shard, commit.txid);
                layout::put_scope(&mut key, change.scope);
                key.extend_from_slice(&chunk.to_be_bytes());
                undo.push((key, Vec::new()));
                last = Some((change.scope, chunk));
            }
            if let Some((_, chunk)) = undo.last_mut() {
                layout::put_undo(chunk, &change.key, change.before.as_deref())?;
            }
        }
        let head = ShardCommit { changes: Vec::new(), ..*commit };
        Ok(Self { source, head, bytes, rows, undo })
    }

    fn apply(&self, txn: &WriteTransaction) -> Result<(Result<Verdict, Refusal>, bool), Trouble> {
        let commit = &self.head;
        let shard = layout::of_shard(self.source, commit.shard);
        let mut metas = txn.open_table(layout::META)?;
        let meta = meta_in(&metas, &shard)?;
        let verdict = judge(meta.as_ref(), commit);
        let (Ok(Verdict::Apply), Some(meta)) = (&verdict, meta) else { return Ok((verdict, false)) };

        let mut state = txn.open_table(layout::STATE)?;
        let mut added: BTreeMap<Scope, u64> = BTreeMap::new();
        for row in &self.rows {
            let was = state.insert(&self.bytes[row.key.clone()], &self.bytes[row.after.clone()])?;
            let before = row.before.clone().map(|before| &self.bytes[before]);
            if was.as_ref().map(|was| was.value()) != before {
                let prefix = layout::of_scope(self.source, commit.shard, row.scope).len();
                let key = &self.bytes[row.key.start + prefix..row.key.end];
                let key = String::from_utf8_lossy(key);
                return Err(decisions::other_before(commit, row.scope, &key).into());
            }
            if was.is_none() {
                *added.entry(row.scope).or_default() += 1;
            }
        }
        let mut undo = txn.open_table(layout::UNDO)?;
        for (key, chunk) in &self.undo {
            undo.insert(key.as_slice(), chunk.as_slice())?;
        }
        let first = layout::of_undo(self.source, commit.shard, decisions::first_undo(commit.txid));
        undo.retain_in::<&[u8], _>(&shard[..]..first.as_slice(), |_, _| false)?;
        put_meta(&mut metas, &shard, &decisions::behind(&meta, commit, &added))?;
        Ok((verdict, true))
    }
}

/// How many keys each scope of a shard really has.
fn counted(txn: &ReadTransaction, shard: &[u8]) -> Result<BTreeMap<Scope, u64>, Trouble> {
    let state = txn.open_table(layout::STATE)?;
    let mut found = BTreeMap::new();
    let range = layout::beginning_with(shard);
    let mut run: Option<(Scope, u64)> = None;
    for entry in ReadableTable::range::<&[u8]>(&state, layout::slices(&range))? {
        let scope = layout::scope_in(entry?.0.value())?;
        run = match run {
            Some((of, keys)) if of == scope => Some((of, keys + 1)),
            before => {
                found.extend(before);
                Some((scope, 1))
            }
        };
    }
    found.extend(run);
    Ok(found)
}

#[async_trait]
impl ShardStore for RedbSource {
    async fn meta(&self, shard: ShardNo) -> Result<Option<(ShardMeta, BTreeMap<Scope, u64>)>, StoreError> {
        let key = layout::of_shard(self.source, shard);
        self.look("read a shard's record", move |txn| {
            let Some(meta) = meta_in(&txn.open_table(layout::META)?, &key)? else { return Ok(None) };
            let mut found = counted(txn, &key)?;
            for scope in meta.rows.keys() {
                found.entry(*scope).or_insert(0);
            }
            Ok(Some((meta, found)))
        })
        .await
    }

    async fn claim(
        &self,
        shard: ShardNo,
        seen: Option<(Generation, Token)>,
        generation: Generation,
        token: Token,
    ) -> Result<bool, StoreError> {
        let key = layout::of_shard(self.source, shard);
        self.write("claim a shard", Durability::Later, move |txn| {
            let mut metas = txn.open_table(layout::META)?;
            let meta = meta_in(&metas, &key)?;
            let held = meta.as_ref().map(|meta| (meta.generation, meta.token));
            let next = match (decisions::claim(held, seen, generation, token), meta) {
                (Claim::Refused, _) => return Ok((false, false)),
                (Claim::Held, _) => return Ok((true, false)),
                (Claim::TakeOver, Some(meta)) => ShardMeta { token, ..meta },
                (Claim::TakeOver | Claim::Empty, _) => {
                    for table in [layout::STATE, layout::UNDO] {
                        clear(txn, table, &key)?;
                    }
                    ShardMeta::empty(generation, token)
                }
            };
            put_meta(&mut metas, &key, &next)?;
            Ok((true, true))
        })
        .await
    }

    async fn get(
        &self,
        shard: ShardNo,
        scope: Scope,
        keys: &[String],
    ) -> Result<Vec<Option<String>>, StoreError> {
        let mut key = layout::of_scope(self.source, shard, scope);
        let (prefix, keys) = (key.len(), keys.to_vec());
        self.look("read states", move |txn| {
            let state = txn.open_table(layout::STATE)?;
            let mut found = Vec::with_capacity(keys.len());
            for asked in &keys {
                key.truncate(prefix);
                key.extend_from_slice(asked.as_bytes());
                let held = ReadableTable::get(&state, key.as_slice())?;
                found.push(held.map(|held| layout::text(held.value())).transpose()?);
            }
            Ok(found)
        })
        .await
    }

    async fn commit(&self, commit: &ShardCommit) -> Result<Result<Verdict, Refusal>, StoreError> {
        let verb = "commit to a shard";
        let laid = Laid::out(self.source, commit).map_err(|trouble| trouble.told(&self.what(verb)))?;
        self.write(verb, Durability::Later, move |txn| laid.apply(txn)).await
    }

    async fn page(
        &self,
        shard: ShardNo,
        scope: Scope,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let prefix = layout::of_scope(self.source, shard, scope);
        let from = after.map(|after| [prefix.as_slice(), after.as_bytes()].concat());
        let of_shard = layout::of_shard(self.source, shard);
        self.look("read a page", move |txn| {
            let (first, to) = layout::beginning_with(&prefix);
            let range = (from.map_or(first, Bound::Excluded), to);
            let state = txn.open_table(layout::STATE)?;
            let meta = meta_in(&txn.open_table(layout::META)?, &of_shard)?;
            let mut page = Page { stand: meta.map(|meta| meta.stand()), ..Page::default() };
            for entry in ReadableTable::range::<&[u8]>(&state, layout::slices(&range))? {
                let (key, held) = entry?;
                if page.rows.len() >= limit.max(1) {
                    page.next = page.rows.last().map(|(key, _)| key.clone());
                    break;
                }
                let key = key.value().get(prefix.len()..).ok_or_else(|| layout::cut_off("key"))?;
                page.rows.push((layout::text(key)?, layout::text(held.value())?));
            }
            Ok(page)
        })
        .await
    }

    async fn find(&self, shard: ShardNo, scope: Scope, keys: &[String]) -> Result<Page, StoreError> {
        let mut key = layout::of_scope(self.source, shard, scope);
        let of_shard = layout::of_shard(self.source, shard);
        let (prefix, keys) = (key.len(), keys.to_vec());
        self.look("look up keys", move |txn| {
            let state = txn.open_table(layout::STATE)?;
            let meta = meta_in(&txn.open_table(layout::META)?, &of_shard)?;
            let mut page = Page { stand: meta.map(|meta| meta.stand()), ..Page::default() };
            for asked in keys {
                key.truncate(prefix);
                key.extend_from_slice(asked.as_bytes());
                if let Some(held) = ReadableTable::get(&state, key.as_slice())? {
                    page.rows.push((asked, layout::text(held.value())?));
                }
            }
            Ok(page)
        })
        .await
    }

    async fn tail(&self, shard: ShardNo, txid: TxId, scopes: &[Scope]) -> Result<Option<Tail>, StoreError> {
        let (source, scopes) = (self.source, BTreeSet::from_iter(scopes.iter().copied()));
        self.look("read a shard's tail", move |txn| {
            let key = layout::of_shard(source, shard);
            let Some(meta) = meta_in(&txn.open_table(layout::META)?, &key)? else { return Ok(None) };
            let rows = |scope: &Scope| (*scope, meta.rows.get(scope).copied().unwrap_or(0));
            let found = scopes.iter().map(rows).collect();
            let mut undo: BTreeMap<TxId, Vec<_>> = BTreeMap::new();
            if let Some(first) = txid.checked_add(1) {
                let (_, to) = layout::beginning_with(&key);
                let range = (Bound::Included(layout::of_undo(source, shard, first)), to);
                let table = txn.open_table(layout::UNDO)?;
                for entry in ReadableTable::range::<&[u8]>(&table, layout::slices(&range))? {
                    let (key, chunk) = entry?;
                    let (txid, scope) = layout::undo_in(key.value())?;
                    if scopes.contains(&scope) {
                        layout::undo_of(scope, chunk.value(), undo.entry(txid).or_default())?;
                    }
                }
            }
            Ok(Some(Tail { meta, found, undo }))
        })
        .await
    }

    async fn drop_scopes(
        &self,
        shard: ShardNo,
        generation: Generation,
        token: Token,
        gone: &[Scope],
    ) -> Result<bool, StoreError> {
        let (source, gone) = (self.source, BTreeSet::from_iter(gone.iter().copied()));
        self.write("drop epochs of a shard", Durability::Later, move |txn| {
            let key = layout::of_shard(source, shard);
            let mut metas = txn.open_table(layout::META)?;
            let meta =
                meta_in(&metas, &key)?.filter(|meta| (meta.generation, meta.token) == (generation, token));
            let Some(mut meta) = meta else { return Ok((false, false)) };
            meta.drop_scopes(&gone.iter().copied().collect::<Vec<_>>());
            for scope in &gone {
                clear(txn, layout::STATE, &layout::of_scope(source, shard, *scope))?;
            }
            let mut unread = None;
            let range = layout::beginning_with(&key);
            txn.open_table(layout::UNDO)?.retain_in::<&[u8], _>(layout::slices(&range), |key, _| {
                let stays = layout::undo_in(key).map(|(_, scope)| !gone.contains(&scope));
                stays.unwrap_or_else(|trouble| {
                    unread = Some(trouble);
                    true
                })
            })?;
            unread.map_or(Ok(()), Err)?;
            put_meta(&mut metas, &key, &meta)?;
            Ok((true, true))
        })
        .await
    }
}
