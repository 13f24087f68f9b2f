//! The views of a source as the speed layer computes them: planned once, run for every batch.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use arrow::datatypes::FieldRef;
use stratus_logs::codec::{CodecOptions, JsonCodec};
use stratus_seam::catalog::{CatalogState, Source, Version, ViewDefinition};
use stratus_seam::ids::ViewId;
use stratus_seam::schema::{OFFSET_COLUMN, PARTITION_COLUMN};
use stratus_sql::cataloged::DimensionTables;
use stratus_sql::{MergeStates, MicroBatchPlan, View};

use crate::error::SpeedError;

/// One view, ready to be fed.
#[derive(Debug)]
pub(crate) struct LiveView {
    pub(crate) name: String,
    pub(crate) plan: MicroBatchPlan,
    pub(crate) merge: MergeStates,
    /// The fields of the flat states: first the keys, then the states.
    pub(crate) fields: Vec<FieldRef>,
    /// How many of them are keys.
    pub(crate) keys: usize,
    columns: Vec<String>,
    fingerprint: String,
}

/// The views that a source feeds, and a decoder of just the columns that they read.
#[derive(Debug)]
pub(crate) struct LiveViews {
    pub(crate) views: BTreeMap<ViewId, LiveView>,
    pub(crate) codec: JsonCodec,
    /// The catalog commit that these views are of.
    head: u64,
}

impl LiveViews {
    /// Prepares the views of a source as they stand in the catalog; those of `before` are kept as they are.
    pub(crate) async fn prepare(
        source: &Source,
        catalog: &CatalogState,
        dimensions: &Arc<dyn DimensionTables>,
        options: &CodecOptions,
        before: Option<Self>,
    ) -> Result<Self, SpeedError> {
        let mut views = before.map(|before| before.views).unwrap_or_default();
        views.retain(|id, _| catalog.view(*id).is_some());
        for definition in catalog.views_of(source.id) {
            if let Entry::Vacant(free) = views.entry(definition.id) {
                free.insert(live(definition, catalog, dimensions.as_ref()).await?);
            }
        }
        let mut needed = vec![PARTITION_COLUMN.to_owned(), OFFSET_COLUMN.to_owned()];
        needed.extend(views.values().flat_map(|view| view.columns.iter().cloned()));
        needed.sort_unstable();
        needed.dedup();
        let codec = JsonCodec::new(&source.columns, *options)?.with_projection(&needed)?;
        Ok(Self { views, codec, head: catalog.head })
    }

    /// The versions of each view that this engine can read, oldest first.
    pub(crate) fn versions(&self, catalog: &CatalogState) -> BTreeMap<ViewId, Vec<Version>> {
        let readable = |(id, view): (&ViewId, &LiveView)| {
            (*id, stratus_sql::cataloged::readable_versions(catalog, *id, &view.fingerprint))
        };
        self.views.iter().map(readable).collect()
    }

    /// Whether the catalog has moved on since these were prepared.
    pub(crate) const fn outdated(&self, catalog: &CatalogState) -> bool {
        self.head != catalog.head
    }
}

async fn live(
    definition: &ViewDefinition,
    catalog: &CatalogState,
    dimensions: &dyn DimensionTables,
) -> Result<LiveView, SpeedError> {
    let failed = |message: String| SpeedError::View { view: definition.name.clone(), message };
    let view = View::of(definition, catalog).await.map_err(|error| failed(error.to_string()))?;
    let tables = stratus_sql::cataloged::tables_of(definition, dimensions)
        .await
        .map_err(|error| failed(error.to_string()))?;
    let plan = MicroBatchPlan::new(&view, &tables).await.map_err(|error| failed(error.to_string()))?;
    let merge = MergeStates::new(&view).await.map_err(|error| failed(error.to_string()))?;
    let schema = view.descriptor().state_schema();
    Ok(LiveView {
        name: definition.name.clone(),
        plan,
        merge,
        keys: view.descriptor().keys.len(),
        fields: schema.fields().iter().cloned().collect(),
        columns: view.source_columns().to_vec(),
        fingerprint: view.fingerprint().to_owned(),
    })
}
