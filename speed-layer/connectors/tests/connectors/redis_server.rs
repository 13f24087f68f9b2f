//! A Redis server of a test's own, a bare client to look into it, and a topology of fixed tuples and one bolt.

use std::time::Duration;

use arrow::{array::RecordBatch, datatypes::DataType};
use redis::{FromRedisValue, aio::MultiplexedConnection};
use stratus_connectors::redis::RedisSettings;
use stratus_servers::redis::Redis;
use stratus_topology::{
    Bolt, LocalCluster, RowBuilder, TopologyBuilder, TopologyConfig, fields, testing::FixedSpout,
};

use crate::broker::eventually;

/// None if there is no server to be had.
pub(crate) fn server() -> Option<Redis> {
    Redis::start(&[]).unwrap()
}

/// A bolt's settings. What is not answered on a busy machine is not lost yet.
pub(crate) fn settings(server: &Redis) -> RedisSettings {
    RedisSettings::new(&format!("redis://127.0.0.1:{}?timeout_ms=20000", server.port())).unwrap()
}

/// Settings for a server that stalls. What is not answered within 300 ms counts as lost.
pub(crate) fn impatient(server: &Redis) -> RedisSettings {
    RedisSettings::new(&format!("redis://127.0.0.1:{}?timeout_ms=300", server.port())).unwrap()
}

/// A client that knows nothing of bolts.
pub(crate) struct Client(MultiplexedConnection);

impl Client {
    pub(crate) async fn of(server: &Redis) -> Self {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", server.port())).unwrap();
        Self(client.get_multiplexed_async_connection().await.unwrap())
    }

    /// Runs a command whose parts have spaces between them.
    pub(crate) async fn ask<T: FromRedisValue>(&mut self, command: &str) -> T {
        let mut parts = command.split(' ');
        let mut asked = redis::cmd(parts.next().unwrap());
        for part in parts {
            asked.arg(part);
        }
        asked.query_async(&mut self.0).await.unwrap()
    }

    /// How often the server was asked to do something.
    pub(crate) async fn calls(&mut self, command: &str) -> u64 {
        let told: String = self.ask("INFO commandstats").await;
        let line = told.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
    }
}

/// Pairs of texts, as the fields `key` and `value`.
pub(crate) fn pairs(pairs: impl IntoIterator<Item = (String, String)>) -> FixedSpout {
    let schema = fields([("key", DataType::Utf8), ("value", DataType::Utf8)]);
    let mut rows = RowBuilder::new(schema.clone(), 16).unwrap();
    pairs.into_iter().for_each(|pair| rows.append(pair).unwrap());
    spout(rows.finish())
}

pub(crate) fn spout(rows: RecordBatch) -> FixedSpout {
    FixedSpout::new(rows.schema()).rows(rows)
}

pub(crate) fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

/// A topology that runs: a spout `tuples`, and a bolt `redis` with as many tasks as asked, that equal keys share.
pub(crate) struct Run {
    pub(crate) cluster: LocalCluster,
    pub(crate) spout: FixedSpout,
}

const NAME: &str = "redis";

impl Run {
    pub(crate) fn start(spout: &FixedSpout, bolt: impl Bolt + Clone + Sync, tasks: usize) -> Self {
        let emitting = spout.clone();
        let mut builder = TopologyBuilder::new();
        // Few at once, so that a server can be stopped before they are all through.
        builder.config(TopologyConfig { max_spout_pending: 500, ..TopologyConfig::default() });
        builder.set_spout("tuples", move || emitting.clone(), 1);
        builder.set_bolt("redis", move || bolt.clone(), tasks).fields_grouping("tuples", &["key"]);
        let cluster = LocalCluster::new();
        cluster.submit(NAME, builder.build().unwrap()).unwrap();
        Self { cluster, spout: spout.clone() }
    }

    /// The error that the bolt told last.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.cluster.metrics(NAME).unwrap().components["redis"].last_error.clone()
    }

    pub(crate) async fn until_done(&self) {
        eventually("every tuple is acked", || self.spout.is_done()).await;
    }

    pub(crate) async fn kill(self) {
        self.cluster.kill(NAME, Duration::from_secs(1)).await.unwrap();
    }
}
