//! A platform under load: events keep coming, refreshes run, a client asks all the time, the process dies and comes
//! back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use stratus_tests::checker::{self, Watcher};
use stratus_tests::events::{Clicks, SOURCE, TOTALS, VIEW};
use stratus_tests::process::Stratus;
use tempfile::TempDir;
use tokio::sync::watch;

/// How far an answer may lag behind the events, on a busy machine too.
pub const LAG: Duration = Duration::from_secs(30);
/// The same after a kill.
pub const LAG_AFTER_KILL: Duration = Duration::from_secs(30);

/// One platform in a folder of its own.
pub struct Run {
    folder: TempDir,
    pub clicks: Clicks,
    pub process: Option<Stratus>,
    address: watch::Sender<String>,
    watcher: Watcher,
    pub kills: u32,
}

impl Run {
    /// Starts a process with a source and two views, and a client that asks all the time and whose answers lag by no
    /// more than `lag`.
    pub async fn start(seed: u64, environment: &BTreeMap<&str, String>, lag: Duration) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let process = Stratus::up(folder.path(), environment).await?;
        let client = process.connect().await?;
        client.batch_execute(SOURCE).await?;
        let clicks = Clicks::new(&folder.path().join("data/logs/clicks"), seed, 1)?;
        for view in [VIEW, TOTALS] {
            // A crash point may end the process before a view stands.
            if let Err(error) = client.batch_execute(view).await {
                ensure!(error.code().is_none(), "{view} was refused: {error:?}");
                break;
            }
        }
        let (address, seen) = watch::channel(process.pg.clone());
        let watcher = Watcher::start(seen, clicks.good, lag);
        Ok(Self { folder, clicks, process: Some(process), address, watcher, kills: 0 })
    }

    pub fn state_file(&self) -> PathBuf {
        self.folder.path().join("data/state.redb")
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// kill -9, if the process still runs.
    pub async fn kill(&mut self) -> Result<()> {
        if let Some(process) = self.process.take() {
            process.kill().await?;
            self.kills += 1;
        }
        Ok(())
    }

    /// Starts the process again, after an end of any kind.
    pub async fn up(&mut self, environment: &BTreeMap<&str, String>) -> Result<()> {
        let process = Stratus::up(self.folder.path(), environment).await?;
        self.address.send_replace(process.pg.clone());
        self.process = Some(process);
        Ok(())
    }

    /// What a crash kept from being created is created.
    pub async fn complete_views(&mut self) -> Result<()> {
        let process = self.process.as_ref().unwrap();
        let client = process.connect().await?;
        for view in [VIEW, TOTALS] {
            let view = view.replacen("VIEW", "VIEW IF NOT EXISTS", 1);
            client.batch_execute(&view).await?;
        }
        Ok(())
    }

    /// Appends `count` events over about `time`, in small steps.
    pub async fn send(&mut self, count: u64, time: Duration) -> Result<()> {
        const STEPS: u64 = 20;
        for step in 0..STEPS {
            self.clicks.append(count * (step + 1) / STEPS - count * step / STEPS)?;
            tokio::time::sleep(time / STEPS as u32).await;
            if self.watcher.failed() {
                break;
            }
        }
        Ok(())
    }

    /// Asks for a recompute and does not wait for it; an error is the process's end.
    pub async fn refresh(&self) -> Result<()> {
        if let Some(process) = &self.process
            && let Ok(client) = process.connect().await
        {
            tokio::spawn(async move { client.batch_execute("REFRESH MATERIALIZED VIEW page_views").await });
        }
        Ok(())
    }

    /// Waits until every event is counted, then compares everything. Returns how long it took to be exact.
    pub async fn settle(self, patience: Duration) -> Result<Duration> {
        let process = self.process.as_ref().unwrap();
        let began = Instant::now();
        let client = loop {
            match process.connect().await {
                Ok(client) => break client,
                Err(error) if began.elapsed() > patience => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        let want = self.clicks.good.load(std::sync::atomic::Ordering::SeqCst);
        let took = checker::until_total(&client, want, patience).await?;
        self.watcher.stop().await?;
        checker::exact(&client, &self.clicks).await?;
        let (status, _) = self.process.unwrap().terminate().await?;
        ensure!(status.success(), "SIGTERM ended with {status}");
        Ok(took)
    }
}
