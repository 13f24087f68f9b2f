//! The writer of the ledger and the shards, with the product's decisions.

use std::collections::BTreeMap;

use rand::Rng;
use stratus_seam::ids::{Generation, TxId, ViewId};
use stratus_seam::ledger::{Ledger, Txn};
use stratus_seam::offsets::{OffsetRange, OffsetVector};
use stratus_seam::recovery::{self, Facts, Plan};
use stratus_seam::retention;
use stratus_seam::shard::{Change, Scope, ShardCommit, ShardMeta, shard_of};
use stratus_seam::store::TxnChanges;

use crate::world::{Break, ENGINE, Lost, SHARDS, Shared, call, look, step};

/// Why a coordinator leaves its work: it recovers.
#[derive(Debug)]
struct LostHold;

impl From<Lost> for LostHold {
    fn from(_: Lost) -> Self {
        Self
    }
}

struct Hold {
    ledger: Ledger,
    txids: Vec<TxId>,
    scopes: Vec<Scope>,
}

pub async fn coordinate(world: Shared) {
    loop {
        let _: Result<(), LostHold> = work(&world).await;
        step().await;
    }
}

async fn work(world: &Shared) -> Result<(), LostHold> {
    let (mut hold, replay) = take_over(world).await?;
    for txn in replay {
        process(world, &mut hold, &txn).await?;
    }
    loop {
        keep_house(world, &mut hold).await?;
        let ranges = {
            let world = &mut *world.borrow_mut();
            let mut ranges = BTreeMap::new();
            for (partition, events) in (0..).zip(&world.log) {
                let from = hold.ledger.appended_to.get(partition);
                let most = events.len() as u64 - from;
                let records = world.random.random_range(0..3).min(most);
                if records > 0 {
                    ranges.insert(partition, OffsetRange { from, to: from + records, records });
                }
            }
            ranges
        };
        if ranges.is_empty() {
            step().await;
            continue;
        }
        let (next, txn) = hold.ledger.append(ranges).map_err(|_| LostHold)?;
        write(
            world,
            &mut hold.ledger,
            next,
            TxnChanges { append: Some(txn.clone()), ..TxnChanges::default() },
        )
        .await?;
        process(world, &mut hold, &txn).await?;
    }
}

/// A conditional write; a lost answer is settled by trying again and reading what stands.
async fn write(world: &Shared, held: &mut Ledger, next: Ledger, txns: TxnChanges) -> Result<(), LostHold> {
    write_over(world, Some((held.token, held.revision)), &next, txns).await?;
    world.borrow_mut().note(format!(
        "{} rev {} appended {} {} committed {}",
        next.token.counter, next.revision, next.appended, next.appended_to, next.committed
    ));
    *held = next;
    Ok(())
}

async fn write_over(
    world: &Shared,
    expected: Option<(stratus_seam::ids::Token, u64)>,
    next: &Ledger,
    txns: TxnChanges,
) -> Result<(), LostHold> {
    for _ in 0..5 {
        let (record, changes) = (next.clone(), txns.clone());
        match call(world, move |store, broken| store.write(expected, &record, &changes, broken)).await {
            Ok(true) => return Ok(()),
            Ok(false) => {
                let ours = look(world, |world| world.store.ledger.as_ref() == Some(next)).await;
                return if ours { Ok(()) } else { Err(LostHold) };
            }
            Err(Lost) => {}
        }
    }
    Err(LostHold)
}

async fn take_over(world: &Shared) -> Result<(Hold, Vec<Txn>), LostHold> {
    let found = look(world, |world| world.store.ledger.clone()).await;
    let mut shards = Vec::new();
    for shard in 0..SHARDS {
        shards.push(
            look(world, |world| {
                let held = world.store.shards.get(&shard)?;
                let mut keys: BTreeMap<Scope, u64> = BTreeMap::new();
                for (scope, _) in held.states.keys() {
                    *keys.entry(*scope).or_default() += 1;
                }
                Some((held.meta.clone(), keys))
            })
            .await,
        );
    }
    let txns: Vec<Txn> = look(world, |world| world.store.txns.values().cloned().collect()).await;
    let views = look(world, |world| {
        let cuts = |view: ViewId| -> Vec<(OffsetVector, Generation)> {
            world.versions(view).iter().map(|version| (version.cut.clone(), version.generation)).collect()
        };
        world.views.iter().map(|view| (*view, cuts(*view))).collect::<BTreeMap<_, _>>()
    })
    .await;
    let (log, end, start) =
        look(world, |world| (world.log_id.clone(), world.end(), world.start.clone())).await;
    let facts = Facts {
        ledger: found.as_ref(),
        shards: &shards,
        txns: &txns,
        engine: ENGINE,
        views: &views,
        source_log: &log,
        source_start: &start,
        log: &log,
        end: &end,
        unreadable: None,
        shard_count: SHARDS,
    };
    let highest = shards.iter().flatten().map(|(meta, _)| meta.token.counter).max().unwrap_or(0);
    let plan = recovery::plan(&facts);
    world.borrow_mut().note(format!("{plan:?}"));
    let (next, changes, replay) = match (plan, &found) {
        (Plan::Resume { replay }, Some(ledger)) => {
            let replay = txns.iter().filter(|txn| txn.txid >= replay).cloned().collect();
            (ledger.take_over(highest), TxnChanges::default(), replay)
        }
        (Plan::Stop { reason }, _) => panic!("nothing takes the log back here: {reason}"),
        _ => {
            world.borrow_mut().generations += 1;
            {
                let mut begun = recovery::begin(&facts, "model");
                if world.borrow().broken == Break::Target {
                    begun.target = OffsetVector::zero();
                }
                if world.borrow().broken == Break::Start {
                    begin_at_zero(&mut begun, &views);
                }
                (begun, TxnChanges { forget_all: true, ..TxnChanges::default() }, Vec::new())
            }
        }
    };
    let expected = found.as_ref().map(|ledger| (ledger.token, ledger.revision));
    write_over(world, expected, &next, changes).await?;
    let mut hold = Hold { ledger: next, txids: Vec::new(), scopes: Vec::new() };
    for (shard, meta) in (0..).zip(shards.iter().map(|found| found.as_ref().map(|(meta, _)| meta))) {
        claim(world, &mut hold, shard, meta).await?;
    }
    Ok((hold, replay))
}

/// A view without a version begins where the log does, and not where the source does.
fn begin_at_zero(begun: &mut Ledger, views: &BTreeMap<ViewId, Vec<(OffsetVector, Generation)>>) {
    for (view, epochs) in &mut begun.views {
        if views[view].is_empty() {
            epochs.epochs[0].from = OffsetVector::zero();
            begun.start = OffsetVector::zero();
        }
    }
    begun.appended_to = begun.start.clone();
    begun.committed_to = begun.start.clone();
}

async fn claim(
    world: &Shared,
    hold: &mut Hold,
    shard: u32,
    meta: Option<&ShardMeta>,
) -> Result<(), LostHold> {
    let (generation, token) = (hold.ledger.generation, hold.ledger.token);
    let seen = meta.map(|meta| (meta.generation, meta.token));
    if !call(world, move |store, _| store.claim(shard, seen, generation, token)).await? {
        return Err(LostHold);
    }
    let kept = meta.filter(|meta| meta.generation == generation);
    hold.txids.push(kept.map_or(0, |meta| meta.txid));
    hold.scopes.extend(kept.iter().flat_map(|meta| meta.rows.keys().copied()));
    Ok(())
}

async fn process(world: &Shared, hold: &mut Hold, txn: &Txn) -> Result<(), LostHold> {
    for shard in 0..SHARDS {
        let (held, generation, token) =
            (hold.txids[shard as usize], hold.ledger.generation, hold.ledger.token);
        if held >= txn.txid && world.borrow().broken != Break::CompareAndSet {
            continue;
        }
        let mut commit = ShardCommit {
            shard,
            generation,
            token,
            txid: txn.txid,
            attempt: txn.attempt,
            changes: Vec::new(),
        };
        for (view, epoch) in &txn.feeds {
            let header =
                hold.ledger.views.get(view).and_then(|v| v.epochs.iter().find(|e| e.number == *epoch));
            let Some(header) = header else { continue };
            let scope = Scope { view: *view, epoch: *epoch };
            for (key, added) in batch(world, txn, *view, &header.from, shard) {
                let before = look(world, |world| {
                    let held = world.store.shards.get(&shard);
                    held.and_then(|held| held.states.get(&(scope, key.clone())).cloned())
                })
                .await;
                let after = before.as_ref().map_or(0, |state| number(state)) + added;
                commit.changes.push(Change { scope, key, before, after: format!("[{after}]") });
            }
        }
        hold.scopes.extend(commit.changes.iter().map(|change| change.scope));
        let mut settled = false;
        for _ in 0..5 {
            let offered = commit.clone();
            match call(world, move |store, broken| store.commit(&offered, broken)).await {
                Ok(Ok(_)) => {
                    settled = true;
                    break;
                }
                Ok(Err(_)) => return Err(LostHold),
                Err(Lost) => {}
            }
        }
        if !settled {
            return Err(LostHold);
        }
        hold.txids[shard as usize] = txn.txid;
    }
    if hold.ledger.committed < txn.txid {
        let next = hold.ledger.commit(txn, &BTreeMap::new()).map_err(|_| LostHold)?;
        write(world, &mut hold.ledger, next, TxnChanges::default()).await?;
    }
    Ok(())
}

/// What a batch adds to each key of one shard.
fn batch(world: &Shared, txn: &Txn, view: ViewId, from: &OffsetVector, shard: u32) -> BTreeMap<String, u64> {
    let world = world.borrow();
    let mut added = BTreeMap::new();
    for (partition, range) in &txn.ranges {
        for offset in range.from.max(from.get(*partition))..range.to {
            let event = world.log[*partition as usize][offset as usize];
            let key = format!("[{event}]");
            if world.counts(view, event) && shard_of(&key, SHARDS) == shard {
                *added.entry(key).or_default() += 1;
            }
        }
    }
    added
}

pub fn number(state: &str) -> u64 {
    state.trim_matches(['[', ']']).parse().unwrap()
}

async fn keep_house(world: &Shared, hold: &mut Hold) -> Result<(), LostHold> {
    let views = look(world, |world| world.views.clone()).await;
    for view in views.iter().filter(|view| !hold.ledger.views.contains_key(view)).copied().collect::<Vec<_>>()
    {
        let next = hold.ledger.add_view(view);
        write(world, &mut hold.ledger, next, TxnChanges::default()).await?;
    }
    for request in look(world, |world| world.store.requests.clone()).await {
        let cut = |view: &ViewId| {
            let epochs = hold.ledger.views.get(view);
            epochs.is_none_or(|epochs| epochs.epochs.iter().any(|epoch| epoch.request == Some(request.id)))
        };
        let open: Vec<ViewId> = request.views.iter().filter(|view| !cut(view)).copied().collect();
        if !open.is_empty() {
            let next = hold.ledger.cut(&open, request.id).map_err(|_| LostHold)?;
            write(world, &mut hold.ledger, next, TxnChanges::default()).await?;
        }
        call(world, move |store, _| store.requests.retain(|other| other.id != request.id)).await?;
    }
    let pins = look(world, |world| world.store.pins.clone()).await;
    for view in views {
        let (cuts, now) = look(world, |world| {
            let cuts: Vec<OffsetVector> =
                world.versions(view).iter().map(|version| version.cut.clone()).collect();
            (cuts, world.now)
        })
        .await;
        if let Some(floor) = retention::disposable(&hold.ledger, view, &cuts, &pins, now) {
            let next = hold.ledger.raise_floor(view, floor).map_err(|_| LostHold)?;
            write(world, &mut hold.ledger, next, TxnChanges::default()).await?;
        }
    }
    let (pins, now) = look(world, |world| (world.store.pins.clone(), world.now)).await;
    let gone = retention::gone(&hold.ledger, &hold.scopes, &pins, now);
    if !gone.is_empty() {
        for shard in 0..SHARDS {
            let (generation, token, scopes) = (hold.ledger.generation, hold.ledger.token, gone.clone());
            if !call(world, move |store, _| store.drop_scopes(shard, generation, token, &scopes)).await? {
                return Err(LostHold);
            }
        }
        hold.scopes.retain(|scope| !gone.contains(scope));
    }
    Ok(())
}
