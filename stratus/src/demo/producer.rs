//! Sends the generator's events to the running server over HTTP, in batches, at a rate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::generator::{AdEvents, Made};
use super::oracle::Oracle;

/// Lines in a request.
const BATCH: u64 = 2_000;
/// The moving rate turns about this many events per second ...
const WAVE_MEAN: f64 = 45_000.0;
/// ... by this many ...
const WAVE_HEIGHT: f64 = 25_000.0;
/// ... in this time.
const WAVE_SECONDS: f64 = 9.0;
/// Answers that are further behind than this slow the moving rate down.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many events there are per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Rate {
    /// It moves, and gives way on a machine that cannot keep up.
    Moving,
    /// This many.
    Fixed(f64),
    /// As many as the server takes.
    Unbounded,
}

/// What has been sent, for who watches.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Lines in requests that the server has answered.
    lines: AtomicU64,
    /// Views in requests that have been sent, answered or not: no answer may exceed it.
    views_begun: AtomicU64,
    /// Views in requests that the server has answered: an answer that is behind it is late.
    views: AtomicU64,
    /// Views in the newest merged answer, told by who watches.
    views_seen: AtomicU64,
}

impl Sent {
    pub(crate) fn lines(&self) -> u64 {
        self.lines.load(Ordering::SeqCst)
    }

    pub(crate) fn views_begun(&self) -> u64 {
        self.views_begun.load(Ordering::SeqCst)
    }

    pub(crate) fn views(&self) -> u64 {
        self.views.load(Ordering::SeqCst)
    }

    pub(crate) fn see(&self, views: u64) {
        self.views_seen.store(views, Ordering::SeqCst);
    }

    fn views_behind(&self) -> u64 {
        self.views().saturating_sub(self.views_seen.load(Ordering::SeqCst))
    }
}

/// What the server said of all requests together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
pub(crate) struct Taken {
    pub(crate) accepted: u64,
    pub(crate) dead_letters: u64,
}

struct Batch {
    body: Bytes,
    lines: u64,
    views: u64,
}

/// What is to be sent, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    pub(crate) lines: u64,
    pub(crate) rate: Rate,
    /// Whether one view is counted and not sent: then the check has to fail.
    pub(crate) lose_one: bool,
}

/// Sends the first of `events` to a source of the server; answers with the oracle's count and the server's.
pub(crate) async fn produce(
    events: AdEvents,
    order: Order,
    server: (SocketAddr, &str),
    sent: Arc<Sent>,
) -> anyhow::Result<(Oracle, Taken)> {
    let (sender, mut batches) = mpsc::channel(4);
    let generating = tokio::task::spawn_blocking(move || generate(events, order, &sender));
    let mut door = Door::open(server.0, server.1).await?;
    let mut pace = Pace::new(order.rate);
    let mut taken = Taken::default();
    while let Some(batch) = batches.recv().await {
        pace.wait(batch.lines, &sent).await;
        sent.views_begun.fetch_add(batch.views, Ordering::SeqCst);
        let answer = door.post(batch.body).await?;
        if answer.accepted != batch.lines {
            bail!("the server took {} of {} lines", answer.accepted, batch.lines);
        }
        taken.accepted += answer.accepted;
        taken.dead_letters += answer.dead_letters;
        sent.lines.fetch_add(batch.lines, Ordering::SeqCst);
        sent.views.fetch_add(batch.views, Ordering::SeqCst);
    }
    Ok((generating.await.context("the generator")?, taken))
}

fn generate(mut events: AdEvents, order: Order, sender: &mpsc::Sender<Batch>) -> Oracle {
    let mut oracle = Oracle::default();
    let (mut left, mut lose) = (order.lines, order.lose_one);
    while left > 0 {
        let made = left.min(BATCH);
        left -= made;
        let mut body = Vec::with_capacity(made as usize * 256);
        let (mut lines, mut views) = (0, 0);
        for _ in 0..made {
            let begin = body.len();
            let made = events.write(&mut body);
            oracle.count(made);
            let is_view = matches!(made, Made::View { .. });
            if lose && is_view {
                body.truncate(begin);
                lose = false;
            } else {
                lines += 1;
                views += u64::from(is_view);
            }
        }
        // A receiver that is gone has given up, and nobody reads this count.
        if sender.blocking_send(Batch { body: body.into(), lines, views }).is_err() {
            break;
        }
    }
    oracle
}

/// Decides when the next batch is due.
#[derive(Debug)]
struct Pace {
    rate: Rate,
    began: Instant,
    due: Instant,
    /// What is left of the moving rate on a machine that cannot keep up.
    share: f64,
}

impl Pace {
    fn new(rate: Rate) -> Self {
        let now = Instant::now();
        Self { rate, began: now, due: now, share: 1.0 }
    }

    async fn wait(&mut self, lines: u64, sent: &Sent) {
        let per_second = match self.rate {
            Rate::Unbounded => return,
            Rate::Fixed(rate) => rate,
            Rate::Moving => {
                let wave = wave(self.began.elapsed());
                // About one event of three is a view.
                let behind = sent.views_behind() as f64 * 3.0 / (wave * self.share);
                self.share = next_share(self.share, Duration::from_secs_f64(behind));
                wave * self.share
            }
        };
        tokio::time::sleep_until(self.due.into()).await;
        let next = self.due + Duration::from_secs_f64(lines as f64 / per_second);
        // A server that stalled is not made up for by a burst of more than a second.
        let earliest = Instant::now().checked_sub(Duration::from_secs(1)).unwrap_or(next);
        self.due = next.max(earliest);
    }
}

/// The moving rate at a time, in events per second.
fn wave(elapsed: Duration) -> f64 {
    let turn = elapsed.as_secs_f64() / WAVE_SECONDS * std::f64::consts::TAU;
    WAVE_MEAN + WAVE_HEIGHT * turn.sin()
}

/// Less when the answers fall behind, more when they have caught up.
fn next_share(share: f64, behind: Duration) -> f64 {
    if behind > PATIENCE {
        (share * 0.9).max(0.02)
    } else if behind < PATIENCE / 2 {
        (share * 1.05).min(1.0)
    } else {
        share
    }
}

/// A connection to `POST /v1/sources/<source>/events`.
struct Door {
    requests: SendRequest<Full<Bytes>>,
    host: String,
    path: String,
}

impl Door {
    async fn open(address: SocketAddr, source: &str) -> anyhow::Result<Self> {
        let stream =
            TcpStream::connect(address).await.with_context(|| format!("no server answers at {address}"))?;
        stream.set_nodelay(true)?;
        let (requests, connection) = handshake(TokioIo::new(stream)).await?;
        // Its error reaches the request that waits for an answer.
        tokio::spawn(connection);
        Ok(Self { requests, host: address.to_string(), path: format!("/v1/sources/{source}/events") })
    }

    async fn post(&mut self, body: Bytes) -> anyhow::Result<Taken> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.path)
            .header(HOST, &self.host)
            .header(CONTENT_TYPE, "application/x-ndjson")
            .body(Full::new(body))?;
        let answer = self.requests.send_request(request).await.context("the events could not be sent")?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!(
                "the server refused the events with {status}: {}",
                String::from_utf8_lossy(&body).trim_end()
            );
        }
        Ok(serde_json::from_slice(&body)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_event_is_counted_and_not_sent() {
        for lose_one in [false, true] {
            let (sender, mut batches) = mpsc::channel(4);
            let order = Order { lines: BATCH + 500, rate: Rate::Unbounded, lose_one };
            let oracle = generate(AdEvents::new(1, 0), order, &sender);
            drop(sender);
            let (mut lines, mut views) = (0, 0);
            while let Ok(batch) = batches.try_recv() {
                assert_eq!(batch.body.iter().filter(|byte| **byte == b'\n').count() as u64, batch.lines);
                (lines, views) = (lines + batch.lines, views + batch.views);
            }
            let lost = u64::from(lose_one);
            assert_eq!((lines, views), (order.lines - lost, oracle.views - lost));
            assert_eq!(oracle.events, order.lines);
        }
    }

    #[test]
    fn the_rate_moves_within_bounds_and_gives_way() {
        for tenth in 0..200 {
            let rate = wave(Duration::from_millis(tenth * 100));
            assert!((WAVE_MEAN - WAVE_HEIGHT..=WAVE_MEAN + WAVE_HEIGHT).contains(&rate));
        }
        assert!(next_share(1.0, PATIENCE * 2) < 1.0);
        assert!(next_share(0.5, Duration::ZERO) > 0.5);
        assert!(next_share(1.0, Duration::ZERO) <= 1.0);
        assert!(next_share(0.02, PATIENCE * 9) >= 0.02);
    }
}
