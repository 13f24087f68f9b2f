//! Looking keys up: what pages would show of them, of one moment.

use std::collections::BTreeSet;
use std::sync::Arc;

use stratus_seam::ids::Token;
use stratus_seam::shard::{Scope, Stand, UNDO_DEPTH};
use stratus_seam::store::{Page, StateStore};

use super::owner::{Owner, fresh, scope};

fn sorted(mut page: Page) -> Page {
    page.rows.sort();
    page
}

/// What is found of some keys is what all pages show of them, and the shard's stand. Absent keys are left out, an
/// empty scope and an empty list of keys have no rows, a shard that nobody claimed has no stand, and the keys may be
/// many and of any characters.
pub async fn found_keys_are_what_paging_and_filtering_gives(store: Arc<dyn StateStore>) {
    let state = fresh(&store).await;
    let asked = ["a".to_owned(), "b".to_owned()];
    assert_eq!(state.shards.find(1, scope(), &asked).await.unwrap(), Page::default());

    let mut owner = Owner::claim(&state, 1).await;
    let (full, other) = (scope(), scope());
    let next_epoch = Scope { epoch: 2, ..full };
    let stand =
        |owner: &Owner| Some(Stand { generation: owner.generation, token: owner.token, txid: owner.txid });
    let nothing = Page { stand: stand(&owner), ..Page::default() };
    assert_eq!(state.shards.find(1, full, &asked).await.unwrap(), nothing, "a claimed shard without rows");

    let mut keys: Vec<String> = (0..3000).map(|i| format!("[\"key {i}\"]")).collect();
    keys.extend(
        ["", "[null]", "[\"a\\\"b\\\\ü\u{1f980}\",1]", "a\0b", "line\nfeed", "*?[a-z]", "{tag}"]
            .map(String::from),
    );
    let rows = keys.iter().map(|key| (full, key.as_str(), "1"));
    owner.commit(&rows.chain([(other, keys[0].as_str(), "other")]).collect::<Vec<_>>()).await;
    owner.commit(&[(full, keys[5].as_str(), "2"), (next_epoch, keys[6].as_str(), "next")]).await;

    let pages = owner.pages(&[full, other, next_epoch], 700).await;
    for every in [1, 2, 7, 1000] {
        // Some of the keys, with absent ones among them.
        let asked: Vec<String> = (0..)
            .zip(&keys)
            .filter(|(i, _)| i % every == 0)
            .flat_map(|(i, key)| [key.clone(), format!("{key} absent {i}")])
            .collect();
        let wanted: BTreeSet<&String> = asked.iter().collect();
        for of in [full, other, next_epoch, scope()] {
            let rows: BTreeSet<(String, String)> = pages
                .iter()
                .filter(|(scope, key, _)| *scope == of && wanted.contains(key))
                .map(|(_, key, state)| (key.clone(), state.clone()))
                .collect();
            let want = Page { rows: rows.into_iter().collect(), stand: stand(&owner), ..Page::default() };
            let found = state.shards.find(1, of, &asked).await.unwrap();
            assert_eq!(sorted(found), want, "every {every}. key of {of:?}");
        }
    }
    let none = state.shards.find(1, full, &[]).await.unwrap();
    assert_eq!(none, Page { stand: stand(&owner), ..Page::default() });
    assert_eq!(state.shards.find(0, full, &keys).await.unwrap(), Page::default(), "another shard");

    // Whoever takes the shard over is seen in the stand at once.
    let (seen, token) = (Some((owner.generation, owner.token)), Token::after(owner.token.counter));
    assert!(state.shards.claim(1, seen, owner.generation, token).await.unwrap());
    owner.token = token;
    let found = state.shards.find(1, next_epoch, &keys[6..7]).await.unwrap();
    let rows = vec![(keys[6].clone(), "next".to_owned())];
    assert_eq!(found, Page { rows, stand: stand(&owner), ..Page::default() });
    assert!(state.shards.drop_scopes(1, owner.generation, token, &[full]).await.unwrap());
    assert_eq!(state.shards.find(1, full, &keys).await.unwrap().rows, [], "a dropped scope");
}

/// Every commit sets all keys to its txid: what is found is all of one txid, the one that the stand tells.
pub async fn found_keys_are_of_one_moment(store: Arc<dyn StateStore>) {
    let state = fresh(&store).await;
    let mut owner = Owner::claim(&state, 0).await;
    let scope = scope();
    let keys: Vec<String> = (0..400).map(|i| format!("k{i}")).collect();
    let shards = Arc::clone(&state.shards);
    let writes = async {
        for txid in 1..=30 {
            let state = format!("{txid}");
            owner
                .commit(&keys.iter().map(|key| (scope, key.as_str(), state.as_str())).collect::<Vec<_>>())
                .await;
            tokio::task::yield_now().await;
        }
    };
    let reads = async {
        loop {
            let page = shards.find(0, scope, &keys).await.unwrap();
            let txid = page.stand.unwrap().txid;
            assert_eq!(page.rows.len(), if txid == 0 { 0 } else { keys.len() });
            let of = format!("{txid}");
            assert!(
                page.rows.iter().all(|(_, state)| *state == of),
                "rows of another moment than txid {txid}"
            );
            if txid == 30 {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(writes, reads);
}

/// What was found and the tail give what the keys held at T, also for keys that are newer or were not there yet.
pub async fn found_keys_are_brought_to_t(store: Arc<dyn StateStore>) {
    let state = fresh(&store).await;
    let mut owner = Owner::claim(&state, 0).await;
    let scope = scope();
    let all: Vec<String> = (0..12).map(|i| format!("k{i}")).collect();
    for txid in 1..=UNDO_DEPTH {
        let (one, two) = (&all[(txid * 5 % 12) as usize], &all[(txid * 7 % 11) as usize]);
        let value = format!("{txid}");
        let mut rows = vec![(scope, one.as_str(), value.as_str())];
        if one != two {
            rows.push((scope, two.as_str(), value.as_str()));
        }
        owner.commit(&rows).await;
    }
    for keys in [&all[..], &all[3..4], &all[2..9]] {
        let page = state.shards.find(0, scope, keys).await.unwrap();
        for at in 0..=owner.txid {
            let rows = page.rows.iter().map(|(key, state)| (scope, key.clone(), state.clone()));
            let tail = owner.tail(at, &[scope]).await;
            let mut read = stratus_seam::reading::as_of(rows, &tail).remove(&scope).unwrap_or_default();
            // The undo also tells of keys that were not asked for.
            read.retain(|key, _| keys.contains(key));
            let held = keys.iter().filter_map(|key| {
                owner.history[&at].get(&(scope, key.clone())).map(|state| (key.clone(), state.clone()))
            });
            assert_eq!(read, held.collect(), "at txid {at}");
        }
    }
}
