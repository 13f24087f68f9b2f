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

/// Events sent at a time.
const STEP: u64 = 500;

/// How long two recomputes may take.
const RECOMPUTE: Duration = Duration::from_secs(60);

/// Kafka, Redis, and a process for each layer.
pub struct Platform {
    // They end before what they work with is taken away.
    pub layers: BTreeMap<&'static str, Stratus>,
    pub folder: TempDir,
    pub kafka: Kafka,
    /// The topic that the events are sent to.
    pub topic: String,
    pub redis: Redis,
    pub environment: BTreeMap<&'static str, String>,
    pub address: watch::Sender<String>,
}

impl Platform {
    /// Starts servers of its own, for tests that kill them, and [runs](Platform::run) on them.
    pub async fn start(partitions: u64) -> Result<Option<Self>> {
        Self::run(Kafka::start()?, Redis::start(&[])?, partitions).await
    }

    /// [Runs](Platform::run) on servers that the environment names, if it does.
    pub async fn shared(partitions: u64) -> Result<Option<Self>> {
        Self::run(Kafka::shared()?, Redis::shared()?, partitions).await
    }

    /// Starts every layer, and creates the source and two views. None if the servers are not to be had, which has been
    /// said.
    async fn run(kafka: Option<Kafka>, redis: Option<Redis>, partitions: u64) -> Result<Option<Self>> {
        let (Some(kafka), Some(redis)) = (kafka, redis) else { return Ok(None) };
        let topic = kafka.topic(i32::try_from(partitions)?, &[])?;
        let source = format!(
            "CREATE TABLE clicks (user_id TEXT, page TEXT, ms INT, price NUMERIC(10, 2), at TIMESTAMPTZ)
             WITH (connector = 'kafka', topic = '{topic}')"
        );
        let environment = BTreeMap::from([
            ("STRATUS__KAFKA__BROKERS", kafka.brokers().to_owned()),
            ("STRATUS__STATE__KIND", "redis".to_owned()),
            ("STRATUS__STATE__URL", redis.url().to_owned()),
        ]);
        let (address, _) = watch::channel(String::new());
        let folder = tempfile::tempdir()?;
        let mut platform =
            Self { layers: BTreeMap::new(), folder, kafka, topic, redis, environment, address };
        for layer in ["ingest", "speed", "batch", "serve"] {
            platform.start_layer(layer).await?;
        }
        let client = platform.connect().await?;
        for statement in [source.as_str(), VIEW, TOTALS] {
            client.batch_execute(statement).await.context(statement.to_owned())?;
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

    /// Producers of events, which take turns.
    pub async fn producers(&self, partitions: u64) -> Result<Producers> {
        Producers::start(self.kafka.brokers(), &self.topic, partitions).await
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

    /// Recomputes both views and waits for it.
    pub async fn recompute(&self) -> Result<()> {
        let client = self.connect().await?;
        let statements = "REFRESH MATERIALIZED VIEW page_views; REFRESH MATERIALIZED VIEW totals";
        let recompute = tokio::time::timeout(RECOMPUTE, client.batch_execute(statements)).await;
        Ok(recompute.context("the recompute does not end")??)
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

/// Sends events at about `rate` a second, as long as `goes_on` says so when it is told how many were sent.
pub fn send(
    mut producers: Producers,
    mut clicks: Clicks,
    goes_on: impl Fn(u64) -> bool + Send + 'static,
    rate: u64,
) -> JoinHandle<Result<(Producers, Clicks)>> {
    tokio::spawn(async move {
        let began = Instant::now();
        let mut sent = 0;
        while goes_on(sent) {
            producers.send(&mut clicks, STEP).await?;
            sent += STEP;
            let due = began + Duration::from_millis(sent * 1_000 / rate);
            tokio::time::sleep_until(due.into()).await;
        }
        Ok((producers, clicks))
    })
}
