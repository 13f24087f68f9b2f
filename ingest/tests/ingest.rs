//! Ingest over a log that forgets: what is lost is recorded, once, before the dataset moves past it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stratus_ingest::{IngestError, Ingester, Limits};
use stratus_lake::{BackedLog, Lake, MasterDataset, MasterLog, SourceTables};
use stratus_logs::CodecOptions;
use stratus_seam::catalog::{Action, Connector, Source};
use stratus_seam::catalog_log::{Catalog, CatalogError};
use stratus_seam::gaps::Gap;
use stratus_seam::ids::SourceId;
use stratus_seam::log::{Log, LogError, LogId};
use stratus_seam::offsets::OffsetVector;
use stratus_seam::schema::{Column, ColumnType};
use tokio::sync::watch;

#[allow(dead_code)]
#[path = "../lake/tests/lake/forgetful.rs"]
mod forgetful;

use forgetful::ForgetfulLog;

struct Site {
    source: Source,
    lake: Lake,
    catalog: Arc<Catalog>,
    log: ForgetfulLog,
}

impl Site {
    async fn new(start: OffsetVector) -> Self {
        let source = Source {
            id: SourceId::new(),
            name: "clicks".into(),
            columns: vec![Column::new("n", ColumnType::BigInt)],
            connector: Connector::Kafka,
            options: BTreeMap::new(),
            log: LogId("the-log".into()),
            start,
        };
        let lake = Lake::open("memory://").unwrap();
        let catalog = Arc::new(Catalog::new(Arc::new(lake.catalog())));
        let actions = vec![Action::CreateSource(source.clone())];
        catalog.commit(|_| Ok::<_, CatalogError>(actions.clone())).await.unwrap();
        Self { source, lake, catalog, log: ForgetfulLog::new(2) }
    }

    fn append(&self, partition: usize, records: u64) {
        for n in 0..records {
            self.log.append(partition, 0, format!(r#"{{"n":{n}}}"#));
        }
    }

    fn ingester(&self) -> Ingester {
        Ingester {
            source: self.source.clone(),
            log: Arc::new(self.log.clone()),
            lake: self.lake.clone(),
            catalog: Arc::clone(&self.catalog),
            codec: CodecOptions::default(),
            limits: Limits { interval: Duration::ZERO, ..Limits::default() },
        }
    }

    /// Ingests until the dataset stands at the log's end.
    async fn ingest(&self) {
        let (stop, stopped) = watch::channel(false);
        let ingester = self.ingester();
        let run = tokio::spawn(async move { ingester.run(stopped).await });
        let end = self.log.end().await.unwrap();
        let dataset = MasterDataset::open(&self.lake, &self.source).await.unwrap();
        let reached = dataset.wait_absorbed(&end, Duration::from_millis(5));
        tokio::time::timeout(Duration::from_secs(20), reached).await.unwrap().unwrap();
        stop.send_replace(true);
        run.await.unwrap().unwrap();
    }

    fn gaps(&self) -> Vec<(u32, u64, u64)> {
        let seen = self.catalog.seen();
        seen.gaps_of(self.source.id).iter().map(|gap| (gap.partition, gap.from, gap.to)).collect()
    }

    /// The offsets of a partition that can be read, from the log or the dataset.
    async fn readable(&self, partition: u32) -> Vec<u64> {
        let master = MasterLog::open(&self.lake, &self.source, 1 << 20).await.unwrap();
        let backed = BackedLog::new(Arc::new(self.log.clone()), Arc::new(master));
        let (mut offsets, mut at) = (Vec::new(), self.source.start.get(partition));
        loop {
            let chunk = backed.read(partition, at, None, 64).await.unwrap();
            if chunk.records.is_empty() {
                return offsets;
            }
            offsets.extend(chunk.records.iter().map(|record| record.offset));
            at = chunk.to;
        }
    }
}

#[tokio::test]
async fn what_the_log_forgot_first_is_recorded_once_and_passed_over() {
    let site = Site::new(OffsetVector::zero()).await;
    site.append(0, 5);
    site.append(1, 3);
    site.ingest().await;
    assert!(site.gaps().is_empty());
    site.append(0, 10);
    site.log.forget(0, 9);
    site.ingest().await;
    site.ingest().await;
    assert_eq!(site.gaps(), [(0, 5, 9)]);
    let expected: Vec<u64> = (0..5).chain(9..15).collect();
    assert_eq!(site.readable(0).await, expected);
    assert_eq!(site.readable(1).await, [0, 1, 2]);
    let state = site.catalog.seen();
    assert_eq!(state.lost_below(site.source.id, &OffsetVector::from([(0, 7), (1, 3)])), 2);
    // All of it is forgotten, also what was never read: the dataset stands at the log's end all the same.
    site.append(1, 4);
    site.log.forget(1, 7);
    site.ingest().await;
    assert_eq!(site.gaps(), [(0, 5, 9), (1, 3, 7)]);
}

#[tokio::test]
async fn a_gap_that_was_recorded_before_a_crash_is_the_same_gap_after_it() {
    let site = Site::new(OffsetVector::zero()).await;
    site.append(0, 10);
    site.log.forget(0, 4);
    let (source, log) = (site.source.id, site.source.log.clone());
    let gap = Gap { source, log, partition: 0, from: 0, to: 4, found_ms: 1 };
    let recorded = vec![Action::RecordGap(gap)];
    site.catalog.commit(|_| Ok::<_, CatalogError>(recorded.clone())).await.unwrap();
    // Back after the crash it finds that more is gone.
    site.log.forget(0, 6);
    site.ingest().await;
    assert_eq!(site.gaps(), [(0, 0, 6)]);
    assert_eq!(site.catalog.seen().gaps_of(source)[0].found_ms, 1);
    assert_eq!(site.readable(0).await, [6, 7, 8, 9]);
}

#[tokio::test]
async fn a_source_that_begins_above_zero_loses_nothing_below_it() {
    let site = Site::new(OffsetVector::from([(0, 4)])).await;
    site.append(0, 6);
    site.append(1, 2);
    site.log.forget(0, 4);
    site.ingest().await;
    assert!(site.gaps().is_empty());
    assert_eq!(site.readable(0).await, [4, 5]);
    assert_eq!(site.readable(1).await, [0, 1]);
}

#[tokio::test]
async fn a_log_that_lost_its_tail_ends_ingest() {
    let site = Site::new(OffsetVector::zero()).await;
    site.append(0, 6);
    site.ingest().await;
    site.log.lose_tail(0, 4);
    let (_stop, stopped) = watch::channel(false);
    let began = Instant::now();
    let ended = site.ingester().run(stopped).await;
    let Err(IngestError::Log(error @ LogError::Replaced { .. })) = ended else { panic!("{ended:?}") };
    assert!(error.to_string().contains("offset 4, below 6"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(60));
    // And nothing was written.
    let tables = SourceTables::open(&site.lake, &site.source).await.unwrap();
    assert_eq!(tables.absorbed(), OffsetVector::from([(0, 6)]));
}
