//! Who may write a shard.

use std::sync::Arc;

use stratus_seam::ids::{Generation, Token};
use stratus_seam::shard::Refusal;
use stratus_seam::store::StateStore;

use super::owner::{Owner, fresh, scope};

/// A claim on a shard that is not as it was seen does nothing.
pub async fn claim_needs_the_shard_as_seen(store: Arc<dyn StateStore>) {
    let state = fresh(&store).await;
    let (generation, token) = (Generation::new(), Token::after(0));
    let never = Some((generation, Token::after(0)));
    assert!(!state.shards.claim(0, never, generation, token).await.unwrap());
    assert_eq!(state.shards.meta(0).await.unwrap(), None);

    let mut owner = Owner::claim(&state, 0).await;
    let scope = scope();
    owner.commit(&[(scope, "a", "1")]).await;
    let wrong = [
        None,
        Some((Generation::new(), owner.token)),
        Some((owner.generation, Token::after(owner.token.counter))),
    ];
    for seen in wrong {
        for generation in [generation, owner.generation] {
            assert!(!state.shards.claim(0, seen, generation, token).await.unwrap());
        }
    }
    owner.check(&[scope]).await;
}

/// A shard that a new generation takes is empty, and the old one's writer is out.
pub async fn claim_by_another_generation_empties(store: Arc<dyn StateStore>) {
    let state = fresh(&store).await;
    let mut old = Owner::claim(&state, 0).await;
    let scope = scope();
    old.commit(&[(scope, "a", "1"), (scope, "b", "1")]).await;
    old.commit(&[(scope, "a", "2")]).await;

    let seen = Some((old.generation, old.token));
    let mut new = Owner::claim(&fresh(&store).await, 0).await;
    new.shards = state.shards.clone();
    assert!(state.shards.claim(0, seen, new.generation, new.token).await.unwrap());
    new.check(&[scope]).await;
    let (meta, found) = state.shards.meta(0).await.unwrap().unwrap();
    assert!(meta.rows.is_empty() && found.values().all(|keys| *keys == 0));
    let refused = state.shards.commit(&old.next(&[(scope, "a", "3")])).await.unwrap();
    assert_eq!(refused, Err(Refusal::Generation { has: Some(new.generation), offered: old.generation }));
    new.commit(&[(scope, "a", "new")]).await;
    new.check(&[scope]).await;
    new.settles(new.pages(&[scope], 1).await, 0, &[scope]).await;
}

/// A claim that was done is done again without harm, even by one who lost the answer.
pub async fn claim_twice_is_once(store: Arc<dyn StateStore>) {
    let state = fresh(&store).await;
    let mut owner = Owner::claim(&state, 5).await;
    let scope = scope();
    owner.commit(&[(scope, "a", "1")]).await;
    assert!(state.shards.claim(5, None, owner.generation, owner.token).await.unwrap());
    owner.check(&[scope]).await;
}

/// A writer of the same generation finds the contents as they were, and shuts the former one out.
pub async fn takeover_keeps_contents(store: Arc<dyn StateStore>) {
    let state = fresh(&store).await;
    let mut owner = Owner::claim(&state, 1).await;
    let scope = scope();
    owner.commit(&[(scope, "a", "1"), (scope, "b", "1")]).await;
    owner.commit(&[(scope, "a", "2")]).await;
    let zombie = owner.next(&[(scope, "a", "zombie")]);

    let seen = Some((owner.generation, owner.token));
    owner.token = Token::after(owner.token.counter);
    assert!(state.shards.claim(1, seen, owner.generation, owner.token).await.unwrap());
    let refused = state.shards.commit(&zombie).await.unwrap();
    assert_eq!(refused, Err(Refusal::Token { has: owner.token, offered: zombie.token }));
    owner.check(&[scope]).await;
    owner.settles(owner.pages(&[scope], 10).await, 1, &[scope]).await;
    owner.commit(&[(scope, "c", "3")]).await;
    owner.check(&[scope]).await;
}
