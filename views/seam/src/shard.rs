//! A shard: the unit of speed state, which commits as a whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Attempt, EpochNo, Generation, ShardNo, Token, TxId, ViewId};

/// For how many txids a shard keeps what they overwrote. A reader that pages for longer starts over.
pub const UNDO_DEPTH: u64 = 16;

/// One epoch of one view: the scope of a key within a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Scope {
    /// The view.
    pub view: ViewId,
    /// The epoch.
    pub epoch: EpochNo,
}

/// What a shard says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardMeta {
    /// The generation that its contents belong to.
    pub generation: Generation,
    /// The one writer.
    pub token: Token,
    /// The last txid that it holds; 0 for none.
    pub txid: TxId,
    /// The attempt of that txid.
    pub attempt: Option<Attempt>,
    /// How many keys each scope must have. Fewer means that the store lost some.
    pub rows: BTreeMap<Scope, u64>,
    /// Of each view, the epochs below this number were dropped here. A scope without keys is empty only at or above
    /// it: the ledger may have gone back to a time before the drop, and must not pass a dropped epoch for an empty
    /// one.
    pub floors: BTreeMap<ViewId, EpochNo>,
}

/// Where a shard stood when a part of it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stand {
    /// The generation that its contents belonged to.
    pub generation: Generation,
    /// The one writer.
    pub token: Token,
    /// The last txid that it held.
    pub txid: TxId,
}

impl ShardMeta {
    /// Where the shard stands.
    pub const fn stand(&self) -> Stand {
        Stand { generation: self.generation, token: self.token, txid: self.txid }
    }

    /// An empty shard of a generation.
    pub fn empty(generation: Generation, token: Token) -> Self {
        Self { generation, token, txid: 0, attempt: None, rows: BTreeMap::new(), floors: BTreeMap::new() }
    }

    /// Forgets scopes that are being deleted, and remembers that they were.
    pub fn drop_scopes(&mut self, gone: &[Scope]) {
        for scope in gone {
            self.rows.remove(scope);
            let floor = self.floors.entry(scope.view).or_default();
            *floor = (*floor).max(scope.epoch + 1);
        }
    }

    /// Whether a scope was dropped here.
    pub fn has_dropped(&self, scope: Scope) -> bool {
        self.floors.get(&scope.view).is_some_and(|floor| scope.epoch < *floor)
    }
}

/// A group that a txid changes. Key and state are encoded as in [`crate::encoding`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Whose group it is.
    pub scope: Scope,
    /// The group's key.
    pub key: String,
    /// The state before this txid; none if the group is new.
    pub before: Option<String>,
    /// The state with this txid.
    pub after: String,
}

/// What one txid does to one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardCommit {
    /// The shard.
    pub shard: ShardNo,
    /// The generation that the writer believes in.
    pub generation: Generation,
    /// The writer's token.
    pub token: Token,
    /// The txid.
    pub txid: TxId,
    /// The ledger entry that it was computed from.
    pub attempt: Attempt,
    /// The changed groups, each key of a scope once.
    pub changes: Vec<Change>,
}

/// Why a shard does not accept a commit. The writer has lost touch: it must recover, not try again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The shard belongs to another generation, or to none.
    #[error("the shard is of generation {has:?}, the commit of {offered}")]
    Generation {
        /// The shard's; none if it is empty.
        has: Option<Generation>,
        /// The commit's.
        offered: Generation,
    },
    /// Another writer has taken over, or the store went back to an earlier one.
    #[error("the shard is written by {has}, the commit comes from {offered}")]
    Token {
        /// The shard's.
        has: Token,
        /// The commit's.
        offered: Token,
    },
    /// The commit is not the next one.
    #[error("the shard holds txid {has}, the commit is txid {offered}")]
    Order {
        /// The shard's last txid.
        has: TxId,
        /// The commit's.
        offered: TxId,
    },
    /// The shard holds this txid from another ledger entry.
    #[error("the shard holds another attempt of txid {0}")]
    Attempt(TxId),
}

/// Whether a shard accepts a commit: the compare of every store's compare-and-set. A commit is applied only at
/// exactly (generation, token, txid - 1); the same txid again is no change if it comes from the same ledger entry.
///
/// # Errors
/// Any other commit is refused.
pub fn judge(meta: Option<&ShardMeta>, commit: &ShardCommit) -> Result<Verdict, Refusal> {
    let Some(meta) = meta.filter(|meta| meta.generation == commit.generation) else {
        let has = meta.map(|meta| meta.generation);
        return Err(Refusal::Generation { has, offered: commit.generation });
    };
    if meta.token != commit.token {
        return Err(Refusal::Token { has: meta.token, offered: commit.token });
    }
    if meta.txid == commit.txid {
        let same = meta.attempt == Some(commit.attempt);
        return if same { Ok(Verdict::Held) } else { Err(Refusal::Attempt(commit.txid)) };
    }
    if meta.txid + 1 != commit.txid {
        return Err(Refusal::Order { has: meta.txid, offered: commit.txid });
    }
    Ok(Verdict::Apply)
}

/// What to do with an acceptable commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Write it.
    Apply,
    /// The shard holds it already: nothing to write.
    Held,
}

/// The shard that a key belongs to. Stable across processes and versions: it is part of the stored state's layout.
pub fn shard_of(key: &str, shards: u32) -> ShardNo {
    // Below `shards`, so it fits.
    (xxhash_rust::xxh3::xxh3_64(key.as_bytes()) % u64::from(shards.max(1))) as ShardNo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_next_txid_of_the_one_writer_is_accepted() {
        let (generation, token, attempt) = (Generation::new(), Token::after(0), Attempt::new());
        let mut meta = ShardMeta::empty(generation, token);
        meta.txid = 4;
        meta.attempt = Some(attempt);
        let commit =
            |txid, attempt| ShardCommit { shard: 0, generation, token, txid, attempt, changes: Vec::new() };
        assert_eq!(judge(Some(&meta), &commit(5, attempt)), Ok(Verdict::Apply));
        assert_eq!(judge(Some(&meta), &commit(4, attempt)), Ok(Verdict::Held));
        assert_eq!(judge(Some(&meta), &commit(4, Attempt::new())), Err(Refusal::Attempt(4)));
        assert!(matches!(judge(Some(&meta), &commit(3, attempt)), Err(Refusal::Order { .. })));
        assert!(matches!(judge(Some(&meta), &commit(6, attempt)), Err(Refusal::Order { .. })));
        let zombie = ShardCommit { token: Token::after(0), ..commit(5, attempt) };
        assert!(matches!(judge(Some(&meta), &zombie), Err(Refusal::Token { .. })));
        let flushed = judge(None, &commit(5, attempt));
        assert!(matches!(flushed, Err(Refusal::Generation { has: None, .. })));
    }

    #[test]
    fn the_shard_of_a_key_is_pinned() {
        let spread: std::collections::BTreeSet<_> =
            (0..1000).map(|i| shard_of(&format!("[{i}]"), 16)).collect();
        assert_eq!(spread.len(), 16);
        assert_eq!((shard_of("[1]", 16), shard_of(r#"["/"]"#, 16)), (PINNED.0, PINNED.1));
    }

    /// Written down once: a change here orphans every stored key.
    const PINNED: (ShardNo, ShardNo) = (5, 3);
}
