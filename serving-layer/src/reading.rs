//! Reading the views of one source at one txid.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use futures::stream::{self, StreamExt, TryStreamExt};
use stratus_seam::catalog::Version;
use stratus_seam::catalog_log::now_ms;
use stratus_seam::encoding::{EncodingError, decode_rows};
use stratus_seam::ids::{Generation, ShardNo, ViewId};
use stratus_seam::ledger::Ledger;
use stratus_seam::offsets::OffsetVector;
use stratus_seam::reading::{Choice, NotYet, Stale, as_of, choose, settle, still_holds, usable_page};
use stratus_seam::shard::Scope;
use stratus_seam::store::{LedgerStore, Pin, SourceState};
use stratus_sql::View;
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::error::ReadError;

/// How long a reader's lease lasts. Longer than nearly every read; a read that outlasts it is told by the floor and
/// starts over. A dead reader's lease holds epochs back for no longer than this.
const LEASE: Duration = Duration::from_secs(15);
/// Rows asked for at a time.
const PAGE: usize = 10_000;
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
    rows: OnceCell<Vec<RecordBatch>>,
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
            rows: OnceCell::new(),
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
    let mut ledger = store.read().await?.ok_or_else(|| ReadError::NotBegun { view: name() })?;
    if ledger.engine != stratus_sql::cataloged::engine() {
        // Another version of the engine wrote these states; the speed layer is about to begin anew.
        return Err(ReadError::NotBegun { view: name() });
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

    /// The speed layer's states at T, read once however often a query scans them.
    pub(crate) async fn rows(&self) -> Result<Vec<RecordBatch>, ReadError> {
        self.rows.get_or_try_init(|| self.read()).await.cloned()
    }

    async fn read(&self) -> Result<Vec<RecordBatch>, ReadError> {
        let shards = stream::iter((0..self.ledger.shards).map(|shard| self.read_shard(shard)));
        let batches = shards.buffer_unordered(CONCURRENCY).try_collect::<Vec<_>>().await?;
        let after = self.state.ledger.read().await?;
        still_holds(&self.ledger, after.as_ref(), self.id, self.choice.chain[0].number)?;
        Ok(batches.into_iter().flatten().collect())
    }

    /// One shard: its pages, then its tail, which brings them all to T.
    async fn read_shard(&self, shard: ShardNo) -> Result<Vec<RecordBatch>, ReadError> {
        let scopes = self.choice.scopes(self.id);
        let (generation, token) = (self.ledger.generation, self.ledger.token);
        let (mut pages, mut paged) = (Vec::new(), self.choice.txid);
        for scope in &scopes {
            let mut after: Option<String> = None;
            loop {
                let page = self.state.shards.page(shard, *scope, after.as_deref(), PAGE).await?;
                paged = paged.max(usable_page(generation, token, self.choice.txid, page.stand)?);
                pages.extend(page.rows.into_iter().map(|(key, state)| (*scope, key, state)));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        let tail = self.state.shards.tail(shard, self.choice.txid, &scopes).await?;
        settle(generation, token, self.choice.txid, paged, tail.as_ref(), &scopes)?;
        let held = tail.map(|tail| as_of(pages, &tail)).unwrap_or_default();
        self.decode(&held).map_err(ReadError::from)
    }

    fn decode(
        &self,
        held: &BTreeMap<Scope, std::collections::HashMap<String, String>>,
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
