//! Remote calls over real HTTP.

use std::time::{Duration, Instant};

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::DataType;
use futures::future::join_all;
use stratus_connectors::drpc::{MOST_BYTES, router};
use stratus_map_states::{MapStore, RedbMaps};
use stratus_topology::{LocalCluster, TopologyConfig, fields};
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

/// A request up to its body, from a program on this machine.
fn head(address: &str, function: &str, length: usize) -> String {
    let kind = "Content-Type: application/octet-stream\r\nContent-Length";
    format!(
        "POST /v1/drpc/{function} HTTP/1.1\r\nHost: {address}\r\n{kind}: {length}\r\nConnection: close\r\n\r\n"
    )
}

/// The status and the body of the answer to a call.
pub(crate) async fn call(address: &str, function: &str, arguments: &[u8]) -> (u16, String) {
    send(address, &head(address, function, arguments.len()), arguments).await
}

/// The status and the body of the answer to a request.
async fn send(address: &str, head: &str, arguments: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server may refuse before it has read everything.
    let _ = stream.write_all(arguments).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    assert!(head.contains("200 OK") || head.contains("application/problem+json"), "{head}");
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_are_asked_for_over_http() {
    let schema = fields([("sentence", DataType::Utf8)]);
    let (spout, server) = (FeederBatchSpout::new(schema.clone()), DrpcServer::new(Duration::from_secs(60)));
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
        stream.write_all((head(&address, "words", 3) + "the").as_bytes()).await.unwrap();
    }
    assert_eq!(call(&address, "words", b"moon").await, (200, "[[1]]".to_owned()));

    cluster.kill("words", Duration::from_secs(5)).await.unwrap();
    let began = Instant::now();
    let (status, body) = call(&address, "words", b"the").await;
    assert!(status == 503 && body.contains("has ended"), "{status} {body}");
    assert!(began.elapsed() < Duration::from_secs(20), "at once");
    door.abort();
}

/// A door to a function that answers with its arguments, in a topology that rests if `rests`.
async fn echo(server: &DrpcServer, rests: bool) -> (LocalCluster, String) {
    let config = TopologyConfig { active: !rests, ..TopologyConfig::default() };
    let (cluster, topology) = (LocalCluster::new(), TridentTopology::new().config(config));
    topology.new_drpc_stream("echo", server).returns("echo", server);
    cluster.submit("echo", topology.build().unwrap().topology).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(axum::serve(listener, router(server.clone())).into_future());
    (cluster, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_calls_than_may_wait_are_refused_at_once_and_those_who_leave_make_room() {
    let server = DrpcServer::new(Duration::from_secs(30)).at_most(3, 1 << 20);
    let (cluster, address) = echo(&server, true).await;
    let ask = || {
        let address = address.clone();
        tokio::spawn(async move { call(&address, "echo", b"there").await })
    };
    let began = Instant::now();
    let mut calls: Vec<_> = (0..10).map(|_| ask()).collect();
    while calls.iter().filter(|call| call.is_finished()).count() < 7 {
        assert!(began.elapsed() < Duration::from_secs(10), "more calls wait than may");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for refused in calls.extract_if(.., |call| call.is_finished()) {
        let (status, body) = refused.await.unwrap();
        assert!(status == 503 && body.contains("3 calls under way"), "{status} {body}");
    }
    assert_eq!(calls.len(), 3, "the others wait");
    // They go away. Nobody takes their calls up, and there is room at once.
    calls.iter().for_each(|call| call.abort());
    let call = loop {
        let call = ask();
        tokio::time::sleep(Duration::from_millis(300)).await;
        if !call.is_finished() {
            break call;
        }
        assert_eq!(call.await.unwrap().0, 503);
        assert!(began.elapsed() < Duration::from_secs(20), "there is no room yet");
    };
    cluster.activate("echo").unwrap();
    assert_eq!(call.await.unwrap(), (200, "[[\"there\"]]".to_owned()));
    cluster.kill("echo", Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn web_pages_are_kept_out() {
    let server = DrpcServer::new(Duration::from_secs(5));
    let (cluster, address) = echo(&server, false).await;
    let port = address.rsplit_once(':').unwrap().1;
    let request = |lines: &str| {
        format!("POST /v1/drpc/echo HTTP/1.1\r\n{lines}\r\nConnection: close\r\nContent-Length: 2\r\n\r\n")
    };
    let kind = "Content-Type: application/octet-stream";
    let own = request(&format!("Host: localhost:{port}\r\n{kind}\r\nOrigin: http://localhost:{port}"));
    assert_eq!(send(&address, &own, b"hi").await, (200, "[[\"hi\"]]".to_owned()));
    let refused = [
        (403, format!("Host: evil.example:{port}\r\n{kind}")),
        (403, format!("Host: {address}\r\n{kind}\r\nOrigin: http://evil.example")),
        (403, format!("Host: {address}\r\n{kind}\r\nOrigin: null")),
        (415, format!("Host: {address}\r\nContent-Type: text/plain")),
        (415, format!("Host: {address}\r\nContent-Type: application/x-www-form-urlencoded")),
        (415, format!("Host: {address}")),
    ];
    for (expected, lines) in refused {
        let (status, body) = send(&address, &request(&lines), b"hi").await;
        assert_eq!(status, expected, "{lines}: {body}");
    }
    cluster.kill("echo", Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_answers_what_its_documentation_says() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let example = tokio::spawn(crate::drpc_words::run(listener, async { drop(stopped.await) }));
    assert_eq!(call(&address, "words", b"the man").await, (200, "[[5]]".to_owned()));
    assert_eq!(call(&address, "words", b"nobody").await, (200, "[[0]]".to_owned()));
    stop.send(()).unwrap();
    example.await.unwrap().unwrap();
}

/// Counts calls by their arguments in a file, answers with the new counts, and ends.
async fn counted(maps: &RedbMaps, calls: &[&str]) -> Vec<String> {
    let (cluster, topology) = (LocalCluster::new(), TridentTopology::new());
    let server = DrpcServer::new(Duration::from_secs(5));
    let kept = topology.new_drpc_stream("count", &server).group_by(&["args"]).persistent_aggregate(
        maps.transactional::<i64>("calls"),
        &[],
        Count,
        "count",
    );
    kept.new_values_stream().unwrap().returns("count", &server);
    cluster.submit("count", topology.build().unwrap().topology).unwrap();
    let mut answers = Vec::new();
    for arguments in calls {
        answers.push(server.execute("count", arguments).await.unwrap());
    }
    cluster.kill("count", Duration::from_secs(5)).await.unwrap();
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_a_file_counts_go_on_after_a_restart() {
    let folder = std::env::temp_dir().join(format!("stratus-drpc-{}", std::process::id()));
    let maps = RedbMaps::open(folder.join("states.redb")).await.unwrap();
    assert_eq!(counted(&maps, &["a", "b", "a"]).await, [r#"[["a",1]]"#, r#"[["b",1]]"#, r#"[["a",2]]"#]);
    // The numbers of the calls begin anew; those of a transaction would be skipped, or refused as behind the state.
    assert_eq!(counted(&maps, &["b", "a", "a"]).await, [r#"[["b",2]]"#, r#"[["a",3]]"#, r#"[["a",4]]"#]);
    drop(maps);
    std::fs::remove_dir_all(folder).unwrap();
}
