//! Dimension tables out of the lake, each read once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::datasource::TableProvider;
use stratus_lake::Lake;
use stratus_seam::catalog_log::Catalog;
use stratus_serving::{catalog_error, lake_error};
use stratus_sql::SqlError;
use stratus_sql::cataloged::DimensionTables;

/// Reads dimension tables from the lake, by content.
#[derive(Debug)]
pub(super) struct LakeDimensions {
    lake: Lake,
    catalog: Catalog,
    read: Mutex<HashMap<String, Arc<dyn TableProvider>>>,
}

impl LakeDimensions {
    pub(super) fn new(lake: Lake) -> Self {
        let catalog = Catalog::new(Arc::new(lake.catalog()));
        Self { lake, catalog, read: Mutex::default() }
    }
}

#[async_trait]
impl DimensionTables for LakeDimensions {
    async fn table(&self, name: &str, hash: &str) -> Result<Arc<dyn TableProvider>, SqlError> {
        // Under the name as well: equal content may be declared with other columns.
        let key = format!("{name} {hash}");
        let known = self.read.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(table) = known {
            return Ok(table);
        }
        let catalog = self.catalog.refresh().await.map_err(|error| catalog_error(&error))?;
        let dimension = catalog.dimensions.get(name).filter(|dimension| dimension.hash == hash);
        let dimension = dimension.ok_or_else(|| {
            SqlError::new("42P01", format!("dimension table \"{name}\" with content {hash} does not exist"))
        })?;
        let table = self.lake.dimension_provider(dimension).await.map_err(|error| lake_error(&error))?;
        self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&table));
        Ok(table)
    }
}
