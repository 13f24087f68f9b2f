//! As much HTTP as a test needs.

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The status and body of an answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Sends one request and reads the whole answer.
///
/// # Errors
/// If the connection breaks, or the answer is not HTTP.
pub async fn send(address: &str, method: &str, path: &str, headers: &str, body: &[u8]) -> Result<Reply> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("no end of the headers")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status")?;
    Ok(Reply { status, body: body.to_owned() })
}

/// Appends events to a source.
///
/// # Errors
/// As [`send`].
pub async fn append(address: &str, source: &str, lines: &[u8]) -> Result<Reply> {
    let path = format!("/v1/sources/{source}/events");
    send(address, "POST", &path, "Content-Type: application/x-ndjson\r\n", lines).await
}

/// Reads a page.
///
/// # Errors
/// As [`send`].
pub async fn get(address: &str, path: &str) -> Result<Reply> {
    send(address, "GET", path, "", b"").await
}
