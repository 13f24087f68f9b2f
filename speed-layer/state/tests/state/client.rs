//! One who calls a store as the contracts say: after a lost answer it reads or asks again, until it knows.

use std::fmt::Debug;
use std::future::Future;

use stratus_seam::ids::{Generation, ShardNo, Token};
use stratus_seam::ledger::Ledger;
use stratus_seam::shard::{Refusal, Scope, ShardCommit, Verdict};
use stratus_seam::store::{Durability, LedgerWrite, SourceState, StoreError, TxnChanges};

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) state: SourceState,
}

/// How often it asks before it gives up: more often than any plan of the tests goes wrong in a row.
const PATIENCE: usize = 200;

impl Client {
    /// Repeats a call that may be repeated without harm: a read, a pin, a request.
    pub(crate) async fn read<T: Debug, F: Future<Output = Result<T, StoreError>>>(
        &self,
        call: impl Fn() -> F,
    ) -> T {
        for _ in 0..PATIENCE {
            match call().await {
                Ok(answer) => return answer,
                Err(StoreError::Unavailable { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        panic!("no answer");
    }

    /// The verdict, and whether an answer was lost on the way: then `Held` may stand for `Apply`.
    pub(crate) async fn commit(&self, commit: &ShardCommit) -> (Result<Verdict, Refusal>, bool) {
        let mut lost = false;
        for _ in 0..PATIENCE {
            match self.state.shards.commit(commit).await {
                Ok(verdict) => return (verdict, lost),
                Err(StoreError::Unavailable { .. }) => lost = true,
                Err(other) => panic!("{other}"),
            }
            let meta = self.read(|| self.state.shards.meta(commit.shard)).await;
            let held = meta.map(|(meta, _)| (meta.generation, meta.token, meta.txid, meta.attempt));
            if held == Some((commit.generation, commit.token, commit.txid, Some(commit.attempt))) {
                return (Ok(Verdict::Held), lost);
            }
        }
        panic!("no answer");
    }

    pub(crate) async fn claim(
        &self,
        shard: ShardNo,
        seen: Option<(Generation, Token)>,
        generation: Generation,
        token: Token,
    ) -> bool {
        self.read(|| self.state.shards.claim(shard, seen, generation, token)).await
    }

    pub(crate) async fn drop_scopes(&self, shard: ShardNo, by: (Generation, Token), gone: &[Scope]) -> bool {
        self.read(|| self.state.shards.drop_scopes(shard, by.0, by.1, gone)).await
    }

    pub(crate) async fn write(
        &self,
        expected: Option<(Token, u64)>,
        next: &Ledger,
        txns: &TxnChanges,
        durability: Durability,
    ) -> LedgerWrite {
        let mut lost = false;
        for _ in 0..PATIENCE {
            match self.state.ledger.write(expected, next, txns.clone(), durability).await {
                Ok(LedgerWrite::Refused(Some(there))) if lost && *there == *next => {
                    return LedgerWrite::Written;
                }
                Ok(answer) => return answer,
                Err(StoreError::Unavailable { .. }) => lost = true,
                Err(other) => panic!("{other}"),
            }
            if self.read(|| self.state.ledger.read()).await.as_ref() == Some(next) {
                return LedgerWrite::Written;
            }
        }
        panic!("no answer");
    }
}
