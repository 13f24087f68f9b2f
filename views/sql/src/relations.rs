//! What a view may read: sources of events and dimension tables, as the catalog knows them.

use std::collections::BTreeMap;

use datafusion::arrow::datatypes::SchemaRef;
use stratus_seam::schema::{Column, LOG_COLUMN, arrow_schema, event_schema};

/// A table that a view may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relation {
    /// A stream of events.
    Source {
        /// The declared columns.
        columns: Vec<Column>,
    },
    /// A table that does not change but by a new content hash.
    Dimension {
        /// The declared columns.
        columns: Vec<Column>,
        /// The hash of its content: another one makes every view over it another view.
        content_hash: String,
    },
}

impl Relation {
    /// The declared columns.
    pub fn columns(&self) -> &[Column] {
        match self {
            Self::Source { columns } | Self::Dimension { columns, .. } => columns,
        }
    }

    /// What a view may name: for a source also where an event stands in its log, but not which log it is.
    pub(crate) fn schema(&self) -> SchemaRef {
        match self {
            Self::Dimension { columns, .. } => arrow_schema(columns),
            Self::Source { columns } => {
                let schema = event_schema(columns);
                let fields = schema.fields().iter().filter(|field| field.name() != LOG_COLUMN).cloned();
                std::sync::Arc::new(datafusion::arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()))
            }
        }
    }
}

/// The tables that a definition is compiled against, by name.
#[derive(Debug, Clone, Default)]
pub struct Relations {
    tables: BTreeMap<String, Relation>,
}

impl Relations {
    /// No tables.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a source.
    #[must_use]
    pub fn with_source(mut self, name: impl Into<String>, columns: Vec<Column>) -> Self {
        self.tables.insert(name.into(), Relation::Source { columns });
        self
    }

    /// With a dimension table.
    #[must_use]
    pub fn with_dimension(
        mut self,
        name: impl Into<String>,
        columns: Vec<Column>,
        content_hash: impl Into<String>,
    ) -> Self {
        self.tables.insert(name.into(), Relation::Dimension { columns, content_hash: content_hash.into() });
        self
    }

    /// The table of that name.
    pub fn get(&self, name: &str) -> Option<&Relation> {
        self.tables.get(name)
    }

    /// All tables, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Relation)> {
        self.tables.iter().map(|(name, relation)| (name.as_str(), relation))
    }
}
