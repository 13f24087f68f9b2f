//! Says beside the work that the ledger's writer is there: a batch may take longer than the silence that one who
//! stands by waits for.

use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::standby::HEARTBEAT;
use crate::startup::Hold;
use crate::work::Work;

/// Beats until it is dropped.
#[derive(Debug)]
pub(crate) struct Heart(JoinHandle<()>);

impl Heart {
    /// Writes the ledger again whenever nothing was written for a while. Whoever lost it stops at once: the shards
    /// would refuse the rest.
    pub(crate) fn beat(work: Arc<Work>, hold: Arc<Hold>) -> Self {
        Self(tokio::spawn(async move {
            while !hold.is_over() {
                tokio::time::sleep(HEARTBEAT / 4).await;
                let beaten = hold.ledger.lock().await.keep_alive().await;
                if let Err(error) = beaten {
                    tracing::warn!(source = work.source(), "a sign of life could not be written: {error}");
                    work.failed(&hold, error);
                }
            }
        }))
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.0.abort();
    }
}
