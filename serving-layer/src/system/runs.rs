//! `stratus.runs`: the records of runs, as the batch layer keeps them in the lake.

use datafusion::arrow::datatypes::DataType;
use datafusion::scalar::ScalarValue;
use stratus_seam::catalog::{CatalogState, ViewDefinition};
use stratus_seam::runs::{RunRecord, RunStatus};
use stratus_sql::SqlError;

use super::{BIGINT, INT, Row, TEXT, at_ms, bigint, int, optional_ms, text, timestamptz};
use crate::engine::Inner;
use crate::error::lake_error;

/// The columns of `stratus.runs`.
pub(super) fn columns() -> Vec<(&'static str, DataType)> {
    vec![
        ("view", TEXT),
        ("run", TEXT),
        ("kind", TEXT),
        ("trigger", TEXT),
        ("status", TEXT),
        ("progress", TEXT),
        ("scheduled_at", timestamptz()),
        ("requested_at", timestamptz()),
        ("started_at", timestamptz()),
        ("ended_at", timestamptz()),
        ("version", INT),
        ("events", BIGINT),
        ("groups", BIGINT),
        ("took_ms", BIGINT),
        ("sqlstate", TEXT),
        ("reason", TEXT),
    ]
}

/// The runs of the catalog's views, oldest first within a view; requests that nobody has taken up come last.
pub(super) async fn rows(engine: &Inner, catalog: &CatalogState) -> Result<Vec<Row>, SqlError> {
    let runs = engine.parts.lake.runs();
    // The requests first: one that is taken up meanwhile is then found as a record.
    let requests = runs.requests().await.map_err(|error| lake_error(&error))?;
    let mut rows = Vec::new();
    for view in catalog.views.values() {
        let mut records = runs.of_view(view.id).await.map_err(|error| lake_error(&error))?;
        for request in requests.iter().filter(|request| request.view == view.id) {
            if !records.iter().any(|record| record.id == request.id) {
                records.push(request.clone());
            }
        }
        rows.extend(records.iter().map(|record| row(view, record)));
    }
    Ok(rows)
}

fn row(view: &ViewDefinition, record: &RunRecord) -> Row {
    let (no_int, no_bigint, no_text) =
        (ScalarValue::Int32(None), ScalarValue::Int64(None), ScalarValue::Utf8(None));
    let progress = match &record.status {
        RunStatus::Computing { events, of } => text(format!("{events} of {of} events")),
        _ => no_text.clone(),
    };
    let (version, events, groups, took_ms) = match record.status {
        RunStatus::Published { version, events, groups, took_ms } => {
            (int(version), bigint(events), bigint(groups), bigint(took_ms))
        }
        _ => (no_int, no_bigint.clone(), no_bigint.clone(), no_bigint),
    };
    let (sqlstate, reason) = match &record.status {
        RunStatus::Failed { sqlstate, reason, .. } => (text(sqlstate), text(reason)),
        RunStatus::Interrupted => (no_text, text("the batch layer ended before the run did")),
        _ => (no_text.clone(), no_text),
    };
    vec![
        text(&view.name),
        text(record.id),
        text(format!("{:?}", record.kind).to_lowercase()),
        text(format!("{:?}", record.trigger).to_lowercase()),
        text(record.status.name()),
        progress,
        optional_ms(record.scheduled_ms),
        at_ms(record.requested_ms),
        optional_ms(record.started_ms),
        optional_ms(record.ended_ms),
        version,
        events,
        groups,
        took_ms,
        sqlstate,
        reason,
    ]
}

/// When a view is recomputed of itself next, as the batch layer last wrote; none without a schedule.
pub(super) async fn next_refresh(engine: &Inner, view: &ViewDefinition) -> Result<Option<u64>, SqlError> {
    if !view.options.contains_key("refresh") {
        return Ok(None);
    }
    let state = engine.parts.lake.runs().schedule(view.id).await.map_err(|error| lake_error(&error))?;
    Ok(state.and_then(|state| state.next_ms))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use stratus_seam::ids::{SourceId, ViewId};
    use stratus_seam::runs::Trigger;

    use super::*;

    #[test]
    fn every_row_has_the_declared_columns() {
        let view = ViewDefinition {
            id: ViewId::new(),
            name: "v".into(),
            source: SourceId::new(),
            dimensions: BTreeMap::new(),
            sql: String::new(),
            options: BTreeMap::new(),
            created_ms: 0,
        };
        let asked = RunRecord::requested(view.id, Trigger::Schedule, Some(5), 7);
        let failed =
            RunStatus::Failed { sqlstate: "57P03".into(), reason: "no cut".into(), detail: None, hint: None };
        for (status, cells) in [
            (RunStatus::Queued, vec![]),
            (RunStatus::Computing { events: 3, of: 9 }, vec!["3 of 9 events"]),
            (
                RunStatus::Published { version: 2, events: 9, groups: 4, took_ms: 11 },
                vec!["2", "9", "4", "11"],
            ),
            (failed, vec!["57P03", "no cut"]),
            (RunStatus::Interrupted, vec!["the batch layer ended before the run did"]),
        ] {
            let row = row(&view, &RunRecord { status, ..asked.clone() });
            let types: Vec<DataType> = row.iter().map(ScalarValue::data_type).collect();
            assert_eq!(types, columns().into_iter().map(|(_, kind)| kind).collect::<Vec<_>>());
            let shown: Vec<String> = row.iter().map(ToString::to_string).collect();
            assert!(cells.iter().all(|cell| shown.iter().any(|shown| shown == cell)), "{shown:?}");
        }
    }
}
