//! The engine that the tests serve: DataFusion with a few tables, one of which never ends and is watched.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::{DataFusionError, TableReference};
use datafusion::execution::context::SQLOptions;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::scalar::ScalarValue;
use stratus_serving::pg::catalog::{PgCatalog, Relation, RelationKind, Relations, mentions_catalog};
use stratus_serving::pg::{Options, serve};
use stratus_serving::service::{Answer, Client, Described, Notice, SqlService, SqlSession};
use stratus_sql::{SqlError, sqlstate_of};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_postgres::NoTls;

/// How much of the endless table has been read, and how many streams of it are open.
#[derive(Debug, Default)]
pub struct Watched {
    pub batches: AtomicUsize,
    pub open: AtomicUsize,
}

impl Watched {
    /// Waits until nobody reads the endless table any more.
    pub async fn closed(&self) {
        for _ in 0..500 {
            if self.open.load(Ordering::SeqCst) == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("a statement that should have been stopped still reads");
    }

    /// Waits until somebody reads the endless table.
    pub async fn opened(&self) {
        for _ in 0..500 {
            if self.open.load(Ordering::SeqCst) > 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the statement has not begun");
    }
}

#[derive(Debug)]
struct Endless {
    schema: SchemaRef,
    watched: Arc<Watched>,
}

struct Open(Arc<Watched>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl PartitionStream for Endless {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        self.watched.open.fetch_add(1, Ordering::SeqCst);
        let open = Open(Arc::clone(&self.watched));
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..8_192));
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), vec![numbers]).unwrap();
        let batches = futures::stream::repeat_with(move || {
            open.0.batches.fetch_add(1, Ordering::SeqCst);
            Ok(batch.clone())
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

struct Listed(SessionContext);

impl std::fmt::Debug for Listed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listed")
    }
}

#[async_trait]
impl Relations for Listed {
    async fn relations(&self) -> Result<Vec<Relation>, DataFusionError> {
        let kinds = [
            ("events", RelationKind::Table),
            ("endless", RelationKind::Table),
            ("event_counts", RelationKind::MaterializedView),
        ];
        let mut relations = Vec::new();
        for (name, kind) in kinds {
            let columns = self.0.table_provider(TableReference::bare(name)).await?.schema();
            relations.push(Relation { schema: "public".into(), name: name.into(), columns, kind });
        }
        Ok(relations)
    }
}

struct Engine {
    context: SessionContext,
    catalog: PgCatalog,
}

struct Session {
    engine: Arc<Engine>,
    client: Client,
}

impl Session {
    fn context(&self, statement: &str) -> Result<SessionContext, SqlError> {
        let context = SessionContext::new_with_state(self.engine.context.state());
        if mentions_catalog(statement) {
            self.engine.catalog.register(&context, &self.client).map_err(|e| sqlstate_of(&e))?;
        }
        Ok(context)
    }
}

#[async_trait]
impl SqlSession for Session {
    async fn describe(&self, statement: &str, hints: &[Option<DataType>]) -> Result<Described, SqlError> {
        if statement.starts_with("REFRESH") {
            return Ok(Described { parameters: vec![], columns: None });
        }
        let state = self.context(statement)?.state();
        let plan = state.create_logical_plan(statement).await.map_err(|e| located(statement, &e))?;
        Described::of_plan(&plan, hints)
    }

    async fn run(&self, statement: &str, parameters: Vec<ScalarValue>) -> Result<Answer, SqlError> {
        if statement.starts_with("REFRESH") {
            return Ok(Answer::Done {
                tag: "REFRESH MATERIALIZED VIEW".into(),
                notices: vec![Notice::new("it was fresh")],
            });
        }
        if statement == "SELECT panic" {
            panic!("on purpose");
        }
        let context = self.context(statement)?;
        let failed = |e: DataFusionError| located(statement, &e);
        let plan = context.state().create_logical_plan(statement).await.map_err(failed)?;
        let options =
            SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        options.verify_plan(&plan).map_err(failed)?;
        let plan =
            if parameters.is_empty() { plan } else { plan.with_param_values(parameters).map_err(failed)? };
        let frame = context.execute_logical_plan(plan).await.map_err(failed)?;
        let rows = frame.execute_stream().await.map_err(failed)?;
        Ok(Answer::Rows { rows, notices: vec![] })
    }
}

/// The error with the place of the word that it complains about, as a real engine would give it.
fn located(statement: &str, failed: &DataFusionError) -> SqlError {
    let mut error = sqlstate_of(failed);
    if let Some(at) = statement.find("missing") {
        error.position = Some(statement[..at].chars().count() + 1);
    }
    error
}

struct Service(Arc<Engine>);

#[async_trait]
impl SqlService for Service {
    async fn session(&self, client: Client) -> Result<Box<dyn SqlSession>, SqlError> {
        if client.user == "nobody" {
            return Err(SqlError {
                sqlstate: "28000",
                message: "nobody may not connect".into(),
                detail: None,
                hint: None,
                position: None,
            });
        }
        Ok(Box::new(Session { engine: Arc::clone(&self.0), client }))
    }
}

/// A server that runs until it is dropped.
pub struct Server {
    pub address: SocketAddr,
    pub watched: Arc<Watched>,
    pub shutdown: Option<oneshot::Sender<()>>,
    pub served: Option<tokio::task::JoinHandle<std::io::Result<()>>>,
    queries: Option<tokio::runtime::Runtime>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.take();
        if let Some(queries) = self.queries.take() {
            queries.shutdown_background();
        }
    }
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Options)) -> Self {
        let mut config = SessionConfig::new()
            .with_default_catalog_and_schema("stratus", "public")
            .with_information_schema(true)
            .with_target_partitions(1);
        config.options_mut().sql_parser.dialect = datafusion::common::config::Dialect::PostgreSQL;
        config.options_mut().sql_parser.map_string_types_to_utf8view = false;
        let context = SessionContext::new_with_config(config);
        let watched = Arc::new(Watched::default());
        for (name, table) in tables(&watched) {
            context.register_table(name, table).unwrap();
        }
        context
            .sql("CREATE VIEW event_counts AS SELECT event_type, count(*) AS n FROM events GROUP BY 1")
            .await
            .unwrap();
        let catalog = PgCatalog::new(Arc::new(Listed(context.clone()))).unwrap();
        let service = Arc::new(Service(Arc::new(Engine { context, catalog })));

        let queries =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut options = Options::new(queries.handle().clone());
        change(&mut options);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, ends) = oneshot::channel::<()>();
        let served = tokio::spawn(serve(listener, service, options, async move {
            let _ = ends.await;
        }));
        Self { address, watched, shutdown: Some(shutdown), served: Some(served), queries: Some(queries) }
    }

    pub fn config(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.address.port()).user("ada").dbname("stratus");
        config
    }

    /// A connected client.
    pub async fn connect(&self) -> tokio_postgres::Client {
        let (client, connection) = self.config().connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

fn tables(watched: &Arc<Watched>) -> Vec<(&'static str, Arc<dyn TableProvider>)> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("event_type", DataType::Utf8, true),
    ]));
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4]));
    let kinds: ArrayRef = Arc::new(StringArray::from(vec![Some("view"), Some("click"), None, Some("view")]));
    let events = RecordBatch::try_new(Arc::clone(&schema), vec![ids, kinds]).unwrap();
    let numbers = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    let endless = Endless { schema: Arc::clone(&numbers), watched: Arc::clone(watched) };
    vec![
        ("events", Arc::new(MemTable::try_new(schema, vec![vec![events]]).unwrap())),
        (
            "endless",
            Arc::new(
                StreamingTable::try_new(numbers, vec![Arc::new(endless)]).unwrap().with_infinite_table(false),
            ),
        ),
    ]
}

/// The SQLSTATE of an error that the server has sent.
pub fn sqlstate(error: &tokio_postgres::Error) -> String {
    error
        .as_db_error()
        .map_or_else(|| format!("no error of the server's: {error:?}"), |e| e.code().code().to_owned())
}
