//! A real process, killed while it writes.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rand::Rng;
use stratus_lake::{Lake, MasterDataset, SourceTables};

use crate::samples::{at, events, fixed_source, letter, positions};

const PLACE: &str = "STRATUS_LAKE_OF_THE_KILLED";

/// Not a test of its own, and over at once without a place: what the killed process does. Each third record is bad;
/// batches have random ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ingests_until_it_is_killed() {
    let Ok(place) = std::env::var(PLACE) else { return };
    let lake = Lake::open(&place).unwrap();
    let mut tables = SourceTables::open(&lake, &fixed_source()).await.unwrap();
    loop {
        let from = tables.absorbed();
        let start = from.get(0);
        let range = start..start + rand::rng().random_range(1..9u64);
        let bad = range.clone().filter(|offset| offset % 3 == 1).map(|offset| letter(0, offset)).collect();
        let good = events(0, range.clone().filter(|offset| offset % 3 != 1));
        tables.append(&from, &at([(0, range.end)]), vec![good], bad).await.unwrap();
    }
}

/// Waits until more has been absorbed.
async fn until_beyond(place: &str, seen: u64) {
    let began = Instant::now();
    let master = MasterDataset::open(&Lake::open(place).unwrap(), &fixed_source()).await.unwrap();
    while master.absorbed().await.unwrap().get(0) <= seen {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing is absorbed beyond {seen}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_leaves_each_record_once() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().display().to_string();
    let mut seen = 0;
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kills::ingests_until_it_is_killed"])
            .env(PLACE, &place)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let patience = Duration::from_millis(400 + rand::rng().random_range(0..200));
        tokio::time::sleep(patience).await;
        if round >= 3 {
            // These get as far as a commit, however slow the machine is.
            until_beyond(&place, seen).await;
            tokio::time::sleep(Duration::from_millis(rand::rng().random_range(0..200))).await;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let lake = Lake::open(&place).unwrap();
        let master = MasterDataset::open(&lake, &fixed_source()).await.unwrap();
        let absorbed = master.absorbed().await.unwrap().get(0);
        assert!(absorbed >= seen, "round {round}: {absorbed} after {seen}");
        seen = absorbed;
        let good: Vec<_> = (0..absorbed).filter(|offset| offset % 3 != 1).map(|offset| (0, offset)).collect();
        assert_eq!(positions(master.snapshot().await.unwrap().events()).await, good);
        let buried = positions(master.dead_letters().await.unwrap()).await;
        let bad: Vec<_> = (0..absorbed).filter(|offset| offset % 3 == 1).map(|offset| (0, offset)).collect();
        // The letters of a batch whose events did not get in may be there already, and only once.
        assert_eq!(buried[..bad.len()], bad);
        assert!(buried[bad.len()..].iter().all(|(_, offset)| *offset >= absorbed), "{buried:?}");
    }
    assert!(seen > 0, "no process got as far as its first commit");
}
