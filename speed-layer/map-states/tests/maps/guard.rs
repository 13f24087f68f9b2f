//! Ledgers that are lost, late writes, and stores that are cleared.

use stratus_map_states::{MapError, MapStore};
use stratus_servers::redis::Redis;
use stratus_topology::TaskError;
use stratus_trident::{
    BackingMap, CachedMap, NonTransactionalMap, OpaqueMap, OpaqueValue, State, StateKind, TransactionAttempt,
    TransactionalMap,
};

use crate::stores::{File, Place, add, get, keys, opaque};

/// The error as what it is.
fn refused<T: std::fmt::Debug>(answer: Result<T, TaskError>) -> MapError {
    *answer.unwrap_err().downcast::<MapError>().unwrap()
}

async fn a_lost_ledger<P: Place>() {
    let Some(place) = P::begin() else { return };
    let maps = place.open().await;
    let mut state = opaque(&maps, "counts").await.unwrap();
    for txid in [1, 2, 9, 10, 10, 11] {
        add(&mut state, txid, &keys(0..2), 1).await.unwrap();
    }
    drop((state, maps));
    let maps = place.open().await;
    let mut state = opaque(&maps, "counts").await.unwrap();
    // Digits are compared as numbers: 9 is before 11. The keys do not matter.
    for asked in [1, 9, 10] {
        let error = refused(add(&mut state, asked, &keys(asked as usize..20), 1).await);
        assert!(matches!(error, MapError::Behind { seen: 11, asked: told, .. } if told == asked), "{error}");
        let text = error.to_string();
        assert!(text.contains("has seen transaction 11") && text.contains("ledger was lost"), "{text}");
        assert!(text.contains("\"counts\"") && text.contains("Restore the ledger"), "{text}");
    }
    assert_eq!(add(&mut state, 11, &keys(0..3), 1).await.unwrap(), [5, 5, 1]);
    assert_eq!(add(&mut state, 12, &keys(0..3), 1).await.unwrap(), [6, 6, 2]);
    // Cleared, it takes the first one again.
    drop(state);
    maps.clear("counts").await.unwrap();
    let mut state = opaque(&maps, "counts").await.unwrap();
    assert_eq!(add(&mut state, 1, &keys(0..1), 1).await.unwrap(), [1]);
    let state = maps.map(StateKind::Transactional, "others").await.unwrap();
    let mut state = TransactionalMap::<i64, _>::new(state);
    assert_eq!(add(&mut state, 7, &keys(0..1), 1).await.unwrap(), [1]);
    assert_eq!(add(&mut state, 7, &keys(0..2), 1).await.unwrap(), [1, 1], "another key of the same one");
    assert!(matches!(refused(add(&mut state, 6, &keys(0..1), 1).await), MapError::Behind { .. }));
    let plain = maps.map(StateKind::NonTransactional, "plain").await.unwrap();
    let mut plain = NonTransactionalMap::<i64, _>::new(plain);
    assert_eq!(add(&mut plain, 7, &keys(0..1), 1).await.unwrap(), [1]);
    assert_eq!(add(&mut plain, 1, &keys(0..1), 1).await.unwrap(), [2], "nothing is promised");
}

/// A write that another life has begun arrives when the next transaction has committed.
async fn a_late_write<P: Place>() {
    let Some(place) = P::begin() else { return };
    let maps = place.open().await;
    let mut late = maps.map::<OpaqueValue<i64>>(StateKind::Opaque, "counts").await.unwrap();
    late.begin_commit(Some(5)).await.unwrap();
    let mut state = opaque(&maps, "counts").await.unwrap();
    add(&mut state, 5, &keys(0..1), 1).await.unwrap();
    add(&mut state, 6, &keys(0..1), 1).await.unwrap();
    let entries = vec![(keys(0..1).remove(0), OpaqueValue::new(5, 100, None))];
    let error = refused(late.multi_put(entries).await);
    assert!(matches!(error, MapError::Behind { seen: 6, asked: 5, .. }), "{error}");
    assert_eq!(add(&mut state, 6, &keys(0..1), 1).await.unwrap(), [2]);
}

/// A write of an attempt that was given up arrives when the next attempt at the same transaction has written, from this
/// process or from the one that took over.
async fn a_late_write_of_an_attempt<P: Place>() {
    let Some(place) = P::begin() else { return };
    let maps = place.open().await;
    let key = || keys(0..1).remove(0);
    let attempt = |epoch, attempt| TransactionAttempt { txid: 5, epoch, attempt };
    let (mut before, mut late) = (opaque(&maps, "counts").await.unwrap(), Vec::new());
    add(&mut before, 4, &keys(0..1), 1).await.unwrap();
    for (epoch, number) in [(1, 1), (1, 2), (2, 3)] {
        let mut map = maps.map::<OpaqueValue<i64>>(StateKind::Opaque, "counts").await.unwrap();
        map.begin_attempt(attempt(epoch, number));
        map.begin_commit(Some(5)).await.unwrap();
        late.push(map);
    }
    let [first, second, third] = &mut late[..] else { unreachable!() };
    // Several puts of one attempt, and those of its other tasks.
    second.multi_put(vec![(key(), OpaqueValue::new(5, 20, Some(1)))]).await.unwrap();
    second.multi_put(vec![("other".to_owned(), OpaqueValue::new(5, 2, None))]).await.unwrap();
    let error = refused(first.multi_put(vec![(key(), OpaqueValue::new(5, 10, Some(1)))]).await);
    assert!(matches!(error, MapError::Replaced { txid: 5, .. }), "{error}");
    third.multi_put(vec![(key(), OpaqueValue::new(5, 30, Some(1)))]).await.unwrap();
    let error = refused(second.multi_put(vec![(key(), OpaqueValue::new(5, 20, Some(1)))]).await);
    assert!(error.to_string().contains("a later attempt at transaction 5 has written"), "{error}");
    assert_eq!(*get(third, &keys(0..1)).await[0].as_ref().unwrap().current(), 30);
    // Whoever has no attempts, as all writers had once, is told apart from nobody; fences stay as they are.
    assert_eq!(add(&mut before, 5, &keys(0..1), 1).await.unwrap(), [2]);
    refused(second.multi_put(vec![(key(), OpaqueValue::new(5, 20, Some(1)))]).await);
    // The next transaction's attempts begin where they like.
    let mut next = opaque(&maps, "counts").await.unwrap();
    next.begin_attempt(TransactionAttempt { txid: 6, epoch: 1, attempt: 1 });
    assert_eq!(add(&mut next, 6, &keys(0..1), 1).await.unwrap(), [3]);
}

/// Between two lives of a coordinator another process has had the ledger, and has written.
async fn written_by_others_between_two_lives<P: Place>() {
    let Some(place) = P::begin() else { return };
    let maps = place.open().await;
    let map = maps.map(StateKind::Opaque, "counts").await.unwrap();
    let (mut ours, mut theirs) =
        (OpaqueMap::new(CachedMap::new(map, 100)), opaque(&maps, "counts").await.unwrap());
    let begins = |txid, epoch| TransactionAttempt { txid, epoch, attempt: 1 };
    ours.begin_attempt(begins(1, 1));
    assert_eq!(add(&mut ours, 1, &keys(0..2), 1).await.unwrap(), [1, 1]);
    ours.begin_attempt(begins(2, 1));
    assert_eq!(add(&mut ours, 2, &keys(0..2), 1).await.unwrap(), [2, 2]);
    theirs.begin_attempt(begins(3, 2));
    assert_eq!(add(&mut theirs, 3, &keys(0..1), 1).await.unwrap(), [3]);
    ours.begin_attempt(begins(4, 3));
    assert_eq!(add(&mut ours, 4, &keys(0..2), 1).await.unwrap(), [4, 3]);
}

/// A ledger that has lost its end gives a number again, to another batch.
async fn another_batch_under_a_number_that_has_written<P: Place>() {
    let Some(place) = P::begin() else { return };
    let maps = place.open().await;
    let other = |error: &MapError| matches!(error, MapError::OtherBatch { txid: 5, .. });
    let mut late = maps.map::<OpaqueValue<i64>>(StateKind::Opaque, "counts").await.unwrap();
    late.is_of(Some(2));
    late.begin_commit(Some(5)).await.unwrap();
    let mut state = opaque(&maps, "counts").await.unwrap();
    state.is_of(Some(1));
    assert_eq!(add(&mut state, 5, &keys(0..2), 1).await.unwrap(), [1, 1]);
    assert_eq!(add(&mut state, 5, &keys(0..2), 1).await.unwrap(), [1, 1], "a replay");
    let error = refused(late.multi_put(vec![(keys(0..1).remove(0), OpaqueValue::new(5, 9, None))]).await);
    assert!(other(&error), "{error}");
    drop((late, state, maps));
    // The next life; a batch without keys, or with none that is new, puts nothing and is refused as well.
    let maps = place.open().await;
    let mut state = opaque(&maps, "counts").await.unwrap();
    state.is_of(Some(2));
    for keys in [keys(0..3), keys(0..2), keys(0..0)] {
        let error = refused(add(&mut state, 5, &keys, 1).await);
        assert!(other(&error) && error.to_string().contains("Restore the ledger"), "{error}");
    }
    // Whoever knows nothing of it is told apart from nobody, and what is known stays.
    state.is_of(None);
    assert_eq!(add(&mut state, 5, &keys(0..1), 1).await.unwrap(), [1]);
    state.is_of(Some(2));
    assert!(other(&refused(add(&mut state, 5, &keys(0..1), 1).await)));
    state.is_of(Some(1));
    assert_eq!(add(&mut state, 5, &keys(0..1), 1).await.unwrap(), [1]);
    state.is_of(Some(2));
    assert_eq!(add(&mut state, 6, &keys(0..1), 1).await.unwrap(), [2]);
    state.is_of(Some(1));
    assert!(matches!(
        refused(add(&mut state, 6, &keys(0..1), 1).await),
        MapError::OtherBatch { txid: 6, .. }
    ));
    maps.clear("counts").await.unwrap();
    let mut state = opaque(&maps, "counts").await.unwrap();
    state.is_of(Some(7));
    assert_eq!(add(&mut state, 6, &keys(0..1), 1).await.unwrap(), [1]);
}

async fn one_of_another_kind<P: Place>() {
    let Some(place) = P::begin() else { return };
    let maps = place.open().await;
    add(&mut opaque(&maps, "counts").await.unwrap(), 1, &keys(0..1), 1).await.unwrap();
    let other = maps.map::<i64>(StateKind::NonTransactional, "counts").await.map(drop);
    let error = other.unwrap_err();
    assert!(
        matches!(&error, MapError::OtherKind { held, asked, .. } if held == "opaque" && asked == "non-transactional"),
        "{error}"
    );
    let mut texts = OpaqueMap::<String, _>::new(maps.map(StateKind::Opaque, "counts").await.unwrap());
    stratus_trident::State::begin_commit(&mut texts, Some(2)).await.unwrap();
    let read = stratus_trident::MapState::multi_get(&mut texts, &keys(0..1)).await;
    let error = refused(read);
    assert!(error.to_string().contains("[\\\"k0\\\"]"), "{error}");
    assert!(matches!(error, MapError::Damaged { .. }), "{error}");
}

/// What a cache holds is not written back into a state that was cleared.
async fn cleared_under_a_cache<P: Place>() {
    let Some(place) = P::begin() else { return };
    let maps = place.open().await;
    let map = maps.map(StateKind::Opaque, "counts").await.unwrap();
    let mut state = OpaqueMap::new(CachedMap::new(map, 100));
    for txid in 1..4 {
        add(&mut state, txid, &keys(0..2), 1).await.unwrap();
    }
    maps.clear("counts").await.unwrap();
    assert!(matches!(refused(add(&mut state, 4, &keys(0..1), 1).await), MapError::Cleared { .. }));
    // Begun again by others, up to where this one would go on.
    for txid in 1..=4 {
        add(&mut opaque(&maps, "counts").await.unwrap(), txid, &keys(0..1), 1).await.unwrap();
        assert!(matches!(refused(add(&mut state, 4, &keys(0..1), 1).await), MapError::Cleared { .. }));
    }
    assert_eq!(add(&mut opaque(&maps, "counts").await.unwrap(), 5, &keys(0..1), 0).await.unwrap(), [4]);
}

/// A ledger from a backup counts lower epochs; the remedy that the error names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_of_a_life_that_the_ledger_forgot_can_be_deleted() {
    let Some(redis) = Redis::begin() else { return };
    let maps = redis.open().await;
    let mut state = opaque(&maps, "counts").await.unwrap();
    let mut at = async |epoch| {
        state.begin_attempt(TransactionAttempt { txid: 3, epoch, attempt: 1 });
        add(&mut state, 3, &keys(0..1), 1).await
    };
    assert_eq!(at(9).await.unwrap(), [1]);
    let error = refused(at(4).await);
    assert!(error.to_string().contains("HDEL trident:{NAME}:meta fence"), "{error}");
    redis.cli(&["HDEL", "trident:{counts}:meta", "fence"]).unwrap();
    assert_eq!(at(4).await.unwrap(), [1]);
    refused(at(3).await);
}

macro_rules! on_both {
    ($($name:ident)*) => {
        mod on_redb {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name::<File>().await;
            })*
        }

        mod on_redis {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name::<Redis>().await;
            })*
        }
    };
}

on_both! {
    a_lost_ledger a_late_write a_late_write_of_an_attempt written_by_others_between_two_lives
    another_batch_under_a_number_that_has_written one_of_another_kind cleared_under_a_cache
}
