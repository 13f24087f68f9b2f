//! Reading the views of one source at one txid.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use futures::stream::{self, StreamExt, TryStreamExt};
use stratus_seam::catalog::Version;
use stratus_seam::catalog_log::now_ms;
use stratus_seam::encoding::{EncodingError, decode_rows};
use stratus_seam::ids::{Generation, ShardNo, TxId, ViewId};
use stratus_seam::ledger::Ledger;
use stratus_seam::offsets::OffsetVector;
use stratus_seam::reading::{Choice, NotYet, Stale, as_of, choose, settle, still_holds, usable_page};
use stratus_seam::shard::{Scope, shard_of};
use stratus_seam::store::{LedgerStore, Page, Pin, SourceState};
use stratus_sql::View;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::error::ReadError;
use crate::key_set::KeySet;

/// How long a reader's lease lasts. Longer than nearly every read; a read that outlasts it is told by the floor and
/// starts over. A dead reader's lease holds epochs back for no longer than this.
const LEASE: Duration = Duration::from_secs(15);
/// Rows asked for at a time.
const PAGE: usize = 10_000;
/// Keys looked up at a time.
const LOOK_UP: usize = 1_000;
/// Shards read at a time.
const CONCURRENCY: usize = 4;

/// A view and what it may be answered from.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) id: ViewId,
    pub(crate) view: Arc<View>,
    /// Its readable versions, oldest first.
    pub(crate) versions: Vec<Version>,
}

/// One view at one T: a version, and the epochs that join on to it.
#[derive(Debug)]
pub(crate) struct ViewReading {
    pub(crate) view: Arc<View>,
    pub(crate) version: Version,
    pub(crate) choice: Choice,
    id: ViewId,
    ledger: Arc<Ledger>,
    state: SourceState,
    _pin: PinGuard,
    /// What scans of this statement have read so far: all of it at T, whichever keys they asked for.
    reads: Mutex<Vec<Arc<SpeedRows>>>,
}

/// States of the speed layer at T.
#[derive(Debug)]
pub(crate) struct SpeedRows {
    /// The keys that were asked for.
    pub(crate) keys: KeySet,
    /// In how many shards they were looked for.
    pub(crate) shards: usize,
    pub(crate) batches: Vec<RecordBatch>,
}

/// What an answer is allowed to be.
#[derive(Debug, Clone)]
pub(crate) struct Freshness {
    /// The highest vector that was shown before.
    pub(crate) shown: OffsetVector,
    /// Whether the session takes an older answer while the speed state is being rebuilt.
    pub(crate) allow_stale: bool,
}

/// Opens several views of one source at one and the same T.
pub(crate) async fn open(
    state: &SourceState,
    candidates: &[Candidate],
    freshness: &Freshness,
) -> Result<Vec<Arc<ViewReading>>, ReadError> {
    // The pin first, then the floor: what the second look chooses is held by the pins of the first.
    let first = look(state.ledger.as_ref(), candidates, freshness).await?;
    let mut pins = Vec::with_capacity(candidates.len());
    for (candidate, choice) in candidates.iter().zip(&first.1) {
        pins.push(PinGuard::set(state, candidate.id, choice).await?);
    }
    let (ledger, choices) = look(state.ledger.as_ref(), candidates, freshness).await?;
    let ledger = Arc::new(ledger);
    let mut readings = Vec::with_capacity(candidates.len());
    for ((candidate, choice), pin) in candidates.iter().zip(choices).zip(pins) {
        if ledger.generation != first.0.generation || choice.chain[0].number < pin.epoch {
            return Err(Stale::ChangedHands.into());
        }
        readings.push(Arc::new(ViewReading {
            view: Arc::clone(&candidate.view),
            version: candidate.versions[choice.version].clone(),
            choice,
            id: candidate.id,
            ledger: Arc::clone(&ledger),
            state: state.clone(),
            _pin: pin,
            reads: Mutex::default(),
        }));
    }
    Ok(readings)
}

async fn look(
    store: &dyn LedgerStore,
    candidates: &[Candidate],
    freshness: &Freshness,
) -> Result<(Ledger, Vec<Choice>), ReadError> {
    let name = || candidates.first().map(|candidate| candidate.view.name().to_owned()).unwrap_or_default();
    let lost = candidates.iter().any(|candidate| !candidate.versions.is_empty());
    let not_begun = || ReadError::NotBegun { view: name(), lost };
    let mut ledger = store.read().await?.ok_or_else(not_begun)?;
    if ledger.engine != stratus_sql::cataloged::engine() {
        // Another version of the engine wrote these states; the speed layer is about to begin anew.
        return Err(not_begun());
    }
    let mut shown = freshness.shown.clone();
    if freshness.allow_stale {
        ledger.target = OffsetVector::zero();
        shown = OffsetVector::zero();
    }
    let choice = |candidate: &Candidate| {
        let cuts: Vec<OffsetVector> = candidate.versions.iter().map(|version| version.cut.clone()).collect();
        choose(&ledger, candidate.id, &cuts, &shown)
            .map_err(|why| ReadError::NotYet { view: candidate.view.name().to_owned(), why })
    };
    let choices = candidates.iter().map(choice).collect::<Result<Vec<_>, _>>()?;
    Ok((ledger, choices))
}

impl ViewReading {
    /// The schema of the flat states.
    pub(crate) fn schema(&self) -> SchemaRef {
        self.view.descriptor().state_schema()
    }

    /// The generation of the speed state that is read.
    pub(crate) fn generation(&self) -> Generation {
        self.ledger.generation
    }

    /// Rows that an expression of the view failed on, over everything that the answer stands for.
    pub(crate) fn failed_rows(&self) -> u64 {
        self.version.failed_rows + self.choice.chain.iter().map(|epoch| epoch.failed_rows).sum::<u64>()
    }

    /// How many shards the source has.
    pub(crate) fn shards(&self) -> ShardNo {
        self.ledger.shards
    }

    /// The speed layer's states at T, of at least the keys in `wanted`. What another scan of the statement has read
    /// already is not read again.
    pub(crate) async fn rows(&self, wanted: &KeySet) -> Result<Arc<SpeedRows>, ReadError> {
        let mut reads = self.reads.lock().await;
        if let Some(read) = reads.iter().find(|read| read.keys.covers(wanted)) {
            return Ok(Arc::clone(read));
        }
        let read = Arc::new(self.read(wanted).await?);
        reads.push(Arc::clone(&read));
        Ok(read)
    }

    async fn read(&self, wanted: &KeySet) -> Result<SpeedRows, ReadError> {
        let shards = by_shard(wanted, self.ledger.shards);
        let count = shards.len();
        let reads = stream::iter(shards.into_iter().map(|(shard, keys)| self.read_shard(shard, keys)));
        let batches = reads.buffer_unordered(CONCURRENCY).try_collect::<Vec<_>>().await?;
        let after = self.state.ledger.read().await?;
        still_holds(&self.ledger, after.as_ref(), self.id, self.choice.chain[0].number)?;
        let batches = batches.into_iter().flatten().collect();
        Ok(SpeedRows { keys: wanted.clone(), shards: count, batches })
    }

    /// One shard: its pages, or the keys that are wanted of it, then its tail, which brings them all to T.
    async fn read_shard(
        &self,
        shard: ShardNo,
        keys: Option<Vec<String>>,
    ) -> Result<Vec<RecordBatch>, ReadError> {
        let scopes = self.choice.scopes(self.id);
        let mut pages = Pages { rows: Vec::new(), paged: self.choice.txid };
        for scope in &scopes {
            match &keys {
                Some(keys) => self.find(shard, *scope, keys, &mut pages).await?,
                None => self.page(shard, *scope, &mut pages).await?,
            }
        }
        let tail = self.state.shards.tail(shard, self.choice.txid, &scopes).await?;
        let (generation, token) = (self.ledger.generation, self.ledger.token);
        settle(generation, token, self.choice.txid, pages.paged, tail.as_ref(), &scopes)?;
        let mut held = tail.map(|tail| as_of(pages.rows, &tail)).unwrap_or_default();
        if let Some(keys) = keys {
            // The undo also tells of keys that nobody asked for.
            let wanted: HashSet<String> = keys.into_iter().collect();
            held.values_mut().for_each(|rows| rows.retain(|key, _| wanted.contains(key)));
        }
        self.decode(&held).map_err(ReadError::from)
    }

    async fn page(&self, shard: ShardNo, scope: Scope, pages: &mut Pages) -> Result<(), ReadError> {
        let mut after: Option<String> = None;
        loop {
            let page = self.state.shards.page(shard, scope, after.as_deref(), PAGE).await?;
            self.count("stratus_speed_rows_paged_total", page.rows.len());
            after = page.next.clone();
            self.take(scope, page, pages)?;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn find(
        &self,
        shard: ShardNo,
        scope: Scope,
        keys: &[String],
        pages: &mut Pages,
    ) -> Result<(), ReadError> {
        for keys in keys.chunks(LOOK_UP) {
            let page = self.state.shards.find(shard, scope, keys).await?;
            self.count("stratus_speed_keys_looked_up_total", keys.len());
            self.take(scope, page, pages)?;
        }
        Ok(())
    }

    fn take(&self, scope: Scope, page: Page, pages: &mut Pages) -> Result<(), ReadError> {
        let (generation, token) = (self.ledger.generation, self.ledger.token);
        pages.paged =
            pages.paged.max(usable_page(generation, token, self.choice.txid, page.stand, page.missing)?);
        pages.rows.extend(page.rows.into_iter().map(|(key, state)| (scope, key, state)));
        Ok(())
    }

    fn count(&self, counter: &'static str, rows: usize) {
        metrics::counter!(counter, "view" => self.view.name().to_owned()).increment(rows as u64);
    }

    fn decode(
        &self,
        held: &BTreeMap<Scope, HashMap<String, String>>,
    ) -> Result<Vec<RecordBatch>, EncodingError> {
        let schema = self.schema();
        let (key_fields, state_fields) = schema.fields().split_at(self.view.descriptor().keys.len());
        let mut batches = Vec::new();
        for rows in held.values().filter(|rows| !rows.is_empty()) {
            let keys = decode_rows(rows.keys().map(String::as_str), key_fields)?;
            let states = decode_rows(rows.values().map(String::as_str), state_fields)?;
            let columns = keys.into_iter().chain(states).collect();
            let batch = RecordBatch::try_new(Arc::clone(&schema), columns)
                .map_err(|error| EncodingError::Misfit { row: String::new(), what: error.to_string() })?;
            batches.push(batch);
        }
        Ok(batches)
    }
}

/// What was read of a shard, and the highest txid that a part of it stood at.
struct Pages {
    rows: Vec<(Scope, String, String)>,
    paged: TxId,
}

/// The shards to read, each with the keys to look up in it; none for all of its keys.
fn by_shard(wanted: &KeySet, shards: ShardNo) -> BTreeMap<ShardNo, Option<Vec<String>>> {
    let KeySet::Keys(keys) = wanted else { return (0..shards).map(|shard| (shard, None)).collect() };
    let mut by_shard: BTreeMap<ShardNo, Option<Vec<String>>> = BTreeMap::new();
    for key in keys {
        let of_shard = by_shard.entry(shard_of(key, shards)).or_default();
        of_shard.get_or_insert_default().push(key.clone());
    }
    by_shard
}

/// A pin that is taken back when its reader is done, or gone.
#[derive(Debug)]
struct PinGuard {
    store: Arc<dyn LedgerStore>,
    id: Uuid,
    epoch: u32,
}

impl PinGuard {
    async fn set(state: &SourceState, view: ViewId, choice: &Choice) -> Result<Self, ReadError> {
        let epoch = choice
            .chain
            .first()
            .map(|epoch| epoch.number)
            .ok_or(ReadError::NotYet { view: view.to_string(), why: NotYet::NoChain })?;
        let id = Uuid::new_v4();
        let until_ms = now_ms() + u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
        state.ledger.pin(Pin { id, view, epoch, until_ms }).await?;
        Ok(Self { store: Arc::clone(&state.ledger), id, epoch })
    }
}

impl Drop for PinGuard {
    fn drop(&mut self) {
        // A lease that cannot be taken back runs out by itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (store, id) = (Arc::clone(&self.store), self.id);
            runtime.spawn(async move {
                if let Err(error) = store.unpin(id).await {
                    tracing::debug!("a pin was not taken back and will run out: {error}");
                }
            });
        }
    }
}
