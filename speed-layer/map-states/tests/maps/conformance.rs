//! What every backing map must do, in memory, in redb and in Redis.

use stratus_map_states::MapStore;
use stratus_servers::redis::Redis;
use stratus_trident::{BackingMap, CachedMap, MemoryMap, OpaqueMap, OpaqueValue, TransactionalValue};

use crate::stores::{File, Place, add, get, keys, opaque, plain};

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

async fn absent_keys_and_order(map: &mut impl BackingMap<i64>) {
    assert_eq!(get(map, &[]).await, []);
    assert_eq!(get(map, &texts(&["a", "b"])).await, [None, None]);
    map.multi_put(vec![("b".into(), 2), ("a".into(), 1)]).await.unwrap();
    map.multi_put(vec![]).await.unwrap();
    let asked = texts(&["a", "x", "b", "a"]);
    assert_eq!(get(map, &asked).await, [Some(1), None, Some(2), Some(1)]);
    map.multi_put(vec![("a".into(), 3), ("c".into(), i64::MIN)]).await.unwrap();
    assert_eq!(get(map, &texts(&["c", "b", "a"])).await, [Some(i64::MIN), Some(2), Some(3)]);
}

async fn big_batches(map: &mut impl BackingMap<i64>) {
    let all = keys(0..10_001);
    map.multi_put(all.iter().cloned().zip(0..).collect()).await.unwrap();
    let reversed: Vec<String> = all.into_iter().rev().collect();
    let expected: Vec<Option<i64>> = (0..10_001).rev().map(Some).collect();
    assert_eq!(get(map, &reversed).await, expected);
}

async fn strange_keys(map: &mut impl BackingMap<i64>) {
    let long = "k".repeat(70_000);
    let strange = [
        "",
        " ",
        "a:b",
        "{a}",
        "[\"é\",\"漢字\",\"🦀\"]",
        "\u{0}\n\r\n",
        "\\x00",
        "*",
        "$1",
        "-",
        "NaN",
        &long,
    ];
    map.multi_put(strange.iter().map(ToString::to_string).zip(0..).collect()).await.unwrap();
    let found = get(map, &texts(&strange)).await;
    assert_eq!(found, (0..strange.len() as i64).map(Some).collect::<Vec<_>>());
}

async fn values_with_null(map: &mut impl BackingMap<OpaqueValue<Option<i64>>>) {
    let values = [
        OpaqueValue::new(1, None, None),
        OpaqueValue::new(2, None, Some(None)),
        OpaqueValue::new(3, None, Some(Some(-1))),
        OpaqueValue::new(u64::MAX, Some(i64::MAX), Some(None)),
    ];
    let entries: Vec<_> = keys(0..4).into_iter().zip(values).collect();
    map.multi_put(entries.clone()).await.unwrap();
    let found = get(map, &keys(0..4)).await;
    assert_eq!(found, entries.into_iter().map(|(_, value)| Some(value)).collect::<Vec<_>>());
}

async fn values_of_every_type(
    texts: &mut impl BackingMap<TransactionalValue<String>>,
    floats: &mut impl BackingMap<f64>,
) {
    let (key, text) = (String::from("k"), String::from("\"é\u{0}[1,2]🦀\n"));
    texts.multi_put(vec![(key.clone(), TransactionalValue(9, text.clone()))]).await.unwrap();
    assert_eq!(get(texts, std::slice::from_ref(&key)).await, [Some(TransactionalValue(9, text))]);
    for value in [0.1 + 0.2, f64::MIN_POSITIVE, -f64::MAX, -0.0] {
        floats.multi_put(vec![(key.clone(), value)]).await.unwrap();
        assert_eq!(get(floats, std::slice::from_ref(&key)).await[0].map(f64::to_bits), Some(value.to_bits()));
    }
}

/// What JSON cannot say is refused, with all that was to be put with it.
async fn numbers_that_are_none(floats: &mut impl BackingMap<f64>) {
    let key = String::from("n");
    floats.multi_put(vec![(key.clone(), 2.0)]).await.unwrap();
    let refused =
        floats.multi_put(vec![(key.clone(), 1.0), ("other".to_owned(), f64::NAN)]).await.unwrap_err();
    assert!(refused.to_string().contains("the value of other cannot be written: it is NaN"), "{refused}");
    assert_eq!(get(floats, std::slice::from_ref(&key)).await, [Some(2.0)], "nothing was written");
}

/// A cache far smaller than the batches, between a state and its store.
async fn through_a_small_cache(map: impl BackingMap<OpaqueValue<i64>>) {
    let mut state = OpaqueMap::new(CachedMap::new(map, 7));
    for txid in 1..=10 {
        let keys = keys(txid as usize..txid as usize + 20);
        add(&mut state, txid, &keys, 1).await.unwrap();
        add(&mut state, txid, &keys, 1).await.unwrap();
    }
    let counted = add(&mut state, 11, &keys(1..30), 0).await.unwrap();
    let expected: Vec<i64> =
        (1..30).map(|key| (1..=10).filter(|t| (*t..t + 20).contains(&key)).count() as i64).collect();
    assert_eq!(counted, expected);
}

async fn all<P: Place>() {
    let Some(place) = P::begin() else { return };
    let maps = place.open().await;
    absent_keys_and_order(&mut plain(&maps, "order").await).await;
    big_batches(&mut plain(&maps, "big").await).await;
    strange_keys(&mut plain(&maps, "keys").await).await;
    values_with_null(&mut plain(&maps, "nulls").await).await;
    values_of_every_type(&mut plain(&maps, "texts").await, &mut plain(&maps, "floats").await).await;
    numbers_that_are_none(&mut plain(&maps, "floats").await).await;
    through_a_small_cache(maps.map(stratus_trident::StateKind::Opaque, "cached").await.unwrap()).await;
    reopening(&place, maps).await;
    two_partitions_and_another_count(&place).await;
    names_are_apart(&place.open().await).await;
}

async fn reopening<P: Place>(place: &P, maps: P::Maps) {
    let mut map = plain::<i64, _>(&maps, "reopened").await;
    map.multi_put(vec![("a".into(), 1)]).await.unwrap();
    drop((map, maps));
    let maps = place.open().await;
    assert_eq!(get(&mut plain::<i64, _>(&maps, "reopened").await, &texts(&["a"])).await, [Some(1)]);
    assert_eq!(get(&mut plain::<i64, _>(&maps, "big").await, &keys(9..10)).await, [Some(9)]);
}

/// Keys go to partitions as a grouping says; with another count they go elsewhere.
async fn two_partitions_and_another_count<P: Place>(place: &P) {
    let maps = place.open().await;
    let share = |partition: usize, count: usize| -> Vec<String> {
        keys(0..30)
            .into_iter()
            .enumerate()
            .filter(|(at, _)| at % count == partition)
            .map(|(_, k)| k)
            .collect()
    };
    let mut states = [opaque(&maps, "shared").await.unwrap(), opaque(&maps, "shared").await.unwrap()];
    for txid in 1..=3 {
        // Also at once: the tasks of a topology do not wait for each other within a transaction.
        let [one, two] = &mut states;
        let (shares, other) = (share(0, 2), share(1, 2));
        let (one, two) = tokio::join!(add(one, txid, &shares, 1), add(two, txid, &other, 1));
        assert_eq!((one.unwrap(), two.unwrap()), (vec![txid as i64; 15], vec![txid as i64; 15]));
    }
    drop((states, maps));
    let maps = place.open().await;
    let mut states = Vec::new();
    for _ in 0..3 {
        states.push(opaque(&maps, "shared").await.unwrap());
    }
    // The last transaction is tried again: equal is no loss of the ledger.
    for txid in [3, 4] {
        for (partition, state) in states.iter_mut().enumerate() {
            let counted = add(state, txid, &share(partition, 3), 1).await.unwrap();
            assert_eq!(counted, [txid as i64; 10]);
        }
    }
}

async fn names_are_apart(maps: &impl MapStore) {
    for (name, value) in ["", "a", "a:meta", "a}:meta", "{a}", "é🦀", "values:a"].into_iter().zip(1..) {
        plain::<i64, _>(maps, name).await.multi_put(vec![("k".into(), value)]).await.unwrap();
    }
    for (name, value) in ["", "a", "a:meta", "a}:meta", "{a}", "é🦀", "values:a"].into_iter().zip(1..) {
        let mut map = plain::<i64, _>(maps, name).await;
        assert_eq!(get(&mut map, &texts(&["k"])).await, [Some(value)], "{name}");
    }
    maps.clear("a").await.unwrap();
    maps.clear("never begun").await.unwrap();
    assert_eq!(get(&mut plain::<i64, _>(maps, "a").await, &texts(&["k"])).await, [None]);
    assert_eq!(get(&mut plain::<i64, _>(maps, "{a}").await, &texts(&["k"])).await, [Some(5)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_memory() {
    absent_keys_and_order(&mut MemoryMap::default()).await;
    absent_keys_and_order(&mut CachedMap::new(MemoryMap::default(), 1)).await;
    big_batches(&mut MemoryMap::default()).await;
    big_batches(&mut CachedMap::new(MemoryMap::default(), 5_000)).await;
    strange_keys(&mut MemoryMap::default()).await;
    values_with_null(&mut MemoryMap::default()).await;
    values_of_every_type(&mut MemoryMap::default(), &mut MemoryMap::default()).await;
    through_a_small_cache(MemoryMap::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_redb() {
    all::<File>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_redis() {
    all::<Redis>().await;
}
