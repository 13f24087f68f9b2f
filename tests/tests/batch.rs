//! The batch layer as other processes see it: asked through the lake alone, killed, and started again.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::datasource::TableProvider;
use stratus_batch::request::{self, AskPatience};
use stratus_batch::{BatchLayer, Patience, Swept};
use stratus_ingest::Ingester;
use stratus_lake::Lake;
use stratus_logs::{CodecOptions, DirectoryLog};
use stratus_seam::catalog::{Action, Connector, Source, ViewDefinition};
use stratus_seam::catalog_log::{Catalog, CatalogError, now_ms};
use stratus_seam::ids::{SourceId, ViewId};
use stratus_seam::log::Log;
use stratus_seam::offsets::OffsetVector;
use stratus_seam::runs::{RunRecord, RunStatus, Trigger};
use stratus_seam::store::StateStore;
use stratus_speed::{LocalCluster, SpeedLayer};
use stratus_sql::SqlError;
use stratus_sql::cataloged::DimensionTables;
use stratus_sql::ddl::{self, Statement};
use stratus_state::memory::MemoryStore;
use stratus_tests::events::{Clicks, SOURCE};
use tokio::sync::watch;
use tokio::task::JoinHandle;

#[derive(Debug)]
struct NoDimensions;

#[async_trait]
impl DimensionTables for NoDimensions {
    async fn table(&self, name: &str, _: &str) -> Result<Arc<dyn TableProvider>, SqlError> {
        Err(SqlError::new("42P01", format!("there is no dimension {name}")))
    }
}

/// A lake and a store, with ingest and the speed layer of one source over them, and one view.
struct Platform {
    folder: tempfile::TempDir,
    lake: String,
    states: Arc<dyn StateStore>,
    view: ViewId,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

const ASKING: AskPatience = AskPatience { taken_up: Duration::from_secs(60), alive: Duration::from_secs(20) };

impl Platform {
    async fn start(options: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = DirectoryLog::create(folder.path().join("log"), 2).unwrap();
        let Statement::CreateSource(declared) = ddl::parse(SOURCE).unwrap().remove(0).statement else {
            panic!()
        };
        let source = Source {
            id: SourceId::new(),
            name: "clicks".into(),
            columns: declared.columns,
            connector: Connector::Directory,
            options: BTreeMap::new(),
            log: log.id().await.unwrap(),
            start: OffsetVector::zero(),
        };
        let view = ViewDefinition {
            id: ViewId::new(),
            name: "pages".into(),
            source: source.id,
            dimensions: BTreeMap::new(),
            sql: "SELECT page, count(*) AS c FROM clicks GROUP BY page".into(),
            options: options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            created_ms: now_ms(),
        };
        let lake = folder.path().join("lake").display().to_string();
        let catalog = catalog(&lake);
        let actions = vec![Action::CreateSource(source.clone()), Action::CreateView(view.clone())];
        catalog.commit(|_| Ok::<_, CatalogError>(actions.clone())).await.unwrap();
        let states: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
        let speed = SpeedLayer {
            source: source.clone(),
            log: Arc::new(log.clone()),
            state: states.source(source.id).await.unwrap(),
            catalog: Arc::clone(&catalog),
            dimensions: Arc::new(NoDimensions),
            codec: CodecOptions::default(),
            shards: 2,
            limits: stratus_speed::Limits::default(),
            standing: stratus_speed::Standing::default(),
        };
        let ingester = Ingester {
            source,
            log: Arc::new(log),
            lake: Lake::open(&lake).unwrap(),
            catalog,
            codec: CodecOptions::default(),
            limits: stratus_ingest::Limits { interval: Duration::from_millis(50), ..Default::default() },
        };
        let (stop, stopped) = watch::channel(false);
        let on = stopped.clone();
        let tasks = vec![
            tokio::spawn(async move { speed.run(&LocalCluster::new(), on).await.unwrap() }),
            tokio::spawn(async move { ingester.run(stopped).await.unwrap() }),
        ];
        let platform = Self { folder, lake, states, view: view.id, stop, tasks };
        platform.append(1);
        platform
    }

    fn append(&self, seed: u64) {
        Clicks::new(&self.folder.path().join("log"), seed, 1).unwrap().append(500).unwrap();
    }

    /// A batch layer as a process of its own would have it: with a catalog and a lake of its own.
    fn batch(&self) -> Arc<BatchLayer> {
        let lake = Lake::open(&self.lake).unwrap();
        let patience = Patience { cut: Duration::from_secs(60), absorb: Duration::from_secs(20) };
        let layer = BatchLayer::new(
            catalog(&self.lake),
            Arc::clone(&self.states),
            lake,
            Arc::new(NoDimensions),
            tokio::runtime::Handle::current(),
            patience,
        );
        Arc::new(layer.with_grace(Duration::ZERO))
    }

    async fn refresh(&self) -> Result<RunRecord, SqlError> {
        self.refresh_with(&ASKING).await
    }

    async fn refresh_with(&self, patience: &AskPatience) -> Result<RunRecord, SqlError> {
        let runs = Lake::open(&self.lake).unwrap().runs();
        request::refresh(&runs, &catalog(&self.lake), "pages", patience).await
    }

    async fn records(&self) -> Vec<RunRecord> {
        Lake::open(&self.lake).unwrap().runs().of_view(self.view).await.unwrap()
    }

    /// Waits until the view's records satisfy.
    async fn until(&self, what: &str, holds: impl Fn(&[RunRecord]) -> bool) -> Vec<RunRecord> {
        for _ in 0..1_200 {
            let records = self.records().await;
            if holds(&records) {
                return records;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("not within a minute: {what}: {:?}", self.records().await);
    }

    /// Ends ingest and the speed layer, and waits until they have ended.
    async fn end_layers(&mut self) {
        self.stop.send_replace(true);
        for task in self.tasks.drain(..) {
            task.await.unwrap();
        }
    }

    async fn end(mut self) {
        self.end_layers().await;
    }
}

fn catalog(lake: &str) -> Arc<Catalog> {
    Arc::new(Catalog::new(Arc::new(Lake::open(lake).unwrap().catalog())))
}

fn begin(layer: &Arc<BatchLayer>) -> (watch::Sender<bool>, JoinHandle<()>) {
    let (stop, stopped) = watch::channel(false);
    let layer = Arc::clone(layer);
    (stop, tokio::spawn(async move { layer.run(stopped).await }))
}

fn is_published(record: &RunRecord) -> bool {
    matches!(record.status, RunStatus::Published { .. })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_reaches_the_batch_layer_through_the_lake_alone() {
    let platform = Platform::start(&[]).await;
    let hasty = AskPatience { taken_up: Duration::from_secs(2), ..ASKING };
    let nobody = platform.refresh_with(&hasty).await.unwrap_err();
    assert_eq!(nobody.sqlstate, "55000", "{nobody:?}");
    assert!(nobody.hint.is_some());
    let lake = Lake::open(&platform.lake).unwrap();
    assert!(lake.runs().requests().await.unwrap().is_empty(), "it was withdrawn");

    let layer = platform.batch();
    let (stop, running) = begin(&layer);
    platform.until("the first run", |records| records.iter().any(is_published)).await;
    platform.append(2);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (one, two) = tokio::join!(platform.refresh(), platform.refresh());
    let mut versions: Vec<u32> = Vec::new();
    for record in [one.unwrap(), two.unwrap()] {
        let RunStatus::Published { version, events, groups, .. } = record.status else {
            panic!("{record:?}")
        };
        assert!(events > 0 && groups > 0);
        assert_eq!(record.trigger, Trigger::Request);
        let state = catalog(&platform.lake).refresh().await.unwrap();
        let published = state.versions_of(platform.view).iter().find(|v| v.number == version).unwrap();
        assert_eq!(published.run, Some(record.id), "the catalog tells the run");
        versions.push(version);
    }
    versions.sort_unstable();
    assert_eq!(versions, [2, 3], "one at a time");
    let triggers: Vec<Trigger> = platform.records().await.iter().map(|record| record.trigger).collect();
    assert_eq!(triggers[0], Trigger::First);

    // The speed layer drops the epochs that no reader needs; then version 1 goes, and its files after.
    let mut swept = Swept::default();
    for _ in 0..1_200 {
        let now = layer.sweep().await.unwrap();
        (swept.versions, swept.files) = (swept.versions + now.versions, swept.files + now.files);
        if swept.files > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(swept.versions, 1);
    let state = catalog(&platform.lake).refresh().await.unwrap();
    let left = state.versions_of(platform.view);
    assert_eq!(left.iter().map(|version| version.number).collect::<Vec<_>>(), [2, 3]);
    for file in left.iter().flat_map(|version| &version.files) {
        assert!(platform.folder.path().join("lake").join(&file.path).exists(), "{}", file.path);
    }
    assert_eq!(lake.version_folders(platform.view).await.unwrap().len(), 2);

    // A view that was dropped leaves nothing.
    let drop_view = |_: &_| Ok::<_, CatalogError>(vec![Action::DropView { id: platform.view }]);
    catalog(&platform.lake).commit(drop_view).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    layer.sweep().await.unwrap();
    assert!(lake.view_folders().await.unwrap().is_empty());
    assert!(platform.records().await.is_empty());
    stop.send_replace(true);
    running.await.unwrap();
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_batch_layer_that_died_left_behind_is_settled_by_the_next() {
    let platform = Platform::start(&[]).await;
    let runs = Lake::open(&platform.lake).unwrap().runs();
    let asked = || RunRecord::requested(platform.view, Trigger::Request, None, now_ms());
    // One that was computing, one that was queued, and one whose publication was not written down any more.
    let computing = asked().step(RunStatus::Computing { events: 1, of: 9 }, now_ms()).unwrap();
    let queued = asked().step(RunStatus::Queued, now_ms()).unwrap();
    runs.write(&computing).await.unwrap();
    runs.write(&queued).await.unwrap();
    let (stop, running) = begin(&platform.batch());
    let of = |records: &[RunRecord], wanted: &RunRecord| {
        records.iter().find(|record| record.id == wanted.id).map(|record| record.status.clone())
    };
    let records = platform
        .until("both settled", |records| matches!(of(records, &queued), Some(RunStatus::Published { .. })))
        .await;
    assert_eq!(of(&records, &computing), Some(RunStatus::Interrupted));
    stop.send_replace(true);
    running.await.unwrap();

    let published = records.iter().find(|record| record.id == queued.id).unwrap();
    let forgotten =
        RunRecord { status: RunStatus::Computing { events: 1, of: 9 }, ended_ms: None, ..published.clone() };
    runs.write(&forgotten).await.unwrap();
    let (stop, running) = begin(&platform.batch());
    platform
        .until("the catalog is asked", |records| of(records, &queued) == Some(published.status.clone()))
        .await;
    stop.send_replace(true);
    running.await.unwrap();
    platform.end().await;
}

/// A second batch process leaves the runs of the first one alone, as long as that lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_another_process_is_left_alone_while_it_is_alive() {
    const SILENCE: Duration = Duration::from_secs(10);
    let mut platform = Platform::start(&[]).await;
    let (_stop, first) = begin(&platform.batch());
    platform.until("the first run", |records| records.iter().any(is_published)).await;
    // Without a speed layer there is no cut, and the run waits for as long as it may.
    platform.end_layers().await;
    let asked = RunRecord::requested(platform.view, Trigger::Request, None, now_ms());
    Lake::open(&platform.lake).unwrap().runs().request(&asked).await.unwrap();
    let is = |records: &[RunRecord], status: RunStatus| {
        records.iter().any(|record| record.id == asked.id && record.status == status)
    };
    platform.until("it waits", |records| is(records, RunStatus::WaitingForCut)).await;

    let second = Arc::into_inner(platform.batch()).unwrap().among_others(SILENCE);
    let (stop, running) = begin(&Arc::new(second));
    for _ in 0..10 {
        tokio::time::sleep(SILENCE / 6).await;
        let records = platform.records().await;
        assert!(is(&records, RunStatus::WaitingForCut), "{records:?}");
    }
    first.abort();
    platform.until("its end is noticed", |records| is(records, RunStatus::Interrupted)).await;
    stop.send_replace(true);
    running.await.unwrap();
    platform.end().await;
}

/// A new view is waited for while somebody works on its first version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_version_is_waited_for_as_long_as_somebody_works_on_it() {
    const PATIENCE: Duration = Duration::from_secs(5);
    let platform = Platform::start(&[]).await;
    let runs = Lake::open(&platform.lake).unwrap().runs();
    let seen = catalog(&platform.lake);
    let first_version = || request::first_version(&runs, &seen, platform.view, PATIENCE);
    assert!(!first_version().await.unwrap(), "there is no batch layer");
    let mut record = RunRecord::requested(platform.view, Trigger::First, None, now_ms());
    let waiting = first_version();
    tokio::pin!(waiting);
    for _ in 0..5 {
        record = record.alive();
        runs.write(&record).await.unwrap();
        let early = tokio::time::timeout(PATIENCE / 3, &mut waiting).await;
        assert!(early.is_err(), "it is alive: {early:?}");
    }
    assert!(!waiting.await.unwrap(), "it has fallen silent");
    let (stop, running) = begin(&platform.batch());
    assert!(first_version().await.unwrap());
    stop.send_replace(true);
    running.await.unwrap();
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_under_way_is_interrupted_when_the_batch_layer_stops() {
    let mut platform = Platform::start(&[]).await;
    let (stop, running) = begin(&platform.batch());
    platform.until("the first run", |records| records.iter().any(is_published)).await;
    // Without a speed layer there is no cut.
    platform.end_layers().await;
    let (asked, ()) = tokio::join!(platform.refresh(), async {
        platform
            .until("the cut is waited for", |records| {
                records.iter().any(|record| record.status == RunStatus::WaitingForCut)
            })
            .await;
        stop.send_replace(true);
    });
    let interrupted = asked.unwrap_err();
    assert_eq!(interrupted.sqlstate, "55000");
    assert!(interrupted.message.contains("ended"), "{interrupted:?}");
    running.await.unwrap();
    platform.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_is_kept() {
    let platform = Platform::start(&[("refresh", "*/2 * * * * *")]).await;
    let (stop, running) = begin(&platform.batch());
    let scheduled = |record: &&RunRecord| record.trigger == Trigger::Schedule && is_published(record);
    let records =
        platform.until("two scheduled runs", |records| records.iter().filter(scheduled).count() >= 2).await;
    let times: Vec<u64> = records.iter().filter_map(|record| record.scheduled_ms).collect();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "each time once: {times:?}");
    assert!(times.iter().all(|time| time % 2_000 == 0), "{times:?}");
    let state = Lake::open(&platform.lake).unwrap().runs().schedule(platform.view).await.unwrap().unwrap();
    assert!(state.next_ms > state.settled_ms, "{state:?}");
    stop.send_replace(true);
    running.await.unwrap();
    platform.end().await;
}
