//! One client's session: names are resolved anew for every statement, so that each sees one state of the catalog
//! and, of every source, one T.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use datafusion::arrow::datatypes::DataType;
use datafusion::catalog::MemorySchemaProvider;
use datafusion::common::TableReference;
use datafusion::common::config::Dialect;
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::{TableProvider, ViewTable, provider_as_source};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;
use stratus_seam::catalog::CatalogState;
use stratus_seam::ids::SourceId;
use stratus_sql::cataloged::readable_versions;
use stratus_sql::ddl::{self, Statement};
use stratus_sql::{SqlError, sqlstate_of};

use crate::engine::Engine;
use crate::error::{ReadError, lake_error};
use crate::pg::catalog::mentions_catalog;
use crate::reading::{self, Candidate, Freshness, ViewReading};
use crate::relation::{Relation, Side, resolve};
use crate::service::{Answer, Client, Described, Notice, SqlSession};
use crate::speed_table::SpeedTable;
use crate::system::{Answered, SystemTable};

/// Between two tries of a read that has to wait or was overtaken.
const RETRY: Duration = Duration::from_millis(20);

/// One client's session.
#[derive(Debug)]
pub(crate) struct Session {
    engine: Engine,
    client: Client,
    /// What the last answer stood for, for `stratus.answer`.
    last: Mutex<Vec<Answered>>,
}

/// Whether a statement's tables must have rows, or just columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Describe,
    Run,
}

/// Why a statement was not started.
enum Failure {
    /// A later try may succeed: the read was overtaken, or waits for speed state that is being rebuilt.
    Passing(SqlError),
    /// It will not.
    Final(SqlError),
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Self {
        Self::Final(error)
    }
}

impl From<&ReadError> for Failure {
    fn from(error: &ReadError) -> Self {
        if error.passes() { Self::Passing(error.into()) } else { Self::Final(error.into()) }
    }
}

impl From<Failure> for SqlError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Passing(error) | Failure::Final(error) => error,
        }
    }
}

/// A statement with its names resolved.
struct Planned {
    context: SessionContext,
    plan: LogicalPlan,
    readings: Vec<(SourceId, Arc<ViewReading>)>,
}

impl Session {
    pub(crate) fn new(engine: Engine, client: Client) -> Self {
        Self { engine, client, last: Mutex::default() }
    }

    /// The names that a statement mentions, as tables of a fresh context, and its logical plan.
    async fn plan(&self, statement: &str, purpose: Purpose) -> Result<Planned, Failure> {
        let context = self.engine.0.context();
        let state = context.state();
        let parsed = state.sql_to_statement(statement, &Dialect::PostgreSQL).map_err(|e| sqlstate_of(&e))?;
        let references = state.resolve_table_references(&parsed).map_err(|e| sqlstate_of(&e))?;
        if mentions_catalog(statement) {
            self.engine.0.pg_catalog.register(&context, &self.client).map_err(|e| sqlstate_of(&e))?;
        }
        let catalog = self.engine.0.catalog().await?;
        let mut found = BTreeMap::new();
        for reference in references {
            match reference.schema().unwrap_or("public") {
                "public" => {
                    // A name that is not found is left to the planner, whose error knows where it stands.
                    if let Some(relation) = resolve(&catalog, reference.table()) {
                        found.insert(reference.table().to_owned(), relation);
                    }
                }
                "stratus" => self.register_system(&context, &catalog, reference.table(), purpose).await?,
                _ => {}
            }
        }
        let readings = match purpose {
            Purpose::Run => self.open_readings(&catalog, &found).await?,
            Purpose::Describe => HashMap::new(),
        };
        for (name, relation) in &found {
            let provider = match purpose {
                Purpose::Run => self.provider(relation, &readings).await?,
                Purpose::Describe => self.columns(relation, &catalog).await?,
            };
            let name = TableReference::full("stratus", "public", name.as_str());
            context.register_table(name, provider).map_err(|e| sqlstate_of(&e))?;
        }
        let plan = context.state().statement_to_plan(parsed).await.map_err(|e| sqlstate_of(&e))?;
        readable(&plan)?;
        let readings = readings.into_values().collect();
        Ok(Planned { context, plan, readings })
    }

    async fn register_system(
        &self,
        context: &SessionContext,
        catalog: &CatalogState,
        name: &str,
        purpose: Purpose,
    ) -> Result<(), SqlError> {
        let Some(table) = SystemTable::named(name) else { return Ok(()) };
        let provider: Arc<dyn TableProvider> = match purpose {
            Purpose::Describe => Arc::new(EmptyTable::new(table.schema())),
            Purpose::Run => {
                let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
                table.provider(&self.engine.0, catalog, &last).await?
            }
        };
        if let Some(stratus) = context.catalog("stratus")
            && stratus.schema("stratus").is_none()
        {
            let schema = Arc::new(MemorySchemaProvider::new());
            stratus.register_schema("stratus", schema).map_err(|e| sqlstate_of(&e))?;
        }
        let name = TableReference::full("stratus", "stratus", name);
        context.register_table(name, provider).map_err(|e| sqlstate_of(&e))?;
        Ok(())
    }

    /// Opens every view that the statement reads; those of one source at one T. Waits, within bounds, for speed
    /// state that is being rebuilt.
    async fn open_readings(
        &self,
        catalog: &CatalogState,
        found: &BTreeMap<String, Relation>,
    ) -> Result<HashMap<String, (SourceId, Arc<ViewReading>)>, Failure> {
        let mut by_source: BTreeMap<SourceId, BTreeMap<String, Candidate>> = BTreeMap::new();
        for relation in found.values() {
            if let Relation::View(definition, _) = relation {
                let view = self.engine.0.view(definition, catalog).await?;
                let versions = readable_versions(catalog, definition.id, view.fingerprint());
                let candidate = Candidate { id: definition.id, view, versions };
                by_source.entry(definition.source).or_default().insert(definition.name.clone(), candidate);
            }
        }
        let mut readings = HashMap::new();
        for (source, candidates) in by_source {
            let (names, candidates): (Vec<String>, Vec<Candidate>) = candidates.into_iter().unzip();
            let state = self.engine.0.parts.states.source(source).await;
            let state = state.map_err(|error| Failure::from(&ReadError::from(error)))?;
            let opened = reading::open(&state, &candidates, &self.freshness(source)).await;
            let opened = opened.map_err(|error| Failure::from(&error))?;
            readings.extend(names.into_iter().zip(opened).map(|(name, reading)| (name, (source, reading))));
        }
        Ok(readings)
    }

    fn freshness(&self, source: SourceId) -> Freshness {
        let allowed = self.client.settings.get("stratus.allow_stale");
        let allow_stale = allowed.is_some_and(|value| matches!(value.as_str(), "on" | "true" | "1" | "yes"));
        Freshness { shown: self.engine.0.shown(source), allow_stale }
    }

    /// The table that stands for a relation's name.
    async fn provider(
        &self,
        relation: &Relation,
        readings: &HashMap<String, (SourceId, Arc<ViewReading>)>,
    ) -> Result<Arc<dyn TableProvider>, SqlError> {
        let lake = &self.engine.0.parts.lake;
        Ok(match relation {
            Relation::View(definition, side) => {
                let (_, reading) = readings
                    .get(&definition.name)
                    .ok_or_else(|| SqlError::new("XX000", "a view was resolved and not opened"))?;
                let batch = lake.version_provider(&reading.version.files, reading.schema());
                let plan = view_plan(&definition.name, *side, batch, reading).map_err(|e| sqlstate_of(&e))?;
                let plan = reading.view.merged_plan(plan)?;
                Arc::new(ViewTable::new(plan, Some(definition.sql.clone())))
            }
            Relation::Events(source) => {
                let snapshot = self.engine.0.master(source).await?.snapshot().await;
                snapshot.map_err(|error| lake_error(&error))?.events()
            }
            Relation::DeadLetters(source) => {
                let letters = self.engine.0.master(source).await?.dead_letters().await;
                letters.map_err(|error| lake_error(&error))?
            }
            Relation::Dimension(dimension) => {
                self.engine.0.parts.dimensions.table(&dimension.name, &dimension.hash).await?
            }
        })
    }

    /// A table with a relation's columns and no rows.
    async fn columns(
        &self,
        relation: &Relation,
        catalog: &CatalogState,
    ) -> Result<Arc<dyn TableProvider>, SqlError> {
        let schema = match relation {
            Relation::View(definition, _) => self.engine.0.view(definition, catalog).await?.output_schema(),
            Relation::Events(source) => stratus_seam::schema::event_schema(&source.columns),
            Relation::DeadLetters(_) => stratus_lake::dead_letter_schema(),
            Relation::Dimension(dimension) => stratus_seam::schema::arrow_schema(&dimension.columns),
        };
        Ok(Arc::new(EmptyTable::new(schema)))
    }

    /// Plans and starts a query. The speed layer's states are read here, before the first row.
    async fn start(
        &self,
        statement: &str,
        parameters: &[ScalarValue],
    ) -> Result<(SendableRecordBatchStream, Vec<Notice>), Failure> {
        let Planned { context, mut plan, readings } = self.plan(statement, Purpose::Run).await?;
        if !parameters.is_empty() {
            plan = plan.with_param_values(parameters.to_vec()).map_err(|e| sqlstate_of(&e))?;
        }
        let planned = match context.execute_logical_plan(plan).await {
            Ok(frame) => frame.create_physical_plan().await,
            Err(error) => Err(error),
        };
        let physical = planned.map_err(|error| match ReadError::within(&error) {
            Some(read) => Failure::from(read),
            None => Failure::Final(sqlstate_of(&error)),
        })?;
        let rows = execute_stream(physical, context.task_ctx()).map_err(|e| sqlstate_of(&e))?;
        let mut notices = Vec::new();
        if !readings.is_empty() {
            let catalog = self.engine.0.parts.catalog.seen();
            let answered = |(source, reading): &(SourceId, Arc<ViewReading>)| {
                Answered::of(reading, catalog.lost_below(*source, &reading.choice.vector))
            };
            let answered: Vec<Answered> = readings.iter().map(answered).collect();
            for (source, reading) in &readings {
                let older = !reading.choice.vector.covers(&self.engine.0.shown(*source));
                if older {
                    let message = format!(
                        "the answer stands for {}, which is older than one shown before",
                        reading.choice.vector
                    );
                    notices.push(Notice::warning("01000", message));
                }
                self.engine.0.show(*source, &reading.choice.vector);
            }
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = answered;
        }
        Ok((rows, notices))
    }
}

#[async_trait]
impl SqlSession for Session {
    async fn describe(&self, statement: &str, hints: &[Option<DataType>]) -> Result<Described, SqlError> {
        if command(statement)?.is_some() {
            return Ok(Described { parameters: Vec::new(), columns: None });
        }
        let planned = self.plan(statement, Purpose::Describe).await?;
        Described::of_plan(&planned.plan, hints)
    }

    async fn run(&self, statement: &str, parameters: Vec<ScalarValue>) -> Result<Answer, SqlError> {
        if let Some(command) = command(statement)? {
            let tag = tag(&command);
            self.engine.0.parts.administration.carry_out(command).await?;
            return Ok(Answer::Done { tag: tag.to_owned(), notices: Vec::new() });
        }
        let deadline = Instant::now() + self.engine.0.parts.patience;
        loop {
            match self.start(statement, &parameters).await {
                Err(Failure::Passing(_)) if Instant::now() < deadline => tokio::time::sleep(RETRY).await,
                Err(failure) => return Err(failure.into()),
                Ok((rows, notices)) => return Ok(Answer::Rows { rows, notices }),
            }
        }
    }
}

/// The statement as a command of the DDL; none for a query.
fn command(statement: &str) -> Result<Option<Statement>, SqlError> {
    let mut parsed = ddl::parse(statement)?;
    match (parsed.pop(), parsed.is_empty()) {
        (Some(only), true) => Ok(Some(only.statement).filter(|s| !matches!(s, Statement::Other))),
        (None, _) => Err(SqlError::new("42601", "the statement is empty")),
        (Some(_), false) => Err(SqlError::new("42601", "cannot run several statements at once")),
    }
}

/// The command's name in PostgreSQL's completion.
const fn tag(statement: &Statement) -> &'static str {
    match statement {
        Statement::CreateSource(_) | Statement::CreateDimension(_) => "CREATE TABLE",
        Statement::CreateView(_) => "CREATE MATERIALIZED VIEW",
        Statement::Drop(drop) => match drop.kind {
            ddl::DropKind::Table => "DROP TABLE",
            ddl::DropKind::MaterializedView => "DROP MATERIALIZED VIEW",
        },
        Statement::Refresh { .. } => "REFRESH MATERIALIZED VIEW",
        Statement::Other => "OK",
    }
}

/// The states that one name of a view asks for: one scan, or both under a union.
fn view_plan(
    name: &str,
    side: Side,
    batch: Arc<dyn TableProvider>,
    reading: &Arc<ViewReading>,
) -> datafusion::error::Result<LogicalPlan> {
    let scan = |suffix: &str, table: Arc<dyn TableProvider>| {
        LogicalPlanBuilder::scan(format!("{name}_{suffix}_states"), provider_as_source(table), None)
    };
    let speed: Arc<dyn TableProvider> = Arc::new(SpeedTable(Arc::clone(reading)));
    match side {
        Side::Batch => scan("batch", batch)?.build(),
        Side::Speed => scan("speed", speed)?.build(),
        Side::Merged => scan("batch", batch)?.union(scan("speed", speed)?.build()?)?.build(),
    }
}

/// Refuses what is no query: nothing here may change data or touch the server's files.
fn readable(plan: &LogicalPlan) -> Result<(), SqlError> {
    let refused =
        |what: &str, hint: &str| Err(SqlError::new("0A000", format!("{what} is not supported")).hint(hint));
    match plan {
        LogicalPlan::Dml(_) => refused(
            "changing rows",
            "events are appended to a source's log, over HTTP or by any program; views follow by themselves",
        ),
        LogicalPlan::Copy(_) => refused("COPY", "nothing here reads or writes the server's files"),
        LogicalPlan::Ddl(_) => {
            refused("this statement", "the statements that create and drop are in docs/sql.md")
        }
        LogicalPlan::Statement(_) => refused("this statement", "sessions have no state in the engine"),
        LogicalPlan::Explain(explain) => readable(&explain.plan),
        LogicalPlan::Analyze(analyze) => readable(&analyze.input),
        _ => Ok(()),
    }
}
