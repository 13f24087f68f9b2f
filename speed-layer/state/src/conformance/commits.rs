//! Commits: whole or not at all, once, and only from the one who is next.

use std::sync::Arc;

use stratus_seam::ids::{Attempt, Generation, SourceId, Token};
use stratus_seam::shard::{Refusal, Scope, ShardCommit, Verdict};
use stratus_seam::store::{CutRequest, Durability, LedgerWrite, StateStore, TxnChanges};
use uuid::Uuid;

use super::owner::{Owner, fresh, record, scope};

/// A commit shows as a whole: states, record and row counts.
pub async fn commit_is_applied(store: Arc<dyn StateStore>) {
    let state = fresh(&store).await;
    let mut owner = Owner::claim(&state, 0).await;
    let (one, two) = (scope(), scope());
    let later = Scope { epoch: 2, ..one };
    let all = [one, later, two];
    owner.check(&all).await;
    owner.commit(&[(one, "b", "b1"), (two, "a", "x"), (one, "a", "a1")]).await;
    owner.check(&all).await;
    owner.commit(&[]).await;
    owner.check(&all).await;
    owner.commit(&[(one, "a", "a3"), (one, "c", "c3"), (later, "a", "other")]).await;
    owner.check(&all).await;
    let keys = ["c", "no", "a", "c"].map(str::to_owned);
    let states = state.shards.get(0, one, &keys).await.unwrap();
    assert_eq!(states, [Some("c3".into()), None, Some("a3".into()), Some("c3".into())], "in the order asked");
}

/// The same txid from the same ledger entry is held already.
pub async fn commit_again_is_no_change(store: Arc<dyn StateStore>) {
    let state = fresh(&store).await;
    let mut owner = Owner::claim(&state, 0).await;
    let scope = scope();
    for round in 0..3 {
        let commit = owner.next(&[(scope, "a", &format!("{round}")), (scope, &format!("k{round}"), "x")]);
        assert_eq!(state.shards.commit(&commit).await.unwrap(), Ok(Verdict::Apply));
        assert_eq!(state.shards.commit(&commit).await.unwrap(), Ok(Verdict::Held));
        owner.note(&commit);
        owner.check(&[scope]).await;
    }
    owner.settles(owner.pages(&[scope], 10).await, 0, &[scope]).await;
}

/// Whoever is not next is refused: gaps, former txids, other attempts, other tokens, other generations. A refused
/// commit changes nothing.
pub async fn misfits_are_refused_and_change_nothing(store: Arc<dyn StateStore>) {
    let state = fresh(&store).await;
    let mut owner = Owner::claim(&state, 0).await;
    let scope = scope();
    for txid in 1..4 {
        owner.commit(&[(scope, "a", &format!("a{txid}")), (scope, &format!("k{txid}"), "x")]).await;
    }
    let fits = owner.next(&[(scope, "a", "wrong"), (scope, "new", "wrong")]);
    let zombie = Token { id: Uuid::new_v4(), ..owner.token };
    let stranger = Generation::new();
    let held = owner.txid;
    let misfits = [
        (ShardCommit { txid: 5, ..fits.clone() }, Refusal::Order { has: held, offered: 5 }),
        (ShardCommit { txid: 2, ..fits.clone() }, Refusal::Order { has: held, offered: 2 }),
        (ShardCommit { txid: 3, attempt: Attempt::new(), ..fits.clone() }, Refusal::Attempt(3)),
        (ShardCommit { token: zombie, ..fits.clone() }, Refusal::Token { has: owner.token, offered: zombie }),
        (
            ShardCommit { generation: stranger, ..fits.clone() },
            Refusal::Generation { has: Some(owner.generation), offered: stranger },
        ),
        (
            ShardCommit { shard: 1, ..fits.clone() },
            Refusal::Generation { has: None, offered: owner.generation },
        ),
    ];
    for (misfit, refusal) in misfits {
        assert_eq!(state.shards.commit(&misfit).await.unwrap(), Err(refusal));
        owner.check(&[scope]).await;
    }
    owner.settles(owner.pages(&[scope], 10).await, 1, &[scope]).await;
    assert_eq!(state.shards.meta(1).await.unwrap(), None);
    assert_eq!(state.shards.commit(&fits).await.unwrap(), Ok(Verdict::Apply), "it still fits");
}

/// A writer does not notice by itself that its store was emptied: every write of it is refused.
pub async fn emptied_store_refuses_its_writer(store: Arc<dyn StateStore>) {
    let source = SourceId::new();
    let state = store.source(source).await.unwrap();
    let mut owner = Owner::claim(&state, 0).await;
    let ledger = record();
    let none = TxnChanges::default;
    let began = state.ledger.write(None, &ledger, none(), Durability::Now).await.unwrap();
    assert_eq!(began, LedgerWrite::Written);
    owner.commit(&[(scope(), "a", "1")]).await;
    store.forget(source).await.unwrap();

    let refused = state.shards.commit(&owner.next(&[])).await.unwrap();
    assert_eq!(refused, Err(Refusal::Generation { has: None, offered: owner.generation }));
    let seen = Some((owner.generation, owner.token));
    assert!(!state.shards.claim(0, seen, owner.generation, Token::after(1)).await.unwrap());
    let dropped = state.shards.drop_scopes(0, owner.generation, owner.token, &[scope()]).await.unwrap();
    assert!(!dropped);
    let expected = Some((ledger.token, ledger.revision));
    let write = state.ledger.write(expected, &ledger.take_over(0), none(), Durability::Now).await.unwrap();
    assert_eq!(write, LedgerWrite::Refused(None));
    assert_eq!(state.shards.meta(0).await.unwrap(), None);
}

/// Twenty thousand groups in one commit, new and then overwritten.
pub async fn large_commits_are_whole(store: Arc<dyn StateStore>) {
    let state = fresh(&store).await;
    let mut owner = Owner::claim(&state, 0).await;
    let scopes = [scope(), scope()];
    let keys: Vec<String> = (0..20_000).map(|i| format!("[\"group\",{i}]")).collect();
    for round in ["1", "2"] {
        let states: Vec<_> =
            keys.iter().enumerate().map(|(i, key)| (scopes[i % 2], key.as_str(), round)).collect();
        owner.commit(&states).await;
    }
    let (meta, found) = state.shards.meta(0).await.unwrap().unwrap();
    for scope in scopes {
        assert_eq!((meta.rows[&scope], found[&scope]), (10_000, 10_000));
    }
    for txid in 0..=2 {
        owner.settles(owner.pages(&scopes, 1_000).await, txid, &scopes).await;
    }
}

/// Keys and states are texts of any kind and length, and come back as they went in.
pub async fn any_characters_are_kept(store: Arc<dyn StateStore>) {
    let state = fresh(&store).await;
    let mut owner = Owner::claim(&state, 0).await;
    let scope = scope();
    let long = "é\"\\".repeat(40_000);
    let texts = [
        "",
        "\0",
        "a\0b",
        "\n\r\t",
        "\"quoted\"",
        "'; FLUSHALL",
        "{tag}",
        ":",
        "*",
        "ключ",
        "\u{1f980}",
        "\u{ffff}",
        "\u{10ffff}",
        " lead",
        "trail ",
        "-0.0",
        "[\"\",null]",
        "%",
        "a",
        "A",
        &long,
    ];
    let first: Vec<_> = texts.iter().map(|text| (scope, *text, *text)).collect();
    owner.commit(&first).await;
    owner.check(&[scope]).await;
    let turned: Vec<_> =
        texts.iter().zip(texts.iter().rev()).map(|(key, state)| (scope, *key, *state)).collect();
    owner.commit(&turned).await;
    owner.check(&[scope]).await;
    owner.settles(owner.pages(&[scope], 4).await, 1, &[scope]).await;
}

/// The same scope, keys and txids elsewhere are others.
pub async fn shards_and_sources_are_apart(store: Arc<dyn StateStore>) {
    let (here, there) = (fresh(&store).await, fresh(&store).await);
    let scope = scope();
    let mut owners = Vec::new();
    for (state, shard) in [(&here, 0), (&here, 1), (&here, u32::MAX), (&there, 0)] {
        owners.push(Owner::claim(state, shard).await);
    }
    for round in 0..3 {
        for (i, owner) in owners.iter_mut().enumerate() {
            owner.commit(&[(scope, "same", &format!("{i}/{round}")), (scope, &format!("k{i}"), "x")]).await;
        }
    }
    let out = owners.remove(1);
    assert!(out.shards.drop_scopes(1, out.generation, out.token, &[scope]).await.unwrap());
    let (meta, _) = out.shards.meta(1).await.unwrap().unwrap();
    assert!(meta.has_dropped(scope), "a dropped scope must not pass for an empty one");
    for owner in &owners {
        owner.check(&[scope]).await;
        owner.settles(owner.pages(&[scope], 10).await, 1, &[scope]).await;
    }
}

/// Of a forgotten source nothing is left, of others everything.
pub async fn forgotten_source_is_gone(store: Arc<dyn StateStore>) {
    let (gone, kept) = (SourceId::new(), SourceId::new());
    let scope = scope();
    let mut owners = Vec::new();
    for source in [gone, kept] {
        let state = store.source(source).await.unwrap();
        let (ledger, txn) = record().append(std::collections::BTreeMap::new()).unwrap();
        let changes = TxnChanges { append: Some(txn), ..TxnChanges::default() };
        state.ledger.write(None, &ledger, changes, Durability::Now).await.unwrap();
        state.ledger.request(CutRequest { id: Uuid::new_v4(), views: Vec::new() }).await.unwrap();
        let mut owner = Owner::claim(&state, 0).await;
        owner.commit(&[(scope, "a", "1")]).await;
        owners.push(owner);
    }
    store.forget(gone).await.unwrap();
    store.forget(gone).await.unwrap();
    let state = store.source(gone).await.unwrap();
    assert_eq!(state.ledger.read().await.unwrap(), None);
    assert_eq!(state.ledger.txns(0).await.unwrap(), []);
    assert_eq!(state.ledger.requests().await.unwrap(), []);
    assert_eq!(state.shards.meta(0).await.unwrap(), None);
    assert_eq!(state.shards.get(0, scope, &["a".into()]).await.unwrap(), [None]);
    let state = store.source(kept).await.unwrap();
    assert!(state.ledger.read().await.unwrap().is_some());
    assert_eq!(state.ledger.txns(0).await.unwrap().len(), 1);
    assert_eq!(state.ledger.requests().await.unwrap().len(), 1);
    owners[1].check(&[scope]).await;
}
