//! Servers that lose what they had acknowledged: all values of a state, or the last writes.

use stratus_map_states::{MapError, MapStore, RedisMaps};
use stratus_servers::redis::Redis;
use stratus_topology::TaskError;
use stratus_trident::{
    CachedMap, MapState, NonTransactionalMap, OpaqueMap, State, StateKind, TransactionalMap,
};

use crate::stores::{Place, add, add_again, keys, opaque};

fn refused<T: std::fmt::Debug>(answer: Result<T, TaskError>) -> MapError {
    *answer.unwrap_err().downcast::<MapError>().unwrap()
}

fn is_lost(error: &MapError, name: &str) {
    assert!(matches!(error, MapError::Damaged { .. }), "{error:?}");
    let text = error.to_string();
    let gone = format!("trident:{{{name}}} is gone, deleted or evicted");
    assert!(text.contains(&gone) && text.contains("noeviction"), "{text}");
}

/// A server that forgets: what is saved by `SAVE` comes back, what is written behind it does not.
fn forgetful() -> Option<Redis> {
    Redis::start(&["--appendonly", "no"]).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_go_while_they_are_used_are_missed() {
    let Some(redis) = Redis::begin() else { return };
    let maps = redis.open().await;
    for (name, cached) in [("bare", 0), ("cached", 100)] {
        let map = maps.map(StateKind::Opaque, name).await.unwrap();
        let mut counts = OpaqueMap::<i64, _>::new(CachedMap::new(map, cached));
        let sums = format!("{name}-sums");
        let map = maps.map(StateKind::Transactional, &sums).await.unwrap();
        let mut totals = TransactionalMap::<i64, _>::new(CachedMap::new(map, cached));
        for txid in 1..=3 {
            add(&mut counts, txid, &keys(0..3), 1).await.unwrap();
            add(&mut totals, txid, &keys(0..3), 1).await.unwrap();
        }
        redis.cli(&["DEL", &format!("trident:{{{name}}}"), &format!("trident:{{{sums}}}")]).unwrap();
        // Known keys and new ones, a replay and what comes after it; and so it stays.
        for (txid, range) in [(4, 0..3), (4, 0..3), (3, 5..9), (5, 5..9), (9, 2..6)] {
            is_lost(&refused(add(&mut counts, txid, &keys(range.clone()), 1).await), name);
            is_lost(&refused(add(&mut totals, txid, &keys(range), 1).await), &sums);
        }
        // Those who look only.
        is_lost(&refused(counts.multi_get(&keys(50..51)).await), name);
        assert_eq!(redis.cli(&["EXISTS", &format!("trident:{{{name}}}")]).unwrap(), "0", "nothing is begun");
        maps.clear(name).await.unwrap();
        assert_eq!(add(&mut opaque(&maps, name).await.unwrap(), 1, &keys(0..1), 1).await.unwrap(), [1]);
    }
}

/// The values go between the reading of a transaction and its write.
#[tokio::test]
async fn values_that_go_within_a_transaction_are_missed() {
    let Some(redis) = Redis::begin() else { return };
    let maps = redis.open().await;
    let mut counts = opaque(&maps, "counts").await.unwrap();
    add(&mut counts, 1, &keys(0..3), 1).await.unwrap();
    counts.begin_commit(Some(2)).await.unwrap();
    let mut update = |at: usize, before: Option<i64>| {
        if at == 0 {
            redis.cli(&["DEL", "trident:{counts}"]).unwrap();
        }
        Ok(before.unwrap_or(0) + 1)
    };
    counts.multi_update(&keys(0..3), &mut update).await.unwrap();
    is_lost(&refused(counts.commit(Some(2)).await), "counts");
}

/// A real server that is short of memory, told to evict after it was opened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evicted_state_is_missed() {
    let Some(redis) = Redis::begin() else { return };
    let maps = redis.open().await;
    // The small key is looked at by every transaction, and the server evicts what is used least: it counts that from here.
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lfu"]).unwrap();
    let mut counts = opaque(&maps, "counts").await.unwrap();
    for txid in 1..=3 {
        add(&mut counts, txid, &keys(0..5_000), 1).await.unwrap();
    }
    let often = "for n = 1, 20000 do redis.call('HGET', KEYS[1], 'txid') end";
    redis.cli(&["EVAL", often, "1", "trident:{counts}:meta"]).unwrap();
    let memory = redis.cli(&["INFO", "memory"]).unwrap();
    let used = memory.lines().find_map(|line| line.trim_end().strip_prefix("used_memory:")).unwrap();
    let less = used.parse::<u64>().unwrap() - 100_000;
    redis.cli(&["CONFIG", "SET", "maxmemory", &less.to_string()]).unwrap();
    assert_eq!(redis.cli(&["EXISTS", "trident:{counts}"]).unwrap(), "0", "it was to be evicted");
    assert_eq!(redis.cli(&["EXISTS", "trident:{counts}:meta"]).unwrap(), "1", "and this was not");
    is_lost(&refused(add(&mut counts, 4, &keys(0..3), 1).await), "counts");
}

#[tokio::test]
async fn a_server_that_evicts_is_not_used() {
    let Some(redis) = Redis::start(&["--maxmemory-policy", "allkeys-lru"]).unwrap() else { return };
    let error = RedisMaps::open(redis.url()).await.unwrap_err();
    assert!(matches!(error, MapError::Unsuitable { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("allkeys-lru") && text.contains("CONFIG SET maxmemory-policy noeviction"),
        "{text}"
    );
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).unwrap();
    RedisMaps::open(redis.url()).await.unwrap();
}

/// A state without txids has none to compare its values with: nothing is promised of it.
#[tokio::test]
async fn a_state_without_a_promise_begins_anew() {
    let Some(redis) = Redis::begin() else { return };
    let maps = redis.open().await;
    let map = maps.map(StateKind::NonTransactional, "plain").await.unwrap();
    let mut plain = NonTransactionalMap::<i64, _>::new(map);
    assert_eq!(add(&mut plain, 7, &keys(0..1), 5).await.unwrap(), [5]);
    redis.cli(&["DEL", "trident:{plain}"]).unwrap();
    assert_eq!(add(&mut plain, 8, &keys(0..1), 1).await.unwrap(), [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgets_is_seen() {
    let Some(mut redis) = forgetful() else { return };
    let maps = redis.open().await;
    let map = maps.map(StateKind::Opaque, "counts").await.unwrap();
    let mut state = OpaqueMap::<i64, _>::new(CachedMap::new(map, 100));
    for txid in 1..=3 {
        add(&mut state, txid, &keys(0..1), 1).await.unwrap();
        if txid == 2 {
            redis.cli(&["SAVE"]).unwrap();
        }
    }
    redis.restart().unwrap();
    let error = refused(add_again(&mut state, 4, &keys(0..1), 1).await);
    assert!(matches!(error, MapError::WentBack { acknowledged: 3, found: 2, .. }), "{error}");
    assert!(error.to_string().contains("appendfsync always"), "{error}");
}

/// What one task's lost write shows, another task's next write does not hide.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_of_one_task_stops_the_others() {
    let Some(mut redis) = forgetful() else { return };
    let maps = redis.open().await;
    let mut one = opaque(&maps, "counts").await.unwrap();
    let mut two = opaque(&maps, "counts").await.unwrap();
    for txid in 1..=6 {
        add(&mut one, txid, &keys(0..1), 1).await.unwrap();
        add(&mut two, txid, &keys(1..2), 1).await.unwrap();
    }
    redis.cli(&["SAVE"]).unwrap();
    // Of this transaction there is nothing for the second task.
    add(&mut one, 7, &keys(0..1), 1).await.unwrap();
    redis.restart().unwrap();
    for _ in 0..3 {
        for (task, range) in [(&mut two, 1..2), (&mut one, 0..1)] {
            let error = refused(add_again(task, 8, &keys(range), 1).await);
            assert!(matches!(error, MapError::WentBack { acknowledged: 13, found: 12, .. }), "{error}");
        }
    }
    assert_eq!(redis.cli(&["HGET", "trident:{counts}:meta", "txid"]).unwrap(), "6");
    // A task that is started later is no way around it; to clear the state is.
    let mut three = opaque(&maps, "counts").await.unwrap();
    let error = refused(add_again(&mut three, 8, &keys(2..3), 1).await);
    assert!(matches!(error, MapError::WentBack { .. }), "{error}");
    maps.clear("counts").await.unwrap();
    let mut anew = opaque(&maps, "counts").await.unwrap();
    assert_eq!(add_again(&mut anew, 1, &keys(0..1), 1).await.unwrap(), [1]);
    let error = refused(add_again(&mut one, 8, &keys(0..1), 1).await);
    assert!(matches!(error, MapError::Cleared { .. }), "{error}");
}

/// The last task's write of a transaction is lost, and the first one's is there: the txid is the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_within_a_transaction_is_seen() {
    let Some(mut redis) = forgetful() else { return };
    let maps = redis.open().await;
    let mut one = opaque(&maps, "counts").await.unwrap();
    let mut two = opaque(&maps, "counts").await.unwrap();
    add(&mut one, 7, &keys(0..1), 1).await.unwrap();
    redis.cli(&["SAVE"]).unwrap();
    add(&mut two, 7, &keys(1..2), 1).await.unwrap();
    redis.restart().unwrap();
    for (task, range) in [(&mut one, 0..1), (&mut two, 1..2)] {
        let error = refused(add_again(task, 8, &keys(range), 1).await);
        assert!(matches!(error, MapError::WentBack { acknowledged: 2, found: 1, .. }), "{error}");
    }
}

/// The loss comes between the beginning of another task's transaction and its write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_over_a_loss_is_refused() {
    let Some(redis) = Redis::begin() else { return };
    let maps = redis.open().await;
    let mut one = opaque(&maps, "counts").await.unwrap();
    let mut two = opaque(&maps, "counts").await.unwrap();
    add(&mut one, 6, &keys(0..2), 1).await.unwrap();
    two.begin_commit(Some(7)).await.unwrap();
    add(&mut one, 7, &keys(0..1), 1).await.unwrap();
    // As a master that takes the place of one that was ahead.
    redis.cli(&["HSET", "trident:{counts}:meta", "txid", "6", "writes", "1"]).unwrap();
    let mut one_more = |_: usize, before: Option<i64>| Ok(before.unwrap_or(0) + 1);
    two.multi_update(&keys(1..2), &mut one_more).await.unwrap();
    let error = refused(two.commit(Some(7)).await);
    assert!(matches!(error, MapError::WentBack { acknowledged: 2, found: 1, .. }), "{error}");
    assert_eq!(redis.cli(&["HGET", "trident:{counts}", "[\"k1\"]"]).unwrap(), "[6,1]");
}

/// Tasks that write at once are not taken for a loss: what one is acknowledged another's answer may not yet know of.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tasks_at_once_are_no_loss() {
    let Some(redis) = Redis::begin() else { return };
    let maps = redis.open().await;
    for txid in 1..=40 {
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let maps = maps.clone();
                tokio::spawn(async move {
                    let mut state = opaque(&maps, "counts").await.unwrap();
                    add(&mut state, txid, &keys(task..task + 1), 1).await.unwrap()
                })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), [txid as i64]);
        }
    }
    assert_eq!(redis.cli(&["HGET", "trident:{counts}:meta", "writes"]).unwrap(), "320");
}

/// Another process clears the state, and what is begun then comes up to where this one was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_another_process_cleared_is_seen() {
    let Some(redis) = Redis::begin() else { return };
    let (maps, others) = (redis.open().await, redis.open().await);
    let map = maps.map(StateKind::Opaque, "counts").await.unwrap();
    let mut state = OpaqueMap::<i64, _>::new(CachedMap::new(map, 100));
    for txid in 1..=3 {
        add(&mut state, txid, &keys(0..2), 1).await.unwrap();
    }
    others.clear("counts").await.unwrap();
    let mut anew = opaque(&others, "counts").await.unwrap();
    add(&mut anew, 1, &keys(0..1), 1).await.unwrap();
    for txid in 2..=4 {
        let error = refused(add(&mut state, 4, &keys(0..1), 1).await);
        assert!(matches!(error, MapError::WentBack { acknowledged: 3, found: 1, .. }), "{error}");
        add(&mut anew, txid, &keys(0..1), 1).await.unwrap();
    }
    assert_eq!(redis.cli(&["HGET", "trident:{counts}", "[\"k0\"]"]).unwrap(), "[4,4,3]");
}
