//! From the catalog's record of a view to the compiled view, its readable versions, and the tables that it joins.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::datasource::TableProvider;
use stratus_seam::catalog::{CatalogState, Version, ViewDefinition};
use stratus_seam::ids::ViewId;

use crate::{Relations, STATE_FORMAT, SqlError, View};

/// The version of the engine that states are written by: another one may lay them out otherwise.
pub fn engine() -> String {
    format!("datafusion {} with state format {STATE_FORMAT}", datafusion::DATAFUSION_VERSION)
}

/// The versions of a view that were computed with exactly this definition and engine, oldest first. Others are
/// never read: their states may mean something else.
pub fn readable_versions(catalog: &CatalogState, view: ViewId, fingerprint: &str) -> Vec<Version> {
    catalog.versions_of(view).iter().filter(|version| version.fingerprint == fingerprint).cloned().collect()
}

/// Whoever can give the copied content of a dimension table.
#[async_trait]
pub trait DimensionTables: Send + Sync + fmt::Debug {
    /// The table `name` with the content that hashes to `hash`.
    async fn table(&self, name: &str, hash: &str) -> Result<Arc<dyn TableProvider>, SqlError>;
}

/// Dimension tables by name.
pub type Tables = HashMap<String, Arc<dyn TableProvider>>;

/// The dimension tables of a view, by name.
///
/// # Errors
/// If one of them cannot be read.
pub async fn tables_of(
    definition: &ViewDefinition,
    dimensions: &dyn DimensionTables,
) -> Result<Tables, SqlError> {
    let mut tables = Tables::new();
    for (name, hash) in &definition.dimensions {
        tables.insert(name.clone(), dimensions.table(name, hash).await?);
    }
    Ok(tables)
}

impl View {
    /// Compiles a view of the catalog.
    ///
    /// # Errors
    /// If the catalog's definition no longer compiles, which another version of this program may cause.
    pub async fn of(definition: &ViewDefinition, catalog: &CatalogState) -> Result<Self, SqlError> {
        Self::compile(&definition.name, &definition.sql, &relations(catalog)).await
    }
}

/// What the views of a catalog may read.
pub fn relations(catalog: &CatalogState) -> Relations {
    let mut relations = Relations::new();
    for source in catalog.sources.values() {
        relations = relations.with_source(&source.name, source.columns.clone());
    }
    for dimension in catalog.dimensions.values() {
        relations = relations.with_dimension(&dimension.name, dimension.columns.clone(), &dimension.hash);
    }
    relations
}
