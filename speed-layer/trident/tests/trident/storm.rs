//! Storm's TridentIntegrationTest by property and value, as far as it is not in `word_count`, `drpc` and `refusals`.

use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use stratus_topology::{TaskContext, TaskError, fields};
use stratus_trident::{
    BatchCoordinator, Combined, Count, DrpcServer, Emitter, FeederBatchSpout, MemoryMaps, SpoutKind, Sum,
    TridentCollector, TridentSpout, TridentTopology, TridentTuple,
};

use crate::{
    support::{batch, run, text},
    word_count::Split,
};

/// A feeder that promises no more than that each tuple is in one batch that commits.
struct OpaqueFeeder(FeederBatchSpout);

#[async_trait]
impl TridentSpout for OpaqueFeeder {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn kind(&self) -> SpoutKind {
        SpoutKind::Opaque
    }

    async fn coordinator(&self, context: &TaskContext) -> Result<Box<dyn BatchCoordinator>, TaskError> {
        self.0.coordinator(context).await
    }

    async fn emitter(&self, context: &TaskContext) -> Result<Box<dyn Emitter>, TaskError> {
        self.0.emitter(context).await
    }
}

/// testWordCountCommitterSpout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_without_tuples_stop_no_count() {
    let (feeder, server) = (FeederBatchSpout::new(text("sentence")), DrpcServer::default());
    let topology = TridentTopology::new();
    let counts = topology
        .new_stream("sentences", OpaqueFeeder(feeder.clone()))
        .parallelism_hint(2)
        .each(&["sentence"], Split, text("word"))
        .shuffle()
        .parallelism_hint(2)
        .group_by(&["word"])
        .persistent_aggregate(MemoryMaps::<i64>::new(), &[], Count, "count")
        .parallelism_hint(3);
    topology
        .new_drpc_stream("words", &server)
        .each(&["args"], Split, text("word"))
        .group_by(&["word"])
        .state_query::<i64, _>(&counts, "count")
        .combine(&["count"], Sum, "sum")
        .returns("words", &server);
    assert_eq!(topology.build().unwrap().warnings, Vec::<String>::new());
    let count = async |words: &str| server.execute("words", words).await.unwrap();
    let test = async {
        let empty = async |batches: usize| {
            for _ in 0..batches {
                feeder.feed_and_wait(batch("sentence", &[])).await;
            }
        };
        empty(10).await;
        feeder.feed_and_wait(batch("sentence", &["hello the man said", "the"])).await;
        assert_eq!(count("the").await, "[[2]]");
        empty(30).await;
        feeder.feed_and_wait(batch("sentence", &["the man on the moon", "where are you"])).await;
        assert_eq!(count("the").await, "[[4]]");
        assert_eq!(count("man where you the").await, "[[8]]");
        // Several under way at once.
        for _ in 0..50 {
            feeder.feed(batch("sentence", &[]));
        }
        feeder.feed_and_wait(batch("sentence", &["the the"])).await;
        assert_eq!(count("the").await, "[[6]]");
        empty(5).await;
        feeder.feed_and_wait(batch("sentence", &["the"])).await;
        assert_eq!(count("the").await, "[[7]]");
        assert_eq!(count("nobody").await, "[[0]]");
    };
    run(&topology, test).await;
}

/// What a call answers, its rows sorted.
async fn rows(server: &DrpcServer, function: &str, arguments: &str) -> Vec<String> {
    let answer = server.execute(function, arguments).await.unwrap();
    let rows: Vec<serde_json::Value> = serde_json::from_str(&answer).unwrap();
    let mut rows: Vec<String> = rows.iter().map(ToString::to_string).collect();
    rows.sort();
    rows
}

/// testSplitMerge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_split_and_merged() {
    let (server, topology) = (DrpcServer::default(), TridentTopology::new());
    let calls = topology.new_drpc_stream("split", &server);
    let words = calls.each(&["args"], Split, text("word")).project(&["word"]);
    let length = |tuple: TridentTuple<'_>, out: &mut TridentCollector| {
        out.emit((tuple.get::<&str>(0)?.len().to_string(),))
    };
    let lengths =
        calls.shuffle().each(&["args"], length, text("length")).parallelism_hint(2).project(&["length"]);
    let merged = words.merge(&[&lengths]).parallelism_hint(2);
    merged.shuffle().peek(|_| ()).parallelism_hint(2).returns("split", &server);
    let test = async {
        assert_eq!(rows(&server, "split", "the man").await, ["[\"7\"]", "[\"man\"]", "[\"the\"]"]);
        assert_eq!(rows(&server, "split", "hello").await, ["[\"5\"]", "[\"hello\"]"]);
    };
    run(&topology, test).await;
}

/// testMultipleGroupingsSameStream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_grouped_in_several_ways() {
    let (server, topology) = (DrpcServer::default(), TridentTopology::new());
    let words = topology.new_drpc_stream("group", &server).each(&["args"], Split, text("word"));
    let count = || fields([("count", DataType::Int64)]);
    let by_call = words.group_by(&["args"]).aggregate(&[], Combined(Count), count()).parallelism_hint(2);
    let by_word = words.group_by(&["word"]).aggregate(&[], Combined(Count), count()).parallelism_hint(3);
    by_call.merge(&[&by_word]).returns("group", &server);
    let test = async {
        assert_eq!(rows(&server, "group", "the").await, ["[\"the\",1]", "[\"the\",1]"]);
        assert_eq!(rows(&server, "group", "aaaaa").await, ["[\"aaaaa\",1]", "[\"aaaaa\",1]"]);
        let both = ["[\"a b a\",3]", "[\"a\",2]", "[\"b\",1]"];
        assert_eq!(rows(&server, "group", "a b a").await, both);
    };
    run(&topology, test).await;
}

/// testMultiRepartition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_repartitioned_several_times_in_a_row() {
    let (server, topology) = (DrpcServer::default(), TridentTopology::new());
    topology
        .new_drpc_stream("count", &server)
        .each(&["args"], Split, text("word"))
        .shuffle()
        .parallelism_hint(2)
        .shuffle()
        .parallelism_hint(3)
        .partition_by(&["word"])
        .parallelism_hint(2)
        .aggregate(&[], Combined(Count), fields([("count", DataType::Int64)]))
        .parallelism_hint(2)
        .returns("count", &server);
    let test = async {
        assert_eq!(server.execute("count", "the man").await.unwrap(), "[[2]]");
        assert_eq!(server.execute("count", "aaa").await.unwrap(), "[[1]]");
        assert_eq!(server.execute("count", "").await.unwrap(), "[[0]]");
    };
    run(&topology, test).await;
}

/// testMemoryMapGetTuples: a state in memory is scanned through its factory, which all of its partitions share.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_in_memory_is_scanned() {
    let (feeder, server) = (FeederBatchSpout::new(text("sentence")), DrpcServer::default());
    let (topology, maps) = (TridentTopology::new(), MemoryMaps::<i64>::new());
    topology
        .new_stream("sentences", feeder.clone())
        .each(&["sentence"], Split, text("word"))
        .group_by(&["word"])
        .persistent_aggregate(maps.clone(), &[], Count, "count")
        .parallelism_hint(3)
        .new_values_stream();
    let scan = move |_: TridentTuple<'_>, out: &mut TridentCollector| {
        maps.values().into_iter().try_for_each(|(word, count)| out.emit((word, count)))
    };
    let entries = fields([("word", DataType::Utf8), ("count", DataType::Int64)]);
    topology.new_drpc_stream("all", &server).flat_map(scan, entries).returns("all", &server);
    let test = async {
        assert_eq!(server.execute("all", "").await.unwrap(), "[]");
        feeder.feed_and_wait(batch("sentence", &["hello the man said", "the"])).await;
        let counts = [
            "[\"[\\\"hello\\\"]\",1]",
            "[\"[\\\"man\\\"]\",1]",
            "[\"[\\\"said\\\"]\",1]",
            "[\"[\\\"the\\\"]\",2]",
        ];
        assert_eq!(rows(&server, "all", "").await, counts);
    };
    run(&topology, test).await;
}
