//! Storm's StateTest, by value.

use stratus_trident::{
    BackingMap, CachedMap, MapState, MemoryMap, NonTransactionalMap, OpaqueMap, OpaqueValue, State,
    TransactionalMap,
};

async fn begin(state: &mut impl State, txid: u64) {
    state.begin_commit(Some(txid)).await.unwrap();
}

/// Adds to the key; what it is then.
async fn add(state: &mut impl MapState<i64>, amount: i64) -> i64 {
    let mut update = |_, before: Option<i64>| Ok(before.unwrap_or(0) + amount);
    state.multi_update(&["a".to_owned()], &mut update).await.unwrap()[0]
}

/// Adds to the key, if a value was there; what was there.
async fn seen(state: &mut impl MapState<i64>) -> Option<i64> {
    state.multi_get(&["a".to_owned()]).await.unwrap()[0]
}

#[test]
fn an_opaque_value_knows_what_each_transaction_begins_with() {
    let value = OpaqueValue::new(8, "v1", Some("v0"));
    assert_eq!(value.before(8).unwrap(), Some(&"v0"));
    assert_eq!(value.before(9).unwrap(), Some(&"v1"));
    assert!(value.before(7).is_err());
    assert_eq!(value.update(8, "v2").unwrap().previous(), Some(&"v0"));
    assert_eq!(value.update(8, "v2").unwrap().current(), &"v2");
    assert_eq!(value.update(9, "v2").unwrap().previous(), Some(&"v1"));
}

#[test]
fn an_opaque_value_is_an_array_and_comes_back_the_same() {
    for (value, json) in [
        (OpaqueValue::new(8, Some(2), Some(Some(1))), "[8,2,1]"),
        (OpaqueValue::new(8, None, Some(None)), "[8,null,null]"),
        (OpaqueValue::new(8, None, None), "[8,null]"),
    ] {
        assert_eq!(serde_json::to_string(&value).unwrap(), json);
        assert_eq!(serde_json::from_str::<OpaqueValue<Option<i64>>>(json).unwrap(), value);
    }
    let storms: OpaqueValue<i64> = serde_json::from_str("[8,2,null]").unwrap();
    assert_eq!(storms, OpaqueValue::new(8, 2, None));
    for wrong in ["[8]", "[8,2,1,0]", "[8,\"2\"]", "{\"txid\":8}"] {
        assert!(serde_json::from_str::<OpaqueValue<i64>>(wrong).is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn an_opaque_map_forgets_what_a_replaced_attempt_wrote() {
    let mut map = OpaqueMap::new(MemoryMap::default());
    begin(&mut map, 1).await;
    assert_eq!(seen(&mut map).await, None);
    assert_eq!(add(&mut map, 1).await, 1);
    assert_eq!(add(&mut map, 2).await, 3);
    // The same again sees what was before.
    begin(&mut map, 1).await;
    assert_eq!(add(&mut map, 2).await, 2);
    begin(&mut map, 2).await;
    assert_eq!(seen(&mut map).await, Some(2));
    assert_eq!(add(&mut map, 3).await, 5);
    assert_eq!(add(&mut map, 1).await, 6);
    begin(&mut map, 1).await;
    let mut update = |_, before: Option<i64>| Ok(before.unwrap_or(0));
    assert!(map.multi_update(&["a".to_owned()], &mut update).await.is_err(), "behind the state");
}

#[tokio::test]
async fn a_transactional_map_counts_a_replay_once() {
    let mut map = TransactionalMap::new(MemoryMap::default());
    begin(&mut map, 1).await;
    assert_eq!(add(&mut map, 1).await, 1);
    assert_eq!(add(&mut map, 2).await, 3);
    begin(&mut map, 1).await;
    assert_eq!(add(&mut map, 1).await, 3);
    assert_eq!(add(&mut map, 2).await, 3);
    begin(&mut map, 2).await;
    assert_eq!(add(&mut map, 3).await, 6);
    assert_eq!(add(&mut map, 1).await, 7);
}

#[tokio::test]
async fn a_map_without_a_promise_counts_a_replay_again() {
    let mut map = NonTransactionalMap::new(MemoryMap::default());
    begin(&mut map, 1).await;
    assert_eq!(add(&mut map, 3).await, 3);
    begin(&mut map, 1).await;
    assert_eq!(add(&mut map, 3).await, 6);
}

/// A store that fails to put as often as it is told to.
struct Failing(MemoryMap<i64>, u32);

#[async_trait::async_trait]
impl BackingMap<i64> for Failing {
    async fn multi_get(&mut self, keys: &[String]) -> Result<Vec<Option<i64>>, stratus_topology::TaskError> {
        self.0.multi_get(keys).await
    }

    async fn multi_put(&mut self, entries: Vec<(String, i64)>) -> Result<(), stratus_topology::TaskError> {
        if self.1 > 0 {
            self.1 -= 1;
            return Err("the store is away".into());
        }
        self.0.multi_put(entries).await
    }
}

#[tokio::test]
async fn a_cache_is_never_ahead_of_its_store() {
    let store = MemoryMap::default();
    let mut map = CachedMap::new(Failing(store.clone(), 1), 2);
    let key = "a".to_owned();
    assert_eq!(map.multi_get(std::slice::from_ref(&key)).await.unwrap(), [None]);
    assert!(map.multi_put(vec![(key.clone(), 1)]).await.is_err());
    assert_eq!(map.multi_get(std::slice::from_ref(&key)).await.unwrap(), [None], "the put was lost");
    map.multi_put(vec![(key.clone(), 2)]).await.unwrap();
    assert_eq!(map.multi_get(std::slice::from_ref(&key)).await.unwrap(), [Some(2)]);
    // The oldest goes first, and comes back from the store.
    let others = ["b".to_owned(), "c".to_owned()];
    map.multi_put(others.iter().map(|key| (key.clone(), 7)).collect()).await.unwrap();
    store.clone().multi_put(vec![(key.clone(), 3)]).await.unwrap();
    assert_eq!(map.multi_get(&[key, others[1].clone()]).await.unwrap(), [Some(3), Some(7)]);
}

#[tokio::test]
async fn a_cache_answers_with_what_it_forgets_meanwhile() {
    let mut store = MemoryMap::default();
    store.multi_put((0..4).map(|key| (key.to_string(), key)).collect()).await.unwrap();
    let mut map = CachedMap::new(store, 2);
    let keys = |keys: [i64; 3]| keys.map(|key| key.to_string());
    assert_eq!(map.multi_get(&keys([0, 1, 0])).await.unwrap(), [Some(0), Some(1), Some(0)]);
    // Two new keys push the old one out before its turn comes.
    assert_eq!(map.multi_get(&keys([2, 3, 0])).await.unwrap(), [Some(2), Some(3), Some(0)]);
}
