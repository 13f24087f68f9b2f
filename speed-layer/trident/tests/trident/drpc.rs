//! Remote calls, with Storm's TridentIntegrationTest by value.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::datatypes::DataType;
use stratus_topology::{LocalCluster, TaskError, fields};
use stratus_trident::{
    Aggregator, Count, DrpcError, DrpcServer, FeederBatchSpout, MemoryMaps, Sum, TransactionAttempt,
    TridentCollector, TridentTopology, TridentTuple,
};

use crate::{
    support::{batch, run, text},
    word_count::Split,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_are_counted_and_asked_for() {
    let (spout, server) = (FeederBatchSpout::new(text("sentence")), DrpcServer::default());
    let topology = TridentTopology::new();
    let counts = topology
        .new_stream("sentences", spout.clone())
        .each(&["sentence"], Split, text("word"))
        .parallelism_hint(2)
        .group_by(&["word"])
        .persistent_aggregate(MemoryMaps::<i64>::new(), &[], Count, "count")
        .parallelism_hint(3);
    topology
        .new_drpc_stream("words", &server)
        .each(&["args"], Split, text("word"))
        .group_by(&["word"])
        .state_query::<i64, _>(&counts, "count")
        .filter(&["count"], |tuple: TridentTuple<'_>| Ok(tuple.get::<Option<i64>>(0)?.is_some()))
        .combine(&["count"], Sum, "sum")
        .project(&["sum"])
        .returns("words", &server);
    let test = async {
        spout.feed_and_wait(batch("sentence", &["hello the man said", "the"])).await;
        assert_eq!(server.execute("words", "the").await.unwrap(), "[[2]]");
        assert_eq!(server.execute("words", "hello").await.unwrap(), "[[1]]");
        spout.feed_and_wait(batch("sentence", &["the man on the moon", "where are you"])).await;
        assert_eq!(server.execute("words", "the").await.unwrap(), "[[4]]");
        assert_eq!(server.execute("words", "man").await.unwrap(), "[[2]]");
        assert_eq!(server.execute("words", "man where you the").await.unwrap(), "[[8]]");
        let calls = (0..50).map(|_| async { server.execute("words", "the nobody").await.unwrap() });
        assert_eq!(futures::future::join_all(calls).await, vec!["[[4]]"; 50]);
    };
    run(&topology, test).await;
}

#[test]
fn calls_are_not_put_together_with_other_streams() {
    let (spout, server) = (FeederBatchSpout::new(text("args")), DrpcServer::default());
    let topology = TridentTopology::new();
    let calls = topology.new_drpc_stream("words", &server);
    calls.merge(&[&topology.new_stream("sentences", spout)]).returns("words", &server);
    let error = topology.build().unwrap_err().to_string();
    assert!(error.contains("drpc-words") && error.contains("sentences"), "{error}");
    let topology = TridentTopology::new();
    let calls = topology.new_drpc_stream("one", &server);
    calls.merge(&[&topology.new_drpc_stream("other", &server)]).returns("one", &server);
    let error = topology.build().unwrap_err().to_string();
    assert!(error.contains("drpc-one") && error.contains("drpc-other"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_fails_is_told_so_and_the_next_one_works() {
    let (server, topology) = (DrpcServer::new(Duration::from_secs(60)), TridentTopology::new());
    let fussy = |tuple: TridentTuple<'_>, out: &mut TridentCollector| match tuple.get::<&str>(0)? {
        "bad" => Err("I do not like this".into()),
        "worse" => panic!("I really do not like this"),
        word => out.emit((word.len() as i64,)),
    };
    let stream = topology.new_drpc_stream("length", &server).shuffle();
    stream.each(&["args"], fussy, fields([("length", DataType::Int64)])).returns("length", &server);
    let empty = topology.new_drpc_stream("nothing", &server);
    empty
        .filter(&["args"], |_: TridentTuple<'_>| Ok(false))
        .combine(&[], Count, "count")
        .returns("nothing", &server);
    let test = async {
        assert_eq!(server.execute("length", "good").await.unwrap(), "[[\"good\",4]]");
        for call in ["bad", "worse"] {
            let began = Instant::now();
            let error = server.execute("length", call).await.unwrap_err();
            assert!(matches!(error, DrpcError::Failed { .. }), "{error}");
            // A panic leaves nobody to say why.
            assert!(call == "worse" || error.to_string().contains("I do not like this"), "{error}");
            assert!(began.elapsed() < Duration::from_secs(20), "at once");
            assert_eq!(server.execute("length", "fine").await.unwrap(), "[[\"fine\",4]]");
        }
        assert_eq!(server.execute("nothing", "x").await.unwrap(), "[[0]]");
        let unknown = server.execute("nonsense", "").await.unwrap_err();
        assert!(matches!(unknown, DrpcError::Unknown { .. }), "{unknown}");
    };
    run(&topology, test).await;
    // Nobody answers any more.
    let quick = DrpcServer::new(Duration::from_millis(50));
    let _stream = TridentTopology::new().new_drpc_stream("late", &quick);
    assert!(matches!(quick.execute("late", "").await, Err(DrpcError::TimedOut { .. })));
}

/// A topology whose function answers with its arguments and with who answered.
fn echo(server: &DrpcServer, who: &'static str) -> TridentTopology {
    let topology = TridentTopology::new();
    let sign = move |_: TridentTuple<'_>, out: &mut TridentCollector| out.emit((who,));
    topology
        .new_drpc_stream("echo", server)
        .shuffle()
        .each(&["args"], sign, text("who"))
        .returns("echo", server);
    topology
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_a_topology_that_ends_end_with_it() {
    let server = DrpcServer::default();
    let topology = echo(&server, "one");
    let cluster = LocalCluster::new();
    cluster.submit("one", topology.build().unwrap().topology).unwrap();
    assert_eq!(server.execute("echo", "a").await.unwrap(), r#"[["a","one"]]"#);
    cluster.deactivate("one").unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let began = Instant::now();
    let (waiting, killed) = tokio::join!(server.execute("echo", "waits"), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        cluster.kill("one", Duration::from_secs(5)).await
    });
    killed.unwrap();
    assert_eq!(waiting, Err(DrpcError::Ended { function: "echo".to_owned() }));
    assert_eq!(server.execute("echo", "late").await, waiting);
    assert!(began.elapsed() < Duration::from_secs(5), "at once");
    // The next topology of the function is waited for.
    let next = echo(&server, "next");
    cluster.submit("next", next.build().unwrap().topology).unwrap();
    assert_eq!(server.execute("echo", "b").await.unwrap(), r#"[["b","next"]]"#);
    cluster.kill("next", Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_panics_and_begins_anew_is_no_end() {
    let (server, topology) = (DrpcServer::new(Duration::from_secs(10)), TridentTopology::new());
    // In the bolt that emits the arguments.
    let moody = |tuple: TridentTuple<'_>, out: &mut TridentCollector| match tuple.get::<&str>(0)? {
        "bad" => panic!("I do not like this"),
        word => out.emit((word.len() as i64,)),
    };
    let lengths = fields([("length", DataType::Int64)]);
    topology.new_drpc_stream("length", &server).each(&["args"], moody, lengths).returns("length", &server);
    let test = async {
        for _ in 0..3 {
            let error = server.execute("length", "bad").await.unwrap_err();
            assert!(matches!(error, DrpcError::Failed { .. }), "{error}");
            let begun_anew = server.execute("length", "fine").await;
            assert_eq!(begun_anew.unwrap(), r#"[["fine",4]]"#);
        }
    };
    run(&topology, test).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_topologies_answer_one_function_while_one_takes_over_from_the_other() {
    let (server, cluster) = (DrpcServer::new(Duration::from_secs(10)), LocalCluster::new());
    for who in ["one", "other"] {
        cluster.submit(who, echo(&server, who).build().unwrap().topology).unwrap();
    }
    let ask = async |round: u32| {
        let calls = (0..20).map(|call| {
            let (server, arguments) = (&server, format!("{round} {call}"));
            async move { (server.execute("echo", &arguments).await.unwrap(), arguments) }
        });
        for (answer, arguments) in futures::future::join_all(calls).await {
            assert!(answer.starts_with(&format!("[[\"{arguments}\",")), "{arguments}: {answer}");
        }
    };
    for round in 0..20 {
        ask(round).await;
    }
    cluster.kill("one", Duration::from_secs(5)).await.unwrap();
    ask(20).await;
    assert_eq!(server.execute("echo", "a").await.unwrap(), r#"[["a","other"]]"#);
    cluster.kill("other", Duration::from_secs(5)).await.unwrap();
    assert!(matches!(server.execute("echo", "a").await, Err(DrpcError::Ended { .. })));
}

#[tokio::test]
async fn more_calls_than_may_wait_are_refused_at_once() {
    let server = DrpcServer::new(Duration::from_secs(2)).at_most(2, 100);
    let _never_begins = TridentTopology::new().new_drpc_stream("f", &server);
    let (one, other, third) = tokio::join!(server.execute("f", "a"), server.execute("f", "b"), async {
        let began = Instant::now();
        let refused = server.execute("f", "c").await;
        assert!(began.elapsed() < Duration::from_secs(2), "at once");
        refused
    });
    assert_eq!(third, Err(DrpcError::Busy { function: "f".to_owned(), calls: 2, bytes: 2 }));
    assert!(matches!((one, other), (Err(DrpcError::TimedOut { .. }), Err(DrpcError::TimedOut { .. }))));
    // They have left, and there is room again.
    assert!(matches!(server.execute("f", "d").await, Err(DrpcError::TimedOut { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_update_a_state_belong_to_no_transaction() {
    let maps = MemoryMaps::<i64>::new();
    // A stream has written to the state as transaction 3.
    let (spout, topology) = (FeederBatchSpout::new(text("args")), TridentTopology::new());
    let counts = |topology: &TridentTopology| {
        let stream = topology.new_stream("fed", spout.clone()).group_by(&["args"]);
        stream.persistent_aggregate(maps.clone(), &[], Count, "count")
    };
    counts(&topology);
    let fed = async {
        for word in ["a", "b", "a"] {
            spout.feed_and_wait(batch("args", &[word])).await;
        }
    };
    run(&topology, fed).await;
    // The numbers of calls begin anew with each topology.
    for life in 1..=3 {
        let (server, topology) = (DrpcServer::new(Duration::from_secs(5)), TridentTopology::new());
        let calls = topology.new_drpc_stream("count", &server).group_by(&["args"]);
        let kept = calls.persistent_aggregate(maps.clone(), &[], Count, "count");
        kept.new_values_stream().unwrap().returns("count", &server);
        let test = async {
            for word in ["a", "b"] {
                server.execute("count", word).await.unwrap();
            }
            assert_eq!(server.execute("count", "a").await.unwrap(), format!("[[\"a\",{}]]", 2 + 2 * life));
        };
        run(&topology, test).await;
    }
    // The stream goes on from there.
    let topology = TridentTopology::new();
    counts(&topology);
    run(&topology, spout.feed_and_wait(batch("args", &["a", "b"]))).await;
    let values: Vec<i64> = maps.values().into_values().collect();
    assert_eq!(values, [2 + 6 + 1, 1 + 3 + 1]);
}

/// An aggregation that never gets beyond the first tuple; what it keeps of a batch can be counted.
#[derive(Clone)]
struct Fails(Arc<()>);

impl Aggregator for Fails {
    type State = Arc<()>;

    fn init(&mut self, _batch: TransactionAttempt) -> Arc<()> {
        Arc::clone(&self.0)
    }

    fn aggregate(
        &mut self,
        _state: &mut Arc<()>,
        _tuple: TridentTuple<'_>,
        _out: &mut TridentCollector,
    ) -> Result<(), TaskError> {
        Err("I do not like this".into())
    }

    fn complete(&mut self, _state: Arc<()>, _out: &mut TridentCollector) -> Result<(), TaskError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_kept_of_calls_that_failed() {
    let (server, topology) = (DrpcServer::new(Duration::from_secs(5)), TridentTopology::new());
    let kept = Arc::new(());
    let stream = topology.new_drpc_stream("f", &server).shuffle();
    stream.partition_aggregate(&["args"], Fails(Arc::clone(&kept)), text("never")).returns("f", &server);
    let test = async {
        assert!(server.execute("f", "x").await.is_err());
        let at_first = Arc::strong_count(&kept);
        for _ in 0..100 {
            assert!(server.execute("f", "x").await.is_err());
        }
        let in_the_end = Arc::strong_count(&kept);
        assert!(in_the_end <= at_first + 1, "{at_first} at first, {in_the_end} after 100 calls");
    };
    run(&topology, test).await;
}
