//! What the speed layer asks of a state store.
//!
//! Two traits, because a ledger and a shard fail apart: each call is atomic by itself and nothing is promised
//! across calls. `stratus_state::conformance` holds every store to the contracts written here.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{EpochNo, Generation, ShardNo, SourceId, Token, TxId, ViewId};
use crate::ledger::{Ledger, Txn};
use crate::shard::{Refusal, Scope, ShardCommit, ShardMeta, Stand, Verdict};

/// What a store may answer other than what was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No answer, or a failure on the way. The effect may have happened, may not have, or may yet happen: read
    /// before writing again.
    #[error("{what}: {source}")]
    Unavailable {
        /// What was tried, where.
        what: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store does not hold what it must hold: its contents were evicted, cut off or overwritten. Only a new
    /// generation helps.
    #[error("{0}")]
    Damaged(String),
}

/// The state of one source in a store.
#[derive(Debug, Clone)]
pub struct SourceState {
    /// Its ledger, with the requests and pins that others leave for the ledger's writer.
    pub ledger: Arc<dyn LedgerStore>,
    /// Its shards.
    pub shards: Arc<dyn ShardStore>,
}

/// A store of speed state for any number of sources.
#[async_trait]
pub trait StateStore: Send + Sync + fmt::Debug {
    /// The state of a source; nothing is created by asking.
    async fn source(&self, source: SourceId) -> Result<SourceState, StoreError>;

    /// Deletes everything of a source that was dropped.
    async fn forget(&self, source: SourceId) -> Result<(), StoreError>;
}

/// What a conditional write of the ledger found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerWrite {
    /// The record was the expected one and is now the new one.
    Written,
    /// The record is another one: nothing was written, and the caller must recover.
    Refused(Option<Box<Ledger>>),
}

/// Whether an effect must survive a crash of the machine before the call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It must: something that people can see follows from it.
    Now,
    /// It may be lost in a crash together with everything written after it, never without that.
    Later,
}

/// A ledger's entries, written in the same step as its record.
#[derive(Debug, Clone, Default)]
pub struct TxnChanges {
    /// The entry to add.
    pub append: Option<Txn>,
    /// Entries below this txid are no longer asked for.
    pub forget_below: TxId,
    /// Forget all entries: they belong to an earlier generation.
    pub forget_all: bool,
}

/// A request left for the ledger's writer: cut these views at the next txid boundary. The new epochs' headers carry
/// the request's id; the one who asked reads them there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutRequest {
    /// Its id.
    pub id: Uuid,
    /// The views to cut.
    pub views: Vec<ViewId>,
}

/// A reader's lease: epochs of `view` from `epoch` on are being read until `until_ms` at the latest. For liveness
/// only; the floor decides what is true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Its id.
    pub id: Uuid,
    /// The view.
    pub view: ViewId,
    /// The oldest epoch that the reader uses.
    pub epoch: EpochNo,
    /// The lease's end, in milliseconds since the epoch.
    pub until_ms: u64,
}

/// The ledger of one source, and what others leave for its writer.
#[async_trait]
pub trait LedgerStore: Send + Sync + fmt::Debug {
    /// The record; none if there is no ledger.
    async fn read(&self) -> Result<Option<Ledger>, StoreError>;

    /// Replaces the record, and changes entries in the same step, if the record's token and revision are
    /// `expected` (none: if there is no record). After [`StoreError::Unavailable`] the caller reads and compares.
    async fn write(
        &self,
        expected: Option<(Token, u64)>,
        next: &Ledger,
        txns: TxnChanges,
        durability: Durability,
    ) -> Result<LedgerWrite, StoreError>;

    /// The entries of the txids from `first` on, in order, as far as they are kept.
    async fn txns(&self, first: TxId) -> Result<Vec<Txn>, StoreError>;

    /// Leaves a request.
    async fn request(&self, request: CutRequest) -> Result<(), StoreError>;

    /// The requests that were left and not withdrawn.
    async fn requests(&self) -> Result<Vec<CutRequest>, StoreError>;

    /// Takes a request back; one that is not there is no error.
    async fn withdraw(&self, id: Uuid) -> Result<(), StoreError>;

    /// Sets or renews a pin.
    async fn pin(&self, pin: Pin) -> Result<(), StoreError>;

    /// The pins, expired ones included.
    async fn pins(&self) -> Result<Vec<Pin>, StoreError>;

    /// Takes a pin back; one that is not there is no error.
    async fn unpin(&self, id: Uuid) -> Result<(), StoreError>;
}

/// A page of a scope's keys and states, in the store's own order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys with their current states.
    pub rows: Vec<(String, String)>,
    /// Where the next page begins; none if this is the last one.
    pub next: Option<String>,
    /// Where the shard stood when the page was read, seen in the same moment; none if the shard is empty.
    pub stand: Option<Stand>,
    /// By how many keys the scope differed, in that moment, from what the shard's record says of it: the store lost
    /// some, and a page of it is worth nothing. That the tail finds them complete does not show it: the store may
    /// have been brought back from a copy meanwhile. A store whose keys cannot go alone says 0.
    pub missing: u64,
}

/// What a reader needs to bring pages to txid T, all seen at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// The shard's record.
    pub meta: ShardMeta,
    /// How many keys the asked scopes really have at this moment, each of them listed.
    pub found: BTreeMap<Scope, u64>,
    /// For each txid above the asked one that the shard holds, what it overwrote in the asked scopes: the state
    /// before, none if the key was absent. A txid that changed nothing in them may be missing: whether the undo
    /// reaches back far enough is told by the record's txid alone.
    pub undo: BTreeMap<TxId, Vec<(Scope, String, Option<String>)>>,
}

/// The shards of one source. Every call on one shard is atomic.
#[async_trait]
pub trait ShardStore: Send + Sync + fmt::Debug {
    /// What the shard says of itself, with the number of keys that each scope really has; none if it is empty.
    async fn meta(&self, shard: ShardNo) -> Result<Option<(ShardMeta, BTreeMap<Scope, u64>)>, StoreError>;

    /// Makes `token` the shard's writer for `generation`, if its (generation, token) is still `seen` (none: if it
    /// is empty). A shard of another generation is emptied in the same step. Answers whether it was done; a shard
    /// that already is (generation, token) counts as done.
    async fn claim(
        &self,
        shard: ShardNo,
        seen: Option<(Generation, Token)>,
        generation: Generation,
        token: Token,
    ) -> Result<bool, StoreError>;

    /// The current states of some keys, in the order asked.
    async fn get(
        &self,
        shard: ShardNo,
        scope: Scope,
        keys: &[String],
    ) -> Result<Vec<Option<String>>, StoreError>;

    /// Applies a commit as a whole, or not at all: changed groups, their undo, the txid, the row counts, as decided
    /// by [`crate::shard::judge`]. Undo older than [`crate::shard::UNDO_DEPTH`] txids is forgotten.
    async fn commit(&self, commit: &ShardCommit) -> Result<Result<Verdict, Refusal>, StoreError>;

    /// Up to about `limit` rows of a scope, from the page that `after` names on. A key that is present throughout
    /// the paging is delivered at least once, and may be delivered twice.
    async fn page(
        &self,
        shard: ShardNo,
        scope: Scope,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, StoreError>;

    /// The rows of those of `keys` that are present, each once, in any order; what is absent is left out. All of
    /// them, and the shard's stand, are seen in one moment, so there is no next page. A look-up is a page that the
    /// caller chose the keys of: the same rules bring it to a txid ([`crate::reading`]). `keys` name each key once.
    async fn find(&self, shard: ShardNo, scope: Scope, keys: &[String]) -> Result<Page, StoreError>;

    /// The shard's record and the undo of all txids above `txid` for `scopes`; none if the shard is empty.
    async fn tail(&self, shard: ShardNo, txid: TxId, scopes: &[Scope]) -> Result<Option<Tail>, StoreError>;

    /// Deletes the scopes in `gone`, with their undo, and lets the record forget them
    /// ([`ShardMeta::drop_scopes`]), if (generation, token) is the shard's. Answers whether it was. Names what goes and not what stays: a call that takes effect late must not touch an epoch
    /// that was cut meanwhile.
    async fn drop_scopes(
        &self,
        shard: ShardNo,
        generation: Generation,
        token: Token,
        gone: &[Scope],
    ) -> Result<bool, StoreError>;
}
