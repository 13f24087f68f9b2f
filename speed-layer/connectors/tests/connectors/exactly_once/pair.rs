//! A pair that counts, in a process of its own, with a topic and a Redis server of its own.

use std::{
    collections::BTreeMap,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
    producer::{BaseProducer, BaseRecord, Producer},
};
use stratus_seam::{
    ids::SourceId,
    ledger::{Ledger, Txn},
    offsets::{OffsetVector, Partition},
};
use stratus_servers::{kafka::Kafka, redis::Redis};

use super::{
    PATIENCE, child,
    oracle::{Oracle, Value},
};

const PARTITIONS: usize = 3;

/// What happened to a pair.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) kills: u32,
    /// Lives in which the ledger moved.
    pub(super) lives_with_progress: u32,
    /// Kills while batches were written down and not committed.
    pub(super) kills_within_batches: u32,
    /// Kills when some keys of a batch were written.
    pub(super) kills_within_a_commit: u32,
    pub(super) redis_kills: u32,
    pub(super) redis_pauses: u32,
    /// How many of those came while there was work left.
    pub(super) redis_harmed_at_work: u32,
    /// Words of batches under way whose records the log lost: the next attempt counted them no more; and those that
    /// stayed counted.
    pub(super) taken_back: i64,
    pub(super) stayed: i64,
}

pub(super) struct Pair {
    pub(super) name: &'static str,
    pub(super) redis: Redis,
    pub(super) oracle: Oracle,
    pub(super) figures: Figures,
    asked: serde_json::Value,
    source: SourceId,
    topic: String,
    process: Option<Child>,
    /// What was committed when the process was started.
    at_start: u64,
    /// Whether this life takes its time for each commit.
    pub(super) slow: bool,
}

impl Pair {
    /// None if there is no Redis to be had.
    pub(super) fn new(
        kafka: &Kafka,
        name: &'static str,
        spout: &str,
        state: &str,
        cached: u64,
    ) -> Option<Self> {
        let redis = Redis::start(&["--appendfsync", "always"]).unwrap()?;
        let (topic, source) = (kafka.topic(PARTITIONS as i32, &[]).unwrap(), SourceId::new());
        let asked = serde_json::json!({
            "name": name, "spout": spout, "state": state, "cached": cached, "topic": topic, "source": source,
            "brokers": kafka.brokers(), "redis": format!("{}?timeout_ms=400", redis.url()),
        });
        let (oracle, figures) = (Oracle::new(PARTITIONS), Figures::default());
        Some(Self {
            name,
            redis,
            oracle,
            figures,
            asked,
            source,
            topic,
            process: None,
            at_start: 0,
            slow: false,
        })
    }

    /// Begins a life; every other one is slow.
    pub(super) fn start(&mut self) {
        self.slow = !self.slow;
        self.asked["slow"] = self.slow.into();
        self.at_start = self.ledger().map_or(0, |ledger| ledger.committed);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "exactly_once::child::process", "--nocapture"]);
        command.env(child::ASKED, self.asked.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().unwrap());
    }

    /// The process must be there: it never ends by itself.
    pub(super) fn is_alive(&mut self) {
        let ended = self.process.as_mut().unwrap().try_wait().unwrap();
        assert_eq!(ended, None, "{}: the process ended by itself", self.name);
    }

    /// SIGKILL, and a look at what is left.
    pub(super) fn kill(&mut self) {
        self.is_alive();
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        assert_eq!(process.wait().unwrap().signal(), Some(9), "{}", self.name);
        self.until_quiet();
        let ledger = self.look();
        let committed = ledger.as_ref().map_or(0, |ledger| ledger.committed);
        self.figures.kills += 1;
        self.figures.lives_with_progress += u32::from(committed > self.at_start);
        self.figures.kills_within_batches +=
            u32::from(ledger.is_some_and(|ledger| ledger.appended > committed));
    }

    /// Waits until the server has no client but the one that asks: it has done all that the process sent.
    fn until_quiet(&self) {
        let began = Instant::now();
        while self.redis.cli(&["CLIENT", "LIST"]).unwrap().lines().count() > 1 {
            assert!(began.elapsed() < PATIENCE, "{}: clients stay", self.name);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Holds what is stored against what must be.
    fn look(&mut self) -> Option<Ledger> {
        let values = self.values();
        let Some(ledger) = self.ledger() else {
            assert_eq!(values, BTreeMap::new(), "{}: counted without a ledger", self.name);
            return None;
        };
        let entries = self.redis.cli(&["HVALS", &self.key("txns")]).unwrap();
        let entries: Vec<Txn> = entries.lines().map(|entry| serde_json::from_str(entry).unwrap()).collect();
        let is_opaque = self.asked["state"] == "opaque";
        if let Err(error) = self.oracle.look(&ledger, &entries, &values, is_opaque) {
            panic!("{}, after {} kills: {error}", self.name, self.figures.kills);
        }
        let next = ledger.committed + 1;
        self.figures.kills_within_a_commit += u32::from(values.values().any(|value| value.txid == next));
        Some(ledger)
    }

    fn key(&self, of: &str) -> String {
        format!("{{stratus:{}}}:{of}", self.source)
    }

    /// The ledger as it is stored.
    pub(super) fn ledger(&self) -> Option<Ledger> {
        let record = self.redis.cli(&["HGET", &self.key("ledger"), "record"]).unwrap();
        (!record.is_empty()).then(|| serde_json::from_str(&record).unwrap())
    }

    /// The state as anybody can read it.
    pub(super) fn values(&self) -> BTreeMap<String, Value> {
        let text = self.redis.cli(&["HGETALL", &format!("trident:{{{}}}", self.name)]).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let entries = lines.chunks_exact(2).map(|entry| {
            let key: Vec<String> = serde_json::from_str(entry[0]).unwrap();
            let value: Vec<i64> = serde_json::from_str(entry[1]).unwrap();
            let txid = value[0].cast_unsigned();
            (key[0].clone(), Value { txid, count: value[1], before: value.get(2).copied() })
        });
        entries.collect()
    }

    /// Sends lines to all partitions. The broker must be well: what was sent must be in the log once.
    pub(super) fn send(&mut self, kafka: &Kafka, random: &mut fastrand::Rng, lines: usize) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", kafka.brokers()).set("linger.ms", "1");
        let producer: BaseProducer = config.set("enable.idempotence", "true").create().unwrap();
        for line in 0..lines {
            let partition = if line < PARTITIONS { line } else { random.usize(0..PARTITIONS) };
            let words: Vec<String> = (0..random.usize(1..6))
                .map(|_| format!("w{}", random.usize(0..20) * random.usize(0..20)))
                .collect();
            let line = words.join(" ");
            let record = BaseRecord::to(&self.topic).partition(partition as i32).key("").payload(&line);
            producer.send(record).map_err(|(error, _)| error).unwrap();
            self.oracle.send(partition, words);
        }
        producer.flush(PATIENCE).unwrap();
    }

    /// Where each partition of the topic begins and ends.
    fn marks(&self, kafka: &Kafka) -> (OffsetVector, OffsetVector) {
        let mut config = ClientConfig::new();
        let client: BaseConsumer = config.set("bootstrap.servers", kafka.brokers()).create().unwrap();
        let (mut from, mut to) = (OffsetVector::zero(), OffsetVector::zero());
        for partition in 0..PARTITIONS as Partition {
            let (low, high) = client.fetch_watermarks(&self.topic, partition as i32, PATIENCE).unwrap();
            from.set(partition, low.cast_unsigned());
            to.set(partition, high.cast_unsigned());
        }
        (from, to)
    }

    /// The log has taken what was sent, each record once.
    pub(super) fn is_all_sent(&self, kafka: &Kafka) {
        assert_eq!(self.marks(kafka).1, self.oracle.end(), "{}", self.name);
    }

    /// The log loses records that are not known to be counted, up to some of those that nobody has read yet.
    pub(super) fn lose(&mut self, kafka: &Kafka, random: &mut fastrand::Rng) {
        let (ledger, end) = (self.ledger(), self.oracle.end());
        let below: Vec<u64> = (0..PARTITIONS as Partition)
            .map(|partition| {
                let committed = ledger.as_ref().map_or(0, |ledger| ledger.committed_to.get(partition));
                let low = (committed + random.u64(0..12)).min(end.get(partition));
                low.max(self.oracle.low().get(partition))
            })
            .collect();
        for (partition, low) in (0..).zip(&below) {
            if *low > 0 {
                kafka.delete_records(&self.topic, partition, low.cast_signed()).unwrap();
            }
        }
        let (taken_back, stayed) = self.oracle.lose(&below);
        assert_eq!(self.marks(kafka).0, self.oracle.low(), "{}", self.name);
        self.figures.taken_back += taken_back;
        self.figures.stayed += stayed;
    }

    /// Waits until the ledger says so, with the same process all the time.
    fn until(&mut self, what: &str, holds: impl Fn(&Ledger) -> bool) {
        let began = Instant::now();
        loop {
            let ledger = self.ledger();
            if ledger.as_ref().is_some_and(&holds) {
                return;
            }
            self.is_alive();
            assert!(began.elapsed() < PATIENCE, "{}: not {what} in time: {ledger:?}", self.name);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until more has been committed than `committed`; there must be something to do.
    pub(super) fn until_beyond(&mut self, committed: u64) {
        self.until("further", |ledger| ledger.committed > committed);
    }

    /// Waits until a batch is under way, or not for long: it may be over between two looks.
    pub(super) fn until_at_work(&mut self) {
        for _ in 0..100 {
            if self.ledger().is_some_and(|ledger| ledger.appended > ledger.committed) {
                return;
            }
        }
    }

    /// Waits until this life has committed something.
    pub(super) fn until_progress(&mut self) {
        self.until_beyond(self.at_start);
    }

    /// Waits until nothing that the log has lost will be asked for again.
    pub(super) fn until_past_what_is_lost(&mut self) {
        let low = self.oracle.low();
        self.until("past what is lost", |ledger| ledger.committed_to.covers(&low));
    }

    /// Waits until everything has been committed.
    pub(super) fn until_done(&mut self) {
        let end = self.oracle.end();
        self.until("done", |ledger| ledger.committed_to == end);
    }

    /// Something happens to the server while it works. Answers with what was committed by then.
    pub(super) fn harm(&mut self, is_kill: bool, random: &mut fastrand::Rng) -> u64 {
        if is_kill {
            let before = self.run_id();
            self.redis.kill().unwrap();
            // One that was killed while it wrote its file anew may fail once, which docs/redis.md tells.
            self.redis.restart().or_else(|_| self.redis.restart()).unwrap();
            assert_ne!(self.run_id(), before, "{}: another server", self.name);
            self.figures.redis_kills += 1;
        } else {
            self.redis.pause().unwrap();
            // Shorter and longer than the process waits for an answer.
            std::thread::sleep(Duration::from_millis(random.u64(100..900)));
            self.redis.resume().unwrap();
            self.figures.redis_pauses += 1;
        }
        let ledger = self.ledger();
        let is_done = ledger.as_ref().is_some_and(|ledger| ledger.committed_to == self.oracle.end());
        self.figures.redis_harmed_at_work += u32::from(!is_done);
        ledger.map_or(0, |ledger| ledger.committed)
    }

    fn run_id(&self) -> String {
        let info = self.redis.cli(&["INFO", "server"]).unwrap();
        info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap().to_owned()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // The test has failed, and its process goes with it.
            let _ended = process.kill();
            let _status = process.wait();
        }
    }
}
