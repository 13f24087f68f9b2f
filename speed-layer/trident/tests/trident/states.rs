//! Storm's StateTest, by value.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::Int64Type,
};
use stratus_topology::{TaskError, fields};
use stratus_trident::{
    BackingMap, CachedMap, FeederBatchSpout, MapState, MemoryMap, MemoryMaps, NonTransactionalMap,
    NonTransactionalMemoryMaps, OpaqueMap, OpaqueValue, State, StateUpdater, Sum, TransactionalMap,
    TransactionalMemoryMaps, TridentCollector, TridentTopology,
};

use crate::{
    pairs::{SOME, pair_batch, pairs},
    support::run,
};

/// Lets the store have what is under way, as an attempt does that then fails elsewhere, and begins.
async fn begin(state: &mut impl State, txid: u64) {
    state.commit(None).await.unwrap();
    state.begin_commit(Some(txid)).await.unwrap();
}

/// Adds to the key; what it is then.
async fn add(state: &mut impl MapState<i64>, amount: i64) -> i64 {
    let mut update = |_, before: Option<i64>| Ok(before.unwrap_or(0) + amount);
    state.multi_update(&["a".to_owned()], &mut update).await.unwrap()[0]
}

/// What is there.
async fn seen(state: &mut impl MapState<i64>) -> Option<i64> {
    state.multi_get(&["a".to_owned()]).await.unwrap()[0]
}

#[test]
fn an_opaque_value_knows_what_each_transaction_begins_with() {
    let value = OpaqueValue::new(8, "v1", Some("v0"));
    assert_eq!(value.before(8).unwrap(), Some(&"v0"));
    assert_eq!(value.before(9).unwrap(), Some(&"v1"));
    assert!(value.before(7).is_err());
    assert_eq!(value.update(8, "v2").unwrap().previous(), Some(&"v0"));
    assert_eq!(value.update(8, "v2").unwrap().current(), &"v2");
    assert_eq!(value.update(9, "v2").unwrap().previous(), Some(&"v1"));
}

#[test]
fn an_opaque_value_is_an_array_and_comes_back_the_same() {
    for (value, json) in [
        (OpaqueValue::new(8, Some(2), Some(Some(1))), "[8,2,1]"),
        (OpaqueValue::new(8, None, Some(None)), "[8,null,null]"),
        (OpaqueValue::new(8, None, None), "[8,null]"),
    ] {
        assert_eq!(serde_json::to_string(&value).unwrap(), json);
        assert_eq!(serde_json::from_str::<OpaqueValue<Option<i64>>>(json).unwrap(), value);
    }
    let storms: OpaqueValue<i64> = serde_json::from_str("[8,2,null]").unwrap();
    assert_eq!(storms, OpaqueValue::new(8, 2, None));
    for wrong in ["[8]", "[8,2,1,0]", "[8,\"2\"]", "{\"txid\":8}"] {
        assert!(serde_json::from_str::<OpaqueValue<i64>>(wrong).is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn an_opaque_map_forgets_what_a_replaced_attempt_wrote() {
    let mut map = OpaqueMap::new(MemoryMap::default());
    begin(&mut map, 1).await;
    assert_eq!(seen(&mut map).await, None);
    assert_eq!(add(&mut map, 1).await, 1);
    assert_eq!(add(&mut map, 2).await, 3);
    // The same again sees what was before.
    begin(&mut map, 1).await;
    assert_eq!(seen(&mut map).await, None);
    assert_eq!(add(&mut map, 2).await, 2);
    assert_eq!(seen(&mut map).await, Some(2), "what this attempt has written");
    begin(&mut map, 2).await;
    assert_eq!(seen(&mut map).await, Some(2));
    assert_eq!(add(&mut map, 3).await, 5);
    assert_eq!(add(&mut map, 1).await, 6);
    // Queries belong to no transaction.
    map.commit(Some(2)).await.unwrap();
    assert_eq!(seen(&mut map).await, Some(6));
    begin(&mut map, 2).await;
    assert_eq!(seen(&mut map).await, Some(2));
    map.begin_commit(None).await.unwrap();
    assert_eq!(seen(&mut map).await, Some(6));
    begin(&mut map, 1).await;
    let error = map.multi_get(&["a".to_owned()]).await.unwrap_err().to_string();
    assert!(error.contains("transaction 1 is behind"), "{error}");
    let mut update = |_, before: Option<i64>| Ok(before.unwrap_or(0));
    assert!(map.multi_update(&["a".to_owned()], &mut update).await.is_err(), "behind the state");
}

/// Storm's testMemoryMapStateRemove, with values that may be nothing.
#[tokio::test]
async fn a_value_that_was_removed_comes_back_for_a_replay() {
    let (keys, mut map) = (["a".to_owned()], OpaqueMap::<Option<i64>, _>::new(MemoryMap::default()));
    begin(&mut map, 1).await;
    map.multi_update(&keys, &mut |_, _| Ok(Some(1))).await.unwrap();
    for _attempt in 0..2 {
        begin(&mut map, 2).await;
        assert_eq!(map.multi_get(&keys).await.unwrap(), [Some(Some(1))]);
        map.multi_update(&keys, &mut |_, _| Ok(None)).await.unwrap();
        assert_eq!(map.multi_get(&keys).await.unwrap(), [Some(None)]);
    }
    begin(&mut map, 3).await;
    assert_eq!(map.multi_get(&keys).await.unwrap(), [Some(None)]);
}

#[tokio::test]
async fn a_transactional_map_counts_a_replay_once() {
    let mut map = TransactionalMap::new(MemoryMap::default());
    begin(&mut map, 1).await;
    assert_eq!(add(&mut map, 1).await, 1);
    assert_eq!(add(&mut map, 2).await, 3);
    begin(&mut map, 1).await;
    assert_eq!(add(&mut map, 1).await, 3);
    assert_eq!(add(&mut map, 2).await, 3);
    begin(&mut map, 2).await;
    assert_eq!(add(&mut map, 3).await, 6);
    assert_eq!(add(&mut map, 1).await, 7);
}

#[tokio::test]
async fn a_map_without_a_promise_counts_a_replay_again() {
    let mut map = NonTransactionalMap::new(MemoryMap::default());
    begin(&mut map, 1).await;
    assert_eq!(add(&mut map, 3).await, 3);
    begin(&mut map, 1).await;
    assert_eq!(add(&mut map, 3).await, 6);
}

/// The same key twice among those of one update.
async fn twice(state: &mut impl MapState<i64>) -> Vec<i64> {
    let keys = ["a", "b", "a"].map(str::to_owned);
    let mut update = |at, before: Option<i64>| Ok(before.unwrap_or(0) + [1, 10, 100][at]);
    state.multi_update(&keys, &mut update).await.unwrap()
}

#[tokio::test]
async fn a_key_that_comes_twice_is_updated_twice() {
    let mut opaque = OpaqueMap::new(MemoryMap::default());
    let mut transactional = TransactionalMap::new(MemoryMap::default());
    let mut plain = NonTransactionalMap::new(MemoryMap::default());
    begin(&mut opaque, 1).await;
    begin(&mut transactional, 1).await;
    begin(&mut plain, 1).await;
    assert_eq!(twice(&mut opaque).await, [1, 10, 101]);
    assert_eq!(twice(&mut transactional).await, [1, 10, 101]);
    assert_eq!(twice(&mut plain).await, [1, 10, 101]);
    begin(&mut opaque, 1).await;
    begin(&mut transactional, 1).await;
    assert_eq!(twice(&mut opaque).await, [1, 10, 101]);
    assert_eq!(twice(&mut transactional).await, [101, 10, 101]);
    assert_eq!((seen(&mut opaque).await, seen(&mut transactional).await), (Some(101), Some(101)));
}

/// Looks the sum up, adds, and puts it; fails behind that as often as it is told to.
#[derive(Clone)]
struct GetThenPut(Arc<AtomicI64>);

#[async_trait::async_trait]
impl<S: MapState<i64>> StateUpdater<S> for GetThenPut {
    async fn update_state(
        &mut self,
        state: &mut S,
        rows: &RecordBatch,
        _out: &mut TridentCollector,
    ) -> Result<(), TaskError> {
        let keys = ["sum".to_owned()];
        let before = state.multi_get(&keys).await?[0].unwrap_or(0);
        let numbers = rows.column(0).as_primitive::<Int64Type>().values();
        let sum = before + numbers.iter().sum::<i64>();
        state.multi_update(&keys, &mut |_, _| Ok(sum)).await?;
        if self.0.fetch_sub(1, SeqCst) > 0 {
            Err("something goes wrong behind the update".into())
        } else {
            Ok(())
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_updater_that_gets_and_then_puts_is_exactly_once() {
    let (spout, maps) = (FeederBatchSpout::new(pairs()), MemoryMaps::<i64>::new());
    let (topology, failures) = (TridentTopology::new(), Arc::new(AtomicI64::new(0)));
    topology.new_stream("pairs", spout.clone()).global().partition_persist(
        maps.clone(),
        &["number"],
        GetThenPut(Arc::clone(&failures)),
        fields([]),
    );
    let test = async {
        for (failing, sum) in [(0, 20), (1, 40), (3, 60)] {
            failures.store(failing, SeqCst);
            spout.feed_and_wait(pair_batch(SOME)).await;
            assert_eq!(maps.values()["sum"], sum);
        }
    };
    run(&topology, test).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_states_of_every_kind() {
    let spout = FeederBatchSpout::new(pairs());
    let (opaque, transactional) = (MemoryMaps::<i64>::new(), TransactionalMemoryMaps::<i64>::new());
    let (plain, topology) = (NonTransactionalMemoryMaps::<i64>::new(), TridentTopology::new());
    let grouped = topology.new_stream("pairs", spout.clone()).group_by(&["key"]);
    let _ = grouped.persistent_aggregate(opaque.clone(), &["number"], Sum, "sum").parallelism_hint(2);
    let _ = grouped.persistent_aggregate(transactional.clone(), &["number"], Sum, "sum").parallelism_hint(2);
    let _ = grouped.persistent_aggregate(plain.clone(), &["number"], Sum, "sum").parallelism_hint(2);
    let warnings = topology.build().unwrap().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("NonTransactional"), "{warnings:?}");
    let test = async {
        spout.feed_and_wait(pair_batch(SOME)).await;
        spout.feed_and_wait(pair_batch(&SOME[..2])).await;
    };
    run(&topology, test).await;
    let sums = [("[\"a\"]", 11), ("[\"b\"]", 11), ("[\"c\"]", 2)].map(|(key, sum)| (key.to_owned(), sum));
    let sums = BTreeMap::from(sums);
    assert_eq!((opaque.values(), transactional.values(), plain.values()), (sums.clone(), sums.clone(), sums));
}

/// A store that fails at one of its puts, counted from 0.
struct Failing<T> {
    store: MemoryMap<T>,
    at: u32,
    puts: u32,
}

impl<T> Failing<T> {
    fn new(store: MemoryMap<T>, at: u32) -> Self {
        Self { store, at, puts: 0 }
    }
}

#[async_trait::async_trait]
impl<T: Clone + Send + Sync + 'static> BackingMap<T> for Failing<T> {
    async fn multi_get(&mut self, keys: &[String]) -> Result<Vec<Option<T>>, TaskError> {
        self.store.multi_get(keys).await
    }

    async fn multi_put(&mut self, entries: Vec<(String, T)>) -> Result<(), TaskError> {
        self.puts += 1;
        if self.puts == self.at + 1 {
            return Err("the store is away".into());
        }
        self.store.multi_put(entries).await
    }
}

/// One transaction that updates a key twice, as an updater of one's own may, until the store takes it.
async fn two_updates(mut state: impl MapState<i64>) -> i64 {
    for txid in [1, 2] {
        loop {
            begin(&mut state, txid).await;
            let mut update = |_, before: Option<i64>| Ok(before.unwrap_or(0) + 1);
            let key = ["a".to_owned()];
            let updated = async {
                state.multi_update(&key, &mut update).await?;
                state.multi_update(&key, &mut update).await?;
                state.commit(Some(txid)).await
            };
            if updated.await.is_ok() {
                break;
            }
            // As whoever commits does.
            state.abandon();
        }
    }
    seen(&mut state).await.unwrap()
}

#[tokio::test]
async fn a_key_that_a_commit_updates_twice_counts_twice() {
    for at in 0..6 {
        assert_eq!(
            two_updates(OpaqueMap::new(Failing::new(MemoryMap::default(), at))).await,
            4,
            "put {at} fails"
        );
        let state = TransactionalMap::new(Failing::new(MemoryMap::default(), at));
        assert_eq!(two_updates(state).await, 4, "put {at} fails");
    }
}

/// A commit that failed leaves nothing behind: queries see what is there, and not what was there before.
#[tokio::test]
async fn a_query_after_a_failed_commit_sees_the_latest_value() {
    let store = MemoryMap::default();
    let mut state = OpaqueMap::new(store.clone());
    begin(&mut state, 1).await;
    add(&mut state, 5).await;
    state.commit(Some(1)).await.unwrap();
    // The put of an earlier attempt has no answer, and has happened.
    begin(&mut state, 2).await;
    add(&mut state, 1).await;
    state.commit(Some(2)).await.unwrap();
    begin(&mut state, 2).await;
    assert_eq!(seen(&mut state).await, Some(5), "within the transaction");
    state.abandon();
    assert_eq!(seen(&mut state).await, Some(6));
}

#[tokio::test]
async fn a_cache_is_never_ahead_of_its_store() {
    let store = MemoryMap::default();
    let mut map = CachedMap::new(Failing::new(store.clone(), 0), 2);
    let key = "a".to_owned();
    assert_eq!(map.multi_get(std::slice::from_ref(&key)).await.unwrap(), [None]);
    assert!(map.multi_put(vec![(key.clone(), 1)]).await.is_err());
    assert_eq!(map.multi_get(std::slice::from_ref(&key)).await.unwrap(), [None], "the put was lost");
    map.multi_put(vec![(key.clone(), 2)]).await.unwrap();
    assert_eq!(map.multi_get(std::slice::from_ref(&key)).await.unwrap(), [Some(2)]);
    // The oldest goes first, and comes back from the store.
    let others = ["b".to_owned(), "c".to_owned()];
    map.multi_put(others.iter().map(|key| (key.clone(), 7)).collect()).await.unwrap();
    store.clone().multi_put(vec![(key.clone(), 3)]).await.unwrap();
    assert_eq!(map.multi_get(&[key, others[1].clone()]).await.unwrap(), [Some(3), Some(7)]);
}

#[tokio::test]
async fn a_cache_answers_with_what_it_forgets_meanwhile() {
    let mut store = MemoryMap::default();
    store.multi_put((0..4).map(|key| (key.to_string(), key)).collect()).await.unwrap();
    let mut map = CachedMap::new(store, 2);
    let keys = |keys: [i64; 3]| keys.map(|key| key.to_string());
    assert_eq!(map.multi_get(&keys([0, 1, 0])).await.unwrap(), [Some(0), Some(1), Some(0)]);
    // Two new keys push the old one out before its turn comes.
    assert_eq!(map.multi_get(&keys([2, 3, 0])).await.unwrap(), [Some(2), Some(3), Some(0)]);
}
