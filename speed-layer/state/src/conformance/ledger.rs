//! The ledger, and what others leave for its writer.

use std::collections::BTreeMap;
use std::sync::Arc;

use stratus_seam::ids::{Token, ViewId};
use stratus_seam::ledger::{Ledger, Txn};
use stratus_seam::offsets::OffsetRange;
use stratus_seam::store::{CutRequest, Durability, LedgerWrite, Pin, SourceState, StateStore, TxnChanges};
use uuid::Uuid;

use super::owner::{fresh, record, scope};

/// Asking for a source, and reading it, leaves no trace.
pub async fn nothing_is_created_by_asking(store: Arc<dyn StateStore>) {
    let state = fresh(&store).await;
    assert_eq!(state.ledger.read().await.unwrap(), None);
    assert_eq!(state.ledger.txns(0).await.unwrap(), []);
    assert_eq!(state.ledger.requests().await.unwrap(), []);
    assert_eq!(state.ledger.pins().await.unwrap(), []);
    assert_eq!(state.shards.meta(3).await.unwrap(), None);
    assert_eq!(state.shards.tail(3, 0, &[scope()]).await.unwrap(), None);
    let page = state.shards.page(3, scope(), None, 10).await.unwrap();
    assert_eq!((page.rows, page.next), (Vec::new(), None));
    let keys = ["a".to_owned(), "b".to_owned()];
    assert_eq!(state.shards.get(3, scope(), &keys).await.unwrap(), [None, None]);
    assert_eq!(state.shards.meta(3).await.unwrap(), None);
}

async fn write(
    state: &SourceState,
    expected: Option<(Token, u64)>,
    next: &Ledger,
    txns: TxnChanges,
) -> LedgerWrite {
    state.ledger.write(expected, next, txns, Durability::Now).await.unwrap()
}

fn at(ledger: &Ledger) -> Option<(Token, u64)> {
    Some((ledger.token, ledger.revision))
}

/// A write needs exactly the record that it was decided on, and a refused one answers with the record that is there.
pub async fn ledger_is_compared_and_set(store: Arc<dyn StateStore>) {
    let state = fresh(&store).await;
    let first = record();
    let none = TxnChanges::default;
    assert_eq!(write(&state, at(&first), &first, none()).await, LedgerWrite::Refused(None));
    assert_eq!(write(&state, None, &first, none()).await, LedgerWrite::Written);
    let is_first = LedgerWrite::Refused(Some(Box::new(first.clone())));
    assert_eq!(write(&state, None, &record(), none()).await, is_first);

    let second = first.take_over(9);
    let elsewhere = Some((Token::after(first.token.counter), first.revision));
    assert_eq!(write(&state, elsewhere, &second, none()).await, is_first);
    let other_id = Some((Token { id: Uuid::new_v4(), ..first.token }, first.revision));
    assert_eq!(write(&state, other_id, &second, none()).await, is_first);
    for revision in [first.revision - 1, first.revision + 1] {
        assert_eq!(write(&state, Some((first.token, revision)), &second, none()).await, is_first);
    }
    assert_eq!(state.ledger.read().await.unwrap(), Some(first.clone()));
    assert_eq!(write(&state, at(&first), &second, none()).await, LedgerWrite::Written);
    let is_second = LedgerWrite::Refused(Some(Box::new(second.clone())));
    assert_eq!(write(&state, at(&first), &second, none()).await, is_second);

    let (third, _) = second.append(BTreeMap::new()).unwrap();
    let later = state.ledger.write(at(&second), &third, none(), Durability::Later).await.unwrap();
    assert_eq!((later, state.ledger.read().await.unwrap()), (LedgerWrite::Written, Some(third)));
}

/// Entries are appended and forgotten in the same step as the record, or not at all.
pub async fn entries_change_with_the_record(store: Arc<dyn StateStore>) {
    let state = fresh(&store).await;
    let mut held = record();
    assert_eq!(write(&state, None, &held, TxnChanges::default()).await, LedgerWrite::Written);
    let mut txns: Vec<Txn> = Vec::new();
    for i in 0..12 {
        let range = OffsetRange { from: i * 5, to: i * 5 + 5, records: 4 };
        let (next, txn) = held.append(BTreeMap::from([(0, range)])).unwrap();
        let changes = || TxnChanges { append: Some(txn.clone()), ..TxnChanges::default() };
        let stale = Some((held.token, held.revision + 1));
        assert!(matches!(write(&state, stale, &next, changes()).await, LedgerWrite::Refused(_)));
        assert_eq!(state.ledger.txns(0).await.unwrap(), txns, "a refused write appends nothing");
        assert_eq!(write(&state, at(&held), &next, changes()).await, LedgerWrite::Written);
        txns.push(txn);
        held = next;
    }
    assert_eq!(state.ledger.txns(0).await.unwrap(), txns);
    assert_eq!(state.ledger.txns(11).await.unwrap(), txns[10..], "in order of their numbers");
    assert_eq!(state.ledger.txns(13).await.unwrap(), []);

    let (next, txn) = held.append(BTreeMap::new()).unwrap();
    let changes = TxnChanges { append: Some(txn.clone()), forget_below: 12, forget_all: false };
    assert!(matches!(write(&state, None, &next, changes.clone()).await, LedgerWrite::Refused(_)));
    assert_eq!(state.ledger.txns(0).await.unwrap(), txns, "a refused write forgets nothing");
    assert_eq!(write(&state, at(&held), &next, changes).await, LedgerWrite::Written);
    assert_eq!(state.ledger.txns(0).await.unwrap(), [txns[11].clone(), txn]);

    let (begun, txn) = record().append(BTreeMap::new()).unwrap();
    let changes = TxnChanges { append: Some(txn.clone()), forget_below: 0, forget_all: true };
    assert_eq!(write(&state, at(&next), &begun, changes).await, LedgerWrite::Written);
    assert_eq!(state.ledger.txns(0).await.unwrap(), [txn], "only the new generation's");
}

/// A request stays until it is withdrawn; leaving it twice leaves it once.
pub async fn requests_stay_until_withdrawn(store: Arc<dyn StateStore>) {
    let state = fresh(&store).await;
    let make = || CutRequest { id: Uuid::new_v4(), views: vec![ViewId::new(), ViewId::new()] };
    let mut asked = [make(), make(), make()];
    for request in asked.iter().chain(&asked[..1]) {
        state.ledger.request(request.clone()).await.unwrap();
    }
    asked.sort_by_key(|request| request.id);
    let mut left = state.ledger.requests().await.unwrap();
    left.sort_by_key(|request| request.id);
    assert_eq!(left, asked);
    state.ledger.withdraw(asked[1].id).await.unwrap();
    state.ledger.withdraw(asked[1].id).await.unwrap();
    state.ledger.withdraw(Uuid::new_v4()).await.unwrap();
    let mut left = state.ledger.requests().await.unwrap();
    left.sort_by_key(|request| request.id);
    assert_eq!(left, [asked[0].clone(), asked[2].clone()]);
    assert_eq!(state.ledger.read().await.unwrap(), None, "a request makes no ledger");
}

/// A pin set again replaces the one with its id; expired ones are listed too.
pub async fn pins_are_renewed_and_taken_back(store: Arc<dyn StateStore>) {
    let state = fresh(&store).await;
    let pin = Pin { id: Uuid::new_v4(), view: ViewId::new(), epoch: 3, until_ms: 1 };
    let other = Pin { id: Uuid::new_v4(), view: ViewId::new(), epoch: 9, until_ms: u64::MAX };
    state.ledger.pin(pin.clone()).await.unwrap();
    state.ledger.pin(other.clone()).await.unwrap();
    let renewed = Pin { until_ms: 5, ..pin.clone() };
    state.ledger.pin(renewed.clone()).await.unwrap();
    let mut pins = state.ledger.pins().await.unwrap();
    pins.sort_by_key(|pin| pin.epoch);
    assert_eq!(pins, [renewed, other.clone()]);
    state.ledger.unpin(pin.id).await.unwrap();
    state.ledger.unpin(pin.id).await.unwrap();
    assert_eq!(state.ledger.pins().await.unwrap(), [other]);
}
