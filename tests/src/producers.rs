//! Independent producers of one Kafka topic: librdkafka in this process, kcat, and Python in transactions, of which a
//! third are aborted.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::events::Clicks;

/// How long a producer may take, brokers that are killed meanwhile included.
const PATIENCE: Duration = Duration::from_secs(120);

/// The producers, which take turns.
#[derive(Debug)]
pub struct Producers {
    brokers: String,
    topic: String,
    partitions: u64,
    library: Library,
    transactional: Option<Transactional>,
    kcat: bool,
    turn: u64,
    /// Events in transactions that were aborted.
    pub aborted: u64,
}

struct Library(FutureProducer);

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FutureProducer")
    }
}

/// The Python program.
#[derive(Debug)]
struct Transactional {
    _child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Producers {
    /// Producers of `topic`, which has `partitions`. Programs that are not on this machine are said and left out;
    /// with `CI=true` that is a failure.
    ///
    /// # Errors
    /// If a program is there and cannot be started.
    pub async fn start(brokers: &str, topic: &str, partitions: u64) -> Result<Self> {
        let library = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("delivery.timeout.ms", "120000")
            .create()?;
        let kcat = Command::new("kcat").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().await;
        let kcat = kcat.is_ok_and(|status| status.success());
        if !kcat {
            missing("kcat")?;
        }
        Ok(Self {
            brokers: brokers.to_owned(),
            topic: topic.to_owned(),
            partitions,
            library: Library(library),
            transactional: Transactional::start(brokers, topic, partitions).await?,
            kcat,
            turn: 0,
            aborted: 0,
        })
    }

    /// Sends the next `count` events; returns once they are in the log.
    ///
    /// # Errors
    /// If a producer gives up.
    pub async fn send(&mut self, clicks: &mut Clicks, count: u64) -> Result<()> {
        self.turn += 1;
        let sending = async {
            match self.turn % 3 {
                0 if self.kcat => {
                    let lines = clicks.take(count);
                    self.send_by_kcat(&lines).await
                }
                1 if self.transactional.is_some() => {
                    if self.turn % 9 == 1 {
                        let decoys = clicks.decoys(count);
                        self.aborted += count;
                        self.transact("abort", &decoys).await
                    } else {
                        let lines = clicks.take(count);
                        self.transact("commit", &lines).await
                    }
                }
                _ => {
                    let lines = clicks.take(count);
                    self.send_by_library(&lines).await
                }
            }
        };
        tokio::time::timeout(PATIENCE, sending).await.context("a producer did not end in time")?
    }

    async fn send_by_library(&self, lines: &[String]) -> Result<()> {
        let sends = lines.iter().zip(0u64..).map(async |(line, number)| {
            let partition = i32::try_from(number % self.partitions)?;
            let record =
                FutureRecord::<(), str>::to(&self.topic).partition(partition).payload(line.trim_end());
            self.library.0.send(record, PATIENCE).await.map_err(|(error, _)| error)?;
            anyhow::Ok(())
        });
        try_join_all(sends).await.map(drop)
    }

    async fn send_by_kcat(&self, lines: &[String]) -> Result<()> {
        let mut child = Command::new("kcat")
            .args(["-P", "-q", "-E", "-b", &self.brokers, "-t", &self.topic, "-X", "enable.idempotence=true"])
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut input = child.stdin.take().context("no standard input")?;
        input.write_all(lines.concat().as_bytes()).await?;
        drop(input);
        let status = child.wait().await?;
        ensure!(status.success(), "kcat ended with {status}");
        Ok(())
    }

    async fn transact(&mut self, what: &str, lines: &[String]) -> Result<()> {
        let program = self.transactional.as_mut().context("no transactional producer")?;
        let order = format!("{what} {}\n{}", lines.len(), lines.concat());
        program.orders.write_all(order.as_bytes()).await?;
        program.orders.flush().await?;
        let answer = program.answers.next_line().await?;
        ensure!(answer.as_deref() == Some("ok"), "the transactional producer answered {answer:?}");
        Ok(())
    }
}

impl Transactional {
    async fn start(brokers: &str, topic: &str, partitions: u64) -> Result<Option<Self>> {
        let python = std::env::var("STRATUS_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let has = Command::new(&python).args(["-c", "import confluent_kafka"]).stderr(Stdio::null()).status();
        if !has.await.is_ok_and(|status| status.success()) {
            missing("Python's confluent-kafka")?;
            return Ok(None);
        }
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("producers/transactional.py");
        let mut child = Command::new(python)
            .arg(program)
            .args([brokers, topic, &partitions.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let orders = child.stdin.take().context("no standard input")?;
        let answers = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        Ok(Some(Self { _child: child, orders, answers }))
    }
}

fn missing(program: &str) -> Result<()> {
    ensure!(std::env::var("CI").as_deref() != Ok("true"), "{program} is needed: tests/run.sh installs it");
    eprintln!("warning: {program} is missing; it does not produce");
    Ok(())
}
