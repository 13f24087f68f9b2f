//! What only a server can do wrong.

use std::time::{Duration, Instant};

use stratus_map_states::{MapError, MapStore, RedisMaps};
use stratus_servers::redis::Redis;
use stratus_trident::{
    BackingMap, CachedMap, MapState, OpaqueMap, OpaqueValue, State, StateKind, TransactionalMap,
};

use crate::stores::{Place, add, add_again, keys, opaque, plain};

async fn impatient(redis: &Redis) -> RedisMaps {
    RedisMaps::open(&format!("{}?timeout_ms=700", redis.url())).await.unwrap()
}

/// Others read what docs/trident.md says.
#[tokio::test]
async fn others_can_read_it() {
    let Some(redis) = Redis::begin() else { return };
    let maps = redis.open().await;
    let mut state = opaque(&maps, "counts").await.unwrap();
    assert_eq!(redis.cli(&["HGETALL", "trident:{counts}:meta"]).unwrap(), "layout\n1\nkind\nopaque");
    add(&mut state, 1, &keys(0..1), 2).await.unwrap();
    assert_eq!(redis.cli(&["HGET", "trident:{counts}", "[\"k0\"]"]).unwrap(), "[1,2]");
    add(&mut state, 12, &keys(0..1), 3).await.unwrap();
    assert_eq!(redis.cli(&["HGETALL", "trident:{counts}"]).unwrap(), "[\"k0\"]\n[12,5,2]");
    assert_eq!(redis.cli(&["HGET", "trident:{counts}:meta", "txid"]).unwrap(), "12");
    let map = maps.map(StateKind::Transactional, "sums").await.unwrap();
    add(&mut TransactionalMap::<i64, _>::new(map), 7, &keys(0..1), 2).await.unwrap();
    assert_eq!(redis.cli(&["HGET", "trident:{sums}", "[\"k0\"]"]).unwrap(), "[7,2]");
    plain::<i64, _>(&maps, "plain").await.multi_put(vec![("k".into(), -5)]).await.unwrap();
    assert_eq!(redis.cli(&["HGET", "trident:{plain}", "k"]).unwrap(), "-5");
    assert_eq!(redis.cli(&["DBSIZE"]).unwrap(), "6");
}

#[tokio::test]
async fn a_key_of_another_type_is_told() {
    let Some(redis) = Redis::begin() else { return };
    let maps = redis.open().await;
    for key in ["trident:{a}", "trident:{a}:meta"] {
        redis.cli(&["SET", key, "1"]).unwrap();
        let error = opaque(&maps, "a").await.map(drop).unwrap_err().to_string();
        assert!(error.contains(&format!("{key} holds a string")) && error.contains("another one"), "{error}");
        redis.cli(&["DEL", key]).unwrap();
    }
    let mut state = opaque(&maps, "a").await.unwrap();
    add(&mut state, 1, &keys(0..1), 1).await.unwrap();
    redis.cli(&["DEL", "trident:{a}"]).unwrap();
    redis.cli(&["SET", "trident:{a}", "1"]).unwrap();
    let mut map = maps.map::<OpaqueValue<i64>>(StateKind::NonTransactional, "b").await.unwrap();
    redis.cli(&["SET", "trident:{b}", "1"]).unwrap();
    let reading = map.multi_get(&keys(0..1)).await.unwrap_err();
    let value = OpaqueValue::new(1, 1, None);
    let writing = map.multi_put(vec![("k".into(), value)]).await.unwrap_err();
    for error in [add(&mut state, 2, &keys(0..1), 1).await.unwrap_err(), reading, writing] {
        let error = error.downcast::<MapError>().unwrap();
        assert!(matches!(*error, MapError::Damaged { .. }), "{error:?}");
        assert!(
            error.to_string().contains("WRONGTYPE") && error.to_string().contains("another name"),
            "{error}"
        );
    }
    assert_eq!(redis.cli(&["HGET", "trident:{a}:meta", "txid"]).unwrap(), "1", "nothing was written");
}

#[tokio::test]
async fn half_of_a_state_is_not_begun_anew() {
    let Some(redis) = Redis::begin() else { return };
    let maps = redis.open().await;
    for (gone, stays) in [("trident:{a}", "trident:{a}:meta"), ("trident:{a}:meta", "trident:{a}")] {
        add(&mut opaque(&maps, "a").await.unwrap(), 3, &keys(0..1), 1).await.unwrap();
        redis.cli(&["DEL", gone]).unwrap();
        let error = opaque(&maps, "a").await.map(drop).unwrap_err().to_string();
        assert!(error.contains(&format!("{gone} is gone")) && error.contains(stays), "{error}");
        maps.clear("a").await.unwrap();
    }
    redis.cli(&["HSET", "trident:{a}:meta", "layout", "2", "kind", "opaque"]).unwrap();
    let error = opaque(&maps, "a").await.map(drop).unwrap_err().to_string();
    assert!(error.contains("layout 2, this version knows 1"), "{error}");
}

/// The put of a server that was paused may have happened, or happen while its replay is under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_after_a_pause_is_exact() {
    let Some(redis) = Redis::begin() else { return };
    let maps = impatient(&redis).await;
    let map = maps.map(StateKind::Opaque, "counts").await.unwrap();
    let mut state = OpaqueMap::<i64, _>::new(CachedMap::new(map, 100));
    let map = maps.map(StateKind::Transactional, "sums").await.unwrap();
    let mut sums = TransactionalMap::<i64, _>::new(CachedMap::new(map, 100));
    let all = keys(0..50);
    for txid in 1..=4 {
        // The server stops between the beginning of the transaction and its put.
        let mut one = |_: usize, before: Option<i64>| Ok(before.unwrap_or(0) + 1);
        state.begin_commit(Some(txid)).await.unwrap();
        sums.begin_commit(Some(txid)).await.unwrap();
        state.multi_update(&all, &mut one).await.unwrap();
        sums.multi_update(&all, &mut one).await.unwrap();
        redis.pause().unwrap();
        let began = Instant::now();
        let error = state.commit(Some(txid)).await.unwrap_err();
        assert!(error.to_string().contains("no answer in time"), "{error}");
        sums.commit(Some(txid)).await.unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
        // Not even a connection can be had.
        let error = add(&mut state, txid, &all, 1).await.unwrap_err();
        assert!(error.to_string().contains("Redis 127.0.0.1:"), "{error}");
        redis.resume().unwrap();
        assert_eq!(add_again(&mut state, txid, &all, 1).await.unwrap(), vec![txid as i64; 50]);
        assert_eq!(add_again(&mut sums, txid, &all, 1).await.unwrap(), vec![txid as i64; 50]);
    }
    assert_eq!(add_again(&mut opaque(&maps, "counts").await.unwrap(), 5, &all, 0).await.unwrap(), [4; 50]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill() {
    let Some(mut redis) = Redis::begin() else { return };
    let maps = impatient(&redis).await;
    let map = maps.map(StateKind::Opaque, "counts").await.unwrap();
    let mut state = OpaqueMap::<i64, _>::new(CachedMap::new(map, 100));
    for txid in 1..=4 {
        add_again(&mut state, txid, &keys(0..3_000), 1).await.unwrap();
        redis.kill().unwrap();
        let error = add(&mut state, txid + 1, &keys(0..1), 1).await.unwrap_err();
        assert!(error.to_string().contains("can be reached"), "{error}");
        redis.restart().unwrap();
        // The script is unknown to the new process.
        assert_eq!(add_again(&mut state, txid, &keys(0..3_000), 1).await.unwrap(), vec![txid as i64; 3_000]);
    }
    let mut state = opaque(&maps, "counts").await.unwrap();
    assert_eq!(add_again(&mut state, 5, &keys(0..3_000), 1).await.unwrap(), vec![5; 3_000]);
}

#[tokio::test]
async fn passwords_are_not_told() {
    let Some(redis) = Redis::start(&["--requirepass", "s3cret"]).unwrap() else { return };
    let port = redis.port();
    for wrong in ["", ":wr0ng@", "nobody:wr0ng@"] {
        let error = RedisMaps::open(&format!("redis://{wrong}127.0.0.1:{port}")).await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains("check user and password") && !text.contains("wr0ng"), "{text}");
    }
    let url = format!("redis://:s3cret@127.0.0.1:{port}/3?timeout_ms=20000");
    let maps = RedisMaps::open(&url).await.unwrap();
    let mut map = maps.map::<OpaqueValue<i64>>(StateKind::Opaque, "counts").await.unwrap();
    map.multi_put(vec![("k".into(), OpaqueValue::new(1, 1, None))]).await.unwrap();
    let counts = maps.opaque::<i64>("counts").cached(10);
    let shown =
        format!("{maps:?} {map:?} {counts:?} {:?} {:?}", counts.clone(), maps.transactional::<i64>("a"));
    assert!(shown.contains(&format!("127.0.0.1:{port}/3")) && !shown.contains("s3cret"), "{shown}");
    drop(redis);
    let error = map.multi_get(&["k".to_owned()]).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
}

/// The rights that a refusal names are enough. What the server says of it may name the user, not the password.
#[tokio::test]
async fn a_user_with_few_rights_is_enough() {
    let Some(redis) = Redis::begin() else { return };
    let user = ["ACL", "SETUSER", "states"];
    let rights = "on >s3cret resetkeys ~trident:* resetchannels -@all +hmget +evalsha +script|load +type +exists +hset +hincrby +info +unlink";
    redis.cli(&[&user[..], &rights.split(' ').collect::<Vec<_>>()].concat()).unwrap();
    let url = format!("redis://states:s3cret@127.0.0.1:{}", redis.port());
    let maps = RedisMaps::open(&url).await.unwrap();
    let mut state = opaque(&maps, "counts").await.unwrap();
    add(&mut state, 1, &keys(0..3), 1).await.unwrap();
    add(&mut state, 2, &keys(2..5), 1).await.unwrap();
    redis.cli(&[&user[..], &["-hmget"]].concat()).unwrap();
    let error = add(&mut state, 3, &keys(0..3), 1).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("NOPERM") && text.contains("states need HMGET"), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
    maps.clear("counts").await.unwrap();
}
