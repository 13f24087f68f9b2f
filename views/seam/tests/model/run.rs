//! Batch runs: a cut, a recount below it, a publication. They may be in flight while anything happens. And the
//! sweeping of versions that no reader can choose any more.

use rand::Rng;
use stratus_seam::catalog::{Action, Commit, RunKind, Version};
use stratus_seam::ids::{Generation, ViewId};
use stratus_seam::ledger::Ledger;
use stratus_seam::offsets::OffsetVector;
use stratus_seam::retention::retirable;
use stratus_seam::store::CutRequest;
use uuid::Uuid;

use crate::world::{Shared, call, look, step};

pub async fn recompute(world: Shared) {
    loop {
        step().await;
        let view = {
            let world = &mut *world.borrow_mut();
            let index = world.random.random_range(0..world.views.len());
            world.views[index]
        };
        let Some((cut, generation)) = cut(&world, view).await else { continue };
        // Computed at once, published whenever.
        let (states, parent) = look(&world, |world| {
            (world.recount(view, &cut), world.versions(view).last().map(|version| version.number))
        })
        .await;
        let in_flight = world.borrow_mut().random.random_range(0..20);
        for _ in 0..in_flight {
            step().await;
        }
        let number = parent.unwrap_or(0) + 1;
        let version = Version {
            view,
            number,
            parent,
            cut,
            generation,
            fingerprint: String::new(),
            descriptor: serde_json::Value::Null,
            files: Vec::new(),
            kind: RunKind::Full,
            groups: 0,
            events: 0,
            failed_rows: 0,
            published_ms: 0,
            took_ms: 0,
            run: None,
        };
        let commit = Commit { id: Uuid::new_v4(), at_ms: 0, actions: vec![Action::PublishVersion(version)] };
        step().await;
        let world = &mut *world.borrow_mut();
        if let Ok(next) = world.catalog.apply(&commit) {
            world.note(format!("version {number} published"));
            world.catalog = next;
            world.published.insert((view, number), states);
        }
    }
}

/// Retires versions by the product's own decision, and removes their states at once: the shortest grace there is.
pub async fn sweep(world: Shared) {
    loop {
        let seen = look(&world, |world| world.store.ledger.clone()).await;
        let Some(ledger) = seen else { continue };
        step().await;
        let world = &mut *world.borrow_mut();
        for view in world.views.clone() {
            let numbers = retirable(&ledger, view, &world.versions(view));
            if numbers.is_empty() {
                continue;
            }
            let actions = vec![Action::RetireVersions { view, numbers: numbers.clone() }];
            world.catalog = world.catalog.apply(&Commit { id: Uuid::new_v4(), at_ms: 0, actions }).unwrap();
            world.note(format!("versions {numbers:?} retired"));
            for number in numbers {
                world.retired += 1;
                world.published.remove(&(view, number));
            }
        }
    }
}

async fn cut(world: &Shared, view: ViewId) -> Option<(OffsetVector, Generation)> {
    let (ledger, cuts) = look(world, |world| {
        let cuts: Vec<OffsetVector> =
            world.versions(view).iter().map(|version| version.cut.clone()).collect();
        (world.store.ledger.clone(), cuts)
    })
    .await;
    let ledger = ledger?;
    let epochs = ledger.views.get(&view)?;
    if cuts.iter().all(|cut| epochs.chain(cut).is_none()) {
        let first = epochs.epochs.first()?;
        if cuts.last().is_none_or(|newest| first.from.covers(newest)) {
            return Some((first.from.clone(), ledger.generation));
        }
    }
    let id = Uuid::new_v4();
    call(world, move |store, _| store.requests.push(CutRequest { id, views: vec![view] })).await.ok()?;
    for _ in 0..200 {
        let answer =
            look(world, |world| world.store.ledger.as_ref().and_then(|ledger| answer(ledger, view, id)))
                .await;
        if answer.is_some() {
            return answer;
        }
    }
    None
}

fn answer(ledger: &Ledger, view: ViewId, request: Uuid) -> Option<(OffsetVector, Generation)> {
    let epochs = &ledger.views.get(&view)?.epochs;
    let epoch = epochs.iter().find(|epoch| epoch.request == Some(request))?;
    Some((epoch.from.clone(), ledger.generation))
}
