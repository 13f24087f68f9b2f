//! The shards of one source in the server.

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use redis::Value;
use stratus_seam::ids::{Generation, ShardNo, Token, TxId};
use stratus_seam::shard::{Change, Refusal, Scope, ShardCommit, ShardMeta, Verdict};
use stratus_seam::store::{Page, ShardStore, StoreError, Tail};

use super::RedisSource;
use super::connections::Lane;
use super::layout::{self, Read, array, count, optional, other_shape, scope_in, scope_name, text};
use super::trouble::Trouble;
use crate::decisions;

/// The arguments of a commit's call: first who and what, then each scope's changes, in the order that the function
/// hands on without copying.
fn arguments(commit: &ShardCommit) -> Result<Vec<String>, Trouble> {
    let previous = commit.txid.checked_sub(1).map(|txid| txid.to_string()).unwrap_or_default();
    let mut args = vec![
        commit.generation.to_string(),
        commit.token.to_string(),
        commit.txid.to_string(),
        previous,
        commit.attempt.to_string(),
        String::new(),
    ];
    let mut scopes: BTreeMap<Scope, (Vec<&Change>, Vec<&Change>)> = BTreeMap::new();
    let mut touched = HashSet::with_capacity(commit.changes.len());
    for change in &commit.changes {
        if !touched.insert((change.scope, change.key.as_str())) {
            let error = decisions::other_before(commit, change.scope, &change.key);
            args[5] = error.to_string();
        }
        let (new, old) = scopes.entry(change.scope).or_default();
        if change.before.is_none() { new.push(change) } else { old.push(change) }
    }
    for (scope, (new, old)) in &scopes {
        args.extend([scope_name(*scope), new.len().to_string(), old.len().to_string()]);
        for change in new.iter().chain(old) {
            args.extend([change.key.clone(), change.after.clone()]);
        }
        args.extend(old.iter().filter_map(|change| change.before.clone()));
        let undo = new.iter().chain(old).map(|change| (change.key.as_str(), change.before.as_deref()));
        args.push(layout::pack(undo)?);
    }
    Ok(args)
}

/// What the function said of a commit, as the seam's `judge` says it.
fn verdict(commit: &ShardCommit, answer: &Value) -> Result<Result<Verdict, Refusal>, Trouble> {
    let words = array(answer)?.iter().map(text).collect::<Read<Vec<_>>>()?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Ok(match words[..] {
        ["apply", _] => Ok(Verdict::Apply),
        ["held", _] => Ok(Verdict::Held),
        ["generation", has] => {
            let has = if has.is_empty() { None } else { Some(layout::generation_in(has)?) };
            Err(Refusal::Generation { has, offered: commit.generation })
        }
        ["token", has] => Err(Refusal::Token { has: layout::token_of(has)?, offered: commit.token }),
        ["order", has] => Err(Refusal::Order { has: layout::txid_of(has)?, offered: commit.txid }),
        ["attempt", _] => Err(Refusal::Attempt(commit.txid)),
        ["before", scope, key] => return Err(decisions::other_before(commit, scope_in(scope)?, key).into()),
        _ => return Err(other_shape().into()),
    })
}

/// A record with the keys that its scopes really have.
fn counted(record: &Value, found: &Value) -> Read<(ShardMeta, BTreeMap<Scope, u64>)> {
    let mut counts = BTreeMap::new();
    for pair in array(found)?.chunks(2) {
        let [scope, keys] = pair else { return Err(other_shape()) };
        counts.insert(scope_in(&text(scope)?)?, count(keys)?);
    }
    Ok((layout::meta_of(array(record)?)?, counts))
}

impl RedisSource {
    async fn of_shard(
        &self,
        lane: Lane,
        shard: ShardNo,
        function: &str,
        args: &[impl AsRef<str> + Sync],
    ) -> Result<Value, Trouble> {
        let key = layout::of_shard(&self.server.namespace, self.source, shard);
        let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
        self.server.connections.call(lane, function, &key, &args).await
    }

    async fn states(
        &self,
        shard: ShardNo,
        scope: Scope,
        keys: &[String],
        verb: &str,
    ) -> Result<(Page, Vec<Option<String>>), StoreError> {
        let read = async {
            let name = scope_name(scope);
            let args: Vec<&str> =
                std::iter::once(name.as_str()).chain(keys.iter().map(String::as_str)).collect();
            let answer = self.of_shard(Lane::Small, shard, "find", &args).await?;
            match array(&answer)? {
                [] => Ok((Page::default(), vec![None; keys.len()])),
                [stand, states, missing] => {
                    let missing = count(missing)?;
                    let stand = Some(layout::stand_of(array(stand)?)?);
                    let mut states = array(states)?.iter().map(optional).collect::<Read<Vec<_>>>()?;
                    states.resize(keys.len(), None);
                    Ok((Page { stand, missing, ..Page::default() }, states))
                }
                _ => Err(other_shape().into()),
            }
        };
        self.told(verb, read).await
    }
}

#[async_trait]
impl ShardStore for RedisSource {
    async fn find(&self, shard: ShardNo, scope: Scope, keys: &[String]) -> Result<Page, StoreError> {
        let (page, found) = self.states(shard, scope, keys, "find keys").await?;
        let rows = keys.iter().cloned().zip(found).filter_map(|(key, state)| Some((key, state?))).collect();
        Ok(Page { rows, ..page })
    }

    async fn meta(&self, shard: ShardNo) -> Result<Option<(ShardMeta, BTreeMap<Scope, u64>)>, StoreError> {
        let read = async {
            let answer = self.of_shard(Lane::Small, shard, "meta", &[""; 0]).await?;
            match array(&answer)? {
                [] => Ok(None),
                [record, found] => Ok(Some(counted(record, found)?)),
                _ => Err(other_shape().into()),
            }
        };
        self.told("read a shard's record", read).await
    }

    async fn claim(
        &self,
        shard: ShardNo,
        seen: Option<(Generation, Token)>,
        generation: Generation,
        token: Token,
    ) -> Result<bool, StoreError> {
        let claim = async {
            let (of, by) = seen.map_or_else(Default::default, |(of, by)| (of.to_string(), by.to_string()));
            let args = [of, by, generation.to_string(), token.to_string()];
            let answer = text(&self.of_shard(Lane::Small, shard, "claim", &args).await?)?;
            Ok(answer != "refused")
        };
        self.told("claim a shard", claim).await
    }

    async fn get(
        &self,
        shard: ShardNo,
        scope: Scope,
        keys: &[String],
    ) -> Result<Vec<Option<String>>, StoreError> {
        Ok(self.states(shard, scope, keys, "read states").await?.1)
    }

    async fn commit(&self, commit: &ShardCommit) -> Result<Result<Verdict, Refusal>, StoreError> {
        let call = async {
            let answer = self.of_shard(Lane::Small, commit.shard, "commit", &arguments(commit)?).await?;
            verdict(commit, &answer)
        };
        self.told("commit to a shard", call).await
    }

    async fn page(
        &self,
        shard: ShardNo,
        scope: Scope,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let read = async {
            let args = [scope_name(scope), after.unwrap_or_default().to_owned(), limit.max(1).to_string()];
            let answer = self.of_shard(Lane::Pages, shard, "page", &args).await?;
            let (stand, rows, next, missing) = match array(&answer)? {
                [] => return Ok(Page::default()),
                [stand, rows, next, missing] => (stand, array(rows)?, text(next)?, count(missing)?),
                _ => return Err(other_shape().into()),
            };
            let rows = rows.chunks(2).map(|pair| match pair {
                [key, state] => Ok((text(key)?, text(state)?)),
                _ => Err(other_shape()),
            });
            let rows = rows.collect::<Read<Vec<_>>>()?;
            let stand = Some(layout::stand_of(array(stand)?)?);
            Ok(Page { rows, next: Some(next).filter(|next| !next.is_empty()), stand, missing })
        };
        self.told("read a page", read).await
    }

    async fn tail(&self, shard: ShardNo, txid: TxId, scopes: &[Scope]) -> Result<Option<Tail>, StoreError> {
        let read = async {
            let mut args = vec![txid.to_string()];
            args.extend(scopes.iter().map(|scope| scope_name(*scope)));
            let answer = self.of_shard(Lane::Pages, shard, "tail", &args).await?;
            let (record, found, packed) = match array(&answer)? {
                [] => return Ok(None),
                [record, found, packed] => (record, found, array(packed)?),
                _ => return Err(other_shape().into()),
            };
            let (meta, mut found) = counted(record, found)?;
            found.retain(|scope, _| scopes.contains(scope));
            let mut undo: BTreeMap<TxId, Vec<_>> = BTreeMap::new();
            for part in packed {
                let [txid, scope, packed] = array(part)? else { return Err(other_shape().into()) };
                let scope = scope_in(&text(scope)?)?;
                let entries = layout::unpack(&text(packed)?)?.into_iter();
                let of_txid = undo.entry(layout::txid_of(&text(txid)?)?).or_default();
                of_txid.extend(entries.map(|(key, before)| (scope, key, before)));
            }
            Ok(Some(Tail { meta, found, undo }))
        };
        self.told("read a shard's tail", read).await
    }

    async fn drop_scopes(
        &self,
        shard: ShardNo,
        generation: Generation,
        token: Token,
        gone: &[Scope],
    ) -> Result<bool, StoreError> {
        let call = async {
            let mut args = vec![generation.to_string(), token.to_string()];
            args.extend(gone.iter().flat_map(|scope| [scope.view.to_string(), scope.epoch.to_string()]));
            Ok(count(&self.of_shard(Lane::Small, shard, "drop", &args).await?)? == 1)
        };
        self.told("drop epochs of a shard", call).await
    }
}
