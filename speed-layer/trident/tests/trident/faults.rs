//! Logs, spouts, ledgers and maps that fail, panic, take their time or do things late, by a seed.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
    time::Duration,
};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch},
    datatypes::DataType,
};
use async_trait::async_trait;
use rand::{Rng, SeedableRng, rngs::StdRng};
use stratus_seam::{
    ids::Token,
    ledger::{Ledger, Txn},
    log::{Chunk, Log, LogError, LogId},
    offsets::{Offset, OffsetVector, Partition},
    store::{CutRequest, Durability, LedgerStore, LedgerWrite, Pin, StoreError, TxnChanges},
};
use stratus_topology::{TaskError, fields};
use stratus_trident::{BackingMap, Emitter, MemoryMap, TransactionAttempt, TridentSpout};

use crate::{emitted::Wrapped, memory_log::MemoryLog};

/// What goes wrong, and when: by a seed, for as long as there are faults left.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    rng: Arc<Mutex<StdRng>>,
    left: Arc<AtomicI64>,
    one_in: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    Before,
    After,
    Half,
    Panic,
    /// It takes so long.
    Slow(Duration),
    /// It is given up now and done so much later.
    Late(Duration),
}

/// The longest that anything takes: longer than a topology waits for its tuples.
pub(crate) const LONGEST: Duration = Duration::from_secs(60);

impl Faults {
    pub(crate) fn new(seed: u64, count: i64, one_in: u32) -> Self {
        Self {
            rng: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
            left: Arc::new(AtomicI64::new(count)),
            one_in,
        }
    }

    pub(crate) fn next(&self) -> Fault {
        let mut rng = self.rng.lock().unwrap();
        if !rng.random_ratio(1, self.one_in) || self.left.fetch_sub(1, SeqCst) <= 0 {
            return Fault::None;
        }
        let time = LONGEST.mul_f64(10_f64.powf(-rng.random_range(0.0..5.0)));
        match rng.random_range(0..6) {
            0 => Fault::Before,
            1 => Fault::After,
            2 => Fault::Half,
            3 => Fault::Panic,
            4 => Fault::Slow(time),
            _ => Fault::Late(time),
        }
    }

    pub(crate) fn are_over(&self) -> bool {
        self.left.load(SeqCst) <= 0
    }

    /// Nothing goes wrong any more.
    pub(crate) fn end(&self) {
        self.left.store(0, SeqCst);
    }
}

/// A map whose store fails before, after or in the midst of an effect, has the effect late, or takes the task with it.
/// The store refuses late writes as those with fences do.
#[derive(Clone, Debug)]
pub(crate) struct FaultyMap<T> {
    map: MemoryMap<T>,
    faults: Faults,
    /// The last transaction and attempt that wrote.
    latest: Arc<Mutex<(u64, u64)>>,
    under_way: (u64, u64),
}

impl<T: Clone + Send + Sync + 'static> FaultyMap<T> {
    pub(crate) fn entries(&self) -> std::collections::BTreeMap<String, T> {
        self.map.entries()
    }

    pub(crate) fn new(map: MemoryMap<T>, faults: Faults) -> Self {
        Self { map, faults, latest: Arc::default(), under_way: (0, 0) }
    }

    /// The same store as another life sees it.
    pub(crate) fn again(&self, faults: Faults) -> Self {
        Self { faults, ..self.clone() }
    }

    async fn write(&mut self, entries: Vec<(String, T)>) -> Result<(), TaskError> {
        {
            let mut latest = self.latest.lock().unwrap();
            let (txid, fence) = self.under_way;
            if txid < latest.0 || (txid == latest.0 && fence < latest.1) {
                return Err("a later attempt has written".into());
            }
            *latest = self.under_way;
        }
        self.map.multi_put(entries).await
    }
}

#[async_trait]
impl<T: Clone + Send + Sync + 'static> BackingMap<T> for FaultyMap<T> {
    fn begin_attempt(&mut self, attempt: TransactionAttempt) {
        self.under_way = (attempt.txid, attempt.fence().unwrap_or(0));
    }

    async fn multi_get(&mut self, keys: &[String]) -> Result<Vec<Option<T>>, TaskError> {
        match self.faults.next() {
            Fault::None => self.map.multi_get(keys).await,
            Fault::Slow(time) => {
                let values = self.map.multi_get(keys).await;
                tokio::time::sleep(time).await;
                values
            }
            Fault::Panic => panic!("while reading the state"),
            _ => Err("the state cannot be read".into()),
        }
    }

    async fn multi_put(&mut self, entries: Vec<(String, T)>) -> Result<(), TaskError> {
        let fault = self.faults.next();
        let half = entries.len() / 2;
        match fault {
            Fault::None => return self.write(entries).await,
            Fault::Slow(time) => {
                tokio::time::sleep(time / 2).await;
                self.write(entries).await?;
                tokio::time::sleep(time / 2).await;
                return Ok(());
            }
            Fault::Late(time) => {
                let mut late = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    // Nobody hears of it.
                    let _ = late.write(entries).await;
                });
            }
            Fault::Before => {}
            Fault::Half => self.write(entries.into_iter().take(half).collect()).await?,
            Fault::After | Fault::Panic => self.write(entries).await?,
        }
        assert!(fault != Fault::Panic, "after writing the state");
        Err("the state may or may not have been written".into())
    }
}

/// A log that now and then cannot be read, or takes the reader with it.
#[derive(Debug)]
pub(crate) struct FaultyLog(pub(crate) MemoryLog, pub(crate) Faults);

impl FaultyLog {
    async fn fault(&self, what: &str) -> Result<(), LogError> {
        match self.1.next() {
            Fault::None => Ok(()),
            Fault::Slow(time) => {
                tokio::time::sleep(time).await;
                Ok(())
            }
            Fault::Panic => panic!("while reading the log"),
            _ => Err(LogError::Unavailable { what: what.to_owned(), source: "no answer".into() }),
        }
    }
}

#[async_trait]
impl Log for FaultyLog {
    async fn id(&self) -> Result<LogId, LogError> {
        self.0.id().await
    }

    async fn partitions(&self) -> Result<u32, LogError> {
        self.fault("counting the partitions").await?;
        self.0.partitions().await
    }

    async fn end(&self) -> Result<OffsetVector, LogError> {
        self.0.end().await
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        until: Option<Offset>,
        max_bytes: usize,
    ) -> Result<Chunk, LogError> {
        self.fault("reading a partition").await?;
        self.0.read(partition, from, until, max_bytes).await
    }

    async fn appended(&self, seen: &OffsetVector, patience: Duration) -> Result<(), LogError> {
        self.fault("waiting for records").await?;
        self.0.appended(seen, patience).await
    }
}

/// A spout whose emitters err or panic, before they have emitted their part of a batch or behind some of it.
pub(crate) fn faulty_spout(spout: Box<dyn TridentSpout>, faults: Faults) -> Wrapped {
    Wrapped(spout, Box::new(move |emitter| Box::new(FaultyEmitter(emitter, faults.clone()))))
}

struct FaultyEmitter(Box<dyn Emitter>, Faults);

#[async_trait]
impl Emitter for FaultyEmitter {
    async fn emit(
        &mut self,
        attempt: TransactionAttempt,
        metadata: &str,
    ) -> Result<Vec<RecordBatch>, TaskError> {
        let mut rows = self.0.emit(attempt, metadata).await?;
        match self.1.next() {
            Fault::None => return Ok(rows),
            // Too much is as bad as too little: rows that do not fit fail in the midst of the batch.
            Fault::Half => {
                let wrong: ArrayRef = Arc::new(Int64Array::from(vec![1]));
                rows.push(RecordBatch::try_new(fields([("wrong", DataType::Int64)]), vec![wrong])?);
                return Ok(rows);
            }
            Fault::Slow(time) => {
                tokio::time::sleep(time).await;
                return Ok(rows);
            }
            Fault::Panic => panic!("while emitting"),
            Fault::Before | Fault::After | Fault::Late(_) => {}
        }
        Err("emitting failed".into())
    }
}

/// A ledger whose writes fail before or after they are done, or are done late.
#[derive(Debug)]
pub(crate) struct FaultyLedger(pub(crate) Arc<dyn LedgerStore>, pub(crate) Faults);

#[async_trait]
impl LedgerStore for FaultyLedger {
    async fn read(&self) -> Result<Option<Ledger>, StoreError> {
        self.0.read().await
    }

    async fn write(
        &self,
        expected: Option<(Token, u64)>,
        next: &Ledger,
        txns: TxnChanges,
        durability: Durability,
    ) -> Result<LedgerWrite, StoreError> {
        let lost =
            || StoreError::Unavailable { what: "writing the ledger".into(), source: "no answer".into() };
        match self.1.next() {
            Fault::None => self.0.write(expected, next, txns, durability).await,
            Fault::Before => Err(lost()),
            Fault::Late(time) => {
                let (late, next) = (Arc::clone(&self.0), next.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    // Refused if anything was written meanwhile; nobody hears of it.
                    let _ = late.write(expected, &next, txns, durability).await;
                });
                Err(lost())
            }
            fault => {
                if let Fault::Slow(time) = fault {
                    tokio::time::sleep(time).await;
                    return self.0.write(expected, next, txns, durability).await;
                }
                self.0.write(expected, next, txns, durability).await?;
                assert!(fault != Fault::Panic, "after writing the ledger");
                Err(lost())
            }
        }
    }

    async fn txns(&self, first: u64) -> Result<Vec<Txn>, StoreError> {
        self.0.txns(first).await
    }

    async fn request(&self, request: CutRequest) -> Result<(), StoreError> {
        self.0.request(request).await
    }

    async fn requests(&self) -> Result<Vec<CutRequest>, StoreError> {
        self.0.requests().await
    }

    async fn withdraw(&self, id: uuid::Uuid) -> Result<(), StoreError> {
        self.0.withdraw(id).await
    }

    async fn pin(&self, pin: Pin) -> Result<(), StoreError> {
        self.0.pin(pin).await
    }

    async fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        self.0.pins().await
    }

    async fn unpin(&self, id: uuid::Uuid) -> Result<(), StoreError> {
        self.0.unpin(id).await
    }
}
