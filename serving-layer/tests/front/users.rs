//! Users with passwords: who gets in, and what the others are told.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use stratus_serving::pg::Users;
use tokio_postgres::{Config, NoTls};

use super::engine::{Server, sqlstate};
use super::raw::{Raw, framed};

async fn guarded() -> Server {
    // One user's password is in the configuration, the other's is not.
    let secrets =
        [("ann".to_owned(), "hush, hush".to_owned()), ("bob".to_owned(), Users::verifier("s3cret"))];
    let users = Users::new(secrets).unwrap();
    Server::start_with(|options| options.users = Some(Arc::new(users))).await
}

/// The answer to a query, or the SQLSTATE of the refusal.
async fn ask(mut config: Config, user: &str, password: Option<&str>) -> Result<i64, String> {
    config.user(user);
    if let Some(password) = password {
        config.password(password);
    }
    let (client, connection) = config.connect(NoTls).await.map_err(|error| match error.code() {
        Some(code) => code.code().to_owned(),
        None => error.to_string(),
    })?;
    tokio::spawn(connection);
    Ok(client.query_one("SELECT 42::bigint", &[]).await.unwrap().get(0))
}

#[tokio::test]
async fn only_the_right_password_gets_in() {
    let server = guarded().await;
    let ask = async |user: &str, password: Option<&str>| ask(server.config(), user, password).await;
    assert_eq!(ask("ann", Some("hush, hush")).await, Ok(42));
    assert_eq!(ask("bob", Some("s3cret")).await, Ok(42));
    let refused = Err("28P01".to_owned());
    assert_eq!(ask("ann", Some("hush")).await, refused);
    assert_eq!(ask("ann", Some("s3cret")).await, refused);
    assert_eq!(ask("eve", Some("s3cret")).await, refused, "a user that does not exist is told the same");
    assert_eq!(ask("bob", Some(&Users::verifier("s3cret"))).await, refused, "a verifier is no password");
    assert!(ask("ann", None).await.is_err(), "without a password");
}

#[tokio::test]
async fn a_statement_of_a_user_can_be_cancelled() {
    let server = guarded().await;
    let mut config = server.config();
    config.user("ann").password("hush, hush");
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    let cancel = client.cancel_token();
    let (failed, ()) = tokio::join!(client.query("SELECT count(*), sum(n) FROM endless", &[]), async {
        server.watched.opened().await;
        cancel.cancel_query(NoTls).await.unwrap();
    });
    assert_eq!(sqlstate(&failed.unwrap_err()), "57014");
}

/// Whoever does not prove a password gets no statement in, by whatever message and however early.
#[tokio::test]
async fn nothing_is_carried_out_before_the_password_is_proven() {
    let server = guarded().await;
    let query = framed(b'Q', b"SELECT count(*), sum(n) FROM endless\0");
    let series = [
        framed(b'P', b"\0SELECT count(*), sum(n) FROM endless\0\0\0"),
        framed(b'B', b"\0\0\0\0\0\0\0\0"),
        framed(b'E', b"\0\0\0\0\0"),
        framed(b'S', b""),
    ];
    // The first message of SCRAM, whose answer is not proven: a query follows in the place of the proof.
    let first = b"n,,n=,r=rOprNGfwEbeRWgbNEkqO";
    let length = u32::try_from(first.len()).unwrap().to_be_bytes();
    let begun = framed(b'p', &[b"SCRAM-SHA-256\0", &length[..], first].concat());
    for sent in [query.clone(), series.concat(), [begun, query.clone()].concat()] {
        let mut raw = Raw::begin(&server).await;
        assert_eq!(raw.message().await.0, b'R', "a proof is asked for");
        raw.send(&sent).await;
        assert_eq!(raw.read_until_closed().await.as_deref(), Some("08P01"));
    }
    // In the same packet as the startup message, before anything was asked.
    let mut raw = Raw::begin(&server).await;
    raw.send(&query).await;
    assert_eq!(raw.read_until_closed().await.as_deref(), Some("08P01"));
    assert_eq!(server.watched.batches.load(Ordering::SeqCst), 0, "nothing was read");
}

#[tokio::test]
async fn psql_asks_for_the_password() {
    let server = guarded().await;
    let config = server.config();
    let port = config.get_ports()[0].to_string();
    let psql = async |password: &str| {
        let arguments =
            ["-X", "-w", "-h", "127.0.0.1", "-p", &port, "-U", "ann", "stratus", "-Atc", "SELECT 42"];
        let mut command = tokio::process::Command::new("psql");
        command.args(arguments).env("PGPASSWORD", password).stdin(Stdio::null()).output().await
    };
    let Ok(output) = psql("hush, hush").await else {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "psql is needed");
        return eprintln!("warning: psql is missing; its test is left out");
    };
    assert_eq!(String::from_utf8_lossy(&output.stdout), "42\n", "{output:?}");
    let refused = psql("wrong").await.unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("password authentication failed for user \"ann\""), "{told}");
}
