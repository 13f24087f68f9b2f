//! Servers that cannot be used from the beginning.

use std::time::{Duration, Instant};

use stratus_connectors::redis::{IncrementField, RedisBoltError, RedisIncrementBolt, RedisSettings};
use stratus_servers::{free_port, redis::Redis};

use crate::broker::eventually;
use crate::redis_server::{Client, Run, impatient, pair, pairs, server};

fn settings(login: &str, port: u16) -> RedisSettings {
    RedisSettings::new(&format!("redis://{login}127.0.0.1:{port}?timeout_ms=20000")).unwrap()
}

/// What a server that cannot be used is told of as, by a check and by a bolt's component.
async fn told(settings: RedisSettings) -> String {
    let error = settings.check().await.unwrap_err();
    assert!(matches!(error, RedisBoltError::Connect { .. }), "{error:?}");
    assert!(!format!("{error} {error:?} {settings:?}").contains("s3cret"), "{error:?}");
    let bolt = RedisIncrementBolt::new(settings, IncrementField::new("counts", "key"));
    assert!(!format!("{bolt:?}").contains("s3cret"));
    let run = Run::start(&pairs([pair("a", "")]), bolt, 1);
    eventually("the bolt has told", || run.last_error().is_some()).await;
    assert_eq!(run.last_error(), Some(error.to_string()));
    run.kill().await;
    error.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_told_with_the_server_and_without_itself() {
    let Some(server) = Redis::start(&["--requirepass", "right"]).unwrap() else { return };
    let port = server.port();
    let wrong = told(settings(":wrong-s3cret@", port)).await;
    let place = format!("cannot connect to the Redis server 127.0.0.1:{port}: ");
    assert!(
        wrong.starts_with(&place) && wrong.ends_with("check user and password in the address"),
        "{wrong}"
    );
    let none = told(settings("", port)).await;
    assert_eq!(
        none,
        format!("{place}NOAUTH Authentication required.; check user and password in the address")
    );
    settings(":right@", port).check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_is_told_without_the_password() {
    let port = free_port().unwrap();
    let absent = told(settings("me:s3cret@", port)).await;
    let place = format!("cannot connect to the Redis server 127.0.0.1:{port}: ");
    assert!(
        absent.starts_with(&place) && absent.contains("refused") && absent.contains("whether it runs"),
        "{absent}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_says_nothing_is_waited_for_no_longer_than_told() {
    let Some(server) = server() else { return };
    server.pause().unwrap();
    let began = Instant::now();
    let error = impatient(&server).check().await.unwrap_err().to_string();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(error.contains("no answer within 300ms"), "{error}");
    server.resume().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bolt_waits_for_its_server() {
    let Some(mut server) = server() else { return };
    server.kill().unwrap();
    let tuples = pairs([pair("a", ""), pair("a", "")]);
    let bolt = RedisIncrementBolt::new(settings("", server.port()), IncrementField::new("counts", "key"));
    let run = Run::start(&tuples, bolt, 1);
    eventually("the bolt has told", || run.last_error().is_some()).await;
    server.restart().unwrap();
    run.until_done().await;
    assert_eq!(tuples.failures(), [], "they waited in the queue");
    run.kill().await;
    assert_eq!(Client::of(&server).await.ask::<u32>("HGET counts a").await, 2);
}

/// A server with a certificate of a small authority of our own: trusted if the address names it, refused otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_checked() {
    let Some(server) = server() else { return };
    let folder = server.folder().unwrap();
    let openssl = |words: &str| {
        std::process::Command::new("openssl").args(words.split(' ')).current_dir(folder).output()
    };
    if openssl("version").is_err() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "openssl is needed");
        eprintln!("warning: there is no openssl on this machine: THIS TEST IS LEFT OUT");
        return;
    }
    let new = "req -x509 -newkey rsa:2048 -nodes -days 2";
    for words in [
        format!("{new} -subj /CN=authority -keyout ca.key -out ca.pem"),
        format!(
            "{new} -subj /CN=server -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE \
             -CA ca.pem -CAkey ca.key -keyout key.pem -out cert.pem"
        ),
    ] {
        let ran = openssl(&words).unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (port, ca, cert, key) = (free_port().unwrap(), path("ca.pem"), path("cert.pem"), path("key.pem"));
    let files = format!("tls-ca-cert-file {ca} tls-cert-file {cert} tls-key-file {key}");
    let mut client = Client::of(&server).await;
    client.ask::<()>(&format!("CONFIG SET {files} tls-auth-clients no tls-port {port}")).await;
    let url = format!("rediss://127.0.0.1:{port}");
    let trusting = RedisSettings::new(&format!("{url}?cafile={ca}")).unwrap();
    let bolt = RedisIncrementBolt::new(trusting, IncrementField::new("counts", "key"));
    let run = Run::start(&pairs([pair("a", "")]), bolt, 1);
    run.until_done().await;
    run.kill().await;
    assert_eq!(client.ask::<u32>("HGET counts a").await, 1);
    let error = RedisSettings::new(&url).unwrap().check().await.unwrap_err().to_string();
    assert!(error.contains(&format!("127.0.0.1:{port}")), "{error}");
    assert!(error.to_lowercase().contains("certificate"), "{error}");
}
