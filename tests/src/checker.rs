//! A client that asks all the time, and the comparison at the end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::watch;
use tokio_postgres::Client;

use crate::events::{Clicks, Truth};
use crate::process::connect;

/// Asks for the total all the time, over whatever process is there: it must never exceed what was appended, never go
/// back, and never lag by more than a bound.
#[derive(Debug)]
pub struct Watcher {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Result<u64>>,
    /// The last total.
    pub total: Arc<AtomicU64>,
}

impl Watcher {
    /// Starts asking the process whose address `address` says, which changes when it is started anew. What was
    /// appended longer than `lag` ago must be counted.
    pub fn start(address: watch::Receiver<String>, appended: &'static AtomicU64, lag: Duration) -> Self {
        let (stop, total) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let task = tokio::spawn(ask_always(address, (appended, lag), Arc::clone(&stop), Arc::clone(&total)));
        Self { stop, task, total }
    }

    /// Whether it has found something wrong already.
    pub fn failed(&self) -> bool {
        self.task.is_finished()
    }

    /// Stops asking.
    ///
    /// # Errors
    /// What it found wrong, or that it got no answer at all.
    pub async fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::SeqCst);
        let answers = self.task.await??;
        ensure!(answers > 0, "the watcher got no answer at all");
        Ok(answers)
    }
}

async fn ask_always(
    address: watch::Receiver<String>,
    (appended, lag): (&'static AtomicU64, Duration),
    stop: Arc<AtomicBool>,
    total: Arc<AtomicU64>,
) -> Result<u64> {
    let (mut last, mut answers) = (0u64, 0);
    let mut client: Option<Client> = None;
    // What was appended when, back to the moment from which on an answer may lag; and what it must have counted.
    let (mut recently, mut due, mut answered) = (VecDeque::new(), 0u64, Instant::now());
    while !stop.load(Ordering::SeqCst) {
        recently.push_back((Instant::now(), appended.load(Ordering::SeqCst)));
        while recently.front().is_some_and(|(at, _)| at.elapsed() > lag) {
            due = recently.pop_front().map_or(due, |(_, appended)| appended);
        }
        ensure!(answered.elapsed() < lag + Duration::from_secs(5), "no answer for {:?}", answered.elapsed());
        if client.as_ref().is_none_or(Client::is_closed) {
            let to = address.borrow().clone();
            client = connect(&to).await.ok();
        }
        let Some(open) = &client else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // Two ways to the same number, in one statement and so at one moment.
        let query = "SELECT (SELECT sum(views)::bigint FROM page_views), (SELECT events FROM totals)";
        match tokio::time::timeout(Duration::from_secs(60), open.query_one(query, &[])).await {
            Ok(Ok(row)) => {
                let views = u64::try_from(row.get::<_, Option<i64>>(0).unwrap_or(0))?;
                let limit = appended.load(Ordering::SeqCst);
                ensure!(
                    views <= limit,
                    "the view counts {views} events, of which only {limit} were appended"
                );
                ensure!(views >= last, "the view went back from {last} to {views}");
                ensure!(
                    views >= due,
                    "the view counts {views} events, but {due} were appended more than {lag:?} ago"
                );
                answered = Instant::now();
                // `totals` leaves out the rows that its expression fails on.
                let events = u64::try_from(row.get::<_, i64>(1))?;
                ensure!(events <= views, "two views of one source disagree: {events} events, {views} views");
                last = views;
                total.store(views, Ordering::SeqCst);
                answers += 1;
            }
            Ok(Err(error)) => {
                // Connections break when the process is killed; an answer that is refused for now says so.
                let code = error.code().map(|code| code.code().to_owned());
                match code.as_deref() {
                    None => client = None,
                    Some("57P03" | "55000" | "57P01" | "72000") => {}
                    Some(other) => bail!("the query failed with {other}: {error:?}"),
                }
            }
            Err(_) => bail!("no answer within a minute"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(answers)
}

/// Waits until the view has counted every event.
///
/// # Errors
/// If it has not within `patience`.
pub async fn until_total(client: &Client, want: u64, patience: Duration) -> Result<Duration> {
    let began = Instant::now();
    loop {
        let total: Option<i64> =
            match client.query_one("SELECT sum(views)::bigint FROM page_views", &[]).await {
                Ok(row) => row.get(0),
                Err(error)
                    if error.code().is_some_and(|code| code.code() == "57P03" || code.code() == "55000") =>
                {
                    None
                }
                Err(error) => return Err(error).context("the total cannot be read"),
            };
        let total = u64::try_from(total.unwrap_or(0))?;
        if total == want {
            return Ok(began.elapsed());
        }
        ensure!(total < want, "the view counts {total} events, of which only {want} were appended");
        ensure!(began.elapsed() < patience, "the view stands at {total} of {want} after {patience:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Compares every group of `page_views` with the generator's own count, and both views with plain SQL over the
/// master dataset.
///
/// # Errors
/// The first difference.
pub async fn exact(client: &Client, clicks: &Clicks) -> Result<()> {
    let query = "SELECT page, (extract(epoch FROM minute) * 1000000)::bigint, views, total_ms::bigint, fastest, slowest FROM page_views";
    let rows = client.query(query, &[]).await.context("page_views")?;
    ensure!(rows.len() == clicks.truth.len(), "{} groups, {} expected", rows.len(), clicks.truth.len());
    for row in rows {
        let key: (String, i64) = (row.get(0), row.get(1));
        let found =
            Truth { views: row.get(2), total_ms: row.get(3), fastest: row.get(4), slowest: row.get(5) };
        let want = clicks.truth.get(&key).with_context(|| format!("there is no group {key:?}"))?;
        ensure!(found == *want, "group {key:?} is {found:?}, not {want:?}");
    }
    until_absorbed(client, clicks).await?;
    let merged = "SELECT page, minute, views, total_ms, fastest, slowest, revenue, visitors FROM page_views";
    let plain = "SELECT page, date_bin(INTERVAL '1 minute', at), count(*), sum(ms), min(ms), max(ms), sum(price), approx_distinct(user_id) FROM clicks GROUP BY 1, 2";
    same(client, merged, plain).await?;
    let totals = "SELECT events, slow, odd FROM totals";
    let plain = "SELECT count(*), count(*) FILTER (WHERE ms > 500), sum(1000 / (ms - 7)) FROM clicks WHERE ms >= 0 AND ms <> 7";
    same(client, totals, plain).await?;
    let letters: i64 = client.query_one("SELECT count(*) FROM clicks_dead_letters", &[]).await?.get(0);
    ensure!(u64::try_from(letters)? == clicks.bad, "{letters} dead letters, {} bad records", clicks.bad);
    let twice = "SELECT count(*) FROM (SELECT _partition, _offset FROM clicks GROUP BY 1, 2 HAVING count(*) > 1) AS t";
    let twice: i64 = client.query_one(twice, &[]).await?.get(0);
    ensure!(twice == 0, "{twice} events stand twice in the master dataset");
    Ok(())
}

async fn until_absorbed(client: &Client, clicks: &Clicks) -> Result<()> {
    let want = i64::try_from(clicks.good.load(Ordering::SeqCst))?;
    let began = Instant::now();
    loop {
        let count: i64 = client.query_one("SELECT count(*) FROM clicks", &[]).await?.get(0);
        let letters: i64 = client.query_one("SELECT count(*) FROM clicks_dead_letters", &[]).await?.get(0);
        ensure!(count <= want, "{count} events in the master dataset, of which only {want} were appended");
        if count == want && u64::try_from(letters)? == clicks.bad {
            return Ok(());
        }
        ensure!(began.elapsed() < Duration::from_secs(60), "the master dataset stands at {count} of {want}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Both queries give the same rows, in any order.
async fn same(client: &Client, one: &str, other: &str) -> Result<()> {
    let rows = async |query: &str| -> Result<Vec<String>> {
        let mut rows: Vec<String> = client
            .simple_query(query)
            .await
            .with_context(|| query.to_owned())?
            .into_iter()
            .filter_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => {
                    let cells: Vec<&str> = (0..row.len()).map(|i| row.get(i).unwrap_or("NULL")).collect();
                    Some(cells.join(" | "))
                }
                _ => None,
            })
            .collect();
        rows.sort();
        Ok(rows)
    };
    let (one_rows, other_rows) = (rows(one).await?, rows(other).await?);
    if let Some((a, b)) = one_rows.iter().zip(&other_rows).find(|(a, b)| a != b) {
        bail!("{one}\n  gives  {a}\n{other}\n  gives  {b}");
    }
    ensure!(one_rows.len() == other_rows.len(), "{} rows against {}", one_rows.len(), other_rows.len());
    Ok(())
}
