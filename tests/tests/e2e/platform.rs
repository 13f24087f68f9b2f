//! The platform as it is run in production: a topic, Redis, and a process for each layer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use stratus_servers::kafka::Kafka;
use stratus_servers::redis::Redis;
use stratus_tests::events::{Clicks, TOTALS, VIEW};
use stratus_tests::process::Stratus;
use stratus_tests::producers::Producers;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

/// The topic that the events are sent to.
pub const TOPIC: &str = "clicks";
const SOURCE: &str =
    "CREATE TABLE clicks (user_id TEXT, page TEXT, ms INT, price NUMERIC(10, 2), at TIMESTAMPTZ)
    WITH (connector = 'kafka', topic = 'clicks')";

/// Events sent at a time.
const STEP: u64 = 500;

/// Kafka, Redis, and a process for each layer.
pub struct Platform {
    pub folder: TempDir,
    pub kafka: Kafka,
    pub redis: Redis,
    pub environment: BTreeMap<&'static str, String>,
    pub layers: BTreeMap<&'static str, Stratus>,
    pub address: watch::Sender<String>,
}

impl Platform {
    /// Starts the servers and every layer, and creates the source and two views. None if the servers are not to be
    /// had, which has been said.
    pub async fn start(partitions: u64) -> Result<Option<Self>> {
        let (Some(kafka), Some(redis)) = (Kafka::start()?, Redis::start(&[])?) else { return Ok(None) };
        kafka.create_topic(TOPIC, i32::try_from(partitions)?, &[])?;
        let environment = BTreeMap::from([
            ("STRATUS__KAFKA__BROKERS", kafka.brokers().to_owned()),
            ("STRATUS__STATE__KIND", "redis".to_owned()),
            ("STRATUS__STATE__URL", redis.url().to_owned()),
        ]);
        let (address, _) = watch::channel(String::new());
        let folder = tempfile::tempdir()?;
        let mut platform = Self { folder, kafka, redis, environment, layers: BTreeMap::new(), address };
        for layer in ["ingest", "speed", "batch", "serve"] {
            platform.start_layer(layer).await?;
        }
        let client = platform.connect().await?;
        for statement in [SOURCE, VIEW, TOTALS] {
            client.batch_execute(statement).await.context(statement)?;
        }
        Ok(Some(platform))
    }

    pub async fn start_layer(&mut self, layer: &'static str) -> Result<()> {
        let process = Stratus::start(layer, self.folder.path(), &self.environment).await?;
        if layer == "serve" {
            self.address.send_replace(process.pg.clone());
        }
        self.layers.insert(layer, process);
        Ok(())
    }

    /// kill -9.
    pub async fn kill(&mut self, layer: &'static str) -> Result<()> {
        self.layers.remove(layer).context("it runs")?.kill().await
    }

    /// kill -9, and a new process of the same layer.
    pub async fn replace(&mut self, layer: &'static str) -> Result<()> {
        self.kill(layer).await?;
        self.start_layer(layer).await
    }

    pub async fn connect(&self) -> Result<Client> {
        self.layers.get("serve").context("serve runs")?.connect().await
    }

    /// Asks for a recompute and does not wait for it.
    pub async fn refresh(&self) {
        if let Ok(client) = self.connect().await {
            tokio::spawn(async move { client.batch_execute("REFRESH MATERIALIZED VIEW page_views").await });
        }
    }

    /// Ends every process in an orderly way.
    pub async fn stop(self) -> Result<()> {
        for (layer, process) in self.layers {
            let (status, log) = process.terminate().await?;
            ensure!(status.success(), "SIGTERM of {layer} ended with {status}:\n{log}");
        }
        Ok(())
    }
}

/// Sends events until `count` are sent, at about `rate` a second.
pub fn send(
    mut producers: Producers,
    mut clicks: Clicks,
    count: u64,
    rate: u64,
) -> JoinHandle<Result<(Producers, Clicks)>> {
    tokio::spawn(async move {
        let began = Instant::now();
        let mut sent = 0;
        while sent < count {
            producers.send(&mut clicks, STEP).await?;
            sent += STEP;
            let due = began + Duration::from_millis(sent * 1_000 / rate);
            tokio::time::sleep_until(due.into()).await;
        }
        Ok((producers, clicks))
    })
}
