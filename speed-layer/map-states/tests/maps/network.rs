//! Words are counted in Redis behind a network that delays requests until long after the client has given them up, cuts
//! connections and swallows answers, while the process ends and begins again and the log loses records. So a write may
//! arrive when a later attempt at its transaction, with fewer records, has written already.
//!
//! More runs: `MAP_STATES_RUNS=50 cargo test --workspace --test maps network`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use stratus_map_states::{MapStore, RedisMaps};
use stratus_seam::{ids::SourceId, log::Log};
use stratus_servers::{
    proxy::{Harm, Proxy, Way},
    redis::Redis,
};
use stratus_topology::LocalCluster;
use stratus_trident::{LogSpout, SpoutKind, StateKind};

use crate::{
    chaos::{Faults, counts, mute_what_is_on_purpose, runs, topology, topology_of, until_done},
    emitted::Emitted,
    memory_log::{Lines, MemoryLog},
    stores::Place,
};

/// Harms so many pieces of a hundred.
fn harm(proxy: &Proxy, seed: u64, percent: u32, late: &Arc<AtomicU64>) {
    let (mut rng, late) = (StdRng::seed_from_u64(seed), Arc::clone(late));
    proxy.harm(move |way, _| {
        if rng.random_range(0..100) >= percent {
            return Harm::None;
        }
        match rng.random_range(0..5) {
            0 => Harm::Cut,
            1 => Harm::Mute,
            _ => {
                // Longer than the client waits, so that it arrives when nobody expects it any more.
                late.fetch_add(u64::from(way == Way::There), SeqCst);
                Harm::Delay(Duration::from_millis(rng.random_range(60..400)))
            }
        }
    });
}

#[derive(Default)]
struct Told {
    wrong: Vec<String>,
    late: u64,
    changed: usize,
}

/// One run, and what was wrong at its end. An opaque spout's log loses records.
async fn run(seed: u64, kind: SpoutKind, state: StateKind, told: &mut Told) -> Option<()> {
    let redis = Redis::begin()?;
    let proxy = Proxy::start(redis.port()).unwrap();
    let mut rng = StdRng::seed_from_u64(seed);
    let log = MemoryLog::new(3);
    let source = stratus_state::open("memory", "").await.unwrap().source(SourceId::new()).await.unwrap();
    let (faults, emitted) = (Faults::new(seed, rng.random_range(5..15)), Emitted::default());
    let (lives, late) = (rng.random_range(4..9), Arc::default());
    let mut appended: BTreeMap<String, i64> = BTreeMap::new();
    for life in 0..lives {
        proxy.harm(|_, _| Harm::None);
        let maps = connect(&proxy).await;
        let (log_again, ledger): (Arc<dyn Log>, _) = (Arc::new(log.clone()), Arc::clone(&source.ledger));
        let spout = match kind {
            SpoutKind::Opaque => LogSpout::opaque(log_again, ledger, Lines),
            _ => LogSpout::transactional(log_again, ledger, Lines),
        };
        let spout = emitted.watch(spout.max_bytes(rng.random_range(50..300)));
        let (tasks, cached) = (rng.random_range(1..4), [0, 3, 1_000][rng.random_range(0..3)]);
        let topology = topology_of(state, spout, &maps, cached, &faults, tasks);
        let cluster = LocalCluster::new();
        harm(&proxy, rng.random(), rng.random_range(5..40), &late);
        cluster.submit("network", topology.build().unwrap().topology).unwrap();
        drop((topology, maps));
        for _ in 0..rng.random_range(2..6) {
            for _ in 0..rng.random_range(1..15) {
                let words: Vec<String> =
                    (0..rng.random_range(1..5)).map(|_| format!("w{}", rng.random_range(0..8))).collect();
                words.iter().for_each(|word| *appended.entry(word.clone()).or_default() += 1);
                log.append(rng.random_range(0..3), &words.join(" "));
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..120))).await;
        }
        let is_last = life + 1 == lives;
        if is_last {
            faults.end();
            proxy.harm(|_, _| Harm::None);
            until_done(&log, source.ledger.as_ref(), &cluster, seed).await;
        }
        cluster.kill("network", if is_last { Duration::from_secs(1) } else { Duration::ZERO }).await.unwrap();
        if kind == SpoutKind::Opaque && !is_last && rng.random_bool(0.7) {
            let ledger = source.ledger.read().await.unwrap();
            let to = ledger.map(|ledger| ledger.committed_to).unwrap_or_default();
            for partition in 0..3 {
                let earliest = to.get(partition) + rng.random_range(0..4);
                let end = log.end().await.unwrap().get(partition);
                log.forget(partition as usize, earliest.min(end));
            }
        }
    }
    // What is still on its way arrives.
    tokio::time::sleep(Duration::from_millis(450)).await;
    let words: BTreeSet<String> = emitted.words().into_iter().chain(appended.keys().cloned()).collect();
    let keys: Vec<String> = words.iter().map(|word| format!("[\"{word}\"]")).collect();
    let found = counts(&redis.open().await, state, &keys).await;
    for (word, found) in words.iter().zip(found) {
        // Of a log that loses nothing everything is counted; of one that does, what was left of it for the last attempt.
        let allowed = match kind {
            SpoutKind::Opaque => emitted.allowed(word),
            _ => BTreeSet::from([appended[word]]),
        };
        if !allowed.contains(&found.unwrap_or(0)) {
            told.wrong.push(format!("seed {seed}: {word} is {found:?} and may be {allowed:?}"));
        }
    }
    told.late += late.load(SeqCst);
    told.changed += emitted.changed();
    Some(())
}

async fn connect(proxy: &Proxy) -> RedisMaps {
    let url = format!("redis://127.0.0.1:{}?timeout_ms=50", proxy.port());
    for _ in 0..100 {
        if let Ok(maps) = RedisMaps::open(&url).await {
            return maps;
        }
    }
    RedisMaps::open(&url).await.unwrap()
}

async fn are_exact(first: u64, kind: SpoutKind, state: StateKind) {
    mute_what_is_on_purpose();
    let mut told = Told::default();
    for seed in first..first + runs() {
        if run(seed, kind, state, &mut told).await.is_none() {
            return;
        }
    }
    println!("{} requests came late, {} transactions changed", told.late, told.changed);
    assert!(told.late > 0, "nothing came late: nothing of this was tested");
    assert!(told.changed > 0 || kind != SpoutKind::Opaque, "the log lost nothing that mattered");
    assert_eq!(told.wrong, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opaque_pair_is_exact_behind_a_bad_network() {
    are_exact(0, SpoutKind::Opaque, StateKind::Opaque).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transactional_pair_is_exact_behind_a_bad_network() {
    are_exact(1_000, SpoutKind::Transactional, StateKind::Transactional).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transactional_spout_and_an_opaque_state_are_exact_behind_a_bad_network() {
    are_exact(2_000, SpoutKind::Transactional, StateKind::Opaque).await;
}

/// The hole itself, without chance: a life ends while its write is held up, the log loses one of the batch's records, the
/// next life commits what is left, and then the write arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_its_network_held_up_changes_nothing() {
    mute_what_is_on_purpose();
    let Some(redis) = Redis::begin() else { return };
    let proxy = Proxy::start(redis.port()).unwrap();
    let log = MemoryLog::new(1);
    let source = stratus_state::open("memory", "").await.unwrap().source(SourceId::new()).await.unwrap();
    let begin = async || {
        let (log, ledger): (Arc<dyn Log>, _) = (Arc::new(log.clone()), Arc::clone(&source.ledger));
        let maps =
            RedisMaps::open(&format!("redis://127.0.0.1:{}?timeout_ms=300", proxy.port())).await.unwrap();
        let (spout, faults) = (LogSpout::opaque(log, ledger, Lines), Faults::new(0, 0));
        let cluster = LocalCluster::new();
        let topology = topology(spout, maps.opaque("counts"), &faults, 1);
        cluster.submit("network", topology.build().unwrap().topology).unwrap();
        cluster
    };
    let cluster = begin().await;
    log.append(0, "a");
    until_done(&log, source.ledger.as_ref(), &cluster, 0).await;
    // A commit asks what has been seen, asks for the values, and writes.
    let (asked, delay) = (Arc::new(AtomicU64::new(0)), Duration::from_secs(6));
    let counting = Arc::clone(&asked);
    proxy.harm(move |way, _| match way {
        Way::There if counting.fetch_add(1, SeqCst) == 2 => Harm::Delay(delay),
        _ => Harm::None,
    });
    let held_up = std::time::Instant::now();
    log.append_all(0, &["a", "a a"]);
    while asked.load(SeqCst) < 3 {
        assert!(held_up.elapsed() < Duration::from_secs(30), "{}", cluster.prometheus());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    cluster.kill("network", Duration::ZERO).await.unwrap();
    let ledger = source.ledger.read().await.unwrap().unwrap();
    assert_eq!((ledger.appended, ledger.committed), (2, 1), "it was cut off in its commit");
    log.forget(0, 2);
    let cluster = begin().await;
    until_done(&log, source.ledger.as_ref(), &cluster, 0).await;
    assert!(held_up.elapsed() < delay, "too slow: the write has arrived before the next life's");
    let key = ["[\"a\"]".to_owned()];
    let maps = redis.open().await;
    assert_eq!(
        counts(&maps, StateKind::Opaque, &key).await,
        [Some(3)],
        "one before, and two of what is left"
    );
    tokio::time::sleep(delay.saturating_sub(held_up.elapsed()) + Duration::from_millis(300)).await;
    assert_eq!(
        counts(&maps, StateKind::Opaque, &key).await,
        [Some(3)],
        "the late write was to change nothing"
    );
    // And so it stays when the next transaction goes on from there.
    log.append(0, "a");
    until_done(&log, source.ledger.as_ref(), &cluster, 0).await;
    cluster.kill("network", Duration::from_secs(1)).await.unwrap();
    assert_eq!(counts(&maps, StateKind::Opaque, &key).await, [Some(4)]);
}
