//! Records that the log forgets before everybody had them: what is lost is named, and nothing else is missing.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use stratus_tests::checker::{self, Watcher};
use stratus_tests::events::Clicks;
use stratus_tests::process::Stratus;
use tokio_postgres::Client;

use crate::platform::Platform;

const PARTITIONS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(120);

/// The platform, what was sent to it, and what of that the topic has forgotten too early.
struct Story {
    platform: Platform,
    producer: FutureProducer,
    clicks: Clicks,
    ends: [u64; PARTITIONS],
    lost: BTreeMap<(usize, u64), u64>,
}

impl Story {
    async fn begin() -> Result<Option<Self>> {
        let Some(platform) = Platform::shared(PARTITIONS as u64).await? else { return Ok(None) };
        let producer = ClientConfig::new()
            .set("bootstrap.servers", platform.kafka.brokers())
            .set("enable.idempotence", "true")
            .create()?;
        let clicks = Clicks::without_files(9, 1);
        Ok(Some(Self { platform, producer, clicks, ends: [0; PARTITIONS], lost: BTreeMap::new() }))
    }

    async fn send_to(&mut self, partition: usize, lines: &[String]) -> Result<()> {
        let sends = lines.iter().map(async |line| {
            let record = FutureRecord::<(), str>::to(&self.platform.topic).payload(line.trim_end());
            let record = record.partition(i32::try_from(partition)?);
            let sent = self.producer.send(record, PATIENCE).await.map_err(|(error, _)| error)?;
            anyhow::Ok(u64::try_from(sent.offset)?)
        });
        let last = try_join_all(sends).await?.into_iter().max();
        self.ends[partition] += lines.len() as u64;
        ensure!(
            last.is_none_or(|last| last + 1 == self.ends[partition]),
            "somebody else writes to the topic"
        );
        Ok(())
    }

    /// Events that stay, in turns over some partitions.
    async fn send(&mut self, partitions: &[usize], count: u64) -> Result<()> {
        for partition in partitions {
            let lines = self.clicks.take(count / partitions.len() as u64);
            self.send_to(*partition, &lines).await?;
        }
        Ok(())
    }

    /// Events that are to be lost, and so are not counted; returns where they begin.
    async fn send_doomed(&mut self, partition: usize, count: u64) -> Result<u64> {
        let from = self.ends[partition];
        let lines = self.clicks.decoys(count);
        self.send_to(partition, &lines).await?;
        self.lost.insert((partition, from), self.ends[partition]);
        Ok(from)
    }

    /// The topic forgets what stands below an offset.
    fn forget(&self, partition: usize, before: u64) -> Result<()> {
        let (partition, before) = (i32::try_from(partition)?, i64::try_from(before)?);
        self.platform.kafka.delete_records(&self.platform.topic, partition, before)
    }

    fn good(&self) -> u64 {
        self.clicks.good.load(Ordering::SeqCst)
    }

    /// Waits until exactly the ranges that were lost are told.
    async fn until_gaps_told(&self, client: &Client) -> Result<()> {
        let began = Instant::now();
        loop {
            let told = gaps(client).await?;
            if told == self.lost {
                return Ok(());
            }
            ensure!(told.iter().all(|(from, to)| self.lost.get(from) == Some(to)), "{told:?} is not lost");
            ensure!(began.elapsed() < PATIENCE, "{told:?} is told, {:?} is lost", self.lost);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The answer counts each event that was not lost.
    async fn settle_unrefreshed(&self, client: &Client) -> Result<()> {
        checker::until_total(client, self.good(), PATIENCE).await?;
        checker::exact(client, &self.clicks).await
    }

    /// The answer counts each event that was not lost, before a refresh and after it, and says how many offsets are.
    async fn settle(&self, client: &Client) -> Result<()> {
        self.settle_unrefreshed(client).await?;
        self.platform.recompute().await?;
        ensure!(total(client).await? == self.good(), "a refresh moved the answer");
        checker::exact(client, &self.clicks).await?;
        ensure!(gaps(client).await? == self.lost, "{:?}", gaps(client).await?);
        let lost: u64 = self.lost.iter().map(|((_, from), to)| to - from).sum();
        ensure!(lost_below_answer(client).await? == lost, "the answer says otherwise than {lost}");
        Ok(())
    }
}

async fn gaps(client: &Client) -> Result<BTreeMap<(usize, u64), u64>> {
    let query = "SELECT source, partition, \"from\", \"to\", offsets FROM stratus.gaps";
    let rows = client.query(query, &[]).await.context(query)?;
    let row = |row: tokio_postgres::Row| {
        let (source, partition): (String, i32) = (row.get(0), row.get(1));
        let (from, to, offsets): (i64, i64, i64) = (row.get(2), row.get(3), row.get(4));
        ensure!(source == "clicks" && offsets == to - from, "{row:?}");
        Ok(((usize::try_from(partition)?, u64::try_from(from)?), u64::try_from(to)?))
    };
    rows.into_iter().map(row).collect()
}

async fn total(client: &Client) -> Result<u64> {
    let row = client.query_one("SELECT sum(views)::bigint FROM page_views", &[]).await?;
    Ok(u64::try_from(row.get::<_, i64>(0))?)
}

/// How many offsets below an answer are lost, as that answer tells.
async fn lost_below_answer(client: &Client) -> Result<u64> {
    total(client).await?;
    let row = client.query_one("SELECT gaps FROM stratus.answer WHERE view = 'page_views'", &[]).await?;
    Ok(u64::try_from(row.get::<_, i64>(0))?)
}

/// The SQLSTATE that a query fails with.
async fn refusal(client: &Client) -> Option<String> {
    let error = client.query_one("SELECT sum(views)::bigint FROM page_views", &[]).await.err()?;
    error.code().map(|code| code.code().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_forgot_too_early_is_named_and_nothing_else_is_missing() {
    let _turn = stratus_tests::turn().await;
    let Some(mut story) = Story::begin().await.unwrap() else { return };
    let client = story.platform.connect().await.unwrap();
    story.send(&[0, 1, 2], 3_000).await.unwrap();
    checker::until_total(&client, story.good(), PATIENCE).await.unwrap();
    story.platform.recompute().await.unwrap();
    story.send(&[0, 1, 2], 1_000).await.unwrap();
    checker::until_total(&client, story.good(), PATIENCE).await.unwrap();
    checker::exact(&client, &story.clicks).await.unwrap();

    let began = Instant::now();
    nobody_saw_them(&mut story, &client).await.unwrap();
    println!("nobody saw them: {:?}", began.elapsed());
    only_the_speed_layer_counted_them(&mut story, &client).await.unwrap();
    println!("only the speed layer counted them: {:?}", began.elapsed());
    only_the_ledger_speaks_of_them(&mut story, &client).await.unwrap();
    println!("only the ledger speaks of them: {:?}", began.elapsed());
    the_store_is_lost_as_well(&mut story, &client).await.unwrap();
    println!("the store is lost as well: {:?}", began.elapsed());
    let Story { platform, .. } = story;
    platform.stop().await.unwrap();
}

/// Ingest and the speed layer were away: the speed layer waits until ingest has said what is lost.
async fn nobody_saw_them(story: &mut Story, client: &Client) -> Result<()> {
    let watcher = Watcher::start(story.platform.address.subscribe(), story.clicks.good, PATIENCE);
    story.platform.kill("ingest").await?;
    story.platform.kill("speed").await?;
    let before = story.good();
    for (partition, count) in [(0, 300), (1, 150), (2, 120)] {
        story.send_doomed(partition, count).await?;
        story.forget(partition, story.ends[partition])?;
    }
    // Nothing stands behind the gap of partition 2.
    story.send(&[0, 1], 500).await?;
    story.platform.start_layer("speed").await?;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    ensure!(total(client).await? == before, "it did not wait for ingest");
    ensure!(gaps(client).await?.is_empty());
    story.platform.start_layer("ingest").await?;
    checker::until_total(client, story.good(), PATIENCE).await?;
    story.until_gaps_told(client).await?;
    story.send(&[2], 100).await?;
    story.settle(client).await?;
    watcher.stop().await.map(drop)
}

/// The speed layer was ahead of ingest: what it counted stays in answers until the next version, which follows the
/// master dataset.
async fn only_the_speed_layer_counted_them(story: &mut Story, client: &Client) -> Result<()> {
    story.platform.kill("ingest").await?;
    story.send_doomed(1, 200).await?;
    checker::until_total(client, story.good() + 200, PATIENCE).await?;
    story.forget(1, story.ends[1])?;
    story.send(&[0, 1], 300).await?;
    checker::until_total(client, story.good() + 200, PATIENCE).await?;
    story.platform.start_layer("ingest").await?;
    story.until_gaps_told(client).await?;
    ensure!(total(client).await? == story.good() + 200);
    let lost: u64 = story.lost.iter().map(|((_, from), to)| to - from).sum();
    ensure!(lost_below_answer(client).await? == lost);
    story.platform.recompute().await?;
    story.settle(client).await
}

/// The speed layer died when it had written down their range and nothing more. They are not counted: what was
/// written down is no longer what can be read, so a new generation begins.
async fn only_the_ledger_speaks_of_them(story: &mut Story, client: &Client) -> Result<()> {
    let watcher = Watcher::start(story.platform.address.subscribe(), story.clicks.good, PATIENCE);
    story.platform.kill("ingest").await?;
    story.platform.kill("speed").await?;
    let mut environment = story.platform.environment.clone();
    environment.insert("STRATUS_CRASH_AT", "speed:after-append:1".to_owned());
    let mut doomed = Stratus::start("speed", story.platform.folder.path(), &environment).await?;
    let from = story.send_doomed(0, 250).await?;
    let (_, log) = doomed.wait(PATIENCE).await?;
    ensure!(log.contains("crash point speed:after-append reached"), "{log}");
    story.forget(0, story.ends[0])?;
    ensure!(story.lost.contains_key(&(0, from)));
    story.send(&[0, 1, 2], 300).await?;
    story.platform.start_layer("speed").await?;
    story.platform.start_layer("ingest").await?;
    checker::until_total(client, story.good(), PATIENCE).await?;
    story.until_gaps_told(client).await?;
    story.settle(client).await?;
    watcher.stop().await.map(drop)
}

/// The speed layer had counted them, and then its store is emptied. What it counts anew comes from the master dataset
/// on both sides of the gap, and from the topic.
async fn the_store_is_lost_as_well(story: &mut Story, client: &Client) -> Result<()> {
    story.send(&[0, 1, 2], 600).await?;
    story.settle_unrefreshed(client).await?;
    story.platform.kill("ingest").await?;
    for partition in [0, 1] {
        story.send_doomed(partition, 175).await?;
    }
    checker::until_total(client, story.good() + 350, PATIENCE).await?;
    // All that ingest has, and what it does not have.
    for partition in [0, 1, 2] {
        story.forget(partition, story.ends[partition])?;
    }
    story.send(&[0, 1, 2], 300).await?;
    checker::until_total(client, story.good() + 350, PATIENCE).await?;
    story.platform.redis.flush()?;
    let asking = story.platform.connect().await?;
    let asked = tokio::spawn(async move { refusal(&asking).await });
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure!(!asked.is_finished(), "answered while nothing can be told: {:?}", asked.await);
    story.platform.start_layer("ingest").await?;
    checker::until_total(client, story.good(), PATIENCE).await?;
    ensure!(asked.await?.is_none(), "the query that waited was refused");
    story.until_gaps_told(client).await?;
    story.send(&[0, 1], 200).await?;
    story.settle_unrefreshed(client).await?;
    // Behind the gaps ingest absorbs; then the topic forgets again, and the store is lost again.
    for partition in [0, 1, 2] {
        story.forget(partition, story.ends[partition])?;
    }
    story.platform.redis.flush()?;
    checker::until_total(client, story.good(), PATIENCE).await?;
    story.settle(client).await
}
