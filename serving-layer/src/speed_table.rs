//! The speed layer's states of one view at one T, as a table.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::datasource::{MemTable, TableProvider, TableType};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;

use crate::reading::ViewReading;

/// Reads the states when a query is planned, so that a read that was overtaken starts over before a row was shown.
#[derive(Debug)]
pub(crate) struct SpeedTable(pub(crate) Arc<ViewReading>);

#[async_trait]
impl TableProvider for SpeedTable {
    fn schema(&self) -> SchemaRef {
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
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = self.0.rows().await.map_err(|error| DataFusionError::External(Box::new(error)))?;
        MemTable::try_new(self.schema(), vec![rows])?.scan(state, projection, filters, limit).await
    }
}
