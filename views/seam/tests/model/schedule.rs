//! Who goes next, who dies, and what is lost.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};

use rand::Rng;
use stratus_seam::catalog::{Action, Commit, Connector, Source, ViewDefinition};
use stratus_seam::ids::ViewId;
use uuid::Uuid;

use crate::coordinator::coordinate;
use crate::reader::read;
use crate::run::{recompute, sweep};
use crate::world::{Break, SHARDS, Shared, Store, World};

pub enum Outcome {
    Right { answers: u64, generations: u64, retired: u64 },
    Wrong(String),
}

type Actor = Pin<Box<dyn Future<Output = ()>>>;

/// Steps of one schedule.
const STEPS: u32 = 1_200;

pub fn explore(seed: u64, broken: Break) -> Outcome {
    let world: Shared = Rc::new(RefCell::new(World::new(seed, broken)));
    add_source(&world);
    add_view(&world);
    let mut coordinators: Vec<Actor> = vec![Box::pin(coordinate(Rc::clone(&world)))];
    let mut others: Vec<Actor> = Vec::new();
    for _ in 0..2 {
        others.push(Box::pin(recompute(Rc::clone(&world))));
        others.push(Box::pin(read(Rc::clone(&world))));
    }
    others.push(Box::pin(sweep(Rc::clone(&world))));
    let mut snapshots: Vec<Store> = Vec::new();
    for at in 0..STEPS {
        disturb(&world, at, &mut coordinators, &mut snapshots);
        let pick = world.borrow_mut().random.random_range(0..coordinators.len() * 2 + others.len());
        let actor = match pick.checked_sub(coordinators.len() * 2) {
            None => &mut coordinators[pick / 2],
            Some(other) => &mut others[other],
        };
        // Every actor goes on for ever; it waits only for its turn.
        let polled = actor.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        let wrong = world.borrow_mut().wrong.take();
        if let Some(what) = wrong {
            let history = world.borrow().history.join("\n  ");
            return Outcome::Wrong(format!("{what}\n  {history}"));
        }
    }
    let world = world.borrow();
    Outcome::Right { answers: world.answers, generations: world.generations, retired: world.retired }
}

/// Events come, time passes, processes die, stores lose.
fn disturb(world: &Shared, at: u32, coordinators: &mut Vec<Actor>, snapshots: &mut Vec<Store>) {
    let mut held = world.borrow_mut();
    let world_now = &mut *held;
    world_now.now += 1;
    if world_now.random.random_bool(0.05) && world_now.log.iter().map(Vec::len).sum::<usize>() < 60 {
        let partition = world_now.random.random_range(0..world_now.log.len());
        let key = world_now.random.random_range(0..5);
        world_now.log[partition].push(key);
    }
    // A partition that is added is read from its first event on.
    if world_now.random.random_bool(0.001) && world_now.log.len() < 4 {
        world_now.log.push(Vec::new());
    }
    if !world_now.late.is_empty() && world_now.random.random_bool(0.1) {
        let index = world_now.random.random_range(0..world_now.late.len());
        let effect = world_now.late.swap_remove(index);
        effect(&mut world_now.store, world_now.broken);
    }
    if world_now.random.random_bool(0.01) && snapshots.len() < 4 {
        snapshots.push(world_now.store.clone());
    }
    // The rarer the losses, the longer the histories between them.
    if !snapshots.is_empty() && world_now.random.random_bool(0.003) {
        let index = world_now.random.random_range(0..snapshots.len());
        lose(world_now, snapshots.swap_remove(index));
    }
    let dies = world_now.random.random_bool(0.004);
    let another = world_now.random.random_bool(0.004) && coordinators.len() < 3;
    let second_view = at == 300 && world_now.views.len() == 1;
    let victim = world_now.random.random_range(0..coordinators.len());
    drop(held);
    if another {
        coordinators.push(Box::pin(coordinate(Rc::clone(world))));
    }
    if dies {
        drop(coordinators.swap_remove(victim));
        if coordinators.is_empty() {
            coordinators.push(Box::pin(coordinate(Rc::clone(world))));
        }
    }
    if second_view {
        add_view(world);
    }
}

/// The store, or a part of it, goes back to an earlier state, or to nothing.
fn lose(world: &mut World, earlier: Store) {
    let kind = world.random.random_range(0..6);
    world.note(format!("loss {kind}"));
    match kind {
        0 | 1 => world.store = earlier,
        2 => world.store = Store::default(),
        3 => {
            let shard = world.random.random_range(0..SHARDS);
            match earlier.shards.get(&shard) {
                Some(held) => world.store.shards.insert(shard, held.clone()),
                None => world.store.shards.remove(&shard),
            };
        }
        4 => {
            world.store.ledger = earlier.ledger;
            world.store.txns = earlier.txns;
        }
        _ => {
            let shard = world.random.random_range(0..SHARDS);
            if let Some(held) = world.store.shards.get_mut(&shard)
                && let Some(key) = held.states.keys().next().cloned()
            {
                held.states.remove(&key);
            }
        }
    }
}

fn add_source(world: &Shared) {
    let world = &mut *world.borrow_mut();
    let source = Source {
        id: world.source,
        name: "events".into(),
        columns: Vec::new(),
        connector: Connector::Directory,
        options: Default::default(),
        log: world.log_id.clone(),
        start: world.start.clone(),
    };
    apply(world, Action::CreateSource(source));
}

fn add_view(world: &Shared) {
    let world = &mut *world.borrow_mut();
    let id = ViewId::new();
    let view = ViewDefinition {
        id,
        name: format!("view{}", world.views.len()),
        source: world.source,
        dimensions: Default::default(),
        sql: String::new(),
        options: Default::default(),
        created_ms: 0,
    };
    apply(world, Action::CreateView(view));
    world.views.push(id);
}

fn apply(world: &mut World, action: Action) {
    let commit = Commit { id: Uuid::new_v4(), at_ms: 0, actions: vec![action] };
    world.catalog = world.catalog.apply(&commit).unwrap();
}
