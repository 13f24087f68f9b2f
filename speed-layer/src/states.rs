//! The shards as a Trident state: each partition of it holds some of them, and commits them as wholes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, Schema};
use async_trait::async_trait;
use futures::future::try_join_all;
use stratus_seam::encoding::{decode_rows, encode_rows};
use stratus_seam::ids::ShardNo;
use stratus_seam::shard::{Change, ShardCommit, shard_of};
use stratus_topology::{TaskContext, TaskError};
use stratus_trident::{State, StateFactory, StateKind, StateUpdater, TransactionAttempt, TridentCollector};

use crate::error::SpeedError;
use crate::live::{LiveView, Planned};
use crate::work::{Batch, Feed, Work};

/// Makes the partitions of the shards.
pub(crate) struct ShardStates {
    work: Arc<Work>,
}

impl ShardStates {
    pub(crate) fn new(work: &Arc<Work>) -> Self {
        Self { work: Arc::clone(work) }
    }
}

#[async_trait]
impl StateFactory for ShardStates {
    type State = ShardState;

    /// A shard keeps what a txid overwrote, whole: another attempt at it begins from there.
    fn kind(&self) -> StateKind {
        StateKind::Opaque
    }

    async fn make(
        &self,
        _context: &TaskContext,
        partition: usize,
        count: usize,
    ) -> Result<ShardState, TaskError> {
        Ok(ShardState { work: Arc::clone(&self.work), partition, count, attempt: None, under_way: None })
    }
}

/// Some of the shards: every `count`-th.
pub(crate) struct ShardState {
    work: Arc<Work>,
    partition: usize,
    count: usize,
    attempt: Option<TransactionAttempt>,
    /// The batch that is committed, with a commit for each shard.
    under_way: Option<(Arc<Batch>, BTreeMap<ShardNo, ShardCommit>)>,
}

#[async_trait]
impl State for ShardState {
    fn begin_attempt(&mut self, attempt: TransactionAttempt) {
        self.attempt = Some(attempt);
    }

    async fn begin_commit(&mut self, _txid: Option<u64>) -> Result<(), TaskError> {
        let batch = self.attempt.and_then(|attempt| self.work.batch(attempt));
        let batch = batch.ok_or("the batch is no longer under way")?;
        let (txn, shards) = (&batch.txn, &batch.hold.shards);
        let mine = (0..shards.count()).filter(|shard| *shard as usize % self.count == self.partition);
        let lacking = mine.filter(|shard| shards.lacks(*shard, txn.txid));
        let commits = lacking.map(|shard| (shard, shards.commit(shard, txn.txid, txn.attempt))).collect();
        self.under_way = Some((batch, commits));
        Ok(())
    }

    /// Every shard takes every txid, also one that changes nothing in it.
    async fn commit(&mut self, _txid: Option<u64>) -> Result<(), TaskError> {
        let (batch, commits) = self.under_way.take().ok_or("no batch is under way")?;
        if batch.hold.is_over() {
            return Err("the hold on the source's state was lost".into());
        }
        batch
            .hold
            .shards
            .apply(commits.into_values().collect())
            .await
            .map_err(|error| self.work.failed(&batch.hold, error))?;
        if let Some(attempt) = self.attempt {
            batch.committed_by(attempt);
        }
        Ok(())
    }
}

/// Merges partial states with those that the shards hold.
pub(crate) struct MergeStates {
    work: Arc<Work>,
    merges: Planned<stratus_sql::MergeStates>,
}

impl MergeStates {
    pub(crate) fn new(work: &Arc<Work>) -> Self {
        Self { work: Arc::clone(work), merges: Planned::default() }
    }
}

impl Clone for MergeStates {
    fn clone(&self) -> Self {
        Self::new(&self.work)
    }
}

#[async_trait]
impl StateUpdater<ShardState> for MergeStates {
    async fn update_state(
        &mut self,
        state: &mut ShardState,
        rows: &RecordBatch,
        _out: &mut TridentCollector,
    ) -> Result<(), TaskError> {
        let (batch, commits) = state.under_way.as_mut().ok_or("no batch is under way")?;
        self.merges.follow(&batch.views);
        let batch = Arc::clone(batch);
        match self.merge(&batch, rows, commits).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.work.failed(&batch.hold, error).into()),
        }
    }
}

/// A view's keys, each with its shard and its partial states, of which several tasks may have one each.
type Partials<'a> = BTreeMap<&'a str, (ShardNo, Vec<&'a str>)>;

impl MergeStates {
    async fn merge(
        &mut self,
        batch: &Batch,
        rows: &RecordBatch,
        commits: &mut BTreeMap<ShardNo, ShardCommit>,
    ) -> Result<(), SpeedError> {
        let partials: Vec<(&Feed, Partials<'_>)> = by_feed(rows, &batch.feeds, commits);
        let held = try_join_all(partials.iter().map(|(feed, keys)| held(batch, feed, keys))).await?;
        for ((feed, keys), held) in partials.iter().zip(held) {
            let mut merge = Vec::new();
            for (key, (shard, states)) in keys {
                let before = held.get(key).map(String::as_str);
                match (states.as_slice(), before) {
                    // A new key, from one task: its state stands as it is.
                    ([state], None) => change(commits, *shard, feed, key, None, (*state).to_owned()),
                    _ => merge.extend(states.iter().copied().chain(before).map(|state| (*key, state))),
                }
            }
            if merge.is_empty() {
                continue;
            }
            let view = &feed.view;
            let plan =
                self.merges.get(feed.scope.view, view, |view| async move { view.merge().await }).await?;
            let merged =
                plan.run(vec![decoded(view, &merge)?]).await.map_err(|error| view.failure(&error))?;
            for merged in &merged {
                let (keys, states) = merged.columns().split_at(view.keys);
                let rows = merged.num_rows();
                for (key, after) in encode_rows(keys, rows)?.into_iter().zip(encode_rows(states, rows)?) {
                    let shard = shard_of(&key, batch.hold.shards.count());
                    let before = held.get(key.as_str()).cloned();
                    change(commits, shard, feed, &key, before, after);
                }
            }
        }
        Ok(())
    }
}

/// The rows of each epoch that is fed, without those whose shard holds the txid already.
fn by_feed<'a>(
    rows: &'a RecordBatch,
    feeds: &'a [Feed],
    commits: &BTreeMap<ShardNo, ShardCommit>,
) -> Vec<(&'a Feed, Partials<'a>)> {
    let views = rows.column(0).as_string::<i32>();
    let epochs = rows.column(1).as_primitive::<Int64Type>().values();
    let shards = rows.column(2).as_primitive::<Int32Type>().values();
    let (keys, states) = (rows.column(3).as_string::<i32>(), rows.column(4).as_string::<i32>());
    let mut found: Vec<(&Feed, Partials<'_>)> =
        feeds.iter().map(|feed| (feed, Partials::default())).collect();
    let names: HashMap<(String, i64), usize> = feeds
        .iter()
        .enumerate()
        .map(|(at, feed)| ((feed.scope.view.to_string(), i64::from(feed.scope.epoch)), at))
        .collect();
    // Rows of one view follow on one another, so the name is looked up once per run of them.
    let mut last: Option<(&str, i64, Option<usize>)> = None;
    for row in 0..rows.num_rows() {
        let (view, epoch, shard) = (views.value(row), epochs[row], shards[row] as ShardNo);
        let at = match last {
            Some((known, of, at)) if known == view && of == epoch => at,
            _ => names.get(&(view.to_owned(), epoch)).copied(),
        };
        last = Some((view, epoch, at));
        if let Some(at) = at.filter(|_| commits.contains_key(&shard)) {
            let of_key = found[at].1.entry(keys.value(row)).or_insert_with(|| (shard, Vec::new()));
            of_key.1.push(states.value(row));
        }
    }
    found.retain(|(_, keys)| !keys.is_empty());
    found
}

/// The states that the shards hold of these keys.
async fn held<'a>(
    batch: &Batch,
    feed: &Feed,
    keys: &Partials<'a>,
) -> Result<HashMap<&'a str, String>, SpeedError> {
    let mut by_shard: BTreeMap<ShardNo, (Vec<&'a str>, Vec<String>)> = BTreeMap::new();
    for (key, (shard, _)) in keys {
        let asked = by_shard.entry(*shard).or_default();
        asked.0.push(key);
        asked.1.push((*key).to_owned());
    }
    let shards = &batch.hold.shards;
    let reads = by_shard.into_iter().map(|(shard, (keys, asked))| async move {
        let held = shards.get(shard, feed.scope, &asked).await?;
        Ok::<_, SpeedError>(keys.into_iter().zip(held))
    });
    let found = try_join_all(reads).await?.into_iter().flatten();
    Ok(found.filter_map(|(key, state)| Some((key, state?))).collect())
}

/// Keys with states, as rows of flat states.
fn decoded(view: &LiveView, rows: &[(&str, &str)]) -> Result<RecordBatch, SpeedError> {
    let (key_fields, state_fields) = view.fields.split_at(view.keys);
    let keys = decode_rows(rows.iter().map(|(key, _)| *key), key_fields)?;
    let states = decode_rows(rows.iter().map(|(_, state)| *state), state_fields)?;
    let columns: Vec<ArrayRef> = keys.into_iter().chain(states).collect();
    let schema = Schema::new(view.fields.clone());
    RecordBatch::try_new(schema.into(), columns).map_err(|error| view.failure(&error))
}

fn change(
    commits: &mut BTreeMap<ShardNo, ShardCommit>,
    shard: ShardNo,
    feed: &Feed,
    key: &str,
    before: Option<String>,
    after: String,
) {
    if let Some(commit) = commits.get_mut(&shard) {
        commit.changes.push(Change { scope: feed.scope, key: key.to_owned(), before, after });
    }
}
