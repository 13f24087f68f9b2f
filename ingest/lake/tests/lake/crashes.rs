//! Each record once: the ingester is killed at any put, the batches of its next life end elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::memory::InMemory;
use proptest::prelude::*;
use stratus_lake::{Lake, LakeError, MasterDataset, SourceTables};
use stratus_seam::catalog::Source;
use stratus_seam::offsets::OffsetVector;

use crate::faults::{Fault, FaultyStore};
use crate::samples::{at, events, letter, positions, source};

/// Two partitions of records, of which some are bad. Offsets have holes.
#[derive(Debug, Clone)]
struct Records {
    bad: [Vec<bool>; 2],
}

fn offset(index: usize) -> u64 {
    index as u64 * 3
}

impl Records {
    fn all(&self) -> impl Iterator<Item = (u32, u64, bool)> + '_ {
        (0u32..).zip(&self.bad).flat_map(|(partition, bad)| {
            bad.iter().enumerate().map(move |(i, bad)| (partition, offset(i), *bad))
        })
    }

    fn end(&self) -> OffsetVector {
        (0u32..).zip(&self.bad).map(|(partition, bad)| (partition, offset(bad.len()))).collect()
    }

    fn positions(&self, bad: bool) -> Vec<(u32, u64)> {
        self.all()
            .filter(|record| record.2 == bad)
            .map(|(partition, offset, _)| (partition, offset))
            .collect()
    }
}

/// One life of an ingester: the sizes of its batches, taken in turn, and where it dies.
#[derive(Debug, Clone)]
struct Life {
    steps: Vec<[u64; 2]>,
    dies: (usize, Fault),
}

async fn live(lake: &Lake, source: &Source, records: &Records, steps: &[[u64; 2]]) -> Result<(), LakeError> {
    let mut tables = SourceTables::open(lake, source).await?;
    let end = records.end();
    for step in steps.iter().cycle().take(200) {
        let from = tables.absorbed();
        if from == end {
            break;
        }
        let to: OffsetVector = (0u32..)
            .zip(step)
            .map(|(partition, step)| (partition, (from.get(partition) + step).min(end.get(partition))))
            .collect();
        let in_batch =
            |partition: &u32, offset: &u64| from.get(*partition) <= *offset && *offset < to.get(*partition);
        let mut good: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        let mut bad = Vec::new();
        for (partition, offset, is_bad) in records.all().filter(|(p, o, _)| in_batch(p, o)) {
            if is_bad {
                bad.push(letter(partition, offset));
            } else {
                good.entry(partition).or_default().push(offset);
            }
        }
        let batches = good.into_iter().map(|(partition, offsets)| events(partition, offsets)).collect();
        tables.append(&from, &to, batches, bad).await?;
    }
    tables.settle().await;
    Ok(())
}

async fn each_record_is_there_once(records: Records, lives: Vec<Life>) {
    let memory = Arc::new(InMemory::new());
    let source = source();
    for life in &lives {
        let store = FaultyStore::over(&memory);
        store.strike("", life.dies.0, life.dies.1);
        let lake = Lake::over(Arc::new(store)).unwrap();
        // Dead or not: the next life finds out what became of it.
        let _ = live(&lake, &source, &records, &life.steps).await;
    }
    let lake = Lake::over(Arc::new(FaultyStore::over(&memory))).unwrap();
    live(&lake, &source, &records, &[[7, 4]]).await.unwrap();
    let master = MasterDataset::open(&lake, &source).await.unwrap();
    assert_eq!(master.absorbed().await.unwrap(), records.end());
    let found = positions(master.snapshot().await.unwrap().events()).await;
    assert_eq!(found, records.positions(false));
    assert_eq!(positions(master.dead_letters().await.unwrap()).await, records.positions(true));
}

fn lives() -> impl Strategy<Value = Vec<Life>> {
    let fault = prop_oneof![Just(Fault::AnswerLost), Just(Fault::DiesBefore), Just(Fault::DiesAfter)];
    let life = (proptest::collection::vec([0..9u64, 1..9u64], 1..4), (0..14usize, fault))
        .prop_map(|(steps, dies)| Life { steps, dies });
    proptest::collection::vec(life, 0..5)
}

fn records() -> impl Strategy<Value = Records> {
    let bad = || proptest::collection::vec(prop::bool::weighted(0.4), 0..8);
    [bad(), bad()].prop_map(|bad| Records { bad })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_crashes_each_record_is_there_once(records in records(), lives in lives()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(each_record_is_there_once(records, lives));
    }
}

#[tokio::test]
async fn dead_letters_whose_events_were_not_committed_are_not_written_again() {
    for resumed in [2, 5, 9] {
        let memory = Arc::new(InMemory::new());
        let source = source();
        let store = FaultyStore::over(&memory);
        let lake = Lake::over(Arc::new(store.clone())).unwrap();
        let mut tables = SourceTables::open(&lake, &source).await.unwrap();
        // The commit of the dead letters arrives, that of the events does not.
        store.strike("events/_delta_log", 0, Fault::DiesBefore);
        let bad = |range: std::ops::Range<u64>| {
            range.filter(|offset| offset % 2 == 1).map(|offset| letter(0, offset)).collect::<Vec<_>>()
        };
        let good = |range: std::ops::Range<u64>| vec![events(0, range.filter(|offset| offset % 2 == 0))];
        let died = tables.append(&at([]), &at([(0, 6)]), good(0..6), bad(0..6)).await;
        assert!(matches!(died, Err(LakeError::Unavailable { .. })), "{died:?}");
        let again = tables.append(&at([]), &at([(0, 6)]), good(0..6), bad(0..6)).await;
        assert!(matches!(again, Err(LakeError::Invalid(_))), "{again:?}");

        let lake = Lake::over(Arc::new(FaultyStore::over(&memory))).unwrap();
        let master = MasterDataset::open(&lake, &source).await.unwrap();
        assert_eq!(positions(master.dead_letters().await.unwrap()).await, [(0, 1), (0, 3), (0, 5)]);
        let mut tables = SourceTables::open(&lake, &source).await.unwrap();
        assert_eq!(tables.absorbed(), at([]));
        let middle = at([(0, resumed)]);
        tables.append(&at([]), &middle, good(0..resumed), bad(0..resumed)).await.unwrap();
        tables.append(&middle, &at([(0, 12)]), good(resumed..12), bad(resumed..12)).await.unwrap();
        let odd: Vec<(u32, u64)> = (0..6).map(|i| (0, i * 2 + 1)).collect();
        assert_eq!(positions(master.dead_letters().await.unwrap()).await, odd);
        let even: Vec<(u32, u64)> = (0..6).map(|i| (0, i * 2)).collect();
        assert_eq!(positions(master.snapshot().await.unwrap().events()).await, even);
    }
}

#[tokio::test]
async fn a_lost_answer_is_settled_by_who_stands_under_the_number() {
    for of in ["events/_delta_log", "dead_letters/_delta_log"] {
        let memory = Arc::new(InMemory::new());
        let source = source();
        let store = FaultyStore::over(&memory);
        let lake = Lake::over(Arc::new(store.clone())).unwrap();
        let mut tables = SourceTables::open(&lake, &source).await.unwrap();
        store.strike(of, 0, Fault::AnswerLost);
        tables.append(&at([]), &at([(0, 3)]), vec![events(0, [0, 2])], vec![letter(0, 1)]).await.unwrap();
        tables.append(&at([(0, 3)]), &at([(0, 4)]), vec![events(0, [3])], Vec::new()).await.unwrap();
        let master = MasterDataset::open(&lake, &source).await.unwrap();
        assert_eq!(positions(master.snapshot().await.unwrap().events()).await, [(0, 0), (0, 2), (0, 3)]);
        assert_eq!(positions(master.dead_letters().await.unwrap()).await, [(0, 1)]);
    }
}
