//! Schema `stratus`: what the platform says of itself.

mod runs;
mod topologies;

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, new_empty_array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::datasource::{MemTable, TableProvider};
use datafusion::scalar::ScalarValue;
use stratus_seam::catalog::{CatalogState, Source, ViewDefinition};
use stratus_seam::gaps::Gap;
use stratus_seam::ledger::Ledger;
use stratus_seam::offsets::OffsetVector;
use stratus_seam::reading::choose;
use stratus_sql::cataloged::readable_versions;
use stratus_sql::{SqlError, sqlstate_of};

use crate::engine::Inner;
use crate::error::{ReadError, lake_error};
use crate::reading::ViewReading;

/// A table of schema `stratus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SystemTable {
    Sources,
    Views,
    Versions,
    Cuts,
    Lag,
    Gaps,
    Answer,
    Aggregates,
    Runs,
    Topologies,
    TopologyComponents,
    TopologyStreams,
}

/// What an answer stood for.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    view: String,
    version: u32,
    cut: OffsetVector,
    vector: OffsetVector,
    generation: String,
    txid: u64,
    failed_rows: u64,
    gaps: u64,
}

impl Answered {
    /// `gaps`: how many offsets below the answer's vector were lost of the view's source.
    pub(crate) fn of(reading: &ViewReading, gaps: u64) -> Self {
        Self {
            view: reading.view.name().to_owned(),
            version: reading.version.number,
            cut: reading.version.cut.clone(),
            vector: reading.choice.vector.clone(),
            generation: reading.generation().to_string(),
            txid: reading.choice.txid,
            failed_rows: reading.failed_rows(),
            gaps,
        }
    }
}

const TEXT: DataType = DataType::Utf8;
const BIGINT: DataType = DataType::Int64;
const INT: DataType = DataType::Int32;

fn timestamptz() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn text(value: impl ToString) -> ScalarValue {
    ScalarValue::Utf8(Some(value.to_string()))
}

fn bigint(value: u64) -> ScalarValue {
    ScalarValue::Int64(i64::try_from(value).ok())
}

fn int(value: u32) -> ScalarValue {
    ScalarValue::Int32(i32::try_from(value).ok())
}

fn at_ms(value: u64) -> ScalarValue {
    let micros = i64::try_from(value).ok().and_then(|ms| ms.checked_mul(1000));
    ScalarValue::TimestampMicrosecond(micros, Some("UTC".into()))
}

fn optional_ms(value: Option<u64>) -> ScalarValue {
    value.map_or(ScalarValue::TimestampMicrosecond(None, Some("UTC".into())), at_ms)
}

type Row = Vec<ScalarValue>;

impl SystemTable {
    pub(crate) const ALL: [Self; 12] = [
        Self::Sources,
        Self::Views,
        Self::Versions,
        Self::Cuts,
        Self::Lag,
        Self::Gaps,
        Self::Answer,
        Self::Aggregates,
        Self::Runs,
        Self::Topologies,
        Self::TopologyComponents,
        Self::TopologyStreams,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sources => "sources",
            Self::Views => "views",
            Self::Versions => "versions",
            Self::Cuts => "cuts",
            Self::Lag => "lag",
            Self::Gaps => "gaps",
            Self::Answer => "answer",
            Self::Aggregates => "aggregates",
            Self::Runs => "runs",
            Self::Topologies => "topologies",
            Self::TopologyComponents => "topology_components",
            Self::TopologyStreams => "topology_streams",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name)
    }

    pub(crate) fn schema(self) -> SchemaRef {
        let columns: Vec<(&str, DataType)> = match self {
            Self::Sources => vec![
                ("name", TEXT),
                ("id", TEXT),
                ("connector", TEXT),
                ("columns", TEXT),
                ("log", TEXT),
                ("start", TEXT),
            ],
            Self::Views => vec![
                ("name", TEXT),
                ("id", TEXT),
                ("source", TEXT),
                ("status", TEXT),
                ("version", INT),
                ("at", TEXT),
                ("sql", TEXT),
                ("created_at", timestamptz()),
                ("next_refresh", timestamptz()),
            ],
            Self::Versions => vec![
                ("view", TEXT),
                ("version", INT),
                ("parent", INT),
                ("kind", TEXT),
                ("cut", TEXT),
                ("events", BIGINT),
                ("groups", BIGINT),
                ("failed_rows", BIGINT),
                ("bytes", BIGINT),
                ("published_at", timestamptz()),
                ("took_ms", BIGINT),
                ("generation", TEXT),
                ("fingerprint", TEXT),
            ],
            Self::Cuts => vec![
                ("view", TEXT),
                ("epoch", INT),
                ("from", TEXT),
                ("to", TEXT),
                ("after_txid", BIGINT),
                ("failed_rows", BIGINT),
            ],
            Self::Lag => vec![
                ("source", TEXT),
                ("layer", TEXT),
                ("partition", INT),
                ("absorbed", BIGINT),
                ("log_end", BIGINT),
                ("behind", BIGINT),
                ("generation", TEXT),
                ("reason", TEXT),
            ],
            Self::Gaps => vec![
                ("source", TEXT),
                ("log", TEXT),
                ("partition", INT),
                ("from", BIGINT),
                ("to", BIGINT),
                ("offsets", BIGINT),
                ("found_at", timestamptz()),
            ],
            Self::Answer => vec![
                ("view", TEXT),
                ("version", INT),
                ("cut", TEXT),
                ("vector", TEXT),
                ("generation", TEXT),
                ("txid", BIGINT),
                ("failed_rows", BIGINT),
                ("gaps", BIGINT),
            ],
            Self::Aggregates => vec![("view", TEXT), ("position", INT), ("sql", TEXT), ("class", TEXT)],
            Self::Runs => runs::columns(),
            Self::Topologies => topologies::columns(),
            Self::TopologyComponents => topologies::component_columns(),
            Self::TopologyStreams => topologies::stream_columns(),
        };
        let fields: Vec<Field> =
            columns.into_iter().map(|(name, kind)| Field::new(name, kind, true)).collect();
        Arc::new(Schema::new(fields))
    }

    /// The table as it stands now.
    pub(crate) async fn provider(
        self,
        engine: &Inner,
        catalog: &CatalogState,
        last: &[Answered],
    ) -> Result<Arc<dyn TableProvider>, SqlError> {
        let rows = match self {
            Self::Sources => catalog.sources.values().map(source_row).collect(),
            Self::Views => view_rows(engine, catalog).await?,
            Self::Versions => version_rows(catalog),
            Self::Cuts => cut_rows(engine, catalog).await?,
            Self::Lag => lag_rows(engine, catalog).await?,
            Self::Gaps => gap_rows(catalog),
            Self::Answer => last.iter().map(answer_row).collect(),
            Self::Aggregates => aggregate_rows(engine, catalog).await?,
            Self::Runs => runs::rows(engine, catalog).await?,
            Self::Topologies => topologies::rows(&engine.parts.topologies),
            Self::TopologyComponents => topologies::component_rows(&engine.parts.topologies),
            Self::TopologyStreams => topologies::stream_rows(&engine.parts.topologies),
        };
        let schema = self.schema();
        let columns = (0..schema.fields().len())
            .map(|index| column(schema.field(index).data_type(), rows.iter().map(|row| row[index].clone())))
            .collect::<Result<Vec<_>, _>>()?;
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns)
            .map_err(|error| SqlError::new("XX000", error.to_string()))?;
        Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]]).map_err(|e| sqlstate_of(&e))?))
    }
}

fn column(kind: &DataType, values: impl ExactSizeIterator<Item = ScalarValue>) -> Result<ArrayRef, SqlError> {
    if values.len() == 0 {
        return Ok(new_empty_array(kind));
    }
    ScalarValue::iter_to_array(values).map_err(|e| sqlstate_of(&e))
}

fn source_row(source: &Source) -> Row {
    let columns: Vec<String> =
        source.columns.iter().map(|column| format!("{} {}", column.name, column.kind)).collect();
    vec![
        text(&source.name),
        text(source.id),
        text(format!("{:?}", source.connector).to_lowercase()),
        text(columns.join(", ")),
        text(&source.log),
        text(&source.start),
    ]
}

async fn ledger(engine: &Inner, source: &Source) -> Result<Option<Ledger>, SqlError> {
    let read = async { engine.parts.states.source(source.id).await?.ledger.read().await };
    read.await.map_err(|error| SqlError::from(&ReadError::from(error)))
}

/// The ledger of the source that a view reads, with the source's name.
async fn ledger_of(
    engine: &Inner,
    catalog: &CatalogState,
    view: &ViewDefinition,
) -> Result<(String, Option<Ledger>), SqlError> {
    match catalog.source(view.source) {
        Some(source) => Ok((source.name.clone(), ledger(engine, source).await?)),
        None => Ok((view.source.to_string(), None)),
    }
}

async fn view_rows(engine: &Inner, catalog: &CatalogState) -> Result<Vec<Row>, SqlError> {
    let mut rows = Vec::new();
    for view in catalog.views.values() {
        let (source, ledger) = ledger_of(engine, catalog, view).await?;
        let compiled = engine.view(view, catalog).await?;
        let versions = readable_versions(catalog, view.id, compiled.fingerprint());
        let cuts: Vec<OffsetVector> = versions.iter().map(|version| version.cut.clone()).collect();
        let choice = ledger.map(|ledger| choose(&ledger, view.id, &cuts, &OffsetVector::zero()));
        let (status, version, at) = match choice {
            None => ("waiting: the speed layer of its source has not begun".to_owned(), None, None),
            Some(Err(why)) => (format!("waiting: {why}"), None, None),
            Some(Ok(choice)) => ("ready".to_owned(), versions.get(choice.version), Some(choice.vector)),
        };
        rows.push(vec![
            text(&view.name),
            text(view.id),
            text(source),
            text(status),
            version.map_or(ScalarValue::Int32(None), |version| int(version.number)),
            at.map_or(ScalarValue::Utf8(None), text),
            text(&view.sql),
            at_ms(view.created_ms),
            optional_ms(runs::next_refresh(engine, view).await?),
        ]);
    }
    Ok(rows)
}

fn version_rows(catalog: &CatalogState) -> Vec<Row> {
    let row = |view: &ViewDefinition, version: &stratus_seam::catalog::Version| {
        vec![
            text(&view.name),
            int(version.number),
            version.parent.map_or(ScalarValue::Int32(None), int),
            text(format!("{:?}", version.kind).to_lowercase()),
            text(&version.cut),
            bigint(version.events),
            bigint(version.groups),
            bigint(version.failed_rows),
            bigint(version.files.iter().map(|file| file.bytes).sum()),
            at_ms(version.published_ms),
            bigint(version.took_ms),
            text(version.generation),
            text(&version.fingerprint),
        ]
    };
    let rows = |view: &ViewDefinition| -> Vec<Row> {
        catalog.versions_of(view.id).iter().map(|version| row(view, version)).collect()
    };
    catalog.views.values().flat_map(rows).collect()
}

async fn cut_rows(engine: &Inner, catalog: &CatalogState) -> Result<Vec<Row>, SqlError> {
    let mut rows = Vec::new();
    for view in catalog.views.values() {
        let (_, ledger) = ledger_of(engine, catalog, view).await?;
        let epochs = ledger.and_then(|ledger| ledger.views.get(&view.id).cloned());
        for epoch in epochs.iter().flat_map(|epochs| &epochs.epochs) {
            rows.push(vec![
                text(&view.name),
                int(epoch.number),
                text(&epoch.from),
                epoch.to.as_ref().map_or(ScalarValue::Utf8(None), text),
                bigint(epoch.after),
                bigint(epoch.failed_rows),
            ]);
        }
    }
    Ok(rows)
}

/// How many partitions a source's log has, and where it ends.
async fn log_end(engine: &Inner, source: &Source) -> Result<(u32, OffsetVector), SqlError> {
    let log = engine.parts.logs.log(source).await?;
    let told = |error: stratus_seam::log::LogError| SqlError::new("58030", error.to_string());
    Ok((log.partitions().await.map_err(told)?, log.end().await.map_err(told)?))
}

async fn lag_rows(engine: &Inner, catalog: &CatalogState) -> Result<Vec<Row>, SqlError> {
    let mut rows = Vec::new();
    for source in catalog.sources.values() {
        let master = engine.master(source).await?.absorbed().await.map_err(|error| lake_error(&error))?;
        // One log or store that is away must not hide how far everything else is.
        let unknown = |what: &str, error: &SqlError| {
            tracing::warn!(source = source.name, "stratus.lag: the {what} cannot be asked: {error}");
        };
        let ledger = ledger(engine, source).await.unwrap_or_else(|error| {
            unknown("state store", &error);
            None
        });
        let (partitions, end) = match log_end(engine, source).await {
            Ok((partitions, end)) => (partitions, Some(end)),
            Err(error) => {
                unknown("log", &error);
                (master.iter().map(|(partition, _)| partition + 1).max().unwrap_or(1), None)
            }
        };
        let has_views = catalog.views_of(source.id).next().is_some();
        let speed = ledger.as_ref().filter(|_| has_views);
        for partition in 0..partitions {
            let mut row = |layer: &str, at: &OffsetVector, ledger: Option<&Ledger>| {
                let at = at.get(partition);
                let end = end.as_ref().map(|end| end.get(partition));
                let known = |offset: Option<u64>| offset.map_or(ScalarValue::Int64(None), bigint);
                rows.push(vec![
                    text(&source.name),
                    text(layer),
                    int(partition),
                    bigint(at),
                    known(end),
                    known(end.map(|end| end.saturating_sub(at))),
                    ledger.map_or(ScalarValue::Utf8(None), |ledger| text(ledger.generation)),
                    ledger.map_or(ScalarValue::Utf8(None), |ledger| text(&ledger.reason)),
                ]);
            };
            row("ingest", &master, None);
            if let Some(ledger) = speed {
                row("speed", &ledger.committed_to, Some(ledger));
            }
        }
    }
    Ok(rows)
}

fn gap_rows(catalog: &CatalogState) -> Vec<Row> {
    let row = |source: &Source, gap: &Gap| {
        vec![
            text(&source.name),
            text(&gap.log),
            int(gap.partition),
            bigint(gap.from),
            bigint(gap.to),
            bigint(gap.to - gap.from),
            at_ms(gap.found_ms),
        ]
    };
    let rows = |source: &Source| -> Vec<Row> {
        catalog.gaps_of(source.id).iter().map(|gap| row(source, gap)).collect()
    };
    catalog.sources.values().flat_map(rows).collect()
}

async fn aggregate_rows(engine: &Inner, catalog: &CatalogState) -> Result<Vec<Row>, SqlError> {
    let mut rows = Vec::new();
    for definition in catalog.views.values() {
        let view = engine.view(definition, catalog).await?;
        for (position, aggregate) in (1..).zip(view.aggregates()) {
            let class = format!("{:?}", aggregate.class).to_lowercase();
            rows.push(vec![text(&definition.name), int(position), text(&aggregate.sql), text(class)]);
        }
    }
    Ok(rows)
}

fn answer_row(answer: &Answered) -> Row {
    vec![
        text(&answer.view),
        int(answer.version),
        text(&answer.cut),
        text(&answer.vector),
        text(&answer.generation),
        bigint(answer.txid),
        bigint(answer.failed_rows),
        bigint(answer.gaps),
    ]
}
