//! Parquet files of the lake as a table for DataFusion, with exactly the types that it is told.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::{DFSchema, DataFusionError, Result};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::TableProvider;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::filter::FilterExecBuilder;
use datafusion::physical_plan::union::UnionExec;

use crate::Lake;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LakeFile {
    /// Its path in the lake.
    pub(crate) path: String,
    /// Its size.
    pub(crate) bytes: u64,
}

/// Files as one table. The reader casts each column to the type of `schema`, so that neither a session's settings
/// (view types) nor the Parquet files' own idea of a type can change what a sketch hashes.
#[derive(Debug)]
pub(crate) struct FileTable {
    pub(crate) lake: Lake,
    pub(crate) schema: SchemaRef,
    /// Files of which every row belongs to the table.
    pub(crate) whole: Vec<LakeFile>,
    /// Files of which the rows belong that meet `condition`.
    pub(crate) across: Vec<LakeFile>,
    pub(crate) condition: Option<Expr>,
}

impl FileTable {
    pub(crate) fn new(lake: Lake, schema: SchemaRef, whole: Vec<LakeFile>) -> Self {
        Self { lake, schema, whole, across: Vec::new(), condition: None }
    }

    /// Scans files; `wanted` may prune what is read, and is not a promise.
    fn read(
        &self,
        state: &dyn Session,
        files: &[LakeFile],
        columns: Vec<usize>,
        wanted: Option<Expr>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let global = state.config_options().execution.parquet.clone();
        let options = TableParquetOptions { global, ..TableParquetOptions::default() };
        let mut source = ParquetSource::new(Arc::clone(&self.schema)).with_table_parquet_options(options);
        if let Some(wanted) = wanted {
            let schema = DFSchema::try_from(Arc::clone(&self.schema))?;
            source = source.with_predicate(state.create_physical_expr(wanted, &schema)?);
        }
        let mut files: Vec<&LakeFile> = files.iter().collect();
        // The largest first, dealt out in turn: groups of about one size.
        files.sort_by_key(|file| std::cmp::Reverse(file.bytes));
        let groups = state.config().target_partitions().clamp(1, files.len().max(1));
        let mut dealt = vec![Vec::new(); groups];
        for (turn, file) in files.into_iter().enumerate() {
            if let Some(group) = dealt.get_mut(turn % groups) {
                group.push(PartitionedFile::new(&file.path, file.bytes));
            }
        }
        let config = FileScanConfigBuilder::new(self.lake.scans().clone(), Arc::new(source))
            .with_file_groups(dealt.into_iter().map(FileGroup::new).collect())
            .with_projection_indices(Some(columns))?
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    /// Scans the files that lie across, and takes their rows that meet the condition.
    fn read_across(
        &self,
        state: &dyn Session,
        condition: &Expr,
        columns: &[usize],
        wanted: Option<Expr>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut needed = columns.to_vec();
        for column in condition.column_refs() {
            let index = self.schema.index_of(&column.name)?;
            if !needed.contains(&index) {
                needed.push(index);
            }
        }
        let wanted = wanted.into_iter().fold(condition.clone(), Expr::and);
        let scan = self.read(state, &self.across, needed, Some(wanted))?;
        let schema = DFSchema::try_from(scan.schema())?;
        let filter = state.create_physical_expr(condition.clone(), &schema)?;
        let filtered = FilterExecBuilder::new(filter, scan)
            .apply_projection(Some((0..columns.len()).collect()))?
            .build()?;
        Ok(Arc::new(filtered))
    }
}

#[async_trait]
impl TableProvider for FileTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let url: &url::Url = self.lake.scans().as_ref();
        state.runtime_env().register_object_store(url, Arc::clone(self.lake.store()));
        let columns = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let wanted = conjunction(filters.to_vec());
        let mut scans = Vec::new();
        if !self.whole.is_empty() {
            scans.push(self.read(state, &self.whole, columns.clone(), wanted.clone())?);
        }
        match &self.condition {
            Some(condition) if !self.across.is_empty() => {
                scans.push(self.read_across(state, condition, &columns, wanted)?);
            }
            None if !self.across.is_empty() => {
                return Err(DataFusionError::Internal("files lie across no condition".into()));
            }
            _ => {}
        }
        match scans.pop() {
            None => {
                let schema: Schema = self.schema.project(&columns)?;
                Ok(Arc::new(EmptyExec::new(Arc::new(schema))))
            }
            Some(only) if scans.is_empty() => Ok(only),
            Some(last) => {
                scans.push(last);
                UnionExec::try_new(scans)
            }
        }
    }
}
