//! What DDL does: check, prepare outside the catalog, then one catalog commit.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use stratus_batch::request::{self, AskPatience};
use stratus_batch::{SCHEDULE_OPTIONS, Schedule};
use stratus_lake::Lake;
use stratus_logs::DirectoryLog;
use stratus_logs::kafka::{KafkaTopic, Start};
use stratus_seam::catalog::{Action, CatalogMisfit, CatalogState, Connector, Source, ViewDefinition};
use stratus_seam::catalog_log::{Catalog, CatalogError, now_ms};
use stratus_seam::ids::{SourceId, ViewId};
use stratus_seam::log::{Log, LogId};
use stratus_seam::offsets::OffsetVector;
use stratus_seam::store::StateStore;
use stratus_serving::{Administration, catalog_error, lake_error};
use stratus_sql::cataloged::relations;
use stratus_sql::ddl::{CreateDimension, CreateSource, CreateView, Drop, DropKind, Statement};
use stratus_sql::{SqlError, View};

use super::sources::{OpenLogs, PROPERTY, codec_options};

/// For how long a new view waits without a sign that somebody works on its first version.
const FIRST_VERSION: Duration = Duration::from_secs(30);
/// The options that a source over a directory log knows.
const DIRECTORY_OPTIONS: [&str; 5] = ["connector", "format", "partitions", "path", "timestamp_unit"];
/// The options that a source over Kafka knows, beside those for the Kafka client.
const KAFKA_OPTIONS: [&str; 5] = ["connector", "format", "start", "timestamp_unit", "topic"];

/// A new source's log, and where its history begins in it.
type Beginning = (LogId, OffsetVector);

/// Carries out DDL.
#[derive(Debug)]
pub(super) struct Administrator {
    catalog: Arc<Catalog>,
    lake: Lake,
    states: Arc<dyn StateStore>,
    logs: Arc<OpenLogs>,
}

impl Administrator {
    pub(super) fn new(
        catalog: Arc<Catalog>,
        lake: Lake,
        states: Arc<dyn StateStore>,
        logs: Arc<OpenLogs>,
    ) -> Self {
        Self { catalog, lake, states, logs }
    }

    async fn create_source(&self, create: CreateSource) -> Result<(), SqlError> {
        let connector = match create.options.get("connector").map_or("directory", String::as_str) {
            "directory" => Connector::Directory,
            "kafka" => Connector::Kafka,
            other => {
                return Err(SqlError::new("22023", format!("there is no connector '{other}'")).hint(
                    "'directory' is the default, 'kafka' reads a topic, 'file' declares a dimension table",
                ));
            }
        };
        if let Some(format) = create.options.get("format").filter(|format| *format != "json") {
            return Err(SqlError::new("0A000", format!("format = '{format}' is not in this version"))
                .hint("it is 'json', one object per record"));
        }
        codec_options(&create.options)?;
        self.logs.allow(connector)?;
        let found = match connector {
            Connector::Directory => self.new_directory(&create).await?,
            Connector::Kafka => self.topic(&create).await?,
        };
        let Some((log, start)) = found else { return Ok(()) };
        let source = Source {
            id: SourceId::new(),
            name: create.name,
            columns: create.columns,
            connector,
            options: create.options,
            log,
            start,
        };
        self.commit(|_| Ok(vec![Action::CreateSource(source.clone())])).await
    }

    /// The directory log of a new source; none if the source exists and that is all right.
    async fn new_directory(&self, create: &CreateSource) -> Result<Option<Beginning>, SqlError> {
        known_options(&create.options, &DIRECTORY_OPTIONS)?;
        let partitions = match create.options.get("partitions") {
            None => 1,
            Some(text) => text.parse().ok().filter(|n| (1..=1024).contains(n)).ok_or_else(|| {
                SqlError::new("22023", format!("partitions = '{text}' is not a number from 1 to 1024"))
            })?,
        };
        if self.settled(&create.name, create.if_not_exists).await? {
            return Ok(None);
        }
        let dir = self.logs.directory(&create.name, &create.options);
        let created = tokio::task::spawn_blocking(move || DirectoryLog::create(dir, partitions)).await;
        let io = |error: &dyn std::fmt::Display| SqlError::new("58030", error.to_string());
        let log = created.map_err(|error| io(&error))?.map_err(|error| io(&error))?;
        Ok(Some((log.id().await.map_err(|error| io(&error))?, OffsetVector::zero())))
    }

    /// The topic of a new source; none if the source exists and that is all right.
    async fn topic(&self, create: &CreateSource) -> Result<Option<Beginning>, SqlError> {
        let own = create.options.iter().filter(|(name, _)| !name.starts_with(PROPERTY));
        known_options(&own.map(|(name, value)| (name.clone(), value.clone())).collect(), &KAFKA_OPTIONS)?;
        let secret = create.options.keys().filter_map(|name| name.strip_prefix(PROPERTY));
        if let Some(name) = secret.into_iter().find(|name| name.contains("password") || name.contains("key"))
        {
            return Err(SqlError::new("22023", format!("{name} does not belong into the catalog"))
                .hint("set it under [kafka.properties] in stratus.toml, or in the environment"));
        }
        let topic = create.options.get("topic").ok_or_else(|| {
            SqlError::new("22023", "a source over Kafka needs a topic")
                .hint("WITH (connector = 'kafka', topic = 'ad-events')")
        })?;
        let start: Start =
            create.options.get("start").map_or("earliest", String::as_str).parse().map_err(
                |error: stratus_logs::kafka::StartError| SqlError::new("22023", error.to_string()),
            )?;
        if self.settled(&create.name, create.if_not_exists).await? {
            return Ok(None);
        }
        let settings = self.logs.kafka(&create.options)?;
        let log_error = |error: stratus_seam::log::LogError| SqlError::new("58030", error.to_string());
        let facts = KafkaTopic::look(&settings, topic).await.map_err(log_error)?;
        if facts.is_compacted() {
            return Err(SqlError::new("22023", format!("topic \"{topic}\" has cleanup.policy = compact"))
                .detail("Compaction removes events, and a view counts every event.")
                .hint("read a topic with cleanup.policy = delete"));
        }
        let start = KafkaTopic::resolve_start(&settings, topic, &start).await.map_err(log_error)?;
        Ok(Some((facts.log_id, start)))
    }

    async fn create_dimension(&self, create: CreateDimension) -> Result<(), SqlError> {
        let path = create.options.get("path").ok_or_else(|| {
            SqlError::new("22023", "a dimension table needs the path of its file")
                .hint("WITH (connector = 'file', path = 'ads.csv')")
        })?;
        if self.settled(&create.name, create.if_not_exists).await? {
            return Ok(());
        }
        let copied =
            self.lake.copy_dimension(&create.name, Path::new(path), &create.options, &create.columns).await;
        let dimension = copied.map_err(|error| lake_error(&error))?;
        self.commit(|_| Ok(vec![Action::CreateDimension(dimension.clone())])).await
    }

    /// Creates the view and waits for its first version, as PostgreSQL's does until it is populated.
    async fn create_view(&self, create: CreateView) -> Result<(), SqlError> {
        if create.or_replace {
            return Err(SqlError::new("0A000", "a view cannot be replaced in this version")
                .hint("create it under another name, or drop it first"));
        }
        known_options(&create.options, &SCHEDULE_OPTIONS)?;
        Schedule::of(&create.options).map_err(|error| {
            let position = create.option_positions.get(error.option).copied();
            SqlError::new("22023", error.to_string()).hint(error.hint).at(position)
        })?;
        if self.settled(&create.name, create.if_not_exists).await? {
            return Ok(());
        }
        let catalog = self.refresh().await?;
        let compiled = View::compile(&create.name, &create.query_sql, &relations(&catalog)).await;
        let view = compiled.map_err(|error| error.shifted(create.query_position))?;
        let id = ViewId::new();
        let define = |catalog: &CatalogState| {
            let missing = |name: &str| CatalogError::from(CatalogMisfit::Missing(name.to_owned()));
            let source = catalog.sources.get(view.source()).ok_or_else(|| missing(view.source()))?;
            let mut dimensions = BTreeMap::new();
            for name in view.dimensions() {
                let dimension = catalog.dimensions.get(name).ok_or_else(|| missing(name))?;
                dimensions.insert(name.clone(), dimension.hash.clone());
            }
            Ok(vec![Action::CreateView(ViewDefinition {
                id,
                name: create.name.clone(),
                source: source.id,
                dimensions,
                sql: create.query_sql.clone(),
                options: create.options.clone(),
                created_ms: now_ms(),
            })])
        };
        self.commit(define).await?;
        if request::first_version(&self.lake.runs(), &self.catalog, id, FIRST_VERSION).await? {
            return Ok(());
        }
        let absent = self.absent(id, &create.name).await;
        // In one commit with the look: a version that came after all is not thrown away.
        let mut is_withdrawn = false;
        self.commit(|catalog| {
            is_withdrawn = catalog.view(id).is_some() && catalog.versions_of(id).is_empty();
            Ok(if is_withdrawn { vec![Action::DropView { id }] } else { Vec::new() })
        })
        .await?;
        if is_withdrawn { Err(absent) } else { Ok(()) }
    }

    /// Which layer does nothing for a new view.
    async fn absent(&self, id: ViewId, name: &str) -> SqlError {
        let taken_up = async {
            let catalog = self.catalog.seen();
            let source = catalog.view(id)?.source;
            let state = self.states.source(source).await.ok()?;
            let ledger = state.ledger.read().await.ok()??;
            ledger.views.contains_key(&id).then_some(())
        };
        let (layer, command) = match taken_up.await {
            Some(()) => ("no batch layer works on the first version of", "batch"),
            None => ("no speed layer has taken up", "speed"),
        };
        let waited = FIRST_VERSION.as_secs();
        SqlError::new("55000", format!("{layer} view \"{name}\" within {waited} s"))
            .detail("the view was not created")
            .hint(format!("start that layer (`stratus {command}`, or `stratus up` for all layers) and ask again; stratus.lag and stratus.runs show what the layers do"))
    }

    async fn drop(&self, drop: Drop) -> Result<(), SqlError> {
        let decide = |catalog: &CatalogState| {
            let name = &drop.name;
            let action = match drop.kind {
                DropKind::MaterializedView => {
                    catalog.views.get(name).map(|view| Action::DropView { id: view.id })
                }
                DropKind::Table => {
                    let source = catalog.sources.get(name).map(|source| Action::DropSource { id: source.id });
                    let dimension = catalog.dimensions.contains_key(name);
                    source.or_else(|| dimension.then(|| Action::DropDimension { name: name.clone() }))
                }
            };
            match action {
                Some(action) => Ok(vec![action]),
                None if drop.if_exists => Ok(Vec::new()),
                None => Err(CatalogError::from(CatalogMisfit::Missing(name.clone()))),
            }
        };
        self.commit(decide).await
    }

    /// Whether a name is taken and that is all right.
    async fn settled(&self, name: &str, if_not_exists: bool) -> Result<bool, SqlError> {
        let catalog = self.refresh().await?;
        let taken = catalog.sources.contains_key(name)
            || catalog.dimensions.contains_key(name)
            || catalog.views.contains_key(name);
        if taken && !if_not_exists {
            return Err(catalog_error(&CatalogMisfit::Exists(name.to_owned()).into()));
        }
        Ok(taken)
    }

    async fn refresh(&self) -> Result<Arc<CatalogState>, SqlError> {
        self.catalog.refresh().await.map_err(|error| catalog_error(&error))
    }

    async fn commit(
        &self,
        decide: impl FnMut(&CatalogState) -> Result<Vec<Action>, CatalogError>,
    ) -> Result<(), SqlError> {
        self.catalog.commit(decide).await.map(drop).map_err(|error| catalog_error(&error))
    }
}

/// Refuses options that nothing reads.
fn known_options(options: &BTreeMap<String, String>, known: &[&str]) -> Result<(), SqlError> {
    match options.keys().find(|option| !known.contains(&option.as_str())) {
        None => Ok(()),
        Some(option) if known.is_empty() => {
            Err(SqlError::new("22023", format!("option \"{option}\" is not known: there are none here")))
        }
        Some(option) => Err(SqlError::new("22023", format!("option \"{option}\" is not known"))
            .hint(format!("the options are {}", known.join(", ")))),
    }
}

#[async_trait]
impl Administration for Administrator {
    async fn carry_out(&self, statement: Statement) -> Result<(), SqlError> {
        match statement {
            Statement::CreateSource(create) => self.create_source(create).await,
            Statement::CreateDimension(create) => self.create_dimension(create).await,
            Statement::CreateView(create) => self.create_view(create).await,
            Statement::Drop(drop) => self.drop(drop).await,
            Statement::Refresh { view } => {
                let runs = self.lake.runs();
                request::refresh(&runs, &self.catalog, &view, &AskPatience::default()).await.map(drop)
            }
            Statement::Other => Err(SqlError::new("XX000", "a query came where a command was expected")),
        }
    }
}
