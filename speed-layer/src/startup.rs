//! Taking a source's speed state over: look at everything, decide, write the ledger, then claim the shards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::try_join_all;
use stratus_seam::catalog::{Source, Version};
use stratus_seam::crash;
use stratus_seam::ids::{TxId, ViewId};
use stratus_seam::ledger::Txn;
use stratus_seam::log::Log;
use stratus_seam::recovery::{self, Facts, Plan, Unreadable};
use stratus_seam::shard::{Scope, ShardMeta};
use stratus_seam::store::{SourceState, TxnChanges};
use tokio::sync::Mutex;

use crate::error::SpeedError;
use crate::ledger::HeldLedger;
use crate::shards::HeldShards;

/// What the source's topology works with once its coordinator is the writer.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) ledger: Mutex<HeldLedger>,
    pub(crate) shards: HeldShards,
    over: AtomicBool,
}

impl Hold {
    /// Nothing more is to be done under this hold.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// Whether it was let go.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

/// Takes over what there is, or begins a new generation. `unreadable` is the entry at which the last attempt failed.
/// Answers with the entries that some shard lacks, or that are not committed, in order.
pub(crate) async fn take_over(
    source: &Source,
    versions: &BTreeMap<ViewId, Vec<Version>>,
    log: &dyn Log,
    state: &SourceState,
    shard_count: u32,
    unreadable: Option<&Unreadable>,
) -> Result<(Hold, Vec<Txn>), SpeedError> {
    let found = state.ledger.read().await?;
    let count = found.as_ref().map_or(shard_count, |ledger| ledger.shards);
    let shards = try_join_all((0..count).map(|shard| state.shards.meta(shard))).await?;
    let committed = found.as_ref().map_or(0, |ledger| ledger.committed);
    let txns = state.ledger.txns(lowest_held(&shards).min(committed)).await?;
    let (log_id, end) = (log.id().await?, log.end().await?);
    let cuts = |versions: &Vec<Version>| versions.iter().map(|v| (v.cut.clone(), v.generation)).collect();
    let views = versions.iter().map(|(view, versions)| (*view, cuts(versions))).collect();
    let engine = stratus_sql::cataloged::engine();
    let facts = Facts {
        ledger: found.as_ref(),
        shards: &shards,
        txns: &txns,
        engine: &engine,
        views: &views,
        source_log: &source.log,
        source_start: &source.start,
        log: &log_id,
        end: &end,
        unreadable,
        shard_count,
    };
    let highest = shards.iter().flatten().map(|(meta, _)| meta.token.counter).max().unwrap_or(0);
    let mut metas: Vec<_> = shards.iter().map(|shard| shard.as_ref().map(|(meta, _)| meta.clone())).collect();
    let (next, changes, replay) = match (recovery::plan(&facts), found.as_ref()) {
        (Plan::Resume { replay }, Some(ledger)) => {
            (ledger.take_over(highest), TxnChanges::default(), entries(&txns, replay))
        }
        (Plan::Stop { reason }, _) => {
            return Err(SpeedError::Stop(format!("source \"{}\": {reason}", source.name)));
        }
        (plan, _) => {
            let reason = match plan {
                Plan::Begin { reason } => reason,
                _ => "there is no speed state yet".to_owned(),
            };
            let next = recovery::begin(&facts, &reason);
            let (generation, from, target) = (next.generation, &next.start, &next.target);
            if found.is_none() && versions.values().all(Vec::is_empty) {
                tracing::info!(source = source.name, %generation, %from, "the speed layer begins");
            } else {
                tracing::warn!(
                    source = source.name, %generation, %from, %target,
                    "a new generation of speed state begins: {reason}"
                );
            }
            (next, TxnChanges { forget_all: true, ..TxnChanges::default() }, Vec::new())
        }
    };
    // The new generation's number of shards may differ from what was looked at.
    for shard in metas.len()..next.shards as usize {
        let meta = state.shards.meta(shard as u32).await?;
        metas.push(meta.map(|(meta, _)| meta));
    }
    metas.truncate(next.shards as usize);
    let ledger = HeldLedger::take(Arc::clone(&state.ledger), found.as_ref(), next, changes).await?;
    crash::point("speed:after-take-over");
    let record = ledger.record();
    let shards =
        HeldShards::claim(Arc::clone(&state.shards), &metas, record.generation, record.token).await?;
    Ok((Hold { ledger: Mutex::new(ledger), shards, over: AtomicBool::new(false) }, replay))
}

/// The lowest txid whose entry may be asked for.
fn lowest_held(shards: &[Option<(ShardMeta, BTreeMap<Scope, u64>)>]) -> TxId {
    shards.iter().map(|found| found.as_ref().map_or(0, |(meta, _)| meta.txid)).min().unwrap_or(0)
}

fn entries(txns: &[Txn], first: TxId) -> Vec<Txn> {
    txns.iter().filter(|txn| txn.txid >= first).cloned().collect()
}
