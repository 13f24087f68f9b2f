//! The Yahoo Streaming Benchmark's events and query, from a directory log to committed redb state and into the
//! master dataset, beside the bare decoder in the same run.
//!
//! ```text
//! taskset -c 0 cargo bench -p stratus-tests --bench yahoo            # one core
//! YAHOO_EVENTS=5000000 cargo bench -p stratus-tests --bench yahoo
//! YAHOO_VIEWS=10 cargo bench -p stratus-tests --bench yahoo           # ten views of one source
//! ```
//!
//! Prints one JSON object: events per second of each part, and its ratio to the decoder.

#![allow(clippy::unwrap_used, missing_docs)]

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stratus_ingest::Ingester;
use stratus_logs::{CodecOptions, DirectoryLog, JsonCodec, READ_BYTES};
use stratus_seam::catalog::{Action, Connector, ViewDefinition};
use stratus_seam::catalog_log::{Catalog, CatalogError};
use stratus_seam::ids::ViewId;
use stratus_seam::ledger::Ledger;
use stratus_seam::log::Log;
use stratus_seam::offsets::OffsetVector;
use stratus_seam::store::StateStore;
use stratus_speed::{LocalCluster, SpeedLayer};
use stratus_tests::yahoo::{Ads, columns};
use tokio::sync::watch;

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
    let mut ads = Ads::make(folder, 1).await.unwrap();
    let lake = ads.lake.clone();

    let log = DirectoryLog::create(folder.join("log"), 1).unwrap();
    let (source, view) = ads.declare(Connector::Directory, log.id().await.unwrap(), OffsetVector::zero());
    let catalog = Arc::new(Catalog::new(Arc::new(lake.catalog())));
    ads.create(&catalog, &source, &view).await.unwrap();
    let mut views = vec![view.id];
    for copy in 1..number("YAHOO_VIEWS", 1) {
        let another = ViewDefinition { id: ViewId::new(), name: format!("copy_{copy}"), ..view.clone() };
        views.push(another.id);
        catalog.commit(|_| Ok::<_, CatalogError>(vec![Action::CreateView(another.clone())])).await.unwrap();
    }
    let path = folder.join("state.redb");
    let states: Arc<dyn StateStore> = stratus_state::open("redb", &path.to_string_lossy()).await.unwrap();
    let state = states.source(source.id).await.unwrap();
    let (stop, stopped) = watch::channel(false);
    let speed = SpeedLayer {
        source: source.clone(),
        log: Arc::new(log.clone()),
        state: state.clone(),
        catalog: Arc::clone(&catalog),
        dimensions: Arc::new(ads.clone()),
        codec: CodecOptions::default(),
        shards: 16,
        limits: stratus_speed::Limits::default(),
        standing: stratus_speed::Standing::default(),
    };
    let on = stopped.clone();
    let layer = tokio::spawn(async move { speed.run(&LocalCluster::new(), on).await.unwrap() });
    // The view's speed state begins at the end of the log, which is still empty.
    let taken_up = |ledger: Ledger| views.iter().all(|view| ledger.views.contains_key(view));
    while !state.ledger.read().await.unwrap().is_some_and(taken_up) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let text = ads.events(count);
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
        "views": views.len(),
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

/// A number of the environment.
fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn main() {
    let count = number("YAHOO_EVENTS", 3_000_000);
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    println!("{}", runtime.block_on(run(count, folder.path())));
}
