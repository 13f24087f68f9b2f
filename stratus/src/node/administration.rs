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
use stratus_seam::catalog::{Action, CatalogMisfit, CatalogState, Connector, Source, ViewDefinition};
use stratus_seam::catalog_log::{Catalog, CatalogError, now_ms};
use stratus_seam::ids::{SourceId, ViewId};
use stratus_seam::log::Log;
use stratus_seam::offsets::OffsetVector;
use stratus_serving::{Administration, catalog_error, lake_error};
use stratus_sql::cataloged::relations;
use stratus_sql::ddl::{CreateDimension, CreateSource, CreateView, Drop, DropKind, Statement};
use stratus_sql::{SqlError, View};

use super::sources::{OpenLogs, codec_options};

/// Between two looks for a new view's first version.
const POLL: Duration = Duration::from_millis(20);
/// The options that a source over a directory log knows.
const DIRECTORY_OPTIONS: [&str; 5] = ["connector", "format", "partitions", "path", "timestamp_unit"];

/// Carries out DDL.
#[derive(Debug)]
pub(super) struct Administrator {
    catalog: Arc<Catalog>,
    lake: Lake,
    logs: Arc<OpenLogs>,
}

impl Administrator {
    pub(super) const fn new(catalog: Arc<Catalog>, lake: Lake, logs: Arc<OpenLogs>) -> Self {
        Self { catalog, lake, logs }
    }

    async fn create_source(&self, create: CreateSource) -> Result<(), SqlError> {
        let connector = create.options.get("connector").map_or("directory", String::as_str);
        if connector != "directory" {
            let what = format!("connector = '{connector}' is not in this version");
            return Err(SqlError::new("0A000", what)
                .hint("connector = 'directory' is the default; 'file' declares a dimension table"));
        }
        known_options(&create.options, &DIRECTORY_OPTIONS)?;
        if let Some(format) = create.options.get("format").filter(|format| *format != "json") {
            return Err(SqlError::new("0A000", format!("format = '{format}' is not in this version"))
                .hint("it is 'json', one object per line"));
        }
        codec_options(&create.options)?;
        let partitions = match create.options.get("partitions") {
            None => 1,
            Some(text) => text.parse().ok().filter(|n| (1..=1024).contains(n)).ok_or_else(|| {
                SqlError::new("22023", format!("partitions = '{text}' is not a number from 1 to 1024"))
            })?,
        };
        if self.settled(&create.name, create.if_not_exists).await? {
            return Ok(());
        }
        let dir = self.logs.directory(&create.name, &create.options);
        let created = tokio::task::spawn_blocking(move || DirectoryLog::create(dir, partitions)).await;
        let io = |error: &dyn std::fmt::Display| SqlError::new("58030", error.to_string());
        let log = created.map_err(|error| io(&error))?.map_err(|error| io(&error))?;
        let source = Source {
            id: SourceId::new(),
            name: create.name,
            columns: create.columns,
            connector: Connector::Directory,
            options: create.options,
            log: log.id().await.map_err(|error| io(&error))?,
            start: OffsetVector::zero(),
        };
        self.commit(|_| Ok(vec![Action::CreateSource(source.clone())])).await
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
        loop {
            let catalog = self.refresh().await?;
            if catalog.view(id).is_none() || !catalog.versions_of(id).is_empty() {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
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
