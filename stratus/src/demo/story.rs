//! The demo's course: start, declare, send and watch, recompute halfway, check, hand over.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;

use super::DemoArguments;
use super::display::{Display, grouped};
use super::generator::AdEvents;
use super::oracle::{Answered, Difference, Oracle};
use super::producer::{Order, Rate, Sent, Taken, produce};
use super::watcher::{Seen, watch};
use crate::client::{Session, quoted_text};
use crate::commands::{psql_line, record_metrics};
use crate::config::Config;
use crate::exit::{FAILED, Failure, INTERRUPTED};
use crate::node::{Node, Roles};
use crate::signals::Signals;

/// How long the answers have after the last event to be exact.
const SETTLE: Duration = Duration::from_secs(30);
/// Between two looks.
const POLL: Duration = Duration::from_millis(50);
/// How many differences are shown.
const SHOWN: usize = 10;

const SOURCE: &str = "CREATE TABLE ad_events (user_id TEXT, page_id TEXT, ad_id TEXT, ad_type TEXT,
  event_type TEXT, event_time TIMESTAMPTZ, ip_address TEXT) WITH (partitions = 2)";

const VIEW: &str = "CREATE MATERIALIZED VIEW campaign_views AS
  SELECT campaign_id, date_bin(INTERVAL '10 seconds', event_time) AS window_start, count(*) AS views
  FROM ad_events JOIN ads USING (ad_id) WHERE event_type = 'view' GROUP BY 1, 2";

const TOP: &str =
    "SELECT campaign_id, window_start, views FROM campaign_views ORDER BY views DESC, 1, 2 LIMIT 5";

/// Tells it from the beginning to the end, and cleans up.
pub(crate) async fn tell(arguments: &DemoArguments, dir: &Path) -> anyhow::Result<()> {
    let signals = Signals::listen()?;
    let config = config(dir);
    let node = Node::start(&config, Roles::ALL, Some(config.http.listen), record_metrics()?).await?;
    let told = tokio::select! {
        told = scenes(arguments, dir, &node) => told,
        error = node.failed() => Err(error),
        () = signals.asked() => Err(Failure::told(INTERRUPTED).into()),
    };
    if told.is_ok() && !arguments.once {
        let ad = AdEvents::new(arguments.seed, 0);
        hand_over(&node, ad.an_ad(), arguments.data_dir.as_ref().map(|_| dir))?;
        tokio::select! {
            error = node.failed() => {
                node.stop().await?;
                return Err(error);
            }
            () = signals.asked() => {}
        }
    }
    let stopped = node.stop().await;
    told.and(stopped)
}

/// Everything below one folder, on free ports.
fn config(dir: &Path) -> Config {
    let mut config = Config::default();
    config.data.dir = dir.join("data");
    config.pg.listen.set_port(0);
    config.http.listen.set_port(0);
    config
}

/// Where SQL and HTTP are.
fn doors(node: &Node) -> anyhow::Result<(SocketAddr, SocketAddr)> {
    node.pg_address().zip(node.http_address()).context("the demo's process has no front doors")
}

async fn scenes(arguments: &DemoArguments, dir: &Path, node: &Node) -> anyhow::Result<()> {
    let (pg, http) = doors(node)?;
    let events = AdEvents::new(arguments.seed, (arguments.bad_percent * 10_000.0).round() as u64);
    let campaigns = events.campaigns().to_vec();
    let display = Arc::new(Display::new(arguments.events));
    display.say(&format!(
        "The Yahoo Streaming Benchmark's ad events, live, through every layer of one process.\n\
         data    {}\npsql    {}\nready in {} ms\n",
        dir.display(),
        psql_line(node),
        node.took().as_millis()
    ))?;

    let ads = dir.join("ads.csv");
    std::fs::write(&ads, events.ads_csv()).with_context(|| format!("{} cannot be written", ads.display()))?;
    let session = Session::at(pg).await?;
    declare(&session, &ads, &display).await?;

    let sent = Arc::new(Sent::default());
    let (tell, seen) = watch::channel(Seen::default());
    let order = Order {
        lines: arguments.events,
        rate: arguments.rate.unwrap_or(Rate::Moving),
        lose_one: arguments.lose_one,
    };
    let http = (http, "ad_events");
    let watching = watch(pg, &sent, &display, &tell);
    let sending = async {
        let producing = produce(events, order, http, Arc::clone(&sent));
        let recomputing = recompute(pg, arguments.events / 2, &sent, &display);
        let ((oracle, taken), ()) = tokio::try_join!(producing, recomputing)?;
        settle(&session, &oracle, seen.clone()).await?;
        anyhow::Ok((oracle, taken))
    };
    let (oracle, taken) = tokio::select! {
        sent = sending => sent?,
        wrong = watching => return Err(wrong.context("the demo has failed")),
    };
    let seen = seen.borrow().clone();
    display.finish(&seen)?;
    check(&session, &display, &campaigns, &oracle, taken, &seen).await
}

async fn declare(session: &Session, ads: &Path, display: &Display) -> anyhow::Result<()> {
    let path = quoted_text(&ads.display().to_string());
    let dimension =
        format!("CREATE TABLE ads (ad_id TEXT, campaign_id TEXT) WITH (connector = 'file', path = {path})");
    for statement in [SOURCE, &dimension, VIEW] {
        display.say(&format!("{statement};"))?;
        session.run(statement).await.map_err(|fault| fault.within(statement))?;
    }
    display.say("")?;
    Ok(())
}

/// When half of the lines are sent, recomputes the view beside the events that go on.
async fn recompute(server: SocketAddr, half: u64, sent: &Sent, display: &Display) -> anyhow::Result<()> {
    while sent.lines() < half {
        tokio::time::sleep(POLL).await;
    }
    let session = Session::at(server).await?;
    display.batch("recomputing from Parquet, while events go on", true)?;
    let began = std::time::Instant::now();
    let mut refreshing = std::pin::pin!(session.run("REFRESH MATERIALIZED VIEW campaign_views"));
    loop {
        tokio::select! {
            refreshed = &mut refreshing => {
                refreshed?;
                break;
            }
            () = tokio::time::sleep(POLL * 2) => {
                let seconds = began.elapsed().as_secs_f64();
                display.batch(&format!("recomputing from Parquet, while events go on: {seconds:.1} s"), false)?;
            }
        }
    }
    let version = session
        .rows("SELECT version, events, groups, took_ms FROM stratus.versions WHERE view = 'campaign_views' ORDER BY version DESC LIMIT 1")
        .await?;
    let number =
        |column: usize| grouped(version.first(column).and_then(|text| text.parse().ok()).unwrap_or_default());
    let line = format!(
        "version {} published: {} events, {} groups, {} ms",
        number(0),
        number(1),
        number(2),
        number(3)
    );
    display.batch(&line, true)?;
    Ok(())
}

/// Waits until the merged answer and the master dataset have everything, or the time for it is over; the check
/// that follows tells which.
async fn settle(session: &Session, oracle: &Oracle, mut seen: watch::Receiver<Seen>) -> anyhow::Result<()> {
    let settled = async {
        // The sender is in the same select: it is there.
        _ = seen.wait_for(|seen| seen.merged == oracle.views).await;
        while stored(session).await? != (oracle.events, oracle.bad) {
            tokio::time::sleep(POLL).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(SETTLE, settled).await.unwrap_or(Ok(()))
}

/// How many events the master dataset has, and how many dead letters there are.
async fn stored(session: &Session) -> anyhow::Result<(u64, u64)> {
    let count = async |table: &str| -> anyhow::Result<u64> {
        let rows = session.rows(&format!("SELECT count(*) FROM {table}")).await?;
        Ok(rows.first(0).unwrap_or_default().parse()?)
    };
    Ok((count("ad_events").await?, count("ad_events_dead_letters").await?))
}

/// Compares everything with the generator's own count.
async fn check(
    session: &Session,
    display: &Display,
    campaigns: &[String],
    oracle: &Oracle,
    taken: Taken,
    seen: &Seen,
) -> anyhow::Result<()> {
    let answer = groups(session).await?;
    let differences = oracle.differences(campaigns, &answer);
    let (events, letters) = stored(session).await?;
    display.say(&format!("\n{TOP};\n{}", session.rows(TOP).await?))?;
    let mut said = format!(
        "{} events sent, {} groups, {} differ from the generator's own count\n",
        grouped(oracle.events),
        grouped(oracle.groups() as u64),
        grouped(differences.len() as u64)
    );
    for difference in differences.iter().take(SHOWN) {
        // Writing to a String cannot fail.
        _ = writeln!(said, "  {}", told(difference));
    }
    _ = writeln!(
        said,
        "{} of them in the master dataset, {} dead letters of {} bad lines",
        grouped(events),
        grouped(letters),
        grouped(oracle.bad)
    );
    _ = writeln!(
        said,
        "{} answers checked on the way: none above what was sent, none going back, each the sum of its layers;\nthe first after {:.1} s, {}{}",
        grouped(seen.answers),
        seen.first.unwrap_or_default().as_secs_f64(),
        lateness(seen.most_behind),
        if seen.again > 0 { format!(", {} asked again", seen.again) } else { String::new() }
    );
    display.say(said.trim_end())?;
    let mut wrong = Vec::new();
    if !differences.is_empty() {
        wrong.push(format!("{} groups differ", differences.len()));
    }
    if events != oracle.events {
        wrong.push(format!("the master dataset has {events} events and {} were sent", oracle.events));
    }
    if letters != oracle.bad {
        wrong.push(format!("there are {letters} dead letters and {} bad lines were sent", oracle.bad));
    }
    if taken != (Taken { accepted: oracle.events + oracle.bad, dead_letters: oracle.bad }) {
        wrong.push(format!(
            "the front door said it took {} lines, {} of them bad",
            taken.accepted, taken.dead_letters
        ));
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(FAILED, format!("not exact: {}", wrong.join("; "))).into())
    }
}

fn lateness(most: Duration) -> String {
    match most {
        Duration::ZERO => {
            "all with everything that had been acknowledged when they were asked for".to_owned()
        }
        most => format!("the latest {:.2} s behind what had been acknowledged", most.as_secs_f64()),
    }
}

async fn groups(session: &Session) -> anyhow::Result<Vec<Answered>> {
    let query =
        "SELECT campaign_id, CAST(date_part('epoch', window_start) AS BIGINT), views FROM campaign_views";
    let table = session.rows(query).await?;
    let group = |row: &Vec<Option<String>>| -> Option<Answered> {
        let [Some(campaign), Some(seconds), Some(views)] = row.as_slice() else { return None };
        Some((campaign.clone(), seconds.parse::<i64>().ok()? * 1000, views.parse().ok()?))
    };
    let all: Option<Vec<Answered>> = table.rows().iter().map(group).collect();
    all.context("a group of the answer has a NULL, or something that is no number")
}

fn told(difference: &Difference) -> String {
    let number = |count: Option<u64>| count.map_or_else(|| "no such group".to_owned(), grouped);
    format!(
        "campaign {}, window from {} ms: generated {}, answered {}",
        difference.campaign_id,
        difference.window_ms,
        number(difference.generated),
        number(difference.answered)
    )
}

/// How to go on by hand.
fn hand_over(node: &Node, ad: &str, kept: Option<&Path>) -> std::io::Result<()> {
    use std::io::Write as _;
    let http = node.http_address().map(|address| address.to_string()).unwrap_or_default();
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "\nIt goes on answering, until Ctrl-C. Look behind it:\n  {}\n    \
         SELECT * FROM campaign_views_speed LIMIT 5;        -- what the batch version does not hold yet\n    \
         REFRESH MATERIALIZED VIEW campaign_views;          -- now it does\n    \
         EXPLAIN SELECT * FROM campaign_views;              -- two scans under one merge\n    \
         SELECT * FROM stratus.versions;\n\
         Send an event, and see it counted:\n  \
         curl -s http://{http}/v1/sources/ad_events/events -H 'content-type: application/x-ndjson' \\\n    \
         -d '{{\"ad_id\": \"{ad}\", \"event_type\": \"view\", \"event_time\": \"2026-01-01T00:00:00Z\"}}'",
        psql_line(node)
    )?;
    if let Some(dir) = kept {
        writeln!(out, "The data stays in {}.", dir.display())?;
    }
    out.flush()
}
