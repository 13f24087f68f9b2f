//! The engine behind every front door: a statement in, rows or a done command out.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::{SessionConfig, SessionContext};
use stratus_lake::{Lake, MasterDataset};
use stratus_seam::catalog::{CatalogState, Source, ViewDefinition};
use stratus_seam::catalog_log::Catalog;
use stratus_seam::ids::{SourceId, ViewId};
use stratus_seam::log::Log;
use stratus_seam::offsets::OffsetVector;
use stratus_seam::store::StateStore;
use stratus_sql::cataloged::DimensionTables;
use stratus_sql::ddl::Statement;
use stratus_sql::{SqlError, View};
use stratus_topology::LocalCluster;

use crate::error::{catalog_error, lake_error};
use crate::pg::catalog::PgCatalog;
use crate::service::{Client, SqlService, SqlSession};
use crate::session::Session;

/// What the serving layer cannot do itself: it changes the catalog, and asks the batch layer.
#[async_trait]
pub trait Administration: Send + Sync + fmt::Debug {
    /// Carries out a statement of the DDL. Never called with [`Statement::Other`].
    async fn carry_out(&self, statement: Statement) -> Result<(), SqlError>;
}

/// Whoever can open a source's log.
#[async_trait]
pub trait Logs: Send + Sync + fmt::Debug {
    /// The log of a source.
    async fn log(&self, source: &Source) -> Result<Arc<dyn Log>, SqlError>;
}

/// What an engine is made of.
#[derive(Debug)]
pub struct Parts {
    /// The catalog.
    pub catalog: Arc<Catalog>,
    /// The lake.
    pub lake: Lake,
    /// The speed layer's state.
    pub states: Arc<dyn StateStore>,
    /// Dimension tables.
    pub dimensions: Arc<dyn DimensionTables>,
    /// The sources' logs, to tell how far behind each layer is.
    pub logs: Arc<dyn Logs>,
    /// The topologies of this process, which a serving layer by itself has none of.
    pub topologies: Arc<LocalCluster>,
    /// What carries out DDL.
    pub administration: Arc<dyn Administration>,
    /// How long a query waits for speed state that is being rebuilt.
    pub patience: Duration,
}

/// The engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) parts: Parts,
    pub(crate) pg_catalog: PgCatalog,
    runtime: Arc<RuntimeEnv>,
    compiled: Mutex<HashMap<ViewId, Arc<View>>>,
    masters: Mutex<HashMap<SourceId, MasterDataset>>,
    /// The highest vector shown of each source: no answer of this process is older than an earlier one.
    shown: Mutex<HashMap<SourceId, OffsetVector>>,
}

impl Engine {
    /// An engine over its parts.
    ///
    /// # Errors
    /// If PostgreSQL's catalog cannot be set up.
    pub fn new(parts: Parts) -> Result<Self, SqlError> {
        let visible = crate::relation::Visible(Arc::clone(&parts.catalog));
        let pg_catalog =
            PgCatalog::new(Arc::new(visible)).map_err(|error| stratus_sql::sqlstate_of(&error))?;
        Ok(Self(Arc::new(Inner {
            parts,
            pg_catalog,
            runtime: Arc::new(RuntimeEnv::default()),
            compiled: Mutex::default(),
            masters: Mutex::default(),
            shown: Mutex::default(),
        })))
    }
}

#[async_trait]
impl SqlService for Engine {
    async fn session(&self, client: Client) -> Result<Box<dyn SqlSession>, SqlError> {
        Ok(Box::new(Session::new(self.clone(), client)))
    }
}

impl Inner {
    /// The catalog as it stands now.
    pub(crate) async fn catalog(&self) -> Result<Arc<CatalogState>, SqlError> {
        self.parts.catalog.refresh().await.map_err(|error| catalog_error(&error))
    }

    /// A session of the query engine without tables.
    pub(crate) fn context(&self) -> SessionContext {
        let config: SessionConfig = stratus_sql::session::session_config();
        stratus_sql::session::session_context_with(config, Arc::clone(&self.runtime))
    }

    /// A view, compiled once.
    pub(crate) async fn view(
        &self,
        definition: &ViewDefinition,
        catalog: &CatalogState,
    ) -> Result<Arc<View>, SqlError> {
        let known = self.compiled.lock().unwrap_or_else(PoisonError::into_inner).get(&definition.id).cloned();
        if let Some(view) = known {
            return Ok(view);
        }
        let view = Arc::new(View::of(definition, catalog).await?);
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        compiled.retain(|id, _| catalog.view(*id).is_some());
        compiled.insert(definition.id, Arc::clone(&view));
        Ok(view)
    }

    /// The master dataset of a source, opened once.
    pub(crate) async fn master(&self, source: &Source) -> Result<MasterDataset, SqlError> {
        let known = self.masters.lock().unwrap_or_else(PoisonError::into_inner).get(&source.id).cloned();
        if let Some(master) = known {
            return Ok(master);
        }
        let opened = MasterDataset::open(&self.parts.lake, source).await;
        let master = opened.map_err(|error| lake_error(&error))?;
        self.masters.lock().unwrap_or_else(PoisonError::into_inner).insert(source.id, master.clone());
        Ok(master)
    }

    /// The highest vector shown of a source.
    pub(crate) fn shown(&self, source: SourceId) -> OffsetVector {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.get(&source).cloned().unwrap_or_default()
    }

    /// Remembers that a vector was shown.
    pub(crate) fn show(&self, source: SourceId, vector: &OffsetVector) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let highest = shown.entry(source).or_default();
        *highest = highest.join(vector);
    }
}
