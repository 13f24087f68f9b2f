//! The conformance suite over every store, bare and behind a quiet network.

use std::sync::Arc;

use stratus_seam::ids::{Attempt, Generation, SourceId, Token, ViewId};
use stratus_seam::shard::{Change, Scope, ShardCommit, Verdict};
use stratus_seam::store::{StateStore, StoreError};
use stratus_state::conformance;
use stratus_state::faults::{Fault, FaultyStore};
use stratus_state::memory::MemoryStore;
use stratus_state::redb::{OpenError, RedbStore};

#[tokio::test]
async fn memory_keeps_the_promises() {
    conformance::run_all(|| async { Arc::new(MemoryStore::new()) as Arc<dyn StateStore> }).await;
}

#[tokio::test]
async fn redb_keeps_the_promises() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn StateStore> = Arc::new(RedbStore::open(folder.path().join("state.redb")).unwrap());
    conformance::run_all(|| async { store.clone() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redb_keeps_them_on_several_threads() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn StateStore> = Arc::new(RedbStore::open(folder.path().join("state.redb")).unwrap());
    let runs = (0..4).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { conformance::run_all(|| async { store.clone() }).await })
    });
    for run in runs.collect::<Vec<_>>() {
        run.await.unwrap();
    }
}

#[tokio::test]
async fn a_faulty_store_without_faults_is_the_store() {
    let quiet = |_: &_| Fault::None;
    let make = || async {
        Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()), Box::new(quiet))) as Arc<dyn StateStore>
    };
    conformance::run_all(make).await;
}

#[test]
fn a_file_in_use_is_named_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/folders/state.redb");
    let first = RedbStore::open(&path).unwrap();
    let error = RedbStore::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::InUse(_)));
    assert!(error.to_string().contains("in use by another process"), "{error}");
    drop(first);
    RedbStore::open(&path).unwrap();
}

#[test]
fn an_unreadable_file_may_be_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    for bytes in [b"not a database".to_vec(), vec![0; 5000], vec![7; 100_000]] {
        std::fs::write(&path, bytes).unwrap();
        let error = RedbStore::open(&path).unwrap_err();
        assert!(matches!(error, OpenError::Unreadable { .. }), "{error:?}");
        assert!(error.to_string().contains("delete the file"), "{error}");
    }
    std::fs::remove_file(&path).unwrap();
    RedbStore::open(&path).unwrap();
    let error = RedbStore::open(folder.path()).unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
}

/// More than the contract asks: a commit that rests on a state which the store does not hold is given up as a whole,
/// and does no harm to others that share its transaction.
#[tokio::test]
async fn a_commit_that_rests_on_another_state_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let redb = RedbStore::open(folder.path().join("state.redb")).unwrap();
    let stores: [Arc<dyn StateStore>; 2] = [Arc::new(MemoryStore::new()), Arc::new(redb)];
    for store in stores {
        let shards = store.source(SourceId::new()).await.unwrap().shards;
        let (generation, token, attempt) = (Generation::new(), Token::after(0), Attempt::new());
        let scope = Scope { view: ViewId::new(), epoch: 1 };
        let commit = |shard, key: &str, before: Option<&str>| {
            let set = |key: &str, before: Option<&str>| Change {
                scope,
                key: key.into(),
                before: before.map(str::to_owned),
                after: "new".into(),
            };
            let changes = vec![set("first", None), set(key, before)];
            ShardCommit { shard, generation, token, txid: 1, attempt, changes }
        };
        for shard in 0..3 {
            assert!(shards.claim(shard, None, generation, token).await.unwrap());
        }
        let commits = [commit(0, "a", None), commit(1, "a", Some("old")), commit(2, "first", None)];
        let [fits, other, twice] = &commits;
        let done = tokio::join!(shards.commit(fits), shards.commit(other), shards.commit(twice));
        assert_eq!(done.0.unwrap(), Ok(Verdict::Apply));
        for (shard, error) in [(1, done.1.unwrap_err()), (2, done.2.unwrap_err())] {
            assert!(
                matches!(&error, StoreError::Damaged(text) if text.contains("another state of key")),
                "{error}"
            );
            let (meta, found) = shards.meta(shard).await.unwrap().unwrap();
            assert_eq!((meta.txid, meta.rows.len(), found.len()), (0, 0, 0));
        }
        assert_eq!(shards.get(0, scope, &["a".into()]).await.unwrap(), [Some("new".into())]);
    }
}
