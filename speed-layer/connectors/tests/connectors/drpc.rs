//! Remote calls over real HTTP.

use std::time::Duration;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::DataType;
use futures::future::join_all;
use stratus_connectors::drpc::{MOST_BYTES, router};
use stratus_topology::{LocalCluster, fields};
use stratus_trident::{
    Count, DrpcServer, FeederBatchSpout, MemoryMaps, Sum, TridentCollector, TridentTopology, TridentTuple,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn split(tuple: TridentTuple<'_>, out: &mut TridentCollector) -> Result<(), stratus_topology::TaskError> {
    tuple.get::<&str>(0)?.split_whitespace().try_for_each(|word| match word {
        "bad" => Err("I do not like this".into()),
        word => out.emit((word,)),
    })
}

/// The status and the body of the answer to a call.
async fn call(address: &str, function: &str, arguments: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/drpc/{function} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        arguments.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server may refuse before it has read everything.
    let _ = stream.write_all(arguments).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_are_asked_for_over_http() {
    let schema = fields([("sentence", DataType::Utf8)]);
    let (spout, server) = (FeederBatchSpout::new(schema.clone()), DrpcServer::new(Duration::from_secs(5)));
    let topology = TridentTopology::new();
    let word = || fields([("word", DataType::Utf8)]);
    let counts = topology
        .new_stream("sentences", spout.clone())
        .each(&["sentence"], split, word())
        .group_by(&["word"])
        .persistent_aggregate(MemoryMaps::<i64>::new(), &[], Count, "count");
    topology
        .new_drpc_stream("words", &server)
        .each(&["args"], split, word())
        .group_by(&["word"])
        .state_query::<i64, _>(&counts, "count")
        .combine(&["count"], Sum, "sum")
        .project(&["sum"])
        .returns("words", &server);
    let cluster = LocalCluster::new();
    cluster.submit("words", topology.build().unwrap().topology).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let door = tokio::spawn(axum::serve(listener, router(server.clone())).into_future());

    let sentences = StringArray::from(vec!["the man on the moon", "the \u{fc}ber man"]);
    spout.feed_and_wait(RecordBatch::try_new(schema, vec![std::sync::Arc::new(sentences)]).unwrap()).await;
    assert_eq!(call(&address, "words", b"the man").await, (200, "[[5]]".to_owned()));
    assert_eq!(call(&address, "words", "\u{fc}ber".as_bytes()).await, (200, "[[1]]".to_owned()));
    let calls = (0..40).map(|_| call(&address, "words", b"the"));
    assert!(join_all(calls).await.iter().all(|answer| *answer == (200, "[[3]]".to_owned())));

    let (status, body) = call(&address, "nothing", b"").await;
    assert!(status == 404 && body.contains("there are: words"), "{status} {body}");
    let (status, body) = call(&address, "words", b"bad").await;
    assert!(status == 500 && body.contains("I do not like this"), "{status} {body}");
    let (status, _) = call(&address, "words", &vec![b'x'; MOST_BYTES + 1]).await;
    assert_eq!(status, 413);
    let (status, _) = call(&address, "words", &[0xff, 0xfe]).await;
    assert_eq!(status, 400);

    // A caller who goes away leaves the others alone.
    for _ in 0..5 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let head = "POST /v1/drpc/words HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nthe";
        stream.write_all(head.as_bytes()).await.unwrap();
    }
    assert_eq!(call(&address, "words", b"moon").await, (200, "[[1]]".to_owned()));

    cluster.kill("words", Duration::from_secs(5)).await.unwrap();
    let (status, body) = call(&address, "words", b"the").await;
    assert!(status == 504 || status == 503, "{status} {body}");
    door.abort();
}
