//! What was acknowledged is in the log, once, whatever has crashed.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use stratus_logs::{AppendError, Appender, DirectoryLog};
use stratus_seam::log::Log;
use stratus_seam::offsets::OffsetVector;

use crate::{drain, write};

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_appends_keep_every_record_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = DirectoryLog::create(dir.path(), 3).unwrap();
    let appender = Arc::new(Appender::open(&log).unwrap());
    let producers: Vec<_> = (0..32)
        .map(|producer| {
            let appender = Arc::clone(&appender);
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for request in 0..10 {
                    let lines: Vec<String> =
                        (0..3).map(|n| format!("{{\"n\":\"{producer}-{request}-{n}\"}}")).collect();
                    let body = Bytes::from(format!("{}\n\n", lines.join("\n")));
                    let appended = appender.append(body).await.unwrap();
                    assert_eq!(appended.accepted, 3);
                    let (partition, end) = appended.offsets.iter().next().unwrap();
                    acknowledged.push((partition, end, lines));
                }
                acknowledged
            })
        })
        .collect();
    let mut ends = BTreeMap::new();
    for producer in producers {
        for (partition, end, lines) in producer.await.unwrap() {
            assert!(ends.insert((partition, end), lines).is_none(), "an offset is answered once");
        }
    }
    let mut total = 0;
    for partition in 0..3 {
        let (records, to) = drain(&log, partition, 0, 1 << 16).await;
        total += records.len();
        assert_eq!(log.end().await.unwrap().get(partition), to);
        let mut rest = &records[..];
        for ((_, end), lines) in ends.range((partition, 0)..(partition + 1, 0)) {
            let (these, others) = rest.split_at(3);
            let payloads: Vec<String> =
                these.iter().map(|(_, p)| String::from_utf8(p.clone()).unwrap()).collect();
            assert_eq!(&payloads, lines, "a request's lines stand together and in order");
            assert_eq!(*end, these[2].0 + payloads[2].len() as u64 + 1);
            rest = others;
        }
        assert!(rest.is_empty() && !records.is_empty());
    }
    assert_eq!(total, 32 * 10 * 3);
}

#[tokio::test]
async fn a_torn_tail_is_cut_at_whatever_byte_it_tore() {
    let dir = tempfile::tempdir().unwrap();
    let log = DirectoryLog::create(dir.path(), 1).unwrap();
    let appender = Appender::open(&log).unwrap();
    let appended = appender.append(Bytes::from_static(b"{\"a\":1}\n{\"a\":2}")).await.unwrap();
    assert_eq!(appended.offsets, OffsetVector::from([(0, 16)]));
    appender.close().await;
    let path = dir.path().join("0.jsonl");
    let acknowledged = fs::read(&path).unwrap();
    let unanswered = b"{\"b\":1}\n{\"b\":22}\n";
    for torn in 0..=unanswered.len() {
        fs::write(&path, [&acknowledged, &unanswered[..torn]].concat()).unwrap();
        let log = DirectoryLog::open(dir.path()).unwrap();
        let appender = Appender::open(&log).unwrap();
        let whole =
            unanswered[..torn].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        assert_eq!(
            fs::read(&path).unwrap(),
            [&acknowledged, &unanswered[..whole]].concat(),
            "torn at {torn}"
        );
        let appended = appender.append(Bytes::from_static(b"{\"c\":1}\n")).await.unwrap();
        let end = (acknowledged.len() + whole + 8) as u64;
        assert_eq!(appended.offsets, OffsetVector::from([(0, end)]));
        let (records, to) = drain(&log, 0, 0, 100).await;
        assert_eq!((records.last().unwrap().1.as_slice(), to), (&b"{\"c\":1}"[..], end));
    }
}

#[tokio::test]
async fn files_of_others_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 0, b"{}\n{\"being written\":");
    let log = DirectoryLog::create(dir.path(), 1).unwrap();
    let appender = Appender::open(&log).unwrap();
    let appended = appender.append(Bytes::from_static(b"{\"a\":1}")).await.unwrap();
    assert_eq!(appended.offsets, OffsetVector::from([(1, 8)]));
    assert_eq!(log.partitions().await.unwrap(), 2);
    write(dir.path(), 0, b"1}\n");
    assert_eq!(drain(&log, 0, 0, 100).await.0.len(), 2);
    appender.close().await;
    let again = Appender::open(&log).unwrap();
    let appended = again.append(Bytes::from_static(b"{\"a\":1}")).await.unwrap();
    assert_eq!(appended.offsets, OffsetVector::from([(1, 16)]), "its own partition is used again");
}

#[tokio::test]
async fn there_is_one_appender() {
    let dir = tempfile::tempdir().unwrap();
    let log = DirectoryLog::create(dir.path(), 1).unwrap();
    let first = Appender::open(&log).unwrap();
    first.append(Bytes::from_static(b"{}")).await.unwrap();
    let other = DirectoryLog::open(dir.path()).unwrap();
    assert!(matches!(Appender::open(&other), Err(AppendError::Locked { .. })));
    first.close().await;
    Appender::open(&other).unwrap();
}

#[tokio::test]
async fn a_writer_on_a_file_that_is_not_its_own_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let log = DirectoryLog::create(dir.path(), 1).unwrap();
    let appender = Appender::open(&log).unwrap();
    appender.append(Bytes::from_static(b"{}")).await.unwrap();
    write(dir.path(), 0, b"{\"half\":");
    let refused = appender.append(Bytes::from_static(b"{}")).await;
    assert!(matches!(refused, Err(AppendError::Poisoned { .. })), "{refused:?}");
}

#[tokio::test]
async fn an_appender_that_is_gone_holds_no_reader_back() {
    let dir = tempfile::tempdir().unwrap();
    let log = DirectoryLog::create(dir.path(), 1).unwrap();
    for n in 1..4 {
        // Another process appends in between; our own appender is opened and closed, with an append and without.
        let other = Appender::open(&DirectoryLog::open(dir.path()).unwrap()).unwrap();
        other.append(Bytes::from_static(b"{}")).await.unwrap();
        drop(other);
        assert_eq!(drain(&log, 0, 0, 100).await.0.len(), 2 * n - 1);
        drop(Appender::open(&log).unwrap());
        let own = Appender::open(&log).unwrap();
        own.append(Bytes::from_static(b"{}")).await.unwrap();
    }
}

#[tokio::test]
async fn a_body_of_blank_lines_appends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = DirectoryLog::create(dir.path(), 1).unwrap();
    let appender = Appender::open(&log).unwrap();
    let appended = appender.append(Bytes::from_static(b"\r\n\n")).await.unwrap();
    assert_eq!((appended.accepted, appended.offsets), (0, OffsetVector::zero()));
    assert!(!dir.path().join("0.jsonl").exists(), "and claims nothing");
}

#[tokio::test]
async fn an_owned_file_that_is_gone_is_not_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let log = DirectoryLog::create(dir.path(), 1).unwrap();
    let appender = Appender::open(&log).unwrap();
    appender.append(Bytes::from_static(b"{}")).await.unwrap();
    appender.close().await;
    fs::remove_file(dir.path().join("0.jsonl")).unwrap();
    assert!(matches!(Appender::open(&log), Err(AppendError::Io { .. })));
    assert!(!dir.path().join("0.jsonl").exists());
}
