//! What a topology and its components may be told.

use std::{collections::BTreeMap, time::Duration};

/// Settings of a topology. Components may override some of them, see [`ComponentConfig`].
#[derive(Clone, Debug)]
pub struct TopologyConfig {
    /// Acker tasks. With none, a spout's tuples count as acked as soon as they are emitted.
    pub ackers: usize,
    /// A spout tuple whose tree is not done within this time fails. Its spout learns it between one and one and a
    /// tenth of it.
    pub message_timeout: Duration,
    /// Tuples of one spout task that may be pending at once.
    pub max_spout_pending: usize,
    /// Rows of one batch between executors, at most. Batches of large rows have fewer, see
    /// [`queue_bytes`](Self::queue_bytes).
    pub batch_rows: usize,
    /// How long a spout's single tuples may wait for others to make a batch.
    pub linger: Duration,
    /// Rows that may wait in front of one executor.
    pub queue_rows: usize,
    /// Bytes that the rows in front of one executor may hold in memory, with their lineage. A batch has at most about a
    /// quarter of this, or 64 KiB if that is more, or a single row.
    pub queue_bytes: usize,
    /// Whether the spouts begin at once or wait for an activation.
    pub active: bool,
    /// Free settings, for the components to read.
    pub settings: BTreeMap<String, String>,
}

impl Default for TopologyConfig {
    fn default() -> Self {
        Self {
            ackers: 1,
            message_timeout: Duration::from_secs(30),
            max_spout_pending: 65_536,
            batch_rows: 4_096,
            linger: Duration::from_millis(5),
            queue_rows: 16_384,
            queue_bytes: 16 << 20,
            active: true,
            settings: BTreeMap::new(),
        }
    }
}

/// Settings of one component; what is `None` is the topology's.
#[derive(Clone, Debug, Default)]
pub struct ComponentConfig {
    /// Sends each task a tick tuple this often.
    pub tick: Option<Duration>,
    /// See [`TopologyConfig::max_spout_pending`].
    pub max_spout_pending: Option<usize>,
    /// See [`TopologyConfig::queue_rows`].
    pub queue_rows: Option<usize>,
    /// See [`TopologyConfig::queue_bytes`].
    pub queue_bytes: Option<usize>,
    /// Gives each executor a thread of its own: for components that compute long or block.
    pub own_thread: bool,
    /// Free settings; they cover the topology's of the same name.
    pub settings: BTreeMap<String, String>,
}

impl ComponentConfig {
    /// `self` with what `over` says on top.
    #[must_use]
    pub fn overridden_by(mut self, over: Self) -> Self {
        self.tick = over.tick.or(self.tick);
        self.max_spout_pending = over.max_spout_pending.or(self.max_spout_pending);
        self.queue_rows = over.queue_rows.or(self.queue_rows);
        self.queue_bytes = over.queue_bytes.or(self.queue_bytes);
        self.own_thread |= over.own_thread;
        self.settings.extend(over.settings);
        self
    }
}
