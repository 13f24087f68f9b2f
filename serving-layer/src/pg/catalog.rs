//! The system catalog `pg_catalog`, which clients ask for tables, columns and types (psql's `\d`, drivers, BI
//! tools).
//!
//! Its static tables are large and its object ids must stay the same from one statement to the next, so there is
//! one [`PgCatalog`] for an engine; what a single statement needs of it is a handful of shared references.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::SchemaProvider;
use datafusion::common::DataFusionError;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::ScalarUDF;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_pg_catalog::pg_catalog::PgCatalogStaticTables;
use datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_pg_catalog::pg_catalog::generate_series_arg_coercion::CoerceIntArgsToBigInt;
use datafusion_pg_catalog::pg_catalog::oid_type_planner::PgOidTypePlanner;
use datafusion_pg_catalog::setup_pg_catalog;

use super::functions;
use super::lexer::{self, Piece, TokenKind};
use super::relation_tables::{Catalog, Listed};
use super::translation::translated;
use crate::service::Client;

/// The name of the schema.
pub(super) const SCHEMA: &str = "pg_catalog";
/// The owner of everything.
pub(super) const OWNER: &str = "stratus";

/// What the engine offers, as clients see it listed.
#[async_trait]
pub trait Relations: Debug + Send + Sync {
    /// Every relation there is now.
    async fn relations(&self) -> Result<Vec<Relation>, DataFusionError>;
}

/// One relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its columns.
    pub columns: SchemaRef,
    /// What it is.
    pub kind: RelationKind,
}

/// What a relation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationKind {
    /// A table.
    Table,
    /// A materialized view.
    MaterializedView,
    /// A view.
    View,
}

/// The system catalog of one engine.
#[derive(Debug)]
pub struct PgCatalog {
    schema: Arc<dyn SchemaProvider>,
    statics: Arc<PgCatalogStaticTables>,
    functions: Vec<Arc<ScalarUDF>>,
}

impl PgCatalog {
    /// Reads the static tables. Build it once.
    ///
    /// # Errors
    /// If the static tables are damaged.
    pub fn new(relations: Arc<dyn Relations>) -> Result<Self, DataFusionError> {
        let statics = Arc::new(PgCatalogStaticTables::try_new()?);
        let schema = Arc::new(Catalog::new(Listed::new(relations), Arc::clone(&statics))?);
        Ok(Self { schema, statics, functions: shared_functions()? })
    }

    /// Gives a statement's context the schema and PostgreSQL's functions. What they say of the session is the
    /// client's.
    ///
    /// # Errors
    /// If the context's default catalog does not exist or takes no schema.
    pub fn register(&self, context: &SessionContext, client: &Client) -> Result<(), DataFusionError> {
        let default = context.state().config_options().catalog.default_catalog.clone();
        let catalog = context.catalog(&default);
        let missing = || DataFusionError::Configuration(format!("there is no catalog {default}"));
        catalog.ok_or_else(missing)?.register_schema(SCHEMA, Arc::clone(&self.schema))?;
        for function in &self.functions {
            context.register_udf(function.as_ref().clone());
        }
        for function in functions::of_session(client, &default) {
            context.register_udf(function);
        }
        context.register_udtf("pg_get_keywords", self.statics.pg_get_keywords.clone());
        CoerceIntArgsToBigInt::widen(context);
        let state = context.state_ref();
        let existing = state.read().clone();
        *state.write() = SessionStateBuilder::new_from_existing(existing)
            .with_type_planner(Arc::new(PgOidTypePlanner))
            .build();
        Ok(())
    }
}

/// The functions that are the same for every session, without those that every context has.
fn shared_functions() -> Result<Vec<Arc<ScalarUDF>>, DataFusionError> {
    let name = "stratus";
    let config = SessionConfig::new().with_default_catalog_and_schema(name, "public");
    let context = SessionContext::new_with_config(config);
    let before: HashSet<String> = context.state().scalar_functions().keys().cloned().collect();
    setup_pg_catalog(&context, name, EmptyContextProvider).map_err(|error| *error)?;
    let after = context.state();
    let new = after.scalar_functions().iter().filter(|(name, _)| !before.contains(*name));
    Ok(new.map(|(_, function)| Arc::clone(function)).collect())
}

/// Whether a statement needs the system catalog or one of PostgreSQL's functions.
pub fn mentions_catalog(statement: &str) -> bool {
    lexer::split(statement).is_ok_and(|pieces| pieces.iter().any(mentions))
}

fn mentions(piece: &Piece) -> bool {
    (0..piece.tokens.len()).any(|at| {
        let is_name = piece
            .tokens
            .get(at)
            .is_some_and(|token| matches!(token.kind, TokenKind::Word | TokenKind::QuotedName));
        let Some(word) = piece.value(at).filter(|_| is_name) else {
            return false;
        };
        let word = word.as_str();
        let is_call = || piece.written(at + 1) == Some("(");
        word.starts_with("pg_")
            || ["information_schema", "current_user", "session_user", "current_schema", "current_catalog"]
                .contains(&word)
            || ["regclass", "regtype", "regproc", "regprocedure", "regnamespace", "regrole", "oid"]
                .contains(&word)
            || (is_call() && (functions::is_postgresql(word) || CALLS.contains(&word)))
    })
}

/// Functions of the shared ones whose names do not begin with `pg_`.
const CALLS: &[&str] = &[
    "array_lower",
    "array_upper",
    "current_database",
    "current_schemas",
    "format_type",
    "has_any_column_privilege",
    "has_database_privilege",
    "has_schema_privilege",
    "has_table_privilege",
    "parse_ident",
    "quote_ident",
];

/// A query of the system catalog in words that the engine understands; `None` if it is none, or needs no
/// translation.
pub(super) fn translate(piece: &Piece) -> Option<String> {
    let reads = match piece.word(0).as_deref() {
        Some(verb) => ["select", "with", "values", "table", "explain"].contains(&verb),
        None => piece.written(0) == Some("("),
    };
    if !reads || !mentions(piece) {
        return None;
    }
    // What cannot be parsed here goes to the engine as it is, which says what is wrong with it.
    translated(&piece.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_queries_of_the_catalog_are_translated() {
        let translated = |text: &str| translate(&lexer::split(text).unwrap().remove(0));
        assert_eq!(translated("SELECT views FROM campaign_views WHERE version = 1"), None);
        assert_eq!(translated("CREATE MATERIALIZED VIEW v AS SELECT pg_backend_pid()"), None);
        assert_eq!(translated("SELECT 'pg_class' FROM t"), None);
        let text = translated("SELECT c.relname FROM pg_class c WHERE c.oid = 'a'::regclass").unwrap();
        assert!(text.contains("pg_catalog.pg_class"), "{text}");
        assert!(
            mentions_catalog(&text)
                && mentions_catalog("select version()")
                && !mentions_catalog("select version")
        );
    }
}
