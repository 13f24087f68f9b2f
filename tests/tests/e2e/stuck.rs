//! One view that cannot be computed, and a lake that does not answer: the other views of the source go on as soon as
//! they can.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::Session;
use datafusion::common::DataFusionError;
use datafusion::datasource::{MemTable, TableProvider, TableType};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use stratus_lake::Lake;
use stratus_logs::{CodecOptions, DirectoryLog};
use stratus_seam::catalog::{Action, Commit, Connector, Dimension, Source, ViewDefinition};
use stratus_seam::catalog_log::{Catalog, CatalogError, CatalogLog, Put};
use stratus_seam::ids::{SourceId, ViewId};
use stratus_seam::ledger::Ledger;
use stratus_seam::log::Log;
use stratus_seam::offsets::OffsetVector;
use stratus_seam::schema::{Column, ColumnType};
use stratus_seam::store::{SourceState, StateStore};
use stratus_speed::{LocalCluster, SpeedError, SpeedLayer, Standing};
use stratus_sql::SqlError;
use stratus_sql::cataloged::DimensionTables;
use stratus_sql::ddl::{self, Statement};
use stratus_state::memory::MemoryStore;
use stratus_tests::events::{Clicks, SOURCE};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const GOOD: &str = "SELECT page, count(*) AS c FROM clicks GROUP BY page";
const JOINED: &str = "SELECT title, count(*) AS c FROM clicks JOIN titles USING (page) GROUP BY title";

/// A dimension table that cannot be found for a while, or that cannot be read for a while.
#[derive(Debug, Clone, Default)]
struct Titles {
    lost: Arc<AtomicBool>,
    unreadable: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Unreliable(MemTable, Arc<AtomicBool>);

#[async_trait]
impl DimensionTables for Titles {
    async fn table(&self, name: &str, _: &str) -> Result<Arc<dyn TableProvider>, SqlError> {
        if self.lost.load(SeqCst) {
            return Err(SqlError::new("58030", format!("the files of {name} do not answer")));
        }
        let fields = ["page", "title"].map(|name| Field::new(name, DataType::Utf8, true));
        let schema = Arc::new(Schema::new(fields.to_vec()));
        let rows = RecordBatch::new_empty(Arc::clone(&schema));
        let table = MemTable::try_new(schema, vec![vec![rows]]).unwrap();
        Ok(Arc::new(Unreliable(table, Arc::clone(&self.unreadable))))
    }
}

#[async_trait]
impl TableProvider for Unreliable {
    fn schema(&self) -> Arc<Schema> {
        self.0.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        if self.1.load(SeqCst) {
            return Err(DataFusionError::Execution("a page of the file is damaged".into()));
        }
        self.0.scan(state, projection, filters, limit).await
    }
}

/// The lake's catalog, which does not answer for a while.
#[derive(Debug)]
struct Away(Arc<dyn CatalogLog>, Arc<AtomicBool>);

#[async_trait]
impl CatalogLog for Away {
    async fn read(&self, number: u64) -> Result<Option<Commit>, CatalogError> {
        self.answers()?;
        self.0.read(number).await
    }

    async fn put(&self, number: u64, commit: &Commit) -> Result<Put, CatalogError> {
        self.answers()?;
        self.0.put(number, commit).await
    }
}

impl Away {
    fn answers(&self) -> Result<(), CatalogError> {
        match self.1.load(SeqCst) {
            true => Err(CatalogError::Unavailable {
                what: "reading the catalog".into(),
                source: "no answer".into(),
            }),
            false => Ok(()),
        }
    }
}

type Work = JoinHandle<Result<(), SpeedError>>;

/// The speed layer of one source, with views that may be added and dropped.
struct Speed {
    folder: tempfile::TempDir,
    catalog: Arc<Catalog>,
    titles: Titles,
    lake_is_away: Arc<AtomicBool>,
    state: SourceState,
    layer: SpeedLayer,
    appended: u64,
    running: Option<(watch::Sender<bool>, Work)>,
}

impl Speed {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = DirectoryLog::create(folder.path(), 2).unwrap();
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
        let lake_is_away = Arc::new(AtomicBool::new(false));
        let lake = Lake::open("memory://").unwrap();
        let catalog = Away(Arc::new(lake.catalog()), Arc::clone(&lake_is_away));
        let catalog = Arc::new(Catalog::new(Arc::new(catalog)));
        let states: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
        let state = states.source(source.id).await.unwrap();
        let titles = Titles::default();
        let layer = SpeedLayer {
            source: source.clone(),
            log: Arc::new(log),
            state: state.clone(),
            catalog: Arc::clone(&catalog),
            dimensions: Arc::new(titles.clone()),
            codec: CodecOptions::default(),
            shards: 3,
            limits: stratus_speed::Limits::default(),
            standing: Standing::default(),
        };
        let column = |name: &str| Column { name: name.into(), kind: ColumnType::Text, not_null: false };
        let dimension = Dimension {
            name: "titles".into(),
            columns: vec![column("page"), column("title")],
            hash: "h".into(),
            path: "titles".into(),
            rows: 0,
        };
        let speed = Self { folder, catalog, titles, lake_is_away, state, layer, appended: 0, running: None };
        speed.commit(vec![Action::CreateSource(source), Action::CreateDimension(dimension)]).await;
        speed
    }

    async fn commit(&self, actions: Vec<Action>) {
        self.catalog.commit(|_| Ok::<_, CatalogError>(actions.clone())).await.unwrap();
    }

    async fn create(&self, name: &str, sql: &str) -> ViewId {
        let id = ViewId::new();
        let dimensions: &[(&str, &str)] = if sql == JOINED { &[("titles", "h")] } else { &[] };
        let view = ViewDefinition {
            id,
            name: name.into(),
            source: self.layer.source.id,
            dimensions: dimensions.iter().map(|(name, hash)| ((*name).into(), (*hash).into())).collect(),
            sql: sql.into(),
            options: BTreeMap::new(),
            created_ms: 0,
        };
        self.commit(vec![Action::CreateView(view)]).await;
        id
    }

    fn start(&mut self) {
        let (stop, stopped) = watch::channel(false);
        let layer = self.layer.clone();
        let work = tokio::spawn(async move { layer.run(&LocalCluster::new(), stopped).await });
        self.running = Some((stop, work));
    }

    async fn stop(&mut self) {
        let (stop, work) = self.running.take().unwrap();
        stop.send_replace(true);
        work.await.unwrap().unwrap();
    }

    fn append(&mut self) {
        self.appended += 1;
        Clicks::new(self.folder.path(), self.appended, 1).unwrap().append(100).unwrap();
    }

    async fn ledger(&self) -> Ledger {
        self.state.ledger.read().await.unwrap().unwrap()
    }

    /// Waits until the ledger satisfies.
    async fn until(&self, what: &str, holds: impl Fn(&Ledger) -> bool) {
        let began = Instant::now();
        loop {
            let ledger = self.state.ledger.read().await.unwrap();
            if ledger.as_ref().is_some_and(&holds) {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "not within 20 s: {what}: {ledger:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until everything that was appended is committed.
    async fn until_committed(&self, what: &str) {
        let end = self.layer.log.end().await.unwrap();
        self.until(what, |ledger| ledger.committed_to.covers(&end)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_whose_batches_fail_stops_the_others_until_it_is_dropped_and_no_longer() {
    let mut speed = Speed::new().await;
    let good = speed.create("good", GOOD).await;
    speed.titles.unreadable.store(true, SeqCst);
    let bad = speed.create("bad", JOINED).await;
    speed.start();
    speed.until("both are taken up", |ledger| ledger.views.len() == 2).await;
    // More batches than may be under way at once, none of which can be done.
    for _ in 0..8 {
        speed.append();
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert_eq!(speed.ledger().await.committed_to, OffsetVector::zero(), "no view may be passed over");
    speed.commit(vec![Action::DropView { id: bad }]).await;
    speed.until_committed("the rest goes on").await;
    let ledger = speed.ledger().await;
    assert_eq!(ledger.views.keys().collect::<Vec<_>>(), [&good]);

    // The same, and the source itself goes.
    speed.create("bad", JOINED).await;
    speed.until("it is taken up", |ledger| ledger.views.len() == 2).await;
    for _ in 0..8 {
        speed.append();
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    let catalog = speed.catalog.refresh().await.unwrap();
    let views = catalog.views_of(speed.layer.source.id).map(|view| Action::DropView { id: view.id });
    let all = views.chain([Action::DropSource { id: speed.layer.source.id }]).collect();
    speed.commit(all).await;
    let (_stop, work) = speed.running.take().unwrap();
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("it ends").unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_cannot_be_prepared_is_taken_up_later_and_disturbs_nobody() {
    let mut speed = Speed::new().await;
    speed.create("good", GOOD).await;
    speed.start();
    speed.until("it is taken up", |ledger| ledger.views.len() == 1).await;
    let before = speed.ledger().await.token;
    speed.titles.lost.store(true, SeqCst);
    let late = speed.create("late", JOINED).await;
    for _ in 0..4 {
        speed.append();
        speed.until_committed("the other view goes on").await;
    }
    assert_eq!(speed.ledger().await.token, before, "nothing was let go");
    speed.titles.lost.store(false, SeqCst);
    speed.until("it is taken up after all", |ledger| ledger.views.contains_key(&late)).await;
    let began = speed.ledger().await.views[&late].epochs[0].from.clone();
    assert_eq!(began, speed.layer.log.end().await.unwrap(), "it begins where it was taken up");

    // A process that cannot prepare what the ledger feeds passes over nothing.
    speed.stop().await;
    speed.titles.lost.store(true, SeqCst);
    speed.start();
    speed.append();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(speed.ledger().await.token, before, "the ledger is not taken for nothing");
    speed.titles.lost.store(false, SeqCst);
    speed.until_committed("it goes on").await;
    assert!(speed.ledger().await.views.contains_key(&late));
    speed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_go_on_while_the_lake_is_away() {
    let mut speed = Speed::new().await;
    speed.create("good", GOOD).await;
    speed.start();
    speed.until("it is taken up", |ledger| ledger.views.len() == 1).await;
    let before = speed.ledger().await.token;
    speed.lake_is_away.store(true, SeqCst);
    for _ in 0..3 {
        speed.append();
        speed.until_committed("batches go on").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(speed.ledger().await.token, before, "nothing was let go");
    speed.lake_is_away.store(false, SeqCst);
    speed.create("more", GOOD).await;
    speed.until("views are taken up again", |ledger| ledger.views.len() == 2).await;
    speed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_for_long_is_told() {
    let mut speed = Speed::new().await;
    speed.titles.unreadable.store(true, SeqCst);
    speed.create("bad", JOINED).await;
    speed.start();
    speed.until("it is taken up", |ledger| ledger.views.len() == 1).await;
    speed.append();
    assert_eq!(speed.layer.standing.stuck(), None, "it may pass");
    let began = Instant::now();
    let told = loop {
        if let Some(told) = speed.layer.standing.stuck() {
            break told;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "nothing is told");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(told.contains("\"bad\"") && told.contains("a page of the file is damaged"), "{told}");
    speed.titles.unreadable.store(false, SeqCst);
    speed.until_committed("it goes on").await;
    let began = Instant::now();
    while let Some(told) = speed.layer.standing.stuck() {
        assert!(began.elapsed() < Duration::from_secs(10), "still told: {told}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    speed.stop().await;
}
