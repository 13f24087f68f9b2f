//! Runs of the batch layer as the lake records them: who asked, how far it is, what came of it.
//!
//! A record is a request and telemetry, never truth: what is published is in the catalog. A record that is lost, or
//! that tells of an earlier moment, changes no answer.

use serde::{Deserialize, Serialize};

use crate::catalog::{RunKind, Version};
use crate::ids::{RunId, ViewId};

/// So many records of a view are kept.
pub const KEPT_RECORDS: usize = 100;

/// Why a run was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// Somebody asked: REFRESH MATERIALIZED VIEW.
    Request,
    /// The view's schedule.
    Schedule,
    /// The view has no version that joins on to its speed state: a new view, or one whose speed state was lost.
    First,
}

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum RunStatus {
    /// It was asked for; no batch layer has taken it up yet.
    Requested,
    /// A batch layer has taken it up; an earlier run of the view comes first.
    Queued,
    /// It waits for the speed layer to take the cut.
    WaitingForCut,
    /// It waits for the master dataset to absorb the cut, or for its turn to compute.
    WaitingForMaster,
    /// It computes.
    Computing {
        /// Events read so far; an estimate that only rises.
        events: u64,
        /// Events below the cut.
        of: u64,
    },
    /// The catalog lists its version.
    Published {
        /// The version.
        version: u32,
        /// Events that it was computed from.
        events: u64,
        /// Groups in it.
        groups: u64,
        /// How long it took, in milliseconds, from the cut to the publication.
        took_ms: u64,
    },
    /// It ended without a version.
    Failed {
        /// Five characters, as PostgreSQL's appendix A lists them.
        sqlstate: String,
        /// What happened.
        reason: String,
        /// More about it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
        /// What to do.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
    /// Its batch layer ended before it did.
    Interrupted,
}

impl RunStatus {
    /// The status of a run that published a version.
    pub fn published(version: &Version) -> Self {
        Self::Published {
            version: version.number,
            events: version.events,
            groups: version.groups,
            took_ms: version.took_ms,
        }
    }

    /// Whether nothing follows.
    pub const fn is_end(&self) -> bool {
        matches!(self, Self::Published { .. } | Self::Failed { .. } | Self::Interrupted)
    }

    /// The status in a word or two, for people.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Queued => "queued",
            Self::WaitingForCut => "waiting for the cut",
            Self::WaitingForMaster => "waiting for the master dataset",
            Self::Computing { .. } => "computing",
            Self::Published { .. } => "published",
            Self::Failed { .. } => "failed",
            Self::Interrupted => "interrupted",
        }
    }

    /// Where it stands on the way; what has ended stands last.
    const fn rank(&self) -> u8 {
        match self {
            Self::Requested => 0,
            Self::Queued => 1,
            Self::WaitingForCut => 2,
            Self::WaitingForMaster => 3,
            Self::Computing { .. } => 4,
            Self::Published { .. } | Self::Failed { .. } | Self::Interrupted => 5,
        }
    }
}

/// One run. Times are in milliseconds since the epoch, by the clock of whoever wrote them; they decide nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The run.
    pub id: RunId,
    /// The view that it recomputes.
    pub view: ViewId,
    /// How it computes.
    pub kind: RunKind,
    /// Why it was made.
    pub trigger: Trigger,
    /// When it was asked for.
    pub requested_ms: u64,
    /// The time of the schedule that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_ms: Option<u64>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<u64>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// Rises for as long as the run's batch layer lives, so that whoever waits can tell a long run from a dead one
    /// without comparing clocks.
    pub beat: u64,
    /// How far it is.
    #[serde(flatten)]
    pub status: RunStatus,
}

/// A step that a run cannot take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("run {run} is {from} and cannot become {to}")]
pub struct RunMisfit {
    /// The run.
    pub run: RunId,
    /// Where it stands.
    pub from: &'static str,
    /// Where it was to go.
    pub to: &'static str,
}

impl RunRecord {
    /// A run that is asked for now.
    pub fn requested(view: ViewId, trigger: Trigger, scheduled_ms: Option<u64>, now_ms: u64) -> Self {
        Self {
            id: RunId::new(),
            view,
            kind: RunKind::Full,
            trigger,
            requested_ms: now_ms,
            scheduled_ms,
            started_ms: None,
            ended_ms: None,
            beat: 0,
            status: RunStatus::Requested,
        }
    }

    /// The record after one step. Steps lead forward and may be left out; the progress of a computation rises; what
    /// has ended stays as it is.
    ///
    /// # Errors
    /// [`RunMisfit`] for any other step.
    pub fn step(&self, status: RunStatus, now_ms: u64) -> Result<Self, RunMisfit> {
        let forward = match (&self.status, &status) {
            (from, _) if from.is_end() => false,
            (RunStatus::Computing { events, .. }, RunStatus::Computing { events: next, .. }) => {
                next >= events
            }
            (from, to) => to.rank() > from.rank(),
        };
        if !forward {
            return Err(RunMisfit { run: self.id, from: self.status.name(), to: status.name() });
        }
        let begins =
            status.rank() >= RunStatus::WaitingForCut.rank() && !matches!(status, RunStatus::Interrupted);
        Ok(Self {
            started_ms: self.started_ms.or_else(|| begins.then_some(now_ms)),
            ended_ms: status.is_end().then_some(now_ms),
            beat: self.beat + 1,
            status,
            ..self.clone()
        })
    }

    /// The record with one more sign of life; the same if it has ended.
    #[must_use]
    pub fn alive(&self) -> Self {
        let beat = if self.status.is_end() { self.beat } else { self.beat + 1 };
        Self { beat, ..self.clone() }
    }
}

/// What becomes of a record that a batch layer finds when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// It has ended: nothing.
    Leave,
    /// It had not begun: it is taken up as if it had been asked for now.
    TakeUp(RunRecord),
    /// It had begun: it ends like this.
    End(RunRecord),
}

/// Decides over a record from before. `versions` are the view's; the catalog alone tells whether it was published.
pub fn recover(record: &RunRecord, versions: &[Version], now_ms: u64) -> Recovery {
    let end = |status| {
        let ended = Some(now_ms);
        Recovery::End(RunRecord { status, ended_ms: ended, beat: record.beat + 1, ..record.clone() })
    };
    let published = versions.iter().find(|version| version.run == Some(record.id));
    match (&record.status, published) {
        (RunStatus::Published { .. }, _) => Recovery::Leave,
        // Even if it is told to have failed: an answer of the lake may have been lost.
        (_, Some(version)) => end(RunStatus::published(version)),
        (status, None) if status.is_end() => Recovery::Leave,
        (RunStatus::Requested | RunStatus::Queued, None) => {
            let status = RunStatus::Queued;
            Recovery::TakeUp(RunRecord { status, beat: record.beat + 1, ..record.clone() })
        }
        _ => end(RunStatus::Interrupted),
    }
}

/// Of the records of a view, those that are too many: all but the newest, and never one of a run under way.
pub fn prunable(records: &[RunId], under_way: impl Fn(RunId) -> bool) -> Vec<RunId> {
    let mut oldest_first = records.to_vec();
    oldest_first.sort();
    let many = oldest_first.len().saturating_sub(KEPT_RECORDS);
    oldest_first.into_iter().take(many).filter(|run| !under_way(*run)).collect()
}

/// Where a view's schedule stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleState {
    /// The last scheduled time that needs no run any more: it had one, or was passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_ms: Option<u64>,
    /// The next scheduled time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::Generation;
    use crate::offsets::OffsetVector;

    fn record() -> RunRecord {
        RunRecord::requested(ViewId::new(), Trigger::Request, None, 1)
    }

    fn version_of(run: Option<RunId>) -> Version {
        Version {
            view: ViewId::new(),
            number: 7,
            parent: Some(6),
            cut: OffsetVector::zero(),
            generation: Generation::new(),
            fingerprint: "f".into(),
            descriptor: serde_json::Value::Null,
            files: Vec::new(),
            kind: RunKind::Full,
            groups: 3,
            events: 12,
            failed_rows: 0,
            published_ms: 0,
            took_ms: 5,
            run,
        }
    }

    fn failed() -> RunStatus {
        RunStatus::Failed { sqlstate: "58030".into(), reason: "disk".into(), detail: None, hint: None }
    }

    fn statuses() -> Vec<RunStatus> {
        vec![
            RunStatus::Requested,
            RunStatus::Queued,
            RunStatus::WaitingForCut,
            RunStatus::WaitingForMaster,
            RunStatus::Computing { events: 1, of: 9 },
            RunStatus::Computing { events: 5, of: 9 },
            RunStatus::published(&version_of(None)),
            failed(),
            RunStatus::Interrupted,
        ]
    }

    #[test]
    fn a_run_goes_its_way() {
        let mut run = record();
        for (at, status) in (2..).zip(&statuses()[1..7]) {
            run = run.step(status.clone(), at).unwrap();
        }
        assert_eq!((run.started_ms, run.ended_ms, run.beat), (Some(3), Some(7), 6));
        assert!(run.step(RunStatus::Interrupted, 9).is_err());
        assert_eq!(run.alive(), run);
        let back = record().step(RunStatus::Computing { events: 5, of: 9 }, 2).unwrap();
        assert!(back.step(RunStatus::Computing { events: 4, of: 9 }, 3).is_err());
        assert!(back.step(RunStatus::Queued, 3).is_err());
    }

    #[test]
    fn every_status_reads_back_as_it_was_written() {
        for status in statuses() {
            let run = RunRecord { status, ..record() };
            let json = serde_json::to_string(&run).unwrap();
            assert_eq!(serde_json::from_str::<RunRecord>(&json).unwrap(), run, "{json}");
        }
    }

    #[test]
    fn the_catalog_decides_what_became_of_a_run_whose_process_died() {
        for status in statuses() {
            let run = RunRecord { status: status.clone(), ..record() };
            let others = [version_of(None), version_of(Some(RunId::new()))];
            let unpublished = recover(&run, &others, 9);
            match status {
                RunStatus::Requested | RunStatus::Queued => {
                    let Recovery::TakeUp(taken) = unpublished else { panic!("{unpublished:?}") };
                    assert_eq!(taken.status, RunStatus::Queued);
                }
                status if status.is_end() => assert_eq!(unpublished, Recovery::Leave),
                _ => {
                    let Recovery::End(ended) = unpublished else { panic!("{unpublished:?}") };
                    assert_eq!((ended.status, ended.ended_ms), (RunStatus::Interrupted, Some(9)));
                }
            }
            let version = version_of(Some(run.id));
            match recover(&run, std::slice::from_ref(&version), 9) {
                Recovery::End(ended) => assert_eq!(ended.status, RunStatus::published(&version)),
                other => assert!(matches!(run.status, RunStatus::Published { .. }), "{other:?}"),
            }
        }
    }

    #[test]
    fn the_newest_records_stay_and_those_of_runs_under_way() {
        let runs: Vec<RunId> = (0..KEPT_RECORDS + 3).map(|_| RunId::new()).collect();
        assert_eq!(prunable(&runs, |_| false), runs[..3]);
        assert_eq!(prunable(&runs, |run| run == runs[1]), [runs[0], runs[2]]);
        assert!(prunable(&runs[3..], |_| false).is_empty());
    }

    proptest! {
        /// Whatever steps are tried in whatever order: a run never goes back, and an end is an end.
        #[test]
        fn no_steps_lead_back(picks in proptest::collection::vec(0usize..9, 0..30)) {
            let mut run = record();
            for (at, pick) in (0..).zip(picks) {
                let Ok(next) = run.step(statuses().swap_remove(pick), at) else { continue };
                prop_assert!(!run.status.is_end());
                prop_assert!(next.status.rank() >= run.status.rank() && next.beat > run.beat);
                prop_assert_eq!(next.ended_ms.is_some(), next.status.is_end());
                run = next;
            }
        }
    }
}
