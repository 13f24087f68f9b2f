//! The runs that are queued or under way in this process.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stratus_seam::ids::{RunId, ViewId};

use crate::tracker::Tracker;

/// The runs that are queued or under way in this process.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// All of them.
    runs: Mutex<BTreeMap<RunId, Arc<Tracker>>>,
    /// Those of each view that have not begun, in the order in which they came.
    queues: Mutex<HashMap<ViewId, VecDeque<Arc<Tracker>>>>,
}

fn held<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Work {
    /// A run that begins at once.
    pub(crate) fn begin(&self, tracker: Tracker) -> Arc<Tracker> {
        let tracker = Arc::new(tracker);
        held(&self.runs).insert(tracker.record().id, Arc::clone(&tracker));
        tracker
    }

    /// A run that waits for its turn.
    pub(crate) fn queue(&self, tracker: Tracker) -> Arc<Tracker> {
        let tracker = self.begin(tracker);
        held(&self.queues).entry(tracker.record().view).or_default().push_back(Arc::clone(&tracker));
        tracker
    }

    /// The run of a view that is next.
    pub(crate) fn next(&self, view: ViewId) -> Option<Arc<Tracker>> {
        held(&self.queues).get_mut(&view).and_then(VecDeque::pop_front)
    }

    /// The queued runs of views that are no longer there.
    pub(crate) fn of_others(&self, is_there: impl Fn(ViewId) -> bool) -> Vec<Arc<Tracker>> {
        let mut queues = held(&self.queues);
        let gone: Vec<ViewId> = queues.keys().copied().filter(|view| !is_there(*view)).collect();
        gone.into_iter().filter_map(|view| queues.remove(&view)).flatten().collect()
    }

    /// Whether a run of the view is queued or under way.
    pub(crate) fn is_busy(&self, view: ViewId) -> bool {
        held(&self.runs).values().any(|tracker| tracker.record().view == view)
    }

    /// Whether a run is queued or under way.
    pub(crate) fn has(&self, run: RunId) -> bool {
        held(&self.runs).contains_key(&run)
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Tracker>> {
        held(&self.runs).values().cloned().collect()
    }

    /// A run has ended.
    pub(crate) fn end(&self, run: RunId) {
        held(&self.runs).remove(&run);
    }

    /// What forgets a run whose caller went away.
    pub(crate) fn listed(&self, tracker: &Tracker) -> Listed<'_> {
        Listed { work: self, run: tracker.record().id }
    }
}

/// Forgets a run when it is dropped.
#[derive(Debug)]
pub(crate) struct Listed<'a> {
    work: &'a Work,
    run: RunId,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.work.end(self.run);
    }
}
