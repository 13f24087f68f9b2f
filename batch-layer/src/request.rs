//! Asking the batch layer for a run from any process, through the lake alone.

use std::time::Duration;

use stratus_lake::{LakeError, Runs};
use stratus_seam::catalog_log::{Catalog, now_ms};
use stratus_seam::ids::ViewId;
use stratus_seam::runs::{RunRecord, RunStatus, Trigger};
use stratus_sql::SqlError;
use tokio::time::Instant;

use crate::error::BatchError;

/// Between two looks at a record.
const POLL: Duration = Duration::from_millis(50);

/// Between two looks for a new view's first version.
const FIRST_POLL: Duration = Duration::from_millis(20);
/// So many of them come to a look at the records of its runs.
const LOOKS: usize = 10;

/// How long whoever asked for a run waits for the batch layer.
#[derive(Debug, Clone)]
pub struct AskPatience {
    /// For it to take the request up, which it does at once however much it has to do.
    pub taken_up: Duration,
    /// For a sign of life once it has; they come every second.
    pub alive: Duration,
}

impl Default for AskPatience {
    fn default() -> Self {
        Self { taken_up: Duration::from_secs(10), alive: Duration::from_secs(30) }
    }
}

/// What whoever asked for a run is to do.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Wait,
    /// Nobody has taken it up.
    GiveUp,
    Done(Box<RunRecord>),
    Failed(SqlError),
}

/// Decides over the record, if there is one yet, and how long nothing about it has changed.
fn judge(record: Option<&RunRecord>, unchanged: Duration, view: &str, patience: &AskPatience) -> Verdict {
    let Some(record) = record else {
        return if unchanged < patience.taken_up { Verdict::Wait } else { Verdict::GiveUp };
    };
    match &record.status {
        RunStatus::Published { .. } => Verdict::Done(Box::new(record.clone())),
        RunStatus::Failed { sqlstate, reason, detail, hint } => Verdict::Failed(SqlError {
            sqlstate: known_sqlstate(sqlstate),
            message: reason.clone(),
            detail: detail.clone(),
            hint: hint.clone(),
            position: None,
        }),
        RunStatus::Interrupted => Verdict::Failed(
            SqlError::new("55000", format!("the batch layer ended while it recomputed view \"{view}\""))
                .hint("the view goes on answering; ask again once the batch layer runs"),
        ),
        _ if unchanged >= patience.alive => Verdict::Failed(
            SqlError::new(
                "55000",
                format!(
                    "the batch layer has taken up the recompute of view \"{view}\" and gives no sign of life ({})",
                    record.status.name()
                ),
            )
            .hint("is it still running? SELECT * FROM stratus.runs shows how far it came"),
        ),
        _ => Verdict::Wait,
    }
}

/// Has a view recomputed: leaves a request in the lake and waits for the run to end. Dropping the future leaves the
/// run to go on.
///
/// # Errors
/// 42P01 if there is no such view; 55000 if no batch layer takes the request up, which is then withdrawn, if it ends
/// before the run does, or if it falls silent; what the run failed with; 58030 and the like for the lake.
pub async fn refresh(
    runs: &Runs,
    catalog: &Catalog,
    name: &str,
    patience: &AskPatience,
) -> Result<RunRecord, SqlError> {
    let lake = |error: LakeError| SqlError::from(BatchError::from(error));
    let catalog = catalog.refresh().await.map_err(|error| SqlError::from(BatchError::from(error)))?;
    let view =
        catalog.views.get(name).ok_or_else(|| SqlError::from(BatchError::NoSuchView(name.to_owned())))?;
    let request = RunRecord::requested(view.id, Trigger::Request, None, now_ms());
    runs.request(&request).await.map_err(lake)?;
    let (mut seen, mut changed): (Option<RunRecord>, Instant) = (None, Instant::now());
    let mut withdrawn = false;
    loop {
        let record = runs.read(view.id, request.id).await.map_err(lake)?;
        if record != seen {
            (seen, changed) = (record, Instant::now());
        }
        match judge(seen.as_ref(), changed.elapsed(), name, patience) {
            Verdict::Wait => tokio::time::sleep(POLL).await,
            Verdict::Done(record) => return Ok(*record),
            Verdict::Failed(error) => return Err(error),
            Verdict::GiveUp if withdrawn => {
                let message = format!(
                    "no batch layer took up the recompute of view \"{name}\" within {} s",
                    patience.taken_up.as_secs()
                );
                return Err(SqlError::new("55000", message)
                    .detail("the request was withdrawn; the view goes on answering")
                    .hint("start the batch layer (`stratus batch`, or `stratus up` for all layers) and ask again"));
            }
            Verdict::GiveUp => {
                runs.withdraw(request.id).await.map_err(lake)?;
                // It may have been taken up in the very moment: then its record is there, or comes at once.
                withdrawn = true;
                tokio::time::sleep(POLL * 4).await;
            }
        }
    }
}

/// Waits for the first version of a new view, for which nobody has to ask. Answers whether it is there, or the view is
/// gone: false if nobody works on it, or whoever did has fallen silent. A run that fails is made again, and is waited
/// for.
///
/// # Errors
/// 58030 and the like for the lake.
pub async fn first_version(
    runs: &Runs,
    catalog: &Catalog,
    view: ViewId,
    patience: Duration,
) -> Result<bool, SqlError> {
    let lake = |error: LakeError| SqlError::from(BatchError::from(error));
    let (mut seen, mut changed): (Option<RunRecord>, Instant) = (None, Instant::now());
    loop {
        // What the catalog says was so before the records are asked.
        for _ in 0..LOOKS {
            let catalog = catalog.refresh().await.map_err(|error| SqlError::from(BatchError::from(error)))?;
            if catalog.view(view).is_none() || !catalog.versions_of(view).is_empty() {
                return Ok(true);
            }
            tokio::time::sleep(FIRST_POLL).await;
        }
        let newest = runs.of_view(view).await.map_err(lake)?.pop();
        if newest != seen {
            (seen, changed) = (newest, Instant::now());
        }
        if changed.elapsed() >= patience {
            return Ok(false);
        }
    }
}

/// A SQLSTATE that was read from a record, as one that this program knows.
fn known_sqlstate(read: &str) -> &'static str {
    const KNOWN: [&str; 28] = [
        "0A000", "22000", "22003", "22012", "22023", "22P02", "22P04", "2BP01", "40001", "42000", "42601",
        "42602", "42701", "42702", "42703", "42704", "42803", "42804", "42883", "42P01", "42P07", "53200",
        "55000", "57014", "57P03", "58030", "72000", "XX001",
    ];
    KNOWN.into_iter().find(|known| *known == read).unwrap_or("XX000")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stratus_lake::Lake;

    use super::*;

    const SHORT: AskPatience =
        AskPatience { taken_up: Duration::from_millis(100), alive: Duration::from_millis(200) };

    fn record(status: RunStatus) -> RunRecord {
        RunRecord { status, ..RunRecord::requested(ViewId::new(), Trigger::Request, None, 0) }
    }

    #[test]
    fn whoever_asked_waits_for_an_end_or_for_silence() {
        let judged =
            |status, unchanged| judge(Some(&record(status)), Duration::from_millis(unchanged), "v", &SHORT);
        assert_eq!(judge(None, Duration::from_millis(99), "v", &SHORT), Verdict::Wait);
        assert_eq!(judge(None, Duration::from_millis(100), "v", &SHORT), Verdict::GiveUp);
        assert_eq!(judged(RunStatus::Queued, 199), Verdict::Wait);
        let Verdict::Failed(silent) = judged(RunStatus::WaitingForCut, 200) else { panic!() };
        assert_eq!(silent.sqlstate, "55000");
        assert!(silent.message.contains("waiting for the cut"), "{silent}");
        let Verdict::Failed(interrupted) = judged(RunStatus::Interrupted, 0) else { panic!() };
        assert_eq!(interrupted.sqlstate, "55000");
        let failed = RunStatus::Failed {
            sqlstate: "57P03".into(),
            reason: "no cut".into(),
            detail: None,
            hint: Some("start it".into()),
        };
        assert_eq!(judged(failed, 0), Verdict::Failed(SqlError::new("57P03", "no cut").hint("start it")));
        let published = RunStatus::Published { version: 2, events: 1, groups: 1, took_ms: 1 };
        assert!(matches!(judged(published, 900), Verdict::Done(_)));
        assert_eq!(known_sqlstate("99999"), "XX000");
    }

    #[tokio::test]
    async fn a_view_that_is_not_there_leaves_no_request() {
        let lake = Lake::open("memory://").unwrap();
        let catalog = Catalog::new(Arc::new(lake.catalog()));
        let error = refresh(&lake.runs(), &catalog, "v", &SHORT).await.unwrap_err();
        assert_eq!(error.sqlstate, "42P01");
        assert!(lake.runs().requests().await.unwrap().is_empty());
    }
}
