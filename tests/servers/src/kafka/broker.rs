//! A broker of our own (KRaft, one node), from the artifacts that `tests/run.sh` resolves.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tempfile::TempDir;

use crate::{ServerProcess, free_port};

/// The version that `tests/servers/kafka/pom.xml` names.
const VERSION: &str = "4.1.1";
/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(90);

/// A running broker; its log is gone when it is dropped.
#[derive(Debug)]
pub(super) struct Broker {
    pub(super) process: ServerProcess,
    folder: TempDir,
    jars: PathBuf,
    pub(super) address: String,
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

impl Broker {
    /// Starts a broker on a free port. None if Java or the artifacts are not to be had, which is said; with `CI=true`
    /// it is an error.
    pub(super) fn start() -> Result<Option<Self>> {
        let has_java = Command::new("java").arg("-version").output().is_ok();
        let Some(jars) = jars().filter(|_| has_java) else {
            ensure!(std::env::var("CI").as_deref() != Ok("true"), "Kafka is needed: tests/run.sh fetches it");
            eprintln!("warning: Kafka is missing; its tests are left out (tests/run.sh fetches it)");
            return Ok(None);
        };
        let folder = tempfile::tempdir()?;
        let (port, controller) = (free_port()?, free_port()?);
        let address = format!("127.0.0.1:{port}");
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
             log.retention.ms=-1\n\
             log.retention.check.interval.ms=1000\n\
             log.cleaner.backoff.ms=100\n",
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
        let mut broker = Self { process, folder, jars, address };
        broker.wait()?;
        Ok(Some(broker))
    }

    fn spawn(jars: &Path, folder: &Path) -> Result<ServerProcess> {
        let mut command = java(jars, "512m");
        command.arg(format!("-Dlog4j2.configurationFile={}", folder.join("log4j2.xml").display()));
        command.arg("kafka.Kafka").arg(folder.join("server.properties"));
        ServerProcess::spawn("Kafka", command, &folder.join("kafka.log"))
    }

    /// Waits until the broker answers.
    fn wait(&mut self) -> Result<()> {
        let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &self.address).create()?;
        self.process.wait_until(START, || client.fetch_metadata(None, Duration::from_secs(1)).is_ok())
    }

    /// Starts it again, over the same log and on the same port.
    pub(super) fn restart(&mut self) -> Result<()> {
        self.process = Self::spawn(&self.jars, self.folder.path())?;
        self.wait()
    }
}
