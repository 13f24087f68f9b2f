//! Answers that are lost, and effects that come late: whoever reads before writing again comes out right.

use std::sync::{Arc, Mutex, PoisonError};

use stratus_seam::ids::{SourceId, Token};
use stratus_seam::shard::{Refusal, Scope, Verdict};
use stratus_seam::store::{Durability, LedgerWrite, StateStore, StoreError, TxnChanges};

use super::owner::{Owner, record, scope};
use crate::faults::{Fault, FaultyStore, Op};

const FAULTS: [Fault; 5] = [Fault::Before, Fault::After, Fault::Late(1), Fault::Late(2), Fault::Late(4)];

/// A store whose next call of the given kind, once it is set, goes wrong.
struct Tripwire {
    store: FaultyStore,
    next: Arc<Mutex<Option<(Op, Fault)>>>,
}

impl Tripwire {
    fn before(inner: Arc<dyn StateStore>) -> Self {
        let next: Arc<Mutex<Option<(Op, Fault)>>> = Arc::default();
        let plan = next.clone();
        let plan = Box::new(move |call: &crate::faults::Call| {
            let mut next = plan.lock().unwrap_or_else(PoisonError::into_inner);
            next.take_if(|(op, _)| *op == call.op).map_or(Fault::None, |(_, fault)| fault)
        });
        Self { store: FaultyStore::new(inner, plan), next }
    }

    fn set(&self, op: Op, fault: Fault) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some((op, fault));
    }
}

fn lost<T: std::fmt::Debug>(answer: Result<T, StoreError>) {
    assert!(matches!(answer, Err(StoreError::Unavailable { .. })), "{answer:?}");
}

/// After a lost answer the shard's record tells whether the commit is held; if not, it is sent again. Whatever the
/// first one still does, it is applied once.
pub async fn lost_commit_answers_are_settled_by_reading(store: Arc<dyn StateStore>) {
    let wire = Tripwire::before(store);
    let state = wire.store.source(SourceId::new()).await.unwrap();
    let mut owner = Owner::claim(&state, 0).await;
    let scope = scope();
    for (round, fault) in FAULTS.into_iter().cycle().take(15).enumerate() {
        let commit = owner.next(&[(scope, "a", &format!("{round}")), (scope, &format!("k{round}"), "x")]);
        wire.set(Op::Commit, fault);
        lost(state.shards.commit(&commit).await);
        let (meta, _) = state.shards.meta(0).await.unwrap().unwrap();
        let held = (meta.token, meta.txid, meta.attempt) == (commit.token, commit.txid, Some(commit.attempt));
        if !held {
            assert!(matches!(fault, Fault::Before | Fault::Late(_)), "the effect of {fault:?} is missing");
            assert!(matches!(
                state.shards.commit(&commit).await.unwrap(),
                Ok(Verdict::Apply | Verdict::Held)
            ));
        }
        owner.note(&commit);
        owner.check(&[scope]).await;
    }
    wire.store.settle().await;
    owner.check(&[scope]).await;
    owner.settles(owner.pages(&[scope], 10).await, 0, &[scope]).await;
}

/// After a lost answer the record tells whether the write was done; if not, it is tried again, and a refusal that
/// shows the very record that was to be written means that it was.
pub async fn lost_ledger_answers_are_settled_by_reading(store: Arc<dyn StateStore>) {
    let wire = Tripwire::before(store);
    let state = wire.store.source(SourceId::new()).await.unwrap();
    let mut held: Option<stratus_seam::ledger::Ledger> = None;
    for (round, fault) in FAULTS.into_iter().cycle().take(15).enumerate() {
        let (next, txn) = match &held {
            Some(held) => held.append(std::collections::BTreeMap::new()).unwrap(),
            None => record().append(std::collections::BTreeMap::new()).unwrap(),
        };
        let expected = held.as_ref().map(|held| (held.token, held.revision));
        let changes = || TxnChanges { append: Some(txn.clone()), ..TxnChanges::default() };
        wire.set(Op::Write, fault);
        lost(state.ledger.write(expected, &next, changes(), Durability::Now).await);
        if state.ledger.read().await.unwrap().as_ref() != Some(&next) {
            match state.ledger.write(expected, &next, changes(), Durability::Now).await.unwrap() {
                LedgerWrite::Written => {}
                LedgerWrite::Refused(there) => assert_eq!(there.as_deref(), Some(&next), "after {fault:?}"),
            }
        }
        assert_eq!(state.ledger.read().await.unwrap().as_ref(), Some(&next));
        let txns = state.ledger.txns(0).await.unwrap();
        assert_eq!((txns.len(), txns.last()), (round + 1, Some(&txn)));
        held = Some(next);
    }
    wire.store.settle().await;
    assert_eq!(state.ledger.read().await.unwrap(), held);
    assert_eq!(state.ledger.txns(0).await.unwrap().len(), 15);
}

/// A claim whose answer was lost is made again, with what was seen at first.
pub async fn lost_claim_answers_are_settled_by_asking_again(store: Arc<dyn StateStore>) {
    let wire = Tripwire::before(store);
    let state = wire.store.source(SourceId::new()).await.unwrap();
    let mut owner = Owner::claim(&state, 0).await;
    let scope = scope();
    for fault in FAULTS {
        owner.commit(&[(scope, "a", &format!("{fault:?}"))]).await;
        let seen = Some((owner.generation, owner.token));
        owner.token = Token::after(owner.token.counter);
        wire.set(Op::Claim, fault);
        lost(state.shards.claim(0, seen, owner.generation, owner.token).await);
        assert!(state.shards.claim(0, seen, owner.generation, owner.token).await.unwrap());
        owner.check(&[scope]).await;
    }
    wire.store.settle().await;
    owner.check(&[scope]).await;
}

/// What a writer sent before it was shut out, and what arrives only then, changes nothing.
pub async fn late_effects_of_a_zombie_are_refused(store: Arc<dyn StateStore>) {
    let wire = Tripwire::before(store);
    let state = wire.store.source(SourceId::new()).await.unwrap();
    let scope = scope();
    let never = Fault::Late(u32::MAX);
    let ledger = record();
    let none = TxnChanges::default;
    let began = state.ledger.write(None, &ledger, none(), Durability::Now).await.unwrap();
    assert_eq!(began, LedgerWrite::Written);
    let mut owner = Owner::claim(&state, 0).await;
    owner.commit(&[(scope, "a", "1"), (scope, "b", "1")]).await;

    let (seen, expected) = (Some((owner.generation, owner.token)), Some((ledger.token, ledger.revision)));
    wire.set(Op::Commit, never);
    lost(state.shards.commit(&owner.next(&[(scope, "a", "late")])).await);
    wire.set(Op::Claim, never);
    lost(state.shards.claim(0, seen, owner.generation, Token::after(9)).await);
    wire.set(Op::DropScopes, never);
    lost(state.shards.drop_scopes(0, owner.generation, owner.token, &[scope]).await);
    wire.set(Op::Write, never);
    lost(state.ledger.write(expected, &ledger.take_over(1), none(), Durability::Now).await);

    owner.token = Token::after(owner.token.counter);
    assert!(state.shards.claim(0, seen, owner.generation, owner.token).await.unwrap());
    let taken = ledger.take_over(2);
    let wrote = state.ledger.write(expected, &taken, none(), Durability::Now).await.unwrap();
    assert_eq!(wrote, LedgerWrite::Written);
    wire.store.settle().await;
    owner.check(&[scope]).await;
    assert_eq!(state.ledger.read().await.unwrap(), Some(taken));
    let stale = owner.next(&[]);
    owner.commit(&[(scope, "c", "2")]).await;
    assert_eq!(state.shards.commit(&stale).await.unwrap(), Err(Refusal::Attempt(stale.txid)));
    owner.check(&[scope]).await;
}

/// A drop that takes effect after a cut leaves the new epoch alone.
pub async fn late_drop_touches_no_later_epoch(store: Arc<dyn StateStore>) {
    let wire = Tripwire::before(store);
    let state = wire.store.source(SourceId::new()).await.unwrap();
    let mut owner = Owner::claim(&state, 0).await;
    let old = scope();
    let new = Scope { epoch: 2, ..old };
    owner.commit(&[(old, "a", "1")]).await;
    wire.set(Op::DropScopes, Fault::Late(u32::MAX));
    lost(state.shards.drop_scopes(0, owner.generation, owner.token, &[old]).await);
    owner.commit(&[(new, "a", "1"), (new, "b", "1")]).await;
    owner.commit(&[(new, "a", "2")]).await;
    wire.store.settle().await;
    owner.dropped(old);
    owner.check(&[old, new]).await;
    owner.settles(owner.pages(&[new], 10).await, 2, &[new]).await;
}
