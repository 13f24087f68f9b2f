//! Two ingesters of one source: exactly one goes on.

use std::sync::Arc;

use stratus_lake::{Lake, LakeError, MasterDataset, SourceTables};
use stratus_seam::offsets::OffsetVector;
use tokio::sync::Barrier;

use crate::samples::{at, events, letter, positions, source};

fn local() -> (tempfile::TempDir, Lake) {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(&dir.path().join("a lake").display().to_string()).unwrap();
    (dir, lake)
}

/// Appends batches of `size` records, each third one bad, until `end`; the number of batches that got in.
async fn ingest(mut tables: SourceTables, size: u64, end: u64) -> (u64, Result<(), LakeError>) {
    let mut batches = 0;
    loop {
        let from = tables.absorbed();
        let start = from.get(0);
        if start >= end {
            return (batches, Ok(()));
        }
        let range = start..(start + size).min(end);
        let bad = range.clone().filter(|offset| offset % 3 == 1).map(|offset| letter(0, offset)).collect();
        let good = events(0, range.clone().filter(|offset| offset % 3 != 1));
        match tables.append(&from, &at([(0, range.end)]), vec![good], bad).await {
            Ok(()) => batches += 1,
            Err(error) => return (batches, Err(error)),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_that_race_exactly_one_goes_on() {
    for round in 0..6u64 {
        let (_dir, lake) = local();
        let source = source();
        let one = SourceTables::open(&lake, &source).await.unwrap();
        let two = SourceTables::open(&lake, &source).await.unwrap();
        let one = tokio::spawn(ingest(one, 3 + round, 60));
        let two = tokio::spawn(ingest(two, 4, 60));
        let (one, two) = (one.await.unwrap(), two.await.unwrap());
        let stopped: Vec<_> = [&one.1, &two.1].into_iter().filter_map(|end| end.as_ref().err()).collect();
        assert_eq!(stopped.len(), 1, "{one:?} {two:?}");
        assert!(matches!(stopped[0], LakeError::Superseded { .. }), "{stopped:?}");
        assert!(stopped[0].to_string().starts_with("another ingester has written the master dataset"));
        let master = MasterDataset::open(&lake, &source).await.unwrap();
        let good: Vec<_> = (0..60).filter(|offset| offset % 3 != 1).map(|offset| (0, offset)).collect();
        let bad: Vec<_> = (0..60).filter(|offset| offset % 3 == 1).map(|offset| (0, offset)).collect();
        assert_eq!(positions(master.snapshot().await.unwrap().events()).await, good);
        assert_eq!(positions(master.dead_letters().await.unwrap()).await, bad);
    }
}

/// Every layer opens a new source's tables in the same moment, each in a process of its own: the tables are made once.
/// A second version made by a late one would end the ingester that had read the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tables_are_made_once_whoever_comes_at_the_same_time() {
    for _ in 0..20 {
        let (dir, _) = local();
        let source = source();
        let start = Arc::new(Barrier::new(4));
        let open = |_| {
            let (path, source) = (dir.path().join("a lake").display().to_string(), source.clone());
            let start = Arc::clone(&start);
            tokio::spawn(async move {
                let lake = Lake::open(&path).unwrap();
                start.wait().await;
                SourceTables::open(&lake, &source).await.unwrap()
            })
        };
        let mut opened = futures::future::try_join_all((0..4).map(open)).await.unwrap();
        for table in ["events", "dead_letters"] {
            let log = dir.path().join(format!("a lake/sources/{}/{table}/_delta_log", source.id));
            let commits = std::fs::read_dir(log).unwrap().map(|file| file.unwrap().file_name());
            let commits: Vec<_> = commits.filter(|name| name.to_string_lossy().ends_with(".json")).collect();
            assert_eq!(commits.len(), 1, "{table}: {commits:?}");
        }
        let mut first = opened.remove(0);
        first.append(&at([]), &at([(0, 4)]), vec![events(0, 0..4)], Vec::new()).await.unwrap();
    }
}

#[tokio::test]
async fn a_zombie_is_refused_and_stays_so() {
    let (_dir, lake) = local();
    let source = source();
    let mut zombie = SourceTables::open(&lake, &source).await.unwrap();
    let mut tables = SourceTables::open(&lake, &source).await.unwrap();
    tables.append(&at([]), &at([(0, 4)]), vec![events(0, 0..4)], Vec::new()).await.unwrap();
    tables.append(&at([(0, 4)]), &at([(0, 6)]), vec![events(0, 4..6)], Vec::new()).await.unwrap();

    let refused = zombie.append(&at([]), &at([(0, 4)]), vec![events(0, 0..4)], Vec::new()).await;
    assert!(matches!(refused, Err(LakeError::Superseded { version: 1, .. })), "{refused:?}");
    let refused = zombie.append(&at([]), &at([(0, 4)]), vec![events(0, 0..4)], Vec::new()).await;
    assert!(matches!(refused, Err(LakeError::Invalid(_))), "{refused:?}");

    // One that reads anew knows better, and the same or a lower range is still refused.
    let mut zombie = SourceTables::open(&lake, &source).await.unwrap();
    assert_eq!(zombie.absorbed(), at([(0, 6)]));
    for (from, to) in [(4, 6), (0, 4), (5, 9), (7, 9)] {
        let batch = vec![events(0, from..to)];
        let refused = zombie.append(&at([(0, from)]), &at([(0, to)]), batch, Vec::new()).await;
        assert!(matches!(refused, Err(LakeError::OutOfStep { .. })), "{refused:?}");
    }
    // A refusal before anything was written leaves the writer as it was.
    zombie.append(&at([(0, 6)]), &at([(0, 8)]), vec![events(0, 6..8)], Vec::new()).await.unwrap();
    let master = MasterDataset::open(&lake, &source).await.unwrap();
    let all: Vec<_> = (0..8).map(|offset| (0, offset)).collect();
    assert_eq!(positions(master.snapshot().await.unwrap().events()).await, all);
}

#[tokio::test]
async fn a_range_without_events_is_absorbed_and_every_partition_keeps_its_entry() {
    let (_dir, lake) = local();
    let mut source = source();
    source.start = at([(1, 10)]);
    let mut tables = SourceTables::open(&lake, &source).await.unwrap();
    assert_eq!(tables.absorbed(), at([(1, 10)]));
    let steps: [OffsetVector; 3] =
        [at([(0, 5), (1, 10)]), at([(0, 5), (1, 17)]), at([(0, 5), (1, 17), (2, 1)])];
    for to in &steps {
        let from = tables.absorbed();
        let bad = if to.get(2) == 1 { vec![letter(2, 0)] } else { Vec::new() };
        tables.append(&from, to, Vec::new(), bad).await.unwrap();
        assert_eq!(SourceTables::open(&lake, &source).await.unwrap().absorbed(), *to);
    }
    let end = tables.absorbed();
    tables.append(&end, &end, Vec::new(), Vec::new()).await.unwrap();
    let master = MasterDataset::open(&lake, &source).await.unwrap();
    assert_eq!(master.absorbed().await.unwrap(), end);
    assert_eq!(positions(master.dead_letters().await.unwrap()).await, [(2, 0)]);
}

#[tokio::test]
async fn rows_that_are_not_in_the_range_are_refused() {
    let lake = Lake::open("memory://").unwrap();
    let mut tables = SourceTables::open(&lake, &source()).await.unwrap();
    let (from, to) = (at([]), at([(0, 4)]));
    for batches in [
        vec![events(0, [4])],
        vec![events(1, [0])],
        vec![events(0, [1, 1])],
        vec![events(0, [2]), events(0, [1])],
        vec![events(0, [0]).project(&[0, 1, 2]).unwrap()],
    ] {
        let refused = tables.append(&from, &to, batches, Vec::new()).await;
        assert!(matches!(refused, Err(LakeError::Invalid(_))), "{refused:?}");
    }
    let refused = tables.append(&from, &to, Vec::new(), vec![letter(0, 9)]).await;
    assert!(matches!(refused, Err(LakeError::Invalid(_))), "{refused:?}");
    tables.append(&from, &to, vec![events(0, [0, 3])], vec![letter(0, 1)]).await.unwrap();
}

#[tokio::test]
async fn a_table_of_another_source_is_not_touched() {
    let (_dir, lake) = local();
    let first = source();
    SourceTables::open(&lake, &first).await.unwrap();
    let mut other = first.clone();
    other.columns.pop();
    let refused = SourceTables::open(&lake, &other).await.unwrap_err();
    assert!(matches!(refused, LakeError::Damaged { .. }), "{refused}");
    assert!(refused.to_string().contains("n long"), "{refused}");
}
