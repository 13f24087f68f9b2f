//! A Kafka broker (KRaft, one node), from the artifacts that `tests/run.sh` resolves.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use tempfile::TempDir;

use crate::{ServerProcess, free_port};

/// The version that `tests/servers/kafka/pom.xml` names.
const VERSION: &str = "4.1.1";
/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(90);
/// How long a request to the broker may take.
const REQUEST: Duration = Duration::from_secs(30);

/// A running broker; its log is gone when it is dropped.
#[derive(Debug)]
pub struct Kafka {
    process: ServerProcess,
    folder: TempDir,
    jars: PathBuf,
    brokers: String,
}

/// Where the artifacts are: `STRATUS_TEST_KAFKA`, or the place beside the build where `tests/run.sh` puts them.
fn jars() -> Option<PathBuf> {
    let named = std::env::var_os("STRATUS_TEST_KAFKA").map(PathBuf::from);
    let beside = || {
        let built = std::env::current_exe().ok()?;
        built.ancestors().map(|folder| folder.join(format!("kafka-{VERSION}"))).find(|jars| jars.is_dir())
    };
    named.or_else(beside).filter(|jars| jars.is_dir())
}

fn java(jars: &Path, heap: &str) -> Command {
    let mut command = Command::new("java");
    command.arg(format!("-Xmx{heap}")).args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    command.arg("-cp").arg(jars.join("*"));
    command
}

impl Kafka {
    /// Starts a broker on a free port. None if Java or the artifacts are not to be had, which is said; with `CI=true`
    /// it is an error.
    ///
    /// # Errors
    /// If it is there and does not start.
    pub fn start() -> Result<Option<Self>> {
        let has_java = Command::new("java").arg("-version").output().is_ok();
        let Some(jars) = jars().filter(|_| has_java) else {
            ensure!(std::env::var("CI").as_deref() != Ok("true"), "Kafka is needed: tests/run.sh fetches it");
            eprintln!("warning: Kafka is missing; its tests are left out (tests/run.sh fetches it)");
            return Ok(None);
        };
        let folder = tempfile::tempdir()?;
        let (port, controller) = (free_port()?, free_port()?);
        let brokers = format!("127.0.0.1:{port}");
        let data = folder.path().join("data");
        let settings = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             log.dirs={}\n\
             num.partitions=1\n\
             auto.create.topics.enable=false\n\
             offsets.topic.num.partitions=1\n\
             offsets.topic.replication.factor=1\n\
             transaction.state.log.num.partitions=1\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             share.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.num.partitions=1\n\
             group.initial.rebalance.delay.ms=0\n\
             log.retention.check.interval.ms=1000\n",
            data.display()
        );
        std::fs::write(folder.path().join("server.properties"), settings)?;
        let log4j = "<Configuration status=\"WARN\"><Appenders><Console name=\"out\"><PatternLayout pattern=\"%d %p %m (%c)%n\"/>\
                     </Console></Appenders><Loggers><Root level=\"WARN\"><AppenderRef ref=\"out\"/></Root></Loggers></Configuration>";
        std::fs::write(folder.path().join("log4j2.xml"), log4j)?;
        let format = java(&jars, "256m")
            .args(["kafka.tools.StorageTool", "format", "-t", "c3RyYXR1cy10ZXN0LWthZg", "-c"])
            .arg(folder.path().join("server.properties"))
            .output()?;
        if !format.status.success() {
            bail!("Kafka's storage cannot be formatted: {}", String::from_utf8_lossy(&format.stderr));
        }
        let process = Self::spawn(&jars, folder.path())?;
        let mut kafka = Self { process, folder, jars, brokers };
        kafka.wait()?;
        Ok(Some(kafka))
    }

    fn spawn(jars: &Path, folder: &Path) -> Result<ServerProcess> {
        let mut command = java(jars, "512m");
        command.arg(format!("-Dlog4j2.configurationFile={}", folder.join("log4j2.xml").display()));
        command.arg("kafka.Kafka").arg(folder.join("server.properties"));
        ServerProcess::spawn("Kafka", command, &folder.join("kafka.log"))
    }

    /// Waits until the broker answers.
    fn wait(&mut self) -> Result<()> {
        let client: BaseConsumer = self.client().create()?;
        self.process.wait_until(START, || client.fetch_metadata(None, Duration::from_secs(1)).is_ok())
    }

    /// The bootstrap servers.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// The broker's process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// kill -9.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again, over the same log and on the same port.
    ///
    /// # Errors
    /// If it does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.process = Self::spawn(&self.jars, self.folder.path())?;
        self.wait()
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// If it cannot be signalled.
    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// If it cannot be signalled.
    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        Ok(self.client().create()?)
    }

    /// Creates a topic and waits until it can be used.
    ///
    /// # Errors
    /// If the broker refuses.
    pub fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<()> {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let admin = self.admin()?;
        let made = wait(admin.create_topics([&topic], &AdminOptions::new().request_timeout(Some(REQUEST))))?;
        made.into_iter().next().context("no answer")?.map_err(|(_, code)| code)?;
        self.until_partitions(name, partitions as usize)
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// If the broker refuses.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        let admin = self.admin()?;
        let gone = wait(admin.delete_topics(&[name], &AdminOptions::new().request_timeout(Some(REQUEST))))?;
        gone.into_iter().next().context("no answer")?.map_err(|(_, code)| code)?;
        self.until_partitions(name, 0)
    }

    /// Gives a topic more partitions.
    ///
    /// # Errors
    /// If the broker refuses.
    pub fn add_partitions(&self, name: &str, total: i32) -> Result<()> {
        let admin = self.admin()?;
        let more = NewPartitions::new(name, total as usize);
        let made =
            wait(admin.create_partitions([&more], &AdminOptions::new().request_timeout(Some(REQUEST))))?;
        made.into_iter().next().context("no answer")?.map_err(|(_, code)| code)?;
        self.until_partitions(name, total as usize)
    }

    /// Deletes the records of a partition below an offset, as retention would.
    ///
    /// # Errors
    /// If the broker refuses.
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) -> Result<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(before))?;
        let admin = self.admin()?;
        wait(admin.delete_records(&list, &AdminOptions::new().request_timeout(Some(REQUEST))))?;
        Ok(())
    }

    fn until_partitions(&self, name: &str, wanted: usize) -> Result<()> {
        let client: BaseConsumer = self.client().create()?;
        for _ in 0..300 {
            let metadata = client.fetch_metadata(Some(name), REQUEST)?;
            let topic = metadata.topics().first().context("no topic in the metadata")?;
            let led = topic.partitions().iter().filter(|partition| partition.leader() >= 0).count();
            let gone = topic.error().is_some();
            if (wanted == 0 && gone) || (wanted > 0 && !gone && led == wanted) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("topic {name} has not {wanted} partitions in time")
    }
}

/// Waits for an answer, on a thread that belongs to no runtime.
fn wait<T: Send>(answer: impl Future<Output = rdkafka::error::KafkaResult<T>> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(answer)?)
        });
        waiting.join().map_err(|_| anyhow::anyhow!("the request panicked"))?
    })
}
