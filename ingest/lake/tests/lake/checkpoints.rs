//! Entries outlive checkpoints, the cleaning of the log, and commits of other tools.

use std::sync::Arc;

use deltalake::kernel::EagerSnapshot;
use deltalake::{DeltaTable, DeltaTableBuilder, checkpoints};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;
use stratus_lake::{Lake, LakeError, MasterDataset, SourceTables};
use stratus_seam::catalog::Source;
use url::Url;

use crate::samples::{at, events, letter, positions, source};

fn delta(memory: &Arc<InMemory>, source: &Source, table: &str) -> DeltaTable {
    let url = Url::parse(&format!("memory:///sources/{}/{table}/", source.id)).unwrap();
    let store: Arc<dyn ObjectStore> = Arc::clone(memory) as _;
    DeltaTableBuilder::from_url(url.clone()).unwrap().with_storage_backend(store, url).build().unwrap()
}

async fn append(tables: &mut SourceTables, count: u64) {
    for _ in 0..count {
        let from = tables.absorbed();
        let (a, b) = (from.get(0), from.get(5));
        let to = at([(0, a + 2), (5, b + 1), (1, 1)]);
        tables.append(&from, &to, vec![events(0, [a])], vec![letter(5, b)]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_outlive_checkpoints_and_cleaning() {
    let memory = Arc::new(InMemory::new());
    let source = source();
    let lake = Lake::over(Arc::clone(&memory) as _).unwrap();
    let mut tables = SourceTables::open(&lake, &source).await.unwrap();
    let early = MasterDataset::open(&lake, &source).await.unwrap();
    assert_eq!(early.absorbed().await.unwrap(), at([]));
    append(&mut tables, 110).await;
    tables.settle().await;
    let end = at([(0, 220), (1, 1), (5, 110)]);

    let log = Path::from(format!("sources/{}/events/_delta_log", source.id));
    let count = async |ends: &str| -> usize {
        let files: Vec<_> = memory.list(Some(&log)).try_collect().await.unwrap();
        files.iter().filter(|file| file.location.as_ref().ends_with(ends)).count()
    };
    assert_eq!(
        count(".checkpoint.parquet").await,
        2,
        "{:?}",
        memory.list(Some(&log)).try_collect::<Vec<_>>().await
    );
    // As if the week had passed that the log is kept for.
    for table in ["events", "dead_letters"] {
        let store = delta(&memory, &source, table).log_store();
        let cleaned = checkpoints::cleanup_expired_logs_for(110, store.as_ref(), i64::MAX / 2, None).await;
        assert!(cleaned.unwrap() >= 50);
    }
    assert_eq!(count(".json").await, 11);

    let again = Lake::over(Arc::clone(&memory) as _).unwrap();
    assert_eq!(SourceTables::open(&again, &source).await.unwrap().absorbed(), end);
    // Another tool's commit carries no entries; they are found all the same.
    let mut other = delta(&memory, &source, "events");
    other.load().await.unwrap();
    let properties = [("delta.dataSkippingNumIndexedCols".to_owned(), "3".to_owned())].into();
    let other = other.set_tbl_properties().with_properties(properties).await.unwrap();
    assert_eq!(other.version(), Some(111));
    let mut reopened = SourceTables::open(&again, &source).await.unwrap();
    assert_eq!(reopened.absorbed(), end);
    let stopped = tables.append(&end, &at([(0, 221), (1, 1), (5, 110)]), Vec::new(), Vec::new()).await;
    assert!(matches!(stopped, Err(LakeError::Superseded { version: 111, .. })), "{stopped:?}");
    append(&mut reopened, 1).await;

    let good: Vec<_> = (0..111).map(|i| (0, i * 2)).collect();
    let bad: Vec<_> = (0..111).map(|i| (5, i)).collect();
    for master in [early, MasterDataset::open(&again, &source).await.unwrap()] {
        assert_eq!(master.absorbed().await.unwrap(), at([(0, 222), (1, 1), (5, 111)]));
        assert_eq!(positions(master.snapshot().await.unwrap().events()).await, good);
        assert_eq!(positions(master.dead_letters().await.unwrap()).await, bad);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_without_entries_are_not_ingested_on_top_of() {
    let memory = Arc::new(InMemory::new());
    let source = source();
    let lake = Lake::over(Arc::clone(&memory) as _).unwrap();
    SourceTables::open(&lake, &source).await.unwrap();
    let mut other = delta(&memory, &source, "events");
    other.load().await.unwrap();
    other.write(vec![events(0, [0, 1])]).await.unwrap();
    let refused = SourceTables::open(&lake, &source).await.unwrap_err();
    assert!(matches!(refused, LakeError::Damaged { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_fails_costs_nothing_but_time() {
    let memory = Arc::new(InMemory::new());
    let source = source();
    let store = crate::faults::FaultyStore::over(&memory);
    let lake = Lake::over(Arc::new(store.clone())).unwrap();
    let mut tables = SourceTables::open(&lake, &source).await.unwrap();
    append(&mut tables, 49).await;
    tables.settle().await;
    store.strike("checkpoint", 0, crate::faults::Fault::AnswerLost);
    append(&mut tables, 8).await;
    tables.settle().await;
    let reopened = SourceTables::open(&lake, &source).await.unwrap();
    assert_eq!(reopened.absorbed(), at([(0, 114), (1, 1), (5, 57)]));
    let table = delta(&memory, &source, "events");
    let snapshot = EagerSnapshot::try_new(table.log_store().as_ref(), None).await.unwrap();
    assert_eq!(snapshot.version(), 57);
}
