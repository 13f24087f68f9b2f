//! Cancel requests, timeouts, clients that are gone or do not read, and the end of the server.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_postgres::NoTls;

use super::engine::{Server, sqlstate};
use super::raw::Raw;

/// Computes for ever without giving a row.
const COMPUTES: &str = "SELECT count(*), sum(n) FROM endless";

#[tokio::test]
async fn a_cancel_request_stops_the_statement_and_nothing_else() {
    let server = Server::start().await;
    let client = server.connect().await;
    let other = server.connect().await;
    for statement in [COMPUTES, "SELECT n FROM endless"] {
        let cancel = client.cancel_token();
        let (failed, ()) = tokio::join!(client.query(statement, &[]), async {
            server.watched.opened().await;
            // A query that computes holds up no other connection.
            let asked = Instant::now();
            other.simple_query("SELECT 1").await.unwrap();
            assert!(asked.elapsed() < Duration::from_secs(5));
            other.cancel_token().cancel_query(NoTls).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(server.watched.open.load(Ordering::SeqCst) > 0, "cancelled by another's request");
            cancel.cancel_query(NoTls).await.unwrap();
        });
        assert_eq!(sqlstate(&failed.unwrap_err()), "57014");
        server.watched.closed().await;
        client.simple_query("SELECT 1").await.unwrap();
    }
    // A request that comes when nothing runs does nothing.
    client.cancel_token().cancel_query(NoTls).await.unwrap();
    client.simple_query("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn a_statement_has_only_its_time() {
    let server = Server::start().await;
    let client = server.connect().await;
    client.batch_execute("SET statement_timeout = '200ms'").await.unwrap();
    let begun = Instant::now();
    let failed = client.simple_query(COMPUTES).await.unwrap_err();
    assert_eq!(sqlstate(&failed), "57014");
    assert!(failed.as_db_error().unwrap().message().contains("statement timeout"));
    assert!(begun.elapsed() < Duration::from_secs(5));
    server.watched.closed().await;
    assert_eq!(sqlstate(&client.query(COMPUTES, &[]).await.unwrap_err()), "57014");
    server.watched.closed().await;
    client.batch_execute("SET statement_timeout = 0").await.unwrap();
    client.simple_query("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn a_statement_stops_when_its_client_is_gone() {
    let server = Server::start().await;
    for statement in [COMPUTES, "SELECT n FROM endless"] {
        let mut raw = Raw::connect(&server).await;
        raw.query(statement).await;
        server.watched.opened().await;
        drop(raw);
        server.watched.closed().await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_slows_its_query_down() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    raw.query("SELECT n FROM endless").await;
    server.watched.opened().await;
    let batches = || server.watched.batches.load(Ordering::SeqCst);
    // The socket's own buffers take some megabytes, and then nothing moves.
    let (mut last, mut calm, begun) = (0, 0, Instant::now());
    while calm < 20 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the query goes on although nobody reads");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = batches();
        calm = if now == last { calm + 1 } else { 0 };
        last = now;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(batches(), last, "the query goes on although nobody reads");
    // It can still be cancelled, and what was written stays a whole number of messages.
    raw.cancel(&server).await;
    server.watched.closed().await;
    let (rows, error) = raw.read_until_ready().await;
    assert_eq!(error.as_deref(), Some("57014"));
    assert!(rows > 0 && rows <= last * 8_192);
    raw.query("SELECT 1").await;
    assert_eq!(raw.read_until_ready().await, (1, None));
}

#[tokio::test]
async fn at_the_end_running_statements_finish_and_idle_clients_are_told() {
    let mut server = Server::start_with(|options| options.drain = Duration::from_secs(30)).await;
    let mut idle = Raw::connect(&server).await;
    let busy = server.connect().await;
    // Suspended until the drain has begun: then it gets its rows.
    let (answer, ()) = tokio::join!(busy.query("SELECT n FROM endless LIMIT 200000", &[]), async {
        server.watched.opened().await;
        server.shutdown.take().unwrap().send(()).unwrap();
    });
    assert_eq!(answer.unwrap().len(), 200_000);
    assert_eq!(idle.read_until_closed().await.as_deref(), Some("57P01"));
    let served = server.served.take().unwrap();
    tokio::time::timeout(Duration::from_secs(10), served).await.unwrap().unwrap().unwrap();
    assert!(server.config().connect(NoTls).await.is_err());
}

#[tokio::test]
async fn a_statement_that_outlasts_the_drain_is_ended() {
    let mut server = Server::start_with(|options| options.drain = Duration::from_millis(200)).await;
    let client = server.connect().await;
    let (answer, ()) = tokio::join!(client.query(COMPUTES, &[]), async {
        server.watched.opened().await;
        server.shutdown.take().unwrap().send(()).unwrap();
    });
    assert_eq!(sqlstate(&answer.unwrap_err()), "57P01");
    server.watched.closed().await;
    let served = server.served.take().unwrap();
    tokio::time::timeout(Duration::from_secs(10), served).await.unwrap().unwrap().unwrap();
}
