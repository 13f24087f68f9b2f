//! Whether a source's batches go on, for those who watch over them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What fails for less than this is nobody's concern: it is tried again.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why nothing has been committed for a while, if that is so. Clones look at the same.
#[derive(Debug, Clone, Default)]
pub struct Standing(Arc<Mutex<Option<Trouble>>>);

#[derive(Debug)]
struct Trouble {
    since: Instant,
    why: String,
}

impl Standing {
    fn locked(&self) -> MutexGuard<'_, Option<Trouble>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something failed, and is tried again or recovered from.
    pub(crate) fn fails(&self, why: &dyn std::fmt::Display) {
        let mut trouble = self.locked();
        let since = trouble.as_ref().map_or_else(Instant::now, |trouble| trouble.since);
        *trouble = Some(Trouble { since, why: why.to_string() });
    }

    /// A batch that failed is tried again. Why it failed may be known from elsewhere, or from the log alone.
    pub(crate) fn tries_again(&self, txid: u64) {
        let why = || format!("txid {txid} fails and is tried again; the log says why");
        self.locked().get_or_insert_with(|| Trouble { since: Instant::now(), why: why() });
    }

    /// A batch was committed, or there is none to commit.
    pub(crate) fn goes_on(&self) {
        *self.locked() = None;
    }

    /// What has failed again and again for ten seconds, as a sentence without its end.
    pub fn stuck(&self) -> Option<String> {
        let trouble = self.locked();
        let trouble = trouble.as_ref().filter(|trouble| trouble.since.elapsed() >= PATIENCE)?;
        Some(format!("has committed nothing for {} s: {}", trouble.since.elapsed().as_secs(), trouble.why))
    }
}
