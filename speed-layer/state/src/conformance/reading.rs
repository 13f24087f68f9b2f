//! Reading a shard at T while it moves on.

use std::collections::BTreeSet;
use std::sync::Arc;

use stratus_seam::ids::Token;
use stratus_seam::reading::{Stale, settle};
use stratus_seam::shard::{Scope, UNDO_DEPTH};
use stratus_seam::store::StateStore;

use super::owner::{Owner, fresh, scope};

/// Undo is there for the last [`UNDO_DEPTH`] txids and no longer, whatever they touched.
pub async fn undo_reaches_back_to_its_depth(store: Arc<dyn StateStore>) {
    let state = fresh(&store).await;
    let mut owner = Owner::claim(&state, 0).await;
    let (busy, idle) = (scope(), scope());
    owner.commit(&[(busy, "a", "1"), (idle, "z", "1")]).await;
    let last = UNDO_DEPTH * 2 + 3;
    for txid in 2..=last {
        owner
            .commit(&[(busy, "a", &format!("{txid}")), (busy, &format!("k{}", txid % 5), &format!("{txid}"))])
            .await;
        let first = txid.saturating_sub(UNDO_DEPTH);
        for at in first..=txid {
            owner.settles(owner.pages(&[busy, idle], 10).await, at, &[busy, idle]).await;
        }
    }
    let tail = owner.shards.tail(0, 0, &[busy]).await.unwrap().unwrap();
    let kept: Vec<_> = tail.undo.keys().copied().collect();
    assert_eq!(kept, (last - UNDO_DEPTH + 1..=last).collect::<Vec<_>>(), "older undo is forgotten");
    assert!(tail.undo.values().all(|undo| undo.len() == 2));
    let tail = owner.tail(last - 2, &[busy]).await;
    assert_eq!(tail.undo.keys().copied().collect::<Vec<_>>(), [last - 1, last], "only what was asked for");
    let tail = owner.tail(last - UNDO_DEPTH, &[idle]).await;
    assert!(tail.undo.values().all(Vec::is_empty), "nothing of other scopes");
}

/// Pages read at different moments, and one tail, give what the shard held at T.
pub async fn read_at_t_while_the_shard_is_ahead(store: Arc<dyn StateStore>) {
    let state = fresh(&store).await;
    let mut owner = Owner::claim(&state, 2).await;
    let scopes = [scope(), scope()];
    let keys: Vec<String> = (0..30).map(|i| format!("k{i:02}")).collect();
    let mut turn = 0;
    for _ in 0..6 {
        let at = owner.txid;
        let mut rows = Vec::new();
        for scope in scopes {
            let mut after: Option<String> = None;
            loop {
                let page = state.shards.page(2, scope, after.as_deref(), 7).await.unwrap();
                rows.extend(page.rows.into_iter().map(|(key, state)| (scope, key, state)));
                // Of 60 keys, some new, some old, in either scope.
                turn += 1;
                let states: Vec<_> = (0..4)
                    .map(|i| (scopes[(turn + i) % 2], &keys[(turn * 7 + i * 11) % 30], format!("{turn}.{i}")))
                    .collect();
                let states: Vec<_> = states.iter().map(|(s, k, v)| (*s, k.as_str(), v.as_str())).collect();
                if owner.txid < at + UNDO_DEPTH {
                    owner.commit(&states).await;
                }
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        assert!(owner.txid > at);
        owner.settles(rows, at, &scopes).await;
    }
    owner.check(&scopes).await;
}

/// A key that is there throughout is delivered, however many come in between.
pub async fn pages_are_complete_while_commits_go_on(store: Arc<dyn StateStore>) {
    let state = fresh(&store).await;
    let mut owner = Owner::claim(&state, 0).await;
    let scope = scope();
    let keys: Vec<String> = (0..500).map(|i| format!("k{i:04}")).collect();
    let first: Vec<_> = keys.iter().map(|key| (scope, key.as_str(), "1")).collect();
    owner.commit(&first).await;
    let mut delivered = BTreeSet::new();
    let mut after: Option<String> = None;
    for round in 0.. {
        let page = state.shards.page(0, scope, after.as_deref(), 10).await.unwrap();
        delivered.extend(page.rows.into_iter().map(|(key, _)| key));
        after = page.next;
        if after.is_none() {
            break;
        }
        let new: Vec<_> = (0..40).map(|i| format!("k{:04}x{round}", i * 13 % 500)).collect();
        let new: Vec<_> = new.iter().map(|key| (scope, key.as_str(), "new")).collect();
        // A store may deliver new keys or not, but must come to an end.
        if round < 60 {
            owner.commit(&new).await;
        }
    }
    assert!(keys.iter().all(|key| delivered.contains(key)));
}

/// Dropping takes exactly the named scopes, with counts and undo, and only from the shard's writer.
pub async fn dropped_scopes_go_and_others_stay(store: Arc<dyn StateStore>) {
    let state = fresh(&store).await;
    let mut owner = Owner::claim(&state, 0).await;
    let old = scope();
    let (new, other) = (Scope { epoch: 2, ..old }, scope());
    let all = [old, new, other];
    owner.commit(&[(old, "a", "1"), (new, "a", "1"), (other, "a", "1")]).await;
    owner.commit(&[(old, "a", "2"), (new, "a", "2"), (other, "b", "2"), (old, "b", "2")]).await;

    let zombie = Token::after(owner.token.counter);
    let stranger = stratus_seam::ids::Generation::new();
    assert!(!state.shards.drop_scopes(0, owner.generation, zombie, &[old]).await.unwrap());
    assert!(!state.shards.drop_scopes(0, stranger, owner.token, &[old]).await.unwrap());
    owner.check(&all).await;
    for _ in 0..2 {
        let gone = [old, scope()];
        assert!(state.shards.drop_scopes(0, owner.generation, owner.token, &gone).await.unwrap());
        owner.dropped(old);
        owner.check(&all).await;
        let tail = owner.tail(0, &all).await;
        assert!(tail.undo.values().flatten().all(|(scope, ..)| *scope != old));
        owner.settles(owner.pages(&[new, other], 10).await, 1, &[new, other]).await;
    }
    let (meta, found) = state.shards.meta(0).await.unwrap().unwrap();
    assert!(!meta.rows.contains_key(&old) && found.get(&old).is_none_or(|keys| *keys == 0));
    assert!(state.shards.drop_scopes(0, owner.generation, owner.token, &[]).await.unwrap());
    owner.commit(&[(new, "a", "3"), (other, "c", "3")]).await;
    owner.check(&all).await;
}

/// A reader whose scope goes while it pages sees it vanish, and its other scopes unharmed. A shard that lost its
/// writer, or has moved on too far, is told apart.
pub async fn drop_while_paging_is_noticed(store: Arc<dyn StateStore>) {
    let state = fresh(&store).await;
    let mut owner = Owner::claim(&state, 0).await;
    let (gone, kept) = (scope(), scope());
    let keys: Vec<String> = (0..50).map(|i| format!("k{i}")).collect();
    let rows = keys.iter().flat_map(|key| [(gone, key.as_str(), "1"), (kept, key.as_str(), "1")]);
    owner.commit(&rows.collect::<Vec<_>>()).await;

    let page_gone = state.shards.page(0, gone, None, 10).await.unwrap();
    let page_kept = state.shards.page(0, kept, None, 10).await.unwrap();
    assert!(state.shards.drop_scopes(0, owner.generation, owner.token, &[gone]).await.unwrap());
    let rest = state.shards.page(0, gone, page_gone.next.as_deref(), 100).await.unwrap();
    assert_eq!((rest.rows, rest.next), (Vec::new(), None));
    let mut rows: Vec<_> = page_kept.rows.into_iter().map(|(key, state)| (kept, key, state)).collect();
    let mut after = page_kept.next;
    while after.is_some() {
        let page = state.shards.page(0, kept, after.as_deref(), 10).await.unwrap();
        rows.extend(page.rows.into_iter().map(|(key, state)| (kept, key, state)));
        after = page.next;
    }
    owner.settles(rows, 1, &[kept]).await;
    let tail = state.shards.tail(0, 1, &[gone]).await.unwrap().unwrap();
    assert_eq!((tail.found.get(&gone), tail.meta.rows.get(&gone)), (Some(&0), None));

    for txid in 2..=UNDO_DEPTH + 2 {
        owner.commit(&[(kept, "k0", &format!("{txid}"))]).await;
    }
    let tail = state.shards.tail(0, 1, &[kept]).await.unwrap();
    let stale = settle(owner.generation, owner.token, 1, 1, tail.as_ref(), &[kept]);
    assert_eq!(stale, Err(Stale::TooOld));
    let seen = Some((owner.generation, owner.token));
    assert!(state.shards.claim(0, seen, owner.generation, Token::after(7)).await.unwrap());
    let tail = state.shards.tail(0, owner.txid, &[kept]).await.unwrap();
    let stale = settle(owner.generation, owner.token, owner.txid, owner.txid, tail.as_ref(), &[kept]);
    assert_eq!(stale, Err(Stale::ChangedHands));
}
