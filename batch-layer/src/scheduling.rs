//! Keeping the views' schedules.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::time::Duration;

use stratus_seam::catalog::ViewDefinition;
use stratus_seam::catalog_log::now_ms;
use stratus_seam::ids::ViewId;
use stratus_seam::runs::{RunRecord, ScheduleState, Trigger};

use crate::error::BatchError;
use crate::run::BatchLayer;
use crate::schedule::Schedule;

/// Between two looks at the clock.
const POLL: Duration = Duration::from_millis(500);
/// After a look that failed.
const BACKOFF: Duration = Duration::from_secs(5);

/// A schedule that is kept, and where it stands.
#[derive(Debug)]
struct Kept {
    schedule: Schedule,
    /// The last time that needs no run any more, or when the view was created.
    settled_ms: u64,
    written: ScheduleState,
}

impl BatchLayer {
    /// Queues a run for every scheduled time.
    pub(crate) async fn keep_schedules(&self) -> Infallible {
        let mut kept: HashMap<ViewId, Option<Kept>> = HashMap::new();
        loop {
            let pause = match self.look_at_the_clock(&mut kept).await {
                Ok(()) => POLL,
                Err(error) => {
                    tracing::warn!("schedules cannot be kept, which will be tried again: {error}");
                    BACKOFF
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn look_at_the_clock(&self, kept: &mut HashMap<ViewId, Option<Kept>>) -> Result<(), BatchError> {
        let catalog = self.catalog.seen();
        kept.retain(|view, _| catalog.view(*view).is_some());
        for view in catalog.views.values() {
            let kept = match kept.entry(view.id) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(self.schedule_of(view).await?),
            };
            if let Some(kept) = kept {
                self.keep(view, kept).await?;
            }
        }
        Ok(())
    }

    /// The schedule of a view, and where it stands by what the lake knows.
    async fn schedule_of(&self, view: &ViewDefinition) -> Result<Option<Kept>, BatchError> {
        let schedule = match Schedule::of(&view.options) {
            Ok(Some(schedule)) => schedule,
            Ok(None) => return Ok(None),
            Err(error) => {
                // It was checked when the view was created: another version of this program knew it.
                tracing::error!(view = view.name, "the view is not recomputed of itself: {error}");
                return Ok(None);
            }
        };
        let written = self.records.schedule(view.id).await?.unwrap_or_default();
        // A process may have died between the record of a run and this.
        let records = self.records.of_view(view.id).await?;
        let of_runs = records.iter().filter_map(|record| record.scheduled_ms).max();
        let settled_ms = written.settled_ms.max(of_runs).unwrap_or(view.created_ms).max(view.created_ms);
        Ok(Some(Kept { schedule, settled_ms, written }))
    }

    async fn keep(&self, view: &ViewDefinition, kept: &mut Kept) -> Result<(), BatchError> {
        let outlook = kept.schedule.outlook(kept.settled_ms, now_ms(), self.work.is_busy(view.id));
        if let Some(due) = outlook.due_ms {
            self.queue(RunRecord::requested(view.id, Trigger::Schedule, Some(due), now_ms())).await;
        }
        kept.settled_ms = outlook.settled_ms.unwrap_or(kept.settled_ms);
        let settled_ms = outlook.settled_ms.or(kept.written.settled_ms);
        let state = ScheduleState { settled_ms, next_ms: outlook.next_ms };
        if state != kept.written {
            self.records.write_schedule(view.id, &state).await?;
            kept.written = state;
        }
        Ok(())
    }
}
