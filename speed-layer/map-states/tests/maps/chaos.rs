//! Words are counted while operations fail, the server is paused and killed, and the process ends and begins again with
//! another parallelism and another cache. The counts are exact at the end; those of a state without a promise are seen
//! to be wrong.
//!
//! More runs: `MAP_STATES_RUNS=50 cargo test -p stratus-map-states chaos`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use arrow::datatypes::DataType;
use rand::{Rng, SeedableRng, rngs::StdRng};
use stratus_map_states::{MapStore, RedisMaps};
use stratus_seam::{ids::SourceId, log::Log, store::LedgerStore};
use stratus_servers::redis::Redis;
use stratus_topology::{LocalCluster, fields};
use stratus_trident::{
    Count, LogSpout, MapState, OpaqueValue, Pace, StateFactory, StateKind, TransactionalValue,
    TridentCollector, TridentSpout, TridentTopology, TridentTuple,
};

use crate::{
    memory_log::{Lines, MemoryLog},
    stores::{File, Place, get},
};

/// A store that things happen to.
trait Harmed: Place {
    /// What happens to it while states use it; how long that takes is up to it.
    fn harm(&mut self, rng: &mut StdRng);

    /// So that a paused server is noticed soon.
    fn impatient(&self) -> impl Future<Output = Self::Maps> + Send;
}

impl Harmed for File {
    fn harm(&mut self, _rng: &mut StdRng) {}

    async fn impatient(&self) -> Self::Maps {
        self.open().await
    }
}

impl Harmed for Redis {
    fn harm(&mut self, rng: &mut StdRng) {
        match rng.random_range(0..6) {
            0 => self.restart().unwrap(),
            1 => {
                self.kill().unwrap();
                std::thread::sleep(Duration::from_millis(rng.random_range(0..150)));
                self.restart().unwrap();
            }
            2..4 => {
                self.pause().unwrap();
                std::thread::sleep(Duration::from_millis(rng.random_range(1..250)));
                self.resume().unwrap();
            }
            _ => {}
        }
    }

    async fn impatient(&self) -> Self::Maps {
        let url = format!("{}?timeout_ms=100", self.url());
        // It may be slower than that just after its start.
        for _ in 0..100 {
            if let Ok(maps) = RedisMaps::open(&url).await {
                return maps;
            }
        }
        RedisMaps::open(&url).await.unwrap()
    }
}

/// Failures of the operation before the state and behind it.
#[derive(Clone)]
pub(crate) struct Faults {
    rng: Arc<Mutex<StdRng>>,
    left: Arc<AtomicU64>,
}

impl Faults {
    pub(crate) fn new(seed: u64, count: u64) -> Self {
        Self { rng: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))), left: Arc::new(AtomicU64::new(count)) }
    }

    /// Nothing fails any more.
    pub(crate) fn end(&self) {
        self.left.store(0, SeqCst);
    }

    fn strike(&self, place: &str) -> Result<(), stratus_topology::TaskError> {
        let roll: u32 = self.rng.lock().unwrap().random_range(0..60);
        if roll > 1 || self.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_err() {
            return Ok(());
        }
        assert!(roll == 0, "on purpose: {place}");
        Err(format!("on purpose: {place}").into())
    }
}

pub(crate) fn topology<F: StateFactory>(
    spout: impl TridentSpout,
    states: F,
    faults: &Faults,
    tasks: usize,
) -> TridentTopology
where
    F::State: MapState<i64>,
{
    let topology = TridentTopology::new().pace(Pace { max_pending: 4, interval: Duration::from_millis(1) });
    let (before, behind) = (faults.clone(), faults.clone());
    let split = move |tuple: TridentTuple<'_>, out: &mut TridentCollector| {
        before.strike("splitting")?;
        tuple.get::<&str>(0)?.split(' ').try_for_each(|word| out.emit((word,)))
    };
    // Behind the state, in the same task: what fails here fails when the state has written.
    let look = move |_: TridentTuple<'_>, _: &mut TridentCollector| behind.strike("looking");
    let _looked = topology
        .new_stream("lines", spout)
        .parallelism_hint(2)
        .shuffle()
        .each(&["line"], split, fields([("word", DataType::Utf8)]))
        .parallelism_hint(2)
        .group_by(&["word"])
        .persistent_aggregate(states, &[], Count, "count")
        .new_values_stream()
        .unwrap()
        .each(&["word"], look, fields([]))
        .parallelism_hint(tasks);
    topology
}

/// The topology with a state of this kind in a store, so many keys of which are cached.
pub(crate) fn topology_of<M: MapStore>(
    state: StateKind,
    spout: impl TridentSpout,
    maps: &M,
    cached: usize,
    faults: &Faults,
    tasks: usize,
) -> TridentTopology {
    match state {
        StateKind::Opaque => topology(spout, maps.opaque("counts").cached(cached), faults, tasks),
        StateKind::Transactional => {
            topology(spout, maps.transactional("counts").cached(cached), faults, tasks)
        }
        StateKind::NonTransactional => {
            topology(spout, maps.non_transactional("counts").cached(cached), faults, tasks)
        }
    }
}

/// What is promised of whom.
#[derive(Clone, Copy)]
enum Pair {
    Opaque(StateKind),
    Transactional(StateKind),
}

impl Pair {
    fn state(self) -> StateKind {
        match self {
            Self::Opaque(state) | Self::Transactional(state) => state,
        }
    }
}

/// Counts by word.
type Counts = BTreeMap<String, i64>;

/// The counts in a store.
pub(crate) async fn counts<M: MapStore>(maps: &M, kind: StateKind, words: &[String]) -> Vec<Option<i64>> {
    match kind {
        StateKind::Opaque => {
            let mut map = maps.map::<OpaqueValue<i64>>(kind, "counts").await.unwrap();
            get(&mut map, words).await.into_iter().map(|value| Some(*value?.current())).collect()
        }
        StateKind::Transactional => {
            let mut map = maps.map::<TransactionalValue<i64>>(kind, "counts").await.unwrap();
            get(&mut map, words).await.into_iter().map(|value| Some(value?.1)).collect()
        }
        StateKind::NonTransactional => get(&mut maps.map(kind, "counts").await.unwrap(), words).await,
    }
}

/// One run: what was found, and what is right.
async fn run<P: Harmed>(seed: u64, pair: Pair) -> Option<(Counts, Counts)> {
    let mut place = P::begin()?;
    let mut rng = StdRng::seed_from_u64(seed);
    let log = MemoryLog::new(3);
    let source = stratus_state::open("memory", "").await.unwrap().source(SourceId::new()).await.unwrap();
    let faults = Faults::new(seed, rng.random_range(10..25));
    let mut expected = Counts::new();
    let lives = rng.random_range(3..6);
    for life in 0..lives {
        // What the process remembers goes with each life, what it has stored stays.
        let maps = place.impatient().await;
        let (log_again, ledger): (Arc<dyn Log>, _) = (Arc::new(log.clone()), Arc::clone(&source.ledger));
        let bytes = rng.random_range(50..500);
        let spout = match pair {
            Pair::Opaque(_) => LogSpout::opaque(log_again, ledger, Lines),
            Pair::Transactional(_) => LogSpout::transactional(log_again, ledger, Lines),
        };
        let spout = spout.max_bytes(bytes);
        let (tasks, cached) = (rng.random_range(1..5), [0, 3, 1_000][rng.random_range(0..3)]);
        let topology = topology_of(pair.state(), spout, &maps, cached, &faults, tasks);
        let cluster = LocalCluster::new();
        cluster.submit("chaos", topology.build().unwrap().topology).unwrap();
        drop((topology, maps));
        for _ in 0..rng.random_range(2..8) {
            for _ in 0..rng.random_range(1..20) {
                let words: Vec<String> =
                    (0..rng.random_range(1..6)).map(|_| format!("é{}", rng.random_range(0..25))).collect();
                words.iter().for_each(|word| *expected.entry(word.clone()).or_default() += 1);
                log.append(rng.random_range(0..3), &words.join(" "));
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..30))).await;
            place.harm(&mut rng);
        }
        let is_last = life + 1 == lives;
        if is_last {
            faults.end();
            until_done(&log, source.ledger.as_ref(), &cluster, seed).await;
        }
        cluster.kill("chaos", if is_last { Duration::from_secs(1) } else { Duration::ZERO }).await.unwrap();
    }
    let words: Vec<String> = expected.keys().map(|word| format!("[\"{word}\"]")).collect();
    let found = counts(&place.open().await, pair.state(), &words).await;
    let found = expected.keys().cloned().zip(found.into_iter().map(|count| count.unwrap_or(0)));
    Some((found.collect(), expected))
}

pub(crate) async fn until_done(log: &MemoryLog, ledger: &dyn LedgerStore, cluster: &LocalCluster, seed: u64) {
    let (end, began) = (log.end().await.unwrap(), Instant::now());
    while !ledger.read().await.unwrap().is_some_and(|ledger| ledger.committed_to.covers(&end)) {
        assert!(
            began.elapsed() < Duration::from_secs(240),
            "seed {seed}: {:?} of {end:?}\n{}",
            ledger.read().await,
            cluster.prometheus()
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Runs for each pair.
pub(crate) fn runs() -> u64 {
    std::env::var("MAP_STATES_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(5)
}

pub(crate) fn mute_what_is_on_purpose() {
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.to_string();
        if !text.contains("on purpose") {
            eprintln!("{text}");
        }
    }));
}

async fn are_exact<P: Harmed>(first: u64, pair: Pair) {
    mute_what_is_on_purpose();
    for seed in first..first + runs() {
        if let Some((found, expected)) = run::<P>(seed, pair).await {
            assert_eq!(found, expected, "seed {seed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opaque_state_in_redis_is_exact() {
    are_exact::<Redis>(0, Pair::Opaque(StateKind::Opaque)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transactional_state_in_redis_is_exact() {
    are_exact::<Redis>(1_000, Pair::Transactional(StateKind::Transactional)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opaque_state_in_redb_is_exact() {
    are_exact::<File>(2_000, Pair::Transactional(StateKind::Opaque)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transactional_state_in_redb_is_exact() {
    are_exact::<File>(3_000, Pair::Transactional(StateKind::Transactional)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_without_a_promise_is_seen_to_be_wrong() {
    mute_what_is_on_purpose();
    for seed in 4_000..4_030 {
        let pair = Pair::Transactional(StateKind::NonTransactional);
        if run::<File>(seed, pair).await.is_some_and(|(found, expected)| found != expected) {
            return;
        }
    }
    panic!("nothing was counted twice: nothing of this was tested");
}

/// Batches that begin at 1 again are not counted into what counted them already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topology_that_lost_its_ledger_stands_still() {
    let place = File::begin().unwrap();
    let log = MemoryLog::new(1);
    (0..20).for_each(|_| log.append(0, "a b"));
    let faults = Faults::new(0, 0);
    let store = stratus_state::open("memory", "").await.unwrap();
    for loses_the_ledger in [false, true] {
        let ledger = store.source(SourceId::new()).await.unwrap().ledger;
        let spout = LogSpout::transactional(Arc::new(log.clone()), Arc::clone(&ledger), Lines).max_bytes(1);
        let states = place.open().await.opaque("counts");
        let cluster = LocalCluster::new();
        cluster.submit("chaos", topology(spout, states, &faults, 2).build().unwrap().topology).unwrap();
        if loses_the_ledger {
            let began = Instant::now();
            while ledger.read().await.unwrap().is_none_or(|ledger| ledger.appended == 0) {
                assert!(began.elapsed() < Duration::from_secs(60), "nothing was tried");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            let ledger = ledger.read().await.unwrap().unwrap();
            assert_eq!(ledger.committed, 0, "{ledger:?}");
        } else {
            until_done(&log, ledger.as_ref(), &cluster, 0).await;
        }
        cluster.kill("chaos", Duration::ZERO).await.unwrap();
    }
    let words = ["[\"a\"]", "[\"b\"]"].map(str::to_owned);
    assert_eq!(counts(&place.open().await, StateKind::Opaque, &words).await, [Some(20), Some(20)]);
}
