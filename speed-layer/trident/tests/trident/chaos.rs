//! The test that Storm never had: anything may fail, panic, take longer than anybody waits, be done when it was long
//! given up, or be killed at any moment, and the counts are exact at the end, for every pair of spout and state that is
//! promised to be exactly once together; and a pair that is not promised is seen to be wrong.
//!
//! Each run has a thread and a clock of its own, which moves when nothing else does: minutes pass in milliseconds,
//! and a seed replays its run.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use arrow::datatypes::DataType;
use async_trait::async_trait;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::{Serialize, de::DeserializeOwned};
use stratus_seam::{
    ids::SourceId,
    log::Log,
    offsets::OffsetVector,
    store::{LedgerStore, StateStore},
};
use stratus_state::memory::MemoryStore;
use stratus_topology::{LocalCluster, TaskContext, TaskError, fields};
use stratus_trident::{
    Count, LogSpout, MapState, MemoryMap, NonTransactionalMap, OpaqueMap, OpaqueValue, Pace, Records, State,
    StateFactory, StateKind, Stream, TransactionalMap, TransactionalValue, Translator, TridentCollector,
    TridentSpout, TridentTopology, TridentTuple,
};

use crate::{
    emitted::Emitted,
    faults::{Fault, Faults, FaultyLedger, FaultyLog, FaultyMap, LONGEST, faulty_spout},
    memory_log::{Lines, MemoryLog},
    recutting::RecuttingSpout,
};

/// Makes states over one map, of the kind that `make` makes.
struct Maps<T, S> {
    map: FaultyMap<T>,
    kind: StateKind,
    make: fn(FaultyMap<T>) -> S,
}

#[async_trait]
impl<T: Clone + Send + Sync + 'static, S: State> StateFactory for Maps<T, S> {
    type State = S;

    fn kind(&self) -> StateKind {
        self.kind
    }

    async fn make(&self, _context: &TaskContext, _partition: usize, _count: usize) -> Result<S, TaskError> {
        Ok((self.make)(self.map.clone()))
    }
}

fn topology<T: Clone + Send + Sync + 'static, S: MapState<i64>>(
    spouts: Vec<Box<dyn TridentSpout>>,
    maps: Maps<T, S>,
    faults: Faults,
) -> TridentTopology {
    let topology = TridentTopology::new().pace(Pace { max_pending: 4, interval: Duration::from_millis(1) });
    let emission = faults.clone();
    let split = move |tuple: TridentTuple<'_>, out: &mut TridentCollector| {
        match faults.next() {
            Fault::None | Fault::Half | Fault::Slow(_) => {}
            Fault::Panic => panic!("while splitting"),
            _ => return Err("splitting failed".into()),
        }
        tuple.get::<&str>(0)?.split(' ').try_for_each(|word| out.emit((word,)))
    };
    let streams = spouts.into_iter().enumerate().map(|(at, spout)| {
        let spout = faulty_spout(spout, emission.clone());
        topology.new_stream(&format!("lines-{at}"), spout).parallelism_hint(2).shuffle()
    });
    let mut streams: Vec<Stream> = streams.collect();
    let first = streams.remove(0);
    let lines = match streams.is_empty() {
        true => first,
        false => first.merge(&streams.iter().collect::<Vec<_>>()),
    };
    let _state = lines
        .each(&["line"], split, fields([("word", DataType::Utf8)]))
        .parallelism_hint(2)
        .group_by(&["word"])
        .persistent_aggregate(maps, &[], Count, "count")
        .parallelism_hint(2);
    topology
}

/// How batches are cut when they are tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cutting {
    /// As [`LogSpout::transactional`] does.
    Transactional,
    /// As [`LogSpout::opaque`] does.
    Opaque,
    /// With other records each time.
    Anew,
    /// As [`LogSpout::transactional`] does, from two logs with a ledger each.
    OfTwo,
    /// Likewise, but the second comes later, before or behind the first, when its log is well filled.
    Joined,
    /// As [`LogSpout::transactional`] does, with a ledger whose store loses its end, or everything, while the process
    /// lives.
    Forgetful,
}

/// The pairs that are tried.
trait Pair {
    type Stored: Clone + Serialize + DeserializeOwned + Send + Sync + 'static;
    type State: MapState<i64>;
    const KIND: StateKind;
    fn make(map: FaultyMap<Self::Stored>) -> Self::State;
    fn value(stored: &Self::Stored) -> i64;
}

macro_rules! pairs {
    ($($name:ident: $kind:ident, $stored:ty, $state:ident, $value:expr;)*) => {$(
        struct $name;

        impl Pair for $name {
            type Stored = $stored;
            type State = $state<i64, FaultyMap<$stored>>;
            const KIND: StateKind = StateKind::$kind;

            fn make(map: FaultyMap<$stored>) -> Self::State {
                $state::new(map)
            }

            fn value(stored: &$stored) -> i64 {
                let value: fn(&$stored) -> i64 = $value;
                value(stored)
            }
        }
    )*};
}

pairs! {
    Opaque: Opaque, OpaqueValue<i64>, OpaqueMap, |stored| *stored.current();
    Transactional: Transactional, TransactionalValue<i64>, TransactionalMap, |stored| stored.1;
    Plain: NonTransactional, i64, NonTransactionalMap, |stored| *stored;
}

/// One run: whether every count is right at its end; and how many transactions had attempts that were not alike, or how
/// often the ledger was lost.
async fn run<P: Pair>(seed: u64, kind: Cutting) -> (bool, usize) {
    let mut rng = StdRng::seed_from_u64(seed);
    let faults = Faults::new(seed, rng.random_range(5..30), rng.random_range(4..40));
    let log = MemoryLog::new(3);
    let (store, id) = (MemoryStore::new(), SourceId::new());
    let state = store.source(id).await.unwrap();
    let (other_log, other_state) = (MemoryLog::new(2), store.source(SourceId::new()).await.unwrap());
    let map = FaultyMap::new(MemoryMap::default(), faults.clone());
    let (emitted, patience) = (Emitted::default(), Duration::from_secs(600));
    let recutting = RecuttingSpout::new(log.clone(), seed);
    let mut expected: BTreeMap<String, i64> = BTreeMap::new();
    let (mut lives, mut losses) = (0, 0);
    let mut lines = 0;
    let (joins_at, place) = (rng.random_range(20..100), rng.random_range(0..2));
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        // One life of the process: what it remembers goes with it, what it has stored stays.
        let ledger: Arc<dyn LedgerStore> = Arc::new(FaultyLedger(Arc::clone(&state.ledger), faults.clone()));
        let log_again: Arc<dyn Log> = Arc::new(FaultyLog(log.clone(), faults.clone()));
        let maps = Maps { map: map.again(faults.clone()), kind: P::KIND, make: P::make };
        let bytes = rng.random_range(20..400);
        let mut spouts: Vec<Box<dyn TridentSpout>> = vec![match kind {
            Cutting::Anew => Box::new(recutting.clone()),
            Cutting::Opaque => {
                Box::new(emitted.watch(LogSpout::opaque(log_again, ledger, Lines).max_bytes(bytes)))
            }
            Cutting::Transactional | Cutting::OfTwo | Cutting::Joined | Cutting::Forgetful => {
                Box::new(LogSpout::transactional(log_again, ledger, Lines).max_bytes(bytes))
            }
        }];
        // Once it is there it stays.
        let has_second = match kind {
            Cutting::OfTwo => true,
            Cutting::Joined => lines >= joins_at,
            _ => false,
        };
        if has_second {
            let ledger = Arc::new(FaultyLedger(Arc::clone(&other_state.ledger), faults.clone()));
            let log = Arc::new(FaultyLog(other_log.clone(), faults.clone()));
            let other = LogSpout::transactional(log, ledger, Lines).max_bytes(bytes);
            spouts.insert(place, Box::new(other));
        }
        let topology = topology(spouts, maps, faults.clone());
        let plan = topology.build().unwrap();
        let cluster = LocalCluster::new();
        cluster.submit("chaos", plan.topology).unwrap();
        lives += 1;
        // What the ledger may go back to: nothing, the end of the life before, and whatever it is in this one.
        let revision = async || state.ledger.read().await.unwrap().map_or(0, |ledger| ledger.revision);
        let (mut earlier, mut before_the_loss) = (vec![MemoryStore::new().snapshot()], 0);
        // Once it has emitted a batch, the process knows the ledger.
        let knows = || {
            let metrics = cluster.metrics("chaos").unwrap();
            metrics.components["$mastercoord-bg0"].outputs["$batch"].emitted > 0
        };
        for _ in 0..rng.random_range(1..12) {
            if kind == Cutting::Forgetful {
                earlier.push(store.snapshot());
                if knows() && rng.random_ratio(1, 3) && !faults.are_over() {
                    before_the_loss = revision().await.max(before_the_loss);
                    store.restore_ledger(id, &earlier[rng.random_range(0..earlier.len())]);
                    losses += 1;
                }
            }
            if lines < 120 {
                for _ in 0..rng.random_range(1..10) {
                    let words: Vec<String> = (0..rng.random_range(1..6))
                        .map(|_| format!("w{}", rng.random_range(0..12)))
                        .collect();
                    words.iter().for_each(|word| *expected.entry(word.clone()).or_default() += 1);
                    if matches!(kind, Cutting::OfTwo | Cutting::Joined) && rng.random_ratio(1, 3) {
                        other_log.append(rng.random_range(0..2), &words.join(" "));
                    } else {
                        log.append(rng.random_range(0..3), &words.join(" "));
                    }
                    lines += 1;
                }
            }
            // Now and then for long enough that what hangs is given up.
            let pause = if rng.random_ratio(1, 40) { 60_000 } else { 8 };
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..pause))).await;
        }
        if (faults.are_over() && lines >= 120 || lives > 25) && (kind != Cutting::Joined || has_second) {
            faults.end();
            if kind == Cutting::Forgetful {
                // Who has nothing to write does not see that the store has lost something.
                log.append(0, "w0");
                *expected.entry("w0".to_owned()).or_default() += 1;
            }
            let end = log.end().await.unwrap();
            loop {
                let ledger = state.ledger.read().await.unwrap();
                let committed_to = match kind {
                    Cutting::Anew => Some(recutting.committed_to()),
                    _ => ledger.map(|ledger| ledger.committed_to),
                };
                let other = other_state.ledger.read().await.unwrap();
                let other_end = other_log.end().await.unwrap();
                let is_over = other_end == OffsetVector::zero()
                    || other.is_some_and(|ledger| ledger.committed_to.covers(&other_end));
                if committed_to.is_some_and(|to| to.covers(&end)) && is_over {
                    break;
                }
                assert!(
                    tokio::time::Instant::now() < deadline,
                    "seed {seed}: {:#?}",
                    cluster.metrics("chaos")
                );
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            cluster.kill("chaos", Duration::from_secs(1)).await.unwrap();
            break;
        }
        if before_the_loss > 0 {
            // Were the process to end now, nobody would know. Who has nothing to write does not see what is lost.
            log.append(0, "w0");
            *expected.entry("w0".to_owned()).or_default() += 1;
            let is_whole = async || {
                let ledger = state.ledger.read().await.unwrap();
                let Some(ledger) = ledger.filter(|ledger| ledger.revision > before_the_loss) else {
                    return false;
                };
                let txns = state.ledger.txns(ledger.committed + 1).await.unwrap().len() as u64;
                ledger.appended - ledger.committed == txns
            };
            while !is_whole().await {
                assert!(tokio::time::Instant::now() < deadline, "seed {seed}: the ledger stays lost");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        cluster.kill("chaos", Duration::ZERO).await.unwrap();
        if kind == Cutting::Opaque && rng.random_bool(0.6) {
            let ledger = state.ledger.read().await.unwrap();
            let to = ledger.map_or_else(OffsetVector::zero, |ledger| ledger.committed_to);
            let end = log.end().await.unwrap();
            for partition in 0..3 {
                let earliest = to.get(partition) + rng.random_range(0..4);
                log.forget(partition as usize, earliest.min(end.get(partition)));
            }
        }
    }
    // What is late has happened then.
    tokio::time::sleep(LONGEST).await;
    let stored = map.entries();
    let found =
        stored.iter().map(|(key, stored)| (key.trim_matches(['[', ']', '"']).to_owned(), P::value(stored)));
    let found: BTreeMap<String, i64> = found.collect();
    match kind {
        Cutting::Opaque => {
            let words = emitted.words();
            let right = |word: &String| emitted.allowed(word).contains(found.get(word).unwrap_or(&0));
            (found.keys().all(|word| words.contains(word)) && words.iter().all(right), emitted.changed())
        }
        _ => (found == expected, losses),
    }
}

/// How many runs; more by hand: `TRIDENT_RUNS=5000 cargo test --workspace --test trident chaos`.
fn runs() -> u64 {
    std::env::var("TRIDENT_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(40)
}

/// Runs every seed, some at a time, each on a thread and a clock of its own; answers with those that were not exact, of
/// which `enough` are enough, and with how many transactions changed.
fn inexact<P: Pair>(kind: Cutting, seeds: std::ops::Range<u64>, enough: usize) -> (Vec<u64>, usize) {
    // What panics on purpose need not be told.
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.to_string();
        if !["while splitting", "while reading", "while emitting", "after writing"]
            .iter()
            .any(|purpose| text.contains(purpose))
        {
            eprintln!("{text}");
        }
    }));
    let next = Arc::new(AtomicU64::new(seeds.start));
    let told = Arc::new(Mutex::new((Vec::new(), 0)));
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (next, told, end) = (Arc::clone(&next), Arc::clone(&told), seeds.end);
            std::thread::spawn(move || {
                loop {
                    let seed = next.fetch_add(1, SeqCst);
                    if seed >= end || told.lock().unwrap().0.len() >= enough {
                        return;
                    }
                    let mut runtime = tokio::runtime::Builder::new_current_thread();
                    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
                    let (exact, changed) = runtime.block_on(run::<P>(seed, kind));
                    let mut told = told.lock().unwrap();
                    told.0.extend((!exact).then_some(seed));
                    told.1 += changed;
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().expect("a run came to no end"));
    std::mem::take(&mut *told.lock().unwrap())
}

fn are_exact<P: Pair>(kind: Cutting, seeds: std::ops::Range<u64>) {
    let (wrong, changed) = inexact::<P>(kind, seeds, usize::MAX);
    assert_eq!(wrong, Vec::<u64>::new());
    let loses = matches!(kind, Cutting::Opaque | Cutting::Forgetful);
    assert!(changed > 0 || !loses, "nothing was lost that mattered");
}

fn is_seen_to_be_wrong<P: Pair>(kind: Cutting, seeds: std::ops::Range<u64>) -> bool {
    !inexact::<P>(kind, seeds, 1).0.is_empty()
}

#[test]
fn a_transactional_spout_and_an_opaque_state_are_exactly_once() {
    are_exact::<Opaque>(Cutting::Transactional, 0..runs());
}

#[test]
fn a_transactional_spout_and_a_transactional_state_are_exactly_once() {
    are_exact::<Transactional>(Cutting::Transactional, 1_000..1_000 + runs());
}

#[test]
fn an_opaque_spout_and_an_opaque_state_are_exactly_once() {
    are_exact::<Opaque>(Cutting::Opaque, 2_000..2_000 + runs());
}

#[test]
fn spouts_that_share_their_batches_are_exactly_once() {
    are_exact::<Transactional>(Cutting::OfTwo, 6_000..6_000 + runs());
}

#[test]
fn a_spout_that_joins_later_is_exactly_once() {
    are_exact::<Transactional>(Cutting::Joined, 7_000..7_000 + runs());
}

#[test]
fn a_ledger_that_its_store_forgets_is_exactly_once() {
    are_exact::<Transactional>(Cutting::Forgetful, 8_000..8_000 + runs());
}

#[test]
fn a_state_without_a_promise_is_seen_to_be_wrong() {
    assert!(is_seen_to_be_wrong::<Plain>(Cutting::Transactional, 3_000..3_040));
}

#[test]
fn batches_that_change_and_a_transactional_state_are_seen_to_be_wrong() {
    assert!(is_seen_to_be_wrong::<Transactional>(Cutting::Anew, 4_000..4_100));
}

/// The hole in Storm's opaque states: a key that an attempt wrote and the next attempt lacks.
#[test]
fn batches_that_lose_keys_and_an_opaque_state_are_seen_to_be_wrong() {
    assert!(is_seen_to_be_wrong::<Opaque>(Cutting::Anew, 5_000..5_100));
}

#[test]
fn a_pair_without_a_promise_is_warned_of() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new(1));
    let store = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = stratus_state::open("memory", "").await.unwrap();
        store.source(SourceId::new()).await.unwrap()
    });
    let faults = Faults::new(0, 0, 1);
    let map = FaultyMap::new(MemoryMap::default(), faults.clone());
    let maps = Maps { map, kind: Transactional::KIND, make: Transactional::make };
    let spout = LogSpout::opaque(log, store.ledger, Lines);
    let plan = topology(vec![Box::new(spout)], maps, faults).build().unwrap();
    assert_eq!(
        plan.warnings,
        ["spout `lines-0` is Opaque and a state of it is Transactional: not exactly once"]
    );
    assert_eq!(Records.schema().fields().len(), 3);
}
