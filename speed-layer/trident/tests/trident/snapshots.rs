//! One value of all tuples of all batches.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use stratus_topology::TaskError;
use stratus_trident::{
    Count, DrpcServer, FeederBatchSpout, MapState, MemoryMaps, NonTransactionalMemoryMaps, ReducerAggregator,
    SnapshotGet, StateFactory, Sum, TransactionalMemoryMaps, TridentTopology, TridentTuple,
};

use crate::{
    pairs::{SOME, Seen, pair_batch, pairs},
    support::run,
};

/// Sums the numbers of some batches up in a state of this kind; the new values.
async fn summed<F>(factory: F) -> Vec<String>
where
    F: StateFactory,
    F::State: MapState<i64>,
{
    let (spout, seen, topology) = (FeederBatchSpout::new(pairs()), Seen::default(), TridentTopology::new());
    let state = topology
        .new_stream("pairs", spout.clone())
        .parallelism_hint(2)
        .shuffle()
        .parallelism_hint(3)
        .persistent_aggregate(factory, &["number"], Sum, "sum")
        // One task keeps one value, whatever is asked for.
        .parallelism_hint(4);
    seen.watch(&state.new_values_stream().unwrap());
    let test = async {
        for batch in [&SOME[..0], SOME, &SOME[..1], &[], &SOME[1..2]] {
            spout.feed_and_wait(pair_batch(batch)).await;
        }
    };
    run(&topology, test).await;
    seen.take_in_order()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_batches_are_summed_up_in_every_kind_of_state() {
    let (opaque, transactional) = (MemoryMaps::<i64>::new(), TransactionalMemoryMaps::<i64>::new());
    let plain = NonTransactionalMemoryMaps::<i64>::new();
    let sums = ["0", "20", "23", "23", "24"];
    assert_eq!(summed(opaque.clone()).await, sums);
    assert_eq!(summed(transactional.clone()).await, sums);
    assert_eq!(summed(plain.clone()).await, sums);
    for values in [opaque.values(), transactional.values(), plain.values()] {
        assert_eq!(Vec::from_iter(values), [("[]".to_owned(), 24)]);
    }
}

/// The numbers as text, in the order of their batches; a third of all calls goes wrong.
#[derive(Clone)]
struct Joined(Arc<AtomicUsize>);

impl ReducerAggregator for Joined {
    type Value = String;

    fn init(&self) -> String {
        String::new()
    }

    fn reduce(&self, current: String, tuple: TridentTuple<'_>) -> Result<String, TaskError> {
        if self.0.fetch_add(1, SeqCst) % 3 == 2 {
            return Err("this does not always work".into());
        }
        Ok(format!("{current}{}", tuple.get::<i64>(0)?))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_batches_are_reduced_in_order_and_once() {
    let (spout, maps) = (FeederBatchSpout::new(pairs()), MemoryMaps::<String>::new());
    let topology = TridentTopology::new();
    topology
        .new_stream("pairs", spout.clone())
        .parallelism_hint(2)
        .shuffle()
        .parallelism_hint(2)
        .persistent_reduce(maps.clone(), &["number"], Joined(Arc::default()), "numbers");
    let test = async {
        for batch in 0..6 {
            spout.feed(pair_batch(&SOME[batch % 5..batch % 5 + 1]));
        }
        spout.wait(6).await;
        spout.feed_and_wait(pair_batch(&[])).await;
    };
    run(&topology, test).await;
    assert_eq!(Vec::from_iter(maps.values()), [("[]".to_owned(), "315293".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_value_is_asked_for_by_calls() {
    let (spout, server, topology) =
        (FeederBatchSpout::new(pairs()), DrpcServer::default(), TridentTopology::new());
    let count = topology.new_stream("pairs", spout.clone()).parallelism_hint(2).persistent_aggregate(
        MemoryMaps::<i64>::new(),
        &[],
        Count,
        "count",
    );
    topology
        .new_drpc_stream("count", &server)
        .state_query(&count, &[], SnapshotGet::<i64>::new("count"))
        .returns("count", &server);
    let test = async {
        assert_eq!(server.execute("count", "x").await.unwrap(), "[[\"x\",null]]");
        spout.feed_and_wait(pair_batch(SOME)).await;
        spout.feed_and_wait(pair_batch(&SOME[..2])).await;
        assert_eq!(server.execute("count", "y").await.unwrap(), "[[\"y\",7]]");
    };
    run(&topology, test).await;
}
