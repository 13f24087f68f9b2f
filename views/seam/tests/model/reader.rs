//! A reader: pin, choose, page, settle, look again; then its answer against the recount.

use std::collections::BTreeMap;

use rand::Rng;
use stratus_seam::ids::{Generation, ViewId};
use stratus_seam::ledger::Ledger;
use stratus_seam::offsets::OffsetVector;
use stratus_seam::reading::{Choice, as_of, choose, settle, still_holds, usable_page};
use stratus_seam::store::Pin;
use uuid::Uuid;

use crate::coordinator::number;
use crate::world::{Break, SHARDS, Shared, by_number, call, look, step};

pub async fn read(world: Shared) {
    loop {
        step().await;
        let view = {
            let world = &mut *world.borrow_mut();
            let index = world.random.random_range(0..world.views.len());
            world.views[index]
        };
        // A reader that remembers falls behind nothing that was shown before its query began. One in a new process
        // remembers nothing: the target keeps it from falling behind what was shown in an earlier generation. (A
        // store that goes back as a whole, and with it the ledger, may show it an older answer until somebody who
        // remembers has noticed.)
        let (before, remembers) = {
            let world = &mut *world.borrow_mut();
            (world.shown.clone(), world.random.random_bool(0.5))
        };
        let shown = match remembers {
            true => before.values().fold(OffsetVector::zero(), |all, shown| all.join(shown)),
            false => OffsetVector::zero(),
        };
        let Some((generation, vector, counts)) = query(&world, view, &shown).await else { continue };
        let world = &mut *world.borrow_mut();
        let want = world.recount(view, &vector);
        if counts != want && world.wrong.is_none() {
            world.wrong = Some(format!("at {vector} the answer is {counts:?}, the recount {want:?}"));
        }
        let older =
            before.iter().find(|(of, shown)| (remembers || **of < generation) && !vector.covers(shown));
        if let Some((_, shown)) = older
            && world.wrong.is_none()
        {
            world.wrong = Some(format!("an answer at {vector} after one at {shown}"));
        }
        let highest = world.shown.entry(generation).or_default();
        *highest = highest.join(&vector);
        world.answers += 1;
    }
}

/// The ledger, what was chosen, and the number of the chosen version.
async fn look_and_choose(
    world: &Shared,
    view: ViewId,
    shown: &OffsetVector,
) -> Option<(Ledger, Choice, u32)> {
    let (ledger, versions) = look(world, |world| (world.store.ledger.clone(), world.versions(view))).await;
    let ledger = ledger?;
    let broken = world.borrow().broken;
    let cuts: Vec<OffsetVector> = versions.iter().map(|version| version.cut.clone()).collect();
    let mut choice = choose(&ledger, view, &cuts, shown).ok()?;
    if broken == Break::Numbers {
        let newest = versions.last()?;
        let epoch = by_number(&ledger, view, newest.number)?;
        let epochs = &ledger.views[&view].epochs;
        choice.version = versions.len() - 1;
        choice.chain = epochs.iter().filter(|header| header.number >= epoch).cloned().collect();
    }
    let version = versions.get(choice.version)?.number;
    Some((ledger, choice, version))
}

async fn query(
    world: &Shared,
    view: ViewId,
    shown: &OffsetVector,
) -> Option<(Generation, OffsetVector, BTreeMap<String, u64>)> {
    let broken = world.borrow().broken;
    let (_, first, _) = look_and_choose(world, view, shown).await?;
    let pin = Pin {
        id: Uuid::new_v4(),
        view,
        epoch: first.chain.first()?.number,
        until_ms: world.borrow().now + 40,
    };
    let id = pin.id;
    if broken != Break::Floor {
        call(world, move |store, _| store.pins.push(pin)).await.ok()?;
    }
    let (ledger, choice, version) = look_and_choose(world, view, shown).await?;
    let answer = collect(world, view, &ledger, &choice, version, broken).await;
    // A reader that dies does not take its pin back.
    if world.borrow_mut().random.random_bool(0.9) {
        _ = call(world, move |store, _| store.pins.retain(|pin| pin.id != id)).await;
    }
    answer
}

async fn collect(
    world: &Shared,
    view: ViewId,
    ledger: &Ledger,
    choice: &Choice,
    version: u32,
    broken: Break,
) -> Option<(Generation, OffsetVector, BTreeMap<String, u64>)> {
    let scopes = choice.scopes(view);
    let mut counts = world.borrow().published.get(&(view, version))?.clone();
    for shard in 0..SHARDS {
        let (stand, missing, pages) = look(world, |world| world.store.page(shard, &scopes)).await;
        let paged = match broken {
            Break::Stand | Break::Token => choice.txid,
            _ => usable_page(ledger.generation, ledger.token, choice.txid, stand, missing).ok()?,
        };
        let mut tail = look(world, |world| world.store.tail(shard, choice.txid, &scopes)).await?;
        match broken {
            Break::Undo => tail.undo.clear(),
            Break::Token => tail.meta.token = ledger.token,
            Break::Floor => tail.meta.floors.clear(),
            _ => {}
        }
        settle(ledger.generation, ledger.token, choice.txid, paged, Some(&tail), &scopes).ok()?;
        for rows in as_of(pages, &tail).into_values() {
            for (key, state) in rows {
                *counts.entry(key).or_default() += number(&state);
            }
        }
    }
    let after = look(world, |world| world.store.ledger.clone()).await;
    if broken != Break::Floor && broken != Break::Token {
        still_holds(ledger, after.as_ref(), view, choice.chain.first()?.number).ok()?;
    }
    Some((ledger.generation, choice.vector.clone(), counts))
}
