//! The tables of the system catalog that list the engine's relations.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, new_null_array};
use datafusion::arrow::compute::{concat_batches, filter_record_batch};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::DataFusionError;
use datafusion::datasource::TableType;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion_pg_catalog::pg_catalog::catalog_info::CatalogInfo;
use datafusion_pg_catalog::pg_catalog::context::{PgCatalogContextProvider, Role};
use datafusion_pg_catalog::pg_catalog::{PgCatalogSchemaProvider, PgCatalogStaticTables, PgCatalogTable};
use futures::TryStreamExt;

use super::catalog::{OWNER, Relation, RelationKind, Relations, SCHEMA};

/// The engine's relations, read anew whenever a table of the catalog is.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    relations: Arc<dyn Relations>,
    last: Arc<Mutex<Arc<Vec<Relation>>>>,
}

impl Listed {
    pub(super) fn new(relations: Arc<dyn Relations>) -> Self {
        Self { relations, last: Arc::default() }
    }

    async fn refresh(&self) -> Result<Arc<Vec<Relation>>, DataFusionError> {
        let relations = Arc::new(self.relations.relations().await?);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&relations);
        Ok(relations)
    }

    fn last(&self) -> Arc<Vec<Relation>> {
        Arc::clone(&self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn find(&self, schema: &str, name: &str) -> Option<Relation> {
        self.last().iter().find(|relation| relation.schema == schema && relation.name == name).cloned()
    }
}

#[async_trait]
impl CatalogInfo for Listed {
    /// Every table of the catalog asks this first.
    async fn catalog_names(&self) -> Result<Vec<String>, DataFusionError> {
        self.refresh().await?;
        Ok(vec!["stratus".to_owned()])
    }

    async fn schema_names(&self, _catalog: &str) -> Result<Option<Vec<String>>, DataFusionError> {
        let mut names: BTreeSet<String> =
            self.last().iter().map(|relation| relation.schema.clone()).collect();
        names.extend(["public", SCHEMA, "information_schema"].map(str::to_owned));
        Ok(Some(names.into_iter().collect()))
    }

    async fn table_names(
        &self,
        _catalog: &str,
        schema: &str,
    ) -> Result<Option<Vec<String>>, DataFusionError> {
        let relations = self.last();
        let of_schema = relations.iter().filter(|relation| relation.schema == schema);
        Ok(Some(of_schema.map(|relation| relation.name.clone()).collect()))
    }

    async fn table_schema(
        &self,
        _catalog: &str,
        schema: &str,
        table: &str,
    ) -> Result<Option<SchemaRef>, DataFusionError> {
        Ok(self.find(schema, table).map(|relation| relation.columns))
    }

    async fn table_type(
        &self,
        _catalog: &str,
        schema: &str,
        table: &str,
    ) -> Result<Option<TableType>, DataFusionError> {
        Ok(self.find(schema, table).map(|relation| match relation.kind {
            RelationKind::Table => TableType::Base,
            RelationKind::MaterializedView | RelationKind::View => TableType::View,
        }))
    }
}

/// Nobody is authenticated, so there is one role that owns everything.
#[derive(Debug, Clone)]
pub(super) struct Roles;

#[async_trait]
impl PgCatalogContextProvider for Roles {
    async fn roles(&self) -> Vec<String> {
        vec![OWNER.to_owned()]
    }

    async fn role(&self, name: &str) -> Option<Role> {
        (name == OWNER).then(|| Role {
            name: OWNER.to_owned(),
            is_superuser: false,
            can_login: true,
            can_create_db: false,
            can_create_role: false,
            can_create_user: false,
            can_replication: false,
            grants: Vec::new(),
            inherited_roles: Vec::new(),
        })
    }
}

/// The schema, with materialized views shown as such.
#[derive(Debug)]
pub(super) struct Catalog {
    inner: PgCatalogSchemaProvider<Listed, Roles>,
    listed: Listed,
}

impl Catalog {
    pub(super) fn new(listed: Listed, statics: Arc<PgCatalogStaticTables>) -> Result<Self, DataFusionError> {
        let inner = PgCatalogSchemaProvider::try_new(listed.clone(), statics, Roles)?;
        Ok(Self { inner, listed })
    }
}

#[async_trait]
impl SchemaProvider for Catalog {
    fn table_names(&self) -> Vec<String> {
        self.inner.table_names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let Some(table) = self.inner.build_table_by_name(name)? else {
            return Ok(None);
        };
        let change = match name {
            "pg_class" => Change::MarkMaterialized,
            "pg_tables" => Change::TablesOnly,
            "pg_matviews" => Change::Materialized,
            "pg_index" | "pg_constraint" => Change::Nothing,
            _ => Change::None,
        };
        let original = table.schema();
        let inner = match table {
            PgCatalogTable::Dynamic(inner) => Rows::Computed(inner),
            PgCatalogTable::Static(table) => Rows::Kept(table.data().to_vec()),
            PgCatalogTable::Empty(_) => Rows::Kept(Vec::new()),
        };
        let schema = with_lists(name, &original);
        let changed = Changed { schema, original, inner, change, listed: self.listed.clone() };
        Ok(Some(PgCatalogTable::Dynamic(Arc::new(changed)).try_into_table_provider()?))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.inner.table_exist(name)
    }
}

/// The table with the types that clients expect of its arrays, which would be texts; all of these are NULL, or the
/// table has no rows.
fn with_lists(table: &str, schema: &SchemaRef) -> SchemaRef {
    let list = |item: DataType| DataType::List(Arc::new(Field::new_list_field(item, true)));
    let mut fields: Vec<FieldRef> = schema
        .fields()
        .iter()
        .map(|field| {
            let kind = match field.name().as_str() {
                "indkey" | "indoption" | "conkey" | "confkey" => list(DataType::Int16),
                "indcollation" | "indclass" => list(DataType::Int32),
                name if LISTS.contains(&name) => list(DataType::Utf8),
                _ => return Arc::clone(field),
            };
            Arc::new(Field::new(field.name(), kind, true))
        })
        .collect();
    if table == "pg_class" {
        for name in ["relacl", "reloptions"] {
            fields.push(Arc::new(Field::new(name, list(DataType::Utf8), true)));
        }
    }
    Arc::new(Schema::new(fields))
}

/// Privileges and options, of which there are none.
const LISTS: &[&str] = &[
    "attacl",
    "attoptions",
    "attfdwoptions",
    "datacl",
    "defaclacl",
    "lanacl",
    "nspacl",
    "proacl",
    "setconfig",
    "spcacl",
    "spcoptions",
    "typacl",
];

/// What is changed in a table of the catalog.
#[derive(Debug, Clone, Copy)]
enum Change {
    /// Nothing but the types of its arrays.
    None,
    /// `pg_class.relkind` of materialized views is `m`.
    MarkMaterialized,
    /// Only tables are tables.
    TablesOnly,
    /// The list of materialized views, which would be empty.
    Materialized,
    /// There are no indexes and no constraints, not even those of PostgreSQL's own tables.
    Nothing,
}

#[derive(Debug, Clone)]
enum Rows {
    Computed(Arc<dyn PartitionStream>),
    Kept(Vec<RecordBatch>),
}

#[derive(Debug, Clone)]
struct Changed {
    schema: SchemaRef,
    original: SchemaRef,
    inner: Rows,
    change: Change,
    listed: Listed,
}

impl PartitionStream for Changed {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let schema = Arc::clone(&self.schema);
        let this = self.clone();
        let rows = futures::stream::once(async move { this.rows(context).await });
        Box::pin(RecordBatchStreamAdapter::new(schema, rows))
    }
}

impl Changed {
    async fn rows(&self, context: Arc<TaskContext>) -> Result<RecordBatch, DataFusionError> {
        let rows = match (self.change, &self.inner) {
            (Change::Materialized, _) => materialized(&self.original, &self.listed.refresh().await?)?,
            (Change::Nothing, _) => RecordBatch::new_empty(Arc::clone(&self.original)),
            (_, Rows::Computed(inner)) => {
                let batches: Vec<RecordBatch> = inner.execute(context).try_collect().await?;
                concat_batches(&self.original, &batches)?
            }
            (_, Rows::Kept(batches)) => concat_batches(&self.original, batches)?,
        };
        let relations = self.listed.last();
        let rows = match self.change {
            Change::MarkMaterialized => mark_materialized(&rows, &relations)?,
            Change::TablesOnly => tables_only(&rows, &relations)?,
            Change::None | Change::Materialized | Change::Nothing => rows,
        };
        let columns = self.schema.fields().iter().map(|field| match rows.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Arc::clone(column),
            _ => new_null_array(field.data_type(), rows.num_rows()),
        });
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns.collect())?)
    }
}

fn column<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a StringArray, DataFusionError> {
    let found = rows.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    found.ok_or_else(|| DataFusionError::Internal(format!("the system catalog has no text column {name}")))
}

fn mark_materialized(rows: &RecordBatch, relations: &[Relation]) -> Result<RecordBatch, DataFusionError> {
    let materialized: HashSet<&str> = relations
        .iter()
        .filter(|relation| relation.kind == RelationKind::MaterializedView)
        .map(|relation| relation.name.as_str())
        .collect();
    let names = column(rows, "relname")?;
    let kinds = column(rows, "relkind")?;
    let kinds: StringArray = names
        .iter()
        .zip(kinds)
        .map(|(name, kind)| match (name, kind) {
            (Some(name), Some("v")) if materialized.contains(name) => Some("m"),
            (_, kind) => kind,
        })
        .collect();
    let schema = rows.schema();
    let at = schema.index_of("relkind")?;
    let mut columns = rows.columns().to_vec();
    if let Some(place) = columns.get_mut(at) {
        *place = Arc::new(kinds);
    }
    Ok(RecordBatch::try_new(schema, columns)?)
}

fn tables_only(rows: &RecordBatch, relations: &[Relation]) -> Result<RecordBatch, DataFusionError> {
    let schemas = column(rows, "schemaname")?;
    let names = column(rows, "tablename")?;
    let is_table = |schema: Option<&str>, name: Option<&str>| {
        relations.iter().any(|relation| {
            relation.kind == RelationKind::Table
                && Some(relation.schema.as_str()) == schema
                && Some(relation.name.as_str()) == name
        })
    };
    let keep: BooleanArray =
        schemas.iter().zip(names).map(|(schema, name)| Some(is_table(schema, name))).collect();
    Ok(filter_record_batch(rows, &keep)?)
}

fn materialized(schema: &SchemaRef, relations: &[Relation]) -> Result<RecordBatch, DataFusionError> {
    let views: Vec<&Relation> =
        relations.iter().filter(|relation| relation.kind == RelationKind::MaterializedView).collect();
    let text = |value: fn(&Relation) -> &str| -> ArrayRef {
        Arc::new(views.iter().map(|view| Some(value(view))).collect::<StringArray>())
    };
    let columns = schema.fields().iter().map(|field| match field.name().as_str() {
        "schemaname" => text(|view| &view.schema),
        "matviewname" => text(|view| &view.name),
        "matviewowner" => text(|_| OWNER),
        "hasindexes" => Arc::new(BooleanArray::from(vec![false; views.len()])) as ArrayRef,
        "ispopulated" => Arc::new(BooleanArray::from(vec![true; views.len()])) as ArrayRef,
        _ => new_null_array(field.data_type(), views.len()),
    });
    Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect())?)
}
