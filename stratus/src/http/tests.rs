#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::*;

/// Remembers what it was given.
#[derive(Default)]
struct Fake {
    bodies: Mutex<Vec<(String, Bytes)>>,
    reasons: Mutex<Vec<String>>,
}

#[async_trait]
impl Platform for Fake {
    async fn append(&self, source: &str, body: Bytes) -> Result<Appended, AppendProblem> {
        match source {
            "missing" => return Err(AppendProblem::NoSuchSource),
            "foreign" => return Err(AppendProblem::NotAppendable("another program owns its files".into())),
            "full" => return Err(AppendProblem::Unavailable("no space left on device".into())),
            _ => {}
        }
        let accepted = body.iter().filter(|byte| **byte == b'\n').count() as u64;
        let offset = body.len() as u64;
        self.bodies.lock().unwrap().push((source.to_owned(), body));
        Ok(Appended { accepted, dead_letters: 1, offsets: BTreeMap::from([(0, offset)]) })
    }

    async fn not_ready(&self) -> Vec<String> {
        self.reasons.lock().unwrap().clone()
    }

    fn metrics(&self) -> String {
        "stratus_up 1\n".to_owned()
    }
}

struct Running {
    address: SocketAddr,
    fake: Arc<Fake>,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<io::Result<()>>,
}

async fn running() -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let fake = Arc::new(Fake::default());
    let (stop, stopped) = oneshot::channel::<()>();
    let platform: Arc<dyn Platform> = fake.clone();
    let served = tokio::spawn(serve(listener, platform, async {
        _ = stopped.await;
    }));
    Running { address, fake, stop, served }
}

impl Running {
    /// The whole answer to a request on a connection of its own.
    async fn raw(&self, head: &str, body: &[u8]) -> String {
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        connection.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        // The server may answer, and close, before it has read everything.
        _ = connection.write_all(body).await;
        let mut answer = Vec::new();
        _ = connection.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    async fn post(&self, source: &str, kind: &str, body: &[u8]) -> String {
        let (address, length) = (self.address, body.len());
        let head = format!(
            "POST /v1/sources/{source}/events HTTP/1.1\r\nHost: {address}\r\nContent-Type: {kind}\r\nContent-Length: {length}"
        );
        self.raw(&head, body).await
    }

    async fn get(&self, path: &str, headers: &str) -> String {
        self.raw(&format!("GET {path} HTTP/1.1\r\n{headers}"), b"").await
    }

    fn host(&self) -> String {
        format!("Host: {}", self.address)
    }
}

fn status(answer: &str) -> u16 {
    answer.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn json(answer: &str) -> serde_json::Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn events_reach_the_platform_byte_for_byte() {
    let running = running().await;
    let answer =
        running.post("clicks", "application/x-ndjson; charset=utf-8", b"{\"a\":1}\nnot json\n").await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(json(&answer), serde_json::json!({"accepted": 2, "dead_letters": 1, "offsets": {"0": 17}}));
    let bodies = running.fake.bodies.lock().unwrap();
    assert_eq!(*bodies, [("clicks".to_owned(), Bytes::from_static(b"{\"a\":1}\nnot json\n"))]);
}

#[tokio::test]
async fn problems_say_what_to_do() {
    let running = running().await;
    for (source, wanted) in [("missing", 404), ("foreign", 409), ("full", 503)] {
        let answer = running.post(source, "application/json", b"{}\n").await;
        assert_eq!(status(&answer), wanted, "{answer}");
        assert!(answer.to_lowercase().contains("content-type: application/problem+json"), "{answer}");
        let problem = json(&answer);
        assert_eq!(problem["status"], wanted);
        assert!(
            problem["detail"].as_str().unwrap().contains(source) && problem["hint"].is_string(),
            "{problem}"
        );
    }
    let host = running.host();
    assert_eq!(status(&running.get("/v1/nothing", &host).await), 404);
    let answer = running.get("/v1/sources/clicks/events", &host).await;
    assert_eq!(status(&answer), 405);
    assert!(answer.to_lowercase().contains("allow: post"), "{answer}");
    assert_eq!(json(&answer)["status"], 405);
}

#[tokio::test]
async fn a_page_cannot_post() {
    let running = running().await;
    for kind in ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let answer = running.post("clicks", kind, b"{}\n").await;
        assert_eq!(status(&answer), 415, "{kind}: {answer}");
    }
    let address = running.address;
    for headers in [
        "Host: evil.example".to_owned(),
        format!("Host: evil.example:{}", address.port()),
        format!("Host: {address}\r\nOrigin: http://evil.example"),
        format!("Host: {address}\r\nOrigin: http://localhost:1"),
        format!("Host: {address}\r\nOrigin: null"),
        format!("Host: {address}\r\nHost: {address}"),
    ] {
        let answer = running.get("/metrics", &headers).await;
        assert!(matches!(status(&answer), 400 | 403), "{headers}: {answer}");
        assert!(!answer.contains("stratus_up"));
    }
    let own = format!("Host: localhost:{port}\r\nOrigin: http://{address}", port = address.port());
    assert!(running.get("/metrics", &own).await.ends_with("stratus_up 1\n"));
    assert!(running.fake.bodies.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_body_has_a_limit_announced_or_not() {
    let running = running().await;
    let host = running.host();
    let head = format!("POST /v1/sources/clicks/events HTTP/1.1\r\n{host}\r\nContent-Type: application/json");
    let announced = format!("{head}\r\nContent-Length: {}", MAX_BODY_BYTES + 1);
    assert_eq!(status(&running.raw(&announced, b"").await), 413);

    let chunked = format!("{head}\r\nTransfer-Encoding: chunked");
    let mut body = format!("{:x}\r\n", MAX_BODY_BYTES + 1).into_bytes();
    body.resize(body.len() + MAX_BODY_BYTES + 1, b'x');
    let mut connection = TcpStream::connect(running.address).await.unwrap();
    connection.write_all(format!("{chunked}\r\n\r\n").as_bytes()).await.unwrap();
    let (mut read, mut write) = connection.into_split();
    let sending = tokio::spawn(async move {
        _ = write.write_all(&body).await;
        write
    });
    let mut start = [0; 12];
    read.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
    drop(sending.await);
    assert!(running.fake.bodies.lock().unwrap().is_empty());
}

#[tokio::test]
async fn readiness_gives_its_reasons() {
    let running = running().await;
    let host = running.host();
    let answer = running.get("/readyz", &host).await;
    assert_eq!((status(&answer), json(&answer)), (200, serde_json::json!({"ready": true, "reasons": []})));
    running.fake.reasons.lock().unwrap().push("the speed layer has stopped".to_owned());
    let answer = running.get("/readyz", &host).await;
    assert_eq!(status(&answer), 503);
    assert_eq!(json(&answer)["reasons"][0], "the speed layer has stopped");
    assert_eq!(status(&running.get("/livez", &host).await), 200);
}

#[tokio::test]
async fn a_stop_lets_idle_connections_go() {
    let running = running().await;
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    idle.write_all(format!("GET /livez HTTP/1.1\r\n{}\r\n\r\n", running.host()).as_bytes()).await.unwrap();
    let mut start = [0; 15];
    idle.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200 OK");
    running.stop.send(()).unwrap();
    let served = tokio::time::timeout(DRAIN / 2, running.served).await;
    served.unwrap().unwrap().unwrap();
}
