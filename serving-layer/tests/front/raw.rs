//! A client that speaks the protocol byte by byte, to do what drivers do not.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::engine::Server;

pub struct Raw {
    socket: TcpStream,
    key: [u8; 8],
}

fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend_from_slice(name.as_bytes());
        body.push(0);
        body.extend_from_slice(value.as_bytes());
        body.push(0);
    }
    body.push(0);
    sized(&body)
}

fn sized(body: &[u8]) -> Vec<u8> {
    let mut message = u32::try_from(body.len() + 4).unwrap().to_be_bytes().to_vec();
    message.extend_from_slice(body);
    message
}

pub fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend_from_slice(&sized(body));
    message
}

/// The SQLSTATE of an error's body.
fn code(body: &[u8]) -> Option<String> {
    let field = body.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"C"));
    field.map(|code| String::from_utf8_lossy(code).into_owned())
}

impl Raw {
    /// As far as the startup message, and no answer read.
    pub async fn begin(server: &Server) -> Self {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        // Encryption is asked for and refused, in both of its kinds.
        for request in [80_877_104_u32, 80_877_103] {
            socket.write_all(&sized(&request.to_be_bytes())).await.unwrap();
            assert_eq!(socket.read_u8().await.unwrap(), b'N');
        }
        socket.write_all(&startup(&[("user", "raw"), ("database", "stratus")])).await.unwrap();
        Self { socket, key: [0; 8] }
    }

    pub async fn connect(server: &Server) -> Self {
        let mut raw = Self::begin(server).await;
        loop {
            match raw.message().await {
                (b'K', body) => raw.key.copy_from_slice(&body),
                (b'Z', _) => return raw,
                (b'E', body) => panic!("{}", String::from_utf8_lossy(&body)),
                _ => {}
            }
        }
    }

    pub async fn message(&mut self) -> (u8, Vec<u8>) {
        let kind = self.socket.read_u8().await.unwrap();
        let length = self.socket.read_u32().await.unwrap();
        let mut body = vec![0; usize::try_from(length).unwrap() - 4];
        self.socket.read_exact(&mut body).await.unwrap();
        (kind, body)
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    pub async fn query(&mut self, text: &str) {
        let body = [text.as_bytes(), b"\0"].concat();
        self.send(&framed(b'Q', &body)).await;
    }

    pub async fn cancel(&self, server: &Server) {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        let body = [&80_877_102_u32.to_be_bytes()[..], &self.key].concat();
        socket.write_all(&sized(&body)).await.unwrap();
        assert_eq!(socket.read(&mut [0]).await.unwrap(), 0, "a cancel request is never answered");
    }

    /// How many rows come, and the SQLSTATE of an error, up to the next readiness.
    pub async fn read_until_ready(&mut self) -> (usize, Option<String>) {
        let mut rows = 0;
        let mut error = None;
        loop {
            match self.message().await {
                (b'D', _) => rows += 1,
                (b'E', body) => error = code(&body),
                (b'Z', _) => return (rows, error),
                _ => {}
            }
        }
    }

    /// The kinds of the messages up to the next readiness.
    pub async fn kinds_until_ready(&mut self) -> String {
        let mut kinds = String::new();
        loop {
            let (kind, _) = self.message().await;
            kinds.push(char::from(kind));
            if kind == b'Z' {
                return kinds;
            }
        }
    }

    /// The SQLSTATE of the last error before the server closes the connection.
    pub async fn read_until_closed(&mut self) -> Option<String> {
        let mut received = Vec::new();
        self.socket.read_to_end(&mut received).await.unwrap();
        let mut rest = &received[..];
        let mut error = None;
        while let [kind, a, b, c, d, ..] = rest {
            let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap();
            if *kind == b'E' {
                error = code(&rest[5..=length]);
            }
            rest = &rest[length + 1..];
        }
        error
    }
}

#[tokio::test]
async fn a_series_answers_message_by_message() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server).await;
    let parse = |name: &str, text: &str| framed(b'P', format!("{name}\0{text}\0\0\0").as_bytes());
    let bind = |portal: &str, name: &str| framed(b'B', format!("{portal}\0{name}\0\0\0\0\0\0\0").as_bytes());
    let describe = |what: &str| framed(b'D', format!("{what}\0").as_bytes());
    let execute =
        |portal: &str, rows: u32| framed(b'E', &[portal.as_bytes(), b"\0", &rows.to_be_bytes()].concat());
    let sync = framed(b'S', b"");
    // A whole series, the portal run in two portions.
    let series = [
        parse("s", "SELECT id FROM events"),
        describe("Ss"),
        bind("p", "s"),
        describe("Pp"),
        execute("p", 3),
        execute("p", 3),
        execute("p", 3),
        sync.clone(),
    ];
    raw.send(&series.concat()).await;
    assert_eq!(raw.kinds_until_ready().await, "1tT2TDDDsDCCZ");
    // After an error all is skipped up to Sync; the portal is gone with its transaction, the statement stays.
    raw.send(&[execute("p", 0), bind("", "s"), execute("", 0), sync.clone()].concat()).await;
    assert_eq!(raw.kinds_until_ready().await, "EZ");
    raw.send(&[bind("", "s"), execute("", 0), sync.clone()].concat()).await;
    assert_eq!(raw.kinds_until_ready().await, "2DDDDCZ");
    // The empty statement, a command, a session command, and a statement that is prepared twice.
    let series = [parse("", " ;"), describe("S"), bind("", ""), describe("P"), execute("", 0), sync.clone()];
    raw.send(&series.concat()).await;
    assert_eq!(raw.kinds_until_ready().await, "1tn2nIZ");
    let series = [parse("", "REFRESH x"), bind("", ""), describe("P"), execute("", 0), sync.clone()];
    raw.send(&series.concat()).await;
    assert_eq!(raw.kinds_until_ready().await, "12nNCZ");
    let series = [parse("", "SHOW jit"), bind("", ""), describe("P"), execute("", 0), sync.clone()];
    raw.send(&series.concat()).await;
    assert_eq!(raw.kinds_until_ready().await, "12TDCZ");
    raw.send(&[parse("s", "SELECT 1"), sync.clone()].concat()).await;
    assert_eq!(raw.read_until_ready().await, (0, Some("42P05".to_owned())));
    raw.send(&[framed(b'C', b"Ss\0"), parse("s", "SELECT 1"), sync.clone()].concat()).await;
    assert_eq!(raw.kinds_until_ready().await, "31Z");
    raw.send(&[bind("", "nowhere"), sync].concat()).await;
    assert_eq!(raw.read_until_ready().await, (0, Some("26000".to_owned())));
}

#[tokio::test]
async fn nonsense_ends_one_connection_and_no_other() {
    let server = Server::start().await;
    let client = server.connect().await;
    for nonsense in [
        framed(b'?', b"what"),
        framed(b'B', b"p\0s\0\x00\x00\x00\x01\x00\x00\x00\x09hi\x00\x00"),
        b"Q\x7f\xff\xff\xff".to_vec(),
        b"Q\0\0\0\0".to_vec(),
    ] {
        let mut raw = Raw::connect(&server).await;
        raw.send(&nonsense).await;
        assert_eq!(raw.read_until_closed().await.as_deref(), Some("08P01"));
    }
    for nonsense in [&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], &[0; 64], &[0xff; 64]] {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        socket.write_all(nonsense).await.unwrap();
        let mut answer = Vec::new();
        // The close may overtake the answer; what matters is that it comes to an end.
        let _ = socket.read_to_end(&mut answer).await;
    }
    let mut raw = Raw::connect(&server).await;
    raw.send(&framed(b'Q', b"SELECT '\xff'\0")).await;
    assert_eq!(raw.read_until_ready().await, (0, Some("22021".to_owned())));
    raw.query("SELECT 1").await;
    assert_eq!(raw.read_until_ready().await, (1, None));
    client.simple_query("SELECT 1").await.unwrap();
}
