//! Kafka for tests: a broker of our own, or the brokers that `KAFKA_BROKERS` names.

mod broker;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::given;
use broker::Broker;

/// How long a request to the broker may take.
const REQUEST: Duration = Duration::from_secs(30);
/// How long a topic may take to be as it was asked to be.
const PATIENCE: Duration = Duration::from_secs(60);

/// Brokers and the topics that were made there. A broker of our own is gone with its topics when this is dropped; on
/// given ones the topics are deleted.
#[derive(Debug)]
pub struct Kafka {
    own: Option<Broker>,
    brokers: String,
    topics: Mutex<Vec<String>>,
}

impl Kafka {
    /// Starts a broker on a free port, for tests that kill it or need it as it is configured here. None if Java or the
    /// artifacts are not to be had, which is said; with `CI=true` it is an error.
    ///
    /// # Errors
    /// If it is there and does not start.
    pub fn start() -> Result<Option<Self>> {
        given::unused(given::KAFKA, "a broker of its own");
        Self::own()
    }

    /// The brokers that `KAFKA_BROKERS` names, or one as [`Kafka::start`] starts it.
    ///
    /// # Errors
    /// If there is none and none can be started.
    pub fn shared() -> Result<Option<Self>> {
        match given::address(given::KAFKA) {
            Some(brokers) => Ok(Some(Self { own: None, brokers, topics: Mutex::default() })),
            None => Self::own(),
        }
    }

    fn own() -> Result<Option<Self>> {
        let own = |broker: Broker| {
            let brokers = broker.address.clone();
            Self { own: Some(broker), brokers, topics: Mutex::default() }
        };
        Ok(Broker::start()?.map(own))
    }

    /// The bootstrap servers.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    fn broker(&self) -> Result<&Broker> {
        self.own.as_ref().context(given::NOT_OURS)
    }

    /// The broker's process id.
    ///
    /// # Errors
    /// If it is not ours.
    pub fn id(&self) -> Result<u32> {
        Ok(self.broker()?.process.id())
    }

    /// kill -9.
    ///
    /// # Errors
    /// If it cannot be killed, or is not ours.
    pub fn kill(&mut self) -> Result<()> {
        self.own.as_mut().context(given::NOT_OURS)?.process.kill()
    }

    /// Starts it again, over the same log and on the same port.
    ///
    /// # Errors
    /// If it does not start, or is not ours.
    pub fn restart(&mut self) -> Result<()> {
        self.own.as_mut().context(given::NOT_OURS)?.restart()
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// If it cannot be signalled, or is not ours.
    pub fn pause(&self) -> Result<()> {
        self.broker()?.process.pause()
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// If it cannot be signalled, or is not ours.
    pub fn resume(&self) -> Result<()> {
        self.broker()?.process.resume()
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        Ok(self.client().create()?)
    }

    /// Creates a topic under a name that nobody else has, and waits until it can be used.
    ///
    /// # Errors
    /// If the broker refuses.
    pub fn topic(&self, partitions: i32, settings: &[(&str, &str)]) -> Result<String> {
        let name = given::name();
        self.create_topic(&name, partitions, settings)?;
        Ok(name)
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
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
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
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
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

impl Drop for Kafka {
    fn drop(&mut self) {
        let mut topics = std::mem::take(self.topics.get_mut().unwrap_or_else(PoisonError::into_inner));
        if self.own.is_some() || topics.is_empty() {
            return;
        }
        topics.sort();
        topics.dedup();
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let gone = self.admin().and_then(|admin| {
            wait(admin.delete_topics(&names, &AdminOptions::new().request_timeout(Some(REQUEST))))
        });
        if let Err(error) = gone {
            eprintln!("warning: topics {topics:?} are left behind at {}: {error:#}", self.brokers);
        }
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
