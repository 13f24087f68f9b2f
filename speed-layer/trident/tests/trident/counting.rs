//! Words of a log's lines, counted into a map that outlives the topology and may refuse what is written.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use arrow::datatypes::DataType;
use async_trait::async_trait;
use stratus_seam::{ledger::Ledger, log::Log, store::LedgerStore};
use stratus_topology::{LocalCluster, TaskContext, TaskError, fields};
use stratus_trident::{
    BackingMap, Count, MemoryMap, OpaqueMap, OpaqueValue, Pace, StateFactory, StateKind, Stream,
    TridentCollector, TridentTopology, TridentTuple,
};

/// Opaque counts. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    map: MemoryMap<OpaqueValue<i64>>,
    refuses: Arc<AtomicBool>,
    /// Refuses the next write, after it was done.
    hides: Arc<AtomicBool>,
}

impl Counts {
    /// From now on it refuses what is written, or does not.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, SeqCst);
    }

    /// The next write is done, and seems not to be.
    pub(crate) fn hide(&self) {
        self.hides.store(true, SeqCst);
    }

    pub(crate) fn now(&self) -> BTreeMap<String, i64> {
        let entries = self.map.entries();
        let words = entries.iter().map(|(key, value)| (key.trim_matches(['[', ']', '"']), value.current()));
        words.map(|(word, count)| (word.to_owned(), *count)).collect()
    }
}

#[async_trait]
impl BackingMap<OpaqueValue<i64>> for Counts {
    async fn multi_get(&mut self, keys: &[String]) -> Result<Vec<Option<OpaqueValue<i64>>>, TaskError> {
        self.map.multi_get(keys).await
    }

    async fn multi_put(&mut self, entries: Vec<(String, OpaqueValue<i64>)>) -> Result<(), TaskError> {
        if self.refuses.load(SeqCst) {
            return Err("not now".into());
        }
        self.map.multi_put(entries).await?;
        match self.hides.swap(false, SeqCst) {
            true => Err("it may or may not have been written".into()),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl StateFactory for Counts {
    type State = OpaqueMap<i64, Self>;

    fn kind(&self) -> StateKind {
        StateKind::Opaque
    }

    async fn make(&self, _: &TaskContext, _: usize, _: usize) -> Result<Self::State, TaskError> {
        Ok(OpaqueMap::new(self.clone()))
    }
}

/// A topology that keeps its coordinator busy.
pub(crate) fn topology() -> TridentTopology {
    TridentTopology::new().pace(Pace { max_pending: 4, interval: Duration::from_millis(1) })
}

/// Counts the words of a stream's lines.
pub(crate) fn count(lines: &Stream, counts: &Counts) {
    let split = |tuple: TridentTuple<'_>, out: &mut TridentCollector| {
        tuple.get::<&str>(0)?.split(' ').try_for_each(|word| out.emit((word,)))
    };
    let words = lines.each(&["line"], split, fields([("word", DataType::Utf8)]));
    let _counts = words.group_by(&["word"]).persistent_aggregate(counts.clone(), &[], Count, "count");
}

/// Starts a topology; it ends as suddenly as a process when the cluster is killed.
pub(crate) fn start(topology: &TridentTopology) -> LocalCluster {
    let cluster = LocalCluster::new();
    cluster.submit("test", topology.build().unwrap().topology).unwrap();
    cluster
}

pub(crate) async fn kill(cluster: &LocalCluster) {
    cluster.kill("test", Duration::ZERO).await.unwrap();
}

/// Waits until something holds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let holds = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), holds).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// The ledger as it is now.
pub(crate) async fn record(ledger: &Arc<dyn LedgerStore>) -> Option<Ledger> {
    ledger.read().await.unwrap()
}

/// Waits until all of a log is committed.
pub(crate) async fn all_committed(ledger: &Arc<dyn LedgerStore>, log: &impl Log) {
    let end = log.end().await.unwrap();
    until("all is committed", || async {
        record(ledger).await.is_some_and(|record| record.committed_to.covers(&end))
    })
    .await;
}

pub(crate) fn words<const N: usize>(words: [(&str, i64); N]) -> BTreeMap<String, i64> {
    words.map(|(word, count)| (word.to_owned(), count)).into()
}
