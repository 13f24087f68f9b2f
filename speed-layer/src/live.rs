//! The views of a source as the speed layer computes them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::FieldRef;
use stratus_logs::codec::{CodecOptions, JsonCodec};
use stratus_seam::catalog::{CatalogState, Source, Version, ViewDefinition};
use stratus_seam::ids::ViewId;
use stratus_seam::schema::{OFFSET_COLUMN, PARTITION_COLUMN};
use stratus_sql::cataloged::{DimensionTables, Tables};
use stratus_sql::{MergeStates, MicroBatchPlan, View};

use crate::error::SpeedError;

/// One view, from which each task makes the plans that it runs.
#[derive(Debug)]
pub(crate) struct LiveView {
    pub(crate) name: String,
    view: View,
    dimensions: Tables,
    /// The fields of the flat states: first the keys, then the states.
    pub(crate) fields: Vec<FieldRef>,
    /// How many of them are keys.
    pub(crate) keys: usize,
}

/// The views that a source feeds, as of one catalog commit.
#[derive(Debug)]
pub(crate) struct LiveViews {
    pub(crate) views: BTreeMap<ViewId, Arc<LiveView>>,
    /// The columns that some view reads, and those of the log position.
    columns: Vec<String>,
    /// The catalog commit that these views are of.
    head: u64,
    /// Views of the catalog that could not be prepared, with the reason.
    unprepared: BTreeMap<ViewId, (String, SpeedError)>,
}

impl LiveViews {
    /// Prepares the views of a source as they stand in the catalog; those of `before` are kept as they are. A view
    /// that cannot be prepared does not stand in the way of the others.
    pub(crate) async fn prepare(
        source: &Source,
        catalog: &CatalogState,
        dimensions: &dyn DimensionTables,
        before: Option<&Self>,
    ) -> Self {
        let mut views = before.map(|before| before.views.clone()).unwrap_or_default();
        views.retain(|id, _| catalog.view(*id).is_some());
        let mut unprepared = BTreeMap::new();
        for definition in catalog.views_of(source.id) {
            if let Entry::Vacant(free) = views.entry(definition.id) {
                match live(definition, catalog, dimensions).await {
                    Ok(view) => _ = free.insert(Arc::new(view)),
                    Err(error) => _ = unprepared.insert(definition.id, (definition.name.clone(), error)),
                }
            }
        }
        let mut columns = vec![PARTITION_COLUMN.to_owned(), OFFSET_COLUMN.to_owned()];
        columns.extend(views.values().flat_map(|view| view.view.source_columns().iter().cloned()));
        columns.sort_unstable();
        columns.dedup();
        Self { views, columns, head: catalog.head, unprepared }
    }

    /// The names of the views that could not be prepared, each with the reason.
    pub(crate) const fn unprepared(&self) -> &BTreeMap<ViewId, (String, SpeedError)> {
        &self.unprepared
    }

    /// A decoder of just the columns that the views read.
    pub(crate) fn codec(&self, source: &Source, options: &CodecOptions) -> Result<JsonCodec, SpeedError> {
        Ok(JsonCodec::new(&source.columns, *options)?.with_projection(&self.columns)?)
    }

    /// The versions of each view that this engine can read, oldest first.
    pub(crate) fn versions(&self, catalog: &CatalogState) -> BTreeMap<ViewId, Vec<Version>> {
        let readable = |(id, view): (&ViewId, &Arc<LiveView>)| {
            (*id, stratus_sql::cataloged::readable_versions(catalog, *id, view.view.fingerprint()))
        };
        self.views.iter().map(readable).collect()
    }

    /// The catalog commit that these were prepared for.
    pub(crate) const fn head(&self) -> u64 {
        self.head
    }
}

impl LiveView {
    /// Plans the view from events to states.
    pub(crate) async fn plan(&self) -> Result<MicroBatchPlan, SpeedError> {
        MicroBatchPlan::new(&self.view, &self.dimensions).await.map_err(|error| self.failure(&error))
    }

    /// Plans the merge of the view's states.
    pub(crate) async fn merge(&self) -> Result<MergeStates, SpeedError> {
        MergeStates::new(&self.view).await.map_err(|error| self.failure(&error))
    }

    /// What to say if the view cannot be computed.
    pub(crate) fn failure(&self, error: &dyn std::fmt::Display) -> SpeedError {
        SpeedError::View { view: self.name.clone(), message: error.to_string() }
    }
}

/// What each task made of views, once each.
#[derive(Debug)]
pub(crate) struct Planned<P> {
    plans: HashMap<ViewId, (Arc<LiveView>, P)>,
}

impl<P> Default for Planned<P> {
    fn default() -> Self {
        Self { plans: HashMap::new() }
    }
}

impl<P> Planned<P> {
    /// Forgets the views that are gone.
    pub(crate) fn follow(&mut self, live: &LiveViews) {
        self.plans.retain(|id, (view, _)| live.views.get(id).is_some_and(|now| Arc::ptr_eq(now, view)));
    }

    /// The plan of a view, made if there is none.
    pub(crate) async fn get<F>(
        &mut self,
        id: ViewId,
        view: &Arc<LiveView>,
        make: impl FnOnce(Arc<LiveView>) -> F,
    ) -> Result<&mut P, SpeedError>
    where
        F: Future<Output = Result<P, SpeedError>>,
    {
        match self.plans.entry(id) {
            std::collections::hash_map::Entry::Occupied(known) => Ok(&mut known.into_mut().1),
            std::collections::hash_map::Entry::Vacant(free) => {
                let plan = make(Arc::clone(view)).await?;
                Ok(&mut free.insert((Arc::clone(view), plan)).1)
            }
        }
    }
}

async fn live(
    definition: &ViewDefinition,
    catalog: &CatalogState,
    dimensions: &dyn DimensionTables,
) -> Result<LiveView, SpeedError> {
    let failed = |message: String| SpeedError::View { view: definition.name.clone(), message };
    let view = View::of(definition, catalog).await.map_err(|error| failed(error.to_string()))?;
    let dimensions = stratus_sql::cataloged::tables_of(definition, dimensions)
        .await
        .map_err(|error| failed(error.to_string()))?;
    let schema = view.descriptor().state_schema();
    Ok(LiveView {
        name: definition.name.clone(),
        keys: view.descriptor().keys.len(),
        fields: schema.fields().iter().cloned().collect(),
        view,
        dimensions,
    })
}
