//! What is particular to a log of files: lines, torn tails, giants, and files that are not what they were.

use std::fs::{self, File};

use proptest::prelude::*;
use stratus_logs::DirectoryLog;
use stratus_seam::log::{Log, LogError};
use stratus_seam::offsets::{Offset, OffsetVector};

use crate::{block_on, drain, write};

fn replaced<T: std::fmt::Debug>(answer: Result<T, LogError>) -> bool {
    matches!(answer, Err(LogError::Replaced { .. }))
}

#[tokio::test]
async fn a_log_keeps_its_identity_and_its_files() {
    let dir = tempfile::tempdir().unwrap();
    assert!(DirectoryLog::open(dir.path()).is_err());
    write(dir.path(), 4, b"{}\n");
    let log = DirectoryLog::create(dir.path().join("."), 2).unwrap();
    assert_eq!(log.partitions().await.unwrap(), 5, "files that were there before count");
    let again = DirectoryLog::create(dir.path(), 9).unwrap();
    assert_eq!(again.id().await.unwrap(), log.id().await.unwrap());
    assert_eq!(again.partitions().await.unwrap(), 5);
    assert_eq!(log.end().await.unwrap(), OffsetVector::from([(4, 3)]));
    write(dir.path(), 6, b"{}\n");
    assert_eq!(log.partitions().await.unwrap(), 7);
    assert!(DirectoryLog::create(tempfile::tempdir().unwrap().path(), 0).is_err());
    write(dir.path(), 4_000_000_000, b"");
    assert!(log.partitions().await.is_err(), "a number like this is a mistake, not four billion partitions");
}

#[tokio::test]
async fn creators_at_once_make_one_log() {
    let dir = tempfile::tempdir().unwrap();
    let creators: Vec<_> = (0..16)
        .map(|_| {
            let path = dir.path().join("deep/log");
            tokio::task::spawn_blocking(move || DirectoryLog::create(path, 1).unwrap())
        })
        .collect();
    let mut ids = Vec::new();
    for creator in creators {
        ids.push(creator.await.unwrap().id().await.unwrap());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(fs::read_dir(dir.path().join("deep/log")).unwrap().count(), 1, "no drafts are left");
}

#[tokio::test]
async fn a_shorter_file_is_another_file() {
    let dir = tempfile::tempdir().unwrap();
    let log = DirectoryLog::create(dir.path(), 1).unwrap();
    write(dir.path(), 0, b"{\"a\":1}\n{\"a\":2}\n");
    let (_, to) = drain(&log, 0, 0, 100).await;
    File::options().write(true).open(dir.path().join("0.jsonl")).unwrap().set_len(8).unwrap();
    assert!(replaced(log.read(0, to, None, 100).await));
    assert!(replaced(log.read(0, 0, None, 100).await));
    write(dir.path(), 0, b"{\"b\":2}\n{\"b\":3}\n");
    assert!(replaced(log.end().await), "once seen it stays so");
    let fresh = DirectoryLog::open(dir.path()).unwrap();
    assert!(fresh.read(0, 8, None, 100).await.is_ok());
    assert!(replaced(fresh.read(0, 1_000, None, 100).await), "an offset beyond the file");
    assert!(replaced(fresh.read(0, 9, None, 100).await), "an offset within a line");
}

#[tokio::test]
async fn another_file_under_the_name_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let log = DirectoryLog::create(dir.path(), 1).unwrap();
    write(dir.path(), 0, b"{\"a\":1}\n");
    let (_, to) = drain(&log, 0, 0, 100).await;
    write(dir.path(), 1, b"{\"a\":1}\n{\"a\":2}\n");
    fs::rename(dir.path().join("1.jsonl"), dir.path().join("0.jsonl")).unwrap();
    assert!(replaced(log.read(0, to, None, 100).await));
    fs::remove_file(dir.path().join("0.jsonl")).unwrap();
    assert!(replaced(log.end().await));
    let fresh = DirectoryLog::open(dir.path()).unwrap();
    assert!(replaced(fresh.read(0, to, None, 100).await), "the file is gone");
    assert!(fresh.read(0, 0, None, 100).await.unwrap().records.is_empty());
}

#[tokio::test]
async fn a_tail_may_be_taken_back_as_long_as_nobody_could_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = DirectoryLog::create(dir.path(), 1).unwrap();
    write(dir.path(), 0, b"{\"a\":1}\n{\"torn\":");
    let (_, to) = drain(&log, 0, 0, 100).await;
    assert_eq!(log.end().await.unwrap().get(0), 8);
    File::options().write(true).open(dir.path().join("0.jsonl")).unwrap().set_len(8).unwrap();
    assert!(drain(&log, 0, to, 100).await.0.is_empty());
    write(dir.path(), 0, b"{}\n");
    assert_eq!(drain(&log, 0, to, 100).await, (vec![(8, b"{}".to_vec())], 11));
}

#[tokio::test]
async fn a_giant_line_is_cut_and_passed() {
    const LIMIT: usize = 3 << 20;
    let dir = tempfile::tempdir().unwrap();
    let log = DirectoryLog::create(dir.path(), 1).unwrap().with_max_record_bytes(LIMIT);
    write(dir.path(), 0, b"{\"a\":1}\n");
    let half = vec![b'x'; 4 << 20];
    write(dir.path(), 0, &half);
    for _ in 0..3 {
        assert_eq!(drain(&log, 0, 0, 100).await.1, 8, "its end is waited for");
        assert_eq!(log.end().await.unwrap().get(0), 8);
        write(dir.path(), 0, &half);
    }
    write(dir.path(), 0, b"\r\n{\"b\":2}\n");
    let giant_end = 8 + 4 * half.len() as u64 + 2;
    for max_bytes in [1, 5 << 20, 64 << 20] {
        let (records, to) = drain(&log, 0, 0, max_bytes).await;
        let seen: Vec<(Offset, usize)> =
            records.iter().map(|(offset, payload)| (*offset, payload.len())).collect();
        assert_eq!(seen, [(0, 7), (8, LIMIT + 1), (giant_end, 7)]);
        assert_eq!((to, log.end().await.unwrap().get(0)), (giant_end + 8, giant_end + 8));
    }
    let giant = log.read(0, 8, None, 100).await.unwrap();
    assert_eq!((giant.records.len(), giant.to), (1, giant_end), "reading goes on after its real end");
}

#[tokio::test]
async fn a_giant_tail_that_was_written_anew_is_looked_at_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = DirectoryLog::create(dir.path(), 1).unwrap().with_max_record_bytes(1 << 10);
    write(dir.path(), 0, &vec![b'x'; 3 << 20]);
    assert_eq!(drain(&log, 0, 0, 100).await.1, 0);
    assert_eq!(log.end().await.unwrap().get(0), 0);
    File::options().write(true).open(dir.path().join("0.jsonl")).unwrap().set_len(0).unwrap();
    let lines = b"{\"a\":1}\n".repeat(1 << 20);
    write(dir.path(), 0, &lines);
    let (records, to) = drain(&log, 0, 0, 1 << 20).await;
    assert_eq!((records.len(), to), (1 << 20, lines.len() as u64));
    assert_eq!(log.end().await.unwrap().get(0), lines.len() as u64);
}

#[tokio::test]
async fn a_giant_tail_that_was_cut_and_is_giant_again_swallows_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = DirectoryLog::create(dir.path(), 1).unwrap().with_max_record_bytes(1 << 10);
    write(dir.path(), 0, &vec![b'x'; 3 << 20]);
    assert_eq!(drain(&log, 0, 0, 100).await.1, 0);
    File::options().write(true).open(dir.path().join("0.jsonl")).unwrap().set_len(0).unwrap();
    write(dir.path(), 0, &vec![b'y'; 2 << 10]);
    write(dir.path(), 0, &b"\n{\"a\":1}".repeat(1 << 19));
    write(dir.path(), 0, b"\n");
    let (records, _) = drain(&log, 0, 0, 100).await;
    assert_eq!(records.len(), 1 + (1 << 19));
    assert_eq!(records[0].1, vec![b'y'; (1 << 10) + 1]);
}

#[tokio::test]
async fn the_end_of_a_giant_line_is_seen_right_behind_what_was_scanned() {
    let dir = tempfile::tempdir().unwrap();
    let log = DirectoryLog::create(dir.path(), 1).unwrap().with_max_record_bytes(1 << 10);
    for giant in 1..4 {
        write(dir.path(), 0, &vec![b'x'; 2 << 20]);
        let before = (giant - 1) * ((2 << 20) + 1);
        assert_eq!(log.end().await.unwrap().get(0), before);
        assert_eq!(drain(&log, 0, before, 100).await.1, before);
        write(dir.path(), 0, b"\n");
        assert_eq!(log.end().await.unwrap().get(0), before + (2 << 20) + 1);
        assert_eq!(drain(&log, 0, before, 100).await.0.len(), 1);
    }
}

#[tokio::test]
async fn blank_stretches_longer_than_any_buffer_are_no_records() {
    let dir = tempfile::tempdir().unwrap();
    let log = DirectoryLog::create(dir.path(), 1).unwrap().with_max_record_bytes(100);
    write(dir.path(), 0, b"{}\n");
    write(dir.path(), 0, &b" ".repeat(3 << 20));
    write(dir.path(), 0, &b"\n".repeat(200_000));
    assert_eq!(log.end().await.unwrap().get(0), 3, "the end is where a reader gets to");
    assert_eq!(drain(&log, 0, 0, 10).await.1, 3);
    write(dir.path(), 0, &b" ".repeat(70_000));
    write(dir.path(), 0, b"{}\n \n");
    let end = 3 + (3 << 20) + 200_000 + 70_000 + 3;
    assert_eq!(log.end().await.unwrap().get(0), end);
    let (records, to) = drain(&log, 0, 3, 10).await;
    assert_eq!((records.len(), to), (1, end));
}

/// Records by the plainest reading of the rules.
fn plain_records(content: &[u8], limit: usize) -> (Vec<(Offset, Vec<u8>)>, Offset) {
    let (mut records, mut end, mut start) = (Vec::new(), 0, 0);
    for (position, byte) in content.iter().enumerate() {
        if *byte == b'\n' {
            let line = &content[start..position];
            if line.iter().any(|byte| !b" \t\r".contains(byte)) {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                records.push((start as Offset, line[..line.len().min(limit + 1)].to_vec()));
                end = position as Offset + 1;
            }
            start = position + 1;
        }
    }
    (records, end)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn reading_agrees_with_the_plainest_reading(
        content in proptest::collection::vec(proptest::sample::select(&b"\n\n\nxx{} \r\t\xff"[..]), 0..120),
        cuts in proptest::collection::vec(0..120_usize, 0..4),
        limit in 1..20_usize,
        max_bytes in 1..40_usize,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let log = DirectoryLog::create(dir.path(), 1).unwrap().with_max_record_bytes(limit);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(content.len())).collect();
        cuts.extend([0, content.len()]);
        cuts.sort_unstable();
        block_on(async {
            let (mut delivered, mut position) = (Vec::new(), 0);
            for pair in cuts.windows(2) {
                write(dir.path(), 0, &content[pair[0]..pair[1]]);
                let (expected, end) = plain_records(&content[..pair[1]], limit);
                let (records, to) = drain(&log, 0, position, max_bytes).await;
                delivered.extend(records);
                position = to;
                assert_eq!(&delivered, &expected);
                assert_eq!((to, log.end().await.unwrap().get(0)), (end, end));
                let fresh = DirectoryLog::open(dir.path()).unwrap();
                assert_eq!(fresh.end().await.unwrap().get(0), end);
            }
        });
    }
}
