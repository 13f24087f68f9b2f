//! Names in SQL and what they stand for.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use stratus_seam::catalog::{CatalogState, Dimension, Source, ViewDefinition};
use stratus_seam::catalog_log::Catalog;
use stratus_seam::schema::{arrow_schema, event_schema};
use stratus_sql::View;

use crate::pg::catalog::{Relation as Shown, RelationKind, Relations};
use crate::system::SystemTable;

/// What a view's name, with or without a suffix, asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Both layers, merged: the view itself.
    Merged,
    /// `<view>_batch`: the batch version alone.
    Batch,
    /// `<view>_speed`: the speed layer's epochs alone.
    Speed,
}

/// What a name in schema `public` stands for.
#[derive(Debug, Clone)]
pub(crate) enum Relation {
    View(ViewDefinition, Side),
    Events(Source),
    DeadLetters(Source),
    Dimension(Dimension),
}

/// Resolves a name of schema `public`.
pub(crate) fn resolve(catalog: &CatalogState, name: &str) -> Option<Relation> {
    let view = |name: &str, side| catalog.views.get(name).map(|view| Relation::View(view.clone(), side));
    view(name, Side::Merged)
        .or_else(|| catalog.sources.get(name).cloned().map(Relation::Events))
        .or_else(|| catalog.dimensions.get(name).cloned().map(Relation::Dimension))
        .or_else(|| name.strip_suffix("_batch").and_then(|name| view(name, Side::Batch)))
        .or_else(|| name.strip_suffix("_speed").and_then(|name| view(name, Side::Speed)))
        .or_else(|| {
            let source = name.strip_suffix("_dead_letters")?;
            catalog.sources.get(source).cloned().map(Relation::DeadLetters)
        })
}

/// The relations that clients may see, for PostgreSQL's catalog.
#[derive(Debug)]
pub(crate) struct Visible(pub(crate) Arc<Catalog>);

#[async_trait]
impl Relations for Visible {
    async fn relations(&self) -> Result<Vec<Shown>, DataFusionError> {
        let catalog = self.0.refresh().await.map_err(|error| DataFusionError::External(Box::new(error)))?;
        let shown = |schema: &str, name: String, columns: SchemaRef, kind| Shown {
            schema: schema.to_owned(),
            name,
            columns,
            kind,
        };
        let table = |name: String, columns| shown("public", name, columns, RelationKind::Table);
        let mut all = Vec::new();
        for source in catalog.sources.values() {
            all.push(table(source.name.clone(), event_schema(&source.columns)));
            all.push(table(format!("{}_dead_letters", source.name), stratus_lake::dead_letter_schema()));
        }
        for dimension in catalog.dimensions.values() {
            all.push(table(dimension.name.clone(), arrow_schema(&dimension.columns)));
        }
        for definition in catalog.views.values() {
            let compiled = View::of(definition, &catalog).await;
            let columns =
                compiled.map_err(|error| DataFusionError::External(Box::new(error)))?.output_schema();
            let name = &definition.name;
            all.push(shown("public", name.clone(), Arc::clone(&columns), RelationKind::MaterializedView));
            for side in ["batch", "speed"] {
                let name = format!("{name}_{side}");
                all.push(shown("public", name, Arc::clone(&columns), RelationKind::View));
            }
        }
        for system in SystemTable::ALL {
            all.push(shown("stratus", system.name().to_owned(), system.schema(), RelationKind::View));
        }
        Ok(all)
    }
}
