//! Counts the words of a few sentences and answers, over HTTP, how often words occur in them.
//!
//! ```text
//! cargo run -p stratus-connectors --example drpc_words -- 127.0.0.1:8090
//! curl -H 'Content-Type: application/octet-stream' --data 'the man' http://127.0.0.1:8090/v1/drpc/words
//! [[5]]
//! ```
//!
//! One stream splits the sentences and keeps a count of each word in a state. The other one is the function `words`:
//! each call is a batch of its own, whose words are looked up in that state; the sum of their counts is the answer.
//!
//! Ctrl-C ends it: no more calls are taken, and those under way are answered.

use std::{io::IsTerminal, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use arrow::{
    array::{RecordBatch, StringArray},
    datatypes::DataType,
};
use stratus_connectors::drpc::router;
use stratus_topology::{LocalCluster, TaskError, Topology, fields};
use stratus_trident::{
    Count, DrpcServer, FeederBatchSpout, MemoryMaps, Sum, TridentCollector, TridentTopology, TridentTuple,
};
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

const USAGE: &str = "usage: drpc_words [ADDRESS]: an address of the loopback, at first 127.0.0.1:8090";

const SENTENCES: [&str; 4] = [
    "the cow jumped over the moon",
    "the man went to the store and bought some candy",
    "four score and seven years ago",
    "how many apples can you eat",
];

/// How long calls under way may take after Ctrl-C.
const DRAIN: Duration = Duration::from_secs(5);

fn split(tuple: TridentTuple<'_>, out: &mut TridentCollector) -> Result<(), TaskError> {
    tuple.get::<&str>(0)?.split_whitespace().try_for_each(|word| out.emit((word,)))
}

/// The topology: the words of `sentences` are counted, and the calls of `words` look them up.
fn topology(sentences: FeederBatchSpout, server: &DrpcServer) -> Result<Topology, TaskError> {
    let topology = TridentTopology::new();
    let word = || fields([("word", DataType::Utf8)]);
    let counts = topology
        .new_stream("sentences", sentences)
        .each(&["sentence"], split, word())
        .group_by(&["word"])
        .persistent_aggregate(MemoryMaps::<i64>::new(), &[], Count, "count");
    topology
        .new_drpc_stream("words", server)
        .each(&["args"], split, word())
        .group_by(&["word"])
        .state_query::<i64, _>(&counts, "count")
        // A word that was never seen has no count.
        .filter(&["count"], |tuple: TridentTuple<'_>| Ok(tuple.get::<Option<i64>>(0)?.is_some()))
        .combine(&["count"], Sum, "sum")
        .project(&["sum"])
        .returns("words", server);
    Ok(topology.build()?.topology)
}

/// Answers calls that come in by `listener` until `stop` is done.
pub(crate) async fn run(
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), TaskError> {
    let schema = fields([("sentence", DataType::Utf8)]);
    let (sentences, server) = (FeederBatchSpout::new(Arc::clone(&schema)), DrpcServer::default());
    let cluster = LocalCluster::new();
    cluster.submit("drpc-words", topology(sentences.clone(), &server)?)?;
    let rows = Arc::new(StringArray::from(SENTENCES.to_vec()));
    sentences.feed_and_wait(RecordBatch::try_new(schema, vec![rows])?).await;
    let address = listener.local_addr()?;
    eprintln!(
        "{} sentences are counted; ask how often their words occur, and end it with Ctrl-C:",
        SENTENCES.len()
    );
    eprintln!(
        "curl -H 'Content-Type: application/octet-stream' --data 'the man' http://{address}/v1/drpc/words"
    );
    axum::serve(listener, router(server)).with_graceful_shutdown(stop).await?;
    cluster.kill("drpc-words", DRAIN).await?;
    Ok(())
}

/// Listens at the address of the command line. The router knows no users, so it is not for others to reach.
async fn listen(mut arguments: impl Iterator<Item = String>) -> Result<TcpListener, TaskError> {
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8090".to_owned());
    let parsed: SocketAddr = address.parse().map_err(|_| format!("{address} is no address\n{USAGE}"))?;
    if arguments.next().is_some() || !parsed.ip().is_loopback() {
        return Err(USAGE.into());
    }
    Ok(TcpListener::bind(parsed).await.map_err(|error| format!("{address}: {error}"))?)
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(std::io::stderr).init();
    let stop = async {
        // Where the signal cannot be heard there is nothing to wait for.
        let _ = tokio::signal::ctrl_c().await;
    };
    let ran = match listen(std::env::args().skip(1)).await {
        Ok(listener) => run(listener, stop).await,
        Err(error) => Err(error),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("drpc_words: {error}");
            ExitCode::FAILURE
        }
    }
}
