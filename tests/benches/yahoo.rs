//! The Yahoo Streaming Benchmark's events and query, from a directory log to committed redb state and into the
//! master dataset, beside the bare decoder in the same run.
//!
//! ```text
//! taskset -c 0 cargo bench -p stratus-tests --bench yahoo            # one core
//! YAHOO_EVENTS=5000000 cargo bench -p stratus-tests --bench yahoo
//! ```
//!
//! Prints one JSON object: events per second of each part, and its ratio to the decoder.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use datafusion::datasource::TableProvider;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stratus_ingest::Ingester;
use stratus_lake::Lake;
use stratus_logs::{CodecOptions, DirectoryLog, JsonCodec, READ_BYTES};
use stratus_seam::catalog::{Action, Connector, Dimension, Source, ViewDefinition};
use stratus_seam::catalog_log::{Catalog, CatalogError};
use stratus_seam::ids::{SourceId, ViewId};
use stratus_seam::log::Log;
use stratus_seam::offsets::OffsetVector;
use stratus_seam::schema::{Column, ColumnType};
use stratus_seam::store::StateStore;
use stratus_speed::SpeedLayer;
use stratus_sql::SqlError;
use stratus_sql::cataloged::DimensionTables;
use tokio::sync::watch;

const QUERY: &str =
    "SELECT campaign_id, date_bin(INTERVAL '10 seconds', event_time) AS window_start, count(*) AS views
    FROM ad_events JOIN ads USING (ad_id) WHERE event_type = 'view' GROUP BY 1, 2";

#[derive(Debug)]
struct Ads(Lake, Dimension);

#[async_trait]
impl DimensionTables for Ads {
    async fn table(&self, _: &str, _: &str) -> Result<Arc<dyn TableProvider>, SqlError> {
        self.0.dimension_provider(&self.1).await.map_err(|error| SqlError::new("58030", error.to_string()))
    }
}

fn columns() -> Vec<Column> {
    let text = ["user_id", "page_id", "ad_id", "ad_type", "event_type"];
    let mut columns: Vec<Column> = text.map(|name| Column::new(name, ColumnType::Text)).into();
    columns.push(Column::new("event_time", ColumnType::TimestampTz));
    columns.push(Column::new("ip_address", ColumnType::Text));
    columns
}

fn ids(random: &mut StdRng, count: usize) -> Vec<String> {
    let id = |random: &mut StdRng| {
        let (a, b): (u64, u64) = (random.random(), random.random());
        let (a, b) = (format!("{a:016x}"), format!("{b:016x}"));
        format!("{}-{}-{}-{}-{}", &a[..8], &a[8..12], &a[12..], &b[..4], &b[4..])
    };
    (0..count).map(|_| id(random)).collect()
}

/// Events with the benchmark's keys and lengths.
fn events(random: &mut StdRng, ads: &[String], count: u64) -> Vec<u8> {
    let (users, pages) = (ids(random, 100), ids(random, 100));
    let (ad_types, event_types) =
        (["banner", "modal", "sponsored-search", "mail", "mobile"], ["view", "click", "purchase"]);
    let mut text = String::with_capacity(count as usize * 250);
    for i in 0..count {
        let pick = |random: &mut StdRng, from: usize| random.random_range(0..from);
        writeln!(
            text,
            r#"{{"user_id": "{}", "page_id": "{}", "ad_id": "{}", "ad_type": "{}", "event_type": "{}", "event_time": "{}", "ip_address": "1.2.3.4"}}"#,
            users[pick(random, 100)],
            pages[pick(random, 100)],
            ads[pick(random, ads.len())],
            ad_types[pick(random, 5)],
            event_types[pick(random, 3)],
            1_767_225_600_000 + i,
        )
        .unwrap();
    }
    text.into_bytes()
}

/// Seconds to read and decode everything.
async fn decode(log: &DirectoryLog, mut codec: JsonCodec) -> f64 {
    let (id, began, mut at) = (log.id().await.unwrap(), Instant::now(), 0);
    loop {
        let chunk = log.read(0, at, None, READ_BYTES).await.unwrap();
        if chunk.records.is_empty() {
            return began.elapsed().as_secs_f64();
        }
        at = chunk.to;
        assert!(codec.decode(&id, &chunk).unwrap().bad.is_empty());
    }
}

async fn run(count: u64, folder: &Path) -> serde_json::Value {
    let mut random = StdRng::seed_from_u64(1);
    let (ads, campaigns) = (ids(&mut random, 1_000), ids(&mut random, 100));
    let mut csv = "ad_id,campaign_id\n".to_owned();
    for (i, ad) in ads.iter().enumerate() {
        writeln!(csv, "{ad},{}", campaigns[i / 10]).unwrap();
    }
    std::fs::write(folder.join("ads.csv"), csv).unwrap();
    let lake = Lake::open(&folder.join("lake").to_string_lossy()).unwrap();
    let declared = [Column::new("ad_id", ColumnType::Text), Column::new("campaign_id", ColumnType::Text)];
    let dimension =
        lake.copy_dimension("ads", &folder.join("ads.csv"), &BTreeMap::new(), &declared).await.unwrap();

    let log = DirectoryLog::create(folder.join("log"), 1).unwrap();
    let source = Source {
        id: SourceId::new(),
        name: "ad_events".into(),
        columns: columns(),
        connector: Connector::Directory,
        options: BTreeMap::new(),
        log: log.id().await.unwrap(),
        start: OffsetVector::zero(),
    };
    let view = ViewDefinition {
        id: ViewId::new(),
        name: "campaign_views".into(),
        source: source.id,
        dimensions: BTreeMap::from([("ads".into(), dimension.hash.clone())]),
        sql: QUERY.into(),
        options: BTreeMap::new(),
        created_ms: 0,
    };
    let catalog = Arc::new(Catalog::new(Arc::new(lake.catalog())));
    let actions = vec![
        Action::CreateSource(source.clone()),
        Action::CreateDimension(dimension.clone()),
        Action::CreateView(view.clone()),
    ];
    catalog.commit(|_| Ok::<_, CatalogError>(actions.clone())).await.unwrap();
    let path = folder.join("state.redb");
    let states: Arc<dyn StateStore> = stratus_state::open("redb", &path.to_string_lossy()).await.unwrap();
    let state = states.source(source.id).await.unwrap();
    let (stop, stopped) = watch::channel(false);
    let speed = SpeedLayer {
        source: source.clone(),
        log: Arc::new(log.clone()),
        state: state.clone(),
        catalog: Arc::clone(&catalog),
        dimensions: Arc::new(Ads(lake.clone(), dimension)),
        codec: CodecOptions::default(),
        shards: 16,
        limits: stratus_speed::Limits::default(),
    };
    let on = stopped.clone();
    let layer = tokio::spawn(async move { speed.run(on).await.unwrap() });
    // The view's speed state begins at the end of the log, which is still empty.
    while !state.ledger.read().await.unwrap().is_some_and(|ledger| ledger.views.contains_key(&view.id)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let text = events(&mut random, &ads, count);
    let mut staged = std::fs::File::create(folder.join("staged.jsonl")).unwrap();
    staged.write_all(&text).unwrap();
    staged.sync_all().unwrap();
    let began = Instant::now();
    std::fs::rename(folder.join("staged.jsonl"), folder.join("log/0.jsonl")).unwrap();
    while state.ledger.read().await.unwrap().unwrap().committed_to.get(0) < text.len() as u64 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let committed = began.elapsed().as_secs_f64();
    let batches = state.ledger.read().await.unwrap().unwrap().committed;
    stop.send_replace(true);
    layer.await.unwrap();

    let all = decode(&log, JsonCodec::new(&columns(), CodecOptions::default()).unwrap()).await;
    let three = JsonCodec::new(&columns(), CodecOptions::default()).unwrap();
    let three = three.with_projection(&["ad_id", "event_type", "event_time"]).unwrap();
    let three = decode(&log, three).await;

    let (stop, stopped) = watch::channel(false);
    let ingester = Ingester {
        source: source.clone(),
        log: Arc::new(log),
        lake: lake.clone(),
        catalog,
        codec: CodecOptions::default(),
        limits: stratus_ingest::Limits { interval: Duration::ZERO, ..Default::default() },
    };
    let master = stratus_lake::MasterDataset::open(&lake, &source).await.unwrap();
    let began = Instant::now();
    let task = tokio::spawn(async move { ingester.run(stopped).await.unwrap() });
    let end = OffsetVector::from([(0, text.len() as u64)]);
    master.wait_absorbed(&end, Duration::from_millis(10)).await.unwrap();
    let ingested = began.elapsed().as_secs_f64();
    stop.send_replace(true);
    task.await.unwrap();

    let rate = |seconds: f64| (count as f64 / seconds).round();
    serde_json::json!({
        "events": count,
        "bytes": text.len(),
        "decode_all_columns_per_s": rate(all),
        "decode_three_columns_per_s": rate(three),
        "log_to_committed_redb_state_per_s": rate(committed),
        "committed_to_decoder_ratio": three / committed,
        "batches": batches,
        "log_to_master_dataset_per_s": rate(ingested),
        "ingest_to_decoder_ratio": all / ingested,
    })
}

fn main() {
    let count = std::env::var("YAHOO_EVENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(3_000_000);
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    println!("{}", runtime.block_on(run(count, folder.path())));
}
